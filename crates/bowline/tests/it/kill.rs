//! The binary, killed at random moments and started again with the same line.
//!
//! The model is a server that speaks a real wire format and says what the script of the example
//! says, so that its calls can be counted across processes. `approvals` kills a run that waits for a
//! person, and the commands that answer it; `service` a process that serves everything at once.
//! `BOWLINE_KILL_SEEDS` sets the number of seeds of each, with one to three kills each;
//! `BOWLINE_KILL_SEED` runs a single one again.

mod approvals;
mod service;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bowline_agent::{conversation::EntryBody, view};
use bowline_model::{Message, UserPart};
use bowline_runtime::Random as _;
use bowline_sandbox::workspace::Workspace;
use bowline_store::{SqliteOptions, SqliteStore, Store as _, Timestamp};
use bowline_testkit::{
    provider::{Answer, FakeProvider, RecordedRequest, Reply, Wire},
    seeded::{SeededRandom, asked},
};
use serde_json::Value;

use crate::world::World;

/// Most kills of one run; the default number of attempts is ten.
const MOST_KILLS: u64 = 3;

/// The seeds to run.
fn seeds(default: u64) -> Vec<u64> {
    match asked("BOWLINE_KILL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=asked("BOWLINE_KILL_SEEDS").unwrap_or(default)).collect(),
    }
}

/// The command that runs a seed again.
fn replay(seed: u64) -> String {
    format!("BOWLINE_KILL_SEED={seed} cargo test -p bowline --test it kill")
}

/// What the example's script says in each model call.
fn script() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/triage/agents/triage/triage.yaml");
    let script: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    script["turns"].as_array().unwrap().clone()
}

/// The reply to a request: which one is decided by the answers that the request already holds.
fn reply(turns: &[Value], request: &RecordedRequest) -> Reply {
    let messages = request.body["messages"].as_array().unwrap();
    let said = messages
        .iter()
        .filter(|message| message["role"] == "assistant")
        .count();
    let turn = &turns[said];
    let mut answer = Answer::new().text(turn["text"].as_str().unwrap_or("On it."));
    for (index, tool) in turn["tools"]
        .as_array()
        .unwrap_or(&Vec::new())
        .iter()
        .enumerate()
    {
        let id = format!("call_{said}_{index}");
        answer = answer.tool(
            &id,
            tool["name"].as_str().unwrap(),
            &tool["input"].to_string(),
        );
    }
    answer.into()
}

