//! `bowline bench`.

use serde_json::Value;

use crate::world::World;

/// The report of a bench, which has left nothing.
fn bench(arguments: &[&str]) -> Value {
    let world = World::empty();
    let line = [&["bench"], arguments, &["--dir", ".", "--json"]].concat();
    let ran = world.run(&line);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(world.files().is_empty());
    ran.lines().remove(0)
}

#[test]
fn the_bench_of_the_store_prints_both_ways_to_commit_and_leaves_nothing() {
    let report = bench(&["store", "--rounds", "1", "--millis", "5"]);
    let rows = report["rows"].as_array().unwrap();
    let actors: Vec<_> = rows
        .iter()
        .map(|row| row["actors"].as_u64().unwrap())
        .collect();
    assert_eq!(actors, [1, 1, 16, 16, 64, 64, 1000, 1000]);
    assert!(report["rawFlushesPerSecond"]["best"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_bench_of_the_workspace_prints_every_operation_and_leaves_nothing() {
    let report = bench(&["workspace", "--rounds", "1", "--rg", "/nowhere/rg"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for wanted in [
        "one durable step",
        "1,000 durable steps",
        "read",
        "glob",
        "grep",
        "edit",
        "fork",
        "bash",
    ] {
        let row = |row: &&Value| row["what"].as_str().unwrap().contains(wanted);
        let row = rows.iter().find(row).unwrap();
        assert!(row["wallMs"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(
        report["notes"][0]
            .as_str()
            .unwrap()
            .contains("no ratio to ripgrep")
    );
}

#[test]
fn after_a_kill_everything_in_flight_goes_on_and_nothing_is_done_twice() {
    let report = bench(&["recovery", "--conversations", "60"]);
    let figures = &report["figures"];
    for none in ["lost", "doubled", "settledTwice"] {
        assert_eq!(figures[none], 0, "{figures}");
    }
    assert!(figures["resumedMs"].as_f64() <= figures["settledMs"].as_f64());
}

#[test]
fn the_bench_of_idle_instances_wakes_some_and_leaves_nothing() {
    let report = bench(&["idle", "--instances", "200"]);
    let figures = &report["figures"];
    assert_eq!(
        (&figures["instances"], &figures["woken"]),
        (&200.into(), &100.into())
    );
    assert!(figures["residentMib"].as_f64().unwrap() > 0.0, "{figures}");
}

#[test]
fn the_bench_of_the_server_measures_turns_readers_and_what_waits() {
    let report = bench(&[
        "http",
        "--conversations",
        "1,4",
        "--millis",
        "100",
        "--followers",
        "50",
        "--parked",
        "10",
        "--long",
        "20",
    ]);
    let rows = report["rows"].as_array().unwrap();
    let of = |what: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row["what"].as_str().unwrap().starts_with(what))
            .unwrap_or_else(|| panic!("{what}: {}", report))
    };
    for tools in [0, 5] {
        let row = of(&format!("turns, 4 at once, {tools} tool calls"));
        assert!(
            row["perSecond"].as_f64() > Some(0.0) && row["p99Ms"].as_f64() >= row["p50Ms"].as_f64()
        );
    }
    assert!(of("  until a message is accepted")["p50Ms"].as_f64() > Some(0.0));
    // Both commits of twenty messages, seen by each reader.
    let delivered = of("commit to reader, 50 readers")["what"].as_str().unwrap();
    let came: usize = delivered.split(' ').rev().nth(1).unwrap().parse().unwrap();
    assert!(came > 50 * 20 && came <= 50 * 20 * 2, "{delivered}");
    of("10 conversations that wait for a person");
    of("50 readers at rest");
    of("one conversation, from turn 20 on");
}

/// `BOWLINE_SOAK_SECONDS=600` makes it as long as `bowline bench soak` is.
#[test]
fn a_server_that_works_for_long_does_not_grow() {
    let seconds = std::env::var("BOWLINE_SOAK_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let report = bench(&["soak", "--seconds", &seconds]);
    let figures = &report["figures"];
    let last = figures["pauses"].as_array().unwrap().last().unwrap();
    assert!(
        last["turns"].as_u64() > Some(64) && last["cuts"].as_u64() > Some(0),
        "{figures}"
    );
    assert_eq!(figures["grown"].as_array().unwrap().len(), 0, "{figures}");
}

#[test]
fn the_bench_of_isolates_prints_every_figure_and_leaves_nothing() {
    let report = bench(&[
        "isolate",
        "--runs",
        "16",
        "--live",
        "20",
        "--parked",
        "20",
        "--agents",
        "20",
        "--qjs",
        "there-is-none",
    ]);
    let rows: Vec<_> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["what"].as_str().unwrap())
        .collect();
    for part in [
        "boot, engine compiled",
        "boot, engine from the cache",
        "fresh isolate to its result, 1 + 1, 1 threads",
        "fresh isolate, three calls, 16 threads",
        "call of a binding",
        "save, trivial program",
        "size, 200 objects and a Map",
        "20 programs started and parked",
        "memory of one",
        "fib(27)",
        "wall beyond it",
        "1 + 1 beside those forms",
        "types stripped, 2000 lines",
        "20 agents at once",
    ] {
        assert!(
            rows.iter().any(|row| row.contains(part)),
            "{part}: {rows:?}"
        );
    }
    assert!(
        report["notes"][0]
            .as_str()
            .unwrap()
            .contains("there-is-none")
    );
}
