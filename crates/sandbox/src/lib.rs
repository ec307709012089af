//! A computer to act on: durable workspace, virtual shell, search.
//!
//! A tour:
//!
//! - [`workspace`]: a filesystem in the store's rows and blobs; overlays hold the writes of a step
//!   until they commit together with its result.
//! - [`shell`]: a virtual bash over an overlay, without host processes and host files; network only by [`egress`].
//! - [`git`]: version control over a workspace, in git's own formats.
//! - [`host`]: a directory of the machine in place of a workspace, with real, confined processes.
//! - [`search`]: glob, grep, diff and patch, with ripgrep's libraries.
//! - [`archive`]: tar and zip, safe to unpack; [`json`]: queries and changes by JSONPath; [`digest`].
//! - [`edits`]: changes of several files, all or none, that notice a changed base.
//! - [`isolate`]: JavaScript and TypeScript in throw-away isolates that can be saved while they wait.
//! - [`typescript`]: what a typed function says about itself, as JSON Schema.
//! - [`egress`]: requests over HTTP, by allow-list; who has sockets implements its `Wire`.
//! - [`tools`]: `read`, `write`, `edit`, `bash`, `grep` and `glob` as a model gets them.
//!
//! Nothing here reads a clock: writes get the time that their overlay was begun with.

pub mod archive;
mod deep;
pub mod digest;
pub mod edits;
pub mod egress;
pub mod git;
pub mod host;
pub mod isolate;
pub mod json;
pub mod search;
pub mod shell;
pub mod tools;
pub mod typescript;
pub mod workspace;
