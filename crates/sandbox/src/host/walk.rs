//! Searching a host directory.

use std::{io::Read as _, sync::Arc};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use tokio::sync::mpsc;

use super::{
    HostDir,
    files::{calm, said},
};
use crate::{
    search::{
        FileSearch, Glob, GlobMatch, GrepLine, GrepQuery, GrepSummary, MAX_SEARCHED, SearchError,
    },
    workspace::{EntryKind, WorkspaceError},
};

/// Entries that one search looks at.
const MAX_WALKED: u64 = 1_000_000;
/// Deepest directory below the one that is searched.
const MAX_DEPTH: usize = 100;
/// Lines that were found and not taken yet.
const AHEAD: usize = 256;

/// One entry on the way.
struct Visit<'a> {
    /// Below the directory that is searched.
    relative: &'a str,
    name: &'a str,
    parent: &'a Dir,
    kind: EntryKind,
}

/// What a visitor wants.
#[derive(PartialEq, Eq)]
enum Wish {
    More,
    Stop,
}

impl HostDir {
    /// As [`crate::search::grep()`].
    pub(crate) async fn grep(
        &self,
        query: &GrepQuery,
        path: &str,
        found: &mut (dyn FnMut(GrepLine) -> bool + Send),
    ) -> Result<GrepSummary, SearchError> {
        let search = FileSearch::new(query)?;
        let (lines, mut taken) = mpsc::channel(AHEAD);
        let (this, path) = (self.clone(), path.to_owned());
        // When the receiver is gone the walk stops at the next line.
        let walk = tokio::task::spawn_blocking(move || this.grep_blocking(search, &path, &lines));
        let mut stopped = false;
        while let Some(line) = taken.recv().await {
            if !found(line) {
                stopped = true;
                break;
            }
        }
        drop(taken);
        let summary = walk.await;
        let mut summary = summary
            .unwrap_or_else(|error| Err(WorkspaceError::Invalid(error.to_string()).into()))?;
        summary.stopped |= stopped;
        Ok(summary)
    }

    fn grep_blocking(
        &self,
        mut search: FileSearch,
        path: &str,
        lines: &mpsc::Sender<GrepLine>,
    ) -> Result<GrepSummary, SearchError> {
        let below = self.below(path)?;
        let root = self.absolute(path);
        let mut send = |line: GrepLine| lines.blocking_send(line).is_ok();
        let meta = self
            .dir()
            .metadata(&below)
            .map_err(|error| said(&error, path))?;
        let options = reading();
        if !meta.is_dir() {
            let file = self
                .dir()
                .open_with(&below, &options)
                .map_err(|error| said(&error, path))?;
            let name = root.rsplit('/').next().unwrap_or_default().to_owned();
            if search.wants(&name, &name) {
                one(&mut search, &root, file, &mut send).map_err(|error| said(&error, path))?;
            }
            return Ok(search.summary());
        }
        let dir = self
            .dir()
            .open_dir(&below)
            .map_err(|error| said(&error, path))?;
        walk(
            dir,
            path,
            |name| name != ".git",
            |visit| {
                if visit.kind != EntryKind::File || !search.wants(visit.name, visit.relative) {
                    return Wish::More;
                }
                let at = format!("{root}/{}", visit.relative);
                // What went away meanwhile, or may not be read, has nothing to find.
                let Ok(file) = visit.parent.open_with(visit.name, &options) else {
                    return Wish::More;
                };
                match one(&mut search, &at, file, &mut send) {
                    Ok(false) => Wish::Stop,
                    Ok(true) | Err(_) => Wish::More,
                }
            },
        )?;
        Ok(search.summary())
    }

