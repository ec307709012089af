//! Reading everything, to know that it is what was written.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{apply, codec, fault::reading, query};
use crate::{BlobId, StoreError, StoredRecord};

type Result<T> = std::result::Result<T, StoreError>;

/// Verifies the pages and indexes, every checksum and hash, every history and all reference counts.
pub(super) fn everything(conn: &Connection) -> Result<()> {
    pages(conn)?;
    owners(conn)?;
    each(
        conn,
        "SELECT id, kind, name, key, epoch, wake, live, crc FROM actor",
        |row| query::decode_actor(row).map(drop),
    )?;
    let mut counts = HashMap::new();
    histories(conn, &mut counts)?;
    rows(conn, &mut counts)?;
    messages(conn)?;
    blobs(conn, counts)
}

fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt(what.into())
}

fn each(
    conn: &Connection,
    sql: &str,
    mut check: impl FnMut(&rusqlite::Row<'_>) -> Result<()>,
) -> Result<()> {
    let mut statement = conn.prepare(sql).map_err(reading)?;
    let mut rows = statement.query([]).map_err(reading)?;
    while let Some(row) = rows.next().map_err(reading)? {
        check(row)?;
    }
    Ok(())
}

fn pages(conn: &Connection) -> Result<()> {
    each(conn, "PRAGMA integrity_check(1)", |row| {
        let finding: String = row.get(0).map_err(reading)?;
        if finding == "ok" {
            Ok(())
        } else {
            Err(corrupt(finding))
        }
    })
}

/// Nothing belongs to an actor or a blob that is not there.
fn owners(conn: &Connection) -> Result<()> {
    for table in ["record", "row", "inbox", "outbox"] {
        let sql =
            format!("SELECT 1 FROM {table} WHERE actor NOT IN (SELECT id FROM actor) LIMIT 1");
        each(conn, &sql, |_| {
            Err(corrupt(format!(
                "{table} has an entry of an actor that is missing"
            )))
        })?;
    }
    let sql = "SELECT 1 FROM blob_chunk WHERE (id >> 24) NOT IN (SELECT id FROM blob) LIMIT 1";
    each(conn, sql, |_| {
        Err(corrupt("there are bytes of a blob that is missing"))
    })
}

fn histories(conn: &Connection, counts: &mut HashMap<BlobId, i64>) -> Result<()> {
    let mut last: Option<(i64, StoredRecord)> = None;
    each(
        conn,
        "SELECT seq, crc, data, actor FROM record ORDER BY actor, seq",
        |row| {
            let actor: i64 = row.get(3).map_err(reading)?;
            let record = query::decode_record(format_args!("actor number {actor}"), actor, row)?;
            let (seq, epoch) = match &last {
                Some((same, before)) if *same == actor => (before.seq, before.epoch),
                _ => (0, 0),
            };
            if record.seq != seq + 1 || record.epoch < epoch {
                return Err(corrupt(format!(
                    "the history of actor number {actor} has a hole after {seq}"
                )));
            }
            count(counts, &record.record.blobs);
            last = Some((actor, record));
            Ok(())
        },
    )
}

fn rows(conn: &Connection, counts: &mut HashMap<BlobId, i64>) -> Result<()> {
    each(
        conn,
        "SELECT actor, space, key, crc, refs, value FROM row",
        |row| {
            let (actor, space): (i64, String) =
                (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
            let (key, crc) = (query::blob_column(row, 2)?, row.get(3).map_err(reading)?);
            let (refs, value) = (query::blob_column(row, 4)?, query::blob_column(row, 5)?);
            codec::row_sum(actor, &space, key, refs, value)
                .verify(crc, || format!("a row in {space}"))?;
            count(counts, &codec::decode_refs(refs)?);
            Ok(())
        },
    )
}

fn messages(conn: &Connection) -> Result<()> {
    each(
        conn,
        "SELECT actor, message, waiting, crc, data FROM inbox",
        |row| {
            let (actor, message): (i64, String) =
                (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
            let (waiting, crc): (bool, u32) =
                (row.get(2).map_err(reading)?, row.get(3).map_err(reading)?);
            let data = query::blob_column(row, 4)?;
            codec::inbox_sum(actor, &message, waiting, data)
                .verify(crc, || format!("message {message}"))?;
            if waiting {
                codec::decode_inbox(message, data).map(drop)
            } else {
                Ok(())
            }
        },
    )?;
    each(conn, "SELECT actor, crc, data FROM outbox", |row| {
        let (actor, crc) = (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
        apply::decode_outbox(actor, crc, query::blob_column(row, 2)?).map(drop)
    })
}

fn blobs(conn: &Connection, mut counts: HashMap<BlobId, i64>) -> Result<()> {
    each(conn, "SELECT id, size, refs, crc, hash FROM blob", |row| {
        let hash = query::blob_column(row, 4)?;
        let stored = query::decode_blob_row(hash, row)?;
        let hash = hash
            .try_into()
            .map_err(|_| corrupt("a blob's hash is cut short"))?;
        let id = BlobId::from_bytes(hash);
        let counted = counts.remove(&id).unwrap_or(0);
        if stored.refs != counted {
            return Err(corrupt(format!(
                "blob {id} counts {} references, there are {counted}",
                stored.refs
            )));
        }
        let bytes = query::blob(conn, id)?;
        let size = bytes.map_or(0, |bytes| query::limit(bytes.len()));
        if size == stored.size {
            Ok(())
        } else {
            Err(corrupt(format!("blob {id} has another size")))
        }
    })?;
    match counts.keys().next() {
        Some(id) => Err(corrupt(format!("blob {id} is referred to, but missing"))),
        None => Ok(()),
    }
}

fn count(counts: &mut HashMap<BlobId, i64>, blobs: &[BlobId]) {
    for blob in blobs {
        *counts.entry(*blob).or_default() += 1;
    }
}
