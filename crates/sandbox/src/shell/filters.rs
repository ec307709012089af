//! Commands of the crate that hold all they read, each run on its own with what it holds counted.
//!
//! The crate hands a command its whole input at once, and some make a line of text into a hundred
//! bytes of memory or more. So such a command reads its input here, piece by piece, from a pipe that
//! waits for it; what the crate will make of it is taken from the budget that a bash call has for all
//! of its commands ([`super::memory::HELD`]), and only then the crate's own command runs on it, in an
//! interpreter that has nothing else to do. Its output goes on into the pipe, and the memory is given back.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use bashkit::{
    Bash, Command, CommandContext, CommandStatus, DirEntry, ExecOptions, FileSystem, FileSystemExt,
    FsLimits, FsUsage, Metadata, Result,
};

use super::{
    Kind, NEVER,
    commands::{PIPE_CLOSED, read_piece, write},
    fs::{WorkspaceFs, too_large},
    memory::{Held, Meter},
};

/// Bytes handed to the next command at once.
const BLOCK: usize = 64 << 10;
/// Output of one such command, in bytes.
pub(super) const OUTPUT: usize = 64 << 20;
/// Interpreters that are kept for the next command.
const KEPT: usize = 4;
/// How deep `awk` runs shells that run `awk`.
const DEPTH: usize = 2;
/// Bytes of a program of `bc` or `jq`: each may be one more level that the crate's parser goes down.
const PROGRAM: usize = 16 << 10;
/// Numbers that `shuf` makes, and the width of a number of `nl`.
const NUMBERS: u64 = 1_000_000;

/// The name under which an interpreter that runs `awk` knows the crate's own.
pub(super) const AWK: &str = "nawk";

/// What a command makes of its input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A value of its own for each line.
    Lines,
    /// The text, a few times.
    Text,
}

/// The commands, and what each makes of its input.
const FILTERS: &[(&str, Use)] = &[
    ("awk", Use::Lines),
    ("b2sum", Use::Text),
    ("base32", Use::Text),
    ("base64", Use::Text),
    ("bc", Use::Lines),
    ("bunzip2", Use::Text),
    ("bzcat", Use::Text),
    ("bzip2", Use::Text),
    ("cksum", Use::Text),
    ("cmp", Use::Text),
    ("column", Use::Lines),
    ("comm", Use::Lines),
    ("csv", Use::Lines),
    ("cut", Use::Text),
    ("dd", Use::Text),
    ("diff", Use::Lines),
    ("envsubst", Use::Text),
    ("expand", Use::Text),
    ("fmt", Use::Lines),
    ("fold", Use::Text),
    ("gawk", Use::Lines),
    ("gunzip", Use::Text),
    ("gzip", Use::Text),
    ("hexdump", Use::Text),
    ("iconv", Use::Text),
    ("join", Use::Lines),
    ("jq", Use::Lines),
    ("json", Use::Lines),
    ("mawk", Use::Lines),
    ("md5sum", Use::Text),
    (AWK, Use::Lines),
    ("nl", Use::Lines),
    ("numfmt", Use::Lines),
    ("od", Use::Text),
    ("paste", Use::Lines),
    ("patch", Use::Lines),
    ("pr", Use::Lines),
    ("rev", Use::Text),
    ("rg", Use::Lines),
    ("sed", Use::Lines),
    ("sha1sum", Use::Text),
    ("sha224sum", Use::Text),
    ("sha256sum", Use::Text),
    ("sha384sum", Use::Text),
    ("sha512sum", Use::Text),
    ("shuf", Use::Lines),
    ("sort", Use::Lines),
    ("split", Use::Lines),
    ("strings", Use::Text),
    ("sum", Use::Text),
    ("tac", Use::Lines),
    ("tail", Use::Text),
    ("tee", Use::Text),
    ("template", Use::Text),
    ("tomlq", Use::Lines),
    ("tsort", Use::Lines),
    ("unexpand", Use::Text),
    ("uniq", Use::Lines),
    ("unzip", Use::Text),
    ("xxd", Use::Text),
    ("yq", Use::Lines),
    ("zcat", Use::Text),
];

