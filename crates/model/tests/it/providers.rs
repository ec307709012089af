//! One suite for every wire format and every provider that is known by name, against a server that
//! speaks all of them.

use std::time::Duration;

use bowline_model::{
    AssistantPart, ErrorKind, Event, FilePart, Message, ResultPart, StopReason, Thinking,
    ToolResult, Usage, UserMessage, UserPart,
};
use bowline_testkit::provider::{
    Answer, ErrorClass, FakeProvider, FakeUsage, Gate, Reply, Stop, Wire,
};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::bench::{Bench, KEY, PATIENT, model};
use crate::messages::{call, request, result, said, text, thought, user, whole};

fn texts(events: &[Event]) -> String {
    let deltas = events.iter().filter_map(|event| match event {
        Event::Text { delta, .. } => Some(delta.as_str()),
        _ => None,
    });
    deltas.collect()
}

#[tokio::test]
async fn text_arrives_whole_however_the_bytes_are_cut() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        for size in [1, 7, 64, 100_000] {
            let words = "Grüße ✓ und mehr, über\nmehrere Zeilen";
            let message = bench
                .ask(Answer::new().text(words).in_pieces_of(size))
                .await;
            assert_eq!(message.text(), words, "{name}");
            assert_eq!(message.stop, StopReason::Stop);
            assert_eq!(message.response_id.as_deref(), Some("resp_fake"));
            assert_eq!(message.model, bench.model.reference);
        }
    }
}

#[tokio::test]
async fn thinking_is_kept_with_what_gives_it_back() {
    for bench in Bench::every().await {
        let (wire, name) = (bench.wire, bench.name.as_str());
        let answer = || Answer::new().thinking("Let me think.", "sig").text("Yes.");
        let message = bench.ask(answer()).await;
        let AssistantPart::Thinking {
            text: thought,
            signature,
            redacted,
        } = &message.parts[0]
        else {
            panic!("{name}: {message:?}")
        };
        assert_eq!((thought.as_str(), *redacted), ("Let me think.", false));
        // Gemini signs the part behind the thought.
        assert_eq!(signature.is_some(), wire != Wire::Gemini);
        // The next request of the same model carries it.
        let history = vec![user("hello"), Message::Assistant(message), user("again")];
        bench.answer(answer(), bench.request(history)).await;
        let raw = String::from_utf8(bench.last().raw.to_vec()).unwrap();
        if !bench.replays_thoughts() {
            assert!(!raw.contains("Let me think."), "{name}: {raw}");
            continue;
        }
        let carried = match wire {
            Wire::Anthropic | Wire::Bedrock => r#""signature":"sig""#,
            Wire::Responses => r#""encrypted_content":"sig""#,
            Wire::Chat => r#""reasoning_content":"Let me think.""#,
            Wire::Gemini => r#""text":"Yes.","thoughtSignature":"sig""#,
        };
        assert!(raw.contains(carried), "{name}: {raw}");
    }
}

#[tokio::test]
async fn redacted_thinking_of_anthropic_is_given_back_encrypted() {
    let bench = Bench::new(Wire::Anthropic).await;
    let message = bench
        .ask(Answer::new().thinking("", "ENCRYPTED").text("Yes."))
        .await;
    assert!(matches!(
        message.parts[0],
        AssistantPart::Thinking { redacted: true, .. }
    ));
    let history = vec![user("hello"), Message::Assistant(message), user("again")];
    bench
        .answer(Answer::new().text("x"), bench.request(history))
        .await;
    let sent = bench.last().body["messages"][1]["content"][0].clone();
    assert_eq!(
        sent,
        json!({"type": "redacted_thinking", "data": "ENCRYPTED"})
    );
}

