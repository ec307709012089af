//! One writer, whoever thinks that it is the owner.

use bowline_runtime::{Outcome, RuntimeError, kind};
use bowline_store::CommitError;
use bowline_testkit::sim::program::{End, INPUT, Plan};

use crate::{MINUTE, Stage, actor, new, settle, submit};

#[tokio::test(start_paused = true)]
async fn a_stale_owner_is_fenced_and_nothing_is_doubled() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let stale = stage.start();
    let receipt = submit(&stale, &actor, &Plan::steps(4).pausing(MINUTE)).await;
    tokio::time::sleep(MINUTE + MINUTE / 2).await;
    let losing = tokio::spawn({
        let (stale, actor, id) = (stale.clone(), actor.clone(), receipt.submission_id.clone());
        async move { stale.settled(&actor, &id).await }
    });
    let owner = stage.start();
    owner.resume().await.unwrap();
    assert_eq!(
        settle(&owner, &actor, &receipt).await.outcome,
        Outcome::Completed
    );
    let lost = losing.await.unwrap();
    assert!(
        matches!(lost, Err(RuntimeError::Commit(CommitError::Fenced { .. }))),
        "the loser says so: {lost:?}"
    );
    assert_eq!(stage.count(&actor, INPUT).await, 1);
    assert_eq!(
        stage
            .count(&actor, bowline_testkit::sim::program::STEP)
            .await,
        4
    );
    assert_eq!(stage.count(&actor, kind::SUBMISSION_SETTLED).await, 1);
    let epochs: Vec<_> = stage
        .records(&actor)
        .await
        .iter()
        .map(|stored| stored.epoch)
        .collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_owner_that_was_overtaken_admits_nothing_from_its_old_memory() {
    let (stage, actor) = (Stage::new(), actor("a"));
    let stale = stage.start();
    let first = submit(&stale, &actor, &Plan::steps(0)).await;
    settle(&stale, &actor, &first).await;
    let owner = stage.start();
    let held = submit(&owner, &actor, &Plan::ending(0, End::Hold)).await;
    let refused = stale.submit(&actor, new(&Plan::steps(0))).await;
    assert!(
        matches!(
            refused,
            Err(RuntimeError::Commit(CommitError::Fenced { .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(stage.count(&actor, INPUT).await, 2);
    // The loser dropped its memory: asked again, it takes over with what is stored.
    let third = submit(&stale, &actor, &Plan::steps(0)).await;
    assert!(
        stale
            .abort(&actor, Some(&held.submission_id))
            .await
            .unwrap()
    );
    assert_eq!(
        settle(&stale, &actor, &held).await.outcome,
        Outcome::Aborted
    );
    assert_eq!(
        settle(&stale, &actor, &third).await.outcome,
        Outcome::Completed
    );
}
