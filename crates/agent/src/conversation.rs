//! The state of a conversation: a pure fold of its records.

use std::{borrow::Cow, collections::HashMap};

use bowline_model::{
    AssistantMessage, AssistantPart, ErrorKind, ModelRef, StopReason, ToolCall, Usage,
};
use bowline_store::{Seq, StoreError, StoredRecord, Timestamp};
use serde::{Deserialize, Serialize};

use crate::approval::Approval;
use crate::record::{
    AssistantCompleted, AssistantStarted, CallError, Compaction, Content, Fact, ResourceSnapshot,
    Signal, Timing, ToolOutcome, ToolResultsCommitted, Trigger,
};

/// Bytes of text from which on an answer that was cut off is gone on with, not asked for again: a short
/// beginning costs nothing, and cannot be told from an answer that happens to begin alike.
const WORTH_GOING_ON: usize = 64;

/// What was said and done, in order, with what is still open.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// `conv_…`; empty until the first record.
    pub id: String,
    /// The incarnation of the instance; empty until the first record.
    pub uid: String,
    /// When it began.
    pub created_at: Option<Timestamp>,
    /// The last record that is taken into account.
    pub seq: Seq,
    /// The entries from the first to the active leaf.
    pub entries: Vec<Entry>,
    /// What the model was last told of its instructions, tools and skills.
    pub resources: Option<ResourceSnapshot>,
    /// The system prompt; frozen when the conversation began.
    pub system: String,
    /// A message that began and did not complete.
    pub open: Option<OpenMessage>,
    /// Outcomes of the last tool batch, by call; empty once the batch is complete.
    pub outcomes: HashMap<String, ToolOutcome>,
    /// Approvals of the last tool batch, by call; empty once the batch is complete.
    pub approvals: HashMap<String, Approval>,
    /// Where the beginning gave way to a summary, in order; the last one counts.
    pub compactions: Vec<Compacted>,
    /// A compaction that somebody asked for and that is not settled.
    pub requested: Option<Requested>,
    /// How the submissions ended, in order.
    pub settlements: Vec<bowline_runtime::Settled>,
    /// What each submission has used, while it is open.
    used: HashMap<String, Used>,
}

/// One entry of a conversation.
#[derive(Debug, Clone)]
pub struct Entry {
    /// `msg_…`.
    pub id: String,
    /// The submission it belongs to.
    pub submission: Option<String>,
    /// When it was recorded.
    pub time: Timestamp,
    /// What it is.
    pub body: EntryBody,
}

/// A compaction and where it stands.
#[derive(Debug, Clone)]
pub struct Compacted {
    /// Number of entries before it.
    pub at: usize,
    /// The first entry that the model still sees, counted from 0; [`Compacted::at`] when there is none.
    pub first_kept: usize,
    /// When it was recorded.
    pub time: Timestamp,
    /// The submission in whose course it was made.
    pub submission: Option<String>,
    /// The compaction.
    pub record: Compaction,
}

/// A compaction that somebody asked for.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The submission that asks.
    pub submission: String,
    /// What the summary should pay attention to.
    pub instructions: Option<String>,
    /// True once it is made.
    pub done: bool,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub enum EntryBody {
    /// A person's message.
    User(Vec<Content>),
    /// Something the model is told.
    Signal(Signal),
    /// The model's message.
    Assistant {
        /// What it said.
        message: AssistantMessage,
        /// What it cost in micro-dollars, where the price is known.
        cost_micro_usd: Option<u64>,
        /// Why the call failed.
        error: Option<CallError>,
        /// True when it was cut and kept.
        interrupted: bool,
        /// What was said of this answer before, where it was cut off and the message goes on from there.
        begun: Option<String>,
    },
    /// The results of the tool batch before, in source order.
    ToolResults(Vec<ToolOutcome>),
}

impl Entry {
    /// True for what came from outside, a person's message or a signal, and not for what Bowline
    /// tells the model by itself.
    pub fn is_input(&self) -> bool {
        match &self.body {
            EntryBody::User(_) => true,
            EntryBody::Signal(signal) => !signal.is_notice(),
            EntryBody::Assistant { .. } | EntryBody::ToolResults(_) => false,
        }
    }

