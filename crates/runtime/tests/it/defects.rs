//! What went wrong in other systems, and must not happen here.

use std::time::Duration;

use bowline_runtime::{Outcome, alarm, alarm::NewSchedule, alarm::When, kind, submission};
use bowline_testkit::{
    faults::{Death, DyingStore},
    sim::program::{End, INPUT, Plan},
};
use tokio_util::sync::CancellationToken;

use crate::{HOUR, MINUTE, Stage, actor, failed_with, keyed, rest, settle, submit};

/// A lease that somebody dead still holds, or a list of those who are thought to be alive.
#[tokio::test(start_paused = true)]
async fn a_dead_owner_never_keeps_an_actor_from_going_on_at_once() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let plan = Plan::steps(2).pausing(MINUTE);
    let dying = stage.start_on(DyingStore::new(stage.store.clone(), Death::After(2)));
    let receipt = dying.submit(&actor, keyed(&plan, "k")).await.unwrap();
    // It dies with its first step; its tasks are still there, and hold what they hold.
    tokio::time::sleep(MINUTE + Duration::from_secs(1)).await;
    let died = stage.sources.now();
    let next = stage.start();
    next.resume().await.unwrap();
    rest().await;
    assert_eq!(stage.count(&actor, kind::ATTEMPT_STARTED).await, 2);
    assert_eq!(stage.sources.now(), died, "it waited for nothing");
    let settled = settle(&next, &actor, &receipt).await;
    assert_eq!(settled.outcome, Outcome::Completed);
    assert_eq!(stage.executed(), 2);
}

/// The supervisor waits for the very attempt that it supervises, and everything stands still.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_never_freezes_deadlines_timers_or_admission() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let stop = CancellationToken::new();
    let (supervised, stopped) = (runtime.clone(), stop.clone());
    tokio::spawn(async move { supervised.supervise(stopped).await });
    let deaf = submit(&runtime, &actor, &Plan::ending(0, End::Deaf)).await;
    let millis = u64::try_from(MINUTE.as_millis()).unwrap();
    let tick = NewSchedule::new(When::After { millis }, Plan::steps(1).payload());
    runtime.schedule(&actor, tick).await.unwrap();
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(alarm::list(&*stage.store, &actor).await.unwrap(), []);
    let open = submission::open(&*stage.store, &actor).await.unwrap();
    assert_eq!(open.len(), 2, "the tick came while the attempt hung");
    let behind = submit(&runtime, &actor, &Plan::steps(1)).await;
    let settled = settle(&runtime, &actor, &deaf).await;
    assert!(failed_with(&settled, "submission_timeout"));
    let late = settled.settled_at.since(settled.accepted_at);
    assert!(late <= HOUR + MINUTE * 2, "{late:?}");
    let settled = settle(&runtime, &actor, &behind).await;
    assert_eq!(settled.outcome, Outcome::Completed);
}

/// Recovery that writes the same facts again, fails on them, and uses up the attempts that way.
#[tokio::test(start_paused = true)]
async fn recovery_that_is_cut_again_and_again_never_writes_a_fact_twice() {
    for number in 1..=4 {
        let (stage, actor) = (Stage::new(), actor("a"));
        let plan = Plan::ending(3, End::CompleteInTwo);
        let mut deaths = 0;
        let receipt = loop {
            // Each process dies at the same commit of its own.
            let store = DyingStore::new(stage.store.clone(), Death::After(number));
            let process = stage.start_on(store.clone());
            let receipt = process.submit(&actor, keyed(&plan, "k")).await;
            rest().await;
            if !store.is_dead() {
                break receipt.unwrap();
            }
            deaths += 1;
            assert!(deaths < 15, "it never comes to an end");
        };
        assert!(deaths > 0);
        let last = stage.start();
        let settled = settle(&last, &actor, &receipt).await;
        let expected = if number == 1 {
            // It never gets further than to begin, and that is counted.
            Outcome::Failed
        } else {
            Outcome::Completed
        };
        assert_eq!(settled.outcome, expected, "{number}");
        assert_eq!(stage.count(&actor, INPUT).await, 1);
        assert_eq!(stage.count(&actor, kind::SUBMISSION_SETTLED).await, 1);
        let steps = stage
            .count(&actor, bowline_testkit::sim::program::STEP)
            .await;
        assert!(steps <= 3, "{number}: {steps}");
    }
}
