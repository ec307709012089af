//! What the writer of one stream knows, and how it becomes a commit.
//!
//! An append is one record, or a part of one: data, producer and closure are durable together. Every
//! [`BLOCK_BYTES`] or [`BLOCK_RECORDS`] a block is sealed: a row says which records hold which
//! bytes, one holds the state up to there, and one for each producer that wrote since. So opening a
//! stream reads one block of records at most, and reading from any offset one row to find it.

use std::{collections::HashMap, sync::Arc};

use bowline_store::{ActorId, Batch, Epoch, Record, RowChange, Seq, Store, StoreError, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    append::{Append, Appended},
    entry::{self, Entry, MAX_DATA, MAX_ENTRIES, Producer},
    error::StreamError,
    meta::Meta,
    offset::Offset,
};
use crate::kind;

/// A block is sealed when it holds this many bytes.
const BLOCK_BYTES: u64 = 256 * 1024;
/// A block is sealed when it holds this many records.
pub(super) const BLOCK_RECORDS: usize = 512;
/// Producers that are remembered beside those that wrote since the last block.
const KNOWN_PRODUCERS: usize = 256;

/// Rows: the end of a block → where it and its records begin and end.
pub(super) const BLOCKS: &str = "block";
/// Rows: a producer → its epoch and last sequence.
const PRODUCERS: &str = "producer";
/// Rows: a fork's path → its incarnation.
pub(super) const FORKS: &str = "fork";
/// One row: the state at the end of the last block.
const STATE: &str = "state";
/// One row: when the stream was last used.
const USED: &str = "used";

/// Who closed a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Closing {
    /// Producer, epoch and sequence of the closing append.
    producer: Option<(String, u64, u64)>,
}

/// The state at the end of a block.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    meta: Meta,
    seq: Seq,
    tail: u64,
    closed: Option<Closing>,
    sequence: Option<String>,
    gone: bool,
    used: i64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: u64,
    seq: u64,
    /// Not in a row yet.
    fresh: bool,
}

/// Where a block lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Its first and its last record.
    pub(super) records: (Seq, Seq),
}

impl Block {
    /// The key under which the block that ends at `end` is found.
    pub(super) fn key(end: u64) -> [u8; 8] {
        end.to_be_bytes()
    }

    fn row(self) -> RowChange {
        let mut value = Vec::with_capacity(24);
        for number in [self.start, self.records.0, self.records.1] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        RowChange::Put {
            space: BLOCKS,
            key: Self::key(self.end).to_vec(),
            value: value.into(),
            blobs: Vec::new(),
        }
    }

    pub(super) fn parse(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?))
        };
        let parsed = || {
            Some(Self {
                start: number(0)?,
                end: u64::from_be_bytes(key.try_into().ok()?),
                records: (number(8)?, number(16)?),
            })
        };
        parsed().ok_or_else(|| StoreError::Corrupt("a block of a stream cannot be read".into()))
    }
}

/// What is durable, and, while a commit is being put together, what is about to be. After a commit
/// that failed it is thrown away and read again.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) actor: ActorId,
    pub(super) epoch: Epoch,
    pub(super) seq: Seq,
    pub(super) meta: Arc<Meta>,
    pub(super) tail: u64,
    pub(super) gone: bool,
    pub(super) used: Timestamp,
    closed: Option<Box<Closing>>,
    sequence: Option<Box<str>>,
    producers: HashMap<Box<str>, Known>,
    /// Where the open block and its records begin.
    open: (u64, Seq),
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing; a stream that is created takes this epoch.
    Nothing(Epoch),
    Stream(Box<Ledger>),
}

