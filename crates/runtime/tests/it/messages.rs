//! Messages, requests, and children.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bowline_runtime::{
    Call, Failure, Handled, Incoming, Outcome, Program, Runtime, RuntimeOptions, Step, child, kind,
    message::{MAX_CHAIN, Taken},
    submission::Instance,
};
use bowline_store::{ActorId, InboxMessage, MemoryStore, Store};
use bowline_testkit::{
    faults::{Death, DyingStore},
    sim::{
        clock,
        program::{CHILD, End, Plan, Planned},
    },
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{MINUTE, Stage, actor, rest, settle, submit};

const KIND: &str = "peer";
const SECOND: Duration = Duration::from_secs(1);

/// Counts, asks on, dawdles, fails and panics as it is told.
#[derive(Debug)]
struct Peer(Arc<Planned>, Arc<AtomicUsize>);

#[async_trait]
impl Program for Peer {
    async fn open(
        &self,
        actor: &ActorId,
        store: &Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure> {
        self.0.open(actor, store).await
    }

    async fn handle(&self, call: &Call, incoming: Incoming) -> Result<Handled, Failure> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let body = match incoming {
            Incoming::Message { body, .. } | Incoming::Request { body, .. } => body,
        };
        let failed = |error: bowline_runtime::RuntimeError| {
            Failure::new(error.code(), error.to_string(), "")
        };
        if let Some(way) = body.get("via").and_then(Value::as_array)
            && let Some(next) = way.first().and_then(Value::as_str)
        {
            let rest = json!({ "via": way[1..], "pause": body.get("pause") });
            let within = Duration::from_secs(3_600);
            return Ok(Handled::reply(
                call.request(&peer(next), rest, within)
                    .await
                    .map_err(failed)?,
            ));
        }
        if let Some(pause) = body.get("pause").and_then(Value::as_u64) {
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
        match body.get("end").and_then(Value::as_str) {
            Some("fail") => return Err(Failure::new("planned", "it was planned to fail", "")),
            Some("panic") => std::panic::resume_unwind(Box::new("a planned panic")),
            Some("too large") => {
                let mut step = Step::new();
                step.put("count", "n", &"x".repeat(2 << 20));
                return Ok(Handled::step(step));
            }
            Some(_) | None => {}
        }
        let row = call.store().row(call.actor(), "count", b"n").await.unwrap();
        let count = row.map_or(0, |row| serde_json::from_slice::<u64>(&row).unwrap()) + 1;
        let mut step = Step::new();
        step.put("count", "n", &count);
        Ok(Handled {
            step,
            submit: None,
            reply: count.into(),
        })
    }
}

fn peer(key: &str) -> ActorId {
    ActorId::new(KIND, "test", key)
}

fn start(store: Arc<dyn Store>) -> (Runtime, Arc<AtomicUsize>) {
    let handled = Arc::new(AtomicUsize::new(0));
    let program: Arc<dyn Program> = Arc::new(Peer(Planned::new(Arc::default()), handled.clone()));
    let programs = [(KIND.to_owned(), program)];
    let options = RuntimeOptions::default();
    (
        Runtime::new(store, clock::sources(1), options, programs),
        handled,
    )
}

fn supervise(runtime: &Runtime) -> CancellationToken {
    let stop = CancellationToken::new();
    let (runtime, stopped) = (runtime.clone(), stop.clone());
    tokio::spawn(async move { runtime.supervise(stopped).await });
    stop
}

async fn count(store: &dyn Store, actor: &ActorId) -> u64 {
    let row = store.row(actor, "count", b"n").await.unwrap();
    row.map_or(0, |row| serde_json::from_slice(&row).unwrap())
}

async fn taken(store: &dyn Store, actor: &ActorId) -> Vec<Taken> {
    let records = store.read(actor, 0, usize::MAX).await.unwrap();
    records
        .iter()
        .filter(|one| one.record.kind == kind::MESSAGE_TAKEN)
        .map(|one| serde_json::from_slice(&one.record.body).unwrap())
        .collect()
}

fn message(id: &str, body: &Value) -> InboxMessage {
    InboxMessage {
        id: id.to_owned(),
        from: None,
        time: bowline_store::Timestamp::from_millis(0),
        body: Bytes::from(body.to_string()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handled_once_whichever_write_the_process_dies_at() {
    let deaths = (1..=5).flat_map(|n| [Death::Before(n), Death::After(n)]);
    let carried = (1..=2).flat_map(|n| [Death::BeforeDelivery(n), Death::AfterDelivery(n)]);
    for death in deaths.chain(carried) {
        let stage = Stage::new();
        let (a, b) = (actor("a"), actor("b"));
        let plan = Plan {
            tell: Some("b".to_owned()),
            ..Plan::steps(1)
        };
        let first = stage.start_on(DyingStore::new(stage.store.clone(), death));
        supervise(&first);
        if let Ok(receipt) = first.submit(&a, crate::keyed(&plan, "k")).await {
            let _ = first.settled(&a, &receipt.submission_id).await;
        }
        rest().await;
        let next = stage.start();
        supervise(&next);
        let receipt = next.submit(&a, crate::keyed(&plan, "k")).await.unwrap();
        settle(&next, &a, &receipt).await;
        tokio::time::sleep(MINUTE * 2).await;
        let taken = taken(&*stage.store, &b).await;
        assert_eq!(taken.len(), 1, "{death:?}");
        assert_eq!(taken[0].from.as_deref(), Some("planned/test/a"));
        let ends = stage.count(&b, kind::SUBMISSION_SETTLED).await;
        assert_eq!(ends, 1, "{death:?}: what it admitted ended once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_handled_is_taken_and_holds_up_no_other() {
    let store = Arc::new(MemoryStore::new());
    let bodies = [
        json!({ "end": "fail" }),
        json!({ "end": "panic" }),
        json!({ "end": "too large" }),
        json!({ "pause": 3_600 }),
        json!({}),
    ];
    for (number, body) in bodies.iter().enumerate() {
        store
            .send(&peer("a"), message(&format!("m{number}"), body))
            .await
            .unwrap();
    }
    let mut broken = message("m9", &json!({}));
    broken.body = Bytes::from_static(b"{");
    store.send(&peer("a"), broken).await.unwrap();
    let (runtime, _) = start(store.clone());
    supervise(&runtime);
    tokio::time::sleep(MINUTE * 2).await;
    let taken = taken(&*store, &peer("a")).await;
    let errors: Vec<_> = taken
        .iter()
        .map(|one| one.error.as_ref().map(|error| error.code.as_str()))
        .collect();
    assert_eq!(
        errors,
        [
            Some("planned"),
            Some("handler_failed"),
            Some("store_invalid_batch"),
            Some("handler_failed"),
            None,
            Some("message_not_json")
        ]
    );
    assert_eq!(count(&*store, &peer("a")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_waits_for_room_in_a_full_queue_and_the_actor_sleeps_meanwhile() {
    let stage = Stage {
        options: RuntimeOptions {
            idle: Duration::ZERO,
            ..RuntimeOptions::default()
        },
        ..Stage::new()
    };
    let runtime = stage.start();
    supervise(&runtime);
    let parked = submit(&runtime, &actor("a"), &Plan::ending(0, End::Park)).await;
    for _ in 1..1_000 {
        submit(&runtime, &actor("a"), &Plan::steps(0)).await;
    }
    let plan = Plan {
        tell: Some("a".to_owned()),
        ..Plan::steps(0)
    };
    let told = submit(&runtime, &actor("b"), &plan).await;
    settle(&runtime, &actor("b"), &told).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(taken(&*stage.store, &actor("a")).await, []);
    let batches = stage.store.metrics().batches;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.store.metrics().batches, batches);
    runtime.answer(&actor("a"), 1.into()).await.unwrap();
    settle(&runtime, &actor("a"), &parked).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(taken(&*stage.store, &actor("a")).await.len(), 1);
    let ends = stage.count(&actor("a"), kind::SUBMISSION_SETTLED).await;
    assert_eq!(ends, 1_001);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_after_what_it_changed_is_durable_and_times_out_by_name() {
    let store = Arc::new(MemoryStore::new());
    let (runtime, _) = start(store.clone());
    for expected in 1..=3 {
        let reply = runtime
            .request(&peer("a"), json!({}), SECOND)
            .await
            .unwrap();
        assert_eq!(reply, json!(expected));
        assert_eq!(count(&*store, &peer("a")).await, expected);
    }
    let slow = runtime
        .request(&peer("a"), json!({ "pause": 60 }), SECOND * 5)
        .await;
    assert_eq!(slow.unwrap_err().code(), "request_timeout");
    assert_eq!(count(&*store, &peer("a")).await, 3, "nothing of it lands");
    for (end, code) in [("fail", "planned"), ("panic", "handler_failed")] {
        let failed = runtime
            .request(&peer("a"), json!({ "end": end }), SECOND)
            .await;
        assert_eq!(failed.unwrap_err().code(), code);
    }
    let reply = runtime.request(&peer("a"), json!({}), SECOND).await;
    assert_eq!(reply.unwrap(), json!(4), "it stays usable");
    let stage = Stage::new();
    let nobody = stage.start();
    let reply = nobody
        .request(&ActorId::new("nobody", "test", "a"), json!({}), SECOND)
        .await;
    assert_eq!(reply.unwrap_err().code(), "unknown_actor_kind");
}

#[tokio::test(start_paused = true)]
async fn actors_that_would_wait_for_each_other_are_told_so_and_stay_usable() {
    let store = Arc::new(MemoryStore::new());
    let (runtime, handled) = start(store.clone());
    let via = |way: &[&str]| json!({ "via": way });
    // One chain that comes back, at once and after a while.
    for way in [&["a"][..], &["b", "a"], &["b", "c", "b"]] {
        let cyclic = runtime.request(&peer("a"), via(way), MINUTE).await;
        assert_eq!(cyclic.unwrap_err().code(), "request_cyclic", "{way:?}");
    }
    // Two chains that wait for each other.
    let slow = |way: &[&str]| json!({ "via": way, "pause": 1 });
    let (a, b) = (peer("a"), peer("b"));
    let (one, other) = tokio::join!(
        runtime.request(&a, slow(&["b", "c"]), MINUTE),
        runtime.request(&b, slow(&["a", "c"]), MINUTE),
    );
    let codes = [one, other].map(|reply| reply.err().map(|error| error.code().to_owned()));
    assert!(
        codes.contains(&Some("request_cyclic".to_owned())),
        "{codes:?}"
    );
    for key in ["a", "b", "c"] {
        let reply = runtime.request(&peer(key), json!({}), SECOND).await;
        assert!(reply.is_ok(), "{key} stays usable");
    }
    // A chain is bounded.
    let before = handled.load(Ordering::SeqCst);
    let long: Vec<_> = (0..40).map(|number| format!("d{number}")).collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    let deep = runtime.request(&peer("z"), via(&long), MINUTE).await;
    assert_eq!(deep.unwrap_err().code(), "request_too_deep");
    assert_eq!(handled.load(Ordering::SeqCst) - before, MAX_CHAIN);
}

#[tokio::test(start_paused = true)]
async fn a_running_attempt_asks_another_actor_and_is_told_when_that_asks_back() {
    let stage = Stage::new();
    let runtime = stage.start();
    let asking = |other: &str| Plan {
        ask: Some(other.to_owned()),
        ..Plan::steps(0)
    };
    for other in ["b", "a"] {
        // The first is asked back, the second asks itself; both are told, and complete all the same.
        let receipt = submit(&runtime, &actor("a"), &asking(other)).await;
        let settled = settle(&runtime, &actor("a"), &receipt).await;
        assert_eq!(settled.outcome, Outcome::Completed);
    }
    let asked = bowline_testkit::sim::program::ASKED;
    let row = |key| stage.store.row(key, asked, asked.as_bytes());
    let (a, b) = (actor("a"), actor("b"));
    assert_eq!(row(&b).await.unwrap(), None);
    assert_eq!(row(&a).await.unwrap(), None);
    for one in [&a, &b] {
        let reply = runtime.request(one, "".into(), SECOND).await;
        assert_eq!(reply.unwrap(), json!(1), "{one} stays usable");
    }
}

fn children_of(key: &str, submissions: &[String]) -> Vec<ActorId> {
    let of = |id: &String| ActorId::new("planned", CHILD, &format!("{key}/{id}"));
    submissions.iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_actor_takes_its_children_along_whichever_write_the_process_dies_at() {
    let commits = [Death::Before(1), Death::After(1)];
    let purges = (1..=4).flat_map(|n| [Death::BeforePurge(n), Death::AfterPurge(n)]);
    for death in commits.into_iter().chain(purges).chain([Death::Never]) {
        let (stage, parent) = (Stage::new(), actor("a"));
        let runtime = stage.start();
        let stop = supervise(&runtime);
        let plan = Plan {
            child: true,
            ..Plan::steps(1)
        };
        let mut submissions = Vec::new();
        for _ in 0..3 {
            let receipt = submit(&runtime, &parent, &plan).await;
            settle(&runtime, &parent, &receipt).await;
            submissions.push(receipt.submission_id);
        }
        tokio::time::sleep(MINUTE * 5).await;
        let children = children_of("a", &submissions);
        let listed = child::list(&*stage.store, &parent, None, 100)
            .await
            .unwrap();
        assert_eq!(listed.len(), 3);
        for child in &children {
            assert!(listed.contains(child));
            assert_eq!(stage.count(child, kind::SUBMISSION_SETTLED).await, 1);
        }
        stop.cancel();
        assert!(runtime.drain(MINUTE).await);

        let store = DyingStore::new(stage.store.clone(), death);
        let dying = stage.start_on(store.clone());
        let purged = dying.purge(&parent).await;
        assert_eq!(
            purged.is_ok(),
            death == Death::Never,
            "{death:?}: {purged:?}"
        );
        let next = stage.start();
        supervise(&next);
        tokio::time::sleep(MINUTE * 2).await;
        // Before the mark is durable nothing of it has happened.
        let gone = death != Death::Before(1);
        for actor in children.iter().chain([&parent]) {
            let left = stage.records(actor).await.len();
            assert_eq!(left == 0, gone, "{actor} after {death:?}");
        }
        let receipt = submit(&next, &parent, &Plan::ending(0, End::Complete)).await;
        let again = settle(&next, &parent, &receipt).await;
        assert_eq!(again.outcome, Outcome::Completed, "{death:?}: usable again");
    }
}
