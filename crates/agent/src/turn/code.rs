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
    Answer, Bindings, Isolate, IsolateError, Isolates, Limits, LogLine, Program, Status, Value,
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
    approval::Question,
    code::{
        CodeError, Registry,
        journal::{self, CallId, Called, Head, Why},
        outcome::{self, Ending},
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

mod begin;
mod boundary;
mod calls;
mod end;
mod part;
pub(super) mod rollback;

use boundary::Ledger;
use calls::{Finished, Made};
use part::Part;

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

    /// What the model wrote.
    fn source(&self) -> &str {
        match self {
            Self::Code(source) => source,
            Self::Script(..) => "",
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
    id: CallId,
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
    /// With the image that the run began with.
    isolates: Isolates,
    /// Those that the program may run.
    snippets: Vec<Snippet>,
    bindings: Bindings,
    /// Nothing before it started, and after it ended or was parked.
    isolate: Option<Isolate>,
    /// It has not had to wait for what may take its time.
    busy: bool,
    status: Status,
    /// Calls that the program made and that have no answer.
    waiting: BTreeMap<CallId, Made>,
    /// Those of them that nobody has looked at.
    fresh: VecDeque<CallId>,
    ready: VecDeque<Ready>,
    /// Durable tools that the code has called, by the number of the call.
    parts: BTreeMap<u32, Part>,
    /// Those of them that have not begun, with what they are given.
    starting: VecDeque<(u32, Value)>,
    /// Those that have ended since the last boundary.
    gone: Vec<u32>,
    /// The CPU time that those that have ended took.
    spent: Duration,
    /// Calls without an outside effect, one after the other.
    local: VecDeque<CallId>,
    current: Option<(CallId, BoxFuture<'static, Finished>)>,
    /// Calls with an outside effect that are not dispatched; true when the intent is not written down.
    outside: VecDeque<(CallId, Intended, bool)>,
    beside: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Outside effects that ended and are not committed.
    settled: Vec<Finished>,
    /// What can be undone of the run; read when the first such call ends.
    undos: Option<Undos>,
    /// Effects that were cut and must not be done again.
    closed: Vec<(CallId, Intended, Fate)>,
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
        isolates,
        snippets,
        bindings: Bindings::none(),
        isolate: None,
        busy: true,
        status: Status::Waiting,
        waiting: BTreeMap::new(),
        fresh: VecDeque::new(),
        ready: VecDeque::new(),
        parts: BTreeMap::new(),
        starting: VecDeque::new(),
        gone: Vec::new(),
        spent: Duration::ZERO,
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

    /// Whose turn it is when isolates are scarce.
    fn owner(&self) -> String {
        let actor = self.attempt.actor();
        format!("{}/{}", actor.name(), actor.key())
    }

    fn active(&self) -> Duration {
        self.carried + self.began.elapsed()
    }

    /// When its time is over.
    fn deadline(&self) -> Instant {
        let wall = self.mode.job.limits(self.mode.definition).wall;
        self.began + wall.saturating_sub(self.carried)
    }

    /// Gives a program an answer and runs it until it waits again or ends, off this thread.
    async fn answer(&mut self, id: CallId, answer: Answer, now: Timestamp) -> Result<(), Broken> {
        let isolate = match id.tool() {
            0 => self.isolate.take(),
            tool => match self.parts.get_mut(&tool) {
                Some(part) => part.isolate.take(),
                // It has ended.
                None => return Ok(()),
            },
        };
        let Some(mut isolate) = isolate else {
            return Err(IsolateError::Stopped.into());
        };
        let stopper = isolate.stopper();
        let deadline = self.deadline_of(id.tool());
        let turn = self.turn().await;
        let mut task = tokio::task::spawn_blocking(move || {
            let done = isolate.answer(id.number(), &answer, now);
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
            () = tokio::time::sleep_until(deadline) => {
                stopper.stop_for_wall();
                task.await
            }
        };
        let (isolate, done) = joined.map_err(|error| IsolateError::Fault(error.to_string()))?;
        match id.tool() {
            0 => self.isolate = Some(isolate),
            tool => {
                if let Some(part) = self.parts.get_mut(&tool) {
                    part.isolate = Some(isolate);
                }
            }
        }
        self.take(id.tool());
        match done {
            // A timer that was cancelled, or a program that has ended.
            Err(IsolateError::NotWaiting(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what a program left when it stopped; 0 is the code itself.
    fn take(&mut self, tool: u32) {
        let isolate = match tool {
            0 => self.isolate.as_mut(),
            _ => self
                .parts
                .get_mut(&tool)
                .and_then(|part| part.isolate.as_mut()),
        };
        let Some(isolate) = isolate else {
            return;
        };
        let log = isolate.take_log();
        let status = isolate.status().clone();
        let calls = isolate.take_calls();
        let cancelled = isolate.take_cancelled();
        for call in calls {
            let id = CallId::of(tool, call.id);
            self.waiting.insert(id, Made::new(call.target, self.now));
            self.fresh.push_back(id);
        }
        for id in cancelled {
            let id = CallId::of(tool, id);
            self.waiting.remove(&id);
            self.fresh.retain(|fresh| *fresh != id);
        }
        match tool {
            0 => {
                self.log.extend(log);
                self.status = status;
            }
            _ => {
                for line in log {
                    tracing::debug!(run = self.head.run_id, tool, "{}", line.text);
                }
                if let Some(part) = self.parts.get_mut(&tool) {
                    part.status = status;
                }
                self.part_ended(tool);
            }
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
                    let source = self.mode.job.source();
                    let message = outcome::thrown(value, &self.program, source, &self.head.spaces);
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
            if self.may_start() {
                self.start_next().await?;
                continue;
            }
            if self.current.is_none() && self.commit_outside().await? {
                continue;
            }
            if self.current.is_none()
                && let Some(id) = self.local.pop_front()
            {
                self.current = self.work(id).map(|work| (id, work));
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
    async fn wait(&mut self, timer: Option<(Instant, CallId)>) -> Result<(), Broken> {
        let cancel = self.attempt.cancel().clone();
        let never = self.began + NO_WALL;
        let due = timer.map_or(never, |(at, _)| at);
        let deadline = self.deadline();
        let part = self.part_deadline();
        let part_over = part.map_or(never, |(at, _)| at);
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
            done = async { match &mut self.current { Some((_, work)) => work.await, None => std::future::pending().await } } => {
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
            () = tokio::time::sleep_until(part_over) => {
                if let Some((_, number)) = part {
                    self.part_over(number);
                }
                Ok(())
            }
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
        let tool = ready.id.tool();
        if tool > 0 && !self.parts.contains_key(&tool) {
            // It ended while this call was on its way.
            self.waiting.remove(&ready.id);
            return Ok(());
        }
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
        self.answer(ready.id, ready.answer, now).await
    }

    /// Somebody stopped the submission: what was done until now is kept, with the answers that were to be
    /// delivered, because what those calls wrote is kept too.
    async fn cancelled(&mut self) -> Broken {
        self.current = None;
        let mut next = Vec::new();
        for ready in std::mem::take(&mut self.ready) {
            if ready.journaled.is_none() && self.waiting.contains_key(&ready.id) {
                let now = self.tick();
                next.push(self.entry(ready.id, &ready.answer, now));
            }
        }
        match self.boundary(Why::Save, Step::new(), next).await {
            Ok(()) => Stop::Cancelled.into(),
            Err(broken) => broken,
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
