//! A program that runs from its beginning to its end, without being written down.
//!
//! What it calls is done as it calls it: calls without an outside effect one after the other, each on
//! the files that the last one left, others beside them. Nobody can be asked meanwhile, and when the
//! process dies the whole is one call that was cut.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_sandbox::isolate::{
    Answer, Bindings, Call, Isolate, IsolateError, Limits, LogLevel, Program, Start, Status,
    Target, Thrown, Value,
};
use bowline_store::{BlobId, StoreError, Timestamp};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Engine, Registry};
use crate::{
    binding::{Binding, CallError, State},
    definition::{Approval, Definition},
    tool::{Effect, OnCrash, ToolContext},
};

/// Most calls with an outside effect that run at once; others wait.
const AT_ONCE: usize = 16;
/// Most lines of a stack that are told.
const STACK: usize = 6;

/// Where programs run, and what they may call.
pub(crate) struct Place {
    engine: Arc<Engine>,
    /// Whose turn it is when isolates are scarce.
    owner: String,
    bindings: Vec<Arc<dyn Binding>>,
    limits: Limits,
    /// `binding.method` that a person has to be asked about first.
    asks: BTreeSet<String>,
}

impl Place {
    pub(crate) fn new(definition: &Definition, engine: &Arc<Engine>, registry: &Registry) -> Self {
        let asks = |(name, approval): (&String, &Approval)| {
            (*approval != Approval::Never && registry.has(name)).then(|| name.clone())
        };
        Self {
            engine: Arc::clone(engine),
            owner: definition.name.to_string(),
            bindings: registry.bindings().to_vec(),
            limits: definition.script_limits.clone(),
            asks: definition.approvals.iter().filter_map(asks).collect(),
        }
    }
}

/// A program to run.
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Program,
    pub(crate) input: Value,
    pub(crate) wall: Duration,
    /// Whether it may act outside.
    pub(crate) outside: bool,
}

/// Why there is no result.
pub(crate) enum Broken {
    /// It ended otherwise; this is told.
    Told(String),
    /// The store failed.
    Store(StoreError),
}

impl From<IsolateError> for Broken {
    fn from(error: IsolateError) -> Self {
        Self::Told(format!("{error} ({})", error.code()))
    }
}

/// A call that ended.
struct Ended {
    id: u32,
    result: Result<Value, CallError>,
    /// The files of a call that returned.
    files: Option<bowline_sandbox::workspace::Overlay>,
}

struct Run<'a> {
    place: &'a Place,
    context: &'a ToolContext,
    outside: bool,
    cancel: CancellationToken,
    began: Instant,
    timers: BTreeSet<(Instant, u32)>,
    local: VecDeque<BoxFuture<'static, Ended>>,
    waiting: VecDeque<BoxFuture<'static, Ended>>,
    beside: FuturesUnordered<BoxFuture<'static, Ended>>,
    queue: VecDeque<Call>,
}

/// Runs it to its end.
pub(crate) async fn run(
    place: &Place,
    context: &ToolContext,
    job: Job<'_>,
) -> Result<Value, Broken> {
    let began = Instant::now();
    let deadline = began + job.wall;
    let cancel = context.cancel.child_token();
    let _stop = cancel.clone().drop_guard();
    let isolates = place.engine.isolates().await?;
    let slot = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(IsolateError::Stopped.into()),
        () = tokio::time::sleep_until(deadline) => return Err(IsolateError::Wall(job.wall).into()),
        slot = isolates.admit(&place.owner) => slot?,
    };
    let mut bindings = Bindings::none();
    for binding in &place.bindings {
        let methods = binding.methods().iter().map(|method| method.name.as_str());
        bindings = bindings
            .with(binding.name(), methods)
            .map_err(|error| Broken::Told(error.to_string()))?;
    }
    // The same call begins with the same numbers, also when it is run again.
    let mut start = Start::new(
        *BlobId::of(context.call_id.as_bytes()).as_bytes(),
        context.now,
    );
    start.input = job.input;
    start.limits = Limits {
        wall: job.wall,
        ..place.limits.clone()
    };
    let mut run = Run {
        place,
        context,
        outside: job.outside,
        cancel,
        began,
        timers: BTreeSet::new(),
        local: VecDeque::new(),
        waiting: VecDeque::new(),
        beside: FuturesUnordered::new(),
        queue: VecDeque::new(),
    };
    let program = job.program.clone();
    let first = move || isolates.start(slot, &program, &bindings, &start);
    let isolate = slice(&place.engine.turns, first).await?;
    let isolate = run.drive(isolate, deadline, job.wall, job.name).await?;
    told(isolate.status(), job.program)
}

