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
//! - [`alarm`]: schedules, and the one wake of each actor.
//! - [`clock`]: time, randomness and ids, injected.
//! - [`kind`]: the numbers of the record kinds.
//! - [`error`]: what callers are told.

mod actor;
pub mod alarm;
pub mod attempt;
pub mod clock;
pub mod effect;
pub mod error;
pub mod fiber;
pub mod kind;
pub mod node;
pub mod step;
pub mod submission;

pub use attempt::{Attempt, Halt};
pub use clock::{Clock, Random, Sources, SystemClock, SystemRandom};
pub use error::RuntimeError;
pub use node::{Runtime, RuntimeOptions};
pub use step::Step;
pub use submission::{
    Bounds, Closing, Failure, Finish, Instance, NewSubmission, Outcome, Program, Progress, Receipt,
    Settled, Submission,
};
