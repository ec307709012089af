//! Random work on both engines beside a model that is simple enough to be right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bowline_store::{
    ActorId, Batch, Blob, CommitError, InboxMessage, MemoryStore, OutboxMessage, RowChange,
    SqliteOptions, SqliteStore, Store, Timestamp, Wake,
};
use bytes::Bytes;
use proptest::prelude::*;

use super::{actor, record};

/// Work by small numbers: actors 0–2, keys 0–5, blobs 0–3, message ids 0–4.
#[derive(Debug, Clone)]
enum Step {
    Commit(Commit),
    Send { to: u8, id: u8 },
    Deliver { limit: usize },
    Purge { actor: u8 },
    Reopen,
}

#[derive(Debug, Clone)]
struct Commit {
    actor: u8,
    /// Added to the actor's own.
    epoch: i64,
    stale: bool,
    records: Vec<Option<u8>>,
    rows: Vec<(u8, Change)>,
    wake: Wake,
    ack: Option<u8>,
    outbox: Vec<(u8, u8)>,
}

#[derive(Debug, Clone)]
enum Change {
    Put { value: u8, blob: Option<u8> },
    Delete,
    DeletePrefix,
}

#[derive(Debug, Default, Clone)]
struct Actor {
    epoch: u64,
    live: bool,
    /// The blob of each record.
    records: Vec<Option<u8>>,
    rows: BTreeMap<Vec<u8>, (u8, Option<u8>)>,
    wake: Option<Timestamp>,
    waiting: Vec<u8>,
    arrived: BTreeSet<u8>,
}

#[derive(Debug, Default)]
struct Model {
    actors: BTreeMap<u8, Actor>,
    /// Sender, receiver, message.
    outbox: Vec<(u8, u8, u8)>,
}

fn key(n: u8) -> Vec<u8> {
    // Pairs of keys where one is the prefix of the other.
    vec![n / 2; usize::from(n % 2) + 1]
}

fn blob(n: u8) -> Blob {
    Blob::new(Bytes::from(vec![n; usize::from(n) * 100_000]))
}

fn id(actor_number: u8) -> ActorId {
    actor(&actor_number.to_string())
}

