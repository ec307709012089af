//! One subscription: its cursors, its wake, and the only task that commits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_store::{
    ActorId, Batch, CommitError, Epoch, Record, RowChange, Seq, Store, StoreError, Timestamp,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{
    Ack, Call, Config, Described, Link, LinkKind, MAX_STREAMS, Refusal, Wake, Way,
    cursor::{Cursor, LINKS, cursors, decode, explicit},
    event,
    registry::actor,
};
use crate::{
    kind,
    stream::{
        Append, Inner, Offset, Streams,
        error::StreamError,
        ledger::{Found, Ledger},
    },
};

const CONFIG: &str = "subscription";
const TURN: &str = "wake";
/// Cursors that are listed at most.
const MAX_LISTED: usize = 10_000;
/// Streams that are looked at together.
const PAGE: usize = 1000;
/// After so many calls in a row that failed, a webhook counts as failing.
const FAILING: u32 = 10;
/// Pause before a webhook is called again: the first one, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

pub(super) type Reply<T> = oneshot::Sender<Result<T, StreamError>>;

/// What is to be done with a subscription.
#[derive(Debug)]
pub(super) enum Op {
    /// Something is new, or a time has come.
    Look,
    /// Looks for what was missed while no process ran.
    Recover,
    Begin {
        config: Box<Config>,
        reply: Reply<bool>,
    },
    /// Ends it; answers with what it was, and the paths that were named.
    End(Reply<(Config, Vec<String>)>),
    Describe(Reply<Described>),
    Link {
        links: Vec<(String, u64)>,
        kind: LinkKind,
        reply: Reply<()>,
    },
    Unlink {
        path: String,
        reply: Reply<()>,
    },
    /// A stream is no more.
    Removed {
        path: String,
    },
    Claim {
        holder: String,
        reply: Reply<Wake>,
    },
    Ack {
        ack: Ack,
        reply: Reply<bool>,
    },
    /// A webhook was called for this generation.
    Called {
        generation: u64,
        streams: Vec<Link>,
        outcome: Result<bool, String>,
    },
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Worker {
    id: String,
    inner: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Vec<Op>,
    busy: bool,
    /// Streams with something that may not have been acknowledged, and how far they go.
    pending: BTreeMap<String, u64>,
    state: Option<State>,
}

/// Where the current wake stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    #[default]
    Idle,
    /// Workers were told; none has claimed it.
    Told,
    /// A worker has it until this time.
    Held { holder: String, until: Timestamp },
    /// The webhook failed; it is called again at this time.
    Retry { at: Timestamp },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Turn {
    generation: u64,
    id: String,
    /// SHA-256 of the token, in hexadecimal.
    token: String,
    phase: Phase,
    failures: u32,
}

#[derive(Debug)]
struct State {
    epoch: Epoch,
    seq: Seq,
    config: Option<Config>,
    turn: Turn,
}

impl Worker {
    pub(super) fn new(id: &str) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            inner: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what it is, and the paths that were named.
    pub(super) async fn open(
        &self,
        store: &dyn Store,
    ) -> Result<Option<(Config, Vec<String>)>, StoreError> {
        let state = State::load(store, &actor(&self.id)).await?;
        let Some(config) = state.config.clone() else {
            return Ok(None);
        };
        self.lock().state = Some(state);
        let named = explicit(store, &actor(&self.id)).await?;
        Ok(Some((config, named)))
    }

    /// Notes that a stream has grown; `true` when the subscription has to be told to look.
    pub(super) fn pend(&self, path: &str, tail: u64) -> bool {
        let mut shared = self.lock();
        if let Some(known) = shared.pending.get_mut(path) {
            *known = tail.max(*known);
        } else {
            shared.pending.insert(path.to_owned(), tail);
        }
        shared.queue.is_empty()
    }

