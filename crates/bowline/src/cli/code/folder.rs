//! A folder of this machine as a workspace: copied in, and what code changed copied back.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// The files as they were copied, in either direction: what others do to them meanwhile is not undone.
    known: BTreeMap<String, Bytes>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let dir = Dir::open_ambient_dir(path, ambient_authority());
        let dir = dir.map_err(|error| unreadable(path, &error.to_string()))?;
        Ok(Self {
            dir,
            path: path.to_path_buf(),
            known: BTreeMap::new(),
        })
    }

    /// Copies the files into a workspace that lives in memory.
    pub(super) async fn load(&mut self) -> Result<Overlay, Error> {
        let files = self.files()?;
        self.known = files.iter().cloned().collect();
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

    /// Copies back what code changed in `after` since it was copied last; returns how many files were
    /// written and removed.
    pub(super) async fn save(&mut self, after: &Overlay) -> Result<(usize, usize), Error> {
        let failed = |error: WorkspaceError| self.failed(&error);
        let found = bowline_sandbox::search::find(after, WORKING_DIRECTORY, &<_>::default()).await;
        let found = found.map_err(|error| unreadable(&self.path, &error.to_string()))?;
        let prefix = format!("{WORKING_DIRECTORY}/");
        let (mut folders, mut files) = (BTreeSet::new(), BTreeMap::new());
        for entry in found.found {
            let Some(path) = entry.path.strip_prefix(&prefix) else {
                continue;
            };
            match entry.stat.kind {
                EntryKind::Directory => {
                    folders.insert(path.to_owned());
                }
                EntryKind::Symlink => {}
                EntryKind::File => {
                    let bytes = after.read(&entry.path).await.map_err(failed)?;
                    files.insert(path.to_owned(), bytes);
                }
            }
        }
        let unwritable = |path: &str, error: io::Error| unwritable(&self.path.join(path), &error);
        for path in &folders {
            let made = self.dir.create_dir_all(path);
            made.map_err(|error| unwritable(path, error))?;
        }
        let (mut written, mut removed) = (0, 0);
        for (path, bytes) in &files {
            if self.known.get(path) != Some(bytes) {
                let done = self.dir.write(path, bytes);
                done.map_err(|error| unwritable(path, error))?;
                written += 1;
            }
        }
        for path in self.known.keys().filter(|path| !files.contains_key(*path)) {
            match self.dir.remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unwritable(path, error));
                }
                _ => removed += 1,
            }
        }
        self.known = files;
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
