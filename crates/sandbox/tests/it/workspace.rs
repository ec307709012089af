use bowline_sandbox::workspace::{EntryKind, Held, SPACE, WorkspaceLimits, WriteOptions, absolute};
use bowline_store::RowChange;
use bytes::Bytes;

use crate::support::{NOW, World, names, posix, put, text};

#[tokio::test]
async fn a_new_workspace_has_its_two_directories_and_nothing_to_commit() {
    let world = World::new();
    let overlay = world.begin().await;
    assert_eq!(names(&overlay, "/").await, ["tmp", "workspace"]);
    assert!(overlay.changes().unwrap().is_empty());
}

#[tokio::test]
async fn committed_files_are_there_after_reopening() {
    let mut world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "src/main.rs", "fn main() {}").await;
    put(&overlay, "big", vec![7u8; 700_000]).await;
    overlay.symlink("src/main.rs", "link").await.unwrap();
    overlay.chmod("src/main.rs", 0o755).await.unwrap();
    world.commit(&overlay).await;
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        let overlay = world.begin().await;
        assert_eq!(text(&overlay, "/workspace/link").await, "fn main() {}");
        assert_eq!(overlay.stat("link").await.unwrap().mode, 0o755);
        assert_eq!(
            overlay.lstat("link").await.unwrap().kind,
            EntryKind::Symlink
        );
        assert_eq!(overlay.read("big").await.unwrap(), vec![7u8; 700_000]);
        assert_eq!(
            overlay.read_range("big", 262_140, 8).await.unwrap(),
            vec![7u8; 8]
        );
        assert_eq!(names(&overlay, "/workspace").await, ["big", "link", "src"]);
        let usage = overlay.usage();
        assert_eq!((usage.bytes, usage.entries), (700_012, 4));
    }
}

#[tokio::test]
async fn what_is_not_committed_is_not_there() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "a", "1").await;
    drop(overlay);
    assert!(!world.begin().await.exists("a").await.unwrap());
}

#[tokio::test]
async fn made_and_removed_again_commits_nothing() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "d/a", "1").await;
    overlay.remove("d", true, false).await.unwrap();
    assert!(overlay.changes().unwrap().is_empty());
    assert_eq!(overlay.usage().entries, 0);
}

#[tokio::test]
async fn an_edit_of_a_large_file_shares_its_chunks() {
    let world = World::new();
    let overlay = world.begin().await;
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    put(&overlay, "big", &content).await;
    assert_eq!(world.commit(&overlay).await.blobs.len(), 4);
    let overlay = world.begin().await;
    overlay
        .append("big", Bytes::from_static(b"more"), &WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(world.commit(&overlay).await.blobs.len(), 1);
    let overlay = world.begin().await;
    overlay.copy("big", "copy", false).await.unwrap();
    assert_eq!(world.commit(&overlay).await.blobs.len(), 0);
    let expected = [&content[..], b"more"].concat();
    assert_eq!(world.begin().await.read("copy").await.unwrap(), expected);
}

#[tokio::test]
async fn many_appends_make_one_file() {
    let world = World::new();
    let overlay = world.begin().await;
    let line = "x".repeat(999) + "\n";
    for _ in 0..2000 {
        overlay
            .append("log", Bytes::from(line.clone()), &WriteOptions::default())
            .await
            .unwrap();
    }
    let changes = world.commit(&overlay).await;
    assert_eq!(changes.blobs.len(), 8);
    assert_eq!(
        world.begin().await.read("log").await.unwrap(),
        line.repeat(2000)
    );
}

#[tokio::test]
async fn moving_a_directory_is_two_rows_whatever_is_in_it() {
    let mut world = World::new();
    let overlay = world.begin().await;
    for n in 0..500 {
        put(&overlay, &format!("a/sub/f{n}"), "x").await;
    }
    world.commit(&overlay).await;
    let overlay = world.begin().await;
    overlay.rename("a", "b").await.unwrap();
    let changes = world.commit(&overlay).await;
    // The name that is gone, the name that is new, the header.
    assert_eq!(changes.rows.len(), 3);
    world.reopen();
    let overlay = world.begin().await;
    assert_eq!(names(&overlay, "b/sub").await.len(), 500);
    assert!(!overlay.exists("a").await.unwrap());
}

#[tokio::test]
async fn removing_a_tree_leaves_no_row_behind() {
    let world = World::new();
    let overlay = world.begin().await;
    for n in 0..50 {
        put(&overlay, &format!("a/{}/f{n}", n % 5), vec![n; 10_000]).await;
    }
    world.commit(&overlay).await;
    let overlay = world.begin().await;
    overlay.remove("a", true, false).await.unwrap();
    world.commit(&overlay).await;
    let rows = world
        .store
        .scan(&world.actor, "file", &[], None, 100)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1, "only the header: {rows:?}");
    assert_eq!(world.begin().await.usage().bytes, 0);
}

