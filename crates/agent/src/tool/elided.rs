//! The tool that shows what the context leaves out of a long text.

use async_trait::async_trait;
use bowline_model::ToolSpec;
use bowline_store::{ActorId, BlobId, Store, StoreError};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

use super::{Effect, Tool, ToolContext, ToolError, ToolOutput};
use crate::{
    context::READ_TOOL,
    record::{Content, Fact},
    view,
};

/// Most bytes that one call returns, and how many it returns by default.
const MOST: usize = 32 * 1024;
/// Records read at once.
const PAGE: usize = 1_000;

/// The records of a conversation, for a tool that looks something up in them.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
    actor: ActorId,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("History").field(&self.actor).finish()
    }
}

impl History {
    /// The records of an actor.
    pub fn new(store: Arc<dyn Store>, actor: ActorId) -> Self {
        Self { store, actor }
    }

    /// The whole text of a tool result, by the id of its call, or of a message, by its id. The newest
    /// one when there are several.
    ///
    /// # Errors
    ///
    /// When the records cannot be read.
    pub async fn text(&self, id: &str) -> Result<Option<String>, StoreError> {
        let needle = memchr::memmem::Finder::new(id.as_bytes());
        let mut found: Option<String> = None;
        let mut after = 0;
        loop {
            let records = self.store.read(&self.actor, after, PAGE).await?;
            for stored in &records {
                after = stored.seq;
                if needle.find(&stored.record.body).is_none() {
                    continue;
                }
                let text = |content: &[Content]| view::text(content);
                match Fact::of(stored)? {
                    Fact::ToolOutcome(outcome) if outcome.tool_call_id == id => {
                        found = Some(match &outcome.whole {
                            Some(blob) => self.blob(blob).await?,
                            None => text(&outcome.content),
                        });
                    }
                    Fact::UserMessage(message) if message.message_id == id => {
                        found = Some(text(&message.content));
                    }
                    Fact::Signal(signal) if signal.message_id == id => found = Some(signal.content),
                    _ => {}
                }
            }
            if records.len() < PAGE {
                return Ok(found);
            }
        }
    }
}

impl History {
    async fn blob(&self, digest: &str) -> Result<String, StoreError> {
        let missing = || StoreError::Corrupt(format!("the text {digest} has no content"));
        let blob = BlobId::parse(digest).ok_or_else(missing)?;
        let bytes = self.store.blob(blob).await?.ok_or_else(missing)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `read_elided`: gives the model a piece of a text that it was shown shortened.
pub(crate) struct ReadElided {
    spec: ToolSpec,
}

impl ReadElided {
    pub(crate) fn new() -> Self {
        let spec = ToolSpec {
            name: READ_TOOL.to_owned(),
            description: format!(
                "Read a tool result or a message of which a part was left out, at most {} KB at a time.",
                MOST / 1024
            ),
            parameters: json!({
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "The id that stands where the text was left out."},
                    "offset": {"type": "integer", "minimum": 0, "description": "First byte, from 0."},
                    "limit": {"type": "integer", "minimum": 1, "description": "Number of bytes."},
                },
                "required": ["id"],
            }),
        };
        Self { spec }
    }
}

#[async_trait]
impl Tool for ReadElided {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn call(&self, context: &ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        let id = arguments["id"].as_str().unwrap_or_default();
        let number = |key: &str| {
            let number = arguments[key].as_u64();
            number.map(|number| usize::try_from(number).unwrap_or(usize::MAX))
        };
        let text = match &context.history {
            Some(history) if !id.is_empty() => history.text(id).await?,
            Some(_) | None => None,
        };
        let Some(text) = text else {
            return Err(ToolError::new(format!(
                "There is no text with id \"{id}\"."
            )));
        };
        let offset = number("offset").unwrap_or(0);
        if offset > 0 && offset >= text.len() {
            return Err(ToolError::new(format!(
                "Offset {offset} is beyond the end ({} bytes).",
                text.len()
            )));
        }
        let first = text.floor_char_boundary(offset);
        let limit = number("limit").unwrap_or(MOST).min(MOST);
        let last = text.ceil_char_boundary(first.saturating_add(limit).min(text.len()));
        let piece = text.get(first..last).unwrap_or_default();
        if last == text.len() {
            return Ok(ToolOutput::text(piece));
        }
        Ok(ToolOutput::text(format!(
            "{piece}\n\n[Bytes {first}-{last} of {}. Use offset={last} to continue.]",
            text.len()
        )))
    }
}
