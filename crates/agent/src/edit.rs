//! Changes of an instance's files from outside: of single files on the condition that the file is what the
//! caller thinks it is, of all of them by snapshots and archives.

use bowline_runtime::{Edit, Failure};
use bowline_sandbox::{
    archive::{self, ArchiveError},
    workspace::{ChangeSet, EntryKind, Overlay, Workspace, WorkspaceError, WriteOptions},
};
use bowline_store::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::program::workspace_failure;

/// Who made a change when nobody says so.
const ORIGIN: &str = "a caller from outside";

/// A change of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum FileEdit {
    /// Writes a file; its folders are made.
    Write {
        /// The path, relative to `/workspace`.
        path: String,
        /// Its permission bits; as those of the file that it replaces, else `0o644`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
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
    /// Unpacks an archive: all of it, or nothing.
    Unpack {
        /// The folder, relative to `/workspace`; it is made.
        path: String,
    },
    /// Freezes the files under a name.
    Snapshot {
        /// The name, which no other snapshot has.
        name: String,
    },
    /// Removes a snapshot.
    RemoveSnapshot {
        /// Its name.
        name: String,
    },
    /// Makes the files what they were in a snapshot.
    Restore {
        /// Its name.
        name: String,
    },
}

/// A change, and who is said to have made it.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    origin: String,
    edit: FileEdit,
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
    /// As the runtime takes it, with the content of the file that is written, or the archive.
    pub fn with(self, content: Bytes) -> Edit {
        self.signed(ORIGIN, content)
    }

    /// The same, and the log of the files says that `origin` did it.
    pub fn signed(self, origin: impl Into<String>, content: Bytes) -> Edit {
        let asked = Asked {
            origin: origin.into(),
            edit: self,
        };
        Edit {
            // Strings and flags, which always have a JSON form.
            what: serde_json::to_value(asked).unwrap_or_default(),
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

/// Works a change out above the files as they are committed; returns what changes, and what the caller is
/// told: of a file that was written `created`, `size` and `tag`; of an archive `files`, `directories`,
/// `links` and `bytes`. Nothing is committed: that is for whoever is the only writer.
///
/// # Errors
///
/// `file_changed` when a file is not what it has to be, and what the workspace says.
pub async fn make(
    files: &Workspace,
    now: Timestamp,
    edit: &Edit,
) -> Result<(ChangeSet, Value), Failure> {
    let Asked {
        origin,
        edit: asked,
    } = serde_json::from_value(edit.what.clone()).map_err(|error| {
        let what = format!("not a change of files: {error}");
        Failure::new("workspace_invalid", what, "")
    })?;
    let failed = |error: WorkspaceError| workspace_failure(&error);
    let overlay = files.begin(now).await.map_err(failed)?;
    let content = edit.bytes.clone();
    let (whole, told) = match &asked {
        FileEdit::Write { path, mode, when } => {
            let before = checked(&overlay, path, when).await?;
            let size = content.len();
            let options = WriteOptions {
                mode: *mode,
                ..WriteOptions::with_parents()
            };
            let written = overlay.write(path, content, &options).await;
            written.map_err(failed)?;
            let tag = tag(&overlay, path).await.map_err(failed)?;
            let told = json!({"created": before.is_none(), "size": size, "tag": tag});
            (None, told)
        }
        FileEdit::Remove {
            path,
            recursive,
            when,
        } => {
            checked(&overlay, path, when).await?;
            let removed = overlay.remove(path, *recursive, false).await;
            removed.map_err(failed)?;
            (None, json!({}))
        }
        FileEdit::Unpack { path } => {
            let unpacked = archive::unpack_archive(&overlay, content, path).await;
            let all = unpacked.map_err(archive_failure)?;
            let told = json!({
                "files": all.files, "directories": all.directories, "links": all.links,
                "bytes": all.bytes,
            });
            (None, told)
        }
        FileEdit::Snapshot { name } => (Some(files.snapshot(name, now).await), json!({})),
        FileEdit::RemoveSnapshot { name } => {
            (Some(files.remove_snapshot(name, now).await), json!({}))
        }
        FileEdit::Restore { name } => (Some(files.restore(name, now).await), json!({})),
    };
    let changes = whole.unwrap_or_else(|| overlay.changes());
    let mut changes = changes.map_err(failed)?;
    if !changes.is_empty() {
        changes.sign(origin).map_err(failed)?;
    }
    Ok((changes, told))
}

/// The tag of the file, which has to be what the caller thinks it is.
async fn checked(overlay: &Overlay, path: &str, when: &When) -> Result<Option<String>, Failure> {
    let before = tag(overlay, path).await;
    let before = before.map_err(|error| workspace_failure(&error))?;
    if when.fits(before.as_deref()) {
        return Ok(before);
    }
    Err(Failure::new(
        "file_changed",
        "the file is not what the request says it is",
        "read it again, then repeat the change",
    ))
}

/// What an archive is refused with.
pub fn archive_failure(error: ArchiveError) -> Failure {
    match error {
        ArchiveError::Workspace(error) => workspace_failure(&error),
        error @ (ArchiveError::Unsafe { .. }
        | ArchiveError::Malformed(_)
        | ArchiveError::Members) => Failure::new(
            "workspace_invalid",
            error.to_string(),
            "nothing was changed",
        ),
    }
}
