//! The store of one simulated process, with seeded faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bowline_runtime::Random;
use bowline_store::{
    ActorHead, ActorId, Batch, BlobId, CommitError, Dump, DumpError, InboxMessage, Metrics,
    OutboxMessage, Row, Seq, Store, StoreError, StoredRecord, Tail, Timestamp,
};
use bytes::Bytes;

use super::{
    journal::{Event, Journal},
    program::STEP,
};
use crate::seeded::SeededRandom;

/// How often each fault happens: of so many commits, one.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// The process dies before the commit is durable.
    pub die_before: Option<u64>,
    /// The process dies after the commit is durable, before anybody hears of it.
    pub die_after: Option<u64>,
    /// The commit is durable, but the writer is told that the disk failed; the store takes nothing more.
    pub lost: Option<u64>,
    /// The disk is full, once.
    pub full: Option<u64>,
    /// The commit takes a while.
    pub slow: Option<u64>,
}

impl Rates {
    /// Nothing ever goes wrong.
    pub const NONE: Self = Self {
        die_before: None,
        die_after: None,
        lost: None,
        full: None,
        slow: None,
    };
}

/// The store as one process sees it. The store behind lives on and is what the next process finds.
#[derive(Debug)]
pub struct ProcessStore {
    inner: Arc<dyn Store>,
    journal: Arc<Journal>,
    random: Arc<SeededRandom>,
    rates: Rates,
    dead: AtomicBool,
}

impl ProcessStore {
    /// A process's view of `inner`.
    pub fn new(
        inner: Arc<dyn Store>,
        journal: Arc<Journal>,
        random: Arc<SeededRandom>,
        rates: Rates,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            journal,
            random,
            rates,
            dead: AtomicBool::new(false),
        })
    }

    /// Kills the process: nothing that it still does reaches the store.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// True once the process died.
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

    fn writing(&self) -> Result<(), CommitError> {
        if self.is_dead() {
            Err(CommitError::Closed("the process died".to_owned()))
        } else {
            Ok(())
        }
    }

    fn die(&self) -> CommitError {
        self.kill();
        CommitError::Closed("the process died".to_owned())
    }

    fn hits(&self, rate: Option<u64>) -> bool {
        rate.is_some_and(|one_of| self.random.next().is_multiple_of(one_of.max(1)))
    }

    /// Lets others run first, or takes real time.
    async fn hesitate(&self) {
        for _ in 0..self.random.next() % 3 {
            tokio::task::yield_now().await;
        }
        if self.hits(self.rates.slow) {
            tokio::time::sleep(Duration::from_millis(self.random.next() % 2_000)).await;
        }
    }
}

#[async_trait]
impl Store for ProcessStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, CommitError> {
        self.hesitate().await;
        self.writing()?;
        if self.hits(self.rates.full) {
            return Err(CommitError::Full);
        }
        if self.hits(self.rates.die_before) {
            return Err(self.die());
        }
        let (actor, epoch, before) = (batch.actor.clone(), batch.epoch, batch.expected_seq);
        let is_step = |record: &&bowline_store::Record| record.kind == STEP;
        let steps = batch.records.iter().filter(is_step).map(|record| {
            let number = serde_json::from_slice(&record.body).unwrap_or(u32::MAX);
            (record.submission.clone().unwrap_or_default(), number)
        });
        let steps: Vec<_> = steps.collect();
        let outcome = self.inner.commit(batch).await;
        if let Ok(after) = outcome {
            self.journal.push(Event::Committed {
                actor,
                epoch,
                before,
                after,
                steps,
            });
        }
        if self.hits(self.rates.die_after) {
            return Err(self.die());
        }
        if outcome.is_ok() && self.hits(self.rates.lost) {
            self.kill();
            return Err(CommitError::Io("the flush failed".to_owned()));
        }
        self.hesitate().await;
        // A process that was killed meanwhile hears nothing.
        self.writing()?;
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
        self.inner.deliver(limit).await
    }

    async fn purge(&self, actor: &ActorId) -> Result<(), CommitError> {
        self.writing()?;
        self.inner.purge(actor).await
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
        self.kill();
    }
}
