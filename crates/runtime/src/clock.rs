//! Time, randomness and ids, injected so that a test or a simulation can replay them.

use std::{fmt, sync::Arc};

use bowline_store::Timestamp;

/// Tells the time. Waiting is done with tokio's timers, which a test can pause.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// Draws random numbers.
pub trait Random: Send + Sync + fmt::Debug {
    /// 64 random bits.
    fn next(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The machine's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_| {
            // A kernel without randomness still must not hand out the same id twice.
            use std::hash::{BuildHasher, Hasher, RandomState};
            RandomState::new().build_hasher().finish()
        })
    }
}

/// Where the runtime takes time, randomness and ids from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sources {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Sources {
    /// Sources of a test or a simulation.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { clock, random }
    }

    /// The machine's own.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemRandom))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.random.next()
    }

    /// A number from 0 up to, not including, 1.
    pub fn fraction(&self) -> f64 {
        // The 53 bits that a double can hold.
        (self.random() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A new id: the prefix, then a ULID, for example `sub_01J…`.
    pub fn id(&self, prefix: &str) -> String {
        let millis = self.now().as_millis().max(0).unsigned_abs();
        let random = (u128::from(self.random()) << 64) | u128::from(self.random());
        format!("{prefix}{}", ulid::Ulid::from_parts(millis, random))
    }
}
