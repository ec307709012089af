//! Overlays: writes that are not committed yet, above what is.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline_store::{Blob, RowChange, Timestamp};

use super::{
    ChangeKind, ChangeSet, PathChange, WorkspaceError,
    change::Applied,
    committed::{Need, Shared, Stop},
    entry::{
        Chunk, Content, DirId, Entry, EntryKind, GIVEN, Names, Node, ROOT, cut, encode, tombstone,
    },
    limits::{INLINE, SUMMARY_PATHS},
    path,
    volume::{self, SPACE, Volume},
    walked::Walked,
};

/// Writes above the committed state, or above another overlay, that see themselves and that nobody
/// else sees. A handle: clones share the same writes.
///
/// A step has one overlay; each tool call of the step runs on a [`Overlay::child`], which is either
/// folded in with [`Overlay::merge`] (the call counts) or dropped (it was cancelled).
#[derive(Clone)]
pub struct Overlay(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    base: Option<Overlay>,
    pub(crate) now: Timestamp,
    id: u64,
    /// Clock of the base when this began.
    since: u64,
    layer: Mutex<Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    dirs: HashMap<DirId, LayerDir>,
    /// Directories that are gone with all that was in them, and when.
    removed: HashMap<DirId, u64>,
    bytes: i64,
    entries: i64,
    fresh: u64,
    /// Path → (was there before this overlay, what is there now).
    paths: BTreeMap<String, Touched>,
    omitted: usize,
    clock: u64,
}

#[derive(Debug, Clone)]
struct Touched {
    before: Option<EntryKind>,
    after: Option<EntryKind>,
}

#[derive(Debug, Default)]
struct LayerDir {
    names: BTreeMap<Arc<str>, Written>,
    /// Made in this overlay: nothing lies below.
    fresh: bool,
}

#[derive(Debug, Clone)]
struct Written {
    entry: Option<Arc<Entry>>,
    /// Whether something lay below at the first write.
    below: bool,
    at: u64,
}

/// One change to one name.
pub(crate) struct Put {
    pub(crate) dir: DirId,
    pub(crate) name: Arc<str>,
    pub(crate) was: Option<Arc<Entry>>,
    pub(crate) entry: Option<Arc<Entry>>,
    pub(crate) path: String,
}

/// Changes that are applied together.
#[derive(Default)]
pub(crate) struct Edit {
    pub(crate) puts: Vec<Put>,
    /// Directories that are made; they are complete as they are.
    pub(crate) fresh: Vec<DirId>,
    /// Directories that vanish with all that is in them.
    pub(crate) gone: Vec<DirId>,
    /// Usage of what vanishes with them.
    pub(crate) gone_bytes: u64,
    pub(crate) gone_entries: u64,
    /// Paths of what vanishes with them.
    pub(crate) gone_paths: Vec<(String, EntryKind)>,
    pub(crate) gone_omitted: usize,
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.0.layer();
        f.debug_struct("Overlay")
            .field("id", &self.0.id)
            .field("paths", &layer.paths.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.base.is_none() {
            self.shared.overlay_closed();
        }
    }
}

impl Overlay {
    pub(crate) fn above_committed(shared: Arc<Shared>, now: Timestamp) -> Self {
        let since = shared.overlay_opened();
        let id = shared.new_overlay();
        Self(Arc::new(Inner {
            shared,
            base: None,
            now,
            id,
            since,
            layer: Mutex::default(),
        }))
    }

    /// A further overlay above this one, for one tool call of a batch.
    pub fn child(&self) -> Self {
        let since = self.0.layer().clock;
        let shared = self.0.shared.clone();
        let id = shared.new_overlay();
        Self(Arc::new(Inner {
            shared,
            base: Some(self.clone()),
            now: self.0.now,
            id,
            since,
            layer: Mutex::default(),
        }))
    }

