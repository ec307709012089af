//! The contract that every engine keeps.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ActorId, Batch, BlobId, CommitError, Dump, DumpError, Epoch, InboxMessage, OutboxMessage, Seq,
    StoreError, StoredRecord, Timestamp,
};

/// A durable store of actors.
///
/// The words MUST and MAY bind engines; [`crate::conformance`] checks them.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Commits a batch and returns the actor's new last sequence.
    ///
    /// - When this returns `Ok`, the batch MUST be on stable storage, whole.
    /// - When it returns an error other than [`CommitError::Io`], nothing of the batch MUST remain.
    /// - `epoch` smaller than the actor's MUST give [`CommitError::Fenced`], and `expected_seq` other
    ///   than the actor's [`CommitError::Conflict`], whatever else the batch holds.
    /// - A greater `epoch` MUST take the actor over in the same commit; without a record the batch is
    ///   [`CommitError::Invalid`]. An actor that does not exist has epoch 0 and sequence 0.
    /// - Batches of one actor MUST become durable in the order in which they were handed in. An
    ///   engine MAY share one flush between batches of many actors; one that fails MUST NOT fail its
    ///   neighbours.
    /// - After a failed flush an engine MUST refuse every further commit ([`CommitError::Closed`]).
    /// - Dropping the future MUST NOT tear the batch: it is committed whole or not at all.
    async fn commit(&self, batch: Batch) -> Result<Seq, CommitError>;

    /// The actor's epoch, last sequence and wake; `None` for an actor without any commit.
    async fn head(&self, actor: &ActorId) -> Result<Option<ActorHead>, StoreError>;

    /// Up to `limit` records after `after`, in order. MUST verify checksums.
    async fn read(
        &self,
        actor: &ActorId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError>;

    /// Follows the actor's last sequence. MUST wake without polling, and only for durable records.
    fn tail(&self, actor: &ActorId) -> Tail;

    /// One row.
    async fn row(
        &self,
        actor: &ActorId,
        space: &str,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows of a space whose key starts with `prefix` and is greater than `after`, in
    /// ascending bytewise order.
    async fn scan(
        &self,
        actor: &ActorId,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// The bytes of a blob; `None` when nothing refers to it (any more). MUST verify the hash.
    async fn blob(&self, id: BlobId) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` actors whose wake is not after `now`, earliest first.
    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(ActorId, Timestamp)>, StoreError>;

    /// The earliest wake of any actor.
    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Actors of a kind, in order of (name, key), greater than `after`; `name` narrows to one name.
    async fn actors(
        &self,
        kind: &str,
        name: Option<&str>,
        after: Option<&ActorId>,
        limit: usize,
    ) -> Result<Vec<ActorId>, StoreError>;

    /// Puts a message into an actor's inbox, durably. `false` when this id was there before, taken or
    /// not: then nothing changes. The actor need not exist.
    async fn send(&self, to: &ActorId, message: InboxMessage) -> Result<bool, CommitError>;

    /// Up to `limit` messages that the actor has not taken, in order of arrival.
    async fn inbox(&self, actor: &ActorId, limit: usize) -> Result<Vec<InboxMessage>, StoreError>;

    /// Actors with messages that they have not taken.
    async fn inbox_actors(&self, limit: usize) -> Result<Vec<ActorId>, StoreError>;

    /// Moves up to `limit` outbox messages to the inboxes of their receivers, oldest first, and says
    /// which. A message MUST arrive exactly once, also when this is interrupted anywhere.
    async fn deliver(&self, limit: usize) -> Result<Vec<OutboxMessage>, CommitError>;

    /// Deletes an actor whole: history, rows, references, inbox, outbox. Its next incarnation starts
    /// at sequence 0 with a greater epoch, so that a writer from before stays fenced.
    async fn purge(&self, actor: &ActorId) -> Result<(), CommitError>;

    /// Deletes an actor as [`Store::purge`] does, but only one that stands at `seq`, has no wake, and
    /// neither messages to take nor messages to deliver. Else [`CommitError::Conflict`]; then nothing
    /// MUST have changed.
    async fn purge_idle(&self, actor: &ActorId, seq: Seq) -> Result<(), CommitError>;

    /// Everything of an actor, as it was at one moment; `None` for one that nothing was committed to.
    /// An actor with more than [`limits::MAX_BATCH`](crate::limits::MAX_BATCH) bytes is
    /// [`DumpError::TooLarge`], one with messages that are under way [`DumpError::Busy`].
    async fn dump(&self, actor: &ActorId) -> Result<Option<Dump>, DumpError>;

    /// Copies the live store, consistently, into a new directory.
    async fn backup(&self, into: &std::path::Path) -> Result<(), StoreError>;

    /// Reads everything and verifies it: checksums, hashes, reference counts.
    async fn verify(&self) -> Result<(), StoreError>;

    /// Counters since the store was opened.
    fn metrics(&self) -> Metrics;

    /// Finishes what is queued and releases the store. Later calls fail with `Closed`.
    async fn close(&self);
}

/// Where an actor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActorHead {
    /// Epoch of the last writer.
    pub epoch: Epoch,
    /// The last sequence.
    pub seq: Seq,
    /// Earliest wake.
    pub wake: Option<Timestamp>,
}

/// A row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key within its space.
    pub key: Vec<u8>,
    /// The value.
    pub value: Bytes,
}

/// Counters of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Flushes to stable storage that commits waited for; checkpoints are not counted.
    pub flushes: u64,
    /// Batches committed.
    pub batches: u64,
    /// Batches refused.
    pub refused: u64,
    /// Records appended.
    pub records: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
}

/// Follows the last durable sequence of one actor.
#[derive(Debug, Clone)]
pub struct Tail {
    receiver: tokio::sync::watch::Receiver<Seq>,
}

impl Tail {
    /// For engines: a tail over a watch that carries the last durable sequence.
    pub fn new(receiver: tokio::sync::watch::Receiver<Seq>) -> Self {
        Self { receiver }
    }

    /// Waits until the last durable sequence is greater than `seq`, and returns it. `None` when the
    /// store was closed.
    pub async fn beyond(&mut self, seq: Seq) -> Option<Seq> {
        self.receiver
            .wait_for(|head| *head > seq)
            .await
            .ok()
            .map(|head| *head)
    }
}
