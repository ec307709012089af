//! A prompt for code.
//!
//! All lines run in one isolate. While a line is typed there is none: it is saved after each line, and
//! restored for the next. So a line that is stopped, by ctrl-C or by a limit, leaves nothing behind.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, Read as _},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_agent::binding::{Web, declare};
use bowline_sandbox::{
    isolate::{
        Answer, IsolateError, Limits, LogLine, Program, Status, Typed as Code, Usage, Value,
    },
    workspace::Overlay,
};
use rustyline::{
    Context, Helper, Result as Edited,
    completion::Completer,
    highlight::Highlighter,
    hint::Hinter,
    validate::{ValidationContext, ValidationResult, Validator},
};
use serde_json::json;

use super::{
    With, cache_folder,
    folder::Folder,
    lines::Lines,
    now, print, seed,
    session::{Asked, Running, Session, blocking},
};
use crate::{
    cli::{
        Global,
        fault::Fault,
        prompt::{Prompt, Typed},
        signals::{Signals, Stop},
        terminal::{Paint, Terminal, clean},
    },
    error::Error,
};

/// The name of what is typed, in positions.
pub(super) const NAME: &str = "typed";
/// What is typed into the isolate runs in this.
const DRIVER: &str = include_str!("repl.js");
pub(super) const DRIVER_NAME: &str = "prompt.js";
/// Begins the line of the log with the value that is shown.
const SHOWN: char = '\0';
/// Time that is kept for the engine itself is not limited: each line has its own.
const NO_WALL: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

const HELP: &str = "\
.help          this
.types [NAME]  what a binding offers, as TypeScript; without a name, all of them
.exit          leave, as ctrl-D does

The value of the last expression is shown, and is `_` in the next line.
`await` works everywhere. What is declared stays, and may be declared again.
`import` finds what `--module` gave.
Ctrl-C stops what runs; what was there before it is still there.";

/// Lines until nobody types any more.
pub(super) async fn repl(
    with: &With,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let mut repl = Repl::open(with, global, terminal).await?;
    let mut signals = Signals::new()?;
    if terminal.input && terminal.err.terminal && !terminal.json {
        repl.talk(&mut signals).await
    } else {
        repl.pipe(&mut signals).await
    }
}

/// Where it stands between two lines.
struct Saved {
    bytes: Arc<Vec<u8>>,
    /// The call that the next line answers.
    id: u32,
    timers: BTreeSet<(Instant, u32)>,
    usage: Usage,
}

struct Repl {
    session: Session,
    /// Lines typed so far.
    line: u32,
    typed: Lines,
    limits: Limits,
    folder: Option<Folder>,
    files: Option<Overlay>,
    key: [u8; 32],
    saved: Saved,
    /// Rejections that nobody has handled, as they were told.
    lost: Vec<String>,
    terminal: Terminal,
}

/// A line that came to its end.
struct Ran {
    saved: Saved,
    /// The value or the error.
    said: Value,
    /// The value as it looks.
    shown: Option<String>,
}

/// How a line ended.
enum Ended {
    /// Well, or with an error that it threw.
    Said(bool),
    Stopped(Stop),
}

impl Repl {
    async fn open(with: &With, global: &Global, terminal: Terminal) -> Result<Self, Error> {
        let (folder, files) = with.folder().await?;
        let session = Session::open(with.bindings(global)?, true).await?;
        let limits = with.limits();
        let before = Web::before(["fetch"]);
        let mut program = Program::with_before(DRIVER_NAME, DRIVER, before)?;
        for (name, text) in super::modules(&with.module)? {
            program = program.module(&name, &text)?;
        }
        let values = Value::Bool(terminal.json);
        let begin = Limits {
            wall: NO_WALL,
            ..limits.clone()
        };
        let isolate = session.start(&program, values, &begin).await?;
        let mut none = |_: Vec<LogLine>| {};
        let running = Running::new(&session, isolate, limits.wall, None, &mut none);
        let (mut running, asked) = running.run().await?;
        let key = seed();
        let saved = save(&mut running, asked, &key, &limits)?;
        Ok(Self {
            session,
            line: 0,
            typed: Lines::new(program),
            limits,
            folder,
            files,
            key,
            saved,
            lost: Vec::new(),
            terminal,
        })
    }

