//! Parked runs, and what happens around them.

use bowline_runtime::{Outcome, kind, submission};
use bowline_store::Store;
use bowline_testkit::sim::program::{End, Plan};

use crate::{HOUR, MINUTE, Stage, actor, failed_with, keyed, new, settle, submit};

#[tokio::test(start_paused = true)]
async fn waiting_for_a_parked_run_keeps_no_actor_awake_and_hears_of_its_end() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let parked = submit(&runtime, &actor, &Plan::ending(1, End::Park)).await;
    let waiting = {
        let (runtime, actor, id) = (runtime.clone(), actor.clone(), parked.submission_id.clone());
        tokio::spawn(async move { runtime.settled(&actor, &id).await })
    };
    tokio::time::sleep(HOUR).await;
    let before = stage.store.head(&actor).await.unwrap().unwrap();
    runtime.answer(&actor, 1.into()).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().outcome, Outcome::Completed);
    let after = stage.store.head(&actor).await.unwrap().unwrap();
    assert_eq!(after.epoch, before.epoch + 1, "it slept meanwhile");
    assert_eq!(stage.executed(), 1, "no step again");
}

#[tokio::test(start_paused = true)]
async fn what_is_aborted_behind_a_parked_run_settles_at_once() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let parked = submit(&runtime, &actor, &Plan::ending(0, End::Park)).await;
    let behind = submit(&runtime, &actor, &Plan::steps(1)).await;
    let last = submit(&runtime, &actor, &Plan::steps(1)).await;
    let aborted = runtime.abort(&actor, Some(&behind.submission_id)).await;
    assert!(aborted.unwrap());
    let settled = submission::settled(&*stage.store, &actor, &behind.submission_id).await;
    assert_eq!(settled.unwrap().unwrap().outcome, Outcome::Aborted);
    let open = submission::open(&*stage.store, &actor).await.unwrap();
    assert_eq!(open.len(), 2, "the parked one and the last one stay");
    let until = match open[0].state {
        submission::State::Parked { until, .. } => until,
        ref other => panic!("{other:?}"),
    };
    let head = stage.store.head(&actor).await.unwrap().unwrap();
    assert_eq!(head.wake, Some(until), "its next wake is that of its rows");
    runtime.answer(&actor, 1.into()).await.unwrap();
    for receipt in [&parked, &last] {
        let settled = settle(&runtime, &actor, receipt).await;
        assert_eq!(settled.outcome, Outcome::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_steers_withdraws_what_a_parked_run_waits_for_and_others_wait() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let parked = submit(&runtime, &actor, &Plan::ending(0, End::Park)).await;
    let behind = submit(&runtime, &actor, &Plan::steps(0)).await;
    tokio::time::sleep(MINUTE * 10).await;
    assert_eq!(stage.count(&actor, kind::SUBMISSION_SETTLED).await, 0);
    let steered = runtime
        .steer(&actor, keyed(&Plan::steps(0), "k"))
        .await
        .unwrap();
    for receipt in [&parked, &behind, &steered] {
        let settled = settle(&runtime, &actor, receipt).await;
        assert_eq!(settled.outcome, Outcome::Completed);
    }
    assert_eq!(
        stage.attempted(&actor).await,
        [&parked, &behind, &steered].map(|one| one.submission_id.clone()),
        "in the order of their admission"
    );
    // With nothing parked, and again with the same key, it is a plain submission.
    let again = runtime
        .steer(&actor, keyed(&Plan::steps(0), "k"))
        .await
        .unwrap();
    assert!(again.deduplicated);
    let plain = runtime
        .steer(&actor, new(&Plan::ending(0, End::Fail)))
        .await;
    let settled = settle(&runtime, &actor, &plain.unwrap()).await;
    assert!(failed_with(&settled, "planned"));
}
