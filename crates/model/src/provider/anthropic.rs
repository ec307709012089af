//! Anthropic Messages.
//!
//! Cache markers stand at the last tool, the system prompt and the last block of the last user
//! message, so that the next call of the conversation reads everything before it from the cache.

use std::collections::HashMap;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::catalog::{self, ThinkingStyle};
use crate::error::ModelError;
use crate::event::EventStream;
use crate::handoff::{self, IdRule};
use crate::message::{
    AssistantMessage, AssistantPart, FilePart, Message, ModelRef, ResultPart, StopReason,
    ToolResult, UserPart,
};
use crate::provider::Provider;
use crate::provider::assembly::Assembly;
use crate::provider::http::{DecodeError, Decoder, Server};
use crate::provider::piece::Text;
use crate::provider::quirks::Quirks;
use crate::request::{CacheRetention, Request, Thinking, ToolSpec};
use crate::sse::SseView;

/// The output limit when neither the request nor the catalogue knows one.
const DEFAULT_OUTPUT: u64 = 32_000;
/// The smallest thinking budget that the API takes.
pub(super) const MIN_BUDGET: u64 = 1024;

/// A server that speaks Anthropic Messages.
#[derive(Debug)]
pub(crate) struct Anthropic {
    pub(crate) server: Server,
    pub(crate) max_output: Option<u64>,
    pub(crate) quirks: Quirks,
}

#[async_trait]
impl Provider for Anthropic {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let reference = self.model_ref(&request.model);
        let (mut body, budgeted) = body(&request, &reference, self.max_output, &self.quirks);
        if let Some(begun) = request
            .begun
            .as_deref()
            .filter(|_| self.continues(&request))
        {
            // Behind the markers: what was cached of the call that was cut is read again.
            let begun = json!({"role": "assistant", "content": begun});
            if let Some(messages) = body["messages"].as_array_mut() {
                messages.push(begun);
            }
        }
        let mut headers = HeaderMap::new();
        if budgeted {
            let beta = HeaderValue::from_static("interleaved-thinking-2025-05-14");
            headers.insert("anthropic-beta", beta);
        }
        let assembly = Assembly::new(reference, &request);
        let body = body.to_string().into_bytes();
        self.server
            .stream(headers, body, Box::new(Messages::default()), assembly)
            .await
    }

    fn continues(&self, request: &Request) -> bool {
        // A thought cannot be begun, and a model that thinks begins with one.
        let known = catalog::find("anthropic", &request.model);
        request.thinking == Thinking::Off && known.is_some_and(|model| model.prefill)
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "anthropic".to_owned(),
            provider: self.server.provider.clone(),
            model: model.to_owned(),
        }
    }
}

/// The request's body, and whether it has a thinking budget.
fn body(
    request: &Request,
    reference: &ModelRef,
    max_output: Option<u64>,
    quirks: &Quirks,
) -> (Value, bool) {
    let marker = marker(request.cache, quirks.long_cache);
    let messages = handoff::prepare(&request.messages, reference, IdRule::COMMON);
    let known = catalog::find("anthropic", &request.model);
    let limit = max_output.or(known.and_then(|model| model.max_output));
    let mut body = json!({
        "model": request.model,
        "stream": true,
        "messages": wire_messages(&messages, marker.as_ref()),
    });
    if !request.system.is_empty() {
        let mut block = json!({"type": "text", "text": request.system});
        mark(Some(&mut block), marker.as_ref());
        body["system"] = json!([block]);
    }
    if !request.tools.is_empty() {
        body["tools"] = wire_tools(&request.tools, marker.as_ref());
    }
    if let Some(schema) = request.result.as_ref().filter(|_| quirks.structured) {
        body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    }
    let style = known.map_or(ThinkingStyle::Effort, |model| model.thinking);
    let mut max_tokens = request
        .max_output
        .or(limit.map(|limit| limit.min(DEFAULT_OUTPUT)));
    let mut budgeted = false;
    match (style, request.thinking) {
        (ThinkingStyle::None, _) | (_, Thinking::Off) => {}
        (ThinkingStyle::Effort, level) => {
            body["thinking"] = json!({"type": "adaptive"});
            let effort = match known {
                Some(model) => model.effort(level),
                None => catalog::nearest(&["low", "medium", "high"], level),
            };
            if let Some(effort) = effort {
                body["output_config"]["effort"] = json!(effort);
            }
        }
        (ThinkingStyle::Budget, level) => {
            if !continues_without_thought(&messages) {
                let (total, budget) = budget(request.max_output, limit, level);
                if budget >= MIN_BUDGET {
                    body["thinking"] = json!({"type": "enabled", "budget_tokens": budget});
                    max_tokens = Some(total);
                    budgeted = true;
                }
            }
        }
    }
    let max_tokens = max_tokens.unwrap_or(DEFAULT_OUTPUT);
    body["max_tokens"] = json!(max_tokens.min(limit.unwrap_or(u64::MAX)));
    (body, budgeted)
}

