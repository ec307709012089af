//! Finding entries and text.

use std::collections::BTreeMap;

use bowline_sandbox::{
    isolate::Value,
    search::{self, Case, FindQuery, GrepQuery, MAX_FOUND, SearchError},
    workspace::{EntryKind, Overlay, WORKING_DIRECTORY, absolute},
};
use regex::{Regex, RegexBuilder};
use serde_json::{Value as Json, json};

use super::{Outcome, files::time, kind_name, kind_of, methods};
use crate::binding::{CallError, arguments::Arguments};

/// Matches that a search gives unless `maxMatches` says otherwise; one more is an error.
pub(super) const MAX_MATCHES: usize = 10_000;
/// Lines beside a match.
const MAX_CONTEXT: u64 = 100;

pub(super) async fn glob(files: &Overlay, mut with: Arguments) -> Outcome {
    let pattern = with.text("pattern")?;
    let mut options = with.table("options", &["cwd", "type"])?;
    let base = options.text_or_none("cwd")?;
    let kind = kind(&mut options, "type")?;
    let base = base.as_deref().unwrap_or(WORKING_DIRECTORY);
    let found = search::glob(files, &pattern, base).await?;
    let found = found
        .into_iter()
        .filter(|found| kind.is_none_or(|kind| kind == found.kind));
    Ok(Value::Array(
        found.map(|found| Value::String(found.path)).collect(),
    ))
}

fn kind(with: &mut Arguments, name: &str) -> Result<Option<EntryKind>, CallError> {
    match with.text_or_none(name)? {
        None => Ok(None),
        Some(text) => match kind_of(&text) {
            Some(kind) => Ok(Some(kind)),
            None => Err(with.wrong(&format!("{name} must be file, directory or symlink"))),
        },
    }
}

fn count(with: &mut Arguments, name: &str) -> Result<Option<usize>, CallError> {
    let count = with.count(name)?;
    Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
}

async fn found(
    files: &Overlay,
    path: &str,
    query: &FindQuery,
) -> Result<Vec<search::Found>, CallError> {
    let result = search::find(files, path, query).await?;
    if result.omitted > 0 {
        let message = format!("more than {MAX_FOUND} entries; narrow the search");
        return Err(CallError::new("RangeError", message));
    }
    Ok(result.found)
}

pub(super) async fn find(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text_or_none("path")?;
    let mut options = with.table("options", methods::FIND)?;
    let mut kinds: Vec<EntryKind> = kind(&mut options, "type")?.into_iter().collect();
    if let Some(types) = options.take("types") {
        let names = match &types {
            Value::Array(names) => names.iter().map(|name| kind_of(name.as_str()?)).collect(),
            _ => None,
        };
        let names: Vec<EntryKind> = names
            .ok_or_else(|| options.wrong("types must be a list of file, directory and symlink"))?;
        kinds.extend(names);
    }
    let query = FindQuery {
        name: options.text_or_none("name")?,
        path: options.text_or_none("pathPattern")?,
        kinds,
        min_depth: count(&mut options, "minDepth")?,
        max_depth: count(&mut options, "maxDepth")?,
        empty: options.flag_or_none("empty")?,
        min_size: options.count("sizeMin")?,
        max_size: options.count("sizeMax")?,
        modified_after: time(&mut options, "mtimeAfter")?,
        modified_before: time(&mut options, "mtimeBefore")?,
    };
    let path = path.as_deref().unwrap_or(WORKING_DIRECTORY);
    let found = found(files, path, &query).await?;
    let shown = found.into_iter().map(|found| {
        Value::from(json!({
            "name": found.path.rsplit('/').next().unwrap_or_default(),
            "path": found.path,
            "type": kind_name(found.stat.kind),
            "depth": found.depth,
            "size": found.stat.size,
            "updatedAt": found.stat.modified.as_millis(),
        }))
    });
    Ok(Value::Array(shown.collect()))
}

