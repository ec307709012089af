//! Changes of several files at once: all or nothing, and not over someone else's work.

use bowline_store::BlobId;
use bytes::Bytes;

use crate::{
    search::{self, SearchError},
    tools::{Replacement, replace},
    workspace::{EntryKind, Overlay, WorkspaceError, WriteOptions},
};

/// One change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEdit {
    /// The file.
    pub path: String,
    /// [`hash_file`] of the file that the change was made for; `Some("")` when it must not exist. With
    /// `None` the base is not checked.
    pub base: Option<String>,
    /// What to do.
    pub change: FileChange,
}

/// What to do to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// Write this content; missing directories are made.
    Write(Bytes),
    /// Replace texts: (old, new, every occurrence), by the rules of the `edit` tool.
    Replace(Vec<(String, String, bool)>),
    /// Remove it.
    Remove,
}

/// What an edit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditResult {
    /// The file.
    pub path: String,
    /// Whether its content is different now.
    pub changed: bool,
    /// Unified diff; empty for files that are not text.
    pub diff: String,
}

/// Why edits were not made; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EditError {
    /// A text to replace was not found, or not once.
    #[error("{0}")]
    Text(String),
    /// The files could not be read, written or searched; `ESTALE` when a base has changed.
    #[error(transparent)]
    Search(#[from] SearchError),
}

impl From<WorkspaceError> for EditError {
    fn from(error: WorkspaceError) -> Self {
        Self::Search(error.into())
    }
}

/// The BLAKE3 hash of a file, in hexadecimal.
///
/// # Errors
///
/// As [`Overlay::read`].
pub async fn hash_file(overlay: &Overlay, path: &str) -> Result<String, WorkspaceError> {
    Ok(BlobId::of(&overlay.read_held(path).await?).to_string())
}

/// Makes several edits, each above the one before; all or none. With `dry_run` they are only tried.
///
/// # Errors
///
/// `ESTALE` when a file is not its `base` any more, and [`EditError`].
pub async fn apply_edits(
    overlay: &Overlay,
    edits: &[FileEdit],
    dry_run: bool,
) -> Result<Vec<EditResult>, EditError> {
    let writes = overlay.child();
    // The bases are those that the plan was made for: the files before any of the edits.
    for edit in edits {
        check_base(overlay, edit).await?;
    }
    let mut results = Vec::with_capacity(edits.len());
    for edit in edits {
        let before = match writes.read_held(&edit.path).await {
            Ok(bytes) => Some(bytes),
            Err(WorkspaceError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let after = match &edit.change {
            FileChange::Write(content) => Some(content.clone()),
            FileChange::Remove => None,
            FileChange::Replace(texts) => {
                let before = before
                    .clone()
                    .ok_or_else(|| WorkspaceError::NotFound(edit.path.clone()))?;
                Some(replaced(&edit.path, &before, texts)?)
            }
        };
        match &after {
            Some(content) => {
                writes
                    .write(&edit.path, content.clone(), &WriteOptions::with_parents())
                    .await?
            }
            None => writes.remove(&edit.path, false, false).await?,
        }
        results.push(result(&edit.path, before.as_ref(), after.as_ref()));
    }
    if !dry_run {
        writes.merge()?;
    }
    Ok(results)
}

/// Replaces a text, literally and everywhere, in all files below `base` that match a glob; all or
/// none. Files that are not UTF-8 text are left alone.
///
/// # Errors
///
/// [`EditError`].
pub async fn replace_in_files(
    overlay: &Overlay,
    pattern: &str,
    base: &str,
    text: (&str, &str),
    dry_run: bool,
) -> Result<Vec<EditResult>, EditError> {
    let (old, new) = text;
    if old.is_empty() {
        return Err(EditError::Text(
            "the text to replace must not be empty".into(),
        ));
    }
    let writes = overlay.child();
    let mut results = Vec::new();
    for found in search::glob(overlay, pattern, base).await? {
        if found.kind != EntryKind::File {
            continue;
        }
        let before = overlay.read_held(&found.path).await?;
        let Some(content) = std::str::from_utf8(&before)
            .ok()
            .filter(|content| content.contains(old))
        else {
            continue;
        };
        let after = Bytes::from(content.replace(old, new));
        writes
            .write(&found.path, after.clone(), &WriteOptions::default())
            .await?;
        results.push(result(&found.path, Some(&before), Some(&after)));
    }
    if !dry_run {
        writes.merge()?;
    }
    Ok(results)
}

async fn check_base(overlay: &Overlay, edit: &FileEdit) -> Result<(), WorkspaceError> {
    let Some(base) = &edit.base else {
        return Ok(());
    };
    let now = match hash_file(overlay, &edit.path).await {
        Ok(hash) => hash,
        Err(WorkspaceError::NotFound(_)) => String::new(),
        Err(error) => return Err(error),
    };
    if now == *base {
        Ok(())
    } else {
        Err(WorkspaceError::Conflict(edit.path.clone()))
    }
}

fn replaced(
    path: &str,
    before: &Bytes,
    texts: &[(String, String, bool)],
) -> Result<Bytes, EditError> {
    let content = std::str::from_utf8(before)
        .map_err(|_| EditError::Text(format!("{path} is not UTF-8 text")))?;
    let texts: Vec<Replacement<'_>> = texts
        .iter()
        .map(|(old, new, all)| Replacement {
            old,
            new,
            all: *all,
        })
        .collect();
    let (after, _) = replace(content, &texts, path).map_err(EditError::Text)?;
    Ok(Bytes::from(after))
}

fn result(path: &str, before: Option<&Bytes>, after: Option<&Bytes>) -> EditResult {
    let text = |bytes: Option<&Bytes>| match bytes {
        Some(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        None => Some(String::new()),
    };
    let names = (
        if before.is_some() { path } else { "/dev/null" },
        if after.is_some() { path } else { "/dev/null" },
    );
    let diff = match (text(before), text(after)) {
        (Some(old), Some(new)) => search::unified_diff(&old, &new, names.0, names.1),
        _ => String::new(),
    };
    EditResult {
        path: path.to_owned(),
        changed: before != after,
        diff,
    }
}
