//! Durable streams: append-only bytes with an address, which any number of readers follow.
//!
//! A tour:
//!
//! - [`Streams`]: create, append, read, follow, fork, delete.
//! - [`append`]: what a writer sends, and what it is told. [`meta`]: what a stream is.
//! - [`offset`]: places in a stream. `json`: messages, kept byte for byte.
//! - `host`: one path, what readers see of it, and its queue; `drain` works that off; `ledger` knows
//!   what is durable and makes commits; `entry` is how appends lie in a record.
//! - `scan`: reading a range in pieces. `agenda`: what has to be looked at when.
//! - [`subscription`]: workers that are woken by appends.
//!
//! A stream is an actor of the kind `stream`. An append, its producer's state and a closure are one
//! commit; appends to one stream that come together share it, and all streams share its flush.
//! Readers see durable bytes only.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline_store::{ActorId, Store, Timestamp};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Sources;

mod agenda;
pub mod append;
mod drain;
mod entry;
pub mod error;
mod host;
mod json;
mod ledger;
pub mod meta;
pub mod offset;
mod scan;
pub mod subscription;

pub use append::{Append, Appended, Created, MAX_APPEND, NewFork, NewStream};
pub use entry::Producer;
pub use error::StreamError;
pub use host::Mark;
pub use meta::{Info, Lifetime, Meta};
pub use offset::{From, Offset};
pub use scan::Scan;

use agenda::Agenda;
use append::Prepared;
use host::{Host, Left, Op, Seen, View};
use subscription::Subscriptions;

/// Longest path of a stream, in bytes.
pub const MAX_PATH: usize = 1024;
/// Longest id of a producer and longest `Stream-Seq`, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Longest content type, in bytes.
const MAX_CONTENT_TYPE: usize = 256;
/// Most streams that hold the bytes of one fork.
const MAX_FORK_DEPTH: usize = 64;
/// Parts of the table of paths, each with a lock.
const SHARDS: usize = 16;
/// Entries of the agenda that are looked at together.
const AGENDA_PAGE: usize = 256;
/// How often paths that nobody uses are looked for.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(60);
/// How often a request looks again when the stream changes under it.
const LOOKS: usize = 4;

/// Settings of [`Streams`].
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Paths that are kept in memory while nobody uses them, about 1 KiB each. Default 16,384. Those
    /// that were not used for a minute or two are forgotten by [`Streams::supervise`] anyway.
    pub warm: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { warm: 16_384 }
    }
}

/// The streams of a store. Cheap to clone. Its methods need a tokio runtime.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

/// Shared by everybody who works on streams.
pub(crate) struct Inner {
    store: Arc<dyn Store>,
    sources: Sources,
    options: StreamOptions,
    agenda: Agenda,
    subscriptions: Subscriptions,
    hasher: RandomState,
    shards: [Mutex<HashMap<ActorId, Arc<Host>>>; SHARDS],
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

/// The actor of the stream at a path.
pub fn actor(path: &str) -> ActorId {
    ActorId::new("stream", "path", path)
}

/// A range of a stream, to be read.
#[derive(Debug)]
pub struct Reading {
    /// The stream, when it was asked for.
    pub info: Info,
    /// Where the range begins.
    pub start: Offset,
    /// Where it ends: the end of the stream, or the end of an append before it.
    pub end: Offset,
    /// Its bytes. In a stream of JSON each message is followed by a comma.
    pub scan: Scan,
}

impl Reading {
    /// The range reaches the end of the stream.
    pub fn is_up_to_date(&self) -> bool {
        self.end == self.info.tail
    }