/// The commands with their names, for an interpreter over these files.
pub(super) fn all(fs: &Arc<WorkspaceFs>, depth: usize) -> Vec<(&'static str, Filter)> {
    let filter = |(name, used): &(&'static str, Use)| (*name, Filter::new(fs, name, *used, depth));
    FILTERS.iter().map(filter).collect()
}

/// One of [`FILTERS`].
pub(super) struct Filter {
    fs: Arc<WorkspaceFs>,
    name: &'static str,
    used: Use,
    depth: usize,
    kept: Mutex<Vec<Runner>>,
}

/// An interpreter for one command at a time.
struct Runner {
    bash: Bash,
    files: Arc<Files>,
    plain: bashkit::ShellState,
}

/// Weight of a piece of input: what the crate takes for it, in bytes.
fn weight(used: Use, bytes: &[u8], separator: u64) -> u64 {
    let length = bytes.len() as u64;
    let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
    match used {
        Use::Lines => (10 + separator) * length + 130 * lines,
        Use::Text => (8 + separator) * length,
    }
}

impl Filter {
    fn new(fs: &Arc<WorkspaceFs>, name: &'static str, used: Use, depth: usize) -> Self {
        Self {
            fs: fs.clone(),
            name,
            used,
            depth,
            kept: Mutex::default(),
        }
    }

    /// A command of the crate that only copies text.
    pub(super) fn text(fs: &Arc<WorkspaceFs>, name: &'static str, depth: usize) -> Self {
        Self::new(fs, name, Use::Text, depth)
    }

    fn runner(&self, meter: &Meter) -> Runner {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runner) = kept.pop() {
            return runner;
        }
        drop(kept);
        let files = Arc::new(Files::default());
        let kind = match self.name {
            // What `awk` runs may be any command.
            name if name.ends_with("awk") => Kind::Within(self.depth + 1),
            // It looks at the clock, and at nothing else that could stop it.
            "jq" => Kind::Crate(meter.time()),
            _ => Kind::Crate(NEVER),
        };
        let bash = super::build(&self.fs, files.clone(), OUTPUT, kind);
        let plain = bash.shell_state();
        Runner { bash, files, plain }
    }

    /// Stops the call: this command would hold too much.
    fn stop(&self, meter: &Meter, bytes: usize) {
        let much = match bytes {
            0 => "what it reads takes".to_owned(),
            bytes => format!("{bytes} bytes of this kind take"),
        };
        meter.stop_with(format!(
            "bash: stopped: {} holds all of its input in memory, and {much} more than the {} MiB that the commands of one call have together; work on smaller pieces, or filter before it",
            self.name,
            super::memory::HELD >> 20,
        ));
    }

    async fn refused(&self, ctx: &CommandContext<'_>, why: &str) -> Result<CommandStatus> {
        let message = format!("{}: {why}\n", self.name);
        ctx.stderr.write_all(message.as_bytes()).await?;
        Ok(CommandStatus::with_code(2))
    }

    /// Runs it in the crate, on this input.
    async fn run(
        &self,
        ctx: &CommandContext<'_>,
        meter: &Arc<Meter>,
        held: &Arc<Held>,
        input: Vec<u8>,
        separator: u64,
    ) -> Result<bashkit::ExecResult> {
        let Runner {
            mut bash,
            files,
            mut plain,
        } = self.runner(meter);
        bash.cancellation_token()
            .store(false, std::sync::atomic::Ordering::Relaxed);
        meter.also_cancel(bash.cancellation_token());
        // `awk` runs what it is told to; all others leave the interpreter as they found it.
        if self.name.ends_with("awk") || plain.cwd != ctx.cwd || plain.env != *ctx.env {
            plain.env.clone_from(ctx.env);
            plain.cwd = ctx.cwd.to_path_buf();
            bash.restore_shell_state(&plain);
        }
        files.set(Some(View {
            inner: ctx.fs.clone(),
            held: held.clone(),
            used: if self.gives_back(ctx.args) {
                Use::Text
            } else {
                self.used
            },
            separator,
        }));
        let mut named = false;
        let args = ctx.args.iter().map(|arg| {
            named |= arg.contains(OURS);
            arg.replace(OURS, THEIRS)
        });
        let args: Vec<String> = args.collect();
        let options = ExecOptions::new().positional(args).stdin(input);
        let own = match self.name {
            name if name.ends_with("awk") => AWK,
            // The crate has no command of this name.
            "zcat" => "gunzip -c",
            name => name,
        };
        let script = format!("{own} \"$@\"");
        let result = bash.exec_with_options(&script, options).await;
        files.set(None);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The time that `jq` has is that of this call.
        if kept.len() < KEPT && self.name != "jq" {
            kept.push(Runner { bash, files, plain });
        }
        drop(kept);
        let mut result = result?;
        if named && result.stdout.len() < OUTPUT / 64 {
            let back = |text: bashkit::StreamData| match text.text() {
                Ok(plain) => plain.replace(THEIRS, OURS).into(),
                Err(_) => text,
            };
            result.stdout = back(result.stdout);
            result.stderr = back(result.stderr);
        }
        Ok(result)
    }

    /// The length of the program that its arguments give it, as far as that is parsed by going down.
    async fn program(&self, ctx: &CommandContext<'_>) -> usize {
        let mut args = ctx.args.iter().map(String::as_str);
        let mut files = Vec::new();
        match self.name {
            "bc" => files.extend(args.filter(|arg| !arg.starts_with('-'))),
            "jq" => {
                let mut from_file = false;
                while let Some(arg) = args.next() {
                    let letters = arg.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
                    from_file |=
                        arg == "--from-file" || letters.is_some_and(|all| all.contains('f'));
                    match arg {
                        "--arg" | "--argjson" | "--slurpfile" | "--rawfile" => {
                            args.nth(1);
                        }
                        "-L" | "--indent" => {
                            args.next();
                        }
                        _ if arg.starts_with('-') && arg != "-" => {}
                        file if from_file => {
                            files.push(file);
                            break;
                        }
                        program => return program.len(),
                    }
                }
            }
            _ => {}
        }
        let mut longest = 0;
        for file in files {
            if let Ok(found) = ctx.fs.stat(&ctx.cwd.join(file)).await {
                longest = longest.max(usize::try_from(found.size).unwrap_or(usize::MAX));
            }
        }
        longest
    }

    /// Whether it lets go of each file before it reads the next.
    fn gives_back(&self, args: &[String]) -> bool {
        match self.name {
            "rg" => true,
            "sed" => args.iter().any(|arg| {
                arg.starts_with("-i") || arg.starts_with("--in-place") || arg == "-n" || arg == "-s"
            }),
            _ => false,
        }
    }
}

