//! The shell of an agent that has a network: a command is one outside effect, with its files.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bowline_agent::tool::{Effect, OnCrash, sandbox};
use bowline_runtime::Outcome;
use bowline_sandbox::egress::{EgressError, Outside, Request, Response};
use bowline_testkit::faults::Death;
use serde_json::json;

use crate::stage::{Stage, assert_valid, lines};

const WORK: &str = r#"
turns:
  - tools:
      - {name: write, input: {path: a, content: "one\n"}}
      - {name: bash, input: {command: "cat a > got; curl -s https://api.test/x >> got; N=7"}}
      - {name: bash, input: {command: "echo $N; cat got"}}
  - text: "Done."
at_end: repeat_last
"#;

/// Answers everything, and counts.
#[derive(Debug, Default)]
struct Fake(Mutex<u32>);

#[async_trait]
impl Outside for Fake {
    async fn send(&self, request: Request) -> Result<Response, EgressError> {
        *self.0.lock().unwrap() += 1;
        Ok(Response {
            status: 200,
            url: request.url,
            headers: Vec::new(),
            body: "two\n".into(),
        })
    }
}

fn stage(script: &str) -> (Stage, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let mut stage = Stage::new(script);
    stage.outside = Some(fake.clone());
    (stage, fake)
}

#[test]
fn only_a_shell_with_a_network_acts_outside() {
    let effect = |outside: Option<Arc<dyn Outside>>| {
        let tools = sandbox::all(&sandbox::Ground::Workspace(outside)).unwrap();
        let effects = tools.iter().filter(|tool| tool.effect() != Effect::None);
        let effects = effects.map(|tool| (tool.spec().name.clone(), tool.effect()));
        effects.collect::<Vec<_>>()
    };
    assert_eq!(effect(None), []);
    let fake: Arc<dyn Outside> = Arc::new(Fake::default());
    let outside = Effect::Outside(OnCrash::Unknown);
    assert_eq!(effect(Some(fake)), [("bash".to_owned(), outside)]);
}

#[tokio::test]
async fn each_command_is_one_commit_with_its_files_and_what_was_written_before() {
    let (stage, fake) = stage(WORK);
    let settled = stage.process(Death::Never).ask("Go").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    // Admission, intents, two commands, the batch, the answer.
    assert_eq!(stage.store.metrics().flushes, 6);
    assert_eq!(*fake.0.lock().unwrap(), 1);
    let conversation = stage.conversation().await;
    assert_valid(&conversation);
    let told = lines(&conversation);
    assert!(
        told.contains(&"result: bash: 7 one two".to_owned()),
        "{told:?}"
    );
    assert_eq!(stage.file("/workspace/got").await, "one\ntwo\n");
}

#[tokio::test]
async fn a_command_that_was_cut_is_not_sent_again_and_leaves_no_files() {
    let (whole, _) = stage(WORK);
    let process = whole.process(Death::Never);
    process.ask("Go").await.unwrap();
    let commits = process.store.commits();
    for death in (1..=commits).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let (stage, fake) = stage(WORK);
        let first = stage.process(death);
        if let Ok(receipt) = first.send_keyed("Go", "k").await {
            let _ = first.settled(&receipt).await;
        }
        let second = stage.process(Death::Never);
        let receipt = second.send_keyed("Go", "k").await.unwrap();
        let settled = second.settled(&receipt).await.unwrap();
        assert_eq!(settled.outcome, Outcome::Completed, "{death:?}");
        assert!(*fake.0.lock().unwrap() <= 1, "{death:?}");
        let conversation = stage.conversation().await;
        assert_valid(&conversation);
        assert_eq!(stage.file("/workspace/a").await, "one\n", "{death:?}");
        let told = lines(&conversation);
        let ended = told.iter().find(|line| line.contains(": bash: ")).unwrap();
        let there = stage.file("/workspace/got").await == "one\ntwo\n";
        assert_eq!(there, ended.starts_with("result"), "{death:?}: {told:?}");
    }
}

#[tokio::test]
async fn code_commands_the_same_shell() {
    let code = "async () => { await tools.write({ path: 'a', content: 'one\\n' }); await tools.bash({ command: 'cat a > got; curl -s https://api.test/x >> got' }); return tools.read({ path: 'got' }); }";
    let turns = json!({"turns": [
        {"tools": [{"name": "code", "input": {"code": code}}]},
        {"text": "Done."},
    ], "at_end": "repeat_last"});
    let (mut stage, fake) = stage(&turns.to_string());
    stage.engine = Some(crate::code::engine());
    stage.define = |definition| definition.code = Some(bowline_agent::code::default_limits());
    let settled = stage.process(Death::Never).ask("Go").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    let told = lines(&stage.conversation().await);
    assert_eq!(stage.file("/workspace/got").await, "one\ntwo\n", "{told:?}");
    assert_eq!(*fake.0.lock().unwrap(), 1);
    assert!(
        told.iter().any(|line| line.contains("one\\ntwo")),
        "{told:?}"
    );
}
