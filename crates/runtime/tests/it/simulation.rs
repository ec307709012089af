//! Worlds of kills, faults and rivals, decided by a seed.

use bowline_testkit::{seeded::asked, sim};

/// `BOWLINE_SIM_SEEDS` worlds (2,000 by default, 10,000 before a release), or the one of
/// `BOWLINE_SIM_SEED`.
#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_is_killed() {
    let seeds = match asked("BOWLINE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("BOWLINE_SIM_SEEDS").unwrap_or(2_000),
    };
    let started = std::time::Instant::now();
    let mut total = sim::Summary::default();
    let worlds = seeds.end - seeds.start;
    for seed in seeds {
        match sim::run(seed) {
            Ok(summary) => {
                total.commits += summary.commits;
                total.processes += summary.processes;
                total.acknowledged += summary.acknowledged;
                total.messages += summary.messages;
                total.fibers += summary.fibers;
                total.unparked += summary.unparked;
                total.deleted += summary.deleted;
            }
            Err(broken) => panic!(
                "seed {seed}: {broken}\nreplay: BOWLINE_SIM_SEED={seed} cargo test -p bowline-runtime --test it simulation"
            ),
        }
    }
    println!("{worlds} worlds in {:?}: {total:?}", started.elapsed());
    if worlds >= 100 {
        // A property of something that never happens says nothing.
        let seen = [
            total.acknowledged,
            total.messages,
            total.fibers,
            total.unparked,
            total.deleted,
        ];
        assert!(seen.iter().all(|count| *count > 20), "{total:?}");
    }
}

#[test]
fn a_seed_always_gives_the_same_world() {
    for seed in [3, 17, 42] {
        assert_eq!(sim::run(seed), sim::run(seed), "seed {seed}");
    }
}
