//! How many appends a second the SQLite engine keeps, beside what the disk can flush.
//!
//! Everything is measured in turn within each round, so that what else the machine does meets all
//! of it alike. Compare ratios of one run, not figures of two.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};

use crate::{ActorId, Batch, Record, SqliteOptions, SqliteStore, Store, Timestamp};

/// Bytes of each appended record's body.
const RECORD: usize = 1024;
/// Concurrent actors, each with one append at a time.
const ACTORS: [usize; 4] = [1, 16, 64, 1000];

/// One way to commit with one number of actors.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `group commit`, or `one transaction each`.
    pub mode: &'static str,
    /// Actors that append at the same time.
    pub actors: usize,
    /// Appends a second in the best round.
    pub best: f64,
    /// Appends a second in the middle round.
    pub median: f64,
    /// The time that half of the appends took at most, over all rounds.
    #[serde(rename = "p50Ms", serialize_with = "millis")]
    pub p50: Duration,
    /// The time that 99 of 100 appends took at most, over all rounds.
    #[serde(rename = "p99Ms", serialize_with = "millis")]
    pub p99: Duration,
    /// Flushes over all rounds.
    pub flushes: u64,
    /// Appends over all rounds.
    pub appends: u64,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Flushes a second of 4 KiB appended to a file, in the best and in the middle round.
    #[serde(rename = "rawFlushesPerSecond", serialize_with = "best_and_middle")]
    pub raw: (f64, f64),
    /// One for each mode and number of actors.
    pub rows: Vec<Row>,
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

fn best_and_middle<S: Serializer>(raw: &(f64, f64), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map([("best", raw.0), ("median", raw.1)])
}

/// Measures in `dir`, which must be on the disk that matters and is left empty. Takes about
/// `rounds` × 9 × `each`; blocks.
///
/// # Errors
///
/// Whatever the disk or the store reports.
pub fn appends(dir: &Path, rounds: usize, each: Duration) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut raw = Vec::new();
    let mut cells: Vec<_> = ACTORS
        .into_iter()
        .flat_map(|actors| [true, false].map(|group| Cell::new(actors, group)))
        .collect();
    for _ in 0..rounds.max(1) {
        raw.push(raw_flushes(dir, each)?);
        for cell in &mut cells {
            let data = dir.join("append");
            runtime
                .block_on(cell.round(&data, each))
                .map_err(io::Error::other)?;
            std::fs::remove_dir_all(&data)?;
        }
    }
    Ok(Report {
        raw: best_and_median(&mut raw),
        rows: cells.into_iter().map(Cell::row).collect(),
    })
}

struct Cell {
    actors: usize,
    group: bool,
    rates: Vec<f64>,
    times: Vec<Duration>,
    flushes: u64,
}

impl Cell {
    fn new(actors: usize, group: bool) -> Self {
        Self {
            actors,
            group,
            rates: Vec::new(),
            times: Vec::new(),
            flushes: 0,
        }
    }

    async fn round(
        &mut self,
        dir: &Path,
        each: Duration,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let options = SqliteOptions {
            group_commit: self.group,
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(dir, options)?;
        let ids: Vec<_> = (0..self.actors)
            .map(|n| ActorId::new("bench", "append", &n.to_string()))
            .collect();
        let first = ids
            .iter()
            .map(|id| tokio::spawn(append(Arc::clone(&store), id.clone(), 0)));
        for task in first.collect::<Vec<_>>() {
            task.await??;
        }
        let flushes = store.metrics().flushes;
        let start = Instant::now();
        let tasks = ids.into_iter().map(|id| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let (mut seq, mut times) = (1, Vec::new());
                while start.elapsed() < each {
                    let before = Instant::now();
                    seq = append(Arc::clone(&store), id.clone(), seq).await?;
                    times.push(before.elapsed());
                }
                Ok::<_, crate::CommitError>(times)
            })
        });
        let mut count = 0_u32;
        for task in tasks.collect::<Vec<_>>() {
            let times = task.await??;
            count += u32::try_from(times.len())?;
            self.times.extend(times);
        }
        self.rates
            .push(f64::from(count) / start.elapsed().as_secs_f64());
        self.flushes += store.metrics().flushes - flushes;
        store.close().await;
        Ok(())
    }

    fn row(mut self) -> Row {
        let (best, median) = best_and_median(&mut self.rates);
        self.times.sort_unstable();
        let at = |hundredth: usize| {
            let last = self.times.len().saturating_sub(1);
            self.times
                .get((self.times.len() * hundredth / 100).min(last))
                .copied()
                .unwrap_or_default()
        };
        Row {
            mode: if self.group {
                "group commit"
            } else {
                "one transaction each"
            },
            actors: self.actors,
            best,
            median,
            p50: at(50),
            p99: at(99),
            flushes: self.flushes,
            appends: self.times.len() as u64,
        }
    }
}

async fn append(
    store: Arc<SqliteStore>,
    actor: ActorId,
    seq: u64,
) -> Result<u64, crate::CommitError> {
    let mut batch = Batch::new(actor, 1, seq);
    batch.records.push(Record {
        kind: 1,
        version: 1,
        time: Timestamp::from_millis(0),
        conversation: String::new(),
        submission: None,
        attempt: None,
        turn: None,
        body: vec![b'x'; RECORD].into(),
        blobs: Vec::new(),
    });
    store.commit(batch).await
}

/// The limit of one flush after the other.
fn raw_flushes(dir: &Path, each: Duration) -> io::Result<f64> {
    let path = dir.join("raw");
    let mut file = File::create(&path)?;
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < each {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn best_and_median(rates: &mut [f64]) -> (f64, f64) {
    rates.sort_unstable_by(f64::total_cmp);
    (
        rates.last().copied().unwrap_or(0.0),
        rates.get(rates.len() / 2).copied().unwrap_or(0.0),
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "raw flushes (4 KiB appended): best {:.0}/s, median {:.0}/s",
            self.raw.0, self.raw.1
        )?;
        writeln!(
            f,
            "{:>6}  {:<20} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "actors", "", "best/s", "median/s", "p50", "p99", "appends/flush"
        )?;
        for pair in self.rows.chunks(2) {
            for row in pair {
                let per_flush = row.appends.checked_div(row.flushes).unwrap_or(0);
                writeln!(
                    f,
                    "{:>6}  {:<20} {:>9.0} {:>9.0} {:>8.2}m {:>8.2}m {:>9}",
                    row.actors,
                    row.mode,
                    row.best,
                    row.median,
                    row.p50.as_secs_f64() * 1e3,
                    row.p99.as_secs_f64() * 1e3,
                    per_flush
                )?;
            }
            if let [group, single] = pair {
                writeln!(
                    f,
                    "{:>6}  {:<20} {:>8.1}x {:>8.1}x",
                    "",
                    "ratio",
                    group.best / single.best,
                    group.median / single.median
                )?;
            }
        }
        Ok(())
    }
}