/// A copy of the example, its model behind a server.
async fn world(turns: Vec<Value>) -> (World, FakeProvider) {
    let server = FakeProvider::start().await.unwrap();
    server.answer_with(move |request| reply(&turns, request));
    let world = World::empty();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage");
    copy(&example, world.path());
    let own = std::fs::read_to_string(world.path().join("bowline.toml")).unwrap();
    world.write(
        "bowline.toml",
        &format!(
            "{own}\n[models.fake]\napi = \"anthropic\"\nbase_url = \"{}\"\nmodel = \"fake-1\"\nkey_env = \"FAKE_KEY\"\nprice = {{ input = \"1\", output = \"1\" }}\n",
            server.base_url(Wire::Anthropic)
        ),
    );
    (world, server)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == ".bowline" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn start(world: &World) -> Child {
    let line = [
        "run",
        "triage",
        "--id",
        "t1",
        "--key",
        "k1",
        "--model",
        "fake",
        "-m",
        "@bug-report.md",
        "--json",
    ];
    let mut command = world.command(&line);
    command
        .env("FAKE_KEY", bowline_testkit::canary::KEY)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

async fn finish(child: Child) -> std::process::Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap()
}

/// What is left when it is over: the transcript without times and ids, and every file.
#[derive(Debug, PartialEq)]
struct Ending {
    lines: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
}

async fn ending(world: &World) -> Ending {
    let options = SqliteOptions {
        read_only: true,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(&world.path().join(".bowline"), options).unwrap();
    let actor = bowline_agent::actor("triage", "t1");
    let conversation = bowline_agent::load(&*store, &actor).await.unwrap();
    assert!(conversation.open.is_none() && conversation.outcomes.is_empty());
    assert_eq!(conversation.settlements.len(), 1, "one terminal outcome");

    // Each call has one outcome, in the log and in the transcript.
    let records = store.read(&actor, 0, 100_000).await.unwrap();
    let mut outcomes = BTreeMap::new();
    for stored in &records {
        if let bowline_agent::record::Fact::ToolOutcome(outcome) =
            bowline_agent::record::Fact::of(stored).unwrap()
        {
            *outcomes.entry(outcome.tool_call_id).or_insert(0) += 1;
        }
    }
    assert!(
        outcomes.values().all(|count| *count == 1),
        "a result was produced twice: {outcomes:?}"
    );

    let mut lines = Vec::new();
    let mut calls: Vec<String> = Vec::new();
    for entry in &conversation.entries {
        match &entry.body {
            EntryBody::User(content) => lines.push(format!("user: {}", view::text(content))),
            EntryBody::Signal(signal) => lines.push(format!("signal: {}", signal.content)),
            // What was cut stays in the history, and is not part of the answer.
            EntryBody::Assistant {
                interrupted: true, ..
            } => {}
            EntryBody::Assistant { message, error, .. } => {
                assert!(calls.is_empty() && error.is_none());
                calls = message.tool_calls().map(|call| call.id.clone()).collect();
                lines.push(format!("assistant: {} {calls:?}", message.text()));
            }
            EntryBody::ToolResults(results) => {
                let got: Vec<_> = results
                    .iter()
                    .map(|outcome| outcome.tool_call_id.clone())
                    .collect();
                assert_eq!(
                    got,
                    std::mem::take(&mut calls),
                    "each call has exactly one result"
                );
                lines.extend(results.iter().map(|outcome| {
                    format!("{}: {}", outcome.tool_name, view::text(&outcome.content))
                }));
            }
        }
    }
    assert!(calls.is_empty());
    let transcript = bowline_agent::context::transcript(
        &conversation,
        bowline_agent::context::Shape::of(None, false),
        &*store,
    )
    .await
    .unwrap();
    assert!(
        matches!(&*transcript[0], Message::User(user) if matches!(user.parts[0], UserPart::Text { .. }))
    );

    let files = Workspace::open(store.clone(), actor)
        .begin(Timestamp::default())
        .await
        .unwrap();
    let mut content = BTreeMap::new();
    for found in bowline_sandbox::search::glob(&files, "**/*", "/workspace")
        .await
        .unwrap()
    {
        if let Ok(bytes) = files.read(&found.path).await {
            content.insert(found.path, bytes.to_vec());
        }
    }
    store.close().await;
    Ending {
        lines,
        files: content,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_at_random_moments_ends_as_if_it_had_not() {
    let turns = script();
    let (world, server) = world(turns.clone()).await;
    let began = Instant::now();
    let output = finish(start(&world)).await;
    let whole = began.elapsed();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let calls = server.requests().len();
    assert_eq!(calls, turns.len());
    let expected = ending(&world).await;
    assert!(!expected.files.is_empty());

    let mut all = 0;
    for seed in seeds(15) {
        let (world, server) = self::world(turns.clone()).await;
        let random = SeededRandom::new(seed);
        let kills = 1 + random.next() % MOST_KILLS;
        let mut killed = 0;
        for _ in 0..kills {
            let mut child = start(&world);
            let micros = u64::try_from(whole.as_micros()).unwrap();
            // The moment of a kill is the one thing here that only a clock can decide.
            tokio::time::sleep(Duration::from_micros(random.next() % micros)).await;
            child.kill().unwrap();
            killed += usize::from(finish(child).await.status.code().is_none());
        }
        let output = finish(start(&world)).await;
        let replay = replay(seed);
        assert!(
            output.status.success(),
            "{replay}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(ending(&world).await, expected, "{replay}");
        let made = server.requests().len();
        assert!(
            made <= calls + killed,
            "{replay}: {made} model calls with {killed} kills, {calls} without"
        );
        all += killed;
    }
    println!("{all} kills");
}
