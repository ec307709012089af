//! `bowline code`.

mod folder;
mod lines;
mod promote;
mod repl;
mod rollback;
mod session;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bowline_agent::binding::{Binding, State, Web};
use bowline_runtime::Sources;
use bowline_sandbox::{
    egress::Allow,
    isolate::{Isolate, IsolateError, Limits, LogLevel, LogLine, Program, Status, Value},
    workspace::Overlay,
};
use bowline_store::Timestamp;
use clap::{Args, Subcommand};
use serde_json::json;

use folder::Folder;
use session::{Running, Session};

use super::{
    Global,
    fault::Fault,
    place::Place,
    terminal::{Paint, Terminal},
};
use crate::error::Error;

/// Run JavaScript or TypeScript in an isolate; print what an agent's code sees.
///
/// Code in an isolate reaches no files, no process, and no network but what is granted; it has the time and
/// the memory that its limits allow. Without a command it is a prompt, as `repl` is.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "Examples:\n  \
    bowline code\n  \
    bowline code --workspace . --binding tracker\n  \
    bowline code run sum.ts\n  \
    bowline code run report.ts --module lib/table.ts --input '{\"rows\": 3}'\n  \
    bowline code run tidy.ts --workspace . --binding github\n  \
    echo '[1, 2, 3].map((x) => x * 2)' | bowline code run -\n  \
    bowline code types triage > bowline.d.ts\n  \
    bowline code promote triage t1 open-todos --description 'Lists what is still to do'"
)]
pub(super) struct Code {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    with: With,
}

/// What code is run with.
#[derive(Debug, Args)]
struct With {
    /// A file that it may import, once for each; its name is its path as given here
    #[arg(long, value_name = "FILE")]
    module: Vec<PathBuf>,
    /// A binding of `bowline.toml` that it may call, once for each
    #[arg(long, value_name = "NAME")]
    binding: Vec<String>,
    /// A folder that it sees as `state`; what it changes there is written back when it completes, at a
    /// prompt after each line
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// A `host[:port][/path]` that `fetch` may reach, once for each; without one there is no `fetch`
    #[arg(long, value_name = "PATTERN")]
    egress: Vec<String>,
    /// Seconds that it may take, waiting included; each line of a prompt has them anew
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = range(1..=86_400))]
    wall: u64,
    /// Seconds of CPU time that it may use; each line of a prompt has them anew
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = range(0..=3_600))]
    cpu: u64,
    /// Memory that it may use, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = range(4..=512))]
    memory: u64,
}

fn range(of: std::ops::RangeInclusive<u64>) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(of)
}

impl With {
    fn limits(&self) -> Limits {
        Limits {
            wall: Duration::from_secs(self.wall),
            cpu: Duration::from_secs(self.cpu),
            memory: self.memory.saturating_mul(1 << 20),
            ..Limits::default()
        }
    }

    /// The folder, and its files for the code.
    async fn folder(&self) -> Result<(Option<Folder>, Option<Overlay>), Error> {
        let Some(path) = &self.workspace else {
            return Ok((None, None));
        };
        let mut folder = Folder::open(path)?;
        let files = folder.load().await?;
        Ok((Some(folder), Some(files)))
    }

    fn bindings(&self, global: &Global) -> Result<Vec<Arc<dyn Binding>>, Error> {
        let mut bindings: Vec<Arc<dyn Binding>> = Vec::new();
        if self.workspace.is_some() {
            bindings.push(Arc::new(State::new()));
        }
        let egress = Allow::new(&self.egress);
        let egress = egress.map_err(|error| Error::failure(error.code(), error.to_string(), ""))?;
        bindings.extend(crate::project::web(&egress));
        if self.binding.is_empty() {
            return Ok(bindings);
        }
        let place = Place::find(global)?;
        for name in &self.binding {
            bindings.push(place.project.binding(name)?);
        }
        Ok(bindings)
    }
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a file and print its result
    ///
    /// The file may be a module, statements, an expression or a function, as models write them. Its
    /// result is the value of the last expression, or of the function that it exports, as JSON.
    /// What it prints goes to standard error.
    Run {
        /// The file; `-` is standard input
        file: PathBuf,
        /// JSON that is passed to the function
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
        #[command(flatten)]
        with: With,
    },
    /// Type code and see what it gives
    ///
    /// A prompt in one isolate. What a line declares is there in the next, `await` works, code that is not
    /// finished goes on in the next line. Ctrl-C stops a line, which then leaves nothing behind; ctrl-D
    /// leaves. Values are shown on standard output, everything else on standard error. From a pipe, the
    /// exit code says whether all lines went well.
    Repl {
        #[command(flatten)]
        with: With,
    },
    /// Print what an agent's code sees, as TypeScript
    ///
    /// The declarations of its bindings, and in code mode of its tools and of `codemode`. Written into
    /// a file that ends with `.d.ts`, they let an editor check and complete the agent's tools.
    Types {
        /// The agent
        agent: String,
    },
    /// Undo what the last run of code in a conversation did outside
    ///
    /// Each call whose binding can undo it is undone, the last first. What cannot be undone is named. A run
    /// that waits for a person is rolled back with `bowline reject APPROVAL --rollback`, or ended first
    /// with `bowline abort`.
    Rollback(rollback::Rollback),
    /// Let an agent run code again that ran well
    ///
    /// The code of a run becomes a file `snippets/NAME.ts` of the agent's folder. From then on its code
    /// finds it with `codemode.search` and runs it with `codemode.run`. Only people promote: a model has no
    /// way to. The file is yours: read it, change it, and keep it with the agent.
    Promote(promote::Promote),
    /// List the snippets of an agent
    Snippets(promote::Snippets),
    /// Remove a snippet of an agent
    Remove(promote::Remove),
}

