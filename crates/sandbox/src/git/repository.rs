//! Opening, making, adding and committing.

use bowline_store::Timestamp;
use bytes::Bytes;

use super::{
    Commit, GitError, ObjectId, ObjectKind, Signature, corrupt,
    index::{Index, entry_of},
    object::{Mode, safe_path},
    objects::PackFile,
    refs::{self, Head},
};
use crate::workspace::{EntryKind, Overlay, Stat, WorkspaceError, absolute};

/// A working tree and its `.git`, in the files of an overlay.
#[derive(Debug)]
pub struct Repository {
    pub(crate) overlay: Overlay,
    /// The working tree, absolute and without links.
    pub(crate) root: String,
    pub(crate) dir: String,
    pub(crate) packs: Option<Vec<PackFile>>,
}

/// How to commit.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The message; it must not be empty.
    pub message: String,
    /// Who wrote it; default `user.name` and `user.email` of the repository, else `agent`.
    pub author: Option<(String, String)>,
    /// When; default the time of the overlay.
    pub time: Option<Timestamp>,
    /// Take up changed and removed files that git knows, first (`-a`).
    pub all: bool,
    /// Make a commit that changes nothing.
    pub allow_empty: bool,
    /// Replace the last commit.
    pub amend: bool,
}

/// A commit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The new commit.
    pub id: ObjectId,
    /// The branch, if `HEAD` is on one.
    pub branch: Option<String>,
    /// It is the first of its branch.
    pub root: bool,
    /// What it changed.
    pub changes: Vec<super::FileChange>,
}

