//! What stands between agents and providers, in this process: spend limits and rate limits.
//!
//! Every model call asks the [`Gateway`] first. It is pure bookkeeping: what was spent comes from a
//! [`Ledger`], which the caller keeps where it keeps everything durable; what is going on now is in
//! memory.
//!
//! # Spend limits
//!
//! A [`SpendLimit`] holds for the project, for each agent or for each instance, over a rolling or a
//! calendar [`Window`]. Before a call, the most that it can cost is **reserved**: its input, estimated
//! from above, at the dearest of the input prices, and its output limit at the price of output. Open
//! reservations count as spent, so calls at the same time cannot overshoot together:
//!
//! - what fits under every limit goes ahead;
//! - what does not fit, while there is still something left, may go ahead alone: one call at a time for
//!   each limit, and the others wait for it. So a limit is passed by less than the cost of one call;
//! - when a limit is reached, the call is refused with [`crate::ErrorKind::SpendLimit`], which says
//!   which limit and when it has room again.
//!
//! A model without a known price cannot be held to an amount: it is refused where a limit applies,
//! unless [`Policy::unpriced`] says otherwise.
//!
//! # Rate limits
//!
//! A [`RateLimit`] spreads the calls of a provider over time: a call waits until the last minute has
//! room for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use crate::catalog::{Price, format_usd};
use crate::error::{ErrorKind, ModelError};
use crate::message::{Message, ResultPart, UserPart};
use crate::request::{CacheRetention, Request};

mod window;

pub use window::{HOUR, Hour, Window};

use window::Scoped;

/// The output that is reserved for a call without an output limit, in tokens. Where a spend limit
/// applies, calls are held to it.
pub const RESERVED_OUTPUT: u64 = 32_000;
/// How long a call waits for what other calls hold of a limit, at most: ten minutes.
pub const MAX_WAIT: Duration = Duration::from_secs(600);
/// What one image can cost at most, in tokens.
const IMAGE_TOKENS: u64 = 4_784;

/// On whose behalf a call is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The agent.
    pub agent: String,
    /// Its instance.
    pub instance: String,
}

/// What a spend limit is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything together.
    Project,
    /// Each agent by itself, all its instances together.
    Agent,
    /// Each instance by itself.
    Instance,
}

impl Scope {
    /// The word for it in `bowline.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Project => "project",
            Scope::Agent => "agent",
            Scope::Instance => "instance",
        }
    }
}

/// An amount that may be spent in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendLimit {
    /// What it is counted over.
    pub per: Scope,
    /// Only for this agent. Default: for all.
    pub agent: Option<String>,
    /// The amount, in micro-dollars.
    pub micro_usd: u64,
    /// The time.
    pub window: Window,
}

impl SpendLimit {
    fn applies(&self, account: &Account) -> bool {
        self.agent
            .as_ref()
            .is_none_or(|agent| *agent == account.agent)
    }

    /// The limit in words: `$5.00 a day for each agent`.
    pub fn describe(&self) -> String {
        let amount = format_usd(self.micro_usd);
        let agent = self.agent.as_deref();
        let whose = match (self.per, agent) {
            (Scope::Project, None) => "for the project".to_owned(),
            (Scope::Agent, None) => "for each agent".to_owned(),
            (Scope::Instance, None) => "for each instance".to_owned(),
            (Scope::Project | Scope::Agent, Some(agent)) => format!("for agent {agent}"),
            (Scope::Instance, Some(agent)) => format!("for each instance of {agent}"),
        };
        format!("${amount} {} {whose}", self.window.describe())
    }
}

/// How fast a provider may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The provider's name, or the name under `[models]`.
    pub provider: String,
    /// Calls in a minute. Default: no limit.
    pub requests: Option<u32>,
    /// Input tokens in a minute, as estimated before the call. Default: no limit.
    pub tokens: Option<u64>,
}

/// What to do with a model of unknown price where a spend limit applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpriced {
    /// It is refused: nothing would stop it.
    #[default]
    Refuse,
    /// It is used, and counts as nothing.
    Allow,
}

/// What the gateway enforces. Default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The spend limits; each that applies must have room.
    pub spend: Vec<SpendLimit>,
    /// What to do with a model of unknown price.
    pub unpriced: Unpriced,
    /// The rate limits, at most one for each provider.
    pub rates: Vec<RateLimit>,
}

/// Something that was spent, or is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// By whom.
    pub account: Account,
    /// When.
    pub hour: Hour,
    /// How much, in micro-dollars.
    pub micro_usd: u64,
    /// The reservation, where it is not settled: the call was cut off by a crash.
    pub open: Option<String>,
}

/// Where the gateway learns what was spent before this process began, and what time it is.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_millis(&self) -> i64;

    /// Everything that was spent in this hour or later, and every reservation that is open. Asked once,
    /// before the first call that a limit applies to.
    ///
    /// # Errors
    ///
    /// Why it cannot be told, in one line.
    async fn entries(&self, since: Hour) -> Result<Vec<Entry>, String>;
}

