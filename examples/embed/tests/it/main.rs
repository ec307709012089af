//! The example, killed for real.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Starts the example; its lines are read as they come.
fn start(dir: &Path) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bowline-embed"))
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map(Result::unwrap))
}

#[test]
fn each_step_is_done_once_although_the_process_is_killed_after_every_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut told, mut processes) = (Vec::new(), BTreeSet::new());
    loop {
        let (mut child, mut lines) = start(dir.path());
        processes.insert(child.id());
        assert!(processes.len() <= 10, "it makes no progress: {told:?}");
        let line = lines.next().unwrap();
        if let Some(done) = line.strip_prefix("done ") {
            assert!(child.wait().unwrap().success());
            let steps: Vec<_> = (1..).zip(done.split(',')).collect();
            assert_eq!(steps.len(), 5, "{done}");
            for (number, step) in steps {
                let step = step.trim_matches(['[', ']', '"']);
                let (of, process) = step.split_once(" in ").unwrap();
                assert_eq!(of, number.to_string(), "{done}");
                assert!(processes.contains(&process.parse().unwrap()), "{done}");
            }
            break;
        }
        told.push(line);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let once: BTreeSet<_> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "no step is done again: {told:?}");
    assert!(processes.len() > 2, "it was killed in between");
    let (mut child, mut lines) = start(dir.path());
    assert!(lines.next().unwrap().starts_with("done "), "at once");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_example_is_short() {
    let source = include_str!("../../src/main.rs");
    assert!(source.lines().count() < 60);
}
