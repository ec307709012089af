//! The example that the README begins with.

use std::path::Path;

use crate::world::World;

/// Runs the suite of the library in the workspace that the triage left.
const CHECK: &str = r#"
turns:
  - tools: [{name: bash, input: {command: "sh tests/run.sh"}}]
  - expect: {last_tool: bash, matches: "passed, 0 failed"}
    text: "The suite passes."
"#;

#[test]
fn the_bug_is_reproduced_fixed_and_reported() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage");
    let example = example.to_str().unwrap();
    let world = World::empty();
    world.write("check.yaml", CHECK);
    let message = format!("@{example}/bug-report.md");
    let place = ["--project", example, "--data", "data", "--id", "t1"];

    let ran = world.run(&[&["run", "triage", "-m", &message][..], &place].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.all());

    let model = format!("scripted/{}/check.yaml", world.path().display());
    let check = world.run(
        &[
            &["run", "triage", "-m", "run the suite", "--model", &model][..],
            &place,
        ]
        .concat(),
    );
    assert_eq!(
        (check.status, check.stdout.as_str()),
        (0, "The suite passes.\n"),
        "{}",
        check.stderr
    );
}
