//! The binary, as somebody who types sees it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod access;
mod administration;
mod approval;
mod bad_input;
mod bench;
mod chat;
mod clients;
mod code;
mod code_runs;
mod compact;
mod config;
mod continuing;
mod dev;
mod egress;
mod getting_started;
mod help;
mod host;
mod house;
mod kill;
mod local;
mod npm;
mod openapi;
mod operations;
mod read;
mod repl;
mod run;
mod serve;
mod sockets;
mod spend;
mod stop;
mod streams;
mod streams_process;
mod terminal;
mod triage;
mod wires;
mod workspace;
mod world;
