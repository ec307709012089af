//! What many actors cost.
//!
//! `cargo test -p bowline-runtime --test it scale -- --ignored --nocapture` prints the figures.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_runtime::{
    Program, Runtime, RuntimeOptions, Sources,
    alarm::{NewSchedule, When},
};
use bowline_store::{SqliteOptions, SqliteStore, Store};
use bowline_testkit::seeded::asked;
use bowline_testkit::sim::{
    journal::{Event, Journal},
    program::{Plan, Planned},
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::{HOUR, actor, new};

/// Where the second process finds what the first one left.
const DIR: &str = "BOWLINE_SCALE_DIR";
/// Actors; 100,000 by default.
const ACTORS: &str = "BOWLINE_SCALE_ACTORS";
/// Open submissions that the second process goes on with.
const IN_FLIGHT: usize = 1_000;
/// Wakes whose latency is measured.
const WAKES: u64 = 200;

fn open(dir: &Path, journal: &Arc<Journal>) -> (Arc<SqliteStore>, Runtime) {
    let store = SqliteStore::open(dir, SqliteOptions::default()).unwrap();
    let program: Arc<dyn Program> = Planned::new(journal.clone());
    let programs = [("planned".to_owned(), program)];
    let options = RuntimeOptions::default();
    let runtime = Runtime::new(store.clone(), Sources::system(), options, programs);
    (store, runtime)
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or(0)
}

fn after(millis: u64) -> NewSchedule {
    NewSchedule::new(When::After { millis }, Plan::steps(1).payload())
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    if let Some(dir) = std::env::var_os(DIR) {
        return second(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    first(dir.path(), asked(ACTORS).unwrap_or(100_000));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["scale::figures", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success());
}

/// Actors that sleep, and some that are cut in the middle of their work.
#[tokio::main]
async fn first(dir: &Path, count: usize) {
    let (store, runtime) = open(dir, &Arc::default());
    let began = Instant::now();
    let far = u64::try_from((HOUR * 24).as_millis()).unwrap();
    let sleeping = (0..count).map(|number| {
        let runtime = runtime.clone();
        async move {
            let id = actor(&format!("idle-{number}"));
            runtime.schedule(&id, after(far)).await.unwrap();
        }
    });
    futures::stream::iter(sleeping)
        .buffer_unordered(512)
        .for_each(|()| async {})
        .await;
    let held = Plan::steps(2).pausing(HOUR);
    for number in 0..IN_FLIGHT {
        let id = actor(&format!("open-{number}"));
        runtime.submit(&id, new(&held)).await.unwrap();
    }
    println!(
        "made {count} sleeping and {IN_FLIGHT} open actors in {:?}",
        began.elapsed()
    );
    // As after a crash: nothing is drained.
    store.close().await;
}

#[tokio::main]
async fn second(dir: &Path) {
    let journal = Arc::<Journal>::default();
    let began = Instant::now();
    let (store, runtime) = open(dir, &journal);
    let opened = began.elapsed();
    let recovery = runtime.recover(Duration::from_secs(60)).await;
    println!(
        "opened in {opened:?}; {} went on within {:?}, more: {}",
        recovery.woken,
        began.elapsed(),
        recovery.more
    );
    println!("resident with {} awake: {} KiB", recovery.woken, resident());
    let stop = CancellationToken::new();
    let supervising = {
        let (runtime, stop) = (runtime.clone(), stop.clone());
        tokio::spawn(async move { runtime.supervise(stop).await })
    };
    let cpu = cpu_millis();
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("CPU of two idle seconds: {} ms", cpu_millis() - cpu);
    wakes("awake", &runtime, &journal).await;
    stop.cancel();
    supervising.await.unwrap();
    assert!(runtime.drain(Duration::from_secs(60)).await);
    let options = RuntimeOptions {
        idle: Duration::ZERO,
        ..RuntimeOptions::default()
    };
    let program: Arc<dyn Program> = Planned::new(journal.clone());
    let programs = [("planned".to_owned(), program)];
    let sleepy = Runtime::new(store.clone(), Sources::system(), options, programs);
    let stop = CancellationToken::new();
    let (supervised, stopped) = (sleepy.clone(), stop.clone());
    tokio::spawn(async move { supervised.supervise(stopped).await });
    wakes("sleeping", &sleepy, &journal).await;
    stop.cancel();
    println!(
        "resident: {} KiB, {} flushes",
        resident(),
        store.metrics().flushes
    );
    store.close().await;
}

/// How late actors begin with what is due.
async fn wakes(what: &str, runtime: &Runtime, journal: &Journal) {
    let mut late = Vec::new();
    for number in 0..WAKES {
        let id = actor(&format!("{what}-{number}"));
        let schedule = runtime.schedule(&id, after(20)).await.unwrap();
        let place = |event: &Event| matches!(event, Event::Executed { actor, .. } if *actor == id);
        while !journal.events().iter().any(place) {
            journal.pushed.notified().await;
        }
        late.push(runtime.sources().now().since(schedule.next));
    }
    late.sort();
    let (half, most) = (late[late.len() / 2], late[late.len() * 99 / 100]);
    println!("wake of an actor that is {what}: p50 {half:?}, p99 {most:?}");
}

/// CPU time of this process so far.
fn cpu_millis() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0)) * 10
}
