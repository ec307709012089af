//! Group commit, and what a commit writes.

use std::sync::Arc;

use bowline_store::{Store, Wake};

use super::{actor, append, open, put, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writers = (0..64).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let actor = actor(&n.to_string());
            for seq in 0..20 {
                store.commit(append(&actor, seq, "{}")).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let metrics = store.metrics();
    assert_eq!(
        (metrics.batches, metrics.records, metrics.refused),
        (1280, 1280, 0)
    );
    assert!(
        metrics.flushes * 2 < metrics.batches,
        "{} flushes",
        metrics.flushes
    );
    store.close().await;
}

#[tokio::test]
async fn a_writer_alone_costs_one_flush_for_each_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for seq in 0..5 {
        store.commit(append(&actor("a"), seq, "{}")).await.unwrap();
    }
    assert_eq!(store.metrics().flushes, 5);
    store.close().await;
}

/// A plain turn is two commits; what they write is what the log grows by.
#[tokio::test]
async fn a_plain_turn_writes_at_most_64_kib() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // Among other actors with histories, as in a store that has been in use.
    for n in 0..300 {
        let mut batch = append(&actor(&format!("other {n}")), 0, vec![b'x'; 300]);
        batch.rows = (0..5)
            .map(|n| put("state", format!("key {n}"), vec![b'x'; 200]))
            .collect();
        store.commit(batch).await.unwrap();
    }
    store.close().await;
    drop(store);
    let store = open(dir.path());
    let log = || std::fs::metadata(dir.path().join("store.db-wal")).map_or(0, |file| file.len());
    let before = log();
    let actor = actor("one");
    let (mut seq, mut turns) = (0, Vec::new());
    for turn in 0..10 {
        let start = log();
        for half in 0..2 {
            let mut batch = append(&actor, seq, vec![b'x'; 300]);
            batch
                .records
                .extend((0..3 - half).map(|_| record(vec![b'x'; 300])));
            batch.rows = (0..3)
                .map(|n| put("submission", format!("{turn} {n}"), vec![b'x'; 150]))
                .collect();
            batch.wake = if half == 0 {
                Wake::At(bowline_store::Timestamp::from_millis(turn))
            } else {
                Wake::Clear
            };
            seq = store.commit(batch).await.unwrap();
        }
        turns.push(log() - start);
    }
    println!("bytes written for each of ten turns: {turns:?}");
    assert_eq!(before, 0);
    assert!(turns.iter().sum::<u64>() / 10 <= 64 * 1024, "{turns:?}");
    store.close().await;
}