    /// The range reaches the end of a closed stream.
    pub fn is_final(&self) -> bool {
        self.info.closed && self.is_up_to_date()
    }
}

impl Streams {
    /// The streams of a store. Only one of these may be in use for a store; another one fences it.
    pub fn new(store: Arc<dyn Store>, sources: Sources, options: StreamOptions) -> Self {
        Self(Arc::new(Inner {
            agenda: Agenda::new(store.clone(), sources.clone()),
            subscriptions: Subscriptions::default(),
            store,
            sources,
            options,
            hasher: RandomState::new(),
            shards: Default::default(),
        }))
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// The store that holds the streams.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Creates a stream. When this returns, it is durable, with its first bytes.
    ///
    /// # Errors
    ///
    /// `Exists` when another stream is at the path, one that was deleted included while forks need
    /// it; `Invalid`, `Json` and `TooLarge`; for forks `NotFound`, `ForkConflict` and `Invalid`.
    pub async fn create(&self, path: &str, new: NewStream) -> Result<Created, StreamError> {
        check_path(path)?;
        self.subscriptions().await?;
        let NewStream {
            content_type,
            lifetime,
            data,
            closed,
            fork,
        } = new;
        if content_type
            .as_ref()
            .is_some_and(|it| it.len() > MAX_CONTENT_TYPE)
        {
            let what = format!("a content type has at most {MAX_CONTENT_TYPE} bytes");
            return Err(StreamError::Invalid(what));
        }
        let host = self.0.host(path);
        let held = self.held(&host).await?;
        let mut meta = Meta {
            incarnation: format!("{:016x}", self.0.sources.random()),
            content_type: content_type.clone().unwrap_or_default(),
            lifetime: lifetime.clone().unwrap_or_default(),
            fork: None,
        };
        let forked = match fork {
            None => None,
            Some(fork) => {
                let lineage = (content_type.is_some(), lifetime.is_some());
                self.lineage(&fork, &mut meta, lineage, held.as_ref())
                    .await?
            }
        };
        if meta.content_type.is_empty() {
            meta.content_type = "application/octet-stream".into();
        }
        let first = Append {
            data,
            closes: closed,
            ..Append::default()
        };
        let mut first = prepare(&meta, first)?;
        if let Some(StreamError::Empty) = first.problem {
            (first.problem, first.append.data) = (None, Bytes::new());
        }
        let created = self.begin(&host, held.is_none(), meta, first, forked.as_deref());
        created.await
    }

    async fn begin(
        &self,
        host: &Arc<Host>,
        absent: bool,
        meta: Meta,
        first: Prepared,
        source: Option<&str>,
    ) -> Result<Created, StreamError> {
        let path = host.actor.key();
        if absent {
            self.0
                .subscriptions
                .link(&self.0, path, meta.base())
                .await?;
            let now = self.0.sources.now();
            if let Some(deadline) = meta.deadline(now) {
                self.0.agenda.add(deadline, path).await?;
            }
        }
        let (Some(source), Some(fork)) = (source, &meta.fork) else {
            return self
                .0
                .ask(host, |reply| Op::Create(Box::new((meta, first)), reply))
                .await;
        };
        let origin = self.0.host(&fork.source);
        let now = self.0.sources.now();
        // Should this process end half-way, the source is looked at again.
        let later = now.after(std::time::Duration::from_secs(60));
        self.0.agenda.add(later, &fork.source).await?;
        let request = |reply| Op::Fork {
            path: path.to_owned(),
            fork: meta.incarnation.clone(),
            source: source.to_owned(),
            reply,
        };
        self.0.ask(&origin, request).await?;
        let from = fork.source.clone();
        let created = self
            .0
            .ask(host, |reply| Op::Create(Box::new((meta, first)), reply))
            .await;
        origin.remove_forking();
        if !created.as_ref().is_ok_and(|created| created.new) {
            // It may also have been lost to one that was created meanwhile: the examination tells.
            tokio::spawn(examine(self.0.clone(), from));
        }
        created
    }

    /// The stream at a path, if there is one that is not expired.
    async fn held(&self, host: &Arc<Host>) -> Result<Option<Seen>, StreamError> {
        match self.look(host).await {
            Ok(seen) => Ok(Some(seen)),
            Err(StreamError::NotFound) => Ok(None),
            Err(StreamError::Gone) => Err(StreamError::Exists),
            Err(error) => Err(error),
        }
    }

    /// Fills in what a fork takes from its source. Answers with the source's incarnation, or with
    /// nothing when the fork is there already.
    async fn lineage(
        &self,
        fork: &NewFork,
        meta: &mut Meta,
        (own_type, own_lifetime): (bool, bool),
        held: Option<&Seen>,
    ) -> Result<Option<String>, StreamError> {
        let mut lineage = meta::Fork {
            source: fork.source.clone(),
            offset: fork.offset.map(|offset| offset.0),
            sub_offset: fork.sub_offset,
            inherited: Vec::new(),
        };
        if fork.sub_offset > 0 && fork.offset.is_none() {
            let what = "a sub-offset counts from an offset: give both";
            return Err(StreamError::Invalid(what.into()));
        }
        if let Some(held) = held {
            // Nothing is created: what is there is compared with what was asked for.
            if !own_type {
                meta.content_type.clone_from(&held.meta.content_type);
            }
            if !own_lifetime {
                meta.lifetime = held.meta.lifetime.clone();
            }
            meta.fork = Some(lineage);
            return Ok(None);
        }
        check_path(&fork.source)?;
        let source = self.0.host(&fork.source);
        let seen = match self.look(&source).await {
            Err(StreamError::Gone) => {
                let what = "the source was deleted: fork another stream";
                return Err(StreamError::ForkConflict(what.into()));
            }
            seen => seen?,
        };
        let type_of = meta::media_type;
        if !own_type {
            meta.content_type.clone_from(&seen.meta.content_type);
        } else if !type_of(&meta.content_type)
            .eq_ignore_ascii_case(type_of(&seen.meta.content_type))
        {
            let held = &seen.meta.content_type;
            let what = format!("the source holds {held}, and so must its forks");
            return Err(StreamError::ForkConflict(what));
        }
        if !own_lifetime {
            meta.lifetime = seen.meta.lifetime.clone();
        }
        let anchor = fork.offset.map_or(seen.tail, |offset| offset.0);
        let store = &self.0.store;
        let at = scan::fork_point(store, &source.actor, &seen, anchor, fork.sub_offset).await?;
        lineage.inherited = inherit(&seen.meta, &fork.source, at)?;
        meta.fork = Some(lineage);
        Ok(Some(seen.meta.incarnation.clone()))
    }

    /// Appends to a stream. When this returns, it is durable. Appends that are waiting at the same
    /// time become one commit, in the order in which they came.
    ///
    /// # Errors
    ///
    /// In this order: `NotFound`, `Gone`, `Closed`, `ContentType`, what is wrong with the producer,
    /// `Sequence`, `Empty`, `Json`.
    pub async fn append(&self, path: &str, append: Append) -> Result<Appended, StreamError> {
        check_path(path)?;
        self.subscriptions().await?;
        let text = append.producer.as_ref().map(|it| it.id.len());
        let texts = [text, append.sequence.as_ref().map(String::len)];
        if texts.into_iter().flatten().any(|len| len > MAX_TEXT) {
            let what = format!("a producer's id and a sequence have at most {MAX_TEXT} bytes");
            return Err(StreamError::Invalid(what));
        }
        let host = self.0.host(path);
        let seen = self.look(&host).await?;
        let prepared = prepare(&seen.meta, append)?;
        let appended = self.0.ask(&host, |reply| Op::Append(prepared, reply)).await;
        self.touch(&host, &seen.meta);
        appended
    }

    /// What a stream is now. Does not count as a use of it.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Gone`, or what the store reports.
    pub async fn info(&self, path: &str) -> Result<Info, StreamError> {
        check_path(path)?;
        Ok(self.look(&self.0.host(path)).await?.info())
    }

    /// A range of a stream, of about `most` bytes at most. It ends with an append.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Gone`, or what the store reports.
    pub async fn read(&self, path: &str, from: From, most: u64) -> Result<Reading, StreamError> {
        check_path(path)?;
        let host = self.0.host(path);
        let seen = self.look(&host).await?;
        self.touch(&host, &seen.meta);
        self.0.reading(&host, &seen, from, most).await
    }

    /// Follows a stream. It does not expire for not being used while it is followed.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Gone`, or what the store reports.
    pub async fn tail(&self, path: &str) -> Result<Follower, StreamError> {
        check_path(path)?;
        let host = self.0.host(path);
        let seen = self.look(&host).await?;
        self.touch(&host, &seen.meta);
        let (number, marks) = host.join().ok_or(StreamError::NotFound)?;
        Ok(Follower {
            streams: self.0.clone(),
            host,
            number,
            marks,
        })
    }

    /// Deletes a stream. One that has forks is kept for them, and is `Gone` for everybody else.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Gone`, or what the store reports.
    pub async fn delete(&self, path: &str) -> Result<(), StreamError> {
        check_path(path)?;
        self.subscriptions().await?;
        let host = self.0.host(path);
        self.0.ask(&host, Op::Delete).await
    }

    /// Deletes what has expired, and keeps the subscriptions' promises, until it is told to stop.
    /// Without it, streams that have expired are there no more all the same, but take up space.
    pub async fn supervise(&self, stop: CancellationToken) {
        let clean = async {
            loop {
                let pause = match self.due().await {
                    Ok(pause) => pause,
                    Err(cause) => {
                        tracing::error!(%cause, "streams that expire cannot be looked after");
                        Some(std::time::Duration::from_secs(60))
                    }
                };
                tokio::select! {
                    () = self.0.agenda.changed() => {}
                    () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                }
            }
        };
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP).await;
                for shard in &self.0.shards {
                    let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                    shard.retain(|_, host| Arc::strong_count(host) > 1 || !host.is_cold());
                    if shard.len() * 4 < shard.capacity() {
                        shard.shrink_to_fit();
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = clean => {}
            () = sweep => {}
            () = subscription::keep(&self.0) => {}
        }
    }

    /// Does what is due, and says how long nothing will be.
    async fn due(&self) -> Result<Option<std::time::Duration>, StreamError> {
        loop {
            let entries = self.0.agenda.first(AGENDA_PAGE).await?;
            let now = self.0.sources.now();
            let Some(first) = entries.first() else {
                return Ok(None);
            };
            if first.at > now {
                return Ok(Some(first.at.since(now)));
            }
            for entry in entries.into_iter().take_while(|entry| entry.at <= now) {
                let again = examine(self.0.clone(), entry.path.clone()).await?;
                // An entry may be there that says the same.
                let again = again.filter(|again| *again != entry.at);
                self.0.agenda.done(entry, again).await?;
            }
        }
    }

    /// The subscriptions, once they are known.
    async fn subscriptions(&self) -> Result<(), StreamError> {
        self.0.subscriptions.ready(&self.0).await
    }

    /// What readers may see of the stream at a path.
    async fn look(&self, host: &Arc<Host>) -> Result<Seen, StreamError> {
        for _ in 0..LOOKS {
            let expired = host.has_expired(self.0.sources.now());
            match host.view() {
                View::Stream(seen) if !expired => {
                    return if seen.gone {
                        Err(StreamError::Gone)
                    } else {
                        Ok(seen)
                    };
                }
                View::Nothing => return Err(StreamError::NotFound),
                View::Stream(_) | View::Unknown => self.0.ask(host, Op::Load).await?,
            }
        }
        Err(StreamError::Unavailable)
    }

    /// Counts as a use of the stream.
    fn touch(&self, host: &Arc<Host>, meta: &Meta) {
        let now = self.0.sources.now();
        if let Lifetime::Idle(seconds) = meta.lifetime
            && host.touch(now, drain::slack(seconds))
        {
            self.0.put(host, Op::Touch(now));
        }
    }
}

impl Inner {
    fn shard(&self, actor: &ActorId) -> MutexGuard<'_, HashMap<ActorId, Arc<Host>>> {
        let at = usize::try_from(self.hasher.hash_one(actor) % SHARDS as u64).unwrap_or(0);
        // The remainder is smaller than the number of shards.
        let shard = self.shards.get(at).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host of a path. When there are many, those that nobody uses are forgotten.
    fn host(&self, path: &str) -> Arc<Host> {
        let actor = actor(path);
        let mut shard = self.shard(&actor);
        if let Some(host) = shard.get(&actor) {
            return host.clone();
        }
        if shard.len() >= (self.options.warm / SHARDS).max(1) {
            let before = shard.len();
            shard.retain(|_, host| Arc::strong_count(host) > 1 || !host.is_cold());
            if shard.len() == before {
                // All of them were used lately; the next look tells which were so again.
                shard.retain(|_, host| Arc::strong_count(host) > 1 || !host.is_cold());
            }
        }
        let host = Host::new(actor.clone());
        shard.insert(actor, host.clone());
        host
    }

