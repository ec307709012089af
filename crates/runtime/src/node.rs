//! A process that keeps actors alive: it wakes them, lets them sleep, and drains.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_store::{ActorId, Seq, Store, Timestamp};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    actor::{Actor, Command, Parts},
    alarm::{NewSchedule, Schedule},
    census::{Census, Counts},
    clock::Sources,
    edit::Edit,
    error::RuntimeError,
    state::{self, NewState},
    submission::{self, NewSubmission, Program, Receipt, Settled},
};

/// Messages that may wait in one mailbox; a sender waits for room.
const MAILBOX: usize = 64;
/// How often a caller knocks again when it met an actor that was just falling asleep.
const KNOCKS: usize = 8;
/// Most actors whose failures are remembered.
const MAX_DEFERRED: usize = 10_000;
/// How long an actor that could not go on is left alone: the first time, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Messages that are carried at once.
const POST_PAGE: usize = 256;

mod deletion;
mod requests;
mod supervision;

use requests::Waits;
pub use supervision::Recovery;

/// Settings of a [`Runtime`].
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// How long an actor stays in memory with nothing to do. Default 60 s; zero means not at all.
    pub idle: Duration,
    /// How long [`Runtime::run`] waits for what was open to go on, before it calls the start hook.
    /// Default 10 s; the rest goes on beside it.
    pub recovery: Duration,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            recovery: Duration::from_secs(10),
        }
    }
}

/// Runs actors on a store. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    sources: Sources,
    options: RuntimeOptions,
    programs: HashMap<String, Arc<dyn Program>>,
    /// The awake actors. A std mutex: it is held for lookups only, never across an await.
    awake: Mutex<Awake>,
    /// An actor fell asleep, or failed, and wants to be woken.
    changed: Notify,
    /// Messages are on their way.
    posted: Notify,
    /// Who waits for whom. A std mutex: it is held for lookups only, never across an await.
    waits: Mutex<Waits>,
    tasks: TaskTracker,
    census: Census,
}

