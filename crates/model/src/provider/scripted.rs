//! The scripted model: a deterministic model without a network, to test agents with.
//!
//! Its answer is a function of the request alone: reply *n* of the script answers model call *n*
//! of the submission ([`crate::CallPosition`]), also after a crash and in another process. The
//! guide is `docs/scripted-model.md`.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::script::{AtEnd, Expect, Fault, FaultKind, Script, Stop, Turn};
use crate::error::{ErrorKind, ModelError, one_line};
use crate::event::{Event, EventStream};
use crate::message::{Message, ModelRef, ResultPart, StopReason, Usage, UserPart};
use crate::provider::Provider;
use crate::provider::assembly::Assembly;
use crate::request::{Purpose, Request};

/// The largest script that is read.
const MAX_SCRIPT: u64 = 4 * 1024 * 1024;

/// A model that answers from a script.
#[derive(Clone, Debug)]
pub struct Scripted {
    script: Arc<Script>,
    provider: String,
    name: String,
    idle: Duration,
}

impl Scripted {
    /// Reads a script from a file of at most 4 MiB. `provider` and `name` are what errors and
    /// transcripts call the model; `idle` is the deadline after which a `stall` is an error.
    ///
    /// # Errors
    ///
    /// `Script` when the file cannot be read, or has an error: with its line.
    pub fn read(
        path: &Path,
        provider: &str,
        name: &str,
        idle: Duration,
    ) -> Result<Self, ModelError> {
        let fail = |why: String| {
            let message = format!("the script {}: {why}", path.display());
            ModelError::new(ErrorKind::Script, provider, message)
        };
        let size = std::fs::metadata(path)
            .map_err(|error| fail(error.to_string()))?
            .len();
        if size > MAX_SCRIPT {
            return Err(fail(format!("it is larger than {MAX_SCRIPT} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        let script = Arc::new(Script::parse(&text).map_err(fail)?);
        let (provider, name) = (provider.to_owned(), name.to_owned());
        Ok(Self {
            script,
            provider,
            name,
            idle,
        })
    }

    /// A model from the text of a script, called `scripted/inline`, with an idle deadline of
    /// 300 s.
    ///
    /// # Errors
    ///
    /// `Script` when it has an error: with its line.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let script = Script::parse(text)
            .map_err(|why| ModelError::new(ErrorKind::Script, "scripted", why))?;
        Ok(Self {
            script: Arc::new(script),
            provider: "scripted".to_owned(),
            name: "inline".to_owned(),
            idle: Duration::from_secs(300),
        })
    }

    /// The turn that answers a request.
    fn turn(&self, request: &Request) -> Result<&Turn, ModelError> {
        let position = &request.position;
        if position.purpose == Purpose::Summary {
            let nth = usize::try_from(position.call.max(1)).unwrap_or(usize::MAX) - 1;
            let summaries = &self.script.summaries;
            let turn = summaries.get(nth).or(summaries.last());
            return turn.ok_or_else(|| self.error("`summaries` is empty".to_owned()));
        }
        let branch = self
            .script
            .by_message
            .iter()
            .find(|branch| branch.pattern.is_match(&position.submission_text));
        let (turns, at_end) = match branch {
            Some(branch) => (&branch.turns, branch.at_end.unwrap_or(self.script.at_end)),
            None => (&self.script.turns, self.script.at_end),
        };
        let call = usize::try_from(position.call.max(1)).unwrap_or(usize::MAX);
        if let Some(turn) = turns.get(call - 1) {
            return Ok(turn);
        }
        let whose = branch.map_or_else(String::new, |branch| {
            format!(" for messages that match `{}`", branch.pattern.as_str())
        });
        match (at_end, turns.last()) {
            (AtEnd::RepeatLast, Some(last)) => Ok(last),
            _ => Err(self.error(format!(
                "{} has {} turns{whose}, and this is model call {call}",
                self.name,
                turns.len()
            ))),
        }
    }

    fn error(&self, message: String) -> ModelError {
        ModelError::new(ErrorKind::Script, &self.provider, message)
    }

    fn check(&self, expect: &Expect, request: &Request) -> Result<(), ModelError> {
        let mismatch = |what: &str, wanted: &str, got: &str| {
            Err(self.error(format!(
                "model call {}: expected {what} {wanted}, but got {}",
                request.position.call,
                quote(got)
            )))
        };
        let last = request.messages.last().map(AsRef::as_ref);
        if let Some(tool) = &expect.last_tool {
            let got = match last {
                Some(Message::ToolResult(result)) => result.name.as_str(),
                _ => "no tool result",
            };
            if got != tool {
                return mismatch("the last message to be the result of", tool, got);
            }
        }
        if let Some(wanted) = expect.is_error {
            let got = matches!(last, Some(Message::ToolResult(result)) if result.is_error);
            if got != wanted {
                let text = text_of(last);
                return mismatch(
                    "the last result's is_error to be",
                    &wanted.to_string(),
                    &text,
                );
            }
        }
        if let Some(pattern) = &expect.matches {
            let text = text_of(last);
            if !pattern.is_match(&text) {
                let wanted = format!("`{}`", pattern.as_str());
                return mismatch("the last message to match", &wanted, &text);
            }
        }
        if let Some(pattern) = &expect.system
            && !pattern.is_match(&request.system)
        {
            let wanted = format!("`{}`", pattern.as_str());
            return mismatch("the system prompt to match", &wanted, &request.system);
        }
        for tool in &expect.tools {
            if !request.tools.iter().any(|spec| spec.name == *tool) {
                let names: Vec<&str> = request.tools.iter().map(|tool| &*tool.name).collect();
                return mismatch("the tools to have", tool, &names.join(", "));
            }
        }
        Ok(())
    }

    fn failure(&self, fault: &Fault) -> ModelError {
        let (kind, message) = match fault.kind {
            FaultKind::RateLimit => {
                let retry_after = fault.retry_after_ms.map(Duration::from_millis);
                (
                    ErrorKind::RateLimit { retry_after },
                    "the script says: too many requests",
                )
            }
            FaultKind::Overloaded => (ErrorKind::Overloaded, "the script says: overloaded"),
            FaultKind::Error => (ErrorKind::InvalidRequest, "the script says: bad request"),
            FaultKind::Cut => (ErrorKind::Cut, "the script cut the stream"),
            FaultKind::Stall => (ErrorKind::Stalled, "the script let the stream stall"),
            FaultKind::Network => (ErrorKind::Network, "the script says: connection refused"),
            FaultKind::Auth => (ErrorKind::Auth, "the script says: wrong key"),
            FaultKind::ContextOverflow => (
                ErrorKind::ContextOverflow,
                "the script says: the prompt is too long",
            ),
        };
        ModelError::new(kind, &self.provider, message)
    }
}

/// The end of a text, where what matters usually stands, on one line.
fn quote(text: &str) -> String {
    const SHOWN: usize = 200;
    let line = one_line(text, usize::MAX);
    let length = line.chars().count();
    if length <= SHOWN {
        return format!("`{line}`");
    }
    let tail: String = line.chars().skip(length - SHOWN).collect();
    format!("`…{tail}`")
}

fn text_of(message: Option<&Message>) -> String {
    match message {
        None => String::new(),
        Some(Message::Assistant(answer)) => answer.text(),
        Some(Message::User(user)) => {
            let texts = user.parts.iter().filter_map(|part| match part {
                UserPart::Text { text } => Some(text.as_str()),
                UserPart::File(_) => None,
            });
            texts.collect::<Vec<_>>().join("\n")
        }
        Some(Message::ToolResult(result)) => result.text(),
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let turn = self.turn(&request)?;
        if let Some(expect) = &turn.expect {
            self.check(expect, &request)?;
        }
        let fault = turn
            .fault
            .as_ref()
            .filter(|fault| request.position.attempt < fault.attempts);
        let early = fault.filter(|fault| {
            fault.after_chars == 0 && !matches!(fault.kind, FaultKind::Cut | FaultKind::Stall)
        });
        if let Some(fault) = early {
            return Err(self.failure(fault));
        }
        let mut steps = steps(turn, &request, self.model_ref(&request.model));
        let mut ending = Ending::Whole;
        if let Some(fault) = fault {
            cut(&mut steps, fault.after_chars);
            ending = match fault.kind {
                FaultKind::Stall => Ending::Stall(self.failure(fault), self.idle),
                _ => Ending::Fails(self.failure(fault)),
            };
        }
        let delay = Duration::from_millis(turn.stream.delay_ms);
        let play = Play {
            steps,
            ending,
            delay,
        };
        Ok(Box::pin(futures::stream::unfold(play, Play::next)))
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "scripted".to_owned(),
            provider: self.provider.clone(),
            model: model.to_owned(),
        }
    }
}

/// The events of a whole turn.
fn steps(turn: &Turn, request: &Request, reference: ModelRef) -> VecDeque<Event> {
    let mut out = Assembly::new(reference, request);
    out.usage = turn
        .usage
        .map_or_else(|| estimate(turn, request), Usage::from);
    out.start(None);
    let size = turn.stream.chars;
    let mut thinking = None;
    for piece in pieces(&turn.thinking, size) {
        out.thinking(&mut thinking, piece);
    }
    if thinking.is_some() {
        out.end_thinking(&mut thinking, Some("scripted".to_owned()), false);
    }
    let mut text = None;
    for piece in pieces(&turn.text, size) {
        out.text(&mut text, piece);
    }
    out.end_text(text, None);
    for tool in &turn.tools {
        let index = out.start_call("", &tool.name);
        let input = match &tool.input {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            input => input.to_string(),
        };
        for piece in pieces(&input, size) {
            out.call_delta(index, piece);
        }
        out.end_call(index, None);
    }
    out.finish(match turn.stop {
        None => StopReason::Stop,
        Some(Stop::Length) => StopReason::Length,
        Some(Stop::Refused) => StopReason::Refused,
    });
    out.events
}

/// Cuts the events after so many characters of content.
fn cut(steps: &mut VecDeque<Event>, after_chars: usize) {
    let mut left = after_chars;
    let mut kept = VecDeque::new();
    for mut step in steps.drain(..) {
        match &mut step {
            Event::Text { delta, .. }
            | Event::Thinking { delta, .. }
            | Event::ToolCallDelta { delta, .. } => {
                let length = delta.chars().count();
                if length >= left {
                    let end = delta
                        .char_indices()
                        .nth(left)
                        .map_or(delta.len(), |(at, _)| at);
                    delta.truncate(end);
                    if !delta.is_empty() {
                        kept.push_back(step);
                    }
                    break;
                }
                left -= length;
                kept.push_back(step);
            }
            Event::Done(_) => break,
            Event::Started { .. }
            | Event::TextEnd { .. }
            | Event::ThinkingEnd { .. }
            | Event::ToolCallStart { .. }
            | Event::ToolCallEnd { .. } => kept.push_back(step),
        }
    }
    *steps = kept;
}

fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .char_indices()
            .nth(size)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(piece)
    })
}

