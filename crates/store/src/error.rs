//! What can go wrong with durable facts.

use crate::{Epoch, Seq};

/// Why a batch was not committed. Nothing of it is durable, except after [`CommitError::Io`]:
/// then it is not known, and the store takes no further commits until it is opened again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Another writer owns the actor. The loser must drop its memory of the actor.
    #[error("this process no longer owns the actor (its epoch {epoch} is older than {current})")]
    Fenced {
        /// The writer's epoch.
        epoch: Epoch,
        /// The actor's epoch.
        current: Epoch,
    },
    /// The actor's history is not where the writer thought it was.
    #[error("the actor's history is at {current}, the writer expected {expected}")]
    Conflict {
        /// What the writer expected.
        expected: Seq,
        /// What the store has.
        current: Seq,
    },
    /// The disk or the configured size is full. Nothing was written; it may work later.
    #[error("the disk is full: free some space, then try again")]
    Full,
    /// The batch breaks a rule of [`crate::Batch`]; trying again cannot help.
    #[error("invalid batch: {0}")]
    Invalid(String),
    /// A write or a flush failed. What is on disk is not known until the store is opened again.
    #[error("the store could not write to disk ({0}); restart to recover what is durable")]
    Io(String),
    /// The store is closed, or stopped after an earlier failed flush.
    #[error("the store takes no commits any more: {0}")]
    Closed(String),
}

impl CommitError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "store_fenced",
            Self::Conflict { .. } => "store_conflict",
            Self::Full => "store_full",
            Self::Invalid(_) => "store_invalid_batch",
            Self::Io(_) => "store_io",
            Self::Closed(_) => "store_closed",
        }
    }
}

/// Why the store could not be opened or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Stored bytes are not what was written.
    #[error("the data is damaged: {0}; restore a backup, or move the damaged file away")]
    Corrupt(String),
    /// The data was written by a newer version.
    #[error(
        "the data has format {found}, this version reads up to {supported}: use a newer bowline"
    )]
    NewerFormat {
        /// Format of the data.
        found: u32,
        /// Newest format that this version reads.
        supported: u32,
    },
    /// Another process has the data directory.
    #[error("another process uses {0}: stop it, or choose another --data directory")]
    Locked(String),
    /// The disk is full.
    #[error("the disk is full: free some space, then try again")]
    Full,
    /// Reading or opening failed.
    #[error("the store could not be read: {0}")]
    Io(String),
    /// The store is closed.
    #[error("the store is closed: {0}")]
    Closed(String),
}

impl StoreError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Corrupt(_) => "store_corrupt",
            Self::NewerFormat { .. } => "store_newer_format",
            Self::Locked(_) => "store_locked",
            Self::Full => "store_full",
            Self::Io(_) => "store_io",
            Self::Closed(_) => "store_closed",
        }
    }
}
