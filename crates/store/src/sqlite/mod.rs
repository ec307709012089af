//! The embedded engine: one SQLite database in a data directory.
//!
//! - `writer`: the one thread that writes, and group commit; `apply` is what it does for each piece
//!   of work, `heads` what it remembers, `checkpoint` when its log is copied.
//! - `readers`: the threads that read; `query` is what they run.
//! - `schema`: the layout, opening, formats; `codec`: how values lie in it, their checksums.
//! - `restore`: putting a backup in the place of a data directory.
//! - `verify`: reading everything. `fault`: what SQLite's errors mean.
//!
//! A data directory belongs to one process at a time; others may open it read-only.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};

use self::{
    checkpoint::Checkpoints,
    fault::reading,
    readers::{Readers, in_one_view},
    schema::Role,
    writer::{Answer, Job, Work, Writer},
};
use crate::{
    ActorHead, ActorId, Batch, BlobId, CommitError, Dump, DumpError, InboxMessage, Metrics,
    OutboxMessage, Row, Seq, Store, StoreError, StoredRecord, Tail, Timestamp, limits,
    tails::Tails,
};

pub use schema::Migration;

mod apply;
mod checkpoint;
mod codec;
mod fault;
mod heads;
mod query;
mod readers;
mod restore;
mod schema;
mod verify;
mod writer;

/// Work that may wait for the writer, in KiB; more waits in front of the queue.
const QUEUE_KIB: usize = 64 * 1024;

/// How a [`SqliteStore`] is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Opens beside the running owner, without taking the data directory: every commit is refused
    /// with `Closed`, and tails see nothing that another process commits. Default: `false`.
    pub read_only: bool,
    /// Largest size of the database in pages of 4 KiB; a commit that needs more is refused with
    /// `Full`. Default: none.
    pub max_pages: Option<u32>,
    /// Page cache of each connection in KiB; it grows only as pages are used. Default: 4,096.
    pub cache_kib: u32,
    /// Threads that read, each with a connection; at least one. Default: 2.
    pub readers: usize,
    /// Commits whatever has queued as one transaction with one flush. `false` gives each batch a
    /// transaction of its own, which is only good for comparing. Default: `true`.
    pub group_commit: bool,
    /// Size of the write-ahead log, in KiB, at which it is copied into the database. It may grow to
    /// four times that while commits keep coming, and beyond only while a reader or a backup holds
    /// an old view. Default: 8,192.
    pub checkpoint_kib: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            max_pages: None,
            cache_kib: 4096,
            readers: 2,
            group_commit: true,
            checkpoint_kib: 8192,
        }
    }
}

/// A store in a data directory: the database `store.db`, its log `store.db-wal`, and `LOCK`, which
/// the owner keeps locked. Dropping it finishes what is queued, as [`Store::close`] does, but blocks.
#[derive(Debug)]
pub struct SqliteStore {
    inner: Arc<Inner>,
    closed: OnceCell<()>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    options: SqliteOptions,
    shared: Arc<Shared>,
    /// `None` when nothing may be committed any more.
    queue: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    /// Room in the queue, in KiB.
    room: Arc<Semaphore>,
    readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<schema::Lock>>,
}

/// What all threads of a store share.
#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    stopped: OnceLock<String>,
    tails: Tails,
}

#[derive(Debug, Default)]
struct Counters {
    flushes: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
    records: AtomicU64,
    checkpoints: AtomicU64,
}

impl Shared {
    /// Refuses every commit from now on.
    fn stop(&self, reason: &str) {
        if self.stopped.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "the store takes no commits any more");
        }
    }

    fn stopped(&self) -> Option<String> {
        self.stopped.get().cloned()
    }

    fn count(&self, which: impl Fn(&Counters) -> &AtomicU64) {
        self.add(which, 1);
    }

    fn add(&self, which: impl Fn(&Counters) -> &AtomicU64, many: usize) {
        which(&self.counters).fetch_add(many as u64, Ordering::Relaxed);
    }
}

impl SqliteStore {
    /// Opens the store in `dir`, and creates both when they are missing, the directory readable for
    /// its owner only. Blocks for a few milliseconds; longer after a crash, when the log is recovered.
    ///
    /// # Errors
    ///
    /// `Locked` when another process (or another store of this one) has the directory, `Corrupt`,
    /// `NewerFormat`, `Full` or `Io`. Without `read_only`, data of an older format is brought forward.
    pub fn open(dir: &Path, options: SqliteOptions) -> Result<Arc<Self>, StoreError> {
        Self::open_with(dir, options, schema::MIGRATIONS)
    }

