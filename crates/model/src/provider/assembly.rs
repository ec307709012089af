//! Builds an answer and its events at the same time, so that what was streamed and what is
//! returned at the end cannot differ.

use std::collections::{HashSet, VecDeque};

use crate::event::Event;
use crate::handoff::distinct;
use crate::message::{
    AssistantMessage, AssistantPart, Message, ModelRef, StopReason, ToolCall, Usage,
};
use crate::request::Request;
use crate::transcript::Transcript;

/// The longest tool-call id that is kept as it came.
const MAX_ID: usize = 512;

#[derive(Debug)]
enum Part {
    Open(AssistantPart, String),
    Closed(AssistantPart),
}

/// An answer that is being received.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) usage: Usage,
    pub(crate) events: VecDeque<Event>,
    model: ModelRef,
    response_id: Option<String>,
    started: bool,
    done: bool,
    parts: Vec<Part>,
    call: u32,
    /// The transcript that is answered: its ids are taken.
    messages: Transcript,
    /// The ids of this answer.
    ids: HashSet<String>,
    /// What the answer may begin with once more, because it goes on from there, and how much of that has
    /// come: some servers repeat it.
    repeated: Option<(String, usize)>,
}

impl Assembly {
    pub(crate) fn new(model: ModelRef, request: &Request) -> Self {
        Self {
            usage: Usage::default(),
            events: VecDeque::new(),
            model,
            response_id: None,
            started: false,
            done: false,
            parts: Vec::new(),
            call: request.position.call,
            messages: request.messages.clone(),
            ids: HashSet::new(),
            repeated: request.begun.clone().map(|begun| (begun, 0)),
        }
    }

