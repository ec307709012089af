//! Makes a transcript valid for the model that it is sent to next, whoever made it.
//!
//! A conversation may change its model at any turn, may have been interrupted anywhere, and may
//! have been compacted. Providers refuse transcripts with a missing tool result, an id in a form
//! they do not know, another model's encrypted thoughts or, some of them, one that ends on the
//! model's own words. [`prepare`] removes each of these causes; it is a pure function, and the
//! result for a prefix of a transcript is a prefix of the result, so that prompt caches hold.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use crate::message::{
    AssistantMessage, AssistantPart, Message, ModelRef, ResultPart, StopReason, ToolCall,
    ToolResult, UserMessage, UserPart,
};

/// What stands in for the result of a call that has none.
pub const NO_RESULT: &str = "No result was recorded for this call.";

/// What is appended when a transcript would end on the model's own words.
pub const CONTINUE: &str = "Continue.";

/// What a transcript begins with that would begin on the model's own words.
pub const BEGINNING: &str = "(The beginning of the conversation is not shown.)";

/// What stands in for a message of white space.
pub const BLANK: &str = "(An empty message.)";

/// The longest name of a tool, in characters: every format takes as many.
const MAX_NAME: usize = 64;

/// The form of tool-call ids that a wire format takes: letters, digits, `_` and `-`, at most so
/// many; or, where they are `plain`, exactly so many letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRule {
    /// The longest id, in characters.
    pub max: usize,
    /// Only letters and digits, and exactly `max` of them.
    pub plain: bool,
}

impl IdRule {
    /// Ids of at most 64 characters, as Anthropic and OpenAI take them.
    pub const COMMON: IdRule = IdRule {
        max: 64,
        plain: false,
    };

    fn allows(self, id: &str) -> bool {
        let fits = if self.plain {
            id.len() == self.max
        } else {
            id.len() <= self.max
        };
        fits && !id.is_empty() && id.chars().all(|ch| self.takes(ch))
    }

    fn takes(self, ch: char) -> bool {
        ch.is_ascii_alphanumeric() || (!self.plain && (ch == '_' || ch == '-'))
    }
}

/// The transcript as `target` may see it.
///
/// - Signatures, encrypted thoughts and other opaque parts stay only with the model that made
///   them; other models' thoughts are dropped, their text and tool calls stay.
/// - Tool-call ids that the wire format does not take, or that are used twice, are replaced, the
///   same one always by the same one.
/// - Names of tools that no format takes back, since no tool can have them, are replaced: models make
///   them up. What white space a person sent is said to be empty.
/// - Every tool call has exactly one result, directly after the message that made it, in source
///   order; a missing one says [`NO_RESULT`], and results without a call are dropped.
/// - Messages without content are dropped, and the tool calls of an aborted or failed message with
///   them unless they have results.
/// - It begins with a message of a person, if need be [`BEGINNING`], and does not end with an assistant
///   message: [`CONTINUE`] is said instead.
pub fn prepare<M: Borrow<Message>>(messages: &[M], target: &ModelRef, ids: IdRule) -> Vec<Message> {
    let mut names = Names {
        rule: ids,
        used: HashSet::new(),
    };
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut rest = messages;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let first = first.borrow();
        match first {
            Message::User(user) if user.parts.is_empty() => {}
            Message::User(user) if user.parts.iter().all(is_blank) => {
                out.push(Message::User(UserMessage::text(BLANK)));
            }
            Message::User(_) => out.push(first.clone()),
            Message::ToolResult(_) => {}
            Message::Assistant(message) => {
                let count = tail
                    .iter()
                    .take_while(|next| matches!((*next).borrow(), Message::ToolResult(_)))
                    .count();
                let (results, after) = tail.split_at(count);
                rest = after;
                let begins = out.is_empty();
                push_turn(message, results, target, &mut names, &mut out);
                if begins && !out.is_empty() {
                    out.insert(0, Message::User(UserMessage::text(BEGINNING)));
                }
            }
        }
    }
    if matches!(out.last(), Some(Message::Assistant(_))) {
        out.push(Message::User(UserMessage::text(CONTINUE)));
    }
    out
}

fn is_blank(part: &UserPart) -> bool {
    match part {
        UserPart::Text { text } => text.trim().is_empty(),
        UserPart::File(_) => false,
    }
}

