//! Integration tests of the crate, one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod approval;
mod binding;
mod code;
mod compaction;
mod declare;
mod defects;
mod definition;
mod feed;
mod network;
mod result;
mod script;
mod skill;
mod stage;
mod turn;
mod validate;
mod window;
