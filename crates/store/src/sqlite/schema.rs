//! The layout of the database, how it is opened and how an older one is brought forward.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use super::{
    SqliteOptions,
    fault::{self, reading},
};
use crate::StoreError;

/// The database within the data directory.
pub(super) const FILE: &str = "store.db";
/// The file that the owner of the data directory has locked.
const LOCK: &str = "LOCK";
/// The newest format that this version reads, and the one it writes (`PRAGMA user_version`).
const FORMAT: u32 = 1;
/// Bytes of a page of a new database; one that is there keeps its own. A commit writes every page that it
/// changes whole, and a small one changes few bytes of each of about eight. Half of this is written less
/// still, but what is large is read at half the speed.
const PAGE: u32 = 2048;
/// Marks a database as ours (`PRAGMA application_id`): "bwln".
const APPLICATION: i32 = 0x6277_6c6e;

/// Brings a database of one format to the next one. It runs in a transaction of its own, together with
/// the change of the format's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// The format that it begins with.
    pub from: u32,
    /// Its statements.
    pub sql: &'static str,
}

/// Every step from the oldest format that this version reads.
pub(super) const MIGRATIONS: &[Migration] = &[];

/// Rowid tables with unique indexes beside them: values of a kilobyte in a clustered tree cost
/// several times the pages. The head of an actor is not stored: it is its last record, so that an
/// append touches one leaf of `record` and one of its index. Rowids are handed out by SQLite except
/// where they carry meaning (`actor`, `blob_chunk`).
const SCHEMA: &str = "
CREATE TABLE actor(
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
  epoch INTEGER NOT NULL, wake INTEGER, live INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE UNIQUE INDEX actor_address ON actor(kind, name, key);
CREATE INDEX actor_wake ON actor(wake) WHERE wake IS NOT NULL;
CREATE TABLE record(
  id INTEGER PRIMARY KEY, actor INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX record_place ON record(actor, seq);
CREATE TABLE row(
  id INTEGER PRIMARY KEY, actor INTEGER NOT NULL, space TEXT NOT NULL, key BLOB NOT NULL,
  crc INTEGER NOT NULL, refs BLOB NOT NULL, value BLOB NOT NULL);
CREATE UNIQUE INDEX row_place ON row(actor, space, key);
CREATE TABLE blob(
  id INTEGER PRIMARY KEY, hash BLOB NOT NULL, size INTEGER NOT NULL, refs INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE UNIQUE INDEX blob_hash ON blob(hash);
CREATE TABLE blob_chunk(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE inbox(
  id INTEGER PRIMARY KEY, actor INTEGER NOT NULL, message TEXT NOT NULL, waiting INTEGER NOT NULL,
  crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX inbox_message ON inbox(actor, message);
CREATE INDEX inbox_waiting ON inbox(actor) WHERE waiting = 1;
CREATE TABLE outbox(
  id INTEGER PRIMARY KEY, actor INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
";

/// Creates the data directory if it is missing, readable for its owner only.
pub(super) fn make_directory(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| fault::file(dir, &error))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| fault::file(dir, &error))
}

/// A data directory that is this process's own.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a process that was forked meanwhile, and has not yet become
    /// another program, has the file as well, and would keep the lock.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Takes the data directory for this process, until it is dropped.
pub(super) fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| fault::file(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(dir.display().to_string())),
        Err(TryLockError::Error(error)) => Err(fault::file(&path, &error)),
    }
}

/// Whether another process has the data directory.
pub(super) fn is_locked(dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(fault::file(&path, &error)),
    };
    // Shared, so that two that only look do not see each other.
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            Ok(false)
        }
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(fault::file(&path, &error)),
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// Opens a connection with everything set that holds for each of them.
pub(super) fn connect(
    dir: &Path,
    role: Role,
    options: &SqliteOptions,
) -> Result<Connection, StoreError> {
    let path = dir.join(FILE);
    let access = match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    if role == Role::Writer {
        create_file(&path)?;
    }
    let conn = Connection::open_with_flags(&path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(reading)?;
    if role == Role::Writer {
        // Before anything is set: what is not ours, or newer, is not touched.
        format(&conn)?;
    }
    prepare_connection(&conn, role, options).map_err(reading)?;
    Ok(conn)
}

/// SQLite would create it readable for everybody.
pub(super) fn create_file(path: &Path) -> Result<(), StoreError> {
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path);
    opened.map(drop).map_err(|error| fault::file(path, &error))
}

fn prepare_connection(
    conn: &Connection,
    role: Role,
    options: &SqliteOptions,
) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    // Whether the log can be emptied is decided by the writer, not by whoever closes last.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // Savepoints keep page images; in memory they cost a copy, on disk a file.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    match role {
        Role::Writer => {
            conn.pragma_update(None, "page_size", PAGE)?;
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "wal_autocheckpoint", 0)?;
            conn.pragma_update(
                None,
                "journal_size_limit",
                i64::from(options.checkpoint_kib) * 1024 * 8,
            )?;
            conn.pragma_update(None, "foreign_keys", false)?;
            if let Some(pages) = options.max_pages {
                let page: u32 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
                let most = u64::from(pages) * 4096 / u64::from(page.max(1));
                conn.pragma_update(None, "max_page_count", most.cast_signed())?;
            }
        }
        Role::Reader => conn.pragma_update(None, "query_only", true)?,
    }
    Ok(())
}

/// Creates the tables of an empty database, or brings an older one forward.
pub(super) fn bring_forward(
    conn: &mut Connection,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    let Some(found) = format(conn)? else {
        let tx = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(reading)?;
        let create = || {
            tx.execute_batch(SCHEMA)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", FORMAT)
        };
        create().map_err(reading)?;
        return tx.commit().map_err(reading);
    };
    for from in found..FORMAT {
        let tx = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(reading)?;
        let Some(step) = migrations.iter().find(|step| step.from == from) else {
            return Err(StoreError::Corrupt(format!(
                "the data says it has format {from}, which never was"
            )));
        };
        tx.execute_batch(step.sql).map_err(reading)?;
        tx.pragma_update(None, "user_version", from + 1)
            .map_err(reading)?;
        tx.commit().map_err(reading)?;
    }
    Ok(())
}

/// For opening without the right to change anything.
pub(super) fn check_format(conn: &Connection) -> Result<(), StoreError> {
    match format(conn)? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(StoreError::Io(format!(
            "it has the older format {found}: open it for writing once"
        ))),
        None => Err(StoreError::Io("it is empty".into())),
    }
}

/// The format of the data; `None` when there is none yet.
fn format(conn: &Connection) -> Result<Option<u32>, StoreError> {
    let number = |name| {
        conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(reading)
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(reading)?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(None);
    }
    if application != i64::from(APPLICATION) {
        return Err(StoreError::Corrupt(format!(
            "{FILE} was not written by bowline"
        )));
    }
    let found = u32::try_from(version).map_err(|_| {
        StoreError::Corrupt(format!(
            "the data says it has format {version}, which cannot be"
        ))
    })?;
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            found,
            supported: FORMAT,
        });
    }
    Ok(Some(found))
}
