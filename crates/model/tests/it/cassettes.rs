//! Exchanges as the providers publish them, replayed; and one recorded here.

use std::path::Path;
use std::time::Duration;

use bowline_model::cassette::{Cassette, Tape, frame};
use bowline_model::{
    AssistantPart, Event, ModelError, ModelSettings, Models, NamedModel, ResolvedModel, Secret,
    StopReason,
};
use bowline_testkit::provider::{Answer, FakeProvider, Reply, Wire};
use serde_json::json;

use crate::bench::{KEY, api, model, settings};
use crate::messages::{collect, request, user, whole};

const CASSETTES: [(Wire, &str); 5] = [
    (Wire::Anthropic, include_str!("cassettes/anthropic.json")),
    (
        Wire::Responses,
        include_str!("cassettes/openai-responses.json"),
    ),
    (Wire::Chat, include_str!("cassettes/openai-chat.json")),
    (Wire::Gemini, include_str!("cassettes/gemini.json")),
    (Wire::Bedrock, include_str!("cassettes/bedrock.json")),
];

/// A model whose server is a tape.
fn taped(wire: Wire, tape: &Tape, base_url: &str) -> ResolvedModel {
    let mut settings = settings(Duration::from_secs(60));
    settings.tape = Some(tape.clone());
    let path = match wire {
        Wire::Anthropic | Wire::Bedrock => "",
        Wire::Responses | Wire::Chat => "/v1",
        Wire::Gemini => "/v1beta",
    };
    let entry = NamedModel {
        base_url: Some(format!("{base_url}{path}")),
        key_env: Some("TEST_KEY".to_owned()),
        model: Some("test-model".to_owned()),
        ..NamedModel::new(api(wire))
    };
    settings.named.insert("test".to_owned(), entry);
    Models::new(settings)
        .resolve("test", Path::new("."))
        .unwrap()
}

async fn refused(model: &ResolvedModel) -> ModelError {
    let asked = request("test-model", vec![user("hello")]);
    match model.provider.stream(asked).await {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn the_providers_published_examples_are_understood() {
    for (wire, json) in CASSETTES {
        let cassette = Cassette::parse(json).unwrap();
        assert!(!cassette.source.is_empty());
        let tape = Tape::replay(cassette);
        // Nothing may reach the network.
        let model = taped(wire, &tape, "http://127.0.0.1:9");
        let ask = || {
            let asked = request("test-model", vec![user("hello")]);
            model.provider.stream(asked)
        };

        // A thought, a text and a call.
        let answer = whole(ask().await.unwrap()).await;
        assert_eq!(answer.stop, StopReason::ToolUse, "{wire:?}");
        assert!(matches!(
            &answer.parts[0],
            AssistantPart::Thinking { text, .. } if text.contains("weather")
        ));
        assert_eq!(answer.text(), "Okay, let's check the weather:");
        let call = answer.tool_calls().next().unwrap();
        assert_eq!(call.name, "get_weather");
        assert_eq!(call.arguments, json!({"location": "San Francisco, CA"}));
        let usage = answer.usage;
        assert_eq!((usage.input, usage.output), (472, 89), "{wire:?}");

        // A refusal.
        let answer = whole(ask().await.unwrap()).await;
        assert_eq!(answer.stop, StopReason::Refused, "{wire:?}");

        // A rate limit that says how long it lasts, and an overflow.
        let error = refused(&model).await;
        assert_eq!(error.code(), "model_rate_limit", "{wire:?}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));
        let error = refused(&model).await;
        assert_eq!(error.code(), "model_context_overflow", "{wire:?}");

        // A stream that breaks keeps what came.
        let (events, error) = collect(ask().await.unwrap()).await;
        assert_eq!(error.unwrap().code(), "model_cut", "{wire:?}");
        assert!(events.iter().any(|event| matches!(
            event,
            Event::Text { delta, .. } if delta == "Hello"
        )));
        assert_eq!(tape.left(), 0);

        let error = refused(&model).await;
        assert_eq!(error.code(), "model_protocol");
        assert!(error.message.contains("no exchange 6"), "{error}");
    }
}

#[tokio::test]
async fn what_was_recorded_replays_the_same_and_holds_no_key() {
    for wire in Wire::ALL {
        let server = FakeProvider::start().await.unwrap();
        server.is_told_a_key();
        let address = server.base_url(Wire::Anthropic);
        let said = format!("the key is {KEY}");
        server.push(Answer::new().text(&said).tool("call_a", "bash", "{}"));
        let tape = Tape::record();
        let model = taped(wire, &tape, &address);
        let asked = || request("test-model", vec![user(&format!("my key: {KEY}"))]);
        let live = whole(model.provider.stream(asked()).await.unwrap()).await;

        let json = tape.cassette().to_json();
        assert!(!json.contains(KEY), "{wire:?}: {json}");
        let tape = Tape::replay(Cassette::parse(&json).unwrap());
        let model = taped(wire, &tape, "http://127.0.0.1:9");
        // The key of the request is gone as well: what is asked now is what was recorded.
        let asked = request("test-model", vec![user("my key: [redacted]")]);
        let again = whole(model.provider.stream(asked).await.unwrap()).await;
        assert_eq!(again.tool_calls().count(), live.tool_calls().count());
        assert_eq!(again.usage, live.usage);
        assert_eq!(server.requests().len(), 1);

        let tape = Tape::replay(Cassette::parse(&json).unwrap());
        let model = taped(wire, &tape, "http://127.0.0.1:9");
        let error = refused(&model).await;
        assert!(error.message.contains("another body"), "{error}");
    }
}

#[tokio::test]
async fn a_key_in_a_binary_answer_is_not_recorded_and_the_answer_replays() {
    let server = FakeProvider::start().await.unwrap();
    let delta = json!({"contentBlockIndex": 0, "delta": {"text": format!("key {KEY}.")}});
    let mut body = frame("contentBlockDelta", delta.to_string().as_bytes());
    body.extend(frame("messageStop", br#"{"stopReason":"end_turn"}"#));
    let media = "application/vnd.amazon.eventstream";
    server.push(Reply::raw(200, media, body));
    let tape = Tape::record();
    let live = taped(Wire::Bedrock, &tape, &server.base_url(Wire::Bedrock));
    let asked = || request("test-model", vec![user("hello")]);
    whole(live.provider.stream(asked()).await.unwrap()).await;
    let cassette = tape.cassette();
    let recorded = cassette.exchanges[0].response.bytes().unwrap();
    assert!(!String::from_utf8_lossy(&recorded).contains(KEY));
    let replayed = taped(Wire::Bedrock, &Tape::replay(cassette), "http://127.0.0.1:9");
    let again = whole(replayed.provider.stream(asked()).await.unwrap()).await;
    assert_eq!(again.text(), format!("key {}.", "*".repeat(KEY.len())));
}

#[test]
fn a_cassette_that_is_none_is_said_to_be_none() {
    let error = Cassette::parse("{\"exchanges\": 3}").unwrap_err();
    assert!(error.to_string().starts_with("the cassette cannot be read"));
    let settings = ModelSettings::new(|_| Some(Secret::new(bowline_testkit::canary::KEY)), ".");
    assert!(settings.tape.is_none());
    let _ = model("http://127.0.0.1:9".to_owned(), Wire::Chat, Duration::ZERO);
}
