//! What the commit of an overlay carries.

use std::{collections::BTreeMap, sync::Arc};

use bowline_store::{Blob, RowChange, Timestamp};

use super::entry::{DirId, Entry, EntryKind};
use super::volume::{Volume, VolumeId};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there before.
    Create,
    /// It was there and is different now.
    Update,
    /// It is gone.
    Delete,
}

/// One changed path of a [`ChangeSet`]. A moved directory is one deletion and one creation, without
/// its contents.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PathChange {
    /// What happened.
    #[serde(rename = "type")]
    pub change: ChangeKind,
    /// The path, absolute, without links.
    pub path: String,
    /// What is there, or was.
    pub kind: EntryKind,
}

/// The write set of an overlay: what the batch of its step must carry so that it becomes durable.
///
/// Put `rows` and `blobs` into the batch unchanged, commit it, then hand this to
/// [`super::Workspace::committed`]. Between taking it and that call no other change set of the same
/// workspace may be taken: the actor's mailbox is the only committer.
#[derive(Debug, Clone, Default)]
pub struct ChangeSet {
    /// Rows to write, in this order.
    pub rows: Vec<RowChange>,
    /// Content that the rows refer to.
    pub blobs: Vec<Blob>,
    /// The changed paths, in order; at most 10,000 of them.
    pub paths: Vec<PathChange>,
    /// Changed paths beyond those in `paths`.
    pub omitted: usize,
    /// Who made the changes, and in which step: [`ChangeSet::sign`] sets it.
    pub origin: String,
    pub(crate) applied: Applied,
}

impl ChangeSet {
    /// True when nothing changed; then nothing needs to be committed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes that the batch will carry for this: rows and blobs.
    pub fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|row| match row {
            RowChange::Put { key, value, .. } => key.len() + value.len(),
            RowChange::Delete { key, .. } => key.len(),
            RowChange::DeletePrefix { prefix, .. } => prefix.len(),
        });
        rows.sum::<usize>()
            + self
                .blobs
                .iter()
                .map(|blob| blob.bytes.len())
                .sum::<usize>()
    }
}

/// What the cache of committed entries learns from a change set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) entries: Vec<(DirId, Arc<str>, Option<Arc<Entry>>)>,
    pub(crate) removed: Vec<DirId>,
    pub(crate) fresh: Vec<DirId>,
    pub(crate) volume: Option<Volume>,
    /// All other volumes, where they changed.
    pub(crate) volumes: Option<BTreeMap<VolumeId, Volume>>,
    /// All files may be others than before.
    pub(crate) replaced: bool,
    /// When, for the feed.
    pub(crate) time: Timestamp,
    /// What happened to the workspace as a whole, for the feed.
    pub(crate) event: Option<String>,
    /// Identity of the overlay, so that it does not conflict with itself.
    pub(crate) by: u64,
}
