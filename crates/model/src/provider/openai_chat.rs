//! OpenAI Chat Completions, and the many servers that are compatible with it, each in its own way.
//!
//! `Quirks` holds what has to be sent differently. What comes back differently is accepted from
//! everyone: thoughts in any of three fields, tool calls without index or id, usage in the last
//! chunk or in a choice, a missing `[DONE]`.

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::catalog::{self, ThinkingStyle};
use crate::error::ModelError;
use crate::event::EventStream;
use crate::handoff::{self, IdRule};
use crate::message::{
    AssistantMessage, AssistantPart, FilePart, Message, ModelRef, ResultPart, StopReason,
    ToolResult, Usage, UserPart,
};
use crate::provider::Provider;
use crate::provider::assembly::Assembly;
use crate::provider::http::{DecodeError, Decoder, MAX_PARTS, Server};
use crate::provider::piece::Text;
use crate::provider::quirks::{Prefill, Quirks, ThinkingFormat};
use crate::request::{CacheRetention, Request, Thinking};
use crate::sse::SseView;

/// Fields that servers put thoughts in. The first that is not empty counts; some send two alike.
const THOUGHT_FIELDS: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_text"];

/// A server that speaks Chat Completions.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) server: Server,
    pub(crate) quirks: Quirks,
}

#[async_trait]
impl Provider for Chat {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let reference = self.model_ref(&request.model);
        let body = body(&request, &reference, &self.quirks)
            .to_string()
            .into_bytes();
        let assembly = Assembly::new(reference, &request);
        self.server
            .stream(
                HeaderMap::new(),
                body,
                Box::new(Chunks::default()),
                assembly,
            )
            .await
    }

    fn continues(&self, _: &Request) -> bool {
        self.quirks.prefill != Prefill::None
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "openai-chat".to_owned(),
            provider: self.server.provider.clone(),
            model: model.to_owned(),
        }
    }
}

fn body(request: &Request, reference: &ModelRef, quirks: &Quirks) -> Value {
    let ids = IdRule {
        max: quirks.max_id,
        plain: quirks.plain_ids,
    };
    let messages = handoff::prepare(&request.messages, reference, ids);
    let mut wire = Vec::new();
    if !request.system.is_empty() {
        wire.push(json!({"role": quirks.system_role, "content": request.system}));
    }
    wire_messages(&messages, quirks, &mut wire);
    let mut body = json!({"model": request.model, "stream": true, "messages": wire});
    if quirks.stream_usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }})
        });
        body["tools"] = tools.collect();
    }
    if let Some(limit) = request.max_output {
        body[&quirks.max_tokens_field] = json!(limit);
    }
    if let Some(schema) = request.result.as_ref().filter(|_| quirks.structured) {
        body["response_format"] = json!({"type": "json_schema", "json_schema": {
            "name": "result", "schema": schema,
        }});
    }
    let cached = quirks.cache_key && request.cache != CacheRetention::None;
    if let Some(key) = request.conversation.as_ref().filter(|_| cached) {
        body["prompt_cache_key"] = json!(key);
    }
    if quirks.cache_markers && request.cache != CacheRetention::None {
        mark(&request.model, &mut body["messages"]);
    }
    thinking(request, reference, quirks, &mut body);
    if let Some(begun) = &request.begun {
        go_on(begun, quirks.prefill, &mut body);
    }
    body
}

/// Asks to go on from what the model had said.
fn go_on(begun: &str, how: Prefill, body: &mut Value) {
    let mut last = json!({"role": "assistant", "content": begun});
    match how {
        Prefill::None => return,
        Prefill::Prefix => last["prefix"] = json!(true),
        Prefill::Partial => last["partial"] = json!(true),
        Prefill::Final => {
            body["continue_final_message"] = json!(true);
            body["add_generation_prompt"] = json!(false);
        }
    }
    if let Some(messages) = body["messages"].as_array_mut() {
        messages.push(last);
    }
}

/// Says how much to think, in the server's words.
fn thinking(request: &Request, reference: &ModelRef, quirks: &Quirks, body: &mut Value) {
    let level = request.thinking;
    let known = catalog::find(&reference.provider, &request.model);
    if known.is_some_and(|model| model.thinking == ThinkingStyle::None) {
        return;
    }
    let effort = match known {
        Some(model) => model.effort(level),
        None if level == Thinking::Off => None,
        None => catalog::nearest(&["low", "medium", "high"], level),
    };
    let on = level != Thinking::Off;
    match (quirks.thinking, effort) {
        (ThinkingFormat::Effort, Some(effort)) => body["reasoning_effort"] = json!(effort),
        (ThinkingFormat::Reasoning, Some(effort)) => {
            body["reasoning"] = json!({"effort": effort});
        }
        (ThinkingFormat::Switch, _) => {
            let kind = if on { "enabled" } else { "disabled" };
            body["thinking"] = json!({"type": kind});
        }
        (ThinkingFormat::Enable, _) => body["enable_thinking"] = json!(on),
        (ThinkingFormat::Template, _) => {
            body["chat_template_kwargs"] = json!({"enable_thinking": on});
        }
        (ThinkingFormat::None, _) | (ThinkingFormat::Effort | ThinkingFormat::Reasoning, None) => {}
    }
}

