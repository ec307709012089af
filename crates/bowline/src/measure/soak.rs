//! Whether a server that works for long grows: `bowline bench soak`.
//!
//! Many conversations are talked to at once, by clients that leave in the middle of what they are told,
//! come back, abort, break off requests and delete conversations. Now and then all of them pause until
//! nothing is in memory; what the server takes then is compared between the pauses.

use std::{
    fmt,
    io::{self, Error},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    http::{JSON, Own, SETTLED, unexpected},
    wire::{self, Client},
};
use crate::error;

/// Pauses that are compared; one more comes before them, behind the warm-up.
const WINDOWS: u32 = 6;
/// How long an actor stays in memory, in milliseconds: short, so that a pause need not be long.
const IDLE: u64 = 200;
/// More files or tasks than this, over those of the first pause, are growth.
const SLACK: f64 = 2.0;
/// How much more memory the last third of the pauses may take than the first, as a ratio.
const MEMORY: f64 = 1.15;
/// How long a pause waits for the server to come to rest.
const REST: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How long it takes, in seconds, without the pauses.
    pub seconds: u64,
    /// Conversations at once.
    pub conversations: usize,
    /// What the clients do follows from it.
    pub seed: u64,
}

/// What the server took in a pause.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Since the beginning, in seconds.
    pub after_s: f64,
    /// Turns until then.
    pub turns: u64,
    /// Readers that left in the middle until then.
    pub cuts: u64,
    /// Resident memory, in MiB.
    pub resident_mib: f64,
    /// Open file handles.
    pub files: f64,
    /// Tasks.
    pub tasks: f64,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One for each pause; the first stands behind the warm-up.
    pub pauses: Vec<Pause>,
    /// Bytes of resident memory that came with each turn, in the first half and in the second. Caches that fill,
    /// and memory that is kept for later, come with the first turns; what leaks comes with each.
    pub bytes_a_turn: [f64; 2],
    /// What has grown, each in one line; empty when nothing has.
    pub grown: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["seconds", "turns", "cuts", "MiB", "files", "tasks"];
        for name in head {
            write!(f, "{name:>9}")?;
        }
        writeln!(f)?;
        for pause in &self.pauses {
            let Pause {
                after_s,
                turns,
                cuts,
                resident_mib,
                files,
                tasks,
            } = pause;
            writeln!(
                f,
                "{after_s:>9.1}{turns:>9}{cuts:>9}{resident_mib:>9.1}{files:>9}{tasks:>9}"
            )?;
        }
        let [first, second] = self.bytes_a_turn;
        writeln!(
            f,
            "memory for each turn: {first:.0} bytes in the first half, {second:.0} in the second"
        )?;
        if self.grown.is_empty() {
            writeln!(f, "nothing has grown")?;
        }
        self.grown.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Works for as long as the plan says, on a server of its own.
///
/// # Errors
///
/// When the server cannot be started, or does not do what it is asked.
pub async fn soak(dir: &Path, plan: Plan) -> Result<Report, error::Error> {
    let failed = |error: Error| error::Error::failure("process_failed", error.to_string(), "");
    let own = Own::start(dir, IDLE).await?;
    run(own.addr, plan).await.map_err(failed)
}

async fn run(addr: SocketAddr, plan: Plan) -> io::Result<Report> {
    let began = Instant::now();
    let window = Duration::from_secs(plan.seconds) / (WINDOWS + 1);
    let tally = Arc::new(Tally::default());
    let mut pauses = Vec::new();
    for number in 0..=u64::from(WINDOWS) {
        let until = Instant::now() + window;
        let mut tasks = JoinSet::new();
        for which in 0..plan.conversations {
            let client = Person {
                addr,
                tally: tally.clone(),
                dice: Dice(plan.seed ^ (number << 32) ^ which as u64),
                name: format!("/agents/bench/{number}-{which}"),
                lives: 0,
            };
            tasks.spawn(client.live(until));
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(Error::other)??;
        }
        pauses.push(pause(addr, began, &tally).await?);
    }
    let (first, second) = pauses.split_at(pauses.len() / 2);
    // The middle belongs to both: growth is from one pause to another.
    let first = first.iter().chain(second.first()).copied();
    Ok(Report {
        bytes_a_turn: [bytes_a_turn(first), bytes_a_turn(second.iter().copied())],
        grown: grown(&pauses),
        pauses,
    })
}

