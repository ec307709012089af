//! The ledger of effects outside: intended, done, settled.
//!
//! An effect is written down before it is done, with a stable id that is handed to whatever does it.
//! After a crash a settled effect is never repeated; an intended one follows its declared policy.
//! Open effects are rows of the space [`EFFECTS`]; the records tell the history.

//!
//! After a crash, [`open`] gives the effects that were not settled, and [`Cut::of`] says what to do
//! with each. Those with the policy [`OnCrash::Ask`] are put to a person: [`ask`] in the step that
//! parks the submission, [`decide`] in the step that takes in the answer. [`undo`] undoes what was
//! done, where that is asked for.

use std::time::Duration;

use bowline_store::{ActorId, Row, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{kind, step::Step, submission::Failure};

pub mod undo;

/// How long a person is waited for by default; then nobody knows what became of the effect.
pub const ASK_WITHIN: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Space of what persons are asked about effects: effect id → [`Question`].
pub const QUESTIONS: &str = "effect-question";
/// Most open effects, and most questions, that are read of one actor.
const MOST: usize = 65_535;

/// Space of the effects that are intended and not settled: effect id → [`Intended`].
pub const EFFECTS: &str = "effect";

/// What recovery does with an effect that was intended and never settled.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OnCrash {
    /// Does it again, with the same effect id.
    Retry,
    /// Tells the model that the outcome is not known. The default.
    #[default]
    Unknown,
    /// Asks a person, and waits for what he says: the submission parks.
    Ask,
}

/// Body of the record, and row, of an effect that is about to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intended {
    /// `eff_…`; the same for every try.
    pub effect_id: String,
    /// What asked for it, for example a tool call.
    pub cause: String,
    /// What does it, for example the name of a tool.
    pub name: String,
    /// What recovery does when it is never settled.
    pub on_crash: OnCrash,
    /// When it was first intended.
    pub time: Timestamp,
}

/// How an effect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was done.
    Done,
    /// It was tried and failed.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// Body of the record of what became of an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settlement {
    /// Which effect.
    pub effect_id: String,
    /// How it ended.
    pub status: Status,
}

/// Adds the intent to a step. The effect may be done once that step is durable.
pub fn intend(step: &mut Step, intended: &Intended) {
    step.record(kind::EFFECT_INTENDED, intended.time, intended);
    step.put(EFFECTS, intended.effect_id.as_bytes(), intended);
}

/// Adds the settlement to a step.
pub fn settle(step: &mut Step, effect_id: &str, status: Status, now: Timestamp) {
    step.record(
        kind::EFFECT_SETTLED,
        now,
        &Settlement {
            effect_id: effect_id.to_owned(),
            status,
        },
    );
    step.delete(EFFECTS, effect_id.as_bytes());
}

/// The effects of an actor that were intended and not settled.
pub async fn open(store: &dyn Store, actor: &ActorId) -> Result<Vec<Intended>, StoreError> {
    all(store, actor, EFFECTS).await
}

async fn all<T: DeserializeOwned>(
    store: &dyn Store,
    actor: &ActorId,
    space: &str,
) -> Result<Vec<T>, StoreError> {
    let rows = store.scan(actor, space, b"", None, MOST).await?;
    let decode = |row: &Row| {
        serde_json::from_slice(&row.value)
            .map_err(|error| StoreError::Corrupt(format!("an effect row does not decode: {error}")))
    };
    rows.iter().map(decode).collect()
}

/// What a person is asked about an effect: row, and body of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The effect of which nobody knows whether it was done.
    pub effect: Intended,
    /// The submission that waits.
    pub submission_id: String,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When it counts as not known.
    pub expires_at: Timestamp,
    /// What was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// What a person says about an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was done.
    Done,
    /// It was not done, and is not to be done again.
    Failed,
    /// Nobody can say.
    Unknown,
    /// It is to be done again, with the same effect id.
    Again,
}

/// Body of the record of what a person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// Which effect.
    pub effect_id: String,
    /// What was said.
    pub verdict: Verdict,
}

/// What recovery does with an effect that was intended and never settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Does it again, with the same effect id.
    Again,
    /// Settles it as not known.
    Unknown,
    /// Asks a person, or waits for him: park until then. With no question yet, [`ask`] first.
    Wait,
}

impl Cut {
    /// By the policy of the effect, and what was asked about it.
    pub fn of(effect: &Intended, question: Option<&Question>) -> Self {
        match (effect.on_crash, question.and_then(|one| one.verdict)) {
            (OnCrash::Retry, _) | (OnCrash::Ask, Some(Verdict::Again)) => Self::Again,
            // The others settled it, so that it is not open any more.
            (OnCrash::Unknown, _)
            | (OnCrash::Ask, Some(Verdict::Unknown | Verdict::Done | Verdict::Failed)) => {
                Self::Unknown
            }
            (OnCrash::Ask, None) => Self::Wait,
        }
    }
}

/// The questions of an actor, answered or not, in order of effect ids.
pub async fn questions(store: &dyn Store, actor: &ActorId) -> Result<Vec<Question>, StoreError> {
    all(store, actor, QUESTIONS).await
}

/// Adds the question about an effect to the step that parks its submission.
pub fn ask(
    step: &mut Step,
    effect: &Intended,
    submission_id: &str,
    now: Timestamp,
    within: Duration,
) -> Question {
    let question = Question {
        effect: effect.clone(),
        submission_id: submission_id.to_owned(),
        asked_at: now,
        expires_at: now.after(within),
        verdict: None,
    };
    step.record(kind::EFFECT_ASKED, now, &question);
    step.put(QUESTIONS, effect.effect_id.as_bytes(), &question);
    question
}

/// Takes in what a person said: `true` when that adds something to the step, `false` when the same
/// was said before. The effect is settled by it, except when it is to be done again.
///
/// # Errors
///
/// `effect_decided` when another verdict was given before.
pub fn decide(
    step: &mut Step,
    question: &Question,
    verdict: Verdict,
    now: Timestamp,
) -> Result<bool, Failure> {
    let effect_id = &question.effect.effect_id;
    match question.verdict {
        Some(before) if before == verdict => return Ok(false),
        Some(_) => {
            return Err(Failure::new(
                "effect_decided",
                format!("what became of the effect {effect_id} was decided before"),
                "see the conversation for what was said",
            ));
        }
        None => {}
    }
    let decided = Decided {
        effect_id: effect_id.clone(),
        verdict,
    };
    step.record(kind::EFFECT_DECIDED, now, &decided);
    let answered = Question {
        verdict: Some(verdict),
        ..question.clone()
    };
    step.put(QUESTIONS, effect_id.as_bytes(), &answered);
    match verdict {
        Verdict::Done => settle(step, effect_id, Status::Done, now),
        Verdict::Failed => settle(step, effect_id, Status::Failed, now),
        Verdict::Unknown => settle(step, effect_id, Status::Unknown, now),
        // It stays intended, under its id.
        Verdict::Again => {}
    }
    Ok(true)
}

/// Takes the question away, in the step that uses its answer up.
pub fn forget(step: &mut Step, effect_id: &str) {
    step.delete(QUESTIONS, effect_id.as_bytes());
}