    /// On a terminal.
    async fn talk(&mut self, signals: &mut Signals) -> Result<ExitCode, Error> {
        self.terminal.say(format_args!(
            "{} in an isolate: ctrl-C stops a line, ctrl-D leaves, .help says more",
            self.terminal.err.paint(Paint::Strong, "TypeScript"),
        ));
        let history = cache_folder().and_then(|cache| Some(cache.parent()?.join("code-history")));
        if let Some(folder) = history.as_ref().and_then(|file| file.parent()) {
            // Without it lines are not remembered.
            let _ = std::fs::create_dir_all(folder);
        }
        let helper = Editing(self.words());
        let mut prompt = Prompt::open("> ", history.unwrap_or_default(), helper)?;
        loop {
            let line = match prompt.read(signals).await? {
                Typed::Line(line) => line,
                Typed::Nothing => continue,
                Typed::Leave => return Ok(ExitCode::SUCCESS),
                Typed::Stop(stop) => return Ok(stop.exit_code()),
            };
            let first = self.count(&line);
            if let Some(command) = line.trim().strip_prefix('.') {
                if self.command(command)? {
                    return Ok(ExitCode::SUCCESS);
                }
                continue;
            }
            match self.line(&line, first, signals).await {
                Ok(Ended::Said(_) | Ended::Stopped(Stop::Interrupt)) => {}
                Ok(Ended::Stopped(stop)) => return Ok(stop.exit_code()),
                Err(error) => self.terminal.error(&error),
            }
        }
    }

