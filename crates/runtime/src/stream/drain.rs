//! The task that works off the queue of one path: the only one that changes its stream.

use std::{sync::Arc, time::Duration};

use bowline_store::{CommitError, StoreError, Timestamp};
use bytes::Bytes;

use super::{
    Inner,
    append::{Appended, Created, Prepared},
    error::StreamError,
    host::{Host, Left, Op, Reply, View},
    ledger::{FORKS, Found, Ledger, Staged},
    meta::{Lifetime, Meta},
};

/// Bytes of appends that become one commit, at most; one larger append is a commit of its own.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Forks of a stream that are looked at together.
const FORK_PAGE: usize = 256;
/// How soon a stream is looked at again when it seems that a fork is just beginning.
const AGAIN: Duration = Duration::from_secs(60);

/// Works until nothing is queued.
pub(super) async fn drain(streams: Arc<Inner>, host: Arc<Host>) {
    let found = host.begin();
    let mut drain = Drain {
        streams,
        host,
        found,
    };
    while let Some(ops) = {
        let Drain { host, found, .. } = &mut drain;
        host.next(found)
    } {
        drain.work(ops).await;
    }
}

struct Drain {
    streams: Arc<Inner>,
    host: Arc<Host>,
    found: Option<Found>,
}

impl Drain {
    async fn work(&mut self, ops: Vec<Op>) {
        let mut group = Vec::new();
        for op in ops {
            if let Op::Append(append, reply) = op {
                group.push((append, reply));
                continue;
            }
            self.appends(std::mem::take(&mut group)).await;
            self.other(op).await;
        }
        self.appends(group).await;
    }

    /// Reads what is at the path, and takes away what has expired.
    async fn load(&mut self) -> Result<(), StreamError> {
        if self.found.is_none() {
            let store = &*self.streams.store;
            let mut found = Ledger::load(store, &self.host.actor).await?;
            match &mut found {
                Found::Nothing(_) => self.host.withdraw(View::Nothing),
                Found::Stream(ledger) => {
                    if let Lifetime::Idle(seconds) = ledger.meta.lifetime {
                        // It may have been used after that was last made durable.
                        let now = self.streams.sources.now();
                        ledger.used = ledger.used.after(slack(seconds)).min(ledger.used.max(now));
                    }
                    self.host.publish(ledger, std::iter::empty());
                }
            }
            self.found = Some(found);
        }
        if self.host.has_expired(self.streams.sources.now()) {
            self.remove().await?;
        }
        Ok(())
    }

    /// The stream at the path.
    async fn stream(&mut self) -> Result<&mut Ledger, StreamError> {
        self.load().await?;
        match &mut self.found {
            Some(Found::Stream(ledger)) if ledger.gone => Err(StreamError::Gone),
            Some(Found::Stream(ledger)) => Ok(ledger),
            Some(Found::Nothing(_)) | None => Err(StreamError::NotFound),
        }
    }

    /// Commits, and forgets what is in memory when that fails.
    async fn commit(&mut self, staged: Staged) -> Result<(), StreamError> {
        let Some(Found::Stream(ledger)) = &mut self.found else {
            return Err(StreamError::NotFound);
        };
        let batch = match ledger.batch(staged) {
            Ok(batch) => batch,
            Err(error) => return Err(self.lost(error.into())),
        };
        match self.streams.store.commit(batch).await {
            Ok(_) => {
                ledger.committed();
                Ok(())
            }
            Err(error) => Err(self.lost(error.into())),
        }
    }

    /// What is in memory is not what is durable (any more): it is read again when it is needed.
    fn lost(&mut self, error: StreamError) -> StreamError {
        self.found = None;
        match error {
            // The stream stands where readers see it.
            StreamError::Commit(CommitError::Full | CommitError::Invalid(_)) => error,
            StreamError::Commit(CommitError::Fenced { .. } | CommitError::Conflict { .. }) => {
                self.host.withdraw(View::Unknown);
                StreamError::Unavailable
            }
            other => {
                self.host.withdraw(View::Unknown);
                other
            }
        }
    }

