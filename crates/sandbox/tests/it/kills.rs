//! SIGKILL at random moments of a real process that works on a workspace: what is there afterwards is
//! the state before the operation it was at, or the state after it.
//!
//! `BOWLINE_WORKSPACE_KILLS=200 cargo test --package bowline-sandbox --test it kills` kills more often;
//! `BOWLINE_WORKSPACE_SEED=7` runs another sequence.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bowline_sandbox::{
    archive,
    shell::{Shell, ShellOptions, ShellState},
    workspace::{ChangeSet, EntryKind, Overlay, Workspace, WorkspaceLimits, WriteOptions},
};
use bowline_store::{BlobId, SqliteOptions, SqliteStore, Store};
use bowline_testkit::seeded::asked;

use crate::support::{NOW, World};

const CHILD: &str = "BOWLINE_KILLED_CHILD";

/// A small generator (xorshift); the same numbers for the same seed and operation.
struct Dice(u64);

impl Dice {
    fn of(seed: u64, index: u64) -> Self {
        let mixed = (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(1);
        let mut dice = Self(mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1);
        dice.roll(2);
        dice
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn path(&mut self) -> String {
        let (dir, file) = (self.roll(4), self.roll(6));
        if dir == 0 {
            format!("f{file}")
        } else {
            format!("d{dir}/f{file}")
        }
    }
}

/// The name of a snapshot, and what to do.
fn choose(dice: &mut Dice) -> (String, u64) {
    (format!("n{}", dice.roll(3)), dice.roll(16))
}

fn kind(seed: u64, index: u64) -> u64 {
    choose(&mut Dice::of(seed, index)).1
}

/// Operation `index` of a sequence. What it does depends on the state and on the dice only.
async fn operate(world: &World, seed: u64, index: u64) {
    let mut dice = Dice::of(seed, index);
    let (name, kind) = choose(&mut dice);
    match kind {
        0 => commit(world, world.workspace.snapshot(&name, NOW).await).await,
        1 => commit(world, world.workspace.restore(&name, NOW).await).await,
        2 => commit(world, world.workspace.remove_snapshot(&name, NOW).await).await,
        3 => commit(world, world.workspace.fork(&name, "fork").await).await,
        4 => commit(world, world.workspace.remove_fork("fork", NOW).await).await,
        5 | 6 => {
            let fork = open_fork(world);
            if let Ok(overlay) = fork.begin(NOW).await {
                edit(&overlay, &mut dice, index).await;
                let changes = overlay.changes().unwrap();
                if !changes.is_empty() {
                    world.store_changes(&changes).await;
                }
            }
        }
        _ => {
            let overlay = world.begin().await;
            edit(&overlay, &mut dice, index).await;
            let mut changes = overlay.changes().unwrap();
            changes.sign(format!("operation {index}")).unwrap();
            world.commit_changes(&changes).await;
        }
    }
}

fn open_fork(world: &World) -> Workspace {
    Workspace::open_fork(
        world.store.clone(),
        world.actor.clone(),
        "fork",
        world.limits,
    )
}

/// A refusal, such as a name that is taken, changes nothing.
async fn commit<E: std::fmt::Debug>(world: &World, changes: Result<ChangeSet, E>) {
    if let Ok(changes) = changes {
        world.commit_changes(&changes).await;
    }
}

async fn edit(overlay: &Overlay, dice: &mut Dice, index: u64) {
    for _ in 0..=dice.roll(12) {
        let (path, other) = (dice.path(), dice.path());
        // Refusals are part of it: what counts is what gets committed.
        match dice.roll(10) {
            0 | 1 => {
                write(
                    overlay,
                    &path,
                    format!("{index} {}", dice.roll(1000)).into(),
                )
                .await
            }
            2 => write(overlay, &path, vec![dice.roll(256) as u8; 600_000]).await,
            3 => drop(overlay.remove(&path, false, true).await),
            4 => drop(
                overlay
                    .remove(&format!("d{}", dice.roll(4)), true, true)
                    .await,
            ),
            5 => drop(overlay.rename(&path, &other).await),
            6 => drop(overlay.rename(&format!("d{}", dice.roll(4)), "d9").await),
            7 => drop(overlay.symlink(&other, &path).await),
            8 => {
                let script = format!(
                    "mkdir -p d5; for i in 1 2 3; do echo {index} $i >> d5/log; done; cp -r d5 d6"
                );
                let options = ShellOptions::default();
                Shell::new()
                    .run(overlay, ShellState::default(), &script, &options)
                    .await;
            }
            _ => {
                let _ = archive::create_archive(overlay, "a.tgz", &["d1", "d5"]).await;
                let _ = archive::extract_archive(overlay, "a.tgz", "unpacked").await;
            }
        }
    }
}

async fn write(overlay: &Overlay, path: &str, content: Vec<u8>) {
    let options = WriteOptions::with_parents();
    let _ = overlay.write(path, content.into(), &options).await;
}

/// Everything that can be seen: all paths of the workspace and of its fork, and the snapshots with
/// what has changed since.
async fn picture(world: &World) -> String {
    let mut seen = String::new();
    let overlay = world.begin().await;
    walk(&overlay, &mut seen).await;
    for snapshot in world.workspace.snapshots().await.unwrap() {
        let changes = world.workspace.diff(&snapshot.name, None).await.unwrap();
        seen.push_str(&format!("{snapshot:?} {changes:?}\n"));
    }
    if let Ok(fork) = open_fork(world).begin(NOW).await {
        seen.push_str("fork\n");
        walk(&fork, &mut seen).await;
    }
    let feed = world.workspace.feed(0, 1000).await.unwrap();
    seen.push_str(&format!("{:?} {:?}\n", feed.entries.len(), overlay.usage()));
    BlobId::of(seen.as_bytes()).to_string() + "\n" + &seen
}

async fn walk(overlay: &Overlay, seen: &mut String) {
    let mut pending = vec!["/".to_owned()];
    while let Some(at) = pending.pop() {
        for entry in overlay.list(&at).await.unwrap() {
            let path = format!("{}/{}", at.trim_end_matches('/'), entry.name);
            let content = match entry.stat.kind {
                EntryKind::File => BlobId::of(&overlay.read(&path).await.unwrap()).to_string(),
                EntryKind::Symlink => overlay.read_link(&path).await.unwrap(),
                EntryKind::Directory => {
                    pending.push(path.clone());
                    String::new()
                }
            };
            seen.push_str(&format!(
                "{path} {:?} {:o} {content}\n",
                entry.stat.kind, entry.stat.mode
            ));
        }
    }
}

/// The files of the workspace and of its fork, and how each snapshot differs, with nothing in memory
/// yet.
async fn files(store: &Arc<dyn Store>) -> Vec<(String, String)> {
    let world = World::on(store.clone(), WorkspaceLimits::default());
    let mut seen = vec![(String::new(), String::new())];
    walk(&world.begin().await, &mut seen[0].1).await;
    if let Ok(fork) = open_fork(&world).begin(NOW).await {
        seen.push(("fork".to_owned(), String::new()));
        walk(&fork, &mut seen[1].1).await;
    }
    for snapshot in world.workspace.snapshots().await.unwrap() {
        let changes = world.workspace.diff(&snapshot.name, None).await.unwrap();
        seen.push((snapshot.name, format!("{changes:?}")));
    }
    seen
}

#[tokio::test]
async fn removing_a_snapshot_or_the_fork_changes_no_other_file() {
    for seed in [1, 2] {
        let world = World::new();
        for index in 0..500 {
            let removes = matches!(kind(seed, index), 2 | 4);
            let before = match removes {
                true => files(&world.store).await,
                false => Vec::new(),
            };
            operate(&world, seed, index).await;
            if removes {
                let after = files(&world.store).await;
                let mut kept = before.clone();
                kept.retain(|(name, _)| after.iter().any(|(other, _)| other == name));
                assert!(before.len() - kept.len() <= 1);
                assert_eq!(kept, after, "seed {seed}, operation {index}");
            }
        }
    }
}

fn on_disk(directory: &Path) -> World {
    let store: Arc<dyn Store> = SqliteStore::open(directory, SqliteOptions::default()).unwrap();
    World::on(store, WorkspaceLimits::default())
}

/// What is killed: says before each operation that it begins, and after its commit that it is done.
#[tokio::test]
async fn killed_child() {
    let Ok(given) = std::env::var(CHILD) else {
        return;
    };
    let mut given = given.split(' ');
    let (seed, from) = (given.next().unwrap(), given.next().unwrap());
    let (seed, from): (u64, u64) = (seed.parse().unwrap(), from.parse().unwrap());
    let world = on_disk(Path::new(given.next().unwrap()));
    let tell = |what: &str, index: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what} {index}").unwrap();
        out.flush().unwrap();
    };
    for index in from.. {
        tell("begin", index);
        operate(&world, seed, index).await;
        tell("done", index);
    }
}

