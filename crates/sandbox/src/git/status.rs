//! What differs between the last commit, the index and the working tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    GitError, ObjectId, ObjectKind, Repository,
    ignore::Rules,
    index::{Index, IndexEntry},
    object::{Mode, safe_name},
    refs::Head,
    repository::{below, mode_of},
};
use crate::workspace::{EntryKind, Stat, WorkspaceError};

/// Largest `.gitignore` that is read, in bytes.
const RULES_BYTES: u64 = 1 << 20;

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It does not.
    Same,
    /// New.
    Added,
    /// Other content or mode.
    Modified,
    /// Gone.
    Deleted,
    /// Both sides of a merge changed it.
    Conflict,
    /// Git does not know it.
    Untracked,
}

impl FileState {
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Same => ' ',
            Self::Added => 'A',
            Self::Modified => 'M',
            Self::Deleted => 'D',
            Self::Conflict => 'U',
            Self::Untracked => '?',
        }
    }
}

/// A file that differs somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEntry {
    /// Relative to the repository; a directory that git does not know ends with `/`.
    pub path: String,
    /// The index against the last commit.
    pub staged: FileState,
    /// The working tree against the index.
    pub unstaged: FileState,
}

/// The state of a working tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The branch, if `HEAD` is on one.
    pub branch: Option<String>,
    /// The last commit.
    pub head: Option<ObjectId>,
    /// What differs, in the order of the paths; what git does not know comes last.
    pub entries: Vec<StatusEntry>,
}