impl Run<'_> {
    /// What the program's clock shows.
    fn now(&self) -> Timestamp {
        self.context.now.after(self.began.elapsed())
    }

    async fn drive(
        &mut self,
        mut isolate: Isolate,
        deadline: Instant,
        wall: Duration,
        name: &str,
    ) -> Result<Isolate, Broken> {
        let turns = Arc::clone(&self.place.engine.turns);
        let mut current: Option<BoxFuture<'static, Ended>> = None;
        loop {
            for line in isolate.take_log() {
                log(name, line.level, &line.text);
            }
            if *isolate.status() != Status::Waiting {
                return Ok(isolate);
            }
            for call in isolate.take_calls() {
                self.queue.push_back(call);
            }
            for id in isolate.take_cancelled() {
                self.timers.retain(|(_, timer)| *timer != id);
            }
            if let Some((id, refused)) = self.dispatch() {
                isolate = answer(&turns, isolate, id, Answer::Error(refused), self.now()).await?;
                continue;
            }
            if current.is_none() {
                current = self.local.pop_front();
            }
            while self.beside.len() < AT_ONCE
                && let Some(call) = self.waiting.pop_front()
            {
                self.beside.push(call);
            }
            let due = self.timers.first().copied();
            if current.is_none() && self.beside.is_empty() && due.is_none() {
                isolate.discard(IsolateError::Deadlock);
                continue;
            }
            let (id, given) = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    isolate.discard(IsolateError::Stopped);
                    continue;
                }
                () = tokio::time::sleep_until(deadline) => {
                    isolate.discard(IsolateError::Wall(wall));
                    continue;
                }
                ended = async { match &mut current { Some(call) => call.await, None => std::future::pending().await } } => {
                    current = None;
                    answered(ended)?
                }
                Some(ended) = self.beside.next(), if !self.beside.is_empty() => answered(ended)?,
                id = async { match due { Some((at, id)) => { tokio::time::sleep_until(at).await; id } None => std::future::pending().await } } => {
                    self.timers.retain(|(_, timer)| *timer != id);
                    (id, Answer::Timer)
                }
            };
            isolate = answer(&turns, isolate, id, given, self.now()).await?;
        }
    }

    /// Begins what the program asked for; gives the first call that cannot be, and why.
    fn dispatch(&mut self) -> Option<(u32, Thrown)> {
        while let Some(call) = self.queue.pop_front() {
            match call.target {
                Target::Timer { after } => {
                    self.timers.insert((Instant::now() + after, call.id));
                }
                Target::Binding {
                    namespace,
                    method,
                    arguments,
                } => {
                    if let Err(refused) = self.begin(call.id, &namespace, &method, arguments) {
                        return Some((call.id, refused));
                    }
                }
            }
        }
        None
    }

    fn begin(
        &mut self,
        id: u32,
        namespace: &str,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<(), Thrown> {
        let refuse = |what: String| Err(Thrown::new("Error", what));
        let binding = self
            .place
            .bindings
            .iter()
            .find(|one| one.name() == namespace);
        let known = binding.and_then(|one| one.methods().iter().find(|known| known.name == method));
        let (Some(binding), Some(known)) = (binding, known) else {
            return refuse(format!("there is no {namespace}.{method}"));
        };
        let path = format!("{namespace}.{method}");
        if known.approval || self.place.asks.contains(&path) {
            return refuse(format!(
                "{path} needs a person's consent; only a tool with `durable: true`, and code of the model, can wait for it"
            ));
        }
        let local = known.effect == Effect::None;
        // What may be done again does no harm in a tool that is run again.
        let again = matches!(known.effect, Effect::None | Effect::Outside(OnCrash::Retry));
        if !again && !self.outside {
            return refuse(format!(
                "{path} acts outside, and the tool says `effect: \"none\"`; remove that"
            ));
        }
        if namespace == State::NAME && self.context.files.is_none() {
            return refuse(
                "the files are out of reach of a tool that may act outside; let it say `durable: true`, or `effect: \"none\"`"
                    .to_owned(),
            );
        }
        let beside = !local || binding.beside(method);
        let files = (!beside).then(|| self.context.files.clone()).flatten();
        let context = ToolContext {
            call_id: format!("{}.{id}", self.context.call_id),
            effect_id: (!local).then(|| {
                let whole = self.context.effect_id.as_ref();
                format!("{}.{id}", whole.unwrap_or(&self.context.call_id))
            }),
            files: None,
            cancel: self.cancel.child_token(),
            now: self.now(),
            ..self.context.clone()
        };
        let (binding, method) = (Arc::clone(binding), method.to_owned());
        let work = async move {
            // Here, because it must have what the call before it wrote.
            let overlay = files
                .as_ref()
                .map(bowline_sandbox::workspace::Overlay::child);
            let context = ToolContext {
                files: overlay.clone(),
                ..context
            };
            let call = std::panic::AssertUnwindSafe(binding.call(&context, &method, arguments));
            let (result, returned) = match call.catch_unwind().await {
                Ok(result) => (result, true),
                Err(_) => (
                    Err(CallError::new("Error", format!("{path} crashed"))),
                    false,
                ),
            };
            Ended {
                id,
                result,
                files: overlay.filter(|_| returned),
            }
        };
        if !beside {
            self.local.push_back(work.boxed());
        } else {
            self.waiting.push_back(work.boxed());
        }
        Ok(())
    }
}

