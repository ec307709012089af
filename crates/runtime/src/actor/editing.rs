//! Changes from outside, made by the mailbox task while no attempt runs.

use bowline_store::Wake;
use serde_json::Value;

use super::Actor;
use crate::{edit::Edit, error::RuntimeError};

impl Actor {
    /// Makes a change. When this returns, it is durable.
    pub(super) async fn edit(&mut self, edit: &Edit) -> Result<Value, RuntimeError> {
        if self.stopping {
            return Err(RuntimeError::Stopped);
        }
        // A running attempt owns the instance, and works on what is committed.
        if self.running.is_some() {
            return Err(RuntimeError::Busy);
        }
        let mut instance = self.take_instance().await?;
        let (mut step, told) = match instance.edit(edit).await {
            Ok(made) => made,
            Err(failure) => {
                self.instance = Some(instance);
                return Err(failure.into());
            }
        };
        if !step.is_empty() {
            self.note(&mut step, "edited from outside");
            // An instance whose change was refused is read again.
            let records = self.commit(step, Wake::Keep).await?;
            instance.apply(&records)?;
        }
        self.instance = Some(instance);
        Ok(told)
    }
}
