//! Amazon Bedrock Converse: its events, in binary frames.

use base64::Engine as _;
use serde_json::{Value, json};

use super::reply::{Answer, ErrorClass, Part, Stop};
use super::wire::{has_tools, pieces};

/// One frame of the event stream: lengths, headers, payload, checksums.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        block.extend_from_slice(name.as_bytes());
        block.push(7);
        block.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = length(block.len() + payload.len() + 16).to_vec();
    out.extend_from_slice(&length(block.len()));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&block);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

fn event(kind: &str, data: &Value) -> Vec<u8> {
    let headers = [
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ];
    frame(&headers, data.to_string().as_bytes())
}

/// The events of a whole answer, each in its frame.
pub(super) fn events(answer: &Answer) -> Vec<Vec<u8>> {
    let mut out = vec![event("messageStart", &json!({"role": "assistant"}))];
    for (index, part) in answer.parts.iter().enumerate() {
        let deltas: Vec<Value> = match part {
            Part::Text(text) => {
                let deltas = pieces(text).into_iter();
                deltas.map(|text| json!({"text": text})).collect()
            }
            Part::Thinking { text, signature } if text.is_empty() => {
                let data = base64::engine::general_purpose::STANDARD.encode(signature);
                vec![json!({"reasoningContent": {"redactedContent": data}})]
            }
            Part::Thinking { text, signature } => {
                let deltas = pieces(text).into_iter();
                let mut deltas: Vec<Value> = deltas
                    .map(|text| json!({"reasoningContent": {"text": text}}))
                    .collect();
                deltas.push(json!({"reasoningContent": {"signature": signature}}));
                deltas
            }
            Part::Tool {
                id,
                name,
                arguments,
            } => {
                let start = json!({"toolUse": {"toolUseId": id, "name": name}});
                out.push(event(
                    "contentBlockStart",
                    &json!({"start": start, "contentBlockIndex": index}),
                ));
                let deltas = pieces(arguments).into_iter();
                deltas
                    .map(|text| json!({"toolUse": {"input": text}}))
                    .collect()
            }
        };
        for delta in deltas {
            out.push(event(
                "contentBlockDelta",
                &json!({"delta": delta, "contentBlockIndex": index, "p": "abcdef"}),
            ));
        }
        out.push(event(
            "contentBlockStop",
            &json!({"contentBlockIndex": index}),
        ));
    }
    let reason = match answer.stop {
        Stop::Natural if has_tools(answer) => "tool_use",
        Stop::Natural => "end_turn",
        Stop::Length => "max_tokens",
        Stop::Refused => "content_filtered",
    };
    out.push(event("messageStop", &json!({"stopReason": reason})));
    let usage = answer.usage;
    out.push(event(
        "metadata",
        &json!({"usage": {
            "inputTokens": usage.input, "outputTokens": usage.output,
            "totalTokens": usage.input + usage.output,
            "cacheReadInputTokens": usage.cache_read,
            "cacheWriteInputTokens": usage.cache_write,
        }, "metrics": {"latencyMs": 1}}),
    ));
    out
}

/// The status and body of a failure; the body's `__type` is sent as a header too.
pub(super) fn error(class: ErrorClass) -> (u16, Value) {
    let (status, name, message) = match class {
        ErrorClass::RateLimit => (
            429,
            "ThrottlingException",
            "Too many tokens, please wait before trying again.",
        ),
        ErrorClass::Overloaded => (
            503,
            "ServiceUnavailableException",
            "Bedrock is unable to process your request.",
        ),
        ErrorClass::Auth => (
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        ErrorClass::Quota => (
            400,
            "ServiceQuotaExceededException",
            "You have exceeded a service quota.",
        ),
        ErrorClass::ContextOverflow => (
            400,
            "ValidationException",
            "Input is too long for requested model.",
        ),
        ErrorClass::InvalidRequest => (400, "ValidationException", "maxTokens must be at least 1."),
        ErrorClass::UnknownModel => (
            400,
            "ValidationException",
            "The provided model identifier is invalid.",
        ),
    };
    (status, json!({"__type": name, "message": message}))
}

/// A failure in the middle of a stream.
pub(super) fn error_event(body: &Value) -> Vec<u8> {
    let name = body["__type"].as_str().unwrap_or_default();
    let mut name = name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let headers = [
        (":exception-type", name.as_str()),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    let message = json!({"message": body["message"]}).to_string();
    frame(&headers, message.as_bytes())
}
