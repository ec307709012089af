//! Changes of an instance's files from outside, each on the condition that the file is what the caller
//! thinks it is.

use bowline_runtime::{Edit, Failure};
use bowline_sandbox::workspace::{ChangeSet, EntryKind, Overlay, WorkspaceError, WriteOptions};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::program::workspace_failure;

/// A change of one path of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum FileEdit {
    /// Writes a file; its folders are made.
    Write {
        /// The path, relative to `/workspace`.
        path: String,
        /// What it has to be before.
        #[serde(default)]
        when: When,
    },
    /// Removes a file, a link, or a folder.
    Remove {
        /// The path, relative to `/workspace`.
        path: String,
        /// Whether a folder may have something in it.
        recursive: bool,
        /// What it has to be before.
        #[serde(default)]
        when: When,
    },
}

/// What a file has to be before it is changed. Tags are those of [`tag`]; `*` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct When {
    /// One of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<String>>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches_none: Option<Vec<String>>,
}

impl When {
    /// Whether what is there, by its tag, is what it has to be.
    pub fn fits(&self, tag: Option<&str>) -> bool {
        let among = |tags: &Vec<String>| {
            tag.is_some_and(|tag| tags.iter().any(|one| one == "*" || one == tag))
        };
        self.matches.as_ref().is_none_or(among) && !self.matches_none.as_ref().is_some_and(among)
    }
}

impl FileEdit {
    /// As the runtime takes it, with the content of a file that is written.
    pub fn with(self, content: Bytes) -> Edit {
        Edit {
            // Strings and flags, which always have a JSON form.
            what: serde_json::to_value(self).unwrap_or_default(),
            bytes: content,
        }
    }
}

/// Names what is in a file: the same content has the same tag, other content another one. `None` when
/// there is no file.
///
/// # Errors
///
/// When it cannot be read.
pub async fn tag(overlay: &Overlay, path: &str) -> Result<Option<String>, WorkspaceError> {
    match overlay.stat(path).await {
        Ok(stat) if stat.kind == EntryKind::File => {
            let print = overlay.fingerprint(path).await?;
            Ok(Some(format!("{print:016x}-{:x}", stat.size)))
        }
        Ok(_) | Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a change in an overlay; returns what changes, and what the caller is told.
pub(crate) async fn make(overlay: &Overlay, edit: &Edit) -> Result<(ChangeSet, Value), Failure> {
    let asked: FileEdit = serde_json::from_value(edit.what.clone()).map_err(|error| {
        let what = format!("not a change of files: {error}");
        Failure::new("workspace_invalid", what, "")
    })?;
    let failed = |error: WorkspaceError| workspace_failure(&error);
    let (FileEdit::Write { path, when } | FileEdit::Remove { path, when, .. }) = &asked;
    let before = tag(overlay, path).await.map_err(failed)?;
    if !when.fits(before.as_deref()) {
        return Err(Failure::new(
            "file_changed",
            "the file is not what the request says it is",
            "read it again, then repeat the change",
        ));
    }
    let told = match &asked {
        FileEdit::Write { path, .. } => {
            let options = WriteOptions::with_parents();
            let content = edit.bytes.clone();
            let size = content.len();
            overlay
                .write(path, content, &options)
                .await
                .map_err(failed)?;
            let tag = tag(overlay, path).await.map_err(failed)?;
            json!({"created": before.is_none(), "size": size, "tag": tag})
        }
        FileEdit::Remove {
            path, recursive, ..
        } => {
            let removed = overlay.remove(path, *recursive, false).await;
            removed.map_err(failed)?;
            json!({})
        }
    };
    let mut changes = overlay.changes().map_err(failed)?;
    if !changes.is_empty() {
        changes.sign("a caller from outside").map_err(failed)?;
    }
    Ok((changes, told))
}
