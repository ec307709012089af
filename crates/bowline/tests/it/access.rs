//! Who is let in by the server, and what it does with those who want to harm it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bowline::{
    Agent, Bowline, Render,
    server::{Key, KeyHash, Keys, Rate, Scope, Settings, StreamGrant, Tls},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{streams::Site, world::World};

/// What a test server answers within, whatever is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    site: Site,
    _data: bowline_testkit::canary::Folder,
}

async fn start(settings: Settings) -> Place {
    let data = bowline_testkit::canary::Folder::new().unwrap();
    let mut bowline = Bowline::open(data.path()).unwrap();
    for name in ["support", "sales"] {
        let agent = Agent::new(name, |cx: &mut Render| {
            cx.model("scripted/none.yaml");
            "Help."
        });
        bowline = bowline.agent(agent.unwrap());
    }
    let settings = Settings {
        addr: "127.0.0.1:0".parse().unwrap(),
        drain: Duration::from_secs(5),
        ..settings
    };
    Place {
        site: Site::start_as(bowline, settings).await,
        _data: data,
    }
}

fn key(name: &str, agents: &[&str], scopes: &[Scope], streams: Vec<StreamGrant>) -> Key {
    Key {
        name: name.to_owned(),
        hash: KeyHash::of(&secret(name)),
        agents: agents.iter().map(|&agent| agent.to_owned()).collect(),
        scopes: scopes.to_vec(),
        streams,
    }
}

fn secret(name: &str) -> String {
    format!("bwl_secret-of-{name}")
}

/// What a server says to bytes, until it closes the connection.
async fn say(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Who is refused in the middle of what it says may find nobody who listens.
    let _ = stream.write_all(bytes).await;
    heard(&mut stream).await
}