    /// As [`crate::search::glob()`]; an absolute pattern has to start with the directory.
    pub(crate) async fn glob(
        &self,
        pattern: &str,
        base: &str,
    ) -> Result<Vec<GlobMatch>, SearchError> {
        let (relative, base) = match pattern.strip_prefix(self.root()) {
            Some(rest) if rest.starts_with('/') => (rest.trim_start_matches('/'), "."),
            _ if pattern.starts_with('/') => {
                return Err(WorkspaceError::Denied(pattern.to_owned()).into());
            }
            _ => (pattern, base),
        };
        let glob = Glob::new(relative)?;
        let (base, root) = (base.to_owned(), self.absolute(base));
        let found = self.run(move |this| {
            let below = this.below(&base)?;
            let dir = this
                .dir()
                .open_dir(below)
                .map_err(|error| said(&error, &root))?;
            let mut found = Vec::new();
            walk(
                dir,
                &base,
                |_| true,
                |visit| {
                    if glob.matches(visit.relative) {
                        found.push(GlobMatch {
                            path: format!("{root}/{}", visit.relative),
                            kind: visit.kind,
                        });
                    }
                    Wish::More
                },
            )?;
            Ok(found)
        });
        let mut found = found.await?;
        found.sort_unstable();
        Ok(found)
    }
}

fn reading() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(calm());
    options
}

/// Searches one file; false when nobody wants more.
fn one(
    search: &mut FileSearch,
    path: &str,
    file: cap_std::fs::File,
    send: &mut (dyn FnMut(GrepLine) -> bool + Send),
) -> std::io::Result<bool> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(true);
    }
    if meta.len() > MAX_SEARCHED {
        search.too_large();
        return Ok(true);
    }
    let mut bytes = Vec::new();
    file.take(MAX_SEARCHED).read_to_end(&mut bytes)?;
    let more = search.file(path, &bytes, send);
    more.map_err(|error| std::io::Error::other(error.to_string()))
}

/// Visits all that is below a directory, in the order of the paths, a directory before what is in it.
/// Links are not followed.
fn walk(
    dir: Dir,
    path: &str,
    enters: impl Fn(&str) -> bool,
    mut visit: impl FnMut(Visit<'_>) -> Wish,
) -> Result<(), WorkspaceError> {
    let mut walked = 0;
    let mut pending: Vec<Pending> = Vec::new();
    let mut enter = Some((dir, String::new(), 1));
    loop {
        if let Some((dir, prefix, depth)) = enter.take() {
            let parent = Arc::new(dir);
            let entries = parent.entries().map_err(|error| said(&error, path))?;
            let mut found: Vec<Pending> = entries
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    let name = entry.file_name().to_str()?.to_owned();
                    Some(Pending {
                        parent: parent.clone(),
                        relative: format!("{prefix}{name}"),
                        name,
                        kind: kind(entry.file_type().ok()?),
                        depth,
                    })
                })
                .collect();
            found.sort_unstable_by(|one, other| other.name.cmp(&one.name));
            walked += found.len() as u64;
            if walked > MAX_WALKED {
                return Err(WorkspaceError::Quota {
                    what: "entries of one search",
                    limit: MAX_WALKED,
                });
            }
            pending.extend(found);
        }
        let Some(next) = pending.pop() else {
            return Ok(());
        };
        let seen = Visit {
            relative: &next.relative,
            name: &next.name,
            parent: &next.parent,
            kind: next.kind,
        };
        if visit(seen) == Wish::Stop {
            return Ok(());
        }
        if next.kind == EntryKind::Directory && next.depth < MAX_DEPTH && enters(&next.name) {
            // One that went away meanwhile, or became a link, is left out.
            enter = open_below(&next.parent, &next.name)
                .map(|dir| (dir, format!("{}/", next.relative), next.depth + 1));
        }
    }
}

/// An entry that will be visited.
struct Pending {
    parent: Arc<Dir>,
    relative: String,
    name: String,
    kind: EntryKind,
    depth: usize,
}

fn kind(of: cap_std::fs::FileType) -> EntryKind {
    if of.is_dir() {
        EntryKind::Directory
    } else if of.is_symlink() {
        EntryKind::Symlink
    } else {
        EntryKind::File
    }
}

/// Opens a directory, and nothing that it may have become.
fn open_below(parent: &Dir, name: &str) -> Option<Dir> {
    let mut options = OpenOptions::new();
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    options.read(true).custom_flags(flags.bits() as i32);
    let opened = parent.open_with(name, &options).ok()?;
    Some(Dir::from_std_file(opened.into_std()))
}
