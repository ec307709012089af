use std::collections::HashSet;

use bowline_model::handoff::{BEGINNING, BLANK, CONTINUE, IdRule, NO_RESULT, prepare};
use bowline_model::{AssistantPart, Message, ModelRef, StopReason};
use proptest::prelude::*;

use crate::messages::{assistant, call, reference, result, said, text, thought, user};

fn parts(message: &Message) -> &[AssistantPart] {
    match message {
        Message::Assistant(answer) => &answer.parts,
        other => panic!("not an assistant message: {other:?}"),
    }
}

#[test]
fn opaque_parts_stay_with_their_model_and_other_models_thoughts_are_dropped() {
    let (a, b) = (reference("anthropic", "a"), reference("openai-chat", "b"));
    let mut signed = text("hi");
    if let AssistantPart::Text { signature, .. } = &mut signed {
        *signature = Some("opaque".to_owned());
    }
    let messages = [
        user("q"),
        said(&a, vec![thought("hm", Some("s")), signed]),
        user("r"),
    ];
    assert_eq!(prepare(&messages, &a, IdRule::COMMON), messages);
    let other = prepare(&messages, &b, IdRule::COMMON);
    assert_eq!(parts(&other[1]), [text("hi")]);
}

#[test]
fn a_missing_result_is_completed_with_an_error_in_source_order() {
    let a = reference("anthropic", "a");
    let messages = [
        user("q"),
        said(&a, vec![call("1", "x"), call("2", "y")]),
        result("2", "y", "two"),
        user("next"),
    ];
    let out = prepare(&messages, &a, IdRule::COMMON);
    assert_eq!(out.len(), 5);
    let Message::ToolResult(first) = &out[2] else {
        panic!()
    };
    assert_eq!((first.call_id.as_str(), first.is_error), ("1", true));
    assert_eq!(first.text(), NO_RESULT);
    assert_eq!(out[3], result("2", "y", "two"));
}

#[test]
fn results_without_a_call_and_messages_without_content_are_dropped() {
    let a = reference("anthropic", "a");
    let broken = Message::Assistant(assistant(&a, StopReason::Error, vec![]));
    let aborted = Message::Assistant(assistant(
        &a,
        StopReason::Aborted,
        vec![thought("cut off", None), text("half"), call("1", "x")],
    ));
    let messages = [
        user("q"),
        broken,
        result("9", "z", "stray"),
        aborted,
        user("go on"),
    ];
    let out = prepare(&messages, &a, IdRule::COMMON);
    assert_eq!(out.len(), 3);
    assert_eq!(parts(&out[1]), [text("half")]);
}

#[test]
fn a_transcript_never_ends_on_the_models_own_words() {
    let a = reference("anthropic", "a");
    let out = prepare(
        &[user("q"), said(&a, vec![text("half")])],
        &a,
        IdRule::COMMON,
    );
    assert_eq!(out.last(), Some(&user(CONTINUE)));
}

#[test]
fn names_that_no_tool_can_have_and_blank_messages_are_replaced() {
    let a = reference("anthropic", "a");
    let long = "x".repeat(200);
    let names = ["functions.bash", "", &long, "é", "read_file-2"];
    let calls: Vec<_> = (0..5).map(|n| call(&format!("c{n}"), names[n])).collect();
    let messages = [said(&a, calls), user(" \n"), said(&a, vec![text("x")])];
    let out = prepare(&messages, &a, IdRule::COMMON);
    assert_eq!(out[0], user(BEGINNING));
    let Message::Assistant(answer) = &out[1] else {
        panic!()
    };
    let made: Vec<_> = answer.tool_calls().map(|call| call.name.as_str()).collect();
    assert_eq!(
        made,
        ["functions_bash", "unnamed", &long[..64], "_", "read_file-2"]
    );
    for (message, name) in out[2..7].iter().zip(made) {
        assert!(matches!(message, Message::ToolResult(result) if result.name == name));
    }
    assert_eq!(out[7], user(BLANK));
}