#[tokio::test]
async fn tool_calls_are_parallel_may_have_no_arguments_and_may_be_broken() {
    for bench in Bench::every().await {
        let (wire, name) = (bench.wire, bench.name.as_str());
        let message = bench
            .ask(
                Answer::new()
                    .text("Now:")
                    .tool(
                        "call_a",
                        "bash",
                        r#"{"command": "ls -la", "n": [1, {"x": "é"}]}"#,
                    )
                    .tool("call_b", "read", "")
                    .tool("call_c", "bash", r#"{"command": "#),
            )
            .await;
        assert_eq!(message.stop, StopReason::ToolUse, "{name}");
        let calls: Vec<_> = message.tool_calls().collect();
        let ids: Vec<_> = calls.iter().map(|call| (&*call.id, &*call.name)).collect();
        assert_eq!(
            ids,
            [("call_a", "bash"), ("call_b", "read"), ("call_c", "bash")]
        );
        assert_eq!(
            calls[0].arguments,
            json!({"command": "ls -la", "n": [1, {"x": "é"}]})
        );
        assert_eq!(
            (&calls[1].arguments, &calls[1].invalid_arguments),
            (&json!({}), &None)
        );
        assert_eq!(calls[2].arguments, json!({}));
        if wire == Wire::Gemini {
            // Its arguments are JSON always; here a text, which is no object.
            assert!(calls[2].invalid_arguments.is_some());
            continue;
        }
        assert_eq!(
            calls[2].invalid_arguments.as_deref(),
            Some(r#"{"command": "#)
        );
    }
}

#[tokio::test]
async fn an_id_that_is_missing_or_already_used_is_replaced() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        let history = vec![
            user("q"),
            said(&bench.model.reference, vec![call("call_a", "bash")]),
            result("call_a", "bash", "r"),
        ];
        let reply = Answer::new()
            .tool("call_a", "bash", "{}")
            .tool("", "read", "{}");
        let message = bench.answer(reply, bench.request(history)).await;
        let ids: Vec<_> = message.tool_calls().map(|call| call.id.as_str()).collect();
        assert_eq!(ids, ["call_a_2", "call_1_1"], "{name}");
    }
}

#[tokio::test]
async fn usage_is_split_without_counting_a_token_twice() {
    for bench in Bench::every().await {
        let (wire, name) = (bench.wire, bench.name.as_str());
        let cached = matches!(wire, Wire::Anthropic | Wire::Bedrock);
        let cache_write = if cached { 30 } else { 0 };
        let usage = FakeUsage {
            input: 11,
            output: 7,
            cache_read: 200,
            cache_write,
        };
        let message = bench.ask(Answer::new().text("x").usage(usage)).await;
        let split = Usage {
            input: 11,
            output: 7,
            cache_read: 200,
            cache_write,
            ..Usage::default()
        };
        assert_eq!(message.usage, split, "{name}");
    }
}

#[tokio::test]
async fn the_output_limit_and_a_refusal_are_stop_reasons() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        let message = bench
            .ask(Answer::new().text("so far").stop(Stop::Length))
            .await;
        assert_eq!(
            (message.stop, &*message.text()),
            (StopReason::Length, "so far"),
            "{name}"
        );
        let message = bench
            .ask(Answer::new().text("no").stop(Stop::Refused))
            .await;
        assert_eq!(
            (message.stop, &*message.text()),
            (StopReason::Refused, "no"),
            "{name}"
        );
    }
}

const CLASSES: [(ErrorClass, &str); 7] = [
    (ErrorClass::RateLimit, "model_rate_limit"),
    (ErrorClass::Overloaded, "model_overloaded"),
    (ErrorClass::Auth, "model_auth"),
    (ErrorClass::Quota, "model_quota"),
    (ErrorClass::ContextOverflow, "model_context_overflow"),
    (ErrorClass::InvalidRequest, "model_invalid_request"),
    (ErrorClass::UnknownModel, "model_unknown"),
];

#[tokio::test]
async fn each_class_of_failure_is_told_apart_before_and_inside_a_stream() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        for (class, code) in CLASSES {
            let error = bench.refused(Reply::error(class)).await;
            assert_eq!(error.code(), code, "{name}: {error}");
            assert!(error.status.is_some());
            assert_eq!(error.provider, name);
            let (events, error) = bench
                .broken(Answer::new().text("some text").fail_after_events(3, class))
                .await;
            assert_eq!(error.code(), code, "{name}: {error}");
            assert!(!events.iter().any(|event| matches!(event, Event::Done(_))));
        }
    }
}

