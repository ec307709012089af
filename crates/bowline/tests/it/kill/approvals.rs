//! A run that waits for a person, killed before, while and after it is answered.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bowline_runtime::Random as _;
use bowline_testkit::seeded::SeededRandom;
use serde_json::Value;

use crate::world::World;

const SCRIPT: &str = "turns:\n  - text: I look.\n    tools: [{name: bash, input: {command: echo one >> log.txt}}]\n  - text: May I?\n    tools: [{name: bash, input: {command: echo two >> log.txt; cat log.txt}}, {name: ask_question, input: {question: Which?, choices: [{label: red}, {label: blue}]}}]\n  - text: Blue it is.\n    expect: {matches: blue}\n    tools: [{name: bash, input: {command: wc -l < log.txt}}]\n  - text: Done.\n    expect: {last_tool: bash, matches: '^\\s*2\\s*$'}\n";
/// Most commands until it must be over, kills aside.
const MOST: usize = 12;

fn world() -> World {
    let script = SCRIPT
        .replace(
            "command: echo one >> log.txt",
            "command: 'echo one >> log.txt'",
        )
        .replace(
            "command: echo two >> log.txt; cat log.txt",
            "command: 'echo two >> log.txt; cat log.txt'",
        )
        .replace("command: wc -l < log.txt", "command: 'wc -l < log.txt'");
    let world = World::with_script(&script);
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\ntools: [ask_question]\napprovals: {bash: {when: \"search(@.command, 'two')\"}}\n---\nWork.\n",
    );
    world
}

fn shown(world: &World) -> Option<Value> {
    let ran = world.run(&["show", "demo", "a", "--json"]);
    (ran.status == 0).then(|| ran.lines()[0].clone())
}

/// The command that comes next: the message, until nothing is open; the answer to what waits.
fn next(world: &World) -> Option<Vec<String>> {
    let line = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let run = ["run", "demo", "--id", "a", "--key", "k", "-m", "Go"];
    let Some(shown) = shown(world) else {
        return line(&run);
    };
    let waits = shown["waits"].as_array()?.first()?.clone();
    let id = waits["approvalId"].as_str();
    match (waits["type"].as_str()?, id) {
        ("finished", _) => None,
        ("approval", Some(id)) => line(&["approve", id]),
        ("question", Some(id)) => line(&["answer", id, "blue"]),
        _ => line(&run),
    }
}

fn start(world: &World, line: &[String]) -> Child {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    let mut command = world.command(&words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What was said and done, without ids and times.
fn ending(world: &World) -> String {
    let shown = shown(world).unwrap();
    assert_eq!(shown["settlements"].as_array().unwrap().len(), 1);
    assert_eq!(shown["settlements"][0]["outcome"], "completed");
    let answered = shown["messages"].to_string();
    assert_eq!(
        answered.matches("\"state\":\"output-available\"").count(),
        4,
        "{answered}"
    );
    // What was cut stays in the history; what was answered is the same.
    let text = world.run(&["show", "demo", "a"]).all();
    text.lines()
        .filter(|line| !line.contains("what moves it"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_run_that_waits_for_a_person_is_answered_once_whatever_is_killed() {
    let whole = world();
    let began = Instant::now();
    let mut commands = 0_u32;
    while let Some(line) = next(&whole) {
        start(&whole, &line).wait().unwrap();
        commands += 1;
    }
    assert_eq!(commands, 3, "the run, an approval, an answer");
    let each = u64::try_from((began.elapsed() / (2 * commands)).as_micros()).unwrap();
    let expected = ending(&whole);
    let mut kills = 0;
    for seed in super::seeds(10) {
        let random = SeededRandom::new(seed);
        let world = world();
        let mut left = 1 + random.next() % super::MOST_KILLS;
        let mut lived = 0;
        while let Some(line) = next(&world) {
            let mut child = start(&world, &line);
            // Spread over the commands, not all in the first.
            if left > 0 && !random.next().is_multiple_of(3) {
                left -= 1;
                // The moment of a kill is the one thing here that only a clock can decide.
                std::thread::sleep(Duration::from_micros(random.next() % each));
                child.kill().unwrap();
                kills += usize::from(child.wait().unwrap().code().is_none());
                continue;
            }
            child.wait().unwrap();
            lived += 1;
            assert!(lived < MOST, "{}: it does not end", super::replay(seed));
        }
        assert_eq!(ending(&world), expected, "{}", super::replay(seed));
    }
    println!("{kills} kills");
}
