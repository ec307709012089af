//! What is refused, and that the actor goes on.

use bowline_runtime::{NewSubmission, Outcome, RuntimeError};
use bowline_store::{ActorId, CommitError};
use bowline_testkit::sim::program::{End, Plan};

use crate::{Stage, actor, keyed, new, settle, submit};

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
    let payload = serde_json::Value::String("x".repeat(2 << 20));
    let refused = runtime
        .submit(
            &actor,
            NewSubmission {
                payload,
                key: None,
                blobs: Vec::new(),
            },
        )
        .await;
    assert!(
        matches!(refused, Err(RuntimeError::Commit(CommitError::Invalid(_)))),
        "{refused:?}"
    );
    crate::rest().await;
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