impl Model {
    /// The new sequence, or the code of the refusal.
    fn commit(&mut self, commit: &Commit) -> Result<u64, &'static str> {
        let mut actor = self.actors.get(&commit.actor).cloned().unwrap_or_default();
        if commit.epoch < 0 && actor.epoch > 0 {
            return Err("store_fenced");
        }
        if commit.stale {
            return Err("store_conflict");
        }
        if commit.epoch > 0 && commit.records.is_empty() {
            return Err("store_invalid_batch");
        }
        if commit.ack.is_some_and(|ack| !actor.arrived.contains(&ack)) {
            return Err("store_invalid_batch");
        }
        let seq = (actor.records.len() + commit.records.len()) as u64;
        let unchanged =
            commit.records.is_empty() && commit.rows.is_empty() && commit.wake == Wake::Keep;
        if unchanged && commit.ack.is_none() && commit.outbox.is_empty() {
            return Ok(seq);
        }
        actor.live = true;
        actor.epoch += u64::from(commit.epoch > 0);
        actor.records.extend(&commit.records);
        for (n, change) in &commit.rows {
            match change {
                Change::Put { value, blob } => drop(actor.rows.insert(key(*n), (*value, *blob))),
                Change::Delete => drop(actor.rows.remove(&key(*n))),
                Change::DeletePrefix => actor.rows.retain(|at, _| !at.starts_with(&key(*n))),
            }
        }
        match commit.wake {
            Wake::Keep => {}
            Wake::At(time) => actor.wake = Some(time),
            Wake::Clear => actor.wake = None,
        }
        actor.waiting.retain(|waiting| Some(*waiting) != commit.ack);
        self.outbox.extend(
            commit
                .outbox
                .iter()
                .map(|(to, id)| (commit.actor, *to, *id)),
        );
        self.actors.insert(commit.actor, actor);
        Ok(seq)
    }

    fn arrive(&mut self, to: u8, id: u8) -> bool {
        let actor = self.actors.entry(to).or_default();
        let new = actor.arrived.insert(id);
        if new {
            actor.waiting.push(id);
        }
        new
    }

    fn deliver(&mut self, limit: usize) -> usize {
        let moved: Vec<_> = self.outbox.drain(..limit.min(self.outbox.len())).collect();
        for (_, to, id) in &moved {
            self.arrive(*to, *id);
        }
        moved.len()
    }

    fn purge(&mut self, n: u8) {
        if let Some(actor) = self.actors.get_mut(&n) {
            *actor = Actor {
                epoch: actor.epoch + u64::from(actor.live),
                ..Actor::default()
            };
        }
        self.outbox.retain(|(from, _, _)| *from != n);
    }

    fn batch(&self, commit: &Commit) -> Batch {
        let actor = self.actors.get(&commit.actor).cloned().unwrap_or_default();
        let seq = actor.records.len() as u64 + u64::from(commit.stale);
        let mut batch = Batch::new(
            id(commit.actor),
            actor.epoch.saturating_add_signed(commit.epoch),
            seq,
        );
        let mut blobs = BTreeSet::new();
        for refers in &commit.records {
            let mut one = record("{}");
            one.blobs.extend(refers.map(|n| blob(n).id));
            blobs.extend(refers);
            batch.records.push(one);
        }
        for (n, change) in &commit.rows {
            let (space, key) = ("s", key(*n));
            batch.rows.push(match change {
                Change::Put {
                    value,
                    blob: refers,
                } => {
                    blobs.extend(refers);
                    let refers = refers.iter().map(|n| blob(*n).id).collect();
                    RowChange::Put {
                        space,
                        key,
                        value: Bytes::from(vec![*value; 3]),
                        blobs: refers,
                    }
                }
                Change::Delete => RowChange::Delete { space, key },
                Change::DeletePrefix => RowChange::DeletePrefix { space, prefix: key },
            });
        }
        batch.blobs = blobs.into_iter().map(blob).collect();
        batch.wake = commit.wake;
        batch.inbox_acks.extend(commit.ack.map(|n| n.to_string()));
        let (time, body) = (Timestamp::from_millis(1), Bytes::from_static(b"{}"));
        let send = |(to, n): &(u8, u8)| OutboxMessage {
            to: id(*to),
            id: n.to_string(),
            time,
            body: body.clone(),
        };
        batch.outbox = commit.outbox.iter().map(send).collect();
        batch
    }

    async fn compare(&self, store: &dyn Store) {
        store.verify().await.unwrap();
        let mut kept = BTreeSet::new();
        let mut wakes = BTreeSet::new();
        for n in 0..3 {
            let actor = self.actors.get(&n).cloned().unwrap_or_default();
            let head = store.head(&id(n)).await.unwrap();
            assert_eq!(
                head.map_or((0, 0), |head| (head.epoch, head.seq)),
                (actor.epoch, actor.records.len() as u64)
            );
            assert_eq!(head.and_then(|head| head.wake), actor.wake);
            assert_eq!(
                store.read(&id(n), 0, 1000).await.unwrap().len(),
                actor.records.len()
            );
            let rows = store.scan(&id(n), "s", b"", None, 1000).await.unwrap();
            let rows: BTreeMap<_, _> = rows
                .into_iter()
                .map(|row| (row.key, row.value[0]))
                .collect();
            assert_eq!(
                rows,
                actor
                    .rows
                    .iter()
                    .map(|(key, (value, _))| (key.clone(), *value))
                    .collect()
            );
            let waiting = store.inbox(&id(n), 1000).await.unwrap();
            let waiting: Vec<u8> = waiting
                .iter()
                .map(|message| message.id.parse().unwrap())
                .collect();
            assert_eq!(waiting, actor.waiting);
            kept.extend(actor.records.iter().flatten().copied());
            kept.extend(actor.rows.values().filter_map(|(_, blob)| *blob));
            wakes.extend(actor.wake.map(|wake| (wake, id(n))));
        }
        for n in 0..4 {
            let found = store.blob(blob(n).id).await.unwrap();
            assert_eq!(found, kept.contains(&n).then(|| blob(n).bytes), "blob {n}");
        }
        let due: BTreeSet<_> = store
            .due(Timestamp::from_millis(99), 9)
            .await
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(
            due,
            wakes.into_iter().map(|(wake, id)| (id, wake)).collect()
        );
    }
}

