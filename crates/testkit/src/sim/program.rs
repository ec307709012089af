//! A small program with every way to end, and a history that can be checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bowline_runtime::state::Proposed;
use bowline_runtime::{
    Attempt, Bounds, Call, Closing, Failure, Finish, Halt, Handled, Incoming, Instance,
    NewSubmission, Program, Progress, Step, Submission,
};
use bowline_store::{ActorId, Store, StoreError, StoredRecord};
use serde::{Deserialize, Serialize};

use super::journal::{Event, Journal};

/// Name of the simulated actors that belong to another one; their keys begin with its key.
pub const CHILD: &str = "child";

/// The input of a submission is part of the history. Body: its mark.
pub const INPUT: u16 = 60_001;
/// One step was done. Body: its number, from 0.
pub const STEP: u16 = 60_002;
/// The answer is complete.
pub const ANSWER: u16 = 60_003;
/// The submission was closed without an answer.
pub const CLOSED: u16 = 60_004;

/// What a parked submission waited for has come, or will not come any more.
pub const UNPARKED: u16 = 60_005;

/// What one submission does: the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Steps, one commit each.
    pub steps: u32,
    /// Milliseconds that each step takes before it is done.
    #[serde(default)]
    pub pause: u64,
    /// What happens after the last step.
    pub end: End,
    /// Takes in what waits, after each step.
    #[serde(default)]
    pub join: bool,
    /// Marks the submission in its input record; 0 is no mark.
    #[serde(default)]
    pub mark: u32,
    /// The key of an actor of the same kind and name that is told of the answer, with its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell: Option<String>,
    /// The key of an actor of the same kind and name that is asked before the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// Takes a child of its own, and tells it of the answer.
    #[serde(default)]
    pub child: bool,
}

impl Plan {
    /// Completes after this many steps.
    pub fn steps(steps: u32) -> Self {
        Self::ending(steps, End::Complete)
    }

    /// Ends in a given way after this many steps.
    pub fn ending(steps: u32, end: End) -> Self {
        Self {
            steps,
            pause: 0,
            end,
            join: false,
            mark: 0,
            tell: None,
            ask: None,
            child: false,
        }
    }

