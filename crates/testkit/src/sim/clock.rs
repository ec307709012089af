//! A clock that follows tokio's, which a test pauses.

use std::sync::Arc;

use bowline_runtime::{Clock, Sources};
use bowline_store::Timestamp;
use tokio::time::Instant;

use crate::seeded::SeededRandom;

/// 2026-01-01 at its creation; from then on as fast as tokio's clock.
#[derive(Debug)]
pub struct PausedClock {
    start: Instant,
}

impl PausedClock {
    /// Starts now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
        })
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_225_600_000).after(self.start.elapsed())
    }
}

/// Sources of a seed whose clock follows tokio's.
pub fn sources(seed: u64) -> Sources {
    Sources::new(PausedClock::new(), SeededRandom::new(seed))
}
