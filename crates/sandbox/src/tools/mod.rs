//! The six tools that a model gets on a workspace or a host directory, as plain functions.
//!
//! They work on [`Files`], whichever these are. Inputs derive `Deserialize` and `JsonSchema`: the doc comments of their fields are the parameter
//! descriptions that the model reads. Paths that are relative start at the working directory.

mod bash;
mod edit;
mod files;
mod find;
mod ground;
mod matching;
mod seen;
mod truncate;

use bowline_store::StoreError;
use bytes::Bytes;

pub use bash::{BashInput, BashRun, bash, host_bash};
pub use edit::{Edit, EditInput, edit};
pub use files::{ReadInput, WriteInput, read, write};
pub use find::{GlobInput, GrepInput, glob, grep};
pub use ground::Files;
pub use matching::{Replacement, replace};
pub use seen::Seen;

use crate::{search::SearchError, workspace::WorkspaceError};

/// Lines of one tool result.
pub const MAX_LINES: usize = 2000;
/// Bytes of one tool result.
pub const MAX_BYTES: usize = 50 * 1024;

/// What a tool gives back to the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolOutput {
    /// Text for the model.
    pub text: String,
    /// Media type and bytes of an image or a PDF.
    pub media: Option<(String, Bytes)>,
}

impl ToolOutput {
    fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            media: None,
        }
    }
}

/// Why a tool did not do what it was asked; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ToolFailure {
    /// For the model, which can do better with this message.
    #[error("{0}")]
    Refused(String),
    /// The store failed: the model cannot help, the step has to end.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<WorkspaceError> for ToolFailure {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::Store(error) => Self::Store(error),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<SearchError> for ToolFailure {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Workspace(error) => error.into(),
            error @ SearchError::Pattern(_) => Self::Refused(error.to_string()),
        }
    }
}

fn refused<T>(message: impl Into<String>) -> Result<T, ToolFailure> {
    Err(ToolFailure::Refused(message.into()))
}

/// The path that the model means: `~` is the working directory.
fn expand(files: &(impl Files + ?Sized), path: &str) -> String {
    let home = files.working_directory();
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.to_owned(),
    }
}

/// A path as the model writes it: relative where it is below the working directory.
fn shown<'a>(files: &(impl Files + ?Sized), path: &'a str) -> &'a str {
    path.strip_prefix(files.working_directory())
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(path)
}