#[derive(Default)]
struct Awake {
    /// In order, so that a simulation can replay it.
    actors: BTreeMap<ActorId, mpsc::Sender<Command>>,
    draining: bool,
    /// Nothing more is admitted from outside.
    closing: bool,
    /// Actors that are being deleted, and by how many.
    deleting: BTreeMap<ActorId, usize>,
    /// Actors that could not go on: how often in a row, and when they are tried again.
    deferred: BTreeMap<ActorId, (u32, Timestamp)>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("store", &self.0.store)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// A runtime over a store, with the program of each kind of actor.
    pub fn new(
        store: Arc<dyn Store>,
        sources: Sources,
        options: RuntimeOptions,
        programs: impl IntoIterator<Item = (String, Arc<dyn Program>)>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            sources,
            options,
            programs: programs.into_iter().collect(),
            awake: Mutex::default(),
            changed: Notify::new(),
            posted: Notify::new(),
            waits: Mutex::default(),
            tasks: TaskTracker::new(),
            census: Census::default(),
        }))
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// What it has done, and has in memory.
    pub fn counts(&self) -> Counts {
        let awake = self.awake().actors.len();
        self.0.census.counts(awake)
    }

    pub(crate) fn census(&self) -> &Census {
        &self.0.census
    }

    /// Admits a submission. When this returns, it is durable.
    pub async fn submit(
        &self,
        actor: &ActorId,
        new: NewSubmission,
    ) -> Result<Receipt, RuntimeError> {
        self.admit(actor, new, false, None).await
    }

    /// Admits a submission as [`Runtime::submit`] does, but only while the actor's last record is still
    /// the one with this sequence; 0 for an actor that has none. One that was admitted before under its
    /// key is found whatever the sequence is.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Moved`] when something was recorded meanwhile; nothing is admitted then.
    pub async fn submit_at(
        &self,
        actor: &ActorId,
        new: NewSubmission,
        seq: Seq,
    ) -> Result<Receipt, RuntimeError> {
        self.admit(actor, new, false, Some(seq)).await
    }

    /// Admits a submission that goes before what a parked one waits for: the request is withdrawn, the
    /// parked run goes on without an answer, and this one joins it, where its program takes in what
    /// waits. With nothing parked it is the same as [`Runtime::submit`].
    ///
    /// # Errors
    ///
    /// As [`Runtime::submit`].
    pub async fn steer(
        &self,
        actor: &ActorId,
        new: NewSubmission,
    ) -> Result<Receipt, RuntimeError> {
        self.admit(actor, new, true, None).await
    }

    async fn admit(
        &self,
        actor: &ActorId,
        new: NewSubmission,
        steer: bool,
        at: Option<Seq>,
    ) -> Result<Receipt, RuntimeError> {
        if self.awake().closing {
            return Err(RuntimeError::Stopped);
        }
        self.ask(actor, |reply| Command::Submit {
            new: new.clone(),
            steer,
            at,
            reply,
        })
        .await
    }

    /// Replaces the state of an actor, from outside. When this returns, it is durable.
    ///
    /// # Errors
    ///
    /// What [`Program::validate_state`] says, `state_conflict`, `state_read_only`, `state_too_large`;
    /// nothing changes then.
    pub async fn set_state(
        &self,
        actor: &ActorId,
        new: NewState,
    ) -> Result<state::Version, RuntimeError> {
        self.ask(actor, |reply| Command::SetState {
            new: new.clone(),
            reply,
        })
        .await
    }

    /// Changes rows of an actor from outside, while no attempt of it runs. What the actor's program
    /// tells is returned when the change is durable.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Busy`] while an attempt runs, and what [`Instance::edit`](crate::Instance::edit)
    /// says; nothing changes then.
    pub async fn edit(&self, actor: &ActorId, edit: Edit) -> Result<Value, RuntimeError> {
        self.ask(actor, |reply| Command::Edit {
            edit: edit.clone(),
            reply,
        })
        .await
    }

    /// Follows the state of an actor.
    pub fn follow_state(&self, actor: &ActorId) -> state::Subscription {
        state::subscribe(self.0.store.clone(), actor)
    }

    /// Asks to abort one submission, or each open one. `false` when there was nothing to abort. The
    /// settlement follows; completed work wins.
    pub async fn abort(
        &self,
        actor: &ActorId,
        submission: Option<&str>,
    ) -> Result<bool, RuntimeError> {
        self.ask(actor, |reply| Command::Abort {
            submission: submission.map(str::to_owned),
            reply,
        })
        .await
    }

    /// Hands a parked submission what it waits for, and returns its id. Durable when this returns,
    /// and taken in once, however often it is sent.
    ///
    /// # Errors
    ///
    /// When nothing waits, or not for this.
    pub async fn answer(&self, actor: &ActorId, answer: Value) -> Result<String, RuntimeError> {
        self.ask(actor, |reply| Command::Answer {
            answer: answer.clone(),
            reply,
        })
        .await
    }

    /// Waits until a submission settles, however long it is parked; that keeps no actor awake.
    ///
    /// # Errors
    ///
    /// `submission_not_found`, and why the actor could not go on.
    pub async fn settled(
        &self,
        actor: &ActorId,
        submission: &str,
    ) -> Result<Settled, RuntimeError> {
        let store = &self.0.store;
        loop {
            let waiting = self.ask(actor, |reply| Command::Wait {
                submission: submission.to_owned(),
                reply,
            });
            if let Some(settled) = waiting.await? {
                return Ok(settled);
            }
            // The actor sleeps. The place first: whatever happens after it moves it.
            let mut tail = store.tail(actor);
            let head = store.head(actor).await?;
            if let Some(settled) = submission::settled(&**store, actor, submission).await? {
                return Ok(settled);
            }
            let place = head.map_or(0, |head| head.seq);
            if tail.beyond(place).await.is_none() {
                return Err(RuntimeError::Stopped);
            }
        }
    }

    /// Wakes an actor, so that it goes on with what is open.
    pub async fn wake(&self, actor: &ActorId) -> Result<(), RuntimeError> {
        for _ in 0..KNOCKS {
            if self
                .mailbox(actor)?
                .send(Command::Wake { begun: None })
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
        Err(RuntimeError::Stopped)
    }

    /// Registers a schedule of an actor. When this returns, it is durable. It fires while somebody
    /// runs [`Runtime::supervise`], or the actor is awake.
    ///
    /// # Errors
    ///
    /// `schedule_invalid`, `schedule_past` and `schedule_limit`; the actor goes on.
    pub async fn schedule(
        &self,
        actor: &ActorId,
        new: NewSchedule,
    ) -> Result<Schedule, RuntimeError> {
        self.ask(actor, |reply| Command::Schedule {
            new: new.clone(),
            reply,
        })
        .await
    }

    /// Cancels a schedule of an actor; what it admitted before goes on. `false` when there is none.
    pub async fn cancel_schedule(&self, actor: &ActorId, id: &str) -> Result<bool, RuntimeError> {
        self.ask(actor, |reply| Command::Unschedule {
            id: id.to_owned(),
            reply,
        })
        .await
    }

    /// Waits until nothing is worked on, and goes on admitting meanwhile. `false` when that took longer than
    /// `bound`. What waits for somebody outside, or for its turn, is not waited for.
    pub async fn rest(&self, bound: Duration) -> bool {
        tokio::time::timeout(bound, self.0.census.rest())
            .await
            .is_ok()
    }

    /// Admits nothing more, and waits until what runs has come to its end. `false` when that took longer
    /// than `bound`: what still runs is not touched, [`Runtime::drain`] stops it.
    pub async fn finish(&self, bound: Duration) -> bool {
        self.awake().closing = true;
        let rest = self.0.census.rest();
        tokio::time::timeout(bound, rest).await.is_ok()
    }

    /// Stops in good order: running attempts stop at their next await, without settling; what is
    /// open goes on after the next start. Gives up waiting after `bound`; `false` then.
    pub async fn drain(&self, bound: Duration) -> bool {
        let actors: Vec<_> = {
            let mut awake = self.awake();
            awake.draining = true;
            awake.actors.values().cloned().collect()
        };
        self.0.tasks.close();
        let stop = async {
            // Together, so that one with a full mailbox does not delay the others.
            futures::future::join_all(actors.iter().map(|actor| actor.send(Command::Stop))).await;
            self.0.tasks.wait().await;
        };
        tokio::time::timeout(bound, stop).await.is_ok()
    }

    async fn ask<T>(
        &self,
        actor: &ActorId,
        command: impl Fn(oneshot::Sender<Result<T, RuntimeError>>) -> Command,
    ) -> Result<T, RuntimeError> {
        for _ in 0..KNOCKS {
            let (reply, answer) = oneshot::channel();
            if self.mailbox(actor)?.send(command(reply)).await.is_err() {
                continue;
            }
            match answer.await {
                // The actor fell asleep between the lookup and this message.
                Ok(Err(RuntimeError::Stopped)) if !self.awake().draining => {}
                Ok(outcome) => return outcome,
                Err(_) => return Err(RuntimeError::Stopped),
            }
        }
        Err(RuntimeError::Stopped)
    }

    fn mailbox(&self, id: &ActorId) -> Result<mpsc::Sender<Command>, RuntimeError> {
        let program = self.0.programs.get(id.kind());
        let program = program.ok_or_else(|| RuntimeError::UnknownKind(id.kind().to_owned()))?;
        let mut awake = self.awake();
        if awake.draining {
            return Err(RuntimeError::Stopped);
        }
        if awake.deleting.contains_key(id) {
            return Err(RuntimeError::Deleting);
        }
        if let Some(sender) = awake.actors.get(id)
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        let (sender, receiver) = mpsc::channel(MAILBOX);
        awake.actors.insert(id.clone(), sender.clone());
        let parts = Parts {
            id: id.clone(),
            store: self.0.store.clone(),
            sources: self.0.sources.clone(),
            program: program.clone(),
            commands: sender.downgrade(),
            runtime: self.clone(),
            idle: program.idle(id).unwrap_or(self.0.options.idle),
        };
        self.0.tasks.spawn(live(self.clone(), parts, receiver));
        Ok(sender)
    }

    fn awake(&self) -> MutexGuard<'_, Awake> {
        self.0.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an actor off the list, unless a message came in meanwhile.
    fn sleep(&self, id: &ActorId, commands: &mut mpsc::Receiver<Command>, must: bool) -> bool {
        let mut awake = self.awake();
        if !must && !commands.is_empty() {
            return false;
        }
        commands.close();
        if awake.actors.get(id).is_some_and(mpsc::Sender::is_closed) {
            awake.actors.remove(id);
        }
        true
    }
}

