//! Threads for work that nests as deep as the text it is given.
//!
//! A stack that runs out ends the process, and nothing can catch that. What an interpreter or a parser needs of
//! it is decided by whoever wrote the text, so such work runs here, on a stack that is a hundred times the usual
//! one, and asks [`used`] on its way. What a thread never touches of its stack takes no memory.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::{Semaphore, oneshot};

/// The stack of a thread, in bytes of address space.
pub(crate) const STACK: usize = 256 << 20;
/// Threads at the same time; more work waits.
const THREADS: usize = 512;
/// How long a thread waits for more work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// Levels of a program that the stack of any thread holds.
const FLAT: usize = 200;
/// Levels of a program that [`STACK`] holds, several kilobytes each.
const LEVELS: usize = 30_000;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for work, the one that has waited least last.
static WAITING: Mutex<Vec<(thread::ThreadId, Sender<Job>)>> = Mutex::new(Vec::new());
static FREE: Semaphore = Semaphore::const_new(THREADS);

thread_local! {
    /// Where the stack was when the work began; 0 on other threads.
    static BEGAN: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of stack that the work on this thread uses now; 0 on a thread that is not one of these.
pub(crate) fn used() -> usize {
    match BEGAN.get() {
        0 => 0,
        began => began.abs_diff(here()),
    }
}

/// About where the stack is.
#[inline(never)]
fn here() -> usize {
    let mark = 0u8;
    std::ptr::from_ref(std::hint::black_box(&mark)).addr()
}

/// Does work on such a thread. `None` when it panicked, or when the machine has no thread for it. Work that has
/// begun is done to its end, also when nobody waits for it any more.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let permit = FREE.acquire().await.ok()?;
    let (tell, told) = oneshot::channel();
    let job = move || {
        let _permit = permit;
        BEGAN.set(here());
        if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
            // Whoever asked may be gone.
            let _ = tell.send(done);
        }
    };
    give(Box::new(job))?;
    told.await.ok()
}

/// Gives work to a thread that waits, or to a new one.
fn give(mut job: Job) -> Option<()> {
    loop {
        let waiting = lock().pop();
        let Some((_, thread)) = waiting else { break };
        match thread.send(job) {
            Ok(()) => return Some(()),
            Err(unsent) => job = unsent.0,
        }
    }
    let (send, jobs) = channel();
    let builder = thread::Builder::new()
        .name("bowline-deep".to_owned())
        .stack_size(STACK);
    builder
        .spawn(move || work(job, send, &jobs))
        .ok()
        .map(|_| ())
}

fn work(first: Job, send: Sender<Job>, jobs: &Receiver<Job>) {
    let mut next = Some(first);
    while let Some(job) = next {
        job();
        let me = thread::current().id();
        lock().push((me, send.clone()));
        next = match jobs.recv_timeout(IDLE) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let mut waiting = lock();
                let place = waiting.iter().position(|(thread, _)| *thread == me);
                if let Some(place) = place {
                    waiting.remove(place);
                    None
                } else {
                    // Somebody has taken it out, and is about to send.
                    drop(waiting);
                    jobs.recv().ok()
                }
            }
        };
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<(thread::ThreadId, Sender<Job>)>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a parser of JavaScript or TypeScript over `text`, on a stack that is large enough. `None` when the text
/// may have more than 30,000 levels, or the parser panicked.
pub(crate) fn parse<T: Send>(text: &str, work: impl FnOnce() -> T + Send) -> Option<T> {
    let levels = levels(text);
    if levels <= FLAT {
        return Some(work());
    }
    if levels > LEVELS {
        return None;
    }
    thread::scope(|scope| {
        let builder = thread::Builder::new()
            .name("bowline-parse".to_owned())
            .stack_size(STACK);
        builder.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// A bound of how many levels the syntax of a program has. What cannot be told without parsing counts as more:
/// brackets that open count everywhere; those that close count where no string, template, comment or regular
/// expression can hold them. Operators, and what follows without one, go a level down until a statement ends.
fn levels(text: &str) -> usize {
    let bytes = text.as_bytes();
    let before = |at: usize| at.checked_sub(1).and_then(|at| bytes.get(at).copied());
    let (mut open, mut below, mut chain, mut most) = (Vec::new(), 0, 0, 0);
    let (mut template, mut unsure) = (false, false);
    let mut comment: Option<usize> = None;
    for (at, byte) in bytes.iter().enumerate() {
        let sure = !template && !unsure && comment.is_none();
        match byte {
            b'(' | b'[' | b'{' => {
                open.push(chain);
                below += chain + 1;
                chain = 0;
            }
            b')' | b']' | b'}' if sure => {
                let outside = open.pop().map_or(0, |outside: usize| {
                    below -= outside + 1;
                    outside
                });
                chain = outside + 1;
            }
            b';' if sure => {
                let rest = text.get(at + 1..).unwrap_or_default().trim_ascii_start();
                if !rest.starts_with("else") && !rest.starts_with('/') {
                    chain = 0;
                }
            }
            b'"' | b'\'' => unsure = true,
            b'`' => template = true,
            b'/' => {
                unsure = true;
                chain += 1;
                match comment {
                    None if bytes.get(at + 1) == Some(&b'*') => comment = Some(at),
                    Some(start) if before(at) == Some(b'*') && at > start + 2 => comment = None,
                    Some(_) | None => {}
                }
            }
            // A string goes on behind a backslash.
            b'\r' if before(at) != Some(b'\\') => unsure = false,
            b'\n' if !matches!(before(at), Some(b'\\' | b'\r')) => unsure = false,
            b'!' | b'~' | b'-' | b'+' | b'*' | b'%' | b'&' | b'|' | b'^' | b'?' | b':' | b'='
            | b'<' | b'>' | b'.' => chain += 1,
            b' ' | b'\t' | b'\n' if before(at).is_some_and(|byte| byte.is_ascii_alphanumeric()) => {
                chain += 1;
            }
            _ => {}
        }
        most = most.max(below + chain);
    }
    most
}
