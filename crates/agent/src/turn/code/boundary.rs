//! Boundaries: what a run did becomes durable, in one batch with the record that says so.
//!
//! The answers that the program got go into the journal, the files that its calls wrote into the
//! workspace. Where running it again from the journal would cost more than its memory does, the
//! memory is saved and the journal begins anew.

use std::time::Duration;

use bowline_runtime::{
    Instance as _, Step,
    effect::{self, Status},
};
use bowline_sandbox::{
    isolate::{Answer, IsolateError, Usage},
    workspace::Workspace,
};
use bowline_store::{Blob, Timestamp};
use tokio::time::Instant;

use super::{Broken, Drive, Ready, calls::Finished};
use crate::{
    approval::{APPROVALS, Approval},
    code::{
        journal::{self, Boundary, CallId, Called, Entry, Saved, SavedPart, Settled, Why},
        outcome,
    },
    record::Fact,
    turn::tools::{Pending, Written},
};

/// Memory is saved at a boundary when the program took so much CPU time since it was saved, because a
/// crash would make it take that again. Saving takes about 0.2 ms.
const SAVE_CPU: Duration = Duration::from_millis(50);
/// The same for so many answers,
const SAVE_ANSWERS: u32 = 500;
/// and for so many bytes of journal.
const SAVE_BYTES: usize = 128 << 10;
/// A longer list of calls is a blob of its own.
const LISTED: usize = 64 << 10;
/// So many of its calls stay in the record, for whoever looks on.
const TOLD: usize = 50;

/// What of the journal is not durable, and how much was done since the memory was saved.
pub(super) struct Ledger {
    /// Number of the next entry.
    pub(super) next: u32,
    /// Entries that were delivered and are not durable.
    entries: Vec<Entry>,
    bytes: usize,
    answers: u32,
    pub(super) saved_cpu: Duration,
    /// The run is in the store.
    begun: bool,
    /// The last boundary.
    pub(super) since: Instant,
}

impl Ledger {
    pub(super) fn new(begun: bool) -> Self {
        Self {
            next: 0,
            entries: Vec::new(),
            bytes: 0,
            answers: 0,
            saved_cpu: Duration::ZERO,
            begun,
            since: Instant::now(),
        }
    }

    /// Counts an entry of the journal.
    pub(super) fn count(&mut self, entry: &Entry) {
        self.answers += 1;
        self.bytes += match &entry.answer {
            Settled::Value(value) | Settled::Error(value) | Settled::Began(value) => {
                weight(&value.0)
            }
            Settled::Timer => 0,
        };
    }

    /// An answer is delivered that is not in the store.
    pub(super) fn delivered(&mut self, entry: Entry) {
        self.count(&entry);
        self.entries.push(entry);
    }

    /// True when there is something to make durable.
    pub(super) fn is_due(&self) -> bool {
        !self.entries.is_empty()
    }

    fn is_heavy(&self, cpu: Duration) -> bool {
        self.bytes >= SAVE_BYTES
            || self.answers >= SAVE_ANSWERS
            || cpu.saturating_sub(self.saved_cpu) >= SAVE_CPU
    }
}

/// About how many bytes a value has.
fn weight(value: &bowline_sandbox::isolate::Value) -> usize {
    use bowline_sandbox::isolate::Value;
    match value {
        Value::String(text) | Value::BigInt(text) => text.len() + 8,
        Value::Buffer(bytes) | Value::View(_, bytes) => bytes.len() + 8,
        Value::Array(items) | Value::Set(items) => items.iter().map(weight).sum::<usize>() + 8,
        Value::Object(properties) => {
            properties
                .iter()
                .map(|(key, value)| key.len() + weight(value))
                .sum::<usize>()
                + 8
        }
        Value::Map(pairs) => {
            pairs
                .iter()
                .map(|(key, value)| weight(key) + weight(value))
                .sum::<usize>()
                + 8
        }
        Value::Undefined
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Date(_)
        | Value::Error(_)
        | Value::RegExp(..) => 64,
    }
}

