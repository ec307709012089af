use std::time::Duration;

use bowline_model::provider::scripted::Scripted;
use bowline_model::{
    AssistantMessage, AssistantPart, ErrorKind, Event, ModelError, Provider as _, Request,
    StopReason, Usage,
};

use crate::messages::{collect, reference, request, result, said, text, thought, user, whole};

fn at(call: u32, attempt: u32) -> Request {
    let mut request = request("inline", vec![user("hello")]);
    request.position.call = call;
    request.position.attempt = attempt;
    request
}

async fn answer(script: &str, request: Request) -> AssistantMessage {
    whole(
        Scripted::parse(script)
            .unwrap()
            .stream(request)
            .await
            .unwrap(),
    )
    .await
}

async fn failure(script: &str, request: Request) -> ModelError {
    match Scripted::parse(script).unwrap().stream(request).await {
        Ok(_) => panic!("no failure"),
        Err(error) => error,
    }
}

const TWO: &str = r#"
turns:
  - thinking: "Let me see."
    text: "I run it."
    tools:
      - {name: bash, input: {command: "sh test.sh"}}
      - {name: read}
    usage: {input: 100, output: 20, cache_read: 7}
  - text: "Done."
    expect: {last_tool: bash, matches: "FAIL"}
"#;

#[tokio::test]
async fn reply_n_answers_call_n_and_ids_follow_from_the_position() {
    let first = answer(TWO, at(1, 0)).await;
    assert_eq!(first.stop, StopReason::ToolUse);
    assert_eq!(first.parts[0], thought("Let me see.", Some("scripted")));
    assert_eq!(first.parts[1], text("I run it."));
    let calls: Vec<_> = first
        .tool_calls()
        .map(|call| (&*call.id, &*call.name))
        .collect();
    assert_eq!(calls, [("call_1_0", "bash"), ("call_1_1", "read")]);
    assert_eq!(
        first.usage,
        Usage {
            input: 100,
            output: 20,
            cache_read: 7,
            ..Usage::default()
        }
    );
    assert_eq!(
        answer(TWO, at(1, 0)).await,
        first,
        "the same request, another answer"
    );
    assert_eq!(
        answer(TWO, at(1, 3)).await,
        first,
        "a retry is the same call"
    );
}

#[tokio::test]
async fn ids_stay_unique_when_a_later_submission_counts_its_calls_from_one_again() {
    let mut again = at(1, 0);
    let earlier = answer(TWO, at(1, 0)).await;
    again
        .messages
        .push(bowline_model::Message::Assistant(earlier));
    let ids: Vec<_> = answer(TWO, again)
        .await
        .tool_calls()
        .map(|call| call.id.clone())
        .collect();
    assert_eq!(ids, ["call_1_0_2", "call_1_1_2"]);
}

#[tokio::test]
async fn a_mismatch_fails_the_call_and_shows_both_sides() {
    let mut second = at(2, 0);
    let error = failure(TWO, second.clone()).await;
    assert_eq!(error.kind, ErrorKind::Script);
    let call = said(
        &reference("scripted", "inline"),
        vec![crate::messages::call("1", "bash")],
    );
    let before = second.messages.clone();
    let then = |text: &str| {
        let mut messages = before.clone();
        messages.push(call.clone());
        messages.push(result("1", "bash", text));
        messages
    };
    second.messages = then("all passed");
    let error = failure(TWO, second.clone()).await;
    let said = error.to_string();
    assert!(
        said.contains("`FAIL`") && said.contains("`all passed`"),
        "{said}"
    );
    second.messages = then("1 FAILED");
    assert_eq!(answer(TWO, second).await.text(), "Done.");
}

#[tokio::test]
async fn text_comes_in_pieces_and_delays_are_tokio_time() {
    tokio::time::pause();
    let script = "turns: [{text: 'äbcdefg', stream: {chars: 3, delay_ms: 60000}}]";
    let started = tokio::time::Instant::now();
    let stream = Scripted::parse(script)
        .unwrap()
        .stream(at(1, 0))
        .await
        .unwrap();
    let (events, _) = collect(stream).await;
    let texts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Text { delta, .. } => Some(delta.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["äbc", "def", "g"]);
    // The clock of tokio rounds each wait up to a millisecond.
    assert_eq!(started.elapsed().as_secs(), 180);
}

