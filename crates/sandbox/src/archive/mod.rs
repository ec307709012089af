//! Archives within a workspace: tar, tar.gz and zip, and single files in gzip.
//!
//! What is taken out of an archive stays below its destination: names that are absolute or have `..`,
//! links that point out, and names that lead through a link are refused, all before anything is
//! written. Content counts towards the quota of the step while it is unpacked, so that a bomb ends
//! there.

mod export;
mod tar;
mod zip;

pub use export::export_tar;

use std::{collections::HashSet, io::Read};

use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use crate::workspace::{
    EntryKind, Overlay, WORKING_DIRECTORY, WorkspaceError, WriteOptions, absolute,
};

/// Largest archive, packed, and largest content that one archive is made from, in bytes.
pub const MAX_ARCHIVE: u64 = 128 << 20;
/// Members of one archive.
pub const MAX_MEMBERS: usize = 100_000;

/// How an archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// `.tar`
    Tar,
    /// `.tar.gz`, `.tgz`
    TarGz,
    /// `.zip`
    Zip,
}

/// What an archive holds under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// The name as it is in the archive.
    pub path: String,
    /// File, directory or link.
    pub kind: EntryKind,
    /// Bytes of a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// What was packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveSummary {
    /// Files, hard links among them.
    pub files: u64,
    /// Directories that have a member of their own.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Content of the files, in bytes.
    pub bytes: u64,
}

/// Why an archive was not made or unpacked; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// A member would leave the destination, or is of a kind that there is not here.
    #[error("the archive is not unpacked because of {member}: {reason}")]
    Unsafe {
        /// Name of the member.
        member: String,
        /// Why.
        reason: &'static str,
    },
    /// The bytes are not an archive, or a damaged or encrypted one.
    #[error("the archive cannot be read: {0}")]
    Malformed(String),
    /// More than [`MAX_MEMBERS`] members.
    #[error("the archive has more than {MAX_MEMBERS} members")]
    Members,
    /// The files could not be read or written; `EDQUOT` when the content is larger than the quota,
    /// `EFBIG` when the archive is larger than [`MAX_ARCHIVE`].
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

/// One member, whole in memory.
struct Member {
    path: String,
    mode: u32,
    node: MemberNode,
}

enum MemberNode {
    File(Bytes),
    Directory,
    Symlink(String),
}

/// Content that may still be unpacked.
struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    fn of(overlay: &Overlay) -> Self {
        let limit = overlay.limits().step_bytes;
        Self {
            left: limit.saturating_sub(overlay.usage().uncommitted),
            limit,
        }
    }

    /// All bytes of a member, within the budget.
    fn read(&mut self, mut from: impl Read) -> Result<Bytes, ArchiveError> {
        let mut bytes = Vec::new();
        let read = from
            .by_ref()
            .take(self.left.saturating_add(1))
            .read_to_end(&mut bytes);
        read.map_err(|error| ArchiveError::Malformed(error.to_string()))?;
        let size = bytes.len() as u64;
        if size > self.left {
            return Err(WorkspaceError::Quota {
                what: "new bytes in one step",
                limit: self.limit,
            }
            .into());
        }
        self.left -= size;
        Ok(Bytes::from(bytes))
    }
}

impl ArchiveKind {
    /// By the ending of a name.
    pub fn of_name(path: &str) -> Option<Self> {
        let path = path.to_ascii_lowercase();
        match () {
            () if path.ends_with(".tar.gz") || path.ends_with(".tgz") => Some(Self::TarGz),
            () if path.ends_with(".tar") => Some(Self::Tar),
            () if path.ends_with(".zip") => Some(Self::Zip),
            () => None,
        }
    }

    /// By the first bytes; anything unknown is taken for a tar.
    fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::TarGz,
            [b'P', b'K', ..] => Self::Zip,
            _ => Self::Tar,
        }
    }
}

/// Makes an archive of files and directories; its name says which kind. Members are named relative to
/// the working directory, or to the root when they are not below it. Members of a zip carry no time.
///
/// # Errors
///
/// [`ArchiveError`]; `EINVAL` when the name has no known ending, `EFBIG` for more than [`MAX_ARCHIVE`].
pub async fn create_archive(
    overlay: &Overlay,
    path: &str,
    sources: &[&str],
) -> Result<ArchiveSummary, ArchiveError> {
    let unknown = || {
        WorkspaceError::Invalid(format!(
            "the name of an archive ends in .tar, .tar.gz, .tgz or .zip: {path}"
        ))
    };
    let kind = ArchiveKind::of_name(path).ok_or_else(unknown)?;
    let mut members = Vec::new();
    let mut left = MAX_ARCHIVE;
    for source in sources {
        gather(overlay, source, &mut members, &mut left).await?;
    }
    let summary = summary(&members);
    let seconds = overlay
        .now()
        .as_millis()
        .div_euclid(1000)
        .try_into()
        .unwrap_or(0);
    let packed = blocking(move || match kind {
        ArchiveKind::Tar => tar::pack(&members, seconds),
        ArchiveKind::TarGz => gzip(&tar::pack(&members, seconds)?),
        ArchiveKind::Zip => zip::pack(&members),
    })
    .await?;
    overlay
        .write(path, packed, &WriteOptions::with_parents())
        .await?;
    Ok(summary)
}

