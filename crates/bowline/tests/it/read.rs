//! Reading what is stored.

use crate::world::World;

const TOOL: &str = r#"
turns:
  - text: "I look."
    tools:
      - {name: bash, input: {command: "echo one"}}
      - {name: read, input: {path: "no.txt"}}
  - text: "There is **one** line."
"#;

fn answered() -> World {
    let world = World::with_script(TOOL);
    assert_eq!(
        world
            .run(&["run", "demo", "-m", "look", "--id", "a"])
            .status,
        0
    );
    world
}

#[test]
fn a_conversation_is_shown() {
    let world = answered();
    insta::assert_snapshot!("show", world.run(&["show", "demo", "a"]).all());
    insta::assert_snapshot!(
        "show_json",
        world.run(&["show", "demo", "a", "--json"]).all()
    );
}

#[test]
fn a_call_is_named_by_what_it_is_about() {
    let world = World::with_script(
        r#"
turns:
  - tools:
      - {name: bash, input: {command: "\nls\npwd; exit 2\n"}}
      - {name: read, input: {path: "a\u001b[31m.txt"}}
      - {name: glob, input: {path: "x"}}
  - text: "a\u001b[2Jb"
"#,
    );
    assert_eq!(
        world.run(&["run", "demo", "-m", "x", "--id", "a"]).status,
        0
    );
    let shown = world.run(&["show", "demo", "a"]).stdout;
    for part in [
        " bash ls … (",
        "exit 2",
        " read a[31m.txt (",
        r#" glob {"path":"x"} ("#,
        "\na[2Jb\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn a_conversation_is_followed_from_its_first_message() {
    let world = answered();
    insta::assert_snapshot!(
        "tail",
        world.run(&["tail", "demo", "a", "--all", "--exit"]).all()
    );
    insta::assert_snapshot!(
        "tail_json",
        world
            .run(&["tail", "demo", "a", "--all", "--exit", "--json"])
            .all()
    );
}

#[test]
fn agents_are_listed_with_what_is_wrong() {
    let world = answered();
    world.write("agents/broken/agent.md", "---\nmodell: x\n---\n");
    insta::assert_snapshot!(world.run(&["agents"]).all());
}

#[test]
fn doctor_finds_nothing_wrong_or_says_what_to_do() {
    let world = answered();
    insta::assert_snapshot!("doctor_fine", world.run(&["doctor", "--deep"]).all());
    world.write("agents/broken/agent.md", "---\nmodel: antropic/x\n---\n");
    insta::assert_snapshot!("doctor_fail", world.run(&["doctor"]).all());
}

#[test]
fn conversations_are_listed_the_newest_first() {
    let world = World::with_script(
        "turns: [{text: Yes.}]\nby_message:\n  - match: ask\n    turns: [{tools: [{name: bash, input: {command: ls}}]}]\n",
    );
    let none = world.run(&["show"]);
    assert_eq!((none.status, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.contains("bowline run AGENT"), "{}", none.all());
    assert_eq!(world.run(&["show", "nobody"]).status, 1);
    world.write(
        "agents/other/agent.md",
        "---\nmodel: scripted/../demo/demo.yaml\napprovals: {bash: required}\n---\nAnswer.\n",
    );
    world.run(&["run", "demo", "--id", "a", "-m", "The first\nof all"]);
    world.run(&["run", "other", "--id", "b", "-m", "ask me"]);
    world.run(&["run", "demo", "--id", "c", "-m", "The last"]);
    let all = world.run(&["show", "--json"]).lines();
    let rows: Vec<_> = all[0]["conversations"].as_array().unwrap().iter().collect();
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["c", "b", "a"]);
    assert_eq!(rows[1]["state"], "waits");
    assert_eq!(rows[2]["message"], "The first\nof all");
    let two = world.run(&["show", "demo", "--limit", "1"]);
    assert_eq!(two.stdout.lines().count(), 1, "{}", two.all());
    assert!(two.stdout.contains("demo c"), "{}", two.all());
    assert!(two.stderr.contains("1 conversation more"), "{}", two.all());
    assert_eq!(world.run(&["show", "nobody"]).status, 1);
}

#[test]
fn an_agent_that_cannot_run_is_listed_with_the_reason() {
    let world = World::with_script("turns: [{text: Yes.}]");
    for (name, settings) in [
        (
            "alone",
            "model: scripted/../demo/demo.yaml\nbindings: [nope]",
        ),
        ("mute", "model: scripted/none.yaml"),
        ("poor", "model: anthropic/claude-sonnet-4-6"),
    ] {
        let text = format!("---\n{settings}\n---\nAnswer.\n");
        world.write(&format!("agents/{name}/agent.md"), &text);
    }
    let listed = world.run(&["agents", "--json"]).lines();
    let agents = listed[0]["agents"].as_array().unwrap();
    let problems: Vec<_> = agents
        .iter()
        .map(|agent| agent["problem"]["type"].as_str().unwrap_or("none"))
        .collect();
    let expected = [
        "binding_not_found",
        "none",
        "model_script",
        "model_missing_key",
    ];
    assert_eq!(problems, expected, "{listed:?}");
}
