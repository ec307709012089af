//! What the commands of a shell may take from the memory of this process.
//!
//! One budget for each call, [`HELD`], is shared by all that its commands hold: each of the crate's
//! commands that keeps its input takes from it what the crate makes of that input, before it grows
//! (see [`super::filters`]). The interpreter's own buffers are bounded by its limits. What is left is
//! what the interpreter collects for a function, a loop or `xargs` while others go on writing: that is
//! seen by the process growing as the call writes ([`UNREAD`]). And the process as a whole is looked at
//! each time a command starts or bytes move: when it has grown by more than [`GROWTH`] since a call
//! began, the call that has moved most is stopped, one at a time, so that the small ones beside it end
//! as they would have.

use std::{
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Growth of the process, in bytes, that stops a command.
pub(crate) const GROWTH: u64 = 224 << 20;
/// What the commands of one call hold together, in bytes as the crate keeps them.
pub(crate) const HELD: u64 = 256 << 20;
/// Bytes written and not read by a command that counts, before the process is looked at.
const UNREAD: u64 = 32 << 20;
/// Weight of what one command of the interpreter may read from files: twice its bytes, and [`LINE`] for
/// each of its lines.
const WEIGHT: u64 = 320 << 20;
/// Weight of an argument of `xargs`.
const ARGUMENT: u64 = 130;
/// Weight of a line.
const LINE: u64 = 48;
/// Commands started between two looks at the process.
const EACH: u64 = 2;
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
    /// How long the call may take.
    time: Duration,
    /// Bytes that its arguments, reads and writes had.
    moved: AtomicU64,
    /// What its commands hold now, of [`HELD`].
    held: AtomicU64,
    /// Bytes and lines that were written and that no command of ours has read, and the size of the
    /// process when that count began.
    unread: AtomicU64,
    unread_lines: AtomicU64,
    unread_from: AtomicU64,
    /// Weight of what the builtin that runs now has read.
    read: AtomicU64,
    calls: AtomicU64,
    stopped: AtomicBool,
    /// Whether it reads in a loop: then what is left in a pipe belongs to the next `read`.
    reads: AtomicBool,
    /// Whether the command that starts now has nothing but a pipe to read, if that.
    bare: AtomicBool,
    /// Why it was stopped.
    reason: Mutex<Option<String>>,
    /// The interpreters' own flags.
    cancel: Mutex<Vec<Arc<AtomicBool>>>,
}

/// What one command holds, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    meter: Arc<Meter>,
    bytes: AtomicU64,
    refused: AtomicBool,
}