/// Four characters a token, counted over the request and the answer.
fn estimate(turn: &Turn, request: &Request) -> Usage {
    let tokens = |chars: usize| u64::try_from(chars.div_ceil(4)).unwrap_or(u64::MAX);
    let mut input = request.system.len();
    for message in &request.messages {
        let message: &Message = message;
        input += match message {
            Message::User(_) | Message::ToolResult(_) => text_of(Some(message)).len(),
            Message::Assistant(answer) => {
                let calls = answer
                    .tool_calls()
                    .map(|call| call.arguments.to_string().len());
                answer.text().len() + calls.sum::<usize>()
            }
        };
        if let Message::ToolResult(result) = message {
            let files = result
                .parts
                .iter()
                .filter(|part| matches!(part, ResultPart::File(_)));
            input += files.count() * 4800;
        }
    }
    let calls: usize = turn
        .tools
        .iter()
        .map(|tool| tool.input.to_string().len())
        .sum();
    let output = turn.thinking.len() + turn.text.len() + calls;
    Usage {
        input: tokens(input),
        output: tokens(output),
        ..Usage::default()
    }
}

/// How a played answer ends.
enum Ending {
    Whole,
    Fails(ModelError),
    Stall(ModelError, Duration),
    Over,
}

/// An answer that is being played.
struct Play {
    steps: VecDeque<Event>,
    ending: Ending,
    delay: Duration,
}

impl Play {
    async fn next(mut self) -> Option<(Result<Event, ModelError>, Self)> {
        if let Some(step) = self.steps.pop_front() {
            let content = matches!(
                step,
                Event::Text { .. } | Event::Thinking { .. } | Event::ToolCallDelta { .. }
            );
            if content && !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            return Some((Ok(step), self));
        }
        match std::mem::replace(&mut self.ending, Ending::Over) {
            Ending::Whole | Ending::Over => None,
            Ending::Fails(error) => Some((Err(error), self)),
            Ending::Stall(error, idle) => {
                tokio::time::sleep(idle).await;
                Some((Err(error), self))
            }
        }
    }
}
