//! What the server of agents does: the figures of `bowline bench http`.
//!
//! Any server that speaks the conversation protocol can be measured, by its URL; its processor time and
//! memory too, where its process id is given. The load comes from this process over plain sockets. What
//! only our own server tells, from when a commit is durable until a reader has it, is measured on one
//! that this process starts.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Error},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bowline_agent::actor;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    child::{Child, say},
    streams::{Report, Row},
    usage::Measured,
    wire::{self, Client},
};
use crate::{
    Project, error,
    server::{App, Server, Settings},
    service::Bowline,
    telemetry::process::raise_file_limit,
};

/// What the agents of a measurement are made of, by the path of each file.
const FILES: [(&str, &str); 5] = [
    ("bowline.toml", "[project]\nname = \"bench\"\n"),
    ("agents/bench/agent.md", include_str!("http/agent.md")),
    ("agents/bench/bench.yaml", include_str!("http/bench.yaml")),
    ("agents/parked/agent.md", include_str!("http/parked.md")),
    (
        "agents/parked/parked.yaml",
        include_str!("http/parked.yaml"),
    ),
];
/// The conversation whose commits are timed, an instance of the agent `bench`.
const TIMED: &str = "timed";
/// Readers that are connected at once, while they connect.
const CONNECTING: usize = 64;
/// Conversations after which the caches of the store are full.
const CACHED: usize = 1_000;
/// Turns of one window of the long conversation.
const WINDOW: u64 = 50;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the server listens.
    pub addr: SocketAddr,
    /// The path of the agent, for example `/agents/bench`: `/ID` behind it is a conversation. On a
    /// message `tools N` it calls a tool N times, one after the other, and then answers.
    pub path: String,
    /// The process of the server, for its processor time and memory.
    pub pid: Option<u32>,
    /// How many conversations are talked to at once, one measurement after the other.
    pub at_once: Vec<usize>,
    /// Time for each measurement of turns.
    pub each: Duration,
    /// Readers of which each follows a conversation that rests.
    pub followers: usize,
    /// Turns of the conversation that becomes long; 0 leaves that out.
    pub long: u64,
    /// Where our own server is measured: how many conversations wait for a person, and its folder.
    pub own: Option<(usize, PathBuf)>,
}

/// Writes the project that is measured into a folder. `bowline serve` serves it as well.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn project(dir: &Path) -> io::Result<()> {
    for (name, text) in FILES {
        let path = dir.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

/// A server of our own, in a process of its own, on the project in a folder.
#[derive(Debug)]
pub(crate) struct Own {
    _child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
}

impl Own {
    /// Starts it. Actors leave the memory after `idle` milliseconds of rest.
    pub(crate) async fn start(dir: &Path, idle: u64) -> Result<Self, error::Error> {
        let failed = |error: String| error::Error::failure("process_failed", error, "");
        project(dir).map_err(|error| failed(error.to_string()))?;
        let child = Child::start(dir, "http", &idle.to_string())?;
        let pid = child.id();
        let (child, addr) = child.said("serving").await?;
        let addr = addr
            .parse()
            .map_err(|_| failed(format!("it serves at {addr}")))?;
        Ok(Self {
            _child: child,
            addr,
            pid,
        })
    }
}

/// The process that is measured.
pub(crate) async fn serve(dir: &Path, idle: usize) -> Result<(), error::Error> {
    raise_file_limit();
    let project = Project::load(dir, Arc::new(|_| None))?;
    let idle = Duration::from_millis(idle as u64);
    let options = bowline_runtime::RuntimeOptions {
        idle,
        ..bowline_runtime::RuntimeOptions::default()
    };
    let mut bowline = Bowline::open(dir.join("data"))?
        .models(project.models())
        .options(options);
    for agent in project.agents()? {
        bowline = bowline.agent(project.agent(&agent.name, None)?);
    }
    let service = bowline.start();
    // What rests is looked at within the time of a measurement.
    let settings = Settings {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        linger: idle.min(Settings::default().linger),
        ..Settings::default()
    };
    let mut tail = service.store().tail(&actor("bench", TIMED));
    let server = Server::bind(App::new(service, settings)).await?;
    let (stamps, here) = (dir.join("stamps"), tokio::runtime::Handle::current());
    // A thread of its own, which waits behind no task: the next commit may come soon.
    std::thread::spawn(move || {
        let mut last = 0;
        while let Some(seq) = here.block_on(tail.beyond(last)) {
            let line = format!("{seq} {}\n", now_ns());
            last = seq;
            // Without them nothing is timed, which the measurement says.
            let file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&stamps);
            let _ = file.and_then(|mut file| io::Write::write_all(&mut file, line.as_bytes()));
        }
    });
    say(format_args!("serving {}", server.addr()));
    server.serve(CancellationToken::new()).await;
    Ok(())
}

