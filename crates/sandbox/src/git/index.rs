//! The index: what the next commit will have.

use std::collections::HashSet;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::{
    GitError, ObjectId, Repository, corrupt,
    limits::{PACK_BYTES, PATH_BYTES, TREE_FILES},
    object::{Mode, safe_path},
    within,
};
use crate::workspace::{Stat, WorkspaceError, WorkspaceLimits};
use bowline_store::Timestamp;

/// A file in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) path: String,
    /// 0; 1 to 3 are the sides of a conflict.
    pub(crate) stage: u8,
    pub(crate) mode: Mode,
    pub(crate) id: ObjectId,
    /// Of the file when it was added: the time in milliseconds, and the size.
    pub(crate) modified: i64,
    pub(crate) size: u32,
}

/// The index, in the order of its paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pub(crate) entries: Vec<IndexEntry>,
    /// When it was written, in milliseconds: what was changed since may look unchanged.
    pub(super) written: i64,
}

impl Index {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, GitError> {
        let wrong = || corrupt("the index cannot be read; remove .git/index and run git reset");
        let word = |at: usize| -> Result<u32, GitError> {
            let four = bytes.get(at..at + 4).ok_or_else(wrong)?;
            Ok(u32::from_be_bytes(four.try_into().map_err(|_| wrong())?))
        };
        if bytes.get(..4) != Some(b"DIRC") || bytes.len() < 32 {
            return Err(wrong());
        }
        let (version, count) = (word(4)?, word(8)? as usize);
        if !(2..=4).contains(&version) {
            return Err(GitError::Unsupported(format!(
                "an index of version {version}"
            )));
        }
        if count > TREE_FILES {
            return Err(GitError::Limit {
                what: format!("the index has {count} files"),
                limit: TREE_FILES as u64,
            });
        }
        let end = bytes.len() - 20;
        let sum: [u8; 20] = Sha1::digest(&bytes[..end]).into();
        if bytes[end..] != sum && bytes[end..] != [0; 20] {
            return Err(wrong());
        }
        let mut entries: Vec<IndexEntry> = Vec::with_capacity(count.min(bytes.len() / 62));
        let (mut at, mut paths) = (12, 0);
        for _ in 0..count {
            let (seconds, nanos, mode) = (word(at + 8)?, word(at + 12)?, word(at + 24)?);
            let id = bytes
                .get(at + 40..at + 60)
                .and_then(ObjectId::from_bytes)
                .ok_or_else(wrong)?;
            let flags = word(at + 60 - 2)? as u16;
            let start = at + if flags & 0x4000 != 0 { 64 } else { 62 };
            let (path, next) = if version == 4 {
                let (strip, from) = strip_length(bytes, start).ok_or_else(wrong)?;
                let stop = from
                    + memchr::memchr(0, bytes.get(from..end).ok_or_else(wrong)?)
                        .ok_or_else(wrong)?;
                let before = entries.last().map_or("", |entry| entry.path.as_str());
                let keep = before.len().checked_sub(strip).ok_or_else(wrong)?;
                let mut path = before.as_bytes()[..keep].to_vec();
                path.extend_from_slice(&bytes[from..stop]);
                (path, stop + 1)
            } else {
                let stop = start
                    + memchr::memchr(0, bytes.get(start..end).ok_or_else(wrong)?)
                        .ok_or_else(wrong)?;
                (bytes[start..stop].to_vec(), at + (stop - at + 8) / 8 * 8)
            };
            let path = String::from_utf8(path)
                .map_err(|_| GitError::Unsupported("a file name that is not UTF-8".into()))?;
            // A compressed path is longer than what stands for it.
            paths += path.len();
            within(paths as u64, PATH_BYTES as u64, || {
                "the paths of the index are too long".into()
            })?;
            let mode = Mode::read(mode).filter(|mode| *mode != Mode::Tree);
            if !safe_path(&path) {
                return Err(corrupt(format!(
                    "the index has the path '{}', which is refused",
                    path.escape_debug()
                )));
            }
            entries.push(IndexEntry {
                path,
                stage: (flags >> 12 & 3) as u8,
                mode: mode.ok_or_else(wrong)?,
                id,
                modified: i64::from(seconds) * 1000 + i64::from(nanos / 1_000_000),
                size: word(at + 36)?,
            });
            at = next;
        }
        while at + 8 <= end {
            // Extensions that begin with a capital may be left out.
            if !bytes[at].is_ascii_uppercase() {
                return Err(GitError::Unsupported("a split or sparse index".into()));
            }
            at = at
                .checked_add(8 + word(at + 4)? as usize)
                .ok_or_else(wrong)?;
        }
        entries.sort_by(|one, other| (&one.path, one.stage).cmp(&(&other.path, other.stage)));
        if !is_sound(&entries) {
            return Err(wrong());
        }
        Ok(Self {
            entries,
            written: 0,
        })
    }

