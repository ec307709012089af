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
