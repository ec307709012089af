//! `bowline doctor`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use bowline_store::Store as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    Global,
    place::Place,
    terminal::{Paint, Terminal, count, duration, one_line},
};
use crate::error::Error;

/// Free space below which the disk will soon be full, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// Free space below which nothing should be started, in bytes.
const NO_SPACE: u64 = 64 << 20;
/// Flushes that are timed.
const FLUSHES: u32 = 5;
/// A flush that takes longer makes every step slow.
const SLOW_FLUSH: Duration = Duration::from_millis(50);

/// Check the project, its data and its keys.
///
/// Each line says what is fine, or what to do next. Nothing is sent to a model. In the data directory
/// a small file is written and removed again, to see that writing and flushing work.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline doctor\n  \
    bowline doctor --deep\n      \
        read all data and verify it; takes as long as reading it\n  \
    bowline doctor --json | jq '.checks[] | select(.status != \"ok\")'")]
pub(super) struct Doctor {
    /// Read all data and verify checksums, hashes and references
    #[arg(long)]
    deep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    status: Status,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

#[derive(Debug, Default)]
struct Report(Vec<Check>);

impl Report {
    fn add(
        &mut self,
        name: impl Into<String>,
        status: Status,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Check {
            name: name.into(),
            status,
            message: message.into(),
            hint: hint.into(),
        });
    }

    fn ok(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.add(name, Status::Ok, message, "");
    }

    fn fail(&mut self, name: impl Into<String>, error: &Error) {
        self.add(name, Status::Fail, &error.message, &error.hint);
    }
}

pub(super) async fn doctor(
    args: &Doctor,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let mut report = Report::default();
    match Place::find(global) {
        Err(error) => report.fail("project", &error),
        Ok(place) => {
            report.ok(
                "project",
                format!(
                    "{} in {}",
                    place.project.config.name,
                    place.project.dir.display()
                ),
            );
            agents(&place, &mut report);
            directory(&place.data, &mut report);
            store(&place, args.deep, &mut report).await;
        }
    }
    print(&report, terminal)
}

/// Each agent: its files, its model, the key of its model.
fn agents(place: &Place, report: &mut Report) {
    let found = match place.project.agents() {
        Ok(found) => found,
        Err(error) => return report.fail("agents", &error),
    };
    if found.is_empty() {
        report.add(
            "agents",
            Status::Warn,
            "there are none",
            "write agents/NAME/agent.md, or run `bowline init`",
        );
    }
    for agent in found {
        let name = format!("agent {}", agent.name);
        let ready = place.ready(&agent.name, None);
        match ready.and_then(|_| place.project.definition(&agent.name)) {
            Ok(definition) => report.ok(
                name,
                format!(
                    "{}, {}",
                    definition.model,
                    count(definition.skills.len() as u64, "skill")
                ),
            ),
            Err(error) => report.fail(name, &error),
        }
    }
}

/// The data directory: that it can be written, how fast it flushes, how much room there is.
fn directory(data: &Path, report: &mut Report) {
    let there = data.is_dir();
    let Some(nearest) = nearest(data) else {
        let hint = "choose another with --data";
        return report.add(
            "data",
            Status::Fail,
            format!("{} is no folder", data.display()),
            hint,
        );
    };
    let where_to = data.display();
    match flush(&nearest) {
        Err(error) => {
            let message = format!("{where_to} cannot be written: {error}");
            report.add(
                "data",
                Status::Fail,
                message,
                "check its owner and mode, or choose another with --data",
            );
        }
        Ok(time) => {
            let made = if there {
                ""
            } else {
                " (made by the first run)"
            };
            report.ok("data", format!("{where_to} can be written{made}"));
            if time > SLOW_FLUSH {
                let message = format!("{} each, and every step needs one", duration(time));
                report.add(
                    "flush",
                    Status::Warn,
                    message,
                    "put the data on a local disk: --data DIR",
                );
            } else {
                report.ok("flush", format!("{:.1} ms each", time.as_secs_f64() * 1e3));
            }
        }
    }
    match fs4::available_space(&nearest) {
        Err(error) => report.add(
            "space",
            Status::Warn,
            format!("cannot tell how much is free: {error}"),
            "",
        ),
        Ok(free) => {
            let message = format!("{:.1} GiB free", free as f64 / f64::from(1u32 << 30));
            let hint = "free some, or put the data elsewhere: --data DIR";
            match free {
                0..NO_SPACE => report.add("space", Status::Fail, message, hint),
                NO_SPACE..LITTLE_SPACE => report.add("space", Status::Warn, message, hint),
                _ => report.ok("space", message),
            }
        }
    }
}

/// The folder, or the nearest one above it that is there.
fn nearest(data: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(data).ok()?;
    let there = path.ancestors().find(|folder| folder.exists())?;
    there.is_dir().then(|| there.to_path_buf())
}

/// How long it takes until a small write is on the disk.
fn flush(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".bowline-doctor-{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    let timed = (|| {
        let begin = Instant::now();
        for _ in 0..FLUSHES {
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
        }
        Ok(begin.elapsed() / FLUSHES)
    })();
    fs::remove_file(&path)?;
    timed
}

/// The store: that it opens, and with `deep` that all of it is as it was written.
async fn store(place: &Place, deep: bool, report: &mut Report) {
    let store = match place.read() {
        Ok(Some(store)) => store,
        Ok(None) => return report.ok("store", "nothing is stored yet"),
        Err(error) => return report.fail("store", &error),
    };
    if !deep {
        return report.ok("store", "opens; `--deep` verifies all of it");
    }
    match store.verify().await {
        Ok(()) => report.ok("store", "opens, and all of it is as it was written"),
        Err(error) => report.fail("store", &error.into()),
    }
}

fn print(report: &Report, terminal: Terminal) -> Result<ExitCode, Error> {
    let failed = report.0.iter().any(|check| check.status == Status::Fail);
    if terminal.json {
        terminal.json(&json!({"type": "doctor", "ok": !failed, "checks": report.0}))?;
    } else {
        let width = report
            .0
            .iter()
            .map(|check| check.name.chars().count())
            .max()
            .unwrap_or(0);
        for check in &report.0 {
            let status = match check.status {
                Status::Ok => terminal.out.paint(Paint::Good, "ok  "),
                Status::Warn => terminal.out.paint(Paint::Odd, "warn"),
                Status::Fail => terminal.out.paint(Paint::Bad, "fail"),
            };
            terminal.answer(format_args!(
                "{status}  {:width$}  {}\n",
                check.name,
                one_line(&check.message)
            ))?;
            if !check.hint.is_empty() {
                terminal.answer(format_args!(
                    "      {:width$}  → {}\n",
                    "",
                    one_line(&check.hint)
                ))?;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
