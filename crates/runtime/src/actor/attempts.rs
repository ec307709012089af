//! Attempts at submissions: begun, recovered, watched, ended.

use bowline_store::{ActorId, Wake};
use tokio::task::JoinError;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument as _;

use super::{Actor, Running, aborted, end, put};
use crate::{
    attempt::Attempt,
    budget::Hit,
    error::RuntimeError,
    kind,
    step::Step,
    submission::{
        AttemptStarted, Bounds, Closing, Failure, Finish, Instance, Outcome, Progress, State,
        Submission,
    },
};

impl Actor {
    /// Starts the first submission that has not joined another; settles those that need no attempt.
    pub(super) async fn start_next(&mut self) -> Result<(), RuntimeError> {
        while self.running.is_none() {
            let Some(first) = self
                .queue
                .iter()
                .find(|open| !matches!(open.state, State::Joined { .. }))
            else {
                return Ok(());
            };
            let first = first.clone();
            if let State::Parked { .. } = first.state {
                if first.abort_requested_at.is_some() {
                    self.recover(first).await?;
                } else if self.is_over() {
                    let mut instance = self.take_instance().await?;
                    let step = instance.expire(&first);
                    self.unpark(first, instance, step).await?;
                } else {
                    return Ok(());
                }
            } else if first.state == State::Running {
                self.recover(first).await?;
            } else if first.abort_requested_at.is_some() {
                self.settle(&first, Outcome::Aborted, Some(aborted()), Step::new())
                    .await?;
            } else {
                self.begin(first, Step::new()).await?;
            }
        }
        Ok(())
    }

    /// The first attempt: what came before it, the input, the attempt and, for a new submission, its
    /// row are one commit.
    pub(super) async fn begin(
        &mut self,
        mut submission: Submission,
        mut step: Step,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        submission
            .deadline
            .get_or_insert(now.after(self.bounds.wall));
        submission.after_seq = self.position.seq;
        let mut instance = self.take_instance().await?;
        step.extend(instance.accept(&submission));
        let attempt = self.next_attempt(&mut submission, &mut step);
        let records = self.commit(step, Wake::At(now)).await?;
        instance.apply(&records)?;
        match self.queue.iter_mut().find(|open| open.id == submission.id) {
            Some(open) => *open = submission.clone(),
            None => self.queue.push_back(submission.clone()),
        }
        self.spawn(submission, attempt, instance);
        Ok(())
    }

