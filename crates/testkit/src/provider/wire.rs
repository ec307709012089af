//! The wire formats, as their providers document them.

use serde_json::{Value, json};

use super::reply::{Answer, ErrorClass, Part, Stop};
use super::{Wire, bedrock};

/// The events of a whole answer, each with its blank line.
pub(super) fn events(wire: Wire, answer: &Answer) -> Vec<Vec<u8>> {
    let events = match wire {
        Wire::Anthropic => anthropic(answer),
        Wire::Responses => numbered(responses(answer)),
        Wire::Chat => chat(answer),
        Wire::Gemini => gemini(answer),
        Wire::Bedrock => return bedrock::events(answer),
    };
    events.into_iter().map(String::into_bytes).collect()
}

/// The events of a response with their numbers.
fn numbered(events: Vec<String>) -> Vec<String> {
    let number = |(at, event): (usize, String)| {
        event.replacen(
            "\ndata: {",
            &format!("\ndata: {{\"sequence_number\":{at},"),
            1,
        )
    };
    events.into_iter().enumerate().map(number).collect()
}

fn named(data: &Value) -> String {
    format!(
        "event: {}\ndata: {data}\n\n",
        data["type"].as_str().unwrap_or_default()
    )
}

fn unnamed(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// Pieces of four characters.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars
        .chunks(4)
        .map(|piece| piece.iter().collect())
        .collect()
}

pub(super) fn has_tools(answer: &Answer) -> bool {
    answer
        .parts
        .iter()
        .any(|part| matches!(part, Part::Tool { .. }))
}

fn anthropic(answer: &Answer) -> Vec<String> {
    let usage = answer.usage;
    let mut out = vec![
        named(&json!({"type": "message_start", "message": {
            "id": answer.id, "type": "message", "role": "assistant", "model": "fake",
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {
                "input_tokens": usage.input,
                "output_tokens": 1,
                "cache_read_input_tokens": usage.cache_read,
                "cache_creation_input_tokens": usage.cache_write,
            },
        }})),
        named(&json!({"type": "ping"})),
    ];
    for (index, part) in answer.parts.iter().enumerate() {
        let (open, deltas) = match part {
            Part::Text(text) => {
                let delta = |text: String| json!({"type": "text_delta", "text": text});
                let deltas: Vec<Value> = pieces(text).into_iter().map(delta).collect();
                (json!({"type": "text", "text": ""}), deltas)
            }
            Part::Thinking { text, signature } if text.is_empty() => (
                json!({"type": "redacted_thinking", "data": signature}),
                Vec::new(),
            ),
            Part::Thinking { text, signature } => {
                let delta = |text: String| json!({"type": "thinking_delta", "thinking": text});
                let mut deltas: Vec<Value> = pieces(text).into_iter().map(delta).collect();
                deltas.push(json!({"type": "signature_delta", "signature": signature}));
                (
                    json!({"type": "thinking", "thinking": "", "signature": ""}),
                    deltas,
                )
            }
            Part::Tool {
                id,
                name,
                arguments,
            } => {
                let delta =
                    |text: String| json!({"type": "input_json_delta", "partial_json": text});
                let mut deltas = vec![delta(String::new())];
                deltas.extend(pieces(arguments).into_iter().map(delta));
                (
                    json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                    deltas,
                )
            }
        };
        out.push(named(
            &json!({"type": "content_block_start", "index": index, "content_block": open}),
        ));
        for delta in deltas {
            out.push(named(
                &json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
        }
        out.push(named(
            &json!({"type": "content_block_stop", "index": index}),
        ));
    }
    let reason = match answer.stop {
        Stop::Natural if has_tools(answer) => "tool_use",
        Stop::Natural => "end_turn",
        Stop::Length => "max_tokens",
        Stop::Refused => "refusal",
    };
    out.push(named(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"output_tokens": usage.output},
    })));
    out.push(named(&json!({"type": "message_stop"})));
    out
}

fn responses(answer: &Answer) -> Vec<String> {
    let head = json!({"id": answer.id, "object": "response", "status": "in_progress"});
    let mut out = vec![
        named(&json!({"type": "response.created", "response": head})),
        named(&json!({"type": "response.in_progress", "response": head})),
    ];
    for (index, part) in answer.parts.iter().enumerate() {
        response_item(index, part, answer.stop == Stop::Refused, &mut out);
    }
    let usage = answer.usage;
    let (status, kind, details) = match answer.stop {
        Stop::Length => (
            "incomplete",
            "response.incomplete",
            json!({"reason": "max_output_tokens"}),
        ),
        Stop::Natural | Stop::Refused => ("completed", "response.completed", Value::Null),
    };
    let input = usage.input + usage.cache_read;
    out.push(named(&json!({"type": kind, "response": {
        "id": answer.id,
        "status": status,
        "incomplete_details": details,
        "usage": {
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": usage.cache_read},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + usage.output,
        },
    }})));
    out
}

