//! Submissions that wait for somebody outside, and hold nothing but their rows while they do.

use bowline_store::{Timestamp, Wake};
use serde_json::Value;

use super::{Actor, put};
use crate::{
    error::RuntimeError,
    step::Step,
    submission::{Failure, Instance, State, Submission},
};

impl Actor {
    /// True when the first submission is parked and its time has come.
    pub(super) fn is_over(&self) -> bool {
        let now = self.parts.sources.now();
        matches!(self.queue.front().map(|open| &open.state), Some(State::Parked { until, .. }) if *until <= now)
    }

    /// From here on the submission holds nothing but its rows and a wake.
    pub(super) async fn park(
        &mut self,
        mut instance: Box<dyn Instance>,
        mut submission: Submission,
        mut step: Step,
        until: Timestamp,
    ) -> Result<(), RuntimeError> {
        submission.state = State::Parked {
            since: self.parts.sources.now(),
            until,
        };
        put(&mut step, &submission);
        if step.records.is_empty() {
            self.note(&mut step, "parked");
        }
        let records = self.commit(step, Wake::At(until)).await?;
        instance.apply(&records)?;
        self.instance = Some(instance);
        self.replace(submission);
        Ok(())
    }

    /// Goes on with a parked submission, in a new attempt that does not count, with its deadline moved
    /// by the time that it was parked.
    pub(super) async fn unpark(
        &mut self,
        mut submission: Submission,
        mut instance: Box<dyn Instance>,
        mut step: Step,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        if let State::Parked { since, .. } = submission.state {
            submission.deadline = submission
                .deadline
                .map(|deadline| deadline.after(now.since(since)));
        }
        submission.attempts = submission.attempts.saturating_sub(1);
        let attempt = self.next_attempt(&mut submission, &mut step);
        let records = self.commit(step, Wake::At(now)).await?;
        instance.apply(&records)?;
        self.replace(submission.clone());
        self.spawn(submission, attempt, instance);
        Ok(())
    }

    pub(super) async fn answer(&mut self, answer: &Value) -> Result<String, RuntimeError> {
        let first = self.queue.front().cloned();
        let mut instance = self.take_instance_unless_running().await?;
        let parked = first.filter(|open| matches!(open.state, State::Parked { .. }));
        let Some(submission) = parked else {
            self.instance = Some(instance);
            let hint = "see `bowline show` for what the conversation waits for";
            return Err(
                Failure::new("nothing_to_answer", "nothing waits for an answer", hint).into(),
            );
        };
        let id = submission.id.clone();
        match instance.answer(&submission, answer) {
            Ok(step) if step.is_empty() => self.instance = Some(instance),
            Ok(step) => self.unpark(submission, instance, step).await?,
            Err(failure) => {
                self.instance = Some(instance);
                return Err(failure.into());
            }
        }
        Ok(id)
    }

    async fn take_instance_unless_running(&mut self) -> Result<Box<dyn Instance>, RuntimeError> {
        if self.running.is_some() {
            let hint = "see `bowline show` for what the conversation waits for";
            return Err(
                Failure::new("nothing_to_answer", "nothing waits for an answer", hint).into(),
            );
        }
        self.take_instance().await
    }
}
