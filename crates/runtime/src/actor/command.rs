//! What the mailbox of an actor takes.

use bowline_store::{CommitError, Seq, StoredRecord};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    alarm::{NewSchedule, Schedule},
    edit::Edit,
    error::RuntimeError,
    message::Request,
    state::{self, NewState},
    step::Step,
    submission::{NewSubmission, Receipt, Settled, Submission},
};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, RuntimeError>>;

/// What the mailbox takes.
#[derive(Debug)]
pub(crate) enum Command {
    /// Admit a submission; one that steers withdraws what a parked one waits for.
    Submit {
        new: NewSubmission,
        steer: bool,
        /// Only while this is the last sequence.
        at: Option<Seq>,
        reply: Reply<Receipt>,
    },
    /// Abort one submission, or each open one.
    Abort {
        submission: Option<String>,
        reply: Reply<bool>,
    },
    /// Take in what a parked submission waits for.
    Answer { answer: Value, reply: Reply<String> },
    /// Tell when a submission settles; `None` when the actor falls asleep before.
    Wait {
        submission: String,
        reply: Reply<Option<Settled>>,
    },
    /// Go on with what is open, due or in the inbox; tells when that has begun.
    Wake { begun: Option<oneshot::Sender<()>> },
    /// Register a schedule.
    Schedule {
        new: NewSchedule,
        reply: Reply<Schedule>,
    },
    /// Cancel a schedule.
    Unschedule { id: String, reply: Reply<bool> },
    /// Answer another actor, or a caller outside.
    Request {
        request: Request,
        reply: Reply<Value>,
    },
    /// Make a change that is asked for from outside.
    Edit { edit: Edit, reply: Reply<Value> },
    /// Replace the state.
    SetState {
        new: NewState,
        reply: Reply<state::Version>,
    },
    /// Commit a step of the running attempt.
    Commit {
        attempt: String,
        step: Step,
        joined: Vec<String>,
        reply: oneshot::Sender<Result<Vec<StoredRecord>, CommitError>>,
    },
    /// The submissions that may join the running one.
    Waiting {
        attempt: String,
        reply: oneshot::Sender<Vec<Submission>>,
    },
    /// Stop without settling; what is open goes on when the actor wakes again.
    Stop,
}

impl Command {
    /// Answers a message that came too late.
    pub(crate) fn refuse(self, error: &RuntimeError) {
        match self {
            Self::Submit { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Abort { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Answer { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Wait { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Schedule { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Unschedule { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Request { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Edit { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::SetState { reply, .. } => drop(reply.send(Err(error.clone()))),
            // The attempt sees its reply dropped, and halts.
            Self::Wake { .. } | Self::Stop | Self::Commit { .. } | Self::Waiting { .. } => {}
        }
    }
}
