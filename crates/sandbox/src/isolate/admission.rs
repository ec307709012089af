//! Who gets the next isolate: owners take turns.
//!
//! Two bounds: how many live, and how many of them are busy. One that waits for something that takes its
//! time is not busy any more, so those that are never stand in line behind it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::IsolateError;

/// Room for one isolate. It is free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    admission: Arc<Admission>,
    owner: String,
    busy: bool,
}

#[derive(Debug)]
pub(super) struct Admission {
    total: u32,
    per_owner: u32,
    busy: u32,
    waiting: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: u32,
    busy: u32,
    waiting: u32,
    owners: HashMap<String, Owner>,
    /// Owners with someone waiting, in the order of their turns. An owner that may have no more is
    /// passed over and keeps its place.
    turns: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Owner {
    live: u32,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Slot>,
    busy: bool,
}

impl State {
    /// Takes out those at the head of each queue that no longer wait.
    fn forget_who_left(&mut self) {
        let (owners, waiting) = (&mut self.owners, &mut self.waiting);
        self.turns.retain(|name| {
            let Some(owner) = owners.get_mut(name) else {
                return false;
            };
            while owner
                .waiting
                .front()
                .is_some_and(|waiter| waiter.sender.is_closed())
            {
                owner.waiting.pop_front();
                *waiting -= 1;
            }
            let waits = !owner.waiting.is_empty();
            if !waits && owner.live == 0 {
                owners.remove(name);
            }
            waits
        });
    }
}

impl Admission {
    pub(super) fn new(options: &super::IsolatesOptions, total: u32) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_owner: options.live_per_owner.clamp(1, total),
            busy: options.busy.max(1),
            waiting: options.waiting,
            state: Mutex::default(),
        })
    }

    fn slot(self: &Arc<Self>, owner: &str, busy: bool) -> Slot {
        Slot {
            admission: Arc::clone(self),
            owner: owner.to_owned(),
            busy,
        }
    }

    pub(super) fn try_admit(self: &Arc<Self>, owner: &str, busy: bool) -> Option<Slot> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let room = state.live < self.total
            && (!busy || state.busy < self.busy)
            && state
                .owners
                .get(owner)
                .is_none_or(|o| o.live < self.per_owner && o.waiting.is_empty());
        if !room {
            return None;
        }
        state.live += 1;
        state.busy += u32::from(busy);
        state.owners.entry(owner.to_owned()).or_default().live += 1;
        Some(self.slot(owner, busy))
    }

    pub(super) async fn admit(
        self: &Arc<Self>,
        owner: &str,
        busy: bool,
    ) -> Result<Slot, IsolateError> {
        if let Some(slot) = self.try_admit(owner, busy) {
            return Ok(slot);
        }
        let receiver = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.waiting >= self.waiting {
                return Err(IsolateError::QueueFull(self.waiting));
            }
            state.waiting += 1;
            let (sender, receiver) = oneshot::channel();
            let entry = state.owners.entry(owner.to_owned()).or_default();
            let first = entry.waiting.is_empty();
            entry.waiting.push_back(Waiter { sender, busy });
            if first {
                state.turns.push_back(owner.to_owned());
            }
            receiver
        };
        self.serve();
        receiver
            .await
            .map_err(|_| IsolateError::Engine("the process is stopping".to_owned()))
    }

    /// Gives free room to those who wait, one owner after another.
    fn serve(self: &Arc<Self>) {
        // Outside the lock: a slot that its receiver no longer wants is dropped here, and takes it.
        while let Some((sender, slot)) = self.next() {
            drop(sender.send(slot));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Slot>, Slot)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.forget_who_left();
        if state.live >= self.total {
            return None;
        }
        let room = state.busy < self.busy;
        let at = state.turns.iter().position(|name| {
            let owner = state.owners.get(name);
            owner.is_some_and(|owner| {
                let next = owner.waiting.front();
                owner.live < self.per_owner && next.is_some_and(|next| room || !next.busy)
            })
        })?;
        let name = state.turns.remove(at)?;
        let owner = state.owners.get_mut(&name)?;
        let Waiter { sender, busy } = owner.waiting.pop_front()?;
        owner.live += 1;
        state.live += 1;
        state.busy += u32::from(busy);
        state.waiting -= 1;
        if !owner.waiting.is_empty() {
            state.turns.push_back(name.clone());
        }
        Some((sender, self.slot(&name, busy)))
    }

    fn release(&self, name: &str, busy: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live -= 1;
        state.busy -= u32::from(busy);
        if let Some(owner) = state.owners.get_mut(name) {
            owner.live -= 1;
            if owner.live == 0 && owner.waiting.is_empty() {
                state.owners.remove(name);
            }
        }
    }
}

impl Slot {
    /// It is not busy any more.
    pub(super) fn rest(&mut self) {
        if std::mem::take(&mut self.busy) {
            let state = &self.admission.state;
            state.lock().unwrap_or_else(PoisonError::into_inner).busy -= 1;
            self.admission.serve();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.release(&self.owner, self.busy);
        self.admission.serve();
    }
}
