//! The shell's view of files: its filesystem trait directly on an overlay, nothing copied in or out.

use std::{
    io::{Error as IoError, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bashkit::{
    DirEntry, Error, FileSystem, FileSystemExt, FileType, FsLimits, FsUsage, Metadata, Result,
};
use bowline_store::Timestamp;
use bytes::Bytes;

use super::memory::Meter;
use crate::egress::Outside;
use crate::workspace::{EntryKind, Overlay, Stat, WORKING_DIRECTORY, WorkspaceError, WriteOptions};

/// The largest file that a command can read: the interpreter holds all of it, more than once.
pub(crate) const READ_BYTES: u64 = 64 << 20;

/// A filesystem whose overlay can be exchanged between two commands, so that an interpreter that is
/// set up already serves the next one.
#[derive(Debug, Default)]
pub(crate) struct WorkspaceFs {
    overlay: Mutex<Option<(Overlay, Arc<Meter>)>>,
    outside: Mutex<Option<Arc<dyn Outside>>>,
}

impl WorkspaceFs {
    pub(crate) fn set(&self, overlay: Option<(Overlay, Arc<Meter>)>) {
        *self.overlay.lock().unwrap_or_else(PoisonError::into_inner) = overlay;
    }

    /// What the next command may reach.
    pub(crate) fn set_outside(&self, outside: Option<Arc<dyn Outside>>) {
        *self.outside.lock().unwrap_or_else(PoisonError::into_inner) = outside;
    }

    /// The network of the running command, if it has one.
    pub(crate) fn outside(&self) -> Option<Arc<dyn Outside>> {
        let outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.clone()
    }

    /// The running command's files.
    pub(crate) fn overlay(&self) -> Result<Overlay> {
        let denied = |why: &str| IoError::new(ErrorKind::PermissionDenied, why.to_owned()).into();
        let running = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        let (overlay, meter) = running
            .as_ref()
            .ok_or_else(|| denied("the command is over"))?;
        // A script that runs itself by its name comes by here, and by no command.
        if let Some(why) = super::nested("a script", &[]) {
            meter.stop_with(why);
            return Err(denied("nested too deeply"));
        }
        Ok(overlay.clone())
    }

    /// The running command's meter.
    pub(crate) fn meter(&self) -> Option<Arc<Meter>> {
        let overlay = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        overlay.as_ref().map(|(_, meter)| meter.clone())
    }

    fn moved(&self, bytes: usize) {
        if let Some(meter) = self.meter() {
            meter.moved(bytes as u64);
        }
    }
}

pub(super) fn too_large() -> Error {
    let message = "File too large (a command holds all that it reads; cat does not)";
    IoError::new(ErrorKind::FileTooLarge, message).into()
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str();
    text.ok_or_else(|| {
        IoError::new(
            ErrorKind::InvalidInput,
            "Invalid argument (path is not UTF-8)",
        )
        .into()
    })
}

fn failed(error: &WorkspaceError) -> Error {
    let kind = match error {
        WorkspaceError::NotFound(_) => ErrorKind::NotFound,
        WorkspaceError::Exists(_) => ErrorKind::AlreadyExists,
        WorkspaceError::IsDirectory(_) => ErrorKind::IsADirectory,
        WorkspaceError::NotDirectory(_) => ErrorKind::NotADirectory,
        WorkspaceError::NotEmpty(_) => ErrorKind::DirectoryNotEmpty,
        WorkspaceError::Loop(_) | WorkspaceError::Conflict(_) | WorkspaceError::Store(_) => {
            ErrorKind::Other
        }
        WorkspaceError::TooLarge { .. } => ErrorKind::FileTooLarge,
        WorkspaceError::Quota { .. } => ErrorKind::QuotaExceeded,
        WorkspaceError::Invalid(_) => ErrorKind::InvalidInput,
        WorkspaceError::NameTooLong(_) => ErrorKind::InvalidFilename,
        WorkspaceError::Denied(_) => ErrorKind::PermissionDenied,
        WorkspaceError::Host { .. } => ErrorKind::Other,
    };
    IoError::new(kind, error.strerror()).into()
}

fn done<T>(result: std::result::Result<T, WorkspaceError>) -> Result<T> {
    result.map_err(|error| failed(&error))
}

fn time(at: Timestamp) -> SystemTime {
    let distance = Duration::from_millis(at.as_millis().unsigned_abs());
    let moved = if at.as_millis() < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(UNIX_EPOCH)
}

fn timestamp(at: SystemTime) -> Timestamp {
    let millis = |distance: Duration| i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(distance) => Timestamp::from_millis(millis(distance)),
        Err(before) => Timestamp::from_millis(-millis(before.duration())),
    }
}

fn metadata(stat: &Stat) -> Metadata {
    Metadata {
        file_type: match stat.kind {
            EntryKind::File => FileType::File,
            EntryKind::Directory => FileType::Directory,
            EntryKind::Symlink => FileType::Symlink,
        },
        size: stat.size,
        mode: stat.mode,
        modified: time(stat.modified),
        created: time(stat.created),
    }
}

/// Whether nothing but the workspace can be at a path without `..`: the interpreter has devices, programs
/// and the like at others.
pub(super) fn is_ours(path: &str) -> bool {
    let below = |place: &str| {
        let rest = path.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(WORKING_DIRECTORY) || below("/tmp")
}

/// The interpreter knows it in redirects; this is for commands that are given its name.
fn is_null(path: &Path) -> bool {
    path.as_os_str() == "/dev/null"
}

fn null() -> Metadata {
    Metadata {
        file_type: FileType::File,
        size: 0,
        mode: 0o666,
        modified: UNIX_EPOCH,
        created: UNIX_EPOCH,
    }
}

#[async_trait]
impl FileSystemExt for WorkspaceFs {
    fn usage(&self) -> FsUsage {
        let usage = self.overlay().map(|overlay| overlay.usage());
        usage.map_or_else(
            |_| FsUsage::default(),
            |usage| FsUsage::new(usage.bytes, usage.entries, 0),
        )
    }

    fn limits(&self) -> FsLimits {
        let mut limits = FsLimits::unlimited();
        if let Ok(overlay) = self.overlay() {
            limits.max_total_bytes = overlay.limits().bytes;
            limits.max_file_size = overlay.limits().file_bytes;
        }
        limits
    }

    fn backend_kind(&self) -> &'static str {
        "bowline-workspace"
    }
}

#[async_trait]
impl FileSystem for WorkspaceFs {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        if is_null(path) {
            return Ok(Vec::new());
        }
        let overlay = self.overlay()?;
        let path = text(path)?;
        let size = done(overlay.stat(path).await)?.size;
        if size > READ_BYTES {
            return Err(too_large());
        }
        let bytes = done(overlay.read(path).await)?.to_vec();
        if self.meter().is_some_and(|meter| !meter.read(&bytes)) {
            return Err(too_large());
        }
        Ok(bytes)
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        if is_null(path) {
            return Ok(());
        }
        self.moved(content.len());
        let content = Bytes::copy_from_slice(content);
        done(
            self.overlay()?
                .write(text(path)?, content, &WriteOptions::default())
                .await,
        )
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        if is_null(path) {
            return Ok(());
        }
        self.moved(content.len());
        let content = Bytes::copy_from_slice(content);
        done(
            self.overlay()?
                .append(text(path)?, content, &WriteOptions::default())
                .await,
        )
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        done(self.overlay()?.mkdir(text(path)?, recursive).await)
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        done(self.overlay()?.remove(text(path)?, recursive, false).await)
    }

    // The interpreter follows links itself, above this layer, and asks about the link here.
    async fn stat(&self, path: &Path) -> Result<Metadata> {
        if is_null(path) {
            return Ok(null());
        }
        Ok(metadata(&done(self.overlay()?.lstat(text(path)?).await)?))
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let entries = done(self.overlay()?.list(text(path)?).await)?;
        let entry = |entry: crate::workspace::DirEntry| DirEntry {
            metadata: metadata(&entry.stat),
            name: entry.name,
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        if is_null(path) {
            return Ok(true);
        }
        match self.overlay()?.lstat(text(path)?).await {
            Ok(_) => Ok(true),
            Err(WorkspaceError::Store(error)) => Err(failed(&error.into())),
            Err(_) => Ok(false),
        }
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        done(self.overlay()?.rename(text(from)?, text(to)?).await)
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        done(self.overlay()?.copy(text(from)?, text(to)?, false).await)
    }

    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        done(self.overlay()?.symlink(text(target)?, text(link)?).await)
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        done(self.overlay()?.read_link(text(path)?).await).map(PathBuf::from)
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        done(self.overlay()?.chmod(text(path)?, mode).await)
    }

    async fn set_modified_time(&self, path: &Path, at: SystemTime) -> Result<()> {
        done(
            self.overlay()?
                .set_modified(text(path)?, timestamp(at))
                .await,
        )
    }
}