    /// From a file or a pipe: the exit code says whether all of it went well.
    async fn pipe(&mut self, signals: &mut Signals) -> Result<ExitCode, Error> {
        let (mut text, mut well, mut first) = (String::new(), true, 1);
        loop {
            let line = read_line().await?;
            let Some(line) = line else { break };
            let number = self.count(&line);
            if text.is_empty() {
                first = number;
            }
            if text.is_empty()
                && let Some(command) = line.trim().strip_prefix('.')
            {
                if self.command(command)? {
                    text.clear();
                    break;
                }
                continue;
            }
            text.push_str(&line);
            if matches!(Code::read(NAME, &text), Ok(Code::Unfinished)) {
                continue;
            }
            match self.line(&std::mem::take(&mut text), first, signals).await {
                Ok(Ended::Said(fine)) => well &= fine,
                Ok(Ended::Stopped(stop)) => return Ok(stop.exit_code()),
                Err(error) => {
                    well = false;
                    self.terminal.error(&error);
                }
            }
        }
        if !text.trim().is_empty() {
            well = false;
            self.terminal.error(&unfinished(&text, first).into());
        }
        Ok(if well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Counts what was typed, and tells the number of its first line.
    fn count(&mut self, text: &str) -> u32 {
        let first = self.line.saturating_add(1);
        let lines = text.lines().count().max(1);
        self.line = self
            .line
            .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        first
    }

    /// True when it is time to leave.
    fn command(&self, command: &str) -> Result<bool, Error> {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match name {
            "exit" => return Ok(true),
            "help" => self.terminal.always(HELP),
            "types" => self.types(rest.trim())?,
            _ => self
                .terminal
                .always(format_args!("there is no .{}; try .help", clean(name))),
        }
        Ok(false)
    }

    fn types(&self, name: &str) -> Result<(), Error> {
        let bindings = self.session.bindings.iter();
        let wanted: Vec<String> = bindings
            .filter(|binding| name.is_empty() || binding.name() == name)
            .map(|binding| declare::declarations(&**binding))
            .collect();
        if wanted.is_empty() {
            let hint = "there is no such binding; give it with --binding or --workspace";
            self.terminal.always(hint);
        }
        self.terminal.answer(wanted.join("\n"))
    }

    /// What can be completed.
    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = [".help", ".types", ".exit", "console.log"]
            .map(str::to_owned)
            .to_vec();
        for binding in &self.session.bindings {
            let methods = binding.methods().iter();
            words.extend(methods.map(|one| format!("{}.{}", binding.name(), one.name)));
        }
        words
    }

    /// Runs what was typed from the line `first` on. Only what came to its end changes anything.
    async fn line(
        &mut self,
        source: &str,
        first: u32,
        signals: &mut Signals,
    ) -> Result<Ended, Error> {
        let script = match Code::read(NAME, source) {
            Ok(Code::Script(script)) => script,
            Ok(Code::Unfinished) => return Err(unfinished(source, first).into()),
            Err(error) => return Err(in_line(error, first).into()),
        };
        let script = self.typed.add(script, first);
        let files = self.files.as_ref().map(Overlay::child);
        let ran = match self.run(script, files.clone(), signals).await {
            Ok(Ok(ran)) => ran,
            Err(error) => {
                self.typed.forget_last();
                return Err(error);
            }
            Ok(Err(why)) => {
                self.typed.forget_last();
                let text = "stopped; what was there before the line is still there";
                self.terminal.say(text);
                return Ok(Ended::Stopped(why));
            }
        };
        if let Some(files) = files {
            let changed = !files.is_clean();
            let merged = files.merge();
            merged.map_err(|error| Error::failure(error.code(), error.to_string(), ""))?;
            if let (true, Some(folder), Some(files)) = (changed, &mut self.folder, &self.files) {
                folder.save(files).await?;
            }
        }
        self.saved = ran.saved;
        let told = self.tell(&ran.said, ran.shown)?;
        self.tell_lost().await;
        Ok(told)
    }

    /// Tells of rejections that nobody has handled, each once. The engine tells them when a program ends, so
    /// a copy of this one is ended.
    async fn tell_lost(&mut self) {
        let limits = Limits {
            wall: NO_WALL,
            cpu: self.saved.usage.cpu.saturating_add(self.limits.cpu),
            log: self.saved.usage.log.saturating_add(self.limits.log),
            ..self.limits.clone()
        };
        let bytes = Arc::clone(&self.saved.bytes);
        let Ok(mut copy) = self.session.restore(bytes, self.key, limits).await else {
            return;
        };
        let id = self.saved.id;
        let ended = move || {
            let end = Answer::Value(Value::Undefined);
            copy.answer(id, &end, now()).map(|()| copy.take_log())
        };
        let Ok(lines) = blocking(ended).await else {
            return;
        };
        let mut known = std::mem::take(&mut self.lost);
        for mut line in lines {
            self.lost.push(line.text.clone());
            match known.iter().position(|text| *text == line.text) {
                Some(at) => {
                    known.swap_remove(at);
                }
                None => {
                    line.text = self.typed.locate(&line.text);
                    print(&[line], self.terminal);
                }
            }
        }
    }

    /// Runs a script; or says who stopped it.
    async fn run(
        &self,
        script: String,
        files: Option<Overlay>,
        signals: &mut Signals,
    ) -> Result<Result<Ran, Stop>, Error> {
        let used = self.saved.usage;
        let limits = Limits {
            wall: NO_WALL,
            cpu: used.cpu.saturating_add(self.limits.cpu),
            calls: used.calls.saturating_add(self.limits.calls),
            log: used.log.saturating_add(self.limits.log),
            ..self.limits.clone()
        };
        let bytes = Arc::clone(&self.saved.bytes);
        let isolate = self.session.restore(bytes, self.key, limits).await?;
        let terminal = self.terminal;
        let mut shown = None;
        let mut told = |log: Vec<LogLine>| {
            for mut line in log {
                match line.text.trim_start().strip_prefix(SHOWN) {
                    Some(text) => shown = Some(self.typed.locate(text)),
                    None => {
                        line.text = self.typed.locate(&line.text);
                        print(&[line], terminal);
                    }
                }
            }
        };
        let wall = self.limits.wall;
        let mut running = Running::new(&self.session, isolate, wall, files, &mut told);
        running.due.clone_from(&self.saved.timers);
        let stop = running.stop.clone();
        let answer = Answer::Value(Value::String(script));
        let mut run = Box::pin(async move {
            let running = running.answer(self.saved.id, answer).await?;
            running.run().await
        });
        let mut asked_to_stop = None;
        let (mut running, asked) = loop {
            tokio::select! {
                ran = &mut run => break ran?,
                why = signals.next() => {
                    asked_to_stop = Some(why);
                    stop.cancel();
                }
            }
        };
        if let (Some(why), None) = (asked_to_stop, &asked) {
            return Ok(Err(why));
        }
        // A timer of the line threw: nobody could catch that, and it ends all that runs.
        if let Status::Threw(error) = running.isolate.status() {
            let (text, stack) = self.thrown(error);
            return Err(Fault::Threw { text, stack }.into());
        }
        let said = asked.as_ref().map(|asked| asked.said.clone());
        let saved = save(&mut running, asked, &self.key, &self.limits)?;
        drop((run, running));
        Ok(Ok(Ran {
            saved,
            said: said.unwrap_or_default(),
            shown,
        }))
    }

    /// An error as it is told, and where it comes from.
    fn thrown(&self, error: &Value) -> (String, String) {
        match error {
            Value::Error(error) => (error.to_string(), self.typed.locate(&error.stack)),
            value => (format!("the line threw {}", value.to_json()), String::new()),
        }
    }

    /// Shows what became of a line.
    fn tell(&self, said: &Value, shown: Option<String>) -> Result<Ended, Error> {
        if let Some(error) = said.get("error") {
            let (text, stack) = self.thrown(error);
            if self.terminal.json {
                self.terminal.error(&Fault::Threw { text, stack }.into());
            } else {
                let paint = |text: &str| self.terminal.err.paint(Paint::Bad, clean(text));
                self.terminal.always(paint(&text));
                for frame in stack.lines() {
                    let frame = self.terminal.err.paint(Paint::Dim, clean(frame));
                    self.terminal.always(frame);
                }
            }
            return Ok(Ended::Said(false));
        }
        if self.terminal.json {
            let result = said.get("value").map(Value::to_json);
            self.terminal.json(
                &json!({"type": "code", "outcome": "completed", "result": result, "shown": shown}),
            )?;
        } else if let Some(text) = shown {
            self.terminal.answer(format_args!("{}\n", clean(&text)))?;
        }
        Ok(Ended::Said(true))
    }
}

/// What a line left, to be gone on with. `limits` are those of one line.
fn save(
    running: &mut Running<'_>,
    asked: Option<Asked>,
    key: &[u8; 32],
    limits: &Limits,
) -> Result<Saved, Error> {
    let Some(asked) = asked else {
        let error = match running.isolate.status() {
            Status::Stopped(IsolateError::Cpu(_)) => IsolateError::Cpu(limits.cpu),
            Status::Stopped(IsolateError::Calls(_)) => IsolateError::Calls(limits.calls),
            Status::Stopped(IsolateError::Log(_)) => IsolateError::Log(limits.log.into()),
            Status::Stopped(error) => error.clone(),
            Status::Waiting | Status::Completed(_) | Status::Threw(_) => {
                IsolateError::Fault("the prompt's own code ended".to_owned())
            }
        };
        return Err(error.into());
    };
    Ok(Saved {
        bytes: Arc::new(running.isolate.save(key)?),
        id: asked.id,
        timers: std::mem::take(&mut running.due),
        usage: running.isolate.usage(),
    })
}

fn unfinished(text: &str, first: u32) -> IsolateError {
    let line = text.trim_end().lines().count().max(1);
    let error = IsolateError::Syntax {
        file: NAME.to_owned(),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: 1,
        message: "the input ends before the code does".to_owned(),
    };
    in_line(error, first)
}

/// The error of a text whose first line is this one of all lines.
fn in_line(mut error: IsolateError, first: u32) -> IsolateError {
    if let IsolateError::Syntax { line, .. } = &mut error {
        *line = line.saturating_add(first).saturating_sub(1);
    }
    error
}

/// The next line of standard input, with its end.
async fn read_line() -> Result<Option<String>, Error> {
    let most = Program::MAX_BYTES as u64 + 1;
    let read = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        let mut input = std::io::stdin().lock().take(most);
        input.read_line(&mut line).map(|_| line)
    });
    let read = read
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let line = read.map_err(|why| Fault::UnreadableFile {
        path: "-".to_owned(),
        why: why.to_string(),
    })?;
    Ok((!line.is_empty()).then_some(line))
}

/// Help at the prompt: code that is not finished goes on in the next line, and names are completed.
struct Editing(Vec<String>);

impl Helper for Editing {}
impl Highlighter for Editing {}
impl Hinter for Editing {
    type Hint = String;
}

impl Validator for Editing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Edited<ValidationResult> {
        let text = context.input();
        if text.starts_with('.') {
            return Ok(ValidationResult::Valid(None));
        }
        Ok(match Code::read(NAME, text) {
            Ok(Code::Unfinished) => ValidationResult::Incomplete,
            Ok(Code::Script(_)) | Err(_) => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Editing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> Edited<(usize, Vec<Self::Candidate>)> {
        let before = line.get(..at).unwrap_or_default();
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
        let start = before.trim_end_matches(part).len();
        let word = &before[start..];
        let fitting = self.0.iter().filter(|one| one.starts_with(word)).cloned();
        let found = if word.is_empty() {
            Vec::new()
        } else {
            fitting.collect()
        };
        Ok((start, found))
    }
}
