//! Differences between commits, the index and the working tree, as `git diff` shows them.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    GitError, ObjectId, ObjectKind, Repository, limits::DIFF_BYTES, object::Mode,
    repository::below, status::FileState, tree::Files, within,
};
use crate::search::{MAX_DIFF, unified_diff};

/// One side of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffSide {
    /// Nothing.
    Empty,
    /// A commit.
    Commit(ObjectId),
    /// The index.
    Index,
    /// The working tree, of the files that the index has.
    WorkTree,
}

/// A file that differs between two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Relative to the repository.
    pub path: String,
    /// How.
    pub state: FileState,
    pub(crate) old: Option<(Mode, ObjectId)>,
    pub(crate) new: Option<(Mode, ObjectId)>,
}

/// What differs between two sets of files.
pub(crate) fn compare(old: &Files, new: &Files) -> Vec<FileChange> {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |path: &String| {
        let (old, new) = (old.get(path).copied(), new.get(path).copied());
        let state = match (&old, &new) {
            (old, new) if old == new => return None,
            (None, _) => FileState::Added,
            (_, None) => FileState::Deleted,
            _ => FileState::Modified,
        };
        Some(FileChange {
            path: path.clone(),
            state,
            old,
            new,
        })
    };
    paths.into_iter().filter_map(change).collect()
}

impl Repository {
    async fn side(&mut self, side: DiffSide, paths: &[String]) -> Result<Files, GitError> {
        let mut files = match side {
            DiffSide::Empty => Files::new(),
            DiffSide::Commit(id) => self.commit_files(Some(id)).await?,
            DiffSide::Index => {
                let index = self.index().await?;
                index
                    .entries
                    .into_iter()
                    .map(|entry| (entry.path, (entry.mode, entry.id)))
                    .collect()
            }
            DiffSide::WorkTree => {
                let index = self.index().await?;
                let mut files = Files::new();
                for entry in index
                    .entries
                    .iter()
                    .filter(|entry| wanted(&entry.path, paths))
                {
                    if self.compare(&index, entry).await? == FileState::Same {
                        files.insert(entry.path.clone(), (entry.mode, entry.id));
                    } else if let Some(stat) = self.stat_file(&entry.path).await? {
                        let (mode, content) = self.content(&entry.path, &stat).await?;
                        files.insert(
                            entry.path.clone(),
                            (mode, ObjectId::of(ObjectKind::Blob, &content)),
                        );
                    }
                }
                files
            }
        };
        files.retain(|path, _| wanted(path, paths));
        Ok(files)
    }

    /// The files that differ between two sides, below these paths (none means all).
    ///
    /// # Errors
    ///
    /// [`GitError::Corrupt`], [`GitError::Workspace`].
    pub async fn changes(
        &mut self,
        old: DiffSide,
        new: DiffSide,
        paths: &[String],
    ) -> Result<Vec<FileChange>, GitError> {
        let (old, new) = (self.side(old, paths).await?, self.side(new, paths).await?);
        Ok(compare(&old, &new))
    }

    /// The differences as a unified diff.
    ///
    /// # Errors
    ///
    /// As [`Repository::changes`]; [`GitError::Limit`] beyond [`super::limits::DIFF_BYTES`].
    pub async fn diff(
        &mut self,
        old: DiffSide,
        new: DiffSide,
        paths: &[String],
    ) -> Result<String, GitError> {
        let mut out = String::new();
        for change in self.changes(old, new, paths).await? {
            out.push_str(
                &self
                    .render_change(&change, new == DiffSide::WorkTree)
                    .await?,
            );
            within(out.len() as u64, DIFF_BYTES, || {
                "the differences are too long".into()
            })?;
        }
        Ok(out)
    }