/// Adds a file, or a directory with all that is in it, to the members of an archive.
async fn gather(
    overlay: &Overlay,
    source: &str,
    members: &mut Vec<Member>,
    left: &mut u64,
) -> Result<(), ArchiveError> {
    let mut pending = vec![absolute(source, WORKING_DIRECTORY)];
    while let Some(at) = pending.pop() {
        let stat = overlay.lstat(&at).await?;
        let name = at
            .strip_prefix(WORKING_DIRECTORY)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .unwrap_or(&at);
        let path = name.trim_start_matches('/').to_owned();
        let node = match stat.kind {
            EntryKind::File => {
                let too_large = WorkspaceError::TooLarge {
                    path: at.clone(),
                    limit: MAX_ARCHIVE,
                };
                *left = left.checked_sub(stat.size).ok_or(too_large)?;
                MemberNode::File(overlay.read(&at).await?)
            }
            EntryKind::Symlink => MemberNode::Symlink(overlay.read_link(&at).await?),
            EntryKind::Directory => {
                let names = overlay.list(&at).await?;
                pending.extend(names.iter().rev().map(|entry| absolute(&entry.name, &at)));
                MemberNode::Directory
            }
        };
        if !path.is_empty() {
            members.push(Member {
                path,
                mode: stat.mode,
                node,
            });
        }
        if members.len() > MAX_MEMBERS {
            return Err(ArchiveError::Members);
        }
    }
    Ok(())
}

/// Unpacks an archive below a directory, which is made when it is missing. Files that are there are
/// replaced. All or nothing.
///
/// # Errors
///
/// [`ArchiveError`].
pub async fn extract_archive(
    overlay: &Overlay,
    path: &str,
    destination: &str,
) -> Result<ArchiveSummary, ArchiveError> {
    let members = open(overlay, path).await?;
    place(overlay, members, destination).await
}

/// Unpacks an archive that is not in the workspace, such as one from a request or a terminal.
///
/// # Errors
///
/// As [`extract_archive`].
pub async fn unpack_archive(
    overlay: &Overlay,
    packed: Bytes,
    destination: &str,
) -> Result<ArchiveSummary, ArchiveError> {
    let members = unpacked(overlay, packed).await?;
    place(overlay, members, destination).await
}

/// All members below a destination, or none.
async fn place(
    overlay: &Overlay,
    members: Vec<Member>,
    destination: &str,
) -> Result<ArchiveSummary, ArchiveError> {
    let summary = summary(&members);
    let writes = overlay.child();
    writes.mkdir(destination, true).await?;
    let root = writes.real_path(destination).await?;
    let mut plain = HashSet::new();
    for member in members {
        unpack(&writes, &root, member, &mut plain).await?;
    }
    writes.merge()?;
    Ok(summary)
}

