//! What the commands of a shell may take from the memory of this process.
//!
//! The interpreter bounds its buffers, but not what the reader of a pipe collects while a loop goes on
//! writing, nor the lines that a command such as `sort` makes of its input. So two things are counted:
//! what is written into pipes, and what one command reads, each with its lines ([`WEIGHT`]). And the
//! process is looked at each time a command starts or touches a file: when it has grown by more than
//! [`GROWTH`] since a command began, the command that has moved most is stopped, one at a time, so that
//! the small ones beside it end as they would have.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Growth of the process, in bytes, that stops a command.
pub(crate) const GROWTH: u64 = 224 << 20;
/// Weight of what a command may write into its pipes, and of what one builtin may read: twice its bytes,
/// and [`LINE`] for each of its lines, because a command holds its input once as bytes, once as text, and
/// once as lines.
pub(crate) const WEIGHT: u64 = 320 << 20;
/// Weight of a line.
const LINE: u64 = 48;
/// Commands started between two looks at the process.
const EACH: u64 = 4;
/// Bytes moved between two looks at the process.
const PIECE: u64 = 1 << 20;
/// What a command counts at least, so that a loop without arguments is noticed too.
const STARTED: u64 = 256;

/// All commands that run in this process.
static RUNNING: Mutex<Vec<Weak<Meter>>> = Mutex::new(Vec::new());

/// One running command.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Resident memory when it began, in bytes; 0 where that is not known.
    began: u64,
    /// Bytes that its arguments, reads and writes had.
    moved: AtomicU64,
    /// Weight of what was written into pipes.
    piped: AtomicU64,
    /// Weight of what the builtin that runs now has read.
    read: AtomicU64,
    calls: AtomicU64,
    stopped: AtomicBool,
    /// The interpreter's own flag.
    cancel: Arc<AtomicBool>,
}

impl Meter {
    /// A command begins. It counts as running until this is dropped.
    pub(crate) fn start(cancel: Arc<AtomicBool>) -> Arc<Self> {
        let meter = Arc::new(Self {
            began: resident().unwrap_or(0),
            moved: AtomicU64::new(0),
            piped: AtomicU64::new(0),
            read: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            cancel,
        });
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|other| other.strong_count() > 0);
        running.push(Arc::downgrade(&meter));
        meter
    }

    /// Whether it was stopped for its memory.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// A builtin starts with these arguments; `echo` will write them.
    pub(crate) fn started(&self, args: &[String]) {
        self.read.store(0, Ordering::Relaxed);
        let bytes: u64 = args.iter().map(|arg| arg.len() as u64).sum();
        self.moved.fetch_add(bytes + STARTED, Ordering::Relaxed);
        let weight: u64 = args.iter().map(|arg| weight(arg.as_bytes())).sum();
        self.pipe(weight);
        if self
            .calls
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(EACH)
        {
            self.look();
        }
    }

    /// A command of ours writes.
    pub(crate) fn piped(&self, bytes: &[u8]) {
        self.moved(bytes.len() as u64);
        self.pipe(weight(bytes));
    }

    fn pipe(&self, weight: u64) {
        if self.piped.fetch_add(weight, Ordering::Relaxed) + weight > WEIGHT {
            self.stop();
        }
    }

    /// A builtin has read a file; `false` when it cannot hold any more.
    pub(crate) fn read(&self, bytes: &[u8]) -> bool {
        self.moved(bytes.len() as u64);
        let weight = weight(bytes);
        self.read.fetch_add(weight, Ordering::Relaxed) + weight <= WEIGHT
    }

    /// So many bytes are written.
    pub(crate) fn moved(&self, bytes: u64) {
        let before = self.moved.fetch_add(bytes, Ordering::Relaxed);
        if before / PIECE != (before + bytes) / PIECE {
            self.look();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.cancel.store(true, Ordering::Relaxed);
    }

    fn look(&self) {
        let grown = |now: u64| self.began > 0 && now.saturating_sub(self.began) > GROWTH;
        if !resident().is_some_and(grown) {
            return;
        }
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running: Vec<Arc<Self>> = running.iter().filter_map(Weak::upgrade).collect();
        // One that was stopped gives its memory back first.
        if running.iter().any(|meter| meter.stopped()) {
            return;
        }
        let most = running
            .iter()
            .max_by_key(|meter| meter.moved.load(Ordering::Relaxed));
        if let Some(most) = most {
            most.stop();
        }
    }
}

fn weight(bytes: &[u8]) -> u64 {
    let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
    2 * bytes.len() as u64 + LINE * lines
}

/// Resident memory of this process in bytes, where the system tells it (Linux).
fn resident() -> Option<u64> {
    let text = std::fs::read("/proc/self/statm").ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    // Where pages are larger than this, the bound is reached later.
    Some(pages * 4096)
}
