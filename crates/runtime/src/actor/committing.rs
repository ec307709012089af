//! The only committer of an actor.

use bowline_store::{Batch, CommitError, StoredRecord, Wake};

use super::{Actor, put};
use crate::{kind, step::Step, submission::State};

impl Actor {
    pub(super) async fn commit_joining(
        &mut self,
        mut step: Step,
        joined: &[String],
    ) -> Result<Vec<StoredRecord>, CommitError> {
        let Some(host) = self
            .running
            .as_ref()
            .map(|running| running.submission.clone())
        else {
            return Err(CommitError::Closed("no attempt is running".to_owned()));
        };
        let mut changed = Vec::new();
        for (index, open) in self.queue.iter().enumerate() {
            if joined.contains(&open.id) {
                let mut open = open.clone();
                open.state = State::Joined { host: host.clone() };
                put(&mut step, &open);
                changed.push((index, open));
            }
        }
        let records = self.commit(step, Wake::Keep).await?;
        for (index, open) in changed {
            self.queue[index] = open;
        }
        Ok(records)
    }

    /// The record of rows that change with nothing else to tell.
    pub(super) fn note(&self, step: &mut Step, change: &str) {
        step.record(
            kind::ACTOR_OPENED,
            self.parts.sources.now(),
            &serde_json::json!({ "change": change }),
        );
    }

    pub(super) async fn commit(
        &mut self,
        step: Step,
        wake: Wake,
    ) -> Result<Vec<StoredRecord>, CommitError> {
        self.commit_taking(step, wake, Vec::new()).await
    }

    /// Also takes messages out of the inbox.
    pub(super) async fn commit_taking(
        &mut self,
        mut step: Step,
        wake: Wake,
        taken: Vec<String>,
    ) -> Result<Vec<StoredRecord>, CommitError> {
        if !self.position.claimed && step.records.is_empty() {
            self.note(&mut step, "opened");
        }
        let mut batch = Batch::new(
            self.parts.id.clone(),
            self.position.epoch,
            self.position.seq,
        );
        batch.records.clone_from(&step.records);
        batch.rows = step.rows;
        batch.blobs = step.blobs;
        let sends = !step.outbox.is_empty();
        batch.outbox = step.outbox;
        batch.inbox_acks = taken;
        let wake = self.not_after_schedules(wake);
        batch.wake = wake;
        let began = tokio::time::Instant::now();
        let committed = self.parts.store.commit(batch).await;
        let census = self.parts.runtime.census();
        census.commit(began.elapsed(), committed.is_ok());
        let last = committed?;
        let first = self.position.seq + 1;
        self.position.seq = last;
        self.position.claimed = true;
        if sends {
            self.parts.runtime.post();
        }
        match wake {
            Wake::Keep => {}
            Wake::At(time) => self.position.wake = Some(time),
            Wake::Clear => self.position.wake = None,
        }
        let epoch = self.position.epoch;
        let stored = (first..)
            .zip(step.records)
            .map(|(seq, record)| StoredRecord { seq, epoch, record });
        Ok(stored.collect())
    }
}