impl Held {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self {
            meter,
            bytes: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        }
    }

    /// Takes more; `false` when the call has no more.
    pub(crate) fn grow(&self, bytes: u64) -> bool {
        let held = &self.meter.held;
        let before = held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > HELD {
            held.fetch_sub(bytes, Ordering::Relaxed);
            self.refused.store(true, Ordering::Relaxed);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Whether it could not have what it asked for.
    pub(crate) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.meter.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Holds no more than this.
    pub(crate) fn shrink_to(&self, bytes: u64) {
        let now = self.bytes.load(Ordering::Relaxed);
        self.give_back(now.saturating_sub(bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Meter {
    /// A call begins. It counts as running until this is dropped.
    pub(crate) fn start(cancel: Arc<AtomicBool>, time: Duration) -> Arc<Self> {
        let began = resident().unwrap_or(0);
        let meter = Arc::new(Self {
            began,
            time,
            moved: AtomicU64::new(0),
            held: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            unread_lines: AtomicU64::new(0),
            unread_from: AtomicU64::new(began),
            read: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            reads: AtomicBool::new(false),
            bare: AtomicBool::new(false),
            reason: Mutex::default(),
            cancel: Mutex::new(vec![cancel]),
        });
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|other| other.strong_count() > 0);
        running.push(Arc::downgrade(&meter));
        meter
    }

    /// How long the call may take, from its beginning.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// Why it was stopped for its memory, if it was.
    pub(crate) fn stopped(&self) -> Option<String> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = || {
            "bash: stopped: the command took too much memory; work on smaller pieces, or write to files"
                .to_owned()
        };
        self.stopped
            .load(Ordering::Relaxed)
            .then(|| reason.clone().unwrap_or_else(usual))
    }

    /// Another interpreter works for this call.
    pub(crate) fn also_cancel(&self, cancel: Arc<AtomicBool>) {
        let mut all = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        if all.iter().any(|other| Arc::ptr_eq(other, &cancel)) {
            return;
        }
        all.push(cancel);
    }

    /// Tells all interpreters of this call to end.
    pub(crate) fn cancel(&self) {
        let all = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        for cancel in all.iter() {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the call reads in a loop, or has run `read`.
    pub(crate) fn reads(&self) -> bool {
        self.reads.load(Ordering::Relaxed)
    }

    /// The call may read in a loop.
    pub(crate) fn set_reads(&self) {
        self.reads.store(true, Ordering::Relaxed);
    }

    /// A command of ours starts; it has no input but a pipe.
    pub(crate) fn enter(&self, bare: bool) {
        self.bare.store(bare, Ordering::Relaxed);
    }

    /// Whether the pipe of the command that starts now would be lost with what it does not read.
    pub(crate) fn loses_pipe(&self) -> bool {
        self.bare.load(Ordering::Relaxed) && self.reads()
    }

    /// A builtin starts with these arguments; `echo` will write them.
    pub(crate) fn started(&self, name: &str, args: &[String]) {
        self.read.store(0, Ordering::Relaxed);
        let bytes: u64 = args.iter().map(|arg| arg.len() as u64).sum();
        self.moved.fetch_add(bytes + STARTED, Ordering::Relaxed);
        match name {
            "read" => self.set_reads(),
            "echo" | "printf" => args.iter().for_each(|arg| self.unread(arg.as_bytes())),
            // Its arguments are ready when it starts.
            "xargs" => {
                let bytes = self.unread.load(Ordering::Relaxed);
                let lines = self.unread_lines.load(Ordering::Relaxed);
                if 10 * bytes + ARGUMENT * lines > HELD && self.grown_since_unread() * 2 > bytes {
                    self.stop_with(format!(
                        "bash: stopped: xargs holds all of its input in memory, and {bytes} bytes of this kind take more than {} MiB; work on smaller pieces",
                        HELD >> 20
                    ));
                }
            }
            _ => {}
        }
        // The first one is not looked at: the call has only just begun.
        if (self.calls.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(EACH) {
            self.look();
        }
    }

    /// A command of ours writes.
    pub(crate) fn piped(&self, bytes: &[u8]) {
        self.moved(bytes.len() as u64);
        self.unread(bytes);
    }

    /// A command of ours has read so many bytes from a pipe.
    pub(crate) fn taken(&self, bytes: usize) {
        let less = |now: u64| Some(now.saturating_sub(bytes as u64));
        let _ = self
            .unread
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn grown_since_unread(&self) -> u64 {
        let from = self.unread_from.load(Ordering::Relaxed);
        // Where the size is not known, all of it may be held.
        resident().map_or(u64::MAX / 2, |now| now.saturating_sub(from))
    }

    /// Bytes that somebody may collect: the process grows with them, or they are used up.
    fn unread(&self, bytes: &[u8]) {
        let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.unread_lines.fetch_add(lines, Ordering::Relaxed);
        let length = bytes.len() as u64;
        let unread = self.unread.fetch_add(length, Ordering::Relaxed) + length;
        if unread < UNREAD {
            return;
        }
        if self.grown_since_unread() > UNREAD / 2 {
            return self.stop();
        }
        self.unread.store(0, Ordering::Relaxed);
        self.unread_lines.store(0, Ordering::Relaxed);
        self.unread_from
            .store(resident().unwrap_or(0), Ordering::Relaxed);
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

    /// Stops the call, and says why.
    pub(crate) fn stop_with(&self, reason: String) {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
        self.stop();
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.cancel();
    }

    fn look(&self) {
        let grown = |now: u64| self.began > 0 && now.saturating_sub(self.began) > GROWTH;
        if !resident().is_some_and(grown) {
            return;
        }
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running: Vec<Arc<Self>> = running.iter().filter_map(Weak::upgrade).collect();
        // One that was stopped gives its memory back first.
        if running
            .iter()
            .any(|meter| meter.stopped.load(Ordering::Relaxed))
        {
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
    // Opening it costs more than all else, and each call asks. No process forks and goes on to run shells,
    // so what is open is always that of this process.
    static STATM: OnceLock<Option<std::fs::File>> = OnceLock::new();
    let opened = STATM.get_or_init(|| std::fs::File::open("/proc/self/statm").ok());
    let mut text = [0; 128];
    let length = opened.as_ref()?.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    // Where pages are larger than this, the bound is reached later.
    Some(pages * 4096)
}
