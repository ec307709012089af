//! All subscriptions: who they are, which of them want a path, and when they have to look.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bowline_store::{ActorId, Timestamp};
use tokio::sync::{Notify, OnceCell, oneshot};

use super::{
    Ack, Config, Deliver, Described, MAX_STREAMS, MAX_SUBSCRIPTIONS, MAX_WORDS, Refusal, Wake, Way,
    index::{self, Index},
    worker::{Op, Reply, Worker},
};
use crate::stream::{Inner, Streams, check_path, error::StreamError};

/// Actors that are listed at once.
const PAGE: usize = 1024;

/// The subscriptions of a store. They are read when they are first needed.
#[derive(Debug, Default)]
pub(in crate::stream) struct Subscriptions {
    loaded: OnceCell<()>,
    inner: Mutex<Registry>,
    pub(super) deliver: OnceLock<Arc<dyn Deliver>>,
    timer: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    index: Index,
    workers: HashMap<String, Arc<Worker>>,
    /// When which subscription has to look, in both directions.
    timers: BTreeSet<(Timestamp, String)>,
    timer_of: HashMap<String, Timestamp>,
}

impl Registry {
    fn add(&mut self, worker: &Arc<Worker>, config: &Config) {
        let id = worker.id();
        if let Some(pattern) = &config.pattern {
            self.index.add_pattern(pattern, id);
        }
        self.workers.insert(id.to_owned(), worker.clone());
    }

    fn remove(&mut self, id: &str, config: &Config) {
        if let Some(pattern) = &config.pattern {
            self.index.remove_pattern(pattern, id);
        }
        self.workers.remove(id);
        if let Some(at) = self.timer_of.remove(id) {
            self.timers.remove(&(at, id.to_owned()));
        }
    }
}

