//! Checkpointed tasks: a fiber is accepted durably, stashes how far it came, and goes on after a
//! crash from its last stash.
//!
//! A fiber that cannot go on by itself ends its attempt with [`Stop::Interrupted`]: it holds nothing
//! but its rows until somebody decides ([`Fibers::resolve`]) or its time is over.
//!
//! Each fiber is an actor of its own, `fiber-host/<handler>/<id>`, with one submission: acceptance,
//! attempts, deadlines, cancellation and the one terminal outcome are those of
//! [`submission`](crate::submission), and so is recovery: [`Runtime::resume`](crate::Runtime::resume) goes on with
//! each open fiber.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bowline_store::{ActorId, RowChange, Store, StoreError, Timestamp, limits::MAX_VALUE};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    attempt::{Attempt, Halt},
    kind,
    node::Runtime,
    step::Step,
    submission::{Bounds, Failure, Program},
};

mod ledger;
mod program;

pub use ledger::Fibers;

/// Kind of the actors that hold fibers.
pub const KIND: &str = "fiber-host";
/// Largest stash and result, in bytes of JSON: 1 MiB.
pub const MAX_STASH: usize = MAX_VALUE;
/// Most fibers that one page of [`Fibers::list`] holds.
pub const MAX_PAGE: usize = 100;
/// Most fibers that one call of [`Fibers::delete_settled`] deletes.
pub const MAX_DELETE: usize = 500;
/// How long an interrupted fiber is kept for somebody to decide, where it does not say: 24 hours.
pub const RESOLVE_WITHIN: Duration = Duration::from_secs(24 * 3_600);

/// Space of a fiber's rows.
const SPACE: &str = "fiber";
const ACCEPTED: &[u8] = b"accepted";
const STASH: &[u8] = b"stash";
const RESULT: &[u8] = b"result";
const INTERRUPTED: &[u8] = b"interrupted";
const RESOLUTION: &[u8] = b"resolution";
/// Fibers that one page looks at, at most, while it looks for those of one status.
const MAX_LOOK: usize = 1_000;

/// What the fibers of one name do. Recovery finds it by its name, so a name keeps its meaning for
/// as long as fibers of it are open.
#[async_trait]
pub trait Handler: Send + Sync + fmt::Debug + 'static {
    /// Does the work, and stashes how far it came. What it returns is kept as the result.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] ends the fiber as failed; it is not tried again.
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop>;

    /// Goes on with a fiber that was interrupted. By default it runs again, which is right for a
    /// handler that looks at [`Fiber::stash`] first.
    ///
    /// # Errors
    ///
    /// As [`Handler::run`].
    async fn on_recovered(
        &self,
        fiber: &mut Fiber<'_>,
        recovered: Recovered,
    ) -> Result<Value, Stop> {
        let _ = recovered;
        self.run(fiber).await
    }

    /// Bounds of each fiber: 10 attempts, 24 hours, and 10 seconds of grace by default.
    fn bounds(&self) -> Bounds {
        Bounds {
            attempts: 10,
            wall: Duration::from_secs(24 * 3_600),
            grace: Duration::from_secs(10),
        }
    }
}

/// Why and from where a fiber goes on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recovered {
    /// What cut it.
    pub reason: Reason,
    /// The attempt that begins now; an orderly stop does not count as one.
    pub attempt: u32,
    /// The last stash; `None` when it was cut before the first.
    pub stash: Option<Value>,
}

/// What cut a fiber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The process died or was stopped, or the handler panicked.
    Interrupted,
    /// It was interrupted by itself, and somebody decided that it goes on.
    Resumed,
}

/// Why a handler stops without a result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stop {
    /// It cannot be done; the fiber fails with this.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It cannot go on by itself, for example because nobody knows what became of an effect: it waits
    /// until somebody decides with [`Fibers::resolve`].
    #[error("{reason}")]
    Interrupted {
        /// Why, for whoever decides.
        reason: String,
        /// How long that may take; then the fiber fails. [`RESOLVE_WITHIN`] is usual.
        within: Duration,
    },
    /// Nothing can be committed any more; the fiber goes on after the next start.
    #[error(transparent)]
    Halted(#[from] Halt),
}

/// What becomes of an interrupted fiber.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Resolution {
    /// It is completed, with this result.
    #[serde(rename_all = "camelCase")]
    Completed {
        /// The result.
        result: Value,
    },
    /// It has failed.
    Failed {
        /// Why.
        error: Failure,
    },
    /// It goes on, as after a crash.
    Resume {
        /// Replaces the stash, where it is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stash: Option<Value>,
    },
}

/// A running fiber, as its handler sees it.
#[derive(Debug)]
pub struct Fiber<'a> {
    attempt: &'a Attempt,
    accepted: &'a Accepted,
    stash: Option<Value>,
}

