//! `.gitignore`.

use globset::{GlobBuilder, GlobMatcher};

/// Patterns of one file.
const MAX_RULES: usize = 10_000;

/// The rules of one `.gitignore`.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: GlobMatcher,
    /// `!`: not ignored after all.
    keep: bool,
    /// Only directories.
    dirs: bool,
    /// Matched against the path below the file's directory, else against the name.
    anchored: bool,
}

impl Rules {
    pub(crate) fn parse(text: &str) -> Self {
        Self {
            rules: text.lines().take(MAX_RULES).filter_map(rule).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the last rule that matches says; `path` is relative to the directory of the rules.
    pub(crate) fn ignored(&self, path: &str, dir: bool) -> Option<bool> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let hit = self.rules.iter().rev().find(|rule| {
            (dir || !rule.dirs)
                && rule
                    .matcher
                    .is_match(if rule.anchored { path } else { name })
        });
        hit.map(|rule| !rule.keep)
    }
}

/// A line; one that git would not understand matches nothing.
fn rule(line: &str) -> Option<Rule> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut pattern = line;
    // Spaces at the end count only behind a backslash.
    while pattern.ends_with(' ') && !pattern.ends_with("\\ ") {
        pattern = &pattern[..pattern.len() - 1];
    }
    if pattern.is_empty() || pattern.starts_with('#') {
        return None;
    }
    let keep = pattern.starts_with('!');
    let pattern = pattern.strip_prefix('!').unwrap_or(pattern);
    let dirs = pattern.ends_with('/');
    let pattern = pattern.trim_end_matches('/');
    let anchored = pattern.contains('/');
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    // A `**` at the end is all that is inside; braces mean themselves.
    let pattern = pattern.replace('{', "\\{").replace('}', "\\}");
    let matcher = GlobBuilder::new(&pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .ok()?;
    Some(Rule {
        matcher: matcher.compile_matcher(),
        keep,
        dirs,
        anchored,
    })
}
