//! Amazon Bedrock: `converse-stream`.
//!
//! One format for the models of many makers. What only some of them know, such as thinking, goes
//! into `additionalModelRequestFields` in the words of the maker. Cache points stand behind the
//! tools, the system prompt and the last user message, for the models that document them.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::catalog::{self, CatalogModel, ThinkingStyle};
use crate::error::{ErrorKind, ModelError};
use crate::event::EventStream;
use crate::handoff::{self, IdRule};
use crate::message::{
    AssistantMessage, AssistantPart, FilePart, Message, ModelRef, ResultPart, StopReason,
    ToolResult, Usage, UserPart,
};
use crate::provider::Provider;
use crate::provider::assembly::Assembly;
use crate::provider::http::{DecodeError, Decoder, Framing, Server};
use crate::provider::piece::Text;
use crate::request::{CacheRetention, Request, Thinking};
use crate::sse::SseView;

/// A server that speaks Converse. The address of `server` has no path.
#[derive(Debug)]
pub(crate) struct Bedrock {
    pub(crate) server: Server,
    pub(crate) max_output: Option<u64>,
}

#[async_trait]
impl Provider for Bedrock {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let reference = self.model_ref(&request.model);
        let plain = |ch: char| ch.is_ascii_alphanumeric() || "-._:/".contains(ch);
        if request.model.is_empty() || !request.model.chars().all(plain) {
            let message = format!("`{}` is not the id of a model", request.model);
            let kind = ErrorKind::UnknownModel { closest: None };
            return Err(ModelError::new(kind, &self.server.provider, message));
        }
        let mut server = self.server.clone();
        let id = request.model.replace(':', "%3A").replace('/', "%2F");
        server.url = format!("{}/model/{id}/converse-stream", server.url);
        let body = body(&request, &reference, self.max_output)
            .to_string()
            .into_bytes();
        let mut headers = HeaderMap::new();
        headers.insert(
            reqwest::header::ACCEPT,
            HeaderValue::from_static("application/vnd.amazon.eventstream"),
        );
        let assembly = Assembly::new(reference, &request);
        server
            .stream(headers, body, Box::new(Frames::default()), assembly)
            .await
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "bedrock".to_owned(),
            provider: self.server.provider.clone(),
            model: model.to_owned(),
        }
    }
}

