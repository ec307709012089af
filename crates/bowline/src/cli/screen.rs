//! A conversation as it happens: text on standard output, each tool call on a line of standard
//! error, and below them one line that says what goes on.

mod code_calls;
mod status_line;

use std::time::Duration;

use bowline_agent::{
    Chunk, ChunkBody,
    approval::{Approval, Decision},
    code::runs::{CodeCall, CodeRun},
    live::DeltaKind,
    view::{Role, UiMessage, UiPart},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

pub(super) use self::code_calls::code_calls;
use self::status_line::StatusLine;

use super::{
    markdown::Markdown,
    terminal::{Paint, Terminal, clean, duration, one_line, shorten},
};
use crate::error::Error;

/// Characters of a tool call's label, at most.
const LABEL: usize = 72;
/// Characters of a tool's error, at most.
const REASON: usize = 100;
/// How often the line that says what goes on is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// Which messages are shown besides the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Only what the model says and does: whoever watches has written the rest.
    Answer,
    /// Messages of persons too.
    Everything,
}

/// Shows chunks.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal,
    shown: Shown,
    /// Renders text; none when only the final answer is wanted.
    markdown: Option<Markdown>,
    /// The line that says what goes on may be drawn.
    draws: bool,
    bar: Option<ProgressBar>,
    /// The calls that have not ended.
    calls: Vec<Call>,
    /// What the model said since the last tool call.
    said: String,
    /// The last line was one of progress.
    progressed: bool,
}

#[derive(Debug)]
struct Call {
    id: String,
    name: String,
    label: String,
    /// What its code called.
    inside: Vec<String>,
}

impl Screen {
    pub(super) fn new(terminal: Terminal, shown: Shown) -> Self {
        let streams = !terminal.json && (terminal.out.terminal || shown == Shown::Everything);
        let draws = terminal.err.terminal && !terminal.quiet && !terminal.logging && !terminal.json;
        Self {
            terminal,
            shown,
            markdown: streams.then(|| Markdown::new(terminal.out.color)),
            draws,
            bar: None,
            calls: Vec::new(),
            said: String::new(),
            progressed: false,
        }
    }

    /// Shows one chunk.
    pub(super) fn chunk(&mut self, chunk: &Chunk) -> Result<(), Error> {
        if let ChunkBody::ConversationReset { .. } | ChunkBody::MessageMetadata { .. } = chunk.body
        {
            // Nothing that other chunks do not tell.
            return Ok(());
        }
        if self.terminal.json {
            return self.terminal.json(chunk);
        }
        match &chunk.body {
            ChunkBody::MessageAppended { message } => self.appended(message),
            ChunkBody::MessageStarted { .. }
            | ChunkBody::MessageDelta {
                kind: DeltaKind::Reasoning,
                ..
            } => {
                self.status("thinking");
                Ok(())
            }
            ChunkBody::MessageDelta {
                kind: DeltaKind::Text,
                delta,
                ..
            } => {
                self.status("writing");
                self.said.push_str(delta);
                match self.markdown.as_mut().map(|markdown| markdown.feed(delta)) {
                    Some(blocks) => self.write(&blocks),
                    None => Ok(()),
                }
            }
            ChunkBody::ToolInput {
                tool_call_id,
                tool_name,
                input,
                ..
            } => {
                self.flush()?;
                let (id, name) = (tool_call_id.clone(), one_line(tool_name));
                self.calls.push(Call {
                    id,
                    label: label(&name, input),
                    name,
                    inside: Vec::new(),
                });
                self.status_of_calls();
                Ok(())
            }
            ChunkBody::ToolOutput {
                tool_call_id,
                output,
                duration_ms,
            } => {
                self.ended(tool_call_id, outcome(output), *duration_ms);
                Ok(())
            }
            ChunkBody::ToolOutputError {
                tool_call_id,
                error_text,
                duration_ms,
            } => {
                self.ended(
                    tool_call_id,
                    Outcome::Failed(error_text.clone()),
                    *duration_ms,
                );
                Ok(())
            }
            ChunkBody::ModelRetry {
                error,
                message,
                delay_ms,
            } => self.retried(error, message, *delay_ms),
            ChunkBody::MessageCompleted { .. } => self.flush(),
            ChunkBody::ApprovalRequested { approval } => self.asked(approval),
            ChunkBody::ApprovalAnswered { answered } => {
                self.line(decided(answered.answer.decision));
                Ok(())
            }
            ChunkBody::Compacted {
                tokens_before,
                tokens_after,
                ..
            } => {
                let tokens = format!("{tokens_before} tokens to about {tokens_after}");
                self.line(&format!("compacted: {tokens}"));
                Ok(())
            }
            ChunkBody::CodeCalls {
                tool_call_id,
                calls,
                more,
                ..
            } => {
                self.coded(tool_call_id, calls, *more);
                Ok(())
            }
            ChunkBody::Usage { .. }
            | ChunkBody::SubmissionSettled { .. }
            | ChunkBody::ConversationReset { .. }
            | ChunkBody::MessageMetadata { .. } => Ok(()),
        }
    }

