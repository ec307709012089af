//! A workspace on a store in memory, and the commit that the agent would do.

use std::sync::Arc;

use bowline_sandbox::workspace::{
    ChangeSet, Overlay, Workspace, WorkspaceError, WorkspaceLimits, WriteOptions,
};
use bowline_store::{ActorId, Batch, MemoryStore, Record, Store, Timestamp};
use bytes::Bytes;

pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) actor: ActorId,
    pub(crate) workspace: Workspace,
    pub(crate) limits: WorkspaceLimits,
}

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(WorkspaceLimits::default())
    }

    pub(crate) fn with_limits(limits: WorkspaceLimits) -> Self {
        Self::on(Arc::new(MemoryStore::new()), limits)
    }

    pub(crate) fn on(store: Arc<dyn Store>, limits: WorkspaceLimits) -> Self {
        let actor = ActorId::new("agent", "test", "one");
        let workspace = Workspace::with_limits(store.clone(), actor.clone(), limits);
        Self {
            store,
            actor,
            workspace,
            limits,
        }
    }

    /// The same files, read from the store again.
    pub(crate) fn reopen(&mut self) {
        self.workspace =
            Workspace::with_limits(self.store.clone(), self.actor.clone(), self.limits);
    }

    pub(crate) async fn begin(&self) -> Overlay {
        self.workspace.begin(NOW).await.unwrap()
    }

    pub(crate) async fn commit(&self, overlay: &Overlay) -> ChangeSet {
        let changes = overlay.changes().unwrap();
        self.commit_changes(&changes).await;
        changes
    }

    pub(crate) async fn commit_changes(&self, changes: &ChangeSet) {
        if !changes.is_empty() {
            self.store_changes(changes).await;
            self.workspace.committed(changes);
        }
    }

    /// Makes changes durable that are not those of `workspace`, but of a fork.
    pub(crate) async fn store_changes(&self, changes: &ChangeSet) {
        let head = self.store.head(&self.actor).await.unwrap();
        let seq = head.map_or(0, |head| head.seq);
        let mut batch = Batch::new(self.actor.clone(), 1, seq);
        batch.records.push(Record {
            kind: 1,
            version: 1,
            time: NOW,
            conversation: String::new(),
            submission: None,
            attempt: None,
            turn: None,
            body: Bytes::from_static(b"{}"),
            blobs: Vec::new(),
        });
        batch.rows.clone_from(&changes.rows);
        batch.blobs.clone_from(&changes.blobs);
        self.store.commit(batch).await.unwrap();
    }
}

pub(crate) async fn put(overlay: &Overlay, path: &str, content: impl AsRef<[u8]>) {
    let content = Bytes::copy_from_slice(content.as_ref());
    overlay
        .write(path, content, &WriteOptions::with_parents())
        .await
        .unwrap();
}

pub(crate) async fn text(overlay: &Overlay, path: &str) -> String {
    String::from_utf8(overlay.read(path).await.unwrap().to_vec()).unwrap()
}

pub(crate) fn posix<T: std::fmt::Debug>(result: Result<T, WorkspaceError>) -> &'static str {
    result.unwrap_err().posix()
}

pub(crate) async fn names(overlay: &Overlay, dir: &str) -> Vec<String> {
    overlay
        .list(dir)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}
