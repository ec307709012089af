//! The one thread that writes.
//!
//! It takes everything that has queued, runs it in one transaction with a savepoint for each piece
//! of work, commits, and only then answers. There is no timer: while one flush runs, the next
//! transaction's work gathers.

use std::{collections::HashMap, sync::Arc};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{Shared, apply::Txn, checkpoint::Checkpoints, fault::Fault, heads::Heads};
use crate::{ActorId, Batch, CommitError, InboxMessage, OutboxMessage, Seq};

/// Most bytes in one transaction, so that nobody waits long for the work of others.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Heads kept in each of the cache's two generations.
const HEADS: usize = 8192;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    /// A batch, and what is known to be wrong with it. The fence is asked first all the same.
    Commit {
        batch: Batch,
        invalid: Option<String>,
    },
    Send {
        to: ActorId,
        message: InboxMessage,
    },
    Deliver {
        limit: usize,
    },
    /// With a sequence only an actor that stands there and waits for nothing.
    Purge {
        actor: ActorId,
        idle_at: Option<Seq>,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Committed(Seq),
    Sent(bool),
    Delivered(Vec<OutboxMessage>),
    Purged,
}

/// Work with whoever waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Answer, CommitError>>,
    /// The place in the queue, given back with the job.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Job {
    fn answer(self, answer: Result<Answer, CommitError>) {
        // Whoever asked may have gone; the work counts all the same.
        let _ = self.reply.send(answer);
    }
}

pub(super) struct Writer {
    conn: Connection,
    shared: Arc<Shared>,
    checkpoints: Checkpoints,
    heads: Heads,
    next_actor: i64,
    scratch: Vec<u8>,
    group_commit: bool,
}

/// A transaction that did not become durable.
enum Lost {
    /// Nothing of it is on disk; each piece may be tried by itself.
    Undone(Fault),
    /// It is not known what is on disk.
    Unknown(String),
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        shared: Arc<Shared>,
        checkpoints: Checkpoints,
        group_commit: bool,
    ) -> rusqlite::Result<Self> {
        let next_actor =
            conn.query_row("SELECT coalesce(max(id), 0) + 1 FROM actor", [], |row| {
                row.get(0)
            })?;
        let heads = Heads::new(HEADS);
        Ok(Self {
            conn,
            shared,
            checkpoints,
            heads,
            next_actor,
            scratch: Vec::new(),
            group_commit,
        })
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        let mut left_over = None;
        while let Some(first) = left_over.take().or_else(|| self.next(&mut queue)) {
            let mut bytes = first.bytes;
            let mut group = vec![first];
            if self.group_commit {
                left_over = gather(&mut queue, &mut group, &mut bytes);
            }
            self.group(group);
            self.checkpoints
                .after_commit(&self.conn, &self.shared, bytes);
        }
        if self.shared.stopped().is_none() {
            self.checkpoints.finish(&self.conn, &self.shared);
        }
    }

    fn next(&mut self, queue: &mut mpsc::UnboundedReceiver<Job>) -> Option<Job> {
        if let Ok(job) = queue.try_recv() {
            return Some(job);
        }
        self.checkpoints.pause(&self.conn, &self.shared);
        queue.blocking_recv()
    }

    /// Commits a group and answers everybody in it.
    fn group(&mut self, group: Vec<Job>) {
        if let Some(reason) = self.shared.stopped() {
            for job in group {
                self.shared.count(|counters| &counters.refused);
                job.answer(Err(CommitError::Closed(reason.clone())));
            }
            return;
        }
        match self.transaction(&group) {
            Ok(answers) => {
                for (job, answer) in group.into_iter().zip(answers) {
                    job.answer(answer);
                }
            }
            Err(Lost::Undone(_)) if group.len() > 1 => {
                // One of them was too much for the whole: find out which, and keep the others.
                for job in group {
                    self.group(vec![job]);
                }
            }
            Err(Lost::Undone(fault)) => self.refuse(group, fault),
            Err(Lost::Unknown(what)) => {
                self.shared
                    .stop(&format!("an earlier write failed ({what})"));
                self.refuse_all(group, &CommitError::Io(what));
            }
        }
    }

    fn refuse(&self, group: Vec<Job>, fault: Fault) {
        let error = match fault {
            Fault::Refused(error) => error,
            Fault::Full => CommitError::Full,
            Fault::Corrupt(what) => {
                CommitError::Closed(format!("the data is damaged ({what}); restore a backup"))
            }
            Fault::Broken(what) => CommitError::Io(what),
        };
        self.refuse_all(group, &error);
    }

    fn refuse_all(&self, group: Vec<Job>, error: &CommitError) {
        for job in group {
            self.shared.count(|counters| &counters.refused);
            job.answer(Err(error.clone()));
        }
    }

    /// Runs the group's work in one transaction, and returns once that is durable.
    fn transaction(&mut self, group: &[Job]) -> Result<Vec<Result<Answer, CommitError>>, Lost> {
        let before = self.conn.total_changes();
        let conn = &self.conn;
        execute(conn, "BEGIN IMMEDIATE").map_err(|fault| undo(conn, fault))?;
        let mut txn = Txn {
            conn,
            heads: &mut self.heads,
            changed: HashMap::new(),
            work: Vec::new(),
            next_actor: &mut self.next_actor,
            scratch: &mut self.scratch,
        };
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            match attempt(&mut txn, &job.work) {
                Ok(answer) => answers.push(Ok(answer)),
                Err(Fault::Refused(error)) => answers.push(Err(error)),
                Err(fault) => return Err(undo(conn, fault)),
            }
        }
        let changed = txn.changed;
        let wrote = conn.total_changes() != before;
        if let Err(fault) = execute(conn, "COMMIT") {
            return Err(match fault {
                // The file system or the size limit refused before anything was flushed.
                Fault::Full => undo(conn, Fault::Full),
                Fault::Refused(error) => Lost::Unknown(error.to_string()),
                Fault::Corrupt(what) | Fault::Broken(what) => Lost::Unknown(what),
            });
        }
        self.shared.tails.announce(
            changed
                .iter()
                .map(|(actor, head)| (actor, head.map_or(0, |head| head.seq))),
        );
        for (actor, head) in changed {
            match head {
                Some(head) if head.live => self.heads.put(actor, head),
                // One that was purged is hardly written again.
                Some(_) | None => self.heads.forget(&actor),
            }
        }
        self.count(group, &answers, wrote);
        Ok(answers)
    }

    fn count(&self, group: &[Job], answers: &[Result<Answer, CommitError>], wrote: bool) {
        if wrote {
            self.shared.count(|counters| &counters.flushes);
        }
        for (job, answer) in group.iter().zip(answers) {
            match (&job.work, answer) {
                (Work::Commit { batch, .. }, Ok(_)) if !batch.is_empty() => {
                    self.shared.count(|counters| &counters.batches);
                    self.shared
                        .add(|counters| &counters.records, batch.records.len());
                }
                (_, Ok(_)) => {}
                (_, Err(_)) => self.shared.count(|counters| &counters.refused),
            }
        }
    }
}

