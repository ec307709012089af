//! How a conversation looks to a person: one message for each response, tools inside it.

use std::collections::BTreeMap;

use bowline_model::AssistantPart;
use bowline_runtime::submission::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    conversation::{Conversation, Entry, EntryBody},
    record::{Content, Signal, ToolOutcome},
};

/// A message as a client shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UiMessage {
    /// `msg_…`; for a response, the id of its first step.
    pub id: String,
    /// Who speaks.
    pub role: Role,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether it is meant to be seen.
    pub display: Display,
    /// The submission it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission_id: Option<String>,
    /// What happened, for a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<UiSignal>,
    /// How the submission ended, for the advisory that tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settlement: Option<UiSettlement>,
    /// Its pieces, in order.
    pub parts: Vec<UiPart>,
    /// More about it: under `approvals`, by id, the calls of a response that waited for a person; under
    /// `code`, by tool call, the calls that code made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A person.
    User,
    /// The model.
    Assistant,
    /// Bowline, or something outside.
    System,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A person's message.
    User,
    /// The model's response.
    Assistant,
    /// Something that happened elsewhere.
    Dispatch,
    /// What Bowline tells the model.
    Advisory,
}

/// Whether a message is meant to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    /// By everybody.
    Visible,
    /// By whoever looks for the reason of something.
    Diagnostic,
}

/// The kind of a signal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UiSignal {
    /// For example `instructions`.
    #[serde(rename = "type")]
    pub signal_type: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// How a submission ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct UiSettlement {
    /// `failed` or `aborted`.
    pub outcome: Outcome,
}

/// A piece of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum UiPart {
    /// What is said.
    Text {
        /// The text.
        text: String,
        /// Whether it grows.
        state: TextState,
    },
    /// What is thought.
    Reasoning {
        /// The text.
        text: String,
        /// Whether it grows.
        state: TextState,
    },
    /// A file.
    File {
        /// For example `image/png`.
        media_type: String,
        /// `file_…`.
        id: String,
        /// In bytes.
        size: u64,
        /// Its name, where it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
    /// A tool call.
    DynamicTool {
        /// The tool.
        tool_name: String,
        /// The call.
        tool_call_id: String,
        /// Its arguments.
        input: Value,
        /// How far it is.
        #[serde(flatten)]
        state: ToolState,
    },
}

/// Whether a text grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextState {
    /// It is complete.
    Done,
    /// More may come.
    Streaming,
}

/// How far a tool call is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum ToolState {
    /// It has not ended.
    InputAvailable,
    /// It gave a result.
    OutputAvailable {
        /// The result.
        output: Value,
        /// How long it took.
        duration_ms: u64,
    },
    /// It failed.
    OutputError {
        /// What went wrong.
        error_text: String,
        /// How long it took.
        duration_ms: u64,
    },
}

/// The conversation as messages, oldest first.
pub fn messages(conversation: &Conversation) -> Vec<UiMessage> {
    let mut messages: Vec<UiMessage> = Vec::new();
    for entry in &conversation.entries {
        match &entry.body {
            EntryBody::User(content) => messages.push(user(entry, content)),
            EntryBody::Signal(content) => messages.push(signal(entry, content)),
            EntryBody::Assistant { message, .. } => {
                let parts = message.parts.iter().map(part);
                match response(&mut messages, entry.submission.as_deref()) {
                    Some(open) => open.parts.extend(parts),
                    None => messages.push(UiMessage {
                        id: entry.id.clone(),
                        role: Role::Assistant,
                        purpose: Purpose::Assistant,
                        display: Display::Visible,
                        submission_id: entry.submission.clone(),
                        signal: None,
                        settlement: None,
                        parts: parts.collect(),
                        metadata: None,
                    }),
                }
            }
            EntryBody::ToolResults(results) => {
                if let Some(open) = response(&mut messages, entry.submission.as_deref()) {
                    results.iter().for_each(|outcome| settle(open, outcome));
                }
            }
        }
    }
    let running = conversation.outcomes.values();
    if let Some(open) = messages
        .iter_mut()
        .rev()
        .find(|message| message.role == Role::Assistant)
    {
        running.for_each(|outcome| settle(open, outcome));
    }
    messages
}

/// A person's message, or a signal from outside, as one message.
pub fn user(entry: &Entry, content: &[Content]) -> UiMessage {
    UiMessage {
        id: entry.id.clone(),
        role: Role::User,
        purpose: Purpose::User,
        display: Display::Visible,
        submission_id: entry.submission.clone(),
        signal: None,
        settlement: None,
        parts: content.iter().map(piece).collect(),
        metadata: None,
    }
}