fn response_item(index: usize, part: &Part, refused: bool, out: &mut Vec<String>) {
    let (open, deltas, done) = match part {
        Part::Text(text) => {
            let id = format!("msg_{index}");
            let kind = if refused {
                "response.refusal.delta"
            } else {
                "response.output_text.delta"
            };
            let deltas = pieces(text)
                .into_iter()
                .map(|delta| json!({"type": kind, "content_index": 0, "delta": delta}))
                .collect::<Vec<_>>();
            let open = json!({"type": "message", "id": id, "role": "assistant", "content": []});
            let done = json!({
                "type": "message", "id": id, "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": text}],
            });
            (open, deltas, done)
        }
        Part::Thinking { text, signature } => {
            let id = format!("rs_{index}");
            let kind = "response.reasoning_summary_text.delta";
            let mut deltas =
                vec![json!({"type": "response.reasoning_summary_part.added", "summary_index": 0})];
            deltas.extend(
                pieces(text)
                    .into_iter()
                    .map(|delta| json!({"type": kind, "summary_index": 0, "delta": delta})),
            );
            let open = json!({"type": "reasoning", "id": id, "summary": []});
            let done = json!({
                "type": "reasoning", "id": id, "status": "completed",
                "summary": [{"type": "summary_text", "text": text}],
                "encrypted_content": signature,
            });
            (open, deltas, done)
        }
        Part::Tool {
            id,
            name,
            arguments,
        } => {
            let kind = "response.function_call_arguments.delta";
            let deltas = pieces(arguments)
                .into_iter()
                .map(|delta| json!({"type": kind, "delta": delta}));
            let item = |arguments: &str| {
                json!({
                    "type": "function_call", "id": format!("fc_{index}"), "call_id": id,
                    "name": name, "arguments": arguments,
                })
            };
            (item(""), deltas.collect(), item(arguments))
        }
    };
    let at = |mut data: Value| {
        data["output_index"] = json!(index);
        named(&data)
    };
    out.push(at(
        json!({"type": "response.output_item.added", "item": open}),
    ));
    out.extend(deltas.into_iter().map(at));
    out.push(at(
        json!({"type": "response.output_item.done", "item": done}),
    ));
}

fn chat(answer: &Answer) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        unnamed(&json!({
            "id": answer.id,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }))
    };
    let mut out = vec![chunk(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    let mut calls = 0;
    for part in &answer.parts {
        match part {
            Part::Text(text) => {
                let deltas = pieces(text).into_iter();
                out.extend(deltas.map(|text| chunk(json!({"content": text}), Value::Null)));
            }
            Part::Thinking { text, .. } => {
                let deltas = pieces(text).into_iter();
                out.extend(
                    deltas.map(|text| chunk(json!({"reasoning_content": text}), Value::Null)),
                );
            }
            Part::Tool {
                id,
                name,
                arguments,
            } => {
                let open = json!({"tool_calls": [{
                    "index": calls, "id": id, "type": "function",
                    "function": {"name": name, "arguments": ""},
                }]});
                out.push(chunk(open, Value::Null));
                for text in pieces(arguments) {
                    let delta =
                        json!({"tool_calls": [{"index": calls, "function": {"arguments": text}}]});
                    out.push(chunk(delta, Value::Null));
                }
                calls += 1;
            }
        }
    }
    let reason = match answer.stop {
        Stop::Natural if has_tools(answer) => "tool_calls",
        Stop::Natural => "stop",
        Stop::Length => "length",
        Stop::Refused => "content_filter",
    };
    out.push(chunk(json!({}), json!(reason)));
    let usage = answer.usage;
    let prompt = usage.input + usage.cache_read;
    out.push(unnamed(&json!({
        "id": answer.id,
        "choices": [],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": usage.output,
            "total_tokens": prompt + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        },
    })));
    out.push("data: [DONE]\n\n".to_owned());
    out
}

/// Each part that may be streamed in pieces is; a call comes whole. The signature of a thought
/// stands on the part behind it. Arguments that are not JSON come as their text, which is the
/// nearest that this format can say.
fn gemini(answer: &Answer) -> Vec<String> {
    let usage = answer.usage;
    let chunk = |parts: Value, finish: Value| {
        let mut data = json!({
            "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}}],
            "usageMetadata": {
                "promptTokenCount": usage.input + usage.cache_read,
                "cachedContentTokenCount": usage.cache_read,
                "candidatesTokenCount": usage.output,
            },
            "responseId": answer.id,
        });
        if !finish.is_null() {
            data["candidates"][0]["finishReason"] = finish;
        }
        unnamed(&data)
    };
    let mut out = Vec::new();
    let mut signature = None;
    for part in &answer.parts {
        let mut parts: Vec<Value> = match part {
            Part::Text(text) => pieces(text)
                .into_iter()
                .map(|text| json!({"text": text}))
                .collect(),
            Part::Thinking { text, .. } => pieces(text)
                .into_iter()
                .map(|text| json!({"text": text, "thought": true}))
                .collect(),
            Part::Tool {
                id,
                name,
                arguments,
            } => {
                let mut call = json!({"id": id, "name": name});
                if !arguments.is_empty() {
                    call["args"] = serde_json::from_str(arguments).unwrap_or(json!(arguments));
                }
                vec![json!({"functionCall": call})]
            }
        };
        if let (Some(last), Some(taken)) = (parts.last_mut(), signature.take()) {
            last["thoughtSignature"] = json!(taken);
        }
        if let Part::Thinking {
            signature: next, ..
        } = part
        {
            signature = Some(next);
        }
        out.extend(
            parts
                .into_iter()
                .map(|part| chunk(json!([part]), Value::Null)),
        );
    }
    let reason = match answer.stop {
        Stop::Natural => "STOP",
        Stop::Length => "MAX_TOKENS",
        Stop::Refused => "SAFETY",
    };
    out.push(chunk(json!([{"text": ""}]), json!(reason)));
    out
}