/// The maker's own id of a Claude model: `us.anthropic.claude-haiku-4-5-20251001-v1:0` is
/// `claude-haiku-4-5-20251001`.
pub(crate) fn claude(model: &str) -> Option<&str> {
    let (_, id) = model.split_once("anthropic.")?;
    let id = id.split(':').next().unwrap_or(id);
    let id = match id.rsplit_once("-v") {
        Some((stem, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => stem,
        _ => id,
    };
    id.starts_with("claude-").then_some(id)
}

/// Whether a model is documented to take cache points.
fn caches(model: &str) -> bool {
    let claude = claude(model).is_some_and(|id| !id.starts_with("claude-3-haiku"));
    claude || model.contains("amazon.nova")
}

fn cache_point(retention: CacheRetention) -> Value {
    match retention {
        CacheRetention::Long => json!({"cachePoint": {"type": "default", "ttl": "1h"}}),
        CacheRetention::None | CacheRetention::Short => json!({"cachePoint": {"type": "default"}}),
    }
}

fn body(request: &Request, reference: &ModelRef, max_output: Option<u64>) -> Value {
    let messages = handoff::prepare(&request.messages, reference, IdRule::COMMON);
    let cached = caches(&request.model) && request.cache != CacheRetention::None;
    let point = cached.then(|| cache_point(request.cache));
    let mut body = json!({"messages": wire_messages(&messages, point.as_ref())});
    if !request.system.is_empty() {
        let mut system = vec![json!({"text": request.system})];
        system.extend(point.clone());
        body["system"] = Value::Array(system);
    }
    let tools = tools(request, &messages, point);
    if !tools.is_empty() {
        body["toolConfig"] = json!({"tools": tools});
    }
    let mut limit = request.max_output.or(max_output);
    if let Some((fields, more)) = thinking(request, limit) {
        body["additionalModelRequestFields"] = fields;
        limit = more.or(limit);
    }
    if let Some(limit) = limit {
        body["inferenceConfig"] = json!({"maxTokens": limit});
    }
    if let Some(schema) = &request.result {
        body["outputConfig"] = json!({"textFormat": {"type": "json_schema", "structure": {
            "jsonSchema": {"name": "result", "schema": schema.to_string()},
        }}});
    }
    body
}

/// The tools; for a history with calls of tools that are gone, stand-ins, which the format insists
/// on.
fn tools(request: &Request, messages: &[Message], point: Option<Value>) -> Vec<Value> {
    let spec = |name: &str, description: &str, schema: &Value| {
        json!({"toolSpec": {
            "name": name, "description": description, "inputSchema": {"json": schema},
        }})
    };
    let mut tools: Vec<Value> = request
        .tools
        .iter()
        .map(|tool| spec(&tool.name, &tool.description, &tool.parameters))
        .collect();
    if tools.is_empty() {
        let mut names = BTreeSet::new();
        for message in messages {
            if let Message::Assistant(answer) = message {
                names.extend(answer.tool_calls().map(|call| call.name.as_str()));
            }
        }
        let gone = |name: &&str| spec(name, "No longer available.", &json!({"type": "object"}));
        return names.iter().map(gone).collect();
    }
    tools.extend(point);
    tools
}

/// How a Claude model is told to think, and the output limit that a budget needs.
fn thinking(request: &Request, limit: Option<u64>) -> Option<(Value, Option<u64>)> {
    let known: Option<&CatalogModel> =
        claude(&request.model).and_then(|id| catalog::find("anthropic", id));
    let known = known.filter(|_| request.thinking != Thinking::Off)?;
    match known.thinking {
        ThinkingStyle::None => None,
        ThinkingStyle::Effort => {
            let mut fields = json!({"thinking": {"type": "adaptive"}});
            if let Some(effort) = known.effort(request.thinking) {
                fields["output_config"] = json!({"effort": effort});
            }
            Some((fields, None))
        }
        ThinkingStyle::Budget => {
            let most = limit.or(known.max_output);
            let (total, budget) =
                super::anthropic::budget(request.max_output, most, request.thinking);
            let fields = json!({
                "thinking": {"type": "enabled", "budget_tokens": budget},
                "anthropic_beta": ["interleaved-thinking-2025-05-14"],
            });
            (budget >= super::anthropic::MIN_BUDGET).then_some((fields, Some(total)))
        }
    }
}

/// The messages, those of one role in a row as one.
fn wire_messages(messages: &[Message], point: Option<&Value>) -> Value {
    let mut wire: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut documents = 0;
    for message in messages {
        let (role, blocks): (_, Vec<Value>) = match message {
            Message::User(user) => {
                let parts = user.parts.iter();
                let blocks = parts.filter_map(|part| match part {
                    UserPart::Text { text } => text_block(text),
                    UserPart::File(file) => Some(file_block(file, &mut documents)),
                });
                ("user", blocks.collect())
            }
            Message::ToolResult(result) => ("user", result_blocks(result, &mut documents)),
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
    if let (Some(("user", blocks)), Some(point)) = (wire.last_mut(), point) {
        blocks.push(point.clone());
    }
    wire.into_iter()
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect()
}

fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"text": text}))
}