/// How much more resident memory there was at the last of some pauses than at the first, for each turn between.
fn bytes_a_turn(mut pauses: impl Iterator<Item = Pause>) -> f64 {
    match (pauses.next(), pauses.last()) {
        (Some(first), Some(last)) => {
            let turns = last.turns.saturating_sub(first.turns).max(1);
            (last.resident_mib - first.resident_mib) * f64::from(1 << 20) / turns as f64
        }
        (_, None) | (None, Some(_)) => 0.0,
    }
}

/// Waits until nothing but the one who asks is there, and looks at what the server takes.
async fn pause(addr: SocketAddr, began: Instant, tally: &Tally) -> io::Result<Pause> {
    let mut client = Client::connect(addr, "").await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let since = Instant::now();
    let mut before: Option<Pause> = None;
    loop {
        ticks.tick().await;
        let answer = client.send("GET", "/metrics", "", b"").await?;
        let figure = |name: &str| {
            let found = wire::figure(&answer.body, name);
            found.ok_or_else(|| Error::other(format!("the server does not tell {name}")))
        };
        let now = Pause {
            after_s: began.elapsed().as_secs_f64(),
            turns: tally.turns.load(Ordering::Relaxed),
            cuts: tally.cuts.load(Ordering::Relaxed),
            resident_mib: figure("process_resident_memory_bytes")? / f64::from(1 << 20),
            files: figure("process_open_fds")?,
            tasks: figure("bowline_tasks")?,
        };
        let rests = figure("bowline_actors_awake")? == 0.0
            && figure("bowline_http_connections")? == 1.0
            && before.is_some_and(|before| (before.files, before.tasks) == (now.files, now.tasks));
        // One that never comes to rest has grown, and is told as it is.
        if rests || since.elapsed() > REST {
            return Ok(now);
        }
        before = Some(now);
    }
}

fn grown(pauses: &[Pause]) -> Vec<String> {
    let mut grown = Vec::new();
    let Some((first, rest)) = pauses.split_first() else {
        return grown;
    };
    for (what, value) in [
        ("files", (|pause| pause.files) as fn(&Pause) -> f64),
        ("tasks", |pause| pause.tasks),
    ] {
        let (from, most) = (value(first), rest.iter().map(value).fold(0.0, f64::max));
        if most > from + SLACK {
            grown.push(format!("{what} grew from {from} to {most}"));
        }
    }
    let third = (rest.len() / 3).max(1);
    let mean = |some: &[Pause]| {
        some.iter().map(|pause| pause.resident_mib).sum::<f64>() / some.len().max(1) as f64
    };
    let early = mean(rest.get(..third).unwrap_or_default());
    let late = mean(
        rest.get(rest.len().saturating_sub(third)..)
            .unwrap_or_default(),
    );
    if late > early * MEMORY {
        grown.push(format!("memory grew from {early:.1} to {late:.1} MiB"));
    }
    grown
}

#[derive(Debug, Default)]
struct Tally {
    turns: AtomicU64,
    cuts: AtomicU64,
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    /// One of so many.
    fn of(&mut self, many: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % many
    }
}

/// Somebody who talks to one conversation after the other.
struct Person {
    addr: SocketAddr,
    tally: Arc<Tally>,
    dice: Dice,
    name: String,
    lives: u64,
}

