//! One live actor: a mailbox task that is its only committer and supervises what runs beside it.
//!
//! The task itself never waits for a model or a tool. An attempt runs in a task of its own and hands
//! its steps over; the mailbox task enforces deadlines, takes new submissions and settles.

mod alarms;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_store::{
    ActorId, Batch, Blob, BlobId, CommitError, Epoch, Seq, Store, StoredRecord, Timestamp, Wake,
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinError,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    alarm::{self, NewSchedule, Schedule, Schedules},
    attempt::Attempt,
    clock::Sources,
    error::RuntimeError,
    kind,
    step::{Step, json},
    submission::{
        self, AttemptStarted, Bounds, Closing, Failure, Finish, Instance, NewSubmission, Outcome,
        Program, Progress, QUEUE, Receipt, SETTLED, Settled, State, Submission,
    },
};

mod admission;
mod parking;

type Reply<T> = oneshot::Sender<Result<T, RuntimeError>>;

/// What the mailbox takes.
#[derive(Debug)]
pub(crate) enum Command {
    /// Admit a submission.
    Submit {
        new: NewSubmission,
        reply: Reply<Receipt>,
    },
    /// Abort one submission, or each open one.
    Abort {
        submission: Option<String>,
        reply: Reply<bool>,
    },
    /// Take in what a parked submission waits for.
    Answer { answer: Value, reply: Reply<String> },
    /// Tell when a submission settles.
    Wait {
        submission: String,
        reply: Reply<Settled>,
    },
    /// Go on with what is open or due; tells when that has begun.
    Wake { begun: Option<oneshot::Sender<()>> },
    /// Register a schedule.
    Schedule {
        new: NewSchedule,
        reply: Reply<Schedule>,
    },
    /// Cancel a schedule.
    Unschedule { id: String, reply: Reply<bool> },
    /// Commit a step of the running attempt.
    Commit {
        attempt: String,
        step: Step,
        joined: Vec<String>,
        reply: oneshot::Sender<Result<Vec<StoredRecord>, CommitError>>,
    },
    /// The submissions that may join the running one.
    Waiting {
        attempt: String,
        reply: oneshot::Sender<Vec<Submission>>,
    },
    /// Stop without settling; what is open goes on when the actor wakes again.
    Stop,
}

/// What a mailbox task is made of.
pub(crate) struct Parts {
    pub(crate) id: ActorId,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sources: Sources,
    pub(crate) program: Arc<dyn Program>,
    pub(crate) commands: mpsc::WeakSender<Command>,
    pub(crate) idle: Duration,
}

pub(crate) struct Actor {
    parts: Parts,
    bounds: Bounds,
    position: Position,
    /// Open submissions in order of admission; the running one is the first that has not joined.
    queue: VecDeque<Submission>,
    next_number: u64,
    schedules: Schedules,
    /// Here while no attempt runs.
    instance: Option<Box<dyn Instance>>,
    running: Option<Running>,
    /// In order, so that a simulation can replay it.
    waiters: BTreeMap<String, Vec<Reply<Settled>>>,
    stopping: bool,
}

/// Where the actor stands in the store.
struct Position {
    epoch: Epoch,
    seq: Seq,
    /// False until the first commit with this epoch.
    claimed: bool,
    /// The wake in the store.
    wake: Option<Timestamp>,
}

struct Running {
    submission: String,
    attempt: String,
    /// Ends with the actor, however the actor ends.
    task: AbortOnDropHandle<(Box<dyn Instance>, Finish)>,
    cancel: CancellationToken,
    deadline: Timestamp,
    /// Set when the attempt was told to stop: why, and when it is ended by force.
    ending: Option<(Closing, Timestamp)>,
}

impl Actor {
    /// Reads where the actor stands.
    pub(crate) async fn hydrate(parts: Parts) -> Result<Self, RuntimeError> {
        let head = parts.store.head(&parts.id).await?;
        let queue: VecDeque<_> = submission::open(&*parts.store, &parts.id).await?.into();
        let schedules = Schedules::new(alarm::list(&*parts.store, &parts.id).await?);
        let (epoch, seq) = head.map_or((0, 0), |head| (head.epoch, head.seq));
        let wake = head.and_then(|head| head.wake);
        let next_number = queue.back().map_or(seq, |last| last.number.max(seq)) + 1;
        Ok(Self {
            bounds: parts.program.bounds(&parts.id),
            position: Position {
                epoch: epoch + 1,
                seq,
                claimed: false,
                wake,
            },
            queue,
            next_number,
            schedules,
            instance: None,
            running: None,
            waiters: BTreeMap::new(),
            stopping: false,
            parts,
        })
    }

