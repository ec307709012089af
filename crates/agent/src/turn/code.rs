//! A run of code, driven to its end.
//!
//! The program runs until it waits, off the async threads. Its calls are done as their effect says,
//! and answered one at a time, in the order of the journal: that order alone decides what the program
//! does next. At boundaries what happened since the last one becomes durable in one batch; `boundary`
//! says what that is, `calls` what becomes of a call.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_model::ToolCall;
use bowline_runtime::{
    Attempt, Step,
    effect::{self, Intended, Status as Fate, undo::Undos},
};
use bowline_sandbox::isolate::{
    Answer, Bindings, Isolate, IsolateError, Limits, LogLine, Program, Start, Status, Thrown, Value,
};
use bowline_store::{StoreError, Timestamp};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::{
    Stop,
    tools::{AT_ONCE, Ended, Running, SAVE_AFTER},
};
use crate::{
    approval::{Decision, Question},
    code::{
        CodeError, Registry,
        journal::{self, Called, Head, Why},
        outcome::{self, Ending},
        registry,
        snippet::{self, Snippet},
    },
    definition::Definition,
    instance::AgentInstance,
    program::workspace_failure,
    tool::{
        ToolError, ToolOutput,
        script::{self, Script},
    },
};

mod boundary;
mod calls;
pub(super) mod rollback;

use boundary::Ledger;
use calls::{Finished, Made};

/// A run that waits longer for a call lets another one begin.
const REST_AFTER: Duration = Duration::from_millis(20);
/// How long a run works before what it did is made durable without another reason.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// What the engine gets as the limit of wall clock: it is kept here, because time in which nobody worked
/// on the run does not count.
const NO_WALL: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// What is run.
pub(super) enum Job {
    /// Code that the model wrote.
    Code(String),
    /// A durable tool in TypeScript, with its arguments.
    Script(Arc<Script>, Json),
}

impl Job {
    /// The snippets that it may run.
    fn snippets(&self, registry: &Registry) -> Vec<Snippet> {
        match self {
            Self::Code(source) => snippet::wanted(source, registry.snippets()).to_vec(),
            Self::Script(..) => Vec::new(),
        }
    }

    fn program(&self, snippets: &[Snippet]) -> Result<Program, IsolateError> {
        match self {
            Self::Code(source) => snippet::program(source, snippets),
            Self::Script(script, _) => Ok(script.program.clone()),
        }
    }

    fn input(&self) -> Value {
        match self {
            Self::Code(_) => Value::Undefined,
            Self::Script(_, arguments) => Value::from(arguments.clone()),
        }
    }

    fn limits(&self, definition: &Definition) -> Limits {
        match self {
            Self::Code(_) => definition.code.clone().unwrap_or_default(),
            Self::Script(script, _) => Limits {
                wall: script.policy.timeout,
                ..definition.script_limits.clone()
            },
        }
    }
}

/// How the agent runs code.
#[derive(Clone, Copy)]
pub(super) struct Mode<'a> {
    pub(super) job: &'a Job,
    pub(super) definition: &'a Definition,
    pub(super) registry: &'a Arc<Registry>,
}

/// An answer that waits for its turn.
struct Ready {
    id: u32,
    answer: Answer,
    /// The time at which it is delivered, when it is in the journal already.
    journaled: Option<Timestamp>,
}

/// A run while it is worked on.
struct Drive<'a> {
    instance: &'a mut AgentInstance,
    attempt: &'a Attempt,
    running: &'a mut Running,
    mode: Mode<'a>,
    call: ToolCall,
    limits: Limits,
    head: Head,
    program: Program,
    /// Those that the program may run.
    snippets: Vec<Snippet>,
    bindings: Bindings,
    /// Nothing before it started, and after it ended or was parked.
    isolate: Option<Isolate>,
    /// It has not had to wait for what may take its time.
    busy: bool,
    status: Status,
    /// Calls that the program made and that have no answer.
    waiting: BTreeMap<u32, Made>,
    /// Those of them that nobody has looked at.
    fresh: VecDeque<u32>,
    ready: VecDeque<Ready>,
    /// Calls without an outside effect, one after the other.
    local: VecDeque<u32>,
    current: Option<BoxFuture<'static, Finished>>,
    /// Calls with an outside effect that are not dispatched; true when the intent is not written down.
    outside: VecDeque<(u32, Intended, bool)>,
    beside: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Outside effects that ended and are not committed.
    settled: Vec<Finished>,
    /// What can be undone of the run; read when the first such call ends.
    undos: Option<Undos>,
    /// Effects that were cut and must not be done again.
    closed: Vec<(u32, Intended, Fate)>,
    log: Vec<LogLine>,
    /// Since the last boundary.
    called: Vec<Called>,
    ledger: Ledger,
    /// What the program's clock shows.
    now: Timestamp,
    /// How long it had been worked on before this attempt.
    carried: Duration,
    began: Instant,
}

