//! The state of an actor, and those who follow it.

use std::sync::Arc;

use bowline_runtime::{
    NewState, RuntimeError,
    state::{self, MAX_STATE, Source},
};
use bowline_store::{SqliteOptions, SqliteStore, Store};
use bowline_testkit::{
    faults::{Death, DyingStore},
    sim::program::{End, Plan},
};
use serde_json::{Value, json};

use crate::{MINUTE, Stage, actor, settle, submit};

#[tokio::test]
async fn a_follower_sees_what_is_current_then_each_change_without_gaps_and_doubles() {
    // On disk, with real threads: followers begin in the middle of the changes.
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
    let stage = Stage::new();
    let runtime = stage.start_on(store.clone());
    const CHANGES: u64 = 200;
    let mut followers = tokio::task::JoinSet::new();
    for wave in 0..10 {
        for _ in 0..4 {
            let mut following = runtime.follow_state(&actor("a"));
            followers.spawn(async move {
                let mut seen = Vec::new();
                while seen.last() != Some(&CHANGES) {
                    let change = following.next().await.unwrap().unwrap();
                    assert_eq!(change.value, json!({ "n": change.version }));
                    seen.push(change.version);
                }
                seen
            });
        }
        for number in 1..=CHANGES / 10 {
            let value = json!({ "n": wave * (CHANGES / 10) + number });
            runtime
                .set_state(&actor("a"), NewState::new(value))
                .await
                .unwrap();
        }
    }
    while let Some(seen) = followers.join_next().await {
        let seen = seen.unwrap();
        let all: Vec<_> = (seen[0]..=CHANGES).collect();
        assert_eq!(seen, all);
    }
    let mut closed = runtime.follow_state(&actor("b"));
    assert!(runtime.drain(MINUTE).await);
    let waiting = tokio::spawn(async move { closed.next().await });
    tokio::task::yield_now().await;
    store.close().await;
    assert!(
        matches!(waiting.await.unwrap(), Ok(None) | Err(_)),
        "it ends with the store"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_is_refused_by_name_and_leaves_the_state_and_the_actor_as_they_were() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let runtime = stage.start();
    let held = submit(&runtime, &actor, &Plan::ending(0, End::Hold)).await;
    let set = |new: NewState| runtime.set_state(&actor, new);
    // Every JSON value is a state; that it was set is not told by its value.
    for (version, value) in (1..).zip([Value::Null, json!(0), json!({ "a": 1 })]) {
        assert_eq!(set(NewState::new(value)).await.unwrap(), version);
    }
    let from = |source, expected, read_only, value| NewState {
        value,
        source,
        expected,
        read_only,
    };
    let client = || Source::Client("c1".to_owned());
    let large = json!("x".repeat(MAX_STATE));
    for (new, code) in [
        (
            from(client(), None, false, json!({ "refused": 1 })),
            "planned",
        ),
        (from(client(), Some(2), false, json!(1)), "state_conflict"),
        (from(client(), None, true, json!(1)), "state_read_only"),
        (from(client(), None, false, large), "state_too_large"),
    ] {
        let refused: Result<_, RuntimeError> = set(new).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
    let next = set(from(client(), Some(3), false, json!({ "a": 2 }))).await;
    assert_eq!(next.unwrap(), 4);
    let current = state::current(&*stage.store, &actor)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((current.version, current.value), (4, json!({ "a": 2 })));
    assert_eq!(current.source, client());
    runtime.abort(&actor, None).await.unwrap();
    settle(&runtime, &actor, &held).await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_was_told_survives_and_one_that_was_not_is_never_announced() {
    for death in [Death::Before(2), Death::After(2)] {
        let (stage, actor) = (Stage::new(), actor("a"));
        let first = stage.start_on(DyingStore::new(stage.store.clone(), death));
        first
            .set_state(&actor, NewState::new(json!(1)))
            .await
            .unwrap();
        let mut following = state::subscribe(stage.store.clone() as Arc<dyn Store>, &actor);
        assert_eq!(following.next().await.unwrap().unwrap().version, 1);
        let cut = first.set_state(&actor, NewState::new(json!(2))).await;
        assert!(cut.is_err());
        let next = stage.start();
        let version = next.set_state(&actor, NewState::new(json!(3))).await;
        let durable = u64::from(death == Death::After(2));
        assert_eq!(version.unwrap(), 2 + durable);
        let mut seen = Vec::new();
        for _ in 0..=durable {
            seen.push(following.next().await.unwrap().unwrap().value);
        }
        let expected = [json!(2), json!(3)];
        assert_eq!(seen, expected[1 - usize::try_from(durable).unwrap()..]);
    }
}
