//! What model calls have cost: the rows of each actor, and their sums.
//!
//! Space `spend` of an agent's actor:
//!
//! - `day/2026-11-22/PROVIDER/MODEL` → [`Totals`] of that day, UTC. Changed in the batch of the record
//!   that says what a call came to.
//! - `open/msg_…` → a call that is under way: what is reserved for it, and the provider's id of an
//!   answer that can be read again. It is written only where a spend limit applies or the provider
//!   keeps the answer, and goes with the call's end.
//!
//! The totals of a project are the sum of these rows over its actors; nothing else is stored. A
//! reservation that a crash left open counts as spent until its actor goes on, which counts what the
//! half answer is likely to have cost instead.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bowline_model::{
    ModelRef, Price, Usage,
    gateway::{Account, Entry as Spent, HOUR, Hour, Ledger},
};
use bowline_runtime::Sources;
use bowline_store::{ActorId, RowChange, Store, StoreError, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    conversation::{Conversation, EntryBody},
    program::KIND,
};

/// Space of what model calls cost.
pub(crate) const SPEND: &str = "spend";
/// Rows or actors read at once.
const PAGE: usize = 500;
/// Characters of a token, as the text of a half answer is counted.
const CHARS: u64 = 4;

/// What the calls of one model on one day came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Calls that were answered.
    pub calls: u64,
    /// Calls that broke off after the provider had begun to answer.
    pub cut: u64,
    /// The tokens of the calls that were answered.
    pub usage: Usage,
    /// What all calls cost, in micro-dollars, as far as prices are known.
    pub cost_micro_usd: u64,
    /// The part of it that calls cost which broke off, estimated.
    pub wasted_micro_usd: u64,
    /// Calls whose price is not known; they are in no amount.
    pub unpriced: u64,
    /// The cost by the hour of the day.
    pub hours: BTreeMap<u8, u64>,
}

impl Totals {
    /// Adds what other calls came to.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.cut += other.cut;
        self.usage += other.usage;
        self.cost_micro_usd = self.cost_micro_usd.saturating_add(other.cost_micro_usd);
        self.wasted_micro_usd = self.wasted_micro_usd.saturating_add(other.wasted_micro_usd);
        self.unpriced += other.unpriced;
        for (hour, cost) in &other.hours {
            *self.hours.entry(*hour).or_default() += cost;
        }
    }
}

/// A call that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Open {
    pub(crate) model: ModelRef,
    pub(crate) submission: String,
    pub(crate) at: Timestamp,
    /// What is reserved, in micro-dollars.
    #[serde(default)]
    pub(crate) reserved: u64,
    /// The provider's id of an answer that can be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_id: Option<String>,
}

/// What a call came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Made {
    /// It was answered.
    Answered { usage: Usage, cost: Option<u64> },
    /// It broke off; the cost is estimated.
    Cut { cost: Option<u64> },
}

/// What one actor has spent, as far as it was needed since it woke.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    days: HashMap<String, Totals>,
    /// Calls that broke off and are not accounted for, by message.
    pub(crate) left: BTreeMap<String, Open>,
}

impl Spending {
    /// The calls that were cut off when the actor last stopped.
    pub(crate) async fn load(store: &dyn Store, actor: &ActorId) -> Result<Self, StoreError> {
        let mut left = BTreeMap::new();
        for row in store.scan(actor, SPEND, b"open/", None, PAGE).await? {
            let id = String::from_utf8_lossy(&row.key["open/".len()..]).into_owned();
            left.insert(id, decode(&row.value)?);
        }
        Ok(Self {
            days: HashMap::new(),
            left,
        })
    }

