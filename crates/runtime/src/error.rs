//! What a caller of the runtime can be told.

use std::time::Duration;

use bowline_store::{ActorId, CommitError, StoreError};

use crate::{attempt::Halt, submission::Failure};

/// Why the runtime could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The same idempotency key was used before with another payload.
    #[error("this key was used before with another message: use a new key for a new message")]
    SubmissionConflict,
    /// The idempotency key is empty or too long.
    #[error("an idempotency key has 1 to 256 bytes")]
    InvalidKey,
    /// Too many submissions wait.
    #[error("1000 submissions wait already: wait for some to settle, or abort them")]
    QueueFull,
    /// The payload is too large.
    #[error(
        "the message has {0} bytes as JSON, at most 12582912 are taken: send less, or attach it as a file"
    )]
    TooLarge(usize),
    /// Something was recorded since the caller looked.
    #[error("the conversation went on meanwhile: look again, then send again")]
    Moved,
    /// There is no such submission.
    #[error("there is no submission {0} in this conversation")]
    UnknownSubmission(String),
    /// No program is registered for this kind of actor.
    #[error("nothing runs actors of the kind {0}")]
    UnknownKind(String),
    /// Somebody deletes the actor.
    #[error("the actor is being deleted: use it again when that is done")]
    Deleting,
    /// The other actor did not reply in time. Whether it handled the request is not known.
    #[error("{to} did not reply within {within:?}: ask again, or give it more time")]
    RequestTimeout {
        /// Who was asked.
        to: ActorId,
        /// The deadline.
        within: Duration,
    },
    /// The actor that was asked waits for the one that asks.
    #[error("the request cannot be answered, each waits for the next: {0}; send a message instead")]
    RequestCyclic(String),
    /// Too many actors wait for each other.
    #[error("16 actors wait for each other already: send a message instead")]
    RequestTooDeep,
    /// Too many requests wait at the actor.
    #[error("256 requests wait at the actor already: ask again later")]
    RequestsFull,
    /// The state changed meanwhile.
    #[error("the state has version {current}, not {expected}: read it again, then change it")]
    StateConflict {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// An attempt runs.
    #[error("a message is being answered: wait until it is settled, or abort it")]
    Busy,
    /// The caller may only read.
    #[error("this caller may only read the state")]
    StateReadOnly,
    /// The actor stopped, or the runtime is shutting down.
    #[error("the runtime is stopping: try again when it is back")]
    Stopped,
    /// The program could not open the actor.
    #[error(transparent)]
    Program(#[from] Failure),
    /// The store refused a commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RuntimeError {
    /// The stable name of this error.
    pub fn code(&self) -> &str {
        match self {
            Self::SubmissionConflict => "submission_conflict",
            Self::InvalidKey => "invalid_key",
            Self::QueueFull => "queue_full",
            Self::TooLarge(_) => "message_too_large",
            Self::Moved => "store_conflict",
            Self::UnknownSubmission(_) => "submission_not_found",
            Self::UnknownKind(_) => "unknown_actor_kind",
            Self::Deleting => "actor_deleting",
            Self::RequestTimeout { .. } => "request_timeout",
            Self::RequestCyclic(_) => "request_cyclic",
            Self::RequestTooDeep => "request_too_deep",
            Self::RequestsFull => "requests_full",
            Self::StateConflict { .. } => "state_conflict",
            Self::Busy => "conversation_busy",
            Self::StateReadOnly => "state_read_only",
            Self::Stopped => "runtime_unavailable",
            Self::Program(failure) => &failure.code,
            Self::Commit(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    /// True when the actor cannot go on after this.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::SubmissionConflict
            | Self::InvalidKey
            | Self::QueueFull
            | Self::TooLarge(_)
            | Self::Moved
            | Self::UnknownSubmission(_)
            | Self::UnknownKind(_)
            | Self::RequestTimeout { .. }
            | Self::RequestCyclic(_)
            | Self::RequestTooDeep
            | Self::RequestsFull
            | Self::StateConflict { .. }
            | Self::Busy
            | Self::StateReadOnly
            | Self::Program(_)
            // Nothing was written, and the actor stands where it stood.
            | Self::Commit(CommitError::Full | CommitError::Invalid(_)) => false,
            Self::Stopped
            | Self::Deleting
            | Self::Commit(
                CommitError::Fenced { .. }
                | CommitError::Conflict { .. }
                | CommitError::Io(_)
                | CommitError::Closed(_),
            )
            | Self::Store(_) => true,
        }
    }
}

impl From<Halt> for RuntimeError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Commit(error) => Self::Commit(error),
            Halt::Stopped => Self::Stopped,
        }
    }
}
