use crate::support::{World, names, posix, put, text};

#[tokio::test]
async fn a_child_sees_its_parent_and_only_a_merge_shows_what_it_did() {
    let world = World::new();
    let step = world.begin().await;
    put(&step, "a", "step").await;
    let call = step.child();
    assert_eq!(text(&call, "a").await, "step");
    put(&call, "a", "call").await;
    put(&call, "d/new", "call").await;
    assert_eq!(text(&step, "a").await, "step");
    call.merge().unwrap();
    assert_eq!(text(&step, "a").await, "call");
    assert_eq!(text(&step, "d/new").await, "call");
}

#[tokio::test]
async fn a_dropped_child_leaves_nothing() {
    let world = World::new();
    let step = world.begin().await;
    put(&step, "a/b", "1").await;
    let usage = step.usage();
    let call = step.child();
    put(&call, "c", "2").await;
    call.remove("a", true, false).await.unwrap();
    assert!(!call.exists("a/b").await.unwrap());
    drop(call);
    assert_eq!(text(&step, "a/b").await, "1");
    assert_eq!(
        (step.usage(), names(&step, ".").await),
        (usage, vec!["a".to_owned()])
    );
}

#[tokio::test]
async fn calls_of_one_batch_run_each_on_the_last() {
    let world = World::new();
    let step = world.begin().await;
    for n in 0..3 {
        let call = step.child();
        let before = if n == 0 {
            String::new()
        } else {
            text(&call, "log").await
        };
        put(&call, "log", format!("{before}{n}")).await;
        if n == 1 {
            drop(call)
        } else {
            call.merge().unwrap()
        }
    }
    world.commit(&step).await;
    assert_eq!(text(&world.begin().await, "log").await, "02");
}

#[tokio::test]
async fn two_children_with_the_same_path_conflict_and_nothing_is_lost_silently() {
    let world = World::new();
    let step = world.begin().await;
    put(&step, "d/f", "0").await;
    let (one, other, third) = (step.child(), step.child(), step.child());
    put(&one, "same", "1").await;
    put(&one, "d/only-one", "1").await;
    put(&other, "same", "2").await;
    third.remove("d", true, false).await.unwrap();
    one.merge().unwrap();
    assert!(
        other
            .clone()
            .merge()
            .unwrap_err()
            .to_string()
            .contains("/workspace/same")
    );
    assert_eq!(text(&other, "same").await, "2");
    assert_eq!(posix(third.merge()), "ESTALE");
    assert_eq!(text(&step, "same").await, "1");
    assert_eq!(text(&step, "d/only-one").await, "1");
}

#[tokio::test]
async fn an_overlay_conflicts_with_what_was_committed_since_it_began() {
    let world = World::new();
    let (one, other, apart) = (
        world.begin().await,
        world.begin().await,
        world.begin().await,
    );
    put(&one, "f", "1").await;
    put(&other, "f", "2").await;
    put(&apart, "g", "3").await;
    world.commit(&one).await;
    assert_eq!(posix(other.changes()), "ESTALE");
    world.commit(&apart).await;
    let now = world.begin().await;
    assert_eq!(
        (text(&now, "f").await, text(&now, "g").await),
        ("1".into(), "3".into())
    );
    assert_eq!(now.usage().entries, 2);
}

#[tokio::test]
async fn a_child_must_be_merged_before_it_is_committed() {
    let world = World::new();
    let child = world.begin().await.child();
    put(&child, "f", "1").await;
    assert_eq!(posix(child.changes()), "EINVAL");
}

#[tokio::test]
async fn the_summary_names_what_was_created_updated_and_deleted() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "gone/x", "1").await;
    put(&overlay, "kept", "1").await;
    world.commit(&overlay).await;
    let overlay = world.begin().await;
    put(&overlay, "kept", "2").await;
    put(&overlay, "new", "2").await;
    put(&overlay, "brief", "2").await;
    overlay.remove("brief", false, false).await.unwrap();
    overlay.remove("gone", true, false).await.unwrap();
    let changes = overlay.changes().unwrap();
    let lines: Vec<String> = changes
        .paths
        .iter()
        .map(|path| format!("{:?} {}", path.change, path.path))
        .collect();
    assert_eq!(
        lines,
        [
            "Delete /workspace/gone",
            "Delete /workspace/gone/x",
            "Update /workspace/kept",
            "Create /workspace/new"
        ]
    );
}