/// Writes one member. `plain` has the directories that were seen not to be links.
async fn unpack(
    overlay: &Overlay,
    root: &str,
    member: Member,
    plain: &mut HashSet<String>,
) -> Result<(), ArchiveError> {
    let refuse = |reason| ArchiveError::Unsafe {
        member: member.path.clone(),
        reason,
    };
    let names = safe_names(&member.path).map_err(refuse)?;
    let Some((last, parents)) = names.split_last() else {
        return Ok(());
    };
    let mut at = root.to_owned();
    for name in parents {
        at = absolute(name, &at);
        if plain.contains(&at) {
            continue;
        }
        match overlay.lstat(&at).await {
            Ok(stat) if stat.kind == EntryKind::Symlink => {
                return Err(refuse("it would be written through a link"));
            }
            Ok(_) => {}
            Err(WorkspaceError::NotFound(_)) => overlay.mkdir(&at, false).await?,
            Err(error) => return Err(error.into()),
        }
        plain.insert(at.clone());
    }
    let path = absolute(last, &at);
    let there = match overlay.lstat(&path).await {
        Ok(stat) => Some(stat.kind),
        Err(WorkspaceError::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match member.node {
        MemberNode::Directory => {
            if there == Some(EntryKind::Symlink) {
                return Err(refuse("there is a link of that name"));
            }
            overlay.mkdir(&path, true).await?;
            overlay.chmod(&path, member.mode).await?;
        }
        MemberNode::File(content) => {
            if there == Some(EntryKind::Symlink) {
                overlay.remove(&path, false, false).await?;
            }
            let options = WriteOptions {
                mode: Some(member.mode),
                ..WriteOptions::default()
            };
            overlay.write(&path, content, &options).await?;
        }
        MemberNode::Symlink(target) => {
            if !stays_inside(parents.len(), &target) {
                return Err(ArchiveError::Unsafe {
                    member: member.path,
                    reason: "the link points out of the destination",
                });
            }
            if there.is_some_and(|kind| kind != EntryKind::Directory) {
                overlay.remove(&path, false, false).await?;
            }
            overlay.symlink(&target, &path).await?;
        }
    }
    Ok(())
}

/// The names of a member's path, without `.`.
fn safe_names(path: &str) -> Result<Vec<&str>, &'static str> {
    if path.starts_with('/') {
        return Err("its name is absolute");
    }
    if path.contains('\0') {
        return Err("its name has a null byte");
    }
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    if names.contains(&"..") {
        Err("its name has `..`")
    } else {
        Ok(names)
    }
}

/// Whether the target of a link that lies `depth` directories deep stays below the destination.
fn stays_inside(depth: usize, target: &str) -> bool {
    let mut depth = depth;
    !target.starts_with('/')
        && target.split('/').all(|name| match name {
            "" | "." => true,
            ".." => depth.checked_sub(1).inspect(|up| depth = *up).is_some(),
            _ => {
                depth += 1;
                true
            }
        })
}

/// What an archive holds, without unpacking it into the workspace.
///
/// # Errors
///
/// [`ArchiveError`].
pub async fn list_archive(
    overlay: &Overlay,
    path: &str,
) -> Result<Vec<ArchiveEntry>, ArchiveError> {
    let entry = |member: Member| {
        let (kind, size) = match &member.node {
            MemberNode::File(content) => (EntryKind::File, content.len() as u64),
            MemberNode::Directory => (EntryKind::Directory, 0),
            MemberNode::Symlink(_) => (EntryKind::Symlink, 0),
        };
        ArchiveEntry {
            path: member.path,
            kind,
            size,
            mode: member.mode,
        }
    };
    Ok(open(overlay, path).await?.into_iter().map(entry).collect())
}

/// The members of an archive.
async fn open(overlay: &Overlay, path: &str) -> Result<Vec<Member>, ArchiveError> {
    let packed = packed(overlay, path).await?;
    unpacked(overlay, packed).await
}

async fn unpacked(overlay: &Overlay, packed: Bytes) -> Result<Vec<Member>, ArchiveError> {
    let mut budget = Budget::of(overlay);
    blocking(move || match ArchiveKind::of_bytes(&packed) {
        ArchiveKind::Tar => tar::unpack(&packed[..], &mut budget),
        ArchiveKind::TarGz => tar::unpack(MultiGzDecoder::new(&packed[..]), &mut budget),
        ArchiveKind::Zip => zip::unpack(&packed, &mut budget),
    })
    .await
}

async fn packed(overlay: &Overlay, path: &str) -> Result<Bytes, ArchiveError> {
    if overlay.stat(path).await?.size > MAX_ARCHIVE {
        return Err(WorkspaceError::TooLarge {
            path: path.into(),
            limit: MAX_ARCHIVE,
        }
        .into());
    }
    Ok(overlay.read(path).await?)
}

/// Packs a file with gzip; returns where. Default `<path>.gz`.
///
/// # Errors
///
/// [`ArchiveError`].
pub async fn compress_file(
    overlay: &Overlay,
    path: &str,
    destination: Option<&str>,
) -> Result<String, ArchiveError> {
    let content = packed(overlay, path).await?;
    let to = destination.map_or_else(|| format!("{path}.gz"), str::to_owned);
    let packed = blocking(move || gzip(&content)).await?;
    overlay
        .write(&to, packed, &WriteOptions::with_parents())
        .await?;
    Ok(to)
}

/// Unpacks a gzip file; returns where. Default the path without `.gz`.
///
/// # Errors
///
/// [`ArchiveError`]; `EINVAL` without a destination when the name does not end in `.gz`.
pub async fn decompress_file(
    overlay: &Overlay,
    path: &str,
    destination: Option<&str>,
) -> Result<String, ArchiveError> {
    let to = match (destination, path.strip_suffix(".gz")) {
        (Some(to), _) | (None, Some(to)) => to.to_owned(),
        (None, None) => {
            return Err(WorkspaceError::Invalid(format!(
                "say where to, the name has no .gz: {path}"
            ))
            .into());
        }
    };
    let packed = packed(overlay, path).await?;
    let mut budget = Budget::of(overlay);
    let content = blocking(move || budget.read(MultiGzDecoder::new(&packed[..]))).await?;
    overlay
        .write(&to, content, &WriteOptions::with_parents())
        .await?;
    Ok(to)
}

fn gzip(content: &[u8]) -> Result<Bytes, ArchiveError> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(content).and_then(|()| encoder.finish());
    packed
        .map(Bytes::from)
        .map_err(|error| ArchiveError::Malformed(error.to_string()))
}

fn summary(members: &[Member]) -> ArchiveSummary {
    let mut summary = ArchiveSummary::default();
    for member in members {
        match &member.node {
            MemberNode::File(content) => {
                summary.files += 1;
                summary.bytes += content.len() as u64;
            }
            MemberNode::Directory => summary.directories += 1,
            MemberNode::Symlink(_) => summary.links += 1,
        }
    }
    summary
}

/// Packing takes long enough to stand in the way of other tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ArchiveError::Malformed(error.to_string())))
}
