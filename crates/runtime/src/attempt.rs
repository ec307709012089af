//! What a running attempt may ask of its actor.

use std::{sync::Arc, time::Duration};

use bowline_store::{ActorId, CommitError, Store, StoredRecord, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    actor::Command,
    clock::Sources,
    error::RuntimeError,
    message::Asking,
    node::Runtime,
    state::{NewState, Version},
    step::Step,
    submission::Submission,
};

/// One execution of a submission. It runs beside the actor's mailbox task, and hands its steps to
/// it: the mailbox task is the only committer.
#[derive(Debug)]
pub struct Attempt {
    pub(crate) actor: ActorId,
    pub(crate) submission: Submission,
    pub(crate) id: String,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) cancel: CancellationToken,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sources: Sources,
    pub(crate) runtime: Runtime,
}

/// Why an attempt must stop at once. What it did since its last commit is lost, and done again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Halt {
    /// The store refused the commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The actor went away.
    #[error("the actor has stopped")]
    Stopped,
}

impl Attempt {
    /// The actor.
    pub fn actor(&self) -> &ActorId {
        &self.actor
    }

    /// The submission that is worked on.
    pub fn submission(&self) -> &Submission {
        &self.submission
    }

    /// `attempt_…`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id of the span, within this attempt's, of what has this id.
    pub fn span_id(&self, id: &str) -> Option<String> {
        self.submission.trace().child(&self.id).child(id).span_id()
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// For reading; every write goes through [`Attempt::commit`].
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.sources.now()
    }

    /// Fires when the submission was aborted or its time is over.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Asks another actor, and waits for its reply. What this attempt has not committed is not seen
    /// there.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::request`], and `request_cyclic` when the other asks this actor on its way.
    pub async fn request(
        &self,
        to: &ActorId,
        body: serde_json::Value,
        within: Duration,
    ) -> Result<serde_json::Value, RuntimeError> {
        let asking = Asking {
            chain: [self.actor.clone()].into(),
            blocks: false,
        };
        self.runtime.request_as(asking, to, body, within).await
    }

    /// Replaces the state of the actor. When this returns, it is durable and announced.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::set_state`].
    pub async fn set_state(&self, new: NewState) -> Result<Version, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::SetState { new, reply })
            .await
            .map_err(|_| RuntimeError::Stopped)?;
        answer.await.map_err(|_| RuntimeError::Stopped)?
    }

    /// Commits a step and returns its records as they were stored. When this returns, the step is
    /// durable; nothing that the step explains may leave before.
    pub async fn commit(&self, step: Step) -> Result<Vec<StoredRecord>, Halt> {
        self.commit_joining(step, &[]).await
    }

    /// Commits a step that makes the inputs of these waiting submissions part of the history: they
    /// join this one and settle with it.
    pub async fn commit_joining(
        &self,
        step: Step,
        joined: &[Submission],
    ) -> Result<Vec<StoredRecord>, Halt> {
        let joined = joined
            .iter()
            .map(|submission| submission.id.clone())
            .collect();
        let (reply, answer) = oneshot::channel();
        let command = Command::Commit {
            attempt: self.id.clone(),
            step,
            joined,
            reply,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| Halt::Stopped)?;
        answer
            .await
            .map_err(|_| Halt::Stopped)?
            .map_err(Halt::Commit)
    }

    /// The submissions that wait behind this one and may join it, in order.
    pub async fn waiting(&self) -> Result<Vec<Submission>, Halt> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Waiting {
            attempt: self.id.clone(),
            reply,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| Halt::Stopped)?;
        answer.await.map_err(|_| Halt::Stopped)
    }
}
