//! The committed state of one actor's files: read from the store when touched, kept in memory.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bowline_store::{ActorId, BlobId, Row, Store, StoreError};
use bytes::{Bytes, BytesMut};
use tokio::sync::broadcast;

use super::{
    ChangeSet, WorkspaceError, WorkspaceLimits,
    entry::{Chunk, Content, DirId, Entry, GIVEN, Names, Node, ROOT, decode},
    limits::{CACHED_CHUNKS, CACHED_ENTRIES, CACHED_INLINE},
    volume::{self, SPACE, Volume, VolumeId},
    watch::{BACKLOG, Changed},
};

/// Rows read at once while a directory is listed.
const PAGE: usize = 1000;

/// Rows read at once at the second miss in a directory; a smaller directory is then known whole.
const AHEAD: usize = 256;

/// What must be read from the store before an operation can go on.
#[derive(Debug)]
pub(crate) enum Need {
    Entry(DirId, Arc<str>),
    Listing(DirId),
}

/// One workspace, shared by its handles and overlays.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) actor: ActorId,
    pub(crate) limits: WorkspaceLimits,
    /// Name of the fork that this is.
    fork: Option<String>,
    opened: tokio::sync::OnceCell<()>,
    next_dir: AtomicU64,
    next_overlay: AtomicU64,
    pub(crate) followers: broadcast::Sender<Arc<Changed>>,
    state: Mutex<Committed>,
}

#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) live: Volume,
    /// The live volume and its bases, topmost first.
    pub(crate) chain: Vec<VolumeId>,
    /// Headers of all other volumes.
    pub(crate) volumes: BTreeMap<VolumeId, Volume>,
    dirs: HashMap<DirId, CachedDir>,
    entries: usize,
    inline: usize,
    chunks: Chunks,
    /// Grows with each change set; overlays remember it.
    pub(crate) clock: u64,
    overlays: usize,
    /// What changed while overlays were open: (clock, overlay).
    changed: HashMap<DirId, HashMap<Arc<str>, (u64, u64)>>,
    removed: HashMap<DirId, (u64, u64)>,
    /// Clock at which all files were replaced by others.
    replaced: u64,
}

#[derive(Debug, Default)]
struct CachedDir {
    entries: BTreeMap<Arc<str>, Option<Arc<Entry>>>,
    complete: bool,
    /// Names that were looked up in the store one by one.
    misses: usize,
}

/// What of a workspace is in memory, as [`super::Workspace::held`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Directories of which something is known.
    pub directories: usize,
    /// Names that are known, those that are known to be missing included.
    pub entries: usize,
    /// Content, in bytes.
    pub bytes: usize,
}

/// Recently used chunks, oldest out first.
#[derive(Debug, Default)]
struct Chunks {
    found: HashMap<BlobId, Bytes>,
    order: VecDeque<BlobId>,
    bytes: usize,
}

impl Chunks {
    fn insert(&mut self, id: BlobId, bytes: Bytes) {
        if self.found.contains_key(&id) {
            return;
        }
        self.bytes += bytes.len();
        self.found.insert(id, bytes);
        self.order.push_back(id);
        while self.bytes > CACHED_CHUNKS {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(dropped) = self.found.remove(&oldest) {
                self.bytes -= dropped.len();
            }
        }
    }
}

