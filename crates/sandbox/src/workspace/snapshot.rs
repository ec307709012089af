//! Snapshots, forks, restore and diff: volumes above volumes.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bowline_store::{ActorId, RowChange, Timestamp};

use super::{
    ChangeKind, ChangeSet, PathChange, Workspace, WorkspaceError, WorkspaceLimits,
    change::Applied,
    committed::Shared,
    entry::{Content, DirId, Entry, Node, ROOT, decode, encode},
    path,
    volume::{self, SPACE, Volume, VolumeId},
};

/// Longest name of a snapshot or fork, in bytes.
const NAME_LENGTH: usize = 255;
/// Most rows, and bytes in them, that the removal of a snapshot moves.
const FOLD_ROWS: usize = 20_000;
const FOLD_BYTES: usize = 32 << 20;
/// Rows read at once meanwhile.
const FOLD_PAGE: usize = 1000;

/// What one removal has moved so far, all volumes together.
#[derive(Default)]
struct Folded {
    keys: HashSet<Vec<u8>>,
    rows: usize,
    bytes: usize,
}

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
        let mut set = change_set(rows, above, headers, false);
        set.applied.time = now;
        set.applied.event = Some(format!("snapshot {name}"));
        Ok(set)
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
    pub async fn restore(
        &self,
        snapshot: &str,
        now: Timestamp,
    ) -> Result<ChangeSet, WorkspaceError> {
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
        let mut set = change_set(rows, above, headers, true);
        set.applied.time = now;
        set.applied.event = Some(format!("restore {snapshot}"));
        Ok(set)
    }

    /// Removes a snapshot. What only it held goes with it; what later states stand on stays, and is
    /// folded into them where that is little and no fork stands on it too. Overlays that are open then
    /// conflict.
    ///
    /// # Errors
    ///
    /// `ENOENT` for the snapshot.
    pub async fn remove_snapshot(
        &self,
        snapshot: &str,
        now: Timestamp,
    ) -> Result<ChangeSet, WorkspaceError> {
        self.0.open().await?;
        let mut headers = self.0.headers().await?;
        let mut gone = labelled(&headers, snapshot)?;
        gone.label = None;
        gone.frozen = None;
        let id = gone.id;
        headers.insert(id, gone);
        self.without(headers, id, now, format!("remove snapshot {snapshot}"))
            .await
    }

    /// Removes a fork with its files. It must not be open any more.
    ///
    /// # Errors
    ///
    /// `ENOENT` for the fork.
    pub async fn remove_fork(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<ChangeSet, WorkspaceError> {
        self.0.open().await?;
        let mut headers = self.0.headers().await?;
        let gone = headers
            .values_mut()
            .find(|volume| volume.fork.as_deref() == Some(name))
            .ok_or_else(|| WorkspaceError::NotFound(format!("fork {name}")))?;
        gone.fork = None;
        let id = gone.id;
        self.without(headers, id, now, format!("remove fork {name}"))
            .await
    }

    /// Drops a volume that has no name any more, and the nameless ones below it.
    async fn without(
        &self,
        mut headers: BTreeMap<VolumeId, Volume>,
        id: VolumeId,
        now: Timestamp,
        event: String,
    ) -> Result<ChangeSet, WorkspaceError> {
        let mut rows = Vec::new();
        // Seen from a fork, the workspace itself may be open and know its chain by heart.
        let main = self.0.state().live.live;
        let mut next = Some(id);
        let mut replaced = false;
        let mut folded = Folded::default();
        while let Some(volume) = next.and_then(|id| headers.get(&id)).cloned() {
            let kept = volume.live || volume.fork.is_some() || volume.label.is_some();
            let above: Vec<VolumeId> = headers
                .values()
                .filter(|other| other.base == Some(volume.id))
                .map(|other| other.id)
                .collect();
            if kept {
                break;
            }
            let heir = match above[..] {
                [] => None,
                [only] if main && !forked(&headers, volume.id) => headers.get(&only).cloned(),
                _ => {
                    rows.push(volume.put()?);
                    break;
                }
            };
            if let Some(mut heir) = heir {
                let Some(moved) = self.fold(&volume, &heir, &mut folded).await? else {
                    rows.push(volume.put()?);
                    break;
                };
                rows.extend(moved);
                heir.base = volume.base;
                rows.push(heir.put()?);
                replaced |= heir.live;
                headers.insert(heir.id, heir);
            }
            rows.push(RowChange::Delete {
                space: SPACE,
                key: volume::header_key(volume.id),
            });
            rows.push(RowChange::DeletePrefix {
                space: SPACE,
                prefix: volume.id.to_be_bytes().to_vec(),
            });
            headers.remove(&volume.id);
            next = volume.base;
        }
        let live = match headers.values().find(|volume| volume.live) {
            Some(live) if self.0.state().live.id == live.id => Volume {
                base: live.base,
                next_dir: self.0.next_dir(),
                generation: live.generation + 1,
                ..self.0.state().live.clone()
            },
            _ => self.0.state().live.clone(),
        };
        rows.push(live.put()?);
        let mut set = change_set(rows, live, headers, replaced);
        set.applied.time = now;
        set.applied.event = Some(event);
        Ok(set)
    }

    /// The rows of a volume that the only one above it has to take over; `None` when they are many.
    /// Where the same removal has given the heir a row already, that one is from higher up and stays.
    async fn fold(
        &self,
        volume: &Volume,
        heir: &Volume,
        folded: &mut Folded,
    ) -> Result<Option<Vec<RowChange>>, WorkspaceError> {
        let (store, actor) = (&self.0.store, &self.0.actor);
        let prefix = volume.id.to_be_bytes();
        let mut found: Vec<bowline_store::Row> = Vec::new();
        loop {
            let after = found.last().map(|row| row.key.clone());
            let page = store
                .scan(actor, SPACE, &prefix, after.as_deref(), FOLD_PAGE)
                .await?;
            let done = page.len() < FOLD_PAGE;
            found.extend(page);
            let bytes: usize = found.iter().map(|row| row.value.len()).sum();
            if folded.rows + found.len() > FOLD_ROWS || folded.bytes + bytes > FOLD_BYTES {
                return Ok(None);
            }
            if done {
                folded.rows += found.len();
                folded.bytes += bytes;
                break;
            }
        }
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            let mut key = heir.id.to_be_bytes().to_vec();
            key.extend_from_slice(row.key.get(prefix.len()..).unwrap_or_default());
            if folded.keys.contains(&key) || store.row(actor, SPACE, &key).await?.is_some() {
                continue;
            }
            folded.keys.insert(key.clone());
            let blobs = decode(&row.value)?.map_or_else(Vec::new, |entry| encode(&entry).1);
            rows.push(RowChange::Put {
                space: SPACE,
                key,
                value: row.value,
                blobs,
            });
        }
        Ok(Some(rows))
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

/// Whether a fork stands on a volume; it may be open, and then it knows its chain by heart.
fn forked(headers: &BTreeMap<VolumeId, Volume>, id: VolumeId) -> bool {
    headers
        .values()
        .filter(|volume| volume.fork.is_some())
        .any(|fork| chain(headers, fork.id).contains(&id))
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
