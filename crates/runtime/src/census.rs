//! What a runtime has done and has in memory, counted for whoever watches it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::submission::{Outcome, State, Submission};

/// Upper bounds of the buckets of [`Times`], in microseconds; longer times are in one more bucket.
pub const BOUNDS: [u64; 14] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_024_000, 4_096_000,
];

/// How long something took, as often as it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How often it took no longer than the bound at the same place of [`BOUNDS`] and longer than the
    /// one before it; the last are those that took longer than all.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of it together, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// How often it happened.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What a runtime has done since it was made, and what it has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Submissions that were admitted, without those that were known by their key.
    pub admitted: u64,
    /// Submissions that were completed.
    pub completed: u64,
    /// Submissions that failed.
    pub failed: u64,
    /// Submissions that were aborted.
    pub aborted: u64,
    /// Attempts that were begun, again ones among them.
    pub attempts: u64,
    /// Commits of actors, with what each waited for its flush.
    pub commits: Times,
    /// Commits of actors that the store refused.
    pub refused: u64,
    /// Actors that are in memory.
    pub awake: u64,
    /// Their submissions that wait for their turn, or joined another one.
    pub waiting: u64,
    /// Their submissions that are worked on.
    pub running: u64,
    /// Their submissions that wait for somebody outside. Actors with nothing else sleep, and are not
    /// counted then.
    pub parked: u64,
}

/// The counters of one runtime. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<Inner>);

#[derive(Default)]
struct Inner {
    admitted: AtomicU64,
    /// Completed, failed, aborted.
    settled: [AtomicU64; 3],
    attempts: AtomicU64,
    refused: AtomicU64,
    commits: [AtomicU64; BOUNDS.len() + 1],
    commit_us: AtomicU64,
    /// Waiting, running, parked.
    open: [AtomicU64; 3],
    /// They changed.
    changed: Notify,
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Census").finish_non_exhaustive()
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Census {
    pub(crate) fn admitted(&self) {
        add(&self.0.admitted);
    }

    pub(crate) fn settled(&self, outcome: Outcome) {
        let [completed, failed, aborted] = &self.0.settled;
        add(match outcome {
            Outcome::Completed => completed,
            Outcome::Failed => failed,
            Outcome::Aborted => aborted,
        });
    }

    pub(crate) fn attempt(&self) {
        add(&self.0.attempts);
    }

    pub(crate) fn commit(&self, took: Duration, accepted: bool) {
        if !accepted {
            return add(&self.0.refused);
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < took);
        if let Some(bucket) = self.0.commits.get(place) {
            add(bucket);
        }
        self.0.commit_us.fetch_add(took, Ordering::Relaxed);
    }

    /// A place for the open submissions of one actor.
    pub(crate) fn share(&self) -> Share {
        Share {
            census: self.clone(),
            open: [0; 3],
        }
    }

    /// Waits until nothing is worked on.
    pub(crate) async fn rest(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if of(&self.0.open[1]) == 0 {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn counts(&self, awake: usize) -> Counts {
        let [completed, failed, aborted] = self.0.settled.each_ref().map(of);
        let [waiting, running, parked] = self.0.open.each_ref().map(of);
        Counts {
            admitted: of(&self.0.admitted),
            completed,
            failed,
            aborted,
            attempts: of(&self.0.attempts),
            commits: Times {
                buckets: self.0.commits.each_ref().map(of),
                sum_us: of(&self.0.commit_us),
            },
            refused: of(&self.0.refused),
            awake: awake as u64,
            waiting,
            running,
            parked,
        }
    }
}

/// What one actor adds to the open submissions; nothing once it is gone, however it went.
pub(crate) struct Share {
    census: Census,
    open: [u64; 3],
}

impl Share {
    /// Counts what is open now instead of what was.
    pub(crate) fn count<'a>(&mut self, open: impl IntoIterator<Item = &'a Submission>) {
        let mut now = [0; 3];
        for submission in open {
            now[match &submission.state {
                State::Queued | State::Joined { .. } => 0,
                State::Running => 1,
                State::Parked { .. } => 2,
            }] += 1;
        }
        self.put(now);
    }

    fn put(&mut self, now: [u64; 3]) {
        if now == self.open {
            return;
        }
        let places = self.census.0.open.iter().zip(self.open).zip(now);
        for ((place, before), now) in places {
            // What is taken away was added here before, so that it never goes below nothing.
            place.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
        self.open = now;
        self.census.0.changed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.put([0; 3]);
    }
}
