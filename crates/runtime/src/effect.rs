//! The ledger of effects outside: intended, done, settled.
//!
//! An effect is written down before it is done, with a stable id that is handed to whatever does it.
//! After a crash a settled effect is never repeated; an intended one follows its declared policy.
//! Open effects are rows of the space [`EFFECTS`]; the records tell the history.

use bowline_store::{ActorId, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{kind, step::Step};

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
    let rows = store
        .scan(actor, EFFECTS, b"", None, usize::from(u16::MAX))
        .await?;
    let decode = |row: &bowline_store::Row| {
        serde_json::from_slice(&row.value)
            .map_err(|error| StoreError::Corrupt(format!("an effect row does not decode: {error}")))
    };
    rows.iter().map(decode).collect()
}