    /// Each step takes so long.
    #[must_use]
    pub fn pausing(mut self, pause: Duration) -> Self {
        self.pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Takes in what waits, after each step.
    #[must_use]
    pub fn joining(mut self) -> Self {
        self.join = true;
        self
    }

    /// As a payload.
    pub fn payload(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What happens after the last step of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The answer lands with the settlement.
    Complete,
    /// The answer lands in a commit of its own; the settlement follows.
    CompleteInTwo,
    /// It fails.
    Fail,
    /// It panics, each time.
    Panic,
    /// It panics in its first attempt, and completes in the next.
    PanicOnce,
    /// It waits for somebody, for two hours at most, and completes then.
    Park,
    /// It goes on until it is cancelled.
    Hold,
    /// It goes on for ever, and does not listen.
    Deaf,
}

/// The program: it works through the [`Plan`] of each submission.
#[derive(Debug)]
pub struct Planned {
    /// Where steps are written down when they are done, before their commit.
    pub journal: Arc<Journal>,
    /// Bounds of each submission.
    pub bounds: Bounds,
}

impl Planned {
    /// With default bounds.
    pub fn new(journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self {
            journal,
            bounds: Bounds::default(),
        })
    }
}

#[async_trait]
impl Program for Planned {
    async fn open(
        &self,
        actor: &ActorId,
        store: &Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure> {
        let records = store.read(actor, 0, usize::MAX).await;
        let records = records.map_err(|error| Failure::new(error.code(), error.to_string(), ""))?;
        let mut history = History {
            journal: self.journal.clone(),
            known: BTreeMap::new(),
        };
        history
            .apply(&records)
            .map_err(|error| Failure::new(error.code(), error.to_string(), ""))?;
        Ok(Box::new(history))
    }

    fn bounds(&self, _actor: &ActorId) -> Bounds {
        self.bounds
    }

    /// A state with the key `refused` is refused.
    fn validate_state(&self, _actor: &ActorId, change: &Proposed<'_>) -> Result<(), Failure> {
        match change.next.get("refused") {
            Some(_) => Err(Failure::new("planned", "it was planned to be refused", "")),
            None => Ok(()),
        }
    }

    /// A message admits a submission of one step; a request adds one to a row, and asks on when it
    /// is told to.
    async fn handle(&self, call: &Call, incoming: Incoming) -> Result<Handled, Failure> {
        match incoming {
            Incoming::Message { .. } => Ok(Handled::submit(NewSubmission {
                payload: Plan::steps(1).payload(),
                key: None,
                blobs: Vec::new(),
                trace: None,
            })),
            Incoming::Request { body, .. } => {
                let id = call.actor();
                let row = call.store().row(id, ASKED, ASKED.as_bytes()).await;
                let row = row.map_err(|error| Failure::new(error.code(), error.to_string(), ""))?;
                let before: u64 = row.map_or(0, |row| serde_json::from_slice(&row).unwrap_or(0));
                if let Some(next) = body.as_str().filter(|next| !next.is_empty()) {
                    let next = ActorId::new(id.kind(), id.name(), next);
                    let asked = call.request(&next, "".into(), ASK_WITHIN).await;
                    asked.map_err(|error| Failure::new(error.code(), error.to_string(), ""))?;
                }
                let mut step = Step::new();
                step.put(ASKED, ASKED.as_bytes(), &(before + 1));
                Ok(Handled {
                    step,
                    submit: None,
                    reply: (before + 1).into(),
                })
            }
        }
    }
}

/// The space, and the key, of the row that counts requests.
pub const ASKED: &str = "asked";
/// How long one simulated actor waits for another.
pub const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How long a parked submission waits.
const PARK: Duration = Duration::from_secs(7_200);

#[derive(Debug)]
struct History {
    journal: Arc<Journal>,
    known: BTreeMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    steps: BTreeSet<u32>,
    answered: bool,
    unparked: bool,
}

fn record(step: &mut Step, kind: u16, submission: &str, at: bowline_store::Timestamp, body: u32) {
    step.record(kind, at, &body).submission = Some(submission.to_owned());
}

#[async_trait]
impl Instance for History {
    fn accept(&mut self, submission: &Submission) -> Step {
        let mut step = Step::new();
        let mark = mark(submission);
        record(
            &mut step,
            INPUT,
            &submission.id,
            submission.accepted_at,
            mark,
        );
        step
    }

