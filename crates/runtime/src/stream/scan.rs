//! Reading a range of a stream: piece by piece, from whoever holds the bytes.

use std::{collections::VecDeque, sync::Arc};

use bowline_store::{ActorId, Seq, Store, StoreError};
use bytes::Bytes;

use super::{
    entry,
    error::StreamError,
    host::Seen,
    json,
    ledger::{BLOCK_RECORDS, BLOCKS, Block, open_block},
};
use crate::kind;

/// Records read at once where each may be as large as a record can be.
const LARGE_PAGE: usize = 2;
/// Blocks up to this size are read at once.
const SMALL_BLOCK: u64 = 1024 * 1024;
/// How many records are read at the end of a stream, at first.
const NEAR_END: u64 = 8;

/// The bytes of a range, in order, in pieces of at most a megabyte or so.
#[derive(Debug)]
pub struct Scan {
    store: Arc<dyn Store>,
    parts: VecDeque<Part>,
    ready: VecDeque<Bytes>,
}

/// What is still to read from one stream.
#[derive(Debug)]
struct Part {
    actor: ActorId,
    from: u64,
    until: u64,
    /// Where the open block begins and the last record, where that is known.
    end: Option<((u64, Seq), Seq)>,
    /// Records of a block that is being read: the last one that was, and the last one there is.
    records: Option<(Seq, Seq)>,
}

impl Scan {
    pub(super) fn new(
        store: Arc<dyn Store>,
        actor: &ActorId,
        seen: &Seen,
        from: u64,
        until: u64,
    ) -> Self {
        let mut parts = VecDeque::new();
        let mut start = 0;
        for segment in seen.meta.inherited() {
            let (low, high) = (from.max(start), until.min(segment.until));
            if low < high {
                parts.push_back(Part {
                    actor: super::actor(&segment.path),
                    from: low,
                    until: high,
                    end: None,
                    records: None,
                });
            }
            start = segment.until;
        }
        let low = from.max(start);
        if low < until {
            parts.push_back(Part {
                actor: actor.clone(),
                from: low,
                until,
                end: Some((seen.open, seen.seq)),
                records: None,
            });
        }
        Self {
            store,
            parts,
            ready: VecDeque::new(),
        }
    }

    /// Bytes that are at hand already.
    pub(super) fn of(store: Arc<dyn Store>, pieces: Vec<Bytes>) -> Self {
        Self {
            store,
            parts: VecDeque::new(),
            ready: pieces.into(),
        }
    }

    /// The next piece; `None` at the end of the range.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or the stream went away meanwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            let Some(part) = self.parts.front_mut() else {
                return Ok(None);
            };
            if part.from >= part.until {
                self.parts.pop_front();
                continue;
            }
            part.read(&*self.store, &mut self.ready).await?;
        }
    }
}

impl Part {
    async fn read(
        &mut self,
        store: &dyn Store,
        ready: &mut VecDeque<Bytes>,
    ) -> Result<(), StreamError> {
        let (after, last) = match self.records {
            Some(records) => records,
            None => self.find(store).await?,
        };
        // What does not fill one page is small, whatever the page holds.
        let many = self.records.is_none() && last - after <= BLOCK_RECORDS as u64;
        let page = if many { BLOCK_RECORDS } else { LARGE_PAGE };
        let page = page.min(usize::try_from(last.saturating_sub(after)).unwrap_or(page));
        let stored = store.read(&self.actor, after, page.max(1)).await?;
        let Some(read) = stored.last().map(|record| record.seq) else {
            return Err(StreamError::NotFound);
        };
        for record in &stored {
            if self.from >= self.until {
                break;
            }
            if record.record.kind != kind::STREAM_APPENDED {
                continue;
            }
            let entries = entry::decode(record)?;
            let (low, high) = (self.from.max(entries.start), self.until.min(entries.end()));
            if entries.start > self.from {
                return Err(StreamError::Store(StoreError::Corrupt(format!(
                    "the stream {} has a gap at {}",
                    self.actor.key(),
                    self.from
                ))));
            }
            if low < high {
                let at = |place: u64| usize::try_from(place - entries.start).unwrap_or(usize::MAX);
                ready.push_back(entries.data.slice(at(low)..at(high)));
                self.from = high;
            }
        }
        self.records = (read < last && self.from < self.until).then_some((read, last));
        Ok(())
    }

    /// The records to read: after the first, up to the second.
    async fn find(&mut self, store: &dyn Store) -> Result<(Seq, Seq), StreamError> {
        let open = match self.end {
            Some((open, last)) if open.0 <= self.from => Some((open, last)),
            Some(_) | None => None,
        };
        if let Some(((_, first), last)) = open {
            return self.near_end(store, first, last).await;
        }
        if let Some(block) = block_after(store, &self.actor, self.from).await? {
            let (first, last) = block.records;
            if block.end - block.start > SMALL_BLOCK {
                // Read a few records at a time, from the first.
                self.records = Some((first - 1, last));
            }
            return Ok((first - 1, last));
        }
        let first = open_block(store, &self.actor)
            .await?
            .map_or(1, |open| open.1);
        let last = first - 1 + BLOCK_RECORDS as u64;
        Ok((first - 1, last))
    }

