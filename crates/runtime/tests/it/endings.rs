//! Aborts, deadlines, panics and exhausted attempts.

use std::time::Duration;

use bowline_runtime::{Bounds, Outcome, kind};
use bowline_testkit::sim::program::{CLOSED, End, Plan};

use crate::{HOUR, MINUTE, Stage, actor, failed_with, settle, submit};

#[tokio::test(start_paused = true)]
async fn a_running_and_a_waiting_submission_can_be_aborted_by_themselves() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let running = submit(&runtime, &actor, &Plan::ending(1, End::Hold)).await;
    let waiting = submit(&runtime, &actor, &Plan::steps(1)).await;
    let last = submit(&runtime, &actor, &Plan::steps(1)).await;
    assert!(
        runtime
            .abort(&actor, Some(&waiting.submission_id))
            .await
            .unwrap()
    );
    assert!(
        runtime
            .abort(&actor, Some(&running.submission_id))
            .await
            .unwrap()
    );
    for (receipt, outcome) in [
        (&running, Outcome::Aborted),
        (&waiting, Outcome::Aborted),
        (&last, Outcome::Completed),
    ] {
        let settled = settle(&runtime, &actor, receipt).await;
        assert_eq!(settled.outcome, outcome);
        let aborted = settled
            .error
            .is_some_and(|error| error.code == "submission_aborted");
        assert_eq!(aborted, outcome == Outcome::Aborted);
    }
    assert_eq!(
        stage.attempted(&actor).await,
        [running.submission_id.clone(), last.submission_id]
    );
    assert!(
        !runtime
            .abort(&actor, Some(&running.submission_id))
            .await
            .unwrap(),
        "it has settled"
    );
    assert!(
        !runtime.abort(&actor, None).await.unwrap(),
        "nothing is open"
    );
    assert_eq!(stage.count(&actor, kind::SUBMISSION_SETTLED).await, 3);
}

#[tokio::test(start_paused = true)]
async fn an_abort_of_everything_is_kept_over_a_restart() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let deaf = submit(&runtime, &actor, &Plan::ending(0, End::Deaf)).await;
    let waiting = submit(&runtime, &actor, &Plan::steps(1)).await;
    assert!(runtime.abort(&actor, None).await.unwrap());
    // The attempt does not listen, and the process goes away before it is ended by force.
    let next = stage.start();
    next.resume().await.unwrap();
    assert_eq!(settle(&next, &actor, &deaf).await.outcome, Outcome::Aborted);
    assert_eq!(
        settle(&next, &actor, &waiting).await.outcome,
        Outcome::Aborted
    );
    assert_eq!(stage.executed(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_ignores_cancellation_is_ended_by_force_after_the_grace() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let began = stage.sources.now();
    let deaf = submit(&runtime, &actor, &Plan::ending(1, End::Deaf)).await;
    let behind = submit(&runtime, &actor, &Plan::steps(1)).await;
    let settled = settle(&runtime, &actor, &deaf).await;
    assert!(failed_with(&settled, "submission_timeout"), "{settled:?}");
    let took = settled.settled_at.since(began);
    assert!(
        took >= HOUR + MINUTE && took < HOUR + MINUTE * 2,
        "{took:?}"
    );
    assert_eq!(
        settle(&runtime, &actor, &behind).await.outcome,
        Outcome::Completed
    );
    assert_eq!(stage.count(&actor, CLOSED).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_listens_ends_at_its_deadline() {
    let bounds = Bounds {
        wall: MINUTE,
        ..Bounds::default()
    };
    let (stage, actor) = (
        Stage {
            bounds,
            ..Stage::new()
        },
        actor("a"),
    );
    let runtime = stage.start();
    let began = stage.sources.now();
    let held = submit(&runtime, &actor, &Plan::ending(1, End::Hold)).await;
    let settled = settle(&runtime, &actor, &held).await;
    assert!(failed_with(&settled, "submission_timeout"), "{settled:?}");
    assert!(settled.settled_at.since(began) < MINUTE * 2);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_never_empties_does_not_put_off_a_deadline() {
    let bounds = Bounds {
        wall: MINUTE,
        ..Bounds::default()
    };
    let (stage, actor) = (
        Stage {
            bounds,
            ..Stage::new()
        },
        actor("a"),
    );
    let runtime = stage.start();
    let deaf = submit(&runtime, &actor, &Plan::ending(0, End::Deaf)).await;
    let mut knocking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (runtime, actor) = (runtime.clone(), actor.clone());
        knocking.spawn(async move {
            loop {
                runtime.wake(&actor).await.unwrap();
                tokio::time::advance(Duration::from_millis(10)).await;
            }
        });
    }
    let settled = settle(&runtime, &actor, &deaf).await;
    assert!(failed_with(&settled, "submission_timeout"), "{settled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_attempt_is_followed_by_another_until_they_are_exhausted() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let once = submit(&runtime, &actor, &Plan::ending(2, End::PanicOnce)).await;
    let always = submit(&runtime, &actor, &Plan::ending(2, End::Panic)).await;
    let behind = submit(&runtime, &actor, &Plan::steps(1)).await;
    assert_eq!(
        settle(&runtime, &actor, &once).await.outcome,
        Outcome::Completed
    );
    let settled = settle(&runtime, &actor, &always).await;
    assert!(
        failed_with(&settled, "submission_retry_exhausted"),
        "{settled:?}"
    );
    assert_eq!(
        settle(&runtime, &actor, &behind).await.outcome,
        Outcome::Completed
    );
    assert_eq!(stage.executed(), 5, "no finished step again");
    assert_eq!(stage.count(&actor, kind::ATTEMPT_STARTED).await, 2 + 10 + 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_die_with_their_process_are_counted_too() {
    let bounds = Bounds {
        attempts: 3,
        ..Bounds::default()
    };
    let (stage, actor) = (
        Stage {
            bounds,
            ..Stage::new()
        },
        actor("a"),
    );
    let mut processes = vec![stage.start()];
    let held = submit(&processes[0], &actor, &Plan::ending(1, End::Hold)).await;
    for _ in 0..3 {
        let next = stage.start();
        next.resume().await.unwrap();
        crate::rest().await;
        processes.push(next);
    }
    let settled = settle(&processes[3], &actor, &held).await;
    assert!(
        failed_with(&settled, "submission_retry_exhausted"),
        "{settled:?}"
    );
    assert_eq!(stage.count(&actor, kind::ATTEMPT_STARTED).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_wait_for_an_attempt_that_ignores_it_and_nothing_of_that_lands() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    submit(&runtime, &actor, &Plan::ending(1, End::Deaf)).await;
    tokio::time::sleep(MINUTE).await;
    let began = stage.sources.now();
    runtime.purge(&actor).await.unwrap();
    assert!(stage.sources.now().since(began) <= MINUTE * 2);
    tokio::time::sleep(HOUR * 2).await;
    assert!(stage.records(&actor).await.is_empty());
    let receipt = submit(&runtime, &actor, &Plan::steps(1)).await;
    let settled = settle(&runtime, &actor, &receipt).await;
    assert_eq!(settled.outcome, Outcome::Completed);
}
