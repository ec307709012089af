//! How a run ends.

use bowline_runtime::{Step, effect::Status as Fate};
use bowline_sandbox::isolate::{Answer, Isolate, Thrown};
use futures::StreamExt as _;

use super::{Drive, Ended, Ending, Stop, calls::Made, ended};
use crate::{
    approval::Decision,
    code::{journal::CallId, outcome},
};

impl Drive<'_> {
    /// The program has ended, or cannot go on: the outcome goes with the batch.
    pub(super) async fn finish(mut self, ending: Ending) -> Result<Ended, Stop> {
        self.current = None;
        self.parts.clear();
        let mut step = Step::new();
        let unawaited = self.unawaited(&mut step).await?;
        let prefix = format!("{}#", self.call.id);
        self.withdraw(&mut step, &prefix);
        let usage = self.isolate.as_ref().map(Isolate::usage);
        self.isolate = None;
        self.close(step, ending.status(), usage);
        let log = outcome::log(&self.log);
        let took = self.active();
        Ok(ended(
            self.mode.job,
            self.call,
            &ending,
            log,
            &unawaited,
            took,
        ))
    }

    /// Calls that nobody awaited: what acts outside is seen to its end, the others are not done.
    async fn unawaited(&mut self, step: &mut Step) -> Result<Vec<String>, Stop> {
        let cancel = self.attempt.cancel().clone();
        let deadline = self.deadline();
        while !self.beside.is_empty() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(done) = self.beside.next() => self.settled.push(done),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        let mut names = Vec::new();
        for done in std::mem::take(&mut self.settled) {
            let answer = done.answer()?;
            self.reversible(step, &done).await?;
            if let Some(made) = self.waiting.get_mut(&done.id) {
                made.took = done.took;
            }
            if let Some(id) = &done.effect_id {
                self.settle_effect(step, id, done.status());
            }
            self.entry(done.id, &answer, self.now);
            let made = self.waiting.remove(&done.id);
            names.extend(made.filter(|_| done.id.tool() == 0).map(|made| made.path()));
        }
        for (_, intended, status) in std::mem::take(&mut self.closed) {
            self.settle_effect(step, &intended.effect_id, status);
        }
        let text = "the code ended before this call was answered; await every call";
        let left: Vec<CallId> = self.waiting.keys().copied().collect();
        for id in left {
            if self.waiting[&id].is_timer() {
                continue;
            }
            let key = self.key_of(id);
            let cut = self.instance.effects.iter().find(|open| open.cause == key);
            if let Some(cut) = cut.cloned() {
                self.settle_effect(step, &cut.effect_id, Fate::Unknown);
            }
            let answer = Answer::Error(Thrown::new("Error", text));
            self.entry(id, &answer, self.now);
            let made = self.waiting.get(&id).filter(|_| id.tool() == 0);
            names.extend(made.map(Made::path));
        }
        Ok(names)
    }

    /// What people were asked for calls whose keys begin so is not asked any more.
    pub(super) fn withdraw(&mut self, step: &mut Step, prefix: &str) {
        let approvals = self.instance.conversation.approvals.values();
        let open: Vec<_> = approvals
            .filter(|one| one.answer.is_none() && one.tool_call_id.starts_with(prefix))
            .cloned()
            .collect();
        for approval in open {
            let submission = self.attempt.submission();
            let withdrawn = Decision::Withdraw.into();
            self.instance.decide(step, submission, approval, withdrawn);
        }
    }
}
