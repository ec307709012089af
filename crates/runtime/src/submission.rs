//! The life of a submission: `queued → running → settled`, with exactly one terminal outcome.
//!
//! Open submissions are rows of the space [`QUEUE`], ordered by admission; settled ones are small
//! rows of the space [`SETTLED`], by id. What a submission *does* is a [`Program`]'s business.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bowline_store::{ActorId, Blob, BlobId, Seq, Store, StoreError, StoredRecord, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    attempt::{Attempt, Halt},
    edit::Edit,
    message::{self, Call, Handled, Incoming},
    state::Proposed,
    step::Step,
    trace::Trace,
};

/// Space of the open submissions: admission number (8 bytes, big endian) → [`Submission`].
pub const QUEUE: &str = "queue";
/// Space of the settled submissions: id → [`Settled`].
pub const SETTLED: &str = "settled";

/// Longest idempotency key, in bytes.
pub const MAX_KEY: usize = 256;
/// Most submissions that may wait in one actor; a further one is refused.
pub const MAX_QUEUED: usize = 1_000;
/// Largest payload of a submission, in bytes of JSON. A text of 4 MiB fits with room for what JSON
/// escapes, and the record that an agent makes of it fits into the store.
pub const MAX_PAYLOAD: usize = 12 * 1024 * 1024;
/// Largest payload that its row holds itself, in bytes of JSON; a larger one is a blob of the row.
pub(crate) const MAX_INLINE: usize = 256 * 1024;

/// An input to admit.
#[derive(Debug, Clone)]
pub struct NewSubmission {
    /// What the program is given, at most [`MAX_PAYLOAD`]; compared when an idempotency key repeats.
    pub payload: Value,
    /// With a key, a repeated delivery returns the first receipt; at most [`MAX_KEY`] bytes.
    pub key: Option<String>,
    /// Bytes that the payload refers to, for example attachments.
    pub blobs: Vec<Blob>,
    /// The trace that it continues. Without one it begins a trace of its own.
    pub trace: Option<Trace>,
}

/// An admitted submission, as its row stores it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// `sub_…`; derived from the key when there is one.
    pub id: String,
    /// Order of admission within the actor.
    pub number: u64,
    /// What the program is given. The row holds `null` when there is a `payload_blob`.
    pub payload: Value,
    /// The blob with a payload that is too large for the row, as JSON; the row keeps it alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_blob: Option<String>,
    /// Identifies the payload when a key repeats.
    pub digest: String,
    /// The blobs that the payload refers to; the row keeps them alive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<String>,
    /// When it was admitted.
    pub accepted_at: Timestamp,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// Attempts begun so far.
    pub attempts: u32,
    /// When the first attempt began and until when it may go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The last record before its first attempt; what it did comes after. 0 until it begins.
    #[serde(default)]
    pub after_seq: Seq,
    /// Set once, when somebody asked to abort it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_requested_at: Option<Timestamp>,
    /// The trace that it continues, as the header `traceparent` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Submission {
    /// The trace that it belongs to: the one that it continues, else its own.
    pub fn trace(&self) -> Trace {
        let continued = self.traceparent.as_deref().and_then(Trace::parse);
        continued.unwrap_or_else(|| Trace::of(&self.id))
    }
}

/// Where an open submission stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// An attempt at it has begun.
    Running,
    /// It waits for somebody outside: it holds no attempt, and this time does not count.
    #[serde(rename_all = "camelCase")]
    Parked {
        /// Since when.
        since: Timestamp,
        /// When it goes on without an answer.
        until: Timestamp,
    },
    /// It joined the response to another submission and settles with it.
    #[serde(rename_all = "camelCase")]
    Joined {
        /// The submission whose response answers this one.
        host: String,
    },
}

/// The one terminal outcome of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Completed,
    /// It could not be answered; the error says why.
    Failed,
    /// Somebody stopped it.
    Aborted,
}

/// Body of the record and row of a settled submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Which submission.
    pub submission_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed or was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The submission whose response answered this one, when it joined another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by_submission_id: Option<String>,
    /// Identifies the payload when a key repeats.
    #[serde(default)]
    pub digest: String,
    /// The last record before its first attempt: its answer is among the records after this one.
    #[serde(default)]
    pub after_seq: Seq,
    /// When it was admitted.
    pub accepted_at: Timestamp,
    /// When it settled.
    pub settled_at: Timestamp,
}

