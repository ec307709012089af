//! Putting commits into the working tree.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    GitError, ObjectId, Repository,
    index::{Index, entry_of},
    object::{Mode, safe_path},
    refs::{self, Head},
    tree::Files,
};
use crate::workspace::{EntryKind, WorkspaceError, WriteOptions};

/// Files that a message names.
const NAMED: usize = 20;

impl Repository {
    /// Moves the working tree and the index from one commit's files to another's, without losing
    /// anything: what was changed and would be overwritten is an error, all other changes stay.
    pub(crate) async fn switch_files(
        &mut self,
        old: &Files,
        new: &Files,
        doing: &str,
    ) -> Result<(), GitError> {
        let mut index = self.index().await?;
        let changes = super::changes::compare(old, new);
        let (mut changed, mut untracked) = (Vec::new(), Vec::new());
        for change in &changes {
            let entry = index.get(&change.path).cloned();
            let staged = entry.as_ref().map(|entry| (entry.mode, entry.id));
            if staged == change.new && staged.is_some() {
                continue;
            }
            if staged != change.old {
                changed.push(change.path.clone());
                continue;
            }
            match entry {
                Some(entry) => {
                    if self.compare(&index, &entry).await? == super::FileState::Modified {
                        changed.push(change.path.clone());
                    }
                }
                None => {
                    if self.in_the_way(&change.path, change.new, &index).await? {
                        untracked.push(change.path.clone());
                    }
                }
            }
        }
        for (paths, what, fix) in [
            (
                &changed,
                "Your local changes to the following files",
                "Please commit your changes before you go on.",
            ),
            (
                &untracked,
                "The following untracked working tree files",
                "Please move or remove them before you go on.",
            ),
        ] {
            if !paths.is_empty() {
                let list: String = paths
                    .iter()
                    .take(NAMED)
                    .map(|path| format!("\t{path}\n"))
                    .collect();
                return Err(GitError::Refused(format!(
                    "error: {what} would be overwritten by {doing}:\n{list}{fix}\nAborting"
                )));
            }
        }
        for change in changes.iter().filter(|change| change.new.is_none()) {
            if index.get(&change.path).is_some() {
                self.remove_file(&change.path).await?;
            }
            index.remove(&change.path);
        }
        for change in &changes {
            let Some((mode, id)) = change.new else {
                continue;
            };
            if index
                .get(&change.path)
                .is_some_and(|entry| (entry.mode, entry.id) == (mode, id))
            {
                continue;
            }
            self.write_file(&change.path, mode, id, &mut index).await?;
        }
        self.set_index(&index).await
    }

