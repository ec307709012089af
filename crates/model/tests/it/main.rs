//! The tests of this crate that need no private access, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod cassettes;
mod catalog;
mod certificates;
mod clouds;
mod conversations;
mod failures;
mod gateway;
mod handoff;
mod messages;
mod overflow;
mod providers;
mod resolve;
mod retry;
mod scripted;
mod servers;
mod sse;
mod throughput;
mod transcripts;
mod unknown_tool;
