//! What whoever runs a server sees of it: figures, logs, and how it stops.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{ChildStderr, Command, Stdio},
};

use bowline::server::KeyHash;
use serde_json::{Value, json};

use crate::{
    serve::{Answer, Serving},
    world::World,
};

const SCRIPT: &str = r#"
turns:
  - text: "I look."
    tools:
      - {name: bash, input: {command: "echo hi"}}
      - {name: read, input: {path: nothing.txt}}
    usage: {input: 100, output: 20}
  - text: "Done."
    usage: {input: 130, output: 5}
by_message:
  - match: "^slowly"
    turns:
      - text: "It takes its time."
        tools: [{name: bash, input: {command: "echo once >> log.txt"}}]
      - text: "One word after the other."
        stream: {chars: 1, delay_ms: 40}
  - match: "^never"
    turns:
      - text: "I begin."
        tools: [{name: bash, input: {command: "echo once >> log.txt"}}]
      - text: "never"
        stream: {chars: 1, delay_ms: 600000}
"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The figures of a server: each line by its name with labels.
fn figures(answer: &Answer) -> BTreeMap<String, f64> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| line.rsplit_once(' '));
    values
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap_or(f64::NAN)))
        .collect()
}

/// Waits until a submission has settled, and answers with how.
fn settled(serving: &Serving, id: &str, submission: &Value) -> Value {
    let submission = submission["submissionId"].as_str().unwrap();
    let path = format!("/agents/demo/{id}/submissions/{submission}?wait=30");
    serving.get(&path).json()
}