#[test]
fn ids_are_normalised_together_with_their_results_and_made_distinct() {
    let a = reference("anthropic", "a");
    let long = "x".repeat(100);
    let messages = [
        user("q"),
        said(&a, vec![call("call|fc:1", "x"), call(&long, "y")]),
        result("call|fc:1", "x", "one"),
        result(&long, "y", "two"),
        said(&a, vec![call("call|fc:1", "x")]),
        result("call|fc:1", "x", "three"),
    ];
    for rule in [
        IdRule::COMMON,
        IdRule {
            max: 9,
            plain: true,
        },
    ] {
        let out = prepare(&messages, &a, rule);
        let mut ids = Vec::new();
        for message in &out {
            if let Message::Assistant(answer) = message {
                ids.extend(answer.tool_calls().map(|call| call.id.clone()));
            }
        }
        let answered: Vec<String> = out
            .iter()
            .filter_map(|message| match message {
                Message::ToolResult(result) => Some(result.call_id.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(ids, answered);
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
        for id in &ids {
            assert!(
                id.len() <= rule.max && (!rule.plain || id.len() == rule.max),
                "{id}"
            );
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || (!rule.plain && b"_-".contains(&b)))
            );
        }
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let models = [reference("anthropic", "a"), reference("openai-chat", "b")];
    let model = prop::sample::select(models.to_vec());
    let id = prop::sample::select(vec!["1", "2", "odd|id", ""]);
    let part = prop_oneof![
        Just(text("words")),
        Just(text(" ")),
        Just(thought("hm", None)),
        Just(thought("", Some("s"))),
        id.clone().prop_map(|id| call(id, "t")),
    ];
    let stop = prop::sample::select(vec![
        StopReason::Stop,
        StopReason::ToolUse,
        StopReason::Length,
        StopReason::Aborted,
        StopReason::Error,
    ]);
    prop_oneof![
        Just(user("hello")),
        Just(user(" ")),
        id.prop_map(|id| result(id, "t", "r")),
        (model, stop, prop::collection::vec(part, 0..4))
            .prop_map(|(model, stop, parts)| Message::Assistant(assistant(&model, stop, parts))),
    ]
}

fn check(out: &[Message], target: &ModelRef) {
    let mut used = HashSet::new();
    let mut open: Vec<String> = Vec::new();
    let mut begun = false;
    for message in out {
        begun |= matches!(message, Message::User(_));
        match message {
            Message::ToolResult(result) => {
                assert_eq!(open.first(), Some(&result.call_id), "a result out of order");
                open.remove(0);
            }
            other => {
                assert!(open.is_empty(), "a call without its result");
                if let Message::Assistant(answer) = other {
                    assert!(begun, "it begins on the model's own words");
                    assert!(!answer.parts.is_empty());
                    for part in &answer.parts {
                        let foreign = answer.model != *target;
                        let thinks = matches!(part, AssistantPart::Thinking { .. });
                        assert!(!(foreign && thinks), "another model's thought");
                    }
                    open = answer.tool_calls().map(|call| call.id.clone()).collect();
                    for id in &open {
                        assert!(used.insert(id.clone()), "an id twice");
                    }
                }
            }
        }
    }
    assert!(open.is_empty());
    assert!(!matches!(out.last(), Some(Message::Assistant(_))));
}

proptest! {
    #[test]
    fn whatever_the_history_the_transcript_is_valid_and_its_prefix_stable(
        messages in prop::collection::vec(any_message(), 0..16),
    ) {
        let target = reference("anthropic", "a");
        let out = prepare(&messages, &target, IdRule::COMMON);
        check(&out, &target);
        prop_assert_eq!(&prepare(&out, &target, IdRule::COMMON), &out);
        // At a turn's end, what is sent then is the beginning of what is sent later.
        for end in 0..messages.len() {
            if matches!(messages[end], Message::User(_)) {
                let earlier = prepare(&messages[..=end], &target, IdRule::COMMON);
                prop_assert_eq!(&out[..earlier.len()], &earlier[..]);
            }
        }
    }
}
