//! What every route has.

use std::{fmt, sync::Arc, time::Duration};

use bowline_runtime::{
    Sources,
    stream::{StreamOptions, Streams},
};
use bowline_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Settings,
    conversation::{feed::Feeds, histories::Histories},
    guard::Guard,
    stream::Webhooks,
};
use crate::{service::Service, telemetry::Telemetry};

/// What every route has. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

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
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.0.settings)
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
        Self(Arc::new(Inner {
            feeds: Feeds::new(service.clone(), settings.linger),
            histories: Histories::new(service.store().clone()),
            guard: Guard::new(&settings),
            telemetry: Telemetry::new(service.clone(), settings.max_followers),
            sockets: TaskTracker::new(),
            service,
            settings,
            streams,
            webhooks,
            draining: CancellationToken::new(),
        }))
    }

    /// The agents.
    pub fn service(&self) -> &Service {
        &self.0.service
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.0.service.store()
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        self.0.service.sources()
    }

    /// How the server listens.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Who is let in.
    pub(super) fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// What is counted.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// The WebSockets that are open.
    pub(super) fn sockets(&self) -> &TaskTracker {
        &self.0.sockets
    }

    /// What the readers of conversations share.
    pub(super) fn feeds(&self) -> &Feeds {
        &self.0.feeds
    }

    /// The histories that were asked for.
    pub(super) fn histories(&self) -> &Histories {
        &self.0.histories
    }

    /// The streams of the store.
    pub fn streams(&self) -> &Streams {
        &self.0.streams
    }

    /// Who calls the webhooks of subscriptions.
    pub(super) fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
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
        &self.0.draining
    }
}
