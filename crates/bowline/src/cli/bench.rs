//! `bowline bench`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{fault::Fault, terminal::Terminal};
use crate::{error::Error, measure};

/// Measure this machine: what the store keeps, what a turn costs.
///
/// Compare ratios of one run, not figures of two: other work on the machine counts as well.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  bowline bench store\n  bowline bench turn --turns 5000 --dir /mnt/disk"
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
    /// CPU time, flushes and bytes of a turn of a scripted agent
    Turn {
        /// Turns for each measurement
        #[arg(long, default_value_t = 2_000)]
        turns: u64,
    },
}

pub(super) async fn bench(args: &Bench, terminal: Terminal) -> Result<ExitCode, Error> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("bowline-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(Fault::Output)?;
    let outcome = measure(&args.what, &dir, terminal).await;
    // What is left behind is named, not an error: the figures are there.
    let _ = std::fs::remove_dir_all(&dir);
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn measure(what: &What, dir: &std::path::Path, terminal: Terminal) -> Result<(), Error> {
    match what {
        What::Store { rounds, millis } => {
            let (dir, rounds, each) = (dir.to_path_buf(), *rounds, Duration::from_millis(*millis));
            let run = tokio::task::spawn_blocking(move || {
                bowline_store::measure::appends(&dir, rounds, each)
            });
            let report = run
                .await
                .map_err(std::io::Error::other)
                .and_then(|report| report)
                .map_err(Fault::Output)?;
            if !terminal.json {
                return terminal.answer(report);
            }
            let rows: Vec<_> = report.rows.iter().map(|row| json!({
                "mode": row.mode, "actors": row.actors, "best": row.best, "median": row.median,
                "p50Ms": row.p50.as_secs_f64() * 1e3, "p99Ms": row.p99.as_secs_f64() * 1e3,
                "flushes": row.flushes, "appends": row.appends,
            })).collect();
            let raw = json!({"best": report.raw.0, "median": report.raw.1});
            terminal.json(&json!({"type": "bench", "what": "store", "rawFlushesPerSecond": raw, "rows": rows}))
        }
        What::Turn { turns } => {
            let report = measure::turns(dir, *turns).await?;
            if !terminal.json {
                return terminal.answer(report);
            }
            let rows: Vec<_> = report.rows.iter().map(|row| json!({
                "what": row.what, "turns": row.turns, "cpuMs": row.cpu_ms, "wallMs": row.wall_ms,
                "flushes": row.flushes, "writtenKib": row.written_kib,
            })).collect();
            terminal.json(&json!({"type": "bench", "what": "turn", "rows": rows}))
        }
    }
}
