//! A conversation on a terminal.

use crate::{
    terminal::{CTRL_C, CTRL_D, Terminal},
    world::World,
};

/// What is written when the prompt is ready for a line.
const READY: &str = "\u{1b}[?2004h";

#[test]
fn each_answer_of_a_conversation_is_shown_once() {
    let world = World::with_script("turns: [{text: \"An answer.\"}]");
    let Some(mut terminal) = Terminal::start(&world, "run demo --id t") else {
        return;
    };
    for _ in 0..2 {
        terminal.until(READY);
        terminal.press("again\r");
        let shown = terminal.until("completed");
        assert_eq!(shown.matches("An answer.").count(), 1, "{shown}");
    }
    terminal.until(READY);
    terminal.press(CTRL_D);
    let (shown, code) = terminal.end();
    assert!(
        shown.contains("to go on: bowline run demo --id t"),
        "{shown}"
    );
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn a_call_that_waits_for_consent_is_asked_about_and_shown_under_its_name() {
    let world = World::with_script(
        "turns: [{tools: [{name: bash, input: {command: echo made}}]}, {text: Thanks.}]",
    );
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\napprovals: {bash: required}\n---\nAnswer.\n",
    );
    let Some(mut terminal) = Terminal::start(&world, "run demo --id t -m go") else {
        return;
    };
    terminal.until("Approve this call? [y]es, [n]o, [l]ater: ");
    terminal.press(CTRL_C);
    let (shown, code) = terminal.end();
    // It is asked again by the same line, and the call is still named when it was answered elsewhere.
    assert_eq!(code, 130, "{shown}");
    let mut terminal = Terminal::start(&world, "run demo --id t -m go").unwrap();
    terminal.until("Approve this call? [y]es, [n]o, [l]ater: ");
    terminal.press("y\r");
    let shown = terminal.until("Thanks.");
    assert!(shown.contains("✓ bash echo made"), "{shown}");
    assert_eq!(terminal.end().1, 0);
}
