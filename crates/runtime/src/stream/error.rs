//! Why something could not be done with a stream.

use bowline_store::{CommitError, StoreError};

use super::offset::Offset;

/// Why a stream did not do what it was asked. Nothing was changed, except where the store says that
/// it does not know.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// There is no such stream, or it has expired.
    #[error("there is no such stream: create it first")]
    NotFound,
    /// The stream was deleted, and is kept only for its forks.
    #[error("the stream was deleted and only its forks are left: use another path")]
    Gone,
    /// Another stream is at the path.
    #[error("a stream with other settings is at this path: use another path, or delete it first")]
    Exists,
    /// The stream is closed.
    #[error("the stream is closed at {}: nothing can be appended any more", .0)]
    Closed(Offset),
    /// What is appended has another content type than the stream.
    #[error("the stream holds {held}: append that")]
    ContentType {
        /// The content type of the stream.
        held: String,
    },
    /// A later session of the producer has begun.
    #[error("this producer has been replaced by epoch {current}: claim a greater epoch")]
    ProducerFenced {
        /// The producer's epoch.
        current: u64,
    },
    /// A new session of a producer does not begin with sequence 0.
    #[error("a new producer epoch begins with sequence 0")]
    ProducerEpoch,
    /// An earlier append of the producer is missing.
    #[error("append {expected} of this producer is missing, {received} came: send it first")]
    ProducerGap {
        /// The sequence that must come next.
        expected: u64,
        /// The one that came.
        received: u64,
    },
    /// `Stream-Seq` is not greater than the last one.
    #[error("the sequence is not greater than the last one: use a greater one")]
    Sequence,
    /// There is nothing to append.
    #[error("there is nothing to append: send bytes, or close the stream")]
    Empty,
    /// What is appended to a stream of JSON is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// An append is too large.
    #[error("the body has more than {limit} bytes: append less at once")]
    TooLarge {
        /// The most that one append may hold.
        limit: usize,
    },
    /// A path, header or setting makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The stream to fork is gone, or holds something else.
    #[error("{0}")]
    ForkConflict(String),
    /// The process is stopping, or another one has taken the stream over.
    #[error("the stream cannot be used here at this moment: try again")]
    Unavailable,
    /// A subscription refused.
    #[error("{0}")]
    Subscription(#[from] super::subscription::Refusal),
    /// The store refused a commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StreamError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "stream_not_found",
            Self::Gone => "stream_gone",
            Self::Exists => "stream_exists",
            Self::Closed(_) => "stream_closed",
            Self::ContentType { .. } => "stream_content_type",
            Self::ProducerFenced { .. } => "stream_producer_fenced",
            Self::ProducerEpoch => "stream_producer_epoch",
            Self::ProducerGap { .. } => "stream_producer_gap",
            Self::Sequence => "stream_sequence",
            Self::Empty => "stream_empty",
            Self::Json(_) => "stream_json",
            Self::TooLarge { .. } => "stream_too_large",
            Self::Invalid(_) => "stream_invalid",
            Self::ForkConflict(_) => "stream_fork_conflict",
            Self::Unavailable => "stream_unavailable",
            Self::Subscription(refusal) => refusal.code(),
            Self::Commit(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}
