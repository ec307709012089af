//! Trees as flat lists of files, and back.

use std::collections::BTreeMap;

use super::{
    GitError, ObjectId, ObjectKind, Repository,
    index::Index,
    limits::{PATH_BYTES, TREE_FILES},
    object::{Mode, TreeEntry, render_tree},
    within,
};
use crate::workspace::WorkspaceLimits;

/// The files of a commit: path, mode and content.
pub(crate) type Files = BTreeMap<String, (Mode, ObjectId)>;

impl Repository {
    /// All files of a tree; none for no tree.
    pub(crate) async fn files(&mut self, tree: Option<ObjectId>) -> Result<Files, GitError> {
        let mut files = Files::new();
        let depth = WorkspaceLimits::default().depth;
        let mut pending: Vec<(String, ObjectId, usize)> =
            tree.map(|id| (String::new(), id, 0)).into_iter().collect();
        // Directories are counted too: a few that hold each other many times may have no file at all.
        let (mut names, mut bytes) = (0, 0);
        while let Some((prefix, id, level)) = pending.pop() {
            if level > depth {
                return Err(GitError::Limit {
                    what: "the directories of a commit are too deep".into(),
                    limit: depth as u64,
                });
            }
            for entry in self.tree(id).await? {
                names += 1;
                bytes += prefix.len() + entry.name.len();
                within(names, TREE_FILES as u64, || {
                    "a commit has too many files".into()
                })?;
                within(bytes as u64, PATH_BYTES as u64, || {
                    "the paths of a commit are too long".into()
                })?;
                let path = format!("{prefix}{}", entry.name);
                if entry.mode == Mode::Tree {
                    pending.push((format!("{path}/"), entry.id, level + 1));
                } else {
                    files.insert(path, (entry.mode, entry.id));
                }
            }
        }
        Ok(files)
    }

    /// The files of a commit; none for no commit.
    pub(crate) async fn commit_files(
        &mut self,
        commit: Option<ObjectId>,
    ) -> Result<Files, GitError> {
        let tree = match commit {
            Some(id) => Some(self.commit_at(id).await?.1.tree),
            None => None,
        };
        self.files(tree).await
    }

    /// Writes the trees of an index and gives the topmost.
    pub(crate) async fn write_trees(&mut self, index: &Index) -> Result<ObjectId, GitError> {
        // Directories that are open, each with what it has so far. Entries come in the order of their
        // paths, so a directory is whole as soon as another one begins.
        let mut open: Vec<(String, Vec<TreeEntry>)> = vec![(String::new(), Vec::new())];
        for entry in &index.entries {
            let (dir, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            while open.last().is_some_and(|(at, _)| !inside(dir, at)) {
                self.close(&mut open).await?;
            }
            while let Some(next) = open.last().and_then(|(at, _)| below(dir, at)) {
                open.push((next, Vec::new()));
            }
            if let Some((_, entries)) = open.last_mut() {
                entries.push(TreeEntry {
                    mode: entry.mode,
                    name: name.to_owned(),
                    id: entry.id,
                });
            }
        }
        while open.len() > 1 {
            self.close(&mut open).await?;
        }
        let mut top = open.pop().map(|(_, entries)| entries).unwrap_or_default();
        self.put(ObjectKind::Tree, &render_tree(&mut top)).await
    }

    async fn close(&mut self, open: &mut Vec<(String, Vec<TreeEntry>)>) -> Result<(), GitError> {
        if let Some((path, mut entries)) = open.pop() {
            let id = self
                .put(ObjectKind::Tree, &render_tree(&mut entries))
                .await?;
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            if let Some((_, parent)) = open.last_mut() {
                parent.push(TreeEntry {
                    mode: Mode::Tree,
                    name,
                    id,
                });
            }
        }
        Ok(())
    }
}

/// Whether a directory is `at` or below it.
fn inside(dir: &str, at: &str) -> bool {
    at.is_empty()
        || dir == at
        || dir
            .strip_prefix(at)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// The directory one level below `at` on the way to `dir`.
fn below(dir: &str, at: &str) -> Option<String> {
    if dir == at {
        return None;
    }
    let from = if at.is_empty() { 0 } else { at.len() + 1 };
    let end = dir
        .get(from..)?
        .find('/')
        .map_or(dir.len(), |next| from + next);
    dir.get(..end).map(str::to_owned)
}