/// The bookkeeping of this process.
#[derive(Debug, Default)]
pub struct Gateway {
    policy: Policy,
    loaded: OnceCell<()>,
    books: Mutex<Books>,
    changed: Notify,
    paces: Mutex<HashMap<String, VecDeque<(Instant, u64)>>>,
}

#[derive(Debug, Default)]
struct Books {
    spent: Scoped,
    reserved: Scoped,
    open: BTreeMap<(Account, String), Open>,
}

#[derive(Debug)]
struct Open {
    micro_usd: u64,
    /// It did not fit, and goes on alone.
    alone: bool,
}

/// A reservation that is not durable yet. Dropping it gives it up.
#[derive(Debug)]
#[must_use]
pub struct Held<'a> {
    gateway: &'a Gateway,
    account: Account,
    id: String,
    kept: bool,
    /// The most that the call can cost, in micro-dollars.
    pub micro_usd: u64,
}

impl Held<'_> {
    /// It is durable: it holds until [`Gateway::settle`].
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.gateway.release(&self.account, &self.id);
        }
    }
}

/// What became of one look at the limits.
enum Verdict {
    Reserved,
    /// For what other calls hold of this limit.
    Wait(String),
    Refused(ErrorKind, String),
}

impl Gateway {
    /// A gateway that enforces a policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// What it enforces.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether a spend limit applies to an account.
    pub fn limits(&self, account: &Account) -> bool {
        self.policy.spend.iter().any(|limit| limit.applies(account))
    }

    /// Reserves what a call can cost at most, under the name `id`, which is unique in the account. Waits
    /// while other calls hold what is left. `None` when no limit applies, or the price is unknown and
    /// that is allowed.
    ///
    /// Dropping the future gives up the place in the queue, and nothing is reserved.
    ///
    /// # Errors
    ///
    /// `SpendLimit`, `Unpriced`, or `Ledger` when what was spent cannot be read.
    pub async fn reserve(
        &self,
        ledger: &dyn Ledger,
        account: &Account,
        id: &str,
        price: Option<&Price>,
        request: &mut Request,
    ) -> Result<Option<Held<'_>>, ModelError> {
        if !self.limits(account) {
            return Ok(None);
        }
        let refused = |kind, what: &str| ModelError::new(kind, "gateway", what);
        let Some(price) = price else {
            return match self.policy.unpriced {
                Unpriced::Allow => Ok(None),
                Unpriced::Refuse => {
                    let what = format!(
                        "a spend limit applies, and the price of {} is not known",
                        request.model
                    );
                    Err(refused(ErrorKind::Unpriced, &what))
                }
            };
        };
        self.ready(ledger, account).await?;
        let limit = request
            .max_output
            .map_or(RESERVED_OUTPUT, |limit| limit.min(RESERVED_OUTPUT));
        request.max_output = Some(limit);
        let micro_usd = most(price, request, limit);
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            // Registered before the look, so that no change between the two is missed.
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            match self.look(ledger.now_millis(), account, id, micro_usd) {
                Verdict::Reserved => {
                    return Ok(Some(Held {
                        gateway: self,
                        account: account.clone(),
                        id: id.to_owned(),
                        kept: false,
                        micro_usd,
                    }));
                }
                Verdict::Refused(kind, what) => return Err(refused(kind, &what)),
                Verdict::Wait(limit) => {
                    if tokio::time::timeout_at(deadline, changed).await.is_err() {
                        let what = format!(
                            "what is left of the spend limit of {limit} is held by other calls"
                        );
                        return Err(refused(ErrorKind::SpendLimit { limit }, &what));
                    }
                }
            }
        }
    }

    /// Learns what was spent before, if a limit applies and it is not known yet.
    ///
    /// # Errors
    ///
    /// `Ledger` when it cannot be read.
    pub async fn ready(&self, ledger: &dyn Ledger, account: &Account) -> Result<(), ModelError> {
        if self.limits(account) {
            self.loaded.get_or_try_init(|| self.load(ledger)).await?;
        }
        Ok(())
    }

    /// Ends a reservation, or counts a call that had none: what it has cost in the end. A reservation
    /// that is not known is no error.
    pub fn settle(&self, account: &Account, id: &str, now_millis: i64, micro_usd: u64) {
        if !self.limits(account) {
            return;
        }
        {
            let mut books = self.lock();
            books.release(account, id);
            books.spent.add(account, Hour::of(now_millis), micro_usd);
        }
        self.changed.notify_waiters();
    }

    fn release(&self, account: &Account, id: &str) {
        self.lock().release(account, id);
        self.changed.notify_waiters();
    }

    async fn load(&self, ledger: &dyn Ledger) -> Result<(), ModelError> {
        let now = ledger.now_millis();
        let since = self
            .policy
            .spend
            .iter()
            .map(|limit| limit.window.start(now))
            .min();
        let entries = ledger.entries(since.unwrap_or(Hour::of(now))).await;
        let entries = entries.map_err(|why| {
            let what = format!("what was spent cannot be read: {why}");
            ModelError::new(ErrorKind::Ledger, "gateway", what)
        })?;
        let mut books = self.lock();
        for entry in entries {
            match entry.open {
                None => books.spent.add(&entry.account, entry.hour, entry.micro_usd),
                Some(id) => books.reserve(entry.account, id, entry.micro_usd, false),
            }
        }
        Ok(())
    }

    fn look(&self, now: i64, account: &Account, id: &str, micro_usd: u64) -> Verdict {
        let mut books = self.lock();
        let mut alone = false;
        for limit in &self.policy.spend {
            if !limit.applies(account) {
                continue;
            }
            let spent = books.spent.sum(limit.per, account, limit.window.start(now));
            if spent >= limit.micro_usd {
                let what = format!(
                    "the spend limit of {} is reached (${} spent); there is room again {}",
                    limit.describe(),
                    format_usd(spent),
                    limit.window.frees(now),
                );
                let limit = limit.describe();
                return Verdict::Refused(ErrorKind::SpendLimit { limit }, what);
            }
            let reserved = books.reserved.total(limit.per, account);
            let used = spent.saturating_add(reserved);
            if used.saturating_add(micro_usd) <= limit.micro_usd {
                continue;
            }
            let another = books
                .open
                .iter()
                .any(|((other, _), open)| open.alone && limit.counts(account, other));
            if used >= limit.micro_usd || another {
                return Verdict::Wait(limit.describe());
            }
            alone = true;
        }
        books.reserve(account.clone(), id.to_owned(), micro_usd, alone);
        Verdict::Reserved
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the provider's rate limit has room for a call, and takes it.
    pub async fn pace(&self, provider: &str, request: &Request) {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut rates = self.policy.rates.iter();
        let Some(rate) = rates.find(|rate| rate.provider == provider) else {
            return;
        };
        let tokens = rate.tokens.map_or(0, |_| tokens(request) * 5 / 8);
        loop {
            let until = {
                let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
                let pace = paces.entry(provider.to_owned()).or_default();
                let now = Instant::now();
                while pace.front().is_some_and(|(at, _)| *at + MINUTE <= now) {
                    pace.pop_front();
                }
                let count = u32::try_from(pace.len()).unwrap_or(u32::MAX);
                let taken: u64 = pace.iter().map(|(_, tokens)| tokens).sum();
                let full = rate.requests.is_some_and(|most| count >= most.max(1))
                    // One call that is larger than the limit goes alone.
                    || rate.tokens.is_some_and(|most| taken > 0 && taken + tokens > most);
                match pace.front() {
                    Some((oldest, _)) if full => *oldest + MINUTE,
                    Some(_) | None => {
                        pace.push_back((now, tokens));
                        return;
                    }
                }
            };
            tokio::time::sleep_until(until).await;
        }
    }
}

