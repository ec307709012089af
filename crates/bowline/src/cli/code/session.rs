//! Runs code with bindings, here and now: nothing of it is durable.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_agent::{
    binding::{Binding, CallError},
    tool::ToolContext,
};
use bowline_sandbox::{
    isolate::{
        Answer, Bindings, Isolate, IsolateError, Isolates, IsolatesOptions, Limits, LogLine,
        Program, Slot, Start, Status, Target, Thrown, Value,
    },
    workspace::Overlay,
};
use bowline_store::StoreError;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{cache_folder, now, seed};
use crate::{cli::fault::Fault, error::Error};

/// The namespace through which a prompt is asked for the next line.
pub(super) const PROMPT: &str = "__prompt";
/// Its one method.
pub(super) const NEXT: &str = "next";

/// What code is run with, and the engine that runs it.
pub(super) struct Session {
    isolates: Isolates,
    pub(super) bindings: Vec<Arc<dyn Binding>>,
    pub(super) names: Bindings,
}

impl Session {
    /// With these bindings, and that of a prompt when there is one.
    pub(super) async fn open(bindings: Vec<Arc<dyn Binding>>, prompt: bool) -> Result<Self, Error> {
        let mut names = Bindings::none();
        for binding in &bindings {
            let methods = binding.methods().iter().map(|method| method.name.as_str());
            names = names.with(binding.name(), methods).map_err(|error| {
                let hint = "rename it in `bowline.toml`";
                Error::failure(error.code(), error.to_string(), hint)
            })?;
        }
        if prompt {
            let named = names.with(PROMPT, [NEXT]);
            names = named
                .map_err(|error| Error::failure(error.code(), error.to_string(), String::new()))?;
        }
        let options = IsolatesOptions {
            cache: cache_folder(),
            live: 2,
            ..IsolatesOptions::default()
        };
        let isolates = blocking(move || Isolates::open(&options)).await?;
        Ok(Self {
            isolates,
            bindings,
            names,
        })
    }

    /// Starts a program and runs it until it waits.
    pub(super) async fn start(
        &self,
        program: &Program,
        input: Value,
        limits: &Limits,
    ) -> Result<Isolate, Error> {
        let mut start = Start::new(seed(), now());
        start.input = input;
        start.limits = limits.clone();
        let (isolates, names) = (self.isolates.clone(), self.names.clone());
        let program = program.clone();
        blocking(move || isolates.start(slot(&isolates)?, &program, &names, &start)).await
    }

    /// Brings a program back to where it was saved.
    pub(super) async fn restore(
        &self,
        saved: Arc<Vec<u8>>,
        key: [u8; 32],
        limits: Limits,
    ) -> Result<Isolate, Error> {
        let (isolates, names) = (self.isolates.clone(), self.names.clone());
        blocking(move || isolates.restore(slot(&isolates)?, &saved, &key, &names, &limits, now()))
            .await
    }

    async fn call(
        &self,
        id: u32,
        target: Target,
        context: ToolContext,
    ) -> Result<(u32, Answer), StoreError> {
        let Target::Binding {
            namespace,
            method,
            arguments,
        } = target
        else {
            return Ok((id, Answer::Timer));
        };
        let found = self.bindings.iter().find(|one| one.name() == namespace);
        let Some(binding) = found else {
            let thrown = Thrown::new("TypeError", format!("there is no {namespace}"));
            return Ok((id, Answer::Error(thrown)));
        };
        match binding.call(&context, &method, arguments).await {
            Ok(value) => Ok((id, Answer::Value(value))),
            Err(CallError::Thrown(thrown)) => Ok((id, Answer::Error(*thrown))),
            Err(CallError::Store(error)) => Err(error),
        }
    }
}

fn slot(isolates: &Isolates) -> Result<Slot, IsolateError> {
    isolates.try_admit("code").ok_or(IsolateError::QueueFull(1))
}

/// A program that asked for the next line.
pub(super) struct Asked {
    pub(super) id: u32,
    /// What it told of the last one.
    pub(super) said: Value,
    /// When; timers that were due then are answered first.
    at: Instant,
}

