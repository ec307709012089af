//! Following what is committed, within this process.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{ChangeSet, PathChange, Workspace};

/// Commits that a follower may be behind before it misses some.
pub(crate) const BACKLOG: usize = 256;

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The paths, in order.
    pub paths: Vec<PathChange>,
    /// Changed paths that are not named.
    pub omitted: usize,
    /// Who did it, and in which step, as [`ChangeSet::origin`] says.
    pub origin: String,
}

impl Changed {
    pub(crate) fn of(changes: &ChangeSet) -> Self {
        Self {
            paths: changes.paths.clone(),
            omitted: changes.omitted,
            origin: changes.origin.clone(),
        }
    }
}

/// Follows the commits of a workspace.
#[derive(Debug)]
pub struct Watch(broadcast::Receiver<Arc<Changed>>);

impl Watch {
    /// Waits for the next commit. `Err` with their number when this was too slow and has missed some:
    /// then read again what matters. `None` when the workspace is gone.
    pub async fn next(&mut self) -> Option<Result<Arc<Changed>, u64>> {
        match self.0.recv().await {
            Ok(changed) => Some(Ok(changed)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Workspace {
    /// Follows what is committed from now on; 256 commits are kept for one that is slow.
    pub fn watch(&self) -> Watch {
        Watch(self.0.followers.subscribe())
    }
}