/// The operations that were begun and done when the child was killed.
fn run_and_kill(directory: &Path, seed: u64, from: u64, dice: &mut Dice) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kills::killed_child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, format!("{seed} {from} {}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let victim = from + dice.roll(12);
    let (mut begun, mut done) = (from, from);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut note = |line: &str| {
        let number = |what| {
            line.rsplit_once(what)
                .and_then(|(_, n)| n.trim().parse::<u64>().ok())
        };
        if let Some(index) = number("begin ") {
            begun = index + 1;
        } else if let Some(index) = number("done ") {
            done = index + 1;
        }
        begun > victim
    };
    while let Some(Ok(line)) = lines.next() {
        if note(&line) {
            break;
        }
    }
    // Not a wait: the moment of the kill is chosen at random inside the operation, or soon after it.
    std::thread::sleep(Duration::from_micros(dice.roll(15_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "the child ended by itself: {status}"
    );
    while let Some(Ok(line)) = lines.next() {
        note(&line);
    }
    (begun, done)
}

#[tokio::test]
async fn a_kill_leaves_the_state_before_or_after_the_operation() {
    let kills = asked("BOWLINE_WORKSPACE_KILLS").unwrap_or(20);
    let seed = asked("BOWLINE_WORKSPACE_SEED").unwrap_or(1);
    let directory = tempfile::tempdir().unwrap();
    let expected = World::new();
    let mut dice = Dice::of(seed, u64::MAX);
    // Operations that are known to be in `expected`.
    let mut at = 0;
    let mut inside = 0;
    for kill in 0..kills {
        let (begun, done) = run_and_kill(directory.path(), seed, at, &mut dice);
        while at < done {
            operate(&expected, seed, at).await;
            at += 1;
        }
        let found = {
            let world = on_disk(directory.path());
            let found = picture(&world).await;
            world.store.verify().await.unwrap();
            world.store.close().await;
            found
        };
        let before = picture(&expected).await;
        if begun > done {
            inside += 1;
        }
        if found != before {
            assert!(
                begun > done,
                "kill {kill}, after operation {at}:\n{found}\n{before}"
            );
            operate(&expected, seed, at).await;
            at += 1;
            let after = picture(&expected).await;
            assert_eq!(found, after, "kill {kill}, operation {at}");
        }
    }
    println!("{kills} kills, {inside} of them inside an operation, {at} operations");
}
