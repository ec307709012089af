//! Hostile work, in a process of its own, whose memory is looked at afterwards.

use std::{process::Command, time::Duration};

use bowline_sandbox::{
    archive,
    shell::{Shell, ShellOptions, ShellState},
    tools,
    workspace::{Overlay, WorkspaceLimits, WriteOptions},
};
use bowline_testkit::seeded::asked;

use crate::{
    git_hostile,
    support::{World, put},
};

/// Most memory that hostile work may take, in KiB.
const MEMORY: u64 = 512 << 10;
const CHILD: &str = "BOWLINE_HOSTILE";

/// Commands that would take all there is, each with what its message must say, and the seconds it gets.
const COMMANDS: &[(&str, &str, u64)] = &[
    ("while :; do echo x >> f; cat f f > g; mv g f; done", "", 10),
    ("yes > endless", "limit", 10),
    ("yes | head -c 10G", "", 10),
    ("yes | head -c 10G > f", "", 10),
    ("x=a; while :; do x=$x$x; done", "", 10),
    ("yes | tr -d '\\n' | wc -c", "", 10),
    ("f() { f | f & f; }; f", "", 3),
    ("f() { (f); (f) & wait; }; f", "", 3),
    ("f() { f; }; f", "", 3),
    ("while :; do (:) & done", "", 3),
    ("eval $(printf '(%.0s' $(seq 5000))", "", 3),
    ("x=$(printf '$(%.0s' $(seq 3000)); eval \"echo $x\"", "", 3),
    ("seq 100000000 | sort -n | tail -1", "", 10),
    ("awk 'BEGIN { while (1) s = s s \"aaaaaaaa\" }'", "", 10),
    (
        "awk 'BEGIN { while (1) a[n++] = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" n }'",
        "",
        10,
    ),
    ("jq -n '[range(100000000)] | length'", "", 10),
    // Readers that collect what a loop writes.
    (
        "x=$(yes | head -c 1000000); while :; do echo \"$x\"; done | sort | tail -1",
        "memory",
        60,
    ),
    (
        "x=$(yes | head -c 4000000); while :; do sort <<< \"$x\"; done | wc -l",
        "memory",
        60,
    ),
    (
        "while :; do head -c 1M /dev/zero; done | xxd | tail -1",
        "memory",
        60,
    ),
    (
        "while :; do awk 'BEGIN { for (i = 0; i < 200000; i++) print i }'; done | sort -n",
        "memory",
        60,
    ),
    ("{ yes; yes; yes; } | sort | tail -1", "", 30),
    (
        "{ yes; yes; yes; yes; yes; yes; yes; yes; yes; yes; yes; yes; yes; yes; } | sort | tail -1",
        "",
        30,
    ),
    (
        "yes | head -c 60M > f; cat f f f f f f f f f f f f f f f f | sort | tail -1",
        "",
        30,
    ),
    (
        "yes | head -c 60M > f; x=$(cat f f f f f f f f f f)",
        "",
        30,
    ),
    (
        "yes | head -c 30M > f; while :; do gzip -c f > g; cat g g > h; sort f f f f f f > /dev/null; done",
        "",
        20,
    ),
    // What holds its whole input, behind what makes more lines of it.
    ("yes | head -c 9M | sort | tail -1", "sort holds", 60),
    (
        "yes | head -c 4M | sed 's/./&\\n&\\n&\\n&/g' | sort | tail -1",
        "holds",
        60,
    ),
    ("yes | head -c 9M | column -t | tail -1", "column holds", 60),
    (
        "{ printf '%9999s x\\n' a; seq 100000 | sed 's/$/ b/'; } | column -t | tail -1",
        "column holds",
        60,
    ),
    (
        "yes | head -c 9M | paste - - - | tail -1",
        "paste holds",
        60,
    ),
    ("yes | head -c 9M | shuf | tail -1", "shuf holds", 60),
    ("shuf -i 1-1000000000 | tail -1; exit 1", "more than", 60),
    (
        "shuf -r -n 1000000000 -e a b | tail -1; exit 1",
        "more than",
        60,
    ),
    ("yes | head -c 9M | tac | tail -1", "tac holds", 60),
    ("yes | head -c 9M | uniq -D | tail -1", "uniq holds", 60),
    ("yes | head -c 9M | nl -w 9999 | tail -1", "nl holds", 60),
    ("yes | head -c 9M | jq -R . | tail -1", "jq holds", 60),
    ("yes | head -c 9M | rg y | tail -1", "rg holds", 60),
    (
        "yes | head -c 9M | diff - /dev/null | tail -1",
        "diff holds",
        60,
    ),
    (
        "yes , | head -c 4M | cut -d, -f1- --output-delimiter=\"$(printf '%9999s' x)\" | tail -1",
        "cut holds",
        60,
    ),
    (
        "awk 'BEGIN { for (i = 0; i < 4000000; i++) print \"y\" }' | sort | tail -1",
        "sort holds",
        90,
    ),
    (
        "while :; do awk 'BEGIN { for (i = 0; i < 2000000; i++) print \"y\" }'; done | xargs echo",
        "",
        60,
    ),
    (
        "{ yes; yes; yes; yes; } | xargs -n 100000 echo | tail -c 5",
        "",
        60,
    ),
    ("mapfile a < <(yes | head -c 9M); exit 1", "max", 60),
    ("{ yes; yes; yes; yes; yes; yes; } | mapfile a", "", 60),
    ("x=$(yes | head -c 9M | sed 's/./&&/g')", "", 60),
    ("x=$(while :; do yes | head -c 1M; done)", "", 60),
    ("x=a; while :; do x+=$x; done", "", 60),
    (
        "a=(); while :; do a+=(\"$(yes | head -c 100000)\"); done",
        "",
        60,
    ),
    (
        "x=$(yes | head -c 7M); cat <<< \"$x$x$x\" | sort <<< \"$x\"",
        "",
        60,
    ),
    (
        "f() { cat; }; { yes; yes; yes; yes; yes; yes; yes; yes; } | f | wc -l",
        "",
        60,
    ),
    (
        "yes | head -c 9M > f; while read -r a; do cat f; done < f",
        "",
        60,
    ),
    (
        "yes | head -c 6M > f; sort f | sort | sort | sort | sort; false",
        "",
        60,
    ),
];