/// One assistant message and the results that follow it.
fn push_turn<M: Borrow<Message>>(
    message: &AssistantMessage,
    results: &[M],
    target: &ModelRef,
    names: &mut Names,
    out: &mut Vec<Message>,
) {
    let mut by_id: HashMap<&str, Vec<&ToolResult>> = HashMap::new();
    for result in results.iter().rev() {
        if let Message::ToolResult(result) = result.borrow() {
            by_id.entry(&result.call_id).or_default().push(result);
        }
    }
    let broken = matches!(message.stop, StopReason::Aborted | StopReason::Error);
    let same = message.model == *target;
    let mut answers = Vec::new();
    let mut parts = Vec::with_capacity(message.parts.len());
    for part in &message.parts {
        match part {
            AssistantPart::Text { text, signature } => {
                if !text.trim().is_empty() {
                    let signature = signature.clone().filter(|_| same);
                    parts.push(AssistantPart::Text {
                        text: text.clone(),
                        signature,
                    });
                }
            }
            AssistantPart::Thinking {
                text, signature, ..
            } => {
                let empty = text.trim().is_empty() && signature.is_none();
                // A thought that was cut off is not signed, and cannot be given back.
                if same && !empty && !(broken && signature.is_none()) {
                    parts.push(part.clone());
                }
            }
            AssistantPart::ToolCall(call) => {
                let result = by_id.get_mut(call.id.as_str()).and_then(Vec::pop);
                if broken && result.is_none() {
                    continue;
                }
                let id = names.assign(&call.id);
                answers.push(answer(call, result, id.clone()));
                let signature = call.signature.clone().filter(|_| same);
                parts.push(AssistantPart::ToolCall(ToolCall {
                    id,
                    signature,
                    name: tool_name(&call.name),
                    ..call.clone()
                }));
            }
        }
    }
    let says_something = parts
        .iter()
        .any(|part| !matches!(part, AssistantPart::Thinking { .. }));
    if !says_something {
        return;
    }
    out.push(Message::Assistant(AssistantMessage {
        parts,
        ..message.clone()
    }));
    out.extend(answers.into_iter().map(Message::ToolResult));
}

fn answer(call: &ToolCall, result: Option<&ToolResult>, id: String) -> ToolResult {
    match result {
        Some(result) => ToolResult {
            call_id: id,
            name: tool_name(&result.name),
            ..result.clone()
        },
        None => ToolResult {
            call_id: id,
            name: tool_name(&call.name),
            parts: vec![ResultPart::Text {
                text: NO_RESULT.to_owned(),
            }],
            is_error: true,
        },
    }
}

/// A name that can be one of a tool: this one, if it can.
fn tool_name(name: &str) -> String {
    let takes = |ch: char| ch.is_ascii_alphanumeric() || ch == '_' || ch == '-';
    let name: String = name
        .chars()
        .take(MAX_NAME)
        .map(|ch| if takes(ch) { ch } else { '_' })
        .collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

/// Gives every call an id of its own in the target's form.
struct Names {
    rule: IdRule,
    used: HashSet<String>,
}

impl Names {
    fn assign(&mut self, id: &str) -> String {
        let taken = |candidate: &str| self.used.contains(candidate);
        let name = if self.rule.plain {
            plain(id, self.rule, taken)
        } else {
            distinct(&self.cleaned(id), self.rule.max, taken)
        };
        self.used.insert(name.clone());
        name
    }

    fn cleaned(&self, id: &str) -> String {
        let name: String = id
            .chars()
            .map(|ch| if self.rule.takes(ch) { ch } else { '_' })
            .take(self.rule.max)
            .collect();
        if name.is_empty() {
            "call".to_owned()
        } else {
            name
        }
    }
}

/// `id` if the rule allows it, else letters and digits that follow from it.
fn plain(id: &str, rule: IdRule, taken: impl Fn(&str) -> bool) -> String {
    if rule.allows(id) && !taken(id) {
        return id.to_owned();
    }
    let mut seed = 0_u32;
    loop {
        // FNV-1a: stable in every version and on every machine, as a cached prefix needs it.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in id.bytes().chain(seed.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let name: String = format!("{hash:016x}")
            .chars()
            .cycle()
            .take(rule.max)
            .collect();
        if !taken(&name) {
            return name;
        }
        seed += 1;
    }
}

/// `id`, or `id` with the first number that makes it one that is not taken, within `max` bytes.
/// `id` must be ASCII, or short enough.
pub(crate) fn distinct(id: &str, max: usize, taken: impl Fn(&str) -> bool) -> String {
    if !taken(id) {
        return id.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let suffix = format!("_{number}");
        let room = max.saturating_sub(suffix.len());
        let stem: String = id.chars().take(room).collect();
        let candidate = format!("{stem}{suffix}");
        if !taken(&candidate) {
            return candidate;
        }
        number += 1;
    }
}