/// A clock that all processes of this machine share, in nanoseconds.
fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Measures a server. Takes about ten times [`Target::each`], and a minute or two more.
///
/// # Errors
///
/// When the server cannot be reached, or does not do what it is asked.
pub async fn http(target: &Target) -> io::Result<Report> {
    raise_file_limit();
    let run = Run {
        target: target.clone(),
        name: format!("b{}", std::process::id()),
        next: AtomicUsize::new(0),
    };
    let run = Arc::new(run);
    let mut report = Report::default();
    let rows = &mut report.rows;
    // First, while the server has held nothing.
    if let Some((parked, _)) = &run.target.own {
        rows.push(run.parked(*parked).await?);
    }
    rows.push(run.idle_readers().await?);
    for tools in [0, 5] {
        for conversations in &run.target.at_once {
            rows.extend(run.turns(*conversations, tools).await?);
        }
    }
    for followers in [1, 1_000] {
        rows.push(run.delivery(followers.min(run.target.followers)).await?);
    }
    if run.target.long > 0 {
        rows.extend(run.long().await?);
    }
    Ok(report)
}

struct Run {
    target: Target,
    name: String,
    next: AtomicUsize,
}

/// What one turn took: until it was accepted, and until its end was read.
type Took = (Duration, Duration);

impl Measured for Run {
    fn pid(&self) -> Option<u32> {
        self.target.pid
    }
}

impl Run {
    async fn client(&self) -> io::Result<Client> {
        Client::connect(self.target.addr, "").await
    }

