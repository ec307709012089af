//! Checkpointed tasks: a fiber is accepted durably, stashes how far it came, and goes on after a
//! crash from its last stash.
//!
//! Each fiber is an actor of its own, `fiber-host/<handler>/<id>`, with one submission: acceptance,
//! attempts, deadlines, cancellation and the one terminal outcome are those of
//! [`submission`], and so is recovery: [`Runtime::resume`](crate::Runtime::resume) goes on with
//! each open fiber.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bowline_store::{
    ActorId, RowChange, Store, StoreError, StoredRecord, Timestamp, limits::MAX_VALUE,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    attempt::{Attempt, Halt},
    error::RuntimeError,
    kind,
    node::Runtime,
    step::Step,
    submission::{
        self, Bounds, Closing, Failure, Finish, Instance, NewSubmission, Outcome, Program,
        Progress, Settled, State, Submission,
    },
};

/// Kind of the actors that hold fibers.
pub const KIND: &str = "fiber-host";
/// Largest stash and result, in bytes of JSON: 1 MiB.
pub const MAX_STASH: usize = MAX_VALUE;
/// Most fibers that one page of [`Fibers::list`] holds.
pub const MAX_PAGE: usize = 100;

/// Space of a fiber's rows.
const SPACE: &str = "fiber";
const ACCEPTED: &[u8] = b"accepted";
const STASH: &[u8] = b"stash";
const RESULT: &[u8] = b"result";
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
}

/// Why a handler stops without a result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stop {
    /// It cannot be done; the fiber fails with this.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Nothing can be committed any more; the fiber goes on after the next start.
    #[error(transparent)]
    Halted(#[from] Halt),
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

/// Starts fibers, and tells what became of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fibers {
    handlers: Handlers,
    runtime: Runtime,
}

impl Fibers {
    /// Starts a fiber. When this returns, it is durable, and it runs.
    ///
    /// # Errors
    ///
    /// `fiber_unknown` without a handler of this name, `invalid_key`, and `submission_conflict` when
    /// the key was used before with another input or metadata.
    pub async fn start(&self, name: &str, new: NewFiber) -> Result<Started, RuntimeError> {
        if !self.handlers.0.contains_key(name) {
            return Err(unknown(name).into());
        }
        let fiber_id = match &new.key {
            Some(key) if key.is_empty() || key.len() > submission::MAX_KEY => {
                return Err(RuntimeError::InvalidKey);
            }
            Some(key) => submission::keyed_id(&actor(name, ""), key).replacen("sub_", "fib_", 1),
            None => self.runtime.sources().id("fib_"),
        };
        let accepted = Accepted {
            input: new.input,
            metadata: new.metadata,
        };
        let payload =
            serde_json::to_value(&accepted).map_err(|error| not_json("the input", &error))?;
        let new = NewSubmission {
            payload,
            key: Some(fiber_id.clone()),
            blobs: Vec::new(),
        };
        let receipt = self.runtime.submit(&actor(name, &fiber_id), new).await?;
        Ok(Started {
            fiber_id,
            accepted: !receipt.deduplicated,
        })
    }

    /// Starts a fiber, and waits for its result.
    ///
    /// # Errors
    ///
    /// Those of [`Fibers::start`], and the fiber's own failure.
    pub async fn run(&self, name: &str, new: NewFiber) -> Result<Value, RuntimeError> {
        let started = self.start(name, new).await?;
        let ended = self.wait(name, &started.fiber_id).await?;
        match (ended.result, ended.error) {
            (Some(result), _) => Ok(result),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Ok(Value::Null),
        }
    }

    /// Waits until a fiber ends.
    ///
    /// # Errors
    ///
    /// `fiber_not_found`.
    pub async fn wait(&self, name: &str, fiber_id: &str) -> Result<Inspection, RuntimeError> {
        let id = actor(name, fiber_id);
        match self
            .runtime
            .settled(&id, &submission::keyed_id(&id, fiber_id))
            .await
        {
            Ok(_) => self
                .inspect(name, fiber_id)
                .await?
                .ok_or_else(|| not_found(name, fiber_id).into()),
            Err(RuntimeError::UnknownSubmission(_)) => Err(not_found(name, fiber_id).into()),
            Err(error) => Err(error),
        }
    }

