//! Hostile work, in a process of its own, whose memory is looked at afterwards.

use std::{process::Command, time::Duration};

use bowline_sandbox::{
    archive,
    shell::{Shell, ShellOptions, ShellState},
    tools,
    workspace::Overlay,
};

use crate::support::{World, put};

/// Most memory that hostile work may take, in KiB.
const MEMORY: u64 = 512 << 10;
const CHILD: &str = "BOWLINE_HOSTILE";

/// Commands that would take all there is, each with what its message must say.
const COMMANDS: &[(&str, &str)] = &[
    ("while :; do echo x >> f; cat f f > g; mv g f; done", ""),
    ("yes > endless", "limit"),
    ("yes | head -c 10G", ""),
    ("yes | head -c 10G > f", ""),
    ("x=a; while :; do x=$x$x; done", ""),
    ("yes | tr -d '\\n' | wc -c", ""),
    ("f() { f | f & f; }; f", ""),
    ("f() { (f); (f) & wait; }; f", ""),
    ("f() { f; }; f", ""),
    ("eval $(printf '(%.0s' $(seq 5000))", ""),
    ("seq 100000000 | sort -n | tail -1", ""),
    ("awk 'BEGIN { while (1) s = s s \"aaaaaaaa\" }'", ""),
    (
        "awk 'BEGIN { while (1) a[n++] = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" n }'",
        "",
    ),
    ("jq -n '[range(100000000)] | length'", ""),
];

/// Each in a process of its own, so that one's memory is not counted with another's.
#[test]
fn hostile_work_is_stopped_in_bounded_memory() {
    // After the commands come the archive and the long line.
    for case in 0..COMMANDS.len() + 2 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "quotas::hostile_work",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, case.to_string())
            .output()
            .unwrap();
        let out = format!(
            "{}{}",
            String::from_utf8_lossy(&child.stdout),
            String::from_utf8_lossy(&child.stderr)
        );
        assert!(child.status.success(), "{out}");
        let peak = out
            .lines()
            .find_map(|line| line.split_once("peak ").map(|(_, peak)| peak))
            .unwrap_or_else(|| panic!("{out}"));
        let peak: u64 = peak.trim().parse().unwrap();
        println!("{peak:>9} KiB: {:?}", COMMANDS.get(case));
        assert!(peak < MEMORY, "{peak} KiB: {out}");
    }
}

/// What a child runs; in the parent's own run of all tests it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_work() {
    let Ok(case) = std::env::var(CHILD) else {
        return;
    };
    let case: usize = case.parse().unwrap();
    let overlay = World::new().begin().await;
    match COMMANDS.get(case) {
        Some((command, message)) => stopped(&overlay, command, message).await,
        None if case == COMMANDS.len() => bomb(&overlay).await,
        None => long_line(&overlay).await,
    }
    println!("peak {}", peak());
}

async fn stopped(overlay: &Overlay, command: &str, message: &str) {
    let options = ShellOptions {
        timeout: Duration::from_secs(10),
        ..ShellOptions::default()
    };
    let outcome = Shell::new()
        .run(&overlay.child(), ShellState::default(), command, &options)
        .await;
    assert_ne!(outcome.exit_code, 0, "{command}: {}", outcome.stdout.len());
    let stderr = outcome.stderr.to_lowercase();
    assert!(
        !stderr.is_empty() && (outcome.timed_out || stderr.contains(message)),
        "{command}: {}",
        outcome.stderr
    );
}

/// 1 GiB of zeros in a tar.gz of a megabyte.
async fn bomb(overlay: &Overlay) {
    use std::io::Write;
    let overlay = overlay.child();
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(header.as_bytes()).unwrap();
    for _ in 0..1024 {
        gzip.write_all(&[0; 1 << 20]).unwrap();
    }
    put(&overlay, "bomb.tgz", gzip.finish().unwrap()).await;
    let error = archive::extract_archive(&overlay, "bomb.tgz", "out")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("EDQUOT"), "{error}");
}

/// A line of 100 MiB, as long as the quota of a step lets it be, for each tool.
async fn long_line(overlay: &Overlay) {
    let overlay = overlay.child();
    put(&overlay, "line", vec![b'a'; 100 << 20]).await;
    let read = tools::read(
        &overlay,
        serde_json::from_str(r#"{"path": "line"}"#).unwrap(),
    )
    .await
    .unwrap();
    assert!(read.text.len() < 60 << 10);
    let found = tools::grep(
        &overlay,
        serde_json::from_str(r#"{"pattern": "aaa$", "path": "line"}"#).unwrap(),
    )
    .await
    .unwrap();
    assert!(found.text.len() < 60 << 10);
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
