//! The wire formats, one module each, and the trait that hides them.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::ModelError;
use crate::event::EventStream;
use crate::message::ModelRef;
use crate::request::Request;

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

    /// What to call a model of this provider in a transcript.
    fn model_ref(&self, model: &str) -> ModelRef;
}
