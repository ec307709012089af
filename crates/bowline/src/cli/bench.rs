//! `bowline bench`.

use std::{
    fmt::{self, Display, Formatter},
    io::{BufRead as _, BufReader, Error as IoError},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{fault::Fault, terminal::Terminal};
use crate::{error::Error, measure};

/// How long an actor of the measured server stays in memory, in milliseconds: short, so that what is at
/// rest need not be waited for.
const REST: u64 = 1_000;

/// Measure this machine: the store, a turn, streams, how soon a killed process is back.
///
/// Compare ratios of one run, not figures of two: other work on the machine counts as well.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  bowline bench store\n  bowline bench turn --turns 5000 --dir /mnt/disk\n  \
    bowline bench recovery\n  bowline bench idle --instances 10000"
)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
    /// Where to write while measuring [default: a new folder among the temporary files]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Durable appends a second, group commit beside one transaction for each append
    Store {
        /// How often everything is measured
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Milliseconds for each measurement
        #[arg(long, default_value_t = 400)]
        millis: u64,
    },
    /// Operations on 1,000 files of 2 KB; `bench/workspace.mjs` runs it beside its peers
    Workspace {
        /// How often everything is measured
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// A ripgrep to compare grep with; found on the path by default
        #[arg(long, value_name = "PROGRAM")]
        rg: Option<PathBuf>,
    },
    /// CPU time, flushes and bytes of a turn of a scripted agent, and what building the context costs
    Turn {
        /// Turns for each measurement
        #[arg(long, default_value_t = 2_000)]
        turns: u64,
    },
    /// How fast answers of models are read, and how late
    Model {
        /// How often each format is measured; the best counts
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Megabytes of each answer
        #[arg(long, default_value_t = 8)]
        megabytes: usize,
    },
    /// Appends, reads, delivery and memory of a Durable Streams server
    Streams(Streams),
    /// Turns, admission, delivery and memory of the server of agents
    Http(Http),
    /// Whether the server grows: many conversations, clients that leave and come back
    Soak {
        /// How long, without the pauses in which is looked
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Conversations at once
        #[arg(long, default_value_t = 64)]
        conversations: usize,
        /// What the clients do follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Isolates: start, calls, saving, memory, stopping, loops, stripping of types
    Isolate {
        /// Runs for each latency
        #[arg(long, default_value_t = 2_000)]
        runs: usize,
        /// Isolates that live at the same time
        #[arg(long, default_value_t = 1_000)]
        live: u32,
        /// Programs that are parked
        #[arg(long, default_value_t = 10_000)]
        parked: usize,
        /// Agents that run code at the same time, in a process of their own; 0 leaves it out
        #[arg(long, default_value_t = 1_000)]
        agents: usize,
        /// A native QuickJS to compare loops with; found on the path by default
        #[arg(long, value_name = "PROGRAM")]
        qjs: Option<PathBuf>,
    },
    /// Kill a process with many conversations in flight: how soon the next one has gone on with all
    Recovery {
        /// Conversations in flight
        #[arg(long, default_value_t = 1_000)]
        conversations: usize,
    },
    /// Memory, start and wake of a process with many sleeping instances; takes a few minutes to fill
    Idle {
        /// Instances in the data directory
        #[arg(long, default_value_t = 100_000)]
        instances: usize,
    },
    /// One part of a measurement, in a process of its own.
    #[command(hide = true)]
    Child { part: String, many: usize },
}

