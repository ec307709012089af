//! What another virtual filesystem got wrong, row by row.

use bowline_sandbox::search;
use bowline_sandbox::workspace::WriteOptions;
use bytes::Bytes;

use crate::support::{World, names, posix, put, text};

#[tokio::test]
async fn moving_a_file_onto_itself_changes_nothing() {
    let overlay = World::new().begin().await;
    put(&overlay, "a.txt", "1").await;
    overlay.rename("a.txt", "a.txt").await.unwrap();
    overlay.rename("a.txt", "./x/../a.txt").await.unwrap_err();
    overlay.rename("a.txt", "/workspace/./a.txt").await.unwrap();
    overlay.copy("a.txt", "a.txt", false).await.unwrap();
    assert_eq!(text(&overlay, "a.txt").await, "1");
}

#[tokio::test]
async fn moving_a_directory_onto_itself_changes_nothing() {
    let overlay = World::new().begin().await;
    put(&overlay, "d/a", "1").await;
    overlay.rename("d", "d").await.unwrap();
    assert_eq!(text(&overlay, "d/a").await, "1");
}

#[tokio::test]
async fn moving_and_copying_a_large_directory_is_complete() {
    let mut world = World::new();
    let overlay = world.begin().await;
    for n in 0..1005 {
        put(&overlay, &format!("d/{n}"), "x").await;
    }
    world.commit(&overlay).await;
    world.reopen();
    let overlay = world.begin().await;
    overlay.copy("d", "c", true).await.unwrap();
    overlay.rename("d", "m").await.unwrap();
    assert_eq!(
        (
            names(&overlay, "c").await.len(),
            names(&overlay, "m").await.len()
        ),
        (1005, 1005)
    );
}

#[tokio::test]
async fn a_directory_cannot_be_put_into_itself() {
    let overlay = World::new().begin().await;
    put(&overlay, "d/a", "1").await;
    assert_eq!(posix(overlay.rename("d", "d/sub").await), "EINVAL");
    assert_eq!(posix(overlay.copy("d", "d/sub", true).await), "EINVAL");
    overlay.symlink("d", "l").await.unwrap();
    assert_eq!(posix(overlay.rename("d", "l/sub").await), "EINVAL");
    assert_eq!(names(&overlay, "d").await, ["a"]);
}

#[tokio::test]
async fn a_file_is_never_written_over_a_directory() {
    let overlay = World::new().begin().await;
    put(&overlay, "d/a", "1").await;
    put(&overlay, "f", "2").await;
    assert_eq!(
        posix(
            overlay
                .write("d", Bytes::from_static(b"x"), &WriteOptions::default())
                .await
        ),
        "EISDIR"
    );
    assert_eq!(posix(overlay.copy("f", "d", false).await), "EISDIR");
    assert_eq!(text(&overlay, "d/a").await, "1");
}

#[tokio::test]
async fn appending_to_a_binary_file_keeps_its_bytes() {
    let overlay = World::new().begin().await;
    put(&overlay, "b", [0xff, 0x00, 0xfe]).await;
    overlay
        .append(
            "b",
            Bytes::from_static(&[0xff, b'x']),
            &WriteOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(
        overlay.read("b").await.unwrap(),
        vec![0xff, 0x00, 0xfe, 0xff, b'x']
    );
}

#[tokio::test]
async fn links_are_followed_in_every_component() {
    let overlay = World::new().begin().await;
    put(&overlay, "real/deep/a", "1").await;
    overlay.symlink("real", "link").await.unwrap();
    overlay.symlink("../real/deep", "real/again").await.unwrap();
    assert_eq!(text(&overlay, "link/deep/a").await, "1");
    assert_eq!(names(&overlay, "link/again").await, ["a"]);
    put(&overlay, "link/again/new", "2").await;
    assert_eq!(text(&overlay, "real/deep/new").await, "2");
    assert_eq!(
        overlay.real_path("link/again/new").await.unwrap(),
        "/workspace/real/deep/new"
    );
    overlay
        .symlink("/workspace/target", "dangling")
        .await
        .unwrap();
    put(&overlay, "dangling", "3").await;
    assert_eq!(text(&overlay, "target").await, "3");
}

#[tokio::test]
async fn forty_links_are_followed_and_no_more() {
    let overlay = World::new().begin().await;
    put(&overlay, "l0", "end").await;
    for n in 1..=41 {
        overlay
            .symlink(&format!("l{}", n - 1), &format!("l{n}"))
            .await
            .unwrap();
    }
    assert_eq!(text(&overlay, "l40").await, "end");
    assert_eq!(posix(overlay.read("l41").await), "ELOOP");
}

#[tokio::test]
async fn null_bytes_and_empty_paths_are_refused() {
    let overlay = World::new().begin().await;
    for path in ["", "a\0b"] {
        assert_eq!(
            posix(
                overlay
                    .write(path, Bytes::new(), &WriteOptions::default())
                    .await
            ),
            "EINVAL"
        );
        assert_eq!(posix(overlay.stat(path).await), "EINVAL");
    }
}

#[tokio::test]
async fn a_name_with_pattern_characters_can_be_found() {
    let overlay = World::new().begin().await;
    put(&overlay, "a[1].txt", "1").await;
    put(&overlay, "a1.txt", "2").await;
    let find = |pattern: &'static str| {
        let overlay = overlay.clone();
        async move {
            let found = search::glob(&overlay, pattern, "/workspace").await.unwrap();
            found
                .into_iter()
                .map(|found| found.path)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(find("a[1].txt").await, ["/workspace/a1.txt"]);
    assert_eq!(find("a\\[1\\].txt").await, ["/workspace/a[1].txt"]);
}

#[tokio::test]
async fn two_stars_match_dot_files_and_one_star_stays_in_its_directory() {
    let overlay = World::new().begin().await;
    for path in ["a.ts", ".b.ts", "d/c.ts", "d/.e/f.ts", "d/g.js"] {
        put(&overlay, path, "1").await;
    }
    for (pattern, expected) in [
        ("*.ts", &["/workspace/.b.ts", "/workspace/a.ts"][..]),
        (
            "**/*.ts",
            &[
                "/workspace/.b.ts",
                "/workspace/a.ts",
                "/workspace/d/.e/f.ts",
                "/workspace/d/c.ts",
            ],
        ),
        ("d/*/*.ts", &["/workspace/d/.e/f.ts"]),
    ] {
        let found = search::glob(&overlay, pattern, "/workspace").await.unwrap();
        let mut found: Vec<String> = found.into_iter().map(|found| found.path).collect();
        found.sort();
        assert_eq!(found, expected, "{pattern}");
    }
}

#[tokio::test]
async fn the_root_cannot_be_left() {
    let overlay = World::new().begin().await;
    put(&overlay, "../../../../etc/x", "1").await;
    assert_eq!(text(&overlay, "/etc/x").await, "1");
    overlay.symlink("../../../../../etc", "up").await.unwrap();
    assert_eq!(text(&overlay, "up/x").await, "1");
    assert_eq!(overlay.real_path("up/../..").await.unwrap(), "/");
}

#[tokio::test]
async fn a_large_file_is_kept_in_pieces() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "big", vec![1u8; 1_600_000]).await;
    let changes = overlay.changes().unwrap();
    assert!(
        changes
            .blobs
            .iter()
            .all(|blob| blob.bytes.len() <= 256 << 10)
    );
    world.commit(&overlay).await;
    assert_eq!(
        world.begin().await.stat("big").await.unwrap().size,
        1_600_000
    );
}
