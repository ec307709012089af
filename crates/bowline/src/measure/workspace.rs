//! What files cost: the figures of `bowline bench workspace`.
//!
//! 1,000 files of 2 KB in 20 folders, on a store on the real disk. What says "durable" ends with a flush.

use std::{fmt, future::Future, path::Path, sync::Arc, time::Instant};

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
    /// Processor time of one operation over all rounds, in milliseconds; 0 where the system does not tell
    /// it.
    pub cpu_ms: f64,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One for each operation.
    pub rows: Vec<Row>,
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
pub async fn figures(dir: &Path, rounds: u32) -> Result<Report, Error> {
    let mut samples = Vec::new();
    let rounds = rounds.max(1);
    for round in 0..rounds {
        let store = SqliteStore::open(&dir.join(format!("r{round}")), SqliteOptions::default())?;
        let bench = Bench {
            actor: ActorId::new("agent", "bench", "one"),
            sources: Sources::system(),
            store,
        };
        bench.round(&mut samples).await?;
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
    })
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
        let changes: ChangeSet = overlay.changes().map_err(files_error)?;
        let head = self.store.head(&self.actor).await?;
        let mut step = Step::new();
        let change = serde_json::json!({"change": "bench"});
        step.record(kind::ACTOR_OPENED, self.sources.now(), &change);
        let mut batch = Batch::new(self.actor.clone(), 1, head.map_or(0, |head| head.seq));
        batch.records = step.records;
        batch.rows.clone_from(&changes.rows);
        batch.blobs.clone_from(&changes.blobs);
        self.store.commit(batch).await?;
        files.committed(&changes);
        Ok(())
    }

    async fn write(&self, overlay: &Overlay, n: u32, content: &Bytes) -> Result<(), Error> {
        let options = WriteOptions::with_parents();
        let written = overlay.write(&path(n), content.clone(), &options).await;
        written.map_err(files_error)
    }

    async fn round(&self, samples: &mut Vec<Taken>) -> Result<(), Error> {
        let content = Bytes::from("needle or hay, a line of text\n".repeat(68));
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
        self.searches(samples, &overlay).await?;
        self.edits(samples, &files).await?;
        self.shell(samples, &overlay).await
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
