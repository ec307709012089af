//! The engine for tests and simulation: everything in one map, nothing on disk, no threads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ActorHead, ActorId, Batch, Blob, BlobId, CommitError, Dump, DumpError, DumpRow, Epoch,
    InboxMessage, Metrics, OutboxMessage, Record, Row, RowChange, Seq, Store, StoreError,
    StoredRecord, Tail, Timestamp, Wake, limits, tails::Tails,
};

/// A store that lives as long as the process. "Durable" means "in memory"; each commit that changes
/// something counts as one flush, so that flushes can be asserted without a disk.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    tails: Tails,
}

#[derive(Debug, Default)]
struct State {
    actors: BTreeMap<ActorId, Actor>,
    blobs: HashMap<BlobId, (Bytes, u64)>,
    /// Sender and message, in the order in which they were committed.
    outbox: BTreeMap<u64, (ActorId, OutboxMessage)>,
    arrivals: u64,
    metrics: Metrics,
    closed: bool,
}

#[derive(Debug, Default)]
struct Actor {
    epoch: Epoch,
    /// Something was committed since the actor began or was purged.
    live: bool,
    wake: Option<Timestamp>,
    records: Vec<StoredRecord>,
    rows: BTreeMap<(String, Vec<u8>), (Bytes, Vec<BlobId>)>,
    waiting: BTreeMap<u64, InboxMessage>,
    /// Every message id that ever arrived, with its place in `waiting`.
    arrived: HashMap<String, u64>,
}

impl Actor {
    fn seq(&self) -> Seq {
        self.records.last().map_or(0, |record| record.seq)
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> Result<MutexGuard<'_, State>, CommitError> {
        let state = self.lock();
        if state.closed {
            Err(CommitError::Closed("it was closed".into()))
        } else {
            Ok(state)
        }
    }

    fn reading(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        if state.closed {
            Err(StoreError::Closed("it was closed".into()))
        } else {
            Ok(state)
        }
    }
}

impl State {
    /// Checks everything before it changes anything, which is what makes a batch atomic here.
    fn commit(&mut self, batch: Batch) -> Result<Seq, CommitError> {
        let nobody = Actor::default();
        let actor = self.actors.get(&batch.actor).unwrap_or(&nobody);
        let (current, seq) = (actor.epoch, actor.seq());
        if batch.epoch < current {
            return Err(CommitError::Fenced {
                epoch: batch.epoch,
                current,
            });
        }
        if batch.expected_seq != seq {
            return Err(CommitError::Conflict {
                expected: batch.expected_seq,
                current: seq,
            });
        }
        limits::check(&batch).map_err(CommitError::Invalid)?;
        if batch.epoch > current && batch.records.is_empty() {
            return Err(CommitError::Invalid(
                "taking an actor over needs a record".into(),
            ));
        }
        for id in &batch.inbox_acks {
            if !actor.arrived.contains_key(id) {
                return Err(CommitError::Invalid(format!(
                    "no message {id} ever arrived"
                )));
            }
        }
        self.check_references(&batch)?;
        if batch.is_empty() {
            return Ok(seq);
        }
        Ok(self.apply(batch, seq))
    }

