//! One name in a directory, and how it is written into a row.

use std::sync::Arc;

use bowline_store::{BlobId, StoreError, Timestamp};
use bytes::Bytes;

use super::limits::CHUNK;

/// Number of a directory within its actor; never given out twice.
pub(crate) type DirId = u64;

/// The root directory.
pub(crate) const ROOT: DirId = 1;
/// Directories that every workspace has without a row of their own, until they are changed.
pub(crate) const GIVEN: [(&str, DirId); 2] = [("tmp", 3), ("workspace", 2)];
/// The first number that a new directory may get.
pub(crate) const FIRST_DIR: DirId = 16;

/// The entries of a directory, in the order of their names.
pub(crate) type Names = Vec<(Arc<str>, Arc<Entry>)>;

/// What an entry is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A file, directory or symbolic link as a row has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) mode: u32,
    pub(crate) modified: Timestamp,
    pub(crate) created: Timestamp,
    /// Generation of the workspace in which this was written; 0 while it is not committed.
    pub(crate) version: u64,
    pub(crate) mime: Option<Arc<str>>,
    pub(crate) node: Node,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    File(Content),
    Directory(DirId),
    Symlink(Arc<str>),
}

/// The bytes of a file.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// All of it. Of any size while it is not committed.
    Inline(Bytes),
    /// In pieces, each `CHUNK` long except the last.
    Chunked { size: u64, chunks: Arc<[Chunk]> },
    /// In the row with this key, not kept in memory.
    Row { size: u64, key: Arc<[u8]> },
}

/// A piece of a file.
#[derive(Debug, Clone)]
pub(crate) enum Chunk {
    /// A blob.
    Stored(BlobId),
    /// Not committed yet.
    Fresh(Bytes),
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked { size, .. } | Self::Row { size, .. } => *size,
        }
    }

    /// Bytes that only memory has.
    pub(crate) fn fresh(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked { chunks, .. } => chunks.iter().map(Chunk::fresh).sum(),
            Self::Row { .. } => 0,
        }
    }
}

impl Chunk {
    pub(crate) fn id(&self) -> BlobId {
        match self {
            Self::Stored(id) => *id,
            Self::Fresh(bytes) => BlobId::of(bytes),
        }
    }

    fn fresh(&self) -> u64 {
        match self {
            Self::Stored(_) => 0,
            Self::Fresh(bytes) => bytes.len() as u64,
        }
    }
}

