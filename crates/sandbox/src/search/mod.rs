//! Finding paths and lines in a workspace, with ripgrep's libraries.
//!
//! - [`glob()`]: paths by pattern.
//! - [`grep()`]: lines by regular expression.

mod glob;
mod grep;

pub use glob::{Glob, GlobMatch, glob};
pub use grep::{Case, GrepLine, GrepQuery, GrepSummary, grep};

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