    /// Whether something that git does not know stands where a file should come.
    async fn in_the_way(
        &mut self,
        path: &str,
        new: Option<(Mode, ObjectId)>,
        index: &Index,
    ) -> Result<bool, GitError> {
        for (end, _) in path.match_indices('/') {
            // What is behind a link is not in the working tree; a link that git knows may go.
            match self.overlay.lstat(&self.place(&path[..end])).await {
                Ok(stat) if stat.kind == EntryKind::Symlink => {
                    return Ok(index.get(&path[..end]).is_none());
                }
                Ok(_) => {}
                Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut at = path;
        loop {
            match self.overlay.lstat(&self.place(at)).await {
                Ok(stat) if at == path => {
                    if stat.kind == EntryKind::Directory {
                        // What is in it may be known, and go.
                        return Ok(!index.has_below(path)
                            && !self.overlay.list(&self.place(at)).await?.is_empty());
                    }
                    let (mode, content) = self.content(path, &stat).await?;
                    let id = ObjectId::of(super::ObjectKind::Blob, &content);
                    return Ok(Some((mode, id)) != new);
                }
                Ok(stat) => return Ok(stat.kind != EntryKind::Directory && index.get(at).is_none()),
                Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => {}
                Err(error) => return Err(error.into()),
            }
            match at.rsplit_once('/') {
                Some((parent, _)) => at = parent,
                None => return Ok(false),
            }
        }
    }

    /// Writes a file of a commit into the working tree and the index.
    pub(crate) async fn write_file(
        &mut self,
        path: &str,
        mode: Mode,
        id: ObjectId,
        index: &mut Index,
    ) -> Result<(), GitError> {
        if !safe_path(path) {
            return Err(super::corrupt(format!(
                "the path '{}' is refused",
                path.escape_debug()
            )));
        }
        let place = self.place(path);
        self.clear_way(path).await?;
        match mode {
            Mode::Module => self.overlay.mkdir(&place, true).await?,
            Mode::Link => {
                let target = String::from_utf8(self.blob(id).await?.to_vec()).map_err(|_| {
                    GitError::Unsupported("a link whose target is not UTF-8".into())
                })?;
                if let Some((parent, _)) = place
                    .rsplit_once('/')
                    .filter(|(parent, _)| !parent.is_empty())
                {
                    self.overlay.mkdir(parent, true).await?;
                }
                self.overlay.symlink(&target, &place).await?;
            }
            Mode::File | Mode::Executable | Mode::Tree => {
                let content = self.blob(id).await?;
                let options = WriteOptions {
                    parents: true,
                    mode: Some(if mode == Mode::Executable {
                        0o755
                    } else {
                        0o644
                    }),
                    ..WriteOptions::default()
                };
                self.overlay.write(&place, content, &options).await?;
            }
        }
        let stat = self.overlay.lstat(&place).await?;
        index.put(entry_of(path, mode, id, Some(&stat)));
        Ok(())
    }

    /// Removes a file or link at a path, and files or links where its directories should be, so that
    /// nothing is ever written through a link.
    async fn clear_way(&mut self, path: &str) -> Result<(), GitError> {
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        for end in ends {
            let place = self.place(&path[..end]);
            match self.overlay.lstat(&place).await {
                Ok(stat) if stat.kind == EntryKind::Directory && end < path.len() => {}
                Ok(stat) if stat.kind == EntryKind::Directory => {
                    // Git removes a directory that has become empty.
                    self.overlay.remove(&place, false, true).await?;
                }
                Ok(_) => self.overlay.remove(&place, false, true).await?,
                Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes a file, and the directories that are empty then.
    pub(crate) async fn remove_file(&mut self, path: &str) -> Result<(), GitError> {
        if self.behind_link(path).await? {
            return Ok(());
        }
        match self.overlay.lstat(&self.place(path)).await {
            Ok(stat) if stat.kind == EntryKind::Directory => return Ok(()),
            Ok(_) => self.overlay.remove(&self.place(path), false, true).await?,
            Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut at = path;
        while let Some((parent, _)) = at.rsplit_once('/') {
            match self.overlay.remove(&self.place(parent), false, true).await {
                Ok(()) => at = parent,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Changes to a branch, or to a commit (`HEAD` is then detached). Changes in the working tree are
    /// kept where they do not stand in the way.
    ///
    /// # Errors
    ///
    /// [`GitError::Refused`] when something would be overwritten, [`GitError::Unknown`].
    pub async fn checkout(&mut self, target: &str) -> Result<Option<String>, GitError> {
        let branch = format!("refs/heads/{target}");
        let (head, id) = if refs::valid(&branch) && self.resolve_ref(&branch).await?.is_some() {
            let id = self.resolve_ref(&branch).await?;
            (Head::Branch(target.to_owned()), id)
        } else {
            let id = self.resolve(target).await?;
            let id = self.commit_at(id).await?.0;
            (Head::Detached(id), Some(id))
        };
        let before = self.head_id().await?;
        let (old, new) = (
            self.commit_files(before).await?,
            self.commit_files(id).await?,
        );
        self.switch_files(&old, &new, "checkout").await?;
        self.set_head(&head).await?;
        Ok(match head {
            Head::Branch(name) => Some(name),
            Head::Detached(_) => None,
        })
    }

    /// Makes a branch at a commit.
    ///
    /// # Errors
    ///
    /// [`GitError::Refused`] when it exists or its name is not valid.
    pub async fn create_branch(
        &mut self,
        name: &str,
        at: ObjectId,
        force: bool,
    ) -> Result<(), GitError> {
        let full = format!("refs/heads/{name}");
        if !refs::valid(&full) || name.starts_with('-') || name == "HEAD" {
            return Err(GitError::Refused(format!(
                "fatal: '{name}' is not a valid branch name"
            )));
        }
        if !force && self.resolve_ref(&full).await?.is_some() {
            return Err(GitError::Refused(format!(
                "fatal: a branch named '{name}' already exists"
            )));
        }
        let (id, _) = self.commit_at(at).await?;
        self.set_ref(&full, id).await
    }

    /// The branches, by name, with their commits.
    ///
    /// # Errors
    ///
    /// [`GitError::Corrupt`], [`GitError::Workspace`].
    pub async fn branches(&self) -> Result<BTreeMap<String, ObjectId>, GitError> {
        let refs = self.refs("refs/heads/").await?;
        let short = |name: &str| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
        Ok(refs.iter().map(|(name, id)| (short(name), *id)).collect())
    }

    /// Removes a branch; one whose commits are not in `HEAD` only with `force`.
    ///
    /// # Errors
    ///
    /// [`GitError::Refused`], [`GitError::Unknown`].
    pub async fn delete_branch(&mut self, name: &str, force: bool) -> Result<ObjectId, GitError> {
        let full = format!("refs/heads/{name}");
        let id = match refs::valid(&full) {
            true => self.resolve_ref(&full).await?,
            false => None,
        };
        let id =
            id.ok_or_else(|| GitError::Unknown(format!("error: branch '{name}' not found")))?;
        if self.head().await? == Head::Branch(name.to_owned()) {
            return Err(GitError::Refused(format!(
                "error: cannot delete branch '{name}' used by worktree at '{}'",
                self.root
            )));
        }
        let merged = match self.head_id().await? {
            Some(head) => self.is_ancestor(id, head).await?,
            None => false,
        };
        if !force && !merged {
            return Err(GitError::Refused(format!(
                "error: the branch '{name}' is not fully merged\nhint: If you are sure you want to delete it, run 'git branch -D {name}'"
            )));
        }
        self.delete_ref(&full).await?;
        Ok(id)
    }

    /// Takes files from a commit, or without one from the index, into the working tree; changes in them
    /// are lost, as they are in git.
    ///
    /// # Errors
    ///
    /// [`GitError::Unknown`] when a path matches nothing.
    pub async fn restore(
        &mut self,
        from: Option<ObjectId>,
        paths: &[String],
    ) -> Result<usize, GitError> {
        let mut index = self.index().await?;
        let files: Files = match from {
            Some(id) => self.commit_files(Some(id)).await?,
            None => index
                .entries
                .iter()
                .map(|entry| (entry.path.clone(), (entry.mode, entry.id)))
                .collect(),
        };
        let mut done = 0;
        for path in paths {
            let chosen: Vec<_> = files
                .iter()
                .filter(|(file, _)| super::repository::below(file, path))
                .collect();
            if chosen.is_empty() {
                return Err(GitError::Unknown(format!(
                    "error: pathspec '{path}' did not match any file(s) known to git"
                )));
            }
            for (file, (mode, id)) in chosen {
                self.write_file(file, *mode, *id, &mut index).await?;
                done += 1;
            }
        }
        self.set_index(&index).await?;
        Ok(done)
    }

    /// Makes the index of these paths (none means all) as it is in a commit (`git reset`).
    pub(crate) async fn unstage(
        &mut self,
        from: Option<ObjectId>,
        paths: &[String],
    ) -> Result<(), GitError> {
        let mut index = self.index().await?;
        let files = self.commit_files(from).await?;
        let known: Vec<String> = index
            .entries
            .iter()
            .map(|entry| entry.path.clone())
            .collect();
        for path in known
            .iter()
            .filter(|path| super::changes::wanted(path, paths) && !files.contains_key(*path))
        {
            index.remove(path);
        }
        for (path, (mode, id)) in files
            .iter()
            .filter(|(path, _)| super::changes::wanted(path, paths))
        {
            if index
                .get(path)
                .is_none_or(|entry| (entry.mode, entry.id) != (*mode, *id))
            {
                index.put(entry_of(path, *mode, *id, None));
            }
        }
        self.set_index(&index).await
    }

    /// Makes the index and all files that git knows as they are in a commit (`git reset --hard`).
    pub(crate) async fn reset_hard(&mut self, to: Option<ObjectId>) -> Result<(), GitError> {
        let mut index = self.index().await?;
        let files = self.commit_files(to).await?;
        let known: Vec<String> = index
            .entries
            .iter()
            .map(|entry| entry.path.clone())
            .collect();
        for path in known.iter().filter(|path| !files.contains_key(*path)) {
            self.remove_file(path).await?;
            index.remove(path);
        }
        for (path, (mode, id)) in &files {
            let same = match index.get(path) {
                Some(entry) if (entry.mode, entry.id) == (*mode, *id) => {
                    self.compare(&index, entry).await? == super::FileState::Same
                }
                _ => false,
            };
            if !same {
                self.write_file(path, *mode, *id, &mut index).await?;
            }
        }
        self.set_index(&index).await
    }

    /// Writes a merged text, which has no object yet.
    pub(crate) async fn put_blob(&mut self, content: &[u8]) -> Result<ObjectId, GitError> {
        self.put(super::ObjectKind::Blob, &Bytes::copy_from_slice(content))
            .await
    }
}
