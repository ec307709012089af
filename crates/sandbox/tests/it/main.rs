//! Integration tests of the sandbox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod archives;
mod bash_peer;
mod curl;
mod egress;
mod feed;
mod fuzz;
mod git;
mod git_hostile;
mod git_remote;
mod grep_command;
mod host;
mod isolate;
mod kills;
mod limits;
mod matching;
mod operations;
mod overlays;
mod patches;
mod peer_defects;
mod quotas;
mod real_directory;
mod search;
mod shell;
mod snapshots;
mod sqlite;
mod streams;
mod support;
mod tools;
mod typescript;
mod workspace;