#[tokio::test]
async fn other_failures_get_their_class_and_one_line() {
    let page = "<html>\n<head><title>502 Bad Gateway</title></head></html>";
    let big = "x".repeat(10 * 1024 * 1024);
    let cases = [
        (
            Reply::raw(502, "text/html", page),
            "model_overloaded",
            "502 Bad Gateway",
        ),
        (
            Reply::raw(200, "text/html", page),
            "model_protocol",
            "text/html",
        ),
        (
            Reply::raw(413, "text/plain", "too big"),
            "model_context_overflow",
            "too big",
        ),
        (Reply::raw(403, "text/plain", ""), "model_auth", "403"),
        (
            Reply::raw(302, "text/plain", "").header("location", "http://x/"),
            "model_protocol",
            "302",
        ),
        (
            Reply::raw(400, "text/plain", big),
            "model_invalid_request",
            "xxx",
        ),
        (
            Reply::raw(
                200,
                "application/json",
                r#"{"error":{"message":"maximum context length is 10 tokens"}}"#,
            ),
            "model_context_overflow",
            "maximum",
        ),
        (
            Reply::raw(
                401,
                "application/json",
                format!(r#"{{"error":"bad key {KEY}"}}"#),
            ),
            "model_auth",
            "bad key [redacted]",
        ),
    ];
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        let local = matches!(name, "ollama" | "lmstudio" | "vllm" | "llamacpp");
        for (reply, code, what) in &cases {
            if local && what.contains("redacted") {
                continue;
            }
            let error = bench.refused(reply.clone()).await;
            assert_eq!(error.code(), *code, "{name}: {error}");
            assert!(error.message.contains(what), "{name}: {error}");
            assert!(error.message.chars().count() <= 501 && !error.message.contains('\n'));
        }
    }
}

/// Longer than can be waited for.
const FOR_EVER: u64 = u64::MAX;

#[tokio::test]
async fn retry_after_is_read_in_every_form() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let later = "Sun, 06 Nov 1994 08:50:07 GMT";
    let limit = |body: &str| Reply::raw(429, "text/plain", body.to_owned());
    let cases = [
        (limit("slow").header("retry-after", "20"), Some(20_000)),
        (limit("slow").header("retry-after", "1.5"), Some(1500)),
        (
            limit("slow")
                .header("retry-after-ms", "250")
                .header("retry-after", "9"),
            Some(250),
        ),
        (
            limit("slow")
                .header("date", date)
                .header("retry-after", later),
            Some(30_000),
        ),
        (limit("slow").header("retry-after", "soon"), None),
        (limit("slow").header("retry-after", "-5"), None),
        (limit("slow").header("retry-after", "1e300"), Some(FOR_EVER)),
        (
            limit("slow").header("x-ratelimit-reset-after", "3"),
            Some(3000),
        ),
        (
            limit("slow")
                .header("date", date)
                .header("x-ratelimit-reset", "784111787"),
            Some(10_000),
        ),
        (
            limit(r#"{"error":{"code":429,"message":"slow","details":[{"retryDelay":"34s"}]}}"#),
            Some(34_000),
        ),
        (limit("Please try again in 1m2.5s."), Some(62_500)),
        (limit("Please retry in 300ms"), Some(300)),
        (limit("slow"), None),
    ];
    for wire in Wire::ALL {
        let bench = Bench::new(wire).await;
        for (reply, millis) in &cases {
            let error = bench.refused(reply.clone()).await;
            assert_eq!(error.code(), "model_rate_limit", "{wire:?}: {reply:?}");
            let wanted = millis.map(|millis| match millis {
                FOR_EVER => Duration::MAX,
                millis => Duration::from_millis(millis),
            });
            assert_eq!(error.retry_after(), wanted, "{wire:?}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_cut_anywhere_is_cut_and_keeps_what_arrived() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        let answer = || Answer::new().text("a text that is long enough to be cut");
        for bytes in [1, 400, 700] {
            let (events, error) = bench.broken(answer().cut_after_bytes(bytes)).await;
            assert_eq!(
                error.kind,
                ErrorKind::Cut,
                "{name} after {bytes}: {events:?}"
            );
        }
        let (events, error) = bench.broken(answer().end_after_events(7)).await;
        assert_eq!(error.kind, ErrorKind::Cut, "{name}");
        assert!(texts(&events).starts_with("a text"), "{name}: {events:?}");
    }
}

#[tokio::test]
async fn events_that_are_not_the_format_are_a_protocol_error() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        let nonsense = match bench.wire {
            Wire::Bedrock => Reply::raw(200, "application/vnd.amazon.eventstream", vec![7; 20]),
            Wire::Anthropic | Wire::Responses | Wire::Chat | Wire::Gemini => {
                Reply::sse("data: {\"half\": \n\n")
            }
        };
        let (_, error) = bench.broken(nonsense).await;
        assert_eq!(error.kind, ErrorKind::Protocol, "{name}");
    }
}

