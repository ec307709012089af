//! What one step of an actor changes.

use bowline_store::{ActorId, Blob, OutboxMessage, Record, RowChange, Timestamp};
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

    /// Sends a message to another actor, together with this step. `id` is unique within the receiver:
    /// a second message with it is dropped.
    pub fn send(&mut self, to: &ActorId, id: &str, body: &impl Serialize, now: Timestamp) {
        self.outbox.push(OutboxMessage {
            to: to.clone(),
            id: id.to_owned(),
            time: now,
            body: json(body),
        });
    }

    /// Makes another actor a child of this one: it is deleted together with this one, whole.
    pub fn own(&mut self, child: &ActorId) {
        self.put(crate::child::CHILDREN, crate::child::key(child), &());
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