    pub(super) fn put(self: &Arc<Self>, streams: &Arc<Inner>, op: Op) {
        let mut shared = self.lock();
        shared.queue.push(op);
        if !std::mem::replace(&mut shared.busy, true) {
            tokio::spawn(run(self.clone(), streams.clone()));
        }
    }
}

/// Works until nothing is queued.
async fn run(worker: Arc<Worker>, streams: Arc<Inner>) {
    let state = worker.lock().state.take();
    let mut task = Task {
        actor: actor(&worker.id),
        state,
        worker,
        streams,
    };
    loop {
        let ops = {
            let mut shared = task.worker.lock();
            if shared.queue.is_empty() {
                shared.busy = false;
                shared.state = task.state.take();
                return;
            }
            std::mem::take(&mut shared.queue)
        };
        for op in ops {
            task.work(op).await;
        }
        if let Err(cause) = task.advance().await {
            tracing::warn!(subscription = task.worker.id, %cause, "a wake has to wait");
            task.state = None;
            let later = task.streams.sources.now().after(BACK_OFF.1);
            task.streams.subscriptions.at(&task.worker.id, Some(later));
        }
    }
}

impl State {
    async fn load(store: &dyn Store, actor: &ActorId) -> Result<Self, StoreError> {
        let head = store.head(actor).await?;
        let (epoch, seq) = head.map_or((1, 0), |head| (head.epoch + 1, head.seq));
        let bad = |error: serde_json::Error| {
            StoreError::Corrupt(format!("a subscription cannot be read: {error}"))
        };
        let config = store.row(actor, CONFIG, b"").await?;
        let config = config.map(|value| serde_json::from_slice(&value).map_err(bad));
        let turn = store.row(actor, TURN, b"").await?;
        let turn = turn.map(|value| serde_json::from_slice(&value).map_err(bad));
        Ok(Self {
            epoch,
            seq,
            config: config.transpose()?,
            turn: turn.transpose()?.unwrap_or_default(),
        })
    }
}

struct Task {
    actor: ActorId,
    worker: Arc<Worker>,
    streams: Arc<Inner>,
    state: Option<State>,
}

impl Task {
    async fn work(&mut self, op: Op) {
        match op {
            Op::Look => {}
            Op::Recover => {
                if let Err(cause) = self.recover().await {
                    tracing::warn!(subscription = self.worker.id, %cause, "what was missed is unknown");
                }
            }
            Op::Begin { config, reply } => drop(reply.send(self.begin(*config).await)),
            Op::End(reply) => drop(reply.send(self.end().await)),
            Op::Describe(reply) => drop(reply.send(self.describe().await)),
            Op::Link { links, kind, reply } => drop(reply.send(self.link(links, kind).await)),
            Op::Unlink { path, reply } => drop(reply.send(self.unlink(&path, true).await)),
            Op::Removed { path } => {
                if let Err(cause) = self.unlink(&path, false).await {
                    tracing::warn!(subscription = self.worker.id, %cause, "a cursor was left");
                }
            }
            Op::Claim { holder, reply } => drop(reply.send(self.claim(holder).await)),
            Op::Ack { ack, reply } => drop(reply.send(self.ack(ack).await)),
            Op::Called {
                generation,
                streams,
                outcome,
            } => {
                if let Err(cause) = self.called(generation, streams, outcome).await {
                    tracing::warn!(subscription = self.worker.id, %cause, "a call was not noted");
                }
            }
        }
    }

    async fn state(&mut self) -> Result<&mut State, StreamError> {
        if self.state.is_none() {
            self.state = Some(State::load(&*self.streams.store, &self.actor).await?);
        }
        self.state.as_mut().ok_or(StreamError::Unavailable)
    }

    /// The state of a subscription that exists.
    async fn there(&mut self) -> Result<(&mut State, Config), StreamError> {
        let state = self.state().await?;
        match state.config.clone() {
            Some(config) => Ok((state, config)),
            None => Err(StreamError::Subscription(Refusal::NotFound)),
        }
    }

