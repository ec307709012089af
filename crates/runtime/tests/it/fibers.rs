//! Fibers: stash, recovery, cancellation, housekeeping.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bowline_runtime::{
    Failure, Runtime, RuntimeError, RuntimeOptions,
    fiber::{
        Fiber, Fibers, Handler, Handlers, KIND, MAX_STASH, NewFiber, RESOLVE_WITHIN, Recovered,
        Resolution, Status, Stop,
    },
    kind,
};
use bowline_store::{Batch, CommitError, MemoryStore, Seq, Store, StoredRecord};
use bowline_testkit::{
    faults::{Death, DyingStore, Fault, Faulty},
    sim::clock,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::MINUTE;

/// Does `input` slow steps, and stashes after each.
#[derive(Debug, Default)]
struct Steps {
    done: Mutex<Vec<u64>>,
    recovered: Mutex<Vec<Recovered>>,
    pause: Duration,
}

#[async_trait]
impl Handler for Steps {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        let steps = fiber.input().as_u64().unwrap_or(0);
        for step in fiber.stash_as().unwrap_or(0)..steps {
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
            self.done.lock().unwrap().push(step);
            fiber.set_stash(&(step + 1)).await?;
        }
        Ok(json!({ "steps": steps }))
    }

    async fn on_recovered(
        &self,
        fiber: &mut Fiber<'_>,
        recovered: Recovered,
    ) -> Result<Value, Stop> {
        self.recovered.lock().unwrap().push(recovered);
        self.run(fiber).await
    }
}

/// Ends in the way that its input says.
#[derive(Debug, Default)]
struct Odd(AtomicU32);

#[async_trait]
impl Handler for Odd {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        self.0.fetch_add(1, Ordering::SeqCst);
        match fiber.input().as_str() {
            Some("too large") => fiber.set_stash(&"x".repeat(MAX_STASH)).await?,
            Some("not json") => fiber.set_stash(&BTreeMap::from([((1, 2), 3)])).await?,
            Some("goes on") => {
                fiber.set_stash(&1).await?;
                let refused = fiber.set_stash(&"x".repeat(MAX_STASH)).await;
                assert!(
                    matches!(refused, Err(Stop::Failed(failure)) if failure.code == "fiber_too_large")
                );
                assert_eq!(fiber.stash(), Some(&json!(1)));
            }
            Some("wait") => std::future::pending().await,
            Some("interrupt") => {
                if fiber.stash().is_none() {
                    fiber.set_stash(&1).await?;
                    return Err(Stop::Interrupted {
                        reason: "nobody knows".into(),
                        within: RESOLVE_WITHIN,
                    });
                }
                return Ok(fiber.stash().cloned().into());
            }
            _ => return Err(Failure::new("odd", "it is odd", "").into()),
        }
        Ok(Value::Null)
    }
}

fn start(store: Arc<dyn Store>, steps: &Arc<Steps>) -> (Runtime, Fibers) {
    let handlers = Handlers::new([
        ("steps".to_owned(), steps.clone() as Arc<dyn Handler>),
        (
            "odd".to_owned(),
            Arc::new(Odd::default()) as Arc<dyn Handler>,
        ),
    ]);
    let runtime = Runtime::new(
        store,
        clock::sources(1),
        RuntimeOptions::default(),
        [handlers.program()],
    );
    let fibers = handlers.on(&runtime);
    (runtime, fibers)
}

fn new(input: impl Into<Value>) -> NewFiber {
    NewFiber {
        input: input.into(),
        ..NewFiber::default()
    }
}

fn keyed(input: impl Into<Value>, key: &str) -> NewFiber {
    NewFiber {
        key: Some(key.to_owned()),
        ..new(input)
    }
}

