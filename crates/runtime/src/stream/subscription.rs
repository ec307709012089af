//! Subscriptions: durable cursors over streams that wake a worker when there is something new.
//!
//! A subscription names streams, or a pattern of paths. When one of them grows past what was
//! acknowledged, there is a *wake*: a webhook is called, or an event is appended to a stream that
//! workers follow, one of which claims the wake. Whoever has the wake holds a lease and the token of
//! this generation; a later generation fences it. What was acknowledged survives restarts; a wake
//! that was interrupted comes again.
//!
//! `index` finds the subscriptions that want a path; `worker` is one subscription and its commits,
//! `cursor` how far it is; `registry` is all of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::offset::Offset;

mod cursor;
mod index;
mod registry;
mod worker;

pub(super) use registry::{Subscriptions, keep};

/// Shortest and longest lease, and the default, in milliseconds.
pub const LEASE_MS: (u64, u64, u64) = (1_000, 600_000, 30_000);
/// Most subscriptions.
pub const MAX_SUBSCRIPTIONS: usize = 10_000;
/// Most streams in one request, and in one wake; what does not fit into a wake makes the next one.
pub const MAX_STREAMS: usize = 1_000;
/// Longest id and longest description, in bytes.
pub const MAX_WORDS: usize = 1024;

/// How a worker is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// This URL is called.
    Webhook(String),
    /// An event is appended to the stream at this path.
    PullWake(String),
}

/// What a subscription is. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How a worker is woken.
    pub way: Way,
    /// Paths that are wanted, with `*` for one segment and `**` for any number.
    pub pattern: Option<String>,
    /// Paths that are wanted from the beginning.
    pub streams: Vec<String>,
    /// How long a worker has, in milliseconds; see [`LEASE_MS`].
    pub lease_ms: u64,
    /// For people.
    pub description: Option<String>,
    /// What URLs begin with that are handed out; not a setting, so that it may differ.
    pub base_url: String,
}

impl Config {
    /// Whether two requests ask for the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self {
            way,
            pattern,
            streams,
            lease_ms,
            description,
            base_url: _,
        } = self;
        *way == other.way
            && *pattern == other.pattern
            && *streams == other.streams
            && *lease_ms == other.lease_ms
            && *description == other.description
    }
}

/// Why a stream belongs to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Its path matches.
    Glob,
    /// It was named.
    Explicit,
}

/// A stream of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its path.
    pub path: String,
    /// Why it is here.
    pub kind: LinkKind,
    /// What was acknowledged.
    pub acked: Offset,
    /// The end of the stream.
    pub tail: Offset,
}

/// What is known of a subscription.
#[derive(Debug, Clone)]
pub struct Described {
    /// What it is.
    pub config: Config,
    /// Its streams, at most 10,000 of them.
    pub links: Vec<Link>,
    /// How many wakes there were.
    pub generation: u64,
    /// Its webhook failed ten times in a row, or more often.
    pub failing: bool,
}

/// A wake, as its worker sees it.
#[derive(Debug, Clone)]
pub struct Wake {
    /// Drawn for this wake.
    pub id: String,
    /// Counts the wakes of the subscription; a later one fences the ones before.
    pub generation: u64,
    /// Lets its bearer acknowledge.
    pub token: String,
    /// What is new.
    pub streams: Vec<Link>,
    /// How long the worker has, in milliseconds.
    pub lease_ms: u64,
}

/// What a worker did with a wake.
#[derive(Debug, Clone, Default)]
pub struct Ack {
    /// The token of the wake.
    pub token: String,
    /// The wake.
    pub wake: String,
    /// Its generation.
    pub generation: u64,
    /// Up to where each stream is done.
    pub acks: Vec<(String, Offset)>,
    /// The worker gives the lease back. Without it, the lease begins anew.
    pub done: bool,
}

/// A call of a webhook.
#[derive(Debug, Clone)]
pub struct Call {
    /// The subscription.
    pub subscription: String,
    /// Where to.
    pub url: String,
    /// [`Config::base_url`].
    pub base_url: String,
    /// The wake.
    pub wake: Wake,
}

/// Calls webhooks.
#[async_trait::async_trait]
pub trait Deliver: Send + Sync + std::fmt::Debug {
    /// Calls one. `true` when the receiver has done all of it already. Must end by itself.
    ///
    /// # Errors
    ///
    /// In words, when it was not accepted; it is tried again.
    async fn deliver(&self, call: Call) -> Result<bool, String>;
}

/// Why a subscription did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none with this id.
    #[error("there is no such subscription: create it first")]
    NotFound,
    /// There is one with other settings.
    #[error("this subscription exists with other settings: delete it first, or use another id")]
    Exists,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A later wake has begun, or the lease has ended.
    #[error("this wake is over: claim the next one")]
    Fenced,
    /// The token is not one of this subscription's current wake.
    #[error("the token is not valid for this wake: use the one that came with it")]
    Token,
    /// Another worker has the wake.
    #[error("{holder} has claimed this wake: wait for its end")]
    Claimed {
        /// The worker that has it.
        holder: String,
        /// The generation of the wake.
        generation: u64,
    },
    /// Nothing is new.
    #[error("there is nothing to do: wait for the next wake")]
    NoWork,
    /// A stream does not belong to the subscription, or is not that long.
    #[error("{0} cannot be acknowledged up to there: use offsets that the wake named")]
    Offset(String),
}

impl Refusal {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "subscription_not_found",
            Self::Exists => "subscription_exists",
            Self::Invalid(_) => "subscription_invalid",
            Self::Fenced => "subscription_fenced",
            Self::Token => "subscription_token",
            Self::Claimed { .. } => "subscription_claimed",
            Self::NoWork => "subscription_no_work",
            Self::Offset(_) => "subscription_offset",
        }
    }
}

/// The body of a wake event on a stream.
pub(super) fn event(
    subscription: &str,
    stream: &str,
    generation: u64,
    now: bowline_store::Timestamp,
) -> Bytes {
    serde_json::json!({
        "type": "wake",
        "subscription_id": subscription,
        "stream": stream,
        "generation": generation,
        "ts": now.as_millis(),
    })
    .to_string()
    .into()
}
