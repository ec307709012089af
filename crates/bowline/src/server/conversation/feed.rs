//! What the readers of one conversation share.
//!
//! A conversation that is followed has one feed: a task that reads what is new once, and keeps the end
//! of it as bytes that are ready to send. A reader that is at the end waits for the feed and costs an
//! offset; one that is behind reads the store by itself until it is at the end. The feed lingers for a
//! while, so that a client that polls finds it.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_agent::feed::{Identity, NotThere, Offset, Reader};
use bowline_store::{ActorId, Store, StoreError};
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::wire;
use crate::service::Service;

/// Records read at once.
const PAGE: usize = 100;
/// Most bytes that a feed keeps for readers that are a little behind.
const KEPT: usize = 256 * 1024;

/// The feeds of a server. Cheap to clone.
#[derive(Clone)]
pub(in crate::server) struct Feeds(Arc<Inner>);

struct Inner {
    service: Service,
    /// How long a feed stays when nobody reads.
    linger: Duration,
    /// A std mutex: it is held for lookups only.
    feeds: Mutex<HashMap<ActorId, Arc<Feed>>>,
    stop: CancellationToken,
    /// Ends the tasks of all feeds with the server.
    _guard: DropGuard,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeds").finish_non_exhaustive()
    }
}

/// What the readers of one conversation share.
#[derive(Debug)]
struct Feed {
    identity: Identity,
    /// A std mutex: it is held for lookups only.
    kept: Mutex<Kept>,
    changed: watch::Sender<Signal>,
}

/// What a feed tells those who wait.
#[derive(Debug, Clone, Copy, Default)]
struct Signal {
    /// Grows with each news.
    news: u64,
    /// True when the feed ended: what was followed is gone, or cannot be read.
    ended: bool,
}

/// The end of a conversation, ready to send.
#[derive(Debug)]
struct Kept {
    /// The point before the first piece.
    from: Offset,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Piece {
    /// The point after it.
    offset: Offset,
    /// Its chunks, with commas between them.
    chunks: Bytes,
    /// The events that bring it.
    frame: Bytes,
}

/// What a reader got.
#[derive(Debug, Default)]
pub(in crate::server) struct Batch {
    /// Chunks as JSON, with commas between them; may be empty.
    pub(in crate::server) chunks: Vec<Bytes>,
    /// The same as events.
    pub(in crate::server) frames: Vec<Bytes>,
    /// True when nothing durable was left to read.
    pub(in crate::server) up_to_date: bool,
}

impl Batch {
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.chunks.iter().all(Bytes::is_empty)
    }
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Waited {
    /// There may be something new.
    News,
    /// The conversation is gone, or cannot be read; begin again.
    Ended,
}

/// One reader of a conversation.
pub(in crate::server) struct Follower {
    feeds: Feeds,
    actor: ActorId,
    identity: Identity,
    offset: Offset,
    source: Source,
}

enum Source {
    /// Behind: reads the store by itself.
    Behind(Box<Reader>),
    /// At the end, or near it.
    Live(Arc<Feed>, watch::Receiver<Signal>),
    /// Between the two.
    Lost,
}

impl Feeds {
    pub(in crate::server) fn new(service: Service, linger: Duration) -> Self {
        let stop = CancellationToken::new();
        let inner = Inner {
            service,
            linger,
            feeds: Mutex::default(),
            _guard: stop.clone().drop_guard(),
            stop,
        };
        Self(Arc::new(inner))
    }

    /// Begins to read after an offset.
    pub(in crate::server) async fn follow(
        &self,
        actor: &ActorId,
        offset: Offset,
    ) -> Result<Result<Follower, NotThere>, StoreError> {
        let known = {
            // Under the lock, so that the feed sees that it is not alone before it retires.
            let feeds = self.feeds();
            let known = feeds.get(actor).filter(|feed| feed.knows(offset));
            known.map(|feed| (feed.clone(), feed.changed.subscribe()))
        };
        let (identity, source) = match known {
            Some((feed, changed)) => (feed.identity.clone(), Source::Live(feed, changed)),
            None => {
                let reader = match Reader::start(self.store(), actor, offset).await? {
                    Ok(reader) => reader,
                    Err(not_there) => return Ok(Err(not_there)),
                };
                (reader.identity().clone(), Source::Behind(Box::new(reader)))
            }
        };
        Ok(Ok(Follower {
            feeds: self.clone(),
            actor: actor.clone(),
            identity,
            offset,
            source,
        }))
    }

