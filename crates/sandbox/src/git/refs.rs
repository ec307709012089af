//! References: names of commits, in files of their own or packed in one.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    GitError, ObjectId, Repository, corrupt,
    limits::{CONTROL_BYTES, REFERENCES},
    within,
};
use crate::workspace::{EntryKind, WorkspaceError, WriteOptions};

/// Symbolic references on the way to an id.
const LINKS: usize = 5;

/// What `HEAD` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// On a branch, by its short name; it may have no commit yet.
    Branch(String),
    /// On a commit.
    Detached(ObjectId),
}

/// Whether git would take the name of a reference: no `..`, control characters, ` ~^:?*[\`, `@{`,
/// component that starts with a dot or ends with `.lock`.
pub(crate) fn valid(name: &str) -> bool {
    let component = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with(".lock")
            && !part.ends_with('.')
    };
    !name.is_empty()
        && name.len() <= 1024
        && name != "@"
        && !name.starts_with('-')
        && !name.contains("..")
        && !name.contains("@{")
        && !name
            .chars()
            .any(|c| c.is_control() || " ~^:?*[\\".contains(c))
        && name.split('/').all(component)
}

enum Value {
    Id(ObjectId),
    Link(String),
}

fn parse(text: &[u8]) -> Result<Value, GitError> {
    let text = String::from_utf8_lossy(text);
    let text = text.trim_end();
    match text.strip_prefix("ref:") {
        Some(name) => {
            let name = name.trim();
            if !valid(name) || !name.starts_with("refs/") {
                return Err(corrupt("a symbolic reference leads to an invalid name"));
            }
            Ok(Value::Link(name.to_owned()))
        }
        None => ObjectId::from_hex(text)
            .map(Value::Id)
            .ok_or_else(|| corrupt("a reference cannot be read")),
    }
}

impl Repository {
    async fn read_ref(&self, name: &str) -> Result<Option<Value>, GitError> {
        if let Some(text) = self.read_control(name).await? {
            return parse(&text).map(Some);
        }
        Ok(self.packed_refs().await?.get(name).copied().map(Value::Id))
    }