#[tokio::test]
async fn a_silent_stream_is_stalled_after_the_idle_deadline() {
    let benches = Bench::every_with_idle(Duration::from_millis(100)).await;
    for bench in &benches {
        let gate = Gate::new();
        let (events, error) = bench
            .broken(
                Answer::new()
                    .text("some text that is longer")
                    .stall_after_events(5, &gate),
            )
            .await;
        assert_eq!(error.kind, ErrorKind::Stalled, "{}", bench.name);
        assert!(!events.is_empty());
        // The connection is given up with the answer.
        bench.server.abandoned(1).await;
    }
}

#[tokio::test]
async fn a_silent_stream_is_waited_for_until_the_idle_deadline() {
    for bench in Bench::every().await {
        let gate = Gate::new();
        bench
            .server
            .push(Answer::new().text("some text").stall_after_events(5, &gate));
        let stream = bench
            .model
            .provider
            .stream(bench.request(vec![user("hello")]))
            .await
            .unwrap();
        gate.open();
        assert_eq!(whole(stream).await.text(), "some text");
    }
}

#[tokio::test]
async fn dropping_the_stream_ends_the_request_at_the_provider() {
    for bench in Bench::every().await {
        bench.server.push(
            Answer::new()
                .text("some text")
                .stall_after_events(5, &Gate::new()),
        );
        let mut stream = bench
            .model
            .provider
            .stream(bench.request(vec![user("hello")]))
            .await
            .unwrap();
        assert!(matches!(
            stream.next().await,
            Some(Ok(Event::Started { .. }))
        ));
        drop(stream);
        bench.server.abandoned(1).await;
    }
}

