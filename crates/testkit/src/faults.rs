//! Stores that die where a test wants, as a process does: what was committed stays, everything after
//! is refused.
//!
//! [`Faulty`] stands in front of another store and lets a [`Fault`] decide about each commit and each
//! deletion; [`DyingStore`] is the one that dies at a given write.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bowline_store::{
    ActorHead, ActorId, Batch, BlobId, CommitError, Dump, DumpError, InboxMessage, Metrics,
    OutboxMessage, Row, Seq, Store, StoreError, StoredRecord, Tail, Timestamp,
};
use bytes::Bytes;

/// Decides what becomes of the writes of one process.
#[async_trait]
pub trait Fault: Send + Sync + std::fmt::Debug + 'static {
    /// True once the process died: nothing reaches the store any more.
    fn is_dead(&self) -> bool;

    /// Commits, or not.
    async fn commit(&self, inner: &dyn Store, batch: Batch) -> Result<Seq, CommitError>;

    /// Carries messages, or not.
    async fn deliver(
        &self,
        inner: &dyn Store,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, CommitError> {
        inner.deliver(limit).await
    }

    /// Deletes, or not.
    async fn purge(&self, inner: &dyn Store, actor: &ActorId) -> Result<(), CommitError> {
        inner.purge(actor).await
    }

    /// So many records were read.
    fn read(&self, records: usize) {
        let _ = records;
    }

    /// The process closes its store.
    fn close(&self) {}
}

/// The store of one process, with its faults. The store behind lives on and is what the next process
/// finds.
#[derive(Debug)]
pub struct Faulty<F> {
    inner: Arc<dyn Store>,
    fault: F,
}

impl<F> Deref for Faulty<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.fault
    }
}

impl<F: Fault> Faulty<F> {
    /// Puts faults in front of `inner`.
    pub fn with(inner: Arc<dyn Store>, fault: F) -> Arc<Self> {
        Arc::new(Self { inner, fault })
    }

    /// True once the process died.
    pub fn is_dead(&self) -> bool {
        self.fault.is_dead()
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.fault.is_dead() {
            Err(StoreError::Closed(DEAD.to_owned()))
        } else {
            Ok(())
        }
    }

    fn writing(&self) -> Result<(), CommitError> {
        if self.fault.is_dead() {
            Err(dead())
        } else {
            Ok(())
        }
    }
}

const DEAD: &str = "the process died";

/// What a dead process is told.
pub fn dead() -> CommitError {
    CommitError::Closed(DEAD.to_owned())
}

/// Where a [`DyingStore`] dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Before commit `n` (from 1) is durable.
    Before(u64),
    /// After commit `n` is durable, before anybody hears of it.
    After(u64),
    /// Before deletion `n` (from 1).
    BeforePurge(u64),
    /// After deletion `n`, before anybody hears of it.
    AfterPurge(u64),
    /// Before messages are carried for the `n`th time (from 1).
    BeforeDelivery(u64),
    /// After messages were carried for the `n`th time, before anybody hears of it.
    AfterDelivery(u64),
    /// Never; writes are only counted.
    Never,
}

/// A store in front of another one that dies at one write.
pub type DyingStore = Faulty<Dying>;

/// Dies at one write.
#[derive(Debug)]
pub struct Dying {
    death: Death,
    commits: AtomicU64,
    purges: AtomicU64,
    deliveries: AtomicU64,
    dead: AtomicBool,
}

impl Faulty<Dying> {
    /// Dies as told; `inner` lives on and is what the next process finds.
    pub fn new(inner: Arc<dyn Store>, death: Death) -> Arc<Self> {
        let fault = Dying {
            death,
            commits: AtomicU64::new(0),
            purges: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        };
        Self::with(inner, fault)
    }
}

