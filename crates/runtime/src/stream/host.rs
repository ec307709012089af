//! One path: what readers may see of it, and the queue of what is to be done with it.
//!
//! Whatever changes a stream goes through its queue, which one task works off while there is
//! something in it. Appends that queue while a commit is being flushed become the next commit
//! together. What readers see changes after the flush, never before.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline_store::{ActorId, Seq, Timestamp};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::{
    append::{Appended, Prepared},
    error::StreamError,
    ledger::{Found, Ledger},
    meta::{Info, Meta},
    offset::Offset,
};

/// Bytes that were appended lately, kept for the followers of a stream; more are read from the store.
const RECENT_BYTES: usize = 64 * 1024;

/// What a follower is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The end of what is durable.
    pub tail: Offset,
    /// Nothing can be appended any more.
    pub closed: bool,
    /// The stream was deleted, has expired, or cannot be followed here any more.
    pub gone: bool,
}

/// What readers may see.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) meta: Arc<Meta>,
    pub(super) tail: u64,
    pub(super) closed: bool,
    pub(super) gone: bool,
    /// The last record.
    pub(super) seq: Seq,
    /// Where the open block and its records begin.
    pub(super) open: (u64, Seq),
    /// When the stream was last used.
    pub(super) used: Timestamp,
    /// The same, as far as it is durable.
    pub(super) saved: Timestamp,
}

impl Seen {
    fn of(ledger: &Ledger) -> Self {
        Self {
            meta: ledger.meta.clone(),
            tail: ledger.tail,
            closed: ledger.is_closed(),
            gone: ledger.gone,
            seq: ledger.seq,
            open: ledger.open(),
            used: ledger.used,
            saved: ledger.used,
        }
    }

    pub(super) fn info(&self) -> Info {
        Info {
            meta: self.meta.clone(),
            tail: Offset(self.tail),
            closed: self.closed,
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            tail: Offset(self.tail),
            closed: self.closed,
            gone: self.gone,
        }
    }
}

/// What readers may see of a path.
#[derive(Debug, Clone, Default)]
pub(super) enum View {
    /// It was not read yet.
    #[default]
    Unknown,
    /// There is no stream.
    Nothing,
    /// There is one.
    Stream(Seen),
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StreamError>>;

/// A fork that is no more: its source does not have to be kept for it.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) source: String,
    pub(super) path: String,
    pub(super) incarnation: String,
}

/// What is to be done with a path.
#[derive(Debug)]
pub(super) enum Op {
    /// Reads what is there, and takes away what has expired.
    Load(Reply<()>),
    Append(Prepared, Reply<Appended>),
    /// Settings, first bytes, closed from the beginning.
    Create(Box<(Meta, Prepared)>, Reply<super::append::Created>),
    Delete(Reply<()>),
    /// A fork at this path and with this incarnation is about to begin; the incarnation of the
    /// stream that it was decided on.
    Fork {
        path: String,
        fork: String,
        source: String,
        reply: Reply<()>,
    },
    /// A fork is not there any more. Answers with what this one was a fork of, when it went too.
    Unfork {
        path: String,
        fork: String,
        reply: Reply<Option<Left>>,
    },
    /// Looks after forks that are gone without having said so. Answers as `Unfork`, and when to look
    /// again.
    Examine(Reply<(Option<Left>, Option<Timestamp>)>),
    /// Makes durable when the stream was last used.
    Touch(Timestamp),
}

/// What a stream's followers share.
#[derive(Debug)]
struct Live {
    /// Tells followers of a stream from those of the one before it at the same path.
    number: u64,
    followers: usize,
    marks: watch::Sender<Mark>,
    recent: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

/// One path.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) actor: ActorId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    view: View,
    /// What the task that works the queue off left behind.
    found: Option<Found>,
    queue: Vec<Op>,
    busy: bool,
    live: Option<Box<Live>>,
    lives: u64,
    /// Forks that are about to begin.
    forking: usize,
    /// Used since somebody last looked for paths to forget.
    warm: bool,
}