    async fn commit(&mut self, rows: Vec<RowChange>) -> Result<(), StreamError> {
        let now = self.streams.sources.now();
        let actor = self.actor.clone();
        let state = self.state().await?;
        let mut batch = Batch::new(actor, state.epoch, state.seq);
        batch.rows = rows;
        batch.rows.push(put(TURN, "", &state.turn));
        batch.records.push(Record {
            kind: kind::STREAM_CHANGED,
            version: 1,
            time: now,
            conversation: String::new(),
            submission: None,
            attempt: None,
            turn: None,
            body: Bytes::from_static(b"{}"),
            blobs: Vec::new(),
        });
        match self.streams.store.commit(batch).await {
            Ok(seq) => {
                if let Some(state) = &mut self.state {
                    state.seq = seq;
                }
                Ok(())
            }
            Err(error) => {
                // It is read again when it is needed.
                self.state = None;
                Err(match error {
                    CommitError::Fenced { .. } | CommitError::Conflict { .. } => {
                        StreamError::Unavailable
                    }
                    error => error.into(),
                })
            }
        }
    }

    async fn begin(&mut self, config: Config) -> Result<bool, StreamError> {
        if let Some(held) = &self.state().await?.config {
            return if held.is_like(&config) {
                Ok(false)
            } else {
                Err(StreamError::Subscription(Refusal::Exists))
            };
        }
        let mut rows = vec![put(CONFIG, "", &config)];
        let mut cursors = BTreeMap::new();
        if let Some(pattern) = &config.pattern {
            let mut index = super::index::Index::default();
            index.add_pattern(pattern, "");
            let mut after: Option<ActorId> = None;
            loop {
                let store = &self.streams.store;
                let page = store
                    .actors("stream", Some("path"), after.as_ref(), PAGE)
                    .await?;
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                for actor in page {
                    let path = actor.key();
                    if !index.by_pattern(path).is_empty() && !wakes(&config, path) {
                        let acked = self.streams.tail_of(path).await?;
                        let kind = LinkKind::Glob;
                        cursors.insert(path.to_owned(), Cursor { kind, acked });
                    }
                }
            }
        }
        for path in &config.streams {
            let (kind, acked) = (LinkKind::Explicit, self.streams.tail_of(path).await?);
            cursors.insert(path.clone(), Cursor { kind, acked });
        }
        rows.extend(
            cursors
                .iter()
                .map(|(path, cursor)| put(LINKS, path, cursor)),
        );
        let state = self.state().await?;
        state.config = Some(config);
        state.turn = Turn::default();
        self.commit(rows).await?;
        Ok(true)
    }

    async fn end(&mut self) -> Result<(Config, Vec<String>), StreamError> {
        let (_, config) = self.there().await?;
        let named = explicit(&*self.streams.store, &self.actor).await?;
        self.state = None;
        self.streams.store.purge(&self.actor).await?;
        self.worker.lock().pending.clear();
        Ok((config, named))
    }

    async fn describe(&mut self) -> Result<Described, StreamError> {
        let (state, config) = self.there().await?;
        let (generation, failing) = (state.turn.generation, state.turn.failures >= FAILING);
        let mut links = Vec::new();
        for (path, cursor) in cursors(&*self.streams.store, &self.actor, MAX_LISTED).await? {
            links.push(self.seen(path, cursor).await?);
        }
        Ok(Described {
            config,
            links,
            generation,
            failing,
        })
    }

    async fn seen(&self, path: String, cursor: Cursor) -> Result<Link, StreamError> {
        let tail = self.streams.tail_of(&path).await?;
        Ok(Link {
            path,
            kind: cursor.kind,
            acked: Offset(cursor.acked),
            tail: Offset(tail),
        })
    }

    async fn cursor(&self, path: &str) -> Result<Option<Cursor>, StreamError> {
        let row = self
            .streams
            .store
            .row(&self.actor, LINKS, path.as_bytes())
            .await?;
        row.map(|value| decode(&value))
            .transpose()
            .map_err(Into::into)
    }