    /// True for what a model said to the end.
    pub fn is_answer(&self) -> bool {
        match &self.body {
            EntryBody::Assistant {
                error, interrupted, ..
            } => error.is_none() && !interrupted,
            EntryBody::User(_) | EntryBody::Signal(_) | EntryBody::ToolResults(_) => false,
        }
    }

    /// True when something is to follow: an input without an answer, calls without results, results
    /// without an answer.
    pub fn is_open(&self) -> bool {
        match &self.body {
            EntryBody::User(_) | EntryBody::ToolResults(_) => true,
            EntryBody::Signal(signal) => !signal.is_notice(),
            EntryBody::Assistant {
                message,
                error,
                interrupted,
                ..
            } => error.is_some() || *interrupted || message.tool_calls().next().is_some(),
        }
    }

    /// The whole answer, also where it goes on from what was said before a cut.
    pub fn answer(&self) -> Option<Cow<'_, AssistantMessage>> {
        let EntryBody::Assistant { message, begun, .. } = &self.body else {
            return None;
        };
        let Some(begun) = begun else {
            return Some(Cow::Borrowed(message));
        };
        let mut whole = message.clone();
        match whole.parts.first_mut() {
            Some(AssistantPart::Text { text, .. }) => text.insert_str(0, begun),
            _ => whole.parts.insert(
                0,
                AssistantPart::Text {
                    text: begun.clone(),
                    signature: None,
                },
            ),
        }
        Some(Cow::Owned(whole))
    }

    /// True for a model call that failed because the window is full.
    fn is_overflow(&self) -> bool {
        match &self.body {
            EntryBody::Assistant {
                error: Some(error), ..
            } => error.code == ErrorKind::ContextOverflow.code(),
            EntryBody::User(_)
            | EntryBody::Signal(_)
            | EntryBody::Assistant { .. }
            | EntryBody::ToolResults(_) => false,
        }
    }
}

/// A message that began and did not complete.
#[derive(Debug, Clone)]
pub struct OpenMessage {
    /// How it began.
    pub started: AssistantStarted,
    /// The submission it belongs to.
    pub submission: Option<String>,
    parts: Vec<(u32, AssistantPart)>,
}

/// What a submission has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// Model calls that gave a message.
    pub calls: u32,
    /// Tries of the next model call that failed or were cut, since the last good one.
    pub retries: u32,
    /// Those of the tries that failed by the provider's fault, since the last good call.
    pub errors: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// Tokens of all calls.
    pub usage: Usage,
    /// Micro-dollars of all calls whose price is known.
    pub cost_micro_usd: u64,
}

/// What a submission needs next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Its input is not there.
    Input,
    /// A half-streamed message has to be closed.
    Repair,
    /// The conversation has to be compacted, because somebody asked for it.
    Compact,
    /// The model has to be called.
    CallModel,
    /// The tool batch of the last message has to be run, or finished.
    RunTools {
        /// The message that asked for it.
        message_id: String,
        /// Its calls, in source order.
        calls: Vec<ToolCall>,
        /// True when the message was cut off by the output limit, so that the calls cannot be trusted.
        truncated: bool,
    },
    /// Nothing: the answer is complete.
    Nothing,
}

impl Conversation {
    /// A conversation of which only what comes after a record will be taken in.
    pub fn after(seq: Seq) -> Self {
        Self {
            seq,
            ..Self::default()
        }
    }

    /// Takes in records, in order.
    pub fn apply(&mut self, records: &[StoredRecord]) -> Result<(), StoreError> {
        for stored in records {
            self.apply_one(stored)?;
        }
        Ok(())
    }

    /// The id of the active leaf.
    pub fn leaf(&self) -> Option<String> {
        self.entries.last().map(|entry| entry.id.clone())
    }

    /// True when this submission asks to compact the conversation.
    pub fn is_requested(&self, submission: &str) -> bool {
        self.requested
            .as_ref()
            .is_some_and(|asked| asked.submission == submission)
    }

    /// The compaction that counts.
    pub fn compacted(&self) -> Option<&Compacted> {
        self.compactions.last()
    }

