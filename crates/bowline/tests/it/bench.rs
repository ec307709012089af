//! `bowline bench`.

use crate::world::World;

#[test]
fn the_bench_of_the_store_prints_both_ways_to_commit_and_leaves_nothing() {
    let world = World::empty();
    let line = [
        "bench", "store", "--rounds", "1", "--millis", "5", "--dir", ".", "--json",
    ];
    let ran = world.run(&line);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let lines = ran.lines();
    let rows = lines[0]["rows"].as_array().unwrap();
    let actors: Vec<_> = rows
        .iter()
        .map(|row| row["actors"].as_u64().unwrap())
        .collect();
    assert_eq!(actors, [1, 1, 16, 16, 64, 64, 1000, 1000]);
    assert!(lines[0]["rawFlushesPerSecond"]["best"].as_f64().unwrap() > 0.0);
    assert!(world.files().is_empty());
}

#[test]
fn after_a_kill_everything_in_flight_goes_on_and_nothing_is_done_twice() {
    let world = World::empty();
    let line = [
        "bench",
        "recovery",
        "--conversations",
        "60",
        "--dir",
        ".",
        "--json",
    ];
    let ran = world.run(&line);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let figures = &ran.lines()[0]["figures"];
    for none in ["lost", "doubled", "settledTwice"] {
        assert_eq!(figures[none], 0, "{figures}");
    }
    assert!(figures["resumedMs"].as_f64() <= figures["settledMs"].as_f64());
    assert!(world.files().is_empty());
}

#[test]
fn the_bench_of_idle_instances_wakes_some_and_leaves_nothing() {
    let world = World::empty();
    let line = [
        "bench",
        "idle",
        "--instances",
        "200",
        "--dir",
        ".",
        "--json",
    ];
    let ran = world.run(&line);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let figures = &ran.lines()[0]["figures"];
    assert_eq!(
        (&figures["instances"], &figures["woken"]),
        (&200.into(), &100.into())
    );
    assert!(figures["residentMib"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(world.files().is_empty());
}