/// The status and body of a failure.
pub(super) fn error(wire: Wire, class: ErrorClass) -> (u16, Value) {
    match wire {
        Wire::Anthropic => anthropic_error(class),
        Wire::Gemini => gemini_error(class),
        Wire::Responses | Wire::Chat => openai_error(class),
        Wire::Bedrock => bedrock::error(class),
    }
}

fn anthropic_error(class: ErrorClass) -> (u16, Value) {
    let (status, kind, message) = match class {
        ErrorClass::RateLimit => (429, "rate_limit_error", "Too many requests"),
        ErrorClass::Overloaded => (529, "overloaded_error", "Overloaded"),
        ErrorClass::Auth => (401, "authentication_error", "invalid x-api-key"),
        ErrorClass::Quota => (
            400,
            "invalid_request_error",
            "Your credit balance is too low",
        ),
        ErrorClass::ContextOverflow => (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        ErrorClass::InvalidRequest => {
            (400, "invalid_request_error", "max_tokens: must be positive")
        }
        ErrorClass::UnknownModel => (404, "not_found_error", "model: claude-none"),
    };
    (
        status,
        json!({"type": "error", "error": {"type": kind, "message": message}}),
    )
}

fn gemini_error(class: ErrorClass) -> (u16, Value) {
    let (code, status, message) = match class {
        ErrorClass::RateLimit => (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your billing details. \
             Please retry in 34s.",
        ),
        ErrorClass::Overloaded => (503, "UNAVAILABLE", "The model is overloaded."),
        ErrorClass::Auth => (400, "INVALID_ARGUMENT", "API key not valid."),
        ErrorClass::Quota => (
            403,
            "FAILED_PRECONDITION",
            "Enable billing: insufficient credit",
        ),
        ErrorClass::ContextOverflow => (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1196265) exceeds the maximum number of tokens",
        ),
        ErrorClass::InvalidRequest => (400, "INVALID_ARGUMENT", "Unknown name \"x\""),
        ErrorClass::UnknownModel => (404, "NOT_FOUND", "models/x is not found"),
    };
    let error = json!({"code": code, "message": message, "status": status});
    (code, json!({"error": error}))
}

fn openai_error(class: ErrorClass) -> (u16, Value) {
    let (status, kind, code, message) = match class {
        ErrorClass::RateLimit => (
            429,
            "requests",
            json!("rate_limit_exceeded"),
            "Rate limit reached",
        ),
        ErrorClass::Overloaded => (
            503,
            "server_error",
            Value::Null,
            "The engine is currently overloaded",
        ),
        ErrorClass::Auth => (
            401,
            "invalid_request_error",
            json!("invalid_api_key"),
            "Incorrect API key provided",
        ),
        ErrorClass::Quota => (
            429,
            "insufficient_quota",
            json!("insufficient_quota"),
            "You exceeded your current quota",
        ),
        ErrorClass::ContextOverflow => (
            400,
            "invalid_request_error",
            json!("context_length_exceeded"),
            "Your input exceeds the context window of this model.",
        ),
        ErrorClass::InvalidRequest => (
            400,
            "invalid_request_error",
            json!("unsupported_value"),
            "Unsupported value: 'temperature'",
        ),
        ErrorClass::UnknownModel => (
            404,
            "invalid_request_error",
            json!("model_not_found"),
            "The model does not exist",
        ),
    };
    let error = json!({"message": message, "type": kind, "param": null, "code": code});
    (status, json!({"error": error}))
}

/// A failure reported inside a stream.
pub(super) fn error_event(wire: Wire, class: ErrorClass) -> Vec<u8> {
    let (_, body) = error(wire, class);
    let event = match wire {
        Wire::Bedrock => return bedrock::error_event(&body),
        Wire::Anthropic => named(&body),
        Wire::Responses => {
            let error = &body["error"];
            let code = error["code"].as_str().or(error["type"].as_str());
            named(&json!({"type": "error", "code": code, "message": error["message"]}))
        }
        Wire::Chat | Wire::Gemini => unnamed(&body),
    };
    event.into_bytes()
}
