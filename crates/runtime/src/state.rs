//! The state of an actor: one JSON value that everybody may follow.
//!
//! It is replaced whole, by [`Runtime::set_state`](crate::Runtime::set_state) or from within the
//! actor, after [`Program::validate_state`](crate::Program::validate_state) agreed. Each change has a
//! version, from 1 on, and is a record; it is durable before anybody hears of it. A [`Subscription`]
//! gives what is current, then each change, without gaps and without doubles.

use std::{collections::VecDeque, sync::Arc};

use bowline_store::{ActorId, Seq, Store, StoreError, Tail, Timestamp, limits::MAX_VALUE};
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{kind, submission::Failure};

/// Space of the state.
pub const STATE: &str = "state";
/// Largest state with its version and source, in bytes of JSON: 1 MiB.
pub const MAX_STATE: usize = MAX_VALUE;
/// The one row of the space.
pub(crate) const KEY: &[u8] = b"value";
/// Records that are looked at at once.
const PAGE: usize = 256;

/// Counts the changes of one actor, from 1; 0 means that the state was never set.
pub type Version = u64;

/// A state to set.
#[derive(Debug, Clone, PartialEq)]
pub struct NewState {
    /// The whole value; `null` is one as well.
    pub value: Value,
    /// Who sets it.
    pub source: Source,
    /// When given, the version that the caller has seen; another one is a conflict. Without, the last
    /// one wins.
    pub expected: Option<Version>,
    /// True for a caller that may only read: it is refused.
    pub read_only: bool,
}

impl NewState {
    /// A value that the server sets, whatever was there.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            source: Source::Server,
            expected: None,
            read_only: false,
        }
    }
}

/// Who changed the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", content = "id")]
pub enum Source {
    /// The actor itself, or the program around it.
    Server,
    /// A client, by the id of its connection.
    Client(String),
}

/// A change of the state: body of the record, and the row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Which change.
    pub version: Version,
    /// The state since then.
    pub value: Value,
    /// Who made it.
    pub source: Source,
    /// When.
    pub time: Timestamp,
}

/// A change that is asked for.
#[derive(Debug)]
pub struct Proposed<'a> {
    /// The state now; `None` when it was never set.
    pub current: Option<&'a Value>,
    /// What it would be.
    pub next: &'a Value,
    /// Who asks.
    pub source: &'a Source,
}

/// The last change of an actor's state; `None` when it was never set.
pub async fn current(store: &dyn Store, actor: &ActorId) -> Result<Option<Change>, StoreError> {
    let row = store.row(actor, STATE, KEY).await?;
    row.map(|bytes| decode(&bytes)).transpose()
}

fn decode(bytes: &[u8]) -> Result<Change, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("a state does not decode: {error}")))
}

/// Follows the state of an actor, which need not exist yet. It holds nothing but its place.
pub fn subscribe(store: Arc<dyn Store>, actor: &ActorId) -> Subscription {
    Subscription {
        tail: store.tail(actor),
        actor: actor.clone(),
        store,
        place: None,
        version: 0,
        ready: VecDeque::new(),
    }
}

/// Gives the current state, when there is one, then each change.
#[derive(Debug)]
pub struct Subscription {
    store: Arc<dyn Store>,
    actor: ActorId,
    tail: Tail,
    /// The last record that was looked at; `None` before the first look.
    place: Option<Seq>,
    /// The last version that was given.
    version: Version,
    ready: VecDeque<Change>,
}

impl Subscription {
    /// The next change; `None` when the store was closed. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                self.version = change.version;
                return Ok(Some(change));
            }
            let Some(place) = self.place else {
                // The place first: a change in between is read as current, and left out afterwards.
                let head = self.store.head(&self.actor).await?;
                self.ready.extend(current(&*self.store, &self.actor).await?);
                self.place = Some(head.map_or(0, |head| head.seq));
                continue;
            };
            if self.tail.beyond(place).await.is_none() {
                return Ok(None);
            }
            let records = self.store.read(&self.actor, place, PAGE).await?;
            for stored in &records {
                if stored.record.kind == kind::STATE_CHANGED {
                    let change = decode(&stored.record.body)?;
                    if change.version > self.version {
                        self.ready.push_back(change);
                    }
                }
            }
            self.place = Some(records.last().map_or(place, |last| last.seq));
        }
    }

    /// The same as a stream. It ends after an error, and when the store was closed.
    pub fn into_stream(self) -> impl Stream<Item = Result<Change, StoreError>> + Send {
        futures::stream::unfold(Some(self), |state| async move {
            let mut subscription = state?;
            match subscription.next().await {
                Ok(Some(change)) => Some((Ok(change), Some(subscription))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

pub(crate) fn too_large(bytes: usize) -> Failure {
    Failure::new(
        "state_too_large",
        format!("the state has {bytes} bytes, at most {MAX_STATE} are kept"),
        "keep large content in a file or a row of your own, and its name in the state",
    )
}
