//! Schedules: at a time, after a delay, every interval, by cron.
//!
//! A schedule is a row of its actor. When it is due, one commit admits its payload as a submission
//! and moves the schedule on, so each tick is admitted exactly once. The actor's one wake in the
//! store is always the earliest of its rows; [`Runtime::supervise`](crate::Runtime::supervise)
//! sleeps until the earliest wake of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    time::Duration,
};

use bowline_store::{ActorId, Store, StoreError, Timestamp};
use croner::Cron;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::submission::Failure;

/// Space of the schedules: id → [`Schedule`].
pub const SCHEDULES: &str = "schedule";
/// Most schedules of one actor.
pub const MAX_SCHEDULES: usize = 1_000;
/// Most submissions of one tick.
pub const MAX_TRIES: u32 = 100;
/// Longest id of a schedule, in bytes.
pub const MAX_ID: usize = 256;
/// Shortest interval.
pub const MIN_EVERY: Duration = Duration::from_secs(1);
/// Longest delay or interval: ten years.
pub const MAX_DELAY: Duration = Duration::from_secs(10 * 366 * 86_400);

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum When {
    /// Once, at a time to come.
    At {
        /// The time.
        time: Timestamp,
    },
    /// Once, after a delay from its registration on.
    After {
        /// At most [`MAX_DELAY`].
        millis: u64,
    },
    /// Again and again; the first time one interval after its registration.
    Every {
        /// [`MIN_EVERY`] to [`MAX_DELAY`].
        millis: u64,
    },
    /// By a cron expression of five fields, or six with seconds in front. Where a clock change leaves
    /// a time out, the tick comes right after the change; where it repeats one, the tick comes once.
    Cron {
        /// For example `0 9 * * MON-FRI`.
        expression: String,
        /// An IANA name, for example `Europe/Berlin` or `UTC`.
        zone: String,
    },
}

/// What becomes of ticks that nobody could take, because no process ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One submission stands for all of them. The default.
    #[default]
    Skip,
    /// Each is admitted, in order, as far as there is room in the queue.
    CatchUp,
}

/// What becomes of a tick while the submission of the one before is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out. The default.
    #[default]
    Skip,
    /// It waits for its turn.
    Queue,
}

/// How often a tick whose submission failed is sent again. One that was aborted is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Submissions of one tick, the first included: 1 to [`MAX_TRIES`].
    pub attempts: u32,
    /// The pause before the second is random, up to twice this; each further one up to twice as much.
    pub base_millis: u64,
    /// No pause is longer than this.
    pub max_millis: u64,
}

impl Default for Retry {
    /// Three attempts, 100 ms, 3 s.
    fn default() -> Self {
        Self {
            attempts: 3,
            base_millis: 100,
            max_millis: 3_000,
        }
    }
}

impl Retry {
    fn check(&self) -> Result<(), Failure> {
        if !(1..=MAX_TRIES).contains(&self.attempts) {
            return Err(invalid("a tick is tried 1 to 100 times"));
        }
        if self.base_millis == 0 || self.base_millis > self.max_millis {
            return Err(invalid(
                "the first pause is positive, and not above the longest",
            ));
        }
        Ok(())
    }

    /// The pause after this many submissions, for a fraction from 0 to 1.
    fn pause(&self, tries: u32, fraction: f64) -> Duration {
        let longest = self
            .base_millis
            .saturating_mul(1 << tries.min(30))
            .min(self.max_millis);
        Duration::from_millis(longest).mul_f64(fraction)
    }
}

/// A schedule to register.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// With an id, registering the same again changes nothing, and registering another under it
    /// replaces it; 1 to [`MAX_ID`] bytes. Without, each registration is one more.
    pub id: Option<String>,
    /// When it is due.
    pub when: When,
    /// The payload of each submission.
    pub payload: Value,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// What becomes of a tick that comes too early.
    pub overlap: Overlap,
    /// Whether a tick whose submission failed is sent again. By default it is not: what a program
    /// can try again it has tried within the submission.
    pub retry: Option<Retry>,
}

