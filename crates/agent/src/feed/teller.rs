//! Records, and text that streams, as chunks.

use std::collections::HashMap;

use bowline_store::{Seq, StoreError, StoredRecord};
use serde_json::json;

use super::{Identity, Offset};
use crate::{
    approval::{Answered, Approval},
    code::journal::Boundary,
    conversation::{Entry, EntryBody},
    feed::assembly::History,
    live::{Chunk, ChunkBody, DeltaKind, Position},
    record::{AssistantStarted, AssistantToolCall, Fact},
    view,
};

/// Where chunks of text that streams are numbered from: above those of any record.
const STREAMING: u64 = 1_000;
/// Calls of a run that the metadata of a response tells: those with a number up to this.
const NOTED: u32 = 1_000;

/// Turns records, in order, into the chunks that tell them. What it knows of the conversation is small:
/// the response to each open submission, and the message that is open.
#[derive(Debug, Clone, Default)]
pub struct Teller {
    conversation_id: String,
    uid: String,
    /// The response to each open submission.
    responses: HashMap<String, Response>,
    open: Option<Open>,
    /// The last record that was told.
    seq: Seq,
    /// Bytes of the texts of the open message that were told before their record.
    told: u64,
}

/// The response to a submission: one message for readers, whatever the model says in how many.
#[derive(Debug, Clone)]
struct Response {
    /// The id of its first message.
    id: String,
    /// Its parts so far.
    parts: u32,
    /// The kind of its last part, while more may be added to that.
    growing: Option<DeltaKind>,
    /// Parts that were there before the model's last message.
    before: u32,
    /// Whether that message was cut.
    cut: bool,
}

impl Response {
    fn said(&mut self, kind: DeltaKind, text: &str) {
        if !text.is_empty() && self.growing != Some(kind) {
            self.parts += 1;
            self.growing = Some(kind);
        }
    }

    fn called(&mut self) {
        self.parts += 1;
        self.growing = None;
    }

    /// What tells that the model begins anew: what was said before stands by itself, and what was cut is
    /// marked.
    fn anew(&mut self) -> Vec<ChunkBody> {
        let mut told = Vec::new();
        if self.growing.take().is_some() {
            let message_id = self.id.clone();
            told.push(ChunkBody::MessageCompleted { message_id });
        }
        if std::mem::take(&mut self.cut) && self.parts > self.before {
            let cut = (self.before..self.parts).map(|part| (part.to_string(), true.into()));
            let cut = serde_json::Map::from_iter(cut);
            told.push(ChunkBody::MessageMetadata {
                message_id: self.id.clone(),
                metadata: json!({"interrupted": cut}),
            });
        }
        self.before = self.parts;
        told
    }
}

/// A message that began and did not complete.
#[derive(Debug, Clone)]
struct Open {
    message_id: String,
    response_id: String,
}

impl Teller {
    /// A teller that knows nothing of what came before.
    pub fn new(identity: &Identity) -> Self {
        Self {
            conversation_id: identity.conversation_id.clone(),
            uid: identity.uid.clone(),
            ..Self::default()
        }
    }

    /// Where it stands.
    pub fn offset(&self) -> Offset {
        Offset {
            seq: self.seq,
            told: self.told,
        }
    }

