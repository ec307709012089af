//! Messages and requests of a live actor, one at a time, beside its mailbox.

use std::collections::VecDeque;

use bowline_store::{InboxMessage, Wake};
use serde_json::Value;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::{Actor, Reply};
use crate::{
    error::RuntimeError,
    kind,
    message::{self, Call, HANDLE_WITHIN, Handled, Incoming, MAX_REQUESTS, Request, Taken},
    submission::{Failure, Submission},
};

/// Messages that are read at once.
const PAGE: usize = 64;

/// What an actor has to handle.
#[derive(Default)]
pub(super) struct Desk {
    /// There may be messages in the store that were not read.
    pub(super) unread: bool,
    /// Messages could not be taken for now; the supervisor wakes the actor for them later.
    pub(super) left: bool,
    /// Messages wait in the store for room in the queue.
    pub(super) crowded: bool,
    messages: VecDeque<InboxMessage>,
    requests: VecDeque<(Request, Reply<Value>)>,
    pub(super) busy: Option<Busy>,
}

/// What is being handled.
pub(super) struct Busy {
    what: What,
    /// Ends with the actor.
    task: AbortOnDropHandle<Result<Handled, Failure>>,
}

enum What {
    Message(InboxMessage),
    Request(Reply<Value>),
}

type Ended = Result<Result<Handled, Failure>, JoinError>;

impl Desk {
    /// With messages in the store that may wait for room.
    pub(super) fn new(crowded: bool) -> Self {
        Self {
            crowded,
            ..Self::default()
        }
    }

    /// True when nothing waits and nothing is handled.
    pub(super) fn is_clear(&self) -> bool {
        self.busy.is_none() && !self.unread && self.messages.is_empty() && self.requests.is_empty()
    }

    /// Waits until what is handled comes to its end; for ever when there is nothing.
    pub(super) async fn ended(&mut self) -> Ended {
        match &mut self.busy {
            Some(busy) => (&mut busy.task).await,
            None => std::future::pending().await,
        }
    }
}

impl Actor {
    pub(super) fn ask(&mut self, request: Request, reply: Reply<Value>) {
        if self.stopping {
            let _ = reply.send(Err(RuntimeError::Stopped));
        } else if self.desk.requests.len() >= MAX_REQUESTS {
            let _ = reply.send(Err(RuntimeError::RequestsFull));
        } else {
            self.desk.requests.push_back((request, reply));
        }
    }

    /// Begins with the next request or message. Messages wait while the queue is full, since each
    /// may admit a submission.
    pub(super) async fn handle_next(&mut self) -> Result<(), RuntimeError> {
        if self.stopping || self.desk.busy.is_some() {
            return Ok(());
        }
        if !self.has_room() && (self.desk.unread || !self.desk.messages.is_empty()) {
            self.desk.messages.clear();
            (self.desk.unread, self.desk.crowded) = (false, true);
        }
        if self.desk.unread && self.desk.messages.is_empty() {
            let found = self.parts.store.inbox(&self.parts.id, PAGE).await?;
            self.desk.unread = found.len() == PAGE;
            self.desk.messages = found.into();
        }
        // Requests go first: somebody waits for them, and each actor has a bounded number.
        while let Some((request, reply)) = self.desk.requests.pop_front() {
            if reply.is_closed() {
                continue;
            }
            let from = request.chain.last().cloned();
            let incoming = Incoming::Request {
                from,
                body: request.body,
            };
            let mut chain = request.chain.to_vec();
            chain.push(self.parts.id.clone());
            self.handle_beside(What::Request(reply), incoming, chain, request.within);
            return Ok(());
        }
        let Some(message) = self.desk.messages.pop_front() else {
            return Ok(());
        };
        match serde_json::from_slice(&message.body) {
            Ok(body) => {
                let incoming = Incoming::Message {
                    id: message.id.clone(),
                    from: message.from.clone(),
                    body,
                };
                let chain = vec![self.parts.id.clone()];
                self.handle_beside(What::Message(message), incoming, chain, HANDLE_WITHIN);
                Ok(())
            }
            Err(error) => self.take(&message, Err(message::not_json(&error))).await,
        }
    }