impl NewSchedule {
    /// A schedule without an id, with the default policies.
    pub fn new(when: When, payload: Value) -> Self {
        Self {
            id: None,
            when,
            payload,
            missed: Missed::default(),
            overlap: Overlap::default(),
            retry: None,
        }
    }

    /// With retries.
    #[must_use]
    pub fn retrying(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// With an id.
    #[must_use]
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// A registered schedule, as its row stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// What was given, or `sched_…`.
    pub id: String,
    /// When it is due.
    pub when: When,
    /// The payload of each submission.
    pub payload: Value,
    /// What becomes of missed ticks.
    #[serde(default)]
    pub missed: Missed,
    /// What becomes of a tick that comes too early.
    #[serde(default)]
    pub overlap: Overlap,
    /// The next tick.
    pub next: Timestamp,
    /// The submission of the last tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Whether a tick whose submission failed is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Submissions of the last tick, where it may be sent again.
    #[serde(default)]
    pub tries: u32,
    /// When the last tick is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Timestamp>,
    /// True once the last tick has come; it is kept for as long as that may be sent again.
    #[serde(default)]
    pub over: bool,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl Schedule {
    /// A schedule that was registered now.
    pub(crate) fn register(id: String, new: NewSchedule, now: Timestamp) -> Result<Self, Failure> {
        let NewSchedule {
            id: _,
            when,
            payload,
            missed,
            overlap,
            retry,
        } = new;
        retry.map_or(Ok(()), |retry| retry.check())?;
        let next = when.first(now)?;
        Ok(Self {
            id,
            when,
            payload,
            missed,
            overlap,
            next,
            last: None,
            retry,
            tries: 0,
            again: None,
            over: false,
            created_at: now,
        })
    }

    /// True when this is what would be registered.
    pub(crate) fn is(&self, new: &NewSchedule) -> bool {
        let ours = (&self.when, &self.payload, self.missed, self.overlap);
        ours == (&new.when, &new.payload, new.missed, new.overlap) && self.retry == new.retry
    }

    /// When it has something to admit: the next tick, or the last one again.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        let next = (!self.over).then_some(self.next);
        match (self.again, next) {
            (Some(again), Some(next)) => Some(again.min(next)),
            (again, next) => again.or(next),
        }
    }

    /// The schedule after the submission of its last tick failed.
    pub(crate) fn failed(mut self, now: Timestamp, fraction: f64) -> Self {
        if let Some(retry) = self.retry.filter(|retry| self.tries < retry.attempts) {
            self.again = Some(now.after(retry.pause(self.tries, fraction)));
        }
        self
    }

    /// The tick after the one that is due; `None` when that was the last.
    pub(crate) fn after_next(&self, now: Timestamp) -> Option<Timestamp> {
        let from = match self.missed {
            Missed::Skip => now.max(self.next),
            Missed::CatchUp => self.next,
        };
        match &self.when {
            When::At { .. } | When::After { .. } => None,
            When::Every { millis } => {
                let every = i64::try_from(*millis).unwrap_or(i64::MAX).max(1);
                let due = self.next.as_millis();
                let passed = from.as_millis().saturating_sub(due) / every;
                let ahead = every.saturating_mul(passed.saturating_add(1));
                Some(Timestamp::from_millis(due.saturating_add(ahead)))
            }
            When::Cron { expression, zone } => occurrence(expression, zone, from).ok(),
        }
    }
}

impl When {
    fn first(&self, now: Timestamp) -> Result<Timestamp, Failure> {
        let longest = u64::try_from(MAX_DELAY.as_millis()).unwrap_or(u64::MAX);
        let shortest = u64::try_from(MIN_EVERY.as_millis()).unwrap_or(0);
        match self {
            Self::At { time } if *time <= now => Err(past(*time, now)),
            Self::At { time } => Ok(*time),
            Self::After { millis } if *millis > longest => {
                Err(invalid("the delay is longer than ten years"))
            }
            Self::Every { millis } if !(shortest..=longest).contains(millis) => {
                Err(invalid("an interval has one second to ten years"))
            }
            Self::After { millis } | Self::Every { millis } => {
                Ok(now.after(Duration::from_millis(*millis)))
            }
            Self::Cron { expression, zone } => occurrence(expression, zone, now),
        }
    }
}

/// The first time of a cron expression after another time.
fn occurrence(expression: &str, zone: &str, after: Timestamp) -> Result<Timestamp, Failure> {
    let cron = Cron::from_str(expression).map_err(|error| {
        invalid(&format!(
            "the cron expression {expression:?} is not valid: {error}"
        ))
    })?;
    let after = jiff::Timestamp::from_millisecond(after.as_millis())
        .and_then(|after| after.in_tz(zone))
        .map_err(|_| invalid(&format!("there is no time zone {zone:?}")))?;
    let next = cron.find_next_occurrence(&after, false);
    let next =
        next.map_err(|_| invalid(&format!("the cron expression {expression:?} is never due")))?;
    Ok(Timestamp::from_millis(next.timestamp().as_millisecond()))
}

/// Reads the schedules of an actor, in order of their ids.
pub async fn list(store: &dyn Store, actor: &ActorId) -> Result<Vec<Schedule>, StoreError> {
    let rows = store
        .scan(actor, SCHEDULES, b"", None, MAX_SCHEDULES)
        .await?;
    let decode = |row: &bowline_store::Row| {
        serde_json::from_slice(&row.value).map_err(|error| {
            StoreError::Corrupt(format!("a schedule row does not decode: {error}"))
        })
    };
    rows.iter().map(decode).collect()
}

/// The schedules of an awake actor.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    by_id: BTreeMap<String, Schedule>,
    by_time: BTreeSet<(Timestamp, String)>,
}

