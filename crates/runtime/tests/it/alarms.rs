//! Schedules and the supervisor that wakes what is due.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bowline_runtime::{
    Failure, Instance, Outcome, Program, Runtime, RuntimeOptions,
    alarm::{self, Missed, NewSchedule, Overlap, Retry, When},
    kind,
};
use bowline_store::{ActorId, Store, Timestamp, Wake};
use bowline_testkit::sim::{
    journal::Event,
    program::{End, Plan, Planned},
};
use tokio_util::sync::CancellationToken;

use crate::{HOUR, MINUTE, Stage, actor, settle, submit};

fn supervise(runtime: &Runtime) -> CancellationToken {
    let stop = CancellationToken::new();
    let (runtime, stopped) = (runtime.clone(), stop.clone());
    tokio::spawn(async move { runtime.supervise(stopped).await });
    stop
}

fn every(period: Duration, plan: &Plan) -> NewSchedule {
    let millis = u64::try_from(period.as_millis()).unwrap();
    NewSchedule::new(When::Every { millis }, plan.payload())
}

fn after(delay: Duration, plan: &Plan) -> NewSchedule {
    let millis = u64::try_from(delay.as_millis()).unwrap();
    NewSchedule::new(When::After { millis }, plan.payload())
}

fn cron(expression: &str, zone: &str) -> When {
    When::Cron {
        expression: expression.into(),
        zone: zone.into(),
    }
}

impl Stage {
    async fn settled(&self, actor: &ActorId) -> usize {
        self.count(actor, kind::SUBMISSION_SETTLED).await
    }