    /// True when the last try to go on failed because the window is full, and nothing was done about
    /// it yet.
    pub fn overflowed(&self) -> bool {
        let since = self.compacted().map_or(0, |compacted| compacted.at);
        self.entries.len() > since && self.entries.last().is_some_and(Entry::is_overflow)
    }

    /// True when a full window was dealt with and the model has not answered since, nor has anybody
    /// said anything: a second time would not help.
    pub fn recovered(&self) -> bool {
        let dealt = |one: &&Compacted| one.record.trigger == Trigger::Overflow;
        let Some(compacted) = self.compactions.iter().rev().find(dealt) else {
            return false;
        };
        let since = &self.entries[compacted.at.min(self.entries.len())..];
        !since
            .iter()
            .any(|entry| entry.is_input() || entry.is_answer())
    }

    /// The most tokens that a call of this model is known to have held.
    pub fn held(&self, model: &ModelRef) -> u64 {
        let totals = self.entries.iter().filter_map(|entry| match &entry.body {
            EntryBody::Assistant {
                message,
                error: None,
                interrupted: false,
                ..
            } if message.model == *model => Some(message.usage.total()),
            EntryBody::Assistant { .. }
            | EntryBody::User(_)
            | EntryBody::Signal(_)
            | EntryBody::ToolResults(_) => None,
        });
        totals.max().unwrap_or(0)
    }

    /// What this model has said of the answer that is due to a submission, where a call was cut off after
    /// text and nothing else, and enough of it that going on is worth it.
    pub fn begun(&self, submission: &str, model: &ModelRef) -> Option<String> {
        for entry in self.entries.iter().rev() {
            let EntryBody::Assistant {
                message,
                error,
                interrupted,
                begun,
                ..
            } = &entry.body
            else {
                return None;
            };
            let broken = *interrupted || error.as_ref().is_some_and(|why| why.retry_at.is_some());
            if !broken || entry.submission.as_deref() != Some(submission) || message.model != *model
            {
                return None;
            }
            if message.parts.is_empty() && begun.is_none() {
                continue;
            }
            let only_text = |part| matches!(part, &AssistantPart::Text { .. });
            if !message.parts.iter().all(only_text) {
                return None;
            }
            let text = begun.clone().unwrap_or_default() + &message.text();
            // Providers refuse a beginning that ends in a space.
            let text = text.trim_end();
            return (text.len() >= WORTH_GOING_ON).then(|| text.to_owned());
        }
        None
    }

    /// What an open submission has used so far.
    pub fn used(&self, submission: &str) -> Used {
        self.used.get(submission).copied().unwrap_or_default()
    }

    /// What an open submission needs next.
    pub fn next(&self, submission: &str) -> Next {
        if self.open.is_some() {
            return Next::Repair;
        }
        if let Some(requested) = self
            .requested
            .as_ref()
            .filter(|asked| asked.submission == submission)
        {
            return if requested.done {
                Next::Nothing
            } else {
                Next::Compact
            };
        }
        // Searched from the end: an open submission is at the end of the conversation.
        if !self
            .entries
            .iter()
            .rev()
            .any(|entry| entry.submission.as_deref() == Some(submission))
        {
            return Next::Input;
        }
        let Some(last) = self.entries.last() else {
            return Next::Input;
        };
        match &last.body {
            EntryBody::User(_) | EntryBody::Signal(_) | EntryBody::ToolResults(_) => {
                Next::CallModel
            }
            EntryBody::Assistant {
                interrupted: true, ..
            }
            | EntryBody::Assistant { error: Some(_), .. } => Next::CallModel,
            EntryBody::Assistant { message, .. } => {
                let calls: Vec<_> = message.tool_calls().cloned().collect();
                if calls.is_empty() {
                    return Next::Nothing;
                }
                let truncated = message.stop == StopReason::Length;
                Next::RunTools {
                    message_id: last.id.clone(),
                    calls,
                    truncated,
                }
            }
        }
    }