/// Anthropic's cache markers, which some routers pass on: at the system prompt and at the last text of
/// the last message of a person.
fn mark(model: &str, messages: &mut Value) {
    if !model.starts_with("anthropic/") {
        return;
    }
    let Some(messages) = messages.as_array_mut() else {
        return;
    };
    // All in the same form, marked or not: what was sent before is sent again as it was.
    for message in messages.iter_mut() {
        let said = message["role"] != "assistant" && message["role"] != "tool";
        if let Some(text) = message["content"].as_str().filter(|_| said) {
            message["content"] = json!([{"type": "text", "text": text}]);
        }
    }
    let last = messages
        .iter()
        .rposition(|message| message["role"] == "user");
    for at in [Some(0), last].into_iter().flatten() {
        let parts = messages
            .get_mut(at)
            .and_then(|message| message["content"].as_array_mut());
        let text = parts.and_then(|parts| parts.iter_mut().rfind(|part| part["type"] == "text"));
        if let Some(part) = text {
            part["cache_control"] = json!({"type": "ephemeral"});
        }
    }
}

fn wire_messages(messages: &[Message], quirks: &Quirks, wire: &mut Vec<Value>) {
    // A tool message cannot hold an image: those of a batch follow it in one user message.
    let mut images = Vec::new();
    for message in messages {
        if !matches!(message, Message::ToolResult(_)) {
            flush_images(&mut images, wire);
        }
        match message {
            Message::User(user) => {
                if quirks.bridge_results && wire.last().is_some_and(|last| last["role"] == "tool") {
                    let text = "I have read the results.";
                    wire.push(json!({"role": "assistant", "content": text}));
                }
                let parts = user.parts.iter().map(|part| match part {
                    UserPart::Text { text } => json!({"type": "text", "text": text}),
                    UserPart::File(file) => file_part(file),
                });
                wire.push(json!({"role": "user", "content": simple(parts.collect())}));
            }
            Message::Assistant(answer) => wire.push(assistant(answer, quirks)),
            Message::ToolResult(result) => {
                let mut message = tool_message(result, &mut images);
                if quirks.result_names {
                    message["name"] = json!(result.name);
                }
                wire.push(message);
            }
        }
    }
    flush_images(&mut images, wire);
}

fn flush_images(images: &mut Vec<Value>, wire: &mut Vec<Value>) {
    if !images.is_empty() {
        let mut content = vec![json!({"type": "text", "text": "Files from the tool results:"})];
        content.append(images);
        wire.push(json!({"role": "user", "content": content}));
    }
}

/// Plain text where there is nothing else: not every server takes a list.
fn simple(parts: Vec<Value>) -> Value {
    if parts.iter().all(|part| part["type"] == "text") {
        let texts: Vec<&str> = parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect();
        Value::String(texts.join("\n"))
    } else {
        Value::Array(parts)
    }
}

fn file_part(file: &FilePart) -> Value {
    match file.media_type.as_str() {
        media if media.starts_with("image/") => {
            json!({"type": "image_url", "image_url": {"url": file.data_url()}})
        }
        "application/pdf" => json!({"type": "file", "file": {
            "filename": file.name.as_deref().unwrap_or("document.pdf"),
            "file_data": file.data_url(),
        }}),
        media if media.starts_with("text/") => {
            json!({"type": "text", "text": super::text_file(file)})
        }
        _ => json!({"type": "text", "text": super::unreadable(file)}),
    }
}

fn tool_message(result: &ToolResult, images: &mut Vec<Value>) -> Value {
    let text = result.text();
    let mut attached = 0;
    for part in &result.parts {
        if let ResultPart::File(file) = part {
            images.push(file_part(file));
            attached += 1;
        }
    }
    let text = if text.is_empty() && attached > 0 {
        "The files follow in the next message.".to_owned()
    } else {
        super::result_text(&text, result.is_error)
    };
    json!({"role": "tool", "tool_call_id": result.call_id, "content": text})
}

