//! The transcript as the model is sent it, built as the conversation grows.

use std::{borrow::Cow, fmt::Write as _};

use bowline_model::{
    AssistantMessage, AssistantPart, FilePart, Message, ResultPart, ToolResult, Transcript,
    UserMessage, UserPart,
};
use bowline_store::{Store, StoreError};

use super::{budget, shorten, shorten::Shape};
use crate::{
    conversation::{Compacted, Conversation, Entry, EntryBody},
    record::{Attachment, Content, Signal, ToolOutcome},
};

/// Files that stay in what a compaction keeps: the newest ones.
const KEPT_FILES: usize = 2;

/// The transcript as the model is sent it.
///
/// [`View::update`] takes in what the conversation has more than the last time. The result is the same
/// as that of a new view: a function of the conversation and the shape, and nothing else.
#[derive(Debug, Default)]
pub struct View {
    based_on: Option<(Shape, usize)>,
    /// Entries that are taken in.
    next: usize,
    messages: Transcript,
    /// What they fill of the window, without the system prompt and the tools unless `counted`.
    tokens: u64,
    /// The provider has said how much it was; the system prompt and the tools are in it.
    counted: bool,
    /// What they were estimated at, whatever the provider said.
    estimated: u64,
    files: usize,
    file_bytes: u64,
}

impl View {
    /// Takes in what the conversation has more than the last time. It begins anew when the conversation
    /// was compacted or the shape is another one.
    ///
    /// # Errors
    ///
    /// When the content of a file cannot be read.
    pub async fn update(
        &mut self,
        conversation: &Conversation,
        shape: Shape,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let base = Some((shape, conversation.compactions.len()));
        let compacted = conversation.compacted();
        if self.based_on != base || self.next > conversation.entries.len() {
            *self = Self::default();
            if let Some(compacted) = compacted {
                self.begin(conversation, compacted, shape, store).await?;
            }
            self.based_on = base;
        }
        for entry in &conversation.entries[self.next..] {
            self.take(entry, shape, true, store).await?;
            self.next += 1;
        }
        Ok(())
    }

    /// The messages. Cheap to clone.
    pub fn messages(&self) -> &Transcript {
        &self.messages
    }

    /// What the next call fills of the window, in tokens: as the provider counted it last, and an
    /// estimate of what came since. `fixed` is an estimate of the system prompt and the tools.
    pub fn tokens(&self, fixed: u64) -> u64 {
        self.tokens
            .saturating_add(if self.counted { 0 } else { fixed })
    }

    /// The estimate of all of it, whatever the provider counted.
    pub fn estimated(&self, fixed: u64) -> u64 {
        self.estimated.saturating_add(fixed)
    }

    /// Files in the messages, and their bytes.
    pub fn files(&self) -> (usize, u64) {
        (self.files, self.file_bytes)
    }

    /// The summary, and the entries that were kept.
    async fn begin(
        &mut self,
        conversation: &Conversation,
        compacted: &Compacted,
        shape: Shape,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        if !compacted.record.summary.is_empty() {
            let text = summary(&compacted.record.summary);
            self.say(Message::User(UserMessage::text(text)));
        }
        let shape = shape.capped(compacted.record.kept_cap);
        let kept = &conversation.entries[compacted.first_kept..compacted.at];
        let mut files: usize = kept.iter().map(files_of).sum();
        for entry in kept {
            let own = files_of(entry);
            files -= own;
            self.take(entry, shape, files + own <= KEPT_FILES, store)
                .await?;
            // What the provider counted then was with what is summarised now.
        }
        self.counted = false;
        self.tokens = self.estimated;
        self.next = compacted.at;
        Ok(())
    }

