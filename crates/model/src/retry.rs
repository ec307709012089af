//! Whether a failed call is tried again, and after how long.
//!
//! A pure function: the loop, the clock and the count that survives a restart belong to the
//! caller.

use std::time::Duration;

use crate::error::ModelError;

/// When to try a failed model call again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How many tries may follow the first one in a row. Default 3. A good answer or a new message
    /// starts the count again.
    pub max_retries: u32,
    /// The wait before the first retry; it doubles with each further one. Default 2 s.
    pub base: Duration,
    /// The longest wait. A provider that asks for more ends the retries: waiting less would be
    /// refused again. Default 60 s.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base: Duration::from_secs(2),
            cap: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// How long to wait before trying again, or `None` to give up.
    ///
    /// `attempt` is the failed try, from 0. `jitter` is a random number in `0.0..1.0` from the
    /// caller; it shortens the wait to between 75 % and 100 %, so that clients which failed
    /// together do not come back together. A wait that the provider asked for is kept exactly,
    /// plus up to a quarter second.
    pub fn decide(&self, attempt: u32, error: &ModelError, jitter: f64) -> Option<Duration> {
        if attempt >= self.max_retries || !error.is_transient() {
            return None;
        }
        let jitter = if jitter.is_finite() {
            jitter.clamp(0.0, 1.0)
        } else {
            1.0
        };
        if let Some(asked) = error.retry_after() {
            return (asked <= self.cap).then(|| asked + Duration::from_millis(250).mul_f64(jitter));
        }
        let factor = 2_u32.saturating_pow(attempt);
        let wait = self.base.saturating_mul(factor).min(self.cap);
        Some(wait.mul_f64(0.75 + 0.25 * jitter))
    }
}
