//! The supervisor: it wakes what is due, carries messages, and tries again what could not go on.

use std::{collections::VecDeque, future::Future, time::Duration};

use bowline_store::{ActorId, Timestamp};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{BACK_OFF, MAX_DEFERRED, POST_PAGE, Runtime};
use crate::{actor::Command, error::RuntimeError};

/// How many actors are asked for at once when looking for due ones.
const DUE_PAGE: usize = 10_000;
/// Actors that are woken at the same time.
const WAKES: usize = 64;
/// How many due actors are looked at once, beside those that are awake.
const WAKE_PAGE: usize = 256;
/// How many actors with messages are looked at once, beside those that could not go on.
const INBOX_PAGE: usize = 1_000;

/// What [`Runtime::recover`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Actors that have begun to go on.
    pub woken: usize,
    /// True when the time was over before everything that was due had begun; the supervisor goes on
    /// with the rest.
    pub more: bool,
}

impl Runtime {
    /// Runs this process: first what was open when the last one ended goes on
    /// ([`Runtime::recover`], for at most
    /// [`RuntimeOptions::recovery`](crate::RuntimeOptions::recovery)), then `on_start` is called, then
    /// it supervises until it is told to stop.
    pub async fn run<F>(&self, stop: CancellationToken, on_start: impl FnOnce(Runtime) -> F)
    where
        F: Future<Output = ()>,
    {
        self.recover(self.0.options.recovery).await;
        on_start(self.clone()).await;
        self.supervise(stop).await;
    }

    /// Goes on with what is due now, in order of time, and waits until each has begun, at most for so
    /// long. An actor that cannot go on is left to the supervisor.
    pub async fn recover(&self, within: Duration) -> Recovery {
        let mut recovery = Recovery::default();
        let scan = async {
            loop {
                let upcoming = match self.upcoming().await {
                    Ok(upcoming) => upcoming,
                    Err(cause) => {
                        tracing::error!(%cause, "what was open cannot be read");
                        return true;
                    }
                };
                let now = self.0.sources.now();
                let due = upcoming.into_iter().take_while(|(at, _)| *at <= now);
                let mut begun = futures::stream::iter(due.map(|(_, actor)| self.begin(actor)))
                    .buffer_unordered(WAKES);
                let before = recovery.woken;
                while let Some(()) = begun.next().await {
                    recovery.woken += 1;
                }
                if recovery.woken == before {
                    return false;
                }
            }
        };
        let cut = tokio::time::timeout(within, scan).await;
        recovery.more = cut.unwrap_or(true);
        recovery
    }

    /// Wakes actors when they are due, until it is told to stop: first what was open when the last
    /// process ended, then what is scheduled; and carries messages between actors. It sleeps until the
    /// earliest wake there is. An actor that cannot go on is tried again after a second, then later
    /// and later, at most a minute.
    pub async fn supervise(&self, stop: CancellationToken) {
        tokio::join!(self.watch(&stop), self.carry(&stop));
    }

    async fn watch(&self, stop: &CancellationToken) {
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
                self.begin_all(due).await;
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

    /// Says that messages are on their way, or wait in an inbox.
    pub(crate) fn post(&self) {
        self.0.posted.notify_one();
    }

    /// Carries messages, and wakes those who have some: at first what the last process left, then
    /// whatever is posted.
    async fn carry(&self, stop: &CancellationToken) {
        loop {
            let pause = match self.carry_once().await {
                Ok(pause) => pause,
                Err(cause) => {
                    tracing::error!(%cause, "messages cannot be carried");
                    Some(BACK_OFF.1)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.posted.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Returns after which time somebody who could not take his messages is woken again.
    async fn carry_once(&self) -> Result<Option<Duration>, RuntimeError> {
        while self.0.store.deliver(POST_PAGE).await?.len() == POST_PAGE {}
        let limit = self.awake().deferred.len() + INBOX_PAGE;
        let waiting = self.0.store.inbox_actors(limit).await?;
        let now = self.0.sources.now();
        let mut later: Option<Timestamp> = None;
        let ready = {
            let awake = self.awake();
            let ready = waiting.into_iter().filter(|actor| {
                let until = awake.deferred.get(actor).map(|(_, until)| *until);
                match until.filter(|until| *until > now) {
                    Some(until) => {
                        later = Some(later.map_or(until, |later| later.min(until)));
                        false
                    }
                    None => true,
                }
            });
            ready.collect::<Vec<_>>()
        };
        self.begin_all(ready).await;
        Ok(later.map(|later| later.since(now)))
    }

    async fn begin_all(&self, actors: Vec<ActorId>) {
        let wakes = actors.into_iter().map(|actor| self.begin(actor));
        futures::stream::iter(wakes)
            .buffer_unordered(WAKES)
            .for_each(|()| async {})
            .await;
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
        match outcome {
            RuntimeError::Deleting => {
                tracing::debug!(%actor, "an actor that is being deleted is left alone");
            }
            cause => tracing::warn!(%actor, %cause, "an actor did not wake"),
        }
        self.defer(&actor);
    }

    /// Leaves an actor alone for a while, longer each time.
    pub(super) fn defer(&self, actor: &ActorId) {
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
}
