//! The change feed.

use bowline_sandbox::workspace::{ChangeKind, FEED_KEPT};

use crate::support::{NOW, World, put};

#[tokio::test]
async fn each_signed_commit_is_in_the_feed_with_who_and_when() {
    let mut world = World::new();
    for (step, path) in ["a", "b", "a"].iter().enumerate() {
        let overlay = world.begin().await;
        put(&overlay, path, format!("{step}")).await;
        let mut changes = overlay.changes().unwrap();
        changes.sign(format!("step {step}")).unwrap();
        world.commit_changes(&changes).await;
    }
    let mut taken = world.workspace.snapshot("s", NOW).await.unwrap();
    taken.sign("command line").unwrap();
    world.commit_changes(&taken).await;
    world.reopen();
    let first = world.workspace.feed(0, 2).await.unwrap();
    assert!(!first.gap && first.entries.len() == 2);
    let rest = world.workspace.feed(first.next, 10).await.unwrap();
    let all: Vec<_> = first.entries.into_iter().chain(rest.entries).collect();
    let told: Vec<_> = all
        .iter()
        .map(|entry| {
            let path = entry
                .paths
                .first()
                .map(|change| (change.change, change.path.as_str()));
            (entry.origin.as_str(), path, entry.event.as_deref())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("step 0", Some((ChangeKind::Create, "/workspace/a")), None),
            ("step 1", Some((ChangeKind::Create, "/workspace/b")), None),
            ("step 2", Some((ChangeKind::Update, "/workspace/a")), None),
            ("command line", None, Some("snapshot s")),
        ]
    );
    assert!(all.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    assert_eq!(all[0].time(), NOW);
    assert_eq!(
        world.workspace.feed(rest.next, 10).await.unwrap().entries,
        []
    );
}

#[tokio::test]
async fn the_feed_keeps_its_last_commits_and_says_what_is_lost() {
    let world = World::new();
    for step in 0..FEED_KEPT + 5 {
        let overlay = world.begin().await;
        put(&overlay, "a", format!("{step}")).await;
        let mut changes = overlay.changes().unwrap();
        changes.sign("x").unwrap();
        world.commit_changes(&changes).await;
    }
    let feed = world.workspace.feed(0, 1).await.unwrap();
    assert!(feed.gap);
    assert_eq!(feed.entries[0].offset, 6);
    assert!(!world.workspace.feed(5, 1).await.unwrap().gap);
}
