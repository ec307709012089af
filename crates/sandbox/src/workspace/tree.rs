//! Operations on whole trees: remove, move, copy, walk.

use std::{collections::HashMap, sync::Arc};

use super::{
    Overlay, WorkspaceError,
    entry::{DirId, Entry, EntryKind, Names, Node},
    limits::SUMMARY_PATHS,
    ops::put,
    overlay::{Edit, Put},
    path,
    walked::Walked,
};

/// A directory that is still to be visited.
struct Pending {
    dir: DirId,
    path: String,
    /// The directory's copy, while copying.
    copy: DirId,
    copy_path: String,
}

impl Overlay {
    /// Removes a file, a link (not what it points to) or an empty directory; with `recursive` a
    /// directory with all that is in it; with `force` something missing is fine.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTEMPTY`, `EINVAL` for the root, and as [`Overlay::stat`].
    pub async fn remove(
        &self,
        path: &str,
        recursive: bool,
        force: bool,
    ) -> Result<(), WorkspaceError> {
        not_dots(path)?;
        let found = match self.locate(path, false).await {
            Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) if force => {
                return Ok(());
            }
            found => found?,
        };
        if found.walked.is_root() {
            return Err(WorkspaceError::Invalid(
                "the root directory cannot be removed".into(),
            ));
        }
        let mut edit = Edit::default();
        if let Node::Directory(id) = found.entry.node {
            self.gather_removal(id, path, &found.walked.path(), recursive, &mut edit)
                .await?;
        }
        edit.puts.push(put(&found.walked, None));
        self.apply(edit)
    }

    async fn gather_removal(
        &self,
        dir: DirId,
        asked: &str,
        real: &str,
        recursive: bool,
        edit: &mut Edit,
    ) -> Result<(), WorkspaceError> {
        let mut pending = vec![(dir, real.to_owned())];
        while let Some((dir, at)) = pending.pop() {
            edit.gone.push(dir);
            let names = self.run(|| Ok(self.peek_list(dir)?)).await?;
            if !recursive && !names.is_empty() {
                return Err(WorkspaceError::NotEmpty(asked.into()));
            }
            for (name, entry) in names {
                edit.gone_entries += 1;
                edit.gone_bytes += entry.charged();
                let path = path::join(&at, &name);
                if let Node::Directory(id) = entry.node {
                    pending.push((id, path.clone()));
                }
                if edit.gone_paths.len() < SUMMARY_PATHS {
                    edit.gone_paths.push((path, entry.kind()));
                } else {
                    edit.gone_omitted += 1;
                }
            }
        }
        Ok(())
    }

    /// Moves a file, link or directory as POSIX `rename` does: a file replaces a file, a directory an
    /// empty directory; onto itself changes nothing. Moving a directory is one row, whatever is in it.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EISDIR`, `ENOTDIR`, `ENOTEMPTY`, `EINVAL` for the root or into itself, and as
    /// [`Overlay::write`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), WorkspaceError> {
        not_dots(from)?;
        not_dots(to)?;
        let source = self.locate(from, false).await?;
        if source.walked.is_root() {
            return Err(WorkspaceError::Invalid(
                "the root directory cannot be moved".into(),
            ));
        }
        let names = path::split(to, &self.0.shared.limits)?;
        let target = self.run(|| self.walk(to, &names, false)).await?;
        if !target.missing.is_empty() {
            return Err(WorkspaceError::NotFound(to.into()));
        }
        if same(&source.walked, &target) {
            return Ok(());
        }
        self.check_target(&source.entry, &target, from, to)?;
        let mut edit = Edit::default();
        if let Some(Node::Directory(id)) = target.entry.as_ref().map(|entry| &entry.node) {
            self.gather_removal(*id, to, &target.path(), false, &mut edit)
                .await?;
        }
        self.check_depth(&target)?;
        let moved = self.in_memory(&source.entry).await?;
        edit.puts.push(put(&source.walked, None));
        edit.puts.push(put(&target, Some(moved)));
        self.apply(edit)
    }

    /// Whether `source` may take the place of `target`.
    fn check_target(
        &self,
        source: &Entry,
        target: &Walked,
        from: &str,
        to: &str,
    ) -> Result<(), WorkspaceError> {
        if let Node::Directory(id) = source.node
            && (target.is_root() || target.dirs.iter().any(|(dir, _)| *dir == id))
        {
            return Err(WorkspaceError::Invalid(format!(
                "cannot put a directory into itself: {from} to {to}"
            )));
        }
        match (
            source.kind(),
            target.entry.as_ref().map(|entry| entry.kind()),
        ) {
            (_, None) | (EntryKind::Directory, Some(EntryKind::Directory)) => Ok(()),
            (EntryKind::Directory, Some(_)) => Err(WorkspaceError::NotDirectory(to.into())),
            (_, Some(EntryKind::Directory)) => Err(WorkspaceError::IsDirectory(to.into())),
            (_, Some(_)) => Ok(()),
        }
    }

    /// Copies a file over `to`, or with `recursive` a directory, whose entries are added to a directory
    /// that exists. Links are copied as links, except that `from` itself is followed without
    /// `recursive`. Content is shared, not copied. All or nothing.
    ///
    /// # Errors
    ///
    /// `EISDIR` for a directory without `recursive` or when a file would replace a directory,
    /// `ENOTDIR`, `EINVAL` into itself, and as [`Overlay::write`].
    pub async fn copy(&self, from: &str, to: &str, recursive: bool) -> Result<(), WorkspaceError> {
        let source = self.locate(from, !recursive).await?;
        let names = path::split(to, &self.0.shared.limits)?;
        let target = self.run(|| self.walk(to, &names, true)).await?;
        if !target.missing.is_empty() {
            return Err(WorkspaceError::NotFound(to.into()));
        }
        if same(&source.walked, &target) {
            return Ok(());
        }
        self.check_target(&source.entry, &target, from, to)?;
        self.check_depth(&target)?;
        let Node::Directory(id) = source.entry.node else {
            let mut copy = self.in_memory(&source.entry).await?;
            copy.created = target.entry.as_ref().map_or(self.0.now, |old| old.created);
            copy.modified = self.0.now;
            return self.apply(Edit {
                puts: vec![put(&target, Some(copy))],
                ..Edit::default()
            });
        };
        if !recursive {
            return Err(WorkspaceError::IsDirectory(from.into()));
        }
        let mut edit = Edit::default();
        let copy = self.copy_directory(put(&target, Some((*source.entry).clone())), &mut edit);
        let mut pending = vec![Pending {
            dir: id,
            path: source.walked.path(),
            copy,
            copy_path: target.path(),
        }];
        let mut merged: HashMap<DirId, Names> = HashMap::new();
        while let Some(at) = pending.pop() {
            let there = if edit.fresh.contains(&at.copy) {
                Vec::new()
            } else {
                self.run(|| Ok(self.peek_list(at.copy)?)).await?
            };
            merged.insert(at.copy, there);
            self.copy_names(at, &merged, &mut edit, &mut pending)
                .await?;
        }
        self.apply(edit)
    }

    /// Copies the names of one directory; its directories are left pending.
    async fn copy_names(
        &self,
        at: Pending,
        merged: &HashMap<DirId, Names>,
        edit: &mut Edit,
        pending: &mut Vec<Pending>,
    ) -> Result<(), WorkspaceError> {
        let there = merged.get(&at.copy).map(Vec::as_slice).unwrap_or_default();
        for (name, entry) in self.run(|| Ok(self.peek_list(at.dir)?)).await? {
            let was = there
                .binary_search_by(|(other, _)| other.cmp(&name))
                .ok()
                .and_then(|found| there.get(found))
                .map(|(_, entry)| entry.clone());
            let copy_path = path::join(&at.copy_path, &name);
            match (entry.kind(), was.as_ref().map(|was| was.kind())) {
                (EntryKind::Directory, Some(EntryKind::File | EntryKind::Symlink)) => {
                    return Err(WorkspaceError::NotDirectory(copy_path));
                }
                (EntryKind::File | EntryKind::Symlink, Some(EntryKind::Directory)) => {
                    return Err(WorkspaceError::IsDirectory(copy_path));
                }
                _ => {}
            }
            let change = Put {
                dir: at.copy,
                name: name.clone(),
                was,
                entry: None,
                path: copy_path.clone(),
            };
            if let Node::Directory(dir) = entry.node {
                let copy = self.copy_directory(
                    Put {
                        entry: Some(entry),
                        ..change
                    },
                    edit,
                );
                pending.push(Pending {
                    dir,
                    path: path::join(&at.path, &name),
                    copy,
                    copy_path,
                });
            } else {
                let mut copy = self.in_memory(&entry).await?;
                copy.modified = self.0.now;
                edit.puts.push(Put {
                    entry: Some(Arc::new(copy)),
                    ..change
                });
            }
        }
        Ok(())
    }

    /// The directory that takes the copy of `put.entry`: the one that is there, or a new one.
    fn copy_directory(&self, put: Put, edit: &mut Edit) -> DirId {
        if let Some(Node::Directory(there)) = put.was.as_ref().map(|was| &was.node) {
            return *there;
        }
        let id = self.0.shared.new_dir();
        let mode = put.entry.as_ref().map_or(0o755, |entry| entry.mode);
        edit.fresh.push(id);
        edit.puts.push(Put {
            entry: Some(Arc::new(Entry::directory(id, mode, self.0.now))),
            ..put
        });
        id
    }
}

/// A directory is not moved or removed by a path that ends in `..`.
fn not_dots(path: &str) -> Result<(), WorkspaceError> {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("..") => Err(WorkspaceError::Invalid(format!(
            "the path ends in `..`: {path}"
        ))),
        _ => Ok(()),
    }
}

/// Whether two lookups ended at the same name.
fn same(one: &Walked, other: &Walked) -> bool {
    one.parent() == other.parent() && one.name == other.name && one.is_root() == other.is_root()
}