/// Documents need a name of their own in each request; it follows from their position.
fn file_block(file: &FilePart, documents: &mut u32) -> Value {
    let mut document = |format: &str| {
        *documents += 1;
        json!({"document": {
            "format": format, "name": format!("document {documents}"),
            "source": {"bytes": file.base64()},
        }})
    };
    match file.media_type.as_str() {
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" => json!({"image": {
            "format": &file.media_type["image/".len()..],
            "source": {"bytes": file.base64()},
        }}),
        "application/pdf" => document("pdf"),
        "text/csv" => document("csv"),
        "text/html" => document("html"),
        "text/markdown" => document("md"),
        media if media.starts_with("text/") => json!({"text": super::text_file(file)}),
        _ => json!({"text": super::unreadable(file)}),
    }
}

fn result_blocks(result: &ToolResult, documents: &mut u32) -> Vec<Value> {
    let mut content = Vec::new();
    for part in &result.parts {
        match part {
            ResultPart::Text { text } => content.extend(text_block(text)),
            ResultPart::File(file) => content.push(file_block(file, documents)),
        }
    }
    if content.is_empty() {
        content.push(json!({"text": super::result_text("", result.is_error)}));
    }
    let status = if result.is_error { "error" } else { "success" };
    vec![json!({"toolResult": {
        "toolUseId": result.call_id, "content": content, "status": status,
    }})]
}

fn assistant_blocks(answer: &AssistantMessage) -> Vec<Value> {
    let blocks = answer.parts.iter().filter_map(|part| match part {
        AssistantPart::Text { text, .. } => text_block(text),
        AssistantPart::Thinking {
            signature: Some(data),
            redacted: true,
            ..
        } => Some(json!({"reasoningContent": {"redactedContent": data}})),
        AssistantPart::Thinking {
            text, signature, ..
        } => {
            // Only Claude signs its thoughts, and takes none that is not signed.
            let mut thought = json!({"text": text});
            if let Some(signature) = signature {
                thought["signature"] = json!(signature);
            } else if claude(&answer.model.model).is_some() {
                return None;
            }
            Some(json!({"reasoningContent": {"reasoningText": thought}}))
        }
        AssistantPart::ToolCall(call) => Some(json!({"toolUse": {
            "toolUseId": call.id, "name": call.name, "input": call.arguments,
        }})),
    });
    blocks.collect()
}

/// Reads the frames of an answer.
#[derive(Debug, Default)]
struct Frames {
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
    Call(usize),
}

impl Decoder for Frames {
    fn framing(&self) -> Framing {
        Framing::Frames
    }

    fn opened(&mut self, headers: &HeaderMap, out: &mut Assembly) {
        let id = headers.get("x-amzn-requestid");
        out.start(id.and_then(|id| id.to_str().ok()));
    }

