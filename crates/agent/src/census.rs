//! What agents have done, counted for whoever watches.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bowline_model::Usage;

use crate::record::Fact;

/// What the conversations of one agent came to in this process, counted from what became durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Answers of the model that are complete.
    pub turns: u64,
    /// Model calls that failed, or were cut.
    pub failed_calls: u64,
    /// Tokens of answers and of summaries.
    pub usage: Usage,
    /// What they cost in micro-dollars, as far as prices are known.
    pub cost_micro_usd: u64,
    /// Tool calls with a result.
    pub tool_calls: u64,
    /// Tool calls that failed, or were refused.
    pub failed_tool_calls: u64,
    /// Calls that were put to a person.
    pub approvals: u64,
    /// Conversations whose beginning gave way to a summary.
    pub compactions: u64,
}

impl Tally {
    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::AssistantCompleted(done) => {
                if done.error.is_some() || done.interrupted {
                    self.failed_calls += 1;
                } else {
                    self.turns += 1;
                }
                self.spent(done.usage, done.cost_micro_usd);
            }
            Fact::ToolOutcome(outcome) if outcome.is_error => self.failed_tool_calls += 1,
            Fact::ToolOutcome(_) => self.tool_calls += 1,
            Fact::ApprovalRequested(_) => self.approvals += 1,
            Fact::Compaction(compaction) => {
                self.compactions += 1;
                self.spent(compaction.usage, compaction.cost_micro_usd);
            }
            Fact::Created(_)
            | Fact::UserMessage(_)
            | Fact::Signal(_)
            | Fact::AssistantStarted(_)
            | Fact::AssistantText(_)
            | Fact::AssistantReasoning(_)
            | Fact::AssistantToolCall(_)
            | Fact::ToolResultsCommitted(_)
            | Fact::ResourceSnapshot(_)
            | Fact::ApprovalAnswered(_)
            | Fact::AttemptStarted(_)
            | Fact::CompactionRequested(_)
            | Fact::CodeBoundary(_)
            | Fact::SubmissionSettled(_)
            | Fact::Runtime => {}
        }
    }

    fn spent(&mut self, usage: Usage, cost_micro_usd: Option<u64>) {
        self.usage += usage;
        self.cost_micro_usd += cost_micro_usd.unwrap_or(0);
    }
}

/// The tallies of all agents of a process; there are as many as agents.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<BTreeMap<String, Tally>>);

impl Census {
    /// Takes in a fact that became durable.
    pub(crate) fn take(&self, agent: &str, fact: &Fact) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tallies.get_mut(agent) {
            Some(tally) => tally.take(fact),
            None => tallies.entry(agent.to_owned()).or_default().take(fact),
        }
    }

    pub(crate) fn tallies(&self) -> BTreeMap<String, Tally> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
