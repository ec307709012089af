//! Prints what group commit keeps, beside one transaction for each append. Arguments: rounds
//! (default 5), milliseconds for each measurement (default 800), directory (default: a temporary
//! one under the target directory, which is on the disk that matters more often than `/tmp` is).
#![allow(clippy::print_stdout, dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use bowline_store::{
    ActorId, Batch, CommitError, Record, SqliteOptions, SqliteStore, Store, Timestamp,
};

// The same file as in the library, where it is behind the feature `bench`.
#[path = "../src/measure.rs"]
mod measure;

fn main() -> std::io::Result<()> {
    let given: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let number = |at: usize, default| {
        given
            .get(at)
            .and_then(|arg| arg.parse().ok())
            .unwrap_or(default)
    };
    let root = given
        .get(2)
        .map_or(env!("CARGO_TARGET_TMPDIR"), String::as_str);
    let dir = tempfile::tempdir_in(root)?;
    let rounds = usize::try_from(number(0, 5)).unwrap_or(5);
    println!(
        "{}",
        measure::appends(dir.path(), rounds, Duration::from_millis(number(1, 800)))?
    );
    Ok(())
}
