//! Agents that owe a value.

use bowline_runtime::Outcome;
use bowline_testkit::faults::Death;
use serde_json::json;

use crate::stage::{Stage, lines};

fn owing(script: &str) -> Stage {
    let mut stage = Stage::new(script);
    stage.define = |definition| {
        let schema = json!({"type": "object", "required": ["severity"],
            "properties": {"severity": {"enum": ["low", "high"]}}});
        definition.result = Some(schema);
    };
    stage
}

#[tokio::test]
async fn an_answer_that_is_no_value_or_does_not_fit_is_told_and_given_again() {
    let stage = owing(
        r#"turns: [{text: "It is high."}, {text: '{"severity": "medium"}'}, {text: '{"severity": "high"}'}]"#,
    );
    let process = stage.process(Death::Never);
    let settled = process.ask("How bad?").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed);
    let conversation = stage.conversation().await;
    assert_eq!(
        lines(&conversation),
        [
            "user: How bad?",
            "assistant: It is high. []",
            "signal: result_invalid",
            r#"assistant: {"severity": "medium"} []"#,
            "signal: result_invalid",
            r#"assistant: {"severity": "high"} []"#,
        ]
    );
    assert!(conversation.system.contains(r#""severity""#));
}

#[tokio::test]
async fn a_model_that_never_gives_a_value_that_fits_fails_the_submission() {
    let stage = owing("turns: [{text: No.}]\nat_end: repeat_last");
    let process = stage.process(Death::Never);
    let settled = process.ask("How bad?").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Failed);
    assert_eq!(settled.error.unwrap().code, "result_invalid");
    assert_eq!(lines(&stage.conversation().await).len(), 7);
}
