//! What the model has seen of each file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    EditInput, Files, ReadInput, ToolFailure, ToolOutput, WriteInput, edit, expand, read, write,
};
use crate::workspace::{WorkspaceError, absolute};

/// Files that are remembered; the one that was not seen for longest is forgotten first.
const MAX_SEEN: usize = 200;

/// Remembers the files that the model has read or written, so that `write` and `edit` can say when
/// one of them has become another since. The owner keeps it with the conversation; it is JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Path → (when, counted in calls; fingerprint).
    files: BTreeMap<String, (u64, u64)>,
    calls: u64,
}

impl Seen {
    /// As [`read()`], and remembers the file.
    ///
    /// # Errors
    ///
    /// As [`read()`].
    pub async fn read(
        &mut self,
        files: &(impl Files + ?Sized),
        input: ReadInput,
    ) -> Result<ToolOutput, ToolFailure> {
        let path = place(files, &input.path);
        let output = read(files, input).await?;
        self.remember(files, path).await?;
        Ok(output)
    }

    /// As [`write()`], with a note when the file was changed since the model saw it.
    ///
    /// # Errors
    ///
    /// As [`write()`].
    pub async fn write(
        &mut self,
        files: &(impl Files + ?Sized),
        input: WriteInput,
    ) -> Result<ToolOutput, ToolFailure> {
        let path = place(files, &input.path);
        let note = self.note(files, &path, "replaced").await?;
        let mut output = write(files, input).await?;
        output.text.push_str(&note);
        self.remember(files, path).await?;
        Ok(output)
    }

    /// As [`edit()`], with a note when the file was changed since the model saw it.
    ///
    /// # Errors
    ///
    /// As [`edit()`].
    pub async fn edit(
        &mut self,
        files: &(impl Files + ?Sized),
        input: EditInput,
    ) -> Result<ToolOutput, ToolFailure> {
        let path = place(files, &input.path);
        let note = self.note(files, &path, "kept").await?;
        let mut output = edit(files, input).await?;
        output.text.push_str(&note);
        // With such a note the model has not seen the rest of the file.
        if note.is_empty() && self.files.contains_key(&path) {
            self.remember(files, path).await?;
        } else {
            self.files.remove(&path);
        }
        Ok(output)
    }

    async fn note(
        &self,
        files: &(impl Files + ?Sized),
        path: &str,
        fate: &str,
    ) -> Result<String, WorkspaceError> {
        let Some((_, seen)) = self.files.get(path) else {
            return Ok(String::new());
        };
        let what = match files.fingerprint(path).await {
            Ok(now) if now == *seen => return Ok(String::new()),
            Ok(_) => format!("had been changed since you last read it; those changes were {fate}"),
            Err(WorkspaceError::NotFound(_)) => "had been removed since you last read it".into(),
            Err(error @ WorkspaceError::Store(_)) => return Err(error),
            Err(_) => return Ok(String::new()),
        };
        Ok(format!("\n\n[Note: the file {what}.]"))
    }

    async fn remember(
        &mut self,
        files: &(impl Files + ?Sized),
        path: String,
    ) -> Result<(), WorkspaceError> {
        self.calls += 1;
        let now = files.fingerprint(&path).await?;
        self.files.insert(path, (self.calls, now));
        if self.files.len() > MAX_SEEN
            && let Some(oldest) = self
                .files
                .iter()
                .min_by_key(|(_, (when, _))| *when)
                .map(|(path, _)| path.clone())
        {
            self.files.remove(&oldest);
        }
        Ok(())
    }
}

fn place(files: &(impl Files + ?Sized), path: &str) -> String {
    absolute(&expand(files, path), files.working_directory())
}
