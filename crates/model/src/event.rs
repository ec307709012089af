//! What a model streams back.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::message::{AssistantMessage, AssistantPart, ModelRef, StopReason, ToolCall, Usage};

/// The events of one call. Dropping the stream ends the call: the connection is closed and the
/// provider stops. After an `Err` nothing follows; a stream that ends well ends with
/// [`Event::Done`].
pub type EventStream = Pin<Box<dyn futures_core::Stream<Item = Result<Event, ModelError>> + Send>>;

/// A step of an answer as it arrives.
///
/// `index` is the place of the part in [`AssistantMessage::parts`]. A part is opened by its first
/// event, and parts are opened in order: an index that is not known yet is always the next one.
/// Parts may interleave. Text and thinking parts end with their `End` event, tool calls with
/// `ToolCallEnd`; every part is ended before `Done`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Event {
    /// The provider took the request. Always first.
    #[serde(rename_all = "camelCase")]
    Started {
        /// The provider's id of the response.
        response_id: Option<String>,
    },
    /// More text.
    Text {
        /// The part.
        index: usize,
        /// The piece to append.
        delta: String,
    },
    /// A text part is whole.
    TextEnd {
        /// The part.
        index: usize,
        /// What the part's `signature` becomes.
        signature: Option<String>,
    },
    /// More of a thought.
    Thinking {
        /// The part.
        index: usize,
        /// The piece to append; may be empty.
        delta: String,
    },
    /// A thought is whole.
    ThinkingEnd {
        /// The part.
        index: usize,
        /// What the part's `signature` becomes.
        signature: Option<String>,
        /// The provider withheld the text.
        redacted: bool,
    },
    /// The model begins to call a tool.
    ToolCallStart {
        /// The part.
        index: usize,
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// More of a call's arguments, as JSON text.
    ToolCallDelta {
        /// The part.
        index: usize,
        /// The piece to append.
        delta: String,
    },
    /// A tool call is whole.
    ToolCallEnd {
        /// The part.
        index: usize,
        /// The call.
        call: ToolCall,
    },
    /// The answer is whole. Always last.
    Done(AssistantMessage),
}

/// An answer put together from its events, so that what had arrived can be kept when a call breaks
/// off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial {
    /// The provider's id of the response, once known.
    pub response_id: Option<String>,
    parts: Vec<AssistantPart>,
    done: Option<AssistantMessage>,
}

impl Partial {
    /// Takes the next event into account. An event whose index is not that of a part or the next
    /// one, or that does not fit the part's kind, changes nothing.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Started { response_id } => self.response_id.clone_from(response_id),
            Event::Text { index, delta } => {
                if let Some(AssistantPart::Text { text, .. }) = self.text_at(*index) {
                    text.push_str(delta);
                }
            }
            Event::TextEnd { index, signature } => {
                if let Some(AssistantPart::Text {
                    signature: slot, ..
                }) = self.text_at(*index)
                {
                    slot.clone_from(signature);
                }
            }
            Event::Thinking { index, delta } => {
                if let Some(AssistantPart::Thinking { text, .. }) = self.thinking_at(*index) {
                    text.push_str(delta);
                }
            }
            Event::ThinkingEnd {
                index,
                signature,
                redacted,
            } => {
                if let Some(AssistantPart::Thinking {
                    signature: slot,
                    redacted: flag,
                    ..
                }) = self.thinking_at(*index)
                {
                    slot.clone_from(signature);
                    *flag = *redacted;
                }
            }
            Event::ToolCallStart { index, id, name } => {
                let call = ToolCall::from_text(id.clone(), name.clone(), "");
                self.part_at(*index, || AssistantPart::ToolCall(call));
            }
            Event::ToolCallDelta { .. } => {}
            Event::ToolCallEnd { index, call } => {
                let fresh = AssistantPart::ToolCall(call.clone());
                if let Some(AssistantPart::ToolCall(slot)) = self.part_at(*index, || fresh) {
                    slot.clone_from(call);
                }
            }
            Event::Done(message) => self.done = Some(message.clone()),
        }
    }

    /// The parts so far. A tool call whose arguments had not all arrived has none.
    pub fn parts(&self) -> &[AssistantPart] {
        self.done
            .as_ref()
            .map_or(&self.parts, |message| &message.parts)
    }

    /// The whole message once [`Event::Done`] was applied.
    pub fn done(&self) -> Option<&AssistantMessage> {
        self.done.as_ref()
    }

    /// The message of a call that broke off: text and thoughts as far as they arrived, without the
    /// tool calls (none of them was meant to run yet) and without unsigned thoughts' signatures.
    /// The whole message, if it is whole.
    pub fn into_interrupted(
        self,
        model: ModelRef,
        stop: StopReason,
        usage: Usage,
    ) -> AssistantMessage {
        if let Some(message) = self.done {
            return message;
        }
        let parts = self
            .parts
            .into_iter()
            .filter(|part| match part {
                AssistantPart::Text { text, .. } => !text.is_empty(),
                AssistantPart::Thinking {
                    text, signature, ..
                } => !text.is_empty() || signature.is_some(),
                AssistantPart::ToolCall(_) => false,
            })
            .collect();
        AssistantMessage {
            model,
            parts,
            stop,
            usage,
            response_id: self.response_id,
        }
    }

    fn text_at(&mut self, index: usize) -> Option<&mut AssistantPart> {
        self.part_at(index, || AssistantPart::Text {
            text: String::new(),
            signature: None,
        })
    }

    fn thinking_at(&mut self, index: usize) -> Option<&mut AssistantPart> {
        self.part_at(index, || AssistantPart::Thinking {
            text: String::new(),
            signature: None,
            redacted: false,
        })
    }

    fn part_at(
        &mut self,
        index: usize,
        new: impl FnOnce() -> AssistantPart,
    ) -> Option<&mut AssistantPart> {
        if index == self.parts.len() {
            self.parts.push(new());
        }
        self.parts.get_mut(index)
    }
}
