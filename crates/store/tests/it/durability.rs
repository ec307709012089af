//! What was acknowledged is there, whatever happens to the process or the disk.

use std::process::{Command, Stdio};

use bowline_store::Store;

use super::{
    actor, append,
    child::{ACTORS, Child},
    open,
};

#[tokio::test]
async fn everything_acknowledged_before_a_kill_is_there_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0; ACTORS as usize];
    for lines in [1, 40, 400, 7, 150] {
        let mut child = Child::start("commit", dir.path(), None);
        let mut said: Vec<_> = (0..lines)
            .map(|_| child.line().expect("the child goes on"))
            .collect();
        said.extend(child.kill());
        for line in said {
            let (n, seq) = line.split_once(' ').unwrap();
            acknowledged[n.parse::<usize>().unwrap()] = seq.parse::<u64>().unwrap();
        }
        let store = open(dir.path());
        store.verify().await.unwrap();
        for (n, acknowledged) in acknowledged.iter().enumerate() {
            let actor = actor(&n.to_string());
            let head = store.head(&actor).await.unwrap().map_or(0, |head| head.seq);
            assert!(
                head >= *acknowledged,
                "actor {n} is at {head}, {acknowledged} was acknowledged"
            );
            let records = store.read(&actor, 0, usize::MAX).await.unwrap();
            assert_eq!(records.len() as u64, head);
            let row = store.row(&actor, "s", b"records").await.unwrap();
            assert_eq!(
                row.map_or(0, |row| std::str::from_utf8(&row).unwrap().parse().unwrap()),
                head
            );
        }
        store.close().await;
    }
}

fn strace_works() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"]);
    let works = probe
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        eprintln!("skipped: a failed flush needs strace, which is missing or not allowed here");
    }
    works
}

/// The disk refuses the n-th flush of the writer. Its second one is SQLite's of the directory, which
/// has been flushed when the store was opened.
#[tokio::test]
async fn after_a_failed_flush_nothing_is_committed_until_the_store_is_opened_again() {
    if !strace_works() {
        return;
    }
    for nth in [3, 9] {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).close().await;
        let said = append_with_a_failed_flush(dir.path(), nth);
        let acknowledged = said.iter().filter(|line| line.starts_with("ack ")).count() as u64;
        let rest = &said[usize::try_from(acknowledged).unwrap()..];
        let head = format!("head {acknowledged}");
        let expected = [
            "error store_io",
            "error store_closed",
            "error store_closed",
            &head,
        ];
        assert_eq!(rest, expected, "{said:?}");

        let store = open(dir.path());
        store.verify().await.unwrap();
        let found = store
            .head(&actor("one"))
            .await
            .unwrap()
            .map_or(0, |head| head.seq);
        // The one that failed may be there or not.
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "{found}, acknowledged {acknowledged}"
        );
        store
            .commit(append(&actor("one"), found, "{}"))
            .await
            .unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_flushed_is_not_opened() {
    if !strace_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await;
    assert_eq!(
        append_with_a_failed_flush(dir.path(), 1),
        ["error store_io"]
    );
}

/// Each thread of the child counts its own flushes.
fn append_with_a_failed_flush(dir: &std::path::Path, nth: u32) -> Vec<String> {
    let inject = format!("inject=fdatasync,fsync:error=EIO:when={nth}");
    Child::start(
        "append",
        dir,
        Some(&["strace", "-f", "-o", "/dev/null", "-e", &inject]),
    )
    .finish()
}
