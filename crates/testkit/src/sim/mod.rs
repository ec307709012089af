//! Deterministic simulation: clients, processes, kills and store faults that one seed decides.
//!
//! [`run`] builds a world on a paused, single-threaded tokio, lets it live, and checks what it left
//! behind. The same seed always gives the same world.
//!
//! - [`clock`]: a clock that follows tokio's paused one.
//! - [`journal`]: what happened, in order.
//! - [`fiber`]: a fiber with every way to end.
//! - [`program`]: a small program with every way to end.
//! - [`store`]: the store of one process, with its faults.
//! - [`world`]: clients, kills, drains and restarts.
//! - [`check`]: what must hold at the end.

pub mod check;
pub mod clock;
pub mod fiber;
pub mod journal;
pub mod program;
pub mod store;
pub mod world;

pub use world::{Summary, run};
