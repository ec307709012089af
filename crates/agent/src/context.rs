//! What the model sees: a pure function of the conversation and the definition.

use std::fmt::Write as _;

use bowline_model::{FilePart, Message, ResultPart, ToolResult, UserMessage, UserPart};
use bowline_store::{Store, StoreError};

use crate::{
    conversation::{Conversation, EntryBody},
    definition::Definition,
    record::{Attachment, Content, Signal, ToolOutcome},
    skill,
};

/// The working directory that the model is told of.
pub const WORKING_DIRECTORY: &str = "/workspace";

/// Composes the system prompt. It is recorded when the conversation begins and then stays the same,
/// byte for byte, so that a provider can cache it.
pub fn system(
    definition: &Definition,
    agents_md: Option<&str>,
    date: &str,
    sandbox: bool,
) -> String {
    let mut text = definition.instructions.trim().to_owned();
    let mut section = |body: &str| {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(body);
    };
    if let Some(agents_md) = agents_md.map(str::trim).filter(|body| !body.is_empty()) {
        section(&format!("## AGENTS.md\n\n{agents_md}"));
    }
    if let Some(catalogue) = skill::catalogue(&definition.skills) {
        section(&catalogue);
    }
    let mut facts = format!("Date: {date}");
    if sandbox {
        let _ = write!(facts, "\nWorking directory: {WORKING_DIRECTORY}");
    }
    section(&facts);
    text
}

/// The transcript of a conversation as the model is sent it. Messages that were cut or failed are
/// left out; files are read from the store.
pub async fn transcript(
    conversation: &Conversation,
    store: &dyn Store,
) -> Result<Vec<Message>, StoreError> {
    let mut messages = Vec::with_capacity(conversation.entries.len());
    for entry in &conversation.entries {
        match &entry.body {
            EntryBody::User(content) => {
                let mut parts = Vec::with_capacity(content.len());
                for piece in content {
                    parts.push(match piece {
                        Content::Text { text } => UserPart::Text { text: text.clone() },
                        Content::Attachment { attachment } => {
                            UserPart::File(file(attachment, store).await?)
                        }
                    });
                }
                messages.push(Message::User(UserMessage { parts }));
            }
            EntryBody::Signal(signal) => {
                messages.push(Message::User(UserMessage::text(tagged(signal))))
            }
            EntryBody::Assistant { error: Some(_), .. }
            | EntryBody::Assistant {
                interrupted: true, ..
            } => {}
            EntryBody::Assistant { message, .. } => {
                messages.push(Message::Assistant(message.clone()))
            }
            EntryBody::ToolResults(results) => {
                for outcome in results {
                    messages.push(Message::ToolResult(result(outcome, store).await?));
                }
            }
        }
    }
    Ok(messages)
}

async fn result(outcome: &ToolOutcome, store: &dyn Store) -> Result<ToolResult, StoreError> {
    let mut parts = Vec::with_capacity(outcome.content.len());
    for piece in &outcome.content {
        parts.push(match piece {
            Content::Text { text } => ResultPart::Text { text: text.clone() },
            Content::Attachment { attachment } => ResultPart::File(file(attachment, store).await?),
        });
    }
    Ok(ToolResult {
        call_id: outcome.tool_call_id.clone(),
        name: outcome.tool_name.clone(),
        parts,
        is_error: outcome.is_error,
    })
}

async fn file(attachment: &Attachment, store: &dyn Store) -> Result<FilePart, StoreError> {
    let missing = || StoreError::Corrupt(format!("attachment {} has no content", attachment.id));
    let blob = attachment.blob().ok_or_else(missing)?;
    let data = store.blob(blob).await?.ok_or_else(missing)?;
    Ok(FilePart {
        media_type: attachment.mime_type.clone(),
        name: attachment.filename.clone(),
        data,
    })
}

/// A signal as the model reads it. The text is escaped, so that it cannot pretend to be more.
fn tagged(signal: &Signal) -> String {
    let mut text = format!("<signal type=\"{}\"", escape(&signal.signal_type));
    for (key, value) in &signal.attributes {
        let _ = write!(text, " {}=\"{}\"", escape(key), escape(value));
    }
    let _ = write!(text, ">\n{}\n</signal>", escape(&signal.content));
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