    /// The path of a conversation that is new.
    fn fresh(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}/{}-{number}", self.target.path, self.name)
    }

    /// Sends a message; returns the offset from which its answer is read.
    async fn send(&self, client: &mut Client, path: &str, text: &str) -> io::Result<String> {
        let body = format!("{{\"kind\":\"user\",\"body\":\"{text}\"}}");
        let answer = client.send("POST", path, JSON, body.as_bytes()).await?;
        if answer.status == 202 {
            Ok(answer.next_offset)
        } else {
            Err(unexpected("POST", answer.status))
        }
    }

    /// One message to a conversation, and its answer by an event stream.
    async fn turn(&self, client: &mut Client, path: &str, text: &str) -> io::Result<Took> {
        let began = Instant::now();
        let offset = self.send(client, path, text).await?;
        let accepted = began.elapsed();
        let follow = format!("{path}?view=updates&live=sse&offset={offset}");
        self.client().await?.until(&follow, SETTLED).await?;
        Ok((accepted, began.elapsed()))
    }

    /// So many conversations at once, a fresh one for each turn.
    async fn turns(self: &Arc<Self>, conversations: usize, tools: usize) -> io::Result<Vec<Row>> {
        let text = format!("tools {tools}");
        let warm = self.fresh();
        self.turn(&mut self.client().await?, &warm, &text).await?;
        let (start, cpu) = (Instant::now(), self.cpu());
        let mut tasks = JoinSet::new();
        for _ in 0..conversations {
            let (run, text) = (self.clone(), text.clone());
            tasks.spawn(async move {
                let mut client = run.client().await?;
                let mut took = Vec::new();
                while start.elapsed() < run.target.each || took.is_empty() {
                    took.push(run.turn(&mut client, &run.fresh(), &text).await?);
                }
                Ok::<_, Error>(took)
            });
        }
        let mut all: Vec<Took> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            all.extend(done.map_err(Error::other)??);
        }
        let count = all.len() as f64;
        let mut turns = Row {
            what: format!("turns, {conversations} at once, {tools} tool calls"),
            rate: Some(count / start.elapsed().as_secs_f64()),
            cpu_us: self.cpu_since(cpu).map(|seconds| seconds * 1e6 / count),
            ..Row::default()
        };
        turns.times(&mut all.iter().map(|took| took.1).collect::<Vec<_>>());
        let mut accepted = Row {
            what: "  until a message is accepted".to_owned(),
            ..Row::default()
        };
        accepted.times(&mut all.iter().map(|took| took.0).collect::<Vec<_>>());
        Ok(vec![turns, accepted])
    }

    /// How long it takes from a commit that is durable until readers have all of it; a message has two,
    /// what was said and the answer. Where nobody tells when that was, it is taken from when the message
    /// was accepted.
    async fn delivery(self: &Arc<Self>, followers: usize) -> io::Result<Row> {
        const MESSAGES: usize = 20;
        let own = self.target.own.as_ref().map(|(_, dir)| dir.join("stamps"));
        let path = match &own {
            Some(_) => format!("{}/{TIMED}", self.target.path),
            None => self.fresh(),
        };
        let mut client = self.client().await?;
        let (_, _) = self.turn(&mut client, &path, "tools 0").await?;
        let head = client.send("HEAD", &path, "", b"").await?;
        let follow = format!("{path}?view=updates&live=sse&offset={}", head.next_offset);
        let mut readers = JoinSet::new();
        let (ready, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        for _ in 0..followers {
            let (run, follow) = (self.clone(), follow.clone());
            let (ready, seen) = (ready.clone(), seen.clone());
            readers.spawn(async move {
                let mut reader = run.client().await?;
                reader.begin_events(&follow).await?;
                ready.add_permits(1);
                let mut all: Vec<(u64, u64)> = Vec::new();
                let mut settled = 0;
                while settled < MESSAGES {
                    let events = reader.events_now().await?;
                    let at = now_ns();
                    all.extend(wire::offsets(&events).into_iter().map(|seq| (seq, at)));
                    let ends = wire::count(&events, SETTLED);
                    settled += ends;
                    seen.add_permits(ends);
                }
                Ok::<_, Error>(all)
            });
        }
        let count = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
        ready
            .acquire_many(count(followers))
            .await
            .map_err(Error::other)?
            .forget();
        let mut accepted: Vec<u64> = Vec::new();
        for _ in 0..MESSAGES {
            self.send(&mut client, &path, "tools 0").await?;
            accepted.push(now_ns());
            // Until each has read the answer, so that no message waits behind another.
            let all = seen.acquire_many(count(followers)).await;
            all.map_err(Error::other)?.forget();
        }
        let stamps = own.map_or_else(BTreeMap::new, |file| stamps(&file));
        let mut times = Vec::new();
        while let Some(done) = readers.join_next().await {
            let all = done.map_err(Error::other)??;
            // The last that a reader was told of a commit; where nobody tells of commits, each event.
            let mut told: BTreeMap<u64, u64> = BTreeMap::new();
            for (seq, at) in all {
                let since = if stamps.is_empty() {
                    accepted.iter().rev().find(|since| **since <= at)
                } else {
                    // Its records are up to there: what is told of one before the last is part of it.
                    stamps.range(seq..).next().map(|(_, since)| since)
                };
                let Some(since) = since else { continue };
                if stamps.is_empty() {
                    times.push(Duration::from_nanos(at.saturating_sub(*since)));
                } else {
                    told.insert(*since, at);
                }
            }
            let took = |(since, at): (u64, u64)| Duration::from_nanos(at.saturating_sub(since));
            times.extend(told.into_iter().map(took));
        }
        let from = if stamps.is_empty() {
            "accepted"
        } else {
            "commit"
        };
        let mut row = Row {
            what: format!(
                "{from} to reader, {followers} readers, {} came",
                times.len()
            ),
            ..Row::default()
        };
        row.times(&mut times);
        Ok(row)
    }

    /// Conversations that wait for a person, and what each takes once its actor has left the memory.
    async fn parked(self: &Arc<Self>, many: usize) -> io::Result<Row> {
        let path = |number: usize| format!("/agents/parked/{}-{number}", self.name);
        let mut client = self.client().await?;
        // What the first ones load is not counted, nor that the caches of the store fill.
        let warm = many.clamp(64, CACHED);
        for number in 0..warm {
            self.send(&mut client, &path(number), "Go").await?;
        }
        self.at_rest(&mut client).await?;
        let before = self.memory();
        for number in warm..many + warm {
            self.send(&mut client, &path(number), "Go").await?;
        }
        self.at_rest(&mut client).await?;
        let parked = self.memory_since(before);
        Ok(Row {
            what: format!("{many} conversations that wait for a person"),
            kib: parked.map(|kib| kib / many as f64),
            ..Row::default()
        })
    }

    /// Waits until no conversation of our own server is in memory.
    async fn at_rest(&self, client: &mut Client) -> io::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            let answer = client.send("GET", "/metrics", "", b"").await?;
            if wire::figure(&answer.body, "bowline_actors_awake") == Some(0.0) {
                return Ok(());
            }
        }
    }

    /// What readers that have nothing to read take.
    async fn idle_readers(self: &Arc<Self>) -> io::Result<Row> {
        let many = self.target.followers;
        let path = self.fresh();
        let mut client = self.client().await?;
        self.turn(&mut client, &path, "tools 0").await?;
        let head = client.send("HEAD", &path, "", b"").await?;
        let follow = format!("{path}?view=updates&live=sse&offset={}", head.next_offset);
        let mut held = Vec::new();
        // What the first ones load is not counted.
        held.extend(self.readers(&follow, 100).await?);
        let before = self.memory();
        let start = Instant::now();
        held.extend(self.readers(&follow, many).await?);
        let took = start.elapsed().as_secs_f64();
        let kib = self.memory_since(before).map(|kib| kib / many as f64);
        // All of them are there, and are told what happens.
        self.send(&mut client, &path, "tools 0").await?;
        let mut told = JoinSet::new();
        for mut reader in held {
            told.spawn(async move {
                loop {
                    let events = reader.events_now().await?;
                    if wire::count(&events, SETTLED) > 0 {
                        return Ok::<_, Error>(());
                    }
                }
            });
        }
        while let Some(done) = told.join_next().await {
            done.map_err(Error::other)??;
        }
        Ok(Row {
            what: format!("{many} readers at rest, each told afterwards"),
            rate: Some(many as f64 / took),
            kib,
            ..Row::default()
        })
    }

    async fn readers(self: &Arc<Self>, follow: &str, many: usize) -> io::Result<Vec<Client>> {
        let room = Arc::new(Semaphore::new(CONNECTING));
        let mut tasks = JoinSet::new();
        for _ in 0..many {
            let (run, follow, room) = (self.clone(), follow.to_owned(), room.clone());
            tasks.spawn(async move {
                let _room = room.acquire().await.map_err(Error::other)?;
                let mut reader = run.client().await?;
                reader.begin_events(&follow).await?;
                Ok::<_, Error>(reader)
            });
        }
        let mut held = Vec::new();
        while let Some(done) = tasks.join_next().await {
            held.push(done.map_err(Error::other)??);
        }
        Ok(held)
    }

    /// What a turn costs early and late in one conversation.
    async fn long(self: &Arc<Self>) -> io::Result<Vec<Row>> {
        let path = self.fresh();
        let mut client = self.client().await?;
        let mut rows = Vec::new();
        let mut turn = 0;
        for from in [10, self.target.long] {
            while turn < from {
                self.turn(&mut client, &path, "tools 0").await?;
                turn += 1;
            }
            let cpu = self.cpu();
            let mut times = Vec::new();
            for _ in 0..WINDOW {
                times.push(self.turn(&mut client, &path, "tools 0").await?.1);
                turn += 1;
            }
            let mut row = Row {
                what: format!("one conversation, from turn {from} on"),
                cpu_us: self
                    .cpu_since(cpu)
                    .map(|seconds| seconds * 1e6 / WINDOW as f64),
                ..Row::default()
            };
            row.times(&mut times);
            rows.push(row);
        }
        Ok(rows)
    }
}

/// When each record was durable, by its sequence.
fn stamps(file: &Path) -> BTreeMap<u64, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let stamp = |line: &str| {
        let (seq, at) = line.split_once(' ')?;
        Some((seq.parse().ok()?, at.parse().ok()?))
    };
    text.lines().filter_map(stamp).collect()
}

pub(super) const JSON: &str = "content-type: application/json\r\n";
/// What the end of an answer is told with.
pub(super) const SETTLED: &str = "\"submission-settled\"";

pub(super) fn unexpected(method: &str, status: u16) -> Error {
    Error::other(format!("{method} was answered with {status}"))
}
