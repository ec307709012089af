//! Merging two commits that come from a common one.

use std::collections::BTreeSet;

use similar::{DiffOp, TextDiff};

use super::{
    Commit, GitError, ObjectId, ObjectKind, Repository, changes::text, object::Mode, tree::Files,
};

/// Files that a message names.
const NAMED: usize = 20;

/// How a merge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merged {
    /// There was nothing to take over.
    UpToDate,
    /// The branch was behind, and was moved.
    FastForward(Option<ObjectId>, ObjectId),
    /// A commit with two parents was made.
    Commit(ObjectId),
}

impl Repository {
    /// Takes a commit over into the branch. Changes of the same lines on both sides are refused, and
    /// then nothing is changed.
    pub(crate) async fn merge(
        &mut self,
        theirs: ObjectId,
        name: &str,
        fast_forward_only: bool,
    ) -> Result<Merged, GitError> {
        let (theirs, _) = self.commit_at(theirs).await?;
        let new = self.commit_files(Some(theirs)).await?;
        let Some(ours) = self.head_id().await? else {
            self.switch_files(&Files::new(), &new, "merge").await?;
            self.move_head(theirs).await?;
            return Ok(Merged::FastForward(None, theirs));
        };
        let base = self.merge_base(ours, theirs).await?;
        if base == Some(theirs) {
            return Ok(Merged::UpToDate);
        }
        let old = self.commit_files(Some(ours)).await?;
        if base == Some(ours) {
            self.switch_files(&old, &new, "merge").await?;
            self.move_head(theirs).await?;
            return Ok(Merged::FastForward(Some(ours), theirs));
        }
        if fast_forward_only {
            return Err(GitError::Refused(
                "fatal: Not possible to fast-forward, aborting.".into(),
            ));
        }
        let Some(base) = base else {
            return Err(GitError::Refused(
                "fatal: refusing to merge unrelated histories".into(),
            ));
        };
        let before = self.commit_files(Some(base)).await?;
        let merged = self.merge_files(&before, &old, &new).await?;
        self.switch_files(&old, &merged, "merge").await?;
        let index = super::index::Index {
            entries: merged
                .iter()
                .map(|(path, (mode, id))| super::index::entry_of(path, *mode, *id, None))
                .collect(),
            ..Default::default()
        };
        let who = self.signature(None, None).await?;
        let commit = Commit {
            tree: self.write_trees(&index).await?,
            parents: vec![ours, theirs],
            author: who.clone(),
            committer: who,
            message: format!("Merge {name}\n"),
        };
        let id = self.put(ObjectKind::Commit, &commit.render()).await?;
        self.move_head(id).await?;
        Ok(Merged::Commit(id))
    }

    async fn merge_files(
        &mut self,
        base: &Files,
        ours: &Files,
        theirs: &Files,
    ) -> Result<Files, GitError> {
        let paths: BTreeSet<&String> = base
            .keys()
            .chain(ours.keys())
            .chain(theirs.keys())
            .collect();
        let (mut merged, mut conflicts) = (Files::new(), Vec::new());
        for path in paths {
            let sides = (
                base.get(path).copied(),
                ours.get(path).copied(),
                theirs.get(path).copied(),
            );
            let chosen = match sides {
                (_, ours, theirs) if ours == theirs => ours,
                (base, ours, theirs) if base == ours => theirs,
                (base, ours, theirs) if base == theirs => ours,
                (base, Some(ours), Some(theirs)) => {
                    match self.merge_file(base, ours, theirs).await? {
                        Some(file) => Some(file),
                        None => {
                            conflicts.push(path.clone());
                            None
                        }
                    }
                }
                _ => {
                    conflicts.push(path.clone());
                    None
                }
            };
            if let Some(file) = chosen {
                merged.insert(path.clone(), file);
            }
        }
        // A file on one side where the other has a directory.
        for path in merged.keys() {
            for (at, _) in path.match_indices('/') {
                if merged.contains_key(&path[..at]) {
                    conflicts.push(path[..at].to_owned());
                }
            }
        }
        if conflicts.is_empty() {
            return Ok(merged);
        }
        let list: String = conflicts
            .iter()
            .take(NAMED)
            .map(|path| format!("CONFLICT (content): {path}\n"))
            .collect();
        Err(GitError::Refused(format!(
            "{list}error: both sides changed the same lines; nothing was merged.\nhint: Compare with 'git diff HEAD <other> -- <file>', make your files fit, commit, and merge again."
        )))
    }

