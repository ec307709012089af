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