    pub(crate) fn render(&self) -> Vec<u8> {
        let mut out = b"DIRC\0\0\0\x02".to_vec();
        out.extend_from_slice(
            &u32::try_from(self.entries.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for entry in &self.entries {
            let start = out.len();
            let seconds = u32::try_from(entry.modified.div_euclid(1000)).unwrap_or(0);
            let nanos = u32::try_from(entry.modified.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
            // Change time, device, inode and owner are not known here: git looks at the content then.
            for word in [
                seconds,
                nanos,
                seconds,
                nanos,
                0,
                0,
                entry.mode.bits(),
                0,
                0,
                entry.size,
            ] {
                out.extend_from_slice(&word.to_be_bytes());
            }
            out.extend_from_slice(&entry.id.0);
            let flags = u16::from(entry.stage) << 12 | entry.path.len().min(0xfff) as u16;
            out.extend_from_slice(&flags.to_be_bytes());
            out.extend_from_slice(entry.path.as_bytes());
            let padded = start + (out.len() - start + 8) / 8 * 8;
            out.resize(padded, 0);
        }
        let sum: [u8; 20] = Sha1::digest(&out).into();
        out.extend_from_slice(&sum);
        out
    }

    /// The entry of a path that is not in conflict.
    pub(crate) fn get(&self, path: &str) -> Option<&IndexEntry> {
        let at = self
            .entries
            .binary_search_by(|entry| (entry.path.as_str(), entry.stage).cmp(&(path, 0)));
        self.entries.get(at.ok()?)
    }

    /// Whether any file lies below a directory.
    pub(crate) fn has_below(&self, dir: &str) -> bool {
        let prefix = format!("{dir}/");
        let at = self.entries.partition_point(|entry| entry.path < prefix);
        self.entries
            .get(at)
            .is_some_and(|entry| entry.path.starts_with(&prefix))
    }

    /// Puts a file in; what was there under that path, or stands in its way, goes.
    pub(crate) fn put(&mut self, entry: IndexEntry) {
        let at = self
            .entries
            .partition_point(|other| other.path < entry.path);
        let same = self.entries[at..]
            .iter()
            .take_while(|other| other.path == entry.path)
            .count();
        if same > 0 {
            self.entries.splice(at..at + same, [entry]);
            return;
        }
        self.entries.insert(at, entry.clone());
        // A file where a directory was, or a directory where a file was.
        if self.has_below(&entry.path) {
            let prefix = format!("{}/", entry.path);
            self.entries
                .retain(|other| !other.path.starts_with(&prefix));
        }
        let mut dir = entry.path.as_str();
        while let Some((parent, _)) = dir.rsplit_once('/') {
            self.remove(parent);
            dir = parent;
        }
    }

    pub(crate) fn remove(&mut self, path: &str) {
        let at = self
            .entries
            .partition_point(|other| other.path.as_str() < path);
        let same = self.entries[at..]
            .iter()
            .take_while(|other| other.path == path)
            .count();
        self.entries.drain(at..at + same);
    }

    pub(crate) fn conflicts(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|entry| entry.stage > 0)
            .map(|entry| entry.path.as_str())
    }

    /// Whether a file surely has the content that it had when it was added.
    pub(crate) fn unchanged(&self, entry: &IndexEntry, stat: &Stat) -> bool {
        entry.size > 0
            && u64::from(entry.size) == stat.size
            && entry.modified == stat.modified.as_millis()
            && entry.modified < self.written
    }
}

/// Whether no path of a sorted index is there twice, both merged and in conflict, both a file and a
/// directory, or deeper than a workspace may be.
fn is_sound(entries: &[IndexEntry]) -> bool {
    let depth = WorkspaceLimits::default().depth;
    let mut files: HashSet<&str> = HashSet::new();
    entries.iter().enumerate().all(|(at, entry)| {
        let twice = at.checked_sub(1).is_some_and(|before| {
            let before = &entries[before];
            before.path == entry.path && (before.stage == 0 || before.stage == entry.stage)
        });
        if entry.stage == 0 {
            files.insert(&entry.path);
        }
        let mut dirs = entry
            .path
            .match_indices('/')
            .map(|(end, _)| &entry.path[..end]);
        let below_file = entry.stage == 0 && dirs.any(|dir| files.contains(dir));
        !twice && !below_file && entry.path.matches('/').count() <= depth
    })
}

/// The length in a compressed path, and where the rest of it begins.
fn strip_length(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut byte = *bytes.get(at)?;
    let mut value = usize::from(byte & 127);
    while byte & 128 != 0 {
        at += 1;
        byte = *bytes.get(at)?;
        value = (value.checked_add(1)?.checked_mul(128)?) | usize::from(byte & 127);
    }
    Some((value, at + 1))
}

/// An entry for a file that looks like this.
pub(crate) fn entry_of(path: &str, mode: Mode, id: ObjectId, stat: Option<&Stat>) -> IndexEntry {
    IndexEntry {
        path: path.to_owned(),
        stage: 0,
        mode,
        id,
        modified: stat.map_or(0, |stat| stat.modified.as_millis()),
        size: stat.map_or(0, |stat| u32::try_from(stat.size).unwrap_or(u32::MAX)),
    }
}

impl Repository {
    pub(crate) async fn index(&self) -> Result<Index, GitError> {
        let path = format!("{}/index", self.dir);
        let stat = match self.overlay.stat(&path).await {
            Ok(stat) => stat,
            Err(WorkspaceError::NotFound(_)) => {
                return Ok(Index {
                    entries: Vec::new(),
                    written: Timestamp::from_millis(0).as_millis(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        within(stat.size, PACK_BYTES, || {
            format!("the index has {} bytes", stat.size)
        })?;
        let mut index = Index::parse(&self.overlay.read(&path).await?)?;
        index.written = stat.modified.as_millis();
        Ok(index)
    }

    pub(crate) async fn set_index(&self, index: &Index) -> Result<(), GitError> {
        let path = format!("{}/index", self.dir);
        let bytes = Bytes::from(index.render());
        Ok(self
            .overlay
            .write(&path, bytes, &crate::workspace::WriteOptions::default())
            .await?)
    }
}
