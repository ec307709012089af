//! The files of a conversation from the command line.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use crate::world::World;

const SCRIPT: &str = r#"
turns:
  - text: "I write."
    tools:
      - {name: write, input: {path: "src/a.txt", content: "needle one\n"}}
      - {name: bash, input: {command: "echo two > b.txt; ln -s b.txt link; chmod 755 b.txt"}}
  - text: "Done."
  - text: "Again."
by_message:
  - match: "check"
    turns:
      - tools: [{name: bash, input: {command: "cat src/a.txt new.txt"}}]
      - tools: [{name: write, input: {path: "src/a.txt", content: "mine\n"}}]
        expect: {last_tool: bash, matches: "from outside"}
      - text: "Seen."
        expect: {last_tool: write, matches: "had been changed since you last read it"}
"#;

fn answered() -> World {
    let world = World::with_script(SCRIPT);
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "a"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    world
}

fn with_input(world: &World, args: &[&str], input: &[u8]) -> (i32, String) {
    let mut child = world.command(args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn files_are_listed_read_searched_and_copied_out() {
    let world = answered();
    let ws = |args: &[&str]| {
        let mut all = vec!["workspace", args[0], "demo", "a"];
        all.extend(&args[1..]);
        world.run(&all)
    };
    insta::assert_snapshot!("workspace_ls", ws(&["ls", "-r"]).all());
    insta::assert_snapshot!("workspace_ls_json", ws(&["ls", "--json"]).all());
    assert_eq!(ws(&["cat", "src/a.txt"]).stdout, "needle one\n");
    assert_eq!(ws(&["grep", "need"]).stdout, "src/a.txt:1:needle one\n");
    assert_eq!(ws(&["grep", "absent"]).status, 1);
    insta::assert_snapshot!("workspace_missing", ws(&["cat", "no.txt"]).all());
    assert_eq!(ws(&["get", ".", "out"]).status, 0);
    assert_eq!(
        std::fs::read_to_string(world.path().join("out/link")).unwrap(),
        "two\n"
    );
    // What is there is not touched.
    assert_ne!(ws(&["get", "b.txt", "out"]).status, 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let script = world.path().join("run.sh");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(ws(&["put", "run.sh", "run.sh"]).status, 0);
        assert_eq!(ws(&["get", "run.sh", "back.sh"]).status, 0);
        let back = std::fs::metadata(world.path().join("back.sh")).unwrap();
        assert_eq!(back.permissions().mode() & 0o100, 0o100);
    }
}

#[test]
fn changes_from_outside_are_seen_by_the_next_turn() {
    let world = answered();
    let (status, told) = with_input(
        &world,
        &["workspace", "put", "demo", "a", "new.txt"],
        b"from outside\n",
    );
    assert_eq!(status, 0, "{told}");
    let (status, told) = with_input(
        &world,
        &["workspace", "put", "demo", "a", "src/a.txt"],
        b"theirs\n",
    );
    assert_eq!(status, 0, "{told}");
    let ran = world.run(&["run", "demo", "-m", "check", "--id", "a"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "Seen.\n"),
        "{}",
        ran.stderr
    );
    // Who did it is remembered.
    let log = world.run(&["workspace", "log", "demo", "a"]);
    insta::assert_snapshot!("workspace_log", log.all());
}

#[test]
fn a_snapshot_is_compared_with_and_restored() {
    let world = answered();
    let ws = |args: &[&str]| {
        let mut all = vec!["workspace", args[0], "demo", "a"];
        all.extend(&args[1..]);
        let ran = world.run(&all);
        assert_eq!(ran.status, 0, "{args:?} {}", ran.stderr);
        ran
    };
    ws(&["snapshot", "before"]);
    ws(&["rm", "-r", "src"]);
    let diff = ws(&["diff", "before"]);
    assert_eq!(diff.stdout, "- /workspace/src\n- /workspace/src/a.txt\n");
    insta::assert_snapshot!("workspace_snapshots", ws(&["snapshot"]).all());
    ws(&["restore", "before"]);
    assert_eq!(ws(&["diff", "before"]).stdout, "");
    ws(&["snapshot", "before", "--remove"]);
    assert_eq!(ws(&["snapshot"]).stdout, "");
    assert_eq!(ws(&["cat", "src/a.txt"]).stdout, "needle one\n");
}

#[test]
fn a_tar_stream_goes_out_and_in_again() {
    let world = answered();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    let (status, _) = with_input(
        &world,
        &["workspace", "put", "demo", "a", &long],
        &[7; 700_001],
    );
    assert_eq!(status, 0);
    let output = world
        .command(&["workspace", "export", "demo", "a"])
        .output()
        .unwrap();
    assert!(output.status.success());
    // The machine's tar understands it.
    let out = world.path().join("unpacked");
    std::fs::create_dir(&out).unwrap();
    let mut tar = Command::new("tar")
        .args(["xf", "-"])
        .current_dir(&out)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    assert!(tar.wait().unwrap().success());
    let mut read = Vec::new();
    std::fs::File::open(out.join(&long))
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert_eq!(read, [7; 700_001]);
    assert_eq!(
        std::fs::read_link(out.join("link")).unwrap().to_str(),
        Some("b.txt")
    );
    let (status, told) = with_input(
        &world,
        &["workspace", "import", "demo", "a", "copy"],
        &output.stdout,
    );
    assert_eq!(status, 0, "{told}");
    let cat = world.run(&["workspace", "cat", "demo", "a", "copy/src/a.txt"]);
    assert_eq!(cat.stdout, "needle one\n");
    let (status, told) = with_input(&world, &["workspace", "import", "demo", "a"], b"not a tar");
    assert_eq!(status, 1, "{told}");
}
