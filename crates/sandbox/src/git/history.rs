//! Names of commits, and walking from one to those before it.

use std::collections::{BinaryHeap, HashMap, HashSet};

use super::{
    Commit, GitError, ObjectId, ObjectKind, Repository,
    limits::{HELD_COMMIT_BYTES, WALKED_COMMITS},
    refs, within,
};

/// A commit of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its id.
    pub id: ObjectId,
    /// What is in it.
    pub commit: Commit,
}

impl Repository {
    /// The object that a name means: `HEAD`, a branch, a tag, `origin/main`, an id or its first digits
    /// (four at least), each with `~N`, `^` or `^N` behind it.
    ///
    /// # Errors
    ///
    /// [`GitError::Unknown`].
    pub async fn resolve(&mut self, name: &str) -> Result<ObjectId, GitError> {
        let unknown = || {
            GitError::Unknown(format!(
                "fatal: ambiguous argument '{name}': unknown revision or path not in the working tree."
            ))
        };
        let start = name.find(['~', '^']).unwrap_or(name.len());
        let (base, mut steps) = name.split_at(start);
        let mut id = self.resolve_base(base).await?.ok_or_else(unknown)?;
        while let Some(step) = steps.chars().next() {
            steps = &steps[1..];
            if steps.starts_with('{') {
                let end = steps.find('}').ok_or_else(unknown)?;
                id = self.commit_at(id).await?.0;
                steps = &steps[end + 1..];
                continue;
            }
            let digits = steps
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(steps.len());
            let count: usize = if digits == 0 {
                1
            } else {
                steps[..digits].parse().map_err(|_| unknown())?
            };
            steps = &steps[digits..];
            if step == '^' {
                let (here, commit) = self.commit_at(id).await?;
                id = match count {
                    0 => here,
                    count => *commit.parents.get(count - 1).ok_or_else(unknown)?,
                };
            } else {
                if count > WALKED_COMMITS {
                    return Err(unknown());
                }
                for _ in 0..count {
                    id = *self
                        .commit_at(id)
                        .await?
                        .1
                        .parents
                        .first()
                        .ok_or_else(unknown)?;
                }
            }
        }
        Ok(id)
    }