    async fn link(&mut self, links: Vec<(String, u64)>, kind: LinkKind) -> Result<(), StreamError> {
        let (_, config) = self.there().await?;
        let mut rows = Vec::new();
        for (path, acked) in links {
            let held = self.cursor(&path).await?;
            let known =
                held.is_some_and(|held| held.kind == LinkKind::Explicit || held.kind == kind);
            if !known && !wakes(&config, &path) {
                let acked = held.map_or(acked, |held| held.acked);
                rows.push(put(LINKS, &path, &Cursor { kind, acked }));
            }
        }
        if rows.is_empty() {
            Ok(())
        } else {
            self.commit(rows).await
        }
    }

    async fn unlink(&mut self, path: &str, named: bool) -> Result<(), StreamError> {
        let (_, _config) = self.there().await?;
        self.worker.lock().pending.remove(path);
        let Some(cursor) = self.cursor(path).await? else {
            return Ok(());
        };
        let row = if cursor.kind == LinkKind::Explicit && !named {
            // What comes next at the path begins at its start.
            put(LINKS, path, &Cursor { acked: 0, ..cursor })
        } else {
            RowChange::Delete {
                space: LINKS,
                key: path.as_bytes().to_vec(),
            }
        };
        self.commit(vec![row]).await
    }

    async fn recover(&mut self) -> Result<(), StreamError> {
        for (path, cursor) in cursors(&*self.streams.store, &self.actor, usize::MAX).await? {
            let tail = self.streams.tail_of(&path).await?;
            if tail > cursor.acked {
                self.worker.lock().pending.entry(path).or_insert(tail);
            }
        }
        Ok(())
    }

    /// What is new, at most [`MAX_STREAMS`] streams; forgets what is not.
    async fn pending(&mut self) -> Result<Vec<Link>, StreamError> {
        let mut found = Vec::new();
        let pending = self.worker.lock().pending.clone();
        for (path, noted) in pending {
            let cursor = self.cursor(&path).await?;
            let fresh = match cursor {
                Some(cursor) => Some(self.seen(path.clone(), cursor).await?)
                    .filter(|link| link.tail > link.acked),
                None => None,
            };
            match fresh {
                Some(link) => found.push(link),
                None => {
                    let mut shared = self.worker.lock();
                    if shared.pending.get(&path) == Some(&noted) {
                        shared.pending.remove(&path);
                    }
                }
            }
            if found.len() >= MAX_STREAMS {
                break;
            }
        }
        Ok(found)
    }

    /// Goes on with the wake: ends a lease, calls again, begins the next.
    async fn advance(&mut self) -> Result<(), StreamError> {
        let now = self.streams.sources.now();
        let state = self.state().await?;
        let Some(config) = state.config.clone() else {
            return Ok(());
        };
        let retry = match &state.turn.phase {
            Phase::Held { until, .. } if *until > now => {
                let until = *until;
                self.streams.subscriptions.at(&self.worker.id, Some(until));
                return Ok(());
            }
            Phase::Retry { at } if *at > now => {
                let at = *at;
                self.streams.subscriptions.at(&self.worker.id, Some(at));
                return Ok(());
            }
            Phase::Told => return Ok(()),
            Phase::Retry { .. } => true,
            Phase::Held { .. } => {
                state.turn.phase = Phase::Idle;
                false
            }
            Phase::Idle => false,
        };
        let pending = self.pending().await?;
        let Some(first) = pending.first() else {
            self.streams.subscriptions.at(&self.worker.id, None);
            let state = self.state().await?;
            if retry {
                state.turn.phase = Phase::Idle;
            }
            return Ok(());
        };
        match config.way.clone() {
            Way::PullWake(wake_stream) => {
                let path = first.path.clone();
                self.turn(Phase::Told, false).await?;
                let generation = self.state().await?.turn.generation;
                let body = event(&self.worker.id, &path, generation, now);
                let append = Append::bytes(body);
                // Without such a stream nobody listens; what is pending can be claimed all the same.
                let streams = Streams(self.streams.clone());
                let id = self.worker.id.clone();
                tokio::spawn(async move {
                    if let Err(cause) = streams.append(&wake_stream, append).await {
                        tracing::warn!(subscription = id, %cause, "a wake event was not appended");
                    }
                });
            }
            Way::Webhook(url) => {
                let Some(deliver) = self.streams.subscriptions.deliver.get().cloned() else {
                    return Ok(());
                };
                let holder = "webhook".to_owned();
                let until = now.after(Duration::from_millis(config.lease_ms));
                let token = self.turn(Phase::Held { holder, until }, retry).await?;
                self.streams.subscriptions.at(&self.worker.id, Some(until));
                let wake = self.wake(token, pending, config.lease_ms).await?;
                let call = Call {
                    subscription: self.worker.id.clone(),
                    url,
                    base_url: config.base_url,
                    wake,
                };
                deliver_aside(self.worker.clone(), self.streams.clone(), deliver, call);
            }
        }
        Ok(())
    }

