//! What happens, a line each.

use std::{collections::HashMap, time::Duration};

use bowline_agent::{
    Chunk, ChunkBody,
    live::DeltaKind,
    view::{Role, UiMessage, UiPart},
};
use bowline_model::{Usage, format_usd};
use bowline_runtime::{Failure, Outcome as Ending, Sources};
use bowline_store::{ActorId, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::{
    cli::{
        screen::{Outcome, code_calls, decided, label, outcome, tool_line},
        terminal::{Paint, Terminal, count, duration, grouped, one_line, shorten},
    },
    error::Error,
    server::Refused,
};

/// Characters of a text that are shown, at most and at least; between them it has to fit into a line.
const EXCERPT: (usize, usize) = (160, 40);
/// Columns for the time, the conversation and marks.
const BESIDE: usize = 32;
/// Most conversations whose sums are kept.
const MOST: usize = 10_000;

/// Shows what happens.
pub(super) struct Log {
    terminal: Terminal,
    sources: Sources,
    talks: HashMap<ActorId, Talk>,
}

/// What a conversation did since its last message was settled.
struct Talk {
    began: Timestamp,
    turns: u64,
    tools: u64,
    usage: Usage,
    cost_micro_usd: u64,
    said: String,
    calls: HashMap<String, (String, String)>,
}

/// A chunk with the conversation that it is of.
#[derive(Serialize)]
struct Of<'a> {
    agent: &'a str,
    id: &'a str,
    #[serde(flatten)]
    chunk: &'a Chunk,
}

impl Log {
    pub(super) fn new(terminal: Terminal, sources: Sources) -> Self {
        Self {
            terminal,
            sources,
            talks: HashMap::new(),
        }
    }

    /// Shows one chunk of a conversation.
    pub(super) fn chunk(&mut self, actor: &ActorId, chunk: &Chunk) {
        if self.terminal.json {
            let line = Of {
                agent: actor.name(),
                id: actor.key(),
                chunk,
            };
            // When nobody reads it there is nobody to tell.
            let _ = self.terminal.json(&line);
            return;
        }
        if self.talks.len() >= MOST && !self.talks.contains_key(actor) {
            self.talks.clear();
        }
        let now = self.sources.now();
        let talk = self
            .talks
            .entry(actor.clone())
            .or_insert_with(|| Talk::new(now));
        let line = talk.line(&chunk.body, self.terminal, now);
        if let ChunkBody::SubmissionSettled { .. } = &chunk.body {
            self.talks.remove(actor);
        }
        let who = one_line(&format!("{}/{}", actor.name(), actor.key()));
        for line in line {
            self.write(&who, &line);
        }
    }

    /// Says that too much happened to show all of it.
    pub(super) fn missed(&self, chunks: u64) {
        self.event("…", &format!("{chunks} events were not shown"), "log");
    }

    /// An agent was read.
    pub(super) fn read(&self, name: &str, again: bool) {
        let what = if again { "reloaded" } else { "added" };
        self.told(what, name);
    }

    /// An agent is gone.
    pub(super) fn removed(&self, name: &str) {
        self.told("removed", name);
    }

    /// An agent stays as it was.
    pub(super) fn kept(&self, name: &str) {
        if !self.terminal.json {
            self.event("↳", "it is served as it was before", name);
        }
    }

    /// The settings changed.
    pub(super) fn settings(&self) {
        if self.terminal.json {
            let _ = self.terminal.json(&json!({"type": "settings-changed"}));
            return;
        }
        self.event("!", "changed: start again to use it", "bowline.toml");
    }

    /// Something has a mistake.
    pub(super) fn problem(&self, what: &str, error: &Error) {
        if self.terminal.json {
            let error =
                json!({"type": error.code, "message": error.message, "details": error.hint});
            let line = json!({"type": "agent-problem", "agent": what, "error": error});
            let _ = self.terminal.json(&line);
            return;
        }
        let mark = self.terminal.err.paint(Paint::Bad, "✗");
        self.write(what, &format!("{mark} {}", one_line(&error.message)));
        if !error.hint.is_empty() {
            self.write(what, &format!("  {}", one_line(&error.hint)));
        }
    }