fn assistant(answer: &AssistantMessage, quirks: &Quirks) -> Value {
    let mut message = json!({"role": "assistant"});
    let text = answer.text();
    message["content"] = if text.is_empty() && !quirks.empty_text {
        Value::Null
    } else {
        Value::String(text)
    };
    let mut calls = Vec::new();
    for part in &answer.parts {
        match part {
            AssistantPart::Text { .. } => {}
            AssistantPart::Thinking {
                text, signature, ..
            } => {
                let field = signature
                    .as_deref()
                    .filter(|field| THOUGHT_FIELDS.contains(field));
                if let (true, Some(field)) = (quirks.replay_thoughts, field) {
                    let earlier = message[field].as_str().map(|text| format!("{text}\n"));
                    message[field] = json!(earlier.unwrap_or_default() + text);
                }
            }
            AssistantPart::ToolCall(call) => {
                let arguments = match &call.invalid_arguments {
                    // Some servers parse the arguments of earlier calls and fail on bad ones.
                    Some(_) => "{}".to_owned(),
                    None => call.arguments.to_string(),
                };
                calls.push(json!({
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": arguments},
                }));
            }
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    message
}

/// A chunk with a piece of text, and whether there is something else of the answer in it.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    choices: [Choice<'a>; 1],
    usage: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
    finish_reason: Option<IgnoredAny>,
    usage: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Text<'a>,
    refusal: Option<IgnoredAny>,
    reasoning_content: Option<IgnoredAny>,
    reasoning: Option<IgnoredAny>,
    reasoning_text: Option<IgnoredAny>,
    tool_calls: Option<IgnoredAny>,
}

impl Piece<'_> {
    /// The text, when there is nothing else.
    fn text(&self) -> Option<&str> {
        let [choice] = &self.choices;
        let delta = &choice.delta;
        let more = [
            &self.usage,
            &self.error,
            &choice.finish_reason,
            &choice.usage,
            &delta.refusal,
            &delta.reasoning_content,
            &delta.reasoning,
            &delta.reasoning_text,
            &delta.tool_calls,
        ];
        more.iter()
            .all(|more| more.is_none())
            .then_some(&*delta.content)
    }
}

/// Reads the chunks of an answer.
#[derive(Debug, Default)]
struct Chunks {
    text: Option<usize>,
    thinking: Option<usize>,
    thought_field: Option<&'static str>,
    calls: Vec<Call>,
    stop: Option<StopReason>,
    refused: bool,
}

/// A tool call. Its id and name may come late: it is opened once its name is known.
#[derive(Debug, Default)]
struct Call {
    key: Option<u64>,
    id: String,
    name: String,
    waiting: String,
    index: Option<usize>,
}

impl Decoder for Chunks {
    fn event(&mut self, event: SseView<'_>, out: &mut Assembly) -> Result<(), DecodeError> {
        if event.data.trim() == "[DONE]" {
            return self.done(out);
        }
        if event.name != "error"
            && let Ok(piece) = serde_json::from_str::<Piece<'_>>(event.data)
            && let Some(text) = piece.text()
        {
            out.start(piece.id.as_deref().filter(|id| !id.is_empty()));
            self.say(text, out);
            return Ok(());
        }
        let data = DecodeError::json(event)?;
        if data.get("error").is_some_and(|error| !error.is_null()) || event.name == "error" {
            return Err(DecodeError::Reported(event.data.to_owned()));
        }
        out.start(data["id"].as_str().filter(|id| !id.is_empty()));
        usage(&data["usage"], out);
        let choice = &data["choices"][0];
        usage(&choice["usage"], out);
        self.delta(&choice["delta"], out)?;
        if let Some(reason) = choice["finish_reason"].as_str() {
            if reason == "error" {
                return Err(DecodeError::Reported(
                    json!({"error": {"code": "server_error", "message": "the answer failed"}})
                        .to_string(),
                ));
            }
            self.stop = Some(stop(reason));
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Assembly) -> bool {
        self.stop.is_some() && self.done(out).is_ok()
    }
}

impl Chunks {
    fn done(&mut self, out: &mut Assembly) -> Result<(), DecodeError> {
        let Some(stop) = self.stop else {
            let message = "the answer ended without a finish reason";
            return Err(DecodeError::Malformed(message.to_owned()));
        };
        self.close_thinking(out);
        for call in &mut self.calls {
            call.open(out);
        }
        out.finish(match stop {
            StopReason::Stop if self.refused => StopReason::Refused,
            stop => stop,
        });
        Ok(())
    }

