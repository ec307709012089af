//! A run that waits for a person, the commands that answer it, and what `show` says meanwhile.

use serde_json::Value;

use crate::world::World;

const SCRIPT: &str = "turns:\n  - text: May I?\n    tools: [{name: bash, input: {command: echo made > made.txt; cat made.txt}}]\n  - text: Thank you.\nby_message:\n  - match: see\n    turns: [{tools: [{name: glob, input: {pattern: '*'}}]}, {text: Seen.}]\n";

fn world() -> World {
    let world = World::with_script(
        &SCRIPT
            .replace("command: echo", "command: 'echo")
            .replace("cat made.txt}", "cat made.txt'}"),
    );
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\napprovals: {bash: required}\n---\nAsk first.\n",
    );
    world
}

/// Starts a run that parks, and returns the approval that it waits for.
fn park(world: &World) -> String {
    let ran = world.run(&["run", "demo", "--id", "a", "-m", "Go", "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let lines = ran.lines();
    assert_eq!(lines.last().unwrap()["outcome"], "parked");
    let asked = lines
        .iter()
        .find(|line| line["type"] == "approval-requested")
        .unwrap();
    assert_eq!(asked["approval"]["toolName"], "bash");
    asked["approval"]["approvalId"].as_str().unwrap().to_owned()
}

fn shown(world: &World) -> Value {
    world.run(&["show", "demo", "a", "--json"]).lines()[0].clone()
}

#[test]
fn a_run_that_needs_consent_parks_and_names_the_commands_that_answer() {
    let world = world();
    let ran = world.run(&["run", "demo", "--id", "a", "-m", "Go"]);
    insta::assert_snapshot!(ran.all());
    let open = shown(&world);
    assert_eq!(open["submissions"][0]["state"], "parked");
    // The same line again waits for the same approval and sends nothing.
    let again = world.run(&["run", "demo", "--id", "a", "-m", "Go"]);
    assert_eq!(again.status, 0);
    assert_eq!(shown(&world)["approvals"], open["approvals"]);
}

#[test]
fn an_approved_run_goes_on_and_approving_again_changes_nothing() {
    let world = world();
    let id = park(&world);
    let first = world.run(&["approve", &id]);
    assert_eq!(
        (first.status, first.stdout.as_str()),
        (0, "Thank you.\n"),
        "{}",
        first.stderr
    );
    let second = world.run(&["approve", &id]);
    assert_eq!(
        (second.status, second.stdout.as_str()),
        (0, "Thank you.\n"),
        "{}",
        second.stderr
    );
    let other = world.run(&["reject", &id]);
    assert_eq!(other.status, 1);
    assert!(
        other.stderr.contains("answered before, differently"),
        "{}",
        other.stderr
    );
    let messages = shown(&world)["messages"].to_string();
    assert_eq!(messages.matches("output-available").count(), 1);
}

#[test]
fn a_rejected_call_is_not_made_and_an_edited_one_is_made_as_edited() {
    let rejected = world();
    let id = park(&rejected);
    let ran = rejected.run(&["reject", &id, "--reason", "not today"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "Thank you.\n"),
        "{}",
        ran.stderr
    );
    assert!(
        shown(&rejected)["messages"]
            .to_string()
            .contains("not today")
    );

    let edited = world();
    let id = park(&edited);
    let wrong = edited.run(&["approve", &id, "--edit", "{"]);
    assert_eq!(wrong.status, 2);
    let ran = edited.run(&["approve", &id, "--edit", r#"{"command": "echo otherwise"}"#]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(shown(&edited)["messages"].to_string().contains("otherwise"));
}

#[test]
fn an_approval_that_is_not_there_is_named_with_the_next_step() {
    let world = world();
    let ran = world.run(&["approve", "appr_none"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.stderr
            .contains("nothing waits for the approval appr_none"),
        "{}",
        ran.stderr
    );
}

const QUESTION: &str = "turns:\n  - tools: [{name: ask_question, input: {question: When shall it be released?, choices: [{label: today}, {label: Friday, description: after the tests}]}}]\n  - text: Thank you.\n";

fn asking() -> (World, String) {
    let world = World::with_script(QUESTION);
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\ntools: [ask_question]\n---\nAsk.\n",
    );
    let ran = world.run(&["run", "demo", "--id", "a", "-m", "Go"]);
    insta::assert_snapshot!("a_question_is_shown_with_its_choices", ran.all());
    let id = shown(&world)["approvals"][0]["approvalId"].clone();
    (world, id.as_str().unwrap().to_owned())
}

#[test]
fn a_question_is_answered_once_by_the_number_or_the_label_of_a_choice() {
    let (world, id) = asking();
    let wrong = world.run(&["approve", &id]);
    assert_eq!(wrong.status, 1);
    assert!(
        wrong.stderr.contains("this is a question"),
        "{}",
        wrong.stderr
    );
    for answer in ["2", "friday"] {
        let ran = world.run(&["answer", &id, answer]);
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (0, "Thank you.\n"),
            "{}",
            ran.stderr
        );
    }
    let other = world.run(&["answer", &id, "never"]);
    assert!(
        other.stderr.contains("answered before, differently"),
        "{}",
        other.stderr
    );
    assert!(
        shown(&world)["messages"]
            .to_string()
            .contains(r#""answer":"Friday""#)
    );
}

#[test]
fn show_says_what_a_conversation_waits_for_and_what_would_move_it() {
    let parked = world();
    park(&parked);
    insta::assert_snapshot!(
        "waits_for_consent",
        parked.run(&["show", "demo", "a"]).all()
    );
    insta::assert_snapshot!(
        "waits_for_consent_json",
        serde_json::to_string_pretty(&shown(&parked)["waits"])
            .map(|text| crate::world::masked(&text))
            .unwrap()
    );
    let (asked, _) = asking();
    insta::assert_snapshot!(
        "waits_for_an_answer",
        asked.run(&["show", "demo", "a"]).all()
    );
    let answered = world();
    let id = park(&answered);
    answered.run(&["reject", &id]);
    insta::assert_snapshot!(
        "waits_for_nothing",
        answered.run(&["show", "demo", "a"]).all()
    );
}