    /// A request was refused.
    pub(super) fn refused(&self, refused: &Refused) {
        let Refused {
            method,
            path,
            status,
            error,
        } = refused;
        if self.terminal.json {
            let error =
                json!({"type": error.code, "message": error.message, "details": error.hint});
            let _ = self.terminal.json(&json!({
                "type": "request-refused", "method": method, "path": path, "status": status,
                "error": error,
            }));
            return;
        }
        let who = shorten(&one_line(&format!("{method} {path}")), EXCERPT.0);
        let why = one_line(format!("{} {}", error.code, error.message).trim());
        let mark = self.terminal.err.paint(Paint::Bad, "✗");
        self.write(&who, &format!("{mark} {status} {why}"));
        if !error.hint.is_empty() {
            self.write(&who, &format!("  {}", one_line(&error.hint)));
        }
    }

    fn told(&self, what: &str, name: &str) {
        if self.terminal.json {
            let line = json!({"type": format!("agent-{what}"), "agent": name});
            let _ = self.terminal.json(&line);
            return;
        }
        self.event("↻", what, name);
    }

    fn event(&self, mark: &str, text: &str, who: &str) {
        let mark = self.terminal.err.paint(Paint::Odd, mark);
        self.write(who, &format!("{mark} {text}"));
    }

    fn write(&self, who: &str, line: &str) {
        let err = self.terminal.err;
        let time = err.paint(Paint::Dim, clock(self.sources.now()));
        let who = err.paint(Paint::Strong, who);
        self.terminal.say(format_args!("{time}  {who}  {line}"));
    }
}

impl Talk {
    fn new(began: Timestamp) -> Self {
        Self {
            began,
            turns: 0,
            tools: 0,
            usage: Usage::default(),
            cost_micro_usd: 0,
            said: String::new(),
            calls: HashMap::new(),
        }
    }

    /// What is to be said of a chunk.
    fn line(&mut self, body: &ChunkBody, terminal: Terminal, now: Timestamp) -> Vec<String> {
        let err = terminal.err;
        let odd = |text: String| vec![format!("{} {text}", err.paint(Paint::Odd, "?"))];
        match body {
            ChunkBody::MessageAppended { message } => arrived(message, terminal),
            ChunkBody::MessageDelta {
                kind: DeltaKind::Text,
                delta,
                ..
            } => {
                // No more than is shown, and a bit for blanks.
                if self.said.len() < 8 * EXCERPT.0 {
                    self.said.push_str(delta);
                }
                Vec::new()
            }
            ChunkBody::ToolInput {
                tool_call_id,
                tool_name,
                input,
                ..
            } => {
                let name = one_line(tool_name);
                let about = label(&name, input);
                self.calls.insert(tool_call_id.clone(), (name, about));
                self.spoken(terminal)
            }
            ChunkBody::ToolOutput {
                tool_call_id,
                output,
                duration_ms,
            } => vec![self.called(tool_call_id, &outcome(output), *duration_ms, terminal)],
            ChunkBody::ToolOutputError {
                tool_call_id,
                error_text,
                duration_ms,
            } => {
                let failed = Outcome::Failed(error_text.clone());
                vec![self.called(tool_call_id, &failed, *duration_ms, terminal)]
            }
            ChunkBody::ModelRetry {
                message, delay_ms, ..
            } => {
                self.said.clear();
                let wait = duration(Duration::from_millis(*delay_ms));
                let mark = err.paint(Paint::Odd, "↻");
                vec![format!("{mark} {}, again in {wait}", one_line(message))]
            }
            ChunkBody::ApprovalRequested { approval } => odd(match &approval.question {
                Some(question) => format!(
                    "asks: {}  (bowline answer {} ANSWER)",
                    shorten(&one_line(&question.text), excerpt(terminal)),
                    approval.approval_id
                ),
                None => format!(
                    "{} waits for consent: {}  (bowline approve {})",
                    one_line(&approval.tool_name),
                    label(&approval.tool_name, &approval.arguments),
                    approval.approval_id
                ),
            }),
            ChunkBody::ApprovalAnswered { answered } => {
                odd(decided(answered.answer.decision).to_owned())
            }
            ChunkBody::MessageCompleted { .. } => self.spoken(terminal),
            ChunkBody::Compacted {
                tokens_before,
                tokens_after,
                ..
            } => odd(format!(
                "compacted: {tokens_before} tokens to about {tokens_after}"
            )),
            ChunkBody::Usage {
                usage,
                cost_micro_usd,
            } => {
                self.turns += 1;
                self.usage += *usage;
                self.cost_micro_usd += cost_micro_usd.unwrap_or(0);
                Vec::new()
            }
            ChunkBody::SubmissionSettled { outcome, error, .. } => {
                let mut lines = self.spoken(terminal);
                lines.push(self.settled(*outcome, error.as_ref(), terminal, now));
                lines
            }
            ChunkBody::CodeCalls { calls, more, .. } => code_calls(terminal, calls, *more),
            ChunkBody::MessageStarted { .. }
            | ChunkBody::MessageDelta {
                kind: DeltaKind::Reasoning,
                ..
            }
            | ChunkBody::MessageMetadata { .. }
            | ChunkBody::ConversationReset { .. } => Vec::new(),
        }
    }