    async fn take(
        &mut self,
        entry: &Entry,
        shape: Shape,
        files: bool,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        match &entry.body {
            EntryBody::User(content) => {
                let id = Some(entry.id.as_str()).filter(|_| shape.readable);
                let mut parts = Vec::with_capacity(content.len());
                for piece in content {
                    parts.push(match piece {
                        Content::Text { text } => UserPart::Text {
                            text: shorten(text, shape.message, id).into_owned(),
                        },
                        Content::Attachment { attachment } if files => {
                            UserPart::File(self.file(attachment, store).await?)
                        }
                        Content::Attachment { attachment } => UserPart::Text {
                            text: evicted(attachment),
                        },
                    });
                }
                self.say(Message::User(UserMessage { parts }));
            }
            EntryBody::Signal(signal) => {
                let id = Some(entry.id.as_str()).filter(|_| shape.readable);
                let text = tagged(signal, shape.message, id);
                self.say(Message::User(UserMessage::text(text)));
            }
            EntryBody::Assistant { error: Some(_), .. }
            | EntryBody::Assistant {
                interrupted: true, ..
            } => {}
            EntryBody::Assistant { message, .. } => {
                let whole = entry
                    .answer()
                    .map_or_else(|| message.clone(), Cow::into_owned);
                self.say(Message::Assistant(whole));
                if message.usage.total() > 0 {
                    self.tokens = message.usage.total();
                    self.counted = true;
                }
            }
            EntryBody::ToolResults(results) => {
                let most = shape.each(results.iter().map(length));
                for outcome in results {
                    let result = self
                        .result(outcome, most, shape.readable, files, store)
                        .await?;
                    self.say(Message::ToolResult(result));
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, message: Message) {
        let tokens = budget::message(&message);
        self.tokens = self.tokens.saturating_add(tokens);
        self.estimated = self.estimated.saturating_add(tokens);
        self.messages.push(message);
    }

    async fn result(
        &mut self,
        outcome: &ToolOutcome,
        most: usize,
        readable: bool,
        files: bool,
        store: &dyn Store,
    ) -> Result<ToolResult, StoreError> {
        let id = Some(outcome.tool_call_id.as_str()).filter(|_| readable);
        let mut parts = Vec::with_capacity(outcome.content.len());
        for piece in &outcome.content {
            parts.push(match piece {
                Content::Text { text } => ResultPart::Text {
                    text: shorten(text, most, id).into_owned(),
                },
                Content::Attachment { attachment } if files => {
                    ResultPart::File(self.file(attachment, store).await?)
                }
                Content::Attachment { attachment } => ResultPart::Text {
                    text: evicted(attachment),
                },
            });
        }
        Ok(ToolResult {
            call_id: outcome.tool_call_id.clone(),
            name: outcome.tool_name.clone(),
            parts,
            is_error: outcome.is_error,
        })
    }

    async fn file(
        &mut self,
        attachment: &Attachment,
        store: &dyn Store,
    ) -> Result<FilePart, StoreError> {
        let missing =
            || StoreError::Corrupt(format!("attachment {} has no content", attachment.id));
        let blob = attachment.blob().ok_or_else(missing)?;
        let data = store.blob(blob).await?.ok_or_else(missing)?;
        self.files += 1;
        self.file_bytes += data.len() as u64;
        Ok(FilePart {
            media_type: attachment.mime_type.clone(),
            name: attachment.filename.clone(),
            data,
        })
    }
}

/// What the model would see of an entry, in tokens; nothing is read for it.
pub(super) fn tokens_of(entry: &Entry, shape: Shape) -> u64 {
    let texts = |content: &[Content], most: usize| -> u64 {
        let each = content.iter().map(|piece| match piece {
            Content::Text { text } => budget::text(text.len().min(most)),
            Content::Attachment { attachment } => {
                budget::file(&attachment.mime_type, attachment.size)
            }
        });
        each.sum::<u64>()
    };
    match &entry.body {
        EntryBody::User(content) => budget::MESSAGE + texts(content, shape.message),
        EntryBody::Signal(signal) => {
            2 * budget::MESSAGE + budget::text(signal.content.len().min(shape.message))
        }
        EntryBody::Assistant { error: Some(_), .. }
        | EntryBody::Assistant {
            interrupted: true, ..
        } => 0,
        EntryBody::Assistant { .. } => entry.answer().map_or(0, |message| budget::answer(&message)),
        EntryBody::ToolResults(results) => {
            let most = shape.each(results.iter().map(length));
            let each = results
                .iter()
                .map(|outcome| budget::MESSAGE + texts(&outcome.content, most));
            each.sum()
        }
    }
}

fn length(outcome: &ToolOutcome) -> usize {
    let texts = outcome.content.iter().map(|piece| match piece {
        Content::Text { text } => text.len(),
        Content::Attachment { .. } => 0,
    });
    texts.sum()
}

fn files_of(entry: &Entry) -> usize {
    let count = |content: &[Content]| {
        let files = content
            .iter()
            .filter(|piece| matches!(piece, Content::Attachment { .. }));
        files.count()
    };
    match &entry.body {
        EntryBody::User(content) => count(content),
        EntryBody::ToolResults(results) => results.iter().map(|one| count(&one.content)).sum(),
        EntryBody::Signal(_) | EntryBody::Assistant { .. } => 0,
    }
}

/// What the model reads in place of a file that it has seen.
fn evicted(attachment: &Attachment) -> String {
    let name = attachment.filename.as_deref().unwrap_or("without a name");
    format!(
        "[A file that was shown here before: {name}, {}, {} bytes]",
        attachment.mime_type, attachment.size
    )
}

/// What the model reads in place of what was summarised.
fn summary(text: &str) -> String {
    format!(
        "<compaction type=\"context_summary\">\nThe conversation was longer than fits. This is what \
         came before:\n\n{text}\n</compaction>"
    )
}

/// A signal as the model reads it. The text is escaped, so that it cannot pretend to be more.
fn tagged(signal: &Signal, most: usize, id: Option<&str>) -> String {
    let mut text = format!("<signal type=\"{}\"", escape(&signal.signal_type));
    for (key, value) in &signal.attributes {
        let _ = write!(text, " {}=\"{}\"", escape(key), escape(value));
    }
    let content = shorten(&signal.content, most, id);
    let _ = write!(text, ">\n{}\n</signal>", escape(&content));
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The bytes of what a model said, with the arguments of its calls.
pub(super) fn said(message: &AssistantMessage) -> usize {
    let parts = message.parts.iter().map(|part| match part {
        AssistantPart::Text { text, .. } => text.len(),
        // What is opaque is about as long as the thought itself.
        AssistantPart::Thinking {
            text, signature, ..
        } => text.len().max(signature.as_ref().map_or(0, String::len)),
        AssistantPart::ToolCall(call) => call.name.len() + budget::json(&call.arguments),
    });
    parts.sum()
}