/// Runs a program off the async threads until it waits or ends.
async fn slice(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<Isolate, IsolateError> + Send + 'static,
) -> Result<Isolate, Broken> {
    let permit = Arc::clone(turns).acquire_owned().await;
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    match task.await {
        Ok(isolate) => Ok(isolate?),
        Err(error) => Err(IsolateError::Engine(error.to_string()).into()),
    }
}

async fn answer(
    turns: &Arc<Semaphore>,
    mut isolate: Isolate,
    id: u32,
    answer: Answer,
    now: Timestamp,
) -> Result<Isolate, Broken> {
    let work = move || isolate.answer(id, &answer, now).map(|()| isolate);
    slice(turns, work).await
}

fn answered(ended: Ended) -> Result<(u32, Answer), Broken> {
    if let Some(files) = ended.files
        && let Err(error) = files.merge()
    {
        return Err(Broken::Told(error.to_string()));
    }
    match ended.result {
        Ok(value) => Ok((ended.id, Answer::Value(value))),
        Err(CallError::Thrown(thrown)) => Ok((ended.id, Answer::Error(*thrown))),
        Err(CallError::Store(error)) => Err(Broken::Store(error)),
    }
}

fn log(name: &str, level: LogLevel, text: &str) {
    match level {
        LogLevel::Debug | LogLevel::Info => tracing::debug!(tool = name, "{text}"),
        LogLevel::Warn => tracing::info!(tool = name, "{text}"),
        LogLevel::Error => tracing::warn!(tool = name, "{text}"),
    }
}

/// The result of a program that ended, or what is told of it.
pub(crate) fn told(status: &Status, program: &Program) -> Result<Value, Broken> {
    match status {
        Status::Completed(value) => Ok(value.clone()),
        Status::Threw(Value::Error(error)) => {
            let stack = program.locate(&error.stack);
            let mut text = error.to_string();
            for line in stack.lines().filter(|line| line.contains(':')).take(STACK) {
                text.push('\n');
                text.push_str(line.trim_end());
            }
            Err(Broken::Told(text))
        }
        Status::Threw(value) => Err(Broken::Told(format!("the tool threw {}", value.to_json()))),
        Status::Stopped(error) => Err(error.clone().into()),
        Status::Waiting => Err(IsolateError::Deadlock.into()),
    }
}