/// Why a submission did not complete, in words that may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Stable name, one page each under `docs/errors/`.
    #[serde(rename = "type")]
    pub code: String,
    /// One line.
    pub message: String,
    /// The next thing to do; may be empty.
    #[serde(default, rename = "details", skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Failure {
    /// A failure with its stable name, one line, and the next thing to do.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Body of the record that begins an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptStarted {
    /// 1 for the first.
    pub number: u32,
}

/// What admission returns: the submission is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The submission.
    pub submission_id: String,
    /// When it was admitted.
    pub accepted_at: Timestamp,
    /// True when this key had been admitted before; nothing was added.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deduplicated: bool,
}

/// How the history of a submission looks to the program that recovers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Its input is not in the history.
    Absent,
    /// Its answer is complete; only the settlement is missing.
    Completed,
    /// Its input is there, its answer is not complete.
    Interrupted,
}

/// Why a submission is closed without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// Somebody asked for it.
    Aborted,
    /// It failed.
    Failed(Failure),
}

/// How one run of an attempt ended.
#[derive(Debug)]
pub enum Finish {
    /// The answer is complete; the step holds what is not committed yet.
    Completed(Step),
    /// It cannot go on before somebody outside answers; the step holds what is not committed yet.
    Parked {
        /// What is committed together with the parking.
        step: Step,
        /// When it goes on without an answer.
        until: Timestamp,
    },
    /// It cannot be answered; the program is asked to close it.
    Failed(Failure),
    /// The attempt was cancelled; the program is asked to close it.
    Cancelled,
    /// A commit failed: the actor stops, and the submission goes on when it wakes again.
    Halted(Halt),
}

impl Finish {
    /// One word for it, for logs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Parked { .. } => "parked",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Halted(_) => "halted",
        }
    }
}

/// What an actor of one kind does with its submissions.
#[async_trait]
pub trait Program: Send + Sync + fmt::Debug + 'static {
    /// Reads the actor's state from the store. Called when the actor wakes and at every change of
    /// ownership; it MUST depend on nothing but what is stored.
    async fn open(
        &self,
        actor: &ActorId,
        store: &std::sync::Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure>;

    /// Bounds of the submissions of this actor.
    fn bounds(&self, actor: &ActorId) -> Bounds {
        let _ = actor;
        Bounds::default()
    }

    /// Handles a message or a request to this actor, beside its mailbox. It is called for one at a
    /// time. What the handler does outside of the [`Handled`] that it returns may be done twice.
    ///
    /// # Errors
    ///
    /// A message that cannot be handled is taken and not tried again; a request is told why.
    async fn handle(&self, call: &Call, incoming: Incoming) -> Result<Handled, Failure> {
        let _ = incoming;
        Err(message::unhandled(call.actor()))
    }

    /// Whether the state may become this; called before each change, by whomever. Every value may be
    /// the state by default.
    ///
    /// # Errors
    ///
    /// Why not, in words that may be shown; nothing changes then.
    fn validate_state(&self, actor: &ActorId, change: &Proposed<'_>) -> Result<(), Failure> {
        let _ = (actor, change);
        Ok(())
    }

    /// How long this actor stays in memory with nothing to do; `None`, the default, means as long
    /// as [`RuntimeOptions::idle`](crate::RuntimeOptions::idle) says.
    fn idle(&self, actor: &ActorId) -> Option<Duration> {
        let _ = actor;
        None
    }
}

/// Bounds of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most attempts, 10 by default.
    pub attempts: u32,
    /// Wall clock from the first attempt on, one hour by default.
    pub wall: Duration,
    /// How long a cancelled attempt has to end by itself before it is ended by force; 60 s by default.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            attempts: 10,
            wall: Duration::from_secs(3_600),
            grace: Duration::from_secs(60),
        }
    }
}

/// The live state of one actor, owned by whoever works on it: the mailbox task while the actor is
/// idle, the running attempt while it is not.
#[async_trait]
pub trait Instance: Send + Sync + fmt::Debug {
    /// The step that makes the input part of the history.
    fn accept(&mut self, submission: &Submission) -> Step;

    /// Takes in records that are now durable, in order. The state changes only here.
    ///
    /// # Errors
    ///
    /// When a record cannot be read; the actor stops then.
    fn apply(&mut self, records: &[StoredRecord]) -> Result<(), StoreError>;

    /// How the history of a submission looks.
    fn progress(&self, submission: &Submission) -> Progress;

