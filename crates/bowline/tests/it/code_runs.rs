//! What code called is told wherever its tool call is; and people promote code that ran well.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::{
    serve::Serving,
    sockets::{Frame, Socket},
    world::{Ran, World, masked},
};

const AGENT: &str =
    "---\nmodel: scripted/demo.yaml\ncode: true\napprovals: { state.rm: required }\n---\nAnswer.\n";

const SCRIPT: &str = r#"
turns:
  - text: "I count."
    tools:
      - name: code
        input:
          code: |
            async (input) => {
              await tools.write({ path: "a.txt", content: "one\ntwo" });
              const text = await state.readFile("a.txt");
              await state.readFile("none.txt").catch(() => {});
              return text.split("\n").length + (input?.more ?? 0);
            }
  - text: "There are two lines."
"#;

const PARKS: &str = r#"
turns:
  - text: "I tidy up."
    tools:
      - name: code
        input: {code: "async () => { await tools.write({ path: 'a.txt', content: 'one' }); await state.rm('a.txt'); return 'gone'; }"}
  - text: "It is gone."
"#;

/// Two that run the snippet `count-lines`.
const RUNS_SNIPPET: &str = r#"
turns:
  - tools:
      - name: code
        input: {code: "return [(await codemode.search('count')).results[0].path, await codemode.run('count-lines', { more: 5 })]"}
  - text: "Seven."
"#;

fn world(script: &str) -> World {
    let world = World::with_script(script);
    world.write("agents/demo/agent.md", AGENT);
    world
}

/// Engines are compiled once for all tests.
fn command(world: &World, args: &[&str]) -> Command {
    let cache = std::env::temp_dir().join("bowline-test-engines");
    let mut command = world.command(args);
    command.env("XDG_CACHE_HOME", cache);
    command
}

fn run(world: &World, args: &[&str]) -> Ran {
    world.ran(command(world, args).output().unwrap())
}

fn snapshot(ran: &Ran) -> String {
    let text = ran.all();
    regex::Regex::new(r"run_[0-9A-HJKMNP-TV-Z]{26}")
        .unwrap()
        .replace_all(&text, "run_[ID]")
        .into_owned()
}