pub(super) fn actor(id: &str) -> ActorId {
    ActorId::new("stream", "subscription", id)
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the subscriptions, the first time. What they have missed is looked for aside.
    pub(in crate::stream) async fn ready(&self, streams: &Arc<Inner>) -> Result<(), StreamError> {
        self.loaded
            .get_or_try_init(|| self.load(streams))
            .await
            .map(|&()| ())
    }

    async fn load(&self, streams: &Arc<Inner>) -> Result<(), StreamError> {
        let mut after: Option<ActorId> = None;
        loop {
            let store = &streams.store;
            let name = Some("subscription");
            let page = store.actors("stream", name, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for actor in page {
                let worker = Worker::new(actor.key());
                let Some((config, paths)) = worker.open(&**store).await? else {
                    continue;
                };
                let mut registry = self.lock();
                registry.add(&worker, &config);
                for path in &paths {
                    registry.index.add_path(path, worker.id());
                }
                drop(registry);
                worker.put(streams, Op::Recover);
            }
        }
    }

    /// An append is durable.
    pub(in crate::stream) fn appended(&self, streams: &Arc<Inner>, path: &str, tail: u64) {
        for worker in self.wanting(path) {
            if worker.pend(path, tail) {
                worker.put(streams, Op::Look);
            }
        }
    }

    /// A stream is no more.
    pub(in crate::stream) fn removed(&self, streams: &Arc<Inner>, path: &str) {
        for worker in self.wanting(path) {
            let path = path.to_owned();
            worker.put(streams, Op::Removed { path });
        }
    }

    fn wanting(&self, path: &str) -> Vec<Arc<Worker>> {
        let registry = self.lock();
        if registry.index.is_empty() {
            return Vec::new();
        }
        let ids = registry.index.find(path);
        ids.iter()
            .filter_map(|id| registry.workers.get(id).cloned())
            .collect()
    }

    /// A stream is about to begin: the subscriptions that match have it from its first byte.
    pub(in crate::stream) async fn link(
        &self,
        streams: &Arc<Inner>,
        path: &str,
        at: u64,
    ) -> Result<(), StreamError> {
        let workers: Vec<_> = {
            let registry = self.lock();
            if registry.index.is_empty() {
                return Ok(());
            }
            let ids = registry.index.by_pattern(path);
            ids.iter()
                .filter_map(|id| registry.workers.get(id).cloned())
                .collect()
        };
        for worker in workers {
            let linked = ask(streams, &worker, |reply| Op::Link {
                links: vec![(path.to_owned(), at)],
                kind: super::LinkKind::Glob,
                reply,
            });
            match linked.await {
                // It was deleted meanwhile.
                Ok(()) | Err(StreamError::Subscription(Refusal::NotFound)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Wakes a subscription at a time; `None` for no time.
    pub(super) fn at(&self, id: &str, time: Option<Timestamp>) {
        let mut registry = self.lock();
        if !registry.workers.contains_key(id) {
            return;
        }
        let before = match time {
            Some(time) => registry.timer_of.insert(id.to_owned(), time),
            None => registry.timer_of.remove(id),
        };
        if before == time {
            return;
        }
        if let Some(before) = before {
            registry.timers.remove(&(before, id.to_owned()));
        }
        if let Some(time) = time {
            registry.timers.insert((time, id.to_owned()));
            drop(registry);
            self.timer.notify_one();
        }
    }

    fn worker(&self, id: &str) -> Result<Arc<Worker>, StreamError> {
        let found = self.lock().workers.get(id).cloned();
        found.ok_or(StreamError::Subscription(Refusal::NotFound))
    }
}

async fn ask<T>(
    streams: &Arc<Inner>,
    worker: &Arc<Worker>,
    op: impl FnOnce(Reply<T>) -> Op,
) -> Result<T, StreamError> {
    let (reply, answer) = oneshot::channel();
    worker.put(streams, op(reply));
    answer.await.map_err(|_| StreamError::Unavailable)?
}

/// Wakes subscriptions when their leases end or their webhooks are to be called again. Runs for ever.
pub(in crate::stream) async fn keep(streams: &Arc<Inner>) {
    let subscriptions = &streams.subscriptions;
    while let Err(cause) = subscriptions.ready(streams).await {
        tracing::error!(%cause, "the subscriptions cannot be read");
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }
    loop {
        let now = streams.sources.now();
        let (due, next) = {
            let mut registry = subscriptions.lock();
            let mut due = Vec::new();
            while let Some((at, id)) = registry.timers.first().cloned()
                && at <= now
            {
                registry.timers.pop_first();
                registry.timer_of.remove(&id);
                due.extend(registry.workers.get(&id).cloned());
            }
            (due, registry.timers.first().map(|(at, _)| at.since(now)))
        };
        for worker in due {
            worker.put(streams, Op::Look);
        }
        tokio::select! {
            () = subscriptions.timer.notified() => {}
            () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
        }
    }
}

impl Streams {
    /// Who calls webhooks. Can be set once; without it webhooks wait.
    pub fn deliver_with(&self, deliver: Arc<dyn Deliver>) {
        let _ = self.0.subscriptions.deliver.set(deliver);
    }

    /// Creates a subscription. `false` when it was there with the same settings.
    ///
    /// # Errors
    ///
    /// `Exists`, `Invalid`, or what the store reports.
    pub async fn subscribe(&self, id: &str, config: Config) -> Result<bool, StreamError> {
        check(id, &config)?;
        let streams = &self.0;
        let subscriptions = &streams.subscriptions;
        subscriptions.ready(streams).await?;
        let worker = {
            let mut registry = subscriptions.lock();
            if let Some(there) = registry.workers.get(id) {
                there.clone()
            } else if registry.workers.len() >= MAX_SUBSCRIPTIONS {
                return Err(invalid(format!("there are {MAX_SUBSCRIPTIONS} already")));
            } else {
                let worker = Worker::new(id);
                registry.add(&worker, &config);
                for path in &config.streams {
                    registry.index.add_path(path, id);
                }
                worker
            }
        };
        let begin = |reply| Op::Begin {
            config: Box::new(config.clone()),
            reply,
        };
        let begun = ask(streams, &worker, begin).await;
        if matches!(&begun, Err(error) if !matches!(error, StreamError::Subscription(_))) {
            subscriptions.lock().remove(id, &config);
        }
        begun
    }

    /// What is known of a subscription.
    ///
    /// # Errors
    ///
    /// `NotFound`, or what the store reports.
    pub async fn subscription(&self, id: &str) -> Result<Described, StreamError> {
        let worker = self.worker(id).await?;
        ask(&self.0, &worker, Op::Describe).await
    }

    /// Deletes a subscription. Does nothing when there is none.
    ///
    /// # Errors
    ///
    /// What the store reports.
    pub async fn unsubscribe(&self, id: &str) -> Result<(), StreamError> {
        let worker = match self.worker(id).await {
            Err(StreamError::Subscription(Refusal::NotFound)) => return Ok(()),
            worker => worker?,
        };
        let (config, paths) = ask(&self.0, &worker, Op::End).await?;
        let mut registry = self.0.subscriptions.lock();
        registry.remove(id, &config);
        for path in paths {
            registry.index.remove_path(&path, id);
        }
        Ok(())
    }

    /// Adds streams to a subscription, from where each of them ends now.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Invalid`, or what the store reports.
    pub async fn add_to_subscription(&self, id: &str, paths: &[String]) -> Result<(), StreamError> {
        check_paths(paths)?;
        let worker = self.worker(id).await?;
        let mut links = Vec::new();
        for path in paths {
            links.push((path.clone(), self.0.tail_of(path).await?));
        }
        {
            let mut registry = self.0.subscriptions.lock();
            for path in paths {
                registry.index.add_path(path, id);
            }
        }
        let kind = super::LinkKind::Explicit;
        ask(&self.0, &worker, |reply| Op::Link { links, kind, reply }).await
    }

    /// Takes a stream off a subscription.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such subscription, or what the store reports.
    pub async fn remove_from_subscription(&self, id: &str, path: &str) -> Result<(), StreamError> {
        let worker = self.worker(id).await?;
        let path = path.to_owned();
        self.0.subscriptions.lock().index.remove_path(&path, id);
        ask(&self.0, &worker, |reply| Op::Unlink { path, reply }).await
    }

    /// Claims the wake of a subscription whose workers ask for it.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Claimed`, `NoWork`, `Invalid` for one that calls a webhook.
    pub async fn claim(&self, id: &str, holder: &str) -> Result<Wake, StreamError> {
        if holder.is_empty() || holder.len() > MAX_WORDS {
            return Err(invalid("a worker has a name".into()));
        }
        let worker = self.worker(id).await?;
        let holder = holder.to_owned();
        ask(&self.0, &worker, |reply| Op::Claim { holder, reply }).await
    }

    /// Acknowledges. `true` when there is more to do.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Token`, `Fenced`, `Offset`.
    pub async fn acknowledge(&self, id: &str, ack: Ack) -> Result<bool, StreamError> {
        let worker = self.worker(id).await?;
        ask(&self.0, &worker, |reply| Op::Ack { ack, reply }).await
    }

    async fn worker(&self, id: &str) -> Result<Arc<Worker>, StreamError> {
        self.0.subscriptions.ready(&self.0).await?;
        self.0.subscriptions.worker(id)
    }
}

fn invalid(what: String) -> StreamError {
    StreamError::Subscription(Refusal::Invalid(what))
}

fn check_paths(paths: &[String]) -> Result<(), StreamError> {
    if paths.len() > MAX_STREAMS {
        return Err(invalid(format!(
            "name at most {MAX_STREAMS} streams at once"
        )));
    }
    paths.iter().try_for_each(|path| check_path(path))
}

fn check(id: &str, config: &Config) -> Result<(), StreamError> {
    let (shortest, longest, _) = super::LEASE_MS;
    let words = [Some(id), config.description.as_deref()];
    let problem = if id.is_empty() || words.into_iter().flatten().any(|it| it.len() > MAX_WORDS) {
        format!("an id has 1 to {MAX_WORDS} bytes, a description at most as many")
    } else if config.pattern.is_none() && config.streams.is_empty() {
        "a subscription has a `pattern` or `streams`".to_owned()
    } else if !(shortest..=longest).contains(&config.lease_ms) {
        format!("`lease_ttl_ms` is between {shortest} and {longest}")
    } else if let Some(problem) = config.pattern.as_deref().and_then(index::check) {
        problem
    } else if matches!(&config.way, Way::PullWake(path) if check_path(path).is_err()) {
        "`wake_stream` is the path of a stream".to_owned()
    } else {
        return check_paths(&config.streams);
    };
    Err(invalid(problem))
}
