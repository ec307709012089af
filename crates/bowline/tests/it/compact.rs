//! A conversation that is summarised.

use crate::world::World;

const TALK: &str = r#"
turns: [{text: "Yes."}]
at_end: repeat_last
summaries:
  - text: "It was about boats."
    expect: {matches: "Pay attention to this: the knots"}
  - text: "Knots again."
    expect: {matches: "It was about boats"}
"#;

#[test]
fn a_conversation_is_compacted_when_somebody_asks_for_it() {
    let world = World::with_script(TALK);
    let say = |text: &str| {
        let ran = world.run(&["run", "demo", "-m", text, "--id", "a"]);
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (0, "Yes.\n"),
            "{}",
            ran.stderr
        );
    };
    say(&"Tell me about boats. ".repeat(200));
    say(&"Tell me about knots. ".repeat(200));
    let ran = world.run(&["compact", "demo", "a", "the knots"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("compacted: "), "{}", ran.stdout);
    let calls = world.run(&["spend", "--calls", "demo", "a"]).stdout;
    assert!(
        calls.lines().last().unwrap().contains("summarised"),
        "{calls}"
    );
    // Nobody loses a word, and the conversation goes on.
    let shown = world.run(&["show", "demo", "a"]).stdout;
    assert!(shown.contains("Tell me about boats.") && shown.contains("compacted at "));
    // A few words take no more room than a summary of them.
    say("And now?");
    let ran = world.run(&["compact", "demo", "a"]);
    assert!(ran.stderr.contains("nothing to summarise"), "{}", ran.all());
    say(&"And now? ".repeat(400));
    let ran = world.run(&["compact", "demo", "a", "--json"]);
    assert!(
        ran.stdout.contains(r#""type":"compacted""#),
        "{}",
        ran.all()
    );
    assert!(ran.stdout.contains("Knots again."), "{}", ran.all());
}

#[test]
fn a_conversation_that_is_not_there_is_not_compacted() {
    let ran = World::with_script(TALK).run(&["compact", "demo", "nobody"]);
    assert_eq!(ran.status, 2, "{}", ran.all());
    assert!(ran.stderr.contains("nobody"), "{}", ran.stderr);
}