    fn apply_one(&mut self, stored: &StoredRecord) -> Result<(), StoreError> {
        let record = &stored.record;
        let submission = record.submission.clone();
        self.seq = stored.seq;
        match Fact::of(stored)? {
            Fact::Created(created) => {
                self.id.clone_from(&record.conversation);
                self.uid = created.uid;
                self.created_at = Some(created.created_at);
            }
            Fact::UserMessage(message) => {
                self.push(
                    message.message_id,
                    submission,
                    record.time,
                    EntryBody::User(message.content),
                );
            }
            Fact::Signal(signal) => {
                self.push(
                    signal.message_id.clone(),
                    submission,
                    record.time,
                    EntryBody::Signal(signal),
                );
            }
            Fact::AssistantStarted(started) => {
                self.open = Some(OpenMessage {
                    started,
                    submission,
                    parts: Vec::new(),
                });
            }
            Fact::AssistantText(text) => {
                let part = AssistantPart::Text {
                    text: text.text,
                    signature: text.text_signature,
                };
                self.part(&text.message_id, text.block_index, part);
            }
            Fact::AssistantReasoning(thought) => {
                let part = AssistantPart::Thinking {
                    text: thought.text,
                    signature: thought.encrypted,
                    redacted: thought.redacted,
                };
                self.part(&thought.message_id, thought.block_index, part);
            }
            Fact::AssistantToolCall(call) => {
                self.part(
                    &call.message_id,
                    call.block_index,
                    AssistantPart::ToolCall(call.call),
                );
            }
            Fact::AssistantCompleted(completed) => self.complete(completed, record.time),
            Fact::ToolOutcome(outcome) => {
                if let Some(submission) = &submission {
                    self.used.entry(submission.clone()).or_default().tool_calls += 1;
                }
                self.outcomes.insert(outcome.tool_call_id.clone(), outcome);
            }
            Fact::ApprovalRequested(approval) => {
                self.approvals
                    .insert(approval.tool_call_id.clone(), approval);
            }
            Fact::ApprovalAnswered(answered) => {
                let waiting = self.approvals.values_mut();
                for approval in waiting.filter(|one| one.approval_id == answered.approval_id) {
                    approval.answer = Some(answered.answer.clone());
                }
            }
            Fact::ToolResultsCommitted(done) => self.results(done, submission, record.time),
            Fact::ResourceSnapshot(snapshot) => {
                if let Some(system) = &snapshot.system {
                    self.system.clone_from(system);
                }
                self.resources = Some(snapshot);
            }
            Fact::CompactionRequested(asked) => {
                self.requested = submission.map(|submission| Requested {
                    submission,
                    instructions: asked.instructions,
                    done: false,
                });
            }
            Fact::Compaction(compaction) => self.compact(*compaction, submission, record.time),
            Fact::SubmissionSettled(settled) => self.settle(settled),
            Fact::CodeBoundary(_) | Fact::AttemptStarted(_) | Fact::Runtime => {}
        }
        Ok(())
    }

    fn results(
        &mut self,
        committed: ToolResultsCommitted,
        submission: Option<String>,
        time: Timestamp,
    ) {
        self.approvals.clear();
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let results = committed
            .outcome_ids
            .iter()
            .filter_map(|id| outcomes.remove(id))
            .collect();
        let body = EntryBody::ToolResults(results);
        self.push(committed.message_id, submission, time, body);
    }

    fn settle(&mut self, settled: bowline_runtime::Settled) {
        self.requested = self
            .requested
            .take()
            .filter(|asked| asked.submission != settled.submission_id);
        self.used.remove(&settled.submission_id);
        self.settlements.push(settled);
    }

    fn compact(&mut self, record: Compaction, submission: Option<String>, time: Timestamp) {
        if let Some(id) = &submission {
            let used = self.used.entry(id.clone()).or_default();
            used.usage += record.usage;
            used.cost_micro_usd += record.cost_micro_usd.unwrap_or(0);
            used.errors = 0;
            if let Some(asked) = self.requested.as_mut().filter(|one| one.submission == *id) {
                asked.done = true;
            }
        }
        let at = self.entries.len();
        let kept = record.first_kept_entry_id.as_ref();
        let first_kept = kept.and_then(|id| self.entries.iter().rposition(|entry| entry.id == *id));
        self.compactions.push(Compacted {
            at,
            first_kept: first_kept.unwrap_or(at),
            time,
            submission,
            record,
        });
    }

    fn push(&mut self, id: String, submission: Option<String>, time: Timestamp, body: EntryBody) {
        self.entries.push(Entry {
            id,
            submission,
            time,
            body,
        });
    }