/// What the model was told by somebody other than a person, as one message.
pub fn signal(entry: &Entry, signal: &Signal) -> UiMessage {
    let settlement = match signal.signal_type.as_str() {
        "submission_aborted" => Some(UiSettlement {
            outcome: Outcome::Aborted,
        }),
        "submission_interrupted" => Some(UiSettlement {
            outcome: Outcome::Failed,
        }),
        _ => None,
    };
    let ours =
        settlement.is_some() || matches!(signal.signal_type.as_str(), "resources" | "instructions");
    UiMessage {
        id: entry.id.clone(),
        role: Role::System,
        purpose: if ours {
            Purpose::Advisory
        } else {
            Purpose::Dispatch
        },
        display: Display::Diagnostic,
        submission_id: entry.submission.clone(),
        signal: Some(UiSignal {
            signal_type: signal.signal_type.clone(),
            attributes: signal.attributes.clone(),
        }),
        settlement,
        parts: vec![UiPart::Text {
            text: signal.content.clone(),
            state: TextState::Done,
        }],
        metadata: None,
    }
}

/// The response of a submission, when one is there after the last message of a person.
fn response<'a>(
    messages: &'a mut [UiMessage],
    submission: Option<&str>,
) -> Option<&'a mut UiMessage> {
    messages.iter_mut().rev().find(|message| {
        message.role == Role::Assistant && message.submission_id.as_deref() == submission
    })
}

fn piece(content: &Content) -> UiPart {
    match content {
        Content::Text { text } => UiPart::Text {
            text: text.clone(),
            state: TextState::Done,
        },
        Content::Attachment { attachment } => UiPart::File {
            media_type: attachment.mime_type.clone(),
            id: attachment.id.clone(),
            size: attachment.size,
            filename: attachment.filename.clone(),
        },
    }
}

fn part(part: &AssistantPart) -> UiPart {
    match part {
        AssistantPart::Text { text, .. } => UiPart::Text {
            text: text.clone(),
            state: TextState::Done,
        },
        AssistantPart::Thinking { text, .. } => UiPart::Reasoning {
            text: text.clone(),
            state: TextState::Done,
        },
        AssistantPart::ToolCall(call) => UiPart::DynamicTool {
            tool_name: call.name.clone(),
            tool_call_id: call.id.clone(),
            input: call.arguments.clone(),
            state: ToolState::InputAvailable,
        },
    }
}

fn settle(message: &mut UiMessage, outcome: &ToolOutcome) {
    for part in message.parts.iter_mut().rev() {
        if let UiPart::DynamicTool {
            tool_call_id,
            state,
            ..
        } = part
            && *tool_call_id == outcome.tool_call_id
            && matches!(state, ToolState::InputAvailable)
        {
            *state = if outcome.is_error {
                ToolState::OutputError {
                    error_text: text(&outcome.content),
                    duration_ms: outcome.duration_ms,
                }
            } else {
                ToolState::OutputAvailable {
                    output: output(outcome),
                    duration_ms: outcome.duration_ms,
                }
            };
            return;
        }
    }
}

/// The result of a tool as a program sees it: its structured output, else its text, else its pieces.
pub fn output(outcome: &ToolOutcome) -> Value {
    match (&outcome.output, outcome.content.as_slice()) {
        (Some(output), _) => output.clone(),
        (None, [Content::Text { text }]) => Value::String(text.clone()),
        (None, content) => json!(content),
    }
}

/// The text of some content.
pub fn text(content: &[Content]) -> String {
    let text = |piece: &Content| match piece {
        Content::Text { text } => Some(text.clone()),
        Content::Attachment { .. } => None,
    };
    content
        .iter()
        .filter_map(text)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The answer to a submission: the text of its last message.
pub fn answer(conversation: &Conversation, submission: &str) -> String {
    let last = conversation
        .entries
        .iter()
        .rev()
        .find_map(|entry| match &entry.body {
            EntryBody::Assistant {
                error: None,
                interrupted: false,
                ..
            } if entry.submission.as_deref() == Some(submission) => {
                entry.answer().map(|message| message.text())
            }
            EntryBody::Assistant { .. }
            | EntryBody::User(_)
            | EntryBody::Signal(_)
            | EntryBody::ToolResults(_) => None,
        });
    last.unwrap_or_default()
}
