//! Actors are deleted whole, their children first.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use bowline_store::{ActorId, Batch, CommitError, RowChange, Seq, Wake};
use tokio::sync::mpsc;

use super::{POST_PAGE, Runtime};
use crate::{
    actor::Command,
    alarm::SCHEDULES,
    child::{self, DELETING, MARK},
    error::RuntimeError,
    kind,
    step::Step,
    submission::QUEUE,
};

/// How long an attempt has to stop by itself before its actor is deleted under it.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Children that are looked at at once.
const PAGE: usize = 256;

/// An actor on the way down, with the children that are left.
struct Level {
    actor: ActorId,
    children: VecDeque<ActorId>,
    after: Option<ActorId>,
    more: bool,
}

impl Level {
    fn new(actor: ActorId) -> Self {
        Self {
            actor,
            children: VecDeque::new(),
            after: None,
            more: true,
        }
    }
}

/// Actors that nobody may wake for now.
struct Held<'a> {
    runtime: &'a Runtime,
    actors: Vec<ActorId>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for actor in &self.actors {
            self.runtime.let_go(actor);
        }
    }
}

impl Runtime {
    /// Deletes an actor whole, with its children. What runs in them is stopped first, at most a minute
    /// each; it does not settle, it is gone. Messages that they sent before still arrive. Who asks for one of them
    /// meanwhile is told `actor_deleting`. A deletion that is cut by the end of the process goes on
    /// after the next start.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written; call it again then.
    pub async fn purge(&self, actor: &ActorId) -> Result<(), RuntimeError> {
        let mut held = Held {
            runtime: self,
            actors: Vec::new(),
        };
        let mut seen = BTreeSet::from([actor.clone()]);
        let mut path = vec![Level::new(actor.clone())];
        self.hold(&mut held, actor).await;
        while let Some(level) = path.last_mut() {
            if level.children.is_empty() && level.more {
                let store = &self.0.store;
                let page = child::list(&**store, &level.actor, level.after.as_ref(), PAGE).await?;
                level.more = page.len() == PAGE;
                if level.after.is_none() && !page.is_empty() && level.actor == *actor {
                    self.mark(actor).await?;
                }
                level.after = page.last().cloned();
                level.children = page.into();
            }
            if let Some(next) = level.children.pop_front() {
                // One that was seen is on the path, or gone: an actor may be owned more than once.
                if seen.insert(next.clone()) {
                    self.hold(&mut held, &next).await;
                    path.push(Level::new(next));
                }
                continue;
            }
            while self.0.store.deliver(POST_PAGE).await?.len() == POST_PAGE {}
            self.0.store.purge(&level.actor).await?;
            path.pop();
        }
        self.post();
        Ok(())
    }

    /// Deletes an actor that is asleep, stands at `seq` and has nothing under way; `false`, and nothing
    /// changed, for one that is not so. Who asks for it at that moment is told `actor_deleting`.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub async fn purge_idle(&self, actor: &ActorId, seq: Seq) -> Result<bool, RuntimeError> {
        let held = {
            let mut awake = self.awake();
            let sleeps = awake.actors.get(actor).is_none_or(mpsc::Sender::is_closed);
            if !sleeps {
                return Ok(false);
            }
            *awake.deleting.entry(actor.clone()).or_default() += 1;
            Held {
                runtime: self,
                actors: vec![actor.clone()],
            }
        };
        let purged = self.0.store.purge_idle(actor, seq).await;
        drop(held);
        match purged {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes down that the deletion has begun, and that it is due at once.
    async fn mark(&self, actor: &ActorId) -> Result<(), RuntimeError> {
        let Some(head) = self.0.store.head(actor).await? else {
            return Ok(());
        };
        let now = self.0.sources.now();
        let mut step = Step::new();
        step.record(
            kind::ACTOR_OPENED,
            now,
            &serde_json::json!({ "change": "deleting" }),
        );
        for space in [QUEUE, SCHEDULES] {
            step.rows.push(RowChange::DeletePrefix {
                space,
                prefix: Vec::new(),
            });
        }
        step.put(DELETING, MARK, &now);
        let mut batch = Batch::new(actor.clone(), head.epoch + 1, head.seq);
        (batch.records, batch.rows) = (step.records, step.rows);
        batch.wake = Wake::At(now);
        self.0.store.commit(batch).await?;
        Ok(())
    }

    /// Stops an actor, and keeps it asleep.
    async fn hold(&self, held: &mut Held<'_>, actor: &ActorId) {
        let mailbox = {
            let mut awake = self.awake();
            *awake.deleting.entry(actor.clone()).or_default() += 1;
            awake.actors.get(actor).cloned()
        };
        held.actors.push(actor.clone());
        if let Some(mailbox) = mailbox
            && mailbox.send(Command::Stop).await.is_ok()
            && tokio::time::timeout(STOP_WITHIN, mailbox.closed())
                .await
                .is_err()
        {
            // The deletion fences it: nothing that it still does can land.
            tracing::warn!(%actor, "an attempt did not stop; its actor is deleted under it");
        }
    }

    fn let_go(&self, actor: &ActorId) {
        let mut awake = self.awake();
        if let Some(count) = awake.deleting.get_mut(actor) {
            *count -= 1;
            if *count == 0 {
                awake.deleting.remove(actor);
                // What could not go on has nothing to go on with any more, or begins anew.
                awake.deferred.remove(actor);
            }
        }
    }
}
