//! What changes files: one commit each, with the record that says so.

use std::sync::Arc;

use bowline_runtime::{Sources, Step, kind};
use bowline_sandbox::archive;
use bytes::Bytes;

use super::*;
use crate::service;

/// The files of a conversation, for this process alone.
pub(super) struct Write {
    store: Arc<SqliteStore>,
    actor: ActorId,
    files: Workspace,
    sources: Sources,
}

impl Write {
    pub(super) async fn open(place: &Place, whose: &Whose) -> Result<Self, Error> {
        // That it is there is known before the data is taken.
        let reading = place.conversation(&whose.agent, &whose.id).await?;
        let actor = reading.actor.clone();
        drop(reading);
        let store = place.write()?;
        service::check_instance(&whose.id)?;
        Ok(Self {
            files: Workspace::open(store.clone(), actor.clone()),
            sources: Sources::system(),
            store,
            actor,
        })
    }

    /// Takes the conversation over for one commit: whoever opens it next reads the files again.
    async fn commit(self, mut changes: ChangeSet, what: &str) -> Result<(), Error> {
        if changes.is_empty() {
            self.store.close().await;
            return Ok(());
        }
        changes.sign(format!("bowline workspace {what}"))?;
        let head = self.store.head(&self.actor).await?;
        let (epoch, seq) = head.map_or((0, 0), |head| (head.epoch, head.seq));
        let mut step = Step::new();
        let change = serde_json::json!({ "change": format!("workspace {what}") });
        step.record(kind::ACTOR_OPENED, self.sources.now(), &change);
        let mut batch = Batch::new(self.actor.clone(), epoch + 1, seq);
        batch.records = step.records;
        batch.rows = changes.rows;
        batch.blobs = changes.blobs;
        self.store.commit(batch).await?;
        self.store.close().await;
        Ok(())
    }

    async fn begin(&self) -> Result<Overlay, Error> {
        Ok(self.files.begin(self.sources.now()).await?)
    }

    pub(super) async fn put(
        self,
        path: &str,
        content: Bytes,
        terminal: Terminal,
    ) -> Result<(), Error> {
        let overlay = self.begin().await?;
        let size = content.len();
        overlay
            .write(path, content, &WriteOptions::with_parents())
            .await?;
        self.commit(overlay.changes()?, "put").await?;
        if terminal.json {
            return terminal.json(&json!({"type": "written", "path": path, "bytes": size}));
        }
        terminal.say(format_args!("wrote {size} bytes to {path}"));
        Ok(())
    }

    pub(super) async fn remove(
        self,
        path: &str,
        recursive: bool,
        terminal: Terminal,
    ) -> Result<(), Error> {
        let overlay = self.begin().await?;
        overlay.remove(path, recursive, false).await?;
        self.commit(overlay.changes()?, "rm").await?;
        if terminal.json {
            return terminal.json(&json!({"type": "removed", "path": path}));
        }
        Ok(())
    }

    pub(super) async fn snapshot(
        self,
        name: &str,
        remove: bool,
        terminal: Terminal,
    ) -> Result<(), Error> {
        let now = self.sources.now();
        let (changes, what) = if remove {
            (self.files.remove_snapshot(name, now).await?, "removed")
        } else {
            (self.files.snapshot(name, now).await?, "taken")
        };
        self.commit(changes, "snapshot").await?;
        if terminal.json {
            return terminal.json(&json!({"type": format!("snapshot-{what}"), "name": name}));
        }
        terminal.say(format_args!("snapshot {name} {what}"));
        Ok(())
    }

    pub(super) async fn restore(self, name: &str, terminal: Terminal) -> Result<(), Error> {
        let changes = self.files.restore(name, self.sources.now()).await?;
        self.commit(changes, "restore").await?;
        if terminal.json {
            return terminal.json(&json!({"type": "restored", "name": name}));
        }
        terminal.say(format_args!("the files are those of snapshot {name}"));
        Ok(())
    }

    pub(super) async fn import(
        self,
        path: &str,
        content: Bytes,
        terminal: Terminal,
    ) -> Result<(), Error> {
        let overlay = self.begin().await?;
        let summary = archive::unpack_archive(&overlay, content, path)
            .await
            .map_err(transfer::archive_error)?;
        self.commit(overlay.changes()?, "import").await?;
        if terminal.json {
            return terminal.json(&json!({
                "type": "imported", "path": path, "files": summary.files,
                "directories": summary.directories, "links": summary.links,
                "bytes": summary.bytes,
            }));
        }
        terminal.say(format_args!(
            "unpacked {} and {} bytes into {path}",
            crate::cli::terminal::count(summary.files, "file"),
            summary.bytes
        ));
        Ok(())
    }
}
