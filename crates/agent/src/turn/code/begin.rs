//! How a run begins, and how it is brought to where it stood.

use std::{sync::Arc, time::Duration};

use bowline_sandbox::isolate::Start;

use super::{Broken, Drive, Stop, blocking, calls::Made};
use crate::code::{
    CodeError,
    journal::{self, Told},
    registry,
};

impl Drive<'_> {
    /// Starts the program, or brings it to where it stood.
    pub(super) async fn begin(&mut self, before: Option<journal::Open>) -> Result<(), Broken> {
        self.bindings = registry::bind(&self.head.spaces)?;
        let engine = Arc::clone(&self.instance.shared.engine);
        let store = self.attempt.store().clone();
        self.isolates = engine.with_image(&self.head.image, &*store).await??;
        let isolates = self.isolates.clone();
        let owner = self.owner();
        let slot = tokio::select! {
            biased;
            () = self.attempt.cancel().cancelled() => return Err(Stop::Cancelled.into()),
            slot = isolates.admit_busy(&owner) => slot?,
        };
        let (saved, entries) = match before {
            Some(open) => (open.saved, open.entries),
            None => (None, Vec::new()),
        };
        let bindings = self.bindings.clone();
        let limits = self.limits.clone();
        let mut parts = None;
        let isolate = match saved {
            Some(saved) => {
                let key = self.key().await?;
                self.ledger.next = saved.next;
                self.carried = Duration::from_millis(saved.active_ms);
                self.now = saved.now;
                let now = self.tick();
                for waiting in saved.waiting {
                    self.waiting.insert(waiting.id, Made::of(waiting, now));
                }
                self.fresh.extend(self.waiting.keys().copied());
                self.log = journal::log(saved.log);
                parts = Some((saved.parts, key));
                let bytes = saved.bytes;
                let restore = move || isolates.restore(slot, &bytes, &key, &bindings, &limits, now);
                blocking(restore).await?
            }
            None => {
                let mut start = Start::new(journal::seed(&self.head.seed)?, self.head.started);
                start.limits = limits;
                start.input = self.mode.job.input();
                let program = self.program.clone();
                let turn = self.turn().await;
                let start = move || {
                    let started = isolates.start(slot, &program, &bindings, &start);
                    drop(turn);
                    started
                };
                blocking(start).await?
            }
        };
        self.ledger.saved_cpu = isolate.usage().cpu;
        self.isolate = Some(isolate);
        self.take(0);
        let (parts, key) = parts.unwrap_or_default();
        for part in parts {
            self.restore_part(part, key, self.now).await?;
        }
        for entry in entries {
            self.replay(entry).await?;
        }
        // What was to be waited for when it was cut is not waited for again.
        let now = self.tick();
        for made in self.waiting.values_mut() {
            made.arm(now);
        }
        Ok(())
    }

    /// Gives an answer of the journal again.
    async fn replay(&mut self, entry: journal::Entry) -> Result<(), Broken> {
        self.ledger.next += 1;
        self.ledger.count(&entry);
        let active = Duration::from_millis(entry.active_ms);
        self.carried = self.carried.max(active);
        self.now = self.now.max(entry.now);
        let (id, now) = (entry.id, entry.now);
        if id.tool() > 0 && !self.parts.contains_key(&id.tool()) {
            // It ended while this call was on its way.
            return Ok(());
        }
        let path = self.waiting.get(&id).map(Made::path);
        if path.as_ref() != Some(&entry.path) {
            return Err(CodeError::Diverged {
                before: entry.path,
                now: path.unwrap_or_else(|| "nothing".to_owned()),
            }
            .into());
        }
        self.fresh.retain(|fresh| *fresh != id);
        match Told::from(entry.answer) {
            Told::Began(input) => self.start_part(id.number(), input, now, active).await,
            Told::Answer(answer) => {
                self.waiting.remove(&id);
                self.ready.retain(|ready| ready.id != id);
                if id.tool() == 0 {
                    self.forget_part(id.number());
                }
                self.answer(id, answer, now).await
            }
        }
    }
}