    /// Within the open block what is read is mostly what came last.
    async fn near_end(
        &self,
        store: &dyn Store,
        first: Seq,
        last: Seq,
    ) -> Result<(Seq, Seq), StreamError> {
        let mut back = NEAR_END;
        while last.saturating_sub(back) >= first {
            let after = last - back;
            let probe = store.read(&self.actor, after, 1).await?;
            let starts_before = probe.first().is_some_and(|record| {
                record.record.kind == kind::STREAM_APPENDED
                    && entry::decode(record).is_ok_and(|entries| entries.start <= self.from)
            });
            if starts_before {
                return Ok((after, last));
            }
            back *= 8;
        }
        Ok((first - 1, last))
    }
}

/// The first sealed block that ends after this place.
async fn block_after(
    store: &dyn Store,
    actor: &ActorId,
    place: u64,
) -> Result<Option<Block>, StoreError> {
    let key = Block::key(place);
    let rows = store.scan(actor, BLOCKS, b"", Some(&key), 1).await?;
    rows.first()
        .map(|row| Block::parse(&row.key, &row.value))
        .transpose()
}

/// Where a response of about `most` bytes ends: at an append's end, or at the end of the range.
pub(super) async fn cut(
    store: &dyn Store,
    actor: &ActorId,
    seen: &Seen,
    from: u64,
    most: u64,
) -> Result<u64, StreamError> {
    let target = from.saturating_add(most);
    if target >= seen.tail {
        return Ok(seen.tail);
    }
    let holder = seen.meta.inherited().iter().find(|it| it.until > target);
    let (holder, until) = match holder {
        Some(segment) => (super::actor(&segment.path), segment.until),
        None => (actor.clone(), seen.tail),
    };
    let block = block_after(store, &holder, target).await?;
    Ok(block.map_or(until, |block| block.end.min(until)))
}

/// Resolves where a fork begins: `sub` bytes or messages past `anchor`, within the append that
/// follows the anchor.
pub(super) async fn fork_point(
    store: &Arc<dyn Store>,
    actor: &ActorId,
    seen: &Seen,
    anchor: u64,
    sub: u64,
) -> Result<u64, StreamError> {
    let beyond =
        || StreamError::Invalid("the fork would begin beyond the end of the append".into());
    if anchor > seen.tail {
        let what = "the fork would begin beyond the end of the source: use a smaller offset";
        return Err(StreamError::Invalid(what.into()));
    }
    let json = seen.meta.is_json();
    if anchor == seen.tail {
        return if sub == 0 { Ok(anchor) } else { Err(beyond()) };
    }
    if !json && sub == 0 {
        return Ok(anchor);
    }
    let (start, end) = append_at(store, actor, seen, anchor).await?;
    if !json {
        return (anchor + sub <= end)
            .then_some(anchor + sub)
            .ok_or_else(beyond);
    }
    let mut scan = Scan::new(store.clone(), actor, seen, start, end);
    let mut stored = Vec::new();
    while let Some(bytes) = scan.next().await? {
        stored.extend_from_slice(&bytes);
    }
    let mut places = std::iter::once(start).chain(json::ends(&stored).map(|at| start + at as u64));
    if places.by_ref().all(|place| place != anchor) {
        let what = "the offset is not the end of a message: use one that the server gave";
        return Err(StreamError::Invalid(what.into()));
    }
    match sub.checked_sub(1) {
        None => Ok(anchor),
        Some(skip) => places
            .nth(usize::try_from(skip).unwrap_or(usize::MAX))
            .ok_or_else(beyond),
    }
}

/// The append that holds the byte at a place: where it begins and ends, as far as the stream has it.
async fn append_at(
    store: &Arc<dyn Store>,
    actor: &ActorId,
    seen: &Seen,
    place: u64,
) -> Result<(u64, u64), StreamError> {
    let mut before = 0;
    let mut holder = None;
    for segment in seen.meta.inherited() {
        if place < segment.until {
            holder = Some((super::actor(&segment.path), segment.until));
            break;
        }
        before = segment.until;
    }
    let (holder, until) = holder.unwrap_or_else(|| (actor.clone(), seen.tail));
    let (mut after, last) = match block_after(&**store, &holder, place).await? {
        Some(block) => (block.records.0 - 1, block.records.1),
        None => {
            let first = open_block(&**store, &holder)
                .await?
                .map_or(1, |open| open.1);
            (first - 1, Seq::MAX)
        }
    };
    let mut open: Option<u64> = None;
    while after < last {
        let page = store.read(&holder, after, LARGE_PAGE).await?;
        let Some(read) = page.last() else { break };
        after = read.seq;
        for record in &page {
            if record.record.kind != kind::STREAM_APPENDED {
                continue;
            }
            let entries = entry::decode(record)?;
            let mut at = entries.start;
            for head in &entries.heads {
                let start = *open.get_or_insert(at);
                at += head.len as u64;
                if !head.more {
                    if at > place {
                        return Ok((start.max(before), at.min(until)));
                    }
                    open = None;
                }
            }
        }
    }
    Err(StreamError::NotFound)
}
