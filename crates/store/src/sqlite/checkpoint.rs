//! When the write-ahead log is copied into the database.
//!
//! A thread beside the writer does the bulk of it with passive checkpoints, which nobody waits for.
//! Those never let the log start over while commits keep coming, so the writer does the small rest
//! in a pause, or, when the log has passed a hard bound, between two transactions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;

use super::{Shared, fault};
use crate::StoreError;

/// The hard bound, in soft bounds.
const HARD: i64 = 4;
/// Bytes that stand before each page in the log.
const FRAME_HEAD: i64 = 24;

/// The writer's side.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Frames after which the thread is woken.
    soft: i64,
    /// Bytes of a frame.
    frame: i64,
    nudge: Option<SyncSender<()>>,
    busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Bytes committed since the log was last measured.
    unmeasured: usize,
    /// The thread has copied the bulk: the log can start over at the next pause.
    rest: bool,
}

/// How long the log is, in frames, and how many of them are in the database.
#[derive(Debug, Clone, Copy)]
struct Log {
    frames: i64,
    copied: i64,
}

impl Checkpoints {
    /// Starts the thread on a connection of its own.
    pub(super) fn start(conn: Connection, shared: Arc<Shared>, kib: u32) -> std::io::Result<Self> {
        let page: i64 = conn
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(std::io::Error::other)?;
        let frame = page + FRAME_HEAD;
        let (nudge, nudges) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&busy);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || copy_when_nudged(&conn, &shared, &nudges, &seen))?;
        let soft = (i64::from(kib) * 1024 / frame).max(1);
        Ok(Self {
            soft,
            frame,
            nudge: Some(nudge),
            busy,
            thread: Some(thread),
            unmeasured: 0,
            rest: false,
        })
    }

    /// After each transaction; `bytes` is roughly what it wrote.
    pub(super) fn after_commit(&mut self, conn: &Connection, shared: &Shared, bytes: usize) {
        // A transaction writes whole pages, several for a small batch.
        self.unmeasured = self.unmeasured.saturating_add(bytes + 16 * 1024);
        let quarter = usize::try_from(self.soft * self.frame / 4).unwrap_or(usize::MAX);
        if self.unmeasured < quarter || shared.stopped().is_some() {
            return;
        }
        self.unmeasured = 0;
        let Some(log) = self.run(conn, shared, "NOOP") else {
            return;
        };
        if log.frames - log.copied >= self.soft {
            self.rest = true;
            if let Some(nudge) = &self.nudge {
                self.busy.store(true, Ordering::Release);
                // Already nudged is as good.
                if matches!(nudge.try_send(()), Err(TrySendError::Disconnected(()))) {
                    self.busy.store(false, Ordering::Release);
                }
            }
        }
        if log.frames >= self.soft * HARD && !self.busy.load(Ordering::Acquire) {
            self.copy_rest(conn, shared);
        }
    }

    /// Nothing is queued.
    pub(super) fn pause(&mut self, conn: &Connection, shared: &Shared) {
        if self.rest && !self.busy.load(Ordering::Acquire) && shared.stopped().is_none() {
            self.copy_rest(conn, shared);
        }
    }

    /// When everything is in the database, the next transaction starts the log over by itself.
    fn copy_rest(&mut self, conn: &Connection, shared: &Shared) {
        self.rest = false;
        if self.run(conn, shared, "PASSIVE").is_some() {
            shared.count(|counters| &counters.checkpoints);
        }
    }

    /// The last checkpoint: leaves everything in the database and an empty log.
    pub(super) fn finish(&mut self, conn: &Connection, shared: &Shared) {
        self.stop();
        if self.run(conn, shared, "TRUNCATE").is_some() {
            shared.count(|counters| &counters.checkpoints);
        }
    }

    fn stop(&mut self) {
        self.nudge = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn run(&self, conn: &Connection, shared: &Shared, mode: &str) -> Option<Log> {
        match checkpoint(conn, mode) {
            Ok(log) => Some(log),
            Err(error) => {
                failed(shared, &error);
                None
            }
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop();
    }
}

fn copy_when_nudged(conn: &Connection, shared: &Shared, nudges: &Receiver<()>, busy: &AtomicBool) {
    while nudges.recv().is_ok() {
        if shared.stopped().is_none() {
            match checkpoint(conn, "PASSIVE") {
                Ok(_) => shared.count(|counters| &counters.checkpoints),
                Err(error) => failed(shared, &error),
            }
        }
        busy.store(false, Ordering::Release);
    }
}

/// Bytes that a failed flush left behind count as written the next time, so a checkpoint that failed
/// may not be tried again: everything it copied is still in the log, and opening copies it anew. A
/// full disk is the exception: then nothing was flushed, and the log simply stays.
fn failed(shared: &Shared, error: &StoreError) {
    match error {
        StoreError::Full => {
            tracing::warn!("the disk is full: the store's log cannot be copied into the database")
        }
        other => shared.stop(&format!("a checkpoint failed ({other})")),
    }
}

/// Brings everything that a crash left in the log into the database, flushed. What was read from
/// the log after a failed flush may exist in memory only; this writes it again.
pub(super) fn recover(conn: &Connection) -> Result<(), StoreError> {
    checkpoint(conn, "TRUNCATE").map(drop)
}

fn checkpoint(conn: &Connection, mode: &str) -> Result<Log, StoreError> {
    let mut pragma = conn
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))
        .map_err(fault::reading)?;
    let log = pragma.query_row([], |row| {
        Ok(Log {
            frames: row.get(1)?,
            copied: row.get(2)?,
        })
    });
    match log {
        // Whoever reads or copies at this moment goes first.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            Ok(Log {
                frames: 0,
                copied: 0,
            })
        }
        other => other.map_err(fault::reading),
    }
}
