//! OpenAI Responses.
//!
//! Nothing is stored at the provider (`store: false`): reasoning comes back encrypted and is given
//! back with the transcript, so that the conversation lives here alone. The exception is what is asked
//! in the background: the provider then keeps the answer for a while, makes it to its end whether we
//! listen or not, and shows it again from the beginning, as often as it is asked.

use std::collections::HashMap;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::catalog::{self, ThinkingStyle};
use crate::error::{ErrorKind, ModelError};
use crate::event::EventStream;
use crate::handoff::{self, IdRule};
use crate::message::{
    AssistantMessage, AssistantPart, FilePart, Message, ModelRef, ResultPart, StopReason,
    ToolResult, Usage, UserPart,
};
use crate::provider::Provider;
use crate::provider::assembly::Assembly;
use crate::provider::http::{DecodeError, Decoder, Server};
use crate::provider::piece::Text;
use crate::provider::quirks::Quirks;
use crate::request::{CacheRetention, Request, Thinking};
use crate::sse::SseView;

/// A server that speaks OpenAI Responses.
#[derive(Debug)]
pub(crate) struct Responses {
    pub(crate) server: Server,
    pub(crate) quirks: Quirks,
}

#[async_trait]
impl Provider for Responses {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let reference = self.model_ref(&request.model);
        let assembly = Assembly::new(reference.clone(), &request);
        if let Some(id) = request.resume.as_ref().filter(|_| self.quirks.background) {
            if !is_plain(id) {
                let message = "the id of the response to go on with is malformed";
                let kind = ErrorKind::InvalidRequest;
                return Err(ModelError::new(kind, &self.server.provider, message));
            }
            let mut server = self.server.clone();
            server.url = format!("{}/{id}?stream=true", server.url);
            return server.fetch(Box::new(Items::default()), assembly).await;
        }
        let body = body(&request, &reference, &self.quirks)
            .to_string()
            .into_bytes();
        self.server
            .stream(HeaderMap::new(), body, Box::new(Items::default()), assembly)
            .await
    }

    async fn cancel(&self, response_id: &str) {
        if self.quirks.background && is_plain(response_id) {
            let mut server = self.server.clone();
            server.url = format!("{}/{response_id}/cancel", server.url);
            server.tell(b"{}".to_vec()).await;
        }
    }

    fn resumes(&self) -> bool {
        self.quirks.background
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "openai-responses".to_owned(),
            provider: self.server.provider.clone(),
            model: model.to_owned(),
        }
    }
}

/// Whether an id can stand in a path.
fn is_plain(id: &str) -> bool {
    let plain = |ch: char| ch.is_ascii_alphanumeric() || ch == '_' || ch == '-';
    !id.is_empty() && id.chars().all(plain)
}

fn body(request: &Request, reference: &ModelRef, quirks: &Quirks) -> Value {
    let messages = handoff::prepare(&request.messages, reference, IdRule::COMMON);
    let mut body = json!({
        "model": request.model,
        "stream": true,
        "store": quirks.background,
        "input": input(&messages),
    });
    if quirks.background {
        body["background"] = json!(true);
    }
    if request.cache != CacheRetention::None {
        if let Some(key) = request.conversation.as_ref().filter(|_| quirks.cache_key) {
            body["prompt_cache_key"] = json!(key);
        }
        if request.cache == CacheRetention::Long && quirks.long_cache {
            body["prompt_cache_retention"] = json!("24h");
        }
    }
    if let Some(schema) = request.result.as_ref().filter(|_| quirks.structured) {
        body["text"] = json!({"format": {
            "type": "json_schema", "name": "result", "schema": schema, "strict": false,
        }});
    }
    if !request.system.is_empty() {
        body["instructions"] = json!(request.system);
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": false,
            })
        });
        body["tools"] = tools.collect();
    }
    if let Some(limit) = request.max_output {
        body["max_output_tokens"] = json!(limit);
    }
    let effort = match catalog::find("openai", &request.model) {
        Some(model) if model.thinking == ThinkingStyle::None => None,
        Some(model) => model.effort(request.thinking),
        None if request.thinking == Thinking::Off => None,
        None => catalog::nearest(&["low", "medium", "high"], request.thinking),
    };
    if let Some(effort) = effort {
        body["reasoning"] = if effort == "none" {
            json!({"effort": effort})
        } else {
            json!({"effort": effort, "summary": "auto"})
        };
        body["include"] = json!(["reasoning.encrypted_content"]);
    }
    body
}

