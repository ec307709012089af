//! Durable tools that code calls: each is a program of its own within the run.
//!
//! What such a program calls is a call of the run, with the number of the tool's call before its own: it is
//! journaled, asked about and saved as those of the code are. So a durable tool goes on at its own `await`,
//! whoever called it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bowline_sandbox::isolate::{
    Answer, Isolate, IsolateError, Limits, Program, Slot, Start, Status, Thrown, Value,
};
use bowline_store::{BlobId, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Broken, Drive, NO_WALL, Ready, blocking, calls::Made};
use crate::{
    code::{
        TOOLS, direct,
        journal::{CallId, Coded, Entry, SavedPart, Settled},
        own, registry,
    },
    tool::script::{self, Script},
    turn::{Stop, tools::AT_ONCE},
};

/// A durable tool that the code has called and that has not ended.
pub(super) struct Part {
    /// Nothing when the agent has it no more: then it goes on as it was, without the author's positions.
    script: Option<Arc<Script>>,
    /// Nothing while it works.
    pub(super) isolate: Option<Isolate>,
    pub(super) status: Status,
    /// How long the run had been worked on when it began.
    began: Duration,
    /// Cancelled when it ends, for what it called.
    pub(super) cancel: CancellationToken,
}

impl Part {
    fn timeout(&self) -> Duration {
        let own = self.script.as_ref().map(|script| script.policy.timeout);
        own.unwrap_or(script::DURABLE_TIMEOUT)
    }

    pub(super) fn cpu(&self) -> Duration {
        let used = self.isolate.as_ref().map(|isolate| isolate.usage().cpu);
        used.unwrap_or_default()
    }

    /// What the code gets of one that ended so.
    fn answer(&self, status: &Status) -> Answer {
        let wall = Status::Stopped(IsolateError::Wall(self.timeout()));
        let status = match status {
            Status::Stopped(IsolateError::Wall(_)) => &wall,
            other => other,
        };
        let told = match &self.script {
            Some(script) => direct::told(status, &script.program),
            None => Program::new("tool.ts", "")
                .map_err(direct::Broken::from)
                .and_then(|program| direct::told(status, &program)),
        };
        match told {
            Ok(value) => Answer::Value(own::value(script::output(value))),
            Err(direct::Broken::Told(text)) => failed(text),
            Err(direct::Broken::Store(error)) => failed(error.to_string()),
        }
    }
}

fn failed(text: impl Into<String>) -> Answer {
    Answer::Error(Thrown::new("ToolError", text))
}

/// What went wrong with one, for the code that called it.
fn why(error: &IsolateError) -> Answer {
    failed(format!("{error} ({})", error.code()))
}

