//! Bad input: one line with the next thing to do, exit code 1 or 2, and nothing is written.

use crate::world::{Ran, World};

const HELLO: &str = "turns: [{text: \"Hello!\"}]\n";

/// Runs a line that must fail, and checks that it left no trace.
fn refused(world: &World, args: &[&str]) -> Ran {
    let before = world.files();
    let ran = world.run(args);
    assert!(matches!(ran.status, 1 | 2), "{}", ran.all());
    assert_eq!(ran.stdout, "", "an error is no answer");
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    assert_eq!(world.files(), before, "something was written");
    ran
}

#[test]
fn a_missing_agent() {
    let world = World::with_script(HELLO);
    insta::assert_snapshot!(refused(&world, &["run", "dmo", "-m", "hi"]).all());
}

#[test]
fn an_unknown_key_in_the_front_matter() {
    let world = World::with_script(HELLO);
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\nskils: [a]\n---\nAnswer.\n",
    );
    insta::assert_snapshot!(refused(&world, &["run", "demo", "-m", "hi"]).all());
}

#[test]
fn no_key_for_the_provider() {
    let world = World::with_script(HELLO);
    let line = [
        "run",
        "demo",
        "-m",
        "hi",
        "--model",
        "anthropic/claude-sonnet-4-6",
    ];
    insta::assert_snapshot!(refused(&world, &line).all());
}

#[test]
fn an_unknown_model() {
    let world = World::with_script(HELLO);
    let line = [
        "run",
        "demo",
        "-m",
        "hi",
        "--model",
        "antropic/claude-sonnet-4-6",
    ];
    insta::assert_snapshot!(refused(&world, &line).all());
}

#[test]
fn a_script_that_is_not_there() {
    let world = World::with_script(HELLO);
    insta::assert_snapshot!(
        refused(
            &world,
            &["run", "demo", "-m", "hi", "--model", "scripted/no.yaml"]
        )
        .all()
    );
}

#[test]
fn a_damaged_database() {
    let world = World::with_script(HELLO);
    assert_eq!(
        world.run(&["run", "demo", "-m", "hi", "--id", "a"]).status,
        0
    );
    let log = world.path().join(".bowline/store.db-wal");
    if log.exists() {
        std::fs::remove_file(log).unwrap();
    }
    world.write(".bowline/store.db", &"no database ".repeat(1_000));
    insta::assert_snapshot!(refused(&world, &["run", "demo", "-m", "hi", "--id", "a"]).all());
    assert_eq!(refused(&world, &["show", "demo", "a"]).status, 1);
}

#[test]
fn a_file_in_place_of_the_project() {
    let world = World::with_script(HELLO);
    world.write("file", "");
    insta::assert_snapshot!(
        refused(&world, &["run", "demo", "-m", "hi", "--project", "file"]).all()
    );
}

#[test]
fn a_file_in_place_of_the_data() {
    let world = World::with_script(HELLO);
    world.write("file", "");
    insta::assert_snapshot!(
        refused(&world, &["run", "demo", "-m", "hi", "--data", "file/data"]).all()
    );
}

#[test]
fn no_project() {
    let world = World::empty();
    insta::assert_snapshot!(refused(&world, &["run", "demo", "-m", "hi", "--project", "."]).all());
}

#[test]
fn no_message_and_nobody_to_ask() {
    let world = World::with_script(HELLO);
    insta::assert_snapshot!(refused(&world, &["run", "demo"]).all());
    assert_eq!(refused(&world, &["run", "demo", "-m", " "]).status, 2);
    assert_eq!(refused(&world, &["run", "demo", "-m", "@no.md"]).status, 2);
}

#[test]
fn an_id_that_is_none() {
    let world = World::with_script(HELLO);
    insta::assert_snapshot!(refused(&world, &["run", "demo", "-m", "hi", "--id", "a/b"]).all());
}

#[test]
fn a_conversation_that_is_not_there() {
    let world = World::with_script(HELLO);
    assert_eq!(refused(&world, &["show", "demo", "a"]).status, 2);
    assert_eq!(
        world.run(&["run", "demo", "-m", "hi", "--id", "a"]).status,
        0
    );
    insta::assert_snapshot!(world.run(&["show", "demo", "b"]).all());
}

#[test]
fn wrong_arguments_are_told_in_json_too() {
    let world = World::with_script(HELLO);
    let ran = world.run(&["run", "demo", "--mesage", "hi", "--json"]);
    insta::assert_snapshot!(ran.all());
}

#[test]
fn an_error_is_the_last_line_of_json() {
    let world = World::with_script(HELLO);
    insta::assert_snapshot!(world.run(&["run", "dmo", "-m", "hi", "--json"]).all());
    assert!(!world.path().join(".bowline").exists());
}
