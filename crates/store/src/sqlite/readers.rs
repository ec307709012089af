//! The threads that read.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::fault::reading;
use crate::StoreError;

/// Reads that may wait for a reader; more wait in front of the queue.
const QUEUE: usize = 1024;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A few connections, each with a thread that serves one read after the other, so that no read
/// blocks the async runtime.
pub(super) struct Readers {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What waits for a reader. One thread is woken for each job: a turn reads a few times, and what waking
/// costs is more than what is read.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` once it is closed.
    fn push(&self, job: Job) -> bool {
        let mut waiting = self.waiting();
        if waiting.closed {
            return false;
        }
        waiting.jobs.push_back(job);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// The next job; `None` once it is closed and empty. Blocks.
    fn next(&self) -> Option<Job> {
        let waiting = self.waiting();
        let idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.closed;
        let waiting = self.changed.wait_while(waiting, idle);
        waiting
            .unwrap_or_else(PoisonError::into_inner)
            .jobs
            .pop_front()
    }

    fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn start(connections: Vec<Connection>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut threads = Vec::new();
        for conn in connections {
            let jobs = Arc::clone(&queue);
            let serve = move || {
                while let Some(job) = jobs.next() {
                    job(&conn);
                }
            };
            threads.push(
                std::thread::Builder::new()
                    .name("store-reader".into())
                    .spawn(serve)?,
            );
        }
        Ok(Self {
            queue,
            places: Arc::new(Semaphore::new(QUEUE)),
            threads: Mutex::new(threads),
        })
    }

    /// Runs a read on a consistent view of everything that was durable when it began.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let queued = self.enqueue(Box::new(move |conn| {
            let _place: OwnedSemaphorePermit = place;
            // Whoever asked may have gone.
            let _ = reply.send(in_one_view(conn, read));
        }));
        if !queued {
            return Err(closed());
        }
        answer.await.map_err(|_| closed())?
    }

    /// For the few reads that nobody waits for.
    pub(super) fn enqueue(&self, job: Job) -> bool {
        self.queue.push(job)
    }

    /// Serves what is queued, then stops. Blocks.
    pub(super) fn stop(&self) {
        self.queue.close();
        self.places.close();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn closed() -> StoreError {
    StoreError::Closed("it was closed".into())
}

/// A read looks at several tables; between them nothing may change.
pub(super) fn in_one_view<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let view = conn.unchecked_transaction().map_err(reading)?;
    let result = read(&view)?;
    view.finish().map_err(reading)?;
    Ok(result)
}
