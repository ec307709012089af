//! Forms that the answers of several routes share.

use bowline_model::Usage;
use bowline_runtime::{Failure, Outcome};
use serde::Serialize;
use utoipa::ToSchema;

/// How a submission ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ending {
    /// It was answered.
    Completed,
    /// It could not be answered.
    Failed,
    /// Somebody stopped it.
    Aborted,
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::Aborted => Self::Aborted,
        }
    }
}

/// Why something did not work.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Stable name; the documentation has a page for each.
    #[serde(rename = "type")]
    code: String,
    /// One line.
    message: String,
    /// The next thing to do; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    details: String,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
            details: failure.hint,
        }
    }
}

/// Tokens, split as they are billed.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tokens {
    /// Input that was read at the full price.
    input: u64,
    /// Output, thinking included.
    output: u64,
    /// Input that was read from the provider's cache.
    cache_read: u64,
    /// Input that was written to the provider's cache.
    cache_write: u64,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write: usage.cache_write,
        }
    }
}
