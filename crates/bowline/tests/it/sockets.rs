//! WebSockets on a conversation's URL: the state that an agent checks, keys of browsers, floods.

use std::{net::SocketAddr, time::Duration};

use bowline::{
    Agent, Bowline, Render,
    server::{Key, KeyHash, Keys, Rate, Scope, Settings},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::streams::Site;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    site: Site,
    _data: tempfile::TempDir,
}

/// One agent, whose state is an object with a `count` that is not negative.
async fn start(settings: Settings) -> Place {
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::new("demo", |cx: &mut Render| {
        cx.model("scripted/none.yaml");
        "Answer."
    });
    let agent = agent.unwrap().check_state(|state| {
        let count = state["count"].as_i64();
        match count.filter(|count| *count >= 0) {
            Some(_) => Ok(()),
            None => Err("the count of something is not negative".to_owned()),
        }
    });
    let bowline = Bowline::open(data.path()).unwrap().agent(agent);
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

/// A client that says exactly what a test wants it to.
pub(crate) struct Socket {
    stream: TcpStream,
    /// The head of the answer to the handshake.
    head: String,
}

/// What a server sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(Value),
    Close(u16),
}

impl Socket {
    pub(crate) async fn open(addr: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {addr}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(byte(&mut stream).await);
        }
        Self {
            stream,
            head: String::from_utf8(head).unwrap().to_ascii_lowercase(),
        }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        let text = frame.to_string().into_bytes();
        // Masked with zeros, so that it is what it says.
        let mut frame = match u8::try_from(text.len()) {
            Ok(length) if length < 126 => vec![0x81, 0x80 | length],
            Ok(_) | Err(_) => {
                let mut head = vec![0x81, 0x80 | 127];
                head.extend(u64::try_from(text.len()).unwrap().to_be_bytes());
                head
            }
        };
        frame.extend([0; 4]);
        frame.extend(text);
        self.stream.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Frame {
        loop {
            let kind = byte(&mut self.stream).await & 0x0f;
            let mut length = usize::from(byte(&mut self.stream).await);
            let more = match length {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            for place in 0..more {
                let before = if place == 0 { 0 } else { length << 8 };
                length = before + usize::from(byte(&mut self.stream).await);
            }
            let mut body = vec![0; length];
            let read = self.stream.read_exact(&mut body);
            tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
            match kind {
                1 => return Frame::Text(serde_json::from_slice(&body).unwrap()),
                8 => return Frame::Close(u16::from_be_bytes([body[0], body[1]])),
                _ => {}
            }
        }
    }

    /// The next frame but the one that says who the server is.
    async fn news(&mut self) -> Frame {
        match self.next().await {
            Frame::Text(text) if text["type"] == "cf_agent_identity" => self.next().await,
            frame => frame,
        }
    }
}

async fn byte(stream: &mut TcpStream) -> u8 {
    let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
    read.expect("the server says nothing").unwrap()
}

fn state(value: Value) -> Value {
    json!({"type": "cf_agent_state", "state": value})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_the_agent_refuses_comes_back_as_it_was_and_reaches_nobody() {
    let place = start(Settings::default()).await;
    let mut one = Socket::open(place.site.addr, "/agents/demo/a", "").await;
    let mut two = Socket::open(place.site.addr, "/agents/demo/a", "").await;
    one.send(&state(json!({"count": 1}))).await;
    assert_eq!(two.news().await, Frame::Text(state(json!({"count": 1}))));
    for wrong in [
        json!({"count": -1}),
        json!({"count": "1"}),
        json!(null),
        json!([]),
    ] {
        one.send(&state(wrong)).await;
        let Frame::Text(refused) = one.news().await else {
            panic!("the connection was closed");
        };
        assert_eq!(refused["type"], "cf_agent_state_error");
        // What the agent says of its values is not for everybody who may connect.
        assert_eq!(refused["error"], "State update rejected");
        assert_eq!(one.next().await, Frame::Text(state(json!({"count": 1}))));
    }
    one.send(&state(json!({"count": 2}))).await;
    assert_eq!(two.next().await, Frame::Text(state(json!({"count": 2}))));
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_an_argument_of_the_wrong_kind_does_nothing() {
    let place = start(Settings::default()).await;
    let mut socket = Socket::open(place.site.addr, "/agents/demo/a", "").await;
    for (method, args) in [
        ("abort", json!([1])),
        ("abort", json!([{"submissionId": "sub_1"}])),
        ("history", json!(["x"])),
        ("history", json!([{"limit": "1"}])),
        ("history", json!([{"before": 1}])),
        ("approve", json!([{"id": "appr_1"}])),
        ("send", json!(["Hi", "k1"])),
        ("send", json!([7])),
    ] {
        let call = json!({"type": "rpc", "id": "1", "method": method, "args": args});
        socket.send(&call).await;
        let Frame::Text(answer) = socket.news().await else {
            panic!("the connection was closed");
        };
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains("text") || error.contains("object") || error.contains("number"));
        assert_eq!(answer["success"], false, "{method} {args}: {answer}");
    }
    place.site.stop().await;
}

fn with_key() -> Settings {
    let key = Key {
        name: "page".to_owned(),
        hash: KeyHash::of("bwl_page"),
        agents: vec!["demo".to_owned()],
        scopes: vec![Scope::Read],
        streams: Vec::new(),
    };
    Settings {
        keys: Keys::new([key]),
        stranger_rate: Rate::per_second(10_000),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_its_key_in_the_query_or_among_the_protocols_of_a_socket() {
    let place = start(with_key()).await;
    let addr = place.site.addr;
    let mut by_query = Socket::open(addr, "/agents/demo/a?token=bwl_page", "").await;
    let Frame::Text(identity) = by_query.next().await else {
        panic!("the connection was closed");
    };
    assert_eq!(identity["type"], "cf_agent_identity");

    let offer = "sec-websocket-protocol: bowline.key.bwl_page, bowline\r\n";
    let mut by_protocol = Socket::open(addr, "/agents/demo/a", offer).await;
    assert!(
        by_protocol
            .head
            .contains("sec-websocket-protocol: bowline\r\n")
    );
    assert!(
        !by_protocol.head.contains("bwl_page"),
        "a key is not sent back"
    );
    assert!(matches!(by_protocol.next().await, Frame::Text(_)));

    for path in [
        "/agents/demo/a",
        "/agents/demo/a?token=bwl_other",
        "/agents/demo/a?token=",
    ] {
        let mut stranger = Socket::open(addr, path, "").await;
        assert_eq!(
            stranger.status(),
            101,
            "a page sees only how a connection is closed"
        );
        assert_eq!(stranger.next().await, Frame::Close(4401), "{path}");
    }
    let mut elsewhere = Socket::open(addr, "/agents/other/a?token=bwl_page", "").await;
    assert_eq!(elsewhere.next().await, Frame::Close(4404));
    // Only a socket may show it there, and only on a conversation.
    let ask = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(ask("/agents/demo/a?token=bwl_page").await, "401");
    let socket = Socket::open(addr, "/v1/agents?token=bwl_page", "").await;
    assert_eq!(socket.status(), 401);
    drop((by_query, by_protocol));
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_upgrades_is_bounded_and_others_are_served() {
    let place = start(Settings {
        max_followers: 8,
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let mut held = Vec::new();
    for number in 0..60 {
        let mut socket = Socket::open(addr, "/agents/demo/flood", "").await;
        match socket.next().await {
            Frame::Text(_) => held.push(socket),
            Frame::Close(code) => assert_eq!((code, number >= 8), (1013, true)),
        }
    }
    assert_eq!(held.len(), 8, "as many as there are places");
    // Handshakes that are begun and not finished, and ones that are none.
    let mut halves = Vec::new();
    for number in 0..60 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let text = match number % 3 {
            0 => "GET /agents/demo/flood HTTP/1.1\r\nupgrade: websocket\r\n".to_owned(),
            1 => format!(
                "GET /agents/demo/flood HTTP/1.1\r\nhost: {addr}\r\nupgrade: websocket\r\n\r\n"
            ),
            _ => format!(
                "GET /agents/demo/flood HTTP/1.1\r\nhost: {addr}\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 7\r\nsec-websocket-key: x\r\n\r\n"
            ),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        halves.push(stream);
    }
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET /readyz HTTP/1.0\r\nhost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"),
        "{answer}"
    );
    drop((held, halves));
    // Room again, once the server has seen that they left.
    loop {
        let mut socket = Socket::open(addr, "/agents/demo/flood", "").await;
        if let Frame::Text(_) = socket.next().await {
            break;
        }
    }
    place.site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_takes_nothing_is_cut_and_its_place_is_free_again() {
    let place = start(Settings {
        max_followers: 3,
        write_timeout: Duration::from_millis(300),
        ..Settings::default()
    })
    .await;
    let addr = place.site.addr;
    let mut slow = Socket::open(addr, "/agents/demo/slow", "").await;
    let mut one = Socket::open(addr, "/agents/demo/slow", "").await;
    let mut two = Socket::open(addr, "/agents/demo/slow", "").await;
    let text = "x".repeat(900_000);
    // More than the system keeps for a reader.
    for count in 0..30 {
        let next = state(json!({"count": count, "text": text}));
        one.send(&next).await;
        while two.news().await != Frame::Text(next.clone()) {}
    }
    let late = async {
        loop {
            let mut socket = Socket::open(addr, "/agents/demo/slow", "").await;
            if let Frame::Text(_) = socket.next().await {
                return socket;
            }
        }
    };
    let late = tokio::time::timeout(PATIENCE, late).await.unwrap();
    let mut rest = Vec::new();
    let read = slow.stream.read_to_end(&mut rest);
    // How it was cut does not matter.
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    assert!(rest.len() < 30 * text.len());
    drop((one, two, late));
    place.site.stop().await;
}
