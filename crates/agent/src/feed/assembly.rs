//! Chunks put together into messages, exactly as the published clients do it.

use std::collections::HashMap;

use bowline_runtime::submission::{Failure, Outcome};
use bowline_store::{ActorId, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Offset, Reader, reader::NotThere};
use crate::{
    live::{ChunkBody, DeltaKind},
    view::{Display, Purpose, Role, TextState, ToolState, UiMessage, UiPart},
};

/// Entries read at once.
const PAGE: usize = 1_000;

/// A conversation as a whole, with the point from which it can be followed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The version of this form.
    pub v: u32,
    /// `conv_…`.
    pub conversation_id: String,
    /// Where following begins.
    pub offset: String,
    /// The incarnation of the instance.
    pub incarnation: String,
    /// The messages, oldest first.
    pub messages: Vec<UiMessage>,
    /// How submissions ended, in order.
    pub settlements: Vec<UiOutcome>,
}

/// How a submission ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UiOutcome {
    /// Which.
    pub submission_id: String,
    /// How.
    pub outcome: Outcome,
    /// Why, when it was not completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The submission whose response answered it, when it joined another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by_submission_id: Option<String>,
}

impl History {
    /// A conversation in which nothing was said.
    pub(super) fn empty(conversation_id: String, uid: &str, offset: Offset) -> Self {
        Self {
            v: 1,
            conversation_id,
            offset: offset.to_string(),
            incarnation: uid.to_owned(),
            messages: Vec::new(),
            settlements: Vec::new(),
        }
    }
}

/// Messages that are put together from chunks.
#[derive(Debug, Clone, Default)]
pub struct Assembly {
    messages: Vec<UiMessage>,
    settlements: Vec<UiOutcome>,
    /// Where each message is.
    places: HashMap<String, usize>,
    /// The message and part of each tool call.
    calls: HashMap<String, (usize, usize)>,
}

impl Assembly {
    /// Goes on from a history.
    pub fn from_history(history: History) -> Self {
        let mut assembly = Self {
            settlements: history.settlements,
            ..Self::default()
        };
        for message in history.messages {
            assembly.upsert(message);
        }
        assembly
    }

    /// The messages, oldest first.
    pub fn messages(&self) -> &[UiMessage] {
        &self.messages
    }

    /// Where a message is among [`Assembly::messages`].
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// How submissions ended, in order.
    pub fn settlements(&self) -> &[UiOutcome] {
        &self.settlements
    }

    /// Takes in a chunk.
    pub fn apply(&mut self, body: ChunkBody) {
        match body {
            ChunkBody::ConversationReset { snapshot } => *self = Self::from_history(snapshot),
            ChunkBody::MessageAppended { message } => self.upsert(message),
            ChunkBody::MessageStarted {
                message_id,
                submission_id,
                ..
            } => {
                if !self.places.contains_key(&message_id) {
                    self.upsert(response(message_id, submission_id));
                }
            }
            ChunkBody::MessageMetadata {
                message_id,
                metadata,
            } => {
                if let Some(message) = self.message(&message_id) {
                    let known = message.metadata.get_or_insert(Value::Null);
                    merge(known, metadata);
                }
            }
            ChunkBody::MessageDelta {
                message_id,
                kind,
                delta,
            } => {
                if let Some(message) = self.message(&message_id) {
                    append(message, kind, delta);
                }
            }
            ChunkBody::ToolInput {
                message_id,
                tool_call_id,
                tool_name,
                input,
            } => self.call(&message_id, tool_call_id, tool_name, input),
            ChunkBody::ToolOutput {
                tool_call_id,
                output,
                duration_ms,
            } => self.settle(
                &tool_call_id,
                ToolState::OutputAvailable {
                    output,
                    duration_ms,
                },
            ),
            ChunkBody::ToolOutputError {
                tool_call_id,
                error_text,
                duration_ms,
            } => self.settle(
                &tool_call_id,
                ToolState::OutputError {
                    error_text,
                    duration_ms,
                },
            ),
            ChunkBody::MessageCompleted { message_id } => {
                if let Some(message) = self.message(&message_id) {
                    message.parts.iter_mut().for_each(close);
                }
            }
            ChunkBody::SubmissionSettled {
                submission_id,
                outcome,
                error,
                answered_by_submission_id,
            } => self.settlements.push(UiOutcome {
                submission_id,
                outcome,
                error,
                answered_by_submission_id,
            }),
            ChunkBody::ModelRetry { .. }
            | ChunkBody::ApprovalRequested { .. }
            | ChunkBody::ApprovalAnswered { .. }
            | ChunkBody::Compacted { .. }
            | ChunkBody::CodeCalls { .. }
            | ChunkBody::Usage { .. } => {}
        }
    }

