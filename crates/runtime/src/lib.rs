//! Keeps one agent alive and single-writer.
//!
//! A tour:
//!
//! - [`node`]: [`Runtime`], the process that wakes actors, lets them sleep, and drains.
//! - `actor`: the mailbox task of one actor, its only committer and its supervisor.
//! - [`submission`]: the life of an input, and the [`Program`] that works on it.
//! - [`attempt`]: what a running attempt may ask of its actor.
//! - [`step`]: what one commit changes.
//! - [`effect`]: the ledger of what is done outside.
//! - [`fiber`]: checkpointed tasks that survive the process.
//! - [`message`]: durable messages and requests between actors.
//! - [`edit`]: what somebody outside may change while nothing runs.
//! - [`child`]: actors that go with the one they belong to.
//! - [`state`]: one JSON value of an actor, and those who follow it.
//! - [`budget`]: what a submission may use at most.
//! - [`alarm`]: schedules, and the one wake of each actor.
//! - [`stream`]: durable streams, which any number of readers follow.
//! - [`clock`]: time, randomness and ids, injected.
//! - [`census`]: what is counted for whoever watches; [`trace`]: which trace a submission belongs to.
//! - [`kind`]: the numbers of the record kinds.
//! - [`error`]: what callers are told.

mod actor;
pub mod alarm;
pub mod attempt;
pub mod budget;
pub mod census;
pub mod child;
pub mod clock;
pub mod edit;
pub mod effect;
pub mod error;
pub mod fiber;
pub mod kind;
pub mod message;
pub mod node;
pub mod state;
pub mod step;
pub mod stream;
pub mod submission;
pub mod trace;

pub use attempt::{Attempt, Halt};
pub use budget::Budget;
pub use clock::{Clock, Random, Sources, SystemClock, SystemRandom};
pub use edit::Edit;
pub use error::RuntimeError;
pub use message::{Call, Handled, Incoming};
pub use node::{Recovery, Runtime, RuntimeOptions};
pub use state::NewState;
pub use step::Step;
pub use submission::{
    Bounds, Closing, Failure, Finish, Instance, NewSubmission, Outcome, Program, Progress, Receipt,
    Settled, Submission,
};
pub use trace::Trace;