    /// Begins the next wake, or the same again. Answers with its token.
    async fn turn(&mut self, phase: Phase, again: bool) -> Result<String, StreamError> {
        let sources = self.streams.sources.clone();
        let token = format!("{:016x}{:016x}", sources.random(), sources.random());
        let state = self.state().await?;
        if !again {
            state.turn.generation += 1;
            state.turn.id = sources.id("wake_");
        }
        state.turn.token = hash(&token);
        state.turn.phase = phase;
        self.commit(Vec::new()).await?;
        Ok(token)
    }

    async fn wake(
        &mut self,
        token: String,
        streams: Vec<Link>,
        lease_ms: u64,
    ) -> Result<Wake, StreamError> {
        let turn = &self.state().await?.turn;
        Ok(Wake {
            id: turn.id.clone(),
            generation: turn.generation,
            token,
            streams,
            lease_ms,
        })
    }

    async fn claim(&mut self, holder: String) -> Result<Wake, StreamError> {
        let now = self.streams.sources.now();
        let (state, config) = self.there().await?;
        if matches!(config.way, Way::Webhook(_)) {
            let what = "a subscription with a webhook has nothing to claim".to_owned();
            return Err(StreamError::Subscription(Refusal::Invalid(what)));
        }
        let told = match &state.turn.phase {
            Phase::Held { holder, until } if *until > now => {
                return Err(StreamError::Subscription(Refusal::Claimed {
                    holder: holder.clone(),
                    generation: state.turn.generation,
                }));
            }
            Phase::Told => true,
            Phase::Held { .. } | Phase::Idle | Phase::Retry { .. } => false,
        };
        let pending = self.pending().await?;
        if pending.is_empty() {
            return Err(StreamError::Subscription(Refusal::NoWork));
        }
        let until = now.after(Duration::from_millis(config.lease_ms));
        let token = self.turn(Phase::Held { holder, until }, told).await?;
        self.wake(token, pending, config.lease_ms).await
    }

    async fn ack(&mut self, ack: Ack) -> Result<bool, StreamError> {
        let now = self.streams.sources.now();
        let (state, config) = self.there().await?;
        let Phase::Held { holder, until } = state.turn.phase.clone() else {
            return Err(StreamError::Subscription(Refusal::Fenced));
        };
        let turn = &state.turn;
        if until <= now || ack.generation != turn.generation || ack.wake != turn.id {
            return Err(StreamError::Subscription(Refusal::Fenced));
        }
        if !same(&hash(&ack.token), &turn.token) {
            return Err(StreamError::Subscription(Refusal::Token));
        }
        let rows = self.advanced(&ack.acks).await?;
        let state = self.state().await?;
        state.turn.failures = 0;
        state.turn.phase = if ack.done {
            Phase::Idle
        } else {
            let until = now.after(Duration::from_millis(config.lease_ms));
            Phase::Held { holder, until }
        };
        self.commit(rows).await?;
        Ok(!self.pending().await?.is_empty())
    }

