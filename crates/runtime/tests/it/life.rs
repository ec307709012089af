//! Admission, order, keys, sleep and resumption.

use std::time::Duration;

use bowline_runtime::{Outcome, RuntimeError, RuntimeOptions, kind, submission};
use bowline_store::Store;
use bowline_testkit::{
    faults::{Death, DyingStore},
    sim::program::{End, INPUT, Plan},
};

use crate::{HOUR, MINUTE, Stage, actor, keyed, new, rest, settle, submit};

#[tokio::test(start_paused = true)]
async fn submissions_are_worked_on_in_the_order_of_their_admission() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let mut receipts = Vec::new();
    for _ in 0..5 {
        let plan = Plan::steps(2).pausing(Duration::from_secs(1));
        receipts.push(submit(&runtime, &actor, &plan).await);
    }
    for receipt in &receipts {
        assert_eq!(
            settle(&runtime, &actor, receipt).await.outcome,
            Outcome::Completed
        );
    }
    let admitted: Vec<_> = receipts
        .into_iter()
        .map(|receipt| receipt.submission_id)
        .collect();
    assert_eq!(stage.attempted(&actor).await, admitted);
    assert_eq!(stage.count(&actor, kind::SUBMISSION_SETTLED).await, 5);
    assert!(
        submission::open(&*stage.store, &actor)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_plain_submission_costs_two_commits() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let receipt = submit(&runtime, &actor, &Plan::steps(0)).await;
    settle(&runtime, &actor, &receipt).await;
    assert_eq!(stage.store.metrics().flushes, 2);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_returns_the_first_receipt_while_open_and_when_settled() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let plan = Plan::steps(1).pausing(MINUTE);
    let first = runtime.submit(&actor, keyed(&plan, "k")).await.unwrap();
    let while_open = runtime.submit(&actor, keyed(&plan, "k")).await.unwrap();
    settle(&runtime, &actor, &first).await;
    let next = stage.start();
    let when_settled = next.submit(&actor, keyed(&plan, "k")).await.unwrap();
    assert!(!first.deduplicated && while_open.deduplicated && when_settled.deduplicated);
    assert_eq!(first.submission_id, while_open.submission_id);
    assert_eq!(first.submission_id, when_settled.submission_id);
    assert_eq!(first.accepted_at, when_settled.accepted_at);
    assert_eq!(stage.count(&actor, INPUT).await, 1);

    let other = runtime.submit(&actor, keyed(&Plan::steps(2), "k")).await;
    assert!(
        matches!(other, Err(RuntimeError::SubmissionConflict)),
        "{other:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_joins_the_running_submission_and_settles_with_it() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let host = submit(&runtime, &actor, &Plan::steps(2).pausing(MINUTE).joining()).await;
    let joined = submit(&runtime, &actor, &Plan::ending(0, End::Fail)).await;
    let settled = settle(&runtime, &actor, &joined).await;
    assert_eq!(settled.outcome, Outcome::Completed);
    assert_eq!(
        settled.answered_by_submission_id,
        Some(host.submission_id.clone())
    );
    assert_eq!(
        settle(&runtime, &actor, &host)
            .await
            .answered_by_submission_id,
        None
    );
    assert_eq!(stage.attempted(&actor).await, [host.submission_id]);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_sleeps_at_once_loses_no_message_that_races_its_sleep() {
    for idle in [Duration::ZERO, Duration::from_millis(1)] {
        let stage = Stage {
            options: RuntimeOptions {
                idle,
                ..RuntimeOptions::default()
            },
            ..Stage::new()
        };
        let actor = actor("a");
        let runtime = stage.start();
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..200_u64 {
            let (runtime, actor) = (runtime.clone(), actor.clone());
            clients.spawn(async move {
                tokio::time::sleep(Duration::from_millis(number / 4)).await;
                for _ in 0..number % 7 {
                    tokio::task::yield_now().await;
                }
                let receipt = runtime.submit(&actor, new(&Plan::steps(1))).await.unwrap();
                runtime
                    .settled(&actor, &receipt.submission_id)
                    .await
                    .unwrap()
                    .outcome
            });
        }
        while let Some(outcome) = clients.join_next().await {
            assert_eq!(outcome.unwrap(), Outcome::Completed);
        }
        assert_eq!(stage.count(&actor, kind::SUBMISSION_SETTLED).await, 200);
        assert_eq!(stage.executed(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_actor_leaves_memory_and_comes_back_with_a_new_epoch() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let receipt = submit(&runtime, &actor, &Plan::steps(0)).await;
    settle(&runtime, &actor, &receipt).await;
    let before = stage.store.head(&actor).await.unwrap().unwrap();
    tokio::time::sleep(HOUR).await;
    let receipt = submit(&runtime, &actor, &Plan::steps(0)).await;
    settle(&runtime, &actor, &receipt).await;
    let after = stage.store.head(&actor).await.unwrap().unwrap();
    assert_eq!(after.epoch, before.epoch + 1);
    assert_eq!(after.wake, None);
}

#[tokio::test(start_paused = true)]
async fn a_drained_attempt_is_not_counted_and_goes_on_in_the_next_process() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let receipt = submit(&runtime, &actor, &Plan::steps(3).pausing(MINUTE)).await;
    tokio::time::sleep(MINUTE + MINUTE / 2).await;
    assert!(runtime.drain(MINUTE).await);
    let late = runtime.submit(&actor, new(&Plan::steps(0))).await;
    assert!(matches!(late, Err(RuntimeError::Stopped)), "{late:?}");
    let open = submission::open(&*stage.store, &actor).await.unwrap();
    assert_eq!((open.len(), open[0].attempts), (1, 0));

    let next = stage.start();
    assert_eq!(next.resume().await.unwrap(), 1);
    assert_eq!(
        settle(&next, &actor, &receipt).await.outcome,
        Outcome::Completed
    );
    assert_eq!(stage.executed(), 3, "no finished step again");
}

#[tokio::test(start_paused = true)]
async fn a_submission_survives_death_at_each_of_its_commits() {
    for end in [End::Complete, End::CompleteInTwo] {
        for number in 1..=5 {
            for death in [Death::Before(number), Death::After(number)] {
                let (stage, actor) = (Stage::new(), actor("a"));
                let plan = Plan::ending(2, end);
                let dying = stage.start_on(DyingStore::new(stage.store.clone(), death));
                if let Ok(receipt) = dying.submit(&actor, keyed(&plan, "k")).await {
                    let _ = dying.settled(&actor, &receipt.submission_id).await;
                }
                rest().await;
                let next = stage.start();
                next.resume().await.unwrap();
                let receipt = next.submit(&actor, keyed(&plan, "k")).await.unwrap();
                let settled = settle(&next, &actor, &receipt).await;
                assert_eq!(settled.outcome, Outcome::Completed, "{death:?}");
                assert_eq!(stage.count(&actor, INPUT).await, 1, "{death:?}");
                assert_eq!(
                    stage.count(&actor, kind::SUBMISSION_SETTLED).await,
                    1,
                    "{death:?}"
                );
            }
        }
    }
}
