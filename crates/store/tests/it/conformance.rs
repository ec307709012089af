//! Both engines keep the contract.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bowline_store::{
    MemoryStore, SqliteOptions, SqliteStore, Store, StoreError,
    conformance::{self, Engine},
};

struct Memory;

#[async_trait]
impl Engine for Memory {
    async fn fresh(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(MemoryStore::new()))
    }

    async fn reopen(&self, _store: Arc<dyn Store>) -> Result<Option<Arc<dyn Store>>, StoreError> {
        Ok(None)
    }
}

struct Sqlite {
    root: tempfile::TempDir,
    made: AtomicUsize,
    last: Mutex<PathBuf>,
    options: SqliteOptions,
}

impl Sqlite {
    fn new(options: SqliteOptions) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            root,
            made: AtomicUsize::new(0),
            last: Mutex::default(),
            options,
        }
    }
}

#[async_trait]
impl Engine for Sqlite {
    async fn fresh(&self) -> Result<Arc<dyn Store>, StoreError> {
        let dir = self
            .root
            .path()
            .join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        self.last.lock().unwrap().clone_from(&dir);
        Ok(SqliteStore::open(&dir, self.options.clone())?)
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Result<Option<Arc<dyn Store>>, StoreError> {
        store.close().await;
        let dir = self.last.lock().unwrap().clone();
        Ok(Some(SqliteStore::open(&dir, self.options.clone())?))
    }
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    conformance::all(&Memory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    conformance::all(&Sqlite::new(SqliteOptions::default()))
        .await
        .unwrap();
}

#[tokio::test]
async fn sqlite_keeps_the_contract_with_one_transaction_for_each_batch() {
    let options = SqliteOptions {
        group_commit: false,
        checkpoint_kib: 16,
        readers: 1,
        ..SqliteOptions::default()
    };
    conformance::all(&Sqlite::new(options)).await.unwrap();
}
