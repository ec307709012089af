//! Where objects are: loose files and packs.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    Commit, GitError, ObjectId, ObjectKind, Repository, corrupt,
    limits::{OBJECT_BYTES, PACK_BYTES, PACK_INDEX_BYTES},
    object::{TreeEntry, header, parse_tree, tagged},
    pack::{self, Object, Pack, PackIndex, Read1, Taken},
    within,
};
use crate::workspace::{EntryKind, WorkspaceError, WriteOptions};

/// Packs that are held in memory at once, in bytes.
const HELD_PACKS: usize = 128 << 20;
/// Unpacked objects that all packs together keep, in bytes.
const HELD_OBJECTS: usize = 48 << 20;
/// Tags on the way to a commit.
const TAGS: usize = 10;

/// A pack in `.git/objects/pack`.
#[derive(Debug)]
pub(crate) struct PackFile {
    path: String,
    index: PackIndex,
    pack: Option<Pack>,
    size: usize,
}

impl Repository {
    fn loose_path(&self, id: ObjectId) -> String {
        let hex = id.to_string();
        format!("{}/objects/{}/{}", self.dir, &hex[..2], &hex[2..])
    }

    /// An object, wherever it is.
    pub(crate) async fn object(&mut self, id: ObjectId) -> Result<Object, GitError> {
        let found = self.find_object(id).await?;
        found.ok_or_else(|| corrupt(format!("fatal: object {id} is missing")))
    }

