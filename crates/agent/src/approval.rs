//! Tool calls that wait for a person.
//!
//! A call that needs consent parks the submission: it holds no thread and no memory, only its rows
//! and a wake at the time when it goes on without an answer. The person sees the full arguments, and
//! may change them. A [`Question`] of the model waits in the same way; its answer is the result of the
//! call.

use std::time::Duration;

use bowline_runtime::Failure;
use bowline_store::{ActorId, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::program::KIND;

mod condition;
mod question;

pub use condition::Condition;
pub use question::{Choice, MAX_ANSWER, Question};
pub(crate) use question::{MAX_CHOICES, about_effect, verdict};

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
    /// What the model asks, when it is a question and not a call that needs consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// The effect outside that was cut, when the question is what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_id: Option<String>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What was decided about an approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Yes, no, an answer, or nobody said anything.
    pub decision: Decision,
    /// Why; the model reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The arguments to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// The answer to a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether the run of code that made the call ends, and what it did outside is undone. It goes with
    /// [`Decision::Reject`] only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
}

/// Yes, no, an answer, or nobody said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The call may be made.
    Approve,
    /// The call must not be made.
    Reject,
    /// The question is answered.
    Answer,
    /// Nobody answered in time.
    Expire,
    /// A later message made the request pointless.
    Withdraw,
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
                text: None,
                rollback: false,
            },
        }
    }
}

impl Answer {
    /// Yes, with other arguments where they are given.
    pub fn approve(arguments: Option<Value>) -> Self {
        Self {
            arguments,
            ..Answered::from(Decision::Approve).answer
        }
    }

    /// No, with the reason where one is given.
    pub fn reject(reason: Option<String>) -> Self {
        Self {
            reason,
            ..Answered::from(Decision::Reject).answer
        }
    }

    /// No, and the run of code that made the call ends: what it did outside is undone, the last first.
    pub fn roll_back(reason: Option<String>) -> Self {
        Self {
            rollback: true,
            ..Self::reject(reason)
        }
    }

    /// The answer to a question.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Answered::from(Decision::Answer).answer
        }
    }

    /// Whether sending this after `before` changes nothing.
    pub fn repeats(&self, before: &Self) -> bool {
        self.decision == before.decision
            && self.text == before.text
            && self.rollback == before.rollback
    }

    /// What the model is told of a call that must not be made, or a question without an answer.
    pub(crate) fn refusal(&self, question: bool) -> String {
        let (expired, rejected) = if question {
            (
                "Nobody answered this question in time.",
                "A person declined to answer this question.",
            )
        } else {
            (
                "Nobody approved this call in time. It was not made.",
                "A person rejected this call. It was not made.",
            )
        };
        match (self.decision, &self.reason) {
            (Decision::Expire, _) => expired.to_owned(),
            (Decision::Withdraw, _) => {
                "This was withdrawn because a new message came. It was not made.".to_owned()
            }
            (Decision::Approve | Decision::Answer | Decision::Reject, Some(reason)) => {
                format!("{rejected} Reason: {reason}")
            }
            (Decision::Approve | Decision::Answer | Decision::Reject, None) => rejected.to_owned(),
        }
    }
}

impl Approval {
    /// Whether code made the call.
    pub fn is_of_code(&self) -> bool {
        self.tool_call_id.contains('#')
    }

    /// The arguments that there is consent to.
    pub(crate) fn granted(&self) -> &Value {
        let edited = self.answer.as_ref().and_then(|one| one.arguments.as_ref());
        edited.unwrap_or(&self.arguments)
    }

    /// Checks an answer, and makes it what is kept: the label of the choice that was meant.
    ///
    /// # Errors
    ///
    /// `approval_invalid` when it does not fit, `approval_answered` when another one was given before.
    pub fn check(&self, mut answer: Answer) -> Result<Answer, Failure> {
        let invalid = |what: String, hint: &str| Failure::new("approval_invalid", what, hint);
        if answer.rollback && (answer.decision != Decision::Reject || !self.is_of_code()) {
            let what =
                "only the rejection of a call that code made can roll its run back".to_owned();
            return Err(invalid(what, "answer it without `rollback`"));
        }
        match (answer.decision, &self.question) {
            (Decision::Answer, Some(question)) => {
                let text = answer.text.as_deref().unwrap_or_default();
                let text = question
                    .resolve(text)
                    .map_err(|why| invalid(why, "`bowline show` has the question"))?;
                answer.text = Some(text);
            }
            (Decision::Answer, None) => {
                let what = format!("{} waits for consent, not for an answer", self.tool_name);
                return Err(invalid(what, "approve or reject it"));
            }
            (Decision::Approve, Some(_)) => {
                let what = "this is a question, not a call that needs consent".to_owned();
                return Err(invalid(what, "answer it, or reject it to give no answer"));
            }
            (Decision::Approve, None)
            | (Decision::Reject | Decision::Expire | Decision::Withdraw, _) => {}
        }
        match &self.answer {
            Some(before) if !answer.repeats(before) => Err(Failure::new(
                "approval_answered",
                "this approval was answered before, differently",
                "",
            )),
            Some(_) | None => Ok(answer),
        }
    }
}

/// Gives the requests of one step ids in the order of their calls: they are listed by their ids, and those
/// of one millisecond have no order of their own.
pub(crate) fn in_order(asked: &mut [Approval]) {
    let mut ids: Vec<_> = asked.iter().map(|one| one.approval_id.clone()).collect();
    ids.sort();
    for (one, id) in asked.iter_mut().zip(ids) {
        one.approval_id = id;
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
