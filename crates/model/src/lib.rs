//! Speaking to language models.
//!
//! This crate knows what is said to a model and what it answers, and nothing of agents, storage or
//! files. It depends on no other crate of Bowline.
//!
//! # Layout
//!
//! - [`message`]: the transcript: user, assistant and tool-result messages, tokens, stop reasons.
//! - [`transcript`]: its messages, shared between calls.
//! - [`request`]: one call of a model: transcript, tools, thinking level, position.
//! - [`event`]: what a model streams back, and [`Partial`], which puts it together again.
//! - [`error`]: what can go wrong, classified, with what to do next.
//! - [`retry`]: whether and when to try again. A pure function; the loop is the caller's.
//! - [`resolve`]: from `anthropic/claude-…` or a name in `bowline.toml` to a provider.
//! - [`catalog`]: context windows, output limits and prices, as data.
//! - [`handoff`]: makes any transcript valid for the model it is sent to next.
//! - [`provider`]: the wire formats: Anthropic Messages, OpenAI Responses, OpenAI Chat
//!   Completions, Google Gemini, Amazon Bedrock Converse, and the scripted model, which needs no
//!   network.
//! - [`gateway`]: spend limits and rate limits, asked before each call.
//! - [`cassette`]: recorded exchanges with providers, and their replay.
//! - [`sse`]: the incremental parser of server-sent events.
//! - [`secret`]: keys that cannot be printed.
//!
//! # One call
//!
//! ```
//! # use std::{collections::BTreeMap, path::Path, sync::Arc};
//! use bowline_model::{ModelSettings, Models};
//!
//! let models = Models::new(ModelSettings::new(|_variable| None, "."));
//! let unknown = models.resolve("antropic/claude", Path::new("."));
//! assert_eq!(unknown.unwrap_err().code(), "model_unknown");
//! ```

pub mod cassette;
pub mod catalog;
pub mod error;
pub mod event;
pub mod gateway;
pub mod handoff;
pub mod message;
pub mod provider;
pub mod request;
pub mod resolve;
pub mod retry;
pub mod secret;
pub mod sse;
pub mod transcript;

pub use catalog::{Price, format_usd};
pub use error::{ErrorKind, ModelError};
pub use event::{Event, EventStream, Partial};
pub use message::{
    AssistantMessage, AssistantPart, FilePart, Message, ModelRef, ResultPart, StopReason, ToolCall,
    ToolResult, Usage, UserMessage, UserPart,
};
pub use provider::Provider;
pub use request::{CacheRetention, CallPosition, Purpose, Request, Thinking, ToolSpec};
pub use resolve::{Api, Clock, ModelSettings, Models, NamedModel, ProviderInfo, ResolvedModel};
pub use retry::RetryPolicy;
pub use secret::Secret;
pub use transcript::Transcript;
