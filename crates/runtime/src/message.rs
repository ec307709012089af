//! What actors say to each other: durable messages, and requests with a deadline.
//!
//! A **message** is part of the step of its sender ([`Step::send`](crate::Step::send)): durable with
//! it, it reaches its receiver exactly once by its id, and what the receiver does about it is one
//! commit together with the taking. It is carried while somebody runs
//! [`Runtime::supervise`](crate::Runtime::supervise).
//!
//! A **request** waits for a reply until a deadline, and is not durable by itself; what its handling
//! changed is durable before the reply leaves. Two actors that would wait for each other are told so.
//!
//! Both are handled by [`Program::handle`](crate::Program::handle) of the receiver's kind, one at a
//! time for each actor, beside its mailbox and beside its running attempt.

use std::{sync::Arc, time::Duration};

use bowline_store::{ActorId, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock::Sources,
    error::RuntimeError,
    node::Runtime,
    step::Step,
    submission::{Failure, NewSubmission},
};

/// Time to handle one message; a handler that takes longer has failed.
pub const HANDLE_WITHIN: Duration = Duration::from_secs(30);
/// Usual deadline of a request.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// Longest deadline of a request; a longer one is cut to this.
pub const MAX_REQUEST_WITHIN: Duration = Duration::from_secs(3_600);
/// Most requests that wait at one actor.
pub const MAX_REQUESTS: usize = 256;
/// Most actors that wait for each other in one chain of requests.
pub const MAX_CHAIN: usize = 16;

/// What an actor is asked to handle.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A message; nobody waits for a reply.
    Message {
        /// Unique within the receiver.
        id: String,
        /// The sender, where it is an actor.
        from: Option<ActorId>,
        /// What it says.
        body: Value,
    },
    /// A request; the reply goes back.
    Request {
        /// The actor that asks; `None` for a caller outside.
        from: Option<ActorId>,
        /// What it asks.
        body: Value,
    },
}

/// What handling comes to. The step, the submission and the taking of the message are one commit.
#[derive(Debug, Default)]
pub struct Handled {
    /// Rows, blobs, messages and children. It holds no records: history is what attempts write.
    pub step: Step,
    /// A submission to admit to this very actor.
    pub submit: Option<NewSubmission>,
    /// The reply to a request; nobody reads that of a message.
    pub reply: Value,
}

impl Handled {
    /// A reply, and nothing changes.
    pub fn reply(reply: Value) -> Self {
        Self {
            reply,
            ..Self::default()
        }
    }

    /// A step, with the reply `null`.
    pub fn step(step: Step) -> Self {
        Self {
            step,
            ..Self::default()
        }
    }

    /// A submission to this very actor, with the reply `null`.
    pub fn submit(new: NewSubmission) -> Self {
        Self {
            submit: Some(new),
            ..Self::default()
        }
    }
}

/// What a handler may use.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) actor: ActorId,
    pub(crate) runtime: Runtime,
    /// Who waits for this call, and for whom; the last is this actor.
    pub(crate) chain: Arc<[ActorId]>,
}

impl Call {
    /// The actor that handles.
    pub fn actor(&self) -> &ActorId {
        &self.actor
    }

    /// For reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.runtime.store()
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        self.runtime.sources()
    }

    /// Asks another actor. It handles nothing else while it waits.
    ///
    /// # Errors
    ///
    /// Those of [`Runtime::request`], and `request_cyclic` when the other waits for this one.
    pub async fn request(
        &self,
        to: &ActorId,
        body: Value,
        within: Duration,
    ) -> Result<Value, RuntimeError> {
        let asking = Asking {
            chain: self.chain.clone(),
            blocks: true,
        };
        self.runtime.request_as(asking, to, body, within).await
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) chain: Arc<[ActorId]>,
    /// True when the last of the chain handles nothing while it waits.
    pub(crate) blocks: bool,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) chain: Arc<[ActorId]>,
    pub(crate) body: Value,
    pub(crate) within: Duration,
}

/// Body of the record of a message that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The message.
    pub message_id: String,
    /// `kind/name/key` of the sender, where it is an actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Why it could not be handled; it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

pub(crate) fn unhandled(actor: &ActorId) -> Failure {
    Failure::new(
        "message_unhandled",
        format!(
            "actors of the kind {} take no messages and requests",
            actor.kind()
        ),
        "give their program a `handle`, or ask another actor",
    )
}

pub(crate) fn not_json(error: &serde_json::Error) -> Failure {
    let hint = "send JSON";
    Failure::new(
        "message_not_json",
        format!("the body of the message is not JSON: {error}"),
        hint,
    )
}

pub(crate) fn broke(what: &str) -> Failure {
    let hint = "see the log of the process; what the handler had not committed did not happen";
    Failure::new(
        "handler_failed",
        format!("the handler of the message {what}"),
        hint,
    )
}
