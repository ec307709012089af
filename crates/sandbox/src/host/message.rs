//! What Bowline, the supervisor and the process that becomes bash tell each other, a JSON line each.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::HostLimits;

/// The order that starts a helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) command: String,
    pub(super) dir: PathBuf,
    /// Directory for temporary files; it may be written too.
    pub(super) temporary: PathBuf,
    /// Directories that may be read besides those of the system.
    pub(super) read: Vec<PathBuf>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) unconfined: bool,
    pub(super) limits: HostLimits,
}

/// How it went, said by the supervisor when no process is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The command ended by itself; 128 and the signal when it was killed.
    Exited(i32),
    /// Everything was killed because nobody waits any more.
    Stopped,
    /// Everything was killed because it took too much of this.
    Exceeded(String),
    /// It was never started.
    Failed(String),
}
