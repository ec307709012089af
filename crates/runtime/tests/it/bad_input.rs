//! What is refused, and that the actor goes on.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use async_trait::async_trait;
use bowline_runtime::{
    NewState, NewSubmission, Outcome, Program, Runtime, RuntimeError,
    alarm::{NewSchedule, When},
    fiber::{Fiber, Handler, Handlers, MAX_STASH, NewFiber, Resolution, Stop},
    message::REQUEST_WITHIN,
    state::MAX_STATE,
    submission,
};
use bowline_store::{ActorId, BlobId, Store as _, StoredRecord};
use bowline_testkit::sim::program::{End, Plan, Planned, STEP};
use serde_json::{Value, json};

use crate::{Stage, actor, keyed, new, settle, submit};

/// Stashes what cannot be kept, as its input says.
#[derive(Debug)]
struct Stashing;

#[async_trait]
impl Handler for Stashing {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        match fiber.input().as_str() {
            Some("not json") => fiber.set_stash(&BTreeMap::from([((1, 2), 3)])).await?,
            Some("too large") => fiber.set_stash(&"x".repeat(MAX_STASH)).await?,
            Some(_) | None => fiber.set_stash(&1).await?,
        }
        Ok(Value::Null)
    }
}

fn cron(expression: &str, zone: &str) -> When {
    When::Cron {
        expression: expression.into(),
        zone: zone.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn each_bad_input_is_a_typed_error_with_a_page_and_the_actor_stays_usable() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let planned: Arc<dyn Program> = Planned::new(stage.journal.clone());
    let stashing: Arc<dyn Handler> = Arc::new(Stashing);
    let handlers = Handlers::new([("stashing".to_owned(), stashing)]);
    let programs = [("planned".to_owned(), planned), handlers.program()];
    let options = stage.options.clone();
    let runtime = Runtime::new(
        stage.store.clone(),
        stage.sources.clone(),
        options,
        programs,
    );
    let fibers = handlers.on(&runtime);
    let mut refused: Vec<(&str, RuntimeError)> = Vec::new();

    for when in [
        cron("61 * * * *", "UTC"),
        cron("not a cron", "UTC"),
        cron("0 0 30 2 *", "UTC"),
        cron("0 9 * * *", "Mars/Olympus"),
        When::Every { millis: 1 },
        When::After { millis: u64::MAX },
    ] {
        let scheduled = runtime.schedule(&actor, NewSchedule::new(when, Value::Null));
        refused.push(("schedule_invalid", scheduled.await.unwrap_err()));
    }
    let time = stage.sources.now();
    let past = runtime.schedule(&actor, NewSchedule::new(When::At { time }, Value::Null));
    refused.push(("schedule_past", past.await.unwrap_err()));
    for (input, code) in [
        ("not json", "fiber_not_json"),
        ("too large", "fiber_too_large"),
    ] {
        let input = input.into();
        let new = NewFiber {
            input,
            ..NewFiber::default()
        };
        refused.push((code, fibers.run("stashing", new).await.unwrap_err()));
    }
    let unknown = fibers.start("nobody", NewFiber::default()).await;
    refused.push(("fiber_unknown", unknown.unwrap_err()));
    let lost = fibers.wait("stashing", "fib_nobody").await;
    refused.push(("fiber_not_found", lost.unwrap_err()));
    let resume = Resolution::Resume { stash: None };
    let lost = fibers.resolve("stashing", "fib_nobody", &resume).await;
    refused.push(("fiber_not_found", lost.unwrap_err()));
    // The actor is told to ask itself.
    let cyclic = runtime.request(&actor, "a".into(), REQUEST_WITHIN).await;
    refused.push(("request_cyclic", cyclic.unwrap_err()));
    let large = NewState::new(json!("x".repeat(MAX_STATE)));
    let large = runtime.set_state(&actor, large).await;
    refused.push(("state_too_large", large.unwrap_err()));

    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    for (code, error) in &refused {
        assert_eq!(error.code(), *code, "{error}");
        assert!(
            pages.join(format!("{code}.md")).exists(),
            "{code} has a page"
        );
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    // Each of those actors does what it is asked next.
    let later = When::After { millis: 60_000 };
    let scheduled = runtime.schedule(&actor, NewSchedule::new(later, Value::Null));
    scheduled.await.unwrap();
    let reply = runtime.request(&actor, "".into(), REQUEST_WITHIN).await;
    assert_eq!(reply.unwrap(), json!(1));
    runtime
        .set_state(&actor, NewState::new(json!(1)))
        .await
        .unwrap();
    let receipt = submit(&runtime, &actor, &Plan::steps(1)).await;
    let settled = settle(&runtime, &actor, &receipt).await;
    assert_eq!(settled.outcome, Outcome::Completed);
    fibers.run("stashing", NewFiber::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_has_1_to_256_bytes() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    for key in [String::new(), "k".repeat(257)] {
        let refused = runtime.submit(&actor, keyed(&Plan::steps(0), &key)).await;
        assert!(
            matches!(refused, Err(RuntimeError::InvalidKey)),
            "{refused:?}"
        );
    }
    let receipt = runtime
        .submit(&actor, keyed(&Plan::steps(0), &"k".repeat(256)))
        .await
        .unwrap();
    assert_eq!(
        settle(&runtime, &actor, &receipt).await.outcome,
        Outcome::Completed
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let first = submit(&runtime, &actor, &Plan::ending(0, End::Hold)).await;
    for _ in 1..1_000 {
        submit(&runtime, &actor, &Plan::steps(0)).await;
    }
    let refused = runtime.submit(&actor, new(&Plan::steps(0))).await;
    assert!(
        matches!(refused, Err(RuntimeError::QueueFull)),
        "{refused:?}"
    );
    runtime
        .abort(&actor, Some(&first.submission_id))
        .await
        .unwrap();
    settle(&runtime, &actor, &first).await;
    submit(&runtime, &actor, &Plan::steps(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_does_not_disturb_the_running_one() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let held = submit(&runtime, &actor, &Plan::ending(1, End::Hold)).await;
    let payload = serde_json::Value::String("x".repeat(submission::MAX_PAYLOAD));
    let before = stage.records(&actor).await;
    let refused = runtime
        .submit(
            &actor,
            NewSubmission {
                payload,
                key: None,
                blobs: Vec::new(),
                trace: None,
            },
        )
        .await;
    assert!(
        refused
            .as_ref()
            .is_err_and(|error| error.code() == "message_too_large"),
        "{refused:?}"
    );
    crate::rest().await;
    assert_eq!(stage.records(&actor).await, before);
    let open = submission::open(&*stage.store, &actor).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(
        stage.attempted(&actor).await,
        std::slice::from_ref(&held.submission_id)
    );
    assert_eq!(
        stage
            .count(&actor, bowline_runtime::kind::ATTEMPT_STARTED)
            .await,
        1
    );
    runtime.abort(&actor, None).await.unwrap();
    assert_eq!(
        settle(&runtime, &actor, &held).await.outcome,
        Outcome::Aborted
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_submissions_and_kinds_are_named() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let unknown = runtime.settled(&actor, "sub_nobody").await;
    assert_eq!(unknown.unwrap_err().code(), "submission_not_found");
    let stranger = ActorId::new("stranger", "test", "a");
    let refused = runtime.submit(&stranger, new(&Plan::steps(0))).await;
    assert_eq!(refused.unwrap_err().code(), "unknown_actor_kind");
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_cannot_wake_here_does_not_keep_others_asleep() {
    let stage = Stage::new();
    let mut batch = bowline_store::Batch::new(ActorId::new("stranger", "test", "a"), 0, 0);
    batch.wake = bowline_store::Wake::At(stage.sources.now());
    bowline_store::Store::commit(&*stage.store, batch)
        .await
        .unwrap();
    let first = stage.start();
    let receipt = submit(&first, &actor("a"), &Plan::ending(0, End::Hold)).await;
    first.drain(crate::MINUTE).await;
    let next = stage.start();
    assert_eq!(next.resume().await.unwrap(), 1);
    next.abort(&actor("a"), None).await.unwrap();
    assert_eq!(
        settle(&next, &actor("a"), &receipt).await.outcome,
        Outcome::Aborted
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_of_4_mib_waits_through_a_restart_and_leaves_nothing_behind() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let held = submit(&runtime, &actor, &Plan::ending(1, End::Hold)).await;
    let mut large = keyed(&Plan::steps(3), "k");
    large.payload["text"] = "\"".repeat(4 << 20).into();
    let receipt = runtime.submit(&actor, large.clone()).await.unwrap();
    let open = submission::open(&*stage.store, &actor).await.unwrap();
    assert!(open[1].payload == large.payload);
    let blob = BlobId::parse(open[1].payload_blob.as_ref().unwrap()).unwrap();

    let next = stage.start();
    let again = next.submit(&actor, large).await.unwrap();
    assert!(again.deduplicated);
    next.abort(&actor, Some(&held.submission_id)).await.unwrap();
    let settled = settle(&next, &actor, &receipt).await;
    assert_eq!(settled.outcome, Outcome::Completed);
    let records = stage.records(&actor).await;
    let of_it = |one: &&StoredRecord| {
        one.record.kind == STEP && one.record.submission.as_ref() == Some(&settled.submission_id)
    };
    assert_eq!(records.iter().filter(of_it).count(), 3);
    assert_eq!(stage.store.blob(blob).await.unwrap(), None);
}