    fn part(&mut self, message: &str, index: u32, part: AssistantPart) {
        if let Some(open) = &mut self.open
            && open.started.message_id == message
        {
            open.parts.push((index, part));
        }
    }

    fn complete(&mut self, completed: AssistantCompleted, time: Timestamp) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        if let Some(submission) = &open.submission {
            let used = self.used.entry(submission.clone()).or_default();
            used.usage += completed.usage;
            used.cost_micro_usd += completed.cost_micro_usd.unwrap_or(0);
            if completed.interrupted || completed.error.is_some() {
                used.retries += 1;
                used.errors += u32::from(completed.error.is_some());
            } else {
                used.calls += 1;
                used.retries = 0;
                used.errors = 0;
            }
        }
        open.parts.sort_by_key(|(index, _)| *index);
        let message = AssistantMessage {
            model: open.started.model_info,
            parts: open.parts.into_iter().map(|(_, part)| part).collect(),
            stop: completed.stop_reason,
            usage: completed.usage,
            response_id: completed.response_id,
        };
        let begun = open
            .started
            .continues
            .then(|| {
                self.begun(
                    open.submission.as_deref().unwrap_or_default(),
                    &message.model,
                )
            })
            .flatten();
        let body = EntryBody::Assistant {
            begun,
            message,
            cost_micro_usd: completed.cost_micro_usd,
            error: completed.error,
            interrupted: completed.interrupted,
        };
        self.push(open.started.message_id, open.submission, time, body);
    }
}

/// The records that a message makes when it is complete, all in one step.
#[derive(Debug, Clone)]
pub struct MessageFacts<'a> {
    /// `msg_…`.
    pub message_id: &'a str,
    /// The entry before it.
    pub parent_id: Option<String>,
    /// True when `assistant_message_started` is durable already.
    pub started: bool,
    /// What the model said.
    pub message: &'a AssistantMessage,
    /// What it cost in micro-dollars, where the price is known.
    pub cost_micro_usd: Option<u64>,
    /// How long it took, where that is known.
    pub timing: Option<Timing>,
    /// Why the call failed.
    pub error: Option<CallError>,
    /// True when it was cut and kept.
    pub interrupted: bool,
    /// True when it goes on from what was said before a cut.
    pub continues: bool,
}

impl MessageFacts<'_> {
    /// The facts, in order.
    pub fn facts(self) -> Vec<Fact> {
        let id = || self.message_id.to_owned();
        let mut facts = Vec::with_capacity(self.message.parts.len() + 2);
        if !self.started {
            facts.push(start(
                self.message_id,
                self.parent_id.clone(),
                self.message.model.clone(),
                self.continues,
            ));
        }
        for (block_index, part) in (0u32..).zip(&self.message.parts) {
            facts.push(match part.clone() {
                AssistantPart::Text { text, signature } => {
                    Fact::AssistantText(crate::record::AssistantText {
                        message_id: id(),
                        block_index,
                        text,
                        text_signature: signature,
                    })
                }
                AssistantPart::Thinking {
                    text,
                    signature,
                    redacted,
                } => Fact::AssistantReasoning(crate::record::AssistantReasoning {
                    message_id: id(),
                    block_index,
                    text,
                    encrypted: signature,
                    redacted,
                }),
                AssistantPart::ToolCall(call) => {
                    Fact::AssistantToolCall(crate::record::AssistantToolCall {
                        message_id: id(),
                        block_index,
                        call,
                    })
                }
            });
        }
        facts.push(Fact::AssistantCompleted(AssistantCompleted {
            message_id: id(),
            stop_reason: self.message.stop,
            usage: self.message.usage,
            cost_micro_usd: self.cost_micro_usd,
            response_id: self.message.response_id.clone(),
            timing: self.timing,
            error: self.error,
            interrupted: self.interrupted,
        }));
        facts
    }
}

/// The fact that a message began.
pub fn start(
    message_id: &str,
    parent_id: Option<String>,
    model_info: ModelRef,
    continues: bool,
) -> Fact {
    Fact::AssistantStarted(AssistantStarted {
        message_id: message_id.to_owned(),
        parent_id,
        model_info,
        continues,
    })
}
