//! A virtual bash over a workspace: no host process, no host file, no network.
//!
//! [`Shell::run`] runs one command on an [`Overlay`]; what lasts between commands is a
//! [`ShellState`]. What is intentionally not there is listed in `docs/limits.md`.

mod braces;
mod cat;
mod commands;
mod curl;
mod filters;
mod find;
mod fs;
mod git;
mod grep;
mod head;
mod loops;
mod memory;
mod plain;
mod state;
mod streaming;
mod wc;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use bashkit::{
    Bash, ExecOptions, ExecutionLimits, FileSystem, MemoryLimits, SessionLimits, hooks::HookAction,
};
use tokio::sync::Notify;

pub use state::ShellState;

use crate::{
    deep,
    egress::Outside,
    workspace::{Overlay, WORKING_DIRECTORY},
};
use fs::WorkspaceFs;
use memory::Meter;

/// How long a command that does not listen may go on after it was told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// Longer than any command may run; [`ShellOptions::timeout`] ends it before.
const NEVER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rounds that the loops of one program of `awk` make.
const LOOPS: usize = 100_000_000;
/// Stack of the commands that are running inside of each other, in bytes. What one of them takes in
/// itself, and what the text between two of them nests, has the rest of [`deep::STACK`].
const NESTED: usize = 32 << 20;
/// Operators of one expression of `find`, `test` or `expr`.
const OPERATORS: usize = 2_000;
/// Bytes that the pipes and buffers of a command may hold together.
const LIVE_BYTES: u64 = 32 << 20;
/// Variables of a shell, in bytes.
const VARIABLE_BYTES: usize = 8 << 20;
/// Variables, functions and aliases that last from one command to the next, in bytes.
const STATE_BYTES: usize = 512 << 10;
/// What the crate writes to the standard error when a builtin stops early.
const CUT_SHORT: [&str; 3] = [
    "; output truncated",
    ": output exceeds byte limit",
    "; output may be truncated",
];

/// Bounds and surroundings of one command.
#[derive(Debug, Clone)]
pub struct ShellOptions {
    /// The command is ended after this; its exit code is then 124. Default 120 s.
    pub timeout: Duration,
    /// Standard output and standard error, each, in bytes; more is a failure. Default 8 MiB. The first
    /// command of a [`Shell`] fixes it.
    pub output_bytes: usize,
    /// Variables for this command, exported. They are not kept in the state.
    pub env: BTreeMap<String, String>,
    /// Working directory; default that of the state.
    pub cwd: Option<String>,
    /// The network that `git` and `curl` have. It knows what is allowed, and attaches credentials where
    /// no command sees them. Default none.
    pub outside: Option<Arc<dyn Outside>>,
}

impl Default for ShellOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            output_bytes: 8 << 20,
            env: BTreeMap::new(),
            cwd: None,
            outside: None,
        }
    }
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct ShellOutcome {
    /// Standard output; invalid UTF-8 is replaced.
    pub stdout: String,
    /// Standard error; invalid UTF-8 is replaced.
    pub stderr: String,
    /// 0 for success; 124 after a timeout; 137 when it took too much memory; 2 for a syntax error.
    pub exit_code: i32,
    /// The time was up. Writes of such a command should be dropped with their overlay.
    pub timed_out: bool,
    /// A limit cut the output short. The exit code is then never 0.
    pub truncated: bool,
    /// What the next command starts from.
    pub state: ShellState,
    /// Whether `state` is another one than the command was given.
    pub state_changed: bool,
}

/// Runs commands. Keeps one interpreter warm for the next command of the same conversation, so use
/// one `Shell` for each conversation; dropping it loses nothing but that.
#[derive(Default)]
pub struct Shell {
    /// Boxed, since an interpreter is several kilobytes large and changes hands a few times for each call.
    warm: Mutex<Option<Box<Session>>>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").finish_non_exhaustive()
    }
}

/// An interpreter and the state it stands in.
struct Session {
    bash: Bash,
    fs: Arc<WorkspaceFs>,
    state: Option<Arc<bashkit::ShellState>>,
    output_bytes: usize,
}

impl Session {
    fn lend(&mut self, command: &str) -> Option<loops::Lent> {
        if !loops::reads(command) {
            return None;
        }
        let mut state = self.bash.shell_state();
        let lent = loops::lend(&mut state, command)?;
        self.bash.restore_shell_state(&state);
        Some(lent)
    }

