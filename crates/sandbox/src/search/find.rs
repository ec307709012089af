//! Finding entries by what they are, and summing up what a tree holds.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bowline_store::Timestamp;

use super::{Glob, SearchError};
use crate::workspace::{
    EntryKind, Overlay, Stat,
    entry::{DirId, Entry, Node},
    path,
};

/// Entries that one search gives back.
pub const MAX_FOUND: usize = 100_000;
/// Files that a summary names as its largest.
const LARGEST: usize = 10;

/// Which entries to find; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct FindQuery {
    /// Glob that the name has to match.
    pub name: Option<String>,
    /// Glob that the path below the directory that is searched has to match.
    pub path: Option<String>,
    /// Kinds; empty for all.
    pub kinds: Vec<EntryKind>,
    /// Least depth; what lies directly in the directory has depth 1.
    pub min_depth: Option<usize>,
    /// Greatest depth.
    pub max_depth: Option<usize>,
    /// Only files and directories that are empty, or only those that are not.
    pub empty: Option<bool>,
    /// Least size, in bytes.
    pub min_size: Option<u64>,
    /// Greatest size, in bytes.
    pub max_size: Option<u64>,
    /// Only what was changed at this time or later.
    pub modified_after: Option<Timestamp>,
    /// Only what was changed at this time or earlier.
    pub modified_before: Option<Timestamp>,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Absolute.
    pub path: String,
    /// 1 for what lies directly in the directory that is searched.
    pub depth: usize,
    /// What it is; links are not followed.
    pub stat: Stat,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FindResult {
    /// In the order of the paths, a directory before what is in it; at most [`MAX_FOUND`].
    pub found: Vec<Found>,
    /// Entries that fit beyond those in `found`.
    pub omitted: usize,
}

/// What a tree holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeSummary {
    /// Files.
    pub files: u64,
    /// Directories, the one that was asked for apart.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Content of all files, in bytes.
    pub bytes: u64,
    /// Depth of the deepest entry.
    pub depth: usize,
    /// Number and bytes of the files with each ending, `""` for none.
    pub endings: BTreeMap<String, (u64, u64)>,
    /// The ten largest files with their sizes, the largest first.
    pub largest: Vec<(String, u64)>,
    /// When a file was changed last.
    pub modified: Option<Timestamp>,
}

/// One entry on the way through a tree.
struct Visit<'a> {
    path: String,
    name: &'a str,
    depth: usize,
    entry: &'a Entry,
}

/// Visits all that is below a directory, in the order of the paths; links are not followed.
async fn visit(
    overlay: &Overlay,
    base: &str,
    max_depth: usize,
    mut each: impl FnMut(Visit<'_>) + Send,
) -> Result<(), SearchError> {
    let dir = overlay.directory(base).await?;
    let mut pending: Vec<(Arc<str>, Arc<Entry>, String, usize)> = Vec::new();
    let mut enter: Option<(DirId, String, usize)> =
        Some((dir, path::absolute(base, path::WORKING_DIRECTORY), 1));
    loop {
        if let Some((dir, at, depth)) = enter.take().filter(|(_, _, depth)| *depth <= max_depth) {
            let names = overlay.run(|| Ok(overlay.peek_list(dir)?)).await?;
            pending.extend(names.into_iter().rev().map(|(name, entry)| {
                let path = path::join(&at, &name);
                (name, entry, path, depth)
            }));
        }
        let Some((name, entry, path, depth)) = pending.pop() else {
            return Ok(());
        };
        if let Node::Directory(dir) = entry.node {
            enter = Some((dir, path.clone(), depth + 1));
        }
        each(Visit {
            path,
            name: &name,
            depth,
            entry: &entry,
        });
    }
}

/// Finds entries below a directory.
///
/// # Errors
///
/// [`SearchError::Pattern`], and `ENOENT`, `ENOTDIR` for `base`.
pub async fn find(
    overlay: &Overlay,
    base: &str,
    query: &FindQuery,
) -> Result<FindResult, SearchError> {
    let name = query.name.as_deref().map(Glob::new).transpose()?;
    let pattern = query.path.as_deref().map(Glob::new).transpose()?;
    let root = path::absolute(base, path::WORKING_DIRECTORY);
    let mut result = FindResult::default();
    // Which directories are not empty is known when what is in them has been seen: one level more.
    let mut full: HashSet<String> = HashSet::new();
    let max_depth = query.max_depth.unwrap_or(usize::MAX);
    let look = max_depth.saturating_add(usize::from(query.empty.is_some()));
    visit(overlay, base, look, |visit| {
        if query.empty.is_some()
            && let Some((parent, _)) = visit.path.rsplit_once('/')
        {
            full.insert(parent.to_owned());
        }
        let relative = visit.path.get(root.len()..).unwrap_or_default();
        let size = visit.entry.size();
        let fits = visit.depth <= max_depth
            && query.min_depth.is_none_or(|least| visit.depth >= least)
            && (query.kinds.is_empty() || query.kinds.contains(&visit.entry.kind()))
            && query.min_size.is_none_or(|least| size >= least)
            && query.max_size.is_none_or(|most| size <= most)
            && query
                .modified_after
                .is_none_or(|after| visit.entry.modified >= after)
            && query
                .modified_before
                .is_none_or(|before| visit.entry.modified <= before)
            && name.as_ref().is_none_or(|glob| glob.matches(visit.name))
            && pattern.as_ref().is_none_or(|glob| glob.matches(relative));
        if !fits {
            return;
        }
        if result.found.len() == MAX_FOUND {
            result.omitted += 1;
            return;
        }
        result.found.push(Found {
            path: visit.path,
            depth: visit.depth,
            stat: Stat::of(visit.entry),
        });
    })
    .await?;
    if let Some(wanted) = query.empty {
        result.found.retain(|found| {
            let empty = match found.stat.kind {
                EntryKind::File => found.stat.size == 0,
                EntryKind::Directory => !full.contains(&found.path),
                EntryKind::Symlink => return false,
            };
            empty == wanted
        });
    }
    Ok(result)
}

/// Sums up what is below a directory.
///
/// # Errors
///
/// `ENOENT`, `ENOTDIR` for `base`.
pub async fn summarize_tree(overlay: &Overlay, base: &str) -> Result<TreeSummary, SearchError> {
    let mut summary = TreeSummary::default();
    visit(overlay, base, usize::MAX, |visit| {
        summary.depth = summary.depth.max(visit.depth);
        match visit.entry.kind() {
            EntryKind::Directory => summary.directories += 1,
            EntryKind::Symlink => summary.links += 1,
            EntryKind::File => {
                let size = visit.entry.size();
                summary.files += 1;
                summary.bytes += size;
                let ending = visit
                    .name
                    .rsplit_once('.')
                    .filter(|(start, _)| !start.is_empty());
                let counted = summary
                    .endings
                    .entry(ending.map_or("", |(_, ending)| ending).to_owned())
                    .or_default();
                *counted = (counted.0 + 1, counted.1 + size);
                summary.modified = summary.modified.max(Some(visit.entry.modified));
                let place = summary.largest.partition_point(|(_, other)| *other >= size);
                if place < LARGEST {
                    summary.largest.insert(place, (visit.path, size));
                    summary.largest.truncate(LARGEST);
                }
            }
        }
    })
    .await?;
    Ok(summary)
}
