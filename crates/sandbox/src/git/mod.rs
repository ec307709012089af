//! Version control over a workspace, in git's own formats.
//!
//! - [`Repository`]: a working tree with its `.git` directory, both in the files of an overlay, so that
//!   what git did is part of the step's commit like any other write.
//! - [`ObjectId`], [`Commit`], [`Signature`]: what is in it.
//! - [`Repository::fetch`], `pull`, `push`, `clone`: other repositories (smart HTTP) through
//!   [`crate::egress::Outside`], where the host attaches credentials; a URL that holds one is refused.
//!
//! What is on disk is plain git: loose objects, packs, an index of version 2, loose and packed
//! references. `git` on an exported workspace goes on with it, and the other way round.
//!
//! The formats are read and written here, with the compression and hash crates that the workspace has
//! anyway. `gix::Repository` wants a real directory (it maps packs, locks and renames files), which a
//! workspace is not. Its plumbing without a directory (`gix-object`, `gix-pack`) parses the two
//! simplest of the formats and costs 25 packages; index, references, working tree, ignore rules and
//! the wire, which are the work, would stay ours. libgit2 is C behind a licence that `deny.toml` does not take.
//!
//! Everything that comes from outside is bounded: see [`limits`].

mod changes;
pub(crate) mod command;
mod config;
mod history;
mod ignore;
mod index;
mod merge;
mod object;
mod objects;
mod pack;
mod refs;
mod remote;
mod repository;
mod status;
mod tree;
mod wire;
mod worktree;

pub use changes::{DiffSide, FileChange};
pub use history::LogEntry;
pub use object::{Commit, ObjectId, ObjectKind, Signature};
pub use remote::{CloneOptions, Fetched, Moved, Pulled, PushOptions, Pushed};
pub use repository::{CommitOptions, Committed, Repository};
pub use status::{FileState, Status, StatusEntry};

use crate::workspace::WorkspaceError;

/// Bounds of what a repository may hold and what a remote may send.
pub mod limits {
    /// The largest object, in bytes: a file that is added, or one in a pack.
    pub const OBJECT_BYTES: u64 = 32 << 20;
    /// The largest pack that is fetched or opened, in bytes.
    pub const PACK_BYTES: u64 = 64 << 20;
    /// Objects of one pack.
    pub const PACK_OBJECTS: u32 = 500_000;
    /// Deltas on the way to one object.
    pub const DELTA_CHAIN: usize = 4_096;
    /// Bytes that may be unpacked while one pack is taken over, or read by one command: what was
    /// compressed, and what deltas make of it.
    pub const UNPACKED_BYTES: u64 = 2 << 30;
    /// The body of a request to a remote or of its answer, in bytes: a pack, and what frames it.
    pub const EXCHANGE_BYTES: u64 = PACK_BYTES + (8 << 20);
    /// Indexes of packs that are open at the same time, in bytes.
    pub const PACK_INDEX_BYTES: u64 = 64 << 20;
    /// One commit or annotated tag, in bytes.
    pub const COMMIT_BYTES: u64 = 1 << 20;
    /// Commits that one operation holds at the same time, in bytes.
    pub const HELD_COMMIT_BYTES: u64 = 64 << 20;
    /// All paths of one commit, or of the index, in bytes.
    pub const PATH_BYTES: usize = 64 << 20;
    /// The differences of all files together, in bytes.
    pub const DIFF_BYTES: u64 = 64 << 20;
    /// A file of `.git` that is none of the above, such as `config` or `packed-refs`, in bytes.
    pub const CONTROL_BYTES: u64 = 16 << 20;
    /// Files of one commit, and entries of an index.
    pub const TREE_FILES: usize = 200_000;
    /// Commits that one operation walks.
    pub const WALKED_COMMITS: usize = 200_000;
    /// References of a repository, here or at a remote.
    pub const REFERENCES: usize = 50_000;
}

/// Why an operation on a repository failed. The working tree is as it was, unless the error says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GitError {
    /// There is no repository there; `git init` makes one.
    #[error("not a git repository (or any of the parent directories): .git")]
    NotARepository,
    /// A name leads to nothing.
    #[error("{0}")]
    Unknown(String),
    /// The operation is refused as things are; the message says what to do first.
    #[error("{0}")]
    Refused(String),
    /// Something in the repository, or sent by a remote, is not what git writes.
    #[error("{0}")]
    Corrupt(String),
    /// Something is larger than it may be.
    #[error("{what} (limit {limit}); split it, or do this outside of the workspace")]
    Limit {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Git has this, the workspace does not.
    #[error("{0} is not supported in a workspace; see SH-26 in docs/limits.md")]
    Unsupported(String),
    /// The remote cannot be reached or answered with an error.
    #[error("{0}")]
    Remote(String),
    /// The files could not be read or written.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

impl GitError {
    /// The stable name of this error, one page each in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARepository => "git_not_a_repository",
            Self::Unknown(_) => "git_unknown",
            Self::Refused(_) => "git_refused",
            Self::Corrupt(_) => "git_corrupt",
            Self::Limit { .. } => "git_limit",
            Self::Unsupported(_) => "git_unsupported",
            Self::Remote(_) => "git_remote",
            Self::Workspace(error) => error.code(),
        }
    }
}

/// An error when something is larger than it may be.
fn within(size: u64, limit: u64, what: impl FnOnce() -> String) -> Result<(), GitError> {
    if size > limit {
        let what = what();
        return Err(GitError::Limit { what, limit });
    }
    Ok(())
}

/// A corrupt repository, in a few words.
fn corrupt(what: impl Into<String>) -> GitError {
    GitError::Corrupt(what.into())
}