/// Why a run does not go on.
enum Broken {
    /// The step ends.
    Stop(Stop),
    /// The run ends, and the model is told.
    Run(Option<&'static str>, String),
}

impl<T: Into<Stop>> From<T> for Broken {
    fn from(stop: T) -> Self {
        Self::Stop(stop.into())
    }
}

impl From<IsolateError> for Broken {
    fn from(error: IsolateError) -> Self {
        Self::Run(Some(error.code()), error.to_string())
    }
}

impl From<CodeError> for Broken {
    fn from(error: CodeError) -> Self {
        Self::Run(Some(error.code()), error.to_string())
    }
}

/// Runs the code of a call to its end; what it did since the last boundary is in `running`.
pub(super) async fn run(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    running: &mut Running,
    mode: Mode<'_>,
    call: ToolCall,
) -> Result<Ended, Stop> {
    let began = Instant::now();
    let limits = mode.job.limits(mode.definition);
    let before = open(attempt, &call).await?;
    let snippets = match &before {
        Some(open) => open.snippets.clone(),
        None => mode.job.snippets(mode.registry),
    };
    let program = mode.job.program(&snippets);
    let isolates = instance.shared.engine.isolates().await;
    let (program, isolates) = match (program, isolates) {
        (Ok(program), Ok(isolates)) => (program, isolates),
        (Err(error), _) | (_, Err(error)) => {
            let ending = Ending::Error {
                code: Some(error.code()),
                message: error.to_string(),
            };
            return Ok(ended(
                mode.job,
                call,
                &ending,
                Vec::new(),
                &[],
                began.elapsed(),
            ));
        }
    };
    let head = match &before {
        Some(open) => open.head.clone(),
        None => Head {
            run_id: instance.shared.sources.id("run_"),
            tool_call_id: call.id.clone(),
            submission_id: attempt.submission().id.clone(),
            seed: journal::new_seed(&instance.shared.sources),
            started: attempt.now(),
            image: isolates.image().to_owned(),
            spaces: mode.registry.spaces(),
        },
    };
    let mut drive = Drive {
        now: head.started,
        ledger: Ledger::new(before.is_some()),
        limits: Limits {
            wall: NO_WALL,
            ..limits.clone()
        },
        instance,
        attempt,
        running,
        mode,
        call,
        head,
        program,
        snippets,
        bindings: Bindings::none(),
        isolate: None,
        busy: true,
        status: Status::Waiting,
        waiting: BTreeMap::new(),
        fresh: VecDeque::new(),
        ready: VecDeque::new(),
        local: VecDeque::new(),
        current: None,
        outside: VecDeque::new(),
        beside: FuturesUnordered::new(),
        settled: Vec::new(),
        undos: None,
        closed: Vec::new(),
        log: Vec::new(),
        called: Vec::new(),
        carried: Duration::ZERO,
        began,
    };
    let outcome = match drive.to_roll_back() {
        Some(why) => drive.roll_back(why).await,
        None => match drive.begin(before).await {
            Ok(()) => drive.drive().await,
            Err(broken) => Err(broken),
        },
    };
    match outcome {
        Ok(ending) => drive.finish(ending).await,
        Err(Broken::Stop(stop)) => Err(stop),
        Err(Broken::Run(code, message)) => drive.finish(Ending::Error { code, message }).await,
    }
}

/// The run of this call that was begun before.
async fn open(attempt: &Attempt, call: &ToolCall) -> Result<Option<journal::Open>, StoreError> {
    let open = journal::open(&**attempt.store(), attempt.actor()).await?;
    let submission = &attempt.submission().id;
    Ok(open
        .filter(|open| open.head.tool_call_id == call.id && open.head.submission_id == *submission))
}

fn ended(
    job: &Job,
    call: ToolCall,
    ending: &Ending,
    log: Vec<String>,
    unawaited: &[String],
    took: Duration,
) -> Ended {
    let result = match job {
        Job::Code(_) => {
            let told = outcome::told(ending, log, unawaited);
            let text = told.to_string();
            match ending {
                Ending::Completed(_) => Ok(ToolOutput {
                    output: Some(told),
                    ..ToolOutput::text(text)
                }),
                Ending::Error { .. } | Ending::RolledBack { .. } => Err(ToolError::new(text)),
            }
        }
        Job::Script(script, _) => script::result(&script.spec.name, ending, &log, unawaited),
    };
    Ended {
        result,
        took,
        ..Ended::refused(call, String::new())
    }
}

impl Drive<'_> {
    /// Starts the program, or brings it to where it stood.
    async fn begin(&mut self, before: Option<journal::Open>) -> Result<(), Broken> {
        self.bindings = registry::bind(&self.head.spaces)?;
        let isolates = self.instance.shared.engine.isolates().await?;
        if self.head.image != isolates.image() {
            return Err(IsolateError::SavedImage.into());
        }
        let actor = self.attempt.actor();
        let owner = format!("{}/{}", actor.name(), actor.key());
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
        self.take();
        for entry in entries {
            self.replay(entry).await?;
        }
        Ok(())
    }

