//! Damaged files.

use std::{collections::BTreeMap, path::Path};

use bowline_store::{Blob, BlobId, SqliteOptions, SqliteStore, Store, StoreError, StoredRecord};
use bytes::Bytes;

use super::{actor, append, open, put, record};

const ACTORS: u64 = 6;

/// What a store gave.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    records: BTreeMap<(u64, u64), StoredRecord>,
    rows: BTreeMap<(u64, Vec<u8>), Bytes>,
    blobs: BTreeMap<BlobId, Bytes>,
    /// Something could not be read.
    refused: bool,
}

async fn fill(dir: &Path) -> Vec<BlobId> {
    let store = open(dir);
    let mut blobs = Vec::new();
    for n in 0..ACTORS {
        for seq in 0..5 {
            let mut batch = append(
                &actor(&n.to_string()),
                seq * 2,
                format!("{{\"actor\":{n},\"seq\":{seq}}}"),
            );
            batch
                .records
                .push(record(vec![b'a' + u8::try_from(n).unwrap(); 900]));
            batch.rows = (0..4)
                .map(|k| put("s", format!("{seq} {k}"), format!("value {n} {seq} {k}")))
                .collect();
            let blob = Blob::new(Bytes::from(vec![u8::try_from(n * 10 + seq).unwrap(); 6000]));
            batch.records[0].blobs.push(blob.id);
            blobs.push(blob.id);
            batch.blobs.push(blob);
            store.commit(batch).await.unwrap();
        }
    }
    store.verify().await.unwrap();
    store.close().await;
    blobs
}

fn note<T>(result: Result<T, StoreError>, refused: &mut bool) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(StoreError::Corrupt(_)) => {
            *refused = true;
            None
        }
        Err(other) => panic!("expected Corrupt, found {other:?}"),
    }
}

async fn contents(store: &SqliteStore, blobs: &[BlobId]) -> Contents {
    let mut all = Contents::default();
    for n in 0..ACTORS {
        let actor = actor(&n.to_string());
        for stored in note(store.read(&actor, 0, 100).await, &mut all.refused).unwrap_or_default() {
            all.records.insert((n, stored.seq), stored);
        }
        for row in note(
            store.scan(&actor, "s", b"", None, 100).await,
            &mut all.refused,
        )
        .unwrap_or_default()
        {
            all.rows.insert((n, row.key), row.value);
        }
    }
    for id in blobs {
        let found = note(store.blob(*id).await, &mut all.refused).flatten();
        all.blobs.extend(found.map(|bytes| (*id, bytes)));
    }
    all
}

/// Single bytes are flipped all over the file. Reading gives what was written or says `Corrupt`; it
/// never gives something else. What a damaged index hides, `verify` finds.
#[tokio::test]
async fn a_flipped_byte_is_corrupt_and_never_other_data() {
    let root = tempfile::tempdir().unwrap();
    let blobs = fill(&root.path().join("intact")).await;
    let intact = std::fs::read(root.path().join("intact/store.db")).unwrap();
    let store = open(&root.path().join("intact"));
    let written = contents(&store, &blobs).await;
    assert_eq!(
        (
            written.records.len(),
            written.rows.len(),
            written.blobs.len()
        ),
        (60, 120, 30)
    );
    store.close().await;

    let dir = root.path().join("damaged");
    std::fs::create_dir(&dir).unwrap();
    let (mut place, mut refusals) = (12_345_usize, 0);
    for _ in 0..160 {
        place = (place
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407))
            % (1 << 62);
        let at = place % intact.len();
        let mut damaged = intact.clone();
        damaged[at] ^= 0x41;
        std::fs::write(dir.join("store.db"), &damaged).unwrap();
        let _ = std::fs::remove_file(dir.join("store.db-wal"));
        let _ = std::fs::remove_file(dir.join("store.db-shm"));
        let store = match SqliteStore::open(&dir, SqliteOptions::default()) {
            Ok(store) => store,
            Err(StoreError::Corrupt(_) | StoreError::NewerFormat { .. } | StoreError::Io(_)) => {
                refusals += 1;
                continue;
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        };
        let found = contents(&store, &blobs).await;
        for (key, record) in &found.records {
            assert_eq!(Some(record), written.records.get(key), "byte {at}");
        }
        for (key, value) in &found.rows {
            assert_eq!(Some(value), written.rows.get(key), "byte {at}");
        }
        assert!(
            found
                .blobs
                .iter()
                .all(|(id, bytes)| BlobId::of(bytes) == *id),
            "byte {at}"
        );
        let verified = store.verify().await;
        if found != written {
            assert!(
                matches!(verified, Err(StoreError::Corrupt(_))),
                "byte {at}: {verified:?}"
            );
        }
        refusals += usize::from(found.refused);
        store.close().await;
    }
    assert!(
        refusals > 40,
        "only {refusals} of 160 flips were noticed while reading"
    );
}
