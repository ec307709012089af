//! What every route has.

use std::{fmt, sync::Arc};

use bowline_runtime::Sources;
use bowline_store::Store;
use tokio_util::sync::CancellationToken;

use super::{Settings, conversation::feed::Feeds};
use crate::service::Service;

/// What every route has. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    service: Service,
    settings: Settings,
    draining: CancellationToken,
    feeds: Feeds,
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
        Self(Arc::new(Inner {
            feeds: Feeds::new(service.clone()),
            service,
            settings,
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

    /// What the readers of conversations share.
    pub(super) fn feeds(&self) -> &Feeds {
        &self.0.feeds
    }

    /// Cancelled when the server stops: streams and waits end then, in good order.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }
}