fn input(messages: &[Message]) -> Value {
    let mut items = Vec::new();
    for message in messages {
        match message {
            Message::User(user) => {
                let content: Vec<Value> = user
                    .parts
                    .iter()
                    .map(|part| match part {
                        UserPart::Text { text } => json!({"type": "input_text", "text": text}),
                        UserPart::File(file) => input_file(file),
                    })
                    .collect();
                items.push(json!({"role": "user", "content": content}));
            }
            Message::Assistant(answer) => answer_items(answer, &mut items),
            Message::ToolResult(result) => items.push(result_item(result)),
        }
    }
    Value::Array(items)
}

fn input_file(file: &FilePart) -> Value {
    match file.media_type.as_str() {
        media if media.starts_with("image/") => {
            json!({"type": "input_image", "detail": "auto", "image_url": file.data_url()})
        }
        "application/pdf" => json!({
            "type": "input_file",
            "filename": file.name.as_deref().unwrap_or("document.pdf"),
            "file_data": file.data_url(),
        }),
        media if media.starts_with("text/") => {
            json!({"type": "input_text", "text": super::text_file(file)})
        }
        _ => json!({"type": "input_text", "text": super::unreadable(file)}),
    }
}

fn answer_items(answer: &AssistantMessage, items: &mut Vec<Value>) {
    let signed = |part: &AssistantPart| {
        matches!(
            part,
            AssistantPart::Thinking {
                signature: Some(_),
                ..
            }
        )
    };
    let reasoned = answer.parts.iter().any(signed);
    for part in &answer.parts {
        match part {
            AssistantPart::Text { text, signature } => {
                let mut item = json!({
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}],
                });
                let kept = signature
                    .as_deref()
                    .and_then(|kept| serde_json::from_str(kept).ok());
                if let Some(Value::Object(kept)) = kept {
                    for (key, value) in kept {
                        item[key] = value;
                    }
                }
                items.push(item);
            }
            // The whole item, as it came.
            AssistantPart::Thinking {
                signature: Some(item),
                ..
            } => {
                items.extend(
                    serde_json::from_str::<Value>(item)
                        .ok()
                        .filter(Value::is_object),
                );
            }
            AssistantPart::Thinking {
                signature: None, ..
            } => {}
            AssistantPart::ToolCall(call) => {
                let arguments = match &call.invalid_arguments {
                    Some(text) => text.clone(),
                    None => call.arguments.to_string(),
                };
                let mut item = json!({
                    "type": "function_call",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": arguments,
                });
                // A call with its id must stand behind its reasoning, which is not always there.
                if let (true, Some(id)) = (reasoned, &call.signature) {
                    item["id"] = json!(id);
                }
                items.push(item);
            }
        }
    }
}

fn result_item(result: &ToolResult) -> Value {
    let text = result.text();
    let has_files = result
        .parts
        .iter()
        .any(|part| matches!(part, ResultPart::File(_)));
    let output = if has_files {
        let parts = result.parts.iter().map(|part| match part {
            ResultPart::Text { text } => json!({"type": "input_text", "text": text}),
            ResultPart::File(file) => input_file(file),
        });
        parts.collect()
    } else {
        // There is no flag for failure in this format.
        json!(super::result_text(&text, result.is_error))
    };
    json!({"type": "function_call_output", "call_id": result.call_id, "output": output})
}

/// A piece of text.
#[derive(serde::Deserialize)]
struct Piece<'a> {
    output_index: u64,
    #[serde(borrow)]
    delta: Text<'a>,
}

/// Reads the events of an answer.
#[derive(Debug, Default)]
struct Items {
    open: HashMap<u64, Item>,
    refused: bool,
}

#[derive(Debug)]
enum Item {
    Message(Option<usize>),
    Reasoning(Option<usize>),
    Call(usize),
    Other,
}

