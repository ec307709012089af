//! What a Durable Streams server does: the figures of `bowline bench streams`.
//!
//! Any server that speaks the protocol can be measured, by its URL; its processor time and memory too,
//! where its process id is given. The load comes from this process over plain sockets, so that it
//! weighs little beside what is measured.

use std::{
    fmt,
    io::{self, Error},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{sync::Mutex, task::JoinSet};

use super::{
    usage::Measured,
    wire::{self, Client},
};

/// Bytes of a message.
const MESSAGE: usize = 200;
/// Bytes that are read back as a whole.
const CATCH_UP: usize = 32 * 1024 * 1024;
/// Messages a second whose way to a reader is timed.
const PACE: u32 = 100;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the server listens.
    pub addr: SocketAddr,
    /// Its process, for its processor time and memory.
    pub pid: Option<u32>,
    /// Time for each measurement.
    pub each: Duration,
    /// Streams that lie idle.
    pub idle: usize,
    /// Readers that lie idle.
    pub followers: usize,
}

/// One measurement.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// How many a second; the unit stands in `what`.
    #[serde(rename = "perSecond")]
    pub rate: Option<f64>,
    /// Processor time of the server for each, in microseconds.
    pub cpu_us: Option<f64>,
    /// The time that half of them took at most.
    pub p50_ms: Option<f64>,
    /// The time that 99 of 100 took at most.
    pub p99_ms: Option<f64>,
    /// Memory for each, in KiB.
    #[serde(rename = "kibEach")]
    pub kib: Option<f64>,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One for each measurement.
    pub rows: Vec<Row>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["a second", "CPU µs", "p50 ms", "p99 ms", "KiB each"];
        write!(f, "{:<44}", "")?;
        for name in head {
            write!(f, " {name:>10}")?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:<44}", row.what)?;
            let places = [
                (row.rate, 0),
                (row.cpu_us, 1),
                (row.p50_ms, 2),
                (row.p99_ms, 2),
                (row.kib, 2),
            ];
            for (value, digits) in places {
                match value {
                    Some(value) => write!(f, " {value:>10.digits$}")?,
                    None => write!(f, " {:>10}", "")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Measures a server. Takes about fifteen times [`Target::each`], and some seconds more.
///
/// # Errors
///
/// When the server cannot be reached, or does not do what it is asked.
pub async fn streams(target: &Target) -> io::Result<Report> {
    let run = Run {
        target: target.clone(),
        name: format!("bench-{}", std::process::id()),
    };
    let mut report = Report::default();
    let rows = &mut report.rows;
    // First, while the server has not held anything large.
    rows.extend(run.idle().await?);
    for producer in [false, true] {
        for count in [1, 16, 64] {
            rows.push(run.appends(count, count, 1, producer).await?);
        }
    }
    rows.push(run.appends(16, 1, 1, false).await?);
    rows.push(run.appends(16, 16, 100, false).await?);
    rows.extend(run.catch_up().await?);
    for live in ["sse", "long-poll"] {
        rows.push(run.delivery(live).await?);
    }
    Ok(report)
}

struct Run {
    target: Target,
    name: String,
}

impl Measured for Run {
    fn pid(&self) -> Option<u32> {
        self.target.pid
    }
}

impl Run {
    async fn client(&self) -> io::Result<Client> {
        Client::connect(self.target.addr, "/v1/stream/").await
    }

    async fn create(&self, client: &mut Client, path: &str, body: &str) -> io::Result<()> {
        let status = client
            .send("PUT", path, JSON, body.as_bytes())
            .await?
            .status;
        if matches!(status, 200 | 201) {
            Ok(())
        } else {
            Err(unexpected("PUT", status))
        }
    }

    /// Writers that each send one append after the other.
    async fn appends(
        &self,
        writers: usize,
        streams: usize,
        batch: usize,
        producer: bool,
    ) -> io::Result<Row> {
        let body = Arc::new(messages(batch));
        let mut clients = Vec::new();
        for number in 0..writers {
            let stream = number % streams;
            let path = format!(
                "{}-a{writers}-{streams}-{batch}-{producer}-{stream}",
                self.name
            );
            let mut client = self.client().await?;
            self.create(&mut client, &path, "[]").await?;
            clients.push((client, path));
        }
        let (start, cpu) = (Instant::now(), self.cpu());
        let each = self.target.each;
        let mut tasks = JoinSet::new();
        for (number, (mut client, path)) in clients.into_iter().enumerate() {
            let body = body.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                let mut sequence = 0_u64;
                while start.elapsed() < each {
                    let before = Instant::now();
                    let headers = if producer {
                        format!(
                            "{JSON}producer-id: p{number}\r\nproducer-epoch: 0\r\nproducer-seq: {sequence}\r\n"
                        )
                    } else {
                        JSON.to_owned()
                    };
                    let status = client.send("POST", &path, &headers, &body).await?.status;
                    if !matches!(status, 200 | 204) {
                        return Err(unexpected("POST", status));
                    }
                    sequence += 1;
                    times.push(before.elapsed());
                }
                Ok(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done.map_err(Error::other)??);
        }
        let took = start.elapsed().as_secs_f64();
        let count = times.len() as f64;
        let kind = if producer { ", with producers" } else { "" };
        let unit = if batch == 1 {
            "appends"
        } else {
            "batches of 100"
        };
        let mut row = Row {
            what: format!("{unit}, {writers} writers, {streams} streams{kind}"),
            rate: Some(count / took),
            cpu_us: self.cpu_since(cpu).map(|seconds| seconds * 1e6 / count),
            ..Row::default()
        };
        row.times(&mut times);
        Ok(row)
    }

    /// Reads a large stream from its start.
    async fn catch_up(&self) -> io::Result<Vec<Row>> {
        let path = format!("{}-large", self.name);
        let mut client = self.client().await?;
        let octets = "content-type: application/octet-stream\r\n";
        let status = client.send("PUT", &path, octets, b"").await?.status;
        if status != 201 {
            return Err(unexpected("PUT", status));
        }
        let part = vec![b'x'; 1024 * 1024];
        for _ in 0..CATCH_UP / part.len() {
            client.send("POST", &path, octets, &part).await?;
        }
        let mut firsts = Vec::new();
        let mut best = f64::INFINITY;
        let cpu = self.cpu();
        let rounds = 3;
        for _ in 0..rounds {
            let start = Instant::now();
            let (mut offset, mut got, mut first) = ("-1".to_owned(), 0, None);
            while got < CATCH_UP {
                let begun = Instant::now();
                let target = format!("{path}?offset={offset}");
                let answer = client.send("GET", &target, "", b"").await?;
                first.get_or_insert(answer.first.duration_since(begun));
                if answer.status != 200 || answer.length == 0 {
                    return Err(unexpected("GET", answer.status));
                }
                got += answer.length;
                offset = answer.next_offset;
            }
            best = best.min(start.elapsed().as_secs_f64());
            firsts.extend(first);
        }
        let megabytes = CATCH_UP as f64 / 1e6;
        let cpu = self.cpu_since(cpu);
        let mut first = Row {
            what: "first byte of 32 MiB".to_owned(),
            ..Row::default()
        };
        first.times(&mut firsts);
        Ok(vec![
            Row {
                what: "catch-up of 32 MiB, MB (best of 3)".to_owned(),
                rate: Some(megabytes / best),
                cpu_us: cpu.map(|seconds| seconds * 1e6 / (megabytes * f64::from(rounds))),
                ..Row::default()
            },
            first,
        ])
    }

    /// How long a message takes from its writer to a reader.
    async fn delivery(&self, live: &'static str) -> io::Result<Row> {
        let path = format!("{}-{live}", self.name);
        let mut writer = self.client().await?;
        self.create(&mut writer, &path, "[]").await?;
        let started = Instant::now();
        let times = Arc::new(Mutex::new(Vec::new()));
        let reader = {
            let (mut client, path, times) = (self.client().await?, path.clone(), times.clone());
            tokio::spawn(async move {
                let note = |sent: u64, at: Instant| {
                    let sent = started + Duration::from_micros(sent);
                    if let Ok(mut times) = times.try_lock() {
                        times.push(at.saturating_duration_since(sent));
                    }
                };
                if live == "sse" {
                    let follow = format!("{path}?offset=-1&live=sse");
                    client.begin_events(&follow).await?;
                    loop {
                        let events = client.events_now().await?;
                        let at = Instant::now();
                        for sent in wire::stamps(&events) {
                            note(sent, at);
                        }
                    }
                } else {
                    let mut offset = "-1".to_owned();
                    loop {
                        let target = format!("{path}?offset={offset}&live=long-poll");
                        let answer = client.send("GET", &target, "", b"").await?;
                        for sent in wire::stamps(&answer.body) {
                            note(sent, answer.at);
                        }
                        offset = answer.next_offset;
                    }
                }
                #[expect(unreachable_code, reason = "it says what goes wrong")]
                Ok::<(), Error>(())
            })
        };
        let count = u32::try_from(self.target.each.as_millis() * u128::from(PACE) / 1000);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / PACE);
        for _ in 0..count.unwrap_or(u32::MAX) {
            ticks.tick().await;
            let stamp = started.elapsed().as_micros();
            let body = format!(
                "{{\"t\":{stamp},\"fill\":\"{}\"}}",
                "x".repeat(MESSAGE - 30)
            );
            writer.send("POST", &path, JSON, body.as_bytes()).await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        reader.abort();
        let mut times = std::mem::take(&mut *times.lock().await);
        let mut row = Row {
            what: format!("{live}, {PACE} messages a second, {} came", times.len()),
            ..Row::default()
        };
        row.times(&mut times);
        Ok(row)
    }

    /// What idle streams and idle readers take up.
    async fn idle(&self) -> io::Result<Vec<Row>> {
        let mut client = self.client().await?;
        let before = self.memory();
        let (start, cpu) = (Instant::now(), self.cpu());
        let body = messages(1);
        let body = String::from_utf8_lossy(&body).into_owned();
        // Readers need one to read, also where none is measured.
        let many = self.target.idle.max(self.target.followers.min(1));
        for number in 0..many {
            let path = format!("{}-idle/{number}", self.name);
            self.create(&mut client, &path, &body).await?;
        }
        let count = many as f64;
        let streams = Row {
            what: format!("{many} idle streams, created one by one"),
            rate: Some(count / start.elapsed().as_secs_f64()),
            cpu_us: self.cpu_since(cpu).map(|seconds| seconds * 1e6 / count),
            kib: self.memory_since(before).map(|kib| kib / count),
            ..Row::default()
        };
        let before = self.memory();
        let mut readers = Vec::new();
        for number in 0..self.target.followers {
            let mut client = self.client().await?;
            let path = format!("{}-idle/{}?offset=now&live=sse", self.name, number % many);
            client.begin_events(&path).await?;
            readers.push(client);
        }
        let count = self.target.followers as f64;
        let followers = Row {
            what: format!("{} idle event readers", self.target.followers),
            kib: self.memory_since(before).map(|kib| kib / count),
            ..Row::default()
        };
        Ok(vec![streams, followers])
    }
}

impl Row {
    pub(super) fn times(&mut self, times: &mut [Duration]) {
        times.sort_unstable();
        let at = |hundredth: usize| {
            let last = times.len().checked_sub(1)?;
            let place = (times.len() * hundredth / 100).min(last);
            times.get(place).map(|time| time.as_secs_f64() * 1e3)
        };
        (self.p50_ms, self.p99_ms) = (at(50), at(99));
    }
}

const JSON: &str = "content-type: application/json\r\n";

fn messages(count: usize) -> Vec<u8> {
    let one = format!("{{\"fill\":\"{}\"}}", "x".repeat(MESSAGE - 11));
    let all = vec![one.as_str(); count].join(",");
    format!("[{all}]").into_bytes()
}

fn unexpected(method: &str, status: u16) -> Error {
    Error::other(format!("{method} was answered with {status}"))
}
