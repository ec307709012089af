//! One call of a model.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::transcript::Transcript;

/// What a model is asked. Equal requests are sent as equal bytes, so that a provider's prompt
/// cache holds from one call to the next.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The provider's id of the model.
    pub model: String,
    /// The system prompt; empty for none.
    pub system: String,
    /// The transcript. Providers pass it through [`crate::handoff::prepare`] themselves.
    pub messages: Transcript,
    /// The tools that the model may call, in a fixed order.
    pub tools: Arc<Vec<ToolSpec>>,
    /// How much the model should think first.
    pub thinking: Thinking,
    /// The most output tokens, thinking included. `None` is the model's own limit where the
    /// provider has one, else 32,000.
    pub max_output: Option<u64>,
    /// Where in its submission this call stands.
    pub position: CallPosition,
    /// How long the provider is asked to keep the prompt in its cache.
    pub cache: CacheRetention,
    /// What the calls of one conversation have in common: it leads them to the same cache at providers
    /// that spread requests over machines. Opaque, at most 64 characters.
    pub conversation: Option<String>,
    /// The JSON Schema that the answer's text must have, where the provider can hold the model to one.
    pub result: Option<serde_json::Value>,
    /// A response of this provider that was cut off and goes on there by itself: it is read again from
    /// its beginning, and nothing is asked or paid anew. From [`crate::Event::Started`].
    pub resume: Option<String>,
    /// What this model had said of its answer when it was cut off: it goes on from there, and the answer is
    /// only what comes after. Where [`crate::Provider::continues`] says so; elsewhere it is ignored.
    pub begun: Option<String>,
}

/// How long a provider is asked to keep a prompt in its cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheRetention {
    /// It is not asked to keep anything.
    None,
    /// As long as the provider usually does: about five minutes.
    #[default]
    Short,
    /// As long as the provider offers for more money: an hour at Anthropic, a day at OpenAI. Where it
    /// offers nothing, as [`CacheRetention::Short`].
    Long,
}

/// Where a call stands in the submission that it works for. The scripted model answers by it, and
/// telemetry carries it; nothing of it reaches a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallPosition {
    /// What the call is for.
    #[serde(default)]
    pub purpose: Purpose,
    /// The n-th model call of the submission, from 1.
    pub call: u32,
    /// How often this call was tried before, from 0.
    pub attempt: u32,
    /// The text of the submission.
    pub submission_text: String,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// To answer a submission.
    #[default]
    Answer,
    /// To summarise a conversation that has become too long; [`CallPosition::call`] is then the n-th
    /// summary of the conversation, from 1.
    Summary,
}

/// A tool as the model is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolSpec {
    /// The name by which the model calls it.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// The JSON Schema of its arguments: an object schema.
    pub parameters: serde_json::Value,
}

/// How much a model thinks before it answers. A level that a model does not have is taken as the
/// nearest one that it has, upward first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Thinking {
    /// Not at all.
    Off,
    /// As little as there is.
    Minimal,
    /// A little.
    Low,
    /// The default of models that can think.
    #[default]
    Medium,
    /// Much.
    High,
    /// More than `high`, where the model has it.
    Xhigh,
    /// As much as there is.
    Max,
}

impl Thinking {
    /// Every level, from the least.
    pub const ALL: [Thinking; 7] = [
        Thinking::Off,
        Thinking::Minimal,
        Thinking::Low,
        Thinking::Medium,
        Thinking::High,
        Thinking::Xhigh,
        Thinking::Max,
    ];

    /// The word for it in `agent.md`.
    pub fn as_str(self) -> &'static str {
        match self {
            Thinking::Off => "off",
            Thinking::Minimal => "minimal",
            Thinking::Low => "low",
            Thinking::Medium => "medium",
            Thinking::High => "high",
            Thinking::Xhigh => "xhigh",
            Thinking::Max => "max",
        }
    }
}