    /// The message that is open.
    pub(crate) fn open(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.message_id.as_str())
    }

    /// Goes on as if so much of the open message had been told.
    pub(crate) fn resume(&mut self, offset: Offset) {
        self.seq = offset.seq;
        self.told = if self.open.is_some() { offset.told } else { 0 };
    }

    /// The chunks that tell a record. Those of one record have its sequence and are numbered from 0.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn tell(&mut self, stored: &StoredRecord) -> Result<Vec<Chunk>, StoreError> {
        let bodies = self.bodies(stored)?;
        self.seq = stored.seq;
        let chunk = |(index, body)| Chunk {
            body,
            conversation_id: self.conversation_id.clone(),
            position: Position {
                batch: stored.seq,
                index,
            },
        };
        Ok((0..).zip(bodies).map(chunk).collect())
    }

    /// The chunk that tells a further piece of the open message, which is durable.
    pub(crate) fn tell_draft(&mut self, reasoning: bool, text: &str) -> Option<Chunk> {
        let open = self.open.as_ref()?;
        if text.is_empty() {
            return None;
        }
        self.told += text.len() as u64;
        Some(Chunk {
            body: delta(&open.response_id, kind(reasoning), text.to_owned()),
            conversation_id: self.conversation_id.clone(),
            position: Position {
                batch: self.seq,
                index: STREAMING + self.told,
            },
        })
    }

    fn bodies(&mut self, stored: &StoredRecord) -> Result<Vec<ChunkBody>, StoreError> {
        let submission = stored.record.submission.clone().unwrap_or_default();
        Ok(match Fact::of(stored)? {
            Fact::Created(created) => {
                self.conversation_id.clone_from(&stored.record.conversation);
                self.uid = created.uid;
                let offset = Offset::after(stored.seq);
                let snapshot = History::empty(self.conversation_id.clone(), &self.uid, offset);
                vec![ChunkBody::ConversationReset { snapshot }]
            }
            Fact::UserMessage(message) => {
                let entry = entry(stored, message.message_id, EntryBody::User(message.content));
                if let EntryBody::User(content) = &entry.body {
                    vec![ChunkBody::MessageAppended {
                        message: view::user(&entry, content),
                    }]
                } else {
                    Vec::new()
                }
            }
            Fact::Signal(signal) => {
                let id = signal.message_id.clone();
                let entry = entry(stored, id, EntryBody::Signal(signal));
                if let EntryBody::Signal(signal) = &entry.body {
                    vec![ChunkBody::MessageAppended {
                        message: view::signal(&entry, signal),
                    }]
                } else {
                    Vec::new()
                }
            }
            Fact::AssistantStarted(started) => self.begin(stored, &submission, started),
            Fact::AssistantText(text) => {
                self.said(&submission, DeltaKind::Text, &text.text);
                self.rest(DeltaKind::Text, &text.message_id, &text.text)
            }
            Fact::AssistantReasoning(thought) => {
                self.said(&submission, DeltaKind::Reasoning, &thought.text);
                self.rest(DeltaKind::Reasoning, &thought.message_id, &thought.text)
            }
            Fact::AssistantToolCall(called) => vec![self.called(&submission, called)],
            Fact::AssistantCompleted(done) => {
                self.open = None;
                self.told = 0;
                if let Some(response) = self.responses.get_mut(&submission) {
                    response.cut = done.interrupted || done.error.is_some();
                }
                vec![ChunkBody::Usage {
                    usage: done.usage,
                    cost_micro_usd: done.cost_micro_usd,
                }]
            }
            Fact::ToolOutcome(outcome) => vec![ChunkBody::of_outcome(&outcome)],
            Fact::SubmissionSettled(settled) => {
                let completed = self.responses.remove(&settled.submission_id);
                let completed = completed.map(|response| ChunkBody::MessageCompleted {
                    message_id: response.id,
                });
                let settled = ChunkBody::SubmissionSettled {
                    submission_id: settled.submission_id,
                    outcome: settled.outcome,
                    error: settled.error,
                    answered_by_submission_id: settled.answered_by_submission_id,
                };
                completed.into_iter().chain([settled]).collect()
            }
            Fact::ApprovalRequested(approval) => {
                let noted = self.note(&submission, requested(&approval));
                [Some(ChunkBody::ApprovalRequested { approval }), noted]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Fact::ApprovalAnswered(answered) => {
                let noted = self.note(&submission, decided(&answered));
                [Some(ChunkBody::ApprovalAnswered { answered }), noted]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Fact::CodeBoundary(boundary) => {
                let noted = called(&boundary).and_then(|called| self.note(&submission, called));
                let told = ChunkBody::of_boundary(&boundary);
                [told, noted].into_iter().flatten().collect()
            }
            // What the model sees grows shorter; what was said stays.
            Fact::Compaction(compaction) => vec![ChunkBody::compacted(&compaction)],
            Fact::CompactionRequested(_)
            | Fact::ToolResultsCommitted(_)
            | Fact::ResourceSnapshot(_)
            | Fact::AttemptStarted(_)
            | Fact::Runtime => Vec::new(),
        })
    }

    fn begin(
        &mut self,
        stored: &StoredRecord,
        submission: &str,
        started: AssistantStarted,
    ) -> Vec<ChunkBody> {
        let known = self.responses.get_mut(submission);
        let (response_id, told) = match known {
            Some(known) if started.continues => (known.id.clone(), Vec::new()),
            Some(known) => (known.id.clone(), known.anew()),
            None => {
                let id = started.message_id.clone();
                let response = Response {
                    id: id.clone(),
                    parts: 0,
                    growing: None,
                    before: 0,
                    cut: false,
                };
                self.responses.insert(submission.to_owned(), response);
                let begun = ChunkBody::MessageStarted {
                    message_id: id.clone(),
                    submission_id: submission.to_owned(),
                    timestamp: stored.record.time,
                };
                (id, vec![begun])
            }
        };
        self.told = 0;
        self.open = Some(Open {
            message_id: started.message_id,
            response_id,
        });
        told
    }

    fn called(&mut self, submission: &str, called: AssistantToolCall) -> ChunkBody {
        let response = self.responses.get_mut(submission);
        let message_id = response.map_or(called.message_id, |response| {
            response.called();
            response.id.clone()
        });
        ChunkBody::ToolInput {
            message_id,
            tool_call_id: called.call.id,
            tool_name: called.call.name,
            input: called.call.arguments,
        }
    }

    /// Counts the parts of a response.
    fn said(&mut self, submission: &str, kind: DeltaKind, text: &str) {
        if let Some(response) = self.responses.get_mut(submission) {
            response.said(kind, text);
        }
    }

    /// What of a text was not told while it streamed.
    fn rest(&mut self, kind: DeltaKind, message_id: &str, text: &str) -> Vec<ChunkBody> {
        let Some(open) = self
            .open
            .as_ref()
            .filter(|open| open.message_id == message_id)
        else {
            return Vec::new();
        };
        let length = text.len() as u64;
        if self.told >= length {
            self.told -= length;
            return Vec::new();
        }
        // An offset that was made up may point into a character.
        let from = text.floor_char_boundary(usize::try_from(self.told).unwrap_or(0));
        self.told = 0;
        vec![delta(&open.response_id, kind, text[from..].to_owned())]
    }

    /// Metadata of the response to a submission.
    fn note(&self, submission: &str, metadata: serde_json::Value) -> Option<ChunkBody> {
        let message_id = self.responses.get(submission)?.id.clone();
        Some(ChunkBody::MessageMetadata {
            message_id,
            metadata,
        })
    }
}

fn entry(stored: &StoredRecord, id: String, body: EntryBody) -> Entry {
    Entry {
        id,
        submission: stored.record.submission.clone(),
        time: stored.record.time,
        body,
    }
}

fn kind(reasoning: bool) -> DeltaKind {
    if reasoning {
        DeltaKind::Reasoning
    } else {
        DeltaKind::Text
    }
}

fn delta(response_id: &str, kind: DeltaKind, delta: String) -> ChunkBody {
    ChunkBody::MessageDelta {
        message_id: response_id.to_owned(),
        kind,
        delta,
    }
}

/// What code did, in short, by the numbers of its calls.
fn called(boundary: &Boundary) -> Option<serde_json::Value> {
    let told = ChunkBody::of_boundary(boundary)?;
    let ChunkBody::CodeCalls {
        tool_call_id,
        run_id,
        state,
        calls,
        ..
    } = told
    else {
        return None;
    };
    let calls = calls.into_iter().filter(|one| one.called.id <= NOTED);
    let calls: serde_json::Map<_, _> = calls
        .map(|one| {
            let mut call = json!({
                "path": one.called.path,
                "state": one.state,
                "durationMs": one.called.duration_ms,
            });
            if let Some(approval) = &one.called.approval {
                call["approval"] = json!(approval);
            }
            (one.called.number(), call)
        })
        .collect();
    Some(json!({"code": {tool_call_id: {"runId": run_id, "state": state, "calls": calls}}}))
}

fn requested(approval: &Approval) -> serde_json::Value {
    let id = approval.approval_id.clone();
    json!({"approvals": {id: {
        "state": "requested",
        "toolCallId": approval.tool_call_id,
        "toolName": approval.tool_name,
        "expiresAt": approval.expires_at,
    }}})
}

fn decided(answered: &Answered) -> serde_json::Value {
    let id = answered.approval_id.clone();
    json!({"approvals": {id: {"state": answered.answer.decision}}})
}