/// Which server of agents, and for how long.
#[derive(Debug, Clone, Args)]
struct Http {
    /// A server that runs already [default: one of its own, on a new folder]
    #[arg(long, value_name = "ADDRESS:PORT")]
    addr: Option<SocketAddr>,
    /// The path of the agent there; on `tools N` it calls a tool N times and answers
    #[arg(
        long,
        value_name = "PATH",
        requires = "addr",
        default_value = "/agents/bench"
    )]
    path: String,
    /// The process of that server, for its processor time and memory
    #[arg(long, requires = "addr")]
    pid: Option<u32>,
    /// How many conversations are talked to at once, one measurement after the other
    #[arg(long, value_name = "COUNT,…", value_delimiter = ',', default_values_t = [1, 16, 64, 512])]
    conversations: Vec<usize>,
    /// Milliseconds for each measurement of turns
    #[arg(long, default_value_t = 3_000)]
    millis: u64,
    /// Readers at rest
    #[arg(long, default_value_t = 10_000)]
    followers: usize,
    /// Conversations that wait for a person
    #[arg(long, default_value_t = 2_000)]
    parked: usize,
    /// Turns of the conversation that becomes long; 0 leaves it out
    #[arg(long, default_value_t = 1_000)]
    long: u64,
}

/// Which server, and for how long.
#[derive(Debug, Clone, Args)]
struct Streams {
    /// A server that runs already [default: one of its own, on a new folder]
    #[arg(long, value_name = "ADDRESS:PORT")]
    addr: Option<SocketAddr>,
    /// The process of that server, for its processor time and memory
    #[arg(long, requires = "addr")]
    pid: Option<u32>,
    /// Milliseconds for each measurement
    #[arg(long, default_value_t = 2_000)]
    millis: u64,
    /// Idle streams
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Idle readers
    #[arg(long, default_value_t = 1_000)]
    followers: usize,
}