    /// The state in which a command has left it, when that is another one than before.
    fn changed(
        &mut self,
        before: &ShellState,
        options: &ShellOptions,
        lent: Option<loops::Lent>,
    ) -> Option<bashkit::ShellState> {
        let mut after = self.bash.shell_state();
        if let Some(lent) = lent {
            lent.back(&mut after);
            self.bash.restore_shell_state(&after);
        }
        let mut after = state::settle(after);
        for (name, value) in &options.env {
            if after.env.get(name) == Some(value) {
                after.env.remove(name);
                after.variables.remove(name);
            }
        }
        let before = before.0.as_deref();
        let same = before.is_some_and(|before| state::same(before, &after));
        (!same).then_some(after)
    }
}

/// What a command leaves of the state that it started from.
enum Leaves {
    /// All of it, as can be told from its text.
    All,
    /// That is to be seen. Aliases that were lent to it are taken back.
    Changed(Option<loops::Lent>),
}

/// Stops a command whose caller is gone.
struct Stop {
    meter: Arc<Meter>,
    wake: Arc<Notify>,
}

impl Stop {
    fn now(&self) {
        self.meter.cancel();
        self.wake.notify_one();
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.now();
    }
}

impl Shell {
    /// A shell without anything warm.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a command, on a thread of its own so that a busy loop starves nobody. Dropping the future
    /// stops it.
    ///
    /// The writes go to `overlay`; to be able to drop them, give a child. Whatever happens is an
    /// outcome: a syntax error, a limit and a timeout have an exit code and a message like any other
    /// failure.
    pub async fn run(
        &self,
        overlay: &Overlay,
        state: ShellState,
        command: &str,
        options: &ShellOptions,
    ) -> ShellOutcome {
        if let Some(range) = braces::oversized_range(command) {
            let message = format!(
                "bash: the range {range} has more than {} elements: use seq",
                braces::MAX_RANGE
            );
            return failure(String::new(), message, 1, state);
        }
        let mut session = self.session(&state, options);
        let fs = session.fs.clone();
        let flag = session.bash.cancellation_token();
        flag.store(false, Ordering::Relaxed);
        let meter = Meter::start(flag, options.timeout);
        if loops::reads(command) {
            meter.set_reads();
        }
        let stop = Stop {
            meter: meter.clone(),
            wake: Arc::new(Notify::new()),
        };
        fs.set(Some((overlay.clone(), meter.clone())));
        fs.set_outside(options.outside.clone());
        let notice = enter(&mut session, overlay, &state, options).await;
        let asked = notice.is_none() && options.env.is_empty() && options.cwd.is_none();
        let leaves = if asked && plain::leaves_state(&state, command) {
            Leaves::All
        } else {
            Leaves::Changed(session.lend(command))
        };
        let script = command.to_owned();
        let wake = stop.wake.clone();
        let runtime = tokio::runtime::Handle::current();
        let seen = Arc::new(Mutex::new((String::new(), String::new())));
        let partial = seen.clone();
        let mut task = pin!(deep::run(move || {
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = session.bash.exec_with_options(&script, watched(seen)) => Some(ended),
                    () = wake.notified() => None,
                }
            });
            (ended, session)
        }));
        let finished = match tokio::time::timeout(options.timeout, &mut task).await {
            Ok(finished) => Some(finished),
            Err(_) => {
                stop.now();
                // What it still writes must not be seen by anyone.
                fs.set(None);
                fs.set_outside(None);
                let _ = tokio::time::timeout(GRACE, task).await;
                None
            }
        };
        fs.set(None);
        fs.set_outside(None);
        let (stdout, mut stderr) =
            std::mem::take(&mut *partial.lock().unwrap_or_else(PoisonError::into_inner));
        let mut outcome = match (meter.stopped(), finished) {
            (Some(reason), _) => {
                push_line(&mut stderr, &reason);
                failure(stdout, stderr, 137, state)
            }
            (None, None) => {
                push_line(
                    &mut stderr,
                    &format!(
                        "Command timed out after {} seconds.",
                        seconds(options.timeout)
                    ),
                );
                ShellOutcome {
                    timed_out: true,
                    ..failure(stdout, stderr, 124, state)
                }
            }
            (None, Some(Some((Some(Ok(result)), session)))) => {
                self.finish(result, session, state, options, leaves)
            }
            (None, Some(Some((Some(Err(error)), _)))) => {
                let (code, message) = explain(&error, command);
                push_line(&mut stderr, &message);
                failure(stdout, stderr, code, state)
            }
            (None, Some(Some((None, _)) | None)) => {
                push_line(&mut stderr, "bash: the command ended unexpectedly");
                failure(stdout, stderr, 1, state)
            }
        };
        if let Some(notice) = notice {
            outcome.stderr.insert_str(0, &notice);
        }
        outcome
    }

    /// The warm interpreter when it stands in this state, else a new one.
    fn session(&self, state: &ShellState, options: &ShellOptions) -> Box<Session> {
        let warm = self
            .warm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let fits = |session: &Session| match (&session.state, &state.0) {
            (Some(here), Some(asked)) => {
                Arc::ptr_eq(here, asked) && session.output_bytes == options.output_bytes
            }
            _ => false,
        };
        if let Some(session) = warm.filter(|session| fits(session)) {
            return session;
        }
        let fs = Arc::new(WorkspaceFs::default());
        let mut bash = build(&fs, fs.clone(), options.output_bytes, Kind::Shell);
        if let Some(state) = &state.0 {
            bash.restore_shell_state(state);
        }
        Box::new(Session {
            bash,
            fs,
            state: state.0.clone(),
            output_bytes: options.output_bytes,
        })
    }

    fn finish(
        &self,
        result: bashkit::ExecResult,
        mut session: Box<Session>,
        before: ShellState,
        options: &ShellOptions,
        leaves: Leaves,
    ) -> ShellOutcome {
        let after = match leaves {
            Leaves::All => None,
            Leaves::Changed(lent) => session.changed(&before, options, lent),
        };
        let too_large = after
            .as_ref()
            .is_some_and(|after| state::size(after) > STATE_BYTES);
        let state_changed = after.is_some() && !too_large;
        let state = match after {
            Some(after) if !too_large => ShellState(Some(Arc::new(after))),
            Some(_) | None => before,
        };
        // A session that has run on stands in another state than the one that is kept.
        session.state = if too_large { None } else { state.0.clone() };
        let mut outcome = ShellOutcome {
            stdout: result.stdout.text_lossy().into_owned(),
            stderr: result.stderr.text_lossy().into_owned(),
            exit_code: result.exit_code,
            timed_out: false,
            truncated: result.stdout_truncated
                || result.stderr_truncated
                || result.stdout.len().max(result.stderr.len()) >= session.output_bytes,
            state,
            state_changed,
        };
        if outcome.truncated {
            let limit = session.output_bytes;
            push_line(
                &mut outcome.stderr,
                &format!("bash: output limit ({limit} bytes) exceeded; output truncated"),
            );
        }
        if too_large {
            push_line(
                &mut outcome.stderr,
                &format!(
                    "bash: variables and functions have more than {STATE_BYTES} bytes; those of this command are not kept for the next one"
                ),
            );
        }
        outcome.truncated |= CUT_SHORT
            .iter()
            .any(|notice| outcome.stderr.contains(notice));
        if outcome.truncated && outcome.exit_code == 0 {
            outcome.exit_code = 1;
        }
        if options.env.is_empty() && options.cwd.is_none() && !too_large {
            *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        }
        outcome
    }
}

