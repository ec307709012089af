//! What files cost: the figures of `bowline bench workspace`.
//!
//! 1,000 files of 2 KB in 20 folders, on a store on the real disk. What says "durable" ends with a flush.

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use bowline_runtime::{Sources, Step, kind};
use bowline_sandbox::{
    search::{self, GrepQuery},
    shell::{Shell, ShellOptions, ShellState},
    tools,
    workspace::{ChangeSet, Overlay, Workspace, WorkspaceError, WriteOptions},
};
use bowline_store::{ActorId, Batch, SqliteOptions, SqliteStore, Store};
use bytes::Bytes;
use serde::Serialize;

use super::cpu_ms;
use crate::error::Error;

/// Files that everything is measured with.
const FILES: u32 = 1_000;
/// Files of the large workspace that is forked.
const MANY: u32 = 10_000;
/// Where files are in memory.
const TMPFS: &str = "/dev/shm";

/// What to measure.
#[derive(Debug, Clone, Default)]
pub struct Amount {
    /// How often everything is measured; at least once.
    pub rounds: u32,
    /// A ripgrep to compare `grep` with. Default: `rg` on the path, and a note where there is none.
    pub rg: Option<PathBuf>,
}

/// One operation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// Wall-clock time of one operation, the middle of all rounds, in milliseconds.
    pub wall_ms: f64,
    /// That of the best round.
    pub best_ms: f64,
    /// Processor time of one operation in this process over all rounds, in milliseconds; 0 where the system
    /// does not tell it.
    pub cpu_ms: f64,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One for each operation.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<44} {:>10} {:>10} {:>10}",
            "", "wall ms", "best ms", "CPU ms"
        )?;
        for row in &self.rows {
            let Row {
                what,
                wall_ms,
                best_ms,
                cpu_ms,
            } = row;
            writeln!(
                f,
                "{what:<44} {wall_ms:>10.4} {best_ms:>10.4} {cpu_ms:>10.4}"
            )?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

/// Wall times of one operation in each round, and its processor time in all of them.
#[derive(Debug)]
struct Taken {
    what: &'static str,
    wall: Vec<f64>,
    cpu: f64,
}

/// Measures in `dir`, which must be on the disk that matters. Takes some seconds for each round.
///
/// # Errors
///
/// Whatever the store or the workspace reports.
pub async fn figures(dir: &Path, amount: &Amount) -> Result<Report, Error> {
    let (mut samples, mut notes) = (Vec::new(), Vec::new());
    let rounds = amount.rounds.max(1);
    for round in 0..rounds {
        let store = SqliteStore::open(&dir.join(format!("r{round}")), SqliteOptions::default())?;
        let bench = Bench {
            actor: ActorId::new("agent", "bench", "one"),
            sources: Sources::system(),
            store,
        };
        bench.round(&mut samples).await?;
        bench.forks(&mut samples).await?;
        if notes.is_empty() {
            let rg = amount.rg.as_deref().unwrap_or(Path::new("rg"));
            if let Err(why) = ripgrep(&mut samples, rg).await {
                notes.push(format!("no ratio to ripgrep: {why}"));
            }
        }
        bench.store.close().await;
    }
    let rows = samples.into_iter().map(|mut taken: Taken| {
        taken.wall.sort_by(f64::total_cmp);
        let at = |place: usize| taken.wall.get(place).copied().unwrap_or_default();
        Row {
            what: taken.what,
            wall_ms: at(taken.wall.len() / 2),
            best_ms: at(0),
            cpu_ms: taken.cpu / f64::from(rounds),
        }
    });
    Ok(Report {
        rows: rows.collect(),
        notes,
    })
}

/// What every file holds: 2 KB of lines.
fn content() -> String {
    "needle or hay, a line of text\n".repeat(68)
}

/// The files of a ripgrep, which are gone when it is dropped.
struct InMemory(PathBuf);

impl Drop for InMemory {
    fn drop(&mut self) {
        // What is left behind is memory of the machine, until somebody looks.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// ripgrep over the same files in memory, as the process that it is; `--version` is its start alone.
async fn ripgrep(samples: &mut Vec<Taken>, program: &Path) -> Result<(), String> {
    let place = Path::new(TMPFS).join(format!("bowline-bench-{}", std::process::id()));
    let files = InMemory(place);
    let broken = |error: std::io::Error| format!("{TMPFS}: {error}");
    for n in 0..FILES {
        let file = files.0.join(path(n));
        std::fs::create_dir_all(file.parent().unwrap_or(&files.0)).map_err(broken)?;
        std::fs::write(file, content()).map_err(broken)?;
    }
    for (what, args, status) in [
        ("ripgrep: start alone", vec!["--version"], 0),
        ("ripgrep on tmpfs, no match", vec!["-n", "absent", "."], 1),
        (
            "ripgrep on tmpfs, 68 lines in each",
            vec!["-n", "hay", "."],
            0,
        ),
    ] {
        let run = timed(samples, what, 20, |_| async {
            let mut command = Command::new(program);
            command.arg("--no-config").args(&args).current_dir(&files.0);
            let done = command.output().map_err(failed)?;
            if done.status.code() == Some(status) {
                Ok(())
            } else {
                Err(failed(String::from_utf8_lossy(&done.stderr)))
            }
        });
        let failed = |error: Error| format!("{}: {error}", program.display());
        run.await.map_err(failed)?;
    }
    Ok(())
}

struct Bench {
    actor: ActorId,
    sources: Sources,
    store: Arc<SqliteStore>,
}

/// Runs an operation so many times and notes what one took.
async fn timed<F: Future<Output = Result<(), Error>>>(
    samples: &mut Vec<Taken>,
    what: &'static str,
    times: u32,
    mut operation: impl FnMut(u32) -> F,
) -> Result<(), Error> {
    let (cpu, start) = (cpu_ms(), Instant::now());
    for n in 0..times {
        operation(n).await?;
    }
    let wall = start.elapsed().as_secs_f64() * 1e3 / f64::from(times);
    let cpu = (cpu_ms() - cpu) / f64::from(times);
    match samples.iter_mut().find(|taken| taken.what == what) {
        Some(taken) => {
            taken.wall.push(wall);
            taken.cpu += cpu;
        }
        None => samples.push(Taken {
            what,
            wall: vec![wall],
            cpu,
        }),
    }
    Ok(())
}

fn failed(error: impl fmt::Display) -> Error {
    Error::failure("internal_error", error.to_string(), "")
}

fn files_error(error: WorkspaceError) -> Error {
    Error::failure(error.code(), error.to_string(), "")
}

fn path(n: u32) -> String {
    format!("d{}/f{n}", n % 20)
}

impl Bench {
    fn open(&self) -> Workspace {
        Workspace::open(self.store.clone(), self.actor.clone())
    }

    async fn begin(&self, files: &Workspace) -> Result<Overlay, Error> {
        files.begin(self.sources.now()).await.map_err(files_error)
    }

    async fn commit(&self, files: &Workspace, overlay: Overlay) -> Result<(), Error> {
        let changes = overlay.changes().map_err(files_error)?;
        self.take(files, &changes).await
    }

    async fn take(&self, files: &Workspace, changes: &ChangeSet) -> Result<(), Error> {
        let head = self.store.head(&self.actor).await?;
        let mut step = Step::new();
        let change = serde_json::json!({"change": "bench"});
        step.record(kind::ACTOR_OPENED, self.sources.now(), &change);
        let mut batch = Batch::new(self.actor.clone(), 1, head.map_or(0, |head| head.seq));
        batch.records = step.records;
        batch.rows.clone_from(&changes.rows);
        batch.blobs.clone_from(&changes.blobs);
        self.store.commit(batch).await?;
        files.committed(changes);
        Ok(())
    }

    async fn write(&self, overlay: &Overlay, n: u32, content: &Bytes) -> Result<(), Error> {
        let options = WriteOptions::with_parents();
        let written = overlay.write(&path(n), content.clone(), &options).await;
        written.map_err(files_error)
    }

    async fn round(&self, samples: &mut Vec<Taken>) -> Result<(), Error> {
        let content = Bytes::from(content());
        let files = self.open();
        let all = "write 1,000 files of 2 KB, one durable step";
        timed(samples, all, 1, |_| async {
            let overlay = self.begin(&files).await?;
            for n in 0..FILES {
                self.write(&overlay, n, &content).await?;
            }
            self.commit(&files, overlay).await
        })
        .await?;
        let each = "write 1,000 files of 2 KB, 1,000 durable steps";
        timed(samples, each, 1, |_| async {
            for n in 0..FILES {
                let overlay = self.begin(&files).await?;
                self.write(&overlay, n, &content).await?;
                self.commit(&files, overlay).await?;
            }
            Ok(())
        })
        .await?;
        let files = self.open();
        let overlay = self.begin(&files).await?;
        for what in [
            "read 1,000 files of 2 KB, first time",
            "read 1,000 files of 2 KB, again",
        ] {
            timed(samples, what, 1, |_| async {
                for n in 0..FILES {
                    overlay.read(&path(n)).await.map_err(files_error)?;
                }
                Ok(())
            })
            .await?;
        }
        self.first_search(samples).await?;
        self.searches(samples, &overlay).await?;
        self.edits(samples, &files).await?;
        self.shell(samples, &overlay).await
    }

    /// As after a start: nothing is in memory.
    async fn first_search(&self, samples: &mut Vec<Taken>) -> Result<(), Error> {
        let overlay = self.begin(&self.open()).await?;
        let query = GrepQuery {
            pattern: "absent".to_owned(),
            ..GrepQuery::default()
        };
        timed(samples, "grep over 1,000 files, first time", 1, |_| async {
            let found = search::grep(&overlay, &query, ".", |_| true).await;
            found.map(drop).map_err(failed)
        })
        .await
    }

    /// Snapshot, fork, and the first write in the fork, each with its flush.
    async fn forks(&self, samples: &mut Vec<Taken>) -> Result<(), Error> {
        for (what, copied, many) in [
            (
                "fork 10 files: snapshot, fork, a write",
                "fork a conversation with 10 files: a copy",
                10,
            ),
            (
                "fork 10,000 files: snapshot, fork, a write",
                "fork a conversation with 10,000 files: a copy",
                MANY,
            ),
        ] {
            let bench = Self {
                actor: ActorId::new("agent", "bench", &format!("fork-{many}")),
                sources: self.sources.clone(),
                store: self.store.clone(),
            };
            let content = Bytes::from(content());
            let files = bench.open();
            let overlay = bench.begin(&files).await?;
            for n in 0..many {
                bench.write(&overlay, n, &content).await?;
            }
            bench.commit(&files, overlay).await?;
            let limits = *files.limits();
            let fork = |n| {
                let (bench, files, content) = (&bench, &files, &content);
                async move {
                    let name = format!("n{n}");
                    let snapshot = files.snapshot(&name, bench.sources.now()).await;
                    bench.take(files, &snapshot.map_err(files_error)?).await?;
                    let fork = files.fork(&name, &name).await.map_err(files_error)?;
                    bench.take(files, &fork).await?;
                    let (store, actor) = (bench.store.clone(), bench.actor.clone());
                    let copy = Workspace::open_fork(store, actor, &name, limits);
                    let overlay = bench.begin(&copy).await?;
                    bench.write(&overlay, 1, content).await?;
                    bench.commit(&copy, overlay).await
                }
            };
            // The database tidies up after so many rows; that is no part of a fork.
            fork(5).await?;
            timed(samples, what, 5, fork).await?;
            timed(samples, copied, 1, |_| async {
                let dump = bench.store.dump(&bench.actor).await.map_err(failed)?;
                let dump = dump.ok_or_else(|| failed("there is no such actor"))?;
                let copy = ActorId::new("agent", "bench", &format!("copy-{many}"));
                dump.put(&*bench.store, &copy).await.map_err(failed)
            })
            .await?;
        }
        Ok(())
    }

    async fn searches(&self, samples: &mut Vec<Taken>, overlay: &Overlay) -> Result<(), Error> {
        timed(samples, "glob **/f* over 1,000 files", 20, |_| async {
            let found = search::glob(overlay, "**/f*", ".").await;
            found.map(drop).map_err(failed)
        })
        .await?;
        for (what, pattern) in [
            ("grep over 1,000 files, no match", "absent"),
            ("grep over 1,000 files, 68 lines in each", "hay"),
        ] {
            let query = GrepQuery {
                pattern: pattern.to_owned(),
                ..GrepQuery::default()
            };
            timed(samples, what, 20, |_| async {
                let found = search::grep(overlay, &query, ".", |_| true).await;
                found.map(drop).map_err(failed)
            })
            .await?;
        }
        Ok(())
    }

    async fn edits(&self, samples: &mut Vec<Taken>, files: &Workspace) -> Result<(), Error> {
        let what = "edit 1,000 files, one durable step";
        timed(samples, what, 1, |_| async {
            let overlay = self.begin(files).await?;
            for n in 0..FILES {
                let input = serde_json::json!({
                    "path": path(n), "oldText": "needle or hay", "newText": "straw",
                    "replaceAll": true,
                });
                let input = serde_json::from_value(input).map_err(failed)?;
                tools::edit(&overlay, input).await.map_err(failed)?;
            }
            self.commit(files, overlay).await
        })
        .await
    }

    async fn shell(&self, samples: &mut Vec<Taken>, overlay: &Overlay) -> Result<(), Error> {
        let shell = Shell::new();
        let state = std::sync::Mutex::new(ShellState::default());
        let options = ShellOptions::default();
        let (shell, state, options) = (&shell, &state, &options);
        for (what, command, times) in [
            ("bash: echo hi", "echo hi", 500),
            ("bash: cat f | wc -c", "cat d1/f1 | wc -c", 200),
            (
                "bash: cat f | sort | uniq -c | head -1",
                "cat d1/f1 | sort | uniq -c | head -1",
                200,
            ),
            (
                "bash: grep -r absent . | wc -l",
                "grep -r absent . | wc -l",
                10,
            ),
            (
                "bash: find . -name 'f*' | wc -l",
                "find . -name 'f*' | wc -l",
                10,
            ),
            ("bash: echo hi > file", "echo hi > d1/new", 200),
            (
                "bash: sed -i in a file of 2 KB",
                "sed -i s/hay/straw/ d1/f1",
                100,
            ),
        ] {
            timed(samples, what, times, |_| async move {
                let before = state.lock().map_err(failed)?.clone();
                let outcome = shell.run(&overlay.child(), before, command, options).await;
                if outcome.exit_code != 0 {
                    return Err(failed(outcome.stderr));
                }
                *state.lock().map_err(failed)? = outcome.state;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
