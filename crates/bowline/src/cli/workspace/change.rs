//! What changes files: one commit each, with the record that says so. Whoever has the data makes it.

use bowline_agent::edit::{self, FileEdit};
use bowline_runtime::{Sources, Step, kind};
use bowline_sandbox::workspace::WorkspaceLimits;
use bowline_store::{Batch, SqliteStore, Store as _};
use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::cli::{
    hand::Data,
    terminal::{count, one_line},
};

/// The files of a conversation, to change them.
pub(super) struct Write<'a> {
    data: Data,
    limits: WorkspaceLimits,
    whose: &'a Whose,
    actor: ActorId,
    terminal: Terminal,
}

impl<'a> Write<'a> {
    pub(super) async fn open(
        place: &Place,
        whose: &'a Whose,
        terminal: Terminal,
    ) -> Result<Self, Error> {
        // That it is there is known before the data is taken.
        let reading = place.conversation(&whose.agent, &whose.id).await?;
        let actor = reading.actor.clone();
        drop(reading);
        // Files can also be changed when the agent is not in the project any more, or cannot be read.
        let agent = place.project.definition(&whose.agent);
        let limits = agent.map(|agent| agent.workspace).unwrap_or_else(|_| {
            let shared = &place.project.config.limits;
            shared.apply_to_workspace(WorkspaceLimits::default())
        });
        Ok(Self {
            data: Data::open(place).await?,
            limits,
            whose,
            actor,
            terminal,
        })
    }

    /// Makes a change; `what` is the command.
    async fn make(&self, what: &str, change: FileEdit, content: Bytes) -> Result<Value, Error> {
        let origin = format!("bowline workspace {what}");
        let Whose { agent, id } = self.whose;
        match &self.data {
            Data::Own(store) => {
                let edit = change.signed(origin, content);
                let files = Workspace::with_limits(store.clone(), self.actor.clone(), self.limits);
                let made = commit(store, &files, &self.actor, &edit, what).await;
                store.close().await;
                made
            }
            Data::Remote(remote) => remote.edit(agent, id, change, origin, content).await,
        }
    }

    pub(super) async fn put(
        self,
        path: &str,
        content: Bytes,
        mode: Option<u32>,
    ) -> Result<(), Error> {
        let size = content.len();
        let change = FileEdit::Write {
            path: path.to_owned(),
            mode,
            when: edit::When::default(),
        };
        self.make("put", change, content).await?;
        if self.terminal.json {
            let line = json!({"type": "written", "path": path, "bytes": size});
            return self.terminal.json(&line);
        }
        self.terminal
            .say(format_args!("wrote {size} bytes to {}", one_line(path)));
        Ok(())
    }

    pub(super) async fn remove(self, path: &str, recursive: bool) -> Result<(), Error> {
        let change = FileEdit::Remove {
            path: path.to_owned(),
            recursive,
            when: edit::When::default(),
        };
        self.make("rm", change, Bytes::new()).await?;
        if self.terminal.json {
            return self
                .terminal
                .json(&json!({"type": "removed", "path": path}));
        }
        Ok(())
    }

    pub(super) async fn snapshot(self, name: &str, remove: bool) -> Result<(), Error> {
        let named = name.to_owned();
        let (change, what) = if remove {
            (FileEdit::RemoveSnapshot { name: named }, "removed")
        } else {
            (FileEdit::Snapshot { name: named }, "taken")
        };
        self.make("snapshot", change, Bytes::new()).await?;
        if self.terminal.json {
            let line = json!({"type": format!("snapshot-{what}"), "name": name});
            return self.terminal.json(&line);
        }
        self.terminal.say(format_args!("snapshot {name} {what}"));
        Ok(())
    }

    pub(super) async fn restore(self, name: &str) -> Result<(), Error> {
        let change = FileEdit::Restore {
            name: name.to_owned(),
        };
        self.make("restore", change, Bytes::new()).await?;
        if self.terminal.json {
            return self
                .terminal
                .json(&json!({"type": "restored", "name": name}));
        }
        self.terminal
            .say(format_args!("the files are those of snapshot {name}"));
        Ok(())
    }

    pub(super) async fn import(self, path: &str, content: Bytes) -> Result<(), Error> {
        let change = FileEdit::Unpack {
            path: path.to_owned(),
        };
        let told = self.make("import", change, content).await?;
        let number = |key: &str| told[key].as_u64().unwrap_or_default();
        if self.terminal.json {
            return self.terminal.json(&json!({
                "type": "imported", "path": path, "files": number("files"),
                "directories": number("directories"), "links": number("links"),
                "bytes": number("bytes"),
            }));
        }
        self.terminal.say(format_args!(
            "unpacked {} and {} bytes into {path}",
            count(number("files"), "file"),
            number("bytes")
        ));
        Ok(())
    }
}

/// Takes the conversation over for one commit: whoever opens it next reads the files again.
async fn commit(
    store: &SqliteStore,
    files: &Workspace,
    actor: &ActorId,
    edit: &bowline_runtime::Edit,
    what: &str,
) -> Result<Value, Error> {
    let now = Sources::system().now();
    let (changes, told) = edit::make(files, now, edit).await?;
    if changes.is_empty() {
        return Ok(told);
    }
    let head = store.head(actor).await?;
    let (epoch, seq) = head.map_or((0, 0), |head| (head.epoch, head.seq));
    let mut step = Step::new();
    let change = json!({ "change": format!("workspace {what}") });
    step.record(kind::ACTOR_OPENED, now, &change);
    let mut batch = Batch::new(actor.clone(), epoch + 1, seq);
    batch.records = step.records;
    batch.rows = changes.rows;
    batch.blobs = changes.blobs;
    store.commit(batch).await?;
    Ok(told)
}
