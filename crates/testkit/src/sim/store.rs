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
use bowline_store::{ActorId, Batch, CommitError, OutboxMessage, RowChange, Seq, Store};

use super::{
    fiber::FIBER,
    journal::{Event, Journal},
    program::STEP,
};
use crate::{
    faults::{Fault, Faulty, dead},
    seeded::SeededRandom,
};

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

/// The store as one process sees it.
pub type ProcessStore = Faulty<Seeded>;

/// Faults that a seed decides.
#[derive(Debug)]
pub struct Seeded {
    journal: Arc<Journal>,
    random: Arc<SeededRandom>,
    rates: Rates,
    dead: AtomicBool,
}

impl Faulty<Seeded> {
    /// A process's view of `inner`.
    pub fn new(
        inner: Arc<dyn Store>,
        journal: Arc<Journal>,
        random: Arc<SeededRandom>,
        rates: Rates,
    ) -> Arc<Self> {
        let fault = Seeded {
            journal,
            random,
            rates,
            dead: AtomicBool::new(false),
        };
        Self::with(inner, fault)
    }
}

impl Seeded {
    /// Kills the process: nothing that it still does reaches the store.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    fn writing(&self) -> Result<(), CommitError> {
        if self.is_dead() { Err(dead()) } else { Ok(()) }
    }

    fn die(&self) -> CommitError {
        self.kill();
        dead()
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

/// The step that a fiber of the simulation has done: its stash is the number of the next one.
fn stashed(row: &RowChange) -> Option<(String, u32)> {
    match row {
        RowChange::Put {
            space: "fiber",
            key,
            value,
            ..
        } if key == b"stash" => {
            let next: u32 = serde_json::from_slice(value).ok()?;
            Some((FIBER.to_owned(), next.checked_sub(1)?))
        }
        RowChange::Put { .. } | RowChange::Delete { .. } | RowChange::DeletePrefix { .. } => None,
    }
}

#[async_trait]
impl Fault for Seeded {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    async fn commit(&self, inner: &dyn Store, batch: Batch) -> Result<Seq, CommitError> {
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
        let mut steps: Vec<_> = steps.collect();
        steps.extend(batch.rows.iter().filter_map(stashed));
        let sent = batch.outbox.iter();
        let sent = sent
            .map(|message| (message.to.clone(), message.id.clone()))
            .collect();
        let outcome = inner.commit(batch).await;
        if let Ok(after) = outcome {
            self.journal.push(Event::Committed {
                actor,
                epoch,
                before,
                after,
                steps,
                sent,
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

    async fn deliver(
        &self,
        inner: &dyn Store,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, CommitError> {
        self.hesitate().await;
        self.writing()?;
        if self.hits(self.rates.die_before) {
            return Err(self.die());
        }
        let outcome = inner.deliver(limit).await;
        if self.hits(self.rates.die_after) {
            return Err(self.die());
        }
        outcome
    }

    async fn purge(&self, inner: &dyn Store, actor: &ActorId) -> Result<(), CommitError> {
        self.hesitate().await;
        self.writing()?;
        if self.hits(self.rates.die_before) {
            return Err(self.die());
        }
        let outcome = inner.purge(actor).await;
        if outcome.is_ok() {
            self.journal.push(Event::Purged {
                actor: actor.clone(),
            });
        }
        if self.hits(self.rates.die_after) {
            return Err(self.die());
        }
        outcome
    }

    fn close(&self) {
        self.kill();
    }
}