#[tokio::test]
async fn an_unreachable_server_is_a_network_error_that_names_the_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for wire in Wire::ALL {
        let model = model(format!("http://127.0.0.1:{port}/v1"), wire, PATIENT);
        let sent = model
            .provider
            .stream(request("test-model", vec![user("hello")]))
            .await;
        let Err(error) = sent else { panic!() };
        assert_eq!(error.kind, ErrorKind::Network);
        let host = format!("127.0.0.1:{port}");
        assert!(error.message.contains(&host), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_tls_is_a_network_error_and_the_key_is_not_sent() {
    let server = FakeProvider::start().await.unwrap();
    let url = server.base_url(Wire::Chat).replace("http:", "https:");
    let model = model(url, Wire::Chat, PATIENT);
    let sent = model
        .provider
        .stream(request("test-model", vec![user("hello")]))
        .await;
    let Err(error) = sent else { panic!() };
    assert_eq!(error.kind, ErrorKind::Network, "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn the_key_is_sent_in_the_providers_own_header_and_in_no_other() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        bench.ask(Answer::new().text("x")).await;
        let headers = bench.last().headers;
        let bearer = format!("Bearer {KEY}");
        let wanted = match (name, bench.wire) {
            ("ollama" | "lmstudio" | "vllm" | "llamacpp", _) => None,
            ("azure", _) => Some(("api-key", KEY)),
            ("cloudflare-gateway", _) => Some(("cf-aig-authorization", &*bearer)),
            ("vertex", _) => Some(("authorization", &*bearer)),
            (_, Wire::Anthropic) => Some(("x-api-key", KEY)),
            (_, Wire::Gemini) => Some(("x-goog-api-key", KEY)),
            (_, Wire::Responses | Wire::Chat | Wire::Bedrock) => Some(("authorization", &*bearer)),
        };
        let found: Vec<_> = headers
            .iter()
            .filter(|(_, value)| value.contains(KEY))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, Vec::from_iter(wanted), "{name}");
        if bench.wire == Wire::Anthropic {
            assert_eq!(headers["anthropic-version"], "2023-06-01");
        }
    }
}

#[tokio::test]
async fn a_conversation_sends_its_prefix_unchanged_from_call_to_call() {
    for bench in Bench::every().await {
        let (wire, name) = (bench.wire, bench.name.as_str());
        let mut history = vec![user("hello")];
        let mut earlier: Vec<Value> = Vec::new();
        for step in 0..4 {
            let reply = Answer::new().thinking("hm", "sig").text("step").tool(
                &format!("call_{step}"),
                "bash",
                r#"{"command":"ls"}"#,
            );
            let message = bench.answer(reply, bench.request(history.clone())).await;
            history.push(Message::Assistant(message));
            history.push(result(&format!("call_{step}"), "bash", "out"));
            let key = match wire {
                Wire::Responses => "input",
                Wire::Gemini => "contents",
                Wire::Anthropic | Wire::Chat | Wire::Bedrock => "messages",
            };
            let sent = unmarked(&bench.last().body[key]);
            assert_eq!(sent[..earlier.len()], earlier[..], "{name}");
            earlier = sent;
        }
    }
}

/// The items without their cache markers, which move on with every call.
fn unmarked(items: &Value) -> Vec<Value> {
    let mut items = items.as_array().unwrap().clone();
    for item in &mut items {
        if let Some(blocks) = item["content"].as_array_mut() {
            blocks.retain(|block| block.get("cachePoint").is_none());
            for block in blocks {
                block
                    .as_object_mut()
                    .map(|block| block.remove("cache_control"));
            }
        }
    }
    items
}

#[tokio::test]
async fn cache_markers_stand_at_the_tools_the_system_prompt_and_the_last_user_block() {
    let bench = Bench::new(Wire::Anthropic).await;
    let history = vec![
        user("one"),
        said(
            &bench.model.reference,
            vec![text("two"), call("call_a", "bash")],
        ),
        result("call_a", "bash", "three"),
    ];
    bench
        .answer(Answer::new().text("x"), bench.request(history))
        .await;
    let body = bench.last().body;
    let marker = json!({"type": "ephemeral"});
    assert_eq!(body["system"][0]["cache_control"], marker);
    assert_eq!(body["tools"][1]["cache_control"], marker);
    assert_eq!(body["messages"][2]["content"][0]["cache_control"], marker);
    let count = bench
        .last()
        .raw
        .windows(13)
        .filter(|bytes| bytes == b"cache_control")
        .count();
    assert_eq!(count, 3);
}

#[tokio::test]
async fn tool_results_images_and_files_are_sent_in_the_formats_own_way() {
    let file = |media: &str, name: &str| {
        let data = bytes::Bytes::from_static(b"abc");
        FilePart {
            media_type: media.to_owned(),
            name: Some(name.to_owned()),
            data,
        }
    };
    for bench in Bench::every().await {
        let (wire, name) = (bench.wire, bench.name.as_str());
        let question = UserMessage {
            parts: vec![
                UserPart::Text {
                    text: "look".to_owned(),
                },
                UserPart::File(file("image/png", "a.png")),
                UserPart::File(file("text/csv", "a.csv")),
                UserPart::File(file("application/zip", "a.zip")),
            ],
        };
        let image = Message::ToolResult(ToolResult {
            call_id: "call_a".to_owned(),
            name: "read".to_owned(),
            parts: vec![ResultPart::File(file("image/png", "b.png"))],
            is_error: false,
        });
        let failed = Message::ToolResult(ToolResult {
            call_id: "call_b".to_owned(),
            name: "bash".to_owned(),
            parts: vec![ResultPart::Text {
                text: "no such file".to_owned(),
            }],
            is_error: true,
        });
        let calls = vec![call("call_a", "read"), call("call_b", "bash")];
        let asked = Message::User(question);
        let history = vec![asked, said(&bench.model.reference, calls), image, failed];
        bench
            .answer(Answer::new().text("x"), bench.request(history))
            .await;
        let body = bench.last().body;
        let raw = body.to_string();
        assert!(raw.contains("a.zip, application/zip, 3 bytes"), "{name}");
        match wire {
            Wire::Anthropic => {
                let results = &body["messages"][2]["content"];
                assert_eq!(results[0]["content"][0]["type"], "image");
                assert_eq!(results[1]["is_error"], true);
                assert_eq!(results[1]["content"][0]["text"], "no such file");
                assert_eq!(body["messages"][0]["content"][2]["type"], "document");
            }
            Wire::Responses => {
                let items = body["input"].as_array().unwrap();
                assert_eq!(items[3]["output"][0]["type"], "input_image");
                assert_eq!(items[4]["output"], "Error: no such file");
            }
            Wire::Bedrock => {
                let results = &body["messages"][2]["content"];
                let content = &results[0]["toolResult"]["content"];
                assert_eq!(content[0]["image"]["format"], "png");
                assert_eq!(results[1]["toolResult"]["status"], "error");
                assert_eq!(
                    results[1]["toolResult"]["content"][0]["text"],
                    "no such file"
                );
                assert_eq!(
                    body["messages"][0]["content"][2]["document"]["format"],
                    "csv"
                );
            }
            Wire::Gemini => {
                let parts = body["contents"][2]["parts"].as_array().unwrap();
                assert_eq!(parts[1]["inlineData"]["mimeType"], "image/png");
                let response = &parts[2]["functionResponse"]["response"];
                assert_eq!(response, &json!({"error": "no such file"}));
            }
            Wire::Chat => {
                let messages = body["messages"].as_array().unwrap();
                let roles: Vec<_> = messages
                    .iter()
                    .map(|m| m["role"].as_str().unwrap())
                    .collect();
                assert!(matches!(roles[0], "system" | "developer"), "{name}");
                assert_eq!(roles[1..5], ["user", "assistant", "tool", "tool"]);
                assert_eq!(messages[4]["content"], "Error: no such file");
                if name == "deepseek" {
                    // Its models take no images.
                    assert_eq!(messages.len(), 5);
                    continue;
                }
                assert_eq!(roles[5], "user");
                assert_eq!(messages[5]["content"][1]["type"], "image_url");
            }
        }
    }
}

#[tokio::test]
async fn thinking_levels_become_the_formats_own_settings() {
    let send = |wire: Wire, name: &'static str, level: Thinking| async move {
        let bench = Bench::new(wire).await;
        let mut asked = request(name, vec![user("hello")]);
        asked.thinking = level;
        bench.answer(Answer::new().text("x"), asked).await;
        bench.last()
    };
    let sent = send(Wire::Anthropic, "claude-haiku-4-5", Thinking::Low).await;
    assert_eq!(
        sent.body["thinking"],
        json!({"type": "enabled", "budget_tokens": 2048})
    );
    assert_eq!(sent.body["max_tokens"], 8192);
    assert!(sent.headers.contains_key("anthropic-beta"));
    let sent = send(Wire::Anthropic, "claude-opus-4-6", Thinking::Max).await;
    assert_eq!(sent.body["thinking"], json!({"type": "adaptive"}));
    assert_eq!(sent.body["output_config"], json!({"effort": "max"}));
    let sent = send(Wire::Anthropic, "claude-opus-4-6", Thinking::Off).await;
    assert_eq!(sent.body.get("thinking"), None);
    let sent = send(Wire::Responses, "gpt-5", Thinking::Minimal).await;
    assert_eq!(sent.body["reasoning"]["effort"], "minimal");
    let sent = send(Wire::Responses, "gpt-5.4", Thinking::Off).await;
    assert_eq!(sent.body["reasoning"], json!({"effort": "none"}));
    let sent = send(Wire::Responses, "gpt-4.1", Thinking::High).await;
    assert_eq!(sent.body.get("reasoning"), None);
    let sent = send(Wire::Gemini, "gemini-2.5-flash", Thinking::Off).await;
    let config = &sent.body["generationConfig"]["thinkingConfig"];
    assert_eq!(
        config,
        &json!({"thinkingBudget": 0, "includeThoughts": false})
    );
    let sent = send(Wire::Gemini, "gemini-3-pro-preview", Thinking::Medium).await;
    let config = &sent.body["generationConfig"]["thinkingConfig"];
    assert_eq!(
        config,
        &json!({"thinkingLevel": "high", "includeThoughts": true})
    );
    let sent = send(Wire::Chat, "qwen3", Thinking::High).await;
    assert_eq!(sent.body["reasoning_effort"], "high");
    let sent = send(Wire::Chat, "qwen3", Thinking::Off).await;
    assert_eq!(sent.body.get("reasoning_effort"), None);
}

