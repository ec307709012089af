//! What comes in: submissions, requests to abort, and those who wait for an end.

use bowline_store::{Blob, Seq, Timestamp, Wake};

use super::{Actor, Reply, aborted, end, put};
use crate::{
    error::RuntimeError,
    step::{Step, json},
    submission::{
        self, Closing, MAX_INLINE, MAX_KEY, MAX_PAYLOAD, MAX_QUEUED, NewSubmission, Outcome,
        Receipt, Settled, State, Submission,
    },
};

impl Actor {
    /// One that steers goes before what a parked submission waits for: the request is withdrawn, and
    /// the parked one goes on, so that this one can join it.
    pub(super) async fn submit(
        &mut self,
        new: NewSubmission,
        steer: bool,
        at: Option<Seq>,
    ) -> Result<Receipt, RuntimeError> {
        if self.stopping {
            return Err(RuntimeError::Stopped);
        }
        let mut step = Step::new();
        let submission = match self.admit(new, &mut step).await? {
            Ok(submission) => submission,
            Err(known) => return Ok(known),
        };
        if at.is_some_and(|seq| seq != self.position.seq) {
            return Err(RuntimeError::Moved);
        }
        let receipt = Receipt {
            submission_id: submission.id.clone(),
            accepted_at: submission.accepted_at,
            deduplicated: false,
        };
        self.next_number += 1;
        if self.queue.is_empty() && self.running.is_none() {
            self.begin(submission, step).await?;
            self.parts.runtime.census().admitted();
            return Ok(receipt);
        }
        match self.parked().filter(|_| steer) {
            Some(parked) => {
                let mut instance = self.take_instance().await?;
                step.extend(instance.withdraw(&parked));
                self.unpark(parked, instance, step).await?;
            }
            None => {
                self.note(&mut step, "queued");
                self.commit(step, Wake::Keep).await?;
            }
        }
        self.queue.push_back(submission);
        self.parts.runtime.census().admitted();
        Ok(receipt)
    }

    /// The first submission, when it is parked and nobody asked to abort it.
    fn parked(&self) -> Option<Submission> {
        let first = self.queue.front()?;
        let waits =
            matches!(first.state, State::Parked { .. }) && first.abort_requested_at.is_none();
        (waits && self.running.is_none()).then(|| first.clone())
    }

    /// Adds a submission to a step, or finds the one that was admitted with its key before.
    pub(super) async fn admit(
        &mut self,
        new: NewSubmission,
        step: &mut Step,
    ) -> Result<Result<Submission, Receipt>, RuntimeError> {
        let digest = submission::digest(&new.payload);
        let id = match &new.key {
            Some(key) if key.is_empty() || key.len() > MAX_KEY => {
                return Err(RuntimeError::InvalidKey);
            }
            Some(key) => submission::keyed_id(&self.parts.id, key),
            None => self.parts.sources.id("sub_"),
        };
        if new.key.is_some()
            && let Some((accepted_at, known)) = self.find(&id).await?
        {
            if known != digest {
                return Err(RuntimeError::SubmissionConflict);
            }
            return Ok(Err(Receipt {
                submission_id: id,
                accepted_at,
                deduplicated: true,
            }));
        }
        if self.queue.len() >= MAX_QUEUED {
            return Err(RuntimeError::QueueFull);
        }
        let payload = json(&new.payload);
        if payload.len() > MAX_PAYLOAD {
            return Err(RuntimeError::TooLarge(payload.len()));
        }
        let large = (payload.len() > MAX_INLINE).then(|| Blob::new(payload));
        let submission = Submission {
            id,
            number: self.next_number,
            payload: new.payload,
            payload_blob: large.as_ref().map(|blob| blob.id.to_string()),
            digest,
            blobs: new.blobs.iter().map(|blob| blob.id.to_string()).collect(),
            accepted_at: self.parts.sources.now(),
            state: State::Queued,
            attempts: 0,
            deadline: None,
            after_seq: 0,
            abort_requested_at: None,
            traceparent: new.trace.map(|trace| trace.to_string()),
        };
        step.blobs.extend(new.blobs.into_iter().chain(large));
        put(step, &submission);
        Ok(Ok(submission))
    }

    async fn find(&self, id: &str) -> Result<Option<(Timestamp, String)>, RuntimeError> {
        if let Some(open) = self.queue.iter().find(|open| open.id == id) {
            return Ok(Some((open.accepted_at, open.digest.clone())));
        }
        let settled = submission::settled(&*self.parts.store, &self.parts.id, id).await?;
        Ok(settled.map(|settled| (settled.accepted_at, settled.digest)))
    }

    pub(super) async fn wait(&mut self, submission: String, reply: Reply<Option<Settled>>) {
        if self.queue.iter().any(|open| open.id == submission) {
            self.waiters.entry(submission).or_default().push(reply);
            return;
        }
        let settled = submission::settled(&*self.parts.store, &self.parts.id, &submission).await;
        let _ = reply.send(match settled {
            Ok(Some(settled)) => Ok(Some(settled)),
            Ok(None) => Err(RuntimeError::UnknownSubmission(submission)),
            Err(error) => Err(error.into()),
        });
    }

    pub(super) async fn abort(&mut self, target: Option<&str>) -> Result<bool, RuntimeError> {
        let now = self.parts.sources.now();
        let mut step = Step::new();
        let mut changed = Vec::new();
        for (index, open) in self.queue.iter().enumerate() {
            let meant = target.is_none_or(|id| open.id == id);
            if meant
                && open.abort_requested_at.is_none()
                && !matches!(open.state, State::Joined { .. })
            {
                let mut open = open.clone();
                open.abort_requested_at = Some(now);
                put(&mut step, &open);
                changed.push((index, open));
            }
        }
        let found = self
            .queue
            .iter()
            .any(|open| target.is_none_or(|id| open.id == id));
        if !step.is_empty() {
            self.note(&mut step, "abort requested");
            // Also what is parked for long must settle soon, should this process end before.
            self.commit(step, Wake::At(now)).await?;
            for (index, open) in changed {
                self.queue[index] = open;
            }
        }
        self.settle_withdrawn().await?;
        if let Some(running) = &mut self.running
            && self
                .queue
                .iter()
                .any(|open| open.id == running.submission && open.abort_requested_at.is_some())
        {
            end(running, Closing::Aborted, now.after(self.bounds.grace));
        }
        Ok(found)
    }

    /// Settles what was aborted before it began, where nothing runs: it does not wait for the parked
    /// one before it.
    async fn settle_withdrawn(&mut self) -> Result<(), RuntimeError> {
        while self.running.is_none() {
            let withdrawn = |open: &&Submission| {
                open.state == State::Queued && open.abort_requested_at.is_some()
            };
            let Some(open) = self.queue.iter().find(withdrawn).cloned() else {
                break;
            };
            self.settle(&open, Outcome::Aborted, Some(aborted()), Step::new())
                .await?;
        }
        Ok(())
    }
}
