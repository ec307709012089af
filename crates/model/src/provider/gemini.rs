//! Google Gemini: `streamGenerateContent`.
//!
//! Thoughts come as summaries and are not given back; what is given back are the signatures, which
//! stand on the text and the tool calls that follow a thought.

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use serde::Deserialize as _;
use serde::de::IgnoredAny;
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
use crate::request::{Request, Thinking};
use crate::sse::SseView;

/// What Gemini 3 takes in place of the signature of a call that another model made.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// A server that speaks Gemini. The address of `server` ends in the version, e.g. `/v1beta`.
#[derive(Debug)]
pub(crate) struct Gemini {
    pub(crate) server: Server,
}

#[async_trait]
impl Provider for Gemini {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let reference = self.model_ref(&request.model);
        let plain = |ch: char| ch.is_ascii_alphanumeric() || "-._@:".contains(ch);
        if request.model.is_empty() || !request.model.chars().all(plain) {
            let message = format!("`{}` is not the id of a model", request.model);
            let kind = ErrorKind::UnknownModel { closest: None };
            return Err(ModelError::new(kind, &self.server.provider, message));
        }
        let mut server = self.server.clone();
        let path = format!("/models/{}:streamGenerateContent?alt=sse", request.model);
        server.url.push_str(&path);
        let body = body(&request, &reference).to_string().into_bytes();
        let assembly = Assembly::new(reference, &request);
        server
            .stream(
                HeaderMap::new(),
                body,
                Box::new(Chunks::default()),
                assembly,
            )
            .await
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "gemini".to_owned(),
            provider: self.server.provider.clone(),
            model: model.to_owned(),
        }
    }
}

fn body(request: &Request, reference: &ModelRef) -> Value {
    let messages = handoff::prepare(&request.messages, reference, IdRule::COMMON);
    let mut body = json!({"contents": contents(&messages, &request.model)});
    if !request.system.is_empty() {
        body["systemInstruction"] = json!({"parts": [{"text": request.system}]});
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({
                "name": tool.name,
                "description": tool.description,
                "parametersJsonSchema": tool.parameters,
            })
        });
        body["tools"] = json!([{"functionDeclarations": tools.collect::<Vec<_>>()}]);
    }
    let mut config = json!({});
    if let Some(limit) = request.max_output {
        config["maxOutputTokens"] = json!(limit);
    }
    // Older models take a schema only where there are no tools.
    let holds = request.tools.is_empty() || request.model.contains("gemini-3");
    if let Some(schema) = request.result.as_ref().filter(|_| holds) {
        config["responseMimeType"] = json!("application/json");
        config["responseJsonSchema"] = schema.clone();
    }
    let known = catalog::find("google", &request.model);
    let thinking = match known.map(|model| model.thinking) {
        Some(ThinkingStyle::None) => None,
        Some(ThinkingStyle::Budget) => {
            Some(json!({"thinkingBudget": budget(request.thinking, &request.model)}))
        }
        Some(ThinkingStyle::Effort) => known
            .and_then(|model| model.effort(request.thinking))
            .map(|level| json!({"thinkingLevel": level})),
        None if request.thinking == Thinking::Off => None,
        None => catalog::nearest(&["low", "high"], request.thinking)
            .map(|level| json!({"thinkingLevel": level})),
    };
    if let Some(mut thinking) = thinking {
        thinking["includeThoughts"] = json!(request.thinking != Thinking::Off);
        config["thinkingConfig"] = thinking;
    }
    body["generationConfig"] = config;
    body
}

/// The Pro models cannot be kept from thinking; 24,576 is the most that all of them take.
fn budget(level: Thinking, model: &str) -> u64 {
    match level {
        Thinking::Off if model.contains("pro") => 128,
        Thinking::Off => 0,
        Thinking::Minimal => 512,
        Thinking::Low => 2048,
        Thinking::Medium => 8192,
        Thinking::High | Thinking::Xhigh | Thinking::Max => 24_576,
    }
}

