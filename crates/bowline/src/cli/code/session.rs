//! Runs code with bindings, here and now: nothing of it is durable.

use std::{
    collections::{BTreeSet, VecDeque},
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
        Program, Start, Status, Target, Thrown, Value,
    },
    workspace::Overlay,
};
use bowline_store::{StoreError, Timestamp};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{cache_folder, now, print, seed};
use crate::{
    cli::{fault::Fault, terminal::Terminal},
    error::Error,
};

/// What code is run with, and the engine that runs it.
pub(super) struct Session {
    isolates: Isolates,
    bindings: Vec<Arc<dyn Binding>>,
    names: Bindings,
    files: Option<Overlay>,
    terminal: Terminal,
    /// Decides what is random, and the clock that a program begins with.
    begin: ([u8; 32], Timestamp),
}

/// The answers of a run, in their order: the same code with the same answers does the same again.
pub(super) type Journal = Vec<(u32, Answer, Timestamp)>;

/// What was answered before, and what was printed then.
#[derive(Default)]
pub(super) struct Before {
    pub(super) journal: Journal,
    pub(super) printed: usize,
}

impl Session {
    pub(super) async fn open(
        bindings: Vec<Arc<dyn Binding>>,
        files: Option<Overlay>,
        terminal: Terminal,
    ) -> Result<Self, Error> {
        let mut names = Bindings::none();
        for binding in &bindings {
            let methods = binding.methods().iter().map(|method| method.name.as_str());
            names = names.with(binding.name(), methods).map_err(|error| {
                let hint = "rename it in `bowline.toml`";
                Error::failure(error.code(), error.to_string(), hint)
            })?;
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
            files,
            terminal,
            begin: (seed(), now()),
        })
    }

    pub(super) fn files(&self) -> Option<&Overlay> {
        self.files.as_ref()
    }

    /// Runs a program to its end; timers take real time. Calls that were answered before are answered
    /// the same.
    pub(super) async fn run(
        &self,
        program: &Program,
        input: Value,
        limits: &Limits,
        before: Before,
    ) -> Result<Isolate, Error> {
        let mut start = Start::new(self.begin.0, self.begin.1);
        start.input = input;
        start.limits = limits.clone();
        let (isolates, program, names) =
            (self.isolates.clone(), program.clone(), self.names.clone());
        let isolate = blocking(move || {
            let slot = isolates
                .try_admit("code")
                .ok_or(IsolateError::QueueFull(1))?;
            isolates.start(slot, &program, &names, &start)
        })
        .await?;
        let cancel = CancellationToken::new();
        let run = Running {
            session: self,
            isolate,
            begun: Instant::now(),
            limits,
            due: BTreeSet::new(),
            journal: Vec::new(),
            again: before.journal.into(),
            quiet: before.printed,
            printed: 0,
            cancel: cancel.clone(),
        };
        let ran = run.run().await;
        cancel.cancel();
        ran
    }

    async fn call(&self, id: u32, target: Target, cancel: CancellationToken) -> Called {
        let Target::Binding {
            namespace,
            method,
            arguments,
        } = target
        else {
            return Ok((id, Answer::Timer));
        };
        let context = ToolContext {
            call_id: format!("call_{id}"),
            effect_id: Some(format!(
                "eff_{id}_{:016x}",
                Timestamp::as_millis(self.begin.1)
            )),
            files: self.files.clone(),
            shell: None,
            history: None,
            now: now(),
            cancel,
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

type Called = Result<(u32, Answer), StoreError>;

/// A program on its way.
struct Running<'a> {
    session: &'a Session,
    isolate: Isolate,
    begun: Instant,
    limits: &'a Limits,
    /// Timers by when they are due.
    due: BTreeSet<(Duration, u32)>,
    journal: Journal,
    again: VecDeque<(u32, Answer, Timestamp)>,
    /// Lines that were printed before.
    quiet: usize,
    printed: usize,
    cancel: CancellationToken,
}

impl Running<'_> {
    async fn run(mut self) -> Result<Isolate, Error> {
        let mut calls = FuturesUnordered::new();
        let session = self.session;
        loop {
            self.print();
            if *self.isolate.status() != Status::Waiting {
                break;
            }
            for call in self.isolate.take_calls() {
                let answered = self.again.iter().any(|(id, _, _)| *id == call.id);
                match call.target {
                    Target::Timer { after } => {
                        let at = self.begun.elapsed().saturating_add(after);
                        self.due.insert((at, call.id));
                    }
                    Target::Binding { .. } if answered => {}
                    target => calls.push(session.call(call.id, target, self.cancel.clone())),
                }
            }
            for id in self.isolate.take_cancelled() {
                self.due.retain(|(_, timer)| *timer != id);
            }
            if let Some((id, answer, time)) = self.again.pop_front() {
                self.due.retain(|(_, timer)| *timer != id);
                self = self.answer(id, answer, time).await?;
                continue;
            }
            let next = self.due.first().map(|(at, _)| *at);
            if calls.is_empty() && next.is_none() {
                self.isolate.discard(IsolateError::Deadlock);
                continue;
            }
            let wall = self.limits.wall;
            let until = next.map_or(wall, |at| at.min(wall));
            let wait = until.saturating_sub(self.begun.elapsed());
            tokio::select! {
                Some(done) = calls.next() => {
                    let (id, answer) = done?;
                    self = self.answer(id, answer, now()).await?;
                }
                () = tokio::time::sleep(wait) => {
                    if self.begun.elapsed() >= wall {
                        self.isolate.discard(IsolateError::Wall(wall));
                    } else if let Some((_, id)) = self.due.pop_first() {
                        self = self.answer(id, Answer::Timer, now()).await?;
                    }
                }
            }
        }
        Ok(self.isolate)
    }

    async fn answer(mut self, id: u32, answer: Answer, time: Timestamp) -> Result<Self, Error> {
        let mut isolate = self.isolate;
        let given = answer.clone();
        isolate = blocking(move || isolate.answer(id, &given, time).map(|()| isolate)).await?;
        self.isolate = isolate;
        self.journal.push((id, answer, time));
        Ok(self)
    }

    fn print(&mut self) {
        let log: Vec<LogLine> = self.isolate.take_log();
        let known = self.quiet.saturating_sub(self.printed).min(log.len());
        self.printed += log.len();
        print(log.get(known..).unwrap_or_default(), self.session.terminal);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IsolateError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Fault::Output(std::io::Error::other(error)))??)
}
