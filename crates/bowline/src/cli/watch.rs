//! Who is told when files change.

use std::{path::PathBuf, time::Duration};

#[cfg(target_os = "linux")]
use futures::{StreamExt as _, stream::BoxStream};

#[cfg(target_os = "linux")]
use super::fault::Fault;
use crate::error::Error;

/// Some file systems, those of a network above all, do not say when a file changes, and neither do all
/// systems: there it takes this long until something new is seen.
const UNTOLD: Duration = Duration::from_secs(2);

/// Tells when something changes directly in one of some folders. Many changes in a row are told once.
pub(super) struct Changes {
    #[cfg(target_os = "linux")]
    watches: inotify::Watches,
    #[cfg(target_os = "linux")]
    told: BoxStream<'static, ()>,
}

impl Changes {
    /// Watches these folders.
    pub(super) fn of(folders: impl IntoIterator<Item = PathBuf>) -> Result<Self, Error> {
        #[cfg(target_os = "linux")]
        let mut changes = {
            let failed = |error: std::io::Error| Fault::Watch {
                path: PathBuf::from("the folder"),
                why: error.to_string(),
            };
            let inotify = inotify::Inotify::init().map_err(failed)?;
            let watches = inotify.watches();
            let events = inotify.into_event_stream([0; 4_096]).map_err(failed)?;
            let told = events.ready_chunks(256).map(|_| ()).boxed();
            Self { watches, told }
        };
        #[cfg(not(target_os = "linux"))]
        let mut changes = Self {};
        for folder in folders {
            changes.add(folder)?;
        }
        Ok(changes)
    }

    /// Watches a folder too; one that is watched already stays so.
    #[cfg(target_os = "linux")]
    pub(super) fn add(&mut self, folder: PathBuf) -> Result<(), Error> {
        use inotify::WatchMask;
        let changes = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        let added = self.watches.add(&folder, changes);
        added.map(|_| ()).map_err(|error| {
            let why = error.to_string();
            Fault::Watch { path: folder, why }.into()
        })
    }

    /// Nobody tells; [`UNTOLD`] is how long something new may take.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn add(&mut self, _folder: PathBuf) -> Result<(), Error> {
        Ok(())
    }

    /// Waits until something may have changed. Cancel-safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            () = self.told() => {}
            () = tokio::time::sleep(UNTOLD) => {}
        }
    }

    /// Waits until it is told that something changed, which may be never. Cancel-safe.
    pub(super) async fn told(&mut self) {
        #[cfg(target_os = "linux")]
        if self.told.next().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}