async fn heard(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the server keeps the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks with these headers, and a body where there is one.
async fn ask(addr: SocketAddr, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        text.push_str(&format!("host: {addr}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let answer = say(addr, text.as_bytes()).await;
    (status(&answer), answer)
}

fn status(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1).unwrap_or_default();
    word.parse().unwrap_or(0)
}

/// The stable name of the error in an answer.
fn code(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["error"]["type"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn with_key(addr: SocketAddr, name: &str, line: &str) -> u16 {
    let bearer = format!("Bearer {}", secret(name));
    ask(addr, line, &[("authorization", &bearer)], "").await.0
}

#[test]
fn a_server_that_others_can_reach_does_not_start_without_keys() {
    let world = World::with_script("turns: []\nat_end: error\n");
    let ran = world.run(&["serve", "--addr", "0.0.0.0:0"]);
    insta::assert_snapshot!(ran.all());
}

#[test]
fn a_key_that_was_made_lets_in_what_it_says() {
    let world = World::with_script("turns: []\nat_end: error\n");
    let made = world.run(&["auth", "new", "web", "--agents", "support-*", "--json"]);
    let line = &made.lines()[0];
    let key = line["key"].as_str().unwrap();
    assert!(key.starts_with("bwl_") && key.len() == 54, "{key}");
    assert_eq!(
        line["entry"]["hash"].as_str().unwrap(),
        KeyHash::of(key).to_string()
    );
    let shown = world.run(&["auth", "new", "web", "--stream", "logs", "--write"]);
    let shown = regex::Regex::new("bwl_[A-Za-z0-9_-]{50}|[0-9a-f]{64}")
        .unwrap()
        .replace_all(&shown.all(), "…")
        .into_owned();
    insta::assert_snapshot!(shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_what_it_was_made_for_and_nothing_else() {
    let grant = |prefix: &str, write| StreamGrant {
        prefix: prefix.to_owned(),
        write,
    };
    let keys = [
        key("reader", &["support"], &[Scope::Read], vec![]),
        key("writer", &["support"], &[Scope::Read, Scope::Send], vec![]),
        key("admin", &["*"], &[Scope::Admin], vec![]),
        key(
            "sensor",
            &[],
            &[],
            vec![grant("logs/a", true), grant("logs", false)],
        ),
    ];
    let place = start(Settings {
        keys: Keys::new(keys),
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;

    let (refused, answer) = ask(addr, "GET /agents/support/x", &[], "").await;
    assert_eq!((refused, code(&answer).as_str()), (401, "unauthorized"));
    assert!(answer.to_lowercase().contains("www-authenticate: bearer"));
    assert_eq!(with_key(addr, "nobody", "GET /agents/support/x").await, 401);
    assert_eq!(ask(addr, "GET /healthz", &[], "").await.0, 200);

    // 404: let in, and there is no such conversation.
    for (name, line, wanted) in [
        ("reader", "GET /agents/support/x", 404),
        ("reader", "GET /agents/sales/x", 403),
        ("reader", "POST /agents/support/x", 403),
        ("reader", "POST /agents/support/x/abort", 403),
        ("reader", "GET /agents/support", 403),
        ("reader", "GET /v1/stream/agents/support/x", 404),
        ("reader", "GET /v1/stream/agents/sales/x", 403),
        ("reader", "GET /v1/stream/logs/a", 403),
        ("writer", "POST /agents/support/x", 400),
        ("writer", "DELETE /agents/support/x", 403),
        ("admin", "GET /agents/sales", 200),
        ("sensor", "PUT /v1/stream/logs/a/1", 201),
        ("sensor", "PUT /v1/stream/logs/ab", 403),
        ("sensor", "PUT /v1/stream/logs/b", 403),
        ("sensor", "GET /v1/stream/logs/b", 404),
        ("sensor", "GET /v1/stream/other", 403),
        ("sensor", "GET /agents/support/x", 403),
    ] {
        assert_eq!(with_key(addr, name, line).await, wanted, "{name}: {line}");
    }
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_gets_nothing_through_a_browser_on_this_machine() {
    let place = start(Settings {
        cors: vec!["https://app.example".to_owned()],
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let line = "GET /agents/support";
    for (header, value, wanted) in [
        ("host", "evil.example", "host_not_allowed"),
        ("host", "127.0.0.1.evil.example", "host_not_allowed"),
        ("origin", "https://evil.example", "origin_not_allowed"),
        (
            "origin",
            "https://localhost.evil.example",
            "origin_not_allowed",
        ),
        ("origin", "null", "origin_not_allowed"),
    ] {
        let (status, answer) = ask(addr, line, &[(header, value)], "").await;
        assert_eq!((status, code(&answer).as_str()), (403, wanted), "{value}");
        assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    }
    for (header, value) in [
        ("host", "localhost:1"),
        ("host", "[::1]:80"),
        ("origin", "http://localhost:5173"),
    ] {
        assert_eq!(
            ask(addr, line, &[(header, value)], "").await.0,
            200,
            "{value}"
        );
    }

    let listed = [("origin", "https://app.example")];
    let (status, answer) = ask(addr, line, &listed, "").await;
    assert_eq!(status, 200);
    assert!(answer.contains("access-control-allow-origin: https://app.example"));
    let asks = [listed[0], ("access-control-request-method", "POST")];
    let (status, answer) = ask(addr, "OPTIONS /agents/support/x", &asks, "").await;
    assert_eq!(status, 204);
    assert!(answer.contains("access-control-allow-methods"), "{answer}");
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_keys_is_slow_and_a_key_has_a_rate() {
    let once = Rate {
        per_second: 1,
        burst: 3,
    };
    let place = start(Settings {
        keys: Keys::new([key("admin", &["*"], &[Scope::Admin], vec![])]),
        stranger_rate: once,
        key_rate: once,
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    for (name, first) in [("guess", 401), ("admin", 200)] {
        let bearer = format!("Bearer {}", secret(name));
        let headers = [("authorization", bearer.as_str())];
        let mut seen = Vec::new();
        for _ in 0..6 {
            let (status, answer) = ask(addr, "GET /agents/support", &headers, "").await;
            seen.push(status);
            assert_eq!(status == 429, answer.contains("retry-after: 1"), "{answer}");
        }
        assert_eq!(seen[0], first);
        assert!(seen.contains(&429), "{name}: {seen:?}");
    }
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_follow_at_once() {
    let place = start(Settings {
        max_followers: 1,
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let made = ask(
        addr,
        "PUT /v1/stream/s",
        &[("content-type", "text/plain")],
        "",
    )
    .await;
    assert_eq!(made.0, 201);
    let follow = format!("GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: {addr}\r\n\r\n");
    let mut first = TcpStream::connect(addr).await.unwrap();
    first.write_all(follow.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    first.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let second = ask(addr, "GET /v1/stream/s?offset=-1&live=sse", &[], "").await;
    assert_eq!((second.0, code(&second.1).as_str()), (429, "rate_limited"));
    drop(first);
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_serves_https() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, private) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&private, made.signing_key.serialize_pem()).unwrap();
    let swapped = Tls::load(&private, &cert).unwrap_err();
    assert_eq!(swapped.code, "server_certificate");
    let place = start(Settings {
        tls: Some(Tls::load(&cert, &private).unwrap()),
        head_timeout: Duration::from_millis(300),
        ..Settings::default()
    })
    .await;

    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(place.site.addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name.clone(), tcp).await.unwrap();
    tls.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&heard(&mut tls).await), 200);
    // Whoever speaks in the clear is told, whoever speaks otherwise or not at all is cut.
    let answer = say(place.site.addr, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(
        (status(&answer), code(&answer).as_str()),
        (400, "invalid_request")
    );
    assert!(answer.contains("https://"), "{answer}");
    for nothing in [&b""[..], b"\0\0\0\0", b"\x16\x03\x01"] {
        let answer = say(place.site.addr, nothing).await;
        assert!(!answer.contains("HTTP/"), "{answer}");
    }
    // One who shakes hands and then says nothing, or never enough to tell what it speaks, is cut as well.
    for part in [&b""[..], b"P", b"PRI * HTTP/2.0"] {
        let tcp = TcpStream::connect(place.site.addr).await.unwrap();
        let mut tls = connector.connect(name.clone(), tcp).await.unwrap();
        tls.write_all(part).await.unwrap();
        assert_eq!(heard(&mut tls).await, "");
    }
    // Files that do not fit together change nothing; then the next connection is shown the new certificate.
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let shown = async || {
        let tcp = TcpStream::connect(place.site.addr).await.unwrap();
        connector.connect(name.clone(), tcp).await.is_ok()
    };
    std::fs::write(&private, made.signing_key.serialize_pem()).unwrap();
    assert!(shown().await);
    std::fs::write(&cert, made.cert.pem()).unwrap();
    assert!(!shown().await, "the old certificate is still shown");
    place.site.stop().await;
}

/// A client of HTTP/2 with a bare hand: its preface, then whatever it says.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_for_nothing_is_cut_in_every_version() {
    let place = start(Settings {
        head_timeout: Duration::from_millis(300),
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    // Too little to tell the version, in the time of a head.
    for part in ["", "P", "PR", "PRI * HTTP/2.0\r\n", "GET /he"] {
        assert_eq!(status(&say(addr, part.as_bytes()).await), 0, "{part}");
    }
    // What only looks like the other version at first is answered.
    for line in ["PROPFIND /healthz", "PRIVATE /healthz", "P /healthz"] {
        assert_eq!(ask(addr, line, &[], "").await.0, 405, "{line}");
    }
    // One that answers each ping, as a client must, and never asks for anything.
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let pinging = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut body = vec![0; length as usize];
            stream.read_exact(&mut body).await.unwrap();
            if (head[3], head[4]) == (6, 0) {
                head[4] = 1;
                let pong = [&head[..], &body].concat();
                if stream.write_all(&pong).await.is_err() {
                    break;
                }
            }
        }
    };
    let cut = tokio::time::timeout(PATIENCE, pinging).await;
    assert!(cut.is_ok(), "the connection is kept");
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_get_their_error_and_others_are_served() {
    let place = start(Settings {
        head_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        max_body: 1024 * 1024,
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let json = [("content-type", "application/json")];
    let send = "POST /agents/support/x";
    let deep = "[".repeat(100_000);
    for (line, body, wanted, named) in [
        (send, "{\"kind\":", 400, "invalid_json"),
        (send, "{\"kind\":7}", 400, "invalid_request"),
        (send, deep.as_str(), 400, "invalid_json"),
        (
            "GET /agents/support/x?view=updates&offset=zz",
            "",
            400,
            "invalid_request",
        ),
        (
            "GET /agents/support/x?view=nothing",
            "",
            400,
            "invalid_request",
        ),
        ("GET /agents/support/%ff", "", 400, "invalid_request"),
        ("GET /agents/../../etc/passwd", "", 404, "route_not_found"),
        (
            "GET /agents/support%2f..%2fsales/x",
            "",
            404,
            "route_not_found",
        ),
        ("BREW /agents/support/x", "", 405, "method_not_allowed"),
    ] {
        let (status, answer) = ask(addr, line, &json, body).await;
        assert_eq!(
            (status, code(&answer).as_str()),
            (wanted, named),
            "{line}: {answer}"
        );
    }
    // A body of 100 MB is refused before it is sent.
    let huge = format!(
        "{send} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 100000000\r\n\r\n"
    );
    let answer = say(addr, huge.as_bytes()).await;
    assert_eq!(
        (status(&answer), code(&answer).as_str()),
        (413, "body_too_large")
    );
    // Slow senders, of a head and of a body.
    assert!(matches!(
        status(&say(addr, b"GET /healthz HT").await),
        0 | 408
    ));
    let slow = huge.replace("100000000", "10");
    let answer = say(addr, slow.as_bytes()).await;
    assert_eq!(
        (status(&answer), code(&answer).as_str()),
        (408, "body_timeout")
    );
    // More and larger headers than anybody needs.
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    assert!(matches!(
        status(&say(addr, many.as_bytes()).await),
        400 | 431
    ));
    let large = format!(
        "GET /healthz HTTP/1.1\r\na: {}\r\n\r\n",
        "b".repeat(1_000_000)
    );
    assert!(matches!(
        status(&say(addr, large.as_bytes()).await),
        0 | 400 | 431
    ));
    let (status, _) = ask(addr, "GET /healthz", &[], "").await;
    assert_eq!(status, 200);
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_is_cut() {
    let place = start(Settings {
        write_timeout: Duration::from_millis(300),
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let bytes = [("content-type", "application/octet-stream")];
    let piece = "x".repeat(8 * 1024 * 1024);
    assert_eq!(ask(addr, "PUT /v1/stream/s", &bytes, &piece).await.0, 201);
    let mut slow = TcpStream::connect(addr).await.unwrap();
    let line = format!("GET /v1/stream/s?offset=-1 HTTP/1.1\r\nhost: {addr}\r\n\r\n");
    slow.write_all(line.as_bytes()).await.unwrap();
    // Drained in good order although nobody has read: the connection was cut, not waited for.
    let answer = tokio::time::timeout(PATIENCE, async {
        place.site.stop().await;
        heard(&mut slow).await
    });
    assert!(answer.await.unwrap().len() < piece.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_a_rate_whatever_it_shows() {
    use axum::{body::Body, http::Request};
    use bowline::server::{App, Peer, router};
    use tower::ServiceExt as _;

    let agent = Agent::new("support", |cx: &mut Render| {
        cx.model("scripted/none.yaml");
        "Help."
    });
    let data = tempfile::tempdir().unwrap();
    let bowline = Bowline::open(data.path()).unwrap().agent(agent.unwrap());
    let service = bowline.start();
    let settings = Settings {
        keys: Keys::new([key("admin", &["*"], &[Scope::Admin], vec![])]),
        address_rate: Rate {
            per_second: 1,
            burst: 3,
        },
        ..Settings::default()
    };
    let router = router(App::new(service.clone(), settings));
    let ask = |address: &str, name: &str| {
        let peer = Peer::Address(address.parse().unwrap());
        let request = Request::get("/agents/support")
            .header("authorization", format!("Bearer {}", secret(name)))
            .extension(peer)
            .body(Body::empty());
        let (router, request) = (router.clone(), request.unwrap());
        async move { router.oneshot(request).await.unwrap().status().as_u16() }
    };
    let mut seen = Vec::new();
    for name in ["admin", "guess", "admin", "admin", "guess", "admin"] {
        seen.push(ask("203.0.113.7:1000", name).await);
    }
    assert_eq!(seen[..3], [200, 401, 200]);
    assert!(seen.contains(&429), "{seen:?}");
    // Nobody pays for another.
    assert_eq!(ask("203.0.113.8:1000", "admin").await, 200);
    // Of IPv6 a whole network is one, and an address of IPv4 is the same in either form.
    let mut seen = Vec::new();
    for number in 1..=6 {
        seen.push(ask(&format!("[2001:db8:1:2::{number}]:1000"), "admin").await);
    }
    assert!(seen.contains(&429), "{seen:?}");
    assert_eq!(ask("[2001:db8:1:3::1]:1000", "admin").await, 200);
    let mut seen = Vec::new();
    for address in ["203.0.113.9:1000", "[::ffff:203.0.113.9]:1000"].repeat(3) {
        seen.push(ask(address, "admin").await);
    }
    assert!(seen.contains(&429), "{seen:?}");
    service.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_websockets_are_open_and_they_end_with_the_server() {
    let place = start(Settings {
        max_followers: 1,
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let upgrade = format!(
        "GET /agents/support/x HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut first = TcpStream::connect(addr).await.unwrap();
    first.write_all(upgrade.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    first.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 101");
    let closing = upgrade.replace("connection: upgrade", "connection: upgrade, close");
    let second = say(addr, closing.as_bytes()).await;
    // 1013, which a browser can read, and a status cannot be.
    assert_eq!(status(&second), 101);
    assert!(second.contains("too many"), "{second}");
    let rest = tokio::spawn(async move { heard(&mut first).await });
    place.site.stop().await;
    // 1012, which tells its client to come back.
    assert!(rest.await.unwrap().contains("the server restarts"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_connections_are_taken_and_the_next_waits_for_room() {
    let place = start(Settings {
        max_connections: 2,
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let line = format!("GET /metrics HTTP/1.1\r\nhost: {addr}\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let told = |mut stream: TcpStream| async move {
        let mut told = Vec::new();
        while !told.ends_with(b"# EOF\n") {
            assert!(stream.read_buf(&mut told).await.unwrap() > 0);
        }
        (stream, String::from_utf8(told).unwrap())
    };
    let third = held.pop().unwrap();
    let mut open = Vec::new();
    for stream in held {
        let (stream, text) = told(stream).await;
        assert!(!text.contains("\nbowline_http_connections 3"), "{text}");
        open.push(stream);
    }
    drop(open.pop());
    let (third, text) = told(third).await;
    assert!(text.contains("\nbowline_http_connections 2"), "{text}");
    drop((third, open));
    place.site.stop().await;
}