#[tokio::test(start_paused = true)]
async fn a_fiber_dies_at_each_of_its_commits_and_no_stashed_step_is_done_again() {
    for number in 1..=7 {
        for death in [Death::Before(number), Death::After(number)] {
            let store = Arc::new(MemoryStore::new());
            let steps = Arc::new(Steps::default());
            let dying = DyingStore::new(store.clone(), death);
            let (_first, fibers) = start(dying.clone(), &steps);
            let _ = fibers.run("steps", keyed(5, "k")).await;
            assert!(dying.is_dead());
            let (next, fibers) = start(store.clone(), &steps);
            next.resume().await.unwrap();
            let result = fibers.run("steps", keyed(5, "k")).await.unwrap();
            assert_eq!(result, json!({ "steps": 5 }));
            let mut done = steps.done.lock().unwrap().clone();
            // The step whose stash did not become durable is the only one that may be done twice.
            if let Death::Before(number @ 2..=6) = death {
                let at = done.iter().rposition(|step| *step == number - 2).unwrap();
                done.remove(at);
            }
            assert_eq!(done, [0, 1, 2, 3, 4], "{death:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovered_fiber_is_told_its_last_stash_and_why() {
    let store = Arc::new(MemoryStore::new());
    let steps = Arc::new(Steps {
        pause: MINUTE,
        ..Steps::default()
    });
    let (runtime, fibers) = start(store.clone(), &steps);
    let started = fibers.start("steps", new(4)).await.unwrap();
    tokio::time::sleep(MINUTE * 2 + MINUTE / 2).await;
    assert!(runtime.drain(MINUTE).await);
    let (next, fibers) = start(store, &steps);
    assert_eq!(next.resume().await.unwrap(), 1);
    let ended = fibers.wait("steps", &started.fiber_id).await.unwrap();
    assert_eq!(
        (ended.status, ended.stash),
        (Status::Completed, Some(json!(4)))
    );
    let recovered = steps.recovered.lock().unwrap();
    assert_eq!(
        (recovered.len(), &recovered[0].stash, recovered[0].attempt),
        (1, &Some(json!(2)), 1)
    );
    assert_eq!(*steps.done.lock().unwrap(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_key_starts_one_fiber_and_another_input_is_a_conflict() {
    let (_runtime, fibers) = start(Arc::new(MemoryStore::new()), &Arc::default());
    let metadata = json!({ "order": 7 });
    let first = NewFiber {
        metadata: metadata.clone(),
        ..keyed(1, "k")
    };
    let started = fibers.start("steps", first.clone()).await.unwrap();
    let again = fibers.start("steps", first).await.unwrap();
    assert!(started.accepted && !again.accepted);
    assert_eq!(started.fiber_id, again.fiber_id);
    let conflict = fibers.start("steps", keyed(2, "k")).await;
    assert!(
        matches!(conflict, Err(RuntimeError::SubmissionConflict)),
        "{conflict:?}"
    );
    let ended = fibers.wait("steps", &started.fiber_id).await.unwrap();
    assert_eq!(
        (ended.metadata, ended.result),
        (metadata, Some(json!({ "steps": 1 })))
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_fiber_ends_as_aborted_and_stays_so() {
    let store = Arc::new(MemoryStore::new());
    let steps = Arc::new(Steps {
        pause: MINUTE,
        ..Steps::default()
    });
    let (_runtime, fibers) = start(store.clone(), &steps);
    let started = fibers.start("steps", new(3)).await.unwrap();
    tokio::time::sleep(MINUTE + MINUTE / 2).await;
    assert!(fibers.cancel("steps", &started.fiber_id).await.unwrap());
    let ended = fibers.wait("steps", &started.fiber_id).await.unwrap();
    assert_eq!(
        (ended.status, ended.stash, ended.result),
        (Status::Aborted, Some(json!(1)), None)
    );
    tokio::time::sleep(MINUTE * 10).await;
    assert!(!fibers.cancel("steps", &started.fiber_id).await.unwrap());
    let later = fibers
        .inspect("steps", &started.fiber_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(later.status, Status::Aborted);
    assert_eq!(*steps.done.lock().unwrap(), [0]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_a_typed_error_and_the_last_stash_stays() {
    let (_runtime, fibers) = start(Arc::new(MemoryStore::new()), &Arc::default());
    for (input, code) in [
        ("too large", "fiber_too_large"),
        ("not json", "fiber_not_json"),
        ("else", "odd"),
    ] {
        assert_eq!(
            fibers.run("odd", new(input)).await.unwrap_err().code(),
            code
        );
    }
    assert_eq!(
        fibers.run("odd", new("goes on")).await.unwrap(),
        Value::Null
    );
    assert_eq!(
        fibers.start("nothing", new(1)).await.unwrap_err().code(),
        "fiber_unknown"
    );
    assert_eq!(
        fibers.start("odd", keyed(1, "")).await.unwrap_err().code(),
        "invalid_key"
    );
    assert_eq!(
        fibers.wait("odd", "fib_nobody").await.unwrap_err().code(),
        "fiber_not_found"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fiber_whose_handler_is_gone_fails_and_is_not_dropped() {
    let store = Arc::new(MemoryStore::new());
    let (runtime, fibers) = start(store.clone(), &Arc::default());
    let started = fibers.start("odd", new("wait")).await.unwrap();
    assert!(runtime.drain(MINUTE).await);
    let handlers = Handlers::new([]);
    let next = Runtime::new(
        store,
        clock::sources(2),
        RuntimeOptions::default(),
        [handlers.program()],
    );
    next.resume().await.unwrap();
    let ended = handlers
        .on(&next)
        .wait("odd", &started.fiber_id)
        .await
        .unwrap();
    assert_eq!(
        ended.error.map(|error| error.code),
        Some("fiber_unknown".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn fibers_are_listed_in_pages_and_deleted_when_they_ended() {
    let (_runtime, fibers) = start(Arc::new(MemoryStore::new()), &Arc::default());
    for _ in 0..5 {
        fibers.run("steps", new(1)).await.unwrap();
    }
    let open = fibers.start("odd", new("wait")).await.unwrap().fiber_id;
    let first = fibers.list("steps", None, None, 3).await.unwrap();
    let second = fibers
        .list("steps", None, first.next.as_deref(), 3)
        .await
        .unwrap();
    assert_eq!(
        (first.fibers.len(), second.fibers.len(), second.next),
        (3, 2, None)
    );
    assert!(
        fibers
            .list("steps", Some(Status::Failed), None, 100)
            .await
            .unwrap()
            .fibers
            .is_empty()
    );
    assert_eq!(
        fibers
            .list("odd", Some(Status::Running), None, 100)
            .await
            .unwrap()
            .fibers
            .len(),
        1
    );

    assert_eq!(
        fibers.delete("odd", &open).await.unwrap_err().code(),
        "fiber_not_settled"
    );
    let gone = &first.fibers[0].fiber_id;
    fibers.delete("steps", gone).await.unwrap();
    assert_eq!(fibers.inspect("steps", gone).await.unwrap(), None);
    assert_eq!(
        fibers.delete("steps", gone).await.unwrap_err().code(),
        "fiber_not_found"
    );
    assert_eq!(
        fibers
            .list("steps", None, None, 100)
            .await
            .unwrap()
            .fibers
            .len(),
        4
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_key_starts_a_new_fiber() {
    let steps = Arc::new(Steps::default());
    let (_runtime, fibers) = start(Arc::new(MemoryStore::new()), &steps);
    for _ in 0..2 {
        fibers.run("steps", keyed(1, "k")).await.unwrap();
        let id = fibers.list("steps", None, None, 1).await.unwrap().fibers[0]
            .fiber_id
            .clone();
        fibers.delete("steps", &id).await.unwrap();
    }
    assert_eq!(*steps.done.lock().unwrap(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_fiber_waits_for_a_decision_and_fails_without_one() {
    let store = Arc::new(MemoryStore::new());
    let (first, fibers) = start(store.clone(), &Arc::default());
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(
            fibers
                .start("odd", new("interrupt"))
                .await
                .unwrap()
                .fiber_id,
        );
    }
    tokio::time::sleep(MINUTE).await;
    let waiting = fibers
        .list("odd", Some(Status::Interrupted), None, 100)
        .await
        .unwrap();
    assert_eq!(waiting.fibers.len(), 6);
    assert_eq!(
        waiting.fibers[0].interrupted.as_deref(),
        Some("nobody knows")
    );
    assert!(first.drain(MINUTE).await);

    // Another process, hours later.
    tokio::time::sleep(MINUTE * 60 * 20).await;
    let (runtime, fibers) = start(store, &Arc::default());
    let resume = |stash: Option<Value>| Resolution::Resume { stash };
    let error = Failure::new("odd", "it did not happen", "");
    let decisions = [
        Resolution::Completed { result: json!(7) },
        Resolution::Failed { error },
        resume(None),
        resume(Some(json!(2))),
    ];
    let large = Resolution::Completed {
        result: json!("x".repeat(MAX_STASH)),
    };
    let refused = fibers.resolve("odd", &ids[0], &large).await;
    assert_eq!(refused.unwrap_err().code(), "fiber_too_large");
    for (id, decision) in ids.iter().zip(&decisions) {
        fibers.resolve("odd", id, decision).await.unwrap();
    }
    assert!(fibers.cancel("odd", &ids[4]).await.unwrap());
    let mut ends = Vec::new();
    for id in &ids[..5] {
        let ended = fibers.wait("odd", id).await.unwrap();
        ends.push((ended.status, ended.result));
        let late = fibers.resolve("odd", id, &decisions[0]).await;
        assert_eq!(late.unwrap_err().code(), "fiber_not_interrupted");
    }
    assert_eq!(
        ends,
        [
            (Status::Completed, Some(json!(7))),
            (Status::Failed, None),
            (Status::Completed, Some(json!(1))),
            (Status::Completed, Some(json!(2))),
            (Status::Aborted, None),
        ]
    );
    let stop = CancellationToken::new();
    let (supervised, stopped) = (runtime.clone(), stop.clone());
    tokio::spawn(async move { supervised.supervise(stopped).await });
    let ended = fibers.wait("odd", &ids[5]).await.unwrap();
    assert_eq!(ended.error.unwrap().code, "fiber_unresolved");
    let unknown = fibers.resolve("odd", "fib_nobody", &decisions[0]).await;
    assert_eq!(unknown.unwrap_err().code(), "fiber_not_found");

    // Housekeeping is by status and age, and bounded.
    let now = runtime.sources().now();
    let done = [Status::Completed, Status::Aborted];
    let before = |millis| bowline_store::Timestamp::from_millis(now.as_millis() - millis);
    let old = fibers.delete_settled("odd", &done, before(86_400_000), 100);
    assert_eq!(old.await.unwrap(), 0);
    let later = now.after(MINUTE);
    for expected in [3, 1, 0] {
        let deleted = fibers.delete_settled("odd", &done, later, 3).await;
        assert_eq!(deleted.unwrap(), expected);
    }
    let left = fibers.list("odd", None, None, 100).await.unwrap();
    assert_eq!(left.fibers.len(), 2, "those that failed are kept");
}

/// Commits take a while.
#[derive(Debug)]
struct Slow(Duration);

#[async_trait]
impl Fault for Slow {
    fn is_dead(&self) -> bool {
        false
    }

    async fn commit(&self, inner: &dyn Store, batch: Batch) -> Result<Seq, CommitError> {
        tokio::time::sleep(self.0).await;
        inner.commit(batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_open_goes_on_before_the_start_hook_and_a_long_scan_does_not_hold_it_up() {
    const COUNT: usize = 100;
    // With a slow disk the scan is cut after a while, and the rest goes on beside the hook.
    for (delay, all) in [(Duration::ZERO, true), (MINUTE, false)] {
        let store = Arc::new(MemoryStore::new());
        let (first, fibers) = start(store.clone(), &Arc::default());
        for _ in 0..COUNT {
            fibers.start("odd", new("wait")).await.unwrap();
        }
        assert!(first.drain(MINUTE).await);
        let attempts = async || {
            let actors = store.actors(KIND, None, None, COUNT).await.unwrap();
            let mut begun = 0;
            for actor in actors {
                let records = store.read(&actor, 0, 100).await.unwrap();
                let is = |one: &&StoredRecord| one.record.kind == kind::ATTEMPT_STARTED;
                begun += records.iter().filter(is).count();
            }
            begun
        };
        assert_eq!(attempts().await, COUNT);
        let (runtime, _) = start(Faulty::with(store.clone(), Slow(delay)), &Arc::default());
        let stop = CancellationToken::new();
        let (hooked, hook) = tokio::sync::oneshot::channel();
        let running = {
            let (runtime, stop) = (runtime.clone(), stop.clone());
            let hook = move |_| async move { hooked.send(()).unwrap() };
            tokio::spawn(async move { runtime.run(stop, hook).await })
        };
        hook.await.unwrap();
        assert_eq!(attempts().await, if all { COUNT * 2 } else { COUNT });
        tokio::time::sleep(MINUTE * 20).await;
        assert_eq!(attempts().await, COUNT * 2);
        stop.cancel();
        running.await.unwrap();
    }
}

/// `cargo test -p bowline-runtime --test it fibers::figures -- --ignored --nocapture`
#[test]
#[ignore = "prints figures"]
fn figures() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        for steps in [0, 10] {
            const COUNT: u32 = 5_000;
            let (_runtime, fibers) = start(Arc::new(MemoryStore::new()), &Arc::default());
            let began = std::time::Instant::now();
            for _ in 0..COUNT {
                fibers.run("steps", new(steps)).await.unwrap();
            }
            println!(
                "a fiber with {steps} stashes: {:?} on one thread",
                began.elapsed() / COUNT
            );
        }
    });
}
