//! Lines by regular expression.

use std::{io, sync::Arc};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkFinish, SinkMatch,
};

use super::{Glob, SearchError};
use crate::workspace::{
    Overlay, WorkspaceError,
    entry::{DirId, Entry, EntryKind, Node},
    path,
};

/// Bytes searched before other tasks get a turn.
const YIELD_EVERY: usize = 1 << 20;

/// Larger files are left out of a search, in bytes.
pub const MAX_SEARCHED: u64 = 64 << 20;

/// How letters are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// Exactly.
    #[default]
    Sensitive,
    /// Ignoring case.
    Insensitive,
    /// Ignoring case unless the pattern has an uppercase letter.
    Smart,
}

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct GrepQuery {
    /// A regular expression in the syntax of Rust's `regex` crate, or plain text with `literal`.
    pub pattern: String,
    /// Take the pattern as plain text.
    pub literal: bool,
    /// How letters are compared.
    pub case: Case,
    /// Match whole words only.
    pub word: bool,
    /// Lines of context before a match.
    pub before: usize,
    /// Lines of context after a match.
    pub after: usize,
    /// Only files that match this glob: without `/` it is matched against the name, else against the
    /// path below the directory that is searched; with `!` before it, all others.
    pub include: Option<String>,
}

/// A line that matched, or stands beside one that did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrepLine {
    /// Absolute.
    pub path: Arc<str>,
    /// From 1.
    pub line: u64,
    /// Without its end; invalid UTF-8 is replaced.
    pub text: String,
    /// False for a line of context.
    pub matched: bool,
}

/// What a search has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrepSummary {
    /// Lines that matched, those included that the caller no longer wanted.
    pub matches: u64,
    /// Files searched.
    pub files: u64,
    /// Files left out because they hold a null byte.
    pub binary: u64,
    /// Files left out because they are larger than [`MAX_SEARCHED`].
    pub large: u64,
    /// The caller wanted no more.
    pub stopped: bool,
}

/// What the caller wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    More,
    Stop,
}