#[tokio::test]
async fn faults_end_after_their_attempts_and_carry_their_class() {
    let script = |kind: &str| {
        format!(
            "turns: [{{text: hello, fault: {{kind: {kind}, attempts: 2, retry_after_ms: 1500}}}}]"
        )
    };
    let classes = [
        ("rate_limit", "model_rate_limit"),
        ("overloaded", "model_overloaded"),
        ("error", "model_invalid_request"),
        ("network", "model_network"),
        ("auth", "model_auth"),
        ("context_overflow", "model_context_overflow"),
    ];
    for (kind, code) in classes {
        for attempt in 0..2 {
            assert_eq!(failure(&script(kind), at(1, attempt)).await.code(), code);
        }
        assert_eq!(answer(&script(kind), at(1, 2)).await.text(), "hello");
    }
    let wait = failure(&script("rate_limit"), at(1, 0)).await.retry_after();
    assert_eq!(wait, Some(Duration::from_millis(1500)));
}

#[tokio::test]
async fn a_cut_or_stalled_stream_breaks_after_exactly_so_many_characters() {
    tokio::time::pause();
    for (kind, code) in [
        ("cut", "model_cut"),
        ("stall", "model_stalled"),
        ("overloaded", "model_overloaded"),
    ] {
        let script = format!(
            "turns: [{{thinking: abcd, text: efghij, stream: {{chars: 3}}, \
             fault: {{kind: {kind}, after_chars: 6}}}}]"
        );
        let stream = Scripted::parse(&script)
            .unwrap()
            .stream(at(1, 0))
            .await
            .unwrap();
        let (events, error) = collect(stream).await;
        assert_eq!(error.unwrap().code(), code);
        let mut partial = bowline_model::Partial::default();
        events.iter().for_each(|event| partial.apply(event));
        assert_eq!(
            partial.parts(),
            [thought("abcd", Some("scripted")), text("ef")]
        );
    }
}

#[tokio::test]
async fn after_the_last_turn_it_fails_or_repeats_as_the_script_says() {
    let error = failure("turns: [{text: a}]", at(2, 0)).await;
    assert_eq!(error.kind, ErrorKind::Script);
    assert!(error.message.contains("1 turns"), "{error}");
    let repeat = "{turns: [{text: a}, {text: b}], at_end: repeat_last}";
    assert_eq!(answer(repeat, at(9, 0)).await.text(), "b");
}

#[tokio::test]
async fn a_submission_that_matches_has_turns_of_its_own() {
    let script = r#"
turns: [{text: other}]
by_message:
  - match: "^thanks"
    turns: [{text: "You're welcome."}]
"#;
    let mut request = at(1, 0);
    request.position.submission_text = "thanks a lot".to_owned();
    assert_eq!(answer(script, request).await.text(), "You're welcome.");
    assert_eq!(answer(script, at(1, 0)).await.text(), "other");
}

#[tokio::test]
async fn broken_arguments_reach_the_caller_as_they_are() {
    let script = r#"turns: [{tools: [{name: bash, input: '{"command": '}]}]"#;
    let message = answer(script, at(1, 0)).await;
    let AssistantPart::ToolCall(call) = &message.parts[0] else {
        panic!()
    };
    assert_eq!(call.invalid_arguments.as_deref(), Some(r#"{"command": "#));
    assert_eq!(call.arguments, serde_json::json!({}));
}

#[test]
fn errors_in_a_script_are_one_line_with_the_place() {
    let cases = [
        ("turns:\n  - text: a\n    txt: b\n", "line 3", "txt"),
        (
            "turns: [{text: a, expect: {matches: '('}}]",
            "line 1",
            "regular expression",
        ),
        (
            "turns: [{text: a, fault: {kind: explode}}]",
            "line 1",
            "explode",
        ),
        ("turns: []", "", "no `turns`"),
        ("turns: [{text: a, stream: {chars: 0}}]", "", "at least 1"),
        (
            "turns: [{tools: [{name: x, input: [1]}]}]",
            "",
            "not a mapping",
        ),
    ];
    for (script, place, what) in cases {
        let error = Scripted::parse(script).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Script);
        let said = error.to_string();
        assert!(
            said.contains(place) && said.contains(what) && !said.contains('\n'),
            "{said}"
        );
    }
}