/// Why a program is not run.
const TOO_LONG: &str = "a program has at most 16384 bytes here; give it data as input or in files";

/// Significant digits of what `bc` computes, which is in binary floating point.
const DIGITS: usize = 15;
/// Why a result is not told.
const INEXACT: &str = "a result has more than the 15 digits that are exact here; ask for a smaller scale, or use code";

/// Whether a number has more digits than are known to be right.
fn inexact(output: &str) -> bool {
    output.split_ascii_whitespace().any(|number| {
        let digits = number
            .trim_start_matches(['-', '0', '.'])
            .trim_end_matches('0');
        digits.bytes().filter(u8::is_ascii_digit).count() > DIGITS
    })
}

/// Where the interpreter of a shell has its process substitutions, and where that of a filter sees them.
const OURS: &str = "/dev/fd/";
const THEIRS: &str = "/proc/self/fd/";

/// The length of the longest text that a command puts between or before what it reads; `Err` is why
/// it does not run.
fn separator(name: &str, args: &[String]) -> std::result::Result<u64, String> {
    let (text, number): (&[&str], &[&str]) = match name {
        "column" => (&["-o", "--output-separator", "-s"], &["-c"]),
        "comm" | "cut" => (&["--output-delimiter", "-d"], &[]),
        "nl" => (&["-s", "--number-separator"], &["-w", "--number-width"]),
        "paste" => (&["-d", "--delimiters"], &[]),
        "shuf" => (&[], &["-n", "--head-count", "-i", "--input-range"]),
        _ => return Ok(0),
    };
    let mut longest = 0;
    for (at, arg) in args.iter().enumerate() {
        let value = |option: &&str| {
            let rest = arg.strip_prefix(*option)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => args.get(at + 1).map(String::as_str),
                None if option.len() == 2 => Some(rest),
                None => None,
            }
        };
        if let Some(value) = text.iter().find_map(value) {
            longest = longest.max(value.len() as u64);
        }
        let Some(value) = number.iter().find_map(value) else {
            continue;
        };
        let ends = value.split('-').filter_map(|end| end.parse::<u64>().ok());
        let most = ends.max().unwrap_or(0);
        let repeats = args
            .iter()
            .any(|arg| arg == "--repeat" || (arg.starts_with("-r") && name == "shuf"));
        if name == "nl" {
            longest = longest.max(most);
        } else if name == "shuf"
            && most > NUMBERS
            && (repeats || arg.starts_with("-i") || arg.starts_with("--in"))
        {
            return Err(format!(
                "more than {NUMBERS} numbers or lines are not made here: use seq, or a smaller -n"
            ));
        }
    }
    Ok(longest)
}

/// What a table takes that gives each column the width of its widest word.
fn table(bytes: &[u8]) -> u64 {
    let (mut rows, mut columns, mut widest) = (0u64, 0u64, 0u64);
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut words = 0;
        for word in line.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b':')) {
            words += 1;
            widest = widest.max(word.len() as u64);
        }
        rows += 1;
        columns = columns.max(words);
    }
    rows.saturating_mul(columns).saturating_mul(widest)
}