    /// Counts a call. The row belongs into the batch of the record that says what the call came to.
    pub(crate) async fn count(
        &mut self,
        store: &dyn Store,
        actor: &ActorId,
        now: Timestamp,
        model: &ModelRef,
        made: Made,
    ) -> Result<RowChange, StoreError> {
        let key = format!("day/{}/{}/{}", day(now), model.provider, model.model);
        if !self.days.contains_key(&key) {
            let stored = store.row(actor, SPEND, key.as_bytes()).await?;
            let totals = stored.map(|row| decode(&row)).transpose()?;
            self.days.insert(key.clone(), totals.unwrap_or_default());
        }
        let totals = self.days.entry(key.clone()).or_default();
        let cost = match made {
            Made::Answered { usage, cost } => {
                totals.calls += 1;
                totals.usage += usage;
                cost
            }
            Made::Cut { cost } => {
                totals.cut += 1;
                totals.wasted_micro_usd += cost.unwrap_or(0);
                cost
            }
        };
        totals.unpriced += u64::from(cost.is_none());
        if let Some(cost) = cost.filter(|cost| *cost > 0) {
            totals.cost_micro_usd += cost;
            let hour = now.as_millis().rem_euclid(24 * HOUR) / HOUR;
            *totals
                .hours
                .entry(u8::try_from(hour).unwrap_or(0))
                .or_default() += cost;
        }
        Ok(put(key, totals))
    }
}

/// The row that a call under way has.
pub(crate) fn opened(message: &str, open: &Open) -> RowChange {
    put(format!("open/{message}"), open)
}

/// Removes it.
pub(crate) fn closed(message: &str) -> RowChange {
    RowChange::Delete {
        space: SPEND,
        key: format!("open/{message}").into_bytes(),
    }
}

/// What a call that broke off is likely to have cost: its input, which was about what the last answer
/// left, and the text that arrived.
pub(crate) fn waste(conversation: &Conversation, price: &Price, characters: usize) -> u64 {
    let last = conversation.entries.iter().rev().find_map(|entry| {
        let EntryBody::Assistant { message, error, .. } = &entry.body else {
            return None;
        };
        (error.is_none() && message.usage.total() > 0).then_some(message.usage.total())
    });
    let output = u64::try_from(characters)
        .unwrap_or(u64::MAX)
        .div_ceil(CHARS);
    price.cost(&Usage {
        input: last.unwrap_or(conversation_tokens(conversation)),
        output,
        ..Usage::default()
    })
}

/// The size of a conversation without an answer, in tokens.
fn conversation_tokens(conversation: &Conversation) -> u64 {
    let length = |content: &crate::record::Content| match content {
        crate::record::Content::Text { text } => text.len(),
        crate::record::Content::Attachment { .. } => 0,
    };
    let said = conversation.entries.iter().map(|entry| match &entry.body {
        EntryBody::User(content) => content.iter().map(length).sum(),
        _ => 0,
    });
    let bytes: usize = said.sum::<usize>() + conversation.system.len();
    u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(CHARS)
}

/// Whose money an actor spends.
pub(crate) fn account(actor: &ActorId) -> Account {
    Account {
        agent: actor.name().to_owned(),
        instance: actor.key().to_owned(),
    }
}

fn day(time: Timestamp) -> String {
    let mut day = time.to_string();
    day.truncate(10);
    day
}

fn put(key: String, value: &impl Serialize) -> RowChange {
    RowChange::Put {
        space: SPEND,
        key: key.into_bytes(),
        // Our own value: strings and numbers only.
        value: serde_json::to_vec(value)
            .map(Bytes::from)
            .unwrap_or_default(),
        blobs: Vec::new(),
    }
}

fn decode<T: for<'de> Deserialize<'de>>(row: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(row)
        .map_err(|error| StoreError::Corrupt(format!("a row of spending does not decode: {error}")))
}

/// What one instance spent on one model on one day.
#[derive(Debug, Clone)]
pub struct Line {
    /// The agent's instance.
    pub actor: ActorId,
    /// `2026-11-22`, UTC.
    pub day: String,
    /// The provider, or the name under `[models]`.
    pub provider: String,
    /// The provider's id of the model.
    pub model: String,
    /// What it came to.
    pub totals: Totals,
}

/// What is reserved for a call that is under way, or was cut off by a crash.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// The agent's instance.
    pub actor: ActorId,
    /// The message that the call is for.
    pub message: String,
    /// When it began.
    pub at: Timestamp,
    /// How much, in micro-dollars.
    pub micro_usd: u64,
}