    /// Folds the writes of a child into the overlay below it; all handles of the child are empty
    /// afterwards. On an overlay that is not a child this does nothing.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Conflict`] when the overlay below has changed one of the same paths since
    /// the child was made. Then nothing is folded, and the child keeps its writes.
    pub fn merge(self) -> Result<(), WorkspaceError> {
        let Some(base) = &self.0.base else {
            return Ok(());
        };
        let mut child = self.0.layer();
        let mut parent = base.0.layer();
        if let Some(name) = parent.conflict(&child, self.0.since) {
            return Err(WorkspaceError::Conflict(child.path_of(&name)));
        }
        parent.absorb(std::mem::take(&mut *child));
        Ok(())
    }

    /// True when nothing was written.
    pub fn is_clean(&self) -> bool {
        let layer = self.0.layer();
        layer.dirs.is_empty() && layer.removed.is_empty()
    }

    /// The write set, for the batch of the step.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Conflict`] when another overlay has committed a change to one of the same
    /// paths since this one began; [`WorkspaceError::Invalid`] on a child, which must be merged first.
    pub fn changes(&self) -> Result<ChangeSet, WorkspaceError> {
        if self.0.base.is_some() {
            return Err(WorkspaceError::Invalid(
                "a child overlay must be merged before it is committed".into(),
            ));
        }
        let mut layer = self.0.layer();
        layer.prune();
        if layer.dirs.is_empty() && layer.removed.is_empty() {
            return Ok(ChangeSet::default());
        }
        self.0.check_conflicts(&layer)?;
        let volume = self.0.next_header(&layer);
        let (paths, omitted) = layer.summary();
        let mut set = ChangeSet {
            paths,
            omitted,
            applied: Applied {
                by: self.0.id,
                time: self.0.now,
                ..Applied::default()
            },
            ..ChangeSet::default()
        };
        for dir in layer.removed.keys() {
            set.rows.push(RowChange::DeletePrefix {
                space: SPACE,
                prefix: volume::dir_key(volume.id, *dir),
            });
            set.applied.removed.push(*dir);
        }
        for (dir, written) in &layer.dirs {
            if written.fresh {
                set.applied.fresh.push(*dir);
            }
            for (name, write) in &written.names {
                put_row(&mut set, &volume, *dir, name, write);
            }
        }
        set.rows.push(volume.put()?);
        set.applied.volume = Some(volume);
        Ok(set)
    }

    /// The limits of the workspace.
    pub fn limits(&self) -> &super::WorkspaceLimits {
        &self.0.shared.limits
    }

    /// The time that writes through this overlay get.
    pub fn now(&self) -> Timestamp {
        self.0.now
    }

    /// Content in bytes and number of entries, as this overlay sees them.
    pub fn usage(&self) -> Usage {
        let mut usage = match &self.0.base {
            Some(base) => base.usage(),
            None => {
                let state = self.0.shared.state();
                Usage {
                    bytes: state.live.bytes,
                    entries: state.live.entries,
                    uncommitted: 0,
                }
            }
        };
        let layer = self.0.layer();
        usage.bytes = usage.bytes.saturating_add_signed(layer.bytes);
        usage.entries = usage.entries.saturating_add_signed(layer.entries);
        usage.uncommitted = usage.uncommitted.saturating_add(layer.fresh);
        usage
    }

    /// Runs an operation that may need rows first, again after each was read.
    pub(crate) async fn run<T>(
        &self,
        mut operation: impl FnMut() -> Result<T, Stop> + Send,
    ) -> Result<T, WorkspaceError> {
        loop {
            match operation() {
                Ok(value) => return Ok(value),
                Err(Stop::Fail(error)) => return Err(error),
                Err(Stop::Need(need)) => self.0.shared.fetch(need).await?,
            }
        }
    }