impl Host {
    pub(super) fn new(actor: ActorId) -> Arc<Self> {
        Arc::new(Self {
            actor,
            inner: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues something; `true` when a task has to be started that works it off.
    pub(super) fn enqueue(&self, op: Op) -> bool {
        let mut inner = self.lock();
        inner.warm = true;
        inner.queue.push(op);
        !std::mem::replace(&mut inner.busy, true)
    }

    pub(super) fn begin(&self) -> Option<Found> {
        self.lock().found.take()
    }

    /// What is next; with nothing left the task ends, and leaves behind what it knows.
    pub(super) fn next(&self, found: &mut Option<Found>) -> Option<Vec<Op>> {
        let mut inner = self.lock();
        if inner.queue.is_empty() {
            inner.busy = false;
            inner.found = found.take();
            None
        } else {
            Some(std::mem::take(&mut inner.queue))
        }
    }

    pub(super) fn view(&self) -> View {
        let mut inner = self.lock();
        inner.warm = true;
        inner.view.clone()
    }

    /// Shows readers what is durable now, with the bytes that came last.
    pub(super) fn publish(&self, ledger: &Ledger, appended: impl Iterator<Item = Bytes>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut seen = Seen::of(ledger);
        if let View::Stream(before) = &inner.view {
            seen.used = seen.used.max(before.used);
        }
        if let Some(live) = &mut inner.live {
            let from = match &inner.view {
                View::Stream(before) => before.tail,
                View::Unknown | View::Nothing => seen.tail,
            };
            live.keep(from, appended);
            live.marks.send_replace(seen.mark());
        }
        inner.view = View::Stream(seen);
    }

    /// Shows readers that nothing is there, or that it has to be read again.
    pub(super) fn withdraw(&self, view: View) {
        let mut inner = self.lock();
        inner.view = view;
        if let Some(live) = inner.live.take() {
            live.marks.send_modify(|mark| mark.gone = true);
        }
    }

    /// Notes that the stream is used now; `true` when that should be made durable.
    pub(super) fn touch(&self, now: Timestamp, slack: std::time::Duration) -> bool {
        let mut inner = self.lock();
        let View::Stream(seen) = &mut inner.view else {
            return false;
        };
        seen.used = seen.used.max(now);
        let stale = seen.used.since(seen.saved) > slack;
        if stale {
            seen.saved = seen.used;
        }
        stale
    }

    /// True when the stream has outlived its settings. One that is followed has not.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        let inner = self.lock();
        let View::Stream(seen) = &inner.view else {
            return false;
        };
        let followed = inner.live.as_ref().is_some_and(|live| live.followers > 0);
        let idle = matches!(seen.meta.lifetime, super::meta::Lifetime::Idle(_));
        let lives = seen.gone || (followed && idle);
        !lives
            && seen
                .meta
                .deadline(seen.used)
                .is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn add_forking(&self) {
        self.lock().forking += 1;
    }

    pub(super) fn remove_forking(&self) {
        let mut inner = self.lock();
        inner.forking = inner.forking.saturating_sub(1);
    }

    pub(super) fn is_forking(&self) -> bool {
        self.lock().forking > 0
    }

    /// Whether it may be forgotten, when nobody else holds it: the second time that this is asked
    /// without it having been used.
    pub(super) fn is_cold(&self) -> bool {
        let mut inner = self.lock();
        let warm = std::mem::replace(&mut inner.warm, false);
        !warm && !inner.busy && inner.forking == 0 && inner.live.is_none()
    }

    /// A follower, if there is a stream. It must be given back with [`Host::leave`].
    pub(super) fn join(&self) -> Option<(u64, watch::Receiver<Mark>)> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let View::Stream(seen) = &inner.view else {
            return None;
        };
        let number = &mut inner.lives;
        let live = inner.live.get_or_insert_with(|| {
            *number += 1;
            Box::new(Live {
                number: *number,
                followers: 0,
                marks: watch::channel(seen.mark()).0,
                recent: VecDeque::new(),
                bytes: 0,
            })
        });
        live.followers += 1;
        Some((live.number, live.marks.subscribe()))
    }

    /// Takes a follower of [`Host::join`] off.
    pub(super) fn leave(&self, number: u64, now: Timestamp) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(live) = inner.live.as_mut().filter(|live| live.number == number) else {
            return;
        };
        live.followers = live.followers.saturating_sub(1);
        let empty = live.followers == 0;
        if let View::Stream(seen) = &mut inner.view {
            seen.used = seen.used.max(now);
        }
        if empty {
            inner.live = None;
        }
    }

    /// The bytes of a range, when all of them came lately.
    pub(super) fn recent(&self, from: u64, until: u64) -> Option<Vec<Bytes>> {
        let inner = self.lock();
        let live = inner.live.as_ref()?;
        if live.recent.front()?.0 > from {
            return None;
        }
        let mut found = Vec::new();
        for (start, bytes) in &live.recent {
            let end = start + bytes.len() as u64;
            if end <= from || *start >= until {
                continue;
            }
            let skip = usize::try_from(from.saturating_sub(*start)).ok()?;
            let most = usize::try_from(until.min(end) - start).ok()?;
            found.push(bytes.slice(skip..most));
        }
        Some(found)
    }
}

impl Live {
    fn keep(&mut self, mut from: u64, appended: impl Iterator<Item = Bytes>) {
        for bytes in appended {
            let len = bytes.len();
            if len == 0 {
                continue;
            }
            self.recent.push_back((from, bytes));
            from += len as u64;
            self.bytes += len;
        }
        while self.bytes > RECENT_BYTES
            && let Some((_, bytes)) = self.recent.pop_front()
        {
            self.bytes -= bytes.len();
        }
    }
}
