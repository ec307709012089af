//! The fuzz bodies over the corpora in the repository, and over small changes of them.

#[allow(unreachable_pub)]
#[path = "../../fuzz/bodies.rs"]
pub(crate) mod bodies;

use std::{fs, path::Path};

/// Each seed as it is, cut short, and with single bytes changed.
fn replay(seed: &[u8], body: bodies::Body) {
    body(seed);
    let step = (seed.len() / 12).max(1);
    for at in (0..seed.len()).step_by(step) {
        body(&seed[..at]);
        for byte in [0, b'/', b'\n', 0xff] {
            let mut changed = seed.to_vec();
            changed[at] = byte;
            body(&changed);
        }
    }
}

#[test]
fn the_corpora_are_replayed() {
    for (name, body) in bodies::ALL {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut seeds: Vec<_> = fs::read_dir(&corpus)
            .unwrap()
            .map(|seed| seed.unwrap().path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{name}");
        let began = std::time::Instant::now();
        for seed in &seeds {
            replay(&fs::read(seed).unwrap(), body);
        }
        let took = began.elapsed().as_secs_f32();
        println!("{name}: {} seeds, {took:.1} s", seeds.len());
    }
}