    /// What is kept of a fiber; `None` when there is none.
    pub async fn inspect(
        &self,
        name: &str,
        fiber_id: &str,
    ) -> Result<Option<Inspection>, RuntimeError> {
        Ok(inspect(&**self.runtime.store(), &actor(name, fiber_id)).await?)
    }

    /// The fibers of a handler, at most `limit` (1 to [`MAX_PAGE`]) of them, after the place where
    /// another page ended. With a status, a page may hold fewer, or none, and still not be the last.
    pub async fn list(
        &self,
        name: &str,
        status: Option<Status>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, RuntimeError> {
        let store = self.runtime.store();
        let limit = limit.clamp(1, MAX_PAGE);
        let after = after.map(|after| actor(name, after));
        let found = store
            .actors(KIND, Some(name), after.as_ref(), MAX_LOOK)
            .await?;
        let mut page = Page {
            fibers: Vec::new(),
            next: None,
        };
        for id in &found {
            if page.fibers.len() == limit {
                return Ok(page);
            }
            let fiber = inspect(&**store, id).await?;
            page.fibers
                .extend(fiber.filter(|fiber| status.is_none_or(|status| status == fiber.status)));
            page.next = Some(id.key().to_owned());
        }
        if found.len() < MAX_LOOK {
            page.next = None;
        }
        Ok(page)
    }

    /// Asks to cancel a fiber; its settlement follows. `false` when it is not open: a fiber that
    /// ended before stays as it ended, and one that was cancelled is never completed later.
    pub async fn cancel(&self, name: &str, fiber_id: &str) -> Result<bool, RuntimeError> {
        if self
            .inspect(name, fiber_id)
            .await?
            .is_none_or(|fiber| fiber.settled_at.is_some())
        {
            return Ok(false);
        }
        self.runtime.abort(&actor(name, fiber_id), None).await
    }

    /// Deletes a fiber that has ended. Its key may be used again then.
    ///
    /// # Errors
    ///
    /// `fiber_not_found`, and `fiber_not_settled` while it is open.
    pub async fn delete(&self, name: &str, fiber_id: &str) -> Result<(), RuntimeError> {
        match self.inspect(name, fiber_id).await? {
            None => Err(not_found(name, fiber_id).into()),
            Some(open) if open.settled_at.is_none() => Err(not_settled(name, fiber_id).into()),
            Some(_) => self.runtime.purge(&actor(name, fiber_id)).await,
        }
    }
}

fn actor(name: &str, fiber_id: &str) -> ActorId {
    ActorId::new(KIND, name, fiber_id)
}

async fn inspect(store: &dyn Store, id: &ActorId) -> Result<Option<Inspection>, StoreError> {
    // The open one first: a fiber that settles in between is seen as settled.
    let open = submission::open(store, id).await?.pop();
    let settled = submission::settled(store, id, &submission::keyed_id(id, id.key())).await?;
    let Some(accepted) = row::<Accepted>(store, id, ACCEPTED).await? else {
        return Ok(None);
    };
    let status = match (&settled, &open) {
        (
            Some(Settled {
                outcome: Outcome::Completed,
                ..
            }),
            _,
        ) => Status::Completed,
        (
            Some(Settled {
                outcome: Outcome::Failed,
                ..
            }),
            _,
        ) => Status::Failed,
        (
            Some(Settled {
                outcome: Outcome::Aborted,
                ..
            }),
            _,
        ) => Status::Aborted,
        (
            None,
            Some(Submission {
                state: State::Queued,
                ..
            }),
        ) => Status::Pending,
        (None, Some(_)) => Status::Running,
        (None, None) => return Ok(None),
    };
    let accepted_at = settled.as_ref().map(|settled| settled.accepted_at);
    Ok(Some(Inspection {
        fiber_id: id.key().to_owned(),
        name: id.name().to_owned(),
        status,
        input: accepted.input,
        metadata: accepted.metadata,
        stash: row(store, id, STASH).await?,
        result: row(store, id, RESULT).await?,
        accepted_at: accepted_at
            .or(open.map(|open| open.accepted_at))
            .unwrap_or_default(),
        settled_at: settled.as_ref().map(|settled| settled.settled_at),
        error: settled.and_then(|settled| settled.error),
    }))
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

#[async_trait]
impl Program for Handlers {
    async fn open(
        &self,
        actor: &ActorId,
        store: &Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure> {
        let failed = |error: StoreError| Failure::new(error.code(), error.to_string(), "");
        let accepted = row(&**store, actor, ACCEPTED).await.map_err(failed)?;
        let stash = row(&**store, actor, STASH).await.map_err(failed)?;
        let handler = self.0.get(actor.name()).cloned();
        Ok(Box::new(Opened {
            recovered: accepted.is_some(),
            accepted,
            stash,
            handler,
        }))
    }

    fn bounds(&self, actor: &ActorId) -> Bounds {
        self.0
            .get(actor.name())
            .map_or_else(Bounds::default, |handler| handler.bounds())
    }

    /// A fiber has nothing to do after it ended.
    fn idle(&self, _actor: &ActorId) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

#[derive(Debug)]
struct Opened {
    /// It had begun before this instance was opened.
    recovered: bool,
    accepted: Option<Accepted>,
    stash: Option<Value>,
    /// Gone when a new version of the program does not have it any more.
    handler: Option<Arc<dyn Handler>>,
}

#[async_trait]
impl Instance for Opened {
    fn accept(&mut self, submission: &Submission) -> Step {
        let mut step = Step::new();
        step.record(
            kind::FIBER_ACCEPTED,
            submission.accepted_at,
            &submission.payload,
        );
        step.put(SPACE, ACCEPTED, &submission.payload);
        step
    }

    fn apply(&mut self, records: &[StoredRecord]) -> Result<(), StoreError> {
        for stored in records
            .iter()
            .filter(|stored| stored.record.kind == kind::FIBER_ACCEPTED)
        {
            let decoded = serde_json::from_slice(&stored.record.body);
            self.accepted = Some(decoded.map_err(|error| {
                StoreError::Corrupt(format!("a fiber record does not decode: {error}"))
            })?);
        }
        Ok(())
    }

    fn progress(&self, _submission: &Submission) -> Progress {
        if self.accepted.is_some() {
            Progress::Interrupted
        } else {
            Progress::Absent
        }
    }

    async fn repair(&mut self, _submission: &Submission) -> Result<Step, StoreError> {
        Ok(Step::new())
    }

    async fn run(&mut self, attempt: &mut Attempt) -> Finish {
        let (Some(handler), Some(accepted)) = (&self.handler, &self.accepted) else {
            return Finish::Failed(unknown(attempt.actor().name()));
        };
        let mut fiber = Fiber {
            attempt,
            accepted,
            stash: self.stash.take(),
        };
        let cancel = attempt.cancel().clone();
        let work = async {
            if self.recovered {
                let (attempt, stash) = (attempt.submission().attempts, fiber.stash.clone());
                let recovered = Recovered {
                    reason: Reason::Interrupted,
                    attempt,
                    stash,
                };
                handler.on_recovered(&mut fiber, recovered).await
            } else {
                handler.run(&mut fiber).await
            }
        };
        tokio::select! {
            biased;
            // First, so that a late result never replaces a cancellation.
            () = cancel.cancelled() => Finish::Cancelled,
            ended = work => match ended.and_then(|value| Ok(bounded("the result", &value)?)) {
                Ok(bytes) => Finish::Completed(Step { rows: vec![put(RESULT, bytes)], ..Step::new() }),
                Err(Stop::Failed(failure)) => Finish::Failed(failure),
                Err(Stop::Halted(halt)) => Finish::Halted(halt),
            },
        }
    }

    fn close(&mut self, _submission: &Submission, _closing: &Closing) -> Step {
        Step::new()
    }
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

fn not_found(name: &str, fiber_id: &str) -> Failure {
    Failure::new(
        "fiber_not_found",
        format!("there is no fiber {fiber_id} of the name {name}"),
        "list the fibers of this name",
    )
}

fn not_settled(name: &str, fiber_id: &str) -> Failure {
    let hint = "cancel it, wait until it ends, then delete it";
    Failure::new(
        "fiber_not_settled",
        format!("the fiber {fiber_id} of the name {name} has not ended"),
        hint,
    )
}
