//! Archives: round trips, and what must not be unpacked.

use std::io::Write;

use bowline_sandbox::{
    archive::{self, ArchiveSummary},
    workspace::{EntryKind, Overlay, WorkspaceLimits},
};
use tar::{Builder, EntryType, Header};

use crate::support::{World, names, put, text};

async fn extract(overlay: &Overlay, bytes: impl AsRef<[u8]>) -> Result<ArchiveSummary, String> {
    put(overlay, "in", bytes).await;
    archive::extract_archive(overlay, "in", "out")
        .await
        .map_err(|error| error.to_string())
}

/// A tar whose names are written as they are, which the builder would refuse.
fn tar_of(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in members {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        let link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn an_archive_is_unpacked_as_it_was_made() {
    let overlay = World::new().begin().await;
    let long = format!("src/{}", "n".repeat(150));
    put(&overlay, "src/a.bin", [0xff, 0, 1]).await;
    put(&overlay, &long, "long name").await;
    put(&overlay, "src/empty/x", "").await;
    overlay.chmod("src/a.bin", 0o755).await.unwrap();
    overlay.symlink("a.bin", "src/link").await.unwrap();
    for name in ["a.tar", "a.tar.gz", "a.tgz", "a.zip"] {
        let made = archive::create_archive(&overlay, name, &["src"])
            .await
            .unwrap();
        assert_eq!(
            (made.files, made.directories, made.links, made.bytes),
            (3, 2, 1, 12),
            "{name}"
        );
        let listed = archive::list_archive(&overlay, name).await.unwrap();
        assert_eq!(listed.len(), 6, "{name}: {listed:?}");
        let to = format!("out-{name}");
        assert_eq!(
            archive::extract_archive(&overlay, name, &to).await.unwrap(),
            made
        );
        assert_eq!(
            overlay.read(&format!("{to}/src/link")).await.unwrap(),
            vec![0xff, 0, 1]
        );
        assert_eq!(
            overlay.stat(&format!("{to}/src/a.bin")).await.unwrap().mode,
            0o755
        );
        assert_eq!(
            overlay.lstat(&format!("{to}/src/link")).await.unwrap().kind,
            EntryKind::Symlink
        );
        assert_eq!(text(&overlay, &format!("{to}/{long}")).await, "long name");
    }
}

#[tokio::test]
async fn the_shell_reads_what_was_packed() {
    use bowline_sandbox::shell::{Shell, ShellOptions, ShellState};
    let overlay = World::new().begin().await;
    put(&overlay, "d/a", "1\n").await;
    archive::create_archive(&overlay, "a.tar.gz", &["d"])
        .await
        .unwrap();
    let command = "mkdir x && tar -xzf a.tar.gz -C x && cat x/d/a";
    let outcome = Shell::new()
        .run(
            &overlay,
            ShellState::default(),
            command,
            &ShellOptions::default(),
        )
        .await;
    assert_eq!(
        (outcome.exit_code, outcome.stdout.as_str()),
        (0, "1\n"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn one_file_is_packed_and_unpacked_with_gzip() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "x".repeat(100_000)).await;
    assert_eq!(
        archive::compress_file(&overlay, "f", None).await.unwrap(),
        "f.gz"
    );
    assert!(overlay.stat("f.gz").await.unwrap().size < 1000);
    archive::decompress_file(&overlay, "f.gz", Some("g"))
        .await
        .unwrap();
    assert_eq!(text(&overlay, "g").await.len(), 100_000);
    assert!(archive::decompress_file(&overlay, "f", None).await.is_err());
}

#[tokio::test]
async fn nothing_is_unpacked_outside_of_the_destination() {
    let overlay = World::new().begin().await;
    put(&overlay, "secret", "kept").await;
    let file = EntryType::Regular;
    for (members, reason) in [
        (vec![("ok", file, "1"), ("../secret", file, "x")], "`..`"),
        (vec![("a/../../secret", file, "x")], "`..`"),
        (vec![("/workspace/secret", file, "x")], "absolute"),
        (vec![("l", EntryType::Symlink, "../secret")], "points out"),
        (
            vec![("l", EntryType::Symlink, "/workspace/secret")],
            "points out",
        ),
        (vec![("d/l", EntryType::Symlink, "../..")], "points out"),
        (
            vec![("l", EntryType::Symlink, "."), ("l/x", file, "1")],
            "through a link",
        ),
        (vec![("h", EntryType::Link, "../secret")], "hard link"),
        (vec![("p", EntryType::Fifo, "")], "not a file"),
    ] {
        let error = extract(&overlay, tar_of(&members)).await.unwrap_err();
        assert!(error.contains(reason), "{members:?}: {error}");
        assert!(!overlay.exists("out").await.unwrap(), "{members:?}");
    }
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("../secret", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(b"x").unwrap();
    assert!(
        extract(&overlay, zip.finish().unwrap().into_inner())
            .await
            .is_err()
    );
    assert_eq!(text(&overlay, "secret").await, "kept");
}

#[tokio::test]
async fn a_link_that_stays_inside_is_unpacked() {
    let overlay = World::new().begin().await;
    let members = [
        ("./d//e/", EntryType::Directory, ""),
        ("d/up", EntryType::Symlink, "../f"),
        ("down", EntryType::Symlink, "d/../f"),
        ("f", EntryType::Regular, "1"),
    ];
    extract(&overlay, tar_of(&members)).await.unwrap();
    for path in ["out/d/up", "out/down", "out/d/e/../up"] {
        assert_eq!(text(&overlay, path).await, "1", "{path}");
    }
}

#[tokio::test]
async fn a_link_that_was_there_before_is_not_written_through() {
    let overlay = World::new().begin().await;
    put(&overlay, "secret/x", "kept").await;
    overlay.mkdir("out", false).await.unwrap();
    overlay.symlink("/workspace/secret", "out/d").await.unwrap();
    overlay
        .symlink("/workspace/secret/x", "out/f")
        .await
        .unwrap();
    let error = extract(&overlay, tar_of(&[("d/x", EntryType::Regular, "bad")]))
        .await
        .unwrap_err();
    assert!(error.contains("through a link"), "{error}");
    extract(&overlay, tar_of(&[("f", EntryType::Regular, "new")]))
        .await
        .unwrap();
    assert_eq!(text(&overlay, "out/f").await, "new");
    assert_eq!(text(&overlay, "secret/x").await, "kept");
}

#[tokio::test]
async fn a_hard_link_becomes_a_copy() {
    let overlay = World::new().begin().await;
    extract(
        &overlay,
        tar_of(&[("a", EntryType::Regular, "1"), ("b", EntryType::Link, "a")]),
    )
    .await
    .unwrap();
    assert_eq!(names(&overlay, "out").await, ["a", "b"]);
    assert_eq!(text(&overlay, "out/b").await, "1");
}

#[tokio::test]
async fn a_bomb_ends_at_the_quota() {
    let limits = WorkspaceLimits {
        step_bytes: 2 << 20,
        ..WorkspaceLimits::default()
    };
    let overlay = World::with_limits(limits).begin().await;
    let zeros = vec![0u8; 3 << 20];
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bomb", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(&zeros).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(zeros.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "bomb", &zeros[..]).unwrap();
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    for bomb in [zip, gzip.finish().unwrap()] {
        assert!(bomb.len() < 100_000);
        let error = extract(&overlay, bomb).await.unwrap_err();
        assert!(error.starts_with("EDQUOT"), "{error}");
        assert!(!overlay.exists("out").await.unwrap());
    }
}

#[tokio::test]
async fn what_is_no_archive_is_said() {
    let overlay = World::new().begin().await;
    for bytes in [
        &b"hello"[..],
        b"PK\x03\x04junk",
        b"\x1f\x8bjunk",
        &[b'x'; 600],
    ] {
        assert!(
            extract(&overlay, bytes)
                .await
                .unwrap_err()
                .contains("cannot be read"),
            "{bytes:?}"
        );
    }
    assert!(
        archive::create_archive(&overlay, "a.rar", &["in"])
            .await
            .is_err()
    );
}