    /// The rows of cursors that have moved.
    async fn advanced(&mut self, acks: &[(String, Offset)]) -> Result<Vec<RowChange>, StreamError> {
        let mut rows = Vec::new();
        for (path, offset) in acks {
            let refused = || StreamError::Subscription(Refusal::Offset(path.clone()));
            let cursor = self.cursor(path).await?.ok_or_else(refused)?;
            if offset.0 > self.streams.tail_of(path).await? {
                return Err(refused());
            }
            if offset.0 > cursor.acked {
                let acked = offset.0;
                rows.push(put(LINKS, path, &Cursor { acked, ..cursor }));
            }
        }
        Ok(rows)
    }

    async fn called(
        &mut self,
        generation: u64,
        streams: Vec<Link>,
        outcome: Result<bool, String>,
    ) -> Result<(), StreamError> {
        let now = self.streams.sources.now();
        let fraction = self.streams.sources.fraction();
        let id = self.worker.id.clone();
        let state = match self.there().await {
            Err(StreamError::Subscription(Refusal::NotFound)) => return Ok(()),
            there => there?.0,
        };
        if state.turn.generation != generation || !matches!(state.turn.phase, Phase::Held { .. }) {
            return Ok(());
        }
        let mut rows = Vec::new();
        match outcome {
            Ok(true) => {
                state.turn.failures = 0;
                state.turn.phase = Phase::Idle;
                let acks: Vec<_> = streams.into_iter().map(|it| (it.path, it.tail)).collect();
                for ack in acks {
                    match self.advanced(&[ack]).await {
                        Ok(more) => rows.extend(more),
                        // It went away meanwhile.
                        Err(StreamError::Subscription(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            // The receiver calls back.
            Ok(false) => {
                state.turn.failures = 0;
                return Ok(());
            }
            Err(cause) => {
                tracing::warn!(subscription = id, cause, "a webhook failed");
                let pause = BACK_OFF.0 * (1 << state.turn.failures.min(6));
                let pause = pause.min(BACK_OFF.1).mul_f64(0.8 + 0.4 * fraction);
                state.turn.failures = state.turn.failures.saturating_add(1);
                state.turn.phase = Phase::Retry {
                    at: now.after(pause),
                };
            }
        }
        self.commit(rows).await
    }
}

/// Calls a webhook beside the subscription's own task.
fn deliver_aside(
    worker: Arc<Worker>,
    streams: Arc<Inner>,
    deliver: Arc<dyn super::Deliver>,
    call: Call,
) {
    tokio::spawn(async move {
        let (generation, links) = (call.wake.generation, call.wake.streams.clone());
        let outcome = deliver.deliver(call).await;
        worker.put(
            &streams,
            Op::Called {
                generation,
                streams: links,
                outcome,
            },
        );
    });
}

impl Inner {
    /// Where a stream ends; 0 when there is none.
    pub(super) async fn tail_of(&self, path: &str) -> Result<u64, StreamError> {
        if let crate::stream::View::Stream(seen) = self.host(path).view() {
            return Ok(seen.tail);
        }
        match Ledger::load(&*self.store, &crate::stream::actor(path)).await? {
            Found::Stream(ledger) if !ledger.gone => Ok(ledger.tail),
            Found::Stream(_) | Found::Nothing(_) => Ok(0),
        }
    }
}

/// A subscription does not wake itself.
fn wakes(config: &Config, path: &str) -> bool {
    matches!(&config.way, Way::PullWake(stream) if stream == path)
}

fn put(space: &'static str, key: &str, value: &impl Serialize) -> RowChange {
    RowChange::Put {
        space,
        key: key.as_bytes().to_vec(),
        // Values of our own types always have a form in JSON.
        value: serde_json::to_vec(value).unwrap_or_default().into(),
        blobs: Vec::new(),
    }
}

fn hash(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes as long whether the first or the last byte differs.
fn same(left: &str, right: &str) -> bool {
    let differ = left.bytes().zip(right.bytes());
    left.len() == right.len() && differ.fold(0, |all, (left, right)| all | (left ^ right)) == 0
}
