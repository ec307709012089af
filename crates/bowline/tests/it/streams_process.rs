//! Durable streams of a server in a process of its own: killed, restarted, and with many connections.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bowline_runtime::Random as _;
use bowline_testkit::seeded::{SeededRandom, asked};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use crate::{npm, world::World};

/// `bowline serve`.
struct Serving {
    child: Child,
    addr: SocketAddr,
}

impl Serving {
    fn start(world: &World, addr: &str) -> Self {
        Self::spawn(world.command(&["serve", "--json", "--addr", addr]))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let addr = told["addr"].as_str().unwrap().parse().unwrap();
        Self { child, addr }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn world() -> World {
    let world = World::empty();
    world.write("bowline.toml", "[project]\nname = \"streams\"\n");
    std::fs::create_dir_all(world.path().join("agents")).unwrap();
    world
}

/// One request on a connection of its own; status, headers and body.
fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let head = format!(
        "{method} /v1/stream/{path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head[9..12].parse().unwrap();
    Ok((status, head, answer.split_off(end + 4)))
}

/// All of a stream.
fn read(addr: SocketAddr, path: &str) -> Vec<u8> {
    let (mut offset, mut all) = ("-1".to_owned(), Vec::new());
    loop {
        let target = format!("{path}?offset={offset}");
        let (status, head, body) = ask(addr, "GET", &target, "", b"").unwrap();
        assert_eq!(status, 200);
        all.extend(body);
        if head.contains("stream-up-to-date: true") {
            return all;
        }
        let next = head
            .lines()
            .find_map(|line| line.strip_prefix("stream-next-offset: "));
        offset = next.unwrap().to_owned();
    }
}

const WRITERS: u64 = 6;

/// What a writer appends: a frame that shows whether it is whole.
fn frame(writer: u64, number: u64) -> Vec<u8> {
    let size = (writer * 977 + number * 613) % 3000;
    let fill = char::from(b'a' + u8::try_from((writer + number) % 26).unwrap());
    format!(
        "<{writer}:{number}:{}>",
        fill.to_string().repeat(size as usize)
    )
    .into_bytes()
}

/// A writer of the load: the next number to send is kept across kills, as a client would.
fn write(addr: SocketAddr, writer: u64, next: &AtomicU64) {
    loop {
        let number = next.load(Ordering::SeqCst);
        let headers = format!(
            "content-type: text/plain\r\nproducer-id: w{writer}\r\nproducer-epoch: 0\r\nproducer-seq: {number}\r\n"
        );
        // Two writers share a stream.
        let path = format!("kill/{}", writer / 2);
        match ask(addr, "POST", &path, &headers, &frame(writer, number)) {
            // 204: it was taken before the kill, and its answer was lost.
            Ok((200 | 204, _, _)) => next.store(number + 1, Ordering::SeqCst),
            Ok((status, head, _)) => panic!("writer {writer}, append {number}: {status} {head}"),
            Err(_) => return,
        }
    }
}

/// The default is a few kills; `BOWLINE_STREAM_KILLS=100 cargo test -p bowline --test it streams_process`
/// is the whole campaign.
#[test]
fn killed_under_load_every_acknowledged_append_is_there_once_and_every_other_is_whole_or_absent() {
    let kills = asked("BOWLINE_STREAM_KILLS").unwrap_or(6);
    let world = world();
    let random = SeededRandom::new(42);
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let mut serving = Serving::start(&world, "127.0.0.1:0");
    for stream in 0..WRITERS / 2 {
        let path = format!("kill/{stream}");
        let text = "content-type: text/plain\r\n";
        let (status, ..) = ask(serving.addr, "PUT", &path, text, b"").unwrap();
        assert_eq!(status, 201);
    }
    for _ in 0..kills {
        let addr = serving.addr;
        let before: Vec<u64> = counts.iter().map(|it| it.load(Ordering::SeqCst)).collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let counts = counts.clone();
                std::thread::spawn(move || write(addr, writer, &counts[writer as usize]))
            })
            .collect();
        // The kill comes at some append of the first writer, not at a time.
        let at = before[0] + 1 + random.next() % 40;
        let patience = Instant::now();
        while counts[0].load(Ordering::SeqCst) < at && patience.elapsed() < Duration::from_secs(60)
        {
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        serving.kill();
        for writer in writers {
            writer.join().unwrap();
        }
        serving = Serving::start(&world, "127.0.0.1:0");
        check(serving.addr, &counts);
    }
}

/// Each stream is a row of whole frames; each writer's are in order, all that were acknowledged, and
/// at most one more.
fn check(addr: SocketAddr, counts: &[AtomicU64]) {
    for stream in 0..WRITERS / 2 {
        let data = read(addr, &format!("kill/{stream}"));
        let mut rest = &data[..];
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        while !rest.is_empty() {
            let text = String::from_utf8_lossy(&rest[..rest.len().min(24)]).into_owned();
            let mut fields = text.trim_start_matches('<').split(':');
            let mut number = || fields.next().unwrap().parse::<u64>().unwrap();
            let (writer, number) = (number(), number());
            let count = seen.entry(writer).or_default();
            assert_eq!(*count, number, "writer {writer} of stream {stream}");
            *count += 1;
            let whole = frame(writer, number);
            assert!(
                rest.starts_with(&whole),
                "a frame of writer {writer} is torn"
            );
            rest = &rest[whole.len()..];
        }
        for writer in [2 * stream, 2 * stream + 1] {
            let acknowledged = counts[writer as usize].load(Ordering::SeqCst);
            let there = seen.get(&writer).copied().unwrap_or(0);
            assert!(
                there == acknowledged || there == acknowledged + 1,
                "writer {writer}: {acknowledged} acknowledged, {there} there"
            );
        }
    }
}

/// Runs this very test again with the files that many connections need. `None` when this is that run.
fn with_more_files(test: &str) -> Option<bool> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = line.unwrap_or_default().split_whitespace().skip(3);
    let mut number = || numbers.next().and_then(|text| text.parse::<u64>().ok());
    let (soft, hard) = (number().unwrap_or(u64::MAX), number().unwrap_or(u64::MAX));
    if soft >= 11_000 || soft >= hard || std::env::var_os("BOWLINE_MORE_FILES").is_some() {
        return None;
    }
    let status = Command::new("sh")
        .args([
            "-c",
            "ulimit -n $(ulimit -Hn); exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env("BOWLINE_MORE_FILES", "1")
        .status()
        .unwrap();
    Some(status.success())
}

#[test]
fn ten_thousand_connections_follow_one_stream_and_each_gets_the_append() {
    let name =
        "streams_process::ten_thousand_connections_follow_one_stream_and_each_gets_the_append";
    if let Some(success) = with_more_files(name) {
        assert!(success);
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(many_connections());
}

async fn many_connections() {
    let world = world();
    // Both ends of each connection need a file, in two processes.
    let serving = Serving::start(&world, "127.0.0.1:0");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", serving.child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let files: usize = line
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(usize::MAX);
    let count = 10_000.min(files.saturating_sub(500));
    if count < 10_000 {
        eprintln!("!!! only {count} connections: this machine allows {files} files");
    }
    let addr = serving.addr;
    let text = "content-type: text/plain\r\n";
    ask(addr, "PUT", "many", text, b"").unwrap();
    let mut readers = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request =
            format!("GET /v1/stream/many?offset=-1&live=sse HTTP/1.1\r\nhost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        readers.push(stream);
    }
    for stream in &mut readers {
        until(stream, "event: control").await;
    }
    let (status, ..) = ask(addr, "POST", "many", text, b"to everybody").unwrap();
    assert_eq!(status, 204);
    for stream in &mut readers {
        until(stream, "data:to everybody").await;
    }
    let (status, ..) = ask(addr, "HEAD", "many", "", b"").unwrap();
    assert_eq!(status, 200);
}

async fn until(stream: &mut tokio::net::TcpStream, wanted: &str) {
    let read = async {
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains(wanted) {
            let mut part = [0; 1024];
            let count = stream.read(&mut part).await.unwrap();
            assert!(count > 0, "ended before `{wanted}`");
            got.extend_from_slice(&part[..count]);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect(wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_client_appends_reads_and_follows_across_a_restart_of_the_server() {
    let Some(dir) = npm::project("streams") else {
        return;
    };
    for live in ["long-poll", "sse"] {
        for killed in [false, true] {
            restart_under_the_client(dir.path(), live, killed).await;
        }
    }
}

async fn restart_under_the_client(dir: &Path, live: &str, killed: bool) {
    let world = world();
    let serving = Serving::start(&world, "127.0.0.1:0");
    let addr = serving.addr.to_string();
    let mut client = tokio::process::Command::new("node")
        .arg("client.mjs")
        .current_dir(dir)
        .env("BOWLINE_URL", format!("http://{addr}"))
        .env("BOWLINE_LIVE", live)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut told = tokio::io::BufReader::new(client.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(60), told.next_line());
        let line = line.await.expect("the client is silent").unwrap();
        serde_json::from_str::<Value>(&line.expect("the client ended")).unwrap()
    };
    let all = |count: u64| Value::from((0..count).collect::<Vec<_>>());
    let none = Value::from(Vec::<u8>::new());
    let first = next().await;
    assert_eq!((&first["read"], &first["errors"]), (&all(100), &none));
    assert_eq!(next().await["following"], 100);
    if killed {
        serving.kill();
    } else {
        serving.stop();
    }
    let _serving = Serving::start(&world, &addr);
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"go on\n").await.unwrap();
    let last = next().await;
    // The client survives everything by itself but an event stream that breaks off.
    let cuts = u64::from(killed && live == "sse");
    assert_eq!(
        (&last["seen"], &last["errors"], &last["cuts"]),
        (&all(150), &none, &Value::from(cuts)),
        "{live}, killed: {killed}"
    );
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let world = world();
    let serving = Serving::start(&world, "127.0.0.1:0");
    let addr = serving.addr;
    let octets = "content-type: application/octet-stream\r\n";
    ask(addr, "PUT", "slow", octets, b"").unwrap();
    let follow = || {
        let mut reader = TcpStream::connect(addr).unwrap();
        reader
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let request = format!(
            "GET /v1/stream/slow?offset=-1&live=sse HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"
        );
        reader.write_all(request.as_bytes()).unwrap();
        reader
    };
    let all = |mut reader: TcpStream| {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    };
    let slow = follow();
    let quick = follow();
    let quick = std::thread::spawn(move || all(quick).len());
    // Far more than any buffer between the two holds, while nobody reads.
    let part = vec![7; 1024 * 1024];
    ask(addr, "POST", "slow", octets, &part).unwrap();
    let before = memory(serving.child.id());
    for _ in 0..63 {
        let (status, ..) = ask(addr, "POST", "slow", octets, &part).unwrap();
        assert_eq!(status, 204);
    }
    let grown = memory(serving.child.id()).saturating_sub(before);
    assert!(
        grown < 40 * 1024,
        "{grown} KiB more for 64 MiB that nobody reads"
    );
    ask(addr, "POST", "slow", "stream-closed: true\r\n", b"").unwrap();
    // Each byte of base64 that the quick one got, the slow one gets too.
    let quick = quick.join().unwrap();
    assert!(quick > 64 * 1024 * 1024 / 3 * 4);
    let slow = all(slow);
    let text = String::from_utf8_lossy(&slow);
    assert!(text.contains("\"streamClosed\":true"));
    let events = text.split("event: data").skip(1);
    let data = events.filter_map(|event| event.split("data:").nth(1));
    let letters: usize = data
        .map(|data| data.matches(|it: char| it.is_ascii_alphanumeric()).count())
        .sum();
    assert!(letters >= 64 * 1024 * 1024 / 3 * 4, "{letters}");
}

/// Resident memory of a process, in KiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap()
}