impl Repository {
    /// Makes a repository, or opens the one that is there; `true` when it was made.
    ///
    /// # Errors
    ///
    /// [`GitError::Refused`] for a branch name that git would not take, [`GitError::Workspace`].
    pub async fn init(
        overlay: &Overlay,
        path: &str,
        branch: &str,
    ) -> Result<(Self, bool), GitError> {
        if !refs::valid(&format!("refs/heads/{branch}")) || branch.starts_with('-') {
            return Err(GitError::Refused(format!(
                "fatal: invalid initial branch name: '{branch}'"
            )));
        }
        overlay.mkdir(path, true).await?;
        let root = overlay.real_path(path).await?;
        let repository = Self::at(overlay, root);
        if overlay.exists(&format!("{}/HEAD", repository.dir)).await? {
            repository.check().await?;
            return Ok((repository, false));
        }
        for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
            overlay
                .mkdir(&format!("{}/{dir}", repository.dir), true)
                .await?;
        }
        repository
            .set_head(&Head::Branch(branch.to_owned()))
            .await?;
        let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
        repository.write_control("config", config.into()).await?;
        Ok((repository, true))
    }

    /// Opens the repository that a directory is in.
    ///
    /// # Errors
    ///
    /// [`GitError::NotARepository`]; [`GitError::Unsupported`] for a format that is not read here.
    pub async fn open(overlay: &Overlay, path: &str) -> Result<Self, GitError> {
        let mut at = overlay.real_path(path).await?;
        loop {
            let repository = Self::at(overlay, at.clone());
            match overlay.lstat(&repository.dir).await {
                Ok(stat) if stat.kind == EntryKind::Directory => {
                    if overlay.exists(&format!("{}/HEAD", repository.dir)).await? {
                        repository.check().await?;
                        return Ok(repository);
                    }
                }
                Ok(_) => {
                    return Err(GitError::Unsupported(
                        "a .git that is not a directory".into(),
                    ));
                }
                Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let Some((parent, _)) = at.rsplit_once('/').filter(|_| at != "/") else {
                return Err(GitError::NotARepository);
            };
            at = if parent.is_empty() {
                "/".into()
            } else {
                parent.into()
            };
        }
    }

    fn at(overlay: &Overlay, root: String) -> Self {
        let dir = format!("{}/.git", root.trim_end_matches('/'));
        Self {
            overlay: overlay.clone(),
            root,
            dir,
            packs: None,
        }
    }

    async fn check(&self) -> Result<(), GitError> {
        let config = self.config().await?;
        let hash = config.get("extensions.objectformat").unwrap_or("sha1");
        let refs = config.get("extensions.refstorage").unwrap_or("files");
        let version = config.get("core.repositoryformatversion").unwrap_or("0");
        if !matches!(version, "0" | "1") || hash != "sha1" || refs != "files" {
            return Err(GitError::Unsupported(
                "the format of this repository".into(),
            ));
        }
        if config.get("extensions.partialclone").is_some() {
            return Err(GitError::Unsupported("a partial clone".into()));
        }
        Ok(())
    }

    /// The working tree, as an absolute path.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The path of a file in the working tree.
    pub(crate) fn place(&self, path: &str) -> String {
        if path.is_empty() {
            return self.root.clone();
        }
        format!("{}/{path}", self.root.trim_end_matches('/'))
    }

    /// What a path of the command line is in this repository; empty for the whole of it.
    pub(crate) fn relative(&self, path: &str, cwd: &str) -> Result<String, GitError> {
        let full = absolute(path, cwd);
        let root = self.root.trim_end_matches('/');
        let rest = full
            .strip_prefix(root)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
        rest.map(|rest| rest.trim_start_matches('/').to_owned())
            .ok_or_else(|| {
                GitError::Refused(format!(
                    "fatal: {path}: '{path}' is outside repository at '{}'",
                    self.root
                ))
            })
    }

    /// The content that git keeps of a file, and its mode.
    pub(crate) async fn content(&self, path: &str, stat: &Stat) -> Result<(Mode, Bytes), GitError> {
        let place = self.place(path);
        match stat.kind {
            EntryKind::Symlink => Ok((
                Mode::Link,
                Bytes::from(self.overlay.read_link(&place).await?),
            )),
            EntryKind::File if stat.size > super::limits::OBJECT_BYTES => Err(GitError::Limit {
                what: format!("{path} has {} bytes", stat.size),
                limit: super::limits::OBJECT_BYTES,
            }),
            EntryKind::File => Ok((mode_of(stat), self.overlay.read(&place).await?)),
            EntryKind::Directory => Err(GitError::Refused(format!("fatal: {path} is a directory"))),
        }
    }

    /// Puts files, and all below directories, into the index; removed ones leave it. Paths are relative
    /// to the repository, the empty one is all of it. Ignored files are left out, unless `force`.
    ///
    /// # Errors
    ///
    /// [`GitError::Unknown`] when a path matches nothing.
    pub async fn add(&mut self, paths: &[String], force: bool) -> Result<(), GitError> {
        let mut index = self.index().await?;
        for path in paths {
            if !path.is_empty() && !safe_path(path) {
                return Err(GitError::Refused(format!("error: invalid path '{path}'")));
            }
            let here = self.overlay.lstat(&self.place(path)).await;
            let known = index.entries.iter().any(|entry| below(&entry.path, path));
            if !path.is_empty() && here.is_err() && !known {
                return Err(GitError::Unknown(format!(
                    "fatal: pathspec '{path}' did not match any files"
                )));
            }
            let found = self.walk(path, &index, force).await?;
            let one = here.is_ok_and(|stat| stat.kind != EntryKind::Directory);
            if one && found.is_empty() && index.get(path).is_none() {
                return Err(GitError::Refused(format!(
                    "The following paths are ignored by one of your .gitignore files:\n{path}\nhint: Use -f if you really want to add them."
                )));
            }
            let gone: Vec<String> = index
                .entries
                .iter()
                .filter(|entry| {
                    below(&entry.path, path)
                        && entry.mode != Mode::Module
                        && !found.contains_key(&entry.path)
                })
                .map(|entry| entry.path.clone())
                .collect();
            gone.iter().for_each(|path| index.remove(path));
            for (path, stat) in &found {
                self.add_file(&mut index, path, stat).await?;
            }
        }
        self.set_index(&index).await
    }

    async fn add_file(
        &mut self,
        index: &mut Index,
        path: &str,
        stat: &Stat,
    ) -> Result<(), GitError> {
        if let Some(entry) = index.get(path)
            && entry.mode == mode_of(stat)
            && index.unchanged(entry, stat)
        {
            return Ok(());
        }
        let (mode, content) = self.content(path, stat).await?;
        let id = self.put(ObjectKind::Blob, &content).await?;
        index.put(entry_of(path, mode, id, Some(stat)));
        Ok(())
    }

    /// Takes up what changed in files that the index knows (`commit -a`, `add -u`).
    pub(crate) async fn add_known(&mut self, below_path: &str) -> Result<(), GitError> {
        let mut index = self.index().await?;
        let known: Vec<String> = index
            .entries
            .iter()
            .filter(|entry| below(&entry.path, below_path) && entry.mode != Mode::Module)
            .map(|entry| entry.path.clone())
            .collect();
        for path in known {
            match self.stat_file(&path).await? {
                Some(stat) => self.add_file(&mut index, &path, &stat).await?,
                None => index.remove(&path),
            }
        }
        self.set_index(&index).await
    }

    /// What is at a path of the working tree, if it is a file or a link and no link is on the way to it.
    pub(crate) async fn stat_file(&self, path: &str) -> Result<Option<Stat>, GitError> {
        if self.behind_link(path).await? {
            return Ok(None);
        }
        match self.overlay.lstat(&self.place(path)).await {
            Ok(stat) if stat.kind != EntryKind::Directory => Ok(Some(stat)),
            Ok(_) | Err(WorkspaceError::NotFound(_) | WorkspaceError::NotDirectory(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Commits the index.
    ///
    /// # Errors
    ///
    /// [`GitError::Refused`] when there is nothing to commit, the message is empty, or a conflict is open.
    pub async fn commit(&mut self, options: &CommitOptions) -> Result<Committed, GitError> {
        if options.message.trim().is_empty() {
            return Err(GitError::Refused(
                "Aborting commit due to empty commit message.".into(),
            ));
        }
        if options.all {
            self.add_known("").await?;
        }
        let index = self.index().await?;
        if index.conflicts().next().is_some() {
            return Err(GitError::Refused(
                "error: Committing is not possible because you have unmerged files.\nhint: Fix them up in the work tree, then use 'git add <file>'.".into(),
            ));
        }
        let head = self.head_id().await?;
        let last = match head {
            Some(id) => Some(self.commit_at(id).await?.1),
            None => None,
        };
        let tree = self.write_trees(&index).await?;
        let merging = self.merge_head().await?;
        let parents = match (&last, options.amend) {
            (Some(last), true) => last.parents.clone(),
            (None, true) => {
                return Err(GitError::Refused(
                    "fatal: You have nothing to amend.".into(),
                ));
            }
            (_, false) => head.into_iter().chain(merging).collect(),
        };
        let before = match parents.first() {
            Some(id) => Some(self.commit_at(*id).await?.1.tree),
            None => None,
        };
        let empty = match before {
            Some(before) => before == tree,
            None => index.entries.is_empty(),
        };
        if empty && !options.allow_empty && !options.amend && merging.is_none() {
            return Err(GitError::Refused("nothing to commit".into()));
        }
        let committer = self.signature(None, options.time).await?;
        let author = match (&last, &options.author, options.amend) {
            (Some(last), None, true) => last.author.clone(),
            _ => self.signature(options.author.clone(), options.time).await?,
        };
        let root = parents.is_empty();
        let commit = Commit {
            tree,
            parents,
            author,
            committer,
            message: clean(&options.message),
        };
        let body = commit.render();
        // What is refused when it is read is not written.
        Commit::parse(&body)?;
        let id = self.put(ObjectKind::Commit, &body).await?;
        self.move_head(id).await?;
        for name in ["MERGE_HEAD", "MERGE_MSG"] {
            self.overlay
                .remove(&format!("{}/{name}", self.dir), false, true)
                .await?;
        }
        let (old, new) = (self.files(before).await?, self.files(Some(tree)).await?);
        Ok(Committed {
            id,
            branch: match self.head().await? {
                Head::Branch(name) => Some(name),
                Head::Detached(_) => None,
            },
            root,
            changes: super::changes::compare(&old, &new),
        })
    }

    async fn merge_head(&self) -> Result<Option<ObjectId>, GitError> {
        self.resolve_ref("MERGE_HEAD").await
    }

    /// Who commits, and when.
    pub(crate) async fn signature(
        &self,
        who: Option<(String, String)>,
        time: Option<Timestamp>,
    ) -> Result<Signature, GitError> {
        let (name, email) = match who {
            Some(who) => who,
            None => {
                let config = self.config().await?;
                let value =
                    |key: &str, default: &str| config.get(key).unwrap_or(default).to_owned();
                (
                    value("user.name", "agent"),
                    value("user.email", "agent@bowline.invalid"),
                )
            }
        };
        if name.trim().is_empty() {
            return Err(corrupt("fatal: empty ident name not allowed"));
        }
        Ok(Signature {
            name,
            email,
            seconds: time
                .unwrap_or(self.overlay.now())
                .as_millis()
                .div_euclid(1000),
            offset: 0,
        })
    }
}

/// Whether a path is another one, or below it; everything is below the empty one.
pub(crate) fn below(path: &str, other: &str) -> bool {
    other.is_empty()
        || path == other
        || path
            .strip_prefix(other)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// How git would keep what looks like this.
pub(crate) fn mode_of(stat: &Stat) -> Mode {
    match stat.kind {
        EntryKind::Symlink => Mode::Link,
        EntryKind::Directory => Mode::Tree,
        EntryKind::File if stat.mode & 0o100 != 0 => Mode::Executable,
        EntryKind::File => Mode::File,
    }
}

/// A message as git keeps it: no spaces at the ends of lines, no empty lines around it, one line end.
pub(crate) fn clean(message: &str) -> String {
    let lines: Vec<&str> = message.trim().lines().map(str::trim_end).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        if !(line.is_empty() && at > 0 && lines[at - 1].is_empty()) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
