//! Conversations that go from every provider to every other, and what of them is kept in caches.

use bowline_model::handoff::NO_RESULT;
use bowline_model::{
    FilePart, Message, Request, ResultPart, ToolResult, UserMessage, UserPart,
    request::CacheRetention,
};
use bowline_testkit::provider::{Answer, Wire};
use serde_json::Value;

use crate::bench::Bench;
use crate::messages::{call, result, said, text, user};

/// What a provider looks at when it decides whether a transcript is valid.
#[derive(Debug, PartialEq)]
enum Step {
    Said { role: String, file: bool },
    Call { id: String, name: String },
    Result { id: String },
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn steps(wire: Wire, body: &Value) -> Vec<Step> {
    let key = match wire {
        Wire::Responses => "input",
        Wire::Gemini => "contents",
        Wire::Anthropic | Wire::Chat | Wire::Bedrock => "messages",
    };
    let mut steps = Vec::new();
    for message in body[key].as_array().unwrap() {
        let role = word(&message["role"]);
        let said = |file: bool| Step::Said {
            role: role.clone(),
            file,
        };
        let call = |id: &Value, name: &Value| Step::Call {
            id: word(id),
            name: word(name),
        };
        let result = |id: &Value| Step::Result { id: word(id) };
        let blocks = message["content"]
            .as_array()
            .or(message["parts"].as_array());
        match wire {
            Wire::Responses => steps.push(match message["type"].as_str() {
                Some("function_call") => call(&message["call_id"], &message["name"]),
                Some("function_call_output") => result(&message["call_id"]),
                _ => said(false),
            }),
            Wire::Chat if role == "tool" => steps.push(result(&message["tool_call_id"])),
            Wire::Chat => {
                steps.push(said(false));
                for one in message["tool_calls"].as_array().into_iter().flatten() {
                    steps.push(call(&one["id"], &one["function"]["name"]));
                }
            }
            Wire::Anthropic => {
                steps.extend(
                    blocks
                        .unwrap()
                        .iter()
                        .map(|block| match block["type"].as_str() {
                            Some("tool_use") => call(&block["id"], &block["name"]),
                            Some("tool_result") => result(&block["tool_use_id"]),
                            _ => said(false),
                        }),
                )
            }
            Wire::Bedrock => steps.extend(blocks.unwrap().iter().map(|block| {
                let (used, gave) = (&block["toolUse"], &block["toolResult"]);
                if used.is_object() {
                    call(&used["toolUseId"], &used["name"])
                } else if gave.is_object() {
                    result(&gave["toolUseId"])
                } else {
                    said(false)
                }
            })),
            Wire::Gemini => steps.extend(blocks.unwrap().iter().map(|part| {
                let (used, gave) = (&part["functionCall"], &part["functionResponse"]);
                if used.is_object() {
                    call(&used["id"], &used["name"])
                } else if gave.is_object() {
                    result(&gave["id"])
                } else {
                    // What a tool gave stands behind its result.
                    said(part["inlineData"].is_object())
                }
            })),
        }
    }
    steps
}

/// Fails where a provider would refuse the transcript.
fn valid(bench: &Bench, body: &Value, way: &str) {
    let mut used = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let steps = steps(bench.wire, body);
    for step in &steps {
        match step {
            Step::Said { file: true, .. } => {}
            Step::Said { role, .. } => {
                assert!(open.is_empty() || role.is_empty(), "{way}: {steps:?}");
            }
            Step::Call { id, name } => {
                assert!(!used.contains(id), "{way}: {id} twice");
                let plain = |ch: char| ch.is_ascii_alphanumeric() || ch == '_' || ch == '-';
                assert!(!name.is_empty() && name.len() <= 64, "{way}: {name}");
                assert!(name.chars().all(plain), "{way}: {name}");
                assert!(!id.is_empty() && id.len() <= 64, "{way}: {id}");
                assert!(id.chars().all(plain), "{way}: {id}");
                if bench.name == "mistral" {
                    assert_eq!(id.len(), 9, "{way}: {id}");
                    assert!(id.chars().all(|ch| ch.is_ascii_alphanumeric()), "{way}");
                }
                used.push(id.clone());
                open.push(id.clone());
            }
            Step::Result { id } => {
                assert_eq!(open.first(), Some(id), "{way}: {steps:?}");
                open.remove(0);
            }
        }
    }
    assert!(open.is_empty(), "{way}");
    let last = steps.last();
    assert!(
        matches!(last, Some(Step::Said { role, .. }) if role == "user"),
        "{way}: {last:?}"
    );
    if matches!(bench.wire, Wire::Anthropic | Wire::Bedrock | Wire::Gemini) {
        let key = if bench.wire == Wire::Gemini {
            "contents"
        } else {
            "messages"
        };
        let roles: Vec<_> = body[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["role"])
            .collect();
        assert_eq!(roles[0], "user", "{way}");
        assert!(
            roles.windows(2).all(|pair| pair[0] != pair[1]),
            "{way}: {roles:?}"
        );
    }
}

fn image(bytes: &'static [u8]) -> FilePart {
    FilePart {
        media_type: "image/png".to_owned(),
        name: Some("seen.png".to_owned()),
        data: bytes::Bytes::from_static(bytes),
    }
}

#[tokio::test]
async fn a_conversation_goes_on_from_every_provider_at_every_other() {
    let benches = Bench::every().await;
    let shown = [image(b"of-the-person"), image(b"of-the-tool")];
    for from in &benches {
        let reply = Answer::new()
            .thinking("secret thought", "SIG")
            .text("I look.")
            .tool("id|1", "bash", r#"{"command":"ls"}"#)
            .tool("id.2", "read", "")
            .tool("", "weird.tool é", r#"{"half": "#);
        let message = from.ask(reply).await;
        let ids: Vec<_> = message.tool_calls().map(|call| call.id.clone()).collect();
        assert_eq!(ids.len(), 3, "{}", from.name);
        let seen = Message::ToolResult(ToolResult {
            call_id: ids[1].clone(),
            name: "read".to_owned(),
            parts: vec![ResultPart::File(shown[1].clone())],
            is_error: false,
        });
        let asked = Message::User(UserMessage {
            parts: vec![
                UserPart::Text {
                    text: "Look at this.".to_owned(),
                },
                UserPart::File(shown[0].clone()),
            ],
        });
        let history = vec![
            asked,
            Message::Assistant(message),
            result(&ids[0], "bash", "of-the-shell"),
            seen,
            user(" "),
            user("go on"),
        ];
        for to in &benches {
            let way = format!(
                "{} ({:?}) → {} ({:?})",
                from.name, from.wire, to.name, to.wire
            );
            to.answer(Answer::new().text("x"), to.request(history.clone()))
                .await;
            let sent = to.last();
            valid(to, &sent.body, &way);
            let raw = String::from_utf8(sent.raw.to_vec()).unwrap();
            let own = from.name == to.name && from.wire == to.wire;
            assert!(own || !raw.contains("secret thought"), "{way}");
            assert!(own || !raw.contains("SIG"), "{way}");
            assert_eq!(raw.matches(NO_RESULT).count(), 1, "{way}");
            assert!(
                raw.contains("of-the-shell") && raw.contains("I look."),
                "{way}"
            );
            for file in &shown {
                let sees = to.name != "deepseek";
                assert_eq!(raw.contains(&file.base64()), sees, "{way}");
                assert_eq!(raw.contains("cannot be shown"), !sees, "{way}");
            }
        }
    }
}

#[tokio::test]
async fn cache_markers_stand_where_each_provider_takes_them_for_as_long_as_is_asked() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        for cache in [
            CacheRetention::None,
            CacheRetention::Short,
            CacheRetention::Long,
        ] {
            let history = vec![
                user("one"),
                said(
                    &bench.model.reference,
                    vec![text("two"), call("call_a", "bash")],
                ),
                result("call_a", "bash", "three"),
            ];
            let asked = Request {
                cache,
                conversation: Some("conv_1".to_owned()),
                ..bench.request(history)
            };
            bench.answer(Answer::new().text("x"), asked).await;
            let raw = String::from_utf8(bench.last().raw.to_vec()).unwrap();
            let (kept, long) = (cache != CacheRetention::None, cache == CacheRetention::Long);
            // How many markers, how many of them for an hour, a key of the conversation, a day.
            let (markers, hours, key, day) = match (name, bench.wire) {
                ("anthropic", _) => (3, if long { 3 } else { 0 }, false, false),
                ("bedrock", _) => (3, if long { 3 } else { 0 }, false, false),
                (_, Wire::Anthropic) => (3, 0, false, false),
                ("openrouter" | "vercel", _) => (2, 0, false, false),
                ("openai", _) => (0, 0, true, long),
                ("azure", _) => (0, 0, true, false),
                (_, Wire::Responses | Wire::Chat | Wire::Gemini | Wire::Bedrock) => {
                    (0, 0, false, false)
                }
            };
            let found =
                raw.matches("\"cache_control\"").count() + raw.matches("\"cachePoint\"").count();
            assert_eq!(
                found,
                if kept { markers } else { 0 },
                "{name} {cache:?}: {raw}"
            );
            assert_eq!(
                raw.matches("\"ttl\":\"1h\"").count(),
                hours,
                "{name} {cache:?}"
            );
            let has_key = raw.contains("\"prompt_cache_key\":\"conv_1\"");
            assert_eq!(has_key, key && kept, "{name} {cache:?}: {raw}");
            assert_eq!(
                raw.contains("\"prompt_cache_retention\":\"24h\""),
                day,
                "{name}"
            );
        }
    }
}