    fn delta(&mut self, delta: &Value, out: &mut Assembly) -> Result<(), DecodeError> {
        let filled = |field: &&'static str| delta[*field].as_str().is_some_and(|t| !t.is_empty());
        if let Some(field) = THOUGHT_FIELDS.iter().copied().find(|field| filled(field)) {
            self.thought_field = Some(field);
            self.thought(delta[field].as_str().unwrap_or_default(), out);
        }
        match &delta["content"] {
            Value::String(text) => self.say(text, out),
            // Mistral's models that think answer in pieces of either kind.
            Value::Array(pieces) => {
                for piece in pieces {
                    self.say(piece["text"].as_str().unwrap_or_default(), out);
                    for thought in piece["thinking"].as_array().into_iter().flatten() {
                        self.thought(thought["text"].as_str().unwrap_or_default(), out);
                    }
                }
            }
            _ => {}
        }
        if let Some(text) = delta["refusal"].as_str().filter(|text| !text.is_empty()) {
            self.refused = true;
            self.say(text, out);
        }
        if let Some(calls) = delta["tool_calls"]
            .as_array()
            .filter(|calls| !calls.is_empty())
        {
            self.close_thinking(out);
            self.close_text(out);
            for call in calls {
                self.call(call, out);
            }
        }
        if self.calls.len() > MAX_PARTS {
            let message = format!("the answer has more than {MAX_PARTS} tool calls");
            return Err(DecodeError::Malformed(message));
        }
        Ok(())
    }

    fn say(&mut self, text: &str, out: &mut Assembly) {
        if !text.is_empty() {
            self.close_thinking(out);
            out.text(&mut self.text, text);
        }
    }

    /// Thoughts after text begin a new part.
    fn thought(&mut self, text: &str, out: &mut Assembly) {
        if !text.is_empty() {
            self.close_text(out);
            out.thinking(&mut self.thinking, text);
        }
    }

    fn call(&mut self, data: &Value, out: &mut Assembly) {
        let key = data["index"].as_u64();
        let id = data["id"].as_str().unwrap_or_default();
        let function = &data["function"];
        let name = function["name"].as_str().unwrap_or_default();
        let known = match key {
            Some(_) => self.calls.iter().rposition(|call| call.key == key),
            None if id.is_empty() && name.is_empty() => self.calls.len().checked_sub(1),
            None => self
                .calls
                .iter()
                .position(|call| !id.is_empty() && call.id == id),
        };
        // Some servers number every call 0 and tell them apart by id.
        let known = known.filter(|&at| {
            let earlier = &self.calls[at].id;
            id.is_empty() || earlier.is_empty() || earlier == id
        });
        let at = known.unwrap_or_else(|| {
            // A call without arguments keeps its place before the next one.
            for earlier in self.calls.iter_mut().filter(|call| !call.name.is_empty()) {
                earlier.open(out);
            }
            self.calls.push(Call {
                key,
                ..Call::default()
            });
            self.calls.len() - 1
        });
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.index.is_none() {
            call.name.push_str(name);
        }
        match &function["arguments"] {
            Value::String(text) => call.waiting.push_str(text),
            // Against the format, but meant well.
            Value::Object(object) => call.waiting.push_str(&json!(object).to_string()),
            _ => {}
        }
        if !call.name.is_empty() && !call.waiting.is_empty() {
            call.open(out);
        }
    }

    fn close_thinking(&mut self, out: &mut Assembly) {
        if self.thinking.is_some() {
            let field = self.thought_field.map(str::to_owned);
            out.end_thinking(&mut self.thinking, field, false);
            self.thinking = None;
        }
    }

    fn close_text(&mut self, out: &mut Assembly) {
        out.end_text(self.text.take(), None);
    }
}

impl Call {
    fn open(&mut self, out: &mut Assembly) {
        let index = *self
            .index
            .get_or_insert_with(|| out.start_call(&self.id, &self.name));
        out.call_delta(index, &std::mem::take(&mut self.waiting));
    }
}

fn usage(data: &Value, out: &mut Assembly) {
    let Some(prompt) = data["prompt_tokens"].as_u64() else {
        return;
    };
    let details = &data["prompt_tokens_details"];
    let cache_read = details["cached_tokens"]
        .as_u64()
        .or_else(|| data["prompt_cache_hit_tokens"].as_u64())
        .or_else(|| data["cached_tokens"].as_u64())
        .unwrap_or(0);
    let cache_write = details["cache_write_tokens"].as_u64().unwrap_or(0);
    let completion = data["completion_tokens"].as_u64().unwrap_or(0);
    // Some servers leave the thoughts out of the completion but not out of the total.
    let total = data["total_tokens"].as_u64().unwrap_or(0);
    out.usage = Usage {
        input: prompt.saturating_sub(cache_read + cache_write),
        output: completion.max(total.saturating_sub(prompt)),
        cache_read,
        cache_write,
        cache_write_hour: 0,
    };
}

fn stop(reason: &str) -> StopReason {
    match reason {
        "stop" | "end" | "eos" | "end_turn" => StopReason::Stop,
        "tool_calls" | "function_call" | "tool_use" => StopReason::ToolUse,
        "length" | "max_tokens" | "model_length" => StopReason::Length,
        "content_filter" | "refusal" => StopReason::Refused,
        other => {
            tracing::warn!(reason = other, "unknown finish reason, taken as `stop`");
            StopReason::Stop
        }
    }
}
