//! `bowline serve`, as somebody who speaks HTTP sees it.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::world::World;

const SCRIPT: &str = r#"
turns:
  - text: "An answer."
at_end: repeat_last
summaries:
  - text: "It was about boats."
  - text: "It was about boats and tankers."
by_message:
  - match: "^work"
    turns:
      - thinking: "Ääh, ein Öltanker."
        text: "First a file, with words enough that they come in several pieces: ü, 漢字, 🦀."
        tools:
          - {name: write, input: {path: a.txt, content: "one\n"}}
          - {name: bash, input: {command: "cat a.txt"}}
        stream: {chars: 5, delay_ms: 30}
      - text: "Done, and told at some length, so that it takes its time to come."
        stream: {chars: 3, delay_ms: 30}
"#;

/// How long a test waits for bytes that have to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server in a process of its own.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Serving {
    pub(crate) fn start(world: &World) -> Self {
        Self::start_with(world, &[], Stdio::null())
    }

    pub(crate) fn start_with(world: &World, args: &[&str], stderr: Stdio) -> Self {
        let mut command = world.command(&["serve", "--addr", "127.0.0.1:0", "--json"]);
        Self::spawn(command.args(args).stderr(stderr)).0
    }

    /// Starts a command that serves with `--json`; what it prints after the first line comes too.
    pub(crate) fn spawn(command: &mut Command) -> (Self, BufReader<ChildStdout>) {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap();
        let addr = first["addr"].as_str().unwrap().parse().unwrap();
        (Self { child, addr }, stdout)
    }

    /// Starts a command that serves and tells a person so; what it says after that line comes too.
    pub(crate) fn spawn_said(command: &mut Command) -> (Self, BufReader<ChildStderr>) {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let addr = line.split("http://").nth(1).expect(&line);
        let addr = addr.split(". ").next().unwrap().parse().unwrap();
        (Self { child, addr }, stderr)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends bytes; the connection is closed by the server when it has answered.
    pub(crate) fn open(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // One that is refused early may not take the rest.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body);
        stream
    }

    /// As HTTP/1.0, so that a body is what comes until the end.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.addr);
        Answer::read(self.open(&head, b""))
    }

    pub(crate) fn post(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.addr,
            body.len()
        );
        Answer::read(self.open(&head, body))
    }

    pub(crate) fn say(&self, id: &str, text: &str) -> Value {
        self.tell("demo", id, text)
    }

    pub(crate) fn tell(&self, agent: &str, id: &str, text: &str) -> Value {
        let body = json!({"kind": "user", "body": text}).to_string();
        let path = format!("/agents/{agent}/{id}");
        let answer = self.post(&path, "application/json", body.as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()
    }

    /// Sends a message, and waits until it is answered.
    fn settle(&self, id: &str, text: &str) {
        let sent = self.say(id, text);
        let submission = sent["submissionId"].as_str().unwrap();
        let path = format!("/agents/demo/{id}/submissions/{submission}?wait=60");
        let settled = self.get(&path).json();
        assert_eq!(settled["outcome"], "completed", "{settled}");
    }

    pub(crate) fn history(&self, id: &str) -> Value {
        self.get(&format!("/agents/demo/{id}")).json()
    }

    /// What a stream of events sends until `enough`, or until it ends.
    fn events(&self, id: &str, offset: &str, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let path = format!("/agents/demo/{id}?view=updates&live=sse&offset={offset}");
        let head = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.addr);
        let mut stream = self.open(&head, b"");
        let mut all = Vec::new();
        let mut piece = [0; 512];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            all.extend_from_slice(&piece[..read]);
            if enough(&all) {
                break;
            }
        }
        let begin = find(&all, b"\r\n\r\n").map_or(all.len(), |at| at + 4);
        all.split_off(begin)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let split = find(&all, b"\r\n\r\n");
        let Some(split) = split else {
            return Self {
                status: 0,
                headers: HashMap::new(),
                body: all,
            };
        };
        let head = String::from_utf8_lossy(&all[..split]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: all.split_off(split + 4),
        }
    }

    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    fn error(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        format!(
            "{} {}",
            self.status,
            body["error"]["type"].as_str().unwrap_or("none")
        )
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Messages put together as the published client does it.
#[derive(Clone, Default, PartialEq)]
struct Seen {
    messages: Vec<Value>,
    settlements: Vec<Value>,
    offset: Option<String>,
    position: (u64, u64),
}

impl Seen {
    /// Takes in the events that are whole: data counts once the control behind it is there.
    fn events(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let mut waiting = Vec::new();
        let mut rest = text.as_ref();
        while let Some((event, behind)) = rest.split_once("\n\n") {
            rest = behind;
            if let Some(data) = event.strip_prefix("event: data\ndata:") {
                let chunks: Vec<Value> = serde_json::from_str(data).unwrap();
                waiting.extend(chunks);
            } else if let Some(control) = event.strip_prefix("event: control\ndata:") {
                let control: Value = serde_json::from_str(control).unwrap();
                self.offset = Some(control["streamNextOffset"].as_str().unwrap().to_owned());
                waiting.drain(..).for_each(|chunk| self.chunk(&chunk));
            } else {
                assert_eq!(event, ": heartbeat");
            }
        }
    }

    fn message(&mut self, chunk: &Value) -> Option<&mut Value> {
        let id = chunk["messageId"].as_str()?.to_owned();
        self.messages
            .iter_mut()
            .find(|message| message["id"] == id.as_str())
    }

    fn chunk(&mut self, chunk: &Value) {
        let kind = chunk["type"].as_str().unwrap();
        if kind == "stream-checkpoint" {
            return;
        }
        let position = &chunk["position"];
        let position = (
            position["batch"].as_u64().unwrap(),
            position["index"].as_u64().unwrap(),
        );
        if position <= self.position {
            return;
        }
        self.position = position;
        match kind {
            "conversation-reset" => {
                let list = |name: &str| chunk["snapshot"][name].as_array().unwrap().clone();
                (self.messages, self.settlements) = (list("messages"), list("settlements"));
            }
            "message-appended" => self.messages.push(chunk["message"].clone()),
            "message-started" => self.messages.push(json!({
                "id": chunk["messageId"], "role": "assistant", "purpose": "assistant",
                "display": "visible", "submissionId": chunk["submissionId"], "parts": [],
            })),
            "message-delta" => {
                let (kind, delta) = (chunk["kind"].clone(), chunk["delta"].as_str().unwrap());
                let Some(message) = self.message(chunk) else {
                    return;
                };
                let parts = message["parts"].as_array_mut().unwrap();
                let open = parts.last_mut().filter(|part| part["state"] == "streaming");
                match open {
                    Some(part) if part["type"] == kind => {
                        let text = format!("{}{delta}", part["text"].as_str().unwrap());
                        part["text"] = json!(text);
                        return;
                    }
                    Some(part) => part["state"] = json!("done"),
                    None => {}
                }
                parts.push(json!({"type": kind, "text": delta, "state": "streaming"}));
            }
            "tool-input" => {
                let part = json!({
                    "type": "dynamic-tool", "toolName": chunk["toolName"],
                    "toolCallId": chunk["toolCallId"], "state": "input-available",
                    "input": chunk["input"],
                });
                let Some(message) = self.message(chunk) else {
                    return;
                };
                let parts = message["parts"].as_array_mut().unwrap();
                if let Some(last) = parts.last_mut()
                    && last["state"] == "streaming"
                {
                    last["state"] = json!("done");
                }
                parts.push(part);
            }
            "tool-output" => {
                let parts = self
                    .messages
                    .iter_mut()
                    .flat_map(|message| message["parts"].as_array_mut().unwrap());
                for part in parts.filter(|part| part["toolCallId"] == chunk["toolCallId"]) {
                    part["state"] = json!("output-available");
                    part["output"] = chunk["output"].clone();
                    part["durationMs"] = chunk["durationMs"].clone();
                }
            }
            "message-metadata" => {
                let metadata = chunk["metadata"].clone();
                if let Some(message) = self.message(chunk) {
                    merge(&mut message["metadata"], metadata);
                }
            }
            "message-completed" => {
                let Some(message) = self.message(chunk) else {
                    return;
                };
                for part in message["parts"].as_array_mut().unwrap() {
                    if part["type"] == "text" || part["type"] == "reasoning" {
                        part["state"] = json!("done");
                    }
                }
            }
            "submission-settled" => self.settlements.push(json!({
                "submissionId": chunk["submissionId"], "outcome": chunk["outcome"],
            })),
            other => panic!("{other}"),
        }
    }
}

/// Later values win, objects merge, as in the published clients.
fn merge(known: &mut Value, new: Value) {
    match (known, new) {
        (Value::Object(known), Value::Object(new)) => {
            for (key, value) in new {
                merge(known.entry(key).or_insert(Value::Null), value);
            }
        }
        (known, new) => *known = new,
    }
}

/// What is behind an offset, as plain answers bring it.
fn behind(server: &Serving, id: &str, offset: Option<&str>) -> Vec<Value> {
    let mut offset = offset.unwrap_or("-1").to_owned();
    let mut chunks = Vec::new();
    loop {
        let answer = server.get(&format!("/agents/demo/{id}?view=updates&offset={offset}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        chunks.extend(answer.json().as_array().unwrap().iter().cloned());
        offset.clone_from(&answer.headers["stream-next-offset"]);
        if answer.headers.contains_key("stream-up-to-date") {
            return chunks;
        }
    }
}

/// Puts a summary in the place of the beginning, through the process that has the data.
fn compact(world: &World, id: &str) {
    let ran = world.run(&["compact", "demo", id]);
    assert!(ran.stdout.starts_with("compacted: "), "{}", ran.all());
}

#[test]
fn a_reader_cut_at_any_byte_assembles_the_same_also_when_the_server_is_killed() {
    let world = World::with_script(SCRIPT);
    let settled = |bytes: &[u8]| find(bytes, b"submission-settled").is_some();
    // Killed while the first text streams, and while the second does.
    for (id, marks) in [("early", "several"), ("late", "told at")] {
        let server = Serving::start(&world);
        for about in ["boats", "knots"] {
            server.settle(id, &format!("Tell me about {about}. ").repeat(60));
        }
        compact(&world, id);
        server.say(id, "work");
        let first = server.events(id, "-1", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let mut seen = Seen::default();
            seen.events(
                text.split_once("\r\n\r\n")
                    .map_or("", |(_, body)| body)
                    .as_bytes(),
            );
            seen.messages
                .iter()
                .any(|message| message.to_string().contains(marks))
        });
        server.kill();
        let server = Serving::start(&world);
        let mut begun = Seen::default();
        begun.events(&first);
        let second = server.events(id, begun.offset.as_deref().unwrap(), settled);
        server.settle(id, &"And now? ".repeat(400));
        compact(&world, id);
        let history = server.history(id);
        let ended = history["settlements"].as_array().unwrap().len();
        assert_eq!(ended, 6, "four messages and two compactions");
        let mut known: HashMap<Option<String>, Vec<Value>> = HashMap::new();
        let bodies = [(Seen::default(), first), (begun, second)];
        for (part, (before, body)) in (1..).zip(&bodies) {
            for cut in 0..=body.len() {
                let mut seen = before.clone();
                seen.events(&body[..cut]);
                let rest = known
                    .entry(seen.offset.clone())
                    .or_insert_with(|| behind(&server, id, seen.offset.as_deref()));
                rest.iter().for_each(|chunk| seen.chunk(chunk));
                let label = format!("{id}, body {part} cut at byte {cut}");
                assert_eq!(json!(seen.messages), history["messages"], "{label}");
                assert_eq!(json!(seen.settlements), history["settlements"], "{label}");
            }
        }
        assert!(known.len() > 4, "{} points to go on from", known.len());
    }
}

#[test]
fn bad_messages_get_the_documented_error() {
    let world = World::with_script(SCRIPT);
    let server = Serving::start(&world);
    let message = |body: &str| {
        server
            .post("/agents/demo/bad", "application/json", body.as_bytes())
            .error()
    };
    for body in [
        "{",
        "[",
        "\"",
        "nul",
        "{\"kind\":}",
        "\u{0}",
        "{\"kind\":\"user\",\"body\":\"a\"} x",
    ] {
        assert_eq!(message(body), "400 invalid_json", "{body:?}");
    }
    for body in [
        "[]",
        "7",
        "null",
        "{}",
        r#"{"kind":"user"}"#,
        r#"{"kind":"user","body":7}"#,
        r#"{"kind":"other","body":"a"}"#,
        r#"{"kind":7,"body":"a"}"#,
        r#"{"kind":"user","body":"a","attachments":{}}"#,
        r#"{"kind":"user","body":"a","attachments":[7]}"#,
        r#"{"kind":"user","body":"a","attachments":[{"type":"image","mimeType":"image/png","data":"*"}]}"#,
        r#"{"kind":"user","body":"a","attachments":[{"type":"image","mimeType":"text/html","data":""}]}"#,
        r#"{"kind":"user","body":"a","attachments":[{"type":"file","mimeType":"a/b\r\nx: y","data":""}]}"#,
        r#"{"kind":"user","body":"a","idempotencyKey":""}"#,
        r#"{"kind":"user","body":"a","uid":7}"#,
        r#"{"kind":"user","body":"a","uid":"inst_1","initialData":{}}"#,
        r#"{"kind":"signal","body":"a"}"#,
        r#"{"kind":"signal","type":"memory","body":"a"}"#,
        r#"{"kind":"signal","type":"x","body":"a","attributes":{"a":1}}"#,
        r#"{"kind":"signal","type":"x","body":"a","tagName":"<b>"}"#,
    ] {
        assert_eq!(message(body), "400 invalid_request", "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(message(&deep), "400 invalid_json");
    let invalid = server.post(
        "/agents/demo/bad",
        "application/json",
        b"{\"kind\":\"user\",\"body\":\"\xff\"}",
    );
    assert_eq!(invalid.error(), "400 invalid_json");
    let kind = |kind: &str| server.post("/agents/demo/bad", kind, b"{}").error();
    assert_eq!(kind("text/plain"), "415 unsupported_media_type");
    assert_eq!(
        kind("application/json; charset=utf-8"),
        "400 invalid_request"
    );
    let large = server.post(
        "/agents/demo/bad",
        "application/json",
        &vec![b' '; 33 * 1024 * 1024],
    );
    assert!(
        ["413 body_too_large", "0 none"].contains(&large.error().as_str()),
        "{}",
        large.error()
    );
    let claimed = format!(
        "POST /agents/demo/bad HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n",
        server.addr
    );
    assert_eq!(
        Answer::read(server.open(&claimed, b"")).error(),
        "413 body_too_large"
    );
    assert_eq!(server.get("/agents/demo/bad").status, 404);
}

#[test]
fn bad_paths_and_queries_get_the_documented_error() {
    let world = World::with_script(SCRIPT);
    let server = Serving::start(&world);
    server.say("good", "hi");
    let get = |path: &str| server.get(path).error();
    for query in [
        "?view=other",
        "?view=history&offset=-1",
        "?view=updates",
        "?view=updates&offset=",
        "?view=updates&offset=1",
        "?view=updates&offset=-2",
        "?view=updates&offset=-1&offset=-1",
        "?view=updates&offset=0_0&live=other",
        "?view=updates&offset=-1&tail=1",
        "?limit=0",
        "?limit=x",
        "?before=msg_none",
        "?view=updates&offset=99999999999999999999_0",
    ] {
        assert_eq!(
            get(&format!("/agents/demo/good{query}")),
            "400 invalid_request",
            "{query}"
        );
    }
    assert_eq!(
        get("/agents/demo/good?view=updates&offset=9999999999_0"),
        "416 stream_offset_gone"
    );
    assert_eq!(
        get("/agents/demo/good?view=updates&offset=0000000000000001_9999999999999999"),
        "200 none"
    );
    assert_eq!(get("/agents/demo/none"), "404 stream_not_found");
    assert_eq!(
        get("/agents/demo/none?view=updates&offset=-1&live=sse"),
        "404 stream_not_found"
    );
    for path in [
        "/agents/other/good",
        "/agents/DEMO/good",
        "/agents",
        "/agents/",
        "/agents/demo/",
        "/agents//good",
        "/agents/demo/good/",
        "/agents/demo/good/other",
        "/agents/demo/../demo/good",
        "//agents/demo/good",
        "/agents/demo/good/attachments",
        "/agents/demo/good/attachments/a/b",
    ] {
        assert_eq!(get(path), "404 route_not_found", "{path}");
    }
    assert_eq!(
        get("/agents/demo/good/attachments/..%2f..%2fbowline.toml"),
        "404 attachment_not_found"
    );
    assert_eq!(get("/agents/demo/..%2fgood"), "400 instance_invalid");
    assert_eq!(get("/agents/demo/a%00b"), "400 instance_invalid");
    assert_eq!(
        get(&format!("/agents/demo/{}", "x".repeat(257))),
        "400 instance_invalid"
    );
    assert_eq!(get("/agents/demo/%ff"), "400 invalid_request");
    assert_eq!(
        get("/agents/demo/good/submissions/sub_none"),
        "404 submission_not_found"
    );
    assert_eq!(
        get("/agents/demo/good/submissions/sub_none?wait=61"),
        "400 invalid_request"
    );
}

#[test]
fn bad_heads_get_the_documented_error_and_others_are_served() {
    let world = World::with_script(SCRIPT);
    let server = Serving::start(&world);
    server.settle("good", "hi");
    let put = format!(
        "PUT /agents/demo/good HTTP/1.0\r\nHost: {}\r\n\r\n",
        server.addr
    );
    let put = Answer::read(server.open(&put, b""));
    assert_eq!(put.error(), "405 method_not_allowed");
    assert!(put.headers["allow"].contains("POST"));
    let upgrade = format!(
        "GET /agents/demo/good HTTP/1.0\r\nHost: {}\r\nUpgrade: websocket\r\n\r\n",
        server.addr
    );
    assert_eq!(
        Answer::read(server.open(&upgrade, b"")).error(),
        "400 invalid_request"
    );

    // Heads that are too large, and what is no HTTP at all.
    let flood = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_eq!(Answer::read(server.open(&flood, b"")).status, 431);
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    assert_eq!(Answer::read(server.open(&long, b"")).status, 431);
    assert_eq!(
        Answer::read(server.open("\x16\x03\x01\x00\r\n\r\n", b"")).status,
        400
    );

    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(
        server.history("good")["messages"].as_array().unwrap().len(),
        2
    );
}

#[test]
fn a_stop_ends_streams_in_good_order_and_exits_with_0() {
    let world = World::with_script(SCRIPT);
    let mut server = Serving::start(&world);
    server.say("one", "hi");
    let pid = server.child.id().to_string();
    let asked = std::cell::Cell::new(false);
    let bytes = server.events("one", "-1", |bytes| {
        if !asked.get() && find(bytes, b"upToDate").is_some() {
            let kill = std::process::Command::new("kill")
                .args(["-TERM", &pid])
                .status();
            assert!(kill.unwrap().success());
            asked.set(true);
        }
        false
    });
    assert!(bytes.ends_with(b"\n\n"), "the last event is whole");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
