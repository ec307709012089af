//! Servers that do not do what their format says.

use std::time::Duration;

use bowline_model::{AssistantPart, ErrorKind, StopReason};
use bowline_testkit::provider::{Answer, FakeProvider, Gate, Reply, Wire};
use serde_json::json;

use crate::bench::{Bench, KEY, model};
use crate::messages::{collect, request, text, thought, user, whole};

#[tokio::test]
async fn no_part_of_a_key_that_is_echoed_is_left_where_a_message_is_cut() {
    for wire in Wire::ALL {
        let bench = Bench::new(wire).await;
        for before in [490, 470, 440] {
            let message = format!("{} {KEY}", "y".repeat(before));
            let body = json!({"error": {"message": message}, "message": message});
            let refused = Reply::raw(400, "application/json", body.to_string());
            let error = bench.refused(refused).await;
            assert!(!error.message.contains(&KEY[..6]), "{wire:?}: {error}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_counts_however_the_connection_ends() {
    let last = [(Wire::Chat, 4), (Wire::Anthropic, 6), (Wire::Bedrock, 4)];
    for (wire, events) in last {
        let server = FakeProvider::start().await.unwrap();
        let address = server.base_url(wire);
        let model = model(address, wire, Duration::from_millis(100));
        let asked = || request("test-model", vec![user("hello")]);
        // It is never told that the stream ends.
        let gate = Gate::new();
        server.push(Answer::new().text("x").stall_after_events(events, &gate));
        let stream = model.provider.stream(asked()).await.unwrap();
        assert_eq!(whole(stream).await.text(), "x", "{wire:?}");
        // Before the stop reason it is not whole.
        let gate = Gate::new();
        let early = events - 2;
        server.push(Answer::new().text("x").stall_after_events(early, &gate));
        let stream = model.provider.stream(asked()).await.unwrap();
        let (_, error) = collect(stream).await;
        assert_eq!(error.unwrap().kind, ErrorKind::Stalled, "{wire:?}");
    }
}

#[tokio::test]
async fn what_is_no_stream_of_text_is_said_to_be_none() {
    let bench = Bench::new(Wire::Chat).await;
    let packed = Reply::sse("data: {}\n\n").header("content-encoding", "gzip");
    let error = bench.refused(packed).await;
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert!(error.message.contains("`gzip`"), "{error}");
    let page = Reply::raw(502, "text/html", vec![0x1f, 0x8b, 1]).header("content-encoding", "gzip");
    let error = bench.refused(page).await;
    assert_eq!(error.kind, ErrorKind::Overloaded);
    assert!(error.message.contains("without a message"), "{error}");
    let at_once = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]});
    let error = bench
        .refused(Reply::raw(200, "application/json", at_once.to_string()))
        .await;
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert!(error.message.contains("a stream was asked for"), "{error}");
}

#[tokio::test]
async fn an_answer_of_endless_calls_is_refused() {
    let bench = Bench::new(Wire::Chat).await;
    for name in ["bash", ""] {
        let calls: String = (0..5_000)
            .map(|n| {
                let call = json!({"id": format!("c{n}"), "index": n, "function": {"name": name}});
                let chunk = json!({"choices": [{"delta": {"tool_calls": [call]}}]});
                format!("data: {chunk}\n\n")
            })
            .collect();
        let (_, error) = bench.broken(Reply::sse(calls)).await;
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert!(error.message.contains("4096"), "{error}");
    }
}

#[tokio::test]
async fn retry_after_counts_when_a_server_is_overloaded_and_may_say_never() {
    let bench = Bench::new(Wire::Chat).await;
    let busy = |status: u16| Reply::raw(status, "text/plain", "busy");
    let error = bench.refused(busy(503).header("retry-after", "7")).await;
    assert_eq!(error.kind, ErrorKind::Overloaded);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(error.is_transient());
    let error = bench
        .refused(busy(503).header("x-should-retry", "false"))
        .await;
    assert!(!error.is_transient(), "{error}");
    let error = bench.refused(busy(400).header("retry-after", "7")).await;
    assert_eq!(error.retry_after(), None);
}

#[tokio::test]
async fn what_mistral_thinks_and_what_a_model_declines_are_read() {
    let bench = Bench::new(Wire::Chat).await;
    let ask = |events: &str| {
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        bench.server.push(Reply::sse(format!("{events}{end}")));
        bench.model.provider.stream(bench.request(vec![user("q")]))
    };
    let chunk = |delta: &str| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
    let said =
        chunk(r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm"}]}]}"#)
            + &chunk(
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"."}]}]}"#,
            )
            + &chunk(r#"{"content":[{"type":"text","text":"Ye"}]}"#)
            + &chunk(r#"{"content":"s."}"#);
    let answer = whole(ask(&said).await.unwrap()).await;
    assert_eq!(answer.parts, [thought("Hm.", None), text("Yes.")]);
    let said = chunk(r#"{"content":null,"refusal":"I will "}"#) + &chunk(r#"{"refusal":"not."}"#);
    let answer = whole(ask(&said).await.unwrap()).await;
    assert_eq!(answer.stop, StopReason::Refused);
    assert_eq!(answer.text(), "I will not.");
}

#[tokio::test]
async fn an_answer_that_goes_on_from_its_beginning_is_the_same_whether_that_is_repeated() {
    let bench = Bench::every().await;
    let bench = bench.iter().find(|bench| bench.name == "mistral").unwrap();
    let begun = "The knot holds under load and";
    for said in [
        " never slips.",
        "The knot holds under load and never slips.",
    ] {
        for size in [1, 9, 1_000] {
            let mut asked = bench.request(vec![user("q")]);
            asked.begun = Some(begun.to_owned());
            let answer = Answer::new().text(said).in_pieces_of(size);
            let answer = bench.answer(answer, asked).await;
            assert_eq!(answer.text(), " never slips.", "{said}");
        }
    }
    // Only the beginning of the beginning: it is no repetition.
    let mut asked = bench.request(vec![user("q")]);
    asked.begun = Some(begun.to_owned());
    let call = Answer::new().text("The knot").tool("call_a", "bash", "{}");
    let answer = bench.answer(call, asked).await;
    assert_eq!(answer.text(), "The knot");
    let first = answer.parts.first();
    assert!(
        matches!(first, Some(AssistantPart::Text { .. })),
        "{first:?}"
    );
}

#[tokio::test]
async fn what_anthropic_keeps_for_an_hour_is_counted_apart() {
    let bench = Bench::new(Wire::Anthropic).await;
    let usage = json!({
        "input_tokens": 5, "output_tokens": 1, "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    });
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "usage": usage}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ];
    let body: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    bench.server.push(Reply::sse(body));
    let asked = bench.request(vec![user("q")]);
    let answer = whole(bench.model.provider.stream(asked).await.unwrap()).await;
    let usage = answer.usage;
    assert_eq!((usage.cache_write, usage.cache_write_hour), (300, 200));
    assert_eq!((usage.context(), usage.output), (305, 2));
}
