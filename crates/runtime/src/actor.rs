//! One live actor: a mailbox task that is its only committer and supervises what runs beside it.
//!
//! The task itself never waits for a model or a tool. An attempt runs in a task of its own and hands
//! its steps over; the mailbox task enforces deadlines, takes new submissions and settles.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_store::{ActorId, BlobId, CommitError, Epoch, Seq, Store, Timestamp};
use tokio::{sync::mpsc, task::JoinError};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    alarm::{self, Schedules},
    census::Share,
    clock::Sources,
    error::RuntimeError,
    message,
    node::Runtime,
    step::{Step, json},
    submission::{
        self, Bounds, Closing, Failure, Finish, Instance, Program, QUEUE, Settled, State,
        Submission,
    },
};

mod admission;
mod alarms;
mod attempts;
mod command;
mod committing;
mod editing;
mod endings;
mod handling;
mod parking;
mod stating;

pub(crate) use command::{Command, Reply};
use handling::Desk;

/// What a mailbox task is made of.
pub(crate) struct Parts {
    pub(crate) id: ActorId,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sources: Sources,
    pub(crate) program: Arc<dyn Program>,
    pub(crate) commands: mpsc::WeakSender<Command>,
    pub(crate) runtime: Runtime,
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
    waiters: BTreeMap<String, Vec<Reply<Option<Settled>>>>,
    desk: Desk,
    stopping: bool,
    share: Share,
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
        // Somebody deletes it, and what was open went with the mark that says so.
        if wake.is_some()
            && queue.is_empty()
            && schedules.next().is_none()
            && crate::child::is_deleting(&*parts.store, &parts.id).await?
        {
            return Err(RuntimeError::Deleting);
        }
        let crowded = queue.len() >= submission::MAX_QUEUED;
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
            desk: Desk::new(crowded),
            stopping: false,
            share: parts.runtime.census().share(),
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
            self.handle_next().await?;
            self.share.count(&self.queue);
            let until = self.next_check();
            tokio::select! {
                biased;
                finished = finished(&mut self.running), if self.running.is_some() => self.finished(finished).await?,
                ended = self.desk.ended(), if self.desk.busy.is_some() => self.handled(ended).await?,
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep(until) => {
                    if self.running.is_none() && self.desk.is_clear() && !self.is_over() && !self.is_tick_due() {
                        return self.correct_wake().await;
                    }
                }
            }
        }
    }

    /// Tells everybody who waits that the actor goes away: why, or that it only sleeps.
    pub(crate) fn leave(&mut self, why: Option<&RuntimeError>) {
        self.running = None;
        self.desk = Desk::default();
        for reply in std::mem::take(&mut self.waiters).into_values().flatten() {
            let _ = reply.send(why.cloned().map_or(Ok(None), Err));
        }
    }

    /// True when the supervisor has to wake it again.
    pub(crate) fn wants_wake(&self) -> bool {
        self.position.wake.is_some()
    }

    /// True when messages were left in the store that somebody has to wake it for.
    pub(crate) fn left_messages(&self) -> bool {
        self.desk.left
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
            // The end of what is handled is heard; nothing is left to look for before.
            (None, _) if self.desk.busy.is_some() => message::MAX_REQUEST_WITHIN,
            (None, Some(State::Parked { until, .. })) => until.since(now).min(self.parts.idle),
            (None, _) => self.parts.idle,
        };
        // A tick that finds no room waits for a settlement, not for a time.
        let tick = self.schedules.next().filter(|_| self.has_room());
        tick.map_or(check, |tick| check.min(tick.since(now)))
    }

    async fn handle(&mut self, command: Command) -> Result<(), RuntimeError> {
        match command {
            Command::Submit {
                new,
                steer,
                at,
                reply,
            } => {
                let outcome = self.submit(new, steer, at).await;
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
            Command::Wake { begun } => {
                self.desk.unread = true;
                if let Some(begun) = begun {
                    let _ = begun.send(());
                }
            }
            Command::Request { request, reply } => self.ask(request, reply),
            Command::Edit { edit, reply } => {
                let outcome = self.edit(&edit).await;
                return answer(reply, outcome);
            }
            Command::SetState { new, reply } => {
                let outcome = self.set_state(new).await;
                return answer(reply, outcome);
            }
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
    let value = match &submission.payload_blob {
        None => json(submission),
        Some(_) => {
            let mut row = submission.clone();
            row.payload = serde_json::Value::Null;
            json(&row)
        }
    };
    step.rows.push(bowline_store::RowChange::Put {
        space: QUEUE,
        key: submission.number.to_be_bytes().to_vec(),
        value,
        blobs: submission
            .blobs
            .iter()
            .chain(&submission.payload_blob)
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
