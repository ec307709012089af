//! The loop: what is durable when, and what happens when it is cut anywhere.

use bowline_agent::{
    conversation::EntryBody,
    tool::{Effect, OnCrash},
};
use bowline_runtime::Outcome;
use bowline_testkit::faults::Death;

use crate::stage::{Stage, assert_valid, instance, lines};

const PLAIN: &str = "turns:\n  - text: Hello.\nat_end: repeat_last\n";

const WORK: &str = r#"
turns:
  - text: "First a file."
    tools:
      - {name: write, input: {path: a.txt, content: "one\n"}}
      - {name: bash, input: {command: "echo two >> a.txt; export N=1"}}
  - text: "Then the world."
    tools:
      - {name: notify, input: {text: hello}}
      - {name: bash, input: {command: "echo three >> a.txt; echo $N"}}
  - text: "Now look."
    tools: [{name: read, input: {path: a.txt}}]
    expect: {last_tool: bash, matches: "1"}
  - text: "Done."
"#;

#[tokio::test]
async fn a_plain_turn_costs_two_flushes_and_each_tool_batch_one_more() {
    let plain = Stage::new(PLAIN);
    let process = plain.process(Death::Never);
    let settled = process.ask("Hi").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed);
    assert_eq!(plain.store.metrics().flushes, 2);
    process.ask("Again").await.unwrap();
    assert_eq!(plain.store.metrics().flushes, 4);

    let batches = Stage::new(
        "turns:\n  - tools: [{name: bash, input: {command: 'echo a > f'}}, {name: read, input: {path: f}}]\n  - tools: [{name: glob, input: {pattern: '*'}}]\n  - text: Done.\n",
    );
    let process = batches.process(Death::Never);
    process.ask("Go").await.unwrap();
    assert_eq!(batches.store.metrics().flushes, 4);
    assert_valid(&batches.conversation().await);
}

#[tokio::test]
async fn an_outside_effect_costs_one_flush_for_its_intent_and_one_for_its_settlement() {
    let stage = Stage::new(
        "turns:\n  - tools: [{name: notify, input: {text: a}}, {name: notify, input: {text: b}}]\n  - text: Done.\n",
    );
    stage.process(Death::Never).ask("Go").await.unwrap();
    // Admission, intents, two settlements, the batch, the answer.
    assert_eq!(stage.store.metrics().flushes, 6);
}

#[tokio::test]
async fn a_run_that_dies_at_any_commit_ends_as_if_it_had_not() {
    let whole = Stage::new(WORK);
    let process = whole.process(Death::Never);
    assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    let expected = lines(&whole.conversation().await);
    let commits = process.store.commits();
    assert_eq!(whole.file("/workspace/a.txt").await, "one\ntwo\nthree\n");

    for death in (1..=commits).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let mut stage = Stage::new(WORK);
        stage.effect = Effect::Outside(OnCrash::Retry);
        let first = stage.process(death);
        let outcome = first.send_keyed("Go", "k").await;
        if let Ok(receipt) = &outcome {
            // The process may die after it settled the submission and before it said so.
            let _ = first.settled(receipt).await;
        }
        assert!(first.store.is_dead(), "{death:?} never happened");

        let second = stage.process(Death::Never);
        let receipt = second.send_keyed("Go", "k").await.unwrap();
        let settled = second.settled(&receipt).await.unwrap();
        assert_eq!(
            settled.outcome,
            Outcome::Completed,
            "{death:?}: {:?}",
            settled.error
        );
        let conversation = stage.conversation().await;
        assert_valid(&conversation);
        assert_eq!(lines(&conversation), expected, "{death:?}");
        assert_eq!(
            stage.file("/workspace/a.txt").await,
            "one\ntwo\nthree\n",
            "{death:?}"
        );
        let mut effects = stage.effects.lock().unwrap().clone();
        effects.dedup();
        assert_eq!(
            effects.len(),
            1,
            "{death:?}: one effect, whatever number of tries"
        );
    }
}

