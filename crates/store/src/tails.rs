//! Who follows which actor.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{ActorId, Seq, Tail};

/// One watch channel for each followed actor; a channel goes when its last follower has gone.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once the store is closed.
    senders: Option<HashMap<ActorId, watch::Sender<Seq>>>,
    /// Look for channels without followers when there are more than this.
    sweep_at: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            senders: Some(HashMap::new()),
            sweep_at: 64,
        }
    }
}

impl Tails {
    /// A follower of the actor, and whether its channel is new: then it shows `at_least` until
    /// [`Tails::raise`] brings the real sequence.
    pub(crate) fn follow(&self, actor: &ActorId, at_least: Seq) -> (Tail, bool) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(senders) = &mut state.senders else {
            // Its sender is dropped here, so the follower learns at once that the store is closed.
            return (Tail::new(watch::channel(at_least).1), false);
        };
        if let Some(sender) = senders.get(actor) {
            return (Tail::new(sender.subscribe()), false);
        }
        if senders.len() >= state.sweep_at {
            senders.retain(|_, sender| sender.receiver_count() > 0);
            state.sweep_at = (senders.len() * 2).max(64);
        }
        let (sender, receiver) = watch::channel(at_least);
        senders.insert(actor.clone(), sender);
        (Tail::new(receiver), true)
    }

    /// Tells the followers of each actor its new last durable sequence.
    pub(crate) fn announce<'a>(&self, heads: impl Iterator<Item = (&'a ActorId, Seq)>) {
        let mut state = self.lock();
        let Some(senders) = &mut state.senders else {
            return;
        };
        if senders.is_empty() {
            return;
        }
        for (actor, seq) in heads {
            if let Some(sender) = senders.get(actor) {
                if sender.receiver_count() == 0 {
                    senders.remove(actor);
                } else {
                    sender.send_replace(seq);
                }
            }
        }
    }

    /// Fills in the sequence that a new channel started without. A commit may have announced a
    /// later one meanwhile, which stays.
    pub(crate) fn raise(&self, actor: &ActorId, seq: Seq) {
        let state = self.lock();
        if let Some(sender) = state
            .senders
            .as_ref()
            .and_then(|senders| senders.get(actor))
        {
            sender.send_if_modified(|head| {
                let raised = *head == 0 && seq > 0;
                if raised {
                    *head = seq;
                }
                raised
            });
        }
    }

    /// Every follower learns that nothing more comes.
    pub(crate) fn close(&self) {
        self.lock().senders = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
