//! What the writer does within its transaction.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{
    codec,
    fault::Fault,
    heads::{Head, Heads},
    query::{self, CHUNK, CHUNK_BITS, seq_number},
};
use crate::{
    ActorId, Batch, BlobId, CommitError, InboxMessage, OutboxMessage, RowChange, Seq, StoreError,
    Wake,
};

type Result<T> = std::result::Result<T, Fault>;

/// How often each blob is referred to more, or less, than before.
type References = BTreeMap<BlobId, i64>;

/// The writer's open transaction.
pub(super) struct Txn<'w> {
    pub(super) conn: &'w Connection,
    /// As of the last durable transaction.
    pub(super) heads: &'w mut Heads,
    /// What this transaction changes; `None` to forget.
    pub(super) changed: HashMap<ActorId, Option<Head>>,
    /// What the piece of work that is being done changes.
    pub(super) work: Vec<(ActorId, Option<Head>)>,
    /// The number for the next actor.
    pub(super) next_actor: &'w mut i64,
    /// Where records are encoded.
    pub(super) scratch: &'w mut Vec<u8>,
}

impl Txn<'_> {
    /// Keeps what the piece of work changed.
    pub(super) fn accept(&mut self) {
        self.changed.extend(self.work.drain(..));
    }

    /// Where the actor stands, this transaction included.
    fn head(&mut self, actor: &ActorId) -> Result<Option<Head>> {
        if let Some((_, head)) = self.work.iter().rev().find(|(id, _)| id == actor)
            && head.is_some()
        {
            return Ok(*head);
        }
        match self.changed.get(actor) {
            Some(Some(head)) => return Ok(Some(*head)),
            Some(None) => {}
            None => {
                if let Some(head) = self.heads.get(actor) {
                    return Ok(Some(head));
                }
            }
        }
        let head = query::head(self.conn, actor)?;
        if let Some(head) = head {
            self.work.push((actor.clone(), Some(head)));
        }
        Ok(head)
    }

    /// The fence, before anything is written.
    pub(super) fn admit(
        &mut self,
        batch: &Batch,
        invalid: Option<&String>,
    ) -> Result<Option<Head>> {
        let head = self.head(&batch.actor)?;
        let (current, seq) = head.map_or((0, 0), |head| (head.epoch, head.seq));
        let refusal = if batch.epoch < current {
            CommitError::Fenced {
                epoch: batch.epoch,
                current,
            }
        } else if batch.expected_seq != seq {
            CommitError::Conflict {
                expected: batch.expected_seq,
                current: seq,
            }
        } else if let Some(reason) = invalid {
            CommitError::Invalid(reason.clone())
        } else if batch.epoch > current && batch.records.is_empty() {
            CommitError::Invalid("taking an actor over needs a record".into())
        } else {
            return Ok(head);
        };
        Err(Fault::Refused(refusal))
    }

    /// Writes an admitted batch and returns the actor's new last sequence.
    pub(super) fn batch(&mut self, batch: &Batch, head: Option<Head>) -> Result<Seq> {
        let mut head = self.wake(batch, head)?;
        let mut references = References::new();
        for message in &batch.inbox_acks {
            self.acknowledge(head.id, message)?;
        }
        for record in &batch.records {
            head.seq += 1;
            self.scratch.clear();
            codec::encode_record(self.scratch, batch.epoch, record);
            let seq = seq_number(head.seq);
            let crc = codec::record_sum(head.id, seq, self.scratch).finish();
            let mut insert = self.conn.prepare_cached(
                "INSERT INTO record(actor, seq, crc, data) VALUES (?1, ?2, ?3, ?4)",
            )?;
            insert
                .execute(params![head.id, seq, crc, &self.scratch[..]])
                .map_err(|error| fence(error, batch))?;
            count(&mut references, &record.blobs, 1);
        }
        head.epoch = batch.epoch;
        for row in &batch.rows {
            self.row(head.id, row, &mut references)?;
        }
        for message in &batch.outbox {
            let data = codec::encode_outbox(message);
            let crc = codec::outbox_sum(head.id, &data).finish();
            let mut insert = self
                .conn
                .prepare_cached("INSERT INTO outbox(actor, crc, data) VALUES (?1, ?2, ?3)")?;
            insert.execute(params![head.id, crc, data])?;
        }
        if !references.is_empty() {
            let given = batch
                .blobs
                .iter()
                .map(|blob| (blob.id, &blob.bytes))
                .collect();
            self.settle(&references, &given)?;
        }
        self.work.push((batch.actor.clone(), Some(head)));
        Ok(head.seq)
    }

    /// Sees to it that the actor has a row that says when it wakes. Most batches change nothing here.
    fn wake(&mut self, batch: &Batch, head: Option<Head>) -> Result<Head> {
        let Some(known) = head else {
            let wake = match batch.wake {
                Wake::At(time) => Some(time.as_millis()),
                Wake::Keep | Wake::Clear => None,
            };
            return self.create(&batch.actor, wake, true);
        };
        let wake = match batch.wake {
            Wake::Keep => known.wake,
            Wake::At(time) => Some(time.as_millis()),
            Wake::Clear => None,
        };
        let head = Head {
            wake,
            live: true,
            ..known
        };
        if wake != known.wake || !known.live {
            self.update(&batch.actor, &head)?;
        }
        Ok(head)
    }

    fn create(&mut self, actor: &ActorId, wake: Option<i64>, live: bool) -> Result<Head> {
        let id = *self.next_actor;
        *self.next_actor += 1;
        let crc = codec::actor_sum(id, actor, 0, wake, live).finish();
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO actor(id, kind, name, key, epoch, wake, live, crc) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7)",
        )?;
        insert.execute(params![
            id,
            actor.kind(),
            actor.name(),
            actor.key(),
            wake,
            live,
            crc
        ])?;
        Ok(Head {
            id,
            epoch: 0,
            seq: 0,
            wake,
            live,
        })
    }

    fn update(&mut self, actor: &ActorId, head: &Head) -> Result<()> {
        let crc = codec::actor_sum(head.id, actor, head.epoch, head.wake, head.live).finish();
        let mut update = self.conn.prepare_cached(
            "UPDATE actor SET epoch = ?2, wake = ?3, live = ?4, crc = ?5 WHERE id = ?1",
        )?;
        update.execute(params![
            head.id,
            head.epoch.cast_signed(),
            head.wake,
            head.live,
            crc
        ])?;
        Ok(())
    }

    /// Takes a message out of the inbox. Its id stays, so that it cannot arrive again.
    fn acknowledge(&mut self, actor: i64, message: &str) -> Result<()> {
        let crc = codec::inbox_sum(actor, message, false, &[]).finish();
        let mut update = self.conn.prepare_cached(
            "UPDATE inbox SET waiting = 0, crc = ?3, data = x'' WHERE actor = ?1 AND message = ?2",
        )?;
        if update.execute(params![actor, message, crc])? == 0 {
            let reason = format!("no message {message} ever arrived");
            return Err(Fault::Refused(CommitError::Invalid(reason)));
        }
        Ok(())
    }

    fn row(&mut self, actor: i64, change: &RowChange, references: &mut References) -> Result<()> {
        match change {
            RowChange::Put {
                space,
                key,
                value,
                blobs,
            } => {
                let refs = codec::encode_refs(blobs);
                let crc = codec::row_sum(actor, space, key, &refs, value).finish();
                count(references, blobs, 1);
                if let Some(id) = self.find_row(actor, space, key, references)? {
                    let mut update = self.conn.prepare_cached(
                        "UPDATE row SET crc = ?2, refs = ?3, value = ?4 WHERE id = ?1",
                    )?;
                    update.execute(params![id, crc, refs, &value[..]])?;
                } else {
                    let mut insert = self.conn.prepare_cached(
                        "INSERT INTO row(actor, space, key, crc, refs, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?;
                    insert.execute(params![actor, space, key, crc, refs, &value[..]])?;
                }
            }
            RowChange::Delete { space, key } => {
                if let Some(id) = self.find_row(actor, space, key, references)? {
                    self.conn
                        .prepare_cached("DELETE FROM row WHERE id = ?1")?
                        .execute(params![id])?;
                }
            }
            RowChange::DeletePrefix { space, prefix } => {
                self.delete_prefix(actor, space, prefix, references)?
            }
        }
        Ok(())
    }

    /// The number of a row that is about to go or be replaced; counts its references down.
    fn find_row(
        &self,
        actor: i64,
        space: &str,
        key: &[u8],
        references: &mut References,
    ) -> Result<Option<i64>> {
        let mut find = self.conn.prepare_cached(
            "SELECT id, refs FROM row WHERE actor = ?1 AND space = ?2 AND key = ?3",
        )?;
        let found = find.query_row(params![actor, space, key], |row| {
            Ok((
                row.get(0)?,
                query::blob_column(row, 1).and_then(codec::decode_refs),
            ))
        });
        let Some((id, refs)) = found.optional()? else {
            return Ok(None);
        };
        count(references, &refs?, -1);
        Ok(Some(id))
    }

    fn delete_prefix(
        &self,
        actor: i64,
        space: &str,
        prefix: &[u8],
        references: &mut References,
    ) -> Result<()> {
        let end = query::prefix_end(prefix);
        let upper = if end.is_some() {
            "AND key < ?4"
        } else {
            "AND ?4 IS NULL"
        };
        let range = format!("FROM row WHERE actor = ?1 AND space = ?2 AND key >= ?3 {upper}");
        let mut select = self
            .conn
            .prepare_cached(&format!("SELECT refs {range} AND refs <> x''"))?;
        let mut rows = select.query(params![actor, space, prefix, end])?;
        while let Some(row) = rows.next()? {
            count(
                references,
                &codec::decode_refs(query::blob_column(row, 0)?)?,
                -1,
            );
        }
        drop(rows);
        self.conn
            .prepare_cached(&format!("DELETE {range}"))?
            .execute(params![actor, space, prefix, end])?;
        Ok(())
    }

    /// Writes the blobs that are new, corrects the counts of the others, and deletes those that
    /// nothing refers to any more.
    fn settle(&self, references: &References, given: &HashMap<BlobId, &Bytes>) -> Result<()> {
        for (blob, delta) in references {
            let Some(stored) = query::blob_row(self.conn, *blob)? else {
                let Some(bytes) = given.get(blob) else {
                    let reason = format!("the store has no blob {blob}");
                    return Err(Fault::Refused(CommitError::Invalid(reason)));
                };
                if *delta > 0 {
                    self.add_blob(*blob, bytes, *delta)?;
                }
                continue;
            };
            let refs = stored.refs + delta;
            if refs < 0 {
                return Err(Fault::Corrupt(format!(
                    "blob {blob} has fewer references than are there"
                )));
            } else if refs == 0 {
                let (first, end) = query::chunk_range(stored.id);
                let mut delete = self
                    .conn
                    .prepare_cached("DELETE FROM blob_chunk WHERE id >= ?1 AND id < ?2")?;
                delete.execute(params![first, end])?;
                self.conn
                    .prepare_cached("DELETE FROM blob WHERE id = ?1")?
                    .execute(params![stored.id])?;
            } else if *delta != 0 {
                let crc = codec::blob_sum(stored.id, blob.as_bytes(), stored.size, refs).finish();
                let mut update = self
                    .conn
                    .prepare_cached("UPDATE blob SET refs = ?2, crc = ?3 WHERE id = ?1")?;
                update.execute(params![stored.id, refs, crc])?;
            }
        }
        Ok(())
    }

    fn add_blob(&self, blob: BlobId, bytes: &Bytes, refs: i64) -> Result<()> {
        let mut last = self
            .conn
            .prepare_cached("SELECT coalesce(max(id), 0) FROM blob")?;
        let id = last.query_row([], |row| row.get::<_, i64>(0))? + 1;
        let size = query::limit(bytes.len());
        let crc = codec::blob_sum(id, blob.as_bytes(), size, refs).finish();
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO blob(id, hash, size, refs, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        insert.execute(params![id, blob.as_bytes(), size, refs, crc])?;
        let mut chunk = self
            .conn
            .prepare_cached("INSERT INTO blob_chunk(id, data) VALUES (?1, ?2)")?;
        for (place, data) in (id << CHUNK_BITS..).zip(bytes.chunks(CHUNK)) {
            chunk.execute(params![place, data])?;
        }
        Ok(())
    }

    /// Puts a message into an inbox; `false` when its id was there before.
    pub(super) fn send(&mut self, to: &ActorId, message: &InboxMessage) -> Result<bool> {
        let actor = match self.head(to)? {
            Some(head) => head.id,
            None => {
                let head = self.create(to, None, false)?;
                self.work.push((to.clone(), Some(head)));
                head.id
            }
        };
        let data = codec::encode_inbox(message);
        let crc = codec::inbox_sum(actor, &message.id, true, &data).finish();
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO inbox(actor, message, waiting, crc, data) VALUES (?1, ?2, 1, ?3, ?4)
             ON CONFLICT(actor, message) DO NOTHING",
        )?;
        Ok(insert.execute(params![actor, message.id, crc, data])? > 0)
    }

    /// Moves messages from outboxes to inboxes. Both sides are one transaction, so a message is in
    /// exactly one of them at any time.
    pub(super) fn deliver(&mut self, limit: usize) -> Result<Vec<OutboxMessage>> {
        let mut waiting = Vec::new();
        let conn = self.conn;
        let mut select =
            conn.prepare_cached("SELECT id, actor, crc, data FROM outbox ORDER BY id LIMIT ?1")?;
        let mut rows = select.query(params![query::limit(limit)])?;
        while let Some(row) = rows.next()? {
            let (id, actor): (i64, i64) = (row.get(0)?, row.get(1)?);
            waiting.push((
                id,
                actor,
                decode_outbox(actor, row.get(2)?, query::blob_column(row, 3)?)?,
            ));
        }
        drop(rows);
        let mut delivered = Vec::with_capacity(waiting.len());
        for (id, actor, message) in waiting {
            let from = query::actor_by_id(conn, actor)?;
            let OutboxMessage {
                to,
                id: message_id,
                time,
                body,
            } = message.clone();
            self.send(
                &to,
                &InboxMessage {
                    id: message_id,
                    from: Some(from),
                    time,
                    body,
                },
            )?;
            conn.prepare_cached("DELETE FROM outbox WHERE id = ?1")?
                .execute(params![id])?;
            delivered.push(message);
        }
        Ok(delivered)
    }

    /// Deletes everything of an actor but its address and its epoch; when a sequence is given, only
    /// if the actor stands there and waits for nothing.
    pub(super) fn purge(&mut self, actor: &ActorId, idle_at: Option<Seq>) -> Result<()> {
        let Some(head) = self.head(actor)? else {
            return Ok(());
        };
        if let Some(expected) = idle_at
            && (head.seq != expected || head.wake.is_some() || query::is_busy(self.conn, head.id)?)
        {
            return Err(Fault::Refused(CommitError::Conflict {
                expected,
                current: head.seq,
            }));
        }
        let mut references = References::new();
        let mut records = self
            .conn
            .prepare_cached("SELECT seq, crc, data FROM record WHERE actor = ?1")?;
        let mut rows = records.query(params![head.id])?;
        while let Some(row) = rows.next()? {
            count(
                &mut references,
                &query::decode_record(actor, head.id, row)?.record.blobs,
                -1,
            );
        }
        drop(rows);
        let mut with_refs = self
            .conn
            .prepare_cached("SELECT refs FROM row WHERE actor = ?1 AND refs <> x''")?;
        let mut rows = with_refs.query(params![head.id])?;
        while let Some(row) = rows.next()? {
            count(
                &mut references,
                &codec::decode_refs(query::blob_column(row, 0)?)?,
                -1,
            );
        }
        drop(rows);
        for table in ["record", "row", "inbox", "outbox"] {
            let mut delete = self
                .conn
                .prepare_cached(&format!("DELETE FROM {table} WHERE actor = ?1"))?;
            delete.execute(params![head.id])?;
        }
        self.settle(&references, &HashMap::new())?;
        let epoch = if head.live {
            head.epoch + 1
        } else {
            head.epoch
        };
        let head = Head {
            epoch,
            seq: 0,
            wake: None,
            live: false,
            id: head.id,
        };
        self.update(actor, &head)?;
        self.work.push((actor.clone(), Some(head)));
        Ok(())
    }
}

pub(super) fn decode_outbox(
    actor: i64,
    crc: u32,
    data: &[u8],
) -> std::result::Result<OutboxMessage, StoreError> {
    codec::outbox_sum(actor, data).verify(crc, || "an outbox message".into())?;
    codec::decode_outbox(data)
}

fn count(references: &mut References, blobs: &[BlobId], by: i64) {
    for blob in blobs {
        *references.entry(*blob).or_default() += by;
    }
}

/// The unique index is the last fence: should the writer be wrong about where the actor stands, it
/// is the index that refuses.
fn fence(error: rusqlite::Error, batch: &Batch) -> Fault {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        let expected = batch.expected_seq;
        return Fault::Refused(CommitError::Conflict {
            expected,
            current: expected + 1,
        });
    }
    Fault::from(error)
}