    pub(crate) fn peek(&self, dir: DirId, name: &str) -> Result<Option<Arc<Entry>>, Need> {
        {
            let layer = self.0.layer();
            if let Some(here) = layer.dirs.get(&dir) {
                if let Some(written) = here.names.get(name) {
                    return Ok(written.entry.clone());
                }
                if here.fresh {
                    return Ok(None);
                }
            }
            if layer.removed.contains_key(&dir) {
                return Ok(None);
            }
        }
        match &self.0.base {
            Some(base) => base.peek(dir, name),
            None => self.0.shared.peek(dir, name),
        }
    }

    /// The names of a directory, in order.
    pub(crate) fn peek_list(&self, dir: DirId) -> Result<Names, Need> {
        let (fresh, removed) = {
            let layer = self.0.layer();
            (
                layer.dirs.get(&dir).is_some_and(|here| here.fresh),
                layer.removed.contains_key(&dir),
            )
        };
        let below = match &self.0.base {
            _ if fresh || removed => Vec::new(),
            Some(base) => base.peek_list(dir)?,
            None => self.0.shared.peek_list(dir)?,
        };
        let layer = self.0.layer();
        let Some(here) = layer.dirs.get(&dir).filter(|here| !here.names.is_empty()) else {
            return Ok(below);
        };
        let mut names: BTreeMap<_, _> = below.into_iter().collect();
        for (name, written) in &here.names {
            match &written.entry {
                Some(entry) => names.insert(name.clone(), entry.clone()),
                None => names.remove(name),
            };
        }
        Ok(names.into_iter().collect())
    }

