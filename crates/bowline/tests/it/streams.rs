//! Durable streams over HTTP.

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    http::{Request, Response as HttpResponse},
};
use bowline::{
    Agent, Bowline, Outgoing, Render,
    server::{Access, App, Peer, Server, Settings, StreamGrant, router},
};
use bowline_store::{MemoryStore, Store};
use bowline_testkit::sim::clock;
use futures::StreamExt as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::npm;

type Response = HttpResponse<Body>;

/// A server in this process.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<bool>,
    service: bowline::Service,
}

impl Site {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(Bowline::open(data).unwrap(), "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_with(bowline: Bowline, addr: SocketAddr) -> Self {
        let settings = Settings {
            addr,
            long_poll: Duration::from_millis(500),
            drain: Duration::from_secs(5),
            ..Settings::default()
        };
        Self::start_as(bowline, settings).await
    }

    pub(crate) async fn start_as(bowline: Bowline, settings: Settings) -> Self {
        let service = bowline.start();
        let server = Server::bind(App::new(service.clone(), settings))
            .await
            .unwrap();
        let stop = CancellationToken::new();
        Self {
            addr: server.addr(),
            serving: tokio::spawn(server.serve(stop.clone())),
            stop,
            service,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn service(&self) -> &bowline::Service {
        &self.service
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        assert!(self.serving.await.unwrap(), "connections had to be cut");
        self.service.stop(Duration::from_secs(10)).await;
    }
}

/// Runs a file of tests with vitest; answers with how many passed and what failed.
async fn vitest(dir: &Path, file: &str, site: &Site) -> (u64, Vec<String>) {
    let report = dir.join(format!("{file}.json"));
    let run = tokio::process::Command::new("node")
        .args([
            "../node_modules/vitest/vitest.mjs",
            "run",
            file,
            "--root",
            ".",
        ])
        .args(["--reporter=json", "--testTimeout=30000", "--outputFile"])
        .arg(&report)
        .current_dir(dir)
        .env("BOWLINE_URL", site.url())
        .env("BOWLINE_LONG_POLL_MS", "500")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(Duration::from_secs(300), run).await;
    let run = run.expect("the suite took more than five minutes").unwrap();
    let text = std::fs::read(&report).unwrap_or_default();
    let report: Value = serde_json::from_slice(&text).unwrap_or_else(|error| {
        let words = String::from_utf8_lossy(&run.stderr);
        panic!("vitest left no report ({error}): {words}")
    });
    let results = report["testResults"].as_array().unwrap();
    let tests = results
        .iter()
        .flat_map(|it| it["assertionResults"].as_array().unwrap());
    let failed = tests.filter(|test| test["status"] != "passed").map(|test| {
        let why = test["failureMessages"][0].as_str().unwrap_or_default();
        let why: String = why.lines().take(6).collect::<Vec<_>>().join("\n    ");
        format!(
            "{}\n    {why}",
            test["fullName"].as_str().unwrap_or_default()
        )
    });
    let failed = failed.collect();
    (report["numPassedTests"].as_u64().unwrap(), failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_conformance_suite_passes_whole() {
    let Some(dir) = npm::project("streams") else {
        return;
    };
    let data = bowline_testkit::canary::Folder::new().unwrap();
    let site = Site::start(data.path()).await;
    let (passed, failed) = vitest(dir.path(), "conformance.test.js", &site).await;
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert_eq!(passed, 338);
    site.stop().await;
}

/// All routes on a store in memory, without a socket, so that time can be paused.
fn routes(access: Option<Access>) -> (Router, bowline::Service) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let script = tempfile::tempdir().unwrap().keep();
    std::fs::write(
        script.join("script.yaml"),
        "turns:\n  - text: Hello there.\nat_end: repeat_last\n",
    )
    .unwrap();
    let agent = Agent::new("demo", move |cx: &mut Render| {
        cx.model("scripted/script.yaml");
        cx.definition().dir = Some(script.clone());
        "Answer."
    });
    let bowline = Bowline::on(store)
        .sources(clock::sources(1))
        .agent(agent.unwrap());
    let service = bowline.start();
    let settings = Settings {
        long_poll: Duration::from_secs(20),
        ..Settings::default()
    };
    let router = router(App::new(service.clone(), settings));
    let router = match access {
        Some(access) => router.layer(Extension(access)),
        None => router,
    };
    (router, service)
}

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn call(
    router: &Router,
    method: &str,
    path: &str,
    headers: Headers<'_>,
    body: &str,
) -> Response {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/v1/stream/{path}"))
        .extension(Peer::Address(([127, 0, 0, 1], 1).into()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

async fn body(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

const TEXT: Headers<'static> = &[("content-type", "text/plain")];

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_made_again_at_its_path_is_never_taken_for_the_one_before() {
    let (router, _service) = routes(None);
    let mut tags: Vec<String> = Vec::new();
    for _ in 0..2 {
        assert_eq!(
            call(&router, "PUT", "s", TEXT, "same bytes").await.status(),
            201
        );
        let read = call(&router, "GET", "s", &[], "").await;
        let tag = header(&read, "etag").to_owned();
        let known = [("if-none-match", tag.as_str())];
        assert_eq!(call(&router, "GET", "s", &known, "").await.status(), 304);
        for before in &tags {
            let known = [("if-none-match", before.as_str())];
            assert_eq!(call(&router, "GET", "s", &known, "").await.status(), 200);
        }
        tags.push(tag);
        assert_eq!(call(&router, "DELETE", "s", &[], "").await.status(), 204);
    }
    // A closure changes what a reader would learn, so it changes the tag.
    call(&router, "PUT", "s", TEXT, "bytes").await;
    let open = header(&call(&router, "GET", "s", &[], "").await, "etag").to_owned();
    let closing = [("stream-closed", "TRUE")];
    let closed = call(&router, "POST", "s", &closing, "").await;
    assert_eq!(
        (closed.status().as_u16(), header(&closed, "stream-closed")),
        (204, "true")
    );
    let known = [("if-none-match", open.as_str())];
    let read = call(&router, "GET", "s", &known, "").await;
    assert_eq!(
        (read.status().as_u16(), header(&read, "stream-closed")),
        (200, "true")
    );
    let other = [("stream-closed", "yes"), ("content-type", "text/plain")];
    assert_eq!(call(&router, "PUT", "t", &other, "").await.status(), 201);
    let open = call(&router, "HEAD", "t", &[], "").await;
    assert_eq!(header(&open, "stream-closed"), "");
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_after_a_minute_and_goes_on_where_it_was() {
    let (router, _service) = routes(None);
    call(&router, "PUT", "s", TEXT, "one").await;
    let begun = tokio::time::Instant::now();
    let first = call(&router, "GET", "s?offset=-1&live=sse", &[], "").await;
    let first = tokio::spawn(body(first));
    tokio::time::sleep(Duration::from_secs(59)).await;
    call(&router, "POST", "s", TEXT, "two").await;
    let first = first.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(
        first.contains("data:one\n\nevent: control")
            && first.contains("data:two\n\nevent: control")
    );
    // Alive in between, in words that a reader passes over or uses.
    assert!(first.matches("event: control").count() > 4);
    let last = first.rsplit("event: control\ndata:").next().unwrap();
    let last: Value = serde_json::from_str(last.trim()).unwrap();
    let (offset, cursor) = (&last["streamNextOffset"], &last["streamCursor"]);
    let again = format!(
        "s?offset={}&live=sse&cursor={}",
        offset.as_str().unwrap(),
        cursor.as_str().unwrap()
    );
    let second = tokio::spawn(body(call(&router, "GET", &again, &[], "").await));
    tokio::task::yield_now().await;
    call(
        &router,
        "POST",
        "s",
        &[("stream-closed", "true"), TEXT[0]],
        "three",
    )
    .await;
    let second = second.await.unwrap();
    assert!(!second.contains("two") && second.contains("data:three"));
    assert!(second.trim_end().ends_with('}') && second.contains("\"streamClosed\":true"));
}

#[tokio::test(start_paused = true)]
async fn a_key_reaches_only_the_streams_it_was_given() {
    let grants = vec![
        StreamGrant {
            prefix: "chat".into(),
            write: true,
        },
        StreamGrant {
            prefix: "news".into(),
            write: false,
        },
    ];
    let (router, service) = routes(Some(Access::with_streams("k", grants)));
    service
        .ask("demo", "mia", Outgoing::user("Hi"))
        .await
        .unwrap();
    for (method, path, status) in [
        ("PUT", "chat/1", 201),
        ("PUT", "chat", 201),
        ("PUT", "chatter", 403),
        ("PUT", "news/1", 403),
        ("GET", "news/1", 404),
        ("GET", "other", 403),
        ("HEAD", "agents/demo/mia", 403),
        ("DELETE", "chat/1", 204),
    ] {
        let answer = call(&router, method, path, TEXT, "").await;
        assert_eq!(answer.status(), status, "{method} {path}");
    }
    // A fork, a subscription or an encoded path is no way around.
    let fork = [TEXT[0], ("stream-forked-from", "/v1/stream/secret")];
    assert_eq!(
        call(&router, "PUT", "chat/fork", &fork, "").await.status(),
        403
    );
    assert_eq!(call(&router, "GET", "%6fther", &[], "").await.status(), 403);
    for pattern in ["**", "other/*", "cha*"] {
        let new = format!(r#"{{"type":"pull-wake","pattern":"{pattern}","wake_stream":"chat/w"}}"#);
        let refused = call(&router, "PUT", "__ds/subscriptions/s", &[], &new).await;
        assert_eq!(refused.status(), 403, "{pattern}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_other_sites_cannot_use_a_server_without_keys() {
    let (router, _service) = routes(None);
    let foreign = ("origin", "https://evil.example");
    let refused = call(&router, "PUT", "s", &[TEXT[0], foreign], "x").await;
    assert_eq!(refused.status(), 403);
    let own = ("origin", "http://localhost:5173");
    let allowed = call(&router, "PUT", "s", &[TEXT[0], own], "x").await;
    assert_eq!(allowed.status(), 201);
    assert_eq!(
        header(&allowed, "access-control-allow-origin"),
        "http://localhost:5173"
    );
    let read = call(&router, "GET", "s", &[foreign], "").await;
    assert_eq!(header(&read, "access-control-allow-origin"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_a_stream_of_its_public_chunks() {
    let (router, service) = routes(None);
    let path = "agents/demo/mia";
    assert_eq!(call(&router, "GET", path, &[], "").await.status(), 404);
    service
        .ask("demo", "mia", Outgoing::user("Hi"))
        .await
        .unwrap();
    assert_eq!(call(&router, "POST", path, TEXT, "x").await.status(), 405);
    let read = call(&router, "GET", path, &[], "").await;
    assert_eq!(
        (read.status().as_u16(), header(&read, "stream-up-to-date")),
        (200, "true")
    );
    let (end, tag) = (
        header(&read, "stream-next-offset").to_owned(),
        header(&read, "etag").to_owned(),
    );
    let head = call(&router, "HEAD", path, &[], "").await;
    assert_eq!(header(&head, "stream-next-offset"), end);
    let text = body(read).await;
    let chunks: Value = serde_json::from_str(&text).unwrap();
    assert!(chunks.as_array().unwrap().len() > 2 && text.contains("Hello there."));
    let known = [("if-none-match", tag.as_str())];
    assert_eq!(call(&router, "GET", path, &known, "").await.status(), 304);
    // A reader that waits gets what comes, and nothing twice.
    let waiting = {
        let (router, end) = (router.clone(), end.clone());
        tokio::spawn(async move {
            let target = format!("agents/demo/mia?offset={end}&live=long-poll");
            body(call(&router, "GET", &target, &[], "").await).await
        })
    };
    service
        .ask("demo", "mia", Outgoing::user("And again"))
        .await
        .unwrap();
    let more = waiting.await.unwrap();
    let more: Value = serde_json::from_str(&more).unwrap();
    assert!(!more.as_array().unwrap().is_empty());
    let events = call(
        &router,
        "GET",
        "agents/demo/mia?offset=-1&live=sse",
        &[],
        "",
    )
    .await;
    assert_eq!(header(&events, "content-type"), "text/event-stream");
    let first = events
        .into_body()
        .into_data_stream()
        .next()
        .await
        .unwrap()
        .unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(first.starts_with("event: data\ndata:[{") && first.contains("\n\nevent: control\n"));
}