#[test]
fn what_code_called_stands_below_its_tool_call() {
    let world = world(SCRIPT);
    let line = ["run", "demo", "-m", "count", "--id", "a"];
    insta::assert_snapshot!("code_calls_run", snapshot(&run(&world, &line)));
    insta::assert_snapshot!(
        "code_calls_show",
        snapshot(&run(&world, &["show", "demo", "a"]))
    );
    let line = ["run", "demo", "-m", "count", "--id", "b", "--json"];
    let told = run(&world, &line).lines();
    let chunks = told.iter().filter(|line| line["type"] == "code-calls");
    let chunks: Vec<_> = chunks.collect();
    assert_eq!(chunks.len(), 1, "{told:?}");
    assert_eq!(chunks[0]["state"], "completed");
    let text = serde_json::to_string_pretty(&chunks[0]["calls"]).unwrap();
    let text = masked(&text.replace("\"durationMs\": ", "\"durationMs\":"));
    insta::assert_snapshot!("code_calls_json", text);
    let shown = run(&world, &["show", "demo", "a", "--json"])
        .lines()
        .remove(0);
    let listed = &shown["codeRuns"][0];
    assert_eq!(listed["state"], "completed", "{listed}");
    let states: Vec<_> = listed["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["state"].clone())
        .collect();
    assert_eq!(states, ["done", "done", "failed"]);
    let call = shown["messages"][1]["parts"].as_array().unwrap().iter();
    let call = call
        .clone()
        .find(|part| part["type"] == "dynamic-tool")
        .unwrap();
    assert_eq!(call["toolCallId"], listed["toolCallId"]);
}

#[test]
fn a_call_of_code_that_waits_for_a_person_is_told_and_so_is_what_became_of_it() {
    let world = world(PARKS);
    let line = ["run", "demo", "-m", "tidy", "--id", "a"];
    insta::assert_snapshot!("code_calls_parked_run", snapshot(&run(&world, &line)));
    insta::assert_snapshot!(
        "code_calls_parked_show",
        snapshot(&run(&world, &["show", "demo", "a"]))
    );
    let shown = run(&world, &["show", "demo", "a", "--json"])
        .lines()
        .remove(0);
    assert_eq!(shown["codeRuns"][0]["state"], "paused");
    let waiting = &shown["codeRuns"][0]["calls"][1];
    assert_eq!(
        (&waiting["state"], &waiting["path"]),
        (&"waits".into(), &"state.rm".into())
    );
    let approval = waiting["approvalId"].as_str().unwrap();
    assert_eq!(approval, shown["approvals"][0]["approvalId"]);
    let ran = run(
        &world,
        &["reject", approval, "--rollback", "--reason", "keep it"],
    );
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let shown = run(&world, &["show", "demo", "a", "--json"])
        .lines()
        .remove(0);
    assert_eq!(shown["codeRuns"][0]["state"], "rolled_back", "{shown}");
}

#[test]
fn runs_of_code_are_shown_and_rolled_back_over_http() {
    let world = world(PARKS);
    run(&world, &["run", "demo", "-m", "tidy", "--id", "a"]);
    let mut serve = command(&world, &["serve", "--addr", "127.0.0.1:0", "--json"]);
    let (server, _said) = Serving::spawn(serve.stderr(Stdio::null()));
    let listed = server.get("/v1/agents/demo/a/code-runs").json();
    assert_eq!(listed["runs"][0]["state"], "paused", "{listed}");
    let run = listed["runs"][0]["runId"].as_str().unwrap();
    let approval = listed["runs"][0]["calls"][1]["approvalId"]
        .as_str()
        .unwrap();
    let path = format!("/v1/approvals/{approval}");
    let decided = json!({"decision": "approve", "rollback": true}).to_string();
    let refused = server.post(&path, "application/json", decided.as_bytes());
    assert!(
        refused.status < 500 && refused.status >= 400,
        "{}",
        refused.text()
    );
    let decided = json!({"decision": "reject", "rollback": true}).to_string();
    let decided = server.post(&path, "application/json", decided.as_bytes());
    assert_eq!(decided.status, 200, "{}", decided.text());
    let submission = decided.json()["submissionId"].clone();
    let submission = submission.as_str().unwrap();
    server.get(&format!("/agents/demo/a/submissions/{submission}?wait=60"));
    let shown = server
        .get(&format!("/v1/agents/demo/a/code-runs/{run}"))
        .json();
    assert_eq!(shown["state"], "rolled_back", "{shown}");
    let other = server.get("/v1/agents/demo/a/code-runs/run_none");
    assert_eq!(other.status, 404);
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_over_a_websocket_may_roll_the_run_back() {
    let world = world(PARKS);
    run(&world, &["run", "demo", "-m", "tidy", "--id", "a"]);
    let mut serve = command(&world, &["serve", "--addr", "127.0.0.1:0", "--json"]);
    let (server, _said) = Serving::spawn(serve.stderr(Stdio::null()));
    let listed = server.get("/v1/agents/demo/a/code-runs").json();
    let run = listed["runs"][0]["runId"].as_str().unwrap();
    let approval = &listed["runs"][0]["calls"][1]["approvalId"];
    let mut socket = Socket::open(server.addr, "/agents/demo/a", "").await;
    let mut submission = String::new();
    for (method, more, fits) in [
        ("reject", json!({"rollback": "yes"}), false),
        ("approve", json!({"rollback": true}), false),
        (
            "reject",
            json!({"rollback": true, "reason": "keep it"}),
            true,
        ),
    ] {
        let call = json!({"type": "rpc", "id": method, "method": method, "args": [approval, more]});
        socket.send(&call).await;
        let answer = loop {
            match socket.next().await {
                Frame::Text(answer) if answer["type"] == "rpc" => break answer,
                Frame::Text(_) => {}
                Frame::Close(code) => panic!("the connection was closed with {code}"),
            }
        };
        assert_eq!(answer["success"], fits, "{answer}");
        let told = answer["result"]["submissionId"].as_str();
        submission = told.unwrap_or_default().to_owned();
    }
    server.get(&format!("/agents/demo/a/submissions/{submission}?wait=60"));
    let shown = server.get(&format!("/v1/agents/demo/a/code-runs/{run}"));
    assert_eq!(shown.json()["state"], "rolled_back", "{}", shown.text());
    server.kill();
}

#[test]
fn a_person_promotes_code_that_ran_well_and_the_agent_runs_it_again() {
    let world = world(SCRIPT);
    let promote = ["code", "promote", "demo", "a", "count-lines"];
    assert!(run(&world, &promote).stderr.contains("no conversation"));
    assert_eq!(
        run(&world, &["run", "demo", "-m", "count", "--id", "a"]).status,
        0
    );
    let mut line = promote.to_vec();
    line.extend(["--description", "Counts the lines of a.txt"]);
    insta::assert_snapshot!("code_promote", snapshot(&run(&world, &line)));
    let file = world.path().join("agents/demo/snippets/count-lines.ts");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("/** Counts the lines of a.txt */\nasync (input) => {\n"),
        "{text}"
    );
    assert!(run(&world, &promote).stderr.contains("--replace"));
    insta::assert_snapshot!(
        "code_snippets",
        snapshot(&run(&world, &["code", "snippets", "demo"]))
    );

    world.write("agents/demo/demo.yaml", RUNS_SNIPPET);
    let told = run(
        &world,
        &["run", "demo", "-m", "again", "--id", "b", "--json"],
    )
    .lines();
    let output = told
        .iter()
        .find(|line| line["type"] == "tool-output")
        .unwrap();
    assert_eq!(
        output["output"]["result"],
        serde_json::json!(["count-lines", 7]),
        "{output}"
    );

    assert_eq!(
        run(&world, &["code", "remove", "demo", "count-lines"]).status,
        0
    );
    assert!(!file.exists());
    let gone = run(&world, &["code", "remove", "demo", "../agent"]);
    assert!(
        gone.status == 2 && gone.stderr.contains("has no snippet"),
        "{}",
        gone.stderr
    );
    world.write("agents/demo/snippets/bad.ts", "const = 1");
    let bad = run(&world, &["agents"]);
    assert!(bad.all().contains("bad.ts"), "{}", bad.all());
}

const SERVICE: &str = r#"{"openapi": "3.1.0", "info": {"title": "Issues"}, "servers": [{"url": "https://issues.example"}],
"paths": {
  "/issues": {"post": {"operationId": "createIssue", "x-bowline-undo": "closeIssue",
    "requestBody": {"required": true, "content": {"application/json": {"schema": {"type": "object"}}}},
    "responses": {"201": {"description": "made", "content": {"application/json": {"example": {"number": 7}}}}}}},
  "/issues/{number}/close": {"post": {"operationId": "closeIssue",
    "parameters": [{"name": "number", "in": "path", "required": true, "schema": {"type": "integer"}}],
    "responses": {"204": {"description": "closed"}}}}
}}"#;

