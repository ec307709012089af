//! Help that teaches.

use crate::world::World;

const COMMANDS: [&str; 25] = [
    "init",
    "run",
    "show",
    "tail",
    "abort",
    "compact",
    "approve",
    "reject",
    "answer",
    "delete",
    "export",
    "import",
    "backup",
    "restore",
    "agents",
    "workspace",
    "models",
    "spend",
    "auth",
    "serve",
    "dev",
    "bench",
    "code",
    "doctor",
    "completions",
];

#[test]
fn the_help_says_where_to_start() {
    insta::assert_snapshot!(World::empty().run(&["help"]).all());
}

#[test]
fn each_command_has_help_with_examples() {
    let world = World::empty();
    for command in COMMANDS {
        let help = world.run(&[command, "--help"]);
        assert!(
            help.stdout.contains("Examples:"),
            "{command} has no examples"
        );
        insta::assert_snapshot!(format!("help_{command}"), help.all());
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]);
        assert_eq!((script.status, script.stderr.as_str()), (0, ""));
        assert!(script.stdout.contains("doctor"), "{shell}");
    }
}