/// Searches a file, or all files below a directory in the order of their paths, and hands each line
/// to `found` as it is found, until that returns `false`. Directories named `.git` are left out;
/// links are not followed, except `path` itself.
///
/// # Errors
///
/// [`SearchError::Pattern`], and `ENOENT`, `ENOTDIR` for `path`.
pub async fn grep(
    overlay: &Overlay,
    query: &GrepQuery,
    path: &str,
    mut found: impl FnMut(GrepLine) -> bool + Send,
) -> Result<GrepSummary, SearchError> {
    let mut search = FileSearch::new(query)?;
    let mut since_yield = 0;
    let start = overlay.locate(path, true).await?;
    let root = path::absolute(path, path::WORKING_DIRECTORY);
    let mut pending: Vec<(String, Arc<Entry>)> = vec![(root.clone(), start.entry)];
    while let Some((at, entry)) = pending.pop() {
        if let Node::Directory(dir) = entry.node {
            push_names(overlay, dir, &at, &mut pending).await?;
            continue;
        }
        let name = at.rsplit('/').next().unwrap_or_default();
        let relative = at.get(root.len()..).unwrap_or_default();
        if entry.kind() != EntryKind::File || !search.wants(name, relative) {
            continue;
        }
        if entry.size() > MAX_SEARCHED {
            search.too_large();
            continue;
        }
        let bytes = overlay.content(&at, &entry).await?;
        if !search.file(&at, &bytes, &mut found)? {
            break;
        }
        since_yield += bytes.len();
        if since_yield > YIELD_EVERY {
            since_yield = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(search.summary())
}

/// A search while it goes from file to file.
pub(crate) struct FileSearch {
    matcher: RegexMatcher,
    searcher: Searcher,
    include: Option<Glob>,
    /// False when what the glob matches is left out.
    wanted: bool,
    /// The glob is for names, not for paths.
    by_name: bool,
    summary: GrepSummary,
}

impl FileSearch {
    pub(crate) fn new(query: &GrepQuery) -> Result<Self, SearchError> {
        let glob = query.include.as_deref();
        let include = glob.map(|glob| Glob::new(glob.trim_start_matches('!')));
        Ok(Self {
            matcher: matcher(query)?,
            searcher: SearcherBuilder::new()
                .binary_detection(BinaryDetection::quit(0))
                .before_context(query.before)
                .after_context(query.after)
                .build(),
            include: include.transpose()?,
            wanted: !glob.is_some_and(|glob| glob.starts_with('!')),
            by_name: glob.is_some_and(|glob| !glob.contains('/')),
            summary: GrepSummary::default(),
        })
    }

    /// Whether a file is to be searched, by its name and its path below what is searched.
    pub(crate) fn wants(&self, name: &str, relative: &str) -> bool {
        let named = if self.by_name { name } else { relative };
        let include = self.include.as_ref();
        include.is_none_or(|glob| glob.matches(named) == self.wanted)
    }

    /// Counts a file that is left out for its size.
    pub(crate) fn too_large(&mut self) {
        self.summary.large += 1;
    }

    /// Searches one file; false when the caller wants no more.
    pub(crate) fn file(
        &mut self,
        path: &str,
        bytes: &[u8],
        found: &mut (dyn FnMut(GrepLine) -> bool + Send),
    ) -> Result<bool, SearchError> {
        let mut sink = Lines {
            path: path.into(),
            found,
            matches: 0,
            binary: false,
            wish: Wish::More,
        };
        search_slice(&mut self.searcher, &self.matcher, bytes, &mut sink)?;
        self.summary.files += 1;
        self.summary.matches += sink.matches;
        self.summary.binary += u64::from(sink.binary);
        self.summary.stopped = sink.wish == Wish::Stop;
        Ok(!self.summary.stopped)
    }

    pub(crate) fn summary(&self) -> GrepSummary {
        self.summary
    }
}

fn search_slice(
    searcher: &mut Searcher,
    matcher: &RegexMatcher,
    bytes: &[u8],
    sink: &mut Lines<'_>,
) -> Result<(), SearchError> {
    let searched = searcher.search_slice(matcher, bytes, sink);
    searched.map_err(|error| SearchError::Pattern(error.to_string()))
}

/// Puts the names of a directory on top of the pile, the first one topmost.
async fn push_names(
    overlay: &Overlay,
    dir: DirId,
    at: &str,
    pending: &mut Vec<(String, Arc<Entry>)>,
) -> Result<(), WorkspaceError> {
    let names = overlay.run(|| Ok(overlay.peek_list(dir)?)).await?;
    for (name, entry) in names.into_iter().rev() {
        if &*name != ".git" || entry.kind() != EntryKind::Directory {
            pending.push((path::join(at, &name), entry));
        }
    }
    Ok(())
}

fn matcher(query: &GrepQuery) -> Result<RegexMatcher, SearchError> {
    let mut builder = RegexMatcherBuilder::new();
    builder
        .fixed_strings(query.literal)
        .word(query.word)
        // `^` and `$` are those of a line: a buffer is searched, not line after line.
        .multi_line(true)
        .case_insensitive(query.case == Case::Insensitive)
        .case_smart(query.case == Case::Smart)
        .line_terminator(Some(b'\n'))
        .size_limit(10 << 20);
    builder
        .build(&query.pattern)
        .map_err(|error| SearchError::Pattern(error.to_string()))
}

struct Lines<'a> {
    path: Arc<str>,
    found: &'a mut (dyn FnMut(GrepLine) -> bool + Send),
    matches: u64,
    binary: bool,
    wish: Wish,
}

impl Lines<'_> {
    fn give(&mut self, line: Option<u64>, bytes: &[u8], matched: bool) -> bool {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = String::from_utf8_lossy(text).into_owned();
        let more = (self.found)(GrepLine {
            path: self.path.clone(),
            line: line.unwrap_or(0),
            text,
            matched,
        });
        if !more {
            self.wish = Wish::Stop;
        }
        more
    }
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        self.matches += 1;
        Ok(self.give(found.line_number(), found.bytes(), true))
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, io::Error> {
        Ok(self.give(context.line_number(), context.bytes(), false))
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> Result<bool, io::Error> {
        self.binary = true;
        Ok(false)
    }

    fn finish(&mut self, _: &Searcher, _: &SinkFinish) -> Result<(), io::Error> {
        Ok(())
    }
}
