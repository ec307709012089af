//! How many requests a caller may make: a bucket of tokens for each.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most callers that are told apart; when there are more, those share one bucket.
const MAX_CALLERS: usize = 65_536;

/// Requests in a second, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests in a second, for long. 0 sets no limit.
    pub per_second: u32,
    /// Requests at once after a rest.
    pub burst: u32,
}

impl Rate {
    /// So many in a second, and five times as many at once.
    pub const fn per_second(per_second: u32) -> Self {
        Self {
            per_second,
            burst: per_second.saturating_mul(5),
        }
    }
}

/// The buckets of all callers of one kind.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    of: HashMap<K, Bucket>,
    others: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: f64::from(rate.burst),
            at: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        let more = since * f64::from(rate.per_second);
        self.tokens = (self.tokens + more).min(f64::from(rate.burst));
        self.at = now;
    }

    /// Takes a token, or says how long until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / f64::from(rate.per_second),
        ))
    }
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            state: Mutex::new(State {
                of: HashMap::new(),
                others: Bucket::full(rate, now),
            }),
        }
    }

    /// Counts one request. An error says how many seconds to wait.
    pub(super) fn take(&self, caller: K, now: Instant) -> Result<(), u64> {
        let rate = self.rate;
        if rate.per_second == 0 {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.of.len() >= MAX_CALLERS && !state.of.contains_key(&caller) {
            // Whoever has rested is as if never seen.
            state.of.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.tokens < f64::from(rate.burst)
            });
        }
        let taken = if state.of.len() >= MAX_CALLERS && !state.of.contains_key(&caller) {
            state.others.take(rate, now)
        } else {
            let fresh = Bucket::full(rate, now);
            state.of.entry(caller).or_insert(fresh).take(rate, now)
        };
        taken.map_err(|wait| wait.as_secs() + 1)
    }
}