    pub(crate) fn model(&self) -> &ModelRef {
        &self.model
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// How many parts there are so far.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The first call counts: later ones change nothing.
    pub(crate) fn start(&mut self, response_id: Option<&str>) {
        if !self.started {
            self.started = true;
            self.response_id = response_id.map(str::to_owned);
            self.events.push_back(Event::Started {
                response_id: self.response_id.clone(),
            });
        }
    }

    /// Appends to the text part at `slot`, opening it at the first piece that is not empty.
    pub(crate) fn text(&mut self, slot: &mut Option<usize>, delta: &str) {
        if delta.is_empty() {
            return;
        }
        let Some((begun, come)) = self.repeated.take() else {
            return self.say(slot, delta);
        };
        let left = &begun[come..];
        if let Some(fresh) = delta.strip_prefix(left) {
            self.text(slot, fresh);
        } else if left.starts_with(delta) {
            self.repeated = Some((begun, come + delta.len()));
        } else {
            let held = begun[..come].to_owned() + delta;
            self.say(slot, &held);
        }
    }

    /// Says what was held back as the beginning of a repetition: it was none, only as short as one.
    fn say_held(&mut self) {
        if let Some((begun, come)) = self.repeated.take()
            && come > 0
        {
            self.say(&mut None, &begun[..come]);
        }
    }

    fn say(&mut self, slot: &mut Option<usize>, delta: &str) {
        let index = self.slot(slot, || AssistantPart::Text {
            text: String::new(),
            signature: None,
        });
        if let Some(Part::Open(AssistantPart::Text { text, .. }, _)) = self.parts.get_mut(index) {
            text.push_str(delta);
            self.events.push_back(Event::Text {
                index,
                delta: delta.to_owned(),
            });
        }
    }

    /// Appends to the thought at `slot`, opening it at the first piece that is not empty.
    pub(crate) fn thinking(&mut self, slot: &mut Option<usize>, delta: &str) {
        if delta.is_empty() {
            return;
        }
        let index = self.open_thinking(slot);
        if let Some(Part::Open(AssistantPart::Thinking { text, .. }, _)) = self.parts.get_mut(index)
        {
            text.push_str(delta);
            self.events.push_back(Event::Thinking {
                index,
                delta: delta.to_owned(),
            });
        }
    }

    /// Ends the thought at `slot`. One that was never opened is, if it has a signature.
    pub(crate) fn end_thinking(
        &mut self,
        slot: &mut Option<usize>,
        new_signature: Option<String>,
        is_redacted: bool,
    ) {
        if slot.is_none() && new_signature.is_none() {
            return;
        }
        let index = self.open_thinking(slot);
        let Some(part @ Part::Open(..)) = self.parts.get_mut(index) else {
            return;
        };
        if let Part::Open(AssistantPart::Thinking { text, .. }, _) = part {
            *part = Part::Closed(AssistantPart::Thinking {
                text: std::mem::take(text),
                signature: new_signature.clone(),
                redacted: is_redacted,
            });
            let (signature, redacted) = (new_signature, is_redacted);
            self.events.push_back(Event::ThinkingEnd {
                index,
                signature,
                redacted,
            });
        }
    }

    /// Ends the text at `slot`, if it was opened.
    pub(crate) fn end_text(&mut self, slot: Option<usize>, new_signature: Option<String>) {
        let Some(index) = slot else { return };
        let Some(part @ Part::Open(..)) = self.parts.get_mut(index) else {
            return;
        };
        if let Part::Open(AssistantPart::Text { text, .. }, _) = part {
            *part = Part::Closed(AssistantPart::Text {
                text: std::mem::take(text),
                signature: new_signature.clone(),
            });
            self.events.push_back(Event::TextEnd {
                index,
                signature: new_signature,
            });
        }
    }

    /// Opens a tool call. An id that is missing, or that the transcript already has, is replaced
    /// by one that follows from the position of the call.
    pub(crate) fn start_call(&mut self, id: &str, name: &str) -> usize {
        self.say_held();
        let index = self.parts.len();
        let nth = self.calls();
        let wanted = if id.is_empty() || id.len() > MAX_ID {
            format!("call_{}_{nth}", self.call)
        } else {
            id.to_owned()
        };
        let id = self.distinct(wanted);
        self.ids.insert(id.clone());
        let call = ToolCall::from_text(id.clone(), name.to_owned(), "");
        self.parts
            .push(Part::Open(AssistantPart::ToolCall(call), String::new()));
        self.events.push_back(Event::ToolCallStart {
            index,
            id,
            name: name.to_owned(),
        });
        index
    }

    /// `wanted`, or what is nearest to it and not taken. The transcript is looked through once, and nothing
    /// of it is copied: a long one has thousands of calls.
    fn distinct(&self, wanted: String) -> String {
        let (mut clash, mut last) = (false, 1_u64);
        for id in calls(&self.messages).chain(self.ids.iter().map(String::as_str)) {
            match id.strip_prefix(&*wanted) {
                Some("") => clash = true,
                Some(rest) => {
                    let number = rest.strip_prefix('_').and_then(|rest| rest.parse().ok());
                    last = last.max(number.unwrap_or(1));
                }
                None => {}
            }
        }
        if !clash {
            return wanted;
        }
        let next = last
            .checked_add(1)
            .map(|number| format!("{wanted}_{number}"));
        match next.filter(|next| next.len() <= MAX_ID) {
            Some(next) => next,
            None => distinct(&wanted, MAX_ID, |candidate| {
                self.ids.contains(candidate) || calls(&self.messages).any(|id| id == candidate)
            }),
        }
    }

    pub(crate) fn call_delta(&mut self, index: usize, delta: &str) {
        if delta.is_empty() {
            return;
        }
        if let Some(Part::Open(AssistantPart::ToolCall(_), arguments)) = self.parts.get_mut(index) {
            arguments.push_str(delta);
            self.events.push_back(Event::ToolCallDelta {
                index,
                delta: delta.to_owned(),
            });
        }
    }

    /// Whether no argument text has arrived for the call at `index`.
    pub(crate) fn call_is_empty(&self, index: usize) -> bool {
        matches!(self.parts.get(index), Some(Part::Open(_, arguments)) if arguments.is_empty())
    }

    /// Ends a tool call.
    pub(crate) fn end_call(&mut self, index: usize, signature: Option<String>) {
        let Some(part) = self.parts.get_mut(index) else {
            return;
        };
        if let Part::Open(AssistantPart::ToolCall(open), arguments) = part {
            let id = std::mem::take(&mut open.id);
            let name = std::mem::take(&mut open.name);
            let mut call = ToolCall::from_text(id, name, arguments);
            call.signature = signature;
            *part = Part::Closed(AssistantPart::ToolCall(call.clone()));
            self.events.push_back(Event::ToolCallEnd { index, call });
        }
    }

    /// Ends every part and the answer. `Stop` and `ToolUse` are made to agree with whether there
    /// are tool calls: providers are not consistent about it.
    pub(crate) fn finish(&mut self, stop: StopReason) {
        if self.done {
            return;
        }
        self.start(None);
        self.say_held();
        for index in 0..self.parts.len() {
            match &self.parts[index] {
                Part::Open(AssistantPart::Text { .. }, _) => self.end_text(Some(index), None),
                Part::Open(AssistantPart::Thinking { .. }, _) => {
                    self.end_thinking(&mut Some(index), None, false);
                }
                Part::Open(AssistantPart::ToolCall(_), _) => self.end_call(index, None),
                Part::Closed(_) => {}
            }
        }
        let stop = match stop {
            StopReason::Stop if self.calls() > 0 => StopReason::ToolUse,
            StopReason::ToolUse if self.calls() == 0 => StopReason::Stop,
            stop => stop,
        };
        let parts = std::mem::take(&mut self.parts)
            .into_iter()
            .map(|part| match part {
                Part::Open(part, _) | Part::Closed(part) => part,
            })
            .collect();
        self.done = true;
        self.events.push_back(Event::Done(AssistantMessage {
            model: self.model.clone(),
            parts,
            stop,
            usage: self.usage,
            response_id: self.response_id.clone(),
        }));
    }

    fn calls(&self) -> usize {
        let is_call = |part: &&Part| match part {
            Part::Open(part, _) | Part::Closed(part) => {
                matches!(part, AssistantPart::ToolCall(_))
            }
        };
        self.parts.iter().filter(is_call).count()
    }

    fn open_thinking(&mut self, slot: &mut Option<usize>) -> usize {
        self.slot(slot, || AssistantPart::Thinking {
            text: String::new(),
            signature: None,
            redacted: false,
        })
    }

    fn slot(&mut self, slot: &mut Option<usize>, new: impl FnOnce() -> AssistantPart) -> usize {
        *slot.get_or_insert_with(|| {
            self.parts.push(Part::Open(new(), String::new()));
            self.parts.len() - 1
        })
    }
}

/// The ids of the tool calls of a transcript.
fn calls(messages: &Transcript) -> impl Iterator<Item = &str> {
    let calls = messages.iter().filter_map(|message| match &**message {
        Message::Assistant(message) => Some(message.tool_calls()),
        Message::User(_) | Message::ToolResult(_) => None,
    });
    calls.flatten().map(|call| call.id.as_str())
}
