//! Reading, on whatever connection: the pool's, the writer's own, or one of a backup.

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row as SqlRow, ToSql, params};

use super::{codec, fault::reading, heads::Head};
use crate::{
    ActorId, Blob, BlobId, Dump, DumpError, DumpRow, InboxMessage, Row, Seq, StoreError,
    StoredRecord, Timestamp, limits,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Bytes of a blob in one row.
pub(super) const CHUNK: usize = 256 * 1024;
/// A chunk's rowid is its blob's id shifted by this, plus its number.
pub(super) const CHUNK_BITS: u32 = 24;

/// How a limit is given to SQL.
pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// How a sequence is given to SQL; none is that large.
pub(super) fn seq_number(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn number(value: i64, what: &str) -> Result<u64> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("a negative {what}")))
}

pub(super) fn cached<'c>(conn: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    conn.prepare_cached(sql).map_err(reading)
}

/// Runs the query and hands each row to `each` until there are no more.
fn for_each(
    conn: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    mut each: impl FnMut(&SqlRow<'_>) -> Result<()>,
) -> Result<()> {
    let mut statement = cached(conn, sql)?;
    let mut rows = statement.query(params).map_err(reading)?;
    while let Some(row) = rows.next().map_err(reading)? {
        each(row)?;
    }
    Ok(())
}

/// The fields of an actor's row, in this order wherever they are selected.
pub(super) const ACTOR: &str = "id, kind, name, key, epoch, wake, live, crc";

/// An actor's own row; its `seq` is left at 0.
pub(super) fn decode_actor(row: &SqlRow<'_>) -> Result<(ActorId, Head)> {
    let text = |at| {
        row.get_ref(at).map_err(reading).and_then(|value| {
            value
                .as_str()
                .map_err(|_| StoreError::Corrupt("an actor's address is not text".into()))
        })
    };
    let actor = ActorId::new(text(1)?, text(2)?, text(3)?);
    let id: i64 = row.get(0).map_err(reading)?;
    let epoch: i64 = row.get(4).map_err(reading)?;
    let wake: Option<i64> = row.get(5).map_err(reading)?;
    let live: bool = row.get(6).map_err(reading)?;
    let crc: u32 = row.get(7).map_err(reading)?;
    let head = Head {
        id,
        epoch: epoch.cast_unsigned(),
        seq: 0,
        wake,
        live,
    };
    codec::actor_sum(id, &actor, head.epoch, wake, live)
        .verify(crc, || format!("actor {actor}"))?;
    Ok((actor, head))
}

/// The actor's own row, without looking at its history.
fn actor_row(conn: &Connection, actor: &ActorId) -> Result<Option<Head>> {
    let sql = "SELECT id, kind, name, key, epoch, wake, live, crc FROM actor WHERE kind = ?1 AND name = ?2 AND key = ?3";
    let mut found = None;
    for_each(
        conn,
        sql,
        &[&actor.kind(), &actor.name(), &actor.key()],
        |row| {
            let (stored, head) = decode_actor(row)?;
            if stored != *actor {
                return Err(StoreError::Corrupt(format!(
                    "actor {actor} leads to {stored}"
                )));
            }
            found = Some(head);
            Ok(())
        },
    )?;
    Ok(found)
}

/// Where an actor stands; its epoch is that of its last record.
pub(super) fn head(conn: &Connection, actor: &ActorId) -> Result<Option<Head>> {
    let Some(mut head) = actor_row(conn, actor)? else {
        return Ok(None);
    };
    let sql = "SELECT seq, crc, data FROM record WHERE actor = ?1 ORDER BY seq DESC LIMIT 1";
    for_each(conn, sql, &[&head.id], |row| {
        let last = decode_record(actor, head.id, row)?;
        (head.seq, head.epoch) = (last.seq, last.epoch.max(head.epoch));
        Ok(())
    })?;
    Ok(Some(head))
}

/// From the columns `seq, crc, data`.
pub(super) fn decode_record(
    actor: impl std::fmt::Display,
    id: i64,
    row: &SqlRow<'_>,
) -> Result<StoredRecord> {
    let seq: i64 = row.get(0).map_err(reading)?;
    let crc: u32 = row.get(1).map_err(reading)?;
    let data = blob_column(row, 2)?;
    codec::record_sum(id, seq, data).verify(crc, || format!("record {seq} of {actor}"))?;
    codec::decode_record(number(seq, "sequence")?, data)
}

pub(super) fn blob_column<'r>(row: &'r SqlRow<'_>, at: usize) -> Result<&'r [u8]> {
    let value = row.get_ref(at).map_err(reading)?;
    value
        .as_blob()
        .map_err(|_| StoreError::Corrupt("a value is not a blob".into()))
}

pub(super) fn records(
    conn: &Connection,
    actor: &ActorId,
    after: Seq,
    most: usize,
) -> Result<Vec<StoredRecord>> {
    let Some(Head { id, .. }) = actor_row(conn, actor)? else {
        return Ok(Vec::new());
    };
    let mut records: Vec<StoredRecord> = Vec::new();
    let mut expected = after.saturating_add(1);
    let sql =
        "SELECT seq, crc, data FROM record WHERE actor = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    for_each(conn, sql, &[&id, &seq_number(after), &limit(most)], |row| {
        let record = decode_record(actor, id, row)?;
        if record.seq != expected {
            return Err(StoreError::Corrupt(format!(
                "record {expected} of {actor} is missing"
            )));
        }
        expected += 1;
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

pub(super) fn row(
    conn: &Connection,
    actor: &ActorId,
    space: &str,
    key: &[u8],
) -> Result<Option<Bytes>> {
    let Some(Head { id, .. }) = actor_row(conn, actor)? else {
        return Ok(None);
    };
    let sql = "SELECT crc, refs, value FROM row WHERE actor = ?1 AND space = ?2 AND key = ?3";
    let mut found = None;
    for_each(conn, sql, &[&id, &space, &key], |row| {
        let (crc, refs, value) = (
            row.get(0).map_err(reading)?,
            blob_column(row, 1)?,
            blob_column(row, 2)?,
        );
        codec::row_sum(id, space, key, refs, value)
            .verify(crc, || format!("a row in {space} of {actor}"))?;
        found = Some(Bytes::copy_from_slice(value));
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn scan(
    conn: &Connection,
    actor: &ActorId,
    space: &str,
    prefix: &[u8],
    after: Option<&[u8]>,
    most: usize,
) -> Result<Vec<Row>> {
    let Some(Head { id, .. }) = actor_row(conn, actor)? else {
        return Ok(Vec::new());
    };
    let (from, lower) = match after {
        Some(after) if after >= prefix => (after, "key > ?3"),
        _ => (prefix, "key >= ?3"),
    };
    let end = prefix_end(prefix);
    // Without an end the parameter is not used, but still given.
    let upper = if end.is_some() {
        "AND key < ?5"
    } else {
        "AND ?5 IS NULL"
    };
    let sql = format!(
        "SELECT key, crc, refs, value FROM row WHERE actor = ?1 AND space = ?2 AND {lower} {upper} ORDER BY key LIMIT ?4"
    );
    let mut rows = Vec::new();
    for_each(
        conn,
        &sql,
        &[&id, &space, &from, &limit(most), &end],
        |row| {
            let (key, crc) = (blob_column(row, 0)?, row.get(1).map_err(reading)?);
            let (refs, value) = (blob_column(row, 2)?, blob_column(row, 3)?);
            codec::row_sum(id, space, key, refs, value)
                .verify(crc, || format!("a row in {space} of {actor}"))?;
            rows.push(Row {
                key: key.to_vec(),
                value: Bytes::copy_from_slice(value),
            });
            Ok(())
        },
    )?;
    Ok(rows)
}

/// The first key after all keys with this prefix; `None` when there is none.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

/// A blob's row.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlobRow {
    pub(super) id: i64,
    pub(super) size: i64,
    pub(super) refs: i64,
}

pub(super) fn blob_row(conn: &Connection, blob: BlobId) -> Result<Option<BlobRow>> {
    let mut found = None;
    let sql = "SELECT id, size, refs, crc FROM blob WHERE hash = ?1";
    for_each(conn, sql, &[&blob.as_bytes()], |row| {
        found = Some(decode_blob_row(blob.as_bytes(), row)?);
        Ok(())
    })?;
    Ok(found)
}

/// From the columns `id, size, refs, crc`.
pub(super) fn decode_blob_row(hash: &[u8], row: &SqlRow<'_>) -> Result<BlobRow> {
    let get = |at| row.get::<_, i64>(at).map_err(reading);
    let stored = BlobRow {
        id: get(0)?,
        size: get(1)?,
        refs: get(2)?,
    };
    let crc: u32 = row.get(3).map_err(reading)?;
    codec::blob_sum(stored.id, hash, stored.size, stored.refs)
        .verify(crc, || "a blob's row".into())?;
    Ok(stored)
}

pub(super) fn blob(conn: &Connection, blob: BlobId) -> Result<Option<Bytes>> {
    let Some(stored) = blob_row(conn, blob)? else {
        return Ok(None);
    };
    let mut bytes = Vec::with_capacity(usize::try_from(stored.size).unwrap_or(0));
    let (first, end) = chunk_range(stored.id);
    let sql = "SELECT data FROM blob_chunk WHERE id >= ?1 AND id < ?2 ORDER BY id";
    for_each(conn, sql, &[&first, &end], |row| {
        bytes.extend_from_slice(blob_column(row, 0)?);
        Ok(())
    })?;
    if BlobId::of(&bytes) != blob {
        return Err(StoreError::Corrupt(format!(
            "the bytes of blob {blob} have another hash"
        )));
    }
    Ok(Some(bytes.into()))
}

pub(super) fn chunk_range(blob: i64) -> (i64, i64) {
    (blob << CHUNK_BITS, (blob + 1) << CHUNK_BITS)
}

pub(super) fn due(
    conn: &Connection,
    now: Timestamp,
    most: usize,
) -> Result<Vec<(ActorId, Timestamp)>> {
    let mut due = Vec::new();
    let sql = "SELECT id, kind, name, key, epoch, wake, live, crc FROM actor
               WHERE wake IS NOT NULL AND wake <= ?1 ORDER BY wake LIMIT ?2";
    for_each(conn, sql, &[&now.as_millis(), &limit(most)], |row| {
        let (actor, head) = decode_actor(row)?;
        due.extend(head.wake.map(|wake| (actor, Timestamp::from_millis(wake))));
        Ok(())
    })?;
    Ok(due)
}

pub(super) fn next_wake(conn: &Connection) -> Result<Option<Timestamp>> {
    let first = due(conn, Timestamp::from_millis(i64::MAX), 1)?;
    Ok(first.into_iter().next().map(|(_, wake)| wake))
}

pub(super) fn actors(
    conn: &Connection,
    kind: &str,
    name: Option<&str>,
    after: Option<&ActorId>,
    most: usize,
) -> Result<Vec<ActorId>> {
    let (from_name, from_key) = after.map_or(("", ""), |after| (after.name(), after.key()));
    let from = if after.is_some() {
        "(name, key) > (?2, ?3)"
    } else {
        "(name, key) >= (?2, ?3)"
    };
    let only = if name.is_some() {
        "AND name = ?5"
    } else {
        "AND ?5 IS NULL"
    };
    let sql = format!(
        "SELECT {ACTOR} FROM actor WHERE kind = ?1 AND {from} {only} AND live = 1 ORDER BY name, key LIMIT ?4"
    );
    let mut actors = Vec::new();
    for_each(
        conn,
        &sql,
        &[&kind, &from_name, &from_key, &limit(most), &name],
        |row| {
            actors.push(decode_actor(row)?.0);
            Ok(())
        },
    )?;
    Ok(actors)
}

pub(super) fn inbox(conn: &Connection, actor: &ActorId, most: usize) -> Result<Vec<InboxMessage>> {
    let Some(Head { id, .. }) = actor_row(conn, actor)? else {
        return Ok(Vec::new());
    };
    let mut messages = Vec::new();
    let sql = "SELECT message, crc, data FROM inbox WHERE actor = ?1 AND waiting = 1 ORDER BY id LIMIT ?2";
    for_each(conn, sql, &[&id, &limit(most)], |row| {
        let message: String = row.get(0).map_err(reading)?;
        let data = blob_column(row, 2)?;
        codec::inbox_sum(id, &message, true, data).verify(row.get(1).map_err(reading)?, || {
            format!("message {message} to {actor}")
        })?;
        messages.push(codec::decode_inbox(message, data)?);
        Ok(())
    })?;
    Ok(messages)
}

pub(super) fn inbox_actors(conn: &Connection, most: usize) -> Result<Vec<ActorId>> {
    let mut actors = Vec::new();
    let mut last = 0_i64;
    // From actor to actor, so that one with many messages costs no more than one with a single one.
    while actors.len() < most {
        let mut next = cached(
            conn,
            "SELECT min(actor) FROM inbox WHERE waiting = 1 AND actor > ?1",
        )?;
        let Some(id) = next
            .query_row(params![last], |row| row.get::<_, Option<i64>>(0))
            .map_err(reading)?
        else {
            break;
        };
        actors.push(actor_by_id(conn, id)?);
        last = id;
    }
    Ok(actors)
}

pub(super) fn actor_by_id(conn: &Connection, id: i64) -> Result<ActorId> {
    let mut statement = cached(
        conn,
        "SELECT id, kind, name, key, epoch, wake, live, crc FROM actor WHERE id = ?1",
    )?;
    let found = statement
        .query_row(params![id], |row| Ok(decode_actor(row)))
        .optional()
        .map_err(reading)?;
    let missing = || StoreError::Corrupt(format!("actor number {id} is missing"));
    Ok(found.transpose()?.ok_or_else(missing)?.0)
}

/// True when messages of the actor are under way: to it and not taken, or from it and not delivered.
pub(super) fn is_busy(conn: &Connection, actor: i64) -> Result<bool> {
    let mut busy = cached(
        conn,
        "SELECT EXISTS(SELECT 1 FROM inbox WHERE actor = ?1 AND waiting = 1)
             OR EXISTS(SELECT 1 FROM outbox WHERE actor = ?1)",
    )?;
    busy.query_row(params![actor], |row| row.get(0))
        .map_err(reading)
}

/// Everything of an actor; the connection sees one moment.
pub(super) fn dump(
    conn: &Connection,
    actor: &ActorId,
) -> std::result::Result<Option<Dump>, DumpError> {
    let Some(head) = head(conn, actor)?.filter(|head| head.live) else {
        return Ok(None);
    };
    if is_busy(conn, head.id)? {
        return Err(DumpError::Busy);
    }
    let mut sizes = cached(
        conn,
        "SELECT (SELECT coalesce(sum(length(data)), 0) FROM record WHERE actor = ?1)
              + (SELECT coalesce(sum(length(value)), 0) FROM row WHERE actor = ?1)",
    )?;
    let bytes: i64 = sizes
        .query_row(params![head.id], |row| row.get(0))
        .map_err(reading)?;
    // Looked at first, so that nothing of that size is brought into memory.
    if bytes > limit(limits::MAX_BATCH) {
        return Err(DumpError::TooLarge);
    }
    let mut dump = Dump {
        actor: actor.clone(),
        wake: head.wake.map(Timestamp::from_millis),
        records: records(conn, actor, 0, usize::MAX)?
            .into_iter()
            .map(|stored| stored.record)
            .collect(),
        rows: Vec::new(),
        blobs: Vec::new(),
    };
    for_each(
        conn,
        "SELECT space, key, crc, refs, value FROM row WHERE actor = ?1 ORDER BY space, key",
        &[&head.id],
        |row| {
            let space: String = row.get(0).map_err(reading)?;
            let crc: u32 = row.get(2).map_err(reading)?;
            let (key, refs, value) = (
                blob_column(row, 1)?,
                blob_column(row, 3)?,
                blob_column(row, 4)?,
            );
            codec::row_sum(head.id, &space, key, refs, value)
                .verify(crc, || format!("a row in {space} of {actor}"))?;
            dump.rows.push(DumpRow {
                key: key.to_vec(),
                value: Bytes::copy_from_slice(value),
                blobs: codec::decode_refs(refs)?,
                space,
            });
            Ok(())
        },
    )?;
    dump.check_size()?;
    let mut left = limits::MAX_BATCH;
    for id in dump.references() {
        let missing = || StoreError::Corrupt(format!("blob {id} is not there"));
        let stored = blob_row(conn, id)?.ok_or_else(missing)?;
        left = usize::try_from(stored.size)
            .ok()
            .and_then(|size| left.checked_sub(size))
            .ok_or(DumpError::TooLarge)?;
        let bytes = blob(conn, id)?.ok_or_else(missing)?;
        dump.blobs.push(Blob { id, bytes });
    }
    dump.check_size()?;
    Ok(Some(dump))
}
