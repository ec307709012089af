//! What a writer sends, and what it is told.

use bytes::Bytes;

use super::{entry::Producer, meta::Lifetime, offset::Offset};

/// Most bytes that one append may hold.
pub const MAX_APPEND: usize = 16 * 1024 * 1024;

/// Bytes for the end of a stream.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// At most [`MAX_APPEND`]; may be empty when the append closes the stream. For a stream of JSON a
    /// value, or an array of values, each of which becomes a message.
    pub data: Bytes,
    /// Must be that of the stream; `None` when the caller knows that it is.
    pub content_type: Option<String>,
    /// Makes sending it again harmless.
    pub producer: Option<Producer>,
    /// Must be greater, bytewise, than the one of the last append that had one. At most 1,024 bytes.
    pub sequence: Option<String>,
    /// Nothing can be appended after this.
    pub closes: bool,
}

impl Append {
    /// Plain bytes, without further conditions.
    pub fn bytes(data: impl Into<Bytes>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    pub(super) fn is_close_only(&self) -> bool {
        self.closes && self.data.is_empty()
    }
}

/// An append in its stored form.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) append: Append,
    /// Why it cannot be taken, if it is not refused for anything else first.
    pub(super) problem: Option<super::error::StreamError>,
}

/// What became of an append. It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The end of the stream after it.
    pub next: Offset,
    /// The stream is closed.
    pub closed: bool,
    /// Epoch and highest accepted sequence of the producer.
    pub producer: Option<(u64, u64)>,
    /// It had been taken before; nothing was changed.
    pub duplicate: bool,
}

/// A stream to create.
#[derive(Debug, Clone, Default)]
pub struct NewStream {
    /// `None`: that of the source for a fork, else `application/octet-stream`.
    pub content_type: Option<String>,
    /// How long it lives; `None`: as the source of a fork does, else for ever.
    pub lifetime: Option<Lifetime>,
    /// Its first bytes.
    pub data: Bytes,
    /// Closed from the beginning.
    pub closed: bool,
    /// Where it comes from.
    pub fork: Option<NewFork>,
}

/// Where a new fork comes from.
#[derive(Debug, Clone, Default)]
pub struct NewFork {
    /// Path of the source.
    pub source: String,
    /// Up to where it shares the source's bytes; `None` for its end.
    pub offset: Option<Offset>,
    /// So many bytes, or messages of JSON, more; at most to the end of the append that follows.
    pub sub_offset: u64,
}

/// What became of a request to create a stream.
#[derive(Debug, Clone)]
pub struct Created {
    /// The stream.
    pub info: super::meta::Info,
    /// It is new; `false` when it was there with the same settings.
    pub new: bool,
}