    /// Whether a process has this store's data directory. Takes it for a moment itself to find out.
    ///
    /// # Errors
    ///
    /// When that cannot be told.
    pub fn is_owned(&self) -> Result<bool, StoreError> {
        if lock(&self.inner.lock).is_some() {
            return Ok(true);
        }
        schema::is_locked(&self.inner.dir)
    }

    /// As [`SqliteStore::open`], with other steps that bring older data forward than those this version has.
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`]; a step that fails changes nothing.
    pub fn open_with(
        dir: &Path,
        options: SqliteOptions,
        migrations: &[Migration],
    ) -> Result<Arc<Self>, StoreError> {
        let shared = Arc::new(Shared::default());
        let owned = if options.read_only {
            if !dir.join(schema::FILE).is_file() {
                return Err(StoreError::Io(format!(
                    "there is no store in {}",
                    dir.display()
                )));
            }
            None
        } else {
            schema::make_directory(dir)?;
            let lock = schema::lock(dir)?;
            let mut conn = schema::connect(dir, Role::Writer, &options)?;
            schema::bring_forward(&mut conn, migrations)?;
            checkpoint::recover(&conn)?;
            // SQLite does this too, but does not look at whether it worked.
            schema::sync_directory(dir)?;
            Some((lock, conn))
        };
        let connections: Result<Vec<_>, _> = (0..options.readers.max(1))
            .map(|_| schema::connect(dir, Role::Reader, &options))
            .collect();
        let connections = connections?;
        if options.read_only
            && let Some(conn) = connections.first()
        {
            schema::check_format(conn)?;
        }
        let readers = Readers::start(connections).map_err(|error| no_thread(&error))?;
        let (queue, writer, lock) = match owned {
            Some((lock, conn)) => {
                let (queue, thread) = start_writer(dir, conn, &shared, &options)?;
                (Some(queue), Some(thread), Some(lock))
            }
            None => (None, None, None),
        };
        let inner = Inner {
            dir: dir.to_owned(),
            options,
            shared,
            queue: Mutex::new(queue),
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            readers,
            writer: Mutex::new(writer),
            lock: Mutex::new(lock),
        };
        Ok(Arc::new(Self {
            inner: Arc::new(inner),
            closed: OnceCell::new(),
        }))
    }

    async fn ask(&self, work: Work, bytes: usize) -> Result<Answer, CommitError> {
        let inner = &self.inner;
        let kib = u32::try_from((bytes / 1024 + 1).min(QUEUE_KIB)).unwrap_or(u32::MAX);
        let room = Arc::clone(&inner.room)
            .acquire_many_owned(kib)
            .await
            .map_err(|_| inner.closed())?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            work,
            bytes,
            reply,
            _permit: room,
        };
        // Between getting room and queueing nothing waits, so batches queue in the order they came.
        let sent = lock(&inner.queue)
            .as_ref()
            .is_some_and(|queue| queue.send(job).is_ok());
        if !sent {
            return Err(inner.closed());
        }
        answer.await.map_err(|_| inner.closed())?
    }

    async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.readers.read(read).await
    }

    /// Runs something long on a connection and a thread of its own.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.closed.initialized() {
            return Err(StoreError::Closed("it was closed".into()));
        }
        let inner = Arc::clone(&self.inner);
        let (reply, answer) = oneshot::channel();
        let run = move || {
            let result = schema::connect(&inner.dir, Role::Reader, &inner.options)
                .and_then(|conn| work(&conn));
            let _ = reply.send(result);
        };
        std::thread::Builder::new()
            .name("store-aside".into())
            .spawn(run)
            .map_err(|error| no_thread(&error))?;
        answer
            .await
            .map_err(|_| StoreError::Closed("it was closed".into()))?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.inner.shut_down();
    }
}

impl Inner {
    fn closed(&self) -> CommitError {
        let read_only = self
            .options
            .read_only
            .then(|| "it was opened read-only".to_owned());
        let reason = self.shared.stopped().or(read_only);
        CommitError::Closed(reason.unwrap_or_else(|| "it was closed".into()))
    }

    /// Finishes what is queued and gives everything back. Blocks; the second time it does nothing.
    fn shut_down(&self) {
        lock(&self.queue).take();
        self.room.close();
        self.readers.stop();
        if let Some(writer) = lock(&self.writer).take() {
            let _ = writer.join();
        }
        self.shared.tails.close();
        lock(&self.lock).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_thread(error: &std::io::Error) -> StoreError {
    StoreError::Io(format!("no thread could be started: {error}"))
}

/// An answer to another question; the writer does not do that.
fn mixed_up() -> CommitError {
    CommitError::Closed("the writer gave an answer to another question".into())
}

type Started = (mpsc::UnboundedSender<Job>, JoinHandle<()>);

fn start_writer(
    dir: &Path,
    conn: Connection,
    shared: &Arc<Shared>,
    options: &SqliteOptions,
) -> Result<Started, StoreError> {
    let copier = schema::connect(dir, Role::Writer, options)?;
    let checkpoints = Checkpoints::start(copier, Arc::clone(shared), options.checkpoint_kib)
        .map_err(|error| no_thread(&error))?;
    let writer = Writer::new(conn, Arc::clone(shared), checkpoints, options.group_commit)
        .map_err(reading)?;
    let (queue, jobs) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || writer.run(jobs))
        .map_err(|error| no_thread(&error))?;
    Ok((queue, thread))
}

/// Copies what is durable at this moment; later commits are not held up.
fn copy(conn: &Connection, into: &Path) -> Result<(), StoreError> {
    schema::make_directory(into)?;
    let file = into.join(schema::FILE);
    if file.exists() {
        return Err(StoreError::Io(format!(
            "there is a store in {} already",
            into.display()
        )));
    }
    let text = file
        .to_str()
        .ok_or_else(|| StoreError::Io("the path of a backup must be UTF-8".into()))?;
    schema::create_file(&file)?;
    conn.pragma_update(None, "query_only", false)
        .map_err(reading)?;
    if let Err(error) = conn.execute("VACUUM INTO ?1", params![text]) {
        let _ = std::fs::remove_file(&file);
        return Err(reading(error));
    }
    File::open(&file)
        .and_then(|file| file.sync_all())
        .map_err(|error| fault::file(&file, &error))?;
    schema::sync_directory(into)
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, CommitError> {
        let invalid = limits::check(&batch).err();
        let bytes = limits::size(&batch);
        match self.ask(Work::Commit { batch, invalid }, bytes).await? {
            Answer::Committed(seq) => Ok(seq),
            Answer::Sent(_) | Answer::Delivered(_) | Answer::Purged => Err(mixed_up()),
        }
    }

    async fn head(&self, actor: &ActorId) -> Result<Option<ActorHead>, StoreError> {
        let actor = actor.clone();
        let head = self.view(move |conn| query::head(conn, &actor)).await?;
        let known = head.filter(|head| head.live || head.epoch > 0);
        Ok(known.map(|head| ActorHead {
            epoch: head.epoch,
            seq: head.seq,
            wake: head.wake.map(Timestamp::from_millis),
        }))
    }

    async fn read(
        &self,
        actor: &ActorId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let actor = actor.clone();
        self.view(move |conn| query::records(conn, &actor, after, limit))
            .await
    }

    fn tail(&self, actor: &ActorId) -> Tail {
        let (tail, new) = self.inner.shared.tails.follow(actor, 0);
        if new {
            let (actor, shared) = (actor.clone(), Arc::clone(&self.inner.shared));
            self.inner.readers.enqueue(Box::new(move |conn| {
                if let Ok(Some(head)) = in_one_view(conn, |conn| query::head(conn, &actor)) {
                    shared.tails.raise(&actor, head.seq);
                }
            }));
        }
        tail
    }

    async fn row(
        &self,
        actor: &ActorId,
        space: &str,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let (actor, space, key) = (actor.clone(), space.to_owned(), key.to_vec());
        self.view(move |conn| query::row(conn, &actor, &space, &key))
            .await
    }

    async fn scan(
        &self,
        actor: &ActorId,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (actor, space, prefix) = (actor.clone(), space.to_owned(), prefix.to_vec());
        let after = after.map(<[u8]>::to_vec);
        self.view(move |conn| query::scan(conn, &actor, &space, &prefix, after.as_deref(), limit))
            .await
    }

    async fn blob(&self, id: BlobId) -> Result<Option<Bytes>, StoreError> {
        self.view(move |conn| query::blob(conn, id)).await
    }

    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(ActorId, Timestamp)>, StoreError> {
        self.view(move |conn| query::due(conn, now, limit)).await
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        self.view(query::next_wake).await
    }

    async fn actors(
        &self,
        kind: &str,
        name: Option<&str>,
        after: Option<&ActorId>,
        limit: usize,
    ) -> Result<Vec<ActorId>, StoreError> {
        let (kind, name, after) = (kind.to_owned(), name.map(str::to_owned), after.cloned());
        self.view(move |conn| query::actors(conn, &kind, name.as_deref(), after.as_ref(), limit))
            .await
    }

    async fn send(&self, to: &ActorId, message: InboxMessage) -> Result<bool, CommitError> {
        limits::check_message(to, &message).map_err(CommitError::Invalid)?;
        let bytes = message.body.len() + 256;
        match self
            .ask(
                Work::Send {
                    to: to.clone(),
                    message,
                },
                bytes,
            )
            .await?
        {
            Answer::Sent(new) => Ok(new),
            Answer::Committed(_) | Answer::Delivered(_) | Answer::Purged => Err(mixed_up()),
        }
    }

    async fn inbox(&self, actor: &ActorId, limit: usize) -> Result<Vec<InboxMessage>, StoreError> {
        let actor = actor.clone();
        self.view(move |conn| query::inbox(conn, &actor, limit))
            .await
    }

    async fn inbox_actors(&self, limit: usize) -> Result<Vec<ActorId>, StoreError> {
        self.view(move |conn| query::inbox_actors(conn, limit))
            .await
    }

    async fn deliver(&self, limit: usize) -> Result<Vec<OutboxMessage>, CommitError> {
        match self.ask(Work::Deliver { limit }, 0).await? {
            Answer::Delivered(messages) => Ok(messages),
            Answer::Committed(_) | Answer::Sent(_) | Answer::Purged => Err(mixed_up()),
        }
    }

    async fn purge(&self, actor: &ActorId) -> Result<(), CommitError> {
        match self
            .ask(
                Work::Purge {
                    actor: actor.clone(),
                    idle_at: None,
                },
                0,
            )
            .await?
        {
            Answer::Purged => Ok(()),
            Answer::Committed(_) | Answer::Sent(_) | Answer::Delivered(_) => Err(mixed_up()),
        }
    }

    async fn purge_idle(&self, actor: &ActorId, seq: Seq) -> Result<(), CommitError> {
        let work = Work::Purge {
            actor: actor.clone(),
            idle_at: Some(seq),
        };
        match self.ask(work, 0).await? {
            Answer::Purged => Ok(()),
            Answer::Committed(_) | Answer::Sent(_) | Answer::Delivered(_) => Err(mixed_up()),
        }
    }

    async fn dump(&self, actor: &ActorId) -> Result<Option<Dump>, DumpError> {
        let actor = actor.clone();
        self.aside(move |conn| in_one_view(conn, |conn| Ok(query::dump(conn, &actor))))
            .await?
    }

    async fn backup(&self, into: &Path) -> Result<(), StoreError> {
        let into = into.to_owned();
        self.aside(move |conn| copy(conn, &into)).await
    }

    async fn verify(&self) -> Result<(), StoreError> {
        self.aside(|conn| in_one_view(conn, verify::everything))
            .await
    }

    fn metrics(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.inner.shared.counters;
        Metrics {
            flushes: get(&counters.flushes),
            batches: get(&counters.batches),
            refused: get(&counters.refused),
            records: get(&counters.records),
            checkpoints: get(&counters.checkpoints),
        }
    }

    async fn close(&self) {
        let close = || async {
            let inner = Arc::clone(&self.inner);
            let (done, closed) = oneshot::channel();
            let run = move || {
                inner.shut_down();
                let _ = done.send(());
            };
            if std::thread::Builder::new()
                .name("store-close".into())
                .spawn(run)
                .is_ok()
            {
                let _ = closed.await;
            } else {
                self.inner.shut_down();
            }
        };
        self.closed.get_or_init(close).await;
    }
}
