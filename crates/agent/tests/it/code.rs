//! Code mode: the model writes code, which calls what the agent may do, and survives what happens.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use bowline_agent::{
    binding::{Binding, CallError, Method},
    code::journal::{Boundary, Called},
    record::Fact,
    tool::{Effect, OnCrash, ToolContext},
};
use bowline_runtime::Outcome;
use bowline_sandbox::isolate::{Isolates, IsolatesOptions, Value};
use bowline_store::Store as _;
use bowline_testkit::faults::Death;
use serde_json::{Value as Json, json};

use crate::stage::{Process, Stage, assert_valid, instance, lines};

/// One engine for all tests: making one takes a second.
pub(crate) fn engine() -> Isolates {
    static ENGINE: LazyLock<Isolates> =
        LazyLock::new(|| Isolates::open(&IsolatesOptions::default()).unwrap());
    ENGINE.clone()
}

/// An agent whose model runs this code and says «Done.» then.
fn stage(code: &str) -> Stage {
    let turns = json!({"turns": [
        {"tools": [{"name": "code", "input": {"code": code}}]},
        {"text": "Done."},
    ], "at_end": "repeat_last"});
    let mut stage = Stage::new(&turns.to_string());
    stage.engine = Some(engine());
    stage.define = |definition| definition.code = Some(bowline_agent::code::default_limits());
    stage
}

/// The outcome that the model read.
async fn outcome(stage: &Stage) -> Json {
    let conversation = stage.conversation().await;
    assert_valid(&conversation);
    let told = lines(&conversation);
    let line = told.iter().find(|line| line.contains("code: ")).unwrap();
    serde_json::from_str(line.split_once("code: ").unwrap().1).unwrap_or_else(|_| json!(line))
}

/// What the code did, as it is recorded.
async fn boundaries(stage: &Stage) -> Vec<Boundary> {
    let records = stage.store.read(&instance(), 0, 10_000).await.unwrap();
    let boundary = |record| match Fact::of(record).unwrap() {
        Fact::CodeBoundary(boundary) => Some(*boundary),
        _ => None,
    };
    records.iter().filter_map(boundary).collect()
}

async fn calls(stage: &Stage) -> Vec<Called> {
    let boundaries = boundaries(stage).await;
    boundaries.into_iter().flat_map(|one| one.calls).collect()
}

async fn done(process: &Process) {
    let settled = process.ask("Go").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
}

#[tokio::test]
async fn code_calls_the_tools_of_its_agent_and_what_it_wrote_is_one_commit_with_its_result() {
    let stage = stage(
        "async () => { await tools.write({ path: 'a.txt', content: 'one' }); console.log('half'); return { text: await tools.read({ path: 'a.txt' }), n: 1n }; }",
    );
    let before = stage.store.metrics().flushes;
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    assert_eq!(outcome["status"], "completed", "{outcome}");
    assert_eq!(outcome["result"], json!({"text": "one", "n": 1}));
    assert_eq!(outcome["logs"], json!(["half"]));
    assert_eq!(stage.file("/workspace/a.txt").await, "one");
    let flushes = stage.store.metrics().flushes - before;
    assert_eq!(
        flushes, 3,
        "admission, the run, and the answer with its settlement"
    );
    let calls = calls(&stage).await;
    let paths: Vec<_> = calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(paths, ["tools.write", "tools.read"]);
    assert_eq!(calls[0].arguments["path"], "a.txt");
}