    /// What the model said since the last time.
    fn spoken(&mut self, terminal: Terminal) -> Vec<String> {
        let said = one_line(&std::mem::take(&mut self.said));
        if said.is_empty() {
            return Vec::new();
        }
        let mark = terminal.err.paint(Paint::Good, "→");
        vec![format!("{mark} {}", shorten(&said, excerpt(terminal)))]
    }

    fn called(
        &mut self,
        call: &str,
        outcome: &Outcome,
        duration_ms: u64,
        terminal: Terminal,
    ) -> String {
        self.tools += 1;
        let (name, about) = self.calls.remove(call).unwrap_or_default();
        let time = Duration::from_millis(duration_ms);
        tool_line(terminal, &name, &about, outcome, time)
    }

    fn settled(
        &self,
        ending: Ending,
        error: Option<&Failure>,
        terminal: Terminal,
        now: Timestamp,
    ) -> String {
        let (mark, word) = match ending {
            Ending::Completed => (terminal.err.paint(Paint::Good, "●"), "completed"),
            Ending::Failed => (terminal.err.paint(Paint::Bad, "●"), "failed"),
            Ending::Aborted => (terminal.err.paint(Paint::Odd, "●"), "aborted"),
        };
        let mut parts = vec![
            word.to_owned(),
            count(self.turns, "turn"),
            count(self.tools, "tool call"),
            format!(
                "{} tokens in, {} out",
                grouped(self.usage.context()),
                grouped(self.usage.output)
            ),
        ];
        if self.cost_micro_usd > 0 {
            parts.push(format!("${}", format_usd(self.cost_micro_usd)));
        }
        parts.push(duration(now.since(self.began)));
        if let Some(error) = error {
            parts.push(format!("{}: {}", error.code, one_line(&error.message)));
        }
        format!("{mark} {}", parts.join(" · "))
    }
}

/// A message from outside; what Bowline tells the model is left out.
fn arrived(message: &UiMessage, terminal: Terminal) -> Vec<String> {
    if message.role != Role::User {
        return Vec::new();
    }
    let mut files = 0;
    let texts = message.parts.iter().filter_map(|part| match part {
        UiPart::Text { text, .. } => Some(text.as_str()),
        UiPart::File { .. } => {
            files += 1;
            None
        }
        UiPart::Reasoning { .. } | UiPart::DynamicTool { .. } => None,
    });
    let text = one_line(&texts.collect::<Vec<_>>().join(" "));
    let mark = terminal.err.paint(Paint::Strong, "←");
    let more = match files {
        0 => String::new(),
        files => format!("  [{}]", count(files, "file")),
    };
    vec![format!(
        "{mark} {}{more}",
        shorten(&text, excerpt(terminal))
    )]
}

/// Characters of a text that are shown here.
fn excerpt(terminal: Terminal) -> usize {
    let (most, least) = EXCERPT;
    if !terminal.err.terminal {
        return most;
    }
    let (columns, _) = termimad::terminal_size();
    usize::from(columns)
        .saturating_sub(BESIDE)
        .clamp(least, most)
}

/// The time of day, here.
fn clock(now: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    let here = time.to_zoned(jiff::tz::TimeZone::system());
    here.strftime("%H:%M:%S").to_string()
}
