//! What one submission, or one run of anything, may use at most.
//!
//! The one type for bounds: whoever spends counts what was [`Used`] and asks [`Budget::check`]. The
//! outcome names the budget that was hit ([`Hit`]), with a stable type and a page each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::submission::{Bounds, Failure};

/// What may be used at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Model spend in micro-dollars (millionths of a US dollar). Default: none.
    pub spend_usd: Option<u64>,
    /// Model calls that came to an answer. Default 200.
    pub turns: u32,
    /// Tool calls. Default 1,000.
    pub tool_calls: u32,
    /// Wall clock from the first input, parked time apart. Default 1 h.
    pub wall: Duration,
    /// Attempts, each ended by a crash or a lost lease. Default 10.
    pub attempts: u32,
    /// Tokens, input and output together. Default: none.
    pub tokens: Option<u64>,
    /// How deep work may be delegated: subagents of subagents. Default 4.
    pub depth: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            spend_usd: None,
            turns: 200,
            tool_calls: 1_000,
            wall: Duration::from_secs(3_600),
            attempts: 10,
            tokens: None,
            depth: 4,
        }
    }
}

/// What was used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Micro-dollars.
    pub spend_usd: u64,
    /// Model calls that came to an answer.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Wall clock, parked time apart.
    pub wall: Duration,
    /// Attempts that were cut.
    pub attempts: u32,
    /// Tokens.
    pub tokens: u64,
    /// Delegations from the first one who was asked.
    pub depth: u32,
}

/// A budget that was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "budget", content = "limit")]
pub enum Hit {
    /// Each attempt was cut.
    #[error("the submission was interrupted in each of its {0} attempts")]
    Attempts(u32),
    /// It took too long.
    #[error("the submission took longer than its time limit")]
    Wall(Duration),
    /// Too many model calls.
    #[error("the submission reached its limit of {0} turns")]
    Turns(u32),
    /// Too many tool calls.
    #[error("the submission reached its limit of {0} tool calls")]
    ToolCalls(u32),
    /// Too many tokens.
    #[error("the submission reached its limit of {0} tokens")]
    Tokens(u64),
    /// Too much money, in micro-dollars.
    #[error("the submission reached its limit of {} US dollars", usd(*.0))]
    Spend(u64),
    /// Delegated too deep.
    #[error("work may be delegated {0} levels deep")]
    Depth(u32),
}

impl Hit {
    /// The stable name of this outcome.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Attempts(_) => "submission_retry_exhausted",
            Self::Wall(_) => "submission_timeout",
            Self::Turns(_) => "limit_turns",
            Self::ToolCalls(_) => "limit_tool_calls",
            Self::Tokens(_) => "limit_tokens",
            Self::Spend(_) => "limit_spend_usd",
            Self::Depth(_) => "limit_depth",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Attempts(_) => {
                "find what stops the process, or raise limits.attempts of the agent"
            }
            Self::Wall(_) => "raise limits.wall of the agent, or split the work",
            Self::Turns(_) => "raise limits.turns of the agent",
            Self::ToolCalls(_) => "raise limits.tool_calls of the agent",
            Self::Tokens(_) => "raise limits.tokens of the agent",
            Self::Spend(_) => "raise limits.spend_usd of the agent",
            Self::Depth(_) => "raise limits.depth of the agent, or let it do the work itself",
        }
    }
}

impl From<Hit> for Failure {
    fn from(hit: Hit) -> Self {
        Self::new(hit.code(), hit.to_string(), hit.hint())
    }
}

impl Budget {
    /// Whether one more step may be done after this was used.
    ///
    /// # Errors
    ///
    /// The first budget that is used up.
    pub fn check(&self, used: &Used) -> Result<(), Hit> {
        if used.attempts >= self.attempts {
            return Err(Hit::Attempts(self.attempts));
        }
        if used.wall >= self.wall {
            return Err(Hit::Wall(self.wall));
        }
        if used.turns >= self.turns {
            return Err(Hit::Turns(self.turns));
        }
        if used.tool_calls >= self.tool_calls {
            return Err(Hit::ToolCalls(self.tool_calls));
        }
        if let Some(tokens) = self.tokens.filter(|tokens| used.tokens >= *tokens) {
            return Err(Hit::Tokens(tokens));
        }
        if let Some(spend) = self.spend_usd.filter(|spend| used.spend_usd >= *spend) {
            return Err(Hit::Spend(spend));
        }
        // As deep as allowed is no hit: what is asked is whether it may work, not delegate further.
        if used.depth > self.depth {
            return Err(Hit::Depth(self.depth));
        }
        Ok(())
    }

    /// The bounds that the mailbox of an actor enforces by itself, with the usual grace.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            attempts: self.attempts,
            wall: self.wall,
            ..Bounds::default()
        }
    }
}

/// Micro-dollars as a decimal amount without trailing zeros.
fn usd(micro: u64) -> String {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    let cents = text.trim_end_matches('0');
    // Whole cents at least, as amounts are written.
    let shortest = text.len() - 4;
    text[..cents.len().max(shortest)].to_owned()
}