/// The messages, those of one role in a row as one.
fn contents(messages: &[Message], model: &str) -> Value {
    let mut wire: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in messages {
        let (role, parts): (_, Vec<Value>) = match message {
            Message::User(user) => ("user", user.parts.iter().map(user_part).collect()),
            Message::ToolResult(result) => ("user", result_parts(result)),
            Message::Assistant(answer) => ("model", answer_parts(answer, model)),
        };
        if parts.is_empty() {
            continue;
        }
        match wire.last_mut() {
            Some((last, earlier)) if *last == role => earlier.extend(parts),
            _ => wire.push((role, parts)),
        }
    }
    wire.into_iter()
        .map(|(role, parts)| json!({"role": role, "parts": parts}))
        .collect()
}

fn user_part(part: &UserPart) -> Value {
    match part {
        UserPart::Text { text } => json!({"text": text}),
        UserPart::File(file) => file_part(file),
    }
}

fn file_part(file: &FilePart) -> Value {
    let media = file.media_type.as_str();
    if media.starts_with("text/") {
        json!({"text": super::text_file(file)})
    } else if media == "application/pdf"
        || ["image/", "audio/", "video/"]
            .iter()
            .any(|kind| media.starts_with(kind))
    {
        json!({"inlineData": {"mimeType": media, "data": file.base64()}})
    } else {
        json!({"text": super::unreadable(file)})
    }
}

fn result_parts(result: &ToolResult) -> Vec<Value> {
    let key = if result.is_error { "error" } else { "output" };
    let mut parts = vec![json!({"functionResponse": {
        "id": result.call_id,
        "name": result.name,
        "response": {key: result.text()},
    }})];
    parts.extend(result.parts.iter().filter_map(|part| match part {
        ResultPart::Text { .. } => None,
        ResultPart::File(file) => Some(file_part(file)),
    }));
    parts
}

fn answer_parts(answer: &AssistantMessage, model: &str) -> Vec<Value> {
    let signed = |mut part: Value, signature: Option<&str>| {
        if let Some(signature) = signature {
            part["thoughtSignature"] = json!(signature);
        }
        part
    };
    let mut first = true;
    let parts = answer.parts.iter().filter_map(|part| match part {
        AssistantPart::Text { text, signature } => {
            Some(signed(json!({"text": text}), signature.as_deref()))
        }
        AssistantPart::Thinking { .. } => None,
        AssistantPart::ToolCall(call) => {
            let wire = json!({"functionCall": {
                "id": call.id, "name": call.name, "args": call.arguments,
            }});
            // Only the first call of a batch is signed, and Gemini 3 insists on it.
            let stand_in =
                (std::mem::take(&mut first) && model.contains("gemini-3")).then_some(NO_SIGNATURE);
            Some(signed(wire, call.signature.as_deref().or(stand_in)))
        }
    });
    parts.collect()
}

