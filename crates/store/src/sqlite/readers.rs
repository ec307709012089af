//! The threads that read.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, mpsc},
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
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    places: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn start(connections: Vec<Connection>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut threads = Vec::new();
        for conn in connections {
            let jobs = Arc::clone(&jobs);
            let serve = move || {
                loop {
                    let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = next else { return };
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
            queue: Mutex::new(Some(queue)),
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
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().is_some_and(|queue| queue.send(job).is_ok())
    }

    /// Serves what is queued, then stops. Blocks.
    pub(super) fn stop(&self) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
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
