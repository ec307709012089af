//! Undoing what was done outside, in reverse order.
//!
//! Whoever does an effect may write down how it is undone, in the step that settles it
//! ([`Undos::add`]). When it is asked for ([`Undos::run`]), each is undone, the last one first. An undo
//! is itself an effect: its intent is durable before it is tried, and once it has ended it is never
//! tried again. One that a crash cut is tried again with the same id.

use std::collections::VecDeque;

use async_trait::async_trait;
use bowline_store::{ActorId, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    attempt::{Attempt, Halt},
    kind,
    step::Step,
    submission::Failure,
};

/// Space of what can be undone: number (8 bytes, big endian) → [`Undo`].
pub const UNDOS: &str = "effect-undo";
/// Most undos that one actor keeps.
pub const MAX_UNDOS: usize = 10_000;

/// How an effect is undone: the row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undo {
    /// The effect that was done.
    pub effect_id: String,
    /// What undoes it, for example the name of a tool.
    pub name: String,
    /// What that is given.
    pub input: Value,
    /// True once it was intended: it may have been tried.
    #[serde(default)]
    pub begun: bool,
}

/// Body of the record of an undo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// The effect.
    pub effect_id: String,
    /// Why it could not be undone; it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Undoes effects.
#[async_trait]
pub trait Undoer: Send + Sync {
    /// Undoes an effect. `undo_id` is the same for every try, so that whatever is called can tell a
    /// second one.
    ///
    /// # Errors
    ///
    /// When it cannot be undone; the others still are.
    async fn undo(&self, undo: &Undo, undo_id: &str) -> Result<(), Failure>;

    /// What else changes with the commit that says that it ended, whether it was undone or not. The default
    /// is nothing.
    fn ended(&self, undo: &Undo, step: &mut Step) {
        let _ = (undo, step);
    }
}

/// What can be undone in one actor, in the order in which it was done.
#[derive(Debug, Default)]
pub struct Undos {
    undos: VecDeque<(u64, Undo)>,
}

impl Undos {
    /// Reads what can be undone.
    pub async fn load(store: &dyn Store, actor: &ActorId) -> Result<Self, StoreError> {
        let rows = store.scan(actor, UNDOS, b"", None, MAX_UNDOS).await?;
        let mut undos = VecDeque::with_capacity(rows.len());
        for row in rows {
            let corrupt = |what: String| StoreError::Corrupt(format!("an undo row {what}"));
            let number = row.key.as_slice().try_into().map(u64::from_be_bytes);
            let number = number.map_err(|_| corrupt("has no number".to_owned()))?;
            let undo = serde_json::from_slice(&row.value)
                .map_err(|error| corrupt(format!("does not decode: {error}")))?;
            undos.push_back((number, undo));
        }
        Ok(Self { undos })
    }

    /// How many effects can be undone.
    pub fn len(&self) -> usize {
        self.undos.len()
    }

    /// What can be undone, in the order in which it was done.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Undo> {
        self.undos.iter().map(|(_, undo)| undo)
    }

    /// True when there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.undos.is_empty()
    }

    /// Writes down how an effect is undone, in the step that settles it as done. When that step is not
    /// committed, load anew.
    ///
    /// # Errors
    ///
    /// `effect_undo_limit` above [`MAX_UNDOS`].
    pub fn add(&mut self, step: &mut Step, undo: Undo) -> Result<(), Failure> {
        if self.undos.len() >= MAX_UNDOS {
            return Err(Failure::new(
                "effect_undo_limit",
                format!("an actor keeps at most {MAX_UNDOS} undos"),
                "undo or forget some of them first",
            ));
        }
        let number = self.undos.back().map_or(1, |(last, _)| last + 1);
        step.put(UNDOS, number.to_be_bytes(), &undo);
        self.undos.push_back((number, undo));
        Ok(())
    }

    /// Forgets how everything is undone, for example when the whole has succeeded.
    pub fn forget(&mut self, step: &mut Step) {
        self.forget_where(step, |_| true);
    }

    /// Forgets how some effects are undone, and returns those.
    pub fn forget_where(&mut self, step: &mut Step, which: impl Fn(&Undo) -> bool) -> Vec<Undo> {
        let mut gone = Vec::new();
        for (number, undo) in std::mem::take(&mut self.undos) {
            if which(&undo) {
                step.delete(UNDOS, number.to_be_bytes());
                gone.push(undo);
            } else {
                self.undos.push_back((number, undo));
            }
        }
        gone
    }

    /// Undoes everything, the last first, and returns what could not be undone. After a crash, load
    /// and call it again: it goes on where it was.
    ///
    /// # Errors
    ///
    /// When nothing can be committed any more.
    pub async fn run(
        &mut self,
        attempt: &Attempt,
        undoer: &dyn Undoer,
    ) -> Result<Vec<Undone>, Halt> {
        self.run_where(attempt, undoer, |_| true).await
    }

    /// The same for some of the effects; the others can still be undone.
    ///
    /// # Errors
    ///
    /// As [`Undos::run`].
    pub async fn run_where(
        &mut self,
        attempt: &Attempt,
        undoer: &dyn Undoer,
        which: impl Fn(&Undo) -> bool + Send + Sync,
    ) -> Result<Vec<Undone>, Halt> {
        let mut failed = Vec::new();
        while let Some(at) = self.undos.iter().rposition(|(_, undo)| which(undo))
            && let Some((number, undo)) = self.undos.get_mut(at)
        {
            if !undo.begun {
                let mut step = Step::new();
                let mut begun = undo.clone();
                begun.begun = true;
                // A record, so that an owner which read the row before cannot take the actor over.
                let body = serde_json::json!({ "change": "undo begun" });
                step.record(kind::ACTOR_OPENED, attempt.now(), &body);
                step.put(UNDOS, number.to_be_bytes(), &begun);
                attempt.commit(step).await?;
                *undo = begun;
            }
            let undo_id = format!("{}-undo", undo.effect_id);
            let undone = Undone {
                effect_id: undo.effect_id.clone(),
                error: undoer.undo(undo, &undo_id).await.err(),
            };
            let mut step = Step::new();
            step.record(kind::EFFECT_UNDONE, attempt.now(), &undone);
            step.delete(UNDOS, number.to_be_bytes());
            undoer.ended(undo, &mut step);
            attempt.commit(step).await?;
            self.undos.remove(at);
            failed.extend(Some(undone).filter(|undone| undone.error.is_some()));
        }
        Ok(failed)
    }
}
