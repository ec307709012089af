//! Tests of the store through its public interface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod capacity;
mod child;
mod conformance;
mod damage;
mod dump;
mod durability;
mod files;
mod group;
mod model;

use std::{path::Path, sync::Arc};

use bowline_store::{ActorId, Batch, Record, RowChange, SqliteOptions, SqliteStore, Timestamp};
use bytes::Bytes;

fn open(dir: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(dir, SqliteOptions::default()).unwrap()
}

fn actor(key: &str) -> ActorId {
    ActorId::new("agent", "test", key)
}

fn record(body: impl Into<Bytes>) -> Record {
    Record {
        kind: 1,
        version: 1,
        time: Timestamp::from_millis(0),
        conversation: "conv_01JD9Z8Y7X6W5V4T3S2R1Q0P9N".into(),
        submission: None,
        attempt: None,
        turn: None,
        body: body.into(),
        blobs: Vec::new(),
    }
}

/// One record, in epoch 1.
fn append(actor: &ActorId, expected: u64, body: impl Into<Bytes>) -> Batch {
    let mut batch = Batch::new(actor.clone(), 1, expected);
    batch.records.push(record(body));
    batch
}

fn put(space: &'static str, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> RowChange {
    RowChange::Put {
        space,
        key: key.into(),
        value: value.into(),
        blobs: Vec::new(),
    }
}
