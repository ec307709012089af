//! The operations on files, directories and links.

use std::sync::Arc;

use bowline_store::{BlobId, Timestamp};
use bytes::{Bytes, BytesMut};

use super::{
    Overlay, WorkspaceError,
    committed::Stop,
    entry::{Chunk, Content, DirId, Entry, EntryKind, Node, cut},
    limits::{CHUNK, FILE_CEILING, HELD},
    overlay::{Edit, Put},
    path,
    walked::Walked,
};

/// What is known about a path without reading its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// File, directory or link.
    pub kind: EntryKind,
    /// Bytes of a file; of a link the length of its target; 0 for a directory.
    pub size: u64,
    /// Permission bits. They are kept and shown, not enforced.
    pub mode: u32,
    /// Last change of content; of a directory, when it was made.
    pub modified: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// Grows with each committed change of this entry; 0 for a write that is not committed yet.
    pub version: u64,
    /// Media type, where one was given at the write.
    pub mime: Option<String>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory.
    pub name: String,
    /// What it is; links are not followed.
    pub stat: Stat,
}

/// How to write. The default replaces or makes a file in a directory that exists.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Make missing directories.
    pub parents: bool,
    /// Fail with `EEXIST` when the path exists.
    pub exclusive: bool,
    /// Permission bits; default those of the replaced file, else `0o644`.
    pub mode: Option<u32>,
    /// Media type; default that of the replaced file.
    pub mime: Option<String>,
}

impl WriteOptions {
    /// Makes missing directories.
    pub fn with_parents() -> Self {
        Self {
            parents: true,
            ..Self::default()
        }
    }
}

impl Stat {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            kind: entry.kind(),
            size: entry.size(),
            mode: entry.mode,
            modified: entry.modified,
            created: entry.created,
            version: entry.version,
            mime: entry.mime.as_deref().map(str::to_owned),
        }
    }
}

/// A file found by [`Overlay::locate`].
pub(crate) struct Found {
    pub(crate) walked: Walked,
    pub(crate) entry: Arc<Entry>,
}

impl Overlay {
    /// All bytes of a file.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `EISDIR`, `ELOOP`, `EINVAL`, `ENAMETOOLONG`, `EIO`.
    pub async fn read(&self, path: &str) -> Result<Bytes, WorkspaceError> {
        let entry = self.entry(path, true).await?;
        self.content(path, &entry).await
    }

    /// All bytes of a file that is to be changed or searched in memory.
    pub(crate) async fn read_held(&self, path: &str) -> Result<Bytes, WorkspaceError> {
        if self.stat(path).await?.size > HELD {
            return Err(WorkspaceError::TooLarge {
                path: path.into(),
                limit: HELD,
            });
        }
        self.read(path).await
    }

