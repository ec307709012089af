//! How full the window may be.
//!
//! What a provider counts is the truth. Between two answers an estimate is added to it: four bytes of
//! text are a token, a message has eight tokens besides its text, an image has 1,200. For English text
//! and code that is a little too much, for Chinese a little too little; a provider that finds the
//! window full after all is taken at its word.

use bowline_model::{AssistantMessage, Message, ModelRef, ResultPart, ToolSpec, UserPart};
use serde_json::Value;

use super::{Shape, view};
use crate::{conversation::Conversation, definition::CompactionSettings};

/// Tokens of a message besides its text.
pub const MESSAGE: u64 = 8;
/// Tokens of an image.
pub const IMAGE: u64 = 1_200;
/// Tokens to keep free for the answer, where neither the agent nor the model's output limit says less.
pub const RESERVE: u64 = 20_000;
/// Tokens of the newest messages that are kept word for word.
pub const KEEP: u64 = 20_000;
/// Most files that the model is sent at once; more are a reason to compact.
pub const MAX_FILES: usize = 40;
/// Most bytes of files that the model is sent at once; more are a reason to compact.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// A window is not believed to be smaller than this.
const LEAST_WINDOW: u64 = 2_048;

/// The tokens of so many bytes of text.
pub fn text(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

/// The tokens of a file.
pub fn file(media_type: &str, bytes: u64) -> u64 {
    if media_type.starts_with("image/") {
        IMAGE
    } else if media_type.starts_with("text/") {
        bytes.div_ceil(4)
    } else if media_type == "application/pdf" {
        // About 3,000 tokens for a page of 100 KB.
        (bytes / 33).max(IMAGE)
    } else {
        // The model reads that it cannot be shown.
        50
    }
}

/// The tokens of a message.
pub fn message(message: &Message) -> u64 {
    match message {
        Message::User(user) => {
            let parts = user.parts.iter().map(|part| match part {
                UserPart::Text { text: said } => text(said.len()),
                UserPart::File(part) => file(&part.media_type, part.data.len() as u64),
            });
            MESSAGE + parts.sum::<u64>()
        }
        Message::Assistant(said) => answer(said),
        Message::ToolResult(result) => {
            let parts = result.parts.iter().map(|part| match part {
                ResultPart::Text { text: said } => text(said.len()),
                ResultPart::File(part) => file(&part.media_type, part.data.len() as u64),
            });
            MESSAGE + parts.sum::<u64>()
        }
    }
}

/// The tokens of what a model said, when it is sent back.
pub fn answer(message: &AssistantMessage) -> u64 {
    MESSAGE + text(view::said(message))
}

/// The tokens of the system prompt and the tools.
pub fn fixed(system: &str, tools: &[ToolSpec]) -> u64 {
    let each = tools.iter().map(|tool| {
        let bytes = tool.name.len() + tool.description.len() + json(&tool.parameters);
        MESSAGE + text(bytes)
    });
    text(system.len()) + each.sum::<u64>()
}

/// The bytes of a value as JSON, nearly.
pub(super) fn json(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(|item| json(item) + 1).sum::<usize>(),
        Value::Object(fields) => {
            let each = fields
                .iter()
                .map(|(key, value)| key.len() + 4 + json(value));
            2 + each.sum::<usize>()
        }
    }
}

/// How a window is shared out, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What the model can hold; not known is never full.
    pub window: Option<u64>,
    /// What of it is kept free for the answer.
    pub reserve: u64,
    /// What of the newest messages is kept word for word when the rest is summarised.
    pub keep: u64,
}

impl Budget {
    /// The budget for a model with this window and output limit. A window of 0 is not known.
    pub fn of(
        conversation: &Conversation,
        model: &ModelRef,
        window: Option<u64>,
        max_output: Option<u64>,
        settings: &CompactionSettings,
    ) -> Self {
        // What a provider refused is smaller than what the catalogue says, whatever the reason.
        let learned = conversation
            .compactions
            .iter()
            .rev()
            .filter_map(|compacted| compacted.record.window.as_ref())
            .find(|learned| learned.model == *model)
            .map(|learned| learned.tokens);
        let window = match (window.filter(|window| *window > 0), learned) {
            (Some(known), Some(learned)) => Some(known.min(learned)),
            (known, learned) => known.or(learned),
        };
        Self::shared(window, max_output, settings)
    }

    /// The same for a window that is a guess.
    pub fn shared(
        window: Option<u64>,
        max_output: Option<u64>,
        settings: &CompactionSettings,
    ) -> Self {
        let size = window.unwrap_or(u64::MAX);
        let default = || {
            let reserve = max_output.unwrap_or(RESERVE).clamp(1, RESERVE);
            if reserve.saturating_mul(2) >= size {
                (size / 3).max(1_024)
            } else {
                reserve
            }
        };
        let reserve = settings.reserve.unwrap_or_else(default).min(size / 4 * 3);
        let rest = size - reserve;
        let keep = match settings.keep {
            Some(keep) => keep.min(rest / 4 * 3),
            None => KEEP.min(rest / 2),
        };
        Self {
            window,
            reserve,
            keep,
        }
    }

    /// The shape of texts in this window.
    pub fn shape(&self, readable: bool) -> Shape {
        Shape::of(self.window, readable)
    }

    /// What may be filled before the conversation is compacted.
    pub fn threshold(&self) -> u64 {
        self.window
            .map_or(u64::MAX, |window| window.saturating_sub(self.reserve))
    }

    /// What the window is taken for after a provider refused a request of about `tokens`, when it is
    /// known to have held `held` before: nothing new where it was known to be too small for that.
    pub fn learn(&self, tokens: u64, held: u64) -> Option<u64> {
        let believable = |window: u64| tokens <= window.saturating_sub(self.reserve / 2);
        match self.window {
            Some(window) if !believable(window) => None,
            Some(_) | None => Some(held.min(tokens / 20 * 19).max(tokens / 2).max(LEAST_WINDOW)),
        }
    }
}
