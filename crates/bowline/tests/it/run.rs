//! Running an agent.

use std::process::{Command, Stdio};

use crate::world::World;

const TOOL: &str = r#"
turns:
  - text: "I look."
    tools: [{name: bash, input: {command: "echo one >> log.txt; cat log.txt; exit 3"}}]
  - text: "There is **one** line."
    expect: {last_tool: bash, matches: "one"}
    usage: {input: 1200, output: 34}
"#;

#[test]
fn a_new_project_runs_at_once() {
    let world = World::empty();
    insta::assert_snapshot!("init", world.run(&["init", "mine"]).all());
    insta::assert_snapshot!("init_twice", world.run(&["init", "mine"]).all());
    insta::assert_snapshot!(
        "init_run",
        world
            .run(&["run", "hello", "--project", "mine", "-m", "hi"])
            .all()
    );
    insta::assert_snapshot!(
        "init_agents",
        world.run(&["agents", "--project", "mine"]).all()
    );
}

#[test]
fn init_changes_no_file_that_is_there() {
    let world = World::empty();
    world.write(".gitignore", "mine\n");
    let ran = world.run(&["init"]);
    assert_eq!(ran.status, 0);
    assert!(ran.stderr.contains("kept .gitignore"), "{}", ran.stderr);
    assert_eq!(
        std::fs::read_to_string(world.path().join(".gitignore")).unwrap(),
        "mine\n"
    );
}

#[test]
fn only_the_answer_is_on_standard_output() {
    let world = World::with_script(TOOL);
    insta::assert_snapshot!(world.run(&["run", "demo", "-m", "look", "--id", "a"]).all());
    let quiet = world.run(&["run", "demo", "-m", "look", "--id", "b", "--quiet"]);
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        ("There is **one** line.\n", "")
    );
}

#[test]
fn the_same_key_never_sends_twice() {
    let world = World::with_script(TOOL);
    let line = ["run", "demo", "-m", "look", "--id", "a", "--key", "k"];
    let first = world.run(&line);
    let again = world.run(&line);
    assert_eq!((first.status, &first.stdout), (again.status, &again.stdout));
    insta::assert_snapshot!(again.all());
    let show = world.run(&["show", "demo", "a", "--json"]);
    assert_eq!(show.lines()[0]["settlements"].as_array().unwrap().len(), 1);
    insta::assert_snapshot!("another_message_under_the_key", {
        world
            .run(&["run", "demo", "-m", "other", "--id", "a", "--key", "k"])
            .all()
    });
}

#[test]
fn json_is_one_object_a_line() {
    let world = World::with_script(TOOL);
    let ran = world.run(&[
        "run", "demo", "-m", "look", "--id", "a", "--json", "--quiet",
    ]);
    assert!(
        ran.lines()
            .iter()
            .all(|line| line["v"] == 1 && line["type"].is_string())
    );
    insta::assert_snapshot!(ran.all());
}

#[test]
fn a_message_may_come_from_a_file_or_standard_input() {
    use std::io::Write as _;
    let world = World::with_script(
        "turns: [{text: \"no\"}]\nby_message: [{match: \"^gr.+n$\", turns: [{text: \"yes\"}]}]\n",
    );
    world.write("message.md", "green");
    assert_eq!(
        world.run(&["run", "demo", "-m", "@message.md"]).stdout,
        "yes\n"
    );
    let mut child = world
        .command(&["run", "demo", "-m", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"green").unwrap();
    assert_eq!(world.ran(child.wait_with_output().unwrap()).stdout, "yes\n");
}

#[test]
fn an_answer_that_fails_says_why() {
    let world = World::with_script("turns: [{text: \"x\", expect: {matches: \"never\"}}]\n");
    insta::assert_snapshot!(world.run(&["run", "demo", "-m", "look", "--id", "a"]).all());
    let json = world.run(&["run", "demo", "-m", "look", "--id", "b", "--json"]);
    assert_eq!(json.lines().last().unwrap()["outcome"], "failed");
    assert_eq!(json.status, 1);
}

#[test]
fn on_a_terminal_text_is_rendered_once_wherever_it_was_cut() {
    let text = r##""# Title\n\nSome *text*.\n\n```sh\nls\n\npwd\n```\n\n- one\n- two\n""##;
    for chars in [1, 5, 100] {
        let world = World::with_script(&format!(
            "turns:\n  - text: {text}\n    stream: {{chars: {chars}}}\n"
        ));
        let binary = env!("CARGO_BIN_EXE_bowline");
        let command = format!("{binary} run demo -m hi 2>/dev/null");
        let ran = Command::new("script")
            .args(["-qfec", &command, "/dev/null"])
            .current_dir(world.path())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output();
        let Ok(ran) = ran else {
            eprintln!("SKIPPED: there is no `script` to make a terminal with");
            return;
        };
        let shown = String::from_utf8(ran.stdout).unwrap().replace('\r', "");
        assert_eq!(
            shown, "Title\n\nSome text.\n\nls\n\npwd\n\n• one\n• two\n\n",
            "pieces of {chars}"
        );
    }
}