    /// Up to `length` bytes of a file from `offset` on; fewer at its end. Reads only the chunks that
    /// hold them.
    ///
    /// # Errors
    ///
    /// As [`Overlay::read`].
    pub async fn read_range(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, WorkspaceError> {
        let entry = self.entry(path, true).await?;
        let Node::File(Content::Chunked { size, chunks }) = &entry.node else {
            let all = self.content(path, &entry).await?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
            return Ok(all.slice(start..all.len().min(start.saturating_add(length))));
        };
        let end = offset.saturating_add(length as u64).min(*size);
        let mut out = BytesMut::new();
        let mut at = offset;
        while at < end {
            let index = usize::try_from(at / CHUNK as u64).unwrap_or(usize::MAX);
            let Some(chunk) = chunks.get(index) else {
                break;
            };
            let start = index as u64 * CHUNK as u64;
            let bytes = self.0.shared.chunk(chunk).await?;
            let within = |place: u64| {
                usize::try_from(place - start)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len())
            };
            let part = bytes.get(within(at)..within(end)).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            out.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(out.freeze())
    }

    /// Replaces or makes a file. A link is followed; a directory is never overwritten.
    ///
    /// # Errors
    ///
    /// `ENOENT` (without `parents`), `ENOTDIR`, `EISDIR`, `EEXIST` (with `exclusive`), `EFBIG`,
    /// `EDQUOT`, `ELOOP`, `EINVAL`, `ENAMETOOLONG`, `EIO`.
    pub async fn write(
        &self,
        path: &str,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), WorkspaceError> {
        self.check_size(path, content.len() as u64)?;
        let names = path::split(path, &self.0.shared.limits)?;
        self.run(|| {
            let walked = self.walk(path, &names, true)?;
            let old = self.writable(path, &walked, options)?;
            self.put_file(
                &walked,
                old.as_deref(),
                Content::Inline(content.clone()),
                options,
            )?;
            Ok(())
        })
        .await
    }

    /// Adds bytes to the end of a file, making it when it is missing. Only the last chunk of the file
    /// is read.
    ///
    /// # Errors
    ///
    /// As [`Overlay::write`].
    pub async fn append(
        &self,
        path: &str,
        more: Bytes,
        options: &WriteOptions,
    ) -> Result<(), WorkspaceError> {
        let names = path::split(path, &self.0.shared.limits)?;
        let (walked, old) = self
            .run(|| {
                let walked = self.walk(path, &names, true)?;
                let old = self.writable(path, &walked, options)?;
                Ok((walked, old))
            })
            .await?;
        let content = match old.as_deref().map(|entry| &entry.node) {
            Some(Node::File(content)) => {
                self.check_size(path, content.size().saturating_add(more.len() as u64))?;
                self.extended(content, &more).await?
            }
            _ => {
                self.check_size(path, more.len() as u64)?;
                Content::Inline(more)
            }
        };
        self.run(|| Ok(self.put_file(&walked, old.as_deref(), content.clone(), options)?))
            .await
    }

    /// Makes a directory. With `recursive` missing parents are made too, and a directory that exists
    /// is fine.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT` (without `recursive`), `ENOTDIR`, `EDQUOT`, `ELOOP`, `EINVAL`, `ENAMETOOLONG`, `EIO`.
    pub async fn mkdir(&self, path: &str, recursive: bool) -> Result<(), WorkspaceError> {
        let names = path::split(path, &self.0.shared.limits)?;
        self.run(|| {
            let walked = self.walk(path, &names, recursive)?;
            match &walked.entry {
                Some(entry) if recursive && entry.kind() == EntryKind::Directory => return Ok(()),
                Some(_) => return Err(WorkspaceError::Exists(path.into()).into()),
                None if walked.dangling => return Err(WorkspaceError::Exists(path.into()).into()),
                None if !recursive && !walked.missing.is_empty() => {
                    return Err(WorkspaceError::NotFound(path.into()).into());
                }
                None => {}
            }
            let mut edit = Edit::default();
            let parent = self.make_parents(&walked, &mut edit)?;
            let id = self.0.shared.new_dir();
            edit.fresh.push(id);
            edit.puts.push(Put {
                dir: parent,
                name: walked.name.clone(),
                was: None,
                entry: Some(Arc::new(Entry::directory(id, 0o755, self.0.now))),
                path: walked.path(),
            });
            Ok(self.apply(edit)?)
        })
        .await
    }

    /// What is at a path; links are followed.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `ELOOP`, `EINVAL`, `ENAMETOOLONG`, `EIO`.
    pub async fn stat(&self, path: &str) -> Result<Stat, WorkspaceError> {
        Ok(Stat::of(&*self.entry(path, true).await?))
    }

    /// What is at a path; a link in the last place is not followed.
    ///
    /// # Errors
    ///
    /// As [`Overlay::stat`].
    pub async fn lstat(&self, path: &str) -> Result<Stat, WorkspaceError> {
        Ok(Stat::of(&*self.entry(path, false).await?))
    }

    /// Whether something is at a path; links are followed.
    ///
    /// # Errors
    ///
    /// `EIO`; what does not lead anywhere simply does not exist.
    pub async fn exists(&self, path: &str) -> Result<bool, WorkspaceError> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error @ WorkspaceError::Store(_)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// The path without links, `.` and `..`.
    ///
    /// # Errors
    ///
    /// As [`Overlay::stat`].
    pub async fn real_path(&self, path: &str) -> Result<String, WorkspaceError> {
        Ok(self.locate(path, true).await?.walked.path())
    }

    /// The entries of a directory, in the order of their names.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` on anything but a directory, and as [`Overlay::stat`].
    pub async fn list(&self, path: &str) -> Result<Vec<DirEntry>, WorkspaceError> {
        let dir = self.directory(path).await?;
        let names = self.run(|| Ok(self.peek_list(dir)?)).await?;
        let entry = |(name, entry): (Arc<str>, Arc<Entry>)| DirEntry {
            name: name.to_string(),
            stat: Stat::of(&entry),
        };
        Ok(names.into_iter().map(entry).collect())
    }

    /// Makes a symbolic link at `link` that points to `target`, which need not exist.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOENT`, `EINVAL` for an empty target, and as [`Overlay::mkdir`].
    pub async fn symlink(&self, target: &str, link: &str) -> Result<(), WorkspaceError> {
        let limits = &self.0.shared.limits;
        if target.is_empty() || target.contains('\0') {
            return Err(WorkspaceError::Invalid(
                "the target of a link is empty or has a null byte".into(),
            ));
        }
        if target.len() > limits.path_length {
            return Err(WorkspaceError::NameTooLong(link.into()));
        }
        let names = path::split(link, limits)?;
        self.run(|| {
            let walked = self.walk(link, &names, false)?;
            if walked.entry.is_some() {
                return Err(WorkspaceError::Exists(link.into()).into());
            }
            if !walked.missing.is_empty() {
                return Err(WorkspaceError::NotFound(link.into()).into());
            }
            self.check_depth(&walked)?;
            let entry = Entry {
                mode: 0o777,
                modified: self.0.now,
                created: self.0.now,
                version: 0,
                mime: None,
                node: Node::Symlink(target.into()),
            };
            Ok(self.apply(Edit {
                puts: vec![put(&walked, Some(entry))],
                ..Edit::default()
            })?)
        })
        .await
    }

    /// What a symbolic link points to.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is not a link, and as [`Overlay::stat`].
    pub async fn read_link(&self, path: &str) -> Result<String, WorkspaceError> {
        match &self.entry(path, false).await?.node {
            Node::Symlink(target) => Ok(target.to_string()),
            Node::File(_) | Node::Directory(_) => Err(WorkspaceError::Invalid(format!(
                "not a symbolic link: {path}"
            ))),
        }
    }

    /// Changes the permission bits; links are followed.
    ///
    /// # Errors
    ///
    /// As [`Overlay::stat`].
    pub async fn chmod(&self, path: &str, mode: u32) -> Result<(), WorkspaceError> {
        self.alter(path, |entry| entry.mode = mode & 0o7777).await
    }

    /// Changes the time of the last change; links are followed.
    ///
    /// # Errors
    ///
    /// As [`Overlay::stat`].
    pub async fn set_modified(&self, path: &str, time: Timestamp) -> Result<(), WorkspaceError> {
        self.alter(path, |entry| entry.modified = time).await
    }

    /// Writes a file from pieces of `CHUNK` bytes, the last one shorter.
    pub(crate) async fn write_pieces(
        &self,
        path: &str,
        pieces: Vec<Bytes>,
        size: u64,
        options: &WriteOptions,
    ) -> Result<(), WorkspaceError> {
        if let [only] = &pieces[..] {
            return self.write(path, only.clone(), options).await;
        }
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let content = Content::Chunked {
            size,
            chunks: pieces.map(Chunk::Fresh).collect(),
        };
        let names = path::split(path, &self.0.shared.limits)?;
        self.run(|| {
            let walked = self.walk(path, &names, true)?;
            let old = self.writable(path, &walked, options)?;
            Ok(self.put_file(&walked, old.as_deref(), content.clone(), options)?)
        })
        .await
    }

    async fn alter(
        &self,
        path: &str,
        change: impl Fn(&mut Entry) + Send,
    ) -> Result<(), WorkspaceError> {
        let found = self.locate(path, true).await?;
        if found.walked.is_root() {
            return Err(WorkspaceError::Invalid(
                "the root directory cannot be changed".into(),
            ));
        }
        let mut entry = self.in_memory(&found.entry).await?;
        change(&mut entry);
        self.apply(Edit {
            puts: vec![put(&found.walked, Some(entry))],
            ..Edit::default()
        })
    }

    /// What a path leads to, which must exist; for those that do not need the way to it.
    pub(crate) async fn entry(
        &self,
        path: &str,
        follow: bool,
    ) -> Result<Arc<Entry>, WorkspaceError> {
        match self.run(|| Ok(self.peek_path(path)?)).await? {
            Some(entry) => Ok(entry),
            None => Ok(self.locate(path, follow).await?.entry),
        }
    }

    /// What a path leads to, which must exist, and the way to it.
    pub(crate) async fn locate(&self, path: &str, follow: bool) -> Result<Found, WorkspaceError> {
        let names = path::split(path, &self.0.shared.limits)?;
        self.run(|| {
            let walked = self.walk(path, &names, follow)?;
            let entry = walked
                .entry
                .clone()
                .ok_or_else(|| WorkspaceError::NotFound(path.into()))?;
            Ok(Found { walked, entry })
        })
        .await
    }

    /// The number of a directory.
    pub(crate) async fn directory(&self, path: &str) -> Result<DirId, WorkspaceError> {
        match self.entry(path, true).await?.node {
            Node::Directory(id) => Ok(id),
            Node::File(_) | Node::Symlink(_) => Err(WorkspaceError::NotDirectory(path.into())),
        }
    }

    /// The bytes of an entry that must be a file.
    pub(crate) async fn content(&self, path: &str, entry: &Entry) -> Result<Bytes, WorkspaceError> {
        match &entry.node {
            Node::File(content) => Ok(self.0.shared.content(content).await?),
            Node::Directory(_) => Err(WorkspaceError::IsDirectory(path.into())),
            Node::Symlink(_) => Err(WorkspaceError::Loop(path.into())),
        }
    }

    /// A short hash of the content of a file, to see later whether it has changed. The same content has
    /// the same hash, committed or not.
    ///
    /// # Errors
    ///
    /// As [`Overlay::read`].
    pub async fn fingerprint(&self, path: &str) -> Result<u64, WorkspaceError> {
        let entry = self.entry(path, true).await?;
        let ids: Vec<BlobId> = match &entry.node {
            Node::File(Content::Chunked { chunks, .. }) => chunks.iter().map(Chunk::id).collect(),
            _ => cut(&self.content(path, &entry).await?)
                .iter()
                .map(Chunk::id)
                .collect(),
        };
        let bytes: Vec<u8> = ids.iter().flat_map(BlobId::as_bytes).copied().collect();
        let hash = blake3::hash(&bytes);
        Ok(hash
            .as_bytes()
            .iter()
            .take(8)
            .fold(0, |all, byte| (all << 8) | u64::from(*byte)))
    }

    /// A copy of an entry to be written under some name: its content is no longer tied to its row.
    pub(crate) async fn in_memory(&self, entry: &Entry) -> Result<Entry, WorkspaceError> {
        let mut copy = entry.clone();
        copy.version = 0;
        if let Node::File(content @ Content::Row { .. }) = &entry.node {
            copy.node = Node::File(Content::Inline(self.0.shared.content(content).await?));
        }
        Ok(copy)
    }

    pub(crate) fn check_size(&self, path: &str, size: u64) -> Result<(), WorkspaceError> {
        let limit = self.0.shared.limits.file_bytes.min(FILE_CEILING);
        if size > limit {
            return Err(WorkspaceError::TooLarge {
                path: path.into(),
                limit,
            });
        }
        Ok(())
    }

    pub(crate) fn check_depth(&self, walked: &Walked) -> Result<(), WorkspaceError> {
        if walked.dirs.len() + walked.missing.len() > self.0.shared.limits.depth {
            return Err(WorkspaceError::NameTooLong(walked.path()));
        }
        Ok(())
    }

    /// The file that a write replaces, if any.
    fn writable(
        &self,
        path: &str,
        walked: &Walked,
        options: &WriteOptions,
    ) -> Result<Option<Arc<Entry>>, Stop> {
        match &walked.entry {
            Some(_) if options.exclusive => Err(WorkspaceError::Exists(path.into()).into()),
            Some(entry) => match entry.node {
                Node::File(_) => Ok(Some(entry.clone())),
                Node::Directory(_) => Err(WorkspaceError::IsDirectory(path.into()).into()),
                Node::Symlink(_) => Err(WorkspaceError::Loop(path.into()).into()),
            },
            None if !walked.missing.is_empty() && (!options.parents || walked.dangling) => {
                Err(WorkspaceError::NotFound(path.into()).into())
            }
            None => Ok(None),
        }
    }

    fn put_file(
        &self,
        walked: &Walked,
        old: Option<&Entry>,
        content: Content,
        options: &WriteOptions,
    ) -> Result<(), WorkspaceError> {
        let mut edit = Edit::default();
        let dir = self.make_parents(walked, &mut edit)?;
        let mime = options.mime.as_deref().map(Arc::from);
        let entry = Entry {
            mode: options.mode.or(old.map(|old| old.mode)).unwrap_or(0o644) & 0o7777,
            modified: self.0.now,
            created: old.map_or(self.0.now, |old| old.created),
            version: 0,
            mime: mime.or_else(|| old.and_then(|old| old.mime.clone())),
            node: Node::File(content),
        };
        edit.puts.push(Put {
            dir,
            name: walked.name.clone(),
            was: walked.entry.clone(),
            entry: Some(Arc::new(entry)),
            path: walked.path(),
        });
        self.apply(edit)
    }

    /// Adds the missing directories above a path to an edit; returns the number of the last one.
    pub(crate) fn make_parents(
        &self,
        walked: &Walked,
        edit: &mut Edit,
    ) -> Result<DirId, WorkspaceError> {
        if walked.entry.is_none() {
            self.check_depth(walked)?;
        }
        let mut parent = walked.parent();
        let mut so_far = Walked {
            missing: Vec::new(),
            ..walked.clone()
        };
        for name in &walked.missing {
            so_far.name = name.clone();
            let id = self.0.shared.new_dir();
            edit.fresh.push(id);
            edit.puts.push(Put {
                dir: parent,
                name: name.clone(),
                was: None,
                entry: Some(Arc::new(Entry::directory(id, 0o755, self.0.now))),
                path: so_far.path(),
            });
            so_far.missing.push(name.clone());
            parent = id;
        }
        Ok(parent)
    }

    /// Content with more bytes at its end. Whole chunks are shared, only a short last one is copied.
    async fn extended(&self, content: &Content, more: &Bytes) -> Result<Content, WorkspaceError> {
        let size = content.size() + more.len() as u64;
        let mut chunks = match content {
            Content::Chunked { chunks, .. } => chunks.to_vec(),
            Content::Inline(_) | Content::Row { .. } => {
                let all = self.0.shared.content(content).await?;
                if size <= CHUNK as u64 {
                    return Ok(Content::Inline(concat(&all, more)));
                }
                cut(&all)
            }
        };
        let mut rest = more.clone();
        if let Some(last) = chunks.pop() {
            let bytes = self.0.shared.chunk(&last).await?;
            if bytes.len() < CHUNK {
                let fill = rest.split_to(rest.len().min(CHUNK - bytes.len()));
                chunks.push(Chunk::Fresh(concat(&bytes, &fill)));
            } else {
                chunks.push(last);
            }
        }
        chunks.extend(cut(&rest));
        Ok(Content::Chunked {
            size,
            chunks: chunks.into(),
        })
    }
}

/// The change of the name that a lookup ended at.
pub(crate) fn put(walked: &Walked, entry: Option<Entry>) -> Put {
    Put {
        dir: walked.parent(),
        name: walked.name.clone(),
        was: walked.entry.clone(),
        entry: entry.map(Arc::new),
        path: walked.path(),
    }
}

fn concat(start: &Bytes, more: &Bytes) -> Bytes {
    let mut all = BytesMut::with_capacity(start.len() + more.len());
    all.extend_from_slice(start);
    all.extend_from_slice(more);
    all.freeze()
}
