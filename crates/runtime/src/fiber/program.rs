//! The program that runs fibers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bowline_store::{ActorId, Store, StoreError, StoredRecord, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ACCEPTED, Accepted, Fiber, Handler, Handlers, INTERRUPTED, RESOLUTION, RESULT, Reason,
    Recovered, Resolution, SPACE, STASH, Stop, bounded, not_json, put, row, unknown,
};
use crate::{
    attempt::Attempt,
    kind,
    step::Step,
    submission::{
        Bounds, Closing, Failure, Finish, Instance, Program, Progress, State, Submission,
    },
};

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
        let resolution = row(&**store, actor, RESOLUTION).await.map_err(failed)?;
        let handler = self.0.get(actor.name()).cloned();
        Ok(Box::new(Opened {
            resolution,
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
    /// What somebody decided about it.
    resolution: Option<Resolution>,
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
        let corrupt =
            |error| StoreError::Corrupt(format!("a fiber record does not decode: {error}"));
        for stored in records {
            let body = &stored.record.body;
            if stored.record.kind == kind::FIBER_ACCEPTED {
                self.accepted = Some(serde_json::from_slice(body).map_err(corrupt)?);
            } else if stored.record.kind == kind::FIBER_RESOLVED {
                let resolution = serde_json::from_slice(body).map_err(corrupt)?;
                if let Resolution::Resume { stash: Some(stash) } = &resolution {
                    self.stash = Some(stash.clone());
                }
                self.resolution = Some(resolution);
            } else if stored.record.kind == kind::FIBER_INTERRUPTED {
                self.resolution = None;
            }
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
        let mut reason = Reason::Interrupted;
        match self.resolution.take() {
            Some(Resolution::Completed { result }) => return completed(&result),
            Some(Resolution::Failed { error }) => return Finish::Failed(error),
            Some(Resolution::Resume { .. }) => reason = Reason::Resumed,
            None => {}
        }
        // It may be interrupted, and go on with this very instance.
        let recovered = std::mem::replace(&mut self.recovered, true);
        let mut fiber = Fiber {
            attempt,
            accepted,
            stash: self.stash.take(),
        };
        let cancel = attempt.cancel().clone();
        let work = async {
            if recovered {
                let (attempt, stash) = (attempt.submission().attempts, fiber.stash.clone());
                let recovered = Recovered {
                    reason,
                    attempt,
                    stash,
                };
                handler.on_recovered(&mut fiber, recovered).await
            } else {
                handler.run(&mut fiber).await
            }
        };
        let ended = tokio::select! {
            biased;
            // First, so that a late result never replaces a cancellation.
            () = cancel.cancelled() => return Finish::Cancelled,
            ended = work => ended,
        };
        self.stash = fiber.stash.take();
        match ended {
            Ok(result) => completed(&result),
            Err(Stop::Failed(failure)) => Finish::Failed(failure),
            Err(Stop::Interrupted { reason, within }) => {
                let until = attempt.now().after(within);
                let mut step = Step::new();
                let body = serde_json::json!({ "reason": reason, "until": until });
                step.record(kind::FIBER_INTERRUPTED, attempt.now(), &body);
                step.put(SPACE, INTERRUPTED, &reason);
                step.delete(SPACE, RESOLUTION);
                Finish::Parked { step, until }
            }
            Err(Stop::Halted(halt)) => Finish::Halted(halt),
        }
    }

    fn answer(&mut self, _submission: &Submission, answer: &Value) -> Result<Step, Failure> {
        let resolved: Resolved = serde_json::from_value(answer.clone())
            .map_err(|error| not_json("the resolution", &error))?;
        match &resolved.resolution {
            Resolution::Completed { result: value } | Resolution::Resume { stash: Some(value) } => {
                drop(bounded("the value", value)?)
            }
            Resolution::Failed { .. } | Resolution::Resume { stash: None } => {}
        }
        Ok(resolved.step())
    }

    fn expire(&mut self, submission: &Submission) -> Step {
        let time = match submission.state {
            State::Parked { until, .. } => until,
            State::Queued | State::Running | State::Joined { .. } => submission.accepted_at,
        };
        let error = unresolved();
        let resolution = Resolution::Failed { error };
        Resolved { resolution, time }.step()
    }

    fn close(&mut self, _submission: &Submission, _closing: &Closing) -> Step {
        Step::new()
    }
}

/// What was decided, and when.
#[derive(Serialize, Deserialize)]
pub(super) struct Resolved {
    #[serde(flatten)]
    pub(super) resolution: Resolution,
    pub(super) time: Timestamp,
}

impl Resolved {
    fn step(&self) -> Step {
        let mut step = Step::new();
        step.record(kind::FIBER_RESOLVED, self.time, &self.resolution);
        step.put(SPACE, RESOLUTION, &self.resolution);
        if let Resolution::Resume { stash: Some(stash) } = &self.resolution {
            step.put(SPACE, STASH, stash);
        }
        step
    }
}

fn completed(result: &Value) -> Finish {
    match bounded("the result", result) {
        Ok(bytes) => Finish::Completed(Step {
            rows: vec![put(RESULT, bytes)],
            ..Step::new()
        }),
        Err(failure) => Finish::Failed(failure),
    }
}

fn unresolved() -> Failure {
    Failure::new(
        "fiber_unresolved",
        "nobody decided in time what becomes of the interrupted fiber",
        "start it again when it is known what it did",
    )
}