fn commits() -> impl Strategy<Value = Commit> {
    let change = prop_oneof![
        4 => (any::<u8>(), proptest::option::of(0..4_u8)).prop_map(|(value, blob)| Change::Put { value, blob }),
        1 => Just(Change::Delete),
        1 => Just(Change::DeletePrefix),
    ];
    let wake = prop_oneof![
        2 => Just(Wake::Keep),
        1 => Just(Wake::Clear),
        1 => (0..50_i64).prop_map(|at| Wake::At(Timestamp::from_millis(at))),
    ];
    (
        0..3_u8,
        prop_oneof![6 => Just(0), 2 => Just(1), 1 => Just(-1)],
        prop::bool::weighted(0.1),
        proptest::collection::vec(proptest::option::of(0..4_u8), 0..3),
        proptest::collection::vec((0..6_u8, change), 0..4),
        wake,
        proptest::option::weighted(0.2, 0..5_u8),
        proptest::collection::vec((0..3_u8, 0..5_u8), 0..2),
    )
        .prop_map(
            |(actor, epoch, stale, records, rows, wake, ack, outbox)| Commit {
                actor,
                epoch,
                stale,
                records,
                rows,
                wake,
                ack,
                outbox,
            },
        )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => commits().prop_map(Step::Commit),
        2 => (0..3_u8, 0..5_u8).prop_map(|(to, id)| Step::Send { to, id }),
        2 => (0..4_usize).prop_map(|limit| Step::Deliver { limit }),
        1 => (0..3_u8).prop_map(|actor| Step::Purge { actor }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Runs the steps; `reopen` gives the store back as its engine would after a restart.
async fn run(
    steps: &[Step],
    mut store: Arc<dyn Store>,
    reopen: impl AsyncFn(Arc<dyn Store>) -> Arc<dyn Store>,
) {
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(commit) => {
                let done = store.commit(model.batch(commit)).await;
                let expected = model.commit(commit);
                assert_eq!(done.map_err(|error: CommitError| error.code()), expected);
            }
            Step::Send { to, id: n } => {
                let (time, body) = (Timestamp::from_millis(1), Bytes::from_static(b"{}"));
                let message = InboxMessage {
                    id: n.to_string(),
                    from: None,
                    time,
                    body,
                };
                assert_eq!(
                    store.send(&id(*to), message).await.unwrap(),
                    model.arrive(*to, *n)
                );
            }
            Step::Deliver { limit } => {
                assert_eq!(
                    store.deliver(*limit).await.unwrap().len(),
                    model.deliver(*limit)
                );
            }
            Step::Purge { actor } => {
                store.purge(&id(*actor)).await.unwrap();
                model.purge(*actor);
            }
            Step::Reopen => {
                store = reopen(store).await;
                model.compare(store.as_ref()).await;
            }
        }
    }
    model.compare(store.as_ref()).await;
    store.close().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_what_the_model_does(steps in steps()) {
        runtime().block_on(run(&steps, Arc::new(MemoryStore::new()), async |store| store));
    }

    #[test]
    fn sqlite_does_what_the_model_does(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let open = || SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
        runtime().block_on(run(&steps, open(), async |store: Arc<dyn Store>| {
            store.close().await;
            let again: Arc<dyn Store> = open();
            again
        }));
    }
}