    fn event(&mut self, event: SseView<'_>, out: &mut Assembly) -> Result<(), DecodeError> {
        if event.name == "contentBlockDelta" && event.id.is_none() && self.piece(event.data, out) {
            return Ok(());
        }
        let data = DecodeError::json(event)?;
        // Frames of another kind than events are failures, named by their type.
        if event.id.is_some() {
            let message = data["message"].as_str().unwrap_or("the answer failed");
            let report = json!({"__type": event.name, "message": message});
            return Err(DecodeError::Reported(report.to_string()));
        }
        match event.name {
            "messageStart" => out.start(None),
            "contentBlockStart" => {
                let call = &data["start"]["toolUse"];
                if call.is_object() {
                    let text = |key: &str| call[key].as_str().unwrap_or_default();
                    let index = out.start_call(text("toolUseId"), text("name"));
                    self.blocks.insert(index_of(&data)?, Block::Call(index));
                }
            }
            "contentBlockDelta" => self.delta(&data, out)?,
            "contentBlockStop" => self.close(index_of(&data)?, out),
            "messageStop" => {
                self.stop = Some(stop(data["stopReason"].as_str().unwrap_or_default())?);
            }
            "metadata" => {
                usage(&data["usage"], out);
                if let Some(stop) = self.stop {
                    out.finish(stop);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Assembly) -> bool {
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
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    content_block_index: u64,
    #[serde(borrow)]
    delta: PieceDelta<'a>,
}

#[derive(serde::Deserialize)]
struct PieceDelta<'a> {
    #[serde(borrow)]
    text: Text<'a>,
}

impl Frames {
    /// Takes a piece of text. `false` when it is something else.
    fn piece(&mut self, data: &str, out: &mut Assembly) -> bool {
        let Ok(piece) = serde_json::from_str::<Piece<'_>>(data) else {
            return false;
        };
        let block = self.blocks.entry(piece.content_block_index);
        if let Block::Text(slot) = block.or_insert(Block::Text(None)) {
            out.text(slot, &piece.delta.text);
        }
        true
    }

    /// Blocks of text and of thinking begin without an event of their own.
    fn delta(&mut self, data: &Value, out: &mut Assembly) -> Result<(), DecodeError> {
        let at = index_of(data)?;
        let delta = &data["delta"];
        if let Some(text) = delta["text"].as_str() {
            if let Block::Text(slot) = self.blocks.entry(at).or_insert(Block::Text(None)) {
                out.text(slot, text);
            }
        } else if let Some(input) = delta["toolUse"]["input"].as_str() {
            if let Some(Block::Call(index)) = self.blocks.get(&at) {
                out.call_delta(*index, input);
            }
        } else if delta["reasoningContent"].is_object() {
            let thought = &delta["reasoningContent"];
            let block = self.blocks.entry(at).or_insert(Block::Thinking {
                slot: None,
                signature: String::new(),
                redacted: false,
            });
            if let Block::Thinking {
                slot,
                signature,
                redacted,
            } = block
            {
                let text = |key: &str| thought[key].as_str();
                if let Some(text) = text("text") {
                    out.thinking(slot, text);
                } else if let Some(more) = text("signature") {
                    signature.push_str(more);
                } else if let Some(data) = text("redactedContent").or(text("data")) {
                    *redacted = true;
                    signature.push_str(data);
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, at: u64, out: &mut Assembly) {
        match self.blocks.remove(&at) {
            Some(Block::Text(slot)) => out.end_text(slot, None),
            Some(Block::Thinking {
                mut slot,
                signature,
                redacted,
            }) => {
                let signature = (!signature.is_empty()).then_some(signature);
                out.end_thinking(&mut slot, signature, redacted);
            }
            Some(Block::Call(index)) => out.end_call(index, None),
            None => {}
        }
    }
}

fn index_of(data: &Value) -> Result<u64, DecodeError> {
    data["contentBlockIndex"]
        .as_u64()
        .ok_or_else(|| DecodeError::Malformed("a content block has no index".to_owned()))
}

fn usage(data: &Value, out: &mut Assembly) {
    let count = |key: &str| data[key].as_u64().unwrap_or(0);
    let kept = data["cacheDetails"].as_array().into_iter().flatten();
    let hour = kept.filter(|one| one["ttl"] == "1h");
    out.usage = Usage {
        cache_write_hour: hour.filter_map(|one| one["inputTokens"].as_u64()).sum(),
        input: count("inputTokens"),
        output: count("outputTokens"),
        cache_read: count("cacheReadInputTokens"),
        cache_write: count("cacheWriteInputTokens"),
    };
}

fn stop(reason: &str) -> Result<StopReason, DecodeError> {
    Ok(match reason {
        "end_turn" | "stop_sequence" => StopReason::Stop,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" | "model_context_window_exceeded" => StopReason::Length,
        "guardrail_intervened" | "content_filtered" => StopReason::Refused,
        "malformed_model_output" | "malformed_tool_use" => {
            let message = "the model's answer could not be used";
            let report = json!({"__type": "modelStreamErrorException", "message": message});
            return Err(DecodeError::Reported(report.to_string()));
        }
        other => {
            tracing::warn!(reason = other, "unknown stop reason, taken as `end_turn`");
            StopReason::Stop
        }
    })
}