#[async_trait]
impl Command for Filter {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let Some(meter) = self.fs.meter() else {
            return Ok(CommandStatus::with_code(1));
        };
        if self.depth > DEPTH {
            let why = format!("awk runs commands that run awk at most {DEPTH} deep");
            return self.refused(&ctx, &why).await;
        }
        let separator = match separator(self.name, ctx.args) {
            Ok(separator) => separator,
            Err(why) => return self.refused(&ctx, &why).await,
        };
        if self.program(&ctx).await > PROGRAM {
            return self.refused(&ctx, TOO_LONG).await;
        }
        let held = Arc::new(Held::new(meter.clone()));
        let mut input = Vec::new();
        while let Some(bytes) = read_piece(&ctx, &self.fs).await? {
            if !held.grow(weight(self.used, &bytes, separator)) {
                self.stop(&meter, input.len() + bytes.len());
                return Err(bashkit::Error::Cancelled);
            }
            input.extend_from_slice(&bytes);
        }
        if self.name == "bc" && input.len() > PROGRAM {
            return self.refused(&ctx, TOO_LONG).await;
        }
        if self.name == "column" && !held.grow(table(&input)) {
            self.stop(&meter, input.len());
            return Err(bashkit::Error::Cancelled);
        }
        let result = self.run(&ctx, &meter, &held, input, separator).await?;
        if held.refused() {
            self.stop(&meter, 0);
            return Err(bashkit::Error::Cancelled);
        }
        if self.name == "bc" && inexact(&result.stdout.text_lossy()) {
            return self.refused(&ctx, INEXACT).await;
        }
        let truncated = result.stdout_truncated || result.stderr_truncated;
        let code = result.exit_code;
        let (out, err) = (result.stdout.into_bytes(), result.stderr.into_bytes());
        // Its input is gone; what it says is still here.
        held.shrink_to((out.len() + err.len()) as u64);
        let mut open = true;
        for block in out.chunks(BLOCK) {
            open = open && write(&ctx, &self.fs, block).await?;
        }
        ctx.stderr.write_all(&err).await?;
        if truncated {
            let limit = format!("output limit ({OUTPUT} bytes) exceeded; output truncated");
            return self.refused(&ctx, &limit).await;
        }
        Ok(if open {
            CommandStatus::with_code(code)
        } else {
            PIPE_CLOSED
        })
    }
}

/// The files of the command that a filter runs for.
#[derive(Default)]
struct Files(Mutex<Option<View>>);

#[derive(Clone)]
struct View {
    inner: Arc<dyn FileSystem>,
    held: Arc<Held>,
    used: Use,
    separator: u64,
}

impl Files {
    fn set(&self, view: Option<View>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn view(&self) -> Result<View> {
        let view = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        view.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::PermissionDenied).into())
    }
}

/// The path in the shell that the filter runs for.
fn outer(path: &Path) -> PathBuf {
    match path.to_str().and_then(|path| path.strip_prefix(THEIRS)) {
        Some(rest) => PathBuf::from(format!("{OURS}{rest}")),
        None => path.to_path_buf(),
    }
}

impl FileSystemExt for Files {
    fn usage(&self) -> FsUsage {
        self.view()
            .map_or_else(|_| FsUsage::default(), |view| view.inner.usage())
    }

    fn limits(&self) -> FsLimits {
        self.view()
            .map_or_else(|_| FsLimits::unlimited(), |view| view.inner.limits())
    }
}

#[async_trait]
impl FileSystem for Files {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let view = self.view()?;
        let bytes = view.inner.read_file(&outer(path)).await?;
        if !view.held.grow(weight(view.used, &bytes, view.separator)) {
            return Err(too_large());
        }
        if view.used == Use::Text {
            view.held
                .give_back(weight(view.used, &bytes, view.separator));
        }
        Ok(bytes)
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.view()?.inner.write_file(&outer(path), content).await
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.view()?.inner.append_file(&outer(path), content).await
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        self.view()?.inner.mkdir(path, recursive).await
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        self.view()?.inner.remove(path, recursive).await
    }

    async fn stat(&self, path: &Path) -> Result<Metadata> {
        self.view()?.inner.stat(&outer(path)).await
    }

    async fn lstat(&self, path: &Path) -> Result<Metadata> {
        self.view()?.inner.lstat(&outer(path)).await
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.view()?.inner.read_dir(path).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.view()?.inner.exists(&outer(path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.view()?.inner.rename(from, to).await
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.view()?.inner.copy(from, to).await
    }

    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        self.view()?.inner.symlink(target, link).await
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        self.view()?.inner.read_link(&outer(path)).await
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.view()?.inner.chmod(path, mode).await
    }

    async fn set_modified_time(&self, path: &Path, at: SystemTime) -> Result<()> {
        self.view()?.inner.set_modified_time(path, at).await
    }
}
