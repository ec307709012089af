//! A durable filesystem, kept in the rows and blobs of the store.
//!
//! - [`Workspace`]: the committed files of one actor, read when they are touched.
//! - [`Overlay`]: uncommitted writes above them; every operation on files is here.
//! - [`Snapshot`]: a frozen state, to restore, compare with or fork from.
//! - [`ChangeSet`]: what the batch of a step carries, so that a tool's effect and its recorded
//!   result are one commit.
//!
//! Paths are UTF-8, `/` separates names, relative paths start at [`WORKING_DIRECTORY`], links are
//! followed in every component, and `..` stops at the root. `/workspace` and `/tmp` always exist
//! until they are removed.

mod change;
mod committed;
pub(crate) mod entry;
mod error;
mod feed;
mod limits;
mod ops;
mod overlay;
pub(crate) mod path;
mod snapshot;
mod stream;
mod tree;
mod volume;
mod walked;
mod watch;

use std::sync::Arc;

use bowline_store::{ActorId, Store, Timestamp};

pub use change::{ChangeKind, ChangeSet, PathChange};
pub use committed::Held;
pub use entry::EntryKind;
pub use error::WorkspaceError;
pub use feed::{FEED_KEPT, FEED_SPACE, Feed, FeedEntry};
pub use limits::WorkspaceLimits;
pub use ops::{DirEntry, Stat, WriteOptions};
pub use overlay::{Overlay, Usage};
pub use path::{WORKING_DIRECTORY, absolute};
pub use snapshot::Snapshot;
pub use volume::SPACE;
pub use watch::{Changed, Watch};

use committed::Shared;

/// The files of one actor, as they are committed. Cheap to clone; clones share one cache, whose
/// memory is bounded by what was touched.
#[derive(Debug, Clone)]
pub struct Workspace(Arc<Shared>);

impl Workspace {
    /// The workspace of an actor, with the default limits. Reads nothing yet.
    pub fn open(store: Arc<dyn Store>, actor: ActorId) -> Self {
        Self::with_limits(store, actor, WorkspaceLimits::default())
    }

    /// The workspace of an actor. Reads nothing yet.
    pub fn with_limits(store: Arc<dyn Store>, actor: ActorId, limits: WorkspaceLimits) -> Self {
        Self(Arc::new(Shared::new(store, actor, limits, None)))
    }

    /// Begins an overlay above the committed state; its writes get the time `now`.
    ///
    /// # Errors
    ///
    /// `EIO` when the store cannot be read.
    pub async fn begin(&self, now: Timestamp) -> Result<Overlay, WorkspaceError> {
        self.0.open().await?;
        Ok(Overlay::above_committed(self.0.clone(), now))
    }

    /// Takes over a change set whose batch has become durable. Without this call the workspace goes
    /// on showing the state before.
    pub fn committed(&self, changes: &ChangeSet) {
        self.0.committed(changes);
    }

    /// The limits.
    pub fn limits(&self) -> &WorkspaceLimits {
        &self.0.limits
    }

    /// What is kept in memory of it: grows with what was touched, not with what there is. Past 200,000 entries
    /// it is dropped when the last overlay closes; of content 32 MiB of small files and 8 MiB of chunks stay
    /// at most.
    pub fn held(&self) -> Held {
        self.0.state().held()
    }

    /// Drops everything that is kept in memory; it is read again when it is touched.
    pub fn forget(&self) {
        self.0.state().forget();
    }
}
