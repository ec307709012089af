//! Paths by pattern.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::SearchError;
use crate::workspace::{
    EntryKind, Overlay,
    entry::{DirId, Entry, Node},
    path,
};

/// Characters that are not themselves in a pattern.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];
/// Components of a pattern; a path has at most 100.
const MAX_PARTS: usize = 127;

/// Bytes of a pattern, and braces in it: what they make must fit into a regular expression that does not nest
/// too deeply.
const MAX_PATTERN: usize = 4096;
const MAX_BRACES: usize = 64;

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
    /// One `*` between two literal ends.
    Ends(String, String),
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
        if pattern.len() > MAX_PATTERN || pattern.matches('{').count() > MAX_BRACES {
            return Err(SearchError::Pattern(format!(
                "the pattern has more than {MAX_PATTERN} bytes or {MAX_BRACES} braces"
            )));
        }
        let names: Vec<&str> = pattern
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".")
            .collect();
        if names
            .iter()
            .any(|name| name.matches('{').count() != name.matches('}').count())
        {
            return Ok(Self {
                parts: Parts::Whole(Box::new(matcher(pattern.trim_start_matches('/'))?)),
            });
        }
        let mut parts = Vec::with_capacity(names.len() + 1);
        for name in names {
            match name {
                "**" if matches!(parts.last(), Some(Part::Deep)) => {}
                "**" => parts.push(Part::Deep),
                "*" => parts.push(Part::Any),
                name if !name.contains(SPECIAL) => parts.push(Part::Literal(name.into())),
                name if let Some((start, end)) = ends(name) => {
                    parts.push(Part::Ends(start.into(), end.into()))
                }
                name => parts.push(Part::Name(Box::new(matcher(name)?))),
            }
        }
        if matches!(parts.last(), Some(Part::Deep)) {
            parts.push(Part::Any);
        }
        if parts.len() > MAX_PARTS {
            return Err(SearchError::Pattern(format!(
                "the pattern has more than {MAX_PARTS} components"
            )));
        }
        Ok(Self {
            parts: Parts::Split(parts.into()),
        })
    }

    /// Whether a path matches; relative to the directory that the pattern is meant for.
    pub fn matches(&self, relative: &str) -> bool {
        match &self.parts {
            Parts::Whole(matcher) => matcher.is_match(relative),
            Parts::Split(parts) => {
                let mut places = closure(parts, 1);
                for name in relative.split('/').filter(|name| !name.is_empty()) {
                    places = step(parts, places, name);
                }
                places & whole(parts) != 0
            }
        }
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, SearchError> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build();
    Ok(glob
        .map_err(|error| SearchError::Pattern(error.to_string()))?
        .compile_matcher())
}

/// The two literal ends of a pattern for one name that has a single `*` and nothing else special.
fn ends(name: &str) -> Option<(&str, &str)> {
    name.split_once('*')
        .filter(|(start, end)| !start.contains(SPECIAL) && !end.contains(SPECIAL))
}

/// Places in a pattern, one bit each: bit n is set when the first n components are behind.
type Places = u128;

/// The bit of a pattern that has matched whole.
fn whole(parts: &[Part]) -> Places {
    1 << parts.len()
}

/// Adds the places that are reached because `**` may stand for nothing.
fn closure(parts: &[Part], mut places: Places) -> Places {
    for (at, part) in parts.iter().enumerate() {
        if matches!(part, Part::Deep) && places & (1 << at) != 0 {
            places |= 1 << (at + 1);
        }
    }
    places
}

/// The places in the pattern after one more name.
fn step(parts: &[Part], places: Places, name: &str) -> Places {
    let mut next = 0;
    for (at, part) in parts
        .iter()
        .enumerate()
        .filter(|(at, _)| places & (1 << at) != 0)
    {
        let matched = match part {
            Part::Deep => {
                next |= 1 << at;
                continue;
            }
            Part::Any => true,
            Part::Literal(literal) => literal == name,
            Part::Ends(start, end) => {
                name.len() >= start.len() + end.len()
                    && name.starts_with(start.as_str())
                    && name.ends_with(end.as_str())
            }
            Part::Name(matcher) => matcher.is_match(name),
        };
        if matched {
            next |= 1 << (at + 1);
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
pub async fn glob(
    overlay: &Overlay,
    pattern: &str,
    base: &str,
) -> Result<Vec<GlobMatch>, SearchError> {
    let glob = Glob::new(pattern)?;
    let base = if pattern.starts_with('/') {
        "/".to_owned()
    } else {
        path::absolute(base, path::WORKING_DIRECTORY)
    };
    let mut found = match &glob.parts {
        Parts::Split(parts) => split_walk(overlay, parts, base).await?,
        Parts::Whole(matcher) => {
            let all = split_walk(overlay, &[Part::Deep, Part::Any], base.clone()).await?;
            let prefix = if base == "/" { 1 } else { base.len() + 1 };
            all.into_iter()
                .filter(|found| matcher.is_match(found.path.get(prefix..).unwrap_or_default()))
                .collect()
        }
    };
    found.sort_unstable();
    Ok(found)
}

async fn split_walk(
    overlay: &Overlay,
    mut parts: &[Part],
    mut base: String,
) -> Result<Vec<GlobMatch>, SearchError> {
    let start = overlay.directory(&base).await?;
    let mut dir = start;
    // Directories that are named literally are not listed.
    while let [Part::Literal(name), rest @ ..] = parts {
        let next = path::join(&base, name);
        if rest.is_empty() {
            let found = overlay.lstat(&next).await;
            return Ok(found
                .map(|stat| GlobMatch {
                    path: next,
                    kind: stat.kind,
                })
                .into_iter()
                .collect());
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
    let whole = whole(parts);
    let mut pending: Vec<(DirId, String, Places)> = vec![(dir, base, closure(parts, 1))];
    while let Some((dir, at, places)) = pending.pop() {
        let names: Vec<(Arc<str>, Arc<Entry>)> =
            overlay.run(|| Ok(overlay.peek_list(dir)?)).await?;
        for (name, entry) in names {
            let next = step(parts, places, &name);
            let matched = next & whole != 0;
            let deeper = next & (whole - 1) != 0;
            match entry.node {
                Node::Directory(id) if deeper => {
                    let path = path::join(&at, &name);
                    if matched {
                        found.push(GlobMatch {
                            path: path.clone(),
                            kind: EntryKind::Directory,
                        });
                    }
                    pending.push((id, path, next));
                }
                _ if matched => found.push(GlobMatch {
                    path: path::join(&at, &name),
                    kind: entry.kind(),
                }),
                _ => {}
            }
        }
    }
    Ok(found)
}