impl Entry {
    pub(crate) fn kind(&self) -> EntryKind {
        match self.node {
            Node::File(_) => EntryKind::File,
            Node::Directory(_) => EntryKind::Directory,
            Node::Symlink(_) => EntryKind::Symlink,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match &self.node {
            Node::File(content) => content.size(),
            Node::Directory(_) => 0,
            Node::Symlink(target) => target.len() as u64,
        }
    }

    /// Bytes that count towards the quota.
    pub(crate) fn charged(&self) -> u64 {
        match &self.node {
            Node::File(content) => content.size(),
            Node::Directory(_) | Node::Symlink(_) => 0,
        }
    }

    pub(crate) fn directory(id: DirId, mode: u32, now: Timestamp) -> Self {
        Self {
            mode,
            modified: now,
            created: now,
            version: 0,
            mime: None,
            node: Node::Directory(id),
        }
    }

    /// The entry of a directory that has no row.
    pub(crate) fn given(id: DirId) -> Self {
        Self::directory(id, 0o755, Timestamp::from_millis(0))
    }
}

/// Bytes as pieces of `CHUNK`, sharing their memory.
pub(crate) fn cut(bytes: &Bytes) -> Vec<Chunk> {
    let starts = (0..bytes.len()).step_by(CHUNK);
    starts
        .map(|start| Chunk::Fresh(bytes.slice(start..bytes.len().min(start + CHUNK))))
        .collect()
}

const FORMAT: u8 = 1;
const GONE: u8 = 0;
const FILE_INLINE: u8 = 1;
const FILE_CHUNKED: u8 = 2;
const DIRECTORY: u8 = 3;
const SYMLINK: u8 = 4;

/// The row of a name that a volume hides from its base.
pub(crate) fn tombstone() -> Bytes {
    Bytes::from_static(&[FORMAT, GONE])
}

/// The row of an entry, and the blobs it refers to.
pub(crate) fn encode(entry: &Entry) -> (Bytes, Vec<BlobId>) {
    let mut out = Vec::with_capacity(64);
    let mut blobs = Vec::new();
    out.push(FORMAT);
    out.push(match &entry.node {
        Node::File(Content::Inline(_) | Content::Row { .. }) => FILE_INLINE,
        Node::File(Content::Chunked { .. }) => FILE_CHUNKED,
        Node::Directory(_) => DIRECTORY,
        Node::Symlink(_) => SYMLINK,
    });
    put_varint(&mut out, u64::from(entry.mode));
    put_varint(&mut out, zigzag(entry.modified.as_millis()));
    put_varint(
        &mut out,
        zigzag(
            entry
                .modified
                .as_millis()
                .wrapping_sub(entry.created.as_millis()),
        ),
    );
    put_varint(&mut out, entry.version);
    let mime = entry.mime.as_deref().unwrap_or("");
    put_varint(&mut out, mime.len() as u64);
    out.extend_from_slice(mime.as_bytes());
    match &entry.node {
        Node::File(Content::Inline(bytes)) => out.extend_from_slice(bytes),
        Node::File(Content::Row { .. }) => {}
        Node::File(Content::Chunked { size, chunks, .. }) => {
            put_varint(&mut out, *size);
            for chunk in chunks.iter() {
                let id = chunk.id();
                blobs.push(id);
                out.extend_from_slice(id.as_bytes());
            }
        }
        Node::Directory(id) => put_varint(&mut out, *id),
        Node::Symlink(target) => out.extend_from_slice(target.as_bytes()),
    }
    (Bytes::from(out), blobs)
}

/// Reads a row; `None` for a tombstone.
pub(crate) fn decode(row: &Bytes) -> Result<Option<Entry>, StoreError> {
    decode_inner(row)
        .ok_or_else(|| StoreError::Corrupt("a workspace entry cannot be read".into()))
        .and_then(|found| match found {
            Decoded::Newer(version) => Err(StoreError::NewerFormat {
                found: u32::from(version),
                supported: u32::from(FORMAT),
            }),
            Decoded::Gone => Ok(None),
            Decoded::Entry(entry) => Ok(Some(entry)),
        })
}

enum Decoded {
    Newer(u8),
    Gone,
    Entry(Entry),
}

fn decode_inner(row: &Bytes) -> Option<Decoded> {
    let format = *row.first()?;
    if format != FORMAT {
        return Some(Decoded::Newer(format));
    }
    let kind = *row.get(1)?;
    if kind == GONE {
        return Some(Decoded::Gone);
    }
    let mut at = 2;
    let mode = u32::try_from(take_varint(row, &mut at)?).ok()?;
    let modified = unzigzag(take_varint(row, &mut at)?);
    let created = modified.wrapping_sub(unzigzag(take_varint(row, &mut at)?));
    let version = take_varint(row, &mut at)?;
    let length = usize::try_from(take_varint(row, &mut at)?).ok()?;
    let mime = std::str::from_utf8(row.get(at..at.checked_add(length)?)?).ok()?;
    let mime = (!mime.is_empty()).then(|| Arc::from(mime));
    at += length;
    let node = match kind {
        FILE_INLINE => Node::File(Content::Inline(row.slice(at..))),
        FILE_CHUNKED => {
            let size = take_varint(row, &mut at)?;
            let ids = row.get(at..)?;
            if ids.len() % 32 != 0 {
                return None;
            }
            let chunks = ids
                .chunks_exact(32)
                .map(|id| Some(Chunk::Stored(BlobId::from_bytes(id.try_into().ok()?))))
                .collect::<Option<Arc<[_]>>>()?;
            Node::File(Content::Chunked { size, chunks })
        }
        DIRECTORY => Node::Directory(take_varint(row, &mut at)?),
        SYMLINK => Node::Symlink(Arc::from(std::str::from_utf8(row.get(at..)?).ok()?)),
        _ => return None,
    };
    Some(Decoded::Entry(Entry {
        mode,
        modified: Timestamp::from_millis(modified),
        created: Timestamp::from_millis(created),
        version,
        mime,
        node,
    }))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(row: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *row.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