    fn check_references(&self, batch: &Batch) -> Result<(), CommitError> {
        let given: HashSet<_> = batch.blobs.iter().map(|blob| blob.id).collect();
        let of_rows = batch.rows.iter().filter_map(|row| match row {
            RowChange::Put { blobs, .. } => Some(blobs),
            RowChange::Delete { .. } | RowChange::DeletePrefix { .. } => None,
        });
        for id in batch
            .records
            .iter()
            .map(|record| &record.blobs)
            .chain(of_rows)
            .flatten()
        {
            if !given.contains(id) && !self.blobs.contains_key(id) {
                return Err(CommitError::Invalid(format!("the store has no blob {id}")));
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: Batch, mut seq: Seq) -> Seq {
        let Batch {
            actor: id,
            epoch,
            records,
            rows,
            blobs,
            wake,
            inbox_acks,
            outbox,
            expected_seq: _,
        } = batch;
        for blob in blobs {
            self.blobs.entry(blob.id).or_insert((blob.bytes, 0));
        }
        let mut delta: Vec<(BlobId, bool)> = Vec::new();
        let actor = self.actors.entry(id.clone()).or_default();
        actor.live = true;
        actor.epoch = epoch;
        self.metrics.records += records.len() as u64;
        for record in records {
            seq += 1;
            delta.extend(record.blobs.iter().map(|id| (*id, true)));
            actor.records.push(StoredRecord { seq, epoch, record });
        }
        for row in rows {
            actor.change(row, &mut delta);
        }
        match wake {
            Wake::Keep => {}
            Wake::At(time) => actor.wake = Some(time),
            Wake::Clear => actor.wake = None,
        }
        for id in inbox_acks {
            if let Some(place) = actor.arrived.get(&id) {
                actor.waiting.remove(place);
            }
        }
        for message in outbox {
            self.arrivals += 1;
            self.outbox.insert(self.arrivals, (id.clone(), message));
        }
        self.settle(delta);
        self.metrics.batches += 1;
        self.metrics.flushes += 1;
        seq
    }

    fn settle(&mut self, delta: Vec<(BlobId, bool)>) {
        for (id, more) in &delta {
            if let Some((_, count)) = self.blobs.get_mut(id) {
                *count = if *more {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
            }
        }
        for (id, _) in delta {
            if self.blobs.get(&id).is_some_and(|(_, count)| *count == 0) {
                self.blobs.remove(&id);
            }
        }
    }

    fn arrive(&mut self, to: &ActorId, message: InboxMessage) -> bool {
        let actor = self.actors.entry(to.clone()).or_default();
        if actor.arrived.contains_key(&message.id) {
            return false;
        }
        self.arrivals += 1;
        actor.arrived.insert(message.id.clone(), self.arrivals);
        actor.waiting.insert(self.arrivals, message);
        true
    }

    fn purge(&mut self, id: &ActorId) {
        let Some(actor) = self.actors.get_mut(id) else {
            return;
        };
        let epoch = if actor.live {
            actor.epoch + 1
        } else {
            actor.epoch
        };
        let gone = std::mem::replace(
            actor,
            Actor {
                epoch,
                ..Actor::default()
            },
        );
        let of_records = gone
            .records
            .iter()
            .flat_map(|stored: &StoredRecord| &stored.record.blobs);
        let of_rows = gone.rows.values().flat_map(|(_, blobs)| blobs);
        let delta = of_records.chain(of_rows).map(|id| (*id, false)).collect();
        self.outbox.retain(|_, (from, _)| from != id);
        self.settle(delta);
        self.metrics.flushes += 1;
    }
}

impl Actor {
    fn change(&mut self, row: RowChange, delta: &mut Vec<(BlobId, bool)>) {
        let gone: Vec<(Bytes, Vec<BlobId>)> = match row {
            RowChange::Put {
                space,
                key,
                value,
                blobs,
            } => {
                delta.extend(blobs.iter().map(|id| (*id, true)));
                self.rows
                    .insert((space.to_owned(), key), (value, blobs))
                    .into_iter()
                    .collect()
            }
            RowChange::Delete { space, key } => self
                .rows
                .remove(&(space.to_owned(), key))
                .into_iter()
                .collect(),
            RowChange::DeletePrefix { space, prefix } => {
                let matches =
                    |(at, key): &(String, Vec<u8>)| at == space && key.starts_with(&prefix);
                let keys: Vec<_> = self.rows.keys().filter(|at| matches(at)).cloned().collect();
                keys.iter().filter_map(|at| self.rows.remove(at)).collect()
            }
        };
        delta.extend(
            gone.into_iter()
                .flat_map(|(_, blobs)| blobs)
                .map(|id| (id, false)),
        );
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, CommitError> {
        let mut state = self.writing()?;
        let actor = batch.actor.clone();
        let result = state.commit(batch);
        match &result {
            Ok(seq) => self.tails.announce(std::iter::once((&actor, *seq))),
            Err(_) => state.metrics.refused += 1,
        }
        result
    }

    async fn head(&self, actor: &ActorId) -> Result<Option<ActorHead>, StoreError> {
        let state = self.reading()?;
        let known = state
            .actors
            .get(actor)
            .filter(|actor| actor.live || actor.epoch > 0);
        Ok(known.map(|actor| ActorHead {
            epoch: actor.epoch,
            seq: actor.seq(),
            wake: actor.wake,
        }))
    }

    async fn read(
        &self,
        actor: &ActorId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let state = self.reading()?;
        let Some(actor) = state.actors.get(actor) else {
            return Ok(Vec::new());
        };
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(actor
            .records
            .iter()
            .skip(skip)
            .take(limit)
            .cloned()
            .collect())
    }

    fn tail(&self, actor: &ActorId) -> Tail {
        let state = self.lock();
        let seq = state.actors.get(actor).map_or(0, Actor::seq);
        self.tails.follow(actor, seq).0
    }

    async fn row(
        &self,
        actor: &ActorId,
        space: &str,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let state = self.reading()?;
        let rows = state.actors.get(actor).map(|actor| &actor.rows);
        Ok(rows
            .and_then(|rows| rows.get(&(space.to_owned(), key.to_vec())))
            .map(|(value, _)| value.clone()))
    }

    async fn scan(
        &self,
        actor: &ActorId,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let state = self.reading()?;
        let Some(actor) = state.actors.get(actor) else {
            return Ok(Vec::new());
        };
        let start = (
            space.to_owned(),
            after.map_or(prefix, |after| after.max(prefix)).to_vec(),
        );
        let rows = actor
            .rows
            .range(start..)
            .take_while(|((at, _), _)| at == space)
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .take_while(|((_, key), _)| key.starts_with(prefix))
            .take(limit);
        Ok(rows
            .map(|((_, key), (value, _))| Row {
                key: key.clone(),
                value: value.clone(),
            })
            .collect())
    }

    async fn blob(&self, id: BlobId) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .reading()?
            .blobs
            .get(&id)
            .map(|(bytes, _)| bytes.clone()))
    }

    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(ActorId, Timestamp)>, StoreError> {
        let state = self.reading()?;
        let wakes = state
            .actors
            .iter()
            .filter_map(|(id, actor)| actor.wake.map(|wake| (wake, id)));
        let due: BTreeSet<_> = wakes.filter(|(wake, _)| *wake <= now).collect();
        Ok(due
            .into_iter()
            .take(limit)
            .map(|(wake, id)| (id.clone(), wake))
            .collect())
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self
            .reading()?
            .actors
            .values()
            .filter_map(|actor| actor.wake)
            .min())
    }

    async fn actors(
        &self,
        kind: &str,
        name: Option<&str>,
        after: Option<&ActorId>,
        limit: usize,
    ) -> Result<Vec<ActorId>, StoreError> {
        let state = self.reading()?;
        let start = ActorId::new(
            kind,
            after.map_or("", ActorId::name),
            after.map_or("", ActorId::key),
        );
        let listed = state
            .actors
            .range(start.clone()..)
            .take_while(|(id, _)| id.kind() == kind)
            .filter(|(id, actor)| actor.live && name.is_none_or(|name| name == id.name()))
            .filter(|(id, _)| after.is_none() || **id > start)
            .take(limit);
        Ok(listed.map(|(id, _)| id.clone()).collect())
    }

    async fn send(&self, to: &ActorId, message: InboxMessage) -> Result<bool, CommitError> {
        limits::check_message(to, &message).map_err(CommitError::Invalid)?;
        let mut state = self.writing()?;
        let arrived = state.arrive(to, message);
        state.metrics.flushes += u64::from(arrived);
        Ok(arrived)
    }

    async fn inbox(&self, actor: &ActorId, limit: usize) -> Result<Vec<InboxMessage>, StoreError> {
        let state = self.reading()?;
        let Some(actor) = state.actors.get(actor) else {
            return Ok(Vec::new());
        };
        Ok(actor.waiting.values().take(limit).cloned().collect())
    }

    async fn inbox_actors(&self, limit: usize) -> Result<Vec<ActorId>, StoreError> {
        let state = self.reading()?;
        let waiting = state
            .actors
            .iter()
            .filter(|(_, actor)| !actor.waiting.is_empty());
        Ok(waiting.take(limit).map(|(id, _)| id.clone()).collect())
    }

    async fn deliver(&self, limit: usize) -> Result<Vec<OutboxMessage>, CommitError> {
        let mut state = self.writing()?;
        let mut delivered = Vec::new();
        while delivered.len() < limit {
            let Some((_, (from, message))) = state.outbox.pop_first() else {
                break;
            };
            let OutboxMessage { to, id, time, body } = message.clone();
            state.arrive(
                &to,
                InboxMessage {
                    id,
                    from: Some(from),
                    time,
                    body,
                },
            );
            delivered.push(message);
        }
        state.metrics.flushes += u64::from(!delivered.is_empty());
        Ok(delivered)
    }

    async fn purge(&self, actor: &ActorId) -> Result<(), CommitError> {
        self.writing()?.purge(actor);
        self.tails.announce(std::iter::once((actor, 0)));
        Ok(())
    }

    async fn purge_idle(&self, actor: &ActorId, seq: Seq) -> Result<(), CommitError> {
        let mut state = self.writing()?;
        let Some(found) = state.actors.get(actor) else {
            return Ok(());
        };
        let sends = state.outbox.values().any(|(from, _)| from == actor);
        if found.seq() != seq || found.wake.is_some() || !found.waiting.is_empty() || sends {
            return Err(CommitError::Conflict {
                expected: seq,
                current: found.seq(),
            });
        }
        state.purge(actor);
        self.tails.announce(std::iter::once((actor, 0)));
        Ok(())
    }

    async fn dump(&self, id: &ActorId) -> Result<Option<Dump>, DumpError> {
        let state = self.reading()?;
        let Some(actor) = state.actors.get(id).filter(|actor| actor.live) else {
            return Ok(None);
        };
        if !actor.waiting.is_empty() || state.outbox.values().any(|(from, _)| from == id) {
            return Err(DumpError::Busy);
        }
        let rows = actor
            .rows
            .iter()
            .map(|((space, key), (value, blobs))| DumpRow {
                space: space.clone(),
                key: key.clone(),
                value: value.clone(),
                blobs: blobs.clone(),
            });
        let mut dump = Dump {
            actor: id.clone(),
            wake: actor.wake,
            records: actor
                .records
                .iter()
                .map(|stored| stored.record.clone())
                .collect(),
            rows: rows.collect(),
            blobs: Vec::new(),
        };
        for blob in dump.references() {
            if let Some((bytes, _)) = state.blobs.get(&blob) {
                dump.blobs.push(Blob {
                    id: blob,
                    bytes: bytes.clone(),
                });
            }
        }
        dump.check_size()?;
        Ok(Some(dump))
    }

    /// Not possible: there are no files. Always fails.
    async fn backup(&self, _into: &Path) -> Result<(), StoreError> {
        Err(StoreError::Io(
            "a store in memory cannot be backed up".into(),
        ))
    }

    async fn verify(&self) -> Result<(), StoreError> {
        let state = self.reading()?;
        let mut counts: HashMap<BlobId, u64> = HashMap::new();
        for actor in state.actors.values() {
            let of_records = actor.records.iter().flat_map(|stored: &StoredRecord| {
                let record: &Record = &stored.record;
                &record.blobs
            });
            for id in of_records.chain(actor.rows.values().flat_map(|(_, blobs)| blobs)) {
                *counts.entry(*id).or_default() += 1;
            }
        }
        let kept: HashMap<_, _> = state
            .blobs
            .iter()
            .map(|(id, (_, count))| (*id, *count))
            .collect();
        if counts == kept {
            Ok(())
        } else {
            Err(StoreError::Corrupt("blob reference counts differ".into()))
        }
    }

    fn metrics(&self) -> Metrics {
        self.lock().metrics
    }

    async fn close(&self) {
        self.lock().closed = true;
        self.tails.close();
    }
}

impl From<MemoryStore> for Arc<dyn Store> {
    fn from(store: MemoryStore) -> Self {
        Arc::new(store)
    }
}
