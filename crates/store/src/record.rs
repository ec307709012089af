//! The append-only history of an actor.

use bytes::Bytes;

use crate::{BlobId, Epoch, Seq, Timestamp};

/// One fact to append. The store adds the sequence and the epoch of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What happened; the numbers are given out by the layer that writes them.
    pub kind: u16,
    /// Version of the body's format for this kind.
    pub version: u8,
    /// When it happened.
    pub time: Timestamp,
    /// The conversation it belongs to; empty for facts of the actor itself.
    pub conversation: String,
    /// The submission it belongs to, where there is one.
    pub submission: Option<String>,
    /// The attempt it belongs to, where there is one.
    pub attempt: Option<String>,
    /// The turn it belongs to, where there is one.
    pub turn: Option<String>,
    /// JSON.
    pub body: Bytes,
    /// Blobs that this record keeps alive for as long as the actor exists.
    pub blobs: Vec<BlobId>,
}

/// A record as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place in the actor's history.
    pub seq: Seq,
    /// The epoch of the writer that appended it.
    pub epoch: Epoch,
    /// What was appended.
    pub record: Record,
}