    async fn merge_file(
        &mut self,
        base: Option<(Mode, ObjectId)>,
        ours: (Mode, ObjectId),
        theirs: (Mode, ObjectId),
    ) -> Result<Option<(Mode, ObjectId)>, GitError> {
        let Some(base) = base else {
            return Ok(None);
        };
        let plain = |mode: Mode| matches!(mode, Mode::File | Mode::Executable);
        if !plain(base.0) || !plain(ours.0) || !plain(theirs.0) {
            return Ok(None);
        }
        let mode = if ours.0 == base.0 { theirs.0 } else { ours.0 };
        if ours.1 == theirs.1 || base.1 == theirs.1 {
            return Ok(Some((mode, ours.1)));
        }
        if base.1 == ours.1 {
            return Ok(Some((mode, theirs.1)));
        }
        let (base, ours, theirs) = (
            self.blob(base.1).await?,
            self.blob(ours.1).await?,
            self.blob(theirs.1).await?,
        );
        let (Some(base), Some(ours), Some(theirs)) = (text(&base), text(&ours), text(&theirs))
        else {
            return Ok(None);
        };
        match three_way(base, ours, theirs) {
            Some(merged) => Ok(Some((mode, self.put_blob(merged.as_bytes()).await?))),
            None => Ok(None),
        }
    }
}

/// Lines of the base that a side replaces, and by which lines of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hunk {
    start: usize,
    end: usize,
    from: usize,
    to: usize,
}

fn hunks(base: &str, side: &str) -> Vec<Hunk> {
    let diff = TextDiff::from_lines(base, side);
    let hunk = |op: &DiffOp| match *op {
        DiffOp::Equal { .. } => None,
        _ => Some(Hunk {
            start: op.old_range().start,
            end: op.old_range().end,
            from: op.new_range().start,
            to: op.new_range().end,
        }),
    };
    diff.ops().iter().filter_map(hunk).collect()
}

/// Merges two changes of a text; none when they touch the same or neighbouring lines differently.
pub(crate) fn three_way(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let lines = |text: &'_ str| {
        text.split_inclusive('\n')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (old, one, other) = (lines(base), lines(ours), lines(theirs));
    let (left, right) = (hunks(base, ours), hunks(base, theirs));
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let (mut out, mut at) = (String::new(), 0);
    loop {
        let (hunk, side) = match (left.peek().copied(), right.peek().copied()) {
            (None, None) => break,
            (Some(a), Some(b)) if a.start <= b.end && b.start <= a.end => {
                let same = (a.start, a.end) == (b.start, b.end)
                    && one.get(a.from..a.to) == other.get(b.from..b.to);
                if !same {
                    return None;
                }
                right.next();
                (left.next()?, &one)
            }
            (Some(a), Some(b)) if b.start < a.start => {
                let _ = a;
                right.next();
                (b, &other)
            }
            (Some(a), _) => {
                left.next();
                (a, &one)
            }
            (None, Some(b)) => {
                right.next();
                (b, &other)
            }
        };
        out.extend(old.get(at..hunk.start)?.iter().map(String::as_str));
        out.extend(side.get(hunk.from..hunk.to)?.iter().map(String::as_str));
        at = hunk.end;
    }
    out.extend(old.get(at..)?.iter().map(String::as_str));
    Some(out)
}
