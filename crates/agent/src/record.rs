//! The records of a conversation, and nothing but their form.
//!
//! The kinds are those of the conversation protocol. A record with an unknown kind or a newer
//! version stops the reader with an error; it is never skipped.

use std::collections::BTreeMap;

use bowline_model::{ModelRef, StopReason, ToolCall, Usage};
use bowline_runtime::submission::{AttemptStarted, Settled};
use bowline_store::{BlobId, Record, StoreError, StoredRecord, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    approval::{Answered, Approval},
    code::journal::Boundary,
};

/// Version of the bodies that this module writes.
const VERSION: u8 = 1;

/// A fact of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The conversation began.
    Created(Created),
    /// A person said something.
    UserMessage(UserMessage),
    /// Something happened that the model is told of.
    Signal(Signal),
    /// The model began to answer.
    AssistantStarted(AssistantStarted),
    /// A block of text is complete.
    AssistantText(AssistantText),
    /// A block of thinking is complete.
    AssistantReasoning(AssistantReasoning),
    /// The model asked for a tool.
    AssistantToolCall(AssistantToolCall),
    /// The model's message is complete, or was cut.
    AssistantCompleted(AssistantCompleted),
    /// One tool call came to its end.
    ToolOutcome(ToolOutcome),
    /// A tool batch is complete; the model may go on.
    ToolResultsCommitted(ToolResultsCommitted),
    /// What the model was told of its instructions, tools and skills.
    ResourceSnapshot(ResourceSnapshot),
    /// A call waits for a person.
    ApprovalRequested(Approval),
    /// A person decided, or nobody did in time.
    ApprovalAnswered(Answered),
    /// An attempt began.
    AttemptStarted(AttemptStarted),
    /// Somebody asked to compact the conversation now.
    CompactionRequested(CompactionRequested),
    /// The beginning of the conversation gave way to a summary.
    Compaction(Box<Compaction>),
    /// A run of code came to a boundary.
    CodeBoundary(Box<Boundary>),
    /// A submission settled.
    SubmissionSettled(Settled),
    /// Facts of the runtime that say nothing about the conversation.
    Runtime,
}

/// Body of `conversation_created`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// The incarnation of the instance, `inst_…`.
    pub uid: String,
    /// When it began.
    pub created_at: Timestamp,
}

/// Body of `user_message`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserMessage {
    /// `msg_…`.
    pub message_id: String,
    /// The entry before it; none for the first.
    pub parent_id: Option<String>,
    /// What was said.
    pub content: Vec<Content>,
}

/// A piece of what was said, or of what a tool gave back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A file, kept as a blob.
    Attachment {
        /// Where and what.
        attachment: Attachment,
    },
}

/// A file that belongs to a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `file_…`.
    pub id: String,
    /// For example `image/png`.
    pub mime_type: String,
    /// In bytes.
    pub size: u64,
    /// The blob that holds it, 64 hexadecimal digits.
    pub digest: String,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
}

impl Attachment {
    /// The blob that holds the bytes.
    pub fn blob(&self) -> Option<BlobId> {
        BlobId::parse(&self.digest)
    }
}

/// Body of `signal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// `msg_…`.
    pub message_id: String,
    /// The entry before it.
    pub parent_id: Option<String>,
    /// What kind of thing happened, for example `instructions`.
    pub signal_type: String,
    /// What the model is told.
    pub content: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Signal {
    /// True for a change of the agent that Bowline tells the model of.
    pub fn is_notice(&self) -> bool {
        matches!(self.signal_type.as_str(), "resources" | "instructions")
    }
}

/// Body of `assistant_message_started`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantStarted {
    /// `msg_…`.
    pub message_id: String,
    /// The entry before it.
    pub parent_id: Option<String>,
    /// Which model speaks.
    pub model_info: ModelRef,
    /// True when it goes on from what was said of this answer before it was cut off, and holds only what
    /// comes after.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

/// Body of `assistant_text_completed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantText {
    /// The message.
    pub message_id: String,
    /// Place among the blocks of the message.
    pub block_index: u32,
    /// The whole text.
    pub text: String,
    /// What the provider wants back with the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_signature: Option<String>,
}

/// Body of `assistant_reasoning_completed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantReasoning {
    /// The message.
    pub message_id: String,
    /// Place among the blocks of the message.
    pub block_index: u32,
    /// The whole text.
    pub text: String,
    /// What the provider wants back with the thinking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<String>,
    /// True when the provider hid the text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
}

/// Body of `assistant_tool_call`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantToolCall {
    /// The message.
    pub message_id: String,
    /// Place among the blocks of the message.
    pub block_index: u32,
    /// The call, as the model made it.
    pub call: ToolCall,
}

/// Body of `assistant_message_completed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssistantCompleted {
    /// The message.
    pub message_id: String,
    /// Why the model stopped.
    pub stop_reason: StopReason,
    /// What it cost in tokens.
    pub usage: Usage,
    /// What it cost in micro-dollars, where the price is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// The provider's id of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Why the call failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// True when it was cut by a stop of the process; what had streamed is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