/// The output limit and the part of it that may be thinking. A limit that the caller set holds
/// for both; otherwise the budget comes on top of the default, up to the model's limit.
pub(super) fn budget(asked: Option<u64>, limit: Option<u64>, level: Thinking) -> (u64, u64) {
    let wanted = match level {
        Thinking::Off => 0,
        Thinking::Minimal => 1024,
        Thinking::Low => 2048,
        Thinking::Medium => 8192,
        Thinking::High => 16_384,
        Thinking::Xhigh => 32_768,
        Thinking::Max => 65_536,
    };
    let base = limit.map_or(DEFAULT_OUTPUT, |limit| limit.min(DEFAULT_OUTPUT));
    let total = asked.unwrap_or_else(|| (base + wanted).min(limit.unwrap_or(u64::MAX)));
    // At least as much as the smallest budget is left to answer in.
    (total, wanted.min(total.saturating_sub(MIN_BUDGET)))
}

/// Whether the transcript stands in the middle of a tool loop whose last step has no thought (of
/// this model): the API refuses a thinking budget there.
fn continues_without_thought(messages: &[Message]) -> bool {
    let last_results = matches!(messages.last(), Some(Message::ToolResult(_)));
    let last_answer = messages.iter().rev().find_map(|message| match message {
        Message::Assistant(answer) => Some(answer),
        Message::User(_) | Message::ToolResult(_) => None,
    });
    last_results
        && last_answer.is_some_and(|answer| {
            !matches!(
                answer.parts.first(),
                Some(AssistantPart::Thinking {
                    signature: Some(_),
                    ..
                })
            )
        })
}

/// What marks the end of a prefix that is worth keeping.
fn marker(retention: CacheRetention, long: bool) -> Option<Value> {
    match retention {
        CacheRetention::None => None,
        CacheRetention::Long if long => Some(json!({"type": "ephemeral", "ttl": "1h"})),
        CacheRetention::Short | CacheRetention::Long => Some(json!({"type": "ephemeral"})),
    }
}

fn wire_tools(tools: &[ToolSpec], marker: Option<&Value>) -> Value {
    let mut wire: Vec<Value> = tools
        .iter()
        .map(|tool| {
            json!({
                "name": tool.name,
                "description": tool.description,
                "input_schema": tool.parameters,
            })
        })
        .collect();
    mark(wire.last_mut(), marker);
    Value::Array(wire)
}

fn mark(block: Option<&mut Value>, marker: Option<&Value>) {
    if let (Some(Value::Object(block)), Some(marker)) = (block, marker) {
        block.insert("cache_control".to_owned(), marker.clone());
    }
}

/// The messages, those of one role in a row as one.
fn wire_messages(messages: &[Message], marker: Option<&Value>) -> Value {
    let mut wire: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in messages {
        let (role, blocks): (_, Vec<Value>) = match message {
            Message::User(user) => ("user", user.parts.iter().filter_map(user_block).collect()),
            Message::ToolResult(result) => ("user", result_blocks(result)),
            Message::Assistant(answer) => ("assistant", assistant_blocks(answer)),
        };
        if blocks.is_empty() {
            continue;
        }
        match wire.last_mut() {
            Some((last, earlier)) if *last == role => earlier.extend(blocks),
            _ => wire.push((role, blocks)),
        }
    }
    for (role, blocks) in &mut wire {
        if *role == "user" {
            // Tool results come first, before what a person said meanwhile.
            blocks.sort_by_key(|block| block["type"] != "tool_result");
        }
    }
    if let Some((_, blocks)) = wire.last_mut() {
        mark(blocks.last_mut(), marker);
    }
    wire.into_iter()
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect()
}

fn user_block(part: &UserPart) -> Option<Value> {
    match part {
        UserPart::Text { text } => text_block(text),
        UserPart::File(file) => Some(file_block(file)),
    }
}

fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn file_block(file: &FilePart) -> Value {
    match file.media_type.as_str() {
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" => json!({
            "type": "image",
            "source": {"type": "base64", "media_type": file.media_type, "data": file.base64()},
        }),
        "application/pdf" => json!({
            "type": "document",
            "source": {"type": "base64", "media_type": file.media_type, "data": file.base64()},
            "title": file.name.as_deref().unwrap_or("document"),
        }),
        media if media.starts_with("text/") => json!({
            "type": "document",
            "source": {
                "type": "text",
                "media_type": "text/plain",
                "data": String::from_utf8_lossy(&file.data),
            },
            "title": file.name.as_deref().unwrap_or("document"),
        }),
        _ => json!({"type": "text", "text": super::unreadable(file)}),
    }
}

fn result_blocks(result: &ToolResult) -> Vec<Value> {
    let mut content = Vec::new();
    let mut after = Vec::new();
    for part in &result.parts {
        match part {
            ResultPart::Text { text } => content.extend(text_block(text)),
            // The API takes only text in a failed result.
            ResultPart::File(file) if result.is_error || !file.is_image() => {
                after.push(file_block(file));
            }
            ResultPart::File(file) => content.push(file_block(file)),
        }
    }
    let mut block = json!({
        "type": "tool_result", "tool_use_id": result.call_id, "is_error": result.is_error,
    });
    if !content.is_empty() {
        block["content"] = Value::Array(content);
    }
    let mut blocks = vec![block];
    blocks.append(&mut after);
    blocks
}

fn assistant_blocks(answer: &AssistantMessage) -> Vec<Value> {
    let blocks = answer.parts.iter().filter_map(|part| match part {
        AssistantPart::Text { text, .. } => text_block(text),
        AssistantPart::Thinking {
            signature: Some(data),
            redacted: true,
            ..
        } => Some(json!({"type": "redacted_thinking", "data": data})),
        AssistantPart::Thinking {
            text,
            signature: Some(signature),
            redacted: false,
        } => Some(json!({"type": "thinking", "thinking": text, "signature": signature})),
        AssistantPart::Thinking {
            signature: None, ..
        } => None,
        AssistantPart::ToolCall(call) => Some(json!({
            "type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments,
        })),
    });
    blocks.collect()
}

/// Reads the events of an answer.
#[derive(Debug, Default)]
struct Messages {
    blocks: HashMap<u64, Block>,
    stop: Option<StopReason>,
}

#[derive(Debug)]
enum Block {
    Text(Option<usize>),
    Thinking {
        slot: Option<usize>,
        signature: String,
        redacted: bool,
    },
    Call {
        index: usize,
        input: Value,
    },
    Other,
}

impl Decoder for Messages {
    fn event(&mut self, event: SseView<'_>, out: &mut Assembly) -> Result<(), DecodeError> {
        if event.name == "content_block_delta" && self.piece(event.data, out) {
            return Ok(());
        }
        let data = DecodeError::json(event)?;
        match data["type"].as_str().unwrap_or(event.name) {
            "message_start" => {
                out.start(data["message"]["id"].as_str());
                usage(&data["message"]["usage"], out);
            }
            "content_block_start" => self.open(&data, out)?,
            "content_block_delta" => self.delta(&data, out)?,
            "content_block_stop" => self.close(&data, out),
            "message_delta" => {
                usage(&data["usage"], out);
                if let Some(reason) = data["delta"]["stop_reason"].as_str() {
                    self.stop = Some(stop(reason));
                }
            }
            "message_stop" => out.finish(self.stop.unwrap_or(StopReason::Stop)),
            "error" => return Err(DecodeError::Reported(event.data.to_owned())),
            // `ping`, and what is added to the format later.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Assembly) -> bool {
        // Some proxies leave out the last event; the stop reason says that the answer is whole.
        match self.stop {
            Some(stop) => {
                out.finish(stop);
                true
            }
            None => false,
        }
    }
}

/// A piece of text.
#[derive(serde::Deserialize)]
struct Piece<'a> {
    index: u64,
    #[serde(borrow)]
    delta: PieceDelta<'a>,
}

#[derive(serde::Deserialize)]
struct PieceDelta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    text: Text<'a>,
}