pub(super) async fn bench(args: &Bench, terminal: Terminal) -> Result<ExitCode, Error> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    if let What::Child { part, many } = &args.what {
        match part.as_str() {
            "recovery-begin" => measure::recovery::begin(&parent, *many).await?,
            "recovery-resume" => measure::recovery::resume(&parent, *many).await?,
            "idle" => measure::idle::serve(&parent, *many).await?,
            "isolate-agents" => measure::agents::serve(&parent, *many).await?,
            "http" => measure::http::serve(&parent, *many).await?,
            other => return Err(Fault::Arguments(format!("there is no part {other}")).into()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let dir = parent.join(format!("bowline-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(Fault::Output)?;
    let outcome = measure(&args.what, &dir, terminal).await;
    // What is left behind is named, not an error: the figures are there.
    let _ = std::fs::remove_dir_all(&dir);
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn measure(what: &What, dir: &Path, terminal: Terminal) -> Result<(), Error> {
    match what {
        What::Store { rounds, millis } => store(*rounds, *millis, dir, terminal).await,
        What::Isolate {
            runs,
            live,
            parked,
            agents,
            qjs,
        } => {
            let amount = measure::isolate::Amount {
                runs: *runs,
                live: *live,
                parked: *parked,
                qjs: qjs.clone(),
            };
            isolate(amount, *agents, dir, terminal).await
        }
        What::Workspace { rounds, rg } => {
            let (rounds, rg) = (*rounds, rg.clone());
            let amount = measure::workspace::Amount { rounds, rg };
            let report = measure::workspace::figures(dir, &amount).await?;
            tell("workspace", report, terminal)
        }
        What::Turn { turns } => tell("turn", measure::turns(dir, *turns).await?, terminal),
        What::Model { rounds, megabytes } => {
            let report = measure::model::run(*rounds, *megabytes).await?;
            tell("model", report, terminal)
        }
        What::Streams(args) => streams(args, dir, terminal).await,
        What::Http(args) => http(args, dir, terminal).await,
        What::Soak {
            seconds,
            conversations,
            seed,
        } => {
            let plan = measure::soak::Plan {
                seconds: *seconds,
                conversations: *conversations,
                seed: *seed,
            };
            let figures = measure::soak::soak(dir, plan).await?;
            tell("soak", Figures { figures }, terminal)
        }
        What::Recovery { conversations } => {
            let figures = measure::recovery::run(dir, *conversations).await?;
            tell("recovery", Figures { figures }, terminal)
        }
        What::Idle { instances } => {
            let figures = measure::idle::run(dir, (*instances).max(2)).await?;
            tell("idle", Figures { figures }, terminal)
        }
        What::Child { .. } => Ok(()),
    }
}

/// A report in a field of its own, for one that is not rows.
#[derive(Debug, Serialize)]
struct Figures<R> {
    figures: R,
}

impl<R: Display> Display for Figures<R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.figures.fmt(f)
    }
}

/// What was measured: as a table, or as one line of JSON with the fields of the report.
fn tell(what: &str, report: impl Display + Serialize, terminal: Terminal) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Told<'a, R> {
        #[serde(rename = "type")]
        kind: &'static str,
        what: &'a str,
        #[serde(flatten)]
        report: R,
    }
    if !terminal.json {
        return terminal.answer(report);
    }
    let told = Told {
        kind: "bench",
        what,
        report,
    };
    let told = serde_json::to_value(told).map_err(|error| Fault::Output(error.into()))?;
    terminal.json(&told)
}

async fn store(rounds: usize, millis: u64, dir: &Path, terminal: Terminal) -> Result<(), Error> {
    let (dir, rounds, each) = (dir.to_path_buf(), rounds, Duration::from_millis(millis));
    let run =
        tokio::task::spawn_blocking(move || bowline_store::measure::appends(&dir, rounds, each));
    let report = run
        .await
        .map_err(std::io::Error::other)
        .and_then(|report| report)
        .map_err(Fault::Output)?;
    tell("store", report, terminal)
}

async fn isolate(
    amount: measure::isolate::Amount,
    agents: usize,
    dir: &Path,
    terminal: Terminal,
) -> Result<(), Error> {
    let own = dir.to_path_buf();
    let run = tokio::task::spawn_blocking(move || measure::isolate::isolates(&own, amount));
    let mut figures = run
        .await
        .map_err(|error| Fault::Output(std::io::Error::other(error)))??;
    measure::agents::agents(dir, agents, &mut figures).await?;
    tell("isolate", figures, terminal)
}

async fn streams(args: &Streams, dir: &Path, terminal: Terminal) -> Result<(), Error> {
    let (addr, pid, own) = match args.addr {
        Some(addr) => (addr, args.pid, None),
        None => {
            let (child, addr) = serve(dir).map_err(Fault::Output)?;
            (addr, Some(child.0.id()), Some(child))
        }
    };
    let target = measure::streams::Target {
        addr,
        pid,
        each: Duration::from_millis(args.millis),
        idle: args.idle,
        followers: args.followers,
    };
    let report = measure::streams::streams(&target).await;
    drop(own);
    tell("streams", report.map_err(Fault::Output)?, terminal)
}

async fn http(args: &Http, dir: &Path, terminal: Terminal) -> Result<(), Error> {
    let own = match args.addr {
        Some(_) => None,
        None => Some(measure::http::Own::start(dir, REST).await?),
    };
    let target = measure::http::Target {
        addr: match (&own, args.addr) {
            (Some(own), _) => own.addr,
            (None, addr) => addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8787))),
        },
        path: args.path.trim_end_matches('/').to_owned(),
        pid: own.as_ref().map(|own| own.pid).or(args.pid),
        at_once: args.conversations.clone(),
        each: Duration::from_millis(args.millis),
        followers: args.followers,
        long: args.long,
        own: own.as_ref().map(|_| (args.parked, dir.to_path_buf())),
    };
    let report = measure::http::http(&target).await;
    drop(own);
    tell("http", report.map_err(Fault::Output)?, terminal)
}

/// A server that ends with the measurement.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program as a server of its own, so that its processor time is not that of the load.
fn serve(dir: &Path) -> Result<(Own, SocketAddr), IoError> {
    std::fs::write(dir.join("bowline.toml"), "[project]\nname = \"bench\"\n")?;
    std::fs::create_dir_all(dir.join("agents"))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "--json", "--addr", "127.0.0.1:0", "--project"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take();
    let own = Own(child);
    let mut line = String::new();
    if let Some(out) = out {
        BufReader::new(out).read_line(&mut line)?;
    }
    let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
    let addr = told.get("addr").and_then(serde_json::Value::as_str);
    let addr = addr.and_then(|addr| addr.parse().ok());
    let addr = addr.ok_or_else(|| IoError::other("the server did not start"))?;
    Ok((own, addr))
}