    /// The step that brings a history that was cut into a state from which an attempt can go on:
    /// it closes a half-streamed message. Idempotent: nothing to close is an empty step.
    async fn repair(&mut self, submission: &Submission) -> Result<Step, StoreError>;

    /// Works on the submission until it is answered, fails or is cancelled. MUST commit what it does
    /// through `attempt`, and apply the returned records.
    async fn run(&mut self, attempt: &mut Attempt) -> Finish;

    /// The step that takes in what a parked submission waits for; an empty one when it was taken in
    /// before.
    ///
    /// # Errors
    ///
    /// When it is no answer to what is waited for; nothing changes then.
    fn answer(&mut self, submission: &Submission, answer: &Value) -> Result<Step, Failure> {
        let _ = (submission, answer);
        Err(Failure::new(
            "nothing_to_answer",
            "nothing waits for an answer",
            "",
        ))
    }

    /// The step of a parked submission whose time is over: it goes on without an answer.
    fn expire(&mut self, submission: &Submission) -> Step {
        let _ = submission;
        Step::new()
    }

    /// The step of a parked submission that a later message went past: what it waited for is
    /// withdrawn. As [`Instance::expire`] by default.
    fn withdraw(&mut self, submission: &Submission) -> Step {
        self.expire(submission)
    }

    /// The step of a change that somebody outside asks for while no attempt runs, and what they are
    /// told. [`Instance::apply`] is called with its record once it is durable; when it could not be made
    /// durable, this instance is dropped. An empty step changes nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be made; nothing changes then. By default no change can.
    async fn edit(&mut self, edit: &Edit) -> Result<(Step, Value), Failure> {
        let _ = edit;
        let hint = "send a message instead";
        let what = "this kind of actor takes no changes from outside";
        Err(Failure::new("message_unhandled", what, hint))
    }

    /// The step that leaves the conversation valid without an answer: open messages and tool batches
    /// closed, an advisory appended. Called after [`Instance::repair`] was applied.
    fn close(&mut self, submission: &Submission, closing: &Closing) -> Step;
}

/// The id of a submission with an idempotency key: the same for the same actor and key, whatever
/// process admits it.
pub fn keyed_id(actor: &ActorId, key: &str) -> String {
    let text = format!(
        "bowline-submission-key\n{}\n{}\n{}\n{key}",
        actor.kind(),
        actor.name(),
        actor.key()
    );
    format!("sub_ik_{}", &hex(&Sha256::digest(text.as_bytes()))[..32])
}

/// Identifies a payload: equal values have equal digests, in whatever order their keys stand.
pub(crate) fn digest(payload: &Value) -> String {
    let mut text = String::new();
    canonical(payload, &mut text);
    hex(&Sha256::digest(text.as_bytes()))[..32].to_owned()
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let ordered: std::collections::BTreeMap<_, _> = fields.iter().collect();
            text.push('{');
            for (key, value) in ordered {
                canonical(&Value::String(key.clone()), text);
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads how a submission of an actor ended; `None` while it has not.
pub async fn settled(
    store: &dyn Store,
    actor: &ActorId,
    id: &str,
) -> Result<Option<Settled>, StoreError> {
    let Some(row) = store.row(actor, SETTLED, id.as_bytes()).await? else {
        return Ok(None);
    };
    decode(&row, "settled submission").map(Some)
}

/// Reads the open submissions of an actor, in order of admission.
pub async fn open(store: &dyn Store, actor: &ActorId) -> Result<Vec<Submission>, StoreError> {
    let rows = store.scan(actor, QUEUE, b"", None, MAX_QUEUED + 1).await?;
    let mut open = Vec::with_capacity(rows.len());
    for row in rows {
        let mut submission: Submission = decode(&row.value, "submission")?;
        if let Some(blob) = &submission.payload_blob {
            let id = BlobId::parse(blob)
                .ok_or_else(|| StoreError::Corrupt(format!("{blob} names no blob")))?;
            submission.payload = match store.blob(id).await? {
                Some(bytes) => decode(&bytes, "submission's payload")?,
                // Who only reads may come late: it has settled, and its payload went with its row.
                None if store.row(actor, QUEUE, &row.key).await?.is_none() => continue,
                None => return Err(StoreError::Corrupt(format!("the store has no blob {id}"))),
            };
        }
        open.push(submission);
    }
    Ok(open)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("a {what} does not decode: {error}")))
}