    /// What a path leads to, where that takes no link and no `..`; `None` means that only
    /// [`Overlay::walk`] can tell. Most lookups end here, without any allocation.
    pub(crate) fn peek_path(&self, text: &str) -> Result<Option<Arc<Entry>>, Need> {
        let limits = &self.0.shared.limits;
        if text.is_empty() || text.len() > limits.path_length || text.contains('\0') {
            return Ok(None);
        }
        let start = if text.starts_with('/') {
            ""
        } else {
            path::WORKING_DIRECTORY
        };
        let mut names = start
            .split('/')
            .chain(text.split('/'))
            .filter(|name| !name.is_empty() && *name != ".")
            .peekable();
        let mut dir = ROOT;
        while let Some(name) = names.next() {
            if name == ".." || name.len() > limits.name_length {
                return Ok(None);
            }
            let Some(entry) = self.peek(dir, name)? else {
                return Ok(None);
            };
            match entry.node {
                Node::Symlink(_) => return Ok(None),
                _ if names.peek().is_none() => return Ok(Some(entry)),
                Node::Directory(id) => dir = id,
                Node::File(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Looks a path up. With `follow` a link in the last place is followed too.
    pub(crate) fn walk(&self, text: &str, names: &[String], follow: bool) -> Result<Walked, Stop> {
        let limits = &self.0.shared.limits;
        let mut dirs: Vec<(DirId, Arc<str>)> = vec![(ROOT, "".into())];
        let mut pending: Vec<String> = names.iter().rev().cloned().collect();
        let mut links = 0;
        // Names above this many are from a link's target.
        let mut given = usize::MAX;
        while let Some(name) = pending.pop() {
            let dangling = pending.len() >= given;
            given = if dangling { given } else { usize::MAX };
            if name == ".." {
                if dirs.len() > 1 {
                    dirs.pop();
                }
                continue;
            }
            let parent = dirs.last().map_or(ROOT, |(id, _)| *id);
            let last = pending.is_empty();
            let Some(entry) = self.peek(parent, &name)? else {
                if pending.iter().any(|name| name == "..") {
                    return Err(WorkspaceError::NotFound(text.into()).into());
                }
                let mut missing: Vec<Arc<str>> = Vec::with_capacity(pending.len());
                let mut name: Arc<str> = name.into();
                while let Some(next) = pending.pop() {
                    missing.push(std::mem::replace(&mut name, next.into()));
                }
                return Ok(Walked {
                    dirs,
                    missing,
                    dangling,
                    name,
                    entry: None,
                });
            };
            match &entry.node {
                Node::Symlink(target) if follow || !last => {
                    links += 1;
                    if links > limits.symlinks {
                        return Err(WorkspaceError::Loop(text.into()).into());
                    }
                    if target.starts_with('/') {
                        dirs.truncate(1);
                    }
                    given = given.min(pending.len());
                    pending.extend(path::split_target(target, limits)?.into_iter().rev());
                }
                _ if last => {
                    let (missing, dangling) = (Vec::new(), false);
                    return Ok(Walked {
                        dirs,
                        missing,
                        dangling,
                        name: name.into(),
                        entry: Some(entry),
                    });
                }
                Node::Directory(id) => dirs.push((*id, name.into())),
                Node::File(_) | Node::Symlink(_) => {
                    return Err(WorkspaceError::NotDirectory(text.into()).into());
                }
            }
        }
        // The path was `/`, or ended in `..` or in a link to such.
        let (_, name) = dirs.pop().unwrap_or((ROOT, "".into()));
        let entry = match dirs.last() {
            Some((parent, _)) => self.peek(*parent, &name)?,
            None => Some(Arc::new(Entry::given(ROOT))),
        };
        Ok(Walked {
            dirs,
            missing: Vec::new(),
            dangling: false,
            name,
            entry,
        })
    }

    /// Applies changes, all or none, within the quota.
    pub(crate) fn apply(&self, edit: Edit) -> Result<(), WorkspaceError> {
        let (mut bytes, mut entries, mut fresh) =
            (-signed(edit.gone_bytes), -signed(edit.gone_entries), 0u64);
        for put in &edit.puts {
            bytes += put
                .entry
                .as_ref()
                .map_or(0, |entry| signed(entry.charged()));
            bytes -= put.was.as_ref().map_or(0, |was| signed(was.charged()));
            entries += i64::from(put.entry.is_some()) - i64::from(put.was.is_some());
            fresh += put.entry.as_ref().map_or(0, |entry| entry_fresh(entry));
        }
        let limits = self.0.shared.limits;
        if bytes > 0 || entries > 0 || fresh > 0 {
            let usage = self.usage();
            let replaced: u64 = edit
                .puts
                .iter()
                .filter_map(|put| put.was.as_deref())
                .map(entry_fresh)
                .sum();
            if bytes > 0 && usage.bytes.saturating_add_signed(bytes) > limits.bytes {
                return Err(WorkspaceError::Quota {
                    what: "bytes in the workspace",
                    limit: limits.bytes,
                });
            }
            if entries > 0 && usage.entries.saturating_add_signed(entries) > limits.entries {
                return Err(WorkspaceError::Quota {
                    what: "entries in the workspace",
                    limit: limits.entries,
                });
            }
            if fresh > replaced
                && usage.uncommitted.saturating_add(fresh)
                    > limits.step_bytes.saturating_add(replaced)
            {
                return Err(WorkspaceError::Quota {
                    what: "new bytes in one step",
                    limit: limits.step_bytes,
                });
            }
        }
        self.0.layer().apply(edit, bytes, entries);
        Ok(())
    }
}

/// What a workspace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Content of all files, in bytes.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// New content that is only in memory so far, in bytes.
    pub uncommitted: u64,
}

impl Inner {
    fn layer(&self) -> MutexGuard<'_, Layer> {
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_conflicts(&self, layer: &Layer) -> Result<(), WorkspaceError> {
        if self.shared.state().clock == self.since {
            return Ok(());
        }
        for (dir, here) in &layer.dirs {
            for name in here.names.keys() {
                if self.shared.changed_since(*dir, name, self.since, self.id) {
                    return Err(WorkspaceError::Conflict(layer.path_of(name)));
                }
            }
        }
        for dir in layer.removed.keys() {
            if self.shared.dir_changed_since(*dir, self.since, self.id) {
                return Err(WorkspaceError::Conflict(
                    "a directory that was removed".into(),
                ));
            }
        }
        Ok(())
    }

    fn next_header(&self, layer: &Layer) -> Volume {
        let state = self.shared.state();
        Volume {
            generation: state.live.generation + 1,
            next_dir: self.shared.next_dir(),
            bytes: state.live.bytes.saturating_add_signed(layer.bytes),
            entries: state.live.entries.saturating_add_signed(layer.entries),
            ..state.live.clone()
        }
    }
}

impl Layer {
    fn apply(&mut self, edit: Edit, bytes: i64, entries: i64) {
        self.clock += 1;
        self.bytes += bytes;
        self.entries += entries;
        for dir in edit.gone {
            let made_here = self.drop_dir(dir);
            if !made_here {
                self.removed.insert(dir, self.clock);
            }
        }
        for dir in edit.fresh {
            self.dirs.entry(dir).or_default().fresh = true;
        }
        for (path, kind) in edit.gone_paths {
            self.touch(path, Some(kind), None);
        }
        self.omitted += edit.gone_omitted;
        for put in edit.puts {
            self.touch(
                put.path,
                put.was.as_ref().map(|was| was.kind()),
                put.entry.as_ref().map(|entry| entry.kind()),
            );
            self.fresh += put.entry.as_ref().map_or(0, |entry| entry_fresh(entry));
            let at = self.clock;
            let here = self.dirs.entry(put.dir).or_default();
            let below = put.was.is_some();
            let written = here.names.entry(put.name).or_insert(Written {
                entry: None,
                below,
                at,
            });
            self.fresh -= written.entry.as_ref().map_or(0, |entry| entry_fresh(entry));
            written.entry = put.entry;
            written.at = at;
        }
    }

    /// Forgets what was written in a directory; true when the directory was made here.
    fn drop_dir(&mut self, dir: DirId) -> bool {
        let Some(here) = self.dirs.remove(&dir) else {
            return false;
        };
        let written = here
            .names
            .values()
            .filter_map(|written| written.entry.as_deref());
        self.fresh -= written.map(entry_fresh).sum::<u64>();
        here.fresh
    }

    fn touch(&mut self, path: String, before: Option<EntryKind>, after: Option<EntryKind>) {
        if let Some(touched) = self.paths.get_mut(&path) {
            touched.after = after;
        } else if self.paths.len() < SUMMARY_PATHS {
            self.paths.insert(path, Touched { before, after });
        } else {
            self.omitted += 1;
        }
    }

    fn summary(&self) -> (Vec<PathChange>, usize) {
        let paths = self.paths.iter().filter_map(|(path, touched)| {
            let (change, kind) = match (touched.before, touched.after) {
                (None, Some(kind)) => (ChangeKind::Create, kind),
                (Some(_), Some(kind)) => (ChangeKind::Update, kind),
                (Some(kind), None) => (ChangeKind::Delete, kind),
                (None, None) => return None,
            };
            Some(PathChange {
                change,
                path: path.clone(),
                kind,
            })
        });
        (paths.collect(), self.omitted)
    }

    /// Drops writes that came to nothing: made and removed again.
    fn prune(&mut self) {
        for here in self.dirs.values_mut() {
            let fresh = here.fresh;
            here.names
                .retain(|_, written| written.entry.is_some() || (written.below && !fresh));
        }
        self.dirs
            .retain(|_, here| here.fresh || !here.names.is_empty());
    }

    /// A name that both have changed, this one after the other began.
    fn conflict(&self, child: &Self, since: u64) -> Option<Arc<str>> {
        if self.clock == since {
            return None;
        }
        for (dir, theirs) in &child.dirs {
            if self.removed.get(dir).is_some_and(|at| *at > since) {
                return theirs.names.keys().next().cloned();
            }
            let Some(here) = self.dirs.get(dir) else {
                continue;
            };
            for name in theirs.names.keys() {
                if here
                    .names
                    .get(name)
                    .is_some_and(|written| written.at > since)
                {
                    return Some(name.clone());
                }
            }
        }
        let removed = child
            .removed
            .keys()
            .filter_map(|dir| self.dirs.get(dir))
            .flat_map(|here| &here.names);
        removed
            .into_iter()
            .find(|(_, written)| written.at > since)
            .map(|(name, _)| name.clone())
    }

    fn absorb(&mut self, child: Self) {
        self.clock += 1;
        self.bytes += child.bytes;
        self.entries += child.entries;
        for dir in child.removed.into_keys() {
            if !self.drop_dir(dir) {
                self.removed.insert(dir, self.clock);
            }
        }
        for (dir, theirs) in child.dirs {
            let at = self.clock;
            let here = self.dirs.entry(dir).or_default();
            here.fresh |= theirs.fresh;
            for (name, theirs) in theirs.names {
                self.fresh += theirs.entry.as_deref().map_or(0, entry_fresh);
                match here.names.get_mut(&name) {
                    Some(mine) => {
                        self.fresh -= mine.entry.as_deref().map_or(0, entry_fresh);
                        mine.entry = theirs.entry;
                        mine.at = at;
                    }
                    None => {
                        here.names.insert(name, Written { at, ..theirs });
                    }
                }
            }
        }
        for (path, touched) in child.paths {
            self.touch(path, touched.before, touched.after);
        }
        self.omitted += child.omitted;
    }

    fn path_of(&self, name: &str) -> String {
        let ending = self
            .paths
            .keys()
            .find(|path| path.rsplit('/').next() == Some(name));
        ending.cloned().unwrap_or_else(|| name.to_owned())
    }
}

/// Adds the row of one write, with its blobs.
fn put_row(set: &mut ChangeSet, volume: &Volume, dir: DirId, name: &Arc<str>, write: &Written) {
    let key = volume::entry_key(volume.id, dir, name);
    let stored = write.entry.as_ref().map(|entry| {
        let mut stored = (**entry).clone();
        stored.version = volume.generation;
        if let Node::File(content) = &stored.node {
            stored.node = Node::File(settle(content, &mut set.blobs));
        }
        Arc::new(stored)
    });
    match &stored {
        Some(entry) => {
            let (value, blobs) = encode(entry);
            set.rows.push(RowChange::Put {
                space: SPACE,
                key,
                value,
                blobs,
            });
        }
        None if volume.base.is_some()
            || (dir == ROOT && GIVEN.iter().any(|(given, _)| **given == **name)) =>
        {
            set.rows.push(RowChange::Put {
                space: SPACE,
                key,
                value: tombstone(),
                blobs: Vec::new(),
            });
        }
        None => set.rows.push(RowChange::Delete { space: SPACE, key }),
    }
    set.applied.entries.push((dir, name.clone(), stored));
}

/// Content as a row has it: inline, or as chunks, which are added to `blobs`.
fn settle(content: &Content, blobs: &mut Vec<Blob>) -> Content {
    let (size, chunks) = match content {
        Content::Row { .. } => return content.clone(),
        Content::Inline(bytes) if bytes.len() <= INLINE => return content.clone(),
        Content::Inline(bytes) => (bytes.len() as u64, cut(bytes)),
        Content::Chunked { size, chunks } => (*size, chunks.to_vec()),
    };
    let stored = chunks.into_iter().map(|chunk| match chunk {
        Chunk::Stored(_) => chunk,
        Chunk::Fresh(bytes) => {
            let blob = Blob::new(bytes);
            let id = blob.id;
            blobs.push(blob);
            Chunk::Stored(id)
        }
    });
    Content::Chunked {
        size,
        chunks: stored.collect(),
    }
}

/// Bytes of an entry that only memory has.
fn entry_fresh(entry: &Entry) -> u64 {
    match &entry.node {
        Node::File(content) if entry.version == 0 => content.fresh(),
        _ => 0,
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
