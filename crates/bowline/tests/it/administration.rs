//! Administration over HTTP: what `/v1/…` tells and does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use bowline::{
    Agent, Bowline, Render, Service,
    server::{App, Key, KeyHash, Keys, Peer, Scope, Settings, openapi_document, router},
};
use bowline_store::{Batch, CommitError, MemoryStore, Seq, Store};
use bowline_testkit::{
    faults::{Fault, Faulty},
    sim::clock,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tower::ServiceExt as _;

mod failures;
mod fibers;
mod scopes;

const SCRIPT: &str = r#"
turns:
  - text: "An answer."
at_end: repeat_last
by_message:
  - match: "^ask"
    turns:
      - text: "May I?"
        tools: [{name: bash, input: {command: "echo made > made.txt"}}]
      - text: "Done."
  - match: "^read"
    turns:
      - tools: [{name: read, input: {path: notes/a.txt}}]
      - text: "Read."
  - match: "^slow"
    turns:
      - text: "As slow as can be, so that it never ends while somebody looks at it."
        stream: {chars: 1, delay_ms: 60000}
"#;

/// Agents on a store in memory, and the routes to them.
struct Place {
    router: Router,
    service: Service,
    key: Option<&'static str>,
    _script: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} {:?}", self.status, self.body))
    }

    /// The status and the stable name of the error.
    fn error(&self) -> String {
        let name = self.json()["error"]["type"]
            .as_str()
            .unwrap_or("none")
            .to_owned();
        format!("{} {name}", self.status.as_u16())
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

fn place(settings: Settings) -> Place {
    place_on(Arc::new(MemoryStore::new()), settings)
}

fn place_on(store: Arc<dyn Store>, settings: Settings) -> Place {
    place_of(Bowline::on(store), settings)
}

fn place_of(bowline: Bowline, settings: Settings) -> Place {
    let script = tempfile::tempdir().unwrap();
    std::fs::write(script.path().join("script.yaml"), SCRIPT).unwrap();
    let mut bowline = bowline.sources(clock::sources(7));
    for name in ["demo", "other"] {
        let dir = script.path().to_path_buf();
        let agent = Agent::new(name, move |cx: &mut Render| {
            cx.model("scripted/script.yaml");
            let definition = cx.definition();
            definition.dir = Some(dir.clone());
            definition.description = Some("Answers.".to_owned());
            definition.approvals.insert(
                "bash".to_owned(),
                bowline_agent::definition::Approval::Required,
            );
            "Answer."
        });
        bowline = bowline.agent(agent.unwrap());
    }
    let service = bowline.start();
    Place {
        router: router(App::new(service.clone(), settings)),
        service,
        key: None,
        _script: script,
    }
}

impl Place {
    fn open() -> Self {
        place(Settings::default())
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .extension(Peer::Address(([127, 0, 0, 1], 1).into()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.call(method, path, &json, body.to_string().as_bytes())
            .await
    }

    /// Sends a message and waits until it is answered, or waits for a person.
    async fn say(&self, agent: &str, id: &str, text: &str) -> String {
        let message = json!({"kind": "user", "body": text});
        let answer = self
            .send("POST", &format!("/agents/{agent}/{id}"), &message)
            .await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        answer.json()["submissionId"].as_str().unwrap().to_owned()
    }

    async fn settled(&self, agent: &str, id: &str, text: &str) -> String {
        let submission = self.say(agent, id, text).await;
        let path = format!("/v1/agents/{agent}/{id}/submissions/{submission}?wait=60");
        assert_eq!(self.get(&path).await.json()["state"], "settled");
        submission
    }

    /// Sends a message that parks; returns what it waits for.
    async fn parked(&self, agent: &str, id: &str) -> Value {
        let mut chunks = self.service.observe(agent, id);
        self.say(agent, id, "ask").await;
        loop {
            let chunk = chunks.recv().await.unwrap();
            if let bowline_agent::ChunkBody::ApprovalRequested { approval } = &chunk.body {
                return json!(approval);
            }
        }
    }

    async fn texts(&self, agent: &str, id: &str) -> Vec<String> {
        let history = self.get(&format!("/agents/{agent}/{id}")).await.json();
        let messages = history["messages"].as_array().unwrap().clone();
        let text = |one: &Value| one["parts"][0]["text"].as_str().unwrap_or("-").to_owned();
        messages.iter().map(text).collect()
    }
}

fn names(list: &Value, field: &str) -> Vec<String> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| one[field].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_description_in_the_reference_is_that_of_the_code() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/openapi.json"
    );
    let made = openapi_document();
    if std::env::var("INSTA_UPDATE").is_ok_and(|mode| mode == "always") {
        std::fs::write(file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        kept == made,
        "docs/reference/openapi.json is not what the code says: run this test with INSTA_UPDATE=always"
    );
}

#[tokio::test]
async fn conversations_are_listed_searched_shown_and_deleted() {
    let place = Place::open();
    for (agent, id) in [("demo", "a"), ("demo", "Berlin"), ("other", "berlin-2")] {
        place.settled(agent, id, "hi").await;
    }
    place.parked("other", "waits").await;

    let agents = place.get("/v1/agents").await.json();
    assert_eq!(names(&agents["agents"], "name"), ["demo", "other"]);
    assert_eq!(agents["agents"][0]["description"], "Answers.");
    assert_eq!(
        place.get("/v1/agents/demo").await.json(),
        agents["agents"][0]
    );
    assert_eq!(
        place.get("/v1/agents/none").await.error(),
        "404 route_not_found"
    );

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = place
            .get(&format!("/v1/instances?limit=3{after}"))
            .await
            .json();
        seen.extend(names(&page["instances"], "id"));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["Berlin", "a", "berlin-2", "waits"]);
    let found = place.get("/v1/instances?search=BERLIN").await.json();
    assert_eq!(names(&found["instances"], "id"), ["Berlin", "berlin-2"]);
    let found = place.get("/v1/instances?agent=other").await.json();
    assert_eq!(names(&found["instances"], "state"), ["idle", "parked"]);
    for query in ["limit=0", "limit=1001", "limit=1&limit=2", "other=1"] {
        let answer = place.get(&format!("/v1/instances?{query}")).await;
        assert_eq!(answer.error(), "400 invalid_request", "{query}");
    }

    let shown = place.get("/v1/agents/other/waits").await.json();
    assert_eq!(
        (&shown["open"], &shown["approvals"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(shown["submissions"][0]["state"], "parked");
    let why = place.get("/v1/agents/other/waits/why").await.json();
    assert_eq!(why["waits"][0]["type"], "approval");
    let why = place.get("/v1/agents/demo/a/why").await.json();
    assert_eq!(why["waits"][0]["type"], "finished");
    assert!(why["waits"][0]["since"].is_string(), "{why}");

    let gone = place.call("DELETE", "/v1/agents/demo/a", &[], b"").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    for path in [
        "",
        "/why",
        "/submissions",
        "/approvals",
        "/schedules",
        "/files",
        "/spend",
    ] {
        let answer = place.get(&format!("/v1/agents/demo/a{path}")).await;
        assert_eq!(answer.error(), "404 stream_not_found", "{path}");
    }
}

#[tokio::test]
async fn a_fork_is_the_conversation_or_the_beginning_of_it() {
    let place = Place::open();
    for text in ["one", "two", "three"] {
        place.settled("demo", "a", text).await;
    }
    let history = place.get("/agents/demo/a").await.json();
    let id = |place: usize| history["messages"][place]["id"].clone();
    let fork = async |body: Value| place.send("POST", "/v1/agents/demo/a/fork", &body).await;
    assert_eq!(
        fork(json!({"id": "whole"})).await.status,
        StatusCode::CREATED
    );
    let told = fork(json!({"id": "before", "before": id(2)})).await.json();
    assert_ne!(told["uid"], history["incarnation"]);
    // The answer's message stands for its exchange as well.
    fork(json!({"id": "through", "through": id(3)})).await;
    assert_eq!(place.texts("demo", "whole").await.len(), 6);
    assert_eq!(place.texts("demo", "before").await, ["one", "An answer."]);
    assert_eq!(
        place.texts("demo", "through").await,
        ["one", "An answer.", "two", "An answer."]
    );
    place.settled("demo", "before", "other").await;
    assert_eq!(
        place.texts("demo", "before").await[2..],
        ["other", "An answer."]
    );
    assert_eq!(place.texts("demo", "a").await.len(), 6);
    let list = place
        .get("/v1/agents/demo/through/submissions")
        .await
        .json();
    assert_eq!(list["settled"].as_array().unwrap().len(), 2);

    for (body, error) in [
        (json!({"id": "whole"}), "409 archive_exists"),
        (json!({"id": "x", "before": id(0)}), "400 invalid_request"),
        (
            json!({"id": "x", "before": "msg_none"}),
            "404 message_not_found",
        ),
        (
            json!({"id": "x", "before": id(2), "through": id(2)}),
            "400 invalid_request",
        ),
        (json!({"id": "x", "other": 1}), "400 invalid_request"),
        (json!({"id": "a/b"}), "400 instance_invalid"),
        (json!({}), "400 invalid_request"),
    ] {
        assert_eq!(fork(body.clone()).await.error(), error, "{body}");
    }
    // While something is open, only what is before it can be forked.
    place.say("demo", "a", "slow").await;
    assert_eq!(
        fork(json!({"id": "y"})).await.error(),
        "409 conversation_busy"
    );
    assert_eq!(
        fork(json!({"id": "y", "through": id(5)})).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn submissions_are_listed_waited_for_and_cancelled() {
    let place = Place::open();
    let first = place.settled("demo", "a", "one").await;
    place.settled("demo", "a", "two").await;
    let slow = place.say("demo", "a", "slow").await;
    let list = place
        .get("/v1/agents/demo/a/submissions?limit=1")
        .await
        .json();
    assert_eq!(names(&list["open"], "submissionId"), [slow.as_str()]);
    assert_eq!(names(&list["settled"], "submissionId"), [first.as_str()]);
    let next = list["next"].as_str().unwrap();
    let more = place
        .get(&format!("/v1/agents/demo/a/submissions?after={next}"))
        .await
        .json();
    assert_eq!(more["settled"].as_array().unwrap().len(), 1);
    assert_eq!(more["next"], Value::Null);
    let shown = place
        .get(&format!("/v1/agents/demo/a/submissions/{first}"))
        .await
        .json();
    assert_eq!(
        (&shown["outcome"], &shown["text"]),
        (&json!("completed"), &json!("An answer."))
    );

    let path = format!("/v1/agents/demo/a/submissions/{slow}");
    let cancelled = place
        .call("POST", &format!("{path}/cancel"), &[], b"")
        .await;
    assert_eq!(cancelled.json(), json!({"aborted": true}));
    let shown = place.get(&format!("{path}?wait=30")).await.json();
    assert_eq!(shown["outcome"], "aborted");
    let none = place.get("/v1/agents/demo/a/submissions/sub_none").await;
    assert_eq!(none.error(), "404 submission_not_found");
}

#[tokio::test]
async fn what_waits_for_a_person_is_listed_and_answered_once() {
    let place = Place::open();
    let one = place.parked("demo", "a").await;
    let two = place.parked("other", "b").await;
    let list = place.get("/v1/approvals").await.json();
    let ids = [&one, &two].map(|one| one["approvalId"].as_str().unwrap().to_owned());
    assert_eq!(names(&list["approvals"], "approvalId"), ids);
    assert_eq!(
        list["approvals"][0]["arguments"]["command"],
        "echo made > made.txt"
    );
    let only = place.get("/v1/approvals?agent=other").await.json();
    assert_eq!(names(&only["approvals"], "id"), ["b"]);
    let page = place.get("/v1/approvals?limit=1").await.json();
    assert_eq!(page["next"], json!(ids[0]));

    let path = format!("/v1/approvals/{}", ids[0]);
    for body in [
        json!({"decision": "maybe"}),
        json!({"decision": "approve", "arguments": 7}),
        json!({"decision": "answer", "text": "yes"}),
        json!({}),
    ] {
        let refused = place.send("POST", &path, &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let edited = json!({"decision": "approve", "arguments": {"command": "echo edited > made.txt"}});
    let answered = place.send("POST", &path, &edited).await;
    assert_eq!(answered.json()["submissionId"], one["submissionId"]);
    let submission = one["submissionId"].as_str().unwrap();
    let wait = format!("/v1/agents/demo/a/submissions/{submission}?wait=60");
    assert_eq!(place.get(&wait).await.json()["text"], "Done.");
    let file = place.get("/v1/agents/demo/a/files/made.txt").await;
    assert_eq!(&file.body[..], b"edited\n");
    assert_eq!(
        place.send("POST", &path, &edited).await.status,
        StatusCode::OK
    );
    let other = place
        .send("POST", &path, &json!({"decision": "reject"}))
        .await;
    assert_eq!(other.error(), "409 approval_answered");
    let list = place.get("/v1/agents/demo/a/approvals").await.json();
    assert_eq!(list["approvals"], json!([]));
    let all = place
        .get("/v1/agents/demo/a/approvals?answered=true")
        .await
        .json();
    assert_eq!(all["approvals"][0]["answer"]["decision"], "approve");
    assert_eq!(all["approvals"][0], place.get(&path).await.json());
    let none = place.get("/v1/approvals/appr_none").await;
    assert_eq!(none.error(), "404 approval_not_found");
}

#[tokio::test]
async fn schedules_are_registered_shown_and_cancelled() {
    let place = Place::open();
    place.settled("demo", "a", "hi").await;
    let path = "/v1/agents/demo/a/schedules/daily";
    let plan = json!({"when": {"type": "every", "millis": 86_400_000}, "message": "read"});
    let made = place.send("PUT", path, &plan).await.json();
    assert_eq!(
        (&made["message"], &made["when"]),
        (&plan["message"], &plan["when"])
    );
    assert_eq!(place.send("PUT", path, &plan).await.json(), made);
    assert_eq!(place.get(path).await.json(), made);
    let list = place.get("/v1/agents/demo/a/schedules").await.json();
    assert_eq!(list["schedules"], json!([made]));
    for (body, error) in [
        (
            json!({"when": {"type": "every", "millis": 1}, "message": ""}),
            "schedule_invalid",
        ),
        (
            json!({"when": {"type": "at", "time": "1970-01-01T00:00:00Z"}, "message": ""}),
            "schedule_past",
        ),
        (
            json!({"when": {"type": "never"}, "message": ""}),
            "invalid_request",
        ),
    ] {
        let refused = place.send("PUT", path, &body).await;
        assert_eq!(refused.error(), format!("400 {error}"));
    }
    let gone = place.call("DELETE", path, &[], b"").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(place.get(path).await.error(), "404 schedule_not_found");
    assert_eq!(
        place.call("DELETE", path, &[], b"").await.error(),
        "404 schedule_not_found"
    );
}

#[tokio::test]
async fn files_are_read_in_ranges_and_changed_only_as_they_are_expected() {
    let place = Place::open();
    place.settled("demo", "a", "hi").await;
    let path = "/v1/agents/demo/a/files/notes/a.txt";
    let put = |headers: &'static [(&'static str, &'static str)], body: &'static [u8]| {
        place.call("PUT", path, headers, body)
    };
    assert_eq!(place.get(path).await.error(), "404 workspace_not_found");
    assert_eq!(
        put(&[("if-match", "\"x\"")], b"no").await.error(),
        "412 file_changed"
    );
    let made = put(&[("if-none-match", "*")], b"0123456789").await;
    assert_eq!(
        (made.status, made.json()["created"].clone()),
        (StatusCode::CREATED, json!(true))
    );
    assert_eq!(
        put(&[("if-none-match", "*")], b"no").await.error(),
        "412 file_changed"
    );
    assert_eq!(
        put(&[("if-match", "x")], b"no").await.error(),
        "400 invalid_request"
    );
    let tag = made.header("etag").to_owned();

    let whole = place.get(path).await;
    assert_eq!(
        (&whole.body[..], whole.header("etag")),
        (&b"0123456789"[..], tag.as_str())
    );
    assert_eq!(whole.header("content-security-policy"), "sandbox");
    for (range, part, says) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let got = place.call("GET", path, &[("range", range)], b"").await;
        assert_eq!(got.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            (&got.body[..], got.header("content-range")),
            (part.as_bytes(), says)
        );
    }
    for range in ["bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"] {
        let got = place.call("GET", path, &[("range", range)], b"").await;
        assert_eq!(got.status, StatusCode::OK, "{range}");
    }
    for range in ["bytes=10-", "bytes=-0"] {
        let got = place.call("GET", path, &[("range", range)], b"").await;
        assert_eq!(got.error(), "416 range_not_there");
        assert_eq!(got.header("content-range"), "bytes */10");
    }
    let head = place.call("HEAD", path, &[], b"").await;
    assert_eq!((head.header("content-length"), head.body.len()), ("10", 0));
    let same = place
        .call("GET", path, &[("if-none-match", &tag)], b"")
        .await;
    assert_eq!(
        (same.status, same.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );

    let new = place
        .call("PUT", path, &[("if-match", &tag)], b"The new text.\n")
        .await;
    assert_eq!(
        (new.status, new.json()["created"].clone()),
        (StatusCode::OK, json!(false))
    );
    assert_ne!(new.header("etag"), tag);
    let old = place.call("DELETE", path, &[("if-match", &tag)], b"").await;
    assert_eq!(old.error(), "412 file_changed");
    // The agent sees it at once, in a conversation that was awake all the time.
    place.settled("demo", "a", "read").await;
    let history = place.get("/agents/demo/a").await.json();
    assert!(history.to_string().contains("The new text."), "{history}");
}

#[tokio::test]
async fn folders_are_listed_in_pages_and_removed_whole_only_when_asked() {
    let place = Place::open();
    place.settled("demo", "a", "hi").await;
    let files = "/v1/agents/demo/a/files";
    for file in ["b.txt", "notes/a.txt"] {
        let put = place
            .call("PUT", &format!("{files}/{file}"), &[], b"b")
            .await;
        assert_eq!(put.status, StatusCode::CREATED);
    }
    place
        .call("PUT", &format!("{files}/notes/deep/c.txt"), &[], b"c")
        .await;
    let list = place.get(files).await.json();
    assert_eq!(names(&list["entries"], "path"), ["b.txt", "notes"]);
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = place
            .get(&format!("{files}?recursive=true&limit=2{after}"))
            .await
            .json();
        seen.extend(names(&page["entries"], "path"));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(
        seen,
        [
            "b.txt",
            "notes",
            "notes/a.txt",
            "notes/deep",
            "notes/deep/c.txt"
        ]
    );
    let folder = place.get(&format!("{files}/notes")).await.json();
    assert_eq!(folder["path"], "/workspace/notes");
    let absolute = place.get(&format!("{files}/%2Fworkspace%2Fb.txt")).await;
    assert_eq!(&absolute.body[..], b"b");
    let gone = place
        .call("DELETE", &format!("{files}/notes"), &[], b"")
        .await;
    assert_eq!(gone.error(), "409 workspace_not_empty");
    let gone = place
        .call("DELETE", &format!("{files}/notes?recursive=true"), &[], b"")
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let gone = place.get(&format!("{files}/notes/a.txt")).await;
    assert_eq!(gone.error(), "404 workspace_not_found");

    // While a message is being answered, its agent alone changes them.
    place.say("demo", "a", "slow").await;
    let busy = place
        .call("PUT", &format!("{files}/b.txt"), &[], b"no")
        .await;
    assert_eq!(busy.error(), "409 conversation_busy");
    assert_eq!(place.get(files).await.status, StatusCode::OK);
}

/// Counts the records that are read.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait::async_trait]
impl Fault for Counting {
    fn is_dead(&self) -> bool {
        false
    }

    async fn commit(&self, inner: &dyn Store, batch: Batch) -> Result<Seq, CommitError> {
        inner.commit(batch).await
    }

    fn read(&self, records: usize) {
        self.0.fetch_add(records, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_history_that_is_asked_for_again_reads_only_what_is_new() {
    let store = Faulty::with(Arc::new(MemoryStore::new()), Counting::default());
    let place = place_on(store.clone(), Settings::default());
    for _ in 0..40 {
        place.settled("demo", "a", "hi").await;
    }
    let path = "/agents/demo/a";
    let read = async |path: &str| {
        let before = store.0.load(Ordering::SeqCst);
        let answer = place.get(path).await;
        (answer, store.0.load(Ordering::SeqCst) - before)
    };
    let (first, all) = read(path).await;
    assert!(all > 200, "{all} records");
    // The few records at the beginning say whether it is still the same conversation.
    let few = 32;
    let (again, cost) = read(path).await;
    assert_eq!(
        (again.body, cost < few),
        (first.body, true),
        "{cost} records"
    );
    place.settled("demo", "a", "once more").await;
    let (more, cost) = read(path).await;
    assert_eq!(more.json()["messages"].as_array().unwrap().len(), 82);
    assert!(cost < few, "{cost} records");
    let (page, cost) = read("/agents/demo/a?limit=2").await;
    assert!(cost < few, "{cost} records");
    let page = page.json();
    assert_eq!(
        page["messages"],
        json!(more.json()["messages"].as_array().unwrap()[80..])
    );
    assert_eq!(
        (&page["more"], page["settlements"].as_array().unwrap().len()),
        (&json!(true), 1)
    );
    let before = page["messages"][0]["id"].as_str().unwrap();
    let page = place
        .get(&format!("{path}?limit=3&before={before}"))
        .await
        .json();
    assert_eq!(
        page["messages"],
        json!(more.json()["messages"].as_array().unwrap()[77..80])
    );
    // Deleted and begun anew, it is another one.
    place.call("DELETE", path, &[], b"").await;
    place.settled("demo", "a", "anew").await;
    let anew = place.get(path).await.json();
    assert_eq!(anew["messages"].as_array().unwrap().len(), 2);
    let actor = bowline_agent::actor("demo", "a");
    let kept = bowline_agent::feed::history(store.clone(), &actor);
    assert_eq!(anew, json!(kept.await.unwrap().unwrap()));
}