    fn handle_beside(
        &mut self,
        what: What,
        incoming: Incoming,
        chain: Vec<bowline_store::ActorId>,
        within: std::time::Duration,
    ) {
        let call = Call {
            actor: self.parts.id.clone(),
            runtime: self.parts.runtime.clone(),
            chain: chain.into(),
        };
        let program = self.parts.program.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let handling = program.handle(&call, incoming);
            tokio::time::timeout(within, handling)
                .await
                .unwrap_or_else(|_| Err(message::broke("took too long")))
        }));
        self.desk.busy = Some(Busy { what, task });
    }

    pub(super) async fn handled(&mut self, ended: Ended) -> Result<(), RuntimeError> {
        let Some(Busy { what, .. }) = self.desk.busy.take() else {
            return Ok(());
        };
        let ended = ended.unwrap_or_else(|_| Err(message::broke("panicked")));
        let ended = ended.and_then(|handled| {
            if handled.step.records.is_empty() {
                Ok(handled)
            } else {
                Err(message::broke("wrote records, which only attempts do"))
            }
        });
        match what {
            What::Message(message) => self.take(&message, ended).await,
            What::Request(reply) if reply.is_closed() => Ok(()),
            What::Request(reply) => {
                let outcome = match ended {
                    Ok(handled) => self.reply(handled).await,
                    Err(failure) => Err(failure.into()),
                };
                super::answer(reply, outcome)
            }
        }
    }

    /// What a request changed is durable before its reply leaves.
    async fn reply(&mut self, handled: Handled) -> Result<Value, RuntimeError> {
        let Handled {
            mut step,
            submit,
            reply,
        } = handled;
        let admitted = match submit {
            Some(new) => self.admit(new, &mut step).await?.ok(),
            None => None,
        };
        if !step.is_empty() {
            self.note(&mut step, "request handled");
            let wake = self.wake_with(admitted.is_some());
            self.commit(step, wake).await?;
            self.join_queue(admitted);
        }
        Ok(reply)
    }

    /// The message is taken in one commit with what came of it. One that cannot be handled is taken
    /// as well, so that it does not hold up the others for ever.
    async fn take(
        &mut self,
        message: &InboxMessage,
        handled: Result<Handled, Failure>,
    ) -> Result<(), RuntimeError> {
        let (handled, error) = match handled {
            Ok(handled) => (handled, None),
            Err(failure) => (Handled::default(), Some(failure)),
        };
        let (outcome, fault) = self.try_take(message, handled, error).await;
        match (outcome, fault) {
            // What the handler wants cannot be stored, and never will be.
            (Err(error), true) if !error.is_fatal() => {
                let failure = Failure::new(error.code(), error.to_string(), "");
                self.try_take(message, Handled::default(), Some(failure))
                    .await
                    .0
            }
            (outcome, _) => outcome,
        }
    }

    /// Also says whether another outcome may be tried: the disk being full is no fault of the message.
    async fn try_take(
        &mut self,
        message: &InboxMessage,
        handled: Handled,
        error: Option<Failure>,
    ) -> (Result<(), RuntimeError>, bool) {
        let Handled {
            mut step, submit, ..
        } = handled;
        if let Some(error) = &error {
            tracing::warn!(actor = %self.parts.id, message = message.id, cause = %error, "a message was refused");
        }
        let admitted = match submit {
            Some(new) => match self.admit(new, &mut step).await {
                Ok(admitted) => admitted.ok(),
                Err(error) => return (Err(error), true),
            },
            None => None,
        };
        let taken = Taken {
            message_id: message.id.clone(),
            from: message.from.as_ref().map(ToString::to_string),
            error,
        };
        step.record(kind::MESSAGE_TAKEN, self.parts.sources.now(), &taken);
        let wake = self.wake_with(admitted.is_some());
        match self
            .commit_taking(step, wake, vec![message.id.clone()])
            .await
        {
            Ok(_) => {
                self.join_queue(admitted);
                (Ok(()), false)
            }
            Err(error) => {
                let full = matches!(error, bowline_store::CommitError::Full);
                if full {
                    // It stays in the store. An attempt goes on; without one the actor stops, and is
                    // tried again later.
                    self.desk.messages.clear();
                    (self.desk.unread, self.desk.left) = (false, true);
                    if self.running.is_some() {
                        return (Ok(()), false);
                    }
                }
                (Err(error.into()), !full)
            }
        }
    }

    /// What was admitted is durable.
    fn join_queue(&mut self, admitted: Option<Submission>) {
        if let Some(admitted) = admitted {
            self.next_number += 1;
            self.queue.push_back(admitted);
            self.parts.runtime.census().admitted();
        }
    }

    fn wake_with(&self, admitted: bool) -> Wake {
        if admitted && self.queue.is_empty() {
            Wake::At(self.parts.sources.now())
        } else {
            Wake::Keep
        }
    }
}
