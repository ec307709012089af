//! Times that spending is counted over, and sums over them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Account, Scope};

/// Milliseconds of an hour.
pub const HOUR: i64 = 3_600_000;

/// Hours since the Unix epoch. Spending is counted by the hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour of a time in milliseconds since the Unix epoch.
    pub fn of(millis: i64) -> Self {
        Self(millis.div_euclid(HOUR))
    }
}

/// The time that a spend limit is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// So much time until now, at least an hour. The hour in which it begins counts whole.
    Rolling(Duration),
    /// The calendar day, UTC.
    Day,
    /// The week from Monday, UTC.
    Week,
    /// The calendar month, UTC.
    Month,
}

impl Window {
    /// The first hour that counts now.
    pub fn start(self, now_millis: i64) -> Hour {
        let millis = match self {
            Window::Rolling(length) => {
                let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
                now_millis.saturating_sub(length)
            }
            Window::Day | Window::Week | Window::Month => self.calendar(now_millis, false),
        };
        Hour::of(millis)
    }

    /// When there may be room again, in words.
    pub(super) fn frees(self, now_millis: i64) -> String {
        match self {
            Window::Rolling(_) => "as earlier spending leaves the window".to_owned(),
            Window::Day | Window::Week | Window::Month => {
                let end = self.calendar(now_millis, true);
                let end = jiff::Timestamp::from_millisecond(end).ok();
                end.map_or_else(String::new, |end| format!("at {end}"))
            }
        }
    }

    /// `a day`, `in 24h`.
    pub(super) fn describe(self) -> String {
        match self {
            Window::Rolling(length) => {
                let hours = length.as_secs().div_ceil(3600);
                if hours.is_multiple_of(24) {
                    format!("in any {} days", hours / 24)
                } else {
                    format!("in any {hours} hours")
                }
            }
            Window::Day => "a day".to_owned(),
            Window::Week => "a week".to_owned(),
            Window::Month => "a month".to_owned(),
        }
    }

    /// The beginning of the period that a time is in, or of the next one.
    fn calendar(self, now_millis: i64, next: bool) -> i64 {
        let begin = || -> Result<i64, jiff::Error> {
            let now = jiff::Timestamp::from_millisecond(now_millis)?;
            let date = now.to_zoned(jiff::tz::TimeZone::UTC).date();
            let first = match self {
                Window::Week => {
                    let back = i64::from(date.weekday().to_monday_zero_offset());
                    date.checked_sub(jiff::Span::new().days(back))?
                }
                Window::Month => date.first_of_month(),
                Window::Day | Window::Rolling(_) => date,
            };
            let first = match (next, self) {
                (false, _) => first,
                (true, Window::Week) => first.checked_add(jiff::Span::new().days(7))?,
                (true, Window::Month) => first.checked_add(jiff::Span::new().months(1))?,
                (true, Window::Day | Window::Rolling(_)) => first.tomorrow()?,
            };
            let zoned = first.to_zoned(jiff::tz::TimeZone::UTC)?;
            Ok(zoned.timestamp().as_millisecond())
        };
        // Only a time outside of the calendar fails: then everything counts.
        begin().unwrap_or(0)
    }
}

/// Amounts by hour, for the project, each agent and each instance.
#[derive(Debug, Default)]
pub(super) struct Scoped {
    project: BTreeMap<Hour, u64>,
    agents: HashMap<String, BTreeMap<Hour, u64>>,
    instances: HashMap<Account, BTreeMap<Hour, u64>>,
}

impl Scoped {
    fn change(&mut self, account: &Account, hour: Hour, change: impl Fn(u64) -> u64) {
        let agent = self.agents.entry(account.agent.clone()).or_default();
        let instance = self.instances.entry(account.clone()).or_default();
        for hours in [&mut self.project, agent, instance] {
            let slot = hours.entry(hour).or_default();
            *slot = change(*slot);
            if *slot == 0 {
                hours.remove(&hour);
            }
        }
        // What is over takes no memory.
        self.agents.retain(|_, hours| !hours.is_empty());
        if self.instances.get(account).is_some_and(BTreeMap::is_empty) {
            self.instances.remove(account);
        }
    }

    pub(super) fn add(&mut self, account: &Account, hour: Hour, amount: u64) {
        self.change(account, hour, |slot| slot.saturating_add(amount));
    }

    pub(super) fn take(&mut self, account: &Account, hour: Hour, amount: u64) {
        self.change(account, hour, |slot| slot.saturating_sub(amount));
    }

    pub(super) fn sum(&self, scope: Scope, account: &Account, since: Hour) -> u64 {
        let hours = match scope {
            Scope::Project => Some(&self.project),
            Scope::Agent => self.agents.get(&account.agent),
            Scope::Instance => self.instances.get(account),
        };
        hours.map_or(0, |hours| {
            let sum: u128 = hours.range(since..).map(|(_, n)| u128::from(*n)).sum();
            u64::try_from(sum).unwrap_or(u64::MAX)
        })
    }

    pub(super) fn total(&self, scope: Scope, account: &Account) -> u64 {
        self.sum(scope, account, Hour(i64::MIN))
    }
}
