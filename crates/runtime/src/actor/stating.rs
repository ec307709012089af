//! The state of a live actor, replaced by its mailbox task.

use bowline_store::{RowChange, Wake};

use super::Actor;
use crate::{
    error::RuntimeError,
    kind,
    state::{self, Change, KEY, MAX_STATE, NewState, Proposed, STATE, Version},
    step::{Step, json},
};

impl Actor {
    /// Replaces the state. When this returns, the change is durable, and those who follow hear of it.
    pub(super) async fn set_state(&mut self, new: NewState) -> Result<Version, RuntimeError> {
        if self.stopping {
            return Err(RuntimeError::Stopped);
        }
        if new.read_only {
            return Err(RuntimeError::StateReadOnly);
        }
        let before = state::current(&*self.parts.store, &self.parts.id).await?;
        let version = before.as_ref().map_or(0, |before| before.version);
        if let Some(expected) = new.expected.filter(|expected| *expected != version) {
            return Err(RuntimeError::StateConflict {
                expected,
                current: version,
            });
        }
        let proposed = Proposed {
            current: before.as_ref().map(|before| &before.value),
            next: &new.value,
            source: &new.source,
        };
        self.parts
            .program
            .validate_state(&self.parts.id, &proposed)?;
        let change = Change {
            version: version + 1,
            value: new.value,
            source: new.source,
            time: self.parts.sources.now(),
        };
        let value = json(&change);
        if value.len() > MAX_STATE {
            return Err(state::too_large(value.len()).into());
        }
        let mut step = Step::new();
        step.record(kind::STATE_CHANGED, change.time, &change);
        step.rows.push(RowChange::Put {
            space: STATE,
            key: KEY.to_vec(),
            value,
            blobs: Vec::new(),
        });
        self.commit(step, Wake::Keep).await?;
        Ok(change.version)
    }
}
