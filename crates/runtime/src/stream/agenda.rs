//! When which stream has to be looked at: those that expire, and those that forks may have left.
//!
//! An entry is written before what it is about, and looking at a stream changes nothing that does
//! not have to be changed. So a crash leaves entries too many, never too few.

use std::sync::Arc;

use bowline_store::{ActorId, Batch, CommitError, Record, RowChange, Store, StoreError, Timestamp};
use bytes::Bytes;
use tokio::sync::{Notify, OnceCell, mpsc, oneshot};

use super::error::StreamError;
use crate::{clock::Sources, kind};

/// Changes that may wait to be written; more wait in front of the queue.
const QUEUE: usize = 1024;
const ENTRIES: &str = "agenda";

/// One actor with a row for each entry: the time, then the path.
#[derive(Debug)]
pub(super) struct Agenda {
    store: Arc<dyn Store>,
    sources: Sources,
    writer: OnceCell<mpsc::Sender<Change>>,
    changed: Arc<Notify>,
}

/// An entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) path: String,
}

#[derive(Debug)]
struct Change {
    add: Option<Entry>,
    remove: Option<Entry>,
    reply: oneshot::Sender<Result<(), CommitError>>,
}

impl Entry {
    fn key(&self) -> Vec<u8> {
        let millis = self.at.as_millis().max(0).unsigned_abs();
        let mut key = millis.to_be_bytes().to_vec();
        key.extend_from_slice(self.path.as_bytes());
        key
    }

    fn parse(key: &[u8]) -> Option<Self> {
        let (millis, path) = key.split_first_chunk::<8>()?;
        Some(Self {
            at: Timestamp::from_millis(i64::try_from(u64::from_be_bytes(*millis)).ok()?),
            path: std::str::from_utf8(path).ok()?.to_owned(),
        })
    }
}

fn actor() -> ActorId {
    ActorId::new("stream", "agenda", "all")
}

impl Agenda {
    pub(super) fn new(store: Arc<dyn Store>, sources: Sources) -> Self {
        Self {
            store,
            sources,
            writer: OnceCell::new(),
            changed: Arc::default(),
        }
    }

    /// Looks at the stream at this time, or soon after. Durable when this returns.
    pub(super) async fn add(&self, at: Timestamp, path: &str) -> Result<(), StreamError> {
        let path = path.to_owned();
        self.change(Some(Entry { at, path }), None).await
    }

    /// Has looked; `again` says when to look next.
    pub(super) async fn done(
        &self,
        entry: Entry,
        again: Option<Timestamp>,
    ) -> Result<(), StreamError> {
        let add = again.map(|at| Entry {
            at,
            path: entry.path.clone(),
        });
        self.change(add, Some(entry)).await
    }

    async fn change(&self, add: Option<Entry>, remove: Option<Entry>) -> Result<(), StreamError> {
        let writer = self.writer.get_or_init(async || {
            let (sender, changes) = mpsc::channel(QUEUE);
            let (store, sources) = (self.store.clone(), self.sources.clone());
            tokio::spawn(write(store, sources, changes, self.changed.clone()));
            sender
        });
        let (reply, answer) = oneshot::channel();
        let change = Change { add, remove, reply };
        let stopped = |_| StreamError::Unavailable;
        let sender = writer.await;
        sender
            .send(change)
            .await
            .map_err(|_| StreamError::Unavailable)?;
        Ok(answer.await.map_err(stopped)??)
    }

    /// The first entries, in order of time.
    pub(super) async fn first(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let rows = self.store.scan(&actor(), ENTRIES, b"", None, limit).await?;
        Ok(rows
            .iter()
            .filter_map(|row| Entry::parse(&row.key))
            .collect())
    }

    /// Waits until an entry was added.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The only writer of the agenda. Whatever has queued is one commit.
async fn write(
    store: Arc<dyn Store>,
    sources: Sources,
    mut changes: mpsc::Receiver<Change>,
    changed: Arc<Notify>,
) {
    let mut place = None;
    let mut group = Vec::new();
    while changes.recv_many(&mut group, QUEUE).await > 0 {
        let written = commit(&*store, &sources, &group, &mut place).await;
        if written.is_err() {
            place = None;
        }
        let added = group.iter().any(|change| change.add.is_some());
        for change in group.drain(..) {
            let _ = change.reply.send(written.clone());
        }
        if added {
            changed.notify_one();
        }
    }
}

async fn commit(
    store: &dyn Store,
    sources: &Sources,
    group: &[Change],
    place: &mut Option<(u64, u64)>,
) -> Result<(), CommitError> {
    let (epoch, seq) = match *place {
        Some(place) => place,
        None => {
            let head = store.head(&actor()).await;
            let head = head.map_err(|error| CommitError::Io(error.to_string()))?;
            head.map_or((1, 0), |head| (head.epoch + 1, head.seq))
        }
    };
    let mut batch = Batch::new(actor(), epoch, seq);
    // The first commit takes the agenda over, which needs a record.
    if place.is_none() {
        batch.records.push(Record {
            kind: kind::STREAM_CHANGED,
            version: 1,
            time: sources.now(),
            conversation: String::new(),
            submission: None,
            attempt: None,
            turn: None,
            body: Bytes::from_static(b"{}"),
            blobs: Vec::new(),
        });
    }
    for change in group {
        if let Some(entry) = &change.remove {
            batch.rows.push(RowChange::Delete {
                space: ENTRIES,
                key: entry.key(),
            });
        }
        if let Some(entry) = &change.add {
            batch.rows.push(RowChange::Put {
                space: ENTRIES,
                key: entry.key(),
                value: Bytes::new(),
                blobs: Vec::new(),
            });
        }
    }
    let seq = store.commit(batch).await?;
    *place = Some((epoch, seq));
    Ok(())
}