    fn store(&self) -> Arc<dyn Store> {
        self.0.service.store().clone()
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<ActorId, Arc<Feed>>> {
        self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feed of a conversation; `reader`, which is at its end, becomes a new one's.
    fn join(&self, actor: &ActorId, reader: Box<Reader>) -> (Arc<Feed>, watch::Receiver<Signal>) {
        let mut feeds = self.feeds();
        if let Some(feed) = feeds.get(actor) {
            let changed = feed.changed.subscribe();
            if !changed.borrow().ended && feed.identity == *reader.identity() {
                return (feed.clone(), changed);
            }
        }
        let (changed, receiver) = watch::channel(Signal::default());
        let feed = Arc::new(Feed {
            identity: reader.identity().clone(),
            kept: Mutex::new(Kept {
                from: reader.offset(),
                pieces: VecDeque::new(),
                bytes: 0,
            }),
            changed,
        });
        feeds.insert(actor.clone(), feed.clone());
        drop(feeds);
        let observers = self.0.service.observers().follow(actor);
        let task = Task {
            feeds: Arc::downgrade(&self.0),
            actor: actor.clone(),
            feed: feed.clone(),
            reader,
            linger: self.0.linger,
        };
        let tail = self.0.service.store().tail(actor);
        tokio::spawn(task.run(tail, observers, self.0.stop.clone()));
        (feed, receiver)
    }
}

impl Feed {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when a reader at this offset can go on from here.
    fn knows(&self, offset: Offset) -> bool {
        !self.changed.borrow().ended && self.kept().place(offset).is_some()
    }
}

impl Kept {
    /// Where the pieces after an offset begin.
    fn place(&self, offset: Offset) -> Option<usize> {
        if offset == self.from {
            return Some(0);
        }
        let at = self
            .pieces
            .binary_search_by(|piece| piece.offset.cmp(&offset))
            .ok()?;
        Some(at + 1)
    }

    fn end(&self) -> Offset {
        self.pieces.back().map_or(self.from, |piece| piece.offset)
    }

    fn push(&mut self, piece: Piece) {
        self.bytes += piece.chunks.len() + piece.frame.len();
        self.pieces.push_back(piece);
        while self.bytes > KEPT
            && self.pieces.len() > 1
            && let Some(first) = self.pieces.pop_front()
        {
            self.bytes -= first.chunks.len() + first.frame.len();
            self.from = first.offset;
        }
    }
}

/// The task of a feed.
struct Task {
    /// Weak: the feeds end with the server.
    feeds: std::sync::Weak<Inner>,
    actor: ActorId,
    feed: Arc<Feed>,
    reader: Box<Reader>,
    linger: Duration,
}

impl Task {
    async fn run(
        mut self,
        mut tail: bowline_store::Tail,
        mut observers: bowline_agent::live::Follower,
        stop: CancellationToken,
    ) {
        loop {
            if let Err(error) = self.read().await {
                tracing::warn!(actor = %self.actor, %error, "a conversation cannot be followed");
                break;
            }
            let seq = self.reader.offset().record();
            let idle = async {
                self.feed.changed.closed().await;
                tokio::time::sleep(self.linger).await;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                beyond = tail.beyond(seq) => if beyond.is_none() { break },
                news = observers.news() => if news.gone { break },
                () = idle => if self.retire() { return },
            }
        }
        self.feed.changed.send_modify(|signal| signal.ended = true);
        self.forget();
    }

    /// Reads what is new, and tells those who wait.
    async fn read(&mut self) -> Result<(), StoreError> {
        let mut told = false;
        loop {
            let page = self.reader.next(PAGE).await?;
            let last = page.entries.len();
            for (number, entry) in (1..).zip(&page.entries) {
                let piece = Piece::of(
                    &wire::chunks(&entry.chunks),
                    entry.offset,
                    page.up_to_date && number == last,
                );
                self.feed.kept().push(piece);
                told = true;
            }
            if page.up_to_date {
                break;
            }
        }
        if told {
            self.feed.changed.send_modify(|signal| signal.news += 1);
        }
        Ok(())
    }

    /// Ends when nobody came back.
    fn retire(&self) -> bool {
        let Some(feeds) = self.feeds.upgrade() else {
            return true;
        };
        let mut feeds = feeds.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if self.feed.changed.receiver_count() > 0 {
            return false;
        }
        remove(&mut feeds, &self.actor, &self.feed);
        true
    }

    fn forget(&self) {
        if let Some(feeds) = self.feeds.upgrade() {
            let mut feeds = feeds.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            remove(&mut feeds, &self.actor, &self.feed);
        }
    }
}

fn remove(feeds: &mut HashMap<ActorId, Arc<Feed>>, actor: &ActorId, feed: &Arc<Feed>) {
    if feeds
        .get(actor)
        .is_some_and(|known| Arc::ptr_eq(known, feed))
    {
        feeds.remove(actor);
    }
}

impl Piece {
    fn of(chunks: &str, offset: Offset, up_to_date: bool) -> Self {
        let mut frame = String::new();
        if !chunks.is_empty() {
            wire::data(&mut frame, chunks);
            wire::control(&mut frame, offset, up_to_date);
        }
        Self {
            offset,
            chunks: Bytes::copy_from_slice(chunks.as_bytes()),
            frame: Bytes::from(frame),
        }
    }
}

impl Follower {
    /// The incarnation that it reads.
    pub(in crate::server) fn incarnation(&self) -> &str {
        &self.identity.uid
    }

    /// Where it stands.
    pub(in crate::server) fn offset(&self) -> Offset {
        self.offset
    }

    /// What there is to read now; empty and up to date when there is nothing.
    pub(in crate::server) async fn read(&mut self) -> Result<Batch, Lost> {
        loop {
            match &mut self.source {
                Source::Behind(reader) => {
                    // Boxed: whoever rests at the end need not hold its place.
                    let page = Box::pin(reader.next(PAGE)).await?;
                    self.offset = reader.offset();
                    let all = page.entries.iter().flat_map(|entry| &entry.chunks).cloned();
                    let chunks = wire::chunks(&all.collect::<Vec<_>>());
                    let piece = Piece::of(&chunks, self.offset, page.up_to_date);
                    if page.up_to_date {
                        self.go_live();
                    }
                    return Ok(Batch {
                        chunks: vec![piece.chunks],
                        frames: vec![piece.frame],
                        up_to_date: page.up_to_date,
                    });
                }
                Source::Live(feed, changed) => {
                    // What is new from here on wakes the wait that follows.
                    if changed.borrow_and_update().ended {
                        return Err(Lost::Gone);
                    }
                    let kept = feed.kept();
                    if self.offset >= kept.end() {
                        return Ok(Batch {
                            up_to_date: true,
                            ..Batch::default()
                        });
                    }
                    if let Some(place) = kept.place(self.offset) {
                        let mut batch = Batch {
                            up_to_date: true,
                            ..Batch::default()
                        };
                        for piece in kept.pieces.range(place..) {
                            self.offset = piece.offset;
                            if !piece.chunks.is_empty() {
                                batch.chunks.push(piece.chunks.clone());
                                batch.frames.push(piece.frame.clone());
                            }
                        }
                        return Ok(batch);
                    }
                }
                Source::Lost => {}
            }
            Box::pin(self.fall_behind()).await?;
        }
    }

    /// Waits until there may be something new. Cancel-safe.
    pub(in crate::server) async fn wait(&mut self) -> Waited {
        match &mut self.source {
            Source::Behind(_) | Source::Lost => Waited::News,
            Source::Live(_, changed) => match changed.changed().await {
                Ok(()) if !changed.borrow().ended => Waited::News,
                Ok(()) | Err(_) => Waited::Ended,
            },
        }
    }

    /// Waits with the others from now on.
    fn go_live(&mut self) {
        if let Source::Behind(reader) = std::mem::replace(&mut self.source, Source::Lost) {
            let (feed, changed) = self.feeds.join(&self.actor, reader);
            self.source = Source::Live(feed, changed);
        }
    }

    async fn fall_behind(&mut self) -> Result<(), Lost> {
        match Reader::start(self.feeds.store(), &self.actor, self.offset).await? {
            Ok(reader) if *reader.identity() == self.identity => {
                self.source = Source::Behind(Box::new(reader));
                Ok(())
            }
            Ok(_) | Err(_) => Err(Lost::Gone),
        }
    }
}

/// Why a follower cannot go on.
#[derive(Debug)]
pub(in crate::server) enum Lost {
    /// The conversation is not the one that it began with.
    Gone,
    /// The store cannot be read.
    Store(StoreError),
}

impl From<StoreError> for Lost {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