    fn put(self: &Arc<Self>, host: &Arc<Host>, op: Op) {
        if host.enqueue(op) {
            tokio::spawn(drain::drain(self.clone(), host.clone()));
        }
    }

    async fn ask<T>(
        self: &Arc<Self>,
        host: &Arc<Host>,
        op: impl FnOnce(host::Reply<T>) -> Op,
    ) -> Result<T, StreamError> {
        let (reply, answer) = oneshot::channel();
        self.put(host, op(reply));
        answer.await.map_err(|_| StreamError::Unavailable)?
    }

    async fn reading(
        &self,
        host: &Arc<Host>,
        seen: &Seen,
        from: From,
        most: u64,
    ) -> Result<Reading, StreamError> {
        let start = match from {
            From::Start => 0,
            From::Now => seen.tail,
            From::At(offset) => offset.0.min(seen.tail),
        };
        let (end, scan) = match host.recent(start, seen.tail) {
            Some(pieces) if start < seen.tail => (seen.tail, Scan::of(self.store.clone(), pieces)),
            Some(_) | None => {
                let end = scan::cut(&*self.store, &host.actor, seen, start, most).await?;
                let scan = Scan::new(self.store.clone(), &host.actor, seen, start, end);
                (end, scan)
            }
        };
        Ok(Reading {
            info: seen.info(),
            start: Offset(start),
            end: Offset(end),
            scan,
        })
    }