impl Status {
    /// True when nothing differs, unknown files included.
    pub fn is_clean(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Repository {
    /// What differs below a path of the repository (the empty one is all of it).
    ///
    /// # Errors
    ///
    /// [`GitError::Corrupt`], [`GitError::Workspace`].
    pub async fn status(&mut self, path: &str) -> Result<Status, GitError> {
        let head = self.head_id().await?;
        let committed = self.commit_files(head).await?;
        let index = self.index().await?;
        let mut states: BTreeMap<String, (FileState, FileState)> = BTreeMap::new();
        for entry in index.entries.iter().filter(|entry| entry.stage == 0) {
            let staged = match committed.get(&entry.path) {
                None => FileState::Added,
                Some(was) if *was == (entry.mode, entry.id) => FileState::Same,
                Some(_) => FileState::Modified,
            };
            let unstaged = self.compare(&index, entry).await?;
            states.insert(entry.path.clone(), (staged, unstaged));
        }
        for path in index.conflicts() {
            states.insert(path.to_owned(), (FileState::Conflict, FileState::Conflict));
        }
        for path in committed
            .keys()
            .filter(|path| !states.contains_key(*path))
            .cloned()
            .collect::<Vec<_>>()
        {
            states.insert(path, (FileState::Deleted, FileState::Same));
        }
        let mut entries: Vec<StatusEntry> = states
            .into_iter()
            .filter(|(_, state)| *state != (FileState::Same, FileState::Same))
            .map(|(path, (staged, unstaged))| StatusEntry {
                path,
                staged,
                unstaged,
            })
            .collect();
        for path in self.untracked(&index, path).await? {
            entries.push(StatusEntry {
                path,
                staged: FileState::Untracked,
                unstaged: FileState::Untracked,
            });
        }
        entries.retain(|entry| below(entry.path.trim_end_matches('/'), path));
        Ok(Status {
            branch: match self.head().await? {
                Head::Branch(name) => Some(name),
                Head::Detached(_) => None,
            },
            head,
            entries,
        })
    }

    /// How a file of the index differs in the working tree.
    pub(crate) async fn compare(
        &self,
        index: &Index,
        entry: &IndexEntry,
    ) -> Result<FileState, GitError> {
        if entry.mode == Mode::Module {
            return Ok(FileState::Same);
        }
        let Some(stat) = self.stat_file(&entry.path).await? else {
            return Ok(FileState::Deleted);
        };
        if mode_of(&stat) != entry.mode {
            return Ok(FileState::Modified);
        }
        if index.unchanged(entry, &stat) {
            return Ok(FileState::Same);
        }
        let (_, content) = self.content(&entry.path, &stat).await?;
        let same = ObjectId::of(ObjectKind::Blob, &content) == entry.id;
        Ok(if same {
            FileState::Same
        } else {
            FileState::Modified
        })
    }

    /// Files and links below a path that are known or not ignored.
    pub(crate) async fn walk(
        &self,
        path: &str,
        index: &Index,
        force: bool,
    ) -> Result<BTreeMap<String, Stat>, GitError> {
        let mut found = BTreeMap::new();
        if self.behind_link(path).await? {
            return Err(GitError::Refused(format!(
                "fatal: pathspec '{path}' is beyond a symbolic link"
            )));
        }
        let mut ignored = Ignored::default();
        let mut dir = String::new();
        ignored.enter(self, "").await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            dir = if dir.is_empty() {
                name.to_owned()
            } else {
                format!("{dir}/{name}")
            };
            let stat = match self.overlay.lstat(&self.place(&dir)).await {
                Ok(stat) => stat,
                Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => {
                    return Ok(found);
                }
                Err(error) => return Err(error.into()),
            };
            let is_dir = stat.kind == EntryKind::Directory;
            if !force
                && ignored.is(&dir, is_dir)
                && index.get(&dir).is_none()
                && !index.has_below(&dir)
            {
                return Ok(found);
            }
            if !is_dir {
                if dir == path {
                    found.insert(dir, stat);
                }
                return Ok(found);
            }
            ignored.enter(self, &dir).await?;
        }
        let mut pending = vec![dir];
        while let Some(dir) = pending.pop() {
            ignored.enter(self, &dir).await?;
            for entry in self.overlay.list(&self.place(&dir)).await? {
                let path = if dir.is_empty() {
                    entry.name.clone()
                } else {
                    format!("{dir}/{}", entry.name)
                };
                if !safe_name(&entry.name) {
                    continue;
                }
                let is_dir = entry.stat.kind == EntryKind::Directory;
                let known = if is_dir {
                    index.has_below(&path)
                } else {
                    index.get(&path).is_some()
                };
                if !known && !force && ignored.is(&path, is_dir) {
                    continue;
                }
                if !is_dir {
                    found.insert(path, entry.stat);
                } else if !self.is_nested(&path).await? {
                    pending.push(path);
                }
            }
        }
        Ok(found)
    }

    /// Whether a directory is a repository of its own.
    async fn is_nested(&self, dir: &str) -> Result<bool, GitError> {
        Ok(self
            .overlay
            .exists(&format!("{}/.git/HEAD", self.place(dir)))
            .await?)
    }

    /// What git does not know and does not ignore; a directory without any known file is one entry.
    async fn untracked(&self, index: &Index, path: &str) -> Result<Vec<String>, GitError> {
        let mut unknown = BTreeSet::new();
        let conflicts: BTreeSet<&str> = index.conflicts().collect();
        for file in self.walk("", index, false).await?.keys() {
            if index.get(file).is_some() || conflicts.contains(file.as_str()) {
                continue;
            }
            let mut shown = file.clone();
            for (at, _) in file.match_indices('/') {
                let dir = &file[..at];
                // A path that was asked for opens the directories on its way.
                if !index.has_below(dir) && !below(path, dir) {
                    shown = format!("{dir}/");
                    break;
                }
            }
            unknown.insert(shown);
        }
        Ok(unknown.into_iter().collect())
    }

    /// Whether a directory on the way to a path is a link.
    pub(crate) async fn behind_link(&self, path: &str) -> Result<bool, GitError> {
        for (at, _) in path.match_indices('/') {
            match self.overlay.lstat(&self.place(&path[..at])).await {
                Ok(stat) if stat.kind == EntryKind::Symlink => return Ok(true),
                Ok(_) => {}
                Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

/// The rules of the directories that were entered.
#[derive(Default)]
struct Ignored {
    /// `.git/info/exclude`.
    outer: Rules,
    dirs: BTreeMap<String, Rules>,
}

impl Ignored {
    async fn enter(&mut self, repository: &Repository, dir: &str) -> Result<(), GitError> {
        if self.dirs.contains_key(dir) {
            return Ok(());
        }
        if dir.is_empty() {
            self.outer = rules(repository, &format!("{}/info/exclude", repository.dir)).await?;
        }
        let own = rules(repository, &format!("{}/.gitignore", repository.place(dir))).await?;
        self.dirs.insert(dir.to_owned(), own);
        Ok(())
    }

    /// The nearest rule counts.
    fn is(&self, path: &str, dir: bool) -> bool {
        let mut at = path;
        loop {
            let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
            if let Some(rules) = self.dirs.get(parent).filter(|rules| !rules.is_empty()) {
                let inside = if parent.is_empty() {
                    path
                } else {
                    path.get(parent.len() + 1..).unwrap_or_default()
                };
                if let Some(ignored) = rules.ignored(inside, dir) {
                    return ignored;
                }
            }
            if parent.is_empty() {
                return self.outer.ignored(path, dir).unwrap_or(false);
            }
            at = parent;
        }
    }
}

async fn rules(repository: &Repository, path: &str) -> Result<Rules, GitError> {
    match repository.overlay.lstat(path).await {
        Ok(stat) if stat.kind == EntryKind::File && stat.size <= RULES_BYTES => {
            let text = repository.overlay.read(path).await?;
            Ok(Rules::parse(&String::from_utf8_lossy(&text)))
        }
        Ok(_) | Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => {
            Ok(Rules::default())
        }
        Err(error) => Err(error.into()),
    }
}
