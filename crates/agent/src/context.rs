//! What the model sees: a pure function of the conversation and the definition.
//!
//! - [`system`] composes the system prompt, which stays as it is until the conversation is compacted.
//! - [`View`] is the transcript as the model is sent it. It grows with the conversation, and what was
//!   sent once is sent again byte for byte, so that a provider's prompt cache holds.
//! - [`Shape`] says how much of one text the model sees; the whole stays in the store.
//! - [`budget`] says how full the window may be, [`compaction`] what gives way when it is.

use std::fmt::Write as _;

use bowline_model::Transcript;
use bowline_store::{Store, StoreError};

use crate::{
    conversation::Conversation,
    definition::{Definition, SandboxKind},
    skill,
};

pub mod budget;
pub mod compaction;
mod shorten;
mod view;

pub(crate) use shorten::shorten;
pub use shorten::{READ_TOOL, Shape};
pub use view::View;

/// The working directory that the model is told of.
pub const WORKING_DIRECTORY: &str = "/workspace";

/// Composes the system prompt. It is recorded when the conversation begins and then stays the same,
/// byte for byte, so that a provider can cache it.
pub fn system(definition: &Definition, agents_md: Option<&str>, date: &str) -> String {
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
    if let Some(schema) = &definition.result {
        section(&format!(
            "## Result\n\nYour final answer is read by a program. It must be one JSON value and nothing else, \
             without a code fence, and fit this JSON Schema:\n\n{schema}"
        ));
    }
    let mut facts = format!("Date: {date}");
    let directory = match &definition.sandbox {
        SandboxKind::None => None,
        SandboxKind::Workspace => Some(WORKING_DIRECTORY.to_owned()),
        SandboxKind::Local(local) => Some(local.dir.display().to_string()),
    };
    if let Some(directory) = directory {
        let _ = write!(facts, "\nWorking directory: {directory}");
    }
    section(&facts);
    text
}

/// The transcript of a conversation as the model is sent it. Messages that were cut or failed are
/// left out; files are read from the store.
pub async fn transcript(
    conversation: &Conversation,
    shape: Shape,
    store: &dyn Store,
) -> Result<Transcript, StoreError> {
    let mut view = View::default();
    view.update(conversation, shape, store).await?;
    Ok(view.messages().clone())
}