#[tokio::test]
async fn errors_have_their_posix_names() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "f", "1").await;
    overlay.mkdir("d", false).await.unwrap();
    put(&overlay, "d/x", "1").await;
    overlay.symlink("loop2", "loop1").await.unwrap();
    overlay.symlink("loop1", "loop2").await.unwrap();
    let default = WriteOptions::default();
    assert_eq!(posix(overlay.read("nope").await), "ENOENT");
    assert_eq!(posix(overlay.read("f/x").await), "ENOTDIR");
    assert_eq!(posix(overlay.read("d").await), "EISDIR");
    assert_eq!(posix(overlay.read("loop1").await), "ELOOP");
    assert_eq!(
        posix(overlay.write("no/f", Bytes::new(), &default).await),
        "ENOENT"
    );
    assert_eq!(
        posix(overlay.write("d", Bytes::new(), &default).await),
        "EISDIR"
    );
    let exclusive = WriteOptions {
        exclusive: true,
        ..default.clone()
    };
    assert_eq!(
        posix(overlay.write("f", Bytes::new(), &exclusive).await),
        "EEXIST"
    );
    assert_eq!(posix(overlay.mkdir("d", false).await), "EEXIST");
    assert_eq!(posix(overlay.mkdir("f", true).await), "EEXIST");
    assert_eq!(posix(overlay.mkdir("x/y", false).await), "ENOENT");
    assert_eq!(posix(overlay.remove("d", false, false).await), "ENOTEMPTY");
    assert_eq!(posix(overlay.remove("/", true, true).await), "EINVAL");
    assert_eq!(posix(overlay.list("f").await), "ENOTDIR");
    assert_eq!(posix(overlay.rename("f", "d").await), "EISDIR");
    assert_eq!(posix(overlay.rename("d", "f").await), "ENOTDIR");
    assert_eq!(posix(overlay.read_link("f").await), "EINVAL");
    assert_eq!(posix(overlay.symlink("", "l").await), "EINVAL");
    assert_eq!(posix(overlay.read(&"x".repeat(5000)).await), "ENAMETOOLONG");
    assert_eq!(posix(overlay.read(&"x".repeat(256)).await), "ENAMETOOLONG");
    assert_eq!(
        posix(overlay.mkdir(&"d/".repeat(101), true).await),
        "ENAMETOOLONG"
    );
    assert!(overlay.remove("nope", false, true).await.is_ok());
}

#[tokio::test]
async fn quotas_hold_and_leave_everything_as_it_was() {
    let limits = WorkspaceLimits {
        bytes: 1000,
        entries: 5,
        file_bytes: 600,
        step_bytes: 800,
        ..WorkspaceLimits::default()
    };
    let world = World::with_limits(limits);
    let overlay = world.begin().await;
    let default = WriteOptions::default();
    let write = |path: &'static str, size: usize| {
        let (overlay, default) = (overlay.clone(), default.clone());
        async move {
            overlay
                .write(path, Bytes::from(vec![1; size]), &default)
                .await
        }
    };
    assert_eq!(posix(write("a", 601).await), "EFBIG");
    write("a", 600).await.unwrap();
    write("a", 500).await.unwrap();
    assert_eq!(posix(write("b", 301).await), "EDQUOT");
    write("b", 300).await.unwrap();
    world.commit(&overlay).await;
    let overlay = world.begin().await;
    assert_eq!(
        posix(
            overlay
                .write("c", Bytes::from(vec![1; 201]), &default)
                .await
        ),
        "EDQUOT"
    );
    overlay
        .write("c", Bytes::from(vec![1; 200]), &default)
        .await
        .unwrap();
    overlay.remove("a", false, false).await.unwrap();
    overlay
        .write("d", Bytes::from(vec![1; 500]), &default)
        .await
        .unwrap();
    overlay.mkdir("e", false).await.unwrap();
    overlay.mkdir("f", false).await.unwrap();
    assert_eq!(posix(overlay.mkdir("g", false).await), "EDQUOT");
    assert_eq!(overlay.usage().bytes, 1000);
}