impl Dying {
    /// Commits that were asked for.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Deletions that were asked for.
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::SeqCst)
    }

    fn die_at(&self, death: Death) -> Result<(), CommitError> {
        if self.death == death {
            self.dead.store(true, Ordering::SeqCst);
            return Err(dead());
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Dying {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    async fn commit(&self, inner: &dyn Store, batch: Batch) -> Result<Seq, CommitError> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        self.die_at(Death::Before(number))?;
        let outcome = inner.commit(batch).await;
        self.die_at(Death::After(number))?;
        outcome
    }

    async fn deliver(
        &self,
        inner: &dyn Store,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, CommitError> {
        let number = self.deliveries.fetch_add(1, Ordering::SeqCst) + 1;
        self.die_at(Death::BeforeDelivery(number))?;
        let outcome = inner.deliver(limit).await;
        self.die_at(Death::AfterDelivery(number))?;
        outcome
    }

    async fn purge(&self, inner: &dyn Store, actor: &ActorId) -> Result<(), CommitError> {
        let number = self.purges.fetch_add(1, Ordering::SeqCst) + 1;
        self.die_at(Death::BeforePurge(number))?;
        let outcome = inner.purge(actor).await;
        self.die_at(Death::AfterPurge(number))?;
        outcome
    }
}

#[async_trait]
impl<F: Fault> Store for Faulty<F> {
    async fn commit(&self, batch: Batch) -> Result<Seq, CommitError> {
        self.writing()?;
        self.fault.commit(&*self.inner, batch).await
    }

    async fn head(&self, actor: &ActorId) -> Result<Option<ActorHead>, StoreError> {
        self.alive()?;
        self.inner.head(actor).await
    }

    async fn read(
        &self,
        actor: &ActorId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        self.alive()?;
        let records = self.inner.read(actor, after, limit).await?;
        self.fault.read(records.len());
        Ok(records)
    }

    fn tail(&self, actor: &ActorId) -> Tail {
        self.inner.tail(actor)
    }

    async fn row(
        &self,
        actor: &ActorId,
        space: &str,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.alive()?;
        self.inner.row(actor, space, key).await
    }

    async fn scan(
        &self,
        actor: &ActorId,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.alive()?;
        self.inner.scan(actor, space, prefix, after, limit).await
    }

    async fn blob(&self, id: BlobId) -> Result<Option<Bytes>, StoreError> {
        self.alive()?;
        self.inner.blob(id).await
    }

    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(ActorId, Timestamp)>, StoreError> {
        self.alive()?;
        self.inner.due(now, limit).await
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        self.alive()?;
        self.inner.next_wake().await
    }

    async fn actors(
        &self,
        kind: &str,
        name: Option<&str>,
        after: Option<&ActorId>,
        limit: usize,
    ) -> Result<Vec<ActorId>, StoreError> {
        self.alive()?;
        self.inner.actors(kind, name, after, limit).await
    }

    async fn send(&self, to: &ActorId, message: InboxMessage) -> Result<bool, CommitError> {
        self.writing()?;
        self.inner.send(to, message).await
    }

    async fn inbox(&self, actor: &ActorId, limit: usize) -> Result<Vec<InboxMessage>, StoreError> {
        self.alive()?;
        self.inner.inbox(actor, limit).await
    }

    async fn inbox_actors(&self, limit: usize) -> Result<Vec<ActorId>, StoreError> {
        self.alive()?;
        self.inner.inbox_actors(limit).await
    }

    async fn deliver(&self, limit: usize) -> Result<Vec<OutboxMessage>, CommitError> {
        self.writing()?;
        self.fault.deliver(&*self.inner, limit).await
    }

    async fn purge(&self, actor: &ActorId) -> Result<(), CommitError> {
        self.writing()?;
        self.fault.purge(&*self.inner, actor).await
    }

    async fn purge_idle(&self, actor: &ActorId, seq: Seq) -> Result<(), CommitError> {
        self.writing()?;
        self.inner.purge_idle(actor, seq).await
    }

    async fn dump(&self, actor: &ActorId) -> Result<Option<Dump>, DumpError> {
        self.alive()?;
        self.inner.dump(actor).await
    }

    async fn backup(&self, into: &std::path::Path) -> Result<(), StoreError> {
        self.alive()?;
        self.inner.backup(into).await
    }

    async fn verify(&self) -> Result<(), StoreError> {
        self.alive()?;
        self.inner.verify().await
    }

    fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// The store behind stays open for the next process.
    async fn close(&self) {
        self.fault.close();
    }
}