    async fn wake(&self, actor: &ActorId) -> Option<bowline_store::Timestamp> {
        self.store.head(actor).await.unwrap().unwrap().wake
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_fires_in_a_sleeping_actor_and_the_wake_is_always_that_of_the_rows() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    supervise(&runtime);
    let began = stage.sources.now();
    runtime
        .schedule(&actor, after(HOUR, &Plan::steps(1)))
        .await
        .unwrap();
    let daily = runtime
        .schedule(&actor, every(HOUR * 24, &Plan::steps(1)))
        .await
        .unwrap();
    assert_eq!(stage.wake(&actor).await, Some(began.after(HOUR)));
    tokio::time::sleep(HOUR + MINUTE * 5).await;
    assert_eq!(stage.settled(&actor).await, 1);
    assert_eq!(stage.wake(&actor).await, Some(daily.next));
    tokio::time::sleep(HOUR * 24 * 3).await;
    assert_eq!(stage.settled(&actor).await, 4);
    assert!(runtime.cancel_schedule(&actor, &daily.id).await.unwrap());
    assert!(!runtime.cancel_schedule(&actor, &daily.id).await.unwrap());
    assert_eq!(stage.wake(&actor).await, None);
    assert_eq!(alarm::list(&*stage.store, &actor).await.unwrap(), []);
}

/// Takes a moment to open an actor, and counts how many are being opened.
#[derive(Debug)]
struct Counting {
    planned: Arc<Planned>,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Program for Counting {
    async fn open(
        &self,
        actor: &ActorId,
        store: &Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.planned.open(actor, store).await
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_timers_fire_once_each_in_order_a_few_at_a_time_and_nothing_happens_before() {
    let stage = Stage {
        options: RuntimeOptions {
            idle: Duration::ZERO,
            ..RuntimeOptions::default()
        },
        ..Stage::new()
    };
    let counting = Arc::new(Counting {
        planned: Planned::new(stage.journal.clone()),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let start = || {
        let program: Arc<dyn Program> = counting.clone();
        let programs = [("planned".to_owned(), program)];
        let options = stage.options.clone();
        Runtime::new(
            stage.store.clone(),
            stage.sources.clone(),
            options,
            programs,
        )
    };
    let first = start();
    const COUNT: u32 = 10_000;
    for number in 0..COUNT {
        // Registered in another order than that of their times.
        let place = number * 7_919 % COUNT;
        let due = HOUR + Duration::from_millis(place.into());
        first
            .schedule(&actor(&format!("{place:05}")), after(due, &Plan::steps(1)))
            .await
            .unwrap();
    }
    crate::rest().await;
    let next = start();
    let stop = supervise(&next);
    let before = stage.store.metrics().batches;
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(
        stage.store.metrics().batches,
        before,
        "sleeping actors cost nothing"
    );
    // No process runs while they become due, so that they are all due at once.
    stop.cancel();
    assert!(next.drain(MINUTE).await);
    tokio::time::sleep(HOUR).await;
    let last = start();
    supervise(&last);
    tokio::time::sleep(MINUTE).await;
    let executed = stage
        .journal
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Executed { actor, .. } => Some(actor.key().to_owned()),
            _ => None,
        });
    let executed: Vec<_> = executed.collect();
    assert_eq!(executed.len(), COUNT as usize);
    assert_eq!(
        executed.iter().collect::<BTreeSet<_>>().len(),
        COUNT as usize
    );
    assert!(executed.is_sorted(), "in the order of their times");
    let most = counting.most.load(Ordering::SeqCst);
    assert!((2..=64).contains(&most), "{most} were woken at once");
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_failed_is_sent_again_as_often_as_its_schedule_says() {
    let retry = Retry {
        attempts: 3,
        base_millis: 1_000,
        max_millis: 60_000,
    };
    let failing = Plan::ending(1, End::Fail);
    // Once, again and again, without retries, and one that completes.
    for (schedule, expected) in [
        (after(MINUTE, &failing).retrying(retry), 3),
        (every(HOUR, &failing).retrying(retry), 6),
        (every(HOUR, &failing), 2),
        (every(HOUR, &Plan::steps(1)).retrying(retry), 2),
    ] {
        let (stage, actor) = (Stage::new(), actor("a"));
        let first = stage.start();
        let stop = supervise(&first);
        first.schedule(&actor, schedule.clone()).await.unwrap();
        tokio::time::sleep(HOUR + Duration::from_millis(10)).await;
        // The process ends while the next try is due.
        stop.cancel();
        assert!(first.drain(MINUTE).await);
        let next = stage.start();
        supervise(&next);
        tokio::time::sleep(HOUR + MINUTE * 5).await;
        assert_eq!(stage.settled(&actor).await, expected, "{schedule:?}");
        let left = alarm::list(&*stage.store, &actor).await.unwrap();
        let once = matches!(schedule.when, When::After { .. });
        assert_eq!(left.is_empty(), once, "{left:?}");
    }
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    for (attempts, base_millis) in [(0, 1), (101, 1), (3, 0), (3, 60_001)] {
        let wrong = Retry {
            attempts,
            base_millis,
            ..retry
        };
        let refused = runtime.schedule(&actor, every(HOUR, &failing).retrying(wrong));
        assert_eq!(refused.await.unwrap_err().code(), "schedule_invalid");
    }
}

#[tokio::test(start_paused = true)]
async fn missed_ticks_are_one_submission_or_each_as_the_schedule_says() {
    for (missed, expected) in [(Missed::Skip, 1), (Missed::CatchUp, 5)] {
        let (stage, actor) = (Stage::new(), actor("a"));
        let first = stage.start();
        let schedule = NewSchedule {
            missed,
            overlap: Overlap::Queue,
            ..every(HOUR, &Plan::steps(1))
        };
        first.schedule(&actor, schedule).await.unwrap();
        assert!(first.drain(MINUTE).await);
        tokio::time::sleep(HOUR * 5 + MINUTE).await;
        let next = stage.start();
        supervise(&next);
        tokio::time::sleep(MINUTE).await;
        assert_eq!(stage.settled(&actor).await, expected, "{missed:?}");
        tokio::time::sleep(HOUR).await;
        assert_eq!(
            stage.settled(&actor).await,
            expected + 1,
            "the rhythm is kept"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_meets_the_one_before_is_left_out_or_waits() {
    for (overlap, expected) in [(Overlap::Skip, 1), (Overlap::Queue, 3)] {
        let (stage, actor) = (Stage::new(), actor("a"));
        let runtime = stage.start();
        supervise(&runtime);
        let slow = Plan::steps(1).pausing(MINUTE * 50);
        let schedule = NewSchedule {
            overlap,
            ..every(MINUTE * 10, &slow)
        };
        let schedule = runtime.schedule(&actor, schedule).await.unwrap();
        tokio::time::sleep(MINUTE * 35).await;
        runtime.cancel_schedule(&actor, &schedule.id).await.unwrap();
        tokio::time::sleep(HOUR * 4).await;
        assert_eq!(stage.settled(&actor).await, expected, "{overlap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn registering_the_same_again_changes_nothing_and_another_replaces_it() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let first = after(HOUR, &Plan::steps(1)).named("reminder");
    let registered = runtime.schedule(&actor, first.clone()).await.unwrap();
    tokio::time::sleep(MINUTE * 10).await;
    assert_eq!(runtime.schedule(&actor, first).await.unwrap(), registered);
    let other = after(HOUR, &Plan::steps(2)).named("reminder");
    let replaced = runtime.schedule(&actor, other).await.unwrap();
    assert_eq!(replaced.next, registered.next.after(MINUTE * 10));
    assert_eq!(
        alarm::list(&*stage.store, &actor).await.unwrap(),
        [replaced]
    );
}

#[tokio::test(start_paused = true)]
async fn a_daily_tick_comes_once_on_days_when_the_clock_changes() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let wait_until = async |time: &str| {
        let time = Timestamp::parse(time).unwrap();
        let left = time.as_millis() - stage.sources.now().as_millis();
        tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap())).await;
    };
    for (from, ticks) in [
        (
            "2026-03-28T00:00:00Z",
            &[
                "2026-03-28T01:30:00.000Z",
                "2026-03-29T01:00:00.000Z",
                "2026-03-30T00:30:00.000Z",
            ][..],
        ),
        (
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"],
        ),
    ] {
        wait_until(from).await;
        for tick in ticks {
            let when = cron("30 2 * * *", "Europe/Berlin");
            let new = NewSchedule::new(when, Plan::steps(0).payload());
            let schedule = runtime.schedule(&actor, new).await.unwrap();
            assert_eq!(schedule.next.to_string(), *tick);
            runtime.cancel_schedule(&actor, &schedule.id).await.unwrap();
            wait_until(tick).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_refused_leaves_the_actor_usable() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let plan = Plan::steps(0);
    let held = submit(&runtime, &actor, &Plan::ending(0, End::Hold)).await;
    let past = When::At {
        time: stage.sources.now(),
    };
    for (when, code) in [
        (cron("every day", "UTC"), "schedule_invalid"),
        (cron("61 * * * *", "UTC"), "schedule_invalid"),
        (cron("", "UTC"), "schedule_invalid"),
        (cron("0 0 30 2 *", "UTC"), "schedule_invalid"),
        (cron("0 9 * * *", "Mars/Olympus"), "schedule_invalid"),
        (When::Every { millis: 999 }, "schedule_invalid"),
        (When::After { millis: u64::MAX }, "schedule_invalid"),
        (past, "schedule_past"),
    ] {
        let refused = runtime
            .schedule(&actor, NewSchedule::new(when, plan.payload()))
            .await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
    let unnamed = runtime.schedule(&actor, after(HOUR, &plan).named("")).await;
    assert_eq!(unnamed.unwrap_err().code(), "schedule_invalid");
    for number in 0..alarm::MAX_SCHEDULES {
        runtime
            .schedule(&actor, after(HOUR, &plan).named(format!("{number}")))
            .await
            .unwrap();
    }
    let further = runtime.schedule(&actor, after(HOUR, &plan)).await;
    assert_eq!(further.unwrap_err().code(), "schedule_limit");
    runtime.abort(&actor, None).await.unwrap();
    assert_eq!(
        settle(&runtime, &actor, &held).await.outcome,
        Outcome::Aborted
    );
}

#[tokio::test(start_paused = true)]
async fn the_supervisor_resumes_what_was_open_and_is_not_held_up_by_what_cannot_wake() {
    let stage = Stage::new();
    let mut stranger = bowline_store::Batch::new(ActorId::new("stranger", "test", "a"), 0, 0);
    stranger.wake = Wake::At(stage.sources.now());
    stage.store.commit(stranger).await.unwrap();
    let first = stage.start();
    let mut receipts = Vec::new();
    for number in 0..300 {
        let actor = actor(&format!("{number}"));
        receipts.push((
            submit(&first, &actor, &Plan::steps(2).pausing(MINUTE)).await,
            actor,
        ));
    }
    assert!(first.drain(MINUTE).await);
    let next = stage.start();
    supervise(&next);
    tokio::time::sleep(MINUTE * 3).await;
    for (_, actor) in &receipts {
        assert_eq!(stage.settled(actor).await, 1);
    }
    assert_eq!(stage.executed(), 600);
}
