//! The files of a host directory.
//!
//! Every path is opened from the directory's own handle, beneath it: the kernel refuses what would lead
//! out, whatever links there are and whoever changes them meanwhile.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cap_std::{
    ambient_authority,
    fs::{Dir, File, MetadataExt as _, OpenOptions, OpenOptionsExt as _},
};
use rustix::fs::OFlags;

use super::HostError;
use crate::workspace::{WorkspaceError, absolute};

/// Longest path, in bytes.
const MAX_PATH: usize = 4096;

/// A directory of the machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: Dir,
    root: String,
}

impl HostDir {
    /// Opens a directory. `keep_out` are files and directories that an agent must not reach, such as where
    /// Bowline keeps its data: the directory must neither hold one of them nor lie in one.
    ///
    /// # Errors
    ///
    /// [`HostError::Directory`].
    pub fn open(dir: &Path, keep_out: &[PathBuf]) -> Result<Self, HostError> {
        let refused = |why: String| HostError::Directory {
            dir: dir.to_path_buf(),
            why,
        };
        let real = dir
            .canonicalize()
            .map_err(|error| refused(error.to_string()))?;
        for kept in keep_out {
            let Ok(kept) = kept.canonicalize() else {
                continue;
            };
            if kept.starts_with(&real) || (kept.is_dir() && real.starts_with(&kept)) {
                return Err(refused(format!(
                    "{} must stay out of reach",
                    kept.display()
                )));
            }
        }
        let root = real
            .to_str()
            .ok_or_else(|| refused("its path is not UTF-8".to_owned()))?;
        if root == "/" {
            return Err(refused("it is the whole machine".to_owned()));
        }
        let opened = Dir::open_ambient_dir(&real, ambient_authority());
        Ok(Self(Arc::new(Inner {
            dir: opened.map_err(|error| refused(error.to_string()))?,
            root: root.to_owned(),
        })))
    }

    /// Its absolute path, without links; the working directory.
    pub fn root(&self) -> &str {
        &self.0.root
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.0.dir
    }

    /// The path below the directory that is meant; `.` for the directory itself.
    pub(super) fn below(&self, path: &str) -> Result<PathBuf, WorkspaceError> {
        if path.is_empty() {
            return Err(WorkspaceError::Invalid("the path is empty".into()));
        }
        if path.contains('\0') {
            return Err(WorkspaceError::Invalid("the path has a null byte".into()));
        }
        if path.len() > MAX_PATH {
            let start: String = path.chars().take(60).collect();
            return Err(WorkspaceError::NameTooLong(format!("{start}…")));
        }
        let relative = if path.starts_with('/') {
            let below = Path::new(path).strip_prefix(self.root());
            below.map_err(|_| WorkspaceError::Denied(path.to_owned()))?
        } else {
            Path::new(path)
        };
        if relative.as_os_str().is_empty() {
            return Ok(PathBuf::from("."));
        }
        Ok(relative.to_path_buf())
    }

    /// The absolute path that is meant, by text alone.
    pub fn absolute(&self, path: &str) -> String {
        absolute(path, self.root())
    }

    /// A regular file, opened to be read. What is none, such as a pipe, is not waited for.
    fn file(&self, path: &str) -> Result<File, WorkspaceError> {
        let below = self.below(path)?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(calm());
        let file = self
            .dir()
            .open_with(below, &options)
            .map_err(|error| said(&error, path))?;
        regular(&file, path)?;
        Ok(file)
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.unwrap_or_else(|error| Err(WorkspaceError::Invalid(error.to_string())))
    }

    pub(crate) async fn size(&self, path: &str) -> Result<u64, WorkspaceError> {
        let path = path.to_owned();
        self.run(move |this| {
            let file = this.file(&path)?;
            Ok(file.metadata().map_err(|error| said(&error, &path))?.len())
        })
        .await
    }

    pub(crate) async fn read_range(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, WorkspaceError> {
        let path = path.to_owned();
        self.run(move |this| {
            let mut file = this.file(&path)?;
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.take(length as u64).read_to_end(&mut bytes))
                .map_err(|error| said(&error, &path))?;
            Ok(bytes.into())
        })
        .await
    }

    /// Writes a file in place, so that it keeps its mode and whoever has it open.
    pub(crate) async fn write(
        &self,
        path: &str,
        bytes: Bytes,
        parents: bool,
    ) -> Result<(), WorkspaceError> {
        let path = path.to_owned();
        self.run(move |this| {
            let below = this.below(&path)?;
            let say = |error: io::Error| said(&error, &path);
            if let Some(parent) = below
                .parent()
                .filter(|parent| parents && !parent.as_os_str().is_empty())
            {
                let made = this.dir().create_dir_all(parent);
                made.map_err(|error| match error.kind() {
                    // Something that is no directory stands in the way.
                    io::ErrorKind::AlreadyExists => WorkspaceError::NotDirectory(path.clone()),
                    _ => say(error),
                })?;
            }
            let mut options = OpenOptions::new();
            options.write(true).create(true).custom_flags(calm());
            let mut file = this.dir().open_with(&below, &options).map_err(say)?;
            regular(&file, &path)?;
            file.set_len(0).map_err(say)?;
            file.write_all(&bytes).map_err(say)
        })
        .await
    }

    /// What changes when the file does.
    pub(crate) async fn fingerprint(&self, path: &str) -> Result<u64, WorkspaceError> {
        let path = path.to_owned();
        self.run(move |this| {
            let meta = this
                .file(&path)?
                .metadata()
                .map_err(|error| said(&error, &path))?;
            let mut all = blake3::Hasher::new();
            for number in [meta.dev(), meta.ino(), meta.len()] {
                all.update(&number.to_le_bytes());
            }
            for number in [meta.mtime(), meta.mtime_nsec()] {
                all.update(&number.to_le_bytes());
            }
            let hash = all.finalize();
            let start = hash.as_bytes().first_chunk::<8>();
            Ok(start.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
        })
        .await
    }
}

/// Opened without waiting for the other end of a pipe, and never as a terminal of this process.
pub(super) fn calm() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32
}

fn regular(file: &File, path: &str) -> Result<(), WorkspaceError> {
    let meta = file.metadata().map_err(|error| said(&error, path))?;
    if meta.is_dir() {
        return Err(WorkspaceError::IsDirectory(path.to_owned()));
    }
    if !meta.is_file() {
        return Err(WorkspaceError::Invalid(format!(
            "not a regular file: {path}"
        )));
    }
    Ok(())
}

pub(super) fn said(error: &io::Error, path: &str) -> WorkspaceError {
    let path = path.to_owned();
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP) {
        return WorkspaceError::Loop(path);
    }
    match error.kind() {
        io::ErrorKind::NotFound => WorkspaceError::NotFound(path),
        io::ErrorKind::PermissionDenied => WorkspaceError::Denied(path),
        io::ErrorKind::AlreadyExists => WorkspaceError::Exists(path),
        io::ErrorKind::IsADirectory => WorkspaceError::IsDirectory(path),
        io::ErrorKind::NotADirectory => WorkspaceError::NotDirectory(path),
        io::ErrorKind::InvalidFilename => WorkspaceError::NameTooLong(path),
        _ => WorkspaceError::Host {
            path,
            why: error.to_string(),
        },
    }
}