    async fn appends(&mut self, group: Vec<(Prepared, Reply<Appended>)>) {
        let mut group = group.into_iter().peekable();
        while group.peek().is_some() {
            let mut bytes = 0;
            let mut part = Vec::new();
            while let Some((append, _)) = group.peek() {
                bytes += append.append.data.len();
                if bytes > GROUP_BYTES && !part.is_empty() {
                    break;
                }
                part.extend(group.next());
            }
            self.append(part).await;
        }
    }

    /// One commit for all of them.
    async fn append(&mut self, group: Vec<(Prepared, Reply<Appended>)>) {
        if let Err(error) = self.stream().await {
            for (_, reply) in group {
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        let now = self.streams.sources.now();
        let mut answers = Vec::with_capacity(group.len());
        let mut accepted: Vec<Bytes> = Vec::new();
        let mut staged = None;
        for (append, reply) in group {
            let answer = self.take(&append, &mut staged, now).await;
            if let Ok(Appended {
                duplicate: false, ..
            }) = &answer
            {
                accepted.push(append.append.data);
            }
            answers.push((answer, reply));
        }
        let committed = match staged {
            Some(staged) => self.commit(staged).await,
            None => Ok(()),
        };
        if committed.is_ok()
            && !accepted.is_empty()
            && let Some(Found::Stream(ledger)) = &self.found
        {
            self.host.publish(ledger, accepted.into_iter());
            self.streams.appended(&self.host.actor, ledger.tail);
        }
        for (answer, reply) in answers {
            // What was refused may have been so because of one that is not durable.
            let _ = reply.send(committed.clone().and(answer));
        }
    }

    async fn take(
        &mut self,
        prepared: &Prepared,
        staged: &mut Option<Staged>,
        now: Timestamp,
    ) -> Result<Appended, StreamError> {
        let Some(Found::Stream(ledger)) = &mut self.found else {
            return Err(StreamError::NotFound);
        };
        let Prepared { append, problem } = prepared;
        ledger.recall(&*self.streams.store, append).await?;
        if let Some(duplicate) = ledger.judge(append)? {
            return Ok(duplicate);
        }
        if append.data.is_empty() && !append.closes {
            return Err(StreamError::Empty);
        }
        if let Some(problem) = problem {
            return Err(problem.clone());
        }
        let staged = staged.get_or_insert_with(|| ledger.stage(now));
        Ok(ledger.take(append, staged))
    }

    async fn other(&mut self, op: Op) {
        match op {
            Op::Load(reply) => {
                let loaded = self.load().await;
                let _ = reply.send(loaded);
            }
            // Appends are taken together.
            Op::Append(append, reply) => self.append(vec![(append, reply)]).await,
            Op::Create(new, reply) => {
                let (meta, first) = *new;
                let created = self.create(meta, first).await;
                let _ = reply.send(created);
            }
            Op::Delete(reply) => {
                let deleted = self.delete().await;
                let _ = reply.send(deleted);
            }
            Op::Fork {
                path,
                fork,
                source,
                reply,
            } => {
                let forked = self.fork(&path, &fork, &source).await;
                let _ = reply.send(forked);
            }
            Op::Unfork { path, fork, reply } => {
                let gone = self.unfork(&path, &fork).await;
                let _ = reply.send(gone);
            }
            Op::Examine(reply) => {
                let examined = self.examine().await;
                let _ = reply.send(examined);
            }
            Op::Touch(used) => {
                if let Err(cause) = self.touch(used).await {
                    tracing::warn!(stream = self.host.actor.key(), %cause, "a use was not noted");
                }
            }
        }
    }

    async fn create(&mut self, meta: Meta, first: Prepared) -> Result<Created, StreamError> {
        self.load().await?;
        let epoch = match &self.found {
            Some(Found::Stream(ledger)) => {
                // What it is now decides, also about whether it is closed.
                return if !ledger.gone && same(ledger, &meta, first.append.closes) {
                    Ok(Created {
                        info: info(ledger),
                        new: false,
                    })
                } else {
                    Err(StreamError::Exists)
                };
            }
            Some(Found::Nothing(epoch)) => *epoch,
            None => return Err(StreamError::Unavailable),
        };
        if let Some(problem) = first.problem {
            return Err(problem);
        }
        let first = first.append;
        let now = self.streams.sources.now();
        let (mut ledger, mut staged) = Ledger::create(&self.host.actor, epoch, meta, now)?;
        if !first.data.is_empty() || first.closes {
            ledger.take(&first, &mut staged);
        }
        self.found = Some(Found::Stream(Box::new(ledger)));
        self.commit(staged).await?;
        let Some(Found::Stream(ledger)) = &self.found else {
            return Err(StreamError::Unavailable);
        };
        self.host.publish(ledger, std::iter::once(first.data));
        if ledger.tail > ledger.meta.base() {
            self.streams.appended(&self.host.actor, ledger.tail);
        }
        Ok(Created {
            info: info(ledger),
            new: true,
        })
    }

    async fn delete(&mut self) -> Result<(), StreamError> {
        self.stream().await?;
        self.remove().await
    }

    /// Deletes the stream; one that has forks is kept for them, and closed to everybody else.
    async fn remove(&mut self) -> Result<(), StreamError> {
        let Some(Found::Stream(ledger)) = &self.found else {
            return Ok(());
        };
        let now = self.streams.sources.now();
        let left = left(ledger);
        if self.host.is_forking() || self.has_forks().await? {
            let Some(Found::Stream(ledger)) = &mut self.found else {
                return Ok(());
            };
            let mut staged = ledger.stage(now);
            ledger.mark_gone(&mut staged);
            self.commit(staged).await?;
            if let Some(Found::Stream(ledger)) = &self.found {
                self.host.publish(ledger, std::iter::empty());
            }
            self.streams.removed(&self.host.actor);
            // A fork may be gone without having said so.
            let path = self.host.actor.key();
            return self.streams.agenda.add(now.after(AGAIN), path).await;
        }
        if let Some(left) = &left {
            // Should this process end before the source is told, it is looked at again.
            self.streams
                .agenda
                .add(now.after(AGAIN), &left.source)
                .await?;
        }
        self.purge().await?;
        if let Some(left) = left {
            // Not awaited: the source may be waiting for this one.
            tokio::spawn(super::release(self.streams.clone(), left));
        }
        Ok(())
    }

    async fn purge(&mut self) -> Result<(), StreamError> {
        match self.streams.store.purge(&self.host.actor).await {
            Ok(()) => {
                // The next stream here takes a greater epoch, which the store knows.
                self.found = None;
                self.host.withdraw(View::Nothing);
                let loaded = Ledger::load(&*self.streams.store, &self.host.actor).await?;
                self.found = Some(loaded);
                self.streams.removed(&self.host.actor);
                Ok(())
            }
            Err(error) => Err(self.lost(error.into())),
        }
    }

    async fn has_forks(&self) -> Result<bool, StoreError> {
        let store = &*self.streams.store;
        let forks = store.scan(&self.host.actor, FORKS, b"", None, 1).await?;
        Ok(!forks.is_empty())
    }

    async fn fork(&mut self, path: &str, fork: &str, source: &str) -> Result<(), StreamError> {
        let now = self.streams.sources.now();
        let ledger = self.stream().await?;
        if ledger.meta.incarnation != source {
            return Err(StreamError::NotFound);
        }
        let mut staged = ledger.stage(now);
        ledger.mark_fork(&mut staged, path, Some(fork));
        self.host.add_forking();
        let committed = self.commit(staged).await;
        if committed.is_err() {
            self.host.remove_forking();
        }
        committed
    }

    async fn unfork(&mut self, path: &str, fork: &str) -> Result<Option<Left>, StreamError> {
        self.load().await?;
        let store = &*self.streams.store;
        let row = store.row(&self.host.actor, FORKS, path.as_bytes()).await?;
        // Another fork may have begun at the path meanwhile.
        if row.is_none_or(|row| row != fork) {
            return Ok(None);
        }
        let now = self.streams.sources.now();
        let Some(Found::Stream(ledger)) = &mut self.found else {
            return Ok(None);
        };
        let mut staged = ledger.stage(now);
        ledger.mark_fork(&mut staged, path, None);
        self.commit(staged).await?;
        self.settle().await
    }

    /// Takes a deleted stream away once no fork needs it. Answers with what it was a fork of.
    async fn settle(&mut self) -> Result<Option<Left>, StreamError> {
        let Some(Found::Stream(ledger)) = &self.found else {
            return Ok(None);
        };
        if !ledger.gone || self.host.is_forking() || self.has_forks().await? {
            return Ok(None);
        }
        let left = left(ledger);
        if let Some(left) = &left {
            let now = self.streams.sources.now();
            self.streams
                .agenda
                .add(now.after(AGAIN), &left.source)
                .await?;
        }
        self.purge().await?;
        Ok(left)
    }

    async fn examine(&mut self) -> Result<(Option<Left>, Option<Timestamp>), StreamError> {
        self.load().await?;
        let now = self.streams.sources.now();
        if self.host.is_forking() {
            return Ok((None, Some(now.after(AGAIN))));
        }
        let mut lost = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let store = &*self.streams.store;
            let page = store
                .scan(&self.host.actor, FORKS, b"", after.as_deref(), FORK_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for row in page {
                let path = String::from_utf8_lossy(&row.key).into_owned();
                let actor = super::actor(&path);
                let there = Ledger::load(store, &actor).await?;
                let alive = matches!(&there, Found::Stream(fork)
                    if fork.meta.incarnation.as_bytes() == &row.value[..]);
                if !alive {
                    lost.push(path);
                }
            }
        }
        if let Some(Found::Stream(ledger)) = &mut self.found
            && !lost.is_empty()
        {
            let mut staged = ledger.stage(now);
            for path in &lost {
                ledger.mark_fork(&mut staged, path, None);
            }
            self.commit(staged).await?;
        }
        let source = self.settle().await?;
        let again = match &self.found {
            Some(Found::Stream(ledger)) if !ledger.gone => {
                let used = match self.host.view() {
                    View::Stream(seen) => seen.used,
                    View::Unknown | View::Nothing => ledger.used,
                };
                // One that is followed lives on beyond its time; it is looked at later.
                ledger
                    .meta
                    .deadline(used)
                    .map(|deadline| deadline.max(now.after(Duration::from_millis(100))))
            }
            Some(_) | None => None,
        };
        Ok((source, again))
    }

    async fn touch(&mut self, used: Timestamp) -> Result<(), StreamError> {
        let now = self.streams.sources.now();
        let ledger = self.stream().await?;
        let mut staged = ledger.stage(now);
        ledger.mark_used(&mut staged, used);
        self.commit(staged).await?;
        if let Some(Found::Stream(ledger)) = &self.found {
            self.host.publish(ledger, std::iter::empty());
        }
        Ok(())
    }
}

/// How much longer than its time an unused stream may live after a restart, at most: an eighth. So
/// often is a use made durable.
pub(super) fn slack(seconds: u64) -> Duration {
    Duration::from_millis(seconds.saturating_mul(125))
}

fn left(ledger: &Ledger) -> Option<Left> {
    ledger.meta.fork.as_ref().map(|fork| Left {
        source: fork.source.clone(),
        path: ledger.actor.key().to_owned(),
        incarnation: ledger.meta.incarnation.clone(),
    })
}

fn info(ledger: &Ledger) -> super::meta::Info {
    super::meta::Info {
        meta: ledger.meta.clone(),
        tail: super::offset::Offset(ledger.tail),
        closed: ledger.is_closed(),
    }
}

/// Whether a stream is what somebody asks to create.
fn same(ledger: &Ledger, asked: &Meta, closed: bool) -> bool {
    let held = &ledger.meta;
    let type_of = super::meta::media_type;
    let lifetime = match (&held.lifetime, &asked.lifetime) {
        (Lifetime::Until(held, _), Lifetime::Until(asked, _)) => held == asked,
        (held, asked) => held == asked,
    };
    let fork = match (&held.fork, &asked.fork) {
        (None, None) => true,
        (Some(held), Some(asked)) => {
            held.source == asked.source
                && held.sub_offset == asked.sub_offset
                && (asked.offset.is_none() || held.offset == asked.offset)
        }
        (Some(_), None) | (None, Some(_)) => false,
    };
    type_of(&held.content_type).eq_ignore_ascii_case(type_of(&asked.content_type))
        && lifetime
        && fork
        && ledger.is_closed() == closed
}
