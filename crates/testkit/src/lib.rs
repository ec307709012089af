//! Development only: seeded clock, kill harness, fake provider server, golden files.
//!
//! - [`canary`]: keys, and the proof that they come to rest nowhere.
//! - [`git`]: repositories served by the machine's git. [`place`]: a directory for an agent and one beside it.
//! - [`seeded`]: a clock, randomness and ids that a seed decides.
//! - [`faults`]: a store that dies where a test wants.
//! - [`sim`]: whole worlds of processes, kills and faults that a seed decides.
//! - [`provider`]: a model provider's server that says what a test wants, in the real wire formats.

pub mod canary;
pub mod faults;
pub mod git;
pub mod place;
pub mod provider;
pub mod seeded;
pub mod sim;