    /// Works until the actor is idle for long enough, is stopped, or cannot go on.
    pub(crate) async fn work(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), RuntimeError> {
        loop {
            // Before the mailbox is looked at, so that one that never empties cannot put it off.
            self.enforce_deadline().await?;
            self.fire_due().await?;
            if self.running.is_none() {
                if self.stopping {
                    return Ok(());
                }
                self.start_next().await?;
            }
            let until = self.next_check();
            tokio::select! {
                biased;
                finished = finished(&mut self.running), if self.running.is_some() => self.finished(finished).await?,
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(until) => {
                    if self.running.is_none() && !self.is_over() && !self.is_tick_due() {
                        return self.correct_wake().await;
                    }
                }
            }
        }
    }

    /// Tells everybody who waits that the actor cannot go on.
    pub(crate) fn fail_waiters(&mut self, error: &RuntimeError) {
        self.running = None;
        for reply in std::mem::take(&mut self.waiters).into_values().flatten() {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// True when the supervisor has to wake it again.
    pub(crate) fn wants_wake(&self) -> bool {
        self.position.wake.is_some()
    }

    /// True once the actor takes nothing more: whoever asks next gets a fresh one.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn next_check(&self) -> Duration {
        let now = self.parts.sources.now();
        let check = match (&self.running, self.queue.front().map(|open| &open.state)) {
            (Some(running), _) => {
                let ending = running.ending.as_ref();
                let at = ending.map_or(running.deadline, |(_, force)| *force);
                at.since(now)
            }
            (None, Some(State::Parked { until, .. })) => until.since(now).min(self.parts.idle),
            (None, _) => self.parts.idle,
        };
        // A tick that finds no room waits for a settlement, not for a time.
        let tick = self.schedules.next().filter(|_| self.has_room());
        tick.map_or(check, |tick| check.min(tick.since(now)))
    }

    async fn handle(&mut self, command: Command) -> Result<(), RuntimeError> {
        match command {
            Command::Submit { new, reply } => {
                let outcome = self.submit(new).await;
                return answer(reply, outcome);
            }
            Command::Abort { submission, reply } => {
                let outcome = self.abort(submission.as_deref()).await;
                return answer(reply, outcome);
            }
            Command::Answer {
                answer: given,
                reply,
            } => {
                let outcome = self.answer(&given).await;
                return answer(reply, outcome);
            }
            Command::Wait { submission, reply } => self.wait(submission, reply).await,
            Command::Wake { begun } => drop(begun.map(|begun| begun.send(()))),
            Command::Schedule { new, reply } => {
                let outcome = self.schedule(new).await;
                return answer(reply, outcome);
            }
            Command::Unschedule { id, reply } => {
                let outcome = self.unschedule(&id).await;
                return answer(reply, outcome);
            }
            Command::Commit {
                attempt,
                step,
                joined,
                reply,
            } => {
                if self
                    .running
                    .as_ref()
                    .is_none_or(|running| running.attempt != attempt)
                {
                    // A forgotten attempt that still runs; nothing of it may land.
                    let _ = reply.send(Err(CommitError::Closed(
                        "the attempt was replaced".to_owned(),
                    )));
                    return Ok(());
                }
                let outcome = self.commit_joining(step, &joined).await;
                let fatal = outcome
                    .as_ref()
                    .err()
                    .map(|error| RuntimeError::Commit(error.clone()));
                let _ = reply.send(outcome);
                return fatal.map_or(Ok(()), Err);
            }
            Command::Waiting { attempt, reply } => {
                let ours = self
                    .running
                    .as_ref()
                    .is_some_and(|running| running.attempt == attempt);
                let waiting = |submission: &&Submission| {
                    submission.state == State::Queued && submission.abort_requested_at.is_none()
                };
                // Only the contiguous front may join, so that the order of admission is kept.
                let front = self
                    .queue
                    .iter()
                    .filter(|one| one.state != State::Running)
                    .skip_while(|one| matches!(one.state, State::Joined { .. }));
                let _ = reply.send(if ours {
                    front.take_while(waiting).cloned().collect()
                } else {
                    Vec::new()
                });
            }
            Command::Stop => {
                self.stopping = true;
                if let Some(running) = &self.running {
                    running.cancel.cancel();
                }
            }
        }
        Ok(())
    }

    // ---- attempts ----

    /// Starts the first submission that has not joined another; settles those that need no attempt.
    async fn start_next(&mut self) -> Result<(), RuntimeError> {
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
                self.begin(first, Vec::new()).await?;
            }
        }
        Ok(())
    }

    /// The first attempt: the input, the attempt and, for a new submission, its row are one commit.
    async fn begin(
        &mut self,
        mut submission: Submission,
        blobs: Vec<Blob>,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        submission
            .deadline
            .get_or_insert(now.after(self.bounds.wall));
        submission.after_seq = self.position.seq;
        let mut instance = self.take_instance().await?;
        let mut step = instance.accept(&submission);
        step.blobs.extend(blobs);
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
    async fn recover(&mut self, mut submission: Submission) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        let mut instance = self.take_instance().await?;
        let progress = instance.progress(&submission);
        let ended = if submission.abort_requested_at.is_some() {
            Some(Closing::Aborted)
        } else if submission.attempts >= self.bounds.attempts {
            Some(Closing::Failed(exhausted(submission.attempts)))
        } else if submission.deadline.is_some_and(|deadline| now >= deadline) {
            Some(Closing::Failed(timed_out()))
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
                self.begin(submission, Vec::new()).await
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

    fn next_attempt(&self, submission: &mut Submission, step: &mut Step) -> String {
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

    fn spawn(&mut self, submission: Submission, attempt: String, mut instance: Box<dyn Instance>) {
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
        };
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let finish = instance.run(&mut handle).await;
            (instance, finish)
        }));
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

    async fn finished(
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

    fn replace(&mut self, submission: Submission) {
        if let Some(open) = self.queue.iter_mut().find(|open| open.id == submission.id) {
            *open = submission;
        }
    }

    /// A stop in good order: the attempt does not count, and the submission goes on at the next wake.
    async fn release(&mut self, mut submission: Submission) -> Result<(), RuntimeError> {
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

    async fn enforce_deadline(&mut self) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        let grace = self.bounds.grace;
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        if running.task.is_finished() {
            // Completed work wins, also when it is late.
            return Ok(());
        }
        match &running.ending {
            None if now >= running.deadline => {
                end(running, Closing::Failed(timed_out()), now.after(grace))
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

    // ---- endings ----

    /// Leaves the conversation valid without an answer, and settles.
    async fn close(
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
    async fn settle(
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
        let last = self.queue.len() == settled.len();
        let records = self
            .commit(step, if last { Wake::Clear } else { Wake::Keep })
            .await?;
        if let Some(instance) = &mut self.instance {
            instance.apply(&records)?;
        }
        self.queue
            .retain(|open| settled.iter().all(|end| end.submission_id != open.id));
        for end in settled {
            for reply in self.waiters.remove(&end.submission_id).unwrap_or_default() {
                let _ = reply.send(Ok(end.clone()));
            }
        }
        Ok(())
    }

    async fn take_instance(&mut self) -> Result<Box<dyn Instance>, RuntimeError> {
        match self.instance.take() {
            Some(instance) => Ok(instance),
            None => Ok(self
                .parts
                .program
                .open(&self.parts.id, &self.parts.store)
                .await?),
        }
    }

    // ---- the only committer ----

    async fn commit_joining(
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
    fn note(&self, step: &mut Step, change: &str) {
        step.record(
            kind::ACTOR_OPENED,
            self.parts.sources.now(),
            &serde_json::json!({ "change": change }),
        );
    }

    async fn commit(
        &mut self,
        mut step: Step,
        wake: Wake,
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
        batch.outbox = step.outbox;
        let wake = self.not_after_schedules(wake);
        batch.wake = wake;
        let last = self.parts.store.commit(batch).await?;
        let first = self.position.seq + 1;
        self.position.seq = last;
        self.position.claimed = true;
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

async fn finished(running: &mut Option<Running>) -> Result<(Box<dyn Instance>, Finish), JoinError> {
    match running {
        Some(running) => (&mut running.task).await,
        None => std::future::pending().await,
    }
}

/// Tells the caller; an error that the actor cannot survive is returned as well.
fn answer<T>(reply: Reply<T>, outcome: Result<T, RuntimeError>) -> Result<(), RuntimeError> {
    let fatal = outcome
        .as_ref()
        .err()
        .filter(|error| error.is_fatal())
        .cloned();
    let _ = reply.send(outcome);
    fatal.map_or(Ok(()), Err)
}

fn end(running: &mut Running, closing: Closing, force: Timestamp) {
    if running.ending.is_none() {
        running.ending = Some((closing, force));
        running.cancel.cancel();
    }
}

fn put(step: &mut Step, submission: &Submission) {
    let value = json(submission);
    step.rows.push(bowline_store::RowChange::Put {
        space: QUEUE,
        key: submission.number.to_be_bytes().to_vec(),
        value,
        blobs: submission
            .blobs
            .iter()
            .filter_map(|digest| BlobId::parse(digest))
            .collect(),
    });
}

fn aborted() -> Failure {
    Failure::new(
        "submission_aborted",
        "the submission was aborted",
        "send it again to start over",
    )
}

fn timed_out() -> Failure {
    Failure::new(
        "submission_timeout",
        "the submission took longer than its time limit",
        "raise limits.wall of the agent, or split the work",
    )
}

fn exhausted(attempts: u32) -> Failure {
    Failure::new(
        "submission_retry_exhausted",
        format!("the submission was interrupted in each of its {attempts} attempts"),
        "find what stops the process, or raise limits.attempts of the agent",
    )
}
