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
