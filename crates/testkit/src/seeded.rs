//! Time, randomness and ids that a seed decides.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bowline_runtime::{Clock, Random, Sources};
use bowline_store::Timestamp;

/// What the environment says of the size or the seed of a campaign, if it says anything.
///
/// # Panics
///
/// When it is not such a value: a misspelt size must not run the small campaign in silence.
pub fn asked<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse().ok();
    assert!(value.is_some(), "{name}={text} is not a number");
    value
}

/// A clock that only moves when it is told to, or a millisecond with each look.
#[derive(Debug)]
pub struct SeededClock {
    millis: AtomicI64,
    step: i64,
}

impl SeededClock {
    /// Starts at 2026-01-01 and moves by a millisecond with each look, so that ids are in order.
    pub fn ticking() -> Arc<Self> {
        Arc::new(Self {
            millis: AtomicI64::new(1_767_225_600_000),
            step: 1,
        })
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(
            i64::try_from(by.as_millis()).unwrap_or(i64::MAX),
            Ordering::Relaxed,
        );
    }
}

impl Clock for SeededClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.fetch_add(self.step, Ordering::Relaxed))
    }
}

/// Random numbers of a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }
}

impl Random for SeededRandom {
    fn next(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .0
            .fetch_add(GOLDEN, Ordering::Relaxed)
            .wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Sources of a seed, with the clock to move.
pub fn sources(seed: u64) -> (Sources, Arc<SeededClock>) {
    let clock = SeededClock::ticking();
    (Sources::new(clock.clone(), SeededRandom::new(seed)), clock)
}