    fn apply(&mut self, records: &[StoredRecord]) -> Result<(), StoreError> {
        for stored in records {
            let Some(id) = &stored.record.submission else {
                continue;
            };
            let known = self.known.entry(id.clone());
            match stored.record.kind {
                INPUT => drop(known.or_default()),
                STEP => {
                    let number = number(stored)?;
                    known.or_default().steps.insert(number);
                }
                ANSWER => known.or_default().answered = true,
                UNPARKED => known.or_default().unparked = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn progress(&self, submission: &Submission) -> Progress {
        match self.known.get(&submission.id) {
            None => Progress::Absent,
            Some(known) if known.answered => Progress::Completed,
            Some(_) => Progress::Interrupted,
        }
    }

    async fn repair(&mut self, _submission: &Submission) -> Result<Step, StoreError> {
        Ok(Step::new())
    }

    async fn run(&mut self, attempt: &mut Attempt) -> Finish {
        match self.work(attempt).await {
            Ok(finish) => finish,
            Err(halt) => Finish::Halted(halt),
        }
    }

    fn answer(&mut self, submission: &Submission, _: &serde_json::Value) -> Result<Step, Failure> {
        Ok(self.expire(submission))
    }

    fn expire(&mut self, submission: &Submission) -> Step {
        let mut step = Step::new();
        record(
            &mut step,
            UNPARKED,
            &submission.id,
            submission.accepted_at,
            0,
        );
        step
    }

    fn close(&mut self, submission: &Submission, _closing: &Closing) -> Step {
        let mut step = Step::new();
        record(&mut step, CLOSED, &submission.id, submission.accepted_at, 0);
        step
    }
}

impl History {
    async fn work(&mut self, attempt: &Attempt) -> Result<Finish, Halt> {
        let submission = attempt.submission().clone();
        let Ok(plan) = serde_json::from_value::<Plan>(submission.payload.clone()) else {
            return Ok(Finish::Failed(Failure::new(
                "plan_invalid",
                "the payload is not a plan",
                "",
            )));
        };
        for number in 0..plan.steps {
            if self
                .known
                .get(&submission.id)
                .is_some_and(|known| known.steps.contains(&number))
            {
                continue;
            }
            let pause = tokio::time::sleep(Duration::from_millis(plan.pause));
            tokio::select! {
                biased;
                () = attempt.cancel().cancelled() => return Ok(Finish::Cancelled),
                () = pause, if plan.pause > 0 => {}
                () = std::future::ready(()), if plan.pause == 0 => {}
            }
            self.journal.push(Event::Executed {
                actor: attempt.actor().clone(),
                submission: submission.id.clone(),
                step: number,
            });
            let mut step = Step::new();
            record(&mut step, STEP, &submission.id, attempt.now(), number);
            let joined = if plan.join {
                attempt.waiting().await?
            } else {
                Vec::new()
            };
            for one in &joined {
                record(&mut step, INPUT, &one.id, attempt.now(), mark(one));
            }
            let records = attempt.commit_joining(step, &joined).await?;
            let applied = self.apply(&records);
            if let Err(error) = applied {
                return Ok(Finish::Failed(Failure::new(
                    error.code(),
                    error.to_string(),
                    "",
                )));
            }
        }
        self.end(attempt, &plan).await
    }

    async fn end(&mut self, attempt: &Attempt, plan: &Plan) -> Result<Finish, Halt> {
        let submission = attempt.submission();
        let id = attempt.actor();
        let peer = |key: &str| ActorId::new(id.kind(), id.name(), key);
        if let Some(other) = &plan.ask {
            // It may well be this very actor, or one that asks back.
            let other = peer(other);
            let asked = attempt.request(&other, id.key().into(), ASK_WITHIN);
            tokio::select! {
                biased;
                () = attempt.cancel().cancelled() => return Ok(Finish::Cancelled),
                _ = asked => {}
            }
        }
        let mut answer = Step::new();
        record(&mut answer, ANSWER, &submission.id, attempt.now(), 0);
        if let Some(other) = &plan.tell {
            answer.send(&peer(other), &submission.id, &0, attempt.now());
        }
        if plan.child {
            let key = format!("{}/{}", id.key(), submission.id);
            let child = ActorId::new(id.kind(), CHILD, &key);
            answer.own(&child);
            answer.send(&child, &submission.id, &0, attempt.now());
        }
        match plan.end {
            End::Park
                if !self
                    .known
                    .get(&submission.id)
                    .is_some_and(|known| known.unparked) =>
            {
                Ok(Finish::Parked {
                    step: Step::new(),
                    until: attempt.now().after(PARK),
                })
            }
            End::Park => Ok(Finish::Completed(answer)),
            End::Complete => Ok(Finish::Completed(answer)),
            End::CompleteInTwo => {
                attempt.commit(answer).await?;
                Ok(Finish::Completed(Step::new()))
            }
            End::Fail => Ok(Finish::Failed(Failure::new(
                "planned",
                "it was planned to fail",
                "",
            ))),
            End::PanicOnce if submission.attempts > 1 => Ok(Finish::Completed(answer)),
            // A panic without the report on stderr.
            End::Panic | End::PanicOnce => std::panic::resume_unwind(Box::new("a planned panic")),
            End::Hold => {
                attempt.cancel().cancelled().await;
                Ok(Finish::Cancelled)
            }
            End::Deaf => std::future::pending().await,
        }
    }
}

fn mark(submission: &Submission) -> u32 {
    let mark = submission
        .payload
        .get("mark")
        .and_then(serde_json::Value::as_u64);
    mark.and_then(|mark| u32::try_from(mark).ok()).unwrap_or(0)
}

/// The number of a [`STEP`] record, or the mark of an [`INPUT`] record.
///
/// # Errors
///
/// When the body is not a number.
pub fn number(stored: &StoredRecord) -> Result<u32, StoreError> {
    serde_json::from_slice(&stored.record.body)
        .map_err(|error| StoreError::Corrupt(format!("a step record does not decode: {error}")))
}
