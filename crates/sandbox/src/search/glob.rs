//! Paths by pattern.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::SearchError;
use crate::workspace::{
    EntryKind, Overlay,
    entry::{DirId, Entry, Node},
    path,
};

/// A pattern: `*` and `?` within a name, `[abc]`, `[!a-z]`, `{one,two}`, `**` for any number of
/// directories, `\` to take the next character literally. Names that start with a dot are matched
/// like any other.
#[derive(Debug, Clone)]
pub struct Glob {
    parts: Parts,
}

#[derive(Debug, Clone)]
enum Parts {
    /// One matcher for each component, so that directories that cannot match are not visited.
    Split(Arc<[Part]>),
    /// A brace holds a `/`: the whole path is matched.
    Whole(Box<GlobMatcher>),
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Any,
    Name(Box<GlobMatcher>),
    Deep,
}

/// A path that matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlobMatch {
    /// Absolute.
    pub path: String,
    /// What it is; links are not followed.
    pub kind: EntryKind,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`SearchError::Pattern`] when it is malformed or empty.
    pub fn new(pattern: &str) -> Result<Self, SearchError> {
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        if pattern.is_empty() {
            return Err(SearchError::Pattern("the pattern is empty".into()));
        }
        let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.iter().any(|name| name.matches('{').count() != name.matches('}').count()) {
            return Ok(Self { parts: Parts::Whole(Box::new(matcher(pattern.trim_start_matches('/'))?)) });
        }
        let mut parts = Vec::with_capacity(names.len() + 1);
        for name in names {
            match name {
                "**" if matches!(parts.last(), Some(Part::Deep)) => {}
                "**" => parts.push(Part::Deep),
                "*" => parts.push(Part::Any),
                name if !name.contains(['*', '?', '[', ']', '{', '}', '\\']) => parts.push(Part::Literal(name.into())),
                name => parts.push(Part::Name(Box::new(matcher(name)?))),
            }
        }
        if matches!(parts.last(), Some(Part::Deep)) {
            parts.push(Part::Any);
        }
        Ok(Self { parts: Parts::Split(parts.into()) })
    }

    /// Whether a path matches; relative to the directory that the pattern is meant for.
    pub fn matches(&self, relative: &str) -> bool {
        match &self.parts {
            Parts::Whole(matcher) => matcher.is_match(relative),
            Parts::Split(parts) => {
                let mut places = closure(parts, vec![0]);
                for name in relative.split('/').filter(|name| !name.is_empty()) {
                    places = step(parts, &places, name);
                }
                places.contains(&parts.len())
            }
        }
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, SearchError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    Ok(glob.map_err(|error| SearchError::Pattern(error.to_string()))?.compile_matcher())
}

/// Adds the places that are reached because `**` may stand for nothing.
fn closure(parts: &[Part], mut places: Vec<usize>) -> Vec<usize> {
    let mut at = 0;
    while let Some(place) = places.get(at).copied() {
        if matches!(parts.get(place), Some(Part::Deep)) && !places.contains(&(place + 1)) {
            places.push(place + 1);
        }
        at += 1;
    }
    places
}

/// The places in the pattern after one more name.
fn step(parts: &[Part], places: &[usize], name: &str) -> Vec<usize> {
    let mut next = Vec::new();
    for place in places {
        let reached = match parts.get(*place) {
            Some(Part::Deep) => *place,
            Some(Part::Any) => place + 1,
            Some(Part::Literal(literal)) if literal == name => place + 1,
            Some(Part::Name(matcher)) if matcher.is_match(name) => place + 1,
            _ => continue,
        };
        if !next.contains(&reached) {
            next.push(reached);
        }
    }
    closure(parts, next)
}

/// All paths below the directory `base` that match, sorted; an absolute pattern starts at the root.
/// Links to directories are followed where the pattern names them literally at its start, and not
/// elsewhere.
///
/// # Errors
///
/// [`SearchError::Pattern`], and `ENOENT`, `ENOTDIR` for `base`.
pub async fn glob(overlay: &Overlay, pattern: &str, base: &str) -> Result<Vec<GlobMatch>, SearchError> {
    let glob = Glob::new(pattern)?;
    let base = if pattern.starts_with('/') { "/".to_owned() } else { path::absolute(base, path::WORKING_DIRECTORY) };
    let mut found = match &glob.parts {
        Parts::Split(parts) => split_walk(overlay, parts, base).await?,
        Parts::Whole(matcher) => {
            let all = split_walk(overlay, &[Part::Deep, Part::Any], base.clone()).await?;
            let prefix = if base == "/" { 1 } else { base.len() + 1 };
            all.into_iter().filter(|found| matcher.is_match(found.path.get(prefix..).unwrap_or_default())).collect()
        }
    };
    found.sort_unstable();
    Ok(found)
}

async fn split_walk(overlay: &Overlay, mut parts: &[Part], mut base: String) -> Result<Vec<GlobMatch>, SearchError> {
    let start = overlay.directory(&base).await?;
    let mut dir = start;
    // Directories that are named literally are not listed.
    while let [Part::Literal(name), rest @ ..] = parts {
        let next = path::join(&base, name);
        if rest.is_empty() {
            let found = overlay.lstat(&next).await;
            return Ok(found.map(|stat| GlobMatch { path: next, kind: stat.kind }).into_iter().collect());
        }
        match overlay.directory(&next).await {
            Ok(id) => dir = id,
            Err(crate::workspace::WorkspaceError::Store(error)) => {
                return Err(SearchError::Workspace(error.into()));
            }
            Err(_) => return Ok(Vec::new()),
        }
        base = next;
        parts = rest;
    }
    let mut found = Vec::new();
    let mut pending: Vec<(DirId, String, Vec<usize>)> = vec![(dir, base, closure(parts, vec![0]))];
    while let Some((dir, at, places)) = pending.pop() {
        let names: Vec<(Arc<str>, Arc<Entry>)> = overlay.run(|| Ok(overlay.peek_list(dir)?)).await?;
        for (name, entry) in names {
            let next = step(parts, &places, &name);
            if next.is_empty() {
                continue;
            }
            let matched = next.contains(&parts.len());
            let deeper = next.iter().any(|place| *place < parts.len());
            match entry.node {
                Node::Directory(id) if deeper => {
                    let path = path::join(&at, &name);
                    if matched {
                        found.push(GlobMatch { path: path.clone(), kind: EntryKind::Directory });
                    }
                    pending.push((id, path, next));
                }
                _ if matched => found.push(GlobMatch { path: path::join(&at, &name), kind: entry.kind() }),
                _ => {}
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pattern_matches_whole_relative_paths() {
        let cases = [
            ("*.rs", "a.rs", true),
            ("*.rs", "src/a.rs", false),
            ("**/*.rs", "a.rs", true),
            ("**/*.rs", "src/deep/a.rs", true),
            ("src/**", "src/deep/a.rs", true),
            ("src/**", "src", false),
            ("src/**/x", "src/x", true),
            ("a[12].txt", "a1.txt", true),
            ("a\\[1\\].txt", "a[1].txt", true),
            ("a\\[1\\].txt", "a1.txt", false),
            ("{a,b/c}/*", "b/c/d", true),
            ("{a,b}/*", "b/x", true),
            ("*", ".hidden", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Glob::new(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
    }
}