async fn live(runtime: Runtime, parts: Parts, mut commands: mpsc::Receiver<Command>) {
    let id = parts.id.clone();
    let mut error = RuntimeError::Stopped;
    match Actor::hydrate(parts).await {
        Ok(mut actor) => loop {
            let worked = actor.work(&mut commands).await;
            let failed = worked.is_err();
            let must = failed || actor.is_stopping() || runtime.awake().draining;
            if let Err(cause) = worked {
                tracing::warn!(actor = %id, %cause, "an actor stopped");
                error = cause;
            }
            if runtime.sleep(&id, &mut commands, must) {
                if failed {
                    runtime.defer(&id);
                } else {
                    runtime.awake().deferred.remove(&id);
                }
                actor.leave((failed || actor.is_stopping()).then_some(&error));
                if failed || actor.wants_wake() {
                    runtime.0.changed.notify_one();
                }
                if failed || actor.left_messages() {
                    runtime.post();
                }
                break;
            }
        },
        Err(RuntimeError::Deleting) => {
            error = RuntimeError::Deleting;
            runtime.sleep(&id, &mut commands, true);
            if let Err(cause) = runtime.purge(&id).await {
                tracing::warn!(actor = %id, %cause, "an actor could not be deleted yet");
                runtime.defer(&id);
                runtime.0.changed.notify_one();
            }
        }
        Err(cause) => {
            tracing::warn!(actor = %id, %cause, "an actor could not be opened");
            error = cause;
            runtime.sleep(&id, &mut commands, true);
            runtime.defer(&id);
            runtime.0.changed.notify_one();
            runtime.post();
        }
    }
    while let Some(command) = commands.recv().await {
        command.refuse(&error);
    }
}