impl Drive<'_> {
    /// One more may begin.
    pub(super) fn may_start(&self) -> bool {
        self.parts.len() < AT_ONCE && !self.starting.is_empty()
    }

    /// Begins the next tool that the code called.
    pub(super) async fn start_next(&mut self) -> Result<(), Broken> {
        let Some((number, input)) = self.starting.pop_front() else {
            return Ok(());
        };
        let id = CallId::of(0, number);
        let Some(path) = self.waiting.get(&id).map(Made::path) else {
            return Ok(());
        };
        let now = self.tick();
        let began = self.active();
        self.ledger.delivered(Entry {
            id,
            path,
            now,
            active_ms: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
            answer: Settled::Began(Coded(input.clone())),
        });
        self.start_part(number, input, now, began).await
    }

    /// Begins a tool that the code called, for the first time or again from the journal.
    pub(super) async fn start_part(
        &mut self,
        number: u32,
        input: Value,
        now: Timestamp,
        began: Duration,
    ) -> Result<(), Broken> {
        let Some(script) = self.script_of(number) else {
            self.answer_part(number, failed("the tool is not there any more"));
            return Ok(());
        };
        let slot = match self.room().await? {
            Ok(slot) => slot,
            Err(error) => {
                self.answer_part(number, why(&error));
                return Ok(());
            }
        };
        let isolates = self.isolates.clone();
        let bindings = registry::bind(&self.part_spaces())?;
        let seed = format!("{}#{number}", self.head.seed);
        let mut start = Start::new(*BlobId::of(seed.as_bytes()).as_bytes(), now);
        start.input = input;
        start.limits = self.part_limits();
        let program = script.program.clone();
        let turn = self.turn().await;
        let work = move || {
            let started = isolates.start(slot, &program, &bindings, &start);
            drop(turn);
            started
        };
        let part = Part {
            script: Some(script),
            isolate: Some(blocking(work).await?),
            status: Status::Waiting,
            began,
            cancel: self.attempt.cancel().child_token(),
        };
        self.parts.insert(number, part);
        self.take(number);
        Ok(())
    }

    /// Brings one to where it stood.
    pub(super) async fn restore_part(
        &mut self,
        saved: SavedPart,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<(), Broken> {
        let number = saved.call;
        let script = self.script_of(number);
        let slot = match self.room().await? {
            Ok(slot) => slot,
            Err(error) => return Err(error.into()),
        };
        let isolates = self.isolates.clone();
        let bindings = registry::bind(&self.part_spaces())?;
        let limits = self.part_limits();
        let bytes = saved.bytes;
        let restore = move || isolates.restore(slot, &bytes, &key, &bindings, &limits, now);
        let part = Part {
            script,
            isolate: Some(blocking(restore).await?),
            status: Status::Waiting,
            began: Duration::from_millis(saved.began_ms),
            cancel: self.attempt.cancel().child_token(),
        };
        self.parts.insert(number, part);
        Ok(())
    }

    /// The tool that this call asks for, as the agent has it now.
    fn script_of(&self, number: u32) -> Option<Arc<Script>> {
        let made = self.waiting.get(&CallId::of(0, number))?;
        let (script, _) = self.mode.registry.durable(TOOLS, made.target().1)?;
        Some(Arc::clone(script))
    }

    /// Room for one more isolate. Who waits for it is not busy.
    async fn room(&mut self) -> Result<Result<Slot, IsolateError>, Broken> {
        self.rest();
        let isolates = self.isolates.clone();
        let owner = self.owner();
        tokio::select! {
            biased;
            () = self.attempt.cancel().cancelled() => Err(Stop::Cancelled.into()),
            slot = isolates.admit(&owner) => Ok(slot),
            () = tokio::time::sleep_until(self.deadline()) => Err(self.over().into()),
        }
    }

    /// What it can call: what the code can, but for the tools.
    fn part_spaces(&self) -> registry::Spaces {
        let spaces = self.head.spaces.iter();
        spaces.filter(|(name, _)| name != TOOLS).cloned().collect()
    }

    fn part_limits(&self) -> Limits {
        Limits {
            wall: NO_WALL,
            ..self.mode.definition.script_limits.clone()
        }
    }

    /// When the time of one is over: the first of all.
    pub(super) fn part_deadline(&self) -> Option<(Instant, u32)> {
        let ends = |(number, part): (&u32, &Part)| (self.ends(part), *number);
        self.parts.iter().map(ends).min()
    }

    fn ends(&self, part: &Part) -> Instant {
        let left = (part.began + part.timeout()).saturating_sub(self.carried);
        self.began + left
    }

    /// The deadline of the program with this number.
    pub(super) fn deadline_of(&self, number: u32) -> Instant {
        let own = self.parts.get(&number).map(|part| self.ends(part));
        own.map_or(self.deadline(), |own| own.min(self.deadline()))
    }

    /// The time of one is over.
    pub(super) fn part_over(&mut self, number: u32) {
        if let Some(part) = self.parts.get_mut(&number) {
            part.status = Status::Stopped(IsolateError::Wall(Duration::ZERO));
            self.part_ended(number);
        }
    }

    /// Its program stopped: when it has ended, the code gets its answer.
    pub(super) fn part_ended(&mut self, number: u32) {
        let Some(part) = self.parts.get(&number) else {
            return;
        };
        if part.status == Status::Waiting {
            return;
        }
        let answer = part.answer(&part.status);
        let took = self.active().saturating_sub(part.began);
        if let Some(made) = self.waiting.get_mut(&CallId::of(0, number)) {
            made.took = took;
        }
        self.forget_part(number);
        self.answer_part(number, answer);
    }

    fn answer_part(&mut self, number: u32, answer: Answer) {
        self.ready.push_back(Ready {
            id: CallId::of(0, number),
            answer,
            journaled: None,
        });
    }

    /// It is no more, and neither are its calls but those that act outside already.
    pub(super) fn forget_part(&mut self, number: u32) {
        let Some(part) = self.parts.remove(&number) else {
            return;
        };
        self.spent += part.cpu();
        part.cancel.cancel();
        let ours = |id: &CallId| id.tool() == number;
        let open = |id: &CallId| {
            let key = self.key_of(*id);
            self.instance.effects.iter().any(|one| one.cause == key)
        };
        let left = self.waiting.keys().copied();
        let left: Vec<CallId> = left.filter(|id| ours(id) && !open(id)).collect();
        for id in left {
            self.waiting.remove(&id);
            self.current.take_if(|(current, _)| *current == id);
        }
        self.fresh.retain(|id| !ours(id));
        self.local.retain(|id| !ours(id));
        self.outside.retain(|(id, ..)| !ours(id));
        self.gone.push(number);
    }

    /// What the programs of all tools have used.
    pub(super) fn parts_cpu(&self) -> Duration {
        self.spent + self.parts.values().map(Part::cpu).sum::<Duration>()
    }

    /// The programs of all tools as they wait, to be saved.
    pub(super) fn take_parts(&mut self) -> BTreeMap<u32, (Isolate, Duration)> {
        let parts = self.parts.iter_mut();
        parts
            .filter_map(|(number, part)| Some((*number, (part.isolate.take()?, part.began))))
            .collect()
    }
}