const OPENS: &str = r#"
turns:
  - tools:
      - name: code
        input: {code: "async () => { await issues.createIssue({ body: { title: 'one' } }); await state.rm('x'); }"}
  - text: "Done."
"#;

#[test]
fn a_run_that_was_aborted_is_rolled_back_by_a_command() {
    let world = world(OPENS);
    world.write("issues.json", SERVICE);
    world.write(
        "bowline.toml",
        "[project]\nname = \"test\"\n[bindings.issues]\nopenapi = \"issues.json\"\nexamples = true\n",
    );
    let agent = AGENT.replace("code: true", "code: true\nbindings: [issues]");
    world.write("agents/demo/agent.md", &agent);
    let ran = run(&world, &["run", "demo", "-m", "go", "--id", "a"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let waits = run(&world, &["code", "rollback", "demo", "a"]);
    assert!(
        waits.status == 1 && waits.stderr.contains("waits for a person"),
        "{}",
        waits.stderr
    );
    assert_eq!(run(&world, &["abort", "demo", "a"]).status, 0);
    insta::assert_snapshot!(
        "code_rollback",
        snapshot(&run(&world, &["code", "rollback", "demo", "a"]))
    );
    let again = run(
        &world,
        &[
            "code",
            "rollback",
            "demo",
            "a",
            "--run",
            "run_other",
            "--json",
        ],
    );
    assert_eq!(
        (again.status, &again.lines()[0]["error"]["type"]),
        (1, &"code_run_not_found".into()),
        "{}",
        again.stdout
    );
    let shown = run(&world, &["show", "demo", "a", "--json"])
        .lines()
        .remove(0);
    assert_eq!(shown["codeRuns"][0]["state"], "rolled_back");
    assert_eq!(shown["codeRuns"][0]["calls"][0]["state"], "undone");
}