impl Messages {
    /// Takes a piece of text without building a tree of it. `false` when it is something else.
    fn piece(&mut self, data: &str, out: &mut Assembly) -> bool {
        let Ok(piece) = serde_json::from_str::<Piece<'_>>(data) else {
            return false;
        };
        match self.blocks.get_mut(&piece.index) {
            Some(Block::Text(slot)) if &*piece.delta.kind == "text_delta" => {
                out.text(slot, &piece.delta.text);
                true
            }
            _ => false,
        }
    }

    fn open(&mut self, data: &Value, out: &mut Assembly) -> Result<(), DecodeError> {
        let block = &data["content_block"];
        let text = |key: &str| block[key].as_str().unwrap_or_default();
        let opened = match text("type") {
            "text" => {
                let mut slot = None;
                out.text(&mut slot, text("text"));
                Block::Text(slot)
            }
            "thinking" => {
                let mut slot = None;
                out.thinking(&mut slot, text("thinking"));
                let signature = text("signature").to_owned();
                Block::Thinking {
                    slot,
                    signature,
                    redacted: false,
                }
            }
            "redacted_thinking" => {
                let signature = text("data").to_owned();
                Block::Thinking {
                    slot: None,
                    signature,
                    redacted: true,
                }
            }
            "tool_use" => {
                let index = out.start_call(text("id"), text("name"));
                Block::Call {
                    index,
                    input: block["input"].clone(),
                }
            }
            _ => Block::Other,
        };
        self.blocks.insert(index_of(data)?, opened);
        Ok(())
    }

    fn delta(&mut self, data: &Value, out: &mut Assembly) -> Result<(), DecodeError> {
        let delta = &data["delta"];
        let text = |key: &str| delta[key].as_str().unwrap_or_default();
        let Some(block) = self.blocks.get_mut(&index_of(data)?) else {
            let message = "a delta belongs to a content block that was not opened";
            return Err(DecodeError::Malformed(message.to_owned()));
        };
        match (block, text("type")) {
            (Block::Text(slot), "text_delta") => out.text(slot, text("text")),
            (Block::Thinking { slot, .. }, "thinking_delta") => {
                out.thinking(slot, text("thinking"));
            }
            (Block::Thinking { signature, .. }, "signature_delta") => {
                signature.push_str(text("signature"));
            }
            (Block::Call { index, .. }, "input_json_delta") => {
                out.call_delta(*index, text("partial_json"));
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, data: &Value, out: &mut Assembly) {
        let block = index_of(data)
            .ok()
            .and_then(|index| self.blocks.remove(&index));
        match block {
            Some(Block::Text(slot)) => out.end_text(slot, None),
            Some(Block::Thinking {
                mut slot,
                signature,
                redacted,
            }) => {
                let signature = (!signature.is_empty()).then_some(signature);
                out.end_thinking(&mut slot, signature, redacted);
            }
            Some(Block::Call { index, input }) => {
                // Without deltas the whole input stands in the opening event.
                let whole = input.as_object().is_some_and(|object| !object.is_empty());
                if whole && out.call_is_empty(index) {
                    out.call_delta(index, &input.to_string());
                }
                out.end_call(index, None);
            }
            Some(Block::Other) | None => {}
        }
    }
}

fn index_of(data: &Value) -> Result<u64, DecodeError> {
    data["index"]
        .as_u64()
        .ok_or_else(|| DecodeError::Malformed("a content block has no index".to_owned()))
}

/// Later figures replace earlier ones; a proxy that leaves some out does not lose them.
fn usage(data: &Value, out: &mut Assembly) {
    let mut take = |key: &str, slot: fn(&mut crate::Usage) -> &mut u64| {
        if let Some(tokens) = data[key].as_u64() {
            *slot(&mut out.usage) = tokens;
        }
    };
    take("input_tokens", |usage| &mut usage.input);
    take("output_tokens", |usage| &mut usage.output);
    take("cache_read_input_tokens", |usage| &mut usage.cache_read);
    take("cache_creation_input_tokens", |usage| {
        &mut usage.cache_write
    });
    if let Some(tokens) = data["cache_creation"]["ephemeral_1h_input_tokens"].as_u64() {
        out.usage.cache_write_hour = tokens;
    }
}

fn stop(reason: &str) -> StopReason {
    match reason {
        "end_turn" | "stop_sequence" | "pause_turn" => StopReason::Stop,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" | "model_context_window_exceeded" => StopReason::Length,
        "refusal" | "sensitive" => StopReason::Refused,
        other => {
            tracing::warn!(reason = other, "unknown stop reason, taken as `end_turn`");
            StopReason::Stop
        }
    }
}