impl Drive<'_> {
    /// The answer to a call as an entry of the journal; it is noted for the record too.
    pub(super) fn entry(&mut self, id: CallId, answer: &Answer, now: Timestamp) -> Entry {
        let made = self.waiting.get(&id);
        let path = made.map(super::Made::path).unwrap_or_default();
        if let Some(made) = made.filter(|made| !made.is_timer()) {
            let arguments = match made.arguments.as_slice() {
                [only] => only.to_json(),
                several => several
                    .iter()
                    .map(bowline_sandbox::isolate::Value::to_json)
                    .collect(),
            };
            let (result, error) = match answer {
                Answer::Value(value) => (Some(value.to_json()), None),
                Answer::Error(error) => (None, Some(error.to_string())),
                Answer::Timer => (None, None),
            };
            let shorten = |value| outcome::shape(value, outcome::RECORDED);
            self.called.push(Called {
                id: id.number(),
                within: Some(id.tool()).filter(|tool| *tool > 0),
                path: path.clone(),
                arguments: shorten(arguments),
                result: result.map(shorten),
                error: error.map(|text| outcome::cut(text, outcome::RECORDED)),
                time: made.made,
                duration_ms: u64::try_from(made.took.as_millis()).unwrap_or(u64::MAX),
                approval: made.approval.map(str::to_owned),
                effect_id: made.effect_id.clone(),
            });
        }
        Entry {
            id,
            path,
            now,
            active_ms: u64::try_from(self.active().as_millis()).unwrap_or(u64::MAX),
            answer: Settled::from(answer),
        }
    }

    /// Makes durable what happened since the last boundary, with `extra`, and with these answers, which
    /// are delivered next.
    pub(super) async fn boundary(
        &mut self,
        why: Why,
        extra: Step,
        next: Vec<Entry>,
    ) -> Result<(), Broken> {
        let (mut step, written) = self.fill(why, next).await?;
        step.extend(extra);
        let records = self.attempt.commit(step).await?;
        written.applied(self.instance);
        self.instance.apply(&records)?;
        self.committed();
        self.running.renew(self.instance, self.attempt).await?;
        Ok(())
    }

    fn committed(&mut self) {
        self.ledger.begun = true;
        self.ledger.since = Instant::now();
    }

    async fn fill(&mut self, why: Why, next: Vec<Entry>) -> Result<(Step, Written), Broken> {
        let mut step = Step::new();
        self.running.take_pending(self.instance, &mut step);
        self.running.take_local(self.instance, &mut step, &[]);
        if !self.ledger.begun {
            let engine = std::sync::Arc::clone(&self.instance.shared.engine);
            let store = self.attempt.store().clone();
            let now = self.attempt.now();
            engine.keep_image(&self.isolates, &*store, now).await;
            // Another run may have been left there by a call that is no more.
            journal::forget(&mut step);
            journal::put_head(&mut step, &self.head, &self.snippets);
        }
        for tool in std::mem::take(&mut self.gone) {
            let prefix = format!("{}#{tool}.", self.call.id);
            self.withdraw(&mut step, &prefix);
        }
        let own = self.isolate.as_ref().map(|isolate| isolate.usage().cpu);
        let cpu = own.unwrap_or_default() + self.parts_cpu();
        let entries = std::mem::take(&mut self.ledger.entries);
        let mut saved = None;
        if why == Why::Park || self.ledger.is_heavy(cpu) {
            self.ledger.next += u32::try_from(entries.len()).unwrap_or(u32::MAX);
            saved = Some(self.save(&mut step).await?);
            (self.ledger.bytes, self.ledger.answers) = (0, 0);
            self.ledger.saved_cpu = cpu;
        } else {
            self.put_entries(&mut step, &entries);
        }
        next.iter().for_each(|entry| self.ledger.count(entry));
        self.put_entries(&mut step, &next);
        let boundary = self.record(&mut step, why, saved, None);
        self.instance
            .add(&mut step, [boundary], &self.running.scope);
        let written = self.running.write(self.instance, self.attempt, &mut step)?;
        Ok((step, written))
    }

    fn put_entries(&mut self, step: &mut Step, entries: &[Entry]) {
        for entry in entries {
            journal::put_entry(step, self.ledger.next, entry);
            self.ledger.next += 1;
        }
    }

    /// The record of the boundary.
    fn record(
        &mut self,
        step: &mut Step,
        why: Why,
        saved: Option<u64>,
        ended: Option<(&'static str, Option<Usage>)>,
    ) -> Fact {
        let mut calls = std::mem::take(&mut self.called);
        let (mut calls_blob, mut calls_count) = (None, None);
        let list = serde_json::to_vec(&calls).unwrap_or_default();
        if list.len() > LISTED {
            let blob = Blob::new(list.into());
            calls_blob = Some(blob.id.to_string());
            step.blobs.push(blob);
            calls_count = Some(calls.len() as u64);
            calls.truncate(TOLD);
            for call in &mut calls {
                call.arguments = serde_json::Value::Null;
                call.result = None;
            }
        }
        let status = ended.map(|(status, _)| status);
        let usage = ended.and_then(|(_, usage)| usage);
        Fact::CodeBoundary(Box::new(Boundary {
            run_id: self.head.run_id.clone(),
            tool_call_id: self.call.id.clone(),
            boundary: why,
            calls,
            calls_blob,
            calls_count,
            saved,
            status: status.map(str::to_owned),
            cpu_us: usage.map(|usage| u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX)),
        }))
    }

    /// Adds the program's memory to a step; how many bytes it has.
    async fn save(&mut self, step: &mut Step) -> Result<u64, Broken> {
        let key = match journal::key(&**self.attempt.store(), self.attempt.actor()).await? {
            Some(key) => key,
            None => {
                let key = journal::seed(&journal::new_seed(&self.instance.shared.sources))?;
                journal::put_key(step, &key);
                key
            }
        };
        let Some(mut isolate) = self.isolate.take() else {
            return Err(IsolateError::NotSavable.into());
        };
        let mut parts = self.take_parts();
        let work = move || {
            let bytes = isolate.save(&key)?;
            let mut saved = Vec::new();
            for (call, (part, began)) in &mut parts {
                let bytes = part.save(&key)?;
                saved.push(SavedPart {
                    call: *call,
                    began_ms: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
                    size: bytes.len(),
                    bytes: bytes.into(),
                });
            }
            Ok((isolate, bytes, parts, saved))
        };
        let (isolate, bytes, parts, saved_parts) = super::blocking(work).await?;
        self.isolate = Some(isolate);
        for (number, (isolate, _)) in parts {
            if let Some(part) = self.parts.get_mut(&number) {
                part.isolate = Some(isolate);
            }
        }
        let more: usize = saved_parts.iter().map(|part| part.size).sum();
        let size = (bytes.len() + more) as u64;
        let saved = Saved {
            next: self.ledger.next,
            active_ms: u64::try_from(self.active().as_millis()).unwrap_or(u64::MAX),
            now: self.now,
            waiting: self
                .waiting
                .iter()
                .map(|(id, made)| made.saved(*id))
                .collect(),
            log: journal::lines(&self.log),
            parts: saved_parts,
            bytes: bytes.into(),
        };
        journal::put_saved(step, &saved);
        Ok(size)
    }

    /// The key of what was saved.
    pub(super) async fn key(&mut self) -> Result<[u8; 32], Broken> {
        let key = journal::key(&**self.attempt.store(), self.attempt.actor()).await?;
        key.ok_or_else(|| IsolateError::SavedInvalid("its key is missing").into())
    }

    /// Outside effects ended: their settlements and their answers are one commit; then the answers are
    /// delivered.
    pub(super) async fn settle(&mut self) -> Result<(), Broken> {
        let mut step = Step::new();
        let mut answers = Vec::new();
        for done in std::mem::take(&mut self.settled) {
            let answer = done.answer()?;
            let status = done.status();
            self.reversible(&mut step, &done).await?;
            let Finished {
                id,
                took,
                effect_id,
                ..
            } = done;
            if let Some(made) = self.waiting.get_mut(&id) {
                made.took = took;
            }
            if let Some(effect_id) = effect_id {
                self.settle_effect(&mut step, &effect_id, status);
            }
            answers.push((id, answer));
        }
        for (id, intended, status) in std::mem::take(&mut self.closed) {
            self.settle_effect(&mut step, &intended.effect_id, status);
            answers.push((id, Self::cut(status)));
        }
        let mut next = Vec::new();
        let mut ready = Vec::new();
        for (id, answer) in answers {
            let now = self.tick();
            next.push(self.entry(id, &answer, now));
            ready.push(Ready {
                id,
                answer,
                journaled: Some(now),
            });
        }
        self.boundary(Why::Deliver, step, next).await?;
        self.ready.extend(ready);
        Ok(())
    }

    pub(super) fn settle_effect(&mut self, step: &mut Step, effect_id: &str, status: Status) {
        effect::settle(step, effect_id, status, self.attempt.now());
        self.instance
            .effects
            .retain(|open| open.effect_id != effect_id);
    }

    /// The step that parks the run, with what people are asked. Its memory is in the store then, and the
    /// isolate is free.
    pub(super) async fn parked(&mut self, ask: Vec<Approval>) -> Result<Step, Broken> {
        let (mut step, written) = self.fill(Why::Park, Vec::new()).await?;
        for approval in ask {
            step.put(APPROVALS, approval.approval_id.as_bytes(), &approval);
            let asked = Fact::ApprovalRequested(approval);
            self.instance.add(&mut step, [asked], &self.running.scope);
        }
        if written.files() {
            // Whoever commits this step does not tell the workspace.
            let (store, actor) = (self.instance.store.clone(), self.instance.actor.clone());
            let limits = *self.instance.workspace.limits();
            self.instance.workspace = Workspace::with_limits(store, actor, limits);
        }
        written.kept(self.instance);
        self.isolate = None;
        self.parts.clear();
        Ok(step)
    }

    /// The end: it becomes durable with the batch.
    pub(super) fn close(&mut self, mut step: Step, status: &'static str, usage: Option<Usage>) {
        if self.ledger.begun {
            journal::forget(&mut step);
        }
        let ended = self.record(&mut step, Why::End, None, Some((status, usage)));
        self.running.pending.push(Pending::Step(Box::new(step)));
        self.running.pending.push(Pending::Fact(Box::new(ended)));
    }
}
