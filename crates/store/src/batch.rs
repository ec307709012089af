//! What one commit holds.

use std::fmt;

use bytes::Bytes;

use crate::{ActorId, Epoch, Record, Seq, Timestamp};

/// Everything that one step of one actor changes. It is durable as a whole or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The one actor that this batch changes.
    pub actor: ActorId,
    /// The writer's epoch. Equal to the actor's: the owner goes on. Greater: the writer takes the
    /// actor over with this very batch, which must then carry a record. Smaller: fenced.
    pub epoch: Epoch,
    /// The actor's last sequence as the writer knows it; another value is a conflict.
    pub expected_seq: Seq,
    /// Appended in order, at `expected_seq + 1` and on.
    pub records: Vec<Record>,
    /// Applied in order.
    pub rows: Vec<RowChange>,
    /// Bytes to have when this batch is durable. Each must be referred to by a row or a record of
    /// this batch; one that the store has already costs nothing.
    pub blobs: Vec<Blob>,
    /// The actor's earliest wake.
    pub wake: Wake,
    /// Inbox messages that this step has taken; they are never delivered again.
    pub inbox_acks: Vec<String>,
    /// Messages to other actors, delivered exactly once by id after this batch is durable.
    pub outbox: Vec<OutboxMessage>,
}

impl Batch {
    /// An empty batch.
    pub fn new(actor: ActorId, epoch: Epoch, expected_seq: Seq) -> Self {
        Self {
            actor,
            epoch,
            expected_seq,
            records: Vec::new(),
            rows: Vec::new(),
            blobs: Vec::new(),
            wake: Wake::Keep,
            inbox_acks: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// True when committing would change nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.rows.is_empty()
            && self.blobs.is_empty()
            && self.wake == Wake::Keep
            && self.inbox_acks.is_empty()
            && self.outbox.is_empty()
    }
}

/// A change to the actor's materialised state, (space, key) → bytes. Keys are ordered bytewise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Writes a row, replacing what was there together with its references.
    Put {
        /// The namespace of the key, for example `file`; at most 64 bytes.
        space: &'static str,
        /// At most 8 KiB.
        key: Vec<u8>,
        /// At most 1 MiB; larger content belongs into a blob.
        value: Bytes,
        /// Blobs that this row keeps alive.
        blobs: Vec<BlobId>,
    },
    /// Removes a row; absent is fine.
    Delete {
        /// The namespace of the key.
        space: &'static str,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes each row of a space whose key starts with the prefix.
    DeletePrefix {
        /// The namespace of the keys.
        space: &'static str,
        /// Empty for the whole space.
        prefix: Vec<u8>,
    },
}

/// The name of a blob: the BLAKE3 hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// From the raw hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 64 hexadecimal digits; `None` when the text is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text)
            .ok()
            .map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// Content-addressed bytes of any size; engines chunk them.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The hash of `bytes`.
    pub id: BlobId,
    /// The content.
    pub bytes: Bytes,
}

impl Blob {
    /// A blob from its content.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            id: BlobId::of(&bytes),
            bytes,
        }
    }
}

/// What a batch does to the actor's earliest wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Leaves it.
    Keep,
    /// Sets it.
    At(Timestamp),
    /// Removes it.
    Clear,
}

/// A message that waits for an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxMessage {
    /// Unique within the receiving actor; a second message with this id is dropped.
    pub id: String,
    /// The sender, where it is an actor.
    pub from: Option<ActorId>,
    /// When it was accepted.
    pub time: Timestamp,
    /// JSON.
    pub body: Bytes,
}

/// A message to another actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxMessage {
    /// The receiver.
    pub to: ActorId,
    /// Unique within the receiver.
    pub id: String,
    /// When it was sent.
    pub time: Timestamp,
    /// JSON.
    pub body: Bytes,
}