pub(super) async fn walk(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text_or_none("path")?;
    let max_depth = count(&mut with.table("options", &["maxDepth"])?, "maxDepth")?;
    let path = path.as_deref().unwrap_or(WORKING_DIRECTORY);
    let query = FindQuery {
        max_depth,
        ..FindQuery::default()
    };
    let root = absolute(path, WORKING_DIRECTORY);
    // A directory comes before what is in it, so the last one that is open is where an entry goes.
    let mut open: Vec<(usize, Json)> = vec![(0, node(&root, EntryKind::Directory, 0))];
    for found in found(files, path, &query).await? {
        close(&mut open, found.depth);
        open.push((
            found.depth,
            node(&found.path, found.stat.kind, found.stat.size),
        ));
    }
    close(&mut open, 1);
    Ok(open
        .pop()
        .map_or(Value::Null, |(_, root)| Value::from(root)))
}

fn node(path: &str, kind: EntryKind, size: u64) -> Json {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut node = json!({"path": path, "name": name, "type": kind_name(kind)});
    match kind {
        EntryKind::Directory => node["children"] = json!([]),
        EntryKind::File => node["size"] = Json::from(size),
        EntryKind::Symlink => {}
    }
    node
}

/// Puts what is as deep as `depth`, or deeper, into its parent.
fn close(open: &mut Vec<(usize, Json)>, depth: usize) {
    while open.last().is_some_and(|(at, _)| *at >= depth.max(1)) {
        let Some((_, child)) = open.pop() else {
            return;
        };
        let parent = open
            .last_mut()
            .and_then(|(_, parent)| parent["children"].as_array_mut());
        if let Some(children) = parent {
            children.push(child);
        }
    }
}

pub(super) async fn summarize(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text_or_none("path")?;
    with.table("options", &[])?;
    let path = path.as_deref().unwrap_or(WORKING_DIRECTORY);
    let summary = search::summarize_tree(files, path).await?;
    let extensions: BTreeMap<String, Json> = summary
        .endings
        .into_iter()
        .map(|(ending, (files, bytes))| (ending, json!({"files": files, "bytes": bytes})))
        .collect();
    let largest = summary.largest.into_iter();
    let largest: Vec<Json> = largest
        .map(|(path, size)| json!({"path": path, "size": size}))
        .collect();
    let mut shown = json!({
        "files": summary.files,
        "directories": summary.directories,
        "symlinks": summary.links,
        "totalBytes": summary.bytes,
        "maxDepth": summary.depth,
        "extensions": extensions,
        "largest": largest,
    });
    if let Some(time) = summary.modified {
        shown["updatedAt"] = Json::from(time.as_millis());
    }
    Ok(Value::from(shown))
}

/// A search as it was asked for.
struct Wanted {
    grep: GrepQuery,
    /// The same, to find the places within a line.
    regex: Regex,
    most: usize,
    /// Whether `most` is what was asked for, and not the default.
    cut: bool,
}

impl Wanted {
    fn of(with: &mut Arguments) -> Result<Self, CallError> {
        let query = with.text("query")?;
        let mut options = with.table("options", methods::SEARCH)?;
        let sensitive = options.flag("caseSensitive", true)?;
        let (literal, word) = (
            !options.flag("regex", false)?,
            options.flag("wholeWord", false)?,
        );
        let beside =
            |lines: Option<u64>| usize::try_from(lines.unwrap_or(0).min(MAX_CONTEXT)).unwrap_or(0);
        let before = beside(options.count("contextBefore")?);
        let after = beside(options.count("contextAfter")?);
        let most = count(&mut options, "maxMatches")?;
        let regex = regex(&query, !literal, sensitive, word)?;
        let grep = GrepQuery {
            pattern: query,
            literal,
            case: if sensitive {
                Case::Sensitive
            } else {
                Case::Insensitive
            },
            word,
            before,
            after,
            include: None,
        };
        Ok(Self {
            grep,
            regex,
            most: most.unwrap_or(MAX_MATCHES),
            cut: most.is_some(),
        })
    }
}