impl Ledger {
    /// Reads what is at an actor's address.
    pub(super) async fn load(store: &dyn Store, actor: &ActorId) -> Result<Found, StoreError> {
        let Some(head) = store.head(actor).await? else {
            return Ok(Found::Nothing(1));
        };
        if head.seq == 0 {
            return Ok(Found::Nothing(head.epoch + 1));
        }
        let snapshot = match store.row(actor, STATE, b"").await? {
            Some(value) => Some(serde_json::from_slice::<Snapshot>(&value).map_err(unreadable)?),
            None => None,
        };
        let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);
        let mut ledger = snapshot.map(|snapshot| Self::restore(actor, snapshot));
        let mut seq = after;
        while seq < head.seq {
            let page = store.read(actor, seq, BLOCK_RECORDS).await?;
            if page.is_empty() {
                break;
            }
            for stored in page {
                seq = stored.seq;
                match (stored.record.kind, &mut ledger) {
                    (kind::STREAM_CREATED, None) => {
                        let meta = serde_json::from_slice(&stored.record.body);
                        let meta = Arc::new(meta.map_err(unreadable)?);
                        let fresh = Self::fresh(actor, head.epoch + 1, meta, stored.record.time);
                        ledger = Some(Self { seq, ..fresh });
                    }
                    (_, Some(ledger)) => ledger.replay(&stored)?,
                    (kind, None) => {
                        return Err(StoreError::Corrupt(format!(
                            "the stream {} begins with a record of kind {kind}",
                            actor.key()
                        )));
                    }
                }
            }
        }
        let Some(mut ledger) = ledger else {
            return Ok(Found::Nothing(head.epoch + 1));
        };
        ledger.epoch = head.epoch + 1;
        if matches!(ledger.meta.lifetime, super::meta::Lifetime::Idle(_))
            && let Some(value) = store.row(actor, USED, b"").await?
            && let Ok(millis) = <[u8; 8]>::try_from(&value[..])
        {
            let used = Timestamp::from_millis(i64::from_le_bytes(millis));
            ledger.used = ledger.used.max(used);
        }
        Ok(Found::Stream(Box::new(ledger)))
    }

    fn fresh(actor: &ActorId, epoch: Epoch, meta: Arc<Meta>, used: Timestamp) -> Self {
        let base = meta.base();
        Self {
            actor: actor.clone(),
            epoch,
            seq: 0,
            meta,
            tail: base,
            gone: false,
            used,
            closed: None,
            sequence: None,
            producers: HashMap::new(),
            // The first record tells what the stream is.
            open: (base, 2),
        }
    }

    fn restore(actor: &ActorId, snapshot: Snapshot) -> Self {
        Self {
            seq: snapshot.seq,
            tail: snapshot.tail,
            gone: snapshot.gone,
            closed: snapshot.closed.map(Box::new),
            sequence: snapshot.sequence.map(String::into_boxed_str),
            open: (snapshot.tail, snapshot.seq + 1),
            ..Self::fresh(
                actor,
                0,
                Arc::new(snapshot.meta),
                Timestamp::from_millis(snapshot.used),
            )
        }
    }

    fn replay(&mut self, stored: &bowline_store::StoredRecord) -> Result<(), StoreError> {
        self.seq = stored.seq;
        self.used = self.used.max(stored.record.time);
        match stored.record.kind {
            kind::STREAM_APPENDED => {
                let entries = entry::decode(stored)?;
                self.tail = entries.end();
                for head in entries.heads {
                    self.note(
                        head.producer.as_ref(),
                        head.sequence.as_deref(),
                        head.closes,
                    );
                }
            }
            kind::STREAM_DELETED => self.gone = true,
            kind::STREAM_CHANGED => {}
            other => {
                return Err(StoreError::Corrupt(format!(
                    "record {} of the stream {} has the unknown kind {other}",
                    stored.seq,
                    self.actor.key()
                )));
            }
        }
        Ok(())
    }

    /// What an accepted append changes, apart from the tail.
    fn note(&mut self, producer: Option<&Producer>, sequence: Option<&str>, closes: bool) {
        if let Some(producer) = producer {
            let known = Known {
                epoch: producer.epoch,
                seq: producer.seq,
                fresh: true,
            };
            self.producers.insert(producer.id.as_str().into(), known);
        }
        if let Some(sequence) = sequence {
            self.sequence = Some(sequence.into());
        }
        if closes {
            let producer = producer.map(|it| (it.id.clone(), it.epoch, it.seq));
            self.closed = Some(Box::new(Closing { producer }));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Fetches what is known of the producer of an append.
    pub(super) async fn recall(
        &mut self,
        store: &dyn Store,
        append: &Append,
    ) -> Result<(), StoreError> {
        let Some(producer) = &append.producer else {
            return Ok(());
        };
        if self.producers.contains_key(producer.id.as_str()) {
            return Ok(());
        }
        // Before the first block nothing is in a row.
        if self.open.1 > 2
            && let Some(value) = store
                .row(&self.actor, PRODUCERS, producer.id.as_bytes())
                .await?
        {
            let (epoch, seq) = serde_json::from_slice(&value).map_err(unreadable)?;
            let known = Known {
                epoch,
                seq,
                fresh: false,
            };
            self.producers.insert(producer.id.as_str().into(), known);
        }
        Ok(())
    }

    /// Decides about an append. `None`: it is new and may be taken in.
    pub(super) fn judge(&self, append: &Append) -> Result<Option<Appended>, StreamError> {
        if self.gone {
            return Err(StreamError::Gone);
        }
        if let Some(closing) = &self.closed {
            return self.judge_closed(append, closing);
        }
        if let Some(content_type) = &append.content_type
            && !append.is_close_only()
            && !super::meta::media_type(content_type)
                .eq_ignore_ascii_case(super::meta::media_type(&self.meta.content_type))
        {
            return Err(StreamError::ContentType {
                held: self.meta.content_type.clone(),
            });
        }
        if let Some(duplicate) = self.judge_producer(append)? {
            return Ok(Some(duplicate));
        }
        if let (Some(last), Some(next)) = (&self.sequence, &append.sequence)
            && next.as_bytes() <= last.as_bytes()
        {
            return Err(StreamError::Sequence);
        }
        Ok(None)
    }

    fn judge_closed(
        &self,
        append: &Append,
        closing: &Closing,
    ) -> Result<Option<Appended>, StreamError> {
        let same = match (&append.producer, &closing.producer) {
            (Some(mine), Some((id, epoch, seq))) => {
                mine.id == *id && mine.epoch == *epoch && mine.seq == *seq
            }
            (None, _) => append.is_close_only(),
            (Some(_), None) => false,
        };
        if same {
            let seq = append.producer.as_ref().map(|it| (it.epoch, it.seq));
            Ok(Some(self.answer(seq, true)))
        } else {
            Err(StreamError::Closed(Offset(self.tail)))
        }
    }

    fn judge_producer(&self, append: &Append) -> Result<Option<Appended>, StreamError> {
        let Some(producer) = &append.producer else {
            return Ok(None);
        };
        let known = self.producers.get(producer.id.as_str());
        let expected = match known {
            Some(known) if producer.epoch < known.epoch => {
                return Err(StreamError::ProducerFenced {
                    current: known.epoch,
                });
            }
            Some(known) if producer.epoch > known.epoch && producer.seq != 0 => {
                return Err(StreamError::ProducerEpoch);
            }
            Some(known) if producer.epoch == known.epoch && producer.seq <= known.seq => {
                return Ok(Some(self.answer(Some((known.epoch, known.seq)), true)));
            }
            Some(known) if producer.epoch == known.epoch => known.seq + 1,
            Some(_) | None => 0,
        };
        if producer.seq == expected {
            Ok(None)
        } else {
            Err(StreamError::ProducerGap {
                expected,
                received: producer.seq,
            })
        }
    }

    /// Takes in an append that was judged to be new.
    pub(super) fn take(&mut self, append: &Append, staged: &mut Staged) -> Appended {
        let mut rest = append.data.clone();
        loop {
            let piece = rest.split_to(rest.len().min(MAX_DATA));
            let last = rest.is_empty();
            if staged.bytes + piece.len() > MAX_DATA || staged.pieces.len() >= MAX_ENTRIES {
                self.flush(staged);
            }
            if staged.pieces.is_empty() {
                staged.start = self.tail;
            }
            let head = Entry {
                len: piece.len(),
                producer: append.producer.clone().filter(|_| last),
                sequence: append.sequence.clone().filter(|_| last),
                closes: append.closes && last,
                more: !last,
            };
            self.tail += piece.len() as u64;
            staged.bytes += piece.len();
            staged.pieces.push((head, piece));
            if last {
                break;
            }
        }
        self.note(
            append.producer.as_ref(),
            append.sequence.as_deref(),
            append.closes,
        );
        let seq = append.producer.as_ref().map(|it| (it.epoch, it.seq));
        self.answer(seq, false)
    }

    fn answer(&self, producer: Option<(u64, u64)>, duplicate: bool) -> Appended {
        Appended {
            next: Offset(self.tail),
            closed: self.is_closed(),
            producer,
            duplicate,
        }
    }

    /// Makes a record of what was taken in so far, and seals the block when it is full.
    fn flush(&mut self, staged: &mut Staged) {
        if staged.pieces.is_empty() {
            return;
        }
        let whole = staged.pieces.last().is_none_or(|(head, _)| !head.more);
        let body = entry::encode(staged.start, &staged.pieces);
        staged.pieces.clear();
        staged.bytes = 0;
        self.record(staged, kind::STREAM_APPENDED, body);
        let records = self.seq + 1 - self.open.1;
        if whole && (self.tail - self.open.0 >= BLOCK_BYTES || records >= BLOCK_RECORDS as u64) {
            self.seal(staged);
        }
    }

    fn record(&mut self, staged: &mut Staged, kind: u16, body: Bytes) {
        self.seq += 1;
        self.used = self.used.max(staged.now);
        staged.records.push(Record {
            kind,
            version: 1,
            time: staged.now,
            conversation: String::new(),
            submission: None,
            attempt: None,
            turn: None,
            body,
            blobs: Vec::new(),
        });
    }

    fn seal(&mut self, staged: &mut Staged) {
        let block = Block {
            start: self.open.0,
            end: self.tail,
            records: (self.open.1, self.seq),
        };
        if block.end > block.start {
            staged.rows.push(block.row());
        }
        for (id, known) in &mut self.producers {
            if known.fresh {
                known.fresh = false;
                let value = format!("[{},{}]", known.epoch, known.seq);
                staged.rows.push(put(PRODUCERS, id.as_bytes(), value));
            }
        }
        self.open = (self.tail, self.seq + 1);
        staged.seals = true;
    }

    /// Forgets producers that are in rows, once those are durable.
    pub(super) fn committed(&mut self) {
        if self.producers.len() > KNOWN_PRODUCERS {
            self.producers.retain(|_, known| known.fresh);
        }
    }

    /// Where the open block and its records begin.
    pub(super) fn open(&self) -> (u64, Seq) {
        self.open
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            meta: (*self.meta).clone(),
            seq: self.seq,
            tail: self.tail,
            closed: self.closed.as_deref().cloned(),
            sequence: self.sequence.as_deref().map(str::to_owned),
            gone: self.gone,
            used: self.used.as_millis(),
        }
    }

    /// A stream that begins with this commit, and the commit so far.
    pub(super) fn create(
        actor: &ActorId,
        epoch: Epoch,
        meta: Meta,
        now: Timestamp,
    ) -> Result<(Self, Staged), StreamError> {
        let body = serde_json::to_vec(&meta)
            .map_err(|error| StreamError::Invalid(format!("the settings are unusable: {error}")))?;
        let mut ledger = Self::fresh(actor, epoch, Arc::new(meta), now);
        let mut staged = ledger.stage(now);
        ledger.record(&mut staged, kind::STREAM_CREATED, body.into());
        Ok((ledger, staged))
    }

    /// The beginning of a commit.
    pub(super) fn stage(&self, now: Timestamp) -> Staged {
        Staged {
            before: self.seq,
            now,
            start: self.tail,
            bytes: 0,
            pieces: Vec::new(),
            records: Vec::new(),
            rows: Vec::new(),
            seals: false,
        }
    }

    /// The commit, whole.
    pub(super) fn batch(&mut self, mut staged: Staged) -> Result<Batch, StoreError> {
        self.flush(&mut staged);
        if staged.records.is_empty() {
            self.record(&mut staged, kind::STREAM_CHANGED, Bytes::from_static(b"{}"));
        }
        let full = self.seq + 1 - self.open.1 >= BLOCK_RECORDS as u64;
        if staged.seals || full {
            // The state is that of the last record, so no block may be open when it is written.
            if self.open.1 != self.seq + 1 {
                self.seal(&mut staged);
            }
            let state = serde_json::to_vec(&self.snapshot()).map_err(unreadable)?;
            staged.rows.push(put(STATE, b"", state));
        }
        Ok(Batch {
            records: staged.records,
            rows: staged.rows,
            ..Batch::new(self.actor.clone(), self.epoch, staged.before)
        })
    }

    /// Marks the stream as deleted, in this commit.
    pub(super) fn mark_gone(&mut self, staged: &mut Staged) {
        self.gone = true;
        self.record(staged, kind::STREAM_DELETED, Bytes::from_static(b"{}"));
    }

    /// Notes when the stream was used, in this commit.
    pub(super) fn mark_used(&mut self, staged: &mut Staged, used: Timestamp) {
        staged.now = used;
        let value = used.as_millis().to_le_bytes().to_vec();
        staged.rows.push(put(USED, b"", value));
    }

    /// Notes that a fork needs this stream, or not any more.
    pub(super) fn mark_fork(&self, staged: &mut Staged, path: &str, incarnation: Option<&str>) {
        let key = path.as_bytes();
        staged.rows.push(match incarnation {
            Some(incarnation) => put(FORKS, key, incarnation.to_owned()),
            None => RowChange::Delete {
                space: FORKS,
                key: key.to_vec(),
            },
        });
    }
}

/// A commit that is being put together.
#[derive(Debug)]
pub(super) struct Staged {
    before: Seq,
    now: Timestamp,
    start: u64,
    bytes: usize,
    pieces: Vec<(Entry, Bytes)>,
    records: Vec<Record>,
    rows: Vec<RowChange>,
    seals: bool,
}

/// The first record of the open block, and where the block begins.
pub(super) async fn open_block(
    store: &dyn Store,
    actor: &ActorId,
) -> Result<Option<(u64, Seq)>, StoreError> {
    let Some(value) = store.row(actor, STATE, b"").await? else {
        return Ok(None);
    };
    let snapshot: Snapshot = serde_json::from_slice(&value).map_err(unreadable)?;
    Ok(Some((snapshot.tail, snapshot.seq + 1)))
}

fn put(space: &'static str, key: &[u8], value: impl Into<Bytes>) -> RowChange {
    RowChange::Put {
        space,
        key: key.to_vec(),
        value: value.into(),
        blobs: Vec::new(),
    }
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("the state of a stream cannot be read: {error}"))
}
