//! What one step of an actor changes.

use bowline_store::{Blob, OutboxMessage, Record, RowChange, Timestamp};
use bytes::Bytes;
use serde::Serialize;

/// The changes of one step. The actor's mailbox task, which alone knows where the actor stands,
/// turns it into a batch and commits it.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Appended in order.
    pub records: Vec<Record>,
    /// Applied in order.
    pub rows: Vec<RowChange>,
    /// Bytes that the records or rows of this step refer to.
    pub blobs: Vec<Blob>,
    /// Messages to other actors.
    pub outbox: Vec<OutboxMessage>,
}

impl Step {
    /// A step that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.rows.is_empty()
            && self.blobs.is_empty()
            && self.outbox.is_empty()
    }

    /// Adds what another step changes, after what this one does.
    pub fn extend(&mut self, other: Step) {
        self.records.extend(other.records);
        self.rows.extend(other.rows);
        self.blobs.extend(other.blobs);
        self.outbox.extend(other.outbox);
    }

    /// Writes a row as JSON.
    pub fn put(&mut self, space: &'static str, key: impl Into<Vec<u8>>, value: &impl Serialize) {
        self.rows.push(RowChange::Put {
            space,
            key: key.into(),
            value: json(value),
            blobs: Vec::new(),
        });
    }

    /// Removes a row.
    pub fn delete(&mut self, space: &'static str, key: impl Into<Vec<u8>>) {
        self.rows.push(RowChange::Delete {
            space,
            key: key.into(),
        });
    }

    /// Appends a record of the actor itself; conversation records are made by their own layer.
    pub fn record(&mut self, kind: u16, time: Timestamp, body: &impl Serialize) -> &mut Record {
        self.records.push(Record {
            kind,
            version: 1,
            time,
            conversation: String::new(),
            submission: None,
            attempt: None,
            turn: None,
            body: json(body),
            blobs: Vec::new(),
        });
        let last = self.records.len() - 1;
        &mut self.records[last]
    }
}

/// JSON bytes of one of our own values. They hold only strings, numbers and maps with string keys,
/// which always have a JSON form.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .unwrap_or_default()
}