/// A query as a regular expression.
pub(super) fn regex(
    query: &str,
    is_regex: bool,
    case_sensitive: bool,
    whole_word: bool,
) -> Result<Regex, CallError> {
    if query.is_empty() {
        return Err(CallError::new(
            "TypeError",
            "the text to look for must not be empty",
        ));
    }
    let pattern = if is_regex {
        query.to_owned()
    } else {
        regex::escape(query)
    };
    let pattern = if whole_word {
        format!(r"\b(?:{pattern})\b")
    } else {
        pattern
    };
    RegexBuilder::new(&pattern)
        .case_insensitive(!case_sensitive)
        .multi_line(true)
        .size_limit(10 << 20)
        .build()
        .map_err(|error| SearchError::Pattern(error.to_string()).into())
}

/// The matches of one file; `left` is what may still be given.
async fn matches(
    files: &Overlay,
    path: &str,
    wanted: &Wanted,
    left: &mut usize,
) -> Result<Vec<Json>, CallError> {
    let mut lines: Vec<(u64, String, bool)> = Vec::new();
    let (mut hits, enough) = (0, left.saturating_add(1));
    search::grep(files, &wanted.grep, path, |line| {
        hits += usize::from(line.matched);
        lines.push((line.line, line.text, line.matched));
        hits <= enough
    })
    .await?;
    let mut out = Vec::new();
    for (at, (line, text, matched)) in lines.iter().enumerate() {
        if !matched {
            continue;
        }
        for found in wanted.regex.find_iter(text) {
            if *left == 0 {
                if wanted.cut {
                    return Ok(out);
                }
                let message =
                    format!("more than {MAX_MATCHES} matches; narrow the search or set maxMatches");
                return Err(CallError::new("RangeError", message));
            }
            *left -= 1;
            let before = text.get(..found.start()).unwrap_or_default();
            let mut shown = json!({
                "line": line,
                "column": before.encode_utf16().count() + 1,
                "match": found.as_str(),
                "lineText": text,
            });
            if wanted.grep.before > 0 {
                shown["beforeLines"] = beside(lines.get(..at).unwrap_or_default(), |other| {
                    other < *line && line - other <= wanted.grep.before as u64
                });
            }
            if wanted.grep.after > 0 {
                shown["afterLines"] = beside(lines.get(at + 1..).unwrap_or_default(), |other| {
                    other - *line <= wanted.grep.after as u64
                });
            }
            out.push(shown);
        }
    }
    Ok(out)
}

/// The lines beside a match.
fn beside(lines: &[(u64, String, bool)], near: impl Fn(u64) -> bool) -> Json {
    let near = lines.iter().filter(|(line, _, _)| near(*line));
    near.map(|(_, text, _)| Json::from(text.as_str())).collect()
}

pub(super) async fn text(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let wanted = Wanted::of(&mut with)?;
    if files.stat(&path).await?.kind == EntryKind::Directory {
        return Err(bowline_sandbox::workspace::WorkspaceError::IsDirectory(path).into());
    }
    let mut left = wanted.most;
    let found = matches(files, &path, &wanted, &mut left).await?;
    Ok(Value::Array(found.into_iter().map(Value::from).collect()))
}

pub(super) async fn all(files: &Overlay, mut with: Arguments) -> Outcome {
    let pattern = with.text("pattern")?;
    let wanted = Wanted::of(&mut with)?;
    let mut left = wanted.most;
    let mut out = Vec::new();
    for found in search::glob(files, &pattern, WORKING_DIRECTORY).await? {
        if found.kind != EntryKind::File {
            continue;
        }
        let matches = matches(files, &found.path, &wanted, &mut left).await?;
        if !matches.is_empty() {
            out.push(Value::from(json!({"path": found.path, "matches": matches})));
        }
        if left == 0 && wanted.cut {
            break;
        }
    }
    Ok(Value::Array(out))
}

pub(super) async fn diff(files: &Overlay, mut with: Arguments) -> Outcome {
    let (old, new) = (with.text("pathA")?, with.text("pathB")?);
    Ok(Value::String(search::diff_files(files, &old, &new).await?))
}

pub(super) async fn diff_content(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, new) = (with.text("path")?, with.text("newContent")?);
    let old = super::edit::file_text(files, &path).await?;
    Ok(Value::String(search::unified_diff(
        &old, &new, &path, &path,
    )))
}