impl Decoder for Items {
    fn event(&mut self, event: SseView<'_>, out: &mut Assembly) -> Result<(), DecodeError> {
        if event.data == "[DONE]" {
            return Ok(());
        }
        if event.name == "response.output_text.delta"
            && let Ok(piece) = serde_json::from_str::<Piece<'_>>(event.data)
        {
            self.text(piece.output_index, &piece.delta, out);
            return Ok(());
        }
        let data = DecodeError::json(event)?;
        let delta = data["delta"].as_str().unwrap_or_default();
        match data["type"].as_str().unwrap_or(event.name) {
            "response.created" => out.start(data["response"]["id"].as_str()),
            "response.output_item.added" => self.open(&data, out)?,
            "response.output_item.done" => self.close(&data, out)?,
            "response.output_text.delta" => self.text(index_of(&data)?, delta, out),
            "response.refusal.delta" => {
                self.refused = true;
                self.text(index_of(&data)?, delta, out);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                if let Some(Item::Reasoning(slot)) = self.open.get_mut(&index_of(&data)?) {
                    out.thinking(slot, delta);
                }
            }
            "response.reasoning_summary_part.added" => {
                if let Some(Item::Reasoning(slot @ Some(_))) = self.open.get_mut(&index_of(&data)?)
                {
                    out.thinking(slot, "\n\n");
                }
            }
            "response.function_call_arguments.delta" => {
                if let Some(Item::Call(index)) = self.open.get(&index_of(&data)?) {
                    out.call_delta(*index, delta);
                }
            }
            "response.completed" | "response.incomplete" => {
                self.finish(&data["response"], out);
            }
            "response.failed" => {
                let error = json!({"error": data["response"]["error"]});
                return Err(DecodeError::Reported(error.to_string()));
            }
            "error" => return Err(DecodeError::Reported(reported(data))),
            // Progress notes, and what is added to the format later.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut Assembly) -> bool {
        false
    }
}

/// The type of an error event is `error`, which must not be taken for its code.
fn reported(mut data: Value) -> String {
    if let Some(object) = data.as_object_mut()
        && object.get("error").is_none_or(Value::is_null)
    {
        object.remove("type");
    }
    data.to_string()
}

impl Items {
    fn open(&mut self, data: &Value, out: &mut Assembly) -> Result<(), DecodeError> {
        let item = &data["item"];
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        let opened = match text("type") {
            "message" => Item::Message(None),
            "reasoning" => Item::Reasoning(None),
            "function_call" => {
                let index = out.start_call(text("call_id"), text("name"));
                out.call_delta(index, text("arguments"));
                Item::Call(index)
            }
            _ => Item::Other,
        };
        self.open.insert(index_of(data)?, opened);
        Ok(())
    }

    fn text(&mut self, at: u64, delta: &str, out: &mut Assembly) {
        let item = self.open.entry(at).or_insert(Item::Message(None));
        if let Item::Message(slot) = item {
            out.text(slot, delta);
        }
    }

    fn close(&mut self, data: &Value, out: &mut Assembly) -> Result<(), DecodeError> {
        let item = &data["item"];
        match self.open.remove(&index_of(data)?) {
            Some(Item::Message(slot)) => {
                let mut kept = serde_json::Map::new();
                for key in ["id", "phase"] {
                    if let Some(value) = item.get(key).filter(|value| value.is_string()) {
                        kept.insert(key.to_owned(), value.clone());
                    }
                }
                let kept = (!kept.is_empty()).then(|| Value::Object(kept).to_string());
                out.end_text(slot, kept);
            }
            Some(Item::Reasoning(mut slot)) => {
                let encrypted = item["encrypted_content"].is_string();
                let kept = encrypted.then(|| replayable(item).to_string());
                out.end_thinking(&mut slot, kept, false);
            }
            Some(Item::Call(index)) => {
                if out.call_is_empty(index) {
                    out.call_delta(index, item["arguments"].as_str().unwrap_or_default());
                }
                out.end_call(index, item["id"].as_str().map(str::to_owned));
            }
            Some(Item::Other) | None => {}
        }
        Ok(())
    }

    fn finish(&mut self, response: &Value, out: &mut Assembly) {
        out.usage = usage(&response["usage"]);
        let reason = response["incomplete_details"]["reason"].as_str();
        let stop = match (response["status"].as_str(), reason) {
            (_, Some("content_filter")) => StopReason::Refused,
            (Some("incomplete"), _) => StopReason::Length,
            _ if self.refused => StopReason::Refused,
            _ => StopReason::Stop,
        };
        out.finish(stop);
    }
}

/// A reasoning item as it may be given back: its status is the provider's to say.
fn replayable(item: &Value) -> Value {
    let mut item = item.clone();
    if let Some(object) = item.as_object_mut() {
        object.remove("status");
    }
    item
}

fn index_of(data: &Value) -> Result<u64, DecodeError> {
    data["output_index"]
        .as_u64()
        .ok_or_else(|| DecodeError::Malformed("an output item has no index".to_owned()))
}

fn usage(data: &Value) -> Usage {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let cache_read = count(&data["input_tokens_details"]["cached_tokens"]);
    let cache_write = count(&data["input_tokens_details"]["cache_write_tokens"]);
    Usage {
        input: count(&data["input_tokens"]).saturating_sub(cache_read + cache_write),
        output: count(&data["output_tokens"]),
        cache_read,
        cache_write,
        cache_write_hour: 0,
    }
}