/// The commands that are always run; `BOWLINE_HOSTILE_ALL=1` runs all, `BOWLINE_HOSTILE_CASE=7` one.
const BRIEF: [usize; 18] = [
    0, 1, 3, 4, 6, 8, 10, 16, 20, 21, 25, 27, 28, 29, 36, 39, 41, 43,
];

/// Each in a process of its own, so that one's memory is not counted with another's.
#[test]
fn hostile_work_is_stopped_in_bounded_memory() {
    // After the commands come the archive, the long line, hostile repositories, and many agents at once.
    let only: Option<usize> = asked("BOWLINE_HOSTILE_CASE");
    let all = std::env::var_os("BOWLINE_HOSTILE_ALL").is_some();
    for case in 0..COMMANDS.len() + 4 {
        let wanted = match only {
            Some(only) => only == case,
            None => all || case >= COMMANDS.len() || BRIEF.contains(&case),
        };
        if !wanted {
            continue;
        }
        let began = std::time::Instant::now();
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
        let took = began.elapsed().as_secs_f32();
        println!(
            "{peak:>9} KiB, {took:.1} s: {case} {:?}",
            COMMANDS.get(case)
        );
        assert!(peak < MEMORY, "{peak} KiB: {out}");
    }
}

/// What a child runs; in the parent's own run of all tests it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_work() {
    let Ok(case) = std::env::var(CHILD) else {
        return;
    };
    let world = World::with_limits(WorkspaceLimits {
        bytes: 4 << 30,
        file_bytes: 2 << 30,
        ..WorkspaceLimits::default()
    });
    let overlay = world.begin().await;
    let Ok(case) = case.parse::<usize>() else {
        // A script by hand: what it says, and its memory.
        let shell = Shell::new();
        let outcome = shell
            .run(
                &overlay,
                ShellState::default(),
                &case,
                &ShellOptions::default(),
            )
            .await;
        let out = outcome.stdout.chars().take(200).collect::<String>();
        println!("{} {}[{out}]", outcome.exit_code, outcome.stderr);
        println!("peak {}", peak());
        return;
    };
    match COMMANDS.get(case) {
        Some((command, message, seconds)) => stopped(&overlay, command, message, *seconds).await,
        None if case == COMMANDS.len() => bomb(&overlay).await,
        None if case == COMMANDS.len() + 1 => long_line(&world).await,
        None if case == COMMANDS.len() + 2 => git_hostile::all_are_refused().await,
        None => neighbours().await,
    }
    println!("peak {}", peak());
}