    /// An append is durable.
    fn appended(self: &Arc<Self>, actor: &ActorId, tail: u64) {
        self.subscriptions.appended(self, actor.key(), tail);
    }

    /// A stream is no more.
    fn removed(self: &Arc<Self>, actor: &ActorId) {
        self.subscriptions.removed(self, actor.key());
    }
}

/// Somebody who follows a stream. The stream knows of it until it is dropped.
pub struct Follower {
    streams: Arc<Inner>,
    host: Arc<Host>,
    number: u64,
    marks: watch::Receiver<Mark>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("stream", &self.host.actor)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Where the stream stands.
    pub fn mark(&self) -> Mark {
        let mut mark = *self.marks.borrow();
        // Only a host that gave the stream up drops the other end.
        mark.gone |= self.marks.has_changed().is_err();
        mark
    }

    /// Waits until the stream has more than this, is closed, or is gone.
    pub async fn beyond(&mut self, place: Offset) -> Mark {
        let wanted = |mark: &Mark| mark.tail > place || mark.closed || mark.gone;
        match self.marks.wait_for(wanted).await {
            Ok(mark) => *mark,
            Err(_) => Mark {
                gone: true,
                ..Mark::default()
            },
        }
    }

    /// What the stream has after a place, about `most` bytes at most, ending with an append.
    ///
    /// # Errors
    ///
    /// `NotFound` and `Gone` when the stream is no more, or what the store reports.
    pub async fn read(&self, from: Offset, most: u64) -> Result<Reading, StreamError> {
        if self.mark().gone {
            return Err(StreamError::NotFound);
        }
        let View::Stream(seen) = self.host.view() else {
            return Err(StreamError::NotFound);
        };
        self.streams
            .reading(&self.host, &seen, From::At(from), most)
            .await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.host.leave(self.number, self.streams.sources.now());
    }
}

/// Looks after what forks and time may have done to a stream; says when to look again.
async fn examine(streams: Arc<Inner>, path: String) -> Result<Option<Timestamp>, StreamError> {
    let host = streams.host(&path);
    let (left, again) = streams.ask(&host, Op::Examine).await?;
    if let Some(left) = left {
        release(streams, left).await;
    }
    Ok(again)
}

/// Tells a source that a fork is gone, and its source, when that went too, and so on.
async fn release(streams: Arc<Inner>, mut left: Left) {
    loop {
        let Left {
            source,
            path,
            incarnation: fork,
        } = left;
        let host = streams.host(&source);
        match streams
            .ask(&host, |reply| Op::Unfork { path, fork, reply })
            .await
        {
            Ok(Some(next)) => left = next,
            Ok(None) => return,
            Err(cause) => {
                // The agenda has an entry for it.
                tracing::warn!(stream = source, %cause, "a source does not know of its fork's end");
                return;
            }
        }
    }
}

/// Who holds the bytes of a fork of a stream at a place.
fn inherit(source: &Meta, path: &str, at: u64) -> Result<Vec<meta::Segment>, StreamError> {
    let mut inherited = Vec::new();
    for segment in source.inherited() {
        inherited.push(meta::Segment {
            path: segment.path.clone(),
            until: segment.until.min(at),
        });
        if segment.until >= at {
            break;
        }
    }
    // The source itself is last, so that it is the one that the fork keeps alive.
    if inherited.last().is_none_or(|last| last.until < at) || at == 0 {
        inherited.push(meta::Segment {
            path: path.to_owned(),
            until: at,
        });
    }
    if inherited.len() > MAX_FORK_DEPTH {
        let what = format!("a fork has at most {MAX_FORK_DEPTH} ancestors");
        return Err(StreamError::Invalid(what));
    }
    Ok(inherited)
}

/// The stored form of an append to a stream with these settings.
fn prepare(meta: &Meta, mut append: Append) -> Result<Prepared, StreamError> {
    if append.data.len() > MAX_APPEND {
        return Err(StreamError::TooLarge { limit: MAX_APPEND });
    }
    let mut problem = None;
    if meta.is_json() && !append.data.is_empty() {
        match json::messages(&append.data) {
            Ok(stored) => append.data = stored,
            Err(error) => problem = Some(error),
        }
    }
    Ok(Prepared { append, problem })
}

fn check_path(path: &str) -> Result<(), StreamError> {
    let problem = if path.is_empty() {
        "a stream has a path: put it after /v1/stream/".to_owned()
    } else if path.len() > MAX_PATH {
        format!("a path has at most {MAX_PATH} bytes")
    } else if path.chars().any(char::is_control) {
        "a path has no control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(StreamError::Invalid(problem))
}