    async fn resolve_base(&mut self, base: &str) -> Result<Option<ObjectId>, GitError> {
        let base = if base == "@" || base.is_empty() {
            "HEAD"
        } else {
            base
        };
        if refs::valid(base) {
            for prefix in ["", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"] {
                let upper = base.chars().all(|c| c.is_ascii_uppercase() || c == '_');
                if prefix.is_empty() && !base.starts_with("refs/") && !upper {
                    continue;
                }
                if let Some(id) = self.resolve_ref(&format!("{prefix}{base}")).await? {
                    return Ok(Some(id));
                }
            }
            if let Some(id) = self
                .resolve_ref(&format!("refs/remotes/{base}/HEAD"))
                .await?
            {
                return Ok(Some(id));
            }
        }
        if let Some(id) = ObjectId::from_hex(base) {
            return Ok(self.has(id).await?.then_some(id));
        }
        if base.len() < 4 || !base.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Ok(None);
        }
        match self.with_prefix(base).await?[..] {
            [id] => Ok(Some(id)),
            [] => Ok(None),
            [..] => Err(GitError::Unknown(format!(
                "error: short object ID {base} is ambiguous"
            ))),
        }
    }

    /// The commits from these on, newest first, without those that `without` has; at most `max`.
    ///
    /// # Errors
    ///
    /// [`GitError::Limit`] after [`super::limits::WALKED_COMMITS`].
    pub async fn log(
        &mut self,
        from: &[ObjectId],
        without: &[ObjectId],
        max: usize,
    ) -> Result<Vec<LogEntry>, GitError> {
        let hidden = if without.is_empty() {
            HashSet::new()
        } else {
            self.ancestors(without).await?
        };
        let mut walk = Walk::default();
        for id in from {
            walk.push(self, *id).await?;
        }
        let mut found = Vec::new();
        while found.len() < max
            && let Some((id, commit)) = walk.next(self).await?
        {
            if !hidden.contains(&id) {
                walk.held += commit.weight();
                found.push(LogEntry { id, commit });
            }
        }
        Ok(found)
    }

    /// A commit and all before it.
    pub(crate) async fn ancestors(
        &mut self,
        from: &[ObjectId],
    ) -> Result<HashSet<ObjectId>, GitError> {
        let mut walk = Walk::default();
        for id in from {
            walk.push(self, *id).await?;
        }
        while walk.next(self).await?.is_some() {}
        Ok(walk.seen)
    }

    /// The newest commit that both have.
    pub(crate) async fn merge_base(
        &mut self,
        one: ObjectId,
        other: ObjectId,
    ) -> Result<Option<ObjectId>, GitError> {
        let known = self.ancestors(&[one]).await?;
        let mut walk = Walk::default();
        walk.push(self, other).await?;
        while let Some((id, _)) = walk.next(self).await? {
            if known.contains(&id) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Whether one commit is the other, or before it.
    pub(crate) async fn is_ancestor(
        &mut self,
        one: ObjectId,
        other: ObjectId,
    ) -> Result<bool, GitError> {
        Ok(self.merge_base(other, one).await? == Some(one))
    }

    /// Objects that are reachable from `from`, without those of the commits in `without`.
    pub(crate) async fn missing_objects(
        &mut self,
        from: &[ObjectId],
        without: &[ObjectId],
    ) -> Result<Vec<ObjectId>, GitError> {
        let mut here = Vec::new();
        for id in without {
            if self.has(*id).await? {
                here.push(*id);
            }
        }
        let hidden = self.ancestors(&here).await?;
        let mut seen: HashSet<ObjectId> = HashSet::new();
        let mut out = Vec::new();
        // What the commits at the border have, the other side has too.
        let (mut commits, mut pending, mut border) = (Vec::new(), from.to_vec(), here);
        while let Some(id) = pending.pop() {
            if hidden.contains(&id) || !seen.insert(id) {
                continue;
            }
            match self.object(id).await? {
                (ObjectKind::Commit, body) => {
                    let commit = Commit::parse(&body)?;
                    border.extend(commit.parents.iter().filter(|id| hidden.contains(id)));
                    pending.extend(&commit.parents);
                    commits.push(commit.tree);
                }
                (ObjectKind::Tag, body) => pending.push(super::object::tagged(&body)?),
                (ObjectKind::Tree | ObjectKind::Blob, _) => {}
            }
            out.push(id);
        }
        border.sort_unstable();
        border.dedup();
        for id in border {
            let tree = self.commit_at(id).await?.1.tree;
            self.reach(tree, &mut seen, None).await?;
        }
        for tree in commits {
            self.reach(tree, &mut seen, Some(&mut out)).await?;
        }
        Ok(out)
    }

    /// A tree and all in it, as far as it was not seen.
    async fn reach(
        &mut self,
        tree: ObjectId,
        seen: &mut HashSet<ObjectId>,
        mut out: Option<&mut Vec<ObjectId>>,
    ) -> Result<(), GitError> {
        let mut pending = vec![tree];
        while let Some(id) = pending.pop() {
            if !seen.insert(id) {
                continue;
            }
            let entries = self.tree(id).await?;
            if let Some(out) = &mut out {
                out.push(id);
            }
            for entry in entries {
                match entry.mode {
                    super::object::Mode::Tree => pending.push(entry.id),
                    super::object::Mode::Module => {}
                    _ if seen.insert(entry.id) => {
                        if let Some(out) = &mut out {
                            out.push(entry.id);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Commits, newest first.
#[derive(Default)]
struct Walk {
    heap: BinaryHeap<(i64, std::cmp::Reverse<u64>, ObjectId)>,
    read: HashMap<ObjectId, Commit>,
    seen: HashSet<ObjectId>,
    pushed: u64,
    /// About how much memory `read` takes, and what the caller keeps of it.
    held: usize,
    /// Where the history of a shallow clone ends, once that is known.
    ends: Option<HashSet<ObjectId>>,
}

impl Walk {
    async fn push(&mut self, repository: &mut Repository, id: ObjectId) -> Result<(), GitError> {
        if self.seen.contains(&id) {
            return Ok(());
        }
        let (id, commit) = repository.commit_at(id).await?;
        if !self.seen.insert(id) {
            return Ok(());
        }
        if self.seen.len() > WALKED_COMMITS {
            return Err(GitError::Limit {
                what: "the history is too long".into(),
                limit: WALKED_COMMITS as u64,
            });
        }
        // Commits of one step have the same second: those met first come first.
        self.pushed += 1;
        self.heap
            .push((commit.committer.seconds, std::cmp::Reverse(self.pushed), id));
        self.held += commit.weight();
        self.read.insert(id, commit);
        within(self.held as u64, HELD_COMMIT_BYTES, || {
            "the commits take too many bytes".into()
        })
    }

    async fn next(
        &mut self,
        repository: &mut Repository,
    ) -> Result<Option<(ObjectId, Commit)>, GitError> {
        let Some((_, _, id)) = self.heap.pop() else {
            return Ok(None);
        };
        let Some(commit) = self.read.remove(&id) else {
            return Ok(None);
        };
        self.held -= commit.weight();
        let ends = match self.ends.take() {
            Some(ends) => ends,
            None => repository.shallow().await?.into_iter().collect(),
        };
        if !ends.contains(&id) {
            for parent in &commit.parents {
                self.push(repository, *parent).await?;
            }
        }
        self.ends = Some(ends);
        Ok(Some((id, commit)))
    }
}