fn signal(serving: &Serving, name: &str) {
    let pid = serving.child.id().to_string();
    let sent = Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn figures_tell_what_was_done_under_names_that_no_request_chooses() {
    let world = World::with_script(SCRIPT);
    let serving = Serving::start_with(&world, &[], Stdio::null());
    let sent = serving.say("a", "Go");
    settled(&serving, "a", &sent);
    assert_eq!(serving.get("/no/such/path").status, 404);
    let odd = format!(
        "BREW /agents/demo/x HTTP/1.0\r\nhost: {}\r\n\r\n",
        serving.addr
    );
    assert_eq!(Answer::read(serving.open(&odd, b"")).status, 405);
    let told = figures(&serving.get("/metrics"));
    let conversation = "/agents/{agent}/{id}";
    for (name, wanted) in [
        ("bowline_submissions_admitted_total", 1.0),
        (
            "bowline_submissions_settled_total{outcome=\"completed\"}",
            1.0,
        ),
        ("bowline_submissions_open{state=\"running\"}", 0.0),
        ("bowline_attempts_total", 1.0),
        ("bowline_actors_awake", 1.0),
        ("bowline_agent_turns_total{agent=\"demo\"}", 2.0),
        (
            "bowline_agent_tokens_total{agent=\"demo\",kind=\"input\"}",
            230.0,
        ),
        (
            "bowline_agent_tokens_total{agent=\"demo\",kind=\"output\"}",
            25.0,
        ),
        (
            "bowline_agent_tool_calls_total{agent=\"demo\",outcome=\"done\"}",
            1.0,
        ),
        (
            "bowline_agent_tool_calls_total{agent=\"demo\",outcome=\"failed\"}",
            1.0,
        ),
        (
            &format!(
                "bowline_http_requests_total{{route=\"{conversation}\",method=\"POST\",status=\"202\"}}"
            ),
            1.0,
        ),
        (
            "bowline_http_requests_total{route=\"unknown\",method=\"GET\",status=\"404\"}",
            1.0,
        ),
        (
            &format!(
                "bowline_http_requests_total{{route=\"{conversation}\",method=\"other\",status=\"405\"}}"
            ),
            1.0,
        ),
        ("bowline_readers{kind=\"events\"}", 0.0),
    ] {
        assert_eq!(told.get(name), Some(&wanted), "{name}: {told:#?}");
    }
    for name in [
        "bowline_store_flushes_total",
        "bowline_store_commit_seconds_count",
        "bowline_tasks",
        "bowline_http_connections",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(
            told.get(name).is_some_and(|value| *value > 0.0),
            "{name}: {told:#?}"
        );
    }
    assert_eq!(
        told["bowline_store_commit_seconds_bucket{le=\"+Inf\"}"],
        told["bowline_store_commit_seconds_count"]
    );
}

#[test]
fn figures_are_for_whoever_may_read_every_agent() {
    let world = World::with_script(SCRIPT);
    let key = |name: &str, agents: &str, scope: &str| {
        let hash = KeyHash::of(&format!("bwl_{name}"));
        format!(
            "{{name = \"{name}\", hash = \"{hash}\", agents = [\"{agents}\"], scopes = [\"{scope}\"]}}"
        )
    };
    let keys = [
        key("all", "*", "read"),
        key("one", "demo", "read"),
        key("send", "*", "send"),
    ];
    let toml = format!(
        "[project]\nname = \"test\"\n[auth]\nkeys = [{}]\n",
        keys.join(", ")
    );
    world.write("bowline.toml", &toml);
    let serving = Serving::start_with(&world, &[], Stdio::null());
    assert_eq!(serving.get("/metrics").status, 401);
    for (name, wanted) in [("all", 200), ("one", 403), ("send", 403), ("none", 401)] {
        let head = format!(
            "GET /metrics HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer bwl_{name}\r\n\r\n",
            serving.addr
        );
        assert_eq!(
            Answer::read(serving.open(&head, b"")).status,
            wanted,
            "{name}"
        );
    }
}

/// The lines of a log, each an object, until one says this and the server was killed.
fn lines(mut serving: Serving, last: &str) -> Vec<Value> {
    let stderr: ChildStderr = serving.child.stderr.take().unwrap();
    let lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let mut lines =
        lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")));
    let mut all: Vec<Value> = Vec::new();
    while all.last().is_none_or(|line| line["message"] != last) {
        all.extend(Some(lines.next().unwrap()));
    }
    serving.kill();
    all.extend(lines);
    all
}

/// The spans that an event is in, by name.
fn spans(line: &Value) -> BTreeMap<&str, &Value> {
    let spans = line["spans"].as_array().map_or(&[][..], Vec::as_slice);
    spans
        .iter()
        .map(|span| (span["name"].as_str().unwrap(), span))
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_trace_goes_from_the_request_through_every_attempt_and_no_line_has_a_secret() {
    let world = World::with_script(SCRIPT);
    let (key, provider_key) = ("bwl_the-key-of-the-caller", "sk-the-key-of-the-provider");
    world.write(
        "bowline.toml",
        &format!(
            "[project]\nname = \"test\"\n[server]\nlog = \"json\"\n[auth]\nkeys = [{{name = \"caller\", hash = \"{}\", scopes = [\"admin\"]}}]\n\
             [models.refused]\napi = \"anthropic\"\nbase_url = \"http://127.0.0.1:1\"\nkey_env = \"MODEL_KEY\"\nmodel = \"none\"\n",
            KeyHash::of(key)
        ),
    );
    world.write(
        "agents/other/agent.md",
        "---\nmodel: refused\nlimits: {attempts: 1}\n---\nAnswer.\n",
    );
    world.write(
        ".bowline/secrets.toml",
        &format!("MODEL_KEY = \"{provider_key}\"\n"),
    );
    let secrets = world.path().join(".bowline/secrets.toml");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(secrets, mode).unwrap();
    let post = |serving: &Serving, path: &str, text: &str, more: &str| {
        let body = json!({"kind": "user", "body": text}).to_string();
        let head = format!(
            "POST {path} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n{more}content-length: {}\r\n\r\n",
            serving.addr,
            body.len()
        );
        Answer::read(serving.open(&head, body.as_bytes())).json()
    };
    let get = |serving: &Serving, path: &str| {
        let head = format!(
            "GET {path} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\r\n",
            serving.addr
        );
        Answer::read(serving.open(&head, b"")).json()
    };

    let serving = Serving::start_with(&world, &["-vv"], Stdio::piped());
    let traceparent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let sent = post(&serving, "/agents/demo/a", "never", &traceparent);
    let submission = sent["submissionId"].as_str().unwrap().to_owned();
    let own = post(
        &serving,
        "/agents/demo/b",
        "Go",
        "traceparent: nonsense\r\n",
    );
    let own = own["submissionId"].as_str().unwrap().to_owned();
    get(
        &serving,
        &format!("/agents/demo/b/submissions/{own}?wait=30"),
    );
    post(&serving, "/agents/other/c", &format!("Is {key} yours?"), "");
    // Until its first tool has been committed.
    let mut offset = sent["offset"].as_str().unwrap().to_owned();
    loop {
        let path = format!("/agents/demo/a?view=updates&live=long-poll&offset={offset}");
        let head = format!(
            "GET {path} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\r\n",
            serving.addr
        );
        let answer = Answer::read(serving.open(&head, b""));
        assert_eq!(answer.status, 200, "{}", answer.text());
        offset = answer.headers["stream-next-offset"].clone();
        if answer.text().contains("tool-output") {
            break;
        }
    }
    let first = lines(serving, "a model call failed");

    // The same trace after a kill, in the attempt that goes on.
    world.write("agents/demo/demo.yaml", &SCRIPT.replace("600000", "0"));
    let serving = Serving::start_with(&world, &["-v"], Stdio::piped());
    get(
        &serving,
        &format!("/agents/demo/a/submissions/{submission}?wait=30"),
    );
    let second = lines(serving, "an attempt ended");

    let of = |lines: &[Value], submission: &str| -> Vec<Value> {
        let ours = |line: &&Value| {
            line["submission"] == submission
                || spans(line)
                    .get("run")
                    .is_some_and(|run| run["submission"] == submission)
        };
        lines.iter().filter(ours).cloned().collect()
    };
    let accepted = of(&first, &submission);
    let receipt = |lines: &[Value]| -> Value {
        let receipt = lines.iter().find(|line| line["message"] == "accepted");
        spans(receipt.unwrap())["request"].clone()
    };
    let request = receipt(&accepted);
    assert_eq!(request["trace_id"], TRACE);
    assert!(request["request"].as_str().unwrap().starts_with("req_"));
    for (lines, kinds) in [
        (&accepted, &["run", "model", "tool"][..]),
        (&of(&second, &submission), &["run", "model"]),
    ] {
        for kind in kinds {
            let line = lines.iter().find(|line| spans(line).contains_key(kind));
            let line = line.unwrap_or_else(|| panic!("no {kind}: {lines:#?}"));
            let spans = spans(line);
            assert_eq!(spans["run"]["trace_id"], TRACE);
            // The run's parent is the request's span, which is within the caller's.
            assert_eq!(spans["run"]["parent_span_id"], request["span_id"]);
            assert_eq!(spans[kind]["span_id"].as_str().unwrap().len(), 16);
        }
    }
    let own = of(&first, &own);
    let begun = &receipt(&own)["trace_id"];
    assert!(begun.as_str().unwrap().len() == 32 && *begun != TRACE);
    assert!(own.iter().any(|line| {
        spans(line)
            .get("run")
            .is_some_and(|run| run["trace_id"] == *begun)
    }));
    // The call that failed is there, so that what it could have shown would be there.
    let all = format!("{}{}", json!(first), json!(second));
    assert!(all.contains("a model call failed"), "{all}");
    for secret in [key, provider_key] {
        assert!(!all.contains(secret), "a line has {secret}");
    }
}

#[test]
fn a_stop_turns_away_what_is_new_and_lets_what_runs_come_to_its_end() {
    let world = World::with_script(SCRIPT);
    let mut serving = Serving::start_with(&world, &[], Stdio::null());
    let sent = serving.say("a", "slowly");
    let addr = serving.addr;
    // A connection that stays: one request has begun, and is not complete.
    let mut open = TcpStream::connect(addr).unwrap();
    let head = format!("GET /readyz HTTP/1.1\r\nhost: {addr}\r\n");
    open.write_all(head.as_bytes()).unwrap();
    signal(&serving, "-TERM");
    // It is told that the server stops, and so is whoever comes now.
    let until = |status: u16, ask: &dyn Fn() -> Answer| loop {
        let answer = ask();
        if answer.status == status {
            break answer;
        }
        // 0: nothing had been said on that connection when the server began to stop.
        assert!(matches!(answer.status, 0 | 200 | 202), "{}", answer.text());
    };
    until(503, &|| serving.get("/readyz"));
    let body = json!({"kind": "user", "body": "more", "idempotencyKey": "k"}).to_string();
    let refused = until(503, &|| {
        serving.post("/agents/demo/b", "application/json", body.as_bytes())
    });
    assert!(
        refused.text().contains("runtime_unavailable"),
        "{}",
        refused.text()
    );
    open.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    let _ = open.read_to_string(&mut answer);
    assert!(serving.child.wait().unwrap().success());
    // What ran has come to its end by then.
    let show = world.run(&["show", "demo", "a", "--json"]);
    let history = &show.lines()[0];
    assert_eq!(
        history["settlements"][0]["submissionId"], sent["submissionId"],
        "{history}"
    );
    assert_eq!(history["settlements"][0]["outcome"], "completed");
}

#[test]
fn whoever_follows_is_told_to_come_later_while_a_server_stops() {
    let world = World::with_script(SCRIPT);
    let mut serving = Serving::start_with(&world, &[], Stdio::null());
    let sent = serving.say("a", "never");
    let addr = serving.addr;
    let put = format!(
        "PUT /v1/stream/s HTTP/1.0\r\nhost: {addr}\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(Answer::read(serving.open(&put, b"")).status, 201);
    signal(&serving, "-TERM");
    loop {
        if serving.get("/readyz").status == 503 {
            break;
        }
    }
    let submission = sent["submissionId"].as_str().unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, headers) in [
        ("/agents/demo/a?view=updates&live=sse&offset=-1", ""),
        ("/agents/demo/a?view=updates&live=long-poll&offset=now", ""),
        (
            &*format!("/agents/demo/a/submissions/{submission}?wait=30"),
            "",
        ),
        ("/v1/stream/s?live=sse&offset=-1", ""),
        ("/v1/stream/s?live=long-poll&offset=-1", ""),
        ("/v1/stream/agents/demo/a?live=sse&offset=-1", ""),
        ("/v1/stream/agents/demo/a?live=long-poll&offset=now", ""),
        ("/agents/demo/a", upgrade),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n{headers}\r\n");
        let answer = Answer::read(serving.open(&head, b""));
        let told = (answer.status, answer.headers.get("retry-after"));
        assert_eq!(told, (503, Some(&"1".to_owned())), "{path}");
    }
    // What can be told at once still is.
    for path in [
        "/agents/demo/a?view=updates&offset=-1",
        "/v1/stream/s?offset=-1",
        &*format!("/agents/demo/a/submissions/{submission}"),
    ] {
        assert_eq!(serving.get(path).status, 200, "{path}");
    }
    signal(&serving, "-TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(143));
}

#[test]
fn what_runs_longer_than_a_stop_waits_is_left_for_the_next_start() {
    let world = World::with_script(SCRIPT);
    world.write(
        "bowline.toml",
        "[project]\nname = \"test\"\n[server]\ndrain = \"100ms\"\n",
    );
    let mut serving = Serving::start_with(&world, &[], Stdio::null());
    let sent = serving.say("a", "never");
    signal(&serving, "-TERM");
    assert!(serving.child.wait().unwrap().success());
    world.write("agents/demo/demo.yaml", &SCRIPT.replace("600000", "0"));
    let serving = Serving::start_with(&world, &[], Stdio::null());
    settled(&serving, "a", &sent);
    let history = serving.history("a");
    let outcomes = history["settlements"].as_array().unwrap();
    assert_eq!(outcomes.len(), 1, "{history}");
    assert_eq!(outcomes[0]["outcome"], "completed", "{history}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::with_script(SCRIPT);
    let mut serving = Serving::start_with(&world, &[], Stdio::null());
    serving.say("a", "never");
    signal(&serving, "-TERM");
    loop {
        if serving.get("/readyz").status == 503 {
            break;
        }
    }
    signal(&serving, "-TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(143));
}
