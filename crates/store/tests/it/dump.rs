//! An instance as a file, and a backup put back: whole, or refused with nothing changed.

use bowline_store::{Blob, Dump, DumpError, MemoryStore, SqliteStore, Store, StoreError};
use bytes::Bytes;

use super::{actor, append, open, put};

async fn file() -> Vec<u8> {
    let store = MemoryStore::new();
    let blob = Blob::new(Bytes::from_static(b"content"));
    let mut batch = append(&actor("a"), 0, "{\"n\":1}");
    batch.records[0].blobs.push(blob.id);
    batch.blobs.push(blob);
    batch.rows.push(put("space", "key", "value"));
    store.commit(batch).await.unwrap();
    let mut file = Vec::new();
    let dump = store.dump(&actor("a")).await.unwrap().unwrap();
    dump.write(&mut file).unwrap();
    file
}

#[tokio::test]
async fn a_file_that_was_cut_changed_or_added_to_is_refused() {
    let whole = file().await;
    assert!(Dump::read(&mut whole.as_slice()).is_ok());
    for end in 0..whole.len() {
        let cut = Dump::read(&mut &whole[..end]);
        assert!(
            matches!(cut, Err(DumpError::Damaged(_))),
            "cut at {end}: {cut:?}"
        );
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        let read = Dump::read(&mut changed.as_slice());
        assert!(
            matches!(
                read,
                Err(DumpError::Damaged(_) | DumpError::Newer | DumpError::TooLarge)
            ),
            "changed at {at}: {read:?}"
        );
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(matches!(
        Dump::read(&mut longer.as_slice()),
        Err(DumpError::Damaged(_))
    ));
    let newer = [b"bowline-instance 2\n", &whole[19..]].concat();
    assert!(matches!(
        Dump::read(&mut newer.as_slice()),
        Err(DumpError::Newer)
    ));
}

#[tokio::test]
async fn a_backup_takes_the_place_of_the_data_and_keeps_what_it_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (data, copy) = (root.path().join("data"), root.path().join("copy"));
    let store = open(&data);
    store.commit(append(&actor("a"), 0, "{}")).await.unwrap();
    store.backup(&copy).await.unwrap();
    store.commit(append(&actor("a"), 1, "{}")).await.unwrap();
    let busy = SqliteStore::restore(&copy, &data, true).await;
    assert!(matches!(busy, Err(StoreError::Locked(_))), "{busy:?}");
    store.close().await;
    let refused = SqliteStore::restore(&copy, &data, false).await;
    assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");

    SqliteStore::restore(&copy, &data, true).await.unwrap();
    let store = open(&data);
    assert_eq!(store.head(&actor("a")).await.unwrap().unwrap().seq, 1);
    store.verify().await.unwrap();
    store.close().await;
    assert!(data.join("store.db.replaced").is_file() && !data.join("restoring").exists());

    // Also where nothing can be read any more.
    std::fs::write(data.join("store.db"), [b'?'; 8192]).unwrap();
    std::fs::write(data.join("store.db-wal"), [b'?'; 512]).unwrap();
    SqliteStore::restore(&copy, &data, true).await.unwrap();
    let store = open(&data);
    assert_eq!(store.head(&actor("a")).await.unwrap().unwrap().seq, 1);
    store.verify().await.unwrap();
    store.close().await;
    assert_eq!(
        std::fs::read(data.join("store.db.replaced")).unwrap(),
        [b'?'; 8192]
    );

    let elsewhere = root.path().join("new/data");
    SqliteStore::restore(&data, &elsewhere, false)
        .await
        .unwrap();
    assert_eq!(
        open(&elsewhere)
            .head(&actor("a"))
            .await
            .unwrap()
            .unwrap()
            .seq,
        1
    );
}

#[tokio::test]
async fn a_damaged_backup_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (data, copy) = (root.path().join("data"), root.path().join("copy"));
    let store = open(&data);
    store
        .commit(append(&actor("a"), 0, "{\"mark\":\"here\"}"))
        .await
        .unwrap();
    store.backup(&copy).await.unwrap();
    store.close().await;
    let file = copy.join("store.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(4).position(|part| part == b"here").unwrap();
    bytes[at] = b'H';
    std::fs::write(&file, bytes).unwrap();
    let before = std::fs::read(data.join("store.db")).unwrap();
    let refused = SqliteStore::restore(&copy, &data, true).await;
    assert!(
        matches!(refused, Err(StoreError::Corrupt(_))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(data.join("store.db")).unwrap(), before);
    assert!(
        SqliteStore::restore(&root.path().join("none"), &data, true)
            .await
            .is_err()
    );
}