async fn stopped(overlay: &Overlay, command: &str, message: &str, seconds: u64) {
    let options = ShellOptions {
        timeout: Duration::from_secs(seconds),
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
    println!("{}", outcome.stderr.lines().last().unwrap_or_default());
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

/// A line of 1 GiB, written in steps, for each tool.
async fn long_line(world: &World) {
    let piece = bytes::Bytes::from(vec![b'a'; 64 << 20]);
    for _ in 0..16 {
        let overlay = world.begin().await;
        let options = WriteOptions::with_parents();
        overlay
            .append("line", piece.clone(), &options)
            .await
            .unwrap();
        world.commit(&overlay).await;
    }
    drop(piece);
    let overlay = world.begin().await.child();
    assert_eq!(overlay.stat("line").await.unwrap().size, 1 << 30);
    let input = |json: &str| serde_json::from_str(json).unwrap();
    let read = tools::read(&overlay, input(r#"{"path": "line"}"#))
        .await
        .unwrap();
    assert!(read.text.len() < 60 << 10);
    let found = tools::grep(
        &overlay,
        serde_json::from_str(r#"{"pattern": "aaa$", "path": "line"}"#).unwrap(),
    )
    .await
    .unwrap();
    assert!(
        found.text.len() < 60 << 10 && found.text.contains("too large"),
        "{}",
        found.text
    );
    let edit = r#"{"path": "line", "oldText": "b", "newText": "c"}"#;
    let edited = tools::edit(&overlay, serde_json::from_str(edit).unwrap()).await;
    assert!(edited.unwrap_err().to_string().contains("too large"));
    for (command, message) in [
        ("wc -w line", "too large"),
        ("sed -i s/a/b/ line", "too large"),
        ("grep b line", "too large"),
        ("cat line line | tail -c 5", "memory"),
    ] {
        let shell = Shell::new();
        let outcome = shell
            .run(
                &overlay,
                ShellState::default(),
                command,
                &ShellOptions::default(),
            )
            .await;
        assert_ne!(outcome.exit_code, 0, "{command}: {outcome:?}");
        assert!(outcome.stderr.contains(message), "{command}: {outcome:?}");
    }
}

/// One that takes all memory, and others beside it that do their work.
async fn neighbours() {
    let worlds: Vec<World> = (0..4).map(|_| World::new()).collect();
    let hostile = worlds[0].begin().await;
    let shell = Shell::new();
    let options = ShellOptions {
        timeout: Duration::from_secs(60),
        ..ShellOptions::default()
    };
    let command = "x=$(yes | head -c 1000000); while :; do echo \"$x\"; done | sort";
    let stop = std::sync::atomic::AtomicBool::new(false);
    let others = futures::future::join_all(worlds[1..].iter().map(|world| async {
        let overlay = world.begin().await;
        let (shell, mut state, mut runs) = (Shell::new(), ShellState::default(), 0);
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let work =
                "for i in $(seq 50); do echo line $i; done | sort -r | wc -l; seq 1000 | tail -1";
            let outcome = shell
                .run(&overlay, state, work, &ShellOptions::default())
                .await;
            assert_eq!(outcome.stdout, "50\n1000\n", "{}", outcome.stderr);
            (state, runs) = (outcome.state, runs + 1);
        }
        runs
    }));
    let taken = async {
        let outcome = shell
            .run(&hostile, ShellState::default(), command, &options)
            .await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    };
    let (outcome, runs) = futures::join!(taken, others);
    assert!(outcome.stderr.contains("memory"), "{}", outcome.stderr);
    println!("others ran {runs:?} times");
    assert!(runs.iter().all(|runs| *runs > 0), "{runs:?}");
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
