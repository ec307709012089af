//! Finding paths and lines in a workspace, with ripgrep's libraries.
//!
//! - [`glob()`]: paths by pattern.
//! - [`grep()`]: lines by regular expression.
//! - [`find()`]: entries by name, kind, size and time; [`summarize_tree`] sums them up.
//! - [`unified_diff`] and [`patch()`]: differences, and how to apply them.

mod diff;
mod find;
mod glob;
mod grep;
mod patch;

pub use diff::{MAX_DIFF, diff_files, unified_diff};
pub use find::{FindQuery, FindResult, Found, MAX_FOUND, TreeSummary, find, summarize_tree};
pub use glob::{Glob, GlobMatch, glob};
pub(crate) use grep::FileSearch;
pub use grep::{Case, GrepLine, GrepQuery, GrepSummary, MAX_SEARCHED, grep};
pub use patch::{FilePatch, PatchError, Patched, Reject, apply, parse, patch};

use crate::workspace::WorkspaceError;

/// Why a search failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SearchError {
    /// The pattern cannot be understood.
    #[error("invalid pattern: {0}")]
    Pattern(String),
    /// The files could not be read.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}