/// Adds everything that has queued to the group, up to its bound; returns what is past that.
fn gather(
    queue: &mut mpsc::UnboundedReceiver<Job>,
    group: &mut Vec<Job>,
    bytes: &mut usize,
) -> Option<Job> {
    while let Ok(job) = queue.try_recv() {
        if *bytes + job.bytes > GROUP_BYTES {
            return Some(job);
        }
        *bytes += job.bytes;
        group.push(job);
    }
    None
}

/// One piece of work within the transaction: all of it, or, when it is refused, nothing of it.
fn attempt(txn: &mut Txn<'_>, work: &Work) -> Result<Answer, Fault> {
    let mut admitted = None;
    if let Work::Commit { batch, invalid } = work {
        let admission = txn.admit(batch, invalid.as_ref());
        txn.accept();
        admitted = admission?;
        if batch.is_empty() {
            return Ok(Answer::Committed(batch.expected_seq));
        }
    }
    execute(txn.conn, "SAVEPOINT work")?;
    let done = match work {
        Work::Commit { batch, .. } => txn.batch(batch, admitted).map(Answer::Committed),
        Work::Send { to, message } => txn.send(to, message).map(Answer::Sent),
        Work::Deliver { limit } => txn.deliver(*limit).map(Answer::Delivered),
        Work::Purge { actor, idle_at } => txn.purge(actor, *idle_at).map(|()| Answer::Purged),
    };
    match &done {
        Ok(_) => txn.accept(),
        Err(Fault::Refused(error)) => {
            txn.work.clear();
            if let (Work::Commit { batch, .. }, CommitError::Conflict { .. }) = (work, error) {
                txn.changed.insert(batch.actor.clone(), None);
            }
            execute(txn.conn, "ROLLBACK TO work")?;
        }
        // The whole transaction is going to be undone.
        Err(Fault::Full | Fault::Corrupt(_) | Fault::Broken(_)) => return done,
    }
    execute(txn.conn, "RELEASE work")?;
    done
}

fn execute(conn: &Connection, sql: &str) -> Result<(), Fault> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Takes a transaction back. SQLite may have done so by itself.
fn undo(conn: &Connection, fault: Fault) -> Lost {
    if !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        return Lost::Unknown(error.to_string());
    }
    match fault {
        // Never tried again: the disk may pretend that it works the second time.
        Fault::Broken(what) => Lost::Unknown(what),
        Fault::Refused(_) | Fault::Full | Fault::Corrupt(_) => Lost::Undone(fault),
    }
}