impl Fiber<'_> {
    /// `fib_…`.
    pub fn id(&self) -> &str {
        self.attempt.actor().key()
    }

    /// What it was started with.
    pub fn input(&self) -> &Value {
        &self.accepted.input
    }

    /// What its starter wrote beside the input.
    pub fn metadata(&self) -> &Value {
        &self.accepted.metadata
    }

    /// Time, randomness, the store, and the token that fires when the fiber is cancelled or its time
    /// is over. The handler is dropped at its next await then.
    pub fn attempt(&self) -> &Attempt {
        self.attempt
    }

    /// The last stash.
    pub fn stash(&self) -> Option<&Value> {
        self.stash.as_ref()
    }

    /// The last stash as a value; `None` when there is none, or when it has another form.
    pub fn stash_as<T: DeserializeOwned>(&self) -> Option<T> {
        self.stash
            .as_ref()
            .and_then(|stash| T::deserialize(stash).ok())
    }

    /// Replaces the stash, whole. When this returns, it is durable.
    ///
    /// # Errors
    ///
    /// `fiber_not_json` or `fiber_too_large` when the value cannot be kept: the last stash stays,
    /// and the fiber may go on. [`Stop::Halted`] when nothing can be committed any more.
    pub async fn set_stash(&mut self, value: &(impl Serialize + Sync)) -> Result<(), Stop> {
        let value = serde_json::to_value(value).map_err(|error| not_json("the stash", &error))?;
        let bytes = bounded("the stash", &value)?;
        let mut step = Step::new();
        // A record, so that an owner which read the stash before cannot take the fiber over.
        step.record(
            kind::FIBER_STASHED,
            self.attempt.now(),
            &serde_json::json!({ "bytes": bytes.len() }),
        );
        step.rows.push(put(STASH, bytes));
        self.attempt.commit(step).await?;
        self.stash = Some(value);
        Ok(())
    }
}

/// A fiber to start.
#[derive(Debug, Clone, Default)]
pub struct NewFiber {
    /// What the handler is given.
    pub input: Value,
    /// With a key, a repeated start returns the fiber that was started first; 1 to 256 bytes.
    pub key: Option<String>,
    /// Kept with the fiber for whoever lists it.
    pub metadata: Value,
}

/// What a start returns: the fiber is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// `fib_…`.
    pub fiber_id: String,
    /// False when this key had started a fiber before; nothing was added.
    pub accepted: bool,
}

/// Body of the record, and row, of a fiber that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// What the handler is given.
    pub input: Value,
    /// What the starter wrote beside it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
}

/// Where a fiber stands. The last three are terminal: nothing ever changes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was accepted and has not begun.
    Pending,
    /// It has begun.
    Running,
    /// It cannot go on by itself, and waits for somebody to decide.
    Interrupted,
    /// Its handler returned a result.
    Completed,
    /// It cannot be done; the error says why.
    Failed,
    /// Somebody cancelled it.
    Aborted,
}

/// Everything that is kept of a fiber.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// `fib_…`.
    pub fiber_id: String,
    /// The handler's name.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// What it was started with.
    pub input: Value,
    /// What its starter wrote beside it.
    pub metadata: Value,
    /// The last stash.
    pub stash: Option<Value>,
    /// Why it waits for somebody to decide, while it does.
    pub interrupted: Option<String>,
    /// What the handler returned, when it completed.
    pub result: Option<Value>,
    /// Why it failed or was aborted.
    pub error: Option<Failure>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub settled_at: Option<Timestamp>,
}

/// A page of fibers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// In order of their ids, which is that of their starts for those without a key.
    pub fibers: Vec<Inspection>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// The registered handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handlers(Arc<BTreeMap<String, Arc<dyn Handler>>>);

impl Handlers {
    /// Handlers by name.
    pub fn new(handlers: impl IntoIterator<Item = (String, Arc<dyn Handler>)>) -> Self {
        Self(Arc::new(handlers.into_iter().collect()))
    }

    /// What [`Runtime::new`](crate::Runtime::new) takes.
    pub fn program(&self) -> (String, Arc<dyn Program>) {
        (KIND.to_owned(), Arc::new(self.clone()))
    }

    /// The fibers of a runtime that was made with [`Handlers::program`].
    pub fn on(&self, runtime: &Runtime) -> Fibers {
        Fibers {
            handlers: self.clone(),
            runtime: runtime.clone(),
        }
    }
}

async fn row<T: DeserializeOwned>(
    store: &dyn Store,
    id: &ActorId,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = store.row(id, SPACE, key).await? else {
        return Ok(None);
    };
    let decoded = serde_json::from_slice(&bytes);
    decoded
        .map(Some)
        .map_err(|error| StoreError::Corrupt(format!("a fiber row does not decode: {error}")))
}

fn put(key: &[u8], value: Bytes) -> RowChange {
    RowChange::Put {
        space: SPACE,
        key: key.to_vec(),
        value,
        blobs: Vec::new(),
    }
}

fn bounded(what: &str, value: &Value) -> Result<Bytes, Failure> {
    let bytes = serde_json::to_vec(value).map_err(|error| not_json(what, &error))?;
    if bytes.len() > MAX_STASH {
        let message = format!(
            "{what} of the fiber has {} bytes, at most {MAX_STASH} are kept",
            bytes.len()
        );
        return Err(Failure::new(
            "fiber_too_large",
            message,
            "keep large content in a blob or a file, and its name here",
        ));
    }
    Ok(Bytes::from(bytes))
}

fn not_json(what: &str, error: &serde_json::Error) -> Failure {
    let hint = "use maps with text as keys, lists, text, numbers, true, false and null";
    Failure::new(
        "fiber_not_json",
        format!("{what} of the fiber has no form in JSON: {error}"),
        hint,
    )
}

fn unknown(name: &str) -> Failure {
    let hint =
        "register it before the runtime starts, and keep it for as long as fibers of it are open";
    Failure::new(
        "fiber_unknown",
        format!("no handler for fibers of the name {name} is registered"),
        hint,
    )
}