/// A chunk with a piece of text and nothing else of the answer.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Piece<'a> {
    #[serde(borrow)]
    candidates: [Candidate<'a>; 1],
    #[serde(default)]
    usage_metadata: Counts,
    #[serde(borrow)]
    response_id: Option<Text<'a>>,
    #[serde(default, rename = "modelVersion")]
    _model: IgnoredAny,
    #[serde(default, rename = "createTime")]
    _time: IgnoredAny,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate<'a> {
    #[serde(borrow)]
    content: Content<'a>,
    #[serde(default, rename = "index")]
    _index: IgnoredAny,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<'a> {
    #[serde(borrow)]
    parts: [PiecePart<'a>; 1],
    #[serde(default, rename = "role")]
    _role: IgnoredAny,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PiecePart<'a> {
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Counts {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
}

/// Reads the chunks of an answer.
#[derive(Debug, Default)]
struct Chunks {
    text: Option<usize>,
    signature: Option<String>,
    thinking: Option<usize>,
    stop: Option<StopReason>,
}

impl Decoder for Chunks {
    fn event(&mut self, event: SseView<'_>, out: &mut Assembly) -> Result<(), DecodeError> {
        if let Ok(piece) = serde_json::from_str::<Piece<'_>>(event.data) {
            self.take(&piece, out);
            return Ok(());
        }
        let data = DecodeError::json(event)?;
        if data.get("error").is_some() {
            return Err(DecodeError::Reported(event.data.to_owned()));
        }
        out.start(data["responseId"].as_str());
        // A count that is none counts as none.
        let counts = Counts::deserialize(&data["usageMetadata"]);
        usage(&counts.unwrap_or_default(), out);
        if data["promptFeedback"]["blockReason"].is_string() {
            self.stop = Some(StopReason::Refused);
        }
        let candidate = &data["candidates"][0];
        for part in candidate["content"]["parts"]
            .as_array()
            .into_iter()
            .flatten()
        {
            self.part(part, out);
        }
        match candidate["finishReason"].as_str() {
            None => {}
            Some("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "OTHER") => {
                let message = "the model's answer could not be used";
                let error = json!({"error": {"status": "INTERNAL", "message": message}});
                return Err(DecodeError::Reported(error.to_string()));
            }
            Some(reason) => self.stop = Some(stop(reason)),
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Assembly) -> bool {
        let Some(stop) = self.stop else { return false };
        self.close_thinking(out);
        self.close_text(out);
        out.finish(stop);
        true
    }
}

impl Chunks {
    fn take(&mut self, piece: &Piece<'_>, out: &mut Assembly) {
        out.start(piece.response_id.as_deref());
        usage(&piece.usage_metadata, out);
        let [candidate] = &piece.candidates;
        let [part] = &candidate.content.parts;
        self.close_thinking(out);
        out.text(&mut self.text, &part.text);
    }

    fn part(&mut self, part: &Value, out: &mut Assembly) {
        let signature = part["thoughtSignature"].as_str().map(str::to_owned);
        if let Some(call) = part.get("functionCall") {
            self.close_thinking(out);
            self.close_text(out);
            let text = |key: &str| call[key].as_str().unwrap_or_default();
            let index = out.start_call(text("id"), text("name"));
            if let Some(args) = call.get("args").filter(|args| !args.is_null()) {
                out.call_delta(index, &args.to_string());
            }
            out.end_call(index, signature);
        } else if let Some(text) = part["text"].as_str() {
            if part["thought"] == true {
                self.close_text(out);
                out.thinking(&mut self.thinking, text);
            } else {
                self.close_thinking(out);
                out.text(&mut self.text, text);
                // The last one counts; it may come with an empty text.
                self.signature = signature.or(self.signature.take());
            }
        }
    }

    fn close_thinking(&mut self, out: &mut Assembly) {
        if self.thinking.is_some() {
            out.end_thinking(&mut self.thinking, None, false);
            self.thinking = None;
        }
    }

    fn close_text(&mut self, out: &mut Assembly) {
        out.end_text(self.text.take(), self.signature.take());
    }
}

fn usage(counts: &Counts, out: &mut Assembly) {
    let Some(prompt) = counts.prompt_token_count else {
        return;
    };
    let cache_read = counts.cached_content_token_count.unwrap_or(0);
    let candidates = counts.candidates_token_count.unwrap_or(0);
    out.usage = Usage {
        input: prompt.saturating_sub(cache_read),
        output: candidates.saturating_add(counts.thoughts_token_count.unwrap_or(0)),
        cache_read,
        ..Usage::default()
    };
}

fn stop(reason: &str) -> StopReason {
    match reason {
        "STOP" => StopReason::Stop,
        "MAX_TOKENS" => StopReason::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
        | "IMAGE_SAFETY" => StopReason::Refused,
        other => {
            tracing::warn!(reason = other, "unknown finish reason, taken as `STOP`");
            StopReason::Stop
        }
    }
}
