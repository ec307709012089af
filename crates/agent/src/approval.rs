//! Tool calls that wait for a person.
//!
//! A call that needs consent parks the submission: it holds no thread and no memory, only its rows
//! and a wake at the time when it goes on without an answer. The person sees the full arguments, and
//! may change them.

use std::time::Duration;

use bowline_store::{ActorId, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::program::KIND;

/// Space of the approvals of an actor: approval id → [`Approval`].
pub const APPROVALS: &str = "approval";
/// How long an approval waits by default.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Most actors that are looked at for pending approvals.
const MOST_ACTORS: usize = 100_000;
/// Most approvals of one actor.
const MOST: usize = 10_000;

/// A request for consent, and its answer once there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// `appr_…`.
    pub approval_id: String,
    /// The submission that waits.
    pub submission_id: String,
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool_name: String,
    /// Its arguments, in full.
    pub arguments: Value,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When the run goes on without an answer; the call counts as rejected then.
    pub expires_at: Timestamp,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What was decided about an approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Yes, no, or nobody said anything.
    pub decision: Decision,
    /// Why; the model reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The arguments to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
}

/// Yes, no, or nobody said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The call may be made.
    Approve,
    /// The call must not be made.
    Reject,
    /// Nobody answered in time.
    Expire,
}

/// An answer with the approval that it is for: body of the record, and what is sent to the actor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// Which approval.
    pub approval_id: String,
    /// What was decided.
    #[serde(flatten)]
    pub answer: Answer,
}

impl From<Decision> for Answered {
    /// A decision of Bowline's own; the approval is filled in where it is written down.
    fn from(decision: Decision) -> Self {
        Self {
            approval_id: String::new(),
            answer: Answer {
                decision,
                reason: None,
                arguments: None,
            },
        }
    }
}

impl Answer {
    /// What the model is told of a call that must not be made.
    pub(crate) fn refusal(&self) -> String {
        match (self.decision, &self.reason) {
            (Decision::Expire, _) => {
                "Nobody approved this call in time. It was not made.".to_owned()
            }
            (_, Some(reason)) => {
                format!("A person rejected this call. It was not made. Reason: {reason}")
            }
            (_, None) => "A person rejected this call. It was not made.".to_owned(),
        }
    }
}

/// The approvals of one actor, answered or not, oldest first.
///
/// # Errors
///
/// When they cannot be read.
pub async fn of(store: &dyn Store, actor: &ActorId) -> Result<Vec<Approval>, StoreError> {
    let rows = store.scan(actor, APPROVALS, b"", None, MOST).await?;
    let decode = |row: &bowline_store::Row| {
        serde_json::from_slice(&row.value)
            .map_err(|error| StoreError::Corrupt(format!("an approval does not decode: {error}")))
    };
    rows.iter().map(decode).collect()
}

/// Finds an approval by its id, and the actor that it belongs to. Those that wait are looked at first.
///
/// # Errors
///
/// When the store cannot be read.
pub async fn find(
    store: &dyn Store,
    approval_id: &str,
) -> Result<Option<(ActorId, Approval)>, StoreError> {
    let end = Timestamp::from_millis(i64::MAX);
    for (actor, _) in store.due(end, MOST_ACTORS).await? {
        if let Some(approval) = get(store, &actor, approval_id).await? {
            return Ok(Some((actor, approval)));
        }
    }
    // One that was answered before may belong to an actor that waits for nothing any more.
    for actor in store.actors(KIND, None, None, MOST_ACTORS).await? {
        if let Some(approval) = get(store, &actor, approval_id).await? {
            return Ok(Some((actor, approval)));
        }
    }
    Ok(None)
}

async fn get(
    store: &dyn Store,
    actor: &ActorId,
    approval_id: &str,
) -> Result<Option<Approval>, StoreError> {
    let row = store.row(actor, APPROVALS, approval_id.as_bytes()).await?;
    let decode = |row: bytes::Bytes| {
        serde_json::from_slice(&row)
            .map_err(|error| StoreError::Corrupt(format!("an approval does not decode: {error}")))
    };
    row.map(decode).transpose()
}
