//! Isolates: what programs do, and what they cannot do.

mod basics;
mod escape;
mod hostile;
mod image;
mod language;
mod turns;

use std::path::Path;
use std::sync::OnceLock;

use bowline_sandbox::isolate::Target;
use bowline_sandbox::isolate::{
    Answer, Bindings, Isolate, IsolateError, Isolates, IsolatesOptions, Limits, Program, Start,
    Status, Value,
};
use bowline_store::Timestamp;

/// One engine for all tests; its compiled code is kept beside the test binary.
pub(crate) fn isolates() -> &'static Isolates {
    static ENGINE: OnceLock<Isolates> = OnceLock::new();
    ENGINE.get_or_init(|| Isolates::open(&options()).unwrap())
}

pub(crate) fn options() -> IsolatesOptions {
    IsolatesOptions {
        cache: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("isolate-cache")),
        live: 64,
        live_per_owner: 64,
        ..IsolatesOptions::default()
    }
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

pub(crate) fn start() -> Start {
    Start::new([7; 32], at(0))
}

pub(crate) fn begin(source: &str, bindings: &Bindings, start: &Start) -> Isolate {
    let program = Program::new("main.ts", source).unwrap();
    let isolates = isolates();
    isolates
        .start(
            isolates.try_admit("test").unwrap(),
            &program,
            bindings,
            start,
        )
        .unwrap()
}

/// Runs a program without bindings; each timer fires when it is due.
pub(crate) fn finish(mut isolate: Isolate) -> Isolate {
    let mut now = 0;
    let mut due = std::collections::BTreeSet::new();
    while *isolate.status() == Status::Waiting {
        for call in isolate.take_calls() {
            if let Target::Timer { after } = call.target {
                due.insert((now + i64::try_from(after.as_millis()).unwrap(), call.id));
            }
        }
        for id in isolate.take_cancelled() {
            due.retain(|(_, timer)| *timer != id);
        }
        let (time, id) = due.pop_first().unwrap();
        now = time;
        isolate.answer(id, &Answer::Timer, at(now)).unwrap();
    }
    isolate
}

pub(crate) fn run(source: &str) -> Isolate {
    finish(begin(source, &Bindings::none(), &start()))
}

/// The value of a program that must complete.
pub(crate) fn value(source: &str) -> Value {
    let isolate = run(source);
    match isolate.status() {
        Status::Completed(value) => value.clone(),
        other => panic!("{source}\n{other:?}"),
    }
}

/// Why a program with these limits was stopped.
pub(crate) fn stopped(source: &str, limits: Limits) -> IsolateError {
    let start = Start { limits, ..start() };
    let isolate = finish(begin(source, &Bindings::none(), &start));
    match isolate.status() {
        Status::Stopped(error) => error.clone(),
        other => panic!("{source}\n{other:?}"),
    }
}
