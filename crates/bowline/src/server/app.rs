//! What every route has.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bowline_agent::Agent;
use bowline_runtime::{
    RuntimeError, Sources,
    stream::{StreamOptions, Streams},
};
use bowline_store::{Store, StoreError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Refusal, Refused, Settings,
    conversation::{feed::Feeds, histories::Histories},
    guard::Guard,
    stream::Webhooks,
};
use crate::{error::Error, service::Service, telemetry::Telemetry};

/// What every route has. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
    lookup: Option<Lookup>,
    refused: Option<Watcher>,
}

struct Inner {
    service: Service,
    settings: Settings,
    streams: Streams,
    webhooks: Arc<Webhooks>,
    draining: CancellationToken,
    feeds: Feeds,
    histories: Histories,
    guard: Guard,
    telemetry: Telemetry,
    sockets: TaskTracker,
    /// When the store last had no room, and the batches that it had committed until then. A std mutex: it is
    /// held for lookups only.
    full: Mutex<Option<(Instant, u64)>>,
}

/// How long a store that had no room is taken to have none, while nothing shows otherwise.
const FULL: Duration = Duration::from_secs(10);

/// Reads an agent of the project.
type Lookup = Arc<dyn Fn(&str) -> Result<Agent, Error> + Send + Sync>;

/// Is told of each request that is refused.
type Watcher = Arc<dyn Fn(&Refused) + Send + Sync>;

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl App {
    /// What the routes of a service have.
    pub fn new(service: Service, settings: Settings) -> Self {
        let (store, sources) = (service.store().clone(), service.sources().clone());
        let streams = Streams::new(store.clone(), sources.clone(), StreamOptions::default());
        let webhooks = Webhooks::new(store, sources);
        streams.deliver_with(webhooks.clone());
        let inner = Inner {
            feeds: Feeds::new(service.clone(), settings.linger),
            histories: Histories::new(service.store().clone()),
            guard: Guard::new(&settings),
            telemetry: Telemetry::new(service.clone(), settings.max_followers),
            sockets: TaskTracker::new(),
            full: Mutex::default(),
            service,
            settings,
            streams,
            webhooks,
            draining: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
            lookup: None,
            refused: None,
        }
    }

    /// Where an agent is found that is not served yet, for a process that began with one of them.
    #[must_use]
    pub(crate) fn with_lookup(
        mut self,
        lookup: impl Fn(&str) -> Result<Agent, Error> + Send + Sync + 'static,
    ) -> Self {
        self.lookup = Some(Arc::new(lookup));
        self
    }

    /// Tells of each request that is refused, also those that upgrade to a WebSocket. Do not wait in it.
    #[must_use]
    pub fn on_refused(mut self, watcher: impl Fn(&Refused) + Send + Sync + 'static) -> Self {
        self.refused = Some(Arc::new(watcher));
        self
    }

    /// Tells whoever watches; an answer of the protocol of streams has a status and no error.
    pub(super) fn tell_refused(&self, method: &str, path: &str, status: u16, error: Option<Error>) {
        let Some(watcher) = &self.refused else {
            return;
        };
        watcher(&Refused {
            method: method.to_owned(),
            path: path.to_owned(),
            status,
            error: error.unwrap_or_else(|| Error::failure(String::new(), "", "")),
        });
    }

    /// Sees to it that an agent is served, where it can be found.
    pub(super) fn look_up(&self, agent: &str) -> Result<(), Error> {
        if let Some(lookup) = &self.lookup
            && self.service().definition(agent).is_none()
        {
            self.service().put_agent(lookup(agent)?);
        }
        Ok(())
    }

    /// Whether the process serves for others only while it has work of its own.
    pub(super) fn lends(&self) -> bool {
        self.lookup.is_some()
    }

    /// The agents.
    pub fn service(&self) -> &Service {
        &self.inner.service
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.inner.service.store()
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        self.inner.service.sources()
    }

    /// How the server listens.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Who is let in.
    pub(super) fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    /// What is counted.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
    }

    /// The WebSockets that are open.
    pub(super) fn sockets(&self) -> &TaskTracker {
        &self.inner.sockets
    }

    /// What the readers of conversations share.
    pub(super) fn feeds(&self) -> &Feeds {
        &self.inner.feeds
    }

    /// The histories that were asked for.
    pub(super) fn histories(&self) -> &Histories {
        &self.inner.histories
    }

    /// The streams of the store.
    pub fn streams(&self) -> &Streams {
        &self.inner.streams
    }

    /// Who calls the webhooks of subscriptions.
    pub(super) fn webhooks(&self) -> &Webhooks {
        &self.inner.webhooks
    }

    /// Ends what a router of [`Bowline::router`](crate::Bowline::router) serves, once its listener takes
    /// nothing more: streams end, what runs and the WebSockets come to their end within `bound`, and the
    /// data is let go. `false` when something had to be cut; the next start goes on with it.
    pub async fn stop(&self, bound: Duration) -> bool {
        self.draining().cancel();
        self.sockets().close();
        let sockets = tokio::time::timeout(bound, self.sockets().wait());
        let (finished, sockets) = tokio::join!(self.service().finish(bound), sockets);
        self.service().stop(bound).await && finished && sockets.is_ok()
    }

    /// Cancelled when the server stops: streams and waits end then, in good order.
    pub fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// Remembers that the store had no room.
    pub(super) fn was_full(&self) {
        let batches = self.store().metrics().batches;
        *self.full() = Some((Instant::now(), batches));
    }

    /// Whether messages can be taken, as far as is known: the store had room lately, or has had since.
    pub(super) fn has_room(&self) -> Result<(), Refusal> {
        let batches = self.store().metrics().batches;
        let lately = |(at, then): (Instant, u64)| at.elapsed() < FULL && then == batches;
        match self.full().is_some_and(lately) {
            true => Err(StoreError::Full.into()),
            false => Ok(()),
        }
    }

    fn full(&self) -> MutexGuard<'_, Option<(Instant, u64)>> {
        self.inner
            .full
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody may wait here for what comes. While the server stops such a wait would end at once,
    /// and whoever waits would come back, again and again, until what runs has ended.
    pub(super) fn may_wait(&self) -> Result<(), Refusal> {
        if self.draining().is_cancelled() {
            return Err(RuntimeError::Stopped.into());
        }
        Ok(())
    }
}