#[tokio::test]
async fn an_effect_that_was_cut_is_not_repeated_unless_it_says_so() {
    let commits = 6;
    for n in 1..=commits {
        let stage = Stage::new(WORK);
        let first = stage.process(Death::After(n));
        if let Ok(receipt) = first.send_keyed("Go", "k").await {
            let _ = first.settled(&receipt).await;
        }
        let second = stage.process(Death::Never);
        let receipt = second.send_keyed("Go", "k").await.unwrap();
        second.settled(&receipt).await.unwrap();
        assert!(stage.effects.lock().unwrap().len() <= 1, "after commit {n}");
        assert_valid(&stage.conversation().await);
    }
}

#[tokio::test]
async fn a_message_that_arrives_while_the_agent_is_busy_joins_at_the_next_turn() {
    let stage = Stage::new(
        "turns:\n  - text: Working on it.\n    stream: {chars: 1, delay_ms: 5}\n    tools: [{name: bash, input: {command: 'true'}}]\n  - text: Both done.\nat_end: repeat_last\n",
    );
    let process = stage.process(Death::Never);
    let mut follow = process.agents.observers().observe(&instance());
    let first = process.send("One").await.unwrap();
    while !matches!(
        follow.recv().await.unwrap().body,
        bowline_agent::ChunkBody::MessageDelta { .. }
    ) {}
    let second = process.send("Two").await.unwrap();
    let (one, two) = (
        process.settled(&first).await.unwrap(),
        process.settled(&second).await.unwrap(),
    );
    assert_eq!(
        (one.outcome, two.outcome),
        (Outcome::Completed, Outcome::Completed)
    );
    assert_eq!(two.answered_by_submission_id, Some(first.submission_id));
    let lines = lines(&stage.conversation().await);
    assert_eq!(
        lines[2..],
        [
            "result: bash: (no output)",
            "user: Two",
            "assistant: Both done. []"
        ]
    );
}

#[tokio::test]
async fn an_aborted_answer_is_kept_and_the_conversation_goes_on() {
    let stage = Stage::new(
        "turns:\n  - text: A long answer that never ends.\n    fault: {kind: stall, after_chars: 6}\nby_message:\n  - match: next\n    turns: [{text: Fine.}]\n",
    );
    let process = stage.process(Death::Never);
    let mut follow = process.agents.observers().observe(&instance());
    let receipt = process.send("Go").await.unwrap();
    while !matches!(
        follow.recv().await.unwrap().body,
        bowline_agent::ChunkBody::MessageDelta { .. }
    ) {}
    assert!(process.runtime.abort(&instance(), None).await.unwrap());
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Aborted);
    assert_eq!(
        process.ask("next").await.unwrap().outcome,
        Outcome::Completed
    );
    let lines = lines(&stage.conversation().await);
    assert!(lines[1].starts_with("interrupted: A"), "{lines:?}");
    assert_eq!(
        lines[2..],
        [
            "signal: submission_aborted",
            "user: next",
            "assistant: Fine. []"
        ]
    );
}

#[tokio::test]
async fn a_key_that_repeats_returns_the_first_receipt_and_another_message_is_a_conflict() {
    let stage = Stage::new(PLAIN);
    let process = stage.process(Death::Never);
    let first = process.send_keyed("Hi", "k").await.unwrap();
    process.settled(&first).await.unwrap();
    let again = process.send_keyed("Hi", "k").await.unwrap();
    assert!(again.deduplicated && again.submission_id == first.submission_id);
    assert_eq!(
        process.send_keyed("Ho", "k").await.unwrap_err().code(),
        "submission_conflict"
    );
    assert_eq!(stage.conversation().await.entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_model_call_that_fails_is_tried_again_and_then_fails_the_submission_only() {
    let stage = Stage::new(
        "turns:\n  - text: Hello.\n    fault: {kind: overloaded, attempts: 2}\nby_message:\n  - match: always\n    turns: [{text: x, fault: {kind: overloaded, attempts: 99}}]\n",
    );
    let process = stage.process(Death::Never);
    assert_eq!(process.ask("Hi").await.unwrap().outcome, Outcome::Completed);
    let failed = process.ask("always").await.unwrap();
    assert_eq!(failed.outcome, Outcome::Failed);
    assert_eq!(failed.error.unwrap().code, "model_overloaded");
    let lines = lines(&stage.conversation().await);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("error:"))
            .count(),
        2 + 4,
        "{lines:?}"
    );
    assert_eq!(process.ask("Hi").await.unwrap().outcome, Outcome::Completed);
}