    /// Both contents of a changed file; `live` takes the new one from the working tree.
    pub(crate) async fn sides(
        &mut self,
        change: &FileChange,
        live: bool,
    ) -> Result<(Bytes, Bytes), GitError> {
        let module = |id: ObjectId| Bytes::from(format!("Subproject commit {id}\n"));
        let old = match change.old {
            Some((Mode::Module, id)) => module(id),
            Some((_, id)) => self.blob(id).await?,
            None => Bytes::new(),
        };
        let new = match change.new {
            Some((Mode::Module, id)) => module(id),
            Some(_) if live => match self.stat_file(&change.path).await? {
                Some(stat) => self.content(&change.path, &stat).await?.1,
                None => Bytes::new(),
            },
            Some((_, id)) => self.blob(id).await?,
            None => Bytes::new(),
        };
        Ok((old, new))
    }

    /// One file of a diff.
    pub(crate) async fn render_change(
        &mut self,
        change: &FileChange,
        live: bool,
    ) -> Result<String, GitError> {
        let (old, new) = self.sides(change, live).await?;
        let path = &change.path;
        let mut out = format!("diff --git a/{path} b/{path}\n");
        let bits = |side: &Option<(Mode, ObjectId)>| side.map_or(0, |(mode, _)| mode.bits());
        let (from, to) = (bits(&change.old), bits(&change.new));
        match (from, to) {
            (0, to) => out.push_str(&format!("new file mode {to:06o}\n")),
            (from, 0) => out.push_str(&format!("deleted file mode {from:06o}\n")),
            (from, to) if from != to => {
                out.push_str(&format!("old mode {from:06o}\nnew mode {to:06o}\n"))
            }
            _ => {}
        }
        let short =
            |side: &Option<(Mode, ObjectId)>| side.map_or("0000000".into(), |(_, id)| id.short());
        if old != new || from == 0 || to == 0 {
            let mode = if from == to {
                format!(" {to:06o}")
            } else {
                String::new()
            };
            out.push_str(&format!(
                "index {}..{}{mode}\n",
                short(&change.old),
                short(&change.new)
            ));
        }
        let name = |side: &str, bits: u32| {
            if bits == 0 {
                "/dev/null".into()
            } else {
                format!("{side}/{path}")
            }
        };
        let (from, to) = (name("a", from), name("b", to));
        match (text(&old), text(&new)) {
            (Some(old), Some(new)) => out.push_str(&tidy(&unified_diff(old, new, &from, &to))),
            _ if old != new => out.push_str(&format!("Binary files {from} and {to} differ\n")),
            _ => {}
        }
        Ok(out)
    }

    /// Added and removed lines of a file; none for one that is not text.
    pub(crate) async fn counted(
        &mut self,
        change: &FileChange,
        live: bool,
    ) -> Result<Option<(usize, usize)>, GitError> {
        let (old, new) = self.sides(change, live).await?;
        let (Some(old), Some(new)) = (text(&old), text(&new)) else {
            return Ok(None);
        };
        let diff = unified_diff(old, new, "a", "b");
        let body = diff.lines().skip(2);
        let count = |sign: char| body.clone().filter(|line| line.starts_with(sign)).count();
        Ok(Some((count('+'), count('-'))))
    }
}

pub(crate) fn wanted(path: &str, paths: &[String]) -> bool {
    paths.is_empty() || paths.iter().any(|other| below(path, other))
}

/// Content that can be compared by lines.
pub(crate) fn text(content: &Bytes) -> Option<&str> {
    if content.len() as u64 > MAX_DIFF || content.iter().take(8000).any(|byte| *byte == 0) {
        return None;
    }
    std::str::from_utf8(content).ok()
}

/// The diff as git writes it: a length of one is left out, and so is a blank line's context mark.
fn tidy(diff: &str) -> String {
    let mut out = String::with_capacity(diff.len());
    for line in diff.split_inclusive('\n') {
        if let Some(ranges) = line
            .strip_prefix("@@ ")
            .and_then(|line| line.strip_suffix(" @@\n"))
        {
            let short = ranges
                .split(' ')
                .map(|range| range.strip_suffix(",1").unwrap_or(range));
            out.push_str(&format!("@@ {} @@\n", short.collect::<Vec<_>>().join(" ")));
        } else {
            out.push_str(line);
        }
    }
    out
}
