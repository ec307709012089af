//! The data directory: who may have it, what is in it, copies of it.

use std::os::unix::fs::PermissionsExt;

use bowline_store::{
    Blob, CommitError, SqliteOptions, SqliteStore, Store, StoreError, Timestamp, sqlite::Migration,
};
use bytes::Bytes;

use super::{actor, append, child::Child, open, put};

fn read_only(dir: &std::path::Path) -> Result<std::sync::Arc<SqliteStore>, StoreError> {
    SqliteStore::open(
        dir,
        SqliteOptions {
            read_only: true,
            ..SqliteOptions::default()
        },
    )
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_process() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    let store = open(&dir);
    assert_eq!(
        std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        std::fs::metadata(dir.join("store.db"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert!(matches!(
        SqliteStore::open(&dir, SqliteOptions::default()),
        Err(StoreError::Locked(_))
    ));
    let other = Child::start("open", &dir, None);
    assert_eq!(other.finish(), ["error store_locked"]);
    store.close().await;
    let other = Child::start("open", &dir, None);
    assert_eq!(other.finish(), ["opened"]);
}

#[tokio::test]
async fn a_read_only_store_follows_the_owner_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    assert!(matches!(read_only(&dir), Err(StoreError::Io(_))));
    assert!(!dir.exists());
    let owner = open(&dir);
    let reader = read_only(&dir).unwrap();
    owner.commit(append(&actor("a"), 0, "{}")).await.unwrap();
    assert_eq!(reader.read(&actor("a"), 0, 10).await.unwrap().len(), 1);
    let refused = reader.commit(append(&actor("a"), 1, "{}")).await;
    assert!(
        matches!(refused, Err(CommitError::Closed(_))),
        "{refused:?}"
    );
    owner.commit(append(&actor("a"), 1, "{}")).await.unwrap();
    owner.close().await;
    assert_eq!(reader.head(&actor("a")).await.unwrap().unwrap().seq, 2);
    reader.close().await;
    let alone = read_only(&dir).unwrap();
    assert_eq!(alone.head(&actor("a")).await.unwrap().unwrap().seq, 2);
    alone.close().await;
}

#[tokio::test]
async fn a_backup_of_a_store_in_use_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let store = open(&root.path().join("data"));
    let blob = Blob::new(Bytes::from(vec![7; 600_000]));
    let mut batch = append(&actor("a"), 0, "{}");
    batch.records[0].blobs.push(blob.id);
    batch.blobs.push(blob.clone());
    batch.rows.push(put("s", "k", "v"));
    store.commit(batch).await.unwrap();
    let into = root.path().join("copy");
    let (copied, committed) = tokio::join!(
        store.backup(&into),
        store.commit(append(&actor("b"), 0, "{}"))
    );
    copied.unwrap();
    committed.unwrap();
    assert!(matches!(store.backup(&into).await, Err(StoreError::Io(_))));
    store.close().await;

    let copy = open(&into);
    copy.verify().await.unwrap();
    assert_eq!(copy.blob(blob.id).await.unwrap(), Some(blob.bytes));
    assert_eq!(
        copy.row(&actor("a"), "s", b"k").await.unwrap(),
        Some(Bytes::from_static(b"v"))
    );
    assert_eq!(copy.commit(append(&actor("a"), 1, "{}")).await.unwrap(), 2);
    copy.close().await;
}

#[tokio::test]
async fn a_newer_format_and_a_foreign_database_are_refused_untouched() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    open(&dir).close().await;
    let file = dir.join("store.db");
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    conn.pragma_update(None, "journal_mode", "DELETE").unwrap();
    drop(conn);
    let before = std::fs::read(&file).unwrap();
    let refused = SqliteStore::open(&dir, SqliteOptions::default()).unwrap_err();
    assert!(
        matches!(
            refused,
            StoreError::NewerFormat {
                found: 99,
                supported: 1
            }
        ),
        "{refused}"
    );
    assert!(
        before == std::fs::read(&file).unwrap(),
        "the file was changed"
    );

    let foreign = root.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let conn = rusqlite::Connection::open(foreign.join("store.db")).unwrap();
    conn.execute_batch("CREATE TABLE theirs(a)").unwrap();
    drop(conn);
    assert!(matches!(
        SqliteStore::open(&foreign, SqliteOptions::default()),
        Err(StoreError::Corrupt(_))
    ));
    std::fs::write(foreign.join("store.db"), [b'?'; 8192]).unwrap();
    assert!(matches!(
        SqliteStore::open(&foreign, SqliteOptions::default()),
        Err(StoreError::Corrupt(_))
    ));
}

/// A store of a format before the first one, which kept records in a table of another name.
async fn older(dir: &std::path::Path) -> rusqlite::Connection {
    let store = open(dir);
    store.commit(append(&actor("a"), 0, "{}")).await.unwrap();
    store.close().await;
    let conn = rusqlite::Connection::open(dir.join("store.db")).unwrap();
    conn.execute_batch("ALTER TABLE record RENAME TO history; PRAGMA user_version = 0")
        .unwrap();
    conn
}

#[tokio::test]
async fn older_data_is_brought_forward_and_keeps_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    drop(older(dir.path()).await);
    let step = Migration {
        from: 0,
        sql: "ALTER TABLE history RENAME TO record",
    };
    let store = SqliteStore::open_with(dir.path(), SqliteOptions::default(), &[step]).unwrap();
    let records = store.read(&actor("a"), 0, 10).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].epoch, &records[0].record.body[..]),
        (1, &b"{}"[..])
    );
    store.verify().await.unwrap();
    store.close().await;
    open(dir.path()).close().await;
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let conn = older(dir.path()).await;
    let step = Migration {
        from: 0,
        sql: "DROP TABLE history; SELECT no_such_function()",
    };
    assert!(SqliteStore::open_with(dir.path(), SqliteOptions::default(), &[step]).is_err());
    let count: i64 = conn
        .query_row("SELECT count(*) FROM history", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
    drop(conn);
    assert!(SqliteStore::open(dir.path(), SqliteOptions::default()).is_err());
}

#[test]
fn a_time_is_written_as_rfc_3339_with_milliseconds_and_read_back() {
    let time = Timestamp::from_millis(1_795_341_600_007);
    assert_eq!(time.to_string(), "2026-11-22T10:00:00.007Z");
    assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
}
