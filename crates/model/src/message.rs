//! The transcript: what was said, in the one vocabulary that every provider is translated to and
//! from. These values are stored in records, so their JSON form is part of the data format.

use std::ops::AddAssign;

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One message of a transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "camelCase")]
pub enum Message {
    /// What a person, or the program on their behalf, said.
    User(UserMessage),
    /// What the model said and asked for.
    Assistant(AssistantMessage),
    /// What one tool call came to.
    ToolResult(ToolResult),
}

/// A message to the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserMessage {
    /// Text and files, in the order in which the model sees them.
    pub parts: Vec<UserPart>,
}

impl UserMessage {
    /// A message of one text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            parts: vec![UserPart::Text { text: text.into() }],
        }
    }
}

/// A piece of a [`UserMessage`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum UserPart {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// An image or another file.
    File(FilePart),
}

/// A file in a message: its bytes, carried in base64 in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilePart {
    /// The media type, e.g. `image/png`. Which types a model accepts is the model's business.
    pub media_type: String,
    /// The file's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The content.
    #[serde(with = "base64_bytes")]
    pub data: Bytes,
}

impl FilePart {
    /// Whether this is an image, by its media type.
    pub fn is_image(&self) -> bool {
        self.media_type.starts_with("image/")
    }

    /// The content in standard base64 with padding.
    pub fn base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.data)
    }

    /// The content as a `data:` URL.
    pub fn data_url(&self) -> String {
        format!("data:{};base64,{}", self.media_type, self.base64())
    }
}

/// What the model answered in one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantMessage {
    /// The model that said it. Opaque parts are given back only to the same one.
    pub model: ModelRef,
    /// Text, thinking and tool calls, in the order in which they were produced.
    pub parts: Vec<AssistantPart>,
    /// Why the model stopped.
    pub stop: StopReason,
    /// The tokens of this call.
    pub usage: Usage,
    /// The provider's id of the response, to find it again at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
}

impl AssistantMessage {
    /// The text parts, joined.
    pub fn text(&self) -> String {
        self.parts
            .iter()
            .filter_map(|part| match part {
                AssistantPart::Text { text, .. } => Some(text.as_str()),
                AssistantPart::Thinking { .. } | AssistantPart::ToolCall(_) => None,
            })
            .collect()
    }

    /// Whether the transcript was larger than a window of so many tokens, although no error said so:
    /// some servers cut what they are sent, or have no room left to answer.
    pub fn overflowed_silently(&self, window: u64) -> bool {
        let sent = self.usage.context();
        match self.stop {
            StopReason::Stop => sent > window,
            StopReason::Length => self.usage.output == 0 && sent >= window - window / 100,
            StopReason::ToolUse | StopReason::Refused | StopReason::Aborted | StopReason::Error => {
                false
            }
        }
    }

    /// The tool calls, in source order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            AssistantPart::ToolCall(call) => Some(call),
            AssistantPart::Text { .. } | AssistantPart::Thinking { .. } => None,
        })
    }
}

/// Which model, behind which provider, over which wire format. Two models are the same only when
/// all three are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRef {
    /// The wire format: `anthropic`, `openai-responses`, `openai-chat`, `scripted`, …
    pub api: String,
    /// The provider's name, or the name under `[models]` in `bowline.toml`.
    pub provider: String,
    /// The provider's id of the model.
    pub model: String,
}

/// A piece of an [`AssistantMessage`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum AssistantPart {
    /// Text for the reader.
    Text {
        /// The text.
        text: String,
        /// Opaque, meant for the model that made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// What the model thought before it answered.
    Thinking {
        /// The readable thought or its summary; may be empty where only the signature is given.
        text: String,
        /// Opaque, meant for the model that made it: without it the thought cannot be given back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
        /// The provider withheld the text; the signature holds its encrypted form.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        redacted: bool,
    },
    /// A tool that the model wants run.
    ToolCall(ToolCall),
}

impl AssistantPart {
    /// Its size in bytes, opaque parts included.
    pub(crate) fn size(&self) -> usize {
        let opaque = |signature: &Option<String>| signature.as_ref().map_or(0, String::len);
        match self {
            AssistantPart::Text { text, signature } => text.len() + opaque(signature),
            AssistantPart::Thinking {
                text, signature, ..
            } => text.len() + opaque(signature),
            AssistantPart::ToolCall(call) => {
                call.name.len() + call.arguments.to_string().len() + opaque(&call.signature)
            }
        }
    }
}

/// A request of the model to run one tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    /// The id that the result answers to, unique in the transcript.
    pub id: String,
    /// The tool's name, as the model wrote it.
    pub name: String,
    /// The arguments: a JSON object. An empty one when they were not valid JSON.
    pub arguments: serde_json::Value,
    /// The arguments as written, when they were not a JSON object: kept, so that the model can be
    /// told what was wrong with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_arguments: Option<String>,
    /// Opaque, meant for the model that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl ToolCall {
    /// A call from its arguments as streamed. Empty text means no arguments, `{}`; text that is
    /// not a JSON object is kept in `invalid_arguments`.
    pub fn from_text(id: String, name: String, arguments: &str) -> Self {
        let text = arguments.trim();
        let parsed = if text.is_empty() {
            Some(serde_json::Value::Object(serde_json::Map::new()))
        } else {
            serde_json::from_str(text)
                .ok()
                .filter(serde_json::Value::is_object)
        };
        let invalid_arguments = parsed.is_none().then(|| arguments.to_owned());
        Self {
            id,
            name,
            arguments: parsed.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new())),
            invalid_arguments,
            signature: None,
        }
    }
}

/// What one tool call came to, as the model sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// The [`ToolCall::id`] that this answers.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// The content.
    pub parts: Vec<ResultPart>,
    /// The tool failed, and the content says how.
    pub is_error: bool,
}

impl ToolResult {
    /// The text parts, joined by line ends.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                ResultPart::Text { text } => Some(text.as_str()),
                ResultPart::File(_) => None,
            })
            .collect();
        texts.join("\n")
    }
}

/// A piece of a [`ToolResult`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ResultPart {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// An image or another file.
    File(FilePart),
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// It had said everything.
    Stop,
    /// It waits for the results of its tool calls.
    ToolUse,
    /// The output limit, or the end of the context window, was reached.
    Length,
    /// The model or its provider refused to answer.
    Refused,
    /// The caller ended the call. Providers never return it; the caller that keeps a partial
    /// answer sets it.
    Aborted,
    /// The call broke off. Providers return a [`crate::ModelError`] instead; the caller that keeps
    /// a partial answer sets it.
    Error,
}

/// The tokens of one or more calls, split as they are billed. No token is in two fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Input read at the full price, not from the provider's cache.
    pub input: u64,
    /// Output, thinking included.
    pub output: u64,
    /// Input read from the provider's cache.
    pub cache_read: u64,
    /// Input written to the provider's cache.
    pub cache_write: u64,
    /// The part of `cache_write` that is kept for an hour, which costs more. Left out of JSON where it
    /// is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_hour: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Usage {
    /// All tokens: what the call filled of the context window.
    pub fn total(&self) -> u64 {
        self.context().saturating_add(self.output)
    }

    /// All input tokens, cached or not: the size of what was sent.
    pub fn context(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.cache_write_hour = self.cache_write_hour.saturating_add(other.cache_write_hour);
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(data: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(data))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(input)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Bytes::from)
            .map_err(D::Error::custom)
    }
}