/// A program on its way.
pub(super) struct Running<'a> {
    pub(super) session: &'a Session,
    pub(super) isolate: Isolate,
    /// How long it may take from now on.
    pub(super) wall: Duration,
    pub(super) files: Option<Overlay>,
    /// Timers by when they are due.
    pub(super) due: BTreeSet<(Instant, u32)>,
    /// Cancelled by whoever stops it.
    pub(super) stop: CancellationToken,
    /// Is given what it prints.
    pub(super) print: &'a mut (dyn FnMut(Vec<LogLine>) + Send),
    begun: Instant,
    effects: String,
    asked: Option<Asked>,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        session: &'a Session,
        isolate: Isolate,
        wall: Duration,
        files: Option<Overlay>,
        print: &'a mut (dyn FnMut(Vec<LogLine>) + Send),
    ) -> Self {
        // Each run has effects of its own: a service must not take one call for another of before.
        let random = seed();
        let effects = random.iter().take(8).map(|byte| format!("{byte:02x}"));
        Self {
            session,
            isolate,
            wall,
            files,
            due: BTreeSet::new(),
            stop: CancellationToken::new(),
            print,
            begun: Instant::now(),
            effects: effects.collect(),
            asked: None,
        }
    }

    /// Runs it until it ends or asks for the next line; timers take real time.
    pub(super) async fn run(mut self) -> Result<(Self, Option<Asked>), Error> {
        let mut calls = FuturesUnordered::new();
        let session = self.session;
        let stop = self.stop.clone();
        // What is not awaited ends with the run.
        let cancel = stop.child_token();
        let _ends = cancel.clone().drop_guard();
        loop {
            (self.print)(self.isolate.take_log());
            if *self.isolate.status() != Status::Waiting {
                return Ok((self, None));
            }
            for call in self.isolate.take_calls() {
                match call.target {
                    Target::Timer { after } => {
                        let at = Instant::now().checked_add(after);
                        self.due.extend(at.map(|at| (at, call.id)));
                    }
                    Target::Binding {
                        namespace,
                        arguments,
                        ..
                    } if namespace == PROMPT => {
                        let said = arguments.into_iter().next().unwrap_or_default();
                        let (id, at) = (call.id, Instant::now());
                        self.asked = Some(Asked { id, said, at });
                    }
                    target => {
                        let context = self.context(call.id, &cancel);
                        calls.push(session.call(call.id, target, context));
                    }
                }
            }
            for id in self.isolate.take_cancelled() {
                self.due.retain(|(_, timer)| *timer != id);
            }
            let next = self.due.first().map(|(at, _)| *at);
            if calls.is_empty()
                && let Some(asked) = self
                    .asked
                    .take_if(|asked| next.is_none_or(|at| at > asked.at))
            {
                return Ok((self, Some(asked)));
            }
            if calls.is_empty() && next.is_none() {
                self.isolate.discard(IsolateError::Deadlock);
                continue;
            }
            let over = self.begun + self.wall;
            let until = next.map_or(over, |at| at.min(over));
            let (id, answer) = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.isolate.discard(IsolateError::Stopped);
                    continue;
                }
                Some(done) = calls.next() => done?,
                () = tokio::time::sleep_until(until.into()) => {
                    if Instant::now() >= over {
                        self.isolate.discard(IsolateError::Wall(self.wall));
                        continue;
                    }
                    match self.due.pop_first() {
                        Some((_, id)) => (id, Answer::Timer),
                        None => continue,
                    }
                }
            };
            self = self.answer(id, answer).await?;
        }
    }

    /// Delivers an answer, off this thread.
    pub(super) async fn answer(mut self, id: u32, answer: Answer) -> Result<Self, Error> {
        let mut isolate = self.isolate;
        let stopper = isolate.stopper();
        let work = blocking(move || match isolate.answer(id, &answer, now()) {
            // A timer that was cancelled meanwhile.
            Ok(()) | Err(IsolateError::NotWaiting(_)) => Ok(isolate),
            Err(error) => Err(error),
        });
        tokio::pin!(work);
        let over = self.begun + self.wall;
        self.isolate = tokio::select! {
            biased;
            done = &mut work => done?,
            () = self.stop.cancelled() => {
                stopper.stop();
                work.await?
            }
            () = tokio::time::sleep_until(over.into()) => {
                stopper.stop_for_wall();
                work.await?
            }
        };
        Ok(self)
    }

    fn context(&self, id: u32, cancel: &CancellationToken) -> ToolContext {
        ToolContext {
            call_id: format!("call_{id}"),
            effect_id: Some(format!("eff_{}_{id}", self.effects)),
            files: self.files.clone(),
            shell: None,
            history: None,
            now: now(),
            cancel: cancel.clone(),
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IsolateError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Fault::Output(std::io::Error::other(error)))??)
}