/// Puts the interpreter into its working directory, with its variables; the notice says when that
/// directory is gone.
async fn enter(
    session: &mut Session,
    overlay: &Overlay,
    state: &ShellState,
    options: &ShellOptions,
) -> Option<String> {
    let asked = options.cwd.as_deref().unwrap_or(state.cwd());
    let exists = overlay.directory(asked).await.is_ok();
    let cwd = if exists { asked } else { WORKING_DIRECTORY };
    if cwd != state.cwd() {
        let mut moved = session.bash.shell_state();
        moved.cwd = PathBuf::from(cwd);
        moved.variables.insert("PWD".into(), cwd.into());
        session.bash.restore_shell_state(&moved);
    }
    for (name, value) in &options.env {
        session.bash.set_env(name, value);
    }
    (!exists).then(|| format!("bash: {asked}: no such directory; the command runs in {cwd}\n"))
}

/// Keeps what was printed, for a command that does not come to its end.
fn watched(seen: Arc<Mutex<(String, String)>>) -> ExecOptions {
    ExecOptions::new().streaming(Box::new(move |out, err| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.len() + seen.1.len() < (1 << 20) {
            seen.0.push_str(out);
            seen.1.push_str(err);
        }
    }))
}

/// What an interpreter is for.
#[derive(Clone, Copy)]
enum Kind {
    /// The commands of a call.
    Shell,
    /// What `awk` runs, at this depth of interpreters.
    Within(usize),
    /// One of the crate's own commands, which may take this long.
    Crate(Duration),
}

