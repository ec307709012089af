//! A process that keeps actors alive: it wakes them, lets them sleep, and drains.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_store::{ActorId, Store, Timestamp};
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    actor::{Actor, Command, Parts},
    alarm::{NewSchedule, Schedule},
    clock::Sources,
    error::RuntimeError,
    submission::{NewSubmission, Program, Receipt, Settled},
};

/// Messages that may wait in one mailbox; a sender waits for room.
const MAILBOX: usize = 64;
/// How often a caller knocks again when it met an actor that was just falling asleep.
const KNOCKS: usize = 8;
/// How many actors are asked for at once when looking for due ones.
const DUE_PAGE: usize = 10_000;

/// Actors that are woken at the same time.
const WAKES: usize = 64;
/// How many due actors are looked at once, beside those that are awake.
const WAKE_PAGE: usize = 256;
/// How long an actor that could not go on is left alone: the first time, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Most actors whose failures are remembered.
const MAX_DEFERRED: usize = 10_000;

/// Settings of a [`Runtime`].
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// How long an actor stays in memory with nothing to do. Default 60 s; zero means not at all.
    pub idle: Duration,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
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
    tasks: TaskTracker,
}

#[derive(Default)]
struct Awake {
    /// In order, so that a simulation can replay it.
    actors: BTreeMap<ActorId, mpsc::Sender<Command>>,
    draining: bool,
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
            tasks: TaskTracker::new(),
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