    fn message(&mut self, id: &str) -> Option<&mut UiMessage> {
        self.places
            .get(id)
            .and_then(|place| self.messages.get_mut(*place))
    }

    fn upsert(&mut self, message: UiMessage) {
        let place = self.places.get(&message.id).copied();
        let place = place.unwrap_or(self.messages.len());
        for (index, part) in message.parts.iter().enumerate() {
            if let UiPart::DynamicTool { tool_call_id, .. } = part {
                self.calls.insert(tool_call_id.clone(), (place, index));
            }
        }
        self.places.insert(message.id.clone(), place);
        match self.messages.get_mut(place) {
            Some(known) => *known = message,
            None => self.messages.push(message),
        }
    }

    fn call(&mut self, message_id: &str, tool_call_id: String, tool_name: String, input: Value) {
        let Some(&place) = self.places.get(message_id) else {
            return;
        };
        let Some(message) = self.messages.get_mut(place) else {
            return;
        };
        let known = self.calls.get(&tool_call_id);
        if known.is_some_and(|(owner, _)| *owner == place) {
            return;
        }
        if let Some(last) = message.parts.last_mut() {
            close(last);
        }
        self.calls
            .insert(tool_call_id.clone(), (place, message.parts.len()));
        message.parts.push(UiPart::DynamicTool {
            tool_name,
            tool_call_id,
            input,
            state: ToolState::InputAvailable,
        });
    }

    fn settle(&mut self, tool_call_id: &str, settled: ToolState) {
        let part = self.calls.get(tool_call_id).and_then(|(place, index)| {
            self.messages
                .get_mut(*place)
                .and_then(|message| message.parts.get_mut(*index))
        });
        if let Some(UiPart::DynamicTool { state, .. }) = part {
            *state = settled;
        }
    }
}

fn response(id: String, submission_id: String) -> UiMessage {
    UiMessage {
        id,
        role: Role::Assistant,
        purpose: Purpose::Assistant,
        display: Display::Visible,
        submission_id: Some(submission_id),
        signal: None,
        settlement: None,
        parts: Vec::new(),
        metadata: None,
    }
}

/// Adds to the last part when it is of the same kind and still open; otherwise begins a new one.
fn append(message: &mut UiMessage, kind: DeltaKind, delta: String) {
    let last = message.parts.last_mut();
    match (last, kind) {
        (
            Some(UiPart::Text {
                text,
                state: TextState::Streaming,
            }),
            DeltaKind::Text,
        )
        | (
            Some(UiPart::Reasoning {
                text,
                state: TextState::Streaming,
            }),
            DeltaKind::Reasoning,
        ) => {
            text.push_str(&delta);
            return;
        }
        (Some(other), _) => close(other),
        (None, _) => {}
    }
    let state = TextState::Streaming;
    message.parts.push(match kind {
        DeltaKind::Text => UiPart::Text { text: delta, state },
        DeltaKind::Reasoning => UiPart::Reasoning { text: delta, state },
    });
}

fn close(part: &mut UiPart) {
    if let UiPart::Text { state, .. } | UiPart::Reasoning { state, .. } = part {
        *state = TextState::Done;
    }
}

/// Later values win, objects merge.
fn merge(known: &mut Value, new: Value) {
    match (known, new) {
        (Value::Object(known), Value::Object(new)) => {
            for (key, value) in new {
                merge(known.entry(key).or_insert(Value::Null), value);
            }
        }
        (known, new) => *known = new,
    }
}

/// The whole conversation of an actor, with the text that streams as far as it is durable.
///
/// # Errors
///
/// When it is not there, or cannot be read.
pub async fn history(
    store: std::sync::Arc<dyn Store>,
    actor: &ActorId,
) -> Result<Result<History, NotThere>, StoreError> {
    let mut reader = match Reader::start(store, actor, Offset::START).await? {
        Ok(reader) => reader,
        Err(not_there) => return Ok(Err(not_there)),
    };
    let mut assembly = Assembly::default();
    loop {
        let page = reader.next(PAGE).await?;
        for entry in page.entries {
            for chunk in entry.chunks {
                assembly.apply(chunk.body);
            }
        }
        if page.up_to_date {
            break;
        }
    }
    let identity = reader.identity();
    let mut history = History::empty(
        identity.conversation_id.clone(),
        &identity.uid,
        reader.offset(),
    );
    history.messages = assembly.messages;
    history.settlements = assembly.settlements;
    Ok(Ok(history))
}
