//! A computer to act on: durable workspace, virtual shell, search.

pub mod search;
pub mod shell;
pub mod tools;
pub mod workspace;
