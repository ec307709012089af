//! A folder of this machine as the workspace of one run: copied in, and what changed copied back.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bowline_sandbox::workspace::{
    EntryKind, Overlay, WORKING_DIRECTORY, Workspace, WorkspaceError, WriteOptions,
};
use bowline_store::{ActorId, MemoryStore};
use bytes::Bytes;
use cap_std::{ambient_authority, fs::Dir};

use super::now;
use crate::{cli::fault::Fault, error::Error};

/// Most that is copied in, in bytes.
const MOST: u64 = 64 << 20;
/// Names that are left where they are.
const LEFT_OUT: [&str; 3] = [".git", "node_modules", "target"];

/// The folder, open: nothing is read or written outside of it, whatever links say.
pub(super) struct Folder {
    dir: Dir,
    path: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let dir = Dir::open_ambient_dir(path, ambient_authority());
        let dir = dir.map_err(|error| unreadable(path, &error.to_string()))?;
        Ok(Self {
            dir,
            path: path.to_path_buf(),
        })
    }

    /// Copies the files into a workspace that lives in memory.
    pub(super) async fn load(&self) -> Result<Overlay, Error> {
        let files = self.files()?;
        let copied = async {
            let actor = ActorId::new("agent", "code", "run");
            let workspace = Workspace::open(Arc::new(MemoryStore::new()), actor);
            let overlay = workspace.begin(now()).await?;
            overlay.mkdir(WORKING_DIRECTORY, true).await?;
            for (path, bytes) in files {
                let path = format!("{WORKING_DIRECTORY}/{path}");
                let options = WriteOptions::with_parents();
                overlay.write(&path, bytes, &options).await?;
            }
            // What the program does lies above this.
            Ok::<Overlay, WorkspaceError>(overlay)
        };
        copied.await.map_err(|error| self.failed(&error))
    }

    fn files(&self) -> Result<Vec<(String, Bytes)>, Error> {
        let mut files = Vec::new();
        let mut left = MOST;
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let at = if folder.is_empty() { "." } else { &folder };
            let unreadable = |error: io::Error| unreadable(&self.path.join(at), &error.to_string());
            for entry in self.dir.read_dir(at).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|name| !LEFT_OUT.contains(name)) else {
                    continue;
                };
                let path = if folder.is_empty() {
                    name.to_owned()
                } else {
                    format!("{folder}/{name}")
                };
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let size = entry.metadata().map_err(unreadable)?.len();
                    left = left.checked_sub(size).ok_or_else(|| self.too_large())?;
                    let bytes = self.dir.read(&path).map_err(unreadable)?;
                    files.push((path, Bytes::from(bytes)));
                }
            }
        }
        Ok(files)
    }

    /// Copies back what the files in `after` have become; returns how many were written and removed.
    pub(super) async fn save(&self, after: &Overlay) -> Result<(usize, usize), Error> {
        let before = self.files()?;
        let failed = |error: WorkspaceError| self.failed(&error);
        let found = bowline_sandbox::search::find(after, WORKING_DIRECTORY, &<_>::default()).await;
        let found = found.map_err(|error| unreadable(&self.path, &error.to_string()))?;
        let prefix = format!("{WORKING_DIRECTORY}/");
        let (mut written, mut removed) = (0, 0);
        let mut there = std::collections::BTreeSet::new();
        for entry in found.found {
            let Some(path) = entry.path.strip_prefix(&prefix) else {
                continue;
            };
            let unwritable = |error: io::Error| unwritable(&self.path.join(path), &error);
            match entry.stat.kind {
                EntryKind::Directory => self.dir.create_dir_all(path).map_err(unwritable)?,
                EntryKind::Symlink => {}
                EntryKind::File => {
                    there.insert(path.to_owned());
                    let bytes = after.read(&entry.path).await.map_err(failed)?;
                    let same = |(old, content): &(String, Bytes)| old == path && *content == bytes;
                    if !before.iter().any(same) {
                        self.dir.write(path, &bytes).map_err(unwritable)?;
                        written += 1;
                    }
                }
            }
        }
        for (path, _) in before.iter().filter(|(path, _)| !there.contains(path)) {
            let gone = self.dir.remove_file(path);
            gone.map_err(|error| unwritable(&self.path.join(path), &error))?;
            removed += 1;
        }
        Ok((written, removed))
    }

    fn too_large(&self) -> Error {
        unreadable(&self.path, "it holds more than 64 MiB")
    }

    fn failed(&self, error: &WorkspaceError) -> Error {
        unreadable(&self.path, &error.to_string())
    }
}

fn unreadable(path: &Path, why: &str) -> Error {
    Fault::UnreadableFile {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
    .into()
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::failure(
        "project_unwritable",
        format!("cannot write {}: {error}", path.display()),
        "check who may write there",
    )
}