#[tokio::test]
async fn every_operation_is_right_with_100_000_entries_in_one_directory() {
    let mut world = World::new();
    let overlay = world.begin().await;
    overlay.mkdir("many", false).await.unwrap();
    for n in 0..100_000 {
        overlay
            .write(
                &format!("many/{n:06}"),
                Bytes::new(),
                &WriteOptions::default(),
            )
            .await
            .unwrap();
    }
    world.commit(&overlay).await;
    world.reopen();
    let overlay = world.begin().await;
    assert_eq!(overlay.list("many").await.unwrap().len(), 100_000);
    overlay.rename("many", "moved").await.unwrap();
    overlay.remove("moved/099999", false, false).await.unwrap();
    overlay.copy("moved", "copied", true).await.unwrap();
    assert_eq!(overlay.list("copied").await.unwrap().len(), 99_999);
    assert_eq!(overlay.usage().entries, 2 * 99_999 + 2);
    overlay.remove("moved", true, false).await.unwrap();
    assert_eq!(overlay.usage().entries, 99_999 + 1);
    assert!(!overlay.exists("moved/000000").await.unwrap());
}

#[tokio::test]
async fn an_open_workspace_holds_what_was_touched_and_a_fork_of_many_files_reads_none() {
    let mut world = World::new();
    let overlay = world.begin().await;
    for n in 0..20_000 {
        let path = format!("d{}/f{n}", n / 1_000);
        put(&overlay, &path, [b'x'; 100]).await;
    }
    world.commit(&overlay).await;
    drop(overlay);
    world.reopen();
    assert_eq!(world.workspace.held(), Held::default());
    let overlay = world.begin().await;
    assert_eq!(overlay.read("d3/f3001").await.unwrap().len(), 100);
    put(&overlay, "d3/new", "1").await;
    let held = world.workspace.held();
    assert!(held.directories <= 3 && held.entries < 300, "{held:?}");
    assert!(held.bytes < 300 * 100, "{held:?}");
    assert_eq!(overlay.list("d4").await.unwrap().len(), 1_000);
    let held = world.workspace.held();
    assert!(held.entries < 1_300, "{held:?}");
    drop(overlay);

    world.reopen();
    let snapshot = world.workspace.snapshot("base", NOW).await.unwrap();
    world.commit_changes(&snapshot).await;
    let fork = world.workspace.fork("base", "copy").await.unwrap();
    assert_eq!((snapshot.rows.len(), fork.rows.len()), (2, 1));
    assert!(snapshot.bytes() + fork.bytes() < 1_000);
    assert_eq!(world.workspace.held(), Held::default());
}

#[tokio::test]
async fn a_follower_sees_what_is_committed_and_by_whom() {
    let world = World::new();
    let mut watch = world.workspace.watch();
    let overlay = world.begin().await;
    put(&overlay, "a", "1").await;
    let mut changes = overlay.changes().unwrap();
    changes.origin = "turn_1".into();
    world.commit_changes(&changes).await;
    let seen = watch.next().await.unwrap().unwrap();
    assert_eq!(
        (seen.paths[0].path.as_str(), seen.origin.as_str()),
        ("/workspace/a", "turn_1")
    );
}

#[test]
fn a_path_cannot_leave_the_root_by_text() {
    assert_eq!(absolute("../../../etc/passwd", "/workspace"), "/etc/passwd");
    assert_eq!(absolute("a/./b//../c", "/workspace"), "/workspace/a/c");
    assert_eq!(absolute("/", "/x"), "/");
}

#[tokio::test]
async fn a_damaged_or_newer_row_is_a_typed_error() {
    for (bytes, code) in [
        (&b"\x01\x02\xff"[..], "store_corrupt"),
        (b"\x09\x01", "store_newer_format"),
    ] {
        let mut world = World::new();
        let overlay = world.begin().await;
        put(&overlay, "f", "x").await;
        let mut changes = overlay.changes().unwrap();
        for row in &mut changes.rows {
            if let RowChange::Put {
                space: SPACE,
                key,
                value,
                ..
            } = row
                && key.ends_with(b"f")
            {
                *value = Bytes::copy_from_slice(bytes);
            }
        }
        world.store_changes(&changes).await;
        world.reopen();
        let error = match world.workspace.begin(NOW).await {
            Ok(overlay) => overlay.read("f").await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.code(), code);
    }
}
