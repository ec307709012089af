//! A full disk.

use bowline_store::{CommitError, SqliteOptions, SqliteStore, Store};

use super::{actor, append, record};

fn limited(dir: &std::path::Path, max_pages: u32) -> std::sync::Arc<SqliteStore> {
    SqliteStore::open(
        dir,
        SqliteOptions {
            max_pages: Some(max_pages),
            ..SqliteOptions::default()
        },
    )
    .unwrap()
}

#[tokio::test]
async fn a_full_store_refuses_whole_batches_and_works_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = limited(dir.path(), 100);
    let (fat, thin) = (actor("fat"), actor("thin"));
    store.commit(append(&thin, 0, "{}")).await.unwrap();
    let mut seq = 0;
    let error = loop {
        let mut batch = append(&fat, seq, "first of two");
        batch.records.push(record(vec![b'x'; 20_000]));
        match store.commit(batch).await {
            Ok(head) => seq = head,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Full), "{error}");
    assert!(seq > 4);
    assert_eq!(store.head(&fat).await.unwrap().unwrap().seq, seq);
    assert_eq!(store.read(&fat, 0, 1000).await.unwrap().len() as u64, seq);
    assert_eq!(store.read(&thin, 0, 10).await.unwrap().len(), 1);

    store.purge(&fat).await.unwrap();
    assert_eq!(
        store
            .commit(append(&thin, 1, vec![b'x'; 20_000]))
            .await
            .unwrap(),
        2
    );
    store.verify().await.unwrap();
    let large = append(&thin, 2, vec![b'x'; 1_000_000]);
    assert!(matches!(
        store.commit(large.clone()).await,
        Err(CommitError::Full)
    ));
    store.close().await;
    drop(store);

    let store = limited(dir.path(), 1000);
    assert_eq!(store.commit(large).await.unwrap(), 3);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_much_does_not_fail_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = limited(dir.path(), 200);
    let commits: Vec<_> = (0..32)
        .map(|n| {
            let store = std::sync::Arc::clone(&store);
            let size = if n == 7 { 2_000_000 } else { 100 };
            tokio::spawn(async move {
                store
                    .commit(append(&actor(&n.to_string()), 0, vec![b'x'; size]))
                    .await
            })
        })
        .collect();
    for (n, commit) in commits.into_iter().enumerate() {
        let result = commit.await.unwrap();
        assert_eq!(result.is_err(), n == 7, "{n}: {result:?}");
    }
    store.verify().await.unwrap();
    store.close().await;
}
