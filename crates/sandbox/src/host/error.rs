//! What can go wrong with a host directory.

use std::path::PathBuf;

/// Why a host directory cannot be used, or a process not be started in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    /// It is missing, no directory, or one that must not be given away.
    #[error("{dir}: {why}")]
    Directory {
        /// As it was asked for.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// The kernel cannot confine processes.
    #[error("processes cannot be confined here: {0}")]
    Unconfinable(String),
    /// The helper, which confines and supervises, did not do its work.
    #[error("the helper of the sandbox failed: {0}")]
    Helper(String),
}

impl HostError {
    /// The stable name of this error, one page each in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "sandbox_directory",
            Self::Unconfinable(_) => "sandbox_unconfinable",
            Self::Helper(_) => "sandbox_helper",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Directory { .. } => {
                "name a directory that holds the agent's work and nothing of Bowline"
            }
            Self::Unconfinable(_) => {
                "use Linux 6.12 or newer with Landlock, and as root a writable `pids` control group, or `sandbox: workspace`; `unconfined: true` runs processes without any confinement"
            }
            Self::Helper(_) => "give the path of the `bowline` binary, and see what it says",
        }
    }
}