    /// Gives an answer of the journal again.
    async fn replay(&mut self, entry: journal::Entry) -> Result<(), Broken> {
        let made = self.waiting.remove(&entry.id);
        let path = made.map(|made| made.path());
        if path.as_ref() != Some(&entry.path) {
            return Err(CodeError::Diverged {
                before: entry.path,
                now: path.unwrap_or_else(|| "nothing".to_owned()),
            }
            .into());
        }
        self.fresh.retain(|id| *id != entry.id);
        self.ledger.next += 1;
        self.ledger.count(&entry);
        self.carried = self.carried.max(Duration::from_millis(entry.active_ms));
        self.now = self.now.max(entry.now);
        let (id, now, answer) = (entry.id, entry.now, Answer::from(entry.answer));
        self.enter(move |isolate| isolate.answer(id, &answer, now))
            .await
    }

    /// Waits for a turn on the CPU.
    async fn turn(&mut self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.instance.shared.engine.turns)
            .acquire_owned()
            .await
            .ok()
    }

    /// The time now, which never goes back for the program.
    fn tick(&mut self) -> Timestamp {
        self.now = self.now.max(self.attempt.now());
        self.now
    }

    fn active(&self) -> Duration {
        self.carried + self.began.elapsed()
    }

    /// When its time is over.
    fn deadline(&self) -> Instant {
        let wall = self.mode.job.limits(self.mode.definition).wall;
        self.began + wall.saturating_sub(self.carried)
    }

    /// Runs the program until it waits again or ends, off this thread.
    async fn enter(
        &mut self,
        work: impl FnOnce(&mut Isolate) -> Result<(), IsolateError> + Send + 'static,
    ) -> Result<(), Broken> {
        let Some(mut isolate) = self.isolate.take() else {
            return Err(IsolateError::Stopped.into());
        };
        let stopper = isolate.stopper();
        let turn = self.turn().await;
        let mut task = tokio::task::spawn_blocking(move || {
            let done = work(&mut isolate);
            drop(turn);
            (isolate, done)
        });
        let joined = tokio::select! {
            biased;
            joined = &mut task => joined,
            () = self.attempt.cancel().cancelled() => {
                stopper.stop();
                task.await
            }
            () = tokio::time::sleep_until(self.deadline()) => {
                stopper.stop_for_wall();
                task.await
            }
        };
        let (isolate, done) = joined.map_err(|error| IsolateError::Fault(error.to_string()))?;
        self.isolate = Some(isolate);
        self.take();
        match done {
            // A timer that was cancelled, or a program that has ended.
            Err(IsolateError::NotWaiting(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the program left when it stopped.
    fn take(&mut self) {
        let Some(isolate) = &mut self.isolate else {
            return;
        };
        self.log.extend(isolate.take_log());
        self.status = isolate.status().clone();
        for call in isolate.take_calls() {
            self.waiting
                .insert(call.id, Made::new(call.target, self.now));
            self.fresh.push_back(call.id);
        }
        for id in isolate.take_cancelled() {
            self.waiting.remove(&id);
            self.fresh.retain(|fresh| *fresh != id);
        }
    }

    /// Goes on until the program has ended.
    async fn drive(&mut self) -> Result<Ending, Broken> {
        let cancel = self.attempt.cancel().clone();
        loop {
            if cancel.is_cancelled() {
                return Err(self.cancelled().await);
            }
            match &self.status {
                Status::Waiting => {}
                Status::Completed(value) => return Ok(Ending::Completed(value.clone())),
                Status::Threw(value) => {
                    let globals = self.head.spaces.iter().map(|(name, _)| name.clone());
                    let globals: Vec<_> = globals.collect();
                    let message = outcome::thrown(value, &self.program, &globals);
                    return Ok(Ending::Error {
                        code: None,
                        message,
                    });
                }
                Status::Stopped(IsolateError::Wall(_)) => return Err(self.over().into()),
                Status::Stopped(error) => return Err(error.clone().into()),
            }
            if let Some(ready) = self.ready.pop_front() {
                self.deliver(ready).await?;
                continue;
            }
            if let Some(id) = self.fresh.pop_front() {
                self.decide(id);
                continue;
            }
            if self.current.is_none() && self.commit_outside().await? {
                continue;
            }
            if self.current.is_none()
                && let Some(id) = self.local.pop_front()
            {
                self.current = self.work(id);
            }
            let timer = self.next_timer();
            if self.current.is_none() && self.beside.is_empty() && timer.is_none() {
                return Err(self.park().await);
            }
            self.wait(timer).await?;
        }
    }

    /// Settles and dispatches what acts outside; false when there is nothing to do.
    async fn commit_outside(&mut self) -> Result<bool, Broken> {
        if !self.settled.is_empty() || !self.closed.is_empty() {
            self.settle().await?;
            return Ok(true);
        }
        let mut step = Step::new();
        let mut start = Vec::new();
        while self.beside.len() + start.len() < AT_ONCE
            && let Some((id, intended, new)) = self.outside.pop_front()
        {
            if new {
                effect::intend(&mut step, &intended);
                self.instance.effects.push(intended.clone());
            }
            start.push((id, intended));
        }
        if start.is_empty() {
            return Ok(false);
        }
        if !step.is_empty() {
            self.boundary(Why::Dispatch, step, Vec::new()).await?;
        }
        for (id, intended) in start {
            if self.in_workspace(id) {
                self.local.push_back(id);
                continue;
            }
            let work = self.act(id, Some(intended.effect_id), None);
            self.beside.extend(work);
        }
        Ok(true)
    }

    /// Waits until something happens.
    async fn wait(&mut self, timer: Option<(Instant, u32)>) -> Result<(), Broken> {
        let cancel = self.attempt.cancel().clone();
        let never = self.began + NO_WALL;
        let due = timer.map_or(never, |(at, _)| at);
        let deadline = self.deadline();
        if self.current.is_none() {
            self.rest();
        }
        let rest_at = self.busy.then(|| Instant::now() + REST_AFTER);
        let save_at = self
            .save_at()
            .filter(|_| self.current.is_none())
            .unwrap_or(never);
        tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(()),
            done = async { match &mut self.current { Some(work) => work.await, None => std::future::pending().await } } => {
                self.current = None;
                self.keep(done).map_err(Broken::Stop)
            }
            Some(done) = self.beside.next(), if !self.beside.is_empty() => {
                if done.effect_id.is_some() {
                    self.settled.push(done);
                } else {
                    self.answered(done).map_err(Broken::Stop)?;
                }
                Ok(())
            }
            () = tokio::time::sleep_until(due) => {
                if let Some((_, id)) = timer {
                    self.ready.push_back(Ready { id, answer: Answer::Timer, journaled: None });
                }
                Ok(())
            }
            () = tokio::time::sleep_until(deadline) => Err(self.over().into()),
            () = tokio::time::sleep_until(rest_at.unwrap_or(never)) => {
                self.rest();
                Ok(())
            }
            () = tokio::time::sleep_until(save_at) => self.boundary(Why::Save, Step::new(), Vec::new()).await,
        }
    }

    /// Another one may begin: this one waits for what may take its time.
    fn rest(&mut self) {
        if let Some(isolate) = self.isolate.as_mut().filter(|_| self.busy) {
            isolate.rest();
            self.busy = false;
        }
    }

    /// Its time is over.
    fn over(&self) -> IsolateError {
        IsolateError::Wall(self.mode.job.limits(self.mode.definition).wall)
    }

    /// When what it did is made durable without another reason.
    fn save_at(&self) -> Option<Instant> {
        if self.running.has_pending() {
            return Some(self.began + SAVE_AFTER);
        }
        self.ledger.is_due().then(|| self.ledger.since + SAVE_EVERY)
    }

    /// A local call returned: what it wrote is seen by the next one.
    fn keep(&mut self, mut done: Finished) -> Result<(), Stop> {
        if let Some(files) = done.files.take() {
            files.merge().map_err(|error| workspace_failure(&error))?;
        }
        if done.effect_id.is_some() {
            self.settled.push(done);
            return Ok(());
        }
        self.answered(done)
    }

    /// A call returned; its answer is delivered next.
    fn answered(&mut self, done: Finished) -> Result<(), Stop> {
        let answer = done.answer()?;
        if let Some(made) = self.waiting.get_mut(&done.id) {
            made.took = done.took;
        }
        self.ready.push_back(Ready {
            id: done.id,
            answer,
            journaled: None,
        });
        Ok(())
    }

    /// Delivers an answer, and runs the program until it waits again or ends.
    async fn deliver(&mut self, ready: Ready) -> Result<(), Broken> {
        let now = match ready.journaled {
            Some(now) => now,
            None => {
                let now = self.tick();
                let entry = self.entry(ready.id, &ready.answer, now);
                self.ledger.delivered(entry);
                now
            }
        };
        self.waiting.remove(&ready.id);
        let (id, answer) = (ready.id, ready.answer);
        self.enter(move |isolate| isolate.answer(id, &answer, now))
            .await
    }

    /// Somebody stopped the submission: what was done until now is kept.
    async fn cancelled(&mut self) -> Broken {
        self.current = None;
        match self.boundary(Why::Save, Step::new(), Vec::new()).await {
            Ok(()) => Stop::Cancelled.into(),
            Err(broken) => broken,
        }
    }

    /// The program has ended, or cannot go on: the outcome goes with the batch.
    async fn finish(mut self, ending: Ending) -> Result<Ended, Stop> {
        self.current = None;
        let mut step = Step::new();
        let unawaited = self.unawaited(&mut step).await?;
        self.withdraw(&mut step);
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
            names.extend(self.waiting.remove(&done.id).map(|made| made.path()));
        }
        for (_, intended, status) in std::mem::take(&mut self.closed) {
            self.settle_effect(step, &intended.effect_id, status);
        }
        let text = "the code ended before this call was answered; await every call";
        let left: Vec<u32> = self.waiting.keys().copied().collect();
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
            names.extend(self.waiting.get(&id).map(Made::path));
        }
        Ok(names)
    }

    /// What people were asked for the run is not asked any more.
    fn withdraw(&mut self, step: &mut Step) {
        let prefix = format!("{}#", self.call.id);
        let approvals = self.instance.conversation.approvals.values();
        let open: Vec<_> = approvals
            .filter(|one| one.answer.is_none() && one.tool_call_id.starts_with(&prefix))
            .cloned()
            .collect();
        for approval in open {
            let submission = self.attempt.submission();
            let withdrawn = Decision::Withdraw.into();
            self.instance.decide(step, submission, approval, withdrawn);
        }
    }
}

/// Work of the engine, off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IsolateError> + Send + 'static,
) -> Result<T, IsolateError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| IsolateError::Fault(error.to_string()))?
}
