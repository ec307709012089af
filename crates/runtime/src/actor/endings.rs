//! Endings: the conversation is left valid, and the outcome is one commit.

use bowline_store::Wake;

use super::{Actor, aborted};
use crate::{
    error::RuntimeError,
    kind,
    step::Step,
    submission::{Closing, Failure, Instance, Outcome, QUEUE, SETTLED, Settled, State, Submission},
};

impl Actor {
    /// Leaves the conversation valid without an answer, and settles.
    pub(super) async fn close(
        &mut self,
        mut instance: Box<dyn Instance>,
        submission: &Submission,
        closing: Closing,
    ) -> Result<(), RuntimeError> {
        let repair = instance.repair(submission).await?;
        if !repair.is_empty() {
            let records = self.commit(repair, Wake::Keep).await?;
            instance.apply(&records)?;
        }
        let step = instance.close(submission, &closing);
        self.instance = Some(instance);
        let (outcome, error) = match closing {
            Closing::Aborted => (Outcome::Aborted, aborted()),
            Closing::Failed(failure) => (Outcome::Failed, failure),
        };
        self.settle(submission, outcome, Some(error), step).await
    }

    /// The terminal outcome, with the last step, as one commit; the joined ones settle with it.
    pub(super) async fn settle(
        &mut self,
        submission: &Submission,
        outcome: Outcome,
        error: Option<Failure>,
        mut step: Step,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        let joined = |open: &&Submission| matches!(&open.state, State::Joined { host } if *host == submission.id);
        let mut settled = Vec::new();
        for open in self
            .queue
            .iter()
            .filter(joined)
            .chain(std::iter::once(submission))
        {
            let end = Settled {
                submission_id: open.id.clone(),
                outcome,
                error: error.clone(),
                answered_by_submission_id: (open.id != submission.id)
                    .then(|| submission.id.clone()),
                digest: open.digest.clone(),
                after_seq: open.after_seq,
                accepted_at: open.accepted_at,
                settled_at: now,
            };
            let record = step.record(kind::SUBMISSION_SETTLED, now, &end);
            record.submission = Some(open.id.clone());
            step.delete(QUEUE, open.number.to_be_bytes());
            step.put(SETTLED, open.id.as_bytes(), &end);
            settled.push(end);
        }
        let changed = self.after_settled(&mut step, &settled);
        let left = self
            .queue
            .iter()
            .find(|open| settled.iter().all(|end| end.submission_id != open.id));
        let wake = match left {
            None => Wake::Clear,
            Some(Submission {
                state: State::Parked { until, .. },
                abort_requested_at: None,
                ..
            }) => Wake::At(*until),
            Some(_) => Wake::Keep,
        };
        // When the commit fails the actor stops, and what it has in memory goes with it.
        self.change_schedules(changed);
        let records = self.commit(step, wake).await?;
        if let Some(instance) = &mut self.instance {
            instance.apply(&records)?;
        }
        self.queue
            .retain(|open| settled.iter().all(|end| end.submission_id != open.id));
        if self.desk.crowded {
            (self.desk.unread, self.desk.crowded) = (true, false);
        }
        for end in settled {
            self.parts.runtime.census().settled(end.outcome);
            for reply in self.waiters.remove(&end.submission_id).unwrap_or_default() {
                let _ = reply.send(Ok(Some(end.clone())));
            }
        }
        Ok(())
    }

    pub(super) async fn take_instance(&mut self) -> Result<Box<dyn Instance>, RuntimeError> {
        match self.instance.take() {
            Some(instance) => Ok(instance),
            None => Ok(self
                .parts
                .program
                .open(&self.parts.id, &self.parts.store)
                .await?),
        }
    }
}
