//! Which files `grep -r` has to look at: those that hold the pattern at all. The interpreter's own
//! `grep` then reads these, and no others.
//!
//! It asks without waiting, so this works on what is in memory; when a directory is not, the answer is
//! an error and `grep` reads everything itself, which brings it into memory.

use std::path::{Path, PathBuf};

use bashkit::{
    Error, Result, SearchCapabilities, SearchCapable, SearchMatch, SearchProvider, SearchQuery,
    SearchResults,
};
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};

use super::fs::WorkspaceFs;
use crate::workspace::{
    Overlay,
    entry::{Content, Entry, Node},
    path,
};

impl SearchCapable for WorkspaceFs {
    fn search_provider(&self, _: &Path) -> Option<Box<dyn SearchProvider>> {
        let overlay = self.overlay().ok()?;
        Some(Box::new(Files { overlay }))
    }
}

struct Files {
    overlay: Overlay,
}

fn unknown(why: &str) -> Error {
    std::io::Error::other(why).into()
}

impl SearchProvider for Files {
    fn search(&self, query: &SearchQuery) -> Result<SearchResults> {
        let matcher = RegexMatcherBuilder::new()
            .fixed_strings(!query.is_regex)
            .case_insensitive(query.case_insensitive)
            .multi_line(true)
            .build(&query.pattern)
            .map_err(|error| unknown(&error.to_string()))?;
        let root = query.root.to_str().ok_or_else(|| unknown("not UTF-8"))?;
        let entry = self.overlay.peek_path(root).ok().flatten();
        let entry = entry.ok_or_else(|| unknown("not in memory"))?;
        let mut found = SearchResults::default();
        // The order in which the command itself goes: the files of a directory, then what lies below.
        let mut pending = vec![(root.to_owned(), entry)];
        while let Some((at, entry)) = pending.pop() {
            let Node::Directory(dir) = &entry.node else {
                check(&matcher, at, &entry, &mut found)?;
                continue;
            };
            let names = self.overlay.peek_list(*dir);
            let names = names.map_err(|_| unknown("not in memory"))?;
            let mut below = Vec::new();
            for (name, entry) in names {
                let path = path::join(&at, &name);
                match &entry.node {
                    Node::Directory(_) => below.push((path, entry)),
                    Node::File(_) | Node::Symlink(_) => check(&matcher, path, &entry, &mut found)?,
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(found)
    }

    fn capabilities(&self) -> SearchCapabilities {
        SearchCapabilities {
            regex: true,
            glob_filter: false,
            content_search: true,
            filename_search: false,
        }
    }
}

fn check(
    matcher: &RegexMatcher,
    path: String,
    entry: &Entry,
    found: &mut SearchResults,
) -> Result<()> {
    match &entry.node {
        Node::File(content) if !may_match(matcher, content) => {}
        Node::File(_) => found.matches.push(SearchMatch {
            path: PathBuf::from(path),
            line_number: 1,
            line_content: String::new(),
        }),
        // Whether a link is followed is for the command to know.
        Node::Symlink(_) | Node::Directory(_) => return Err(unknown("a link")),
    }
    Ok(())
}

/// Whether a file has to be looked at. Content that is not in memory, or not text, always has.
fn may_match(matcher: &RegexMatcher, content: &Content) -> bool {
    let Content::Inline(bytes) = content else {
        return true;
    };
    std::str::from_utf8(bytes).is_err() || matcher.is_match(bytes).unwrap_or(true)
}
