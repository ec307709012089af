//! How large the parts of a batch may be. Every engine refuses more with
//! [`CommitError::Invalid`](crate::CommitError::Invalid).

use std::collections::HashSet;

use crate::{ActorId, Batch, BlobId, Epoch, InboxMessage, OutboxMessage, Record, RowChange};

/// Longest space of a row, in bytes.
pub const MAX_SPACE: usize = 64;
/// Longest key of a row, in bytes.
pub const MAX_KEY: usize = 8 * 1024;
/// Longest value of a row, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;
/// Longest body of a record or message, in bytes.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// Longest conversation, submission, attempt, turn or message id, in bytes.
pub const MAX_ID: usize = 1024;
/// Most blobs that one record or row refers to.
pub const MAX_REFERENCES: usize = 65_536;
/// Largest batch, blobs included, in bytes.
pub const MAX_BATCH: usize = 256 * 1024 * 1024;
/// Greatest epoch.
pub const MAX_EPOCH: Epoch = i64::MAX.unsigned_abs();

/// Bytes that a batch holds, roughly.
pub(crate) fn size(batch: &Batch) -> usize {
    let records: usize = batch
        .records
        .iter()
        .map(|record| record.body.len() + 128 + 32 * record.blobs.len())
        .sum();
    let rows: usize = batch
        .rows
        .iter()
        .map(|row| match row {
            RowChange::Put {
                key, value, blobs, ..
            } => key.len() + value.len() + 64 + 32 * blobs.len(),
            RowChange::Delete { key, .. } => key.len() + 64,
            RowChange::DeletePrefix { prefix, .. } => prefix.len() + 64,
        })
        .sum();
    let blobs: usize = batch.blobs.iter().map(|blob| blob.bytes.len() + 64).sum();
    let outbox: usize = batch
        .outbox
        .iter()
        .map(|message| message.body.len() + 256)
        .sum();
    let acks: usize = batch.inbox_acks.iter().map(|id| id.len() + 64).sum();
    records + rows + blobs + outbox + acks
}

/// Everything that can be said about a batch without looking at the store.
pub(crate) fn check(batch: &Batch) -> Result<(), String> {
    check_actor(&batch.actor)?;
    if batch.epoch > MAX_EPOCH {
        return Err(format!("epoch {} is above {MAX_EPOCH}", batch.epoch));
    }
    let mut referenced: HashSet<BlobId> = HashSet::new();
    for record in &batch.records {
        check_record(record)?;
        referenced.extend(&record.blobs);
    }
    for row in &batch.rows {
        check_row(row)?;
        if let RowChange::Put { blobs, .. } = row {
            referenced.extend(blobs);
        }
    }
    for blob in &batch.blobs {
        if !referenced.contains(&blob.id) {
            return Err(format!(
                "no row or record of the batch refers to its blob {}",
                blob.id
            ));
        }
        if BlobId::of(&blob.bytes) != blob.id {
            return Err(format!("the bytes of blob {} have another hash", blob.id));
        }
    }
    for id in &batch.inbox_acks {
        check_id("inbox message id", id)?;
    }
    for message in &batch.outbox {
        check_outbox(message)?;
    }
    most("batch", size(batch), MAX_BATCH)
}

/// What [`check`] is for batches, for a message that is sent by itself.
pub(crate) fn check_message(to: &ActorId, message: &InboxMessage) -> Result<(), String> {
    check_actor(to)?;
    check_id("message id", &message.id)?;
    if let Some(from) = &message.from {
        check_actor(from)?;
    }
    most("message body", message.body.len(), MAX_BODY)
}

fn check_record(record: &Record) -> Result<(), String> {
    most("conversation", record.conversation.len(), MAX_ID)?;
    for id in [&record.submission, &record.attempt, &record.turn]
        .into_iter()
        .flatten()
    {
        most("submission, attempt or turn", id.len(), MAX_ID)?;
    }
    if record.blobs.len() > MAX_REFERENCES {
        return Err(format!(
            "a record refers to {} blobs, at most {MAX_REFERENCES} can be",
            record.blobs.len()
        ));
    }
    most("record body", record.body.len(), MAX_BODY)
}

fn check_row(row: &RowChange) -> Result<(), String> {
    let (space, key) = match row {
        RowChange::Put { space, key, .. } | RowChange::Delete { space, key } => (space, key),
        RowChange::DeletePrefix { space, prefix } => (space, prefix),
    };
    most("row space", space.len(), MAX_SPACE)?;
    most("row key", key.len(), MAX_KEY)?;
    if let RowChange::Put { value, blobs, .. } = row {
        most("row value", value.len(), MAX_VALUE)?;
        if blobs.len() > MAX_REFERENCES {
            return Err(format!(
                "a row refers to {} blobs, at most {MAX_REFERENCES} can be",
                blobs.len()
            ));
        }
    }
    Ok(())
}

fn check_outbox(message: &OutboxMessage) -> Result<(), String> {
    check_actor(&message.to)?;
    check_id("outbox message id", &message.id)?;
    most("message body", message.body.len(), MAX_BODY)
}

fn check_actor(actor: &ActorId) -> Result<(), String> {
    for part in [actor.kind(), actor.name(), actor.key()] {
        most("part of an actor's address", part.len(), ActorId::MAX_PART)?;
    }
    Ok(())
}

fn check_id(what: &str, id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err(format!("a {what} is empty"));
    }
    most(what, id.len(), MAX_ID)
}

fn most(what: &str, len: usize, limit: usize) -> Result<(), String> {
    if len > limit {
        Err(format!(
            "a {what} has {len} bytes, at most {limit} can be stored"
        ))
    } else {
        Ok(())
    }
}
