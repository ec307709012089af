//! The wire formats, one module each, and the trait that hides them.
//!
//! They are written here rather than taken from SDKs: what has to be exact (opaque parts, the
//! split of usage, where cache markers stand, what an error means, when a stream counts as cut) is
//! what the SDKs differ in, and the formats themselves are small.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::ModelError;
use crate::event::EventStream;
use crate::message::{FilePart, ModelRef};
use crate::request::Request;

pub(crate) mod anthropic;
mod assembly;
pub(crate) mod auth;
pub(crate) mod bedrock;
pub(crate) mod blind;
mod classify;
pub(crate) mod frames;
pub(crate) mod gemini;
pub(crate) mod http;
pub(crate) mod openai_chat;
pub(crate) mod openai_responses;
mod piece;
mod profile;
pub(crate) mod quirks;
mod script;
pub mod scripted;

pub use classify::{Failure, classify};

/// Something that answers requests: a provider's server, or a script.
///
/// A provider neither retries nor waits out rate limits: it tries once and classifies the failure.
#[async_trait]
pub trait Provider: Send + Sync + Debug {
    /// Sends one request and returns the events of the answer once the provider took it.
    ///
    /// Dropping the future or the stream ends the call. Errors before the first byte of the answer
    /// are returned here, later ones as the stream's last item.
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError>;

    /// Whether an answer that was cut off goes on at the provider, so that [`Request::resume`] reads it
    /// again without paying for a token twice.
    fn resumes(&self) -> bool {
        false
    }

    /// Ends an answer that goes on at the provider though nobody reads it: what it has not said yet need
    /// not be paid. Tried once, and nothing depends on it. Where [`Provider::resumes`].
    async fn cancel(&self, response_id: &str) {
        let _ = response_id;
    }

    /// Whether the model goes on from [`Request::begun`] in answering this request, so that what was said
    /// before a cut is neither said nor paid again.
    fn continues(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// What to call a model of this provider in a transcript.
    fn model_ref(&self, model: &str) -> ModelRef;
}

/// What a model reads in place of a file in a form that it cannot take.
fn unreadable(file: &FilePart) -> String {
    let name = file.name.as_deref().unwrap_or("without a name");
    let size = file.data.len();
    format!(
        "[A file that cannot be shown here: {name}, {}, {size} bytes]",
        file.media_type
    )
}

/// A text file as text, for the formats that have no text files.
fn text_file(file: &FilePart) -> String {
    let name = file.name.as_deref().unwrap_or("file");
    format!(
        "<file name=\"{name}\">\n{}\n</file>",
        String::from_utf8_lossy(&file.data)
    )
}

/// The text of a tool result for the formats that have no flag for failure.
fn result_text(text: &str, is_error: bool) -> String {
    match (is_error, text.is_empty()) {
        (true, _) => format!("Error: {text}"),
        (false, true) => "(no output)".to_owned(),
        (false, false) => text.to_owned(),
    }
}