    /// Admits a submission. When this returns, it is durable.
    pub async fn submit(
        &self,
        actor: &ActorId,
        new: NewSubmission,
    ) -> Result<Receipt, RuntimeError> {
        self.ask(actor, |reply| Command::Submit {
            new: new.clone(),
            reply,
        })
        .await
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

    /// Waits until a submission settles.
    pub async fn settled(
        &self,
        actor: &ActorId,
        submission: &str,
    ) -> Result<Settled, RuntimeError> {
        self.ask(actor, |reply| Command::Wait {
            submission: submission.to_owned(),
            reply,
        })
        .await
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

    /// Wakes actors when they are due, until it is told to stop: first what was open when the last
    /// process ended, then what is scheduled. It sleeps until the earliest wake there is. An actor
    /// that cannot go on is tried again after a second, then later and later, at most a minute.
    pub async fn supervise(&self, stop: CancellationToken) {
        let mut upcoming = VecDeque::new();
        let mut stale = true;
        loop {
            let mut pause = None;
            if stale {
                match self.upcoming().await {
                    Ok(found) => (upcoming, stale) = (found, false),
                    Err(cause) => {
                        tracing::error!(%cause, "the supervisor cannot read the store");
                        pause = Some(BACK_OFF.1);
                    }
                }
            }
            let now = self.0.sources.now();
            let due = upcoming.partition_point(|(at, _)| *at <= now);
            if due > 0 && !stop.is_cancelled() {
                let due: Vec<_> = upcoming.drain(..due).map(|(_, actor)| actor).collect();
                stale = upcoming.is_empty();
                let wakes = due.into_iter().map(|actor| self.begin(actor));
                futures::stream::iter(wakes)
                    .buffer_unordered(WAKES)
                    .for_each(|()| async {})
                    .await;
                continue;
            }
            let pause = pause.or(upcoming.front().map(|(at, _)| at.since(now)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.changed.notified() => stale = true,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Who is asleep and has to be woken next, in order of time; empty only when nobody has to be.
    async fn upcoming(&self) -> Result<VecDeque<(Timestamp, ActorId)>, RuntimeError> {
        let limit = {
            let awake = self.awake();
            awake.actors.len() + awake.deferred.len() + WAKE_PAGE
        };
        let page = self
            .0
            .store
            .due(Timestamp::from_millis(i64::MAX), limit)
            .await?;
        let awake = self.awake();
        // Who is awake looks after itself.
        let asleep = |(id, _): &(ActorId, Timestamp)| {
            awake.actors.get(id).is_none_or(mpsc::Sender::is_closed)
        };
        let at = |(id, wake): (ActorId, Timestamp)| {
            let at = awake
                .deferred
                .get(&id)
                .map_or(wake, |(_, until)| wake.max(*until));
            (at, id)
        };
        let mut upcoming: Vec<_> = page.into_iter().filter(asleep).map(at).collect();
        upcoming.sort();
        Ok(upcoming.into())
    }

    /// Wakes an actor, and waits until it has begun with what is due.
    async fn begin(&self, actor: ActorId) {
        let outcome = match self.mailbox(&actor) {
            Ok(mailbox) => {
                let (begun, waiting) = oneshot::channel();
                if mailbox
                    .send(Command::Wake { begun: Some(begun) })
                    .await
                    .is_ok()
                {
                    // An error means that it stopped, which it tells by itself.
                    let _ = waiting.await;
                }
                return;
            }
            Err(cause) => cause,
        };
        tracing::warn!(%actor, cause = %outcome, "an actor did not wake");
        self.defer(&actor);
    }

    /// Leaves an actor alone for a while, longer each time.
    fn defer(&self, actor: &ActorId) {
        let now = self.0.sources.now();
        let mut awake = self.awake();
        if awake.deferred.len() >= MAX_DEFERRED && !awake.deferred.contains_key(actor) {
            awake.deferred.retain(|_, (_, until)| *until > now);
        }
        let (times, until) = awake.deferred.entry(actor.clone()).or_insert((0, now));
        let pause = BACK_OFF
            .0
            .saturating_mul(1 << (*times).min(6))
            .min(BACK_OFF.1);
        (*times, *until) = (times.saturating_add(1), now.after(pause));
    }

    /// Deletes an actor whole. What runs in it is stopped first; it does not settle, it is gone.
    pub async fn purge(&self, actor: &ActorId) -> Result<(), RuntimeError> {
        let awake = self.awake().actors.get(actor).cloned();
        if let Some(mailbox) = awake
            && mailbox.send(Command::Stop).await.is_ok()
        {
            mailbox.closed().await;
        }
        Ok(self.0.store.purge(actor).await?)
    }

    /// Wakes each actor that has something to go on with. Returns how many.
    pub async fn resume(&self) -> Result<usize, RuntimeError> {
        let now = self.0.sources.now();
        self.resume_until(now).await
    }

    async fn resume_until(&self, now: Timestamp) -> Result<usize, RuntimeError> {
        let due = self.0.store.due(now, DUE_PAGE).await?;
        let mut woken = 0;
        for (actor, _) in &due {
            // One that cannot wake here must not keep the others asleep.
            match self.wake(actor).await {
                Ok(()) => woken += 1,
                Err(cause) => tracing::warn!(%actor, %cause, "an actor did not wake"),
            }
        }
        Ok(woken)
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
            idle: program.idle(id).unwrap_or(self.0.options.idle),
        };
        self.0.tasks.spawn(live(self.clone(), parts, receiver));
        Ok(sender)
    }

    fn awake(&self) -> MutexGuard<'_, Awake> {
        self.0.awake.lock().unwrap_or_else(PoisonError::into_inner)
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
                actor.fail_waiters(&error);
                if failed || actor.wants_wake() {
                    runtime.0.changed.notify_one();
                }
                break;
            }
        },
        Err(cause) => {
            tracing::warn!(actor = %id, %cause, "an actor could not be opened");
            error = cause;
            runtime.sleep(&id, &mut commands, true);
            runtime.defer(&id);
            runtime.0.changed.notify_one();
        }
    }
    while let Some(command) = commands.recv().await {
        refuse(command, &error);
    }
}

/// Answers a message that came too late.
fn refuse(command: Command, error: &RuntimeError) {
    match command {
        Command::Submit { reply, .. } => drop(reply.send(Err(error.clone()))),
        Command::Abort { reply, .. } => drop(reply.send(Err(error.clone()))),
        Command::Answer { reply, .. } => drop(reply.send(Err(error.clone()))),
        Command::Wait { reply, .. } => drop(reply.send(Err(error.clone()))),
        Command::Schedule { reply, .. } => drop(reply.send(Err(error.clone()))),
        Command::Unschedule { reply, .. } => drop(reply.send(Err(error.clone()))),
        // The attempt sees its reply dropped, and halts.
        Command::Wake { .. } | Command::Stop | Command::Commit { .. } | Command::Waiting { .. } => {
        }
    }
}