    async fn packed_refs(&self) -> Result<BTreeMap<String, ObjectId>, GitError> {
        let Some(text) = self.read_control("packed-refs").await? else {
            return Ok(BTreeMap::new());
        };
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| !line.starts_with(['#', '^']));
        let refs: BTreeMap<String, ObjectId> = lines
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(id, name)| Some((name.to_owned(), ObjectId::from_hex(id)?)))
            .filter(|(name, _)| valid(name))
            .collect();
        bounded(refs.len())?;
        Ok(refs)
    }

    /// The id behind a full name (`refs/heads/main`, `HEAD`).
    pub(crate) async fn resolve_ref(&self, name: &str) -> Result<Option<ObjectId>, GitError> {
        let mut name = name.to_owned();
        for _ in 0..LINKS {
            match self.read_ref(&name).await? {
                Some(Value::Id(id)) => return Ok(Some(id)),
                Some(Value::Link(to)) => name = to,
                None => return Ok(None),
            }
        }
        Err(corrupt(format!("too many symbolic references: {name}")))
    }

    /// Where `HEAD` is.
    pub(crate) async fn head(&self) -> Result<Head, GitError> {
        match self.read_ref("HEAD").await? {
            Some(Value::Id(id)) => Ok(Head::Detached(id)),
            Some(Value::Link(name)) => Ok(Head::Branch(
                name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned(),
            )),
            None => Err(corrupt("HEAD is missing")),
        }
    }

    /// The commit of `HEAD`; none before the first one.
    pub(crate) async fn head_id(&self) -> Result<Option<ObjectId>, GitError> {
        self.resolve_ref("HEAD").await
    }

    pub(crate) async fn set_head(&self, head: &Head) -> Result<(), GitError> {
        let text = match head {
            Head::Branch(name) => format!("ref: refs/heads/{name}\n"),
            Head::Detached(id) => format!("{id}\n"),
        };
        self.write_control("HEAD", text).await
    }

    /// Moves what `HEAD` stands on.
    pub(crate) async fn move_head(&self, id: ObjectId) -> Result<(), GitError> {
        match self.head().await? {
            Head::Branch(name) => self.set_ref(&format!("refs/heads/{name}"), id).await,
            Head::Detached(_) => self.set_head(&Head::Detached(id)).await,
        }
    }

    pub(crate) async fn set_ref(&self, name: &str, id: ObjectId) -> Result<(), GitError> {
        if !valid(name) {
            return Err(GitError::Refused(format!(
                "fatal: '{name}' is not a valid name for a reference"
            )));
        }
        match self.write_control(name, format!("{id}\n")).await {
            Err(GitError::Workspace(
                WorkspaceError::IsDirectory(_)
                | WorkspaceError::NotDirectory(_)
                | WorkspaceError::Exists(_),
            )) => Err(GitError::Refused(format!(
                "fatal: cannot create '{name}': another reference has a part of that name"
            ))),
            done => done,
        }
    }

    /// Removes a reference, also where it is packed.
    pub(crate) async fn delete_ref(&self, name: &str) -> Result<(), GitError> {
        self.overlay
            .remove(&format!("{}/{name}", self.dir), false, true)
            .await?;
        let mut packed = self.packed_refs().await?;
        if packed.remove(name).is_some() {
            // Without the peeled ids, and so without the line that promises them.
            let lines = packed.iter().map(|(name, id)| format!("{id} {name}\n"));
            self.write_control("packed-refs", lines.collect()).await?;
        }
        Ok(())
    }

    /// The references below a prefix that ends with `/`, in order.
    pub(crate) async fn refs(&self, prefix: &str) -> Result<BTreeMap<String, ObjectId>, GitError> {
        let mut found = self.packed_refs().await?;
        found.retain(|name, _| name.starts_with(prefix));
        let mut pending = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(at) = pending.pop() {
            let names = match self.overlay.list(&format!("{}/{at}", self.dir)).await {
                Ok(names) => names,
                Err(WorkspaceError::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in names {
                let name = format!("{at}/{}", entry.name);
                match entry.stat.kind {
                    EntryKind::Directory => pending.push(name),
                    EntryKind::File if valid(&name) => {
                        if let Some(id) = self.resolve_ref(&name).await? {
                            found.insert(name, id);
                        }
                    }
                    EntryKind::File | EntryKind::Symlink => {}
                }
            }
            bounded(found.len())?;
        }
        Ok(found)
    }

    /// A file of `.git`; none where there is none.
    pub(crate) async fn read_control(&self, name: &str) -> Result<Option<Bytes>, GitError> {
        // However long a walk over many of them takes, it can be stopped in between.
        tokio::task::coop::consume_budget().await;
        let path = format!("{}/{name}", self.dir);
        let read = match self.overlay.stat(&path).await {
            Ok(stat) => {
                within(stat.size, CONTROL_BYTES, || {
                    format!(".git/{name} has {} bytes", stat.size)
                })?;
                self.overlay.read(&path).await
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(text) => Ok(Some(text)),
            Err(
                WorkspaceError::NotFound(_)
                | WorkspaceError::IsDirectory(_)
                | WorkspaceError::NotDirectory(_),
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file of `.git`.
    pub(crate) async fn write_control(&self, name: &str, text: String) -> Result<(), GitError> {
        let path = format!("{}/{name}", self.dir);
        Ok(self
            .overlay
            .write(&path, Bytes::from(text), &WriteOptions::with_parents())
            .await?)
    }
}

fn bounded(count: usize) -> Result<(), GitError> {
    if count > REFERENCES {
        return Err(GitError::Limit {
            what: format!("the repository has {count} references"),
            limit: REFERENCES as u64,
        });
    }
    Ok(())
}