    /// Decides what becomes of a submission whose attempt was cut: first what is settled already,
    /// then what must not go on, then the next attempt.
    pub(super) async fn recover(&mut self, mut submission: Submission) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        let mut instance = self.take_instance().await?;
        let progress = instance.progress(&submission);
        let ended = if submission.abort_requested_at.is_some() {
            Some(Closing::Aborted)
        } else if submission.attempts >= self.bounds.attempts {
            Some(Closing::Failed(exhausted(submission.attempts)))
        } else if submission.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Closing::Failed(timed_out(self.bounds.wall)))
        } else {
            None
        };
        match (progress, ended) {
            (Progress::Completed, _) => {
                self.instance = Some(instance);
                self.settle(&submission, Outcome::Completed, None, Step::new())
                    .await
            }
            (Progress::Absent | Progress::Interrupted, Some(closing)) => {
                self.close(instance, &submission, closing).await
            }
            (Progress::Absent, None) => {
                self.instance = Some(instance);
                self.begin(submission, Step::new()).await
            }
            (Progress::Interrupted, None) => {
                let mut step = instance.repair(&submission).await?;
                let attempt = self.next_attempt(&mut submission, &mut step);
                let records = self.commit(step, Wake::At(now)).await?;
                instance.apply(&records)?;
                if let Some(open) = self.queue.iter_mut().find(|open| open.id == submission.id) {
                    *open = submission.clone();
                }
                self.spawn(submission, attempt, instance);
                Ok(())
            }
        }
    }

    pub(super) fn next_attempt(&self, submission: &mut Submission, step: &mut Step) -> String {
        let attempt = self.parts.sources.id("attempt_");
        submission.attempts += 1;
        submission.state = State::Running;
        let record = step.record(
            kind::ATTEMPT_STARTED,
            self.parts.sources.now(),
            &AttemptStarted {
                number: submission.attempts,
            },
        );
        record.submission = Some(submission.id.clone());
        record.attempt = Some(attempt.clone());
        put(step, submission);
        attempt
    }

    pub(super) fn spawn(
        &mut self,
        submission: Submission,
        attempt: String,
        mut instance: Box<dyn Instance>,
    ) {
        let Some(commands) = self.parts.commands.upgrade() else {
            return;
        };
        let cancel = CancellationToken::new();
        let mut handle = Attempt {
            actor: self.parts.id.clone(),
            submission: submission.clone(),
            id: attempt.clone(),
            commands,
            cancel: cancel.clone(),
            store: self.parts.store.clone(),
            sources: self.parts.sources.clone(),
            runtime: self.parts.runtime.clone(),
        };
        self.parts.runtime.census().attempt();
        let span = span(&self.parts.id, &submission, &attempt);
        let run = async move {
            tracing::info!(number = handle.submission.attempts, "an attempt began");
            let finish = instance.run(&mut handle).await;
            tracing::info!(finish = finish.word(), "an attempt ended");
            (instance, finish)
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run.instrument(span)));
        let deadline = submission
            .deadline
            .unwrap_or_else(|| self.parts.sources.now().after(self.bounds.wall));
        self.running = Some(Running {
            submission: submission.id,
            attempt,
            task,
            cancel,
            deadline,
            ending: None,
        });
    }

    pub(super) async fn finished(
        &mut self,
        result: Result<(Box<dyn Instance>, Finish), JoinError>,
    ) -> Result<(), RuntimeError> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let Some(submission) = self
            .queue
            .iter()
            .find(|open| open.id == running.submission)
            .cloned()
        else {
            return Ok(());
        };
        let Ok((instance, finish)) = result else {
            // The attempt panicked: its memory is gone, the store is not. The next attempt is
            // counted, so a submission that always panics ends as exhausted.
            tracing::error!(actor = %self.parts.id, submission = %submission.id, "an attempt panicked");
            return Ok(());
        };
        match (finish, running.ending) {
            (Finish::Completed(step), _) => {
                self.instance = Some(instance);
                self.settle(&submission, Outcome::Completed, None, step)
                    .await
            }
            (Finish::Halted(halt), _) => Err(halt.into()),
            (Finish::Parked { step, until }, None) => {
                self.park(instance, submission, step, until).await
            }
            (Finish::Parked { .. }, Some((closing, _))) => {
                self.close(instance, &submission, closing).await
            }
            (Finish::Failed(_) | Finish::Cancelled, Some((closing, _))) => {
                self.close(instance, &submission, closing).await
            }
            (Finish::Failed(failure), None) => {
                self.close(instance, &submission, Closing::Failed(failure))
                    .await
            }
            (Finish::Cancelled, None) => self.release(submission).await,
        }
    }

    pub(super) fn replace(&mut self, submission: Submission) {
        if let Some(open) = self.queue.iter_mut().find(|open| open.id == submission.id) {
            *open = submission;
        }
    }

    /// A stop in good order: the attempt does not count, and the submission goes on at the next wake.
    pub(super) async fn release(&mut self, mut submission: Submission) -> Result<(), RuntimeError> {
        submission.attempts = submission.attempts.saturating_sub(1);
        let mut step = Step::new();
        put(&mut step, &submission);
        self.note(&mut step, "attempt released");
        self.commit(step, Wake::Keep).await?;
        if let Some(open) = self.queue.iter_mut().find(|open| open.id == submission.id) {
            *open = submission;
        }
        self.stopping = true;
        Ok(())
    }

    pub(super) async fn enforce_deadline(&mut self) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        let Bounds { wall, grace, .. } = self.bounds;
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        if running.task.is_finished() {
            // Completed work wins, also when it is late.
            return Ok(());
        }
        match &running.ending {
            None if now >= running.deadline => {
                end(running, Closing::Failed(timed_out(wall)), now.after(grace))
            }
            Some((_, force)) if now >= *force => {
                let Some(running) = self.running.take() else {
                    return Ok(());
                };
                running.task.abort();
                let Some((closing, _)) = running.ending else {
                    return Ok(());
                };
                let Some(submission) = self
                    .queue
                    .iter()
                    .find(|open| open.id == running.submission)
                    .cloned()
                else {
                    return Ok(());
                };
                tracing::warn!(actor = %self.parts.id, submission = %submission.id, "an attempt did not stop; ended by force");
                let instance = self.take_instance().await?;
                return self.close(instance, &submission, closing).await;
            }
            None | Some(_) => {}
        }
        Ok(())
    }
}

/// What an attempt does is told within its span.
fn span(actor: &ActorId, submission: &Submission, attempt: &str) -> tracing::Span {
    let span = tracing::info_span!(
        "run",
        agent = actor.name(),
        instance = actor.key(),
        submission = submission.id,
        attempt,
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
        parent_span_id = tracing::field::Empty,
    );
    // Ids are made for those who log.
    if !span.is_disabled() {
        let trace = submission.trace();
        span.record("trace_id", trace.trace_id());
        span.record("span_id", trace.child(attempt).span_id());
        span.record("parent_span_id", trace.span_id());
    }
    span
}

fn timed_out(wall: std::time::Duration) -> Failure {
    Hit::Wall(wall).into()
}

fn exhausted(attempts: u32) -> Failure {
    Hit::Attempts(attempts).into()
}