pub(super) async fn execute(
    args: &Code,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let (file, input, with) = match &args.what {
        None => return repl::repl(&args.with, global, terminal).await,
        Some(What::Repl { with }) => return repl::repl(with, global, terminal).await,
        Some(What::Types { agent }) => return types(agent, global, terminal),
        Some(What::Run { file, input, with }) => (file, input, with),
        Some(What::Rollback(args)) => return rollback::roll_back(args, global, terminal).await,
        Some(What::Promote(args)) => return promote::promote(args, global, terminal).await,
        Some(What::Snippets(args)) => return promote::list(args, global, terminal),
        Some(What::Remove(args)) => return promote::remove(args, global, terminal),
    };
    let program = program(file, &with.module)?;
    let input = match input {
        Some(text) => serde_json::from_str::<serde_json::Value>(text)
            .map(Value::from)
            .map_err(|error| Fault::Arguments(format!("--input is no JSON: {error}")))?,
        None => Value::Undefined,
    };
    let (mut folder, files) = with.folder().await?;
    let session = Session::open(with.bindings(global)?, false).await?;
    let limits = with.limits();
    let isolate = session.start(&program, input, &limits).await?;
    let mut print = |log: Vec<LogLine>| print(&log, terminal);
    let running = Running::new(&session, isolate, limits.wall, files.clone(), &mut print);
    let (ran, _) = running.run().await?;
    let code = finish(&program, &ran.isolate, terminal)?;
    if let (Some(folder), Some(files)) = (&mut folder, &files) {
        let (written, removed) = folder.save(files).await?;
        if written + removed > 0 {
            terminal.say(format_args!("{written} files written, {removed} removed"));
        }
    }
    Ok(code)
}

fn types(agent: &str, global: &Global, terminal: Terminal) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let agent_of_project = place.project.agent(agent, None)?;
    let text = bowline_agent::declarations(&agent_of_project, &place.host())?;
    if terminal.json {
        terminal.json(&json!({"type": "types", "agent": agent, "declarations": text}))?;
    } else {
        terminal.answer(format_args!("{}\n", text.trim_end()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn program(file: &Path, modules: &[PathBuf]) -> Result<Program, Error> {
    let name = if file == Path::new("-") {
        "stdin.ts".to_owned()
    } else {
        file.display().to_string()
    };
    let source = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let source = source.map_err(|why| unreadable(file, &why))?;
    let others = self::modules(modules)?;
    let texts = others.iter().map(|(_, text)| text.as_str());
    let before = Web::before(texts.chain([source.as_str()]));
    let mut program = Program::with_before(&name, &source, before)?;
    for (name, text) in &others {
        program = program.module(name, text)?;
    }
    Ok(program)
}

/// The names and texts of the files that may be imported.
fn modules(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Error> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|why| unreadable(path, &why))?;
        Ok((path.display().to_string(), text))
    };
    paths.iter().map(read).collect()
}

fn unreadable(path: &Path, why: &std::io::Error) -> Fault {
    Fault::UnreadableFile {
        path: path.display().to_string(),
        why: match why.kind() {
            std::io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
            _ => why.to_string(),
        },
    }
}

fn print(log: &[LogLine], terminal: Terminal) {
    for line in log {
        let paint = match line.level {
            LogLevel::Debug => Paint::Dim,
            LogLevel::Info => Paint::Strong,
            LogLevel::Warn => Paint::Odd,
            LogLevel::Error => Paint::Bad,
        };
        let text = super::terminal::clean(&line.text);
        if line.level == LogLevel::Info {
            terminal.say(text);
        } else {
            terminal.say(terminal.err.paint(paint, text));
        }
    }
}

fn finish(program: &Program, isolate: &Isolate, terminal: Terminal) -> Result<ExitCode, Error> {
    let usage = isolate.usage();
    match isolate.status() {
        Status::Completed(value) if terminal.json => {
            terminal.json(&json!({
                "type": "code", "outcome": "completed", "result": value.to_json(),
                "cpuMs": usage.cpu.as_secs_f64() * 1e3, "memory": usage.memory,
            }))?;
        }
        Status::Completed(Value::Undefined) => {}
        Status::Completed(Value::String(text)) => terminal.answer(format_args!("{text}\n"))?,
        Status::Completed(value) => {
            let text = serde_json::to_string_pretty(&value.to_json()).unwrap_or_default();
            terminal.answer(format_args!("{text}\n"))?;
        }
        Status::Threw(value) => {
            let (text, stack) = match value {
                Value::Error(error) => (error.to_string(), program.locate(&error.stack)),
                value => (format!("the code threw {}", value.to_json()), String::new()),
            };
            return Err(Fault::Threw { text, stack }.into());
        }
        Status::Stopped(error) => return Err(error.clone().into()),
        Status::Waiting => return Err(IsolateError::Deadlock.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn now() -> Timestamp {
    Sources::system().now()
}

/// Nobody may guess what the code's `crypto` gives.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let sources = Sources::system();
    for part in seed.chunks_mut(8) {
        part.copy_from_slice(&sources.random().to_le_bytes());
    }
    seed
}

/// Where compiled engines are kept for the next process.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| Path::new(dir).is_absolute())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(base.join("bowline").join("isolate"))
}
