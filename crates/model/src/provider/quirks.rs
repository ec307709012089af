//! What a server wants otherwise than the format says.

use serde::Deserialize;

/// How a server wants to be spoken to. A field that a format has no use for is ignored by it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Quirks {
    /// Chat: the field of the output limit.
    pub(crate) max_tokens_field: String,
    /// Chat: the role of the system prompt.
    pub(crate) system_role: String,
    /// Chat: how a thinking level is said.
    pub(crate) thinking: ThinkingFormat,
    /// Chat: whether usage has to be asked for with `stream_options`.
    pub(crate) stream_usage: bool,
    /// Chat: whether thoughts are given back in the field that they came in.
    pub(crate) replay_thoughts: bool,
    /// Chat: the longest tool-call id.
    pub(crate) max_id: usize,
    /// Chat: tool-call ids are letters and digits only, of exactly `max_id` characters.
    pub(crate) plain_ids: bool,
    /// Chat: tool results carry the tool's name.
    pub(crate) result_names: bool,
    /// Chat: a message of a person may not follow a tool result; a short answer is put between.
    pub(crate) bridge_results: bool,
    /// Chat: an answer of tool calls alone has an empty text, not null.
    pub(crate) empty_text: bool,
    /// Chat: models of Anthropic behind this server take its cache markers.
    pub(crate) cache_markers: bool,
    /// Chat and Responses: `prompt_cache_key` is understood.
    pub(crate) cache_key: bool,
    /// Anthropic and Responses: the longer cache retention is offered.
    pub(crate) long_cache: bool,
    /// The models take images. One that the catalogue or `[models]` knows better is not asked.
    pub(crate) images: bool,
    /// An answer can be held to a JSON Schema.
    pub(crate) structured: bool,
    /// Responses: answers are made in the background, and can be read again after a cut.
    pub(crate) background: bool,
    /// Chat: how an answer that was cut off is gone on with.
    pub(crate) prefill: Prefill,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            max_tokens_field: "max_tokens".to_owned(),
            system_role: "system".to_owned(),
            thinking: ThinkingFormat::Effort,
            stream_usage: true,
            replay_thoughts: true,
            max_id: 40,
            plain_ids: false,
            result_names: false,
            bridge_results: false,
            empty_text: false,
            cache_markers: false,
            cache_key: false,
            long_cache: false,
            images: true,
            structured: true,
            background: false,
            prefill: Prefill::None,
        }
    }
}

/// How a server is asked to go on from what the model had said, which is sent as the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Prefill {
    /// It is not: it refuses such a message, or answers it.
    None,
    /// `prefix: true` in the message.
    Prefix,
    /// `partial: true` in the message.
    Partial,
    /// `continue_final_message: true` and `add_generation_prompt: false` in the request.
    Final,
}

/// How a thinking level is said in Chat Completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ThinkingFormat {
    /// Not at all.
    None,
    /// `reasoning_effort: "low"`.
    Effort,
    /// `reasoning: {effort: "low"}`.
    Reasoning,
    /// `thinking: {type: "enabled"}`: on or off.
    Switch,
    /// `enable_thinking: true`: on or off.
    Enable,
    /// `chat_template_kwargs: {enable_thinking: true}`: on or off.
    Template,
}