impl Schedules {
    pub(crate) fn new(schedules: Vec<Schedule>) -> Self {
        let mut all = Self::default();
        for schedule in schedules {
            all.put(schedule);
        }
        all
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Schedule> {
        self.by_id.get(id)
    }

    /// The one whose last tick is this submission.
    pub(crate) fn of(&self, submission: &str) -> Option<&Schedule> {
        let of = |one: &&Schedule| one.last.as_deref() == Some(submission);
        self.by_id.values().find(of)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The earliest tick.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// The schedule with the earliest tick, when that has come.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Schedule> {
        let (time, id) = self.by_time.first()?;
        if *time <= now {
            self.by_id.get(id).cloned()
        } else {
            None
        }
    }

    /// Adds or replaces one; returns what was there.
    pub(crate) fn put(&mut self, schedule: Schedule) -> Option<Schedule> {
        let before = self.remove(&schedule.id);
        let at = schedule.at();
        self.by_time.extend(at.map(|at| (at, schedule.id.clone())));
        self.by_id.insert(schedule.id.clone(), schedule);
        before
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Schedule> {
        let gone = self.by_id.remove(id)?;
        if let Some(at) = gone.at() {
            self.by_time.remove(&(at, gone.id.clone()));
        }
        Some(gone)
    }
}

pub(crate) fn invalid(what: &str) -> Failure {
    Failure::new(
        "schedule_invalid",
        what,
        "correct the schedule, then register it again",
    )
}

pub(crate) fn too_many() -> Failure {
    let message = format!("an actor has at most {MAX_SCHEDULES} schedules");
    Failure::new(
        "schedule_limit",
        message,
        "cancel some, or spread them over more actors",
    )
}

fn past(time: Timestamp, now: Timestamp) -> Failure {
    let message = format!("the time {time} is not after now, {now}");
    Failure::new(
        "schedule_past",
        message,
        "take a time to come, or send the message at once",
    )
}