/// An interpreter over `files`, with our commands, or with nothing but the crate's own.
fn build(
    fs: &Arc<WorkspaceFs>,
    files: Arc<dyn FileSystem>,
    output_bytes: usize,
    kind: Kind,
) -> Bash {
    let (depth, time) = match kind {
        Kind::Shell => (Some(0), NEVER),
        Kind::Within(depth) => (Some(depth), NEVER),
        Kind::Crate(time) => (None, time),
    };
    let mut limits = ExecutionLimits::cli()
        .timeout(time)
        .max_work_units(u64::MAX)
        .max_aggregate_input_bytes(u64::MAX)
        .max_live_intermediate_bytes(LIVE_BYTES)
        .max_stdout_bytes(output_bytes)
        .max_stderr_bytes(output_bytes)
        .max_parser_operations(2_000_000)
        .max_word_split_fields(1_000_000)
        .max_word_split_bytes(32 << 20);
    limits.max_history_output_bytes = 1 << 20;
    if depth != Some(0) {
        // `awk` does not hear that its call was stopped in a loop with nothing in it.
        limits.max_loop_iterations = LOOPS;
        limits.max_total_loop_iterations = LOOPS;
    }
    let metered = fs.clone();
    let mut builder = Bash::builder()
        .fs(files)
        .username("agent")
        .hostname("bowline")
        .env("HOME", WORKING_DIRECTORY)
        .cwd(WORKING_DIRECTORY)
        .limits(limits)
        .session_limits(SessionLimits::unlimited())
        .memory_limits(
            MemoryLimits::default()
                .max_variable_count(100_000)
                .max_total_variable_bytes(VARIABLE_BYTES),
        );
    builder = builder.before_tool(Box::new(move |event| {
        let Some(meter) = metered.meter() else {
            return HookAction::Continue(event);
        };
        if let Some(why) = nested(&event.name, &event.args) {
            meter.stop_with(why.clone());
            return HookAction::Cancel(why);
        }
        if depth.is_some() {
            meter.started(&event.name, &event.args);
        }
        HookAction::Continue(event)
    }));
    let Some(depth) = depth else {
        return builder.build();
    };
    builder = builder
        .builtin_registry(find::registry(fs))
        .command("seq", commands::Seq(fs.clone()))
        .command("sleep", commands::Sleep)
        .command("yes", commands::Yes(fs.clone()));
    for (name, command) in streaming::all(fs, depth) {
        builder = builder.builtin(name, command);
    }
    builder.build()
}

/// Why a command may not start: the stack would not hold what it is in, or what it is told to do.
fn nested(name: &str, args: &[String]) -> Option<String> {
    if deep::used() > NESTED {
        return Some(format!(
            "bash: stopped: {name} is nested too deeply in commands, functions and scripts that run each other"
        ));
    }
    let name = name.rsplit('/').next().unwrap_or(name);
    let nests = |arg: &&String| {
        matches!(
            arg.as_str(),
            "(" | "!" | "-not" | "-o" | "-or" | "-a" | "-and"
        )
    };
    if matches!(name, "find" | "test" | "[" | "expr")
        && args.iter().filter(nests).count() > OPERATORS
    {
        return Some(format!(
            "bash: stopped: the expression of {name} has more than {OPERATORS} operators"
        ));
    }
    None
}

fn failure(stdout: String, stderr: String, exit_code: i32, state: ShellState) -> ShellOutcome {
    ShellOutcome {
        stdout,
        stderr,
        exit_code,
        timed_out: false,
        truncated: false,
        state,
        state_changed: false,
    }
}

/// Exit code and message of a command that the interpreter gave up.
fn explain(error: &bashkit::Error, command: &str) -> (i32, String) {
    match error {
        bashkit::Error::Parse { .. } => {
            let report = error.syntax_report("bash", command);
            (
                2,
                report
                    .unwrap_or_else(|| error.to_string())
                    .trim_end()
                    .to_owned(),
            )
        }
        bashkit::Error::ResourceLimit(limit @ bashkit::LimitExceeded::ExecutionBudget(_)) => {
            let next = "work on smaller pieces, or write to files";
            (1, format!("bash: stopped: {limit}; {next}"))
        }
        bashkit::Error::ResourceLimit(limit) => (1, format!("bash: stopped: {limit}")),
        other => (1, format!("bash: {other}")),
    }
}

fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds.fract() == 0.0 {
        format!("{seconds:.0}")
    } else {
        format!("{seconds}")
    }
}
