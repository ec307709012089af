//! Short ways to write requests and transcripts, and to collect answers.

use bowline_model::{
    AssistantMessage, AssistantPart, CallPosition, Event, EventStream, Message, ModelError,
    ModelRef, Partial, Request, ResultPart, StopReason, Thinking, ToolCall, ToolResult, ToolSpec,
    Usage, UserMessage,
};
use futures::StreamExt as _;
use serde_json::json;

pub(crate) fn user(text: &str) -> Message {
    Message::User(UserMessage::text(text))
}

pub(crate) fn text(text: &str) -> AssistantPart {
    AssistantPart::Text {
        text: text.to_owned(),
        signature: None,
    }
}

pub(crate) fn thought(text: &str, signature: Option<&str>) -> AssistantPart {
    let signature = signature.map(str::to_owned);
    AssistantPart::Thinking {
        text: text.to_owned(),
        signature,
        redacted: false,
    }
}

pub(crate) fn call(id: &str, name: &str) -> AssistantPart {
    AssistantPart::ToolCall(ToolCall::from_text(
        id.to_owned(),
        name.to_owned(),
        r#"{"a":1}"#,
    ))
}

pub(crate) fn assistant(
    model: &ModelRef,
    stop: StopReason,
    parts: Vec<AssistantPart>,
) -> AssistantMessage {
    let (model, usage) = (model.clone(), Usage::default());
    AssistantMessage {
        model,
        parts,
        stop,
        usage,
        response_id: None,
    }
}

pub(crate) fn said(model: &ModelRef, parts: Vec<AssistantPart>) -> Message {
    Message::Assistant(assistant(model, StopReason::Stop, parts))
}

pub(crate) fn result(id: &str, name: &str, text: &str) -> Message {
    Message::ToolResult(ToolResult {
        call_id: id.to_owned(),
        name: name.to_owned(),
        parts: vec![ResultPart::Text {
            text: text.to_owned(),
        }],
        is_error: false,
    })
}

pub(crate) fn reference(api: &str, model: &str) -> ModelRef {
    ModelRef {
        api: api.to_owned(),
        provider: "p".to_owned(),
        model: model.to_owned(),
    }
}

pub(crate) fn request(model: &str, messages: Vec<Message>) -> Request {
    let tool = |name: &str| ToolSpec {
        name: name.to_owned(),
        description: format!("The tool {name}."),
        parameters: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
    };
    Request {
        model: model.to_owned(),
        system: "Be brief.".to_owned(),
        messages: messages.into(),
        tools: vec![tool("bash"), tool("read")].into(),
        thinking: Thinking::Off,
        max_output: None,
        position: CallPosition {
            call: 1,
            attempt: 0,
            ..CallPosition::default()
        },
        ..Request::default()
    }
}

/// Everything that a stream says, up to its error.
pub(crate) async fn collect(mut stream: EventStream) -> (Vec<Event>, Option<ModelError>) {
    let mut events = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(event) => events.push(event),
            Err(error) => {
                assert!(stream.next().await.is_none(), "something follows an error");
                return (events, Some(error));
            }
        }
    }
    (events, None)
}

/// The answer of a stream that ends well. Checks that its events tell the same as its message.
pub(crate) async fn whole(stream: EventStream) -> AssistantMessage {
    let (events, error) = collect(stream).await;
    assert_eq!(error, None, "after {events:?}");
    assert!(matches!(events.first(), Some(Event::Started { .. })));
    let (last, before) = events.split_last().unwrap();
    let Event::Done(message) = last else {
        panic!("the last event is {last:?}")
    };
    let mut partial = Partial::default();
    for event in before {
        assert!(!matches!(event, Event::Done(_)));
        partial.apply(event);
    }
    assert_eq!(
        partial.parts(),
        message.parts,
        "what was streamed is not what was returned"
    );
    message.clone()
}
