//! What a user is told when something cannot be done.

use bowline_agent::definition::DefinitionError;
use bowline_model::ModelError;
use bowline_runtime::{Failure, RuntimeError};
use bowline_store::{CommitError, DumpError, StoreError};
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Whose mistake it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What was typed cannot be done: exit code 2.
    Usage,
    /// It was tried and failed: exit code 1.
    Failure,
}

/// One line for a person, with the next thing to do and a stable name for programs.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose mistake it is.
    pub kind: Kind,
    /// Stable name, one page each under `docs/errors/`.
    #[serde(rename = "type")]
    pub code: String,
    /// One line.
    pub message: String,
    /// The next thing to do; may be empty.
    #[serde(rename = "details")]
    pub hint: String,
}

impl Error {
    /// Something that was tried and failed.
    pub fn failure(
        code: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::Failure,
            code: code.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Something that cannot be done as it was typed.
    pub fn usage(
        code: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::Usage,
            code: code.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::failure(error.code(), error.to_string(), "")
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        Self::failure(error.code(), error.to_string(), "")
    }
}

impl From<DumpError> for Error {
    fn from(error: DumpError) -> Self {
        Self::failure(error.code(), error.to_string(), "")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::failure(failure.code, failure.message, failure.hint)
    }
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Program(failure) => failure.into(),
            error => Self::failure(error.code(), error.to_string(), ""),
        }
    }
}

impl From<bowline_sandbox::isolate::IsolateError> for Error {
    fn from(error: bowline_sandbox::isolate::IsolateError) -> Self {
        Self::failure(error.code(), error.to_string(), "")
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        Self::failure(error.code(), error.to_string(), error.hint())
    }
}

impl From<DefinitionError> for Error {
    fn from(error: DefinitionError) -> Self {
        Self::failure(error.code(), error.to_string(), error.hint())
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::failure(error.code(), error.to_string(), error.hint())
    }
}
