//! Where the actors that were written lately stand.

use std::collections::HashMap;

use crate::{ActorId, Epoch, Seq};

/// What the writer must know of an actor to commit for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Its number in the database.
    pub(super) id: i64,
    pub(super) epoch: Epoch,
    pub(super) seq: Seq,
    /// Milliseconds.
    pub(super) wake: Option<i64>,
    /// Something was committed since it began or was purged.
    pub(super) live: bool,
}

/// A bounded cache. It keeps two generations: when the younger is full it becomes the older, and
/// what was not used since then is forgotten.
#[derive(Debug)]
pub(super) struct Heads {
    young: HashMap<ActorId, Head>,
    old: HashMap<ActorId, Head>,
    capacity: usize,
}

impl Heads {
    /// Keeps at most twice `capacity` heads.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
        }
    }

    pub(super) fn get(&mut self, actor: &ActorId) -> Option<Head> {
        if let Some(head) = self.young.get(actor) {
            return Some(*head);
        }
        let (actor, head) = self.old.remove_entry(actor)?;
        self.put(actor, head);
        Some(head)
    }

    pub(super) fn put(&mut self, actor: ActorId, head: Head) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&actor) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(actor, head);
    }

    pub(super) fn forget(&mut self, actor: &ActorId) {
        self.young.remove(actor);
        self.old.remove(actor);
    }
}