impl Shared {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        actor: ActorId,
        limits: WorkspaceLimits,
        fork: Option<String>,
    ) -> Self {
        let live = Volume::first();
        Self {
            store,
            actor,
            limits,
            fork,
            opened: tokio::sync::OnceCell::new(),
            next_dir: AtomicU64::new(live.next_dir),
            next_overlay: AtomicU64::new(1),
            followers: broadcast::Sender::new(BACKLOG),
            state: Mutex::new(Committed {
                chain: vec![live.id],
                live,
                volumes: BTreeMap::new(),
                dirs: HashMap::new(),
                entries: 0,
                inline: 0,
                chunks: Chunks::default(),
                clock: 0,
                overlays: 0,
                changed: HashMap::new(),
                removed: HashMap::new(),
                replaced: 0,
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Committed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_dir(&self) -> DirId {
        self.next_dir.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_dir(&self) -> DirId {
        self.next_dir.load(Ordering::Relaxed)
    }

    pub(crate) fn new_overlay(&self) -> u64 {
        self.next_overlay.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads the headers, once.
    pub(crate) async fn open(&self) -> Result<(), StoreError> {
        self.opened
            .get_or_try_init(|| async {
                let mut volumes = self.headers().await?;
                let ours = |volume: &&Volume| match &self.fork {
                    Some(name) => volume.fork.as_deref() == Some(name),
                    None => volume.live,
                };
                let live = volumes.values().find(ours).cloned();
                if live.is_none() && self.fork.is_some() {
                    return Err(StoreError::Io(
                        "there is no such fork of the workspace".into(),
                    ));
                }
                let mut state = self.state();
                if let Some(live) = live {
                    volumes.remove(&live.id);
                    self.next_dir.store(live.next_dir, Ordering::Relaxed);
                    state.live = live;
                }
                state.volumes = volumes;
                state.rebuild_chain()
            })
            .await
            .copied()
    }

    /// The headers of all volumes, as they are stored.
    pub(crate) async fn headers(&self) -> Result<BTreeMap<VolumeId, Volume>, StoreError> {
        let mut volumes = BTreeMap::new();
        for row in self.scan_all(&volume::headers()).await? {
            let found = Volume::read(&row.key, &row.value)?;
            volumes.insert(found.id, found);
        }
        Ok(volumes)
    }

    /// All rows with a prefix.
    async fn scan_all(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let mut all: Vec<Row> = Vec::new();
        loop {
            let after = all.last().map(|row| row.key.as_slice());
            let rows = self
                .store
                .scan(&self.actor, SPACE, prefix, after, PAGE)
                .await?;
            let done = rows.len() < PAGE;
            all.extend(rows);
            if done {
                return Ok(all);
            }
        }
    }

    /// The entries of a directory in a chain of volumes, past the cache.
    pub(crate) async fn read_dir(
        &self,
        chain: &[VolumeId],
        dir: DirId,
    ) -> Result<Vec<(Arc<str>, Entry)>, StoreError> {
        let mut names: BTreeMap<Arc<str>, Option<Entry>> = BTreeMap::new();
        for volume in chain {
            let prefix = volume::dir_key(*volume, dir);
            for row in self.scan_all(&prefix).await? {
                let name = name_of(&row.key, prefix.len())?;
                if !names.contains_key(name) {
                    names.insert(name.into(), decode(&row.value)?);
                }
            }
        }
        for (name, _) in GIVEN.iter().filter(|_| dir == ROOT) {
            names
                .entry(Arc::from(*name))
                .or_insert_with(|| given(dir, name));
        }
        Ok(names
            .into_iter()
            .filter_map(|(name, entry)| Some((name, entry?)))
            .collect())
    }

    /// An overlay begins; returns the clock that it starts from.
    pub(crate) fn overlay_opened(&self) -> u64 {
        let mut state = self.state();
        state.overlays += 1;
        state.clock
    }

    pub(crate) fn overlay_closed(&self) {
        let mut state = self.state();
        state.overlays = state.overlays.saturating_sub(1);
        if state.overlays == 0 {
            state.changed.clear();
            state.removed.clear();
            if state.entries > CACHED_ENTRIES {
                state.forget();
            }
        }
    }

    /// What is committed under a name, if that is known without reading.
    pub(crate) fn peek(&self, dir: DirId, name: &str) -> Result<Option<Arc<Entry>>, Need> {
        let state = self.state();
        match state.dirs.get(&dir) {
            Some(cached) => match cached.entries.get(name) {
                Some(entry) => Ok(entry.clone()),
                None if cached.complete => Ok(None),
                None => Err(Need::Entry(dir, name.into())),
            },
            None => Err(Need::Entry(dir, name.into())),
        }
    }

    /// What is committed in a directory, if that is known without reading.
    pub(crate) fn peek_list(&self, dir: DirId) -> Result<Names, Need> {
        let state = self.state();
        match state.dirs.get(&dir) {
            Some(cached) if cached.complete => Ok(cached
                .entries
                .iter()
                .filter_map(|(name, entry)| Some((name.clone(), entry.clone()?)))
                .collect()),
            _ => Err(Need::Listing(dir)),
        }
    }

    pub(crate) async fn fetch(&self, need: Need) -> Result<(), StoreError> {
        match need {
            Need::Entry(dir, name) => self.fetch_entry(dir, name).await,
            Need::Listing(dir) => self.fetch_listing(dir).await,
        }
    }

    async fn fetch_entry(&self, dir: DirId, name: Arc<str>) -> Result<(), StoreError> {
        let misses = {
            let mut state = self.state();
            let cached = state.dirs.entry(dir).or_default();
            cached.misses += 1;
            cached.misses
        };
        // Who reads two files of a directory mostly reads more of them.
        if misses == 2 && self.fetch_small_listing(dir).await? {
            return Ok(());
        }
        let (chain, clock) = self.position();
        let mut found = None;
        for volume in chain {
            let key = volume::entry_key(volume, dir, &name);
            if let Some(row) = self.store.row(&self.actor, SPACE, &key).await? {
                found = Some(decode(&row)?);
                break;
            }
        }
        let found = match found {
            Some(stored) => stored,
            None => given(dir, &name),
        };
        let mut state = self.state();
        if state.clock == clock {
            state.insert(dir, name, found);
        }
        Ok(())
    }

    /// Reads a directory when it has fewer than `AHEAD` rows in each volume; false when it has more.
    async fn fetch_small_listing(&self, dir: DirId) -> Result<bool, StoreError> {
        let (chain, clock) = self.position();
        let mut listing = Listing::new(self.state().inline);
        for volume in chain {
            let prefix = volume::dir_key(volume, dir);
            let rows = self
                .store
                .scan(&self.actor, SPACE, &prefix, None, AHEAD)
                .await?;
            if rows.len() == AHEAD {
                return Ok(false);
            }
            for row in &rows {
                listing.add(row, prefix.len())?;
            }
        }
        self.take_listing(dir, listing, clock);
        Ok(true)
    }

    async fn fetch_listing(&self, dir: DirId) -> Result<(), StoreError> {
        let (chain, clock) = self.position();
        let mut listing = Listing::new(self.state().inline);
        for volume in chain {
            let prefix = volume::dir_key(volume, dir);
            let mut after: Option<Vec<u8>> = None;
            loop {
                let rows = self
                    .store
                    .scan(&self.actor, SPACE, &prefix, after.as_deref(), PAGE)
                    .await?;
                let done = rows.len() < PAGE;
                for row in rows {
                    listing.add(&row, prefix.len())?;
                    after = Some(row.key);
                }
                if done {
                    break;
                }
            }
        }
        self.take_listing(dir, listing, clock);
        Ok(())
    }

    /// Keeps a directory that was read whole, unless something was committed meanwhile.
    fn take_listing(&self, dir: DirId, listing: Listing, clock: u64) {
        let mut names = listing.names;
        for (name, _) in GIVEN.iter().filter(|_| dir == ROOT) {
            names
                .entry(Arc::from(*name))
                .or_insert_with(|| given(dir, name));
        }
        let mut state = self.state();
        if state.clock == clock {
            for (name, entry) in names {
                state.insert(dir, name, entry);
            }
            state.dirs.entry(dir).or_default().complete = true;
        }
    }

    fn position(&self) -> (Vec<VolumeId>, u64) {
        let state = self.state();
        (state.chain.clone(), state.clock)
    }

    /// All bytes of a file.
    pub(crate) async fn content(&self, content: &Content) -> Result<Bytes, StoreError> {
        match content {
            Content::Inline(bytes) => Ok(bytes.clone()),
            Content::Row { key, .. } => {
                let row = self.store.row(&self.actor, SPACE, key).await?;
                match row.map(|row| decode(&row)).transpose()?.flatten() {
                    Some(Entry {
                        node: Node::File(Content::Inline(bytes)),
                        ..
                    }) => Ok(bytes),
                    _ => Err(StoreError::Corrupt("the row of a file is gone".into())),
                }
            }
            Content::Chunked { size, chunks } => {
                if let [only] = &chunks[..] {
                    return self.chunk(only).await;
                }
                let mut all = BytesMut::with_capacity(usize::try_from(*size).unwrap_or(0));
                for chunk in chunks.iter() {
                    all.extend_from_slice(&self.chunk(chunk).await?);
                }
                Ok(all.freeze())
            }
        }
    }

    /// The bytes of a piece of a file.
    pub(crate) async fn chunk(&self, chunk: &Chunk) -> Result<Bytes, StoreError> {
        let id = match chunk {
            Chunk::Stored(id) => *id,
            Chunk::Fresh(bytes) => return Ok(bytes.clone()),
        };
        if let Some(bytes) = self.state().chunks.found.get(&id) {
            return Ok(bytes.clone());
        }
        let found = self.store.blob(id).await?;
        let bytes =
            found.ok_or_else(|| StoreError::Corrupt(format!("chunk {id} of a file is gone")))?;
        self.state().chunks.insert(id, bytes.clone());
        Ok(bytes)
    }

    /// Takes over what has become durable.
    pub(crate) fn committed(&self, changes: &ChangeSet) {
        let Some(volume) = changes.applied.volume.clone() else {
            return;
        };
        self.apply(volume, changes);
        // Nobody may be listening, which is no error.
        let _ = self.followers.send(Arc::new(Changed::of(changes)));
    }

    fn apply(&self, volume: Volume, changes: &ChangeSet) {
        let mut state = self.state();
        let state = &mut *state;
        state.clock += 1;
        state.live = volume;
        if let Some(volumes) = changes.applied.volumes.clone() {
            state.volumes = volumes;
            let before = state.chain.clone();
            if let Err(error) = state.rebuild_chain() {
                tracing::error!(%error, "the volumes of a workspace do not fit together");
            }
            // What is kept may name rows of a volume that is gone.
            if before.iter().any(|id| !state.chain.contains(id)) {
                state.forget();
            }
        }
        if changes.applied.replaced {
            state.replaced = state.clock;
            state.forget();
        }
        for blob in &changes.blobs {
            state.chunks.insert(blob.id, blob.bytes.clone());
        }
        for dir in &changes.applied.removed {
            state.drop_dir(*dir);
            state
                .removed
                .insert(*dir, (state.clock, changes.applied.by));
        }
        for dir in &changes.applied.fresh {
            state.dirs.entry(*dir).or_default().complete = true;
        }
        for (dir, name, entry) in &changes.applied.entries {
            let clock = state.clock;
            state
                .changed
                .entry(*dir)
                .or_default()
                .insert(name.clone(), (clock, changes.applied.by));
            let found = entry.as_ref().map(|entry| {
                let key = volume::entry_key(state.live.id, *dir, name);
                trim((**entry).clone(), &key, &mut state.inline.clone())
            });
            state.insert(*dir, name.clone(), found);
        }
        if state.overlays == 0 {
            state.changed.clear();
            state.removed.clear();
        }
    }

    /// The first of these that another overlay has committed since `clock`.
    pub(crate) fn changed_since(&self, dir: DirId, name: &str, clock: u64, me: u64) -> bool {
        let state = self.state();
        let newer = |(at, by): &(u64, u64)| *at > clock && *by != me;
        state.replaced > clock
            || state.removed.get(&dir).is_some_and(newer)
            || state
                .changed
                .get(&dir)
                .and_then(|names| names.get(name))
                .is_some_and(newer)
    }

    /// Whether another overlay has committed anything inside a directory since `clock`.
    pub(crate) fn dir_changed_since(&self, dir: DirId, clock: u64, me: u64) -> bool {
        let state = self.state();
        let newer = |(at, by): &(u64, u64)| *at > clock && *by != me;
        state
            .changed
            .get(&dir)
            .is_some_and(|names| names.values().any(newer))
    }
}

impl Committed {
    fn insert(&mut self, dir: DirId, name: Arc<str>, found: Option<Entry>) {
        let entry = found.map(Arc::new);
        self.entries += 1;
        self.inline += inline_len(entry.as_deref());
        let old = self
            .dirs
            .entry(dir)
            .or_default()
            .entries
            .insert(name, entry);
        if let Some(old) = old {
            self.entries -= 1;
            self.inline -= inline_len(old.as_deref());
        }
    }

    fn drop_dir(&mut self, dir: DirId) {
        let Some(dropped) = self.dirs.remove(&dir) else {
            return;
        };
        self.entries -= dropped.entries.len();
        self.inline -= dropped
            .entries
            .values()
            .map(|entry| inline_len(entry.as_deref()))
            .sum::<usize>();
    }

    /// Drops everything that can be read again.
    pub(crate) fn held(&self) -> Held {
        Held {
            directories: self.dirs.len(),
            entries: self.entries,
            bytes: self.inline + self.chunks.bytes,
        }
    }

    pub(crate) fn forget(&mut self) {
        self.dirs.clear();
        self.entries = 0;
        self.inline = 0;
        self.chunks = Chunks::default();
    }

    pub(crate) fn rebuild_chain(&mut self) -> Result<(), StoreError> {
        let mut chain = vec![self.live.id];
        let mut base = self.live.base;
        while let Some(id) = base {
            let volume = self.volumes.get(&id).filter(|_| !chain.contains(&id));
            let volume = volume
                .ok_or_else(|| StoreError::Corrupt(format!("workspace volume {id} is gone")))?;
            chain.push(id);
            base = volume.base;
        }
        self.chain = chain;
        Ok(())
    }
}

/// A directory while it is read, upper volumes first.
struct Listing {
    names: BTreeMap<Arc<str>, Option<Entry>>,
    /// Inline content that the cache has, this included.
    inline: usize,
}

impl Listing {
    fn new(inline: usize) -> Self {
        Self {
            names: BTreeMap::new(),
            inline,
        }
    }

    fn add(&mut self, row: &Row, prefix: usize) -> Result<(), StoreError> {
        let name = name_of(&row.key, prefix)?;
        if !self.names.contains_key(name) {
            let entry = decode(&row.value)?.map(|entry| trim(entry, &row.key, &mut self.inline));
            self.names.insert(name.into(), entry);
        }
        Ok(())
    }
}

/// The name in the key of an entry.
fn name_of(key: &[u8], prefix: usize) -> Result<&str, StoreError> {
    let name = key
        .get(prefix..)
        .and_then(|name| std::str::from_utf8(name).ok());
    name.ok_or_else(|| StoreError::Corrupt("a workspace entry has no name".into()))
}

fn inline_len(entry: Option<&Entry>) -> usize {
    match entry.map(|entry| &entry.node) {
        Some(Node::File(Content::Inline(bytes))) => bytes.len(),
        _ => 0,
    }
}

/// Leaves inline content in its row when the cache has enough of it.
fn trim(mut entry: Entry, key: &[u8], inline: &mut usize) -> Entry {
    if let Node::File(Content::Inline(bytes)) = &entry.node {
        if *inline + bytes.len() > CACHED_INLINE {
            let size = bytes.len() as u64;
            entry.node = Node::File(Content::Row {
                size,
                key: key.into(),
            });
        } else {
            *inline += bytes.len();
        }
    }
    entry
}

/// The entry of a directory that exists without a row.
fn given(dir: DirId, name: &str) -> Option<Entry> {
    GIVEN
        .iter()
        .find(|(given, _)| dir == ROOT && *given == name)
        .map(|(_, id)| Entry::given(*id))
}

/// Reading through a [`Need`] gives this.
pub(crate) enum Stop {
    Need(Need),
    Fail(WorkspaceError),
}

impl From<Need> for Stop {
    fn from(need: Need) -> Self {
        Self::Need(need)
    }
}

impl From<WorkspaceError> for Stop {
    fn from(error: WorkspaceError) -> Self {
        Self::Fail(error)
    }
}