#[tokio::test]
async fn a_wrong_call_is_a_result_and_not_the_end() {
    let stage = Stage::new(
        "turns:\n  - tools:\n      - {name: nothing, input: {}}\n      - {name: read, input: {}}\n      - {name: crash, input: {text: x}}\n      - {name: read, input: {path: a.txt, offset: '1'}}\n      - {name: bash, input: {command: 'exit 3'}}\n  - text: Understood.\n",
    );
    let process = stage.process(Death::Never);
    assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    let lines = lines(&stage.conversation().await);
    assert_eq!(lines[2], "failed: nothing: Tool \"nothing\" not found");
    assert!(
        lines[3].contains("must have required property 'path'"),
        "{}",
        lines[3]
    );
    assert_eq!(lines[4], "failed: crash: Tool \"crash\" crashed");
    assert!(lines[5].contains("ENOENT"), "{}", lines[5]);
    assert!(
        lines[6].starts_with("result: bash:") && lines[6].ends_with("Command exited with code 3"),
        "{}",
        lines[6]
    );
    assert_eq!(stage.panics(), 1);
}

#[tokio::test]
async fn a_submission_ends_when_its_attempts_are_used_up() {
    let stage = Stage::new(WORK);
    for attempt in 0..10 {
        // Each process dies while the second commit of its attempt is under way.
        let process = stage.process(Death::Before(2));
        let receipt = process.send_keyed("Go", "k").await;
        if let Ok(receipt) = receipt {
            let _ = process.settled(&receipt).await;
        }
        assert!(process.store.is_dead(), "attempt {attempt}");
    }
    let last = stage.process(Death::Never);
    let receipt = last.send_keyed("Go", "k").await.unwrap();
    let settled = last.settled(&receipt).await.unwrap();
    assert_eq!(settled.error.unwrap().code, "submission_retry_exhausted");
    assert_valid(&stage.conversation().await);
}

#[tokio::test(start_paused = true)]
async fn a_submission_ends_when_its_time_is_over_even_if_nothing_moves() {
    let stage = Stage::new(
        "turns:\n  - text: Never.\n    fault: {kind: stall, after_chars: 2}\nby_message:\n  - match: next\n    turns: [{text: Fine.}]\n",
    );
    let process = stage.process(Death::Never);
    let receipt = process.send("Go").await.unwrap();
    let clock = stage.clock.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(200)).await;
        clock.advance(std::time::Duration::from_secs(3_600));
    });
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Failed);
    let code = settled.error.unwrap().code;
    assert!(
        code == "submission_timeout" || code == "model_stalled",
        "{code}"
    );
    assert_valid(&stage.conversation().await);
    assert_eq!(
        process.ask("next").await.unwrap().outcome,
        Outcome::Completed
    );
}

#[tokio::test]
async fn a_change_of_the_instructions_is_told_and_the_prefix_stays() {
    let stage = Stage::new(PLAIN);
    let process = stage.process(Death::Never);
    process.ask("Hi").await.unwrap();
    let system = stage.conversation().await.system;
    stage.instruct("Do other work.");
    process.ask("Hi").await.unwrap();
    let conversation = stage.conversation().await;
    assert_eq!(conversation.system, system);
    assert_eq!(
        lines(&conversation)[2..],
        ["signal: instructions", "user: Hi", "assistant: Hello. []"]
    );
    process.ask("Hi").await.unwrap();
    assert_eq!(
        lines(&stage.conversation().await).len(),
        7,
        "a change is told once"
    );
}

#[tokio::test]
async fn a_conversation_without_end_is_stopped_by_its_limit_of_turns() {
    let stage = Stage::new(
        "turns:\n  - tools: [{name: bash, input: {command: 'true'}}]\nat_end: repeat_last\n",
    );
    let process = stage.process(Death::Never);
    let settled = process.ask("Go").await.unwrap();
    assert_eq!(settled.error.unwrap().code, "limit_turns");
    let conversation = stage.conversation().await;
    let answers = conversation
        .entries
        .iter()
        .filter(|entry| matches!(entry.body, EntryBody::Assistant { .. }));
    assert_eq!(answers.count(), 20);
    assert_valid(&conversation);
}
