//! Runs that are stopped, and go on.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command},
};

use crate::world::World;

/// The second answer never comes.
const STUCK: &str = r#"
turns:
  - text: "I write."
    tools: [{name: bash, input: {command: "echo one >> log.txt"}}]
  - text: "never"
    stream: {chars: 1, delay_ms: 600000}
"#;
/// It comes, and what the first one did was done once.
const GOES_ON: &str = r#"
turns:
  - text: "never asked again"
    expect: {matches: "this would be a second first call"}
  - text: "I count."
    tools: [{name: bash, input: {command: "wc -l < log.txt"}}]
  - text: "Done."
    expect: {last_tool: bash, matches: "^\\s*1\\s*$"}
"#;
const LINE: [&str; 6] = ["run", "demo", "-m", "write", "--id", "a"];

/// Starts the run and waits until its first tool call is durable.
fn begun(world: &World) -> Child {
    let mut child = world.command(&LINE).spawn().unwrap();
    let errors = BufReader::new(child.stderr.take().unwrap());
    let found = errors
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("✓ bash"));
    assert!(found.is_some());
    child
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill")
        .arg(signal)
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(sent.success());
}

fn goes_on(world: &World) {
    world.write("agents/demo/demo.yaml", GOES_ON);
    let ran = world.run(&LINE);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "Done.\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("resuming"), "{}", ran.stderr);
    let show = world.run(&["show", "demo", "a", "--json"]);
    let history = &show.lines()[0];
    assert_eq!(history["settlements"].as_array().unwrap().len(), 1);
    assert_eq!(history["submissions"].as_array().unwrap().len(), 0);
}

#[test]
fn a_killed_run_goes_on_with_the_same_line() {
    let world = World::with_script(STUCK);
    let mut child = begun(&world);
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&world);
}

#[test]
fn an_interrupted_run_stays_resumable() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let world = World::with_script(STUCK);
        let mut child = begun(&world);
        send(signal, &child);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        goes_on(&world);
    }
}

#[test]
fn an_interrupted_run_names_a_line_that_a_shell_takes() {
    let world = World::with_script(STUCK);
    let mut child = world
        .command(&["run", "demo", "-m", "it's me"])
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(errors.any(|line| line.contains("✓ bash")));
    send("-INT", &child);
    let goes_on = r"bowline run demo -m 'it'\''s me' --id ";
    assert!(errors.any(|line| line.contains(goes_on)));
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn what_is_open_is_shown_beside_the_run_and_can_be_aborted_after_it() {
    let world = World::with_script(STUCK);
    let mut child = begun(&world);
    let show = world.run(&["show", "demo", "a"]);
    assert!(show.stdout.contains("open: sub_"), "{}", show.stdout);
    child.kill().unwrap();
    child.wait().unwrap();
    insta::assert_snapshot!("abort", world.run(&["abort", "demo", "a"]).all());
    insta::assert_snapshot!("abort_nothing", world.run(&["abort", "demo", "a"]).all());
    let show = world.run(&["show", "demo", "a", "--json"]);
    assert_eq!(show.lines()[0]["settlements"][0]["outcome"], "aborted");
}

#[test]
fn another_process_follows_what_becomes_durable() {
    let world = World::with_script(STUCK);
    let mut child = begun(&world);
    let mut tail = world
        .command(&["tail", "demo", "a", "--all", "--exit", "--json"])
        .spawn()
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    world.write("agents/demo/demo.yaml", GOES_ON);
    assert_eq!(world.run(&LINE).status, 0);
    let lines = BufReader::new(tail.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(
        lines
            .into_iter()
            .any(|line| line.contains("submission-settled"))
    );
    assert!(tail.wait().unwrap().success());
}