/// Everything that was spent since a day (`2026-11-22`, UTC), and what is reserved by calls that are
/// under way or were cut off. In order of the actors.
///
/// # Errors
///
/// When it cannot be read.
pub async fn lines(
    store: &dyn Store,
    since: Option<&str>,
) -> Result<(Vec<Line>, Vec<Reserved>), StoreError> {
    let (mut lines, mut open) = (Vec::new(), Vec::new());
    let mut after: Option<ActorId> = None;
    loop {
        let actors = store.actors(KIND, None, after.as_ref(), PAGE).await?;
        for actor in &actors {
            of_actor(store, actor, since, &mut lines).await?;
            reserved_by(store, actor, &mut open).await?;
        }
        match actors.last() {
            Some(last) if actors.len() == PAGE => after = Some(last.clone()),
            _ => return Ok((lines, open)),
        }
    }
}

/// As [`lines`], of one actor.
///
/// # Errors
///
/// When it cannot be read.
pub async fn lines_of(
    store: &dyn Store,
    actor: &ActorId,
    since: Option<&str>,
) -> Result<(Vec<Line>, Vec<Reserved>), StoreError> {
    let (mut lines, mut open) = (Vec::new(), Vec::new());
    of_actor(store, actor, since, &mut lines).await?;
    reserved_by(store, actor, &mut open).await?;
    Ok((lines, open))
}

async fn reserved_by(
    store: &dyn Store,
    actor: &ActorId,
    open: &mut Vec<Reserved>,
) -> Result<(), StoreError> {
    for row in store.scan(actor, SPEND, b"open/", None, PAGE).await? {
        let value: Open = decode(&row.value)?;
        open.push(Reserved {
            actor: actor.clone(),
            message: String::from_utf8_lossy(&row.key["open/".len()..]).into_owned(),
            at: value.at,
            micro_usd: value.reserved,
        });
    }
    Ok(())
}

async fn of_actor(
    store: &dyn Store,
    actor: &ActorId,
    since: Option<&str>,
    lines: &mut Vec<Line>,
) -> Result<(), StoreError> {
    let mut after = since.map(|day| format!("day/{day}").into_bytes());
    loop {
        let rows = store
            .scan(actor, SPEND, b"day/", after.as_deref(), PAGE)
            .await?;
        for row in &rows {
            let key = String::from_utf8_lossy(&row.key).into_owned();
            let mut parts = key.splitn(4, '/').skip(1).map(str::to_owned);
            let mut part = || parts.next().unwrap_or_default();
            lines.push(Line {
                actor: actor.clone(),
                day: part(),
                provider: part(),
                model: part(),
                totals: decode(&row.value)?,
            });
        }
        match rows.last() {
            Some(last) if rows.len() == PAGE => after = Some(last.key.clone()),
            _ => return Ok(()),
        }
    }
}

/// The ledger of the gateway: the rows of all actors of a store.
pub(crate) struct StoreLedger<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) sources: &'a Sources,
}

#[async_trait]
impl Ledger for StoreLedger<'_> {
    fn now_millis(&self) -> i64 {
        self.sources.now().as_millis()
    }

    async fn entries(&self, since: Hour) -> Result<Vec<Spent>, String> {
        let first = day(Timestamp::from_millis(since.0.saturating_mul(HOUR)));
        let read = lines(self.store, Some(&first)).await;
        let (lines, open) = read.map_err(|error| error.to_string())?;
        let mut entries = Vec::new();
        for line in lines {
            let begin = Timestamp::parse(&format!("{}T00:00:00Z", line.day));
            let begin = begin.map_or(0, Timestamp::as_millis);
            for (hour, micro_usd) in line.totals.hours {
                let hour = Hour(begin / HOUR + i64::from(hour));
                entries.push(Spent {
                    account: account(&line.actor),
                    hour,
                    micro_usd,
                    open: None,
                });
            }
        }
        entries.extend(open.into_iter().map(|open| Spent {
            account: account(&open.actor),
            hour: Hour::of(open.at.as_millis()),
            micro_usd: open.micro_usd,
            open: Some(open.message),
        }));
        Ok(entries)
    }
}