impl Person {
    async fn live(mut self, until: Instant) -> io::Result<()> {
        let mut client = Client::connect(self.addr, "").await?;
        while Instant::now() < until {
            let path = format!("{}-{}", self.name, self.lives);
            match self.dice.of(10) {
                0..=3 => self.follow(&mut client, &path).await?,
                4..=5 => self.wait(&mut client, &path).await?,
                6 => self.abort(&mut client, &path).await?,
                7 => self.knock(&path).await?,
                8 => self.break_off(&path).await?,
                _ => self.leave(&mut client, &path).await?,
            }
        }
        let path = format!("{}-{}", self.name, self.lives);
        self.leave(&mut client, &path).await
    }

    /// Sends a message; returns the submission, and the offset from which its answer is read.
    async fn send(
        &self,
        client: &mut Client,
        path: &str,
        text: &str,
    ) -> io::Result<(String, String)> {
        let body = format!("{{\"kind\":\"user\",\"body\":\"{text}\"}}");
        let answer = client.send("POST", path, JSON, body.as_bytes()).await?;
        if answer.status != 202 {
            return Err(unexpected("POST", answer.status));
        }
        self.tally.turns.fetch_add(1, Ordering::Relaxed);
        let told: Value = serde_json::from_slice(&answer.body).map_err(Error::other)?;
        let id = told.get("submissionId").and_then(Value::as_str);
        Ok((id.unwrap_or_default().to_owned(), answer.next_offset))
    }

    /// Follows an answer, leaves in the middle of it, and comes back where it was.
    async fn follow(&mut self, client: &mut Client, path: &str) -> io::Result<()> {
        let (_, mut offset) = self.send(client, path, "slowly").await?;
        let mut cuts = self.dice.of(3);
        loop {
            let reader = Client::connect(self.addr, "").await?;
            let follow = format!("{path}?view=updates&live=sse&offset={offset}");
            let most = match cuts {
                0 => usize::MAX,
                _ => 1 + self.dice.of(2_000) as usize,
            };
            let told = reader.some(&follow, most, SETTLED).await?;
            if wire::count(&told, SETTLED) > 0 {
                return Ok(());
            }
            cuts = cuts.saturating_sub(1);
            self.tally.cuts.fetch_add(1, Ordering::Relaxed);
            offset = wire::last_offset(&told).unwrap_or(offset);
        }
    }

    async fn wait(&mut self, client: &mut Client, path: &str) -> io::Result<()> {
        let (id, _) = self.send(client, path, "tools 5").await?;
        let wait = format!("{path}/submissions/{id}?wait=30");
        let answer = client.send("GET", &wait, "", b"").await?;
        match answer.status {
            200 => Ok(()),
            status => Err(unexpected("GET", status)),
        }
    }

    async fn abort(&mut self, client: &mut Client, path: &str) -> io::Result<()> {
        let (id, offset) = self.send(client, path, "slowly").await?;
        let poll = format!("{path}?view=updates&live=long-poll&offset={offset}");
        client.send("GET", &poll, "", b"").await?;
        client
            .send("POST", &format!("{path}/abort"), "", b"")
            .await?;
        let wait = format!("{path}/submissions/{id}?wait=30");
        client.send("GET", &wait, "", b"").await?;
        Ok(())
    }

    /// Opens a WebSocket and is gone.
    async fn knock(&mut self, path: &str) -> io::Result<()> {
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut client = Client::connect(self.addr, "").await?;
        let answer = client.send("GET", path, upgrade, b"").await?;
        match answer.status {
            101 => Ok(()),
            status => Err(unexpected("GET", status)),
        }
    }

    /// Begins a request and is gone.
    async fn break_off(&mut self, path: &str) -> io::Result<()> {
        let client = Client::connect(self.addr, "").await?;
        let part = b"{\"kind\":\"user\",";
        client.begin(path, JSON, part, part.len() + 100).await
    }

    /// Deletes the conversation, and begins another one.
    async fn leave(&mut self, client: &mut Client, path: &str) -> io::Result<()> {
        self.lives += 1;
        let answer = client.send("DELETE", path, "", b"").await?;
        match answer.status {
            204 | 404 => Ok(()),
            status => Err(unexpected("DELETE", status)),
        }
    }
}
