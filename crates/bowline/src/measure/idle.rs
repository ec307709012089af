//! What sleeping instances cost: the figures of `bowline bench idle`.
//!
//! The data directory is filled with copies of one real conversation, each an instance of its own. A
//! fresh process serves it; then some of the instances are woken.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use bowline_agent::actor;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::child::{Child, say};
use crate::{Agent, Bowline, Outgoing, Render, error::Error};

/// The name of the agent.
const AGENT: &str = "bench";
/// Instances that are woken.
const SAMPLE: usize = 1_000;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Instances in the data directory.
    pub instances: usize,
    /// Size of the database, in MiB.
    pub data_mib: f64,
    /// From the start of the process until it serves, in milliseconds.
    pub start_ms: f64,
    /// What the process itself saw.
    #[serde(flatten)]
    pub inside: Inside,
}

/// What the process that serves the instances sees of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inside {
    /// Resident memory when it serves, in MiB.
    pub resident_mib: f64,
    /// Instances that were woken, one after the other.
    pub woken: usize,
    /// Time until a sleeping instance has answered a question, in milliseconds: the middle one.
    pub wake_p50_ms: f64,
    /// 99 of 100 are below.
    pub wake_p99_ms: f64,
    /// Time until a message to a sleeping instance is accepted, with its flush, in milliseconds.
    pub accept_p50_ms: f64,
    /// 99 of 100 are below.
    pub accept_p99_ms: f64,
    /// Time of a flush of this disk, in milliseconds: the middle one.
    pub flush_p50_ms: f64,
    /// 99 of 100 are below.
    pub flush_p99_ms: f64,
    /// Resident memory with those instances awake, in MiB.
    pub awake_mib: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instances,
            data_mib,
            start_ms,
            inside,
        } = self;
        writeln!(f, "idle instances                        {instances:>10}")?;
        writeln!(
            f,
            "size of the data                      {data_mib:>10.0} MiB"
        )?;
        writeln!(
            f,
            "resident memory after start           {:>10.1} MiB",
            inside.resident_mib
        )?;
        writeln!(
            f,
            "start to serving                      {start_ms:>10.0} ms"
        )?;
        writeln!(
            f,
            "asleep to answering, p50 / p99        {:>10.2} / {:.2} ms",
            inside.wake_p50_ms, inside.wake_p99_ms
        )?;
        writeln!(
            f,
            "asleep to message accepted, p50 / p99 {:>10.2} / {:.2} ms",
            inside.accept_p50_ms, inside.accept_p99_ms
        )?;
        writeln!(
            f,
            "a flush of this disk, p50 / p99       {:>10.2} / {:.2} ms",
            inside.flush_p50_ms, inside.flush_p99_ms
        )?;
        writeln!(
            f,
            "resident memory with {} awake      {:>10.1} MiB",
            inside.woken * 2,
            inside.awake_mib
        )
    }
}

/// Fills a data directory, and measures a process that serves it.
///
/// # Errors
///
/// When a process cannot be started, or whatever the store reports.
pub async fn run(dir: &Path, instances: usize) -> Result<Report, Error> {
    fill(dir, instances).await?;
    let bytes = std::fs::metadata(dir.join("data/store.db")).map_or(0, |meta| meta.len());
    let child = Child::start(dir, "idle", &instances.to_string())?;
    let began = child.began();
    let child = child.until("serving").await?;
    let start_ms = began.elapsed().as_secs_f64() * 1e3;
    let (child, line) = child.said("figures").await?;
    child.kill().await?;
    let inside = serde_json::from_str(&line)
        .map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    Ok(Report {
        instances,
        data_mib: bytes as f64 / f64::from(1 << 20),
        start_ms,
        inside,
    })
}

fn bowline(dir: &Path) -> Result<Bowline, Error> {
    let folder = dir.to_path_buf();
    let agent = Agent::new(AGENT, move |cx: &mut Render| {
        cx.model("scripted/script.yaml");
        cx.definition().dir = Some(folder.clone());
        "Answer."
    });
    let agent = agent.map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    Ok(Bowline::open(dir.join("data"))?.agent(agent))
}

async fn fill(dir: &Path, instances: usize) -> Result<(), Error> {
    let unwritable = |error: std::io::Error| Error::failure("output_failed", error.to_string(), "");
    let script = "turns:\n  - tools: [{name: bash, input: {command: echo hi > note.txt}}]\n  - text: Done.\n";
    std::fs::write(dir.join("script.yaml"), script).map_err(unwritable)?;
    let service = bowline(dir)?.start_alone();
    service
        .ask(AGENT, "template", Outgoing::user("Go."))
        .await?;
    let store = service.store().clone();
    let dump = store.dump(&actor(AGENT, "template")).await?;
    let Some(dump) = dump else {
        let what = "the conversation that was copied is gone";
        return Err(Error::failure("internal_error", what, ""));
    };
    let put = |id: usize| {
        let (dump, store) = (dump.clone(), store.clone());
        async move { dump.put(&*store, &actor(AGENT, &id.to_string())).await }
    };
    stream::iter(0..instances)
        .map(put)
        .buffer_unordered(256)
        .try_collect::<()>()
        .await?;
    service.stop(Duration::from_secs(60)).await;
    Ok(())
}

/// The process that is measured.
pub(crate) async fn serve(dir: &Path, instances: usize) -> Result<(), Error> {
    let service = bowline(dir)?.start();
    // It serves once it knows that nobody has to be woken.
    service.store().next_wake().await?;
    say("serving");
    let resident_mib = resident_mib();
    let sample = SAMPLE.min(instances / 2);
    // Spread over all of them, no two beside each other.
    let chosen = |n: usize| ((n * 7_919 + 13) % instances).to_string();
    let (mut wakes, mut accepts, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..sample {
        let began = Instant::now();
        let asked = service.reply(AGENT, &chosen(n), "sub_none").await;
        debug_assert!(asked.is_err(), "there is no such submission");
        wakes.push(began.elapsed());
    }
    for n in sample..2 * sample {
        let began = Instant::now();
        service
            .send(AGENT, &chosen(n), Outgoing::user("Go."))
            .await?;
        accepts.push(began.elapsed());
    }
    let mut file = std::fs::File::create(dir.join("flush")).map_err(unreadable)?;
    for _ in 0..sample {
        use std::io::Write as _;
        let began = Instant::now();
        file.write_all(&[0; 4096])
            .and_then(|()| file.sync_data())
            .map_err(unreadable)?;
        flushes.push(began.elapsed());
    }
    let inside = Inside {
        resident_mib,
        woken: sample,
        wake_p50_ms: percentile(&mut wakes, 50),
        wake_p99_ms: percentile(&mut wakes, 99),
        accept_p50_ms: percentile(&mut accepts, 50),
        accept_p99_ms: percentile(&mut accepts, 99),
        flush_p50_ms: percentile(&mut flushes, 50),
        flush_p99_ms: percentile(&mut flushes, 99),
        awake_mib: self::resident_mib(),
    };
    let line = serde_json::to_string(&inside)
        .map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    say(format_args!("figures {line}"));
    std::future::pending().await
}

fn unreadable(error: std::io::Error) -> Error {
    Error::failure("output_failed", error.to_string(), "")
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Resident memory of this process; zero where there is no `/proc`.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