/// How long a model call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// From the request to the end, in milliseconds.
    pub duration_ms: u64,
    /// From the request to the first piece of the answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
}

/// Why a model call failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallError {
    /// Stable name.
    #[serde(rename = "type")]
    pub code: String,
    /// One line.
    pub message: String,
    /// When the call is tried again, where it is.
    #[serde(default, rename = "retryAt", skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// Body of `tool_outcome`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolOutcome {
    /// The message that asked for it.
    pub assistant_message_id: String,
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool_name: String,
    /// True when the content says what went wrong.
    pub is_error: bool,
    /// What the model sees.
    pub content: Vec<Content>,
    /// The blob with the whole text, where that is too long for a record: the content then has its
    /// beginning and its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
    /// What a program sees, where the tool gives a structured result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Body of `tool_results_committed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResultsCommitted {
    /// `msg_…`: the entry that the results make.
    pub message_id: String,
    /// The message that asked for them.
    pub assistant_message_id: String,
    /// The calls, in source order.
    pub outcome_ids: Vec<String>,
}

/// Body of `resource_snapshot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSnapshot {
    /// The system prompt, when this snapshot sets it; it stays what it is until the next that does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Identifies the instructions that the model was last told.
    pub instructions_digest: String,
    /// Identifies the catalogue of skills that the model was last told.
    pub skills_digest: String,
    /// The tools that the model was last told of, with what identifies each; none where that was not
    /// written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeMap<String, String>>,
}

/// Body of `compaction_requested`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompactionRequested {
    /// What the summary should pay attention to, besides what the agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

/// Why a conversation was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The window was nearly full.
    Threshold,
    /// The provider said that the window is full.
    Overflow,
    /// Somebody asked for it.
    Manual,
}

/// Body of `compaction`. What came before stays in the log; the model sees the summary in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compaction {
    /// `msg_…`: identifies the compaction.
    pub entry_id: String,
    /// The entry before it.
    pub parent_id: Option<String>,
    /// What the model reads in place of what came before.
    pub summary: String,
    /// The oldest entry that the model still sees; none when it sees only the summary.
    pub first_kept_entry_id: Option<String>,
    /// The last entry when it was made.
    pub source_leaf_id: Option<String>,
    /// What the model would have seen without it, in tokens, as far as that is known.
    pub tokens_before: u64,
    /// What the model sees after it, estimated.
    pub tokens_after: u64,
    /// Why.
    pub trigger: Trigger,
    /// Files that were worked with in what is summarised, also by earlier compactions.
    #[serde(default)]
    pub details: FileLists,
    /// What the unfinished turn began with, when its beginning is summarised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Texts of kept entries are shortened to so many bytes, because even these did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_cap: Option<u64>,
    /// The window as the provider's refusal showed it, where it is not known or smaller than was
    /// thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<LearnedWindow>,
    /// The model that wrote the summary; none when it was put together without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// What the summary cost in tokens.
    #[serde(default)]
    pub usage: Usage,
    /// What it cost in micro-dollars, where the price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

/// What a model can hold, as its provider's refusal showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedWindow {
    /// The model.
    pub model: ModelRef,
    /// Its window in tokens, as they are estimated here.
    pub tokens: u64,
}

/// The files that a conversation worked with, without repetition, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileLists {
    /// Those that were read and not changed.
    pub read_files: Vec<String>,
    /// Those that were written or edited.
    pub modified_files: Vec<String>,
}

/// Where a fact belongs.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The conversation.
    pub conversation: String,
    /// The submission.
    pub submission: Option<String>,
    /// The attempt.
    pub attempt: Option<String>,
    /// The turn.
    pub turn: Option<String>,
}

