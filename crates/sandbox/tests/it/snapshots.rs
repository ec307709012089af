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
        .commit_changes(&world.workspace.restore("before", NOW).await.unwrap())
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
        .commit_changes(&world.workspace.restore("s", NOW).await.unwrap())
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
    assert_eq!(posix(world.workspace.restore("nope", NOW).await), "ENOENT");
    assert_eq!(posix(world.workspace.fork("nope", "f").await), "ENOENT");
    let listed = world.workspace.snapshots().await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].name.as_str(), listed[0].bytes),
        (1, "s", 500_001)
    );
}

#[tokio::test]
async fn a_removed_snapshot_takes_only_what_it_alone_held() {
    let mut world = with_files(20).await;
    for round in 0..4 {
        let overlay = world.begin().await;
        put(&overlay, "d0/f0", format!("round {round}")).await;
        put(
            &overlay,
            &format!("only{round}"),
            vec![round as u8; 300_000],
        )
        .await;
        if round > 0 {
            let old = format!("only{}", round - 1);
            overlay.remove(&old, false, false).await.unwrap();
        }
        overlay
            .remove(&format!("d{}", round + 2), true, false)
            .await
            .unwrap();
        world.commit(&overlay).await;
        drop(overlay);
        let taken = world.workspace.snapshot(&format!("s{round}"), NOW).await;
        world.commit_changes(&taken.unwrap()).await;
    }
    let fork = world.workspace.fork("s1", "f").await.unwrap();
    world.commit_changes(&fork).await;
    // One that others stand on, one with a fork below, the last, the first.
    for name in ["s2", "s1", "s3", "s0"] {
        let removed = world.workspace.remove_snapshot(name, NOW).await.unwrap();
        world.commit_changes(&removed).await;
        for reopened in [false, true] {
            if reopened {
                world.reopen();
            }
            let after = world.begin().await;
            assert_eq!(text(&after, "d0/f0").await, "round 3", "{name}");
            assert_eq!(
                names(&after, ".").await,
                ["big", "d0", "d1", "d6", "only3"],
                "{name}"
            );
            assert_eq!(after.read("only3").await.unwrap(), vec![3u8; 300_000]);
            let fork = Workspace::open_fork(
                world.store.clone(),
                world.actor.clone(),
                "f",
                WorkspaceLimits::default(),
            );
            let fork = fork.begin(NOW).await.unwrap();
            assert_eq!(text(&fork, "d0/f0").await, "round 1", "{name}");
            assert_eq!(text(&fork, "d4/f4").await, "4", "{name}");
        }
    }
    assert_eq!(world.workspace.snapshots().await.unwrap(), []);
    let removed = world.workspace.remove_fork("f", NOW).await.unwrap();
    world.commit_changes(&removed).await;
    assert_eq!(text(&world.begin().await, "d0/f0").await, "round 3");
    assert_eq!(
        posix(world.workspace.remove_snapshot("s0", NOW).await),
        "ENOENT"
    );
    assert_eq!(posix(world.workspace.remove_fork("f", NOW).await), "ENOENT");
    // What was written before is not stored twice, nor for nothing.
    let rows = world
        .store
        .scan(&world.actor, "file", &[], None, 1000)
        .await
        .unwrap();
    let volumes = rows
        .iter()
        .filter(|row| row.key.starts_with(&[0; 4]))
        .count();
    assert!(volumes <= 3, "{volumes}");
    world.store.verify().await.unwrap();
}

/// Two nameless states that are folded by one removal: the upper one wins.
#[tokio::test]
async fn states_that_are_folded_together_keep_the_newer_file() {
    let world = World::new();
    for (name, content) in [("a", "oldest"), ("b", "newer")] {
        let overlay = world.begin().await;
        put(&overlay, "f", content).await;
        put(&overlay, "gone", content).await;
        if name == "b" {
            overlay.remove("gone", false, false).await.unwrap();
        }
        world.commit(&overlay).await;
        drop(overlay);
        let taken = world.workspace.snapshot(name, NOW).await.unwrap();
        world.commit_changes(&taken).await;
    }
    let fork = world.workspace.fork("b", "fork").await.unwrap();
    world.commit_changes(&fork).await;
    // The fork keeps both apart, until it goes.
    for name in ["a", "b"] {
        let removed = world.workspace.remove_snapshot(name, NOW).await.unwrap();
        world.commit_changes(&removed).await;
    }
    let removed = world.workspace.remove_fork("fork", NOW).await.unwrap();
    world.commit_changes(&removed).await;
    let reopened = World::on(world.store.clone(), WorkspaceLimits::default());
    for world in [&world, &reopened] {
        let overlay = world.begin().await;
        assert_eq!(text(&overlay, "f").await, "newer");
        assert_eq!(names(&overlay, ".").await, ["f"]);
    }
}

/// More small files than the cache holds content of: the rest is read from its rows when it is needed,
/// also after those rows have moved.
#[tokio::test]
async fn files_whose_rows_were_moved_can_still_be_read() {
    let world = World::new();
    for name in ["a", "b"] {
        let overlay = world.begin().await;
        for n in 0..2300 {
            put(&overlay, &format!("{name}/{n}"), vec![b'x'; 8000]).await;
        }
        world.commit(&overlay).await;
        drop(overlay);
        let taken = world.workspace.snapshot(name, NOW).await.unwrap();
        world.commit_changes(&taken).await;
    }
    let removed = world.workspace.remove_snapshot("a", NOW).await;
    let before = World::on(world.store.clone(), WorkspaceLimits::default());
    let overlay = before.begin().await;
    assert_eq!(names(&overlay, "b").await.len(), 2300);
    assert_eq!(names(&overlay, "a").await.len(), 2300);
    drop(overlay);
    before.commit_changes(&removed.unwrap()).await;
    let overlay = before.begin().await;
    for n in 0..2300 {
        assert_eq!(overlay.read(&format!("a/{n}")).await.unwrap().len(), 8000);
    }
}
