use bowline_sandbox::workspace::{Workspace, WorkspaceLimits};

use crate::support::{NOW, World, names, posix, put, text};

async fn with_files(count: usize) -> World {
    let world = World::new();
    let overlay = world.begin().await;
    for n in 0..count {
        put(&overlay, &format!("d{}/f{n}", n % 7), format!("{n}")).await;
    }
    put(&overlay, "big", vec![1u8; 500_000]).await;
    world.commit(&overlay).await;
    world
}

#[tokio::test]
async fn a_snapshot_is_restored_with_all_its_files() {
    let mut world = with_files(20).await;
    world
        .commit_changes(&world.workspace.snapshot("before", NOW).await.unwrap())
        .await;
    let overlay = world.begin().await;
    put(&overlay, "d0/f0", "changed").await;
    put(&overlay, "new", "1").await;
    overlay.remove("d1", true, false).await.unwrap();
    overlay.rename("d2", "moved").await.unwrap();
    overlay.remove("big", false, false).await.unwrap();
    world.commit(&overlay).await;
    let after = world.begin().await;
    assert_eq!(
        names(&after, ".").await,
        ["d0", "d3", "d4", "d5", "d6", "moved", "new"]
    );
    assert_eq!(text(&after, "moved/f2").await, "2");
    drop(after);
    let changes = world.workspace.diff("before", None).await.unwrap();
    let lines: Vec<String> = changes
        .iter()
        .filter(|change| !change.path.contains("/f1"))
        .map(|change| format!("{:?} {}", change.change, change.path))
        .collect();
    assert!(
        lines.contains(&"Update /workspace/d0/f0".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"Delete /workspace/big".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"Create /workspace/moved/f2".to_owned()),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|line| line.contains("d3")), "{lines:?}");
    world
        .commit_changes(&world.workspace.restore("before").await.unwrap())
        .await;
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        let restored = world.begin().await;
        assert_eq!(text(&restored, "d0/f0").await, "0");
        assert_eq!(names(&restored, "d1").await, ["f1", "f15", "f8"]);
        assert_eq!(restored.read("big").await.unwrap(), vec![1u8; 500_000]);
        assert!(!restored.exists("new").await.unwrap());
        assert_eq!(restored.usage().bytes, 500_030);
        assert!(
            world
                .workspace
                .diff("before", None)
                .await
                .unwrap()
                .is_empty()
        );
    }
    world.store.verify().await.unwrap();
}

#[tokio::test]
async fn a_fork_is_one_row_and_goes_its_own_way() {
    let world = with_files(300).await;
    world
        .commit_changes(&world.workspace.snapshot("base", NOW).await.unwrap())
        .await;
    let fork = world.workspace.fork("base", "copy").await.unwrap();
    assert_eq!(fork.rows.len(), 1);
    world.commit_changes(&fork).await;
    let copy = World {
        store: world.store.clone(),
        actor: world.actor.clone(),
        workspace: Workspace::open_fork(
            world.store.clone(),
            world.actor.clone(),
            "copy",
            WorkspaceLimits::default(),
        ),
        limits: WorkspaceLimits::default(),
    };
    let (ours, theirs) = (world.begin().await, copy.begin().await);
    put(&theirs, "d0/f0", "fork").await;
    put(&theirs, "only/fork", "1").await;
    put(&ours, "d0/f0", "main").await;
    let changes = copy.commit(&theirs).await;
    assert!(
        changes.rows.len() < 6,
        "only what changed is written: {}",
        changes.rows.len()
    );
    world.commit(&ours).await;
    assert_eq!(text(&world.begin().await, "d0/f0").await, "main");
    assert_eq!(text(&copy.begin().await, "d0/f0").await, "fork");
    assert_eq!(text(&copy.begin().await, "d6/f6").await, "6");
    assert!(!world.begin().await.exists("only").await.unwrap());
}

#[tokio::test]
async fn an_overlay_that_began_before_a_restore_cannot_commit() {
    let world = with_files(3).await;
    world
        .commit_changes(&world.workspace.snapshot("s", NOW).await.unwrap())
        .await;
    let overlay = world.begin().await;
    put(&overlay, "x", "1").await;
    world
        .commit_changes(&world.workspace.restore("s").await.unwrap())
        .await;
    assert_eq!(posix(overlay.changes()), "ESTALE");
}

#[tokio::test]
async fn names_of_snapshots_are_checked() {
    let world = with_files(1).await;
    world
        .commit_changes(&world.workspace.snapshot("s", NOW).await.unwrap())
        .await;
    assert_eq!(posix(world.workspace.snapshot("s", NOW).await), "EEXIST");
    assert_eq!(posix(world.workspace.snapshot("", NOW).await), "EINVAL");
    assert_eq!(posix(world.workspace.restore("nope").await), "ENOENT");
    assert_eq!(posix(world.workspace.fork("nope", "f").await), "ENOENT");
    let listed = world.workspace.snapshots().await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].name.as_str(), listed[0].bytes),
        (1, "s", 500_001)
    );
}
