//! What happened in a simulated world, in the order in which it happened.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline_store::{ActorId, Epoch, Seq};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process began.
    Started {
        /// Its number.
        process: usize,
    },
    /// A process ended: killed, drained, or its store died under it.
    Ended {
        /// Its number.
        process: usize,
    },
    /// A client began to send a submission.
    Sent {
        /// Numbers the sends.
        call: usize,
    },
    /// A client was told that its submission is durable.
    Acknowledged {
        /// Which send.
        call: usize,
        /// The actor.
        actor: ActorId,
        /// The submission.
        submission: String,
        /// True when the key had been admitted before.
        deduplicated: bool,
    },
    /// A client was told that its schedule is durable. It is due once.
    Scheduled {
        /// The actor.
        actor: ActorId,
        /// The mark of its submission.
        mark: u32,
    },
    /// A program did a step, before its commit.
    Executed {
        /// The actor.
        actor: ActorId,
        /// The submission.
        submission: String,
        /// The step, from 0.
        step: u32,
    },
    /// A batch became durable.
    Committed {
        /// The actor.
        actor: ActorId,
        /// The writer's epoch.
        epoch: Epoch,
        /// The actor's last sequence before.
        before: Seq,
        /// The actor's last sequence after.
        after: Seq,
        /// The steps that it holds: submission and number.
        steps: Vec<(String, u32)>,
        /// The messages that it sends: receiver and id.
        sent: Vec<(ActorId, String)>,
    },
    /// An actor was deleted from the store.
    Purged {
        /// The actor.
        actor: ActorId,
    },
    /// A client was told that its fiber is durable.
    Fiber {
        /// Its id.
        id: String,
    },
}

/// The events of one world. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Journal {
    events: Mutex<Vec<Event>>,
    /// Told of each event.
    pub pushed: tokio::sync::Notify,
}

impl Journal {
    /// Adds an event.
    pub fn push(&self, event: Event) {
        self.lock().push(event);
        self.pushed.notify_one();
    }

    /// Everything so far.
    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