impl SpendLimit {
    /// Whether what `other` does counts under this limit as it applies to `account`.
    fn counts(&self, account: &Account, other: &Account) -> bool {
        match self.per {
            Scope::Project => self.applies(other),
            Scope::Agent => account.agent == other.agent,
            Scope::Instance => account == other,
        }
    }
}

impl Books {
    fn reserve(&mut self, account: Account, id: String, micro_usd: u64, alone: bool) {
        self.reserved.add(&account, Hour::of(0), micro_usd);
        self.open.insert((account, id), Open { micro_usd, alone });
    }

    fn release(&mut self, account: &Account, id: &str) {
        if let Some(open) = self.open.remove(&(account.clone(), id.to_owned())) {
            self.reserved.take(account, Hour::of(0), open.micro_usd);
        }
    }
}

/// The most that a call can cost, in micro-dollars.
fn most(price: &Price, request: &Request, output: u64) -> u64 {
    let write = price.cache_write.unwrap_or(price.input);
    let mut input = price.input.max(write);
    if request.cache == CacheRetention::Long {
        input = input.max(price.input.saturating_mul(2));
    }
    let part = |tokens: u64, rate: u64| u128::from(tokens) * u128::from(rate);
    let sum = part(tokens(request), input) + part(output, price.output);
    u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The input of a request in tokens, estimated from above: a token for two and a half bytes of text.
pub fn tokens(request: &Request) -> u64 {
    let mut bytes = request.system.len();
    let mut images = 0;
    for tool in request.tools.iter() {
        bytes += tool.name.len() + tool.description.len() + tool.parameters.to_string().len();
    }
    let mut file = |file: &crate::message::FilePart| {
        if file.is_image() {
            images += IMAGE_TOKENS;
            0
        } else {
            file.data.len()
        }
    };
    for message in &request.messages {
        bytes += 16;
        match &**message {
            Message::User(user) => {
                for part in &user.parts {
                    bytes += match part {
                        UserPart::Text { text } => text.len(),
                        UserPart::File(part) => file(part),
                    };
                }
            }
            Message::ToolResult(result) => {
                for part in &result.parts {
                    bytes += match part {
                        ResultPart::Text { text } => text.len(),
                        ResultPart::File(part) => file(part),
                    };
                }
            }
            Message::Assistant(answer) => {
                for part in &answer.parts {
                    bytes += part.size();
                }
            }
        }
    }
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    (bytes.saturating_mul(2) / 5)
        .saturating_add(images)
        .saturating_add(64)
}