impl Fact {
    /// The fact as a record.
    pub fn record(&self, time: Timestamp, scope: &Scope) -> Record {
        let (kind, body) = match self {
            Self::Created(body) => (100, json(body)),
            Self::UserMessage(body) => (101, json(body)),
            Self::Signal(body) => (102, json(body)),
            Self::AssistantStarted(body) => (103, json(body)),
            Self::AssistantText(body) => (104, json(body)),
            Self::AssistantReasoning(body) => (105, json(body)),
            Self::AssistantToolCall(body) => (106, json(body)),
            Self::AssistantCompleted(body) => (107, json(body)),
            Self::ToolOutcome(body) => (108, json(body)),
            Self::ToolResultsCommitted(body) => (109, json(body)),
            Self::ResourceSnapshot(body) => (110, json(body)),
            Self::ApprovalRequested(body) => (111, json(body)),
            Self::ApprovalAnswered(body) => (112, json(body)),
            Self::CompactionRequested(body) => (120, json(body)),
            Self::Compaction(body) => (121, json(body)),
            Self::CodeBoundary(body) => (130, json(body)),
            Self::AttemptStarted(body) => (bowline_runtime::kind::ATTEMPT_STARTED, json(body)),
            Self::SubmissionSettled(body) => {
                (bowline_runtime::kind::SUBMISSION_SETTLED, json(body))
            }
            Self::Runtime => (
                bowline_runtime::kind::ACTOR_OPENED,
                json(&serde_json::json!({})),
            ),
        };
        Record {
            kind,
            version: VERSION,
            time,
            conversation: scope.conversation.clone(),
            submission: scope.submission.clone(),
            attempt: scope.attempt.clone(),
            turn: scope.turn.clone(),
            body: body.into(),
            blobs: self.blobs(),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerFormat`] for a kind or version that this program does not know, and
    /// [`StoreError::Corrupt`] for a body that does not decode.
    pub fn of(stored: &StoredRecord) -> Result<Self, StoreError> {
        use bowline_runtime::kind;
        let record = &stored.record;
        if record.version > VERSION {
            return Err(StoreError::NewerFormat {
                found: u32::from(record.version),
                supported: u32::from(VERSION),
            });
        }
        Ok(match record.kind {
            100 => Self::Created(body(stored)?),
            101 => Self::UserMessage(body(stored)?),
            102 => Self::Signal(body(stored)?),
            103 => Self::AssistantStarted(body(stored)?),
            104 => Self::AssistantText(body(stored)?),
            105 => Self::AssistantReasoning(body(stored)?),
            106 => Self::AssistantToolCall(body(stored)?),
            107 => Self::AssistantCompleted(body(stored)?),
            108 => Self::ToolOutcome(body(stored)?),
            109 => Self::ToolResultsCommitted(body(stored)?),
            110 => Self::ResourceSnapshot(body(stored)?),
            111 => Self::ApprovalRequested(body(stored)?),
            112 => Self::ApprovalAnswered(body(stored)?),
            120 => Self::CompactionRequested(body(stored)?),
            121 => Self::Compaction(body(stored)?),
            130 => Self::CodeBoundary(body(stored)?),
            kind::ATTEMPT_STARTED => Self::AttemptStarted(body(stored)?),
            kind::SUBMISSION_SETTLED => Self::SubmissionSettled(body(stored)?),
            other if bowline_runtime::kind::is_runtime(other) => Self::Runtime,
            unknown => {
                return Err(StoreError::NewerFormat {
                    found: u32::from(unknown),
                    supported: 130,
                });
            }
        })
    }

    /// The blobs that the record must keep alive.
    fn blobs(&self) -> Vec<BlobId> {
        let files = self.attachments().into_iter();
        let mut blobs: Vec<BlobId> = files.filter_map(Attachment::blob).collect();
        if let Self::ToolOutcome(ToolOutcome {
            whole: Some(whole), ..
        }) = self
        {
            blobs.extend(BlobId::parse(whole));
        }
        if let Self::CodeBoundary(boundary) = self {
            let list = boundary.calls_blob.as_deref();
            blobs.extend(list.and_then(BlobId::parse));
        }
        blobs
    }

    /// The message that the fact begins or completes.
    pub fn message_id(&self) -> Option<&str> {
        match self {
            Self::UserMessage(body) => Some(&body.message_id),
            Self::Signal(body) => Some(&body.message_id),
            Self::AssistantStarted(body) => Some(&body.message_id),
            Self::AssistantCompleted(body) => Some(&body.message_id),
            Self::ToolResultsCommitted(body) => Some(&body.message_id),
            Self::Created(_)
            | Self::AssistantText(_)
            | Self::AssistantReasoning(_)
            | Self::AssistantToolCall(_)
            | Self::ToolOutcome(_)
            | Self::ResourceSnapshot(_)
            | Self::ApprovalRequested(_)
            | Self::ApprovalAnswered(_)
            | Self::CompactionRequested(_)
            | Self::Compaction(_)
            | Self::AttemptStarted(_)
            | Self::SubmissionSettled(_)
            | Self::CodeBoundary(_)
            | Self::Runtime => None,
        }
    }

    /// The files that the fact brings.
    pub fn attachments(&self) -> Vec<&Attachment> {
        let content = match self {
            Self::UserMessage(body) => &body.content,
            Self::ToolOutcome(body) => &body.content,
            Self::Created(_)
            | Self::Signal(_)
            | Self::AssistantStarted(_)
            | Self::AssistantText(_)
            | Self::AssistantReasoning(_)
            | Self::AssistantToolCall(_)
            | Self::AssistantCompleted(_)
            | Self::ToolResultsCommitted(_)
            | Self::ResourceSnapshot(_)
            | Self::ApprovalRequested(_)
            | Self::ApprovalAnswered(_)
            | Self::CompactionRequested(_)
            | Self::Compaction(_)
            | Self::CodeBoundary(_)
            | Self::AttemptStarted(_)
            | Self::SubmissionSettled(_)
            | Self::Runtime => return Vec::new(),
        };
        let mut files = Vec::new();
        for piece in content {
            match piece {
                Content::Attachment { attachment } => files.push(attachment),
                Content::Text { .. } => {}
            }
        }
        files
    }
}

fn body<T: DeserializeOwned>(stored: &StoredRecord) -> Result<T, StoreError> {
    serde_json::from_slice(&stored.record.body).map_err(|error| {
        StoreError::Corrupt(format!(
            "record {} (kind {}) does not decode: {error}",
            stored.seq, stored.record.kind
        ))
    })
}

/// Our own bodies hold strings, numbers and maps with string keys, which always have a JSON form.
fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}