#[tokio::test]
async fn a_tool_loop_that_another_model_began_goes_on_without_a_thinking_budget() {
    let bench = Bench::new(Wire::Anthropic).await;
    let other = crate::messages::reference("openai-chat", "other");
    let calls = vec![thought("hm", Some("s")), call("call_a", "bash")];
    let history = vec![
        user("q"),
        said(&other, calls),
        result("call_a", "bash", "r"),
    ];
    let mut asked = request("claude-haiku-4-5", history);
    asked.thinking = Thinking::High;
    bench.answer(Answer::new().text("x"), asked).await;
    assert_eq!(bench.last().body.get("thinking"), None);
}

#[tokio::test]
async fn chat_servers_may_differ_in_how_they_stream() {
    let bench = Bench::new(Wire::Chat).await;
    let finish = r#"data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
    let chunk = |delta: &str| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
    let cases = [
        // Without index, whole in one chunk, arguments as an object.
        chunk(
            r#"{"tool_calls":[{"id":"a","function":{"name":"x","arguments":{"k":1}}},{"id":"b","function":{"name":"y","arguments":"{}"}}]}"#,
        ),
        // Every index 0, told apart by id.
        chunk(
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":"{\"k\":1}"}}]}"#,
        ) + &chunk(
            r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"y","arguments":""}}]}"#,
        ),
        // The name comes late, and the id again with every piece.
        chunk(r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":""}}]}"#)
            + &chunk(
                r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":"{\"k\""}}]}"#,
            )
            + &chunk(r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":":1}"}}]}"#)
            + &chunk(r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"y"}}]}"#),
    ];
    for case in cases {
        // Without `[DONE]` and usage: the finish reason says that it is whole.
        bench.server.push(Reply::sse(format!("{case}{finish}\n\n")));
        let stream = bench
            .model
            .provider
            .stream(bench.request(vec![user("q")]))
            .await
            .unwrap();
        let message = whole(stream).await;
        let calls: Vec<_> = message
            .tool_calls()
            .map(|c| (&*c.id, &*c.name, c.arguments.clone()))
            .collect();
        assert_eq!(
            calls,
            [("a", "x", json!({"k": 1})), ("b", "y", json!({}))],
            "{case}"
        );
    }
}
