//! A store that dies where a test wants, as a process does: what was committed stays, everything
//! after is refused.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use bowline_store::{
    ActorHead, ActorId, Batch, BlobId, CommitError, Dump, DumpError, InboxMessage, Metrics,
    OutboxMessage, Row, Seq, Store, StoreError, StoredRecord, Tail, Timestamp,
};
use bytes::Bytes;

/// Where a [`DyingStore`] dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Before commit `n` (from 1) is durable.
    Before(u64),
    /// After commit `n` is durable, before anybody hears of it.
    After(u64),
    /// Never; commits are only counted.
    Never,
}

/// A store in front of another one that dies at one commit.
#[derive(Debug)]
pub struct DyingStore {
    inner: Arc<dyn Store>,
    death: Death,
    commits: AtomicU64,
    dead: AtomicBool,
}

impl DyingStore {
    /// Dies as told; `inner` lives on and is what the next process finds.
    pub fn new(inner: Arc<dyn Store>, death: Death) -> Arc<Self> {
        Arc::new(Self {
            inner,
            death,
            commits: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        })
    }

    /// Commits that were asked for.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// True once it died.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn alive(&self) -> Result<(), StoreError> {
        if self.is_dead() {
            Err(StoreError::Closed("the process died".to_owned()))
        } else {
            Ok(())
        }
    }

    fn die(&self) -> CommitError {
        self.dead.store(true, Ordering::SeqCst);
        CommitError::Closed("the process died".to_owned())
    }
}

#[async_trait]
impl Store for DyingStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, CommitError> {
        if self.is_dead() {
            return Err(self.die());
        }
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if self.death == Death::Before(number) {
            return Err(self.die());
        }
        let outcome = self.inner.commit(batch).await;
        if self.death == Death::After(number) {
            return Err(self.die());
        }
        outcome
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
        self.inner.read(actor, after, limit).await
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
        if self.is_dead() {
            return Err(self.die());
        }
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
        if self.is_dead() {
            return Err(self.die());
        }
        self.inner.deliver(limit).await
    }

    async fn purge(&self, actor: &ActorId) -> Result<(), CommitError> {
        if self.is_dead() {
            return Err(self.die());
        }
        self.inner.purge(actor).await
    }

    async fn purge_idle(&self, actor: &ActorId, seq: Seq) -> Result<(), CommitError> {
        if self.is_dead() {
            return Err(self.die());
        }
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

    async fn close(&self) {}
}