    async fn find_object(&mut self, id: ObjectId) -> Result<Option<Object>, GitError> {
        // However long a walk over many objects takes, it can be stopped in between.
        tokio::task::coop::consume_budget().await;
        let path = self.loose_path(id);
        match self.overlay.stat(&path).await {
            Ok(stat) if stat.size > OBJECT_BYTES => {
                return Err(GitError::Limit {
                    what: format!("object {id} has {} bytes", stat.size),
                    limit: OBJECT_BYTES,
                });
            }
            Ok(_) => {
                let object = pack::loose(&self.overlay.read(&path).await?)?;
                if ObjectId::of(object.0, &object.1) != id {
                    return Err(corrupt(format!("object {id} is damaged")));
                }
                return Ok(Some(object));
            }
            Err(WorkspaceError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.packed(id).await
    }

    async fn packed(&mut self, id: ObjectId) -> Result<Option<Object>, GitError> {
        self.load_packs().await?;
        let mut outside = HashMap::new();
        // A delta whose base is in another pack: git does not write such packs, so one level is enough.
        for _ in 0..2 {
            let packs = self.packs.as_ref().map_or(0, Vec::len);
            let Some((at, offset)) = (0..packs)
                .find_map(|at| Some((at, self.packs.as_ref()?.get(at)?.index.offset(id)?)))
            else {
                return Ok(None);
            };
            self.load_pack(at).await?;
            let Some(file) = self.packs.as_mut().and_then(|packs| packs.get_mut(at)) else {
                return Ok(None);
            };
            let index = file.index.clone();
            let Some(pack) = &mut file.pack else {
                return Ok(None);
            };
            let read = pack.object_at(offset, &|id| index.offset(id), &outside)?;
            self.keep_few(at);
            match read {
                Read1::Object(object) => return Ok(Some(object)),
                Read1::Outside(base) => {
                    let object = Box::pin(self.object(base)).await?;
                    outside.insert(base, object);
                }
            }
        }
        Err(corrupt(format!(
            "object {id} is in a pack that needs other packs"
        )))
    }

    /// Lets the other packs forget their objects when all of them keep too many.
    fn keep_few(&mut self, at: usize) {
        let packs = || self.packs.iter().flatten().flat_map(|file| &file.pack);
        if packs().map(Pack::held).sum::<usize>() > HELD_OBJECTS {
            let others = self.packs.iter_mut().flatten().enumerate();
            let others = others.filter(|(other, _)| *other != at);
            others
                .filter_map(|(_, file)| file.pack.as_mut())
                .for_each(Pack::forget);
        }
    }

    async fn load_packs(&mut self) -> Result<(), GitError> {
        if self.packs.is_some() {
            return Ok(());
        }
        let dir = format!("{}/objects/pack", self.dir);
        let (mut packs, mut indexes) = (Vec::new(), 0);
        let names = match self.overlay.list(&dir).await {
            Ok(names) => names,
            Err(WorkspaceError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for entry in names {
            let Some(name) = entry.name.strip_suffix(".idx") else {
                continue;
            };
            let path = format!("{dir}/{name}.pack");
            let size = self.overlay.stat(&path).await?.size;
            within(size, PACK_BYTES, || format!("{name}.pack has {size} bytes"))?;
            indexes += entry.stat.size;
            within(indexes, PACK_INDEX_BYTES, || {
                "the indexes of the packs take too many bytes".into()
            })?;
            let index =
                PackIndex::read(self.overlay.read(&format!("{dir}/{}", entry.name)).await?)?;
            packs.push(PackFile {
                path,
                index,
                pack: None,
                size: usize::try_from(size).unwrap_or(usize::MAX),
            });
        }
        self.packs = Some(packs);
        Ok(())
    }

    async fn load_pack(&mut self, at: usize) -> Result<(), GitError> {
        let packs = self.packs.get_or_insert_default();
        if packs.get(at).is_none_or(|file| file.pack.is_some()) {
            return Ok(());
        }
        let held: usize = packs
            .iter()
            .filter(|file| file.pack.is_some())
            .map(|file| file.size)
            .sum();
        let size = packs.get(at).map_or(0, |file| file.size);
        if held + size > HELD_PACKS {
            packs.iter_mut().for_each(|file| file.pack = None);
        }
        if let Some(file) = packs.get_mut(at) {
            let bytes = self.overlay.read(&file.path).await?;
            file.pack = Some(Pack::new(bytes)?);
        }
        Ok(())
    }

    /// Whether an object is here.
    pub(crate) async fn has(&mut self, id: ObjectId) -> Result<bool, GitError> {
        if self.overlay.exists(&self.loose_path(id)).await? {
            return Ok(true);
        }
        self.load_packs().await?;
        Ok(self
            .packs
            .iter()
            .flatten()
            .any(|file| file.index.offset(id).is_some()))
    }

    /// Writes an object, unless it is there.
    pub(crate) async fn put(
        &mut self,
        kind: ObjectKind,
        body: &[u8],
    ) -> Result<ObjectId, GitError> {
        if body.len() as u64 > OBJECT_BYTES {
            return Err(GitError::Limit {
                what: format!("an object has {} bytes", body.len()),
                limit: OBJECT_BYTES,
            });
        }
        let id = ObjectId::of(kind, body);
        if !self.has(id).await? {
            let bytes = pack::deflate(&[&header(kind, body.len()), body])?;
            let options = WriteOptions {
                parents: true,
                mode: Some(0o444),
                ..WriteOptions::default()
            };
            self.overlay
                .write(&self.loose_path(id), Bytes::from(bytes), &options)
                .await?;
        }
        Ok(id)
    }

    /// Takes over a received pack.
    pub(crate) async fn put_pack(&mut self, bytes: Bytes) -> Result<usize, GitError> {
        let mut outside = HashMap::new();
        let mut held = 0;
        for id in pack::bases(&bytes)? {
            if let Some(object) = self.find_object(id).await? {
                held += object.1.len();
                outside.insert(id, object);
            }
            if held > HELD_PACKS {
                return Err(GitError::Limit {
                    what: "a pack builds on too many bytes".into(),
                    limit: HELD_PACKS as u64,
                });
            }
        }
        let Taken {
            name,
            pack,
            index,
            objects,
        } = pack::take(bytes, &outside)?;
        let dir = format!("{}/objects/pack", self.dir);
        let options = WriteOptions {
            parents: true,
            mode: Some(0o444),
            ..WriteOptions::default()
        };
        self.overlay
            .write(&format!("{dir}/{name}.pack"), pack, &options)
            .await?;
        self.overlay
            .write(&format!("{dir}/{name}.idx"), index, &options)
            .await?;
        self.packs = None;
        Ok(objects)
    }

    /// The ids that begin with these digits; at least four of them.
    pub(crate) async fn with_prefix(&mut self, prefix: &str) -> Result<Vec<ObjectId>, GitError> {
        let prefix = prefix.to_ascii_lowercase();
        let (Some(first), true) = (prefix.get(..2), prefix.len() >= 4) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        if let Ok(names) = self
            .overlay
            .list(&format!("{}/objects/{first}", self.dir))
            .await
        {
            let ids = names
                .iter()
                .filter(|entry| entry.stat.kind == EntryKind::File);
            found.extend(
                ids.filter_map(|entry| ObjectId::from_hex(&format!("{first}{}", entry.name))),
            );
            found.retain(|id| id.to_string().starts_with(&prefix));
        }
        self.load_packs().await?;
        for file in self.packs.iter().flatten() {
            found.extend(file.index.with_prefix(&prefix));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// A commit; through tags.
    pub(crate) async fn commit_at(&mut self, id: ObjectId) -> Result<(ObjectId, Commit), GitError> {
        let mut at = id;
        for _ in 0..TAGS {
            match self.object(at).await? {
                (ObjectKind::Commit, body) => return Ok((at, Commit::parse(&body)?)),
                (ObjectKind::Tag, body) => at = tagged(&body)?,
                (ObjectKind::Tree | ObjectKind::Blob, _) => break,
            }
        }
        Err(GitError::Unknown(format!("fatal: {id} is not a commit")))
    }

    /// The entries of a tree.
    pub(crate) async fn tree(&mut self, id: ObjectId) -> Result<Vec<TreeEntry>, GitError> {
        match self.object(id).await? {
            (ObjectKind::Tree, body) => parse_tree(&body),
            _ => Err(corrupt(format!("{id} is not a tree"))),
        }
    }

    /// The content of a file.
    pub(crate) async fn blob(&mut self, id: ObjectId) -> Result<Bytes, GitError> {
        match self.object(id).await? {
            (ObjectKind::Blob, body) => Ok(body),
            _ => Err(corrupt(format!("{id} is not a file"))),
        }
    }
}
