//! Starting fibers, and telling what became of them.

use bowline_store::{ActorId, Store, StoreError, Timestamp};
use serde_json::Value;

use super::{
    ACCEPTED, Accepted, Handlers, INTERRUPTED, Inspection, KIND, MAX_DELETE, MAX_LOOK, MAX_PAGE,
    NewFiber, Page, RESULT, Resolution, STASH, Started, Status, not_json, program::Resolved, row,
    unknown,
};
use crate::{
    error::RuntimeError,
    node::Runtime,
    submission::{self, Failure, NewSubmission, Outcome, Settled, State, Submission},
};

/// Starts fibers, and tells what became of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fibers {
    pub(super) handlers: Handlers,
    pub(super) runtime: Runtime,
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
            Some(key) => self.keyed(name, key),
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
            trace: None,
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

    /// The id of the fiber that was started, or would be, with this key.
    pub fn keyed(&self, name: &str, key: &str) -> String {
        submission::keyed_id(&actor(name, ""), key).replacen("sub_", "fib_", 1)
    }

    /// Decides what becomes of an interrupted fiber, once. Durable when this returns.
    ///
    /// # Errors
    ///
    /// `fiber_not_found`; `fiber_not_interrupted` when it waits for nobody; `fiber_too_large` for a
    /// result or stash above [`MAX_STASH`].
    pub async fn resolve(
        &self,
        name: &str,
        fiber_id: &str,
        resolution: &Resolution,
    ) -> Result<(), RuntimeError> {
        match self.inspect(name, fiber_id).await? {
            None => return Err(not_found(name, fiber_id).into()),
            Some(fiber) if fiber.status != Status::Interrupted => {
                return Err(not_interrupted(name, fiber_id).into());
            }
            Some(_) => {}
        }
        let resolved = Resolved {
            resolution: resolution.clone(),
            time: self.runtime.sources().now(),
        };
        let answer =
            serde_json::to_value(resolved).map_err(|error| not_json("the result", &error))?;
        match self.runtime.answer(&actor(name, fiber_id), answer).await {
            Ok(_) => Ok(()),
            // Somebody else was faster.
            Err(RuntimeError::Program(failure)) if failure.code == "nothing_to_answer" => {
                Err(not_interrupted(name, fiber_id).into())
            }
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

    /// Deletes fibers of a handler that ended with one of these statuses before a time, in order of
    /// their ids, at most `limit` (1 to [`MAX_DELETE`]) of them. Returns how many. Nothing is deleted
    /// unless somebody asks.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written.
    pub async fn delete_settled(
        &self,
        name: &str,
        statuses: &[Status],
        before: Timestamp,
        limit: usize,
    ) -> Result<usize, RuntimeError> {
        let (mut deleted, mut after) = (0, None);
        loop {
            let page = self.list(name, None, after.as_deref(), MAX_PAGE).await?;
            for fiber in &page.fibers {
                let old = fiber.settled_at.is_some_and(|settled| settled < before);
                if old && statuses.contains(&fiber.status) {
                    self.runtime.purge(&actor(name, &fiber.fiber_id)).await?;
                    deleted += 1;
                }
                if deleted == limit.clamp(1, MAX_DELETE) {
                    return Ok(deleted);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(deleted),
            }
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
        (
            None,
            Some(Submission {
                state: State::Parked { .. },
                ..
            }),
        ) => Status::Interrupted,
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
        interrupted: match status {
            Status::Interrupted => row(store, id, INTERRUPTED).await?,
            Status::Pending
            | Status::Running
            | Status::Completed
            | Status::Failed
            | Status::Aborted => None,
        },
        result: row(store, id, RESULT).await?,
        accepted_at: accepted_at
            .or(open.map(|open| open.accepted_at))
            .unwrap_or_default(),
        settled_at: settled.as_ref().map(|settled| settled.settled_at),
        error: settled.and_then(|settled| settled.error),
    }))
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

fn not_interrupted(name: &str, fiber_id: &str) -> Failure {
    Failure::new(
        "fiber_not_interrupted",
        format!("the fiber {fiber_id} of the name {name} waits for nobody to decide"),
        "inspect it; cancel it to end one that runs",
    )
}