    /// Somebody is asked.
    fn asked(&mut self, approval: &Approval) -> Result<(), Error> {
        self.flush()?;
        self.line(&match &approval.question {
            Some(question) => format!("a question: {}", one_line(&question.text)),
            None => format!("{} waits for approval", one_line(&approval.tool_name)),
        });
        Ok(())
    }

    /// The answer begins again.
    fn retried(&mut self, error: &str, message: &str, delay_ms: u64) -> Result<(), Error> {
        self.flush()?;
        self.said.clear();
        self.calls.clear();
        let wait = duration(Duration::from_millis(delay_ms));
        let err = self.terminal.err;
        let what = format!("{}, again in {wait}", one_line(message));
        self.line(&format!("{} {error}: {what}", err.paint(Paint::Odd, "↻")));
        self.status("waiting to try again");
        Ok(())
    }

    /// Says that this watcher was too slow to see everything.
    pub(super) fn missed(&mut self, chunks: u64) {
        self.said.clear();
        self.line(&format!(
            "… {chunks} pieces were not shown; `bowline show` has all of it"
        ));
    }

    /// Knows a call that was made before anybody watched: the one that waited for a person.
    pub(super) fn expect(&mut self, approval: &Approval) {
        if self
            .calls
            .iter()
            .any(|call| call.id == approval.tool_call_id)
        {
            return;
        }
        let name = one_line(&approval.tool_name);
        self.calls.push(Call {
            id: approval.tool_call_id.clone(),
            label: label(&name, &approval.arguments),
            name,
            inside: Vec::new(),
        });
    }

    /// Ends the answer: shows what of the text has not been shown yet.
    pub(super) fn answer(&mut self, text: &str) -> Result<(), Error> {
        self.flush()?;
        self.hide();
        // What comes next is another answer.
        let said = std::mem::take(&mut self.said);
        match &self.markdown {
            Some(_) if same(&said, text) => Ok(()),
            Some(markdown) => {
                let rendered = markdown.render(text);
                self.write(&rendered)
            }
            None if text.is_empty() => Ok(()),
            None => self.terminal.answer(format_args!("{}\n", text.trim_end())),
        }
    }

    /// Shows the text that has come so far, and takes away the line that says what goes on.
    pub(super) fn pause(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.hide();
        Ok(())
    }

    /// Shows a line of progress.
    pub(super) fn line(&mut self, text: &str) {
        self.progressed = true;
        match &self.bar {
            Some(bar) => bar.suspend(|| self.terminal.say(text)),
            None if self.terminal.json => {}
            None => self.terminal.say(text),
        }
    }

    /// Says what goes on.
    pub(super) fn status(&mut self, text: &str) {
        if !self.draws {
            return;
        }
        let (columns, _) = termimad::terminal_size();
        // It has to fit into one line.
        let text = shorten(text, usize::from(columns).saturating_sub(12));
        let bar = self.bar.get_or_insert_with(bar);
        if bar.message() != text {
            bar.set_message(text);
            bar.reset_elapsed();
        }
    }

    fn status_of_calls(&mut self) {
        if let [first, others @ ..] = self.calls.as_slice() {
            let more = if others.is_empty() {
                String::new()
            } else {
                format!("  (+{})", others.len())
            };
            self.status(&format!("{} {}{more}", first.name, first.label));
        } else {
            self.status("thinking");
        }
    }

    fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        match self.markdown.as_mut().map(Markdown::finish) {
            Some(rest) => self.write(&rest),
            None => Ok(()),
        }
    }

    fn write(&mut self, blocks: &str) -> Result<(), Error> {
        if blocks.is_empty() {
            return Ok(());
        }
        let together = self.terminal.out.terminal && self.terminal.err.terminal;
        let apart = if self.progressed && together && !self.terminal.quiet {
            "\n"
        } else {
            ""
        };
        self.progressed = false;
        let answer = || self.terminal.answer(format_args!("{apart}{blocks}"));
        match &self.bar {
            Some(bar) => bar.suspend(answer),
            None => answer(),
        }
    }

    fn appended(&mut self, message: &UiMessage) -> Result<(), Error> {
        if self.shown == Shown::Answer || message.role != Role::User {
            return Ok(());
        }
        let out = self.terminal.out;
        let texts = message.parts.iter().filter_map(|part| match part {
            UiPart::Text { text, .. } => Some(clean(text)),
            UiPart::Reasoning { .. } | UiPart::File { .. } | UiPart::DynamicTool { .. } => None,
        });
        let text = texts.collect::<Vec<_>>().join("\n");
        let quoted: Vec<_> = text.lines().map(|line| format!("> {line}")).collect();
        self.write(&format!(
            "{}\n\n",
            out.paint(Paint::Strong, quoted.join("\n"))
        ))
    }

    fn ended(&mut self, id: &str, outcome: Outcome, duration_ms: u64) {
        let place = self.calls.iter().position(|call| call.id == id);
        let call = place.map(|place| self.calls.remove(place));
        let (name, label, inside) = call.map_or_else(
            || (String::from("tool"), id.to_owned(), Vec::new()),
            |call| (call.name, call.label, call.inside),
        );
        self.said.clear();
        let time = Duration::from_millis(duration_ms);
        self.line(&tool_line(self.terminal, &name, &label, &outcome, time));
        inside.iter().for_each(|line| self.line(line));
        self.status_of_calls();
    }

    /// Code called this. It is shown below its tool call, once that has ended.
    fn coded(&mut self, id: &str, calls: &[CodeCall], more: u64) {
        if let Some(last) = calls.last() {
            self.status(&format!("code {}", one_line(&last.called.path)));
        }
        let lines = code_calls(self.terminal, calls, more);
        match self.calls.iter_mut().find(|call| call.id == id) {
            Some(call) => call.inside.extend(lines),
            // It began before anybody followed.
            None => self.calls.push(Call {
                id: id.to_owned(),
                name: "code".to_owned(),
                label: String::new(),
                inside: lines,
            }),
        }
    }

    /// The code of this call waits: shows what it has called until now.
    pub(super) fn waits(&mut self, run: &CodeRun) {
        let call = self
            .calls
            .iter_mut()
            .find(|call| call.id == run.tool_call_id);
        let (name, label) = call.map_or_else(
            || ("code".to_owned(), String::new()),
            |call| {
                call.inside.clear();
                (call.name.clone(), call.label.clone())
            },
        );
        let open = tool_line(self.terminal, &name, &label, &Outcome::Open, Duration::ZERO);
        self.line(&open);
        for line in code_calls(self.terminal, &run.calls, 0) {
            self.line(&line);
        }
    }
}

/// How a tool call ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It gave a result.
    Fine,
    /// Its command ended with this code.
    Exit(String),
    /// It failed.
    Failed(String),
    /// It has not ended.
    Open,
}

/// One tool call in one line.
pub(super) fn tool_line(
    terminal: Terminal,
    name: &str,
    label: &str,
    outcome: &Outcome,
    time: Duration,
) -> String {
    let err = terminal.err;
    let spent = format!("({})", duration(time));
    let (mark, end) = match outcome {
        Outcome::Fine => (err.paint(Paint::Good, "✓"), String::new()),
        Outcome::Exit(code) => (
            err.paint(Paint::Odd, "✓"),
            err.paint(Paint::Odd, format!(" exit {code}")),
        ),
        Outcome::Failed(why) => {
            let why = shorten(&one_line(why), REASON);
            (
                err.paint(Paint::Bad, "✗"),
                err.paint(Paint::Bad, format!(" {why}")),
            )
        }
        Outcome::Open => {
            return format!(
                "{} {} {label} {}",
                err.paint(Paint::Odd, "…"),
                err.paint(Paint::Strong, name),
                "not done"
            );
        }
    };
    format!(
        "{mark} {} {label} {}{end}",
        err.paint(Paint::Strong, name),
        err.paint(Paint::Dim, spent)
    )
}

/// How a call with this result ended. A command that fails is a result, and says so at its end.
pub(super) fn outcome(output: &Value) -> Outcome {
    let last = output.as_str().and_then(|text| text.lines().last());
    match last.and_then(|line| line.strip_prefix("Command exited with code ")) {
        Some(code) => Outcome::Exit(one_line(code)),
        None => Outcome::Fine,
    }
}

/// What a call is about, in a few words.
pub(super) fn label(tool: &str, input: &Value) -> String {
    let key = match tool {
        "bash" => "command",
        "code" => "code",
        "read" | "write" | "edit" | "read_skill_resource" => "path",
        "grep" | "glob" => "pattern",
        "activate_skill" => "name",
        _ => "",
    };
    let text = match input.get(key).and_then(Value::as_str) {
        Some(text) => {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let first = lines.next().unwrap_or_default().to_owned();
            if lines.next().is_some() {
                format!("{first} …")
            } else {
                first
            }
        }
        None => input.to_string(),
    };
    shorten(&one_line(&text), LABEL)
}

fn same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
    let target = ProgressDrawTarget::term_like(Box::new(StatusLine));
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(TICK);
    bar
}

/// What became of a request, in a word.
pub(super) fn decided(decision: Decision) -> &'static str {
    match decision {
        Decision::Approve => "approved",
        Decision::Reject => "rejected",
        Decision::Answer => "answered",
        Decision::Expire => "expired",
        Decision::Withdraw => "withdrawn",
    }
}
