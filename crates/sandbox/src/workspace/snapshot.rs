//! Snapshots, forks, restore and diff: volumes above volumes.

use std::{collections::BTreeMap, sync::Arc};

use bowline_store::{ActorId, RowChange, Timestamp};

use super::{
    ChangeKind, ChangeSet, PathChange, Workspace, WorkspaceError, WorkspaceLimits,
    change::Applied,
    committed::Shared,
    entry::{Content, DirId, Entry, Node, ROOT, encode},
    path,
    volume::{self, SPACE, Volume, VolumeId},
};

/// Longest name of a snapshot or fork, in bytes.
const NAME_LENGTH: usize = 255;

/// A frozen state of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// When it was taken.
    pub taken: Timestamp,
    /// Content, in bytes.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Workspace {
    /// Opens a fork made by [`Workspace::fork`]: a workspace of its own that began as a snapshot.
    pub fn open_fork(
        store: Arc<dyn bowline_store::Store>,
        actor: ActorId,
        name: &str,
        limits: WorkspaceLimits,
    ) -> Self {
        Self(Arc::new(Shared::new(
            store,
            actor,
            limits,
            Some(name.to_owned()),
        )))
    }

    /// The snapshots, in the order in which they were taken.
    ///
    /// # Errors
    ///
    /// `EIO`.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, WorkspaceError> {
        let headers = self.0.headers().await?;
        let mut found: Vec<Snapshot> = headers.values().filter_map(snapshot).collect();
        found.sort_by_key(|snapshot| snapshot.taken);
        Ok(found)
    }

    /// Freezes the committed files under a name. Two rows, however many files there are. Commit the
    /// result like the write set of an overlay.
    ///
    /// # Errors
    ///
    /// `EEXIST` when there is a snapshot of this name, `EINVAL` for a name that is empty or too long.
    pub async fn snapshot(&self, name: &str, now: Timestamp) -> Result<ChangeSet, WorkspaceError> {
        let mut headers = self
            .free_name(name, |volume| volume.label.as_deref() == Some(name))
            .await?;
        let live = self.0.state().live.clone();
        let above = Volume {
            id: next_id(&headers),
            base: Some(live.id),
            generation: live.generation + 1,
            ..live.clone()
        };
        let frozen = Volume {
            live: false,
            fork: None,
            label: Some(name.to_owned()),
            frozen: Some(now.as_millis()),
            ..live
        };
        let rows = vec![frozen.put()?, above.put()?];
        headers.insert(frozen.id, frozen);
        Ok(change_set(rows, above, headers, false))
    }

    /// Makes a workspace of its own out of a snapshot, within the same actor. One row, however many
    /// files there are; rows are written when the fork changes something. Open it with
    /// [`Workspace::open_fork`] after the commit.
    ///
    /// # Errors
    ///
    /// `ENOENT` for the snapshot, `EEXIST` or `EINVAL` for the name.
    pub async fn fork(&self, snapshot: &str, name: &str) -> Result<ChangeSet, WorkspaceError> {
        let headers = self
            .free_name(name, |volume| volume.fork.as_deref() == Some(name))
            .await?;
        let base = labelled(&headers, snapshot)?;
        let fork = Volume {
            id: next_id(&headers),
            base: Some(base.id),
            fork: Some(name.to_owned()),
            label: None,
            frozen: None,
            ..base
        };
        // Nothing of this workspace changes.
        Ok(ChangeSet {
            rows: vec![fork.put()?],
            ..ChangeSet::default()
        })
    }

    /// Makes the files what they were in a snapshot. What was written after the last snapshot is
    /// gone; take one first to keep it.
    ///
    /// # Errors
    ///
    /// `ENOENT` for the snapshot.
    pub async fn restore(&self, snapshot: &str) -> Result<ChangeSet, WorkspaceError> {
        self.0.open().await?;
        let mut headers = self.0.headers().await?;
        let base = labelled(&headers, snapshot)?;
        let live = self.0.state().live.clone();
        let above = Volume {
            id: next_id(&headers),
            base: Some(base.id),
            generation: live.generation + 1,
            next_dir: self.0.next_dir(),
            bytes: base.bytes,
            entries: base.entries,
            ..live.clone()
        };
        headers.remove(&live.id);
        let mut rows = vec![above.put()?];
        rows.push(RowChange::Delete {
            space: SPACE,
            key: volume::header_key(live.id),
        });
        rows.push(RowChange::DeletePrefix {
            space: SPACE,
            prefix: live.id.to_be_bytes().to_vec(),
        });
        Ok(change_set(rows, above, headers, true))
    }

    /// What happened from one snapshot to another one; without a name, to what is committed now.
    /// Reads the entries of both, not the content of their large files.
    ///
    /// # Errors
    ///
    /// `ENOENT` for a snapshot.
    pub async fn diff(
        &self,
        from: &str,
        to: Option<&str>,
    ) -> Result<Vec<PathChange>, WorkspaceError> {
        self.0.open().await?;
        let headers = self.0.headers().await?;
        let older = chain(&headers, labelled(&headers, from)?.id);
        let newer = match to {
            Some(name) => chain(&headers, labelled(&headers, name)?.id),
            None => self.0.state().chain.clone(),
        };
        let mut found = Vec::new();
        let mut pending: Vec<(String, Option<DirId>, Option<DirId>)> =
            vec![("/".into(), Some(ROOT), Some(ROOT))];
        while let Some((at, old, new)) = pending.pop() {
            let mut names: BTreeMap<Arc<str>, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
            if let Some(dir) = old {
                for (name, entry) in self.0.read_dir(&older, dir).await? {
                    names.entry(name).or_default().0 = Some(entry);
                }
            }
            if let Some(dir) = new {
                for (name, entry) in self.0.read_dir(&newer, dir).await? {
                    names.entry(name).or_default().1 = Some(entry);
                }
            }
            for (name, (old, new)) in names {
                let path = path::join(&at, &name);
                if let Some(change) = compare(&path, old.as_ref(), new.as_ref()) {
                    found.push(change);
                }
                let (old, new) = (dir_of(old.as_ref()), dir_of(new.as_ref()));
                if old.is_some() || new.is_some() {
                    pending.push((path, old, new));
                }
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    async fn free_name(
        &self,
        name: &str,
        taken: impl Fn(&Volume) -> bool,
    ) -> Result<BTreeMap<VolumeId, Volume>, WorkspaceError> {
        if name.is_empty() || name.len() > NAME_LENGTH {
            return Err(WorkspaceError::Invalid("a name has 1 to 255 bytes".into()));
        }
        self.0.open().await?;
        let headers = self.0.headers().await?;
        if headers.values().any(taken) {
            return Err(WorkspaceError::Exists(name.to_owned()));
        }
        Ok(headers)
    }
}

fn next_id(headers: &BTreeMap<VolumeId, Volume>) -> VolumeId {
    headers.keys().next_back().map_or(1, |last| *last).max(1) + 1
}

fn labelled(headers: &BTreeMap<VolumeId, Volume>, name: &str) -> Result<Volume, WorkspaceError> {
    let found = headers
        .values()
        .find(|volume| volume.label.as_deref() == Some(name))
        .cloned();
    found.ok_or_else(|| WorkspaceError::NotFound(format!("snapshot {name}")))
}

fn snapshot(volume: &Volume) -> Option<Snapshot> {
    let taken = Timestamp::from_millis(volume.frozen?);
    Some(Snapshot {
        name: volume.label.clone()?,
        taken,
        bytes: volume.bytes,
        entries: volume.entries,
    })
}

/// A volume and its bases, topmost first.
fn chain(headers: &BTreeMap<VolumeId, Volume>, id: VolumeId) -> Vec<VolumeId> {
    let mut chain = vec![id];
    let mut base = headers.get(&id).and_then(|volume| volume.base);
    while let Some(id) = base.filter(|id| !chain.contains(id)) {
        chain.push(id);
        base = headers.get(&id).and_then(|volume| volume.base);
    }
    chain
}

fn change_set(
    rows: Vec<RowChange>,
    live: Volume,
    mut volumes: BTreeMap<VolumeId, Volume>,
    replaced: bool,
) -> ChangeSet {
    volumes.remove(&live.id);
    let applied = Applied {
        volume: Some(live),
        volumes: Some(volumes),
        replaced,
        ..Applied::default()
    };
    ChangeSet {
        rows,
        applied,
        ..ChangeSet::default()
    }
}

fn dir_of(entry: Option<&Entry>) -> Option<DirId> {
    match entry.map(|entry| &entry.node) {
        Some(Node::Directory(id)) => Some(*id),
        _ => None,
    }
}

fn compare(path: &str, old: Option<&Entry>, new: Option<&Entry>) -> Option<PathChange> {
    let (change, kind) = match (old, new) {
        (None, Some(new)) => (ChangeKind::Create, new.kind()),
        (Some(old), None) => (ChangeKind::Delete, old.kind()),
        (Some(old), Some(new)) if !alike(old, new) => (ChangeKind::Update, new.kind()),
        _ => return None,
    };
    Some(PathChange {
        change,
        path: path.to_owned(),
        kind,
    })
}

/// Whether two entries have the same content and mode.
fn alike(old: &Entry, new: &Entry) -> bool {
    let plain = |entry: &Entry| {
        let mut plain = Entry {
            version: 0,
            modified: Timestamp::default(),
            created: Timestamp::default(),
            ..entry.clone()
        };
        if let Node::Directory(id) = &mut plain.node {
            *id = 0;
        }
        plain
    };
    debug_assert!(!matches!(&old.node, Node::File(Content::Row { .. })));
    encode(&plain(old)).0 == encode(&plain(new)).0
}
