//! `grep` and `glob`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Files, MAX_BYTES, ToolFailure, ToolOutput, expand, shown, truncate};
use crate::{
    search::{self, GrepLine, GrepQuery},
    workspace::EntryKind,
};

/// Matches of one `grep`.
const MAX_MATCHES: usize = 100;
/// Characters of one line of `grep`.
const MAX_LINE: usize = 500;
/// Paths of one `glob`.
const MAX_PATHS: usize = 1000;

/// Searches the content of files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrepInput {
    /// Regular expression to search for
    pub pattern: String,
    /// File or directory to search; default the working directory
    #[serde(default)]
    pub path: Option<String>,
    /// Glob of the files to search, for example *.rs or src/**/*.ts
    #[serde(default)]
    pub include: Option<String>,
    /// Take the pattern as plain text
    #[serde(default)]
    pub literal: Option<bool>,
}

/// Finds files by name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GlobInput {
    /// Glob to match, for example *.rs (in any directory) or src/**/test_*.py
    pub pattern: String,
    /// Directory to search; default the working directory
    #[serde(default)]
    pub path: Option<String>,
}

/// The lines that match, as `path:line:text`, at most 100.
///
/// # Errors
///
/// A message for the model when the pattern is malformed or the path is missing.
pub async fn grep(
    files: &(impl Files + ?Sized),
    input: GrepInput,
) -> Result<ToolOutput, ToolFailure> {
    let query = GrepQuery {
        pattern: input.pattern,
        literal: input.literal.unwrap_or(false),
        include: input.include,
        ..GrepQuery::default()
    };
    let path = expand(files, input.path.as_deref().unwrap_or("."));
    let mut text = String::new();
    let mut kept = 0;
    let mut keep = |line: GrepLine| {
        if kept < MAX_MATCHES && text.len() < MAX_BYTES {
            kept += 1;
            let cut = line.text.char_indices().nth(MAX_LINE).map(|(at, _)| at);
            let (shown_text, dots) = cut.map_or((line.text.as_str(), ""), |at| {
                (truncate::head(&line.text, at), "...")
            });
            text.push_str(&format!(
                "{}:{}:{shown_text}{dots}\n",
                shown(files, &line.path),
                line.line
            ));
        }
        true
    };
    let summary = files.grep(&query, &path, &mut keep).await?;
    text.truncate(text.trim_end().len());
    if summary.matches == 0 {
        text.push_str("No matches found.");
    } else if summary.matches > kept as u64 {
        text.push_str(&format!(
            "\n\n[Showing {kept} of {} matches. Narrow your search.]",
            summary.matches
        ));
    }
    if summary.binary > 0 {
        text.push_str(&format!(
            "\n\n[{} binary files were not searched.]",
            summary.binary
        ));
    }
    if summary.large > 0 {
        text.push_str(&format!(
            "\n\n[{} files are too large to be searched: over {}.]",
            summary.large,
            truncate::size(search::MAX_SEARCHED)
        ));
    }
    Ok(ToolOutput::text(text))
}

/// The files that match, at most 1,000. A pattern without `/` is matched against names in any
/// directory.
///
/// # Errors
///
/// A message for the model when the pattern is malformed or the path is missing.
pub async fn glob(
    files: &(impl Files + ?Sized),
    input: GlobInput,
) -> Result<ToolOutput, ToolFailure> {
    let path = expand(files, input.path.as_deref().unwrap_or("."));
    let pattern = if input.pattern.contains('/') {
        input.pattern
    } else {
        format!("**/{}", input.pattern)
    };
    let found = files.glob(&pattern, &path).await?;
    let files: Vec<&str> = found
        .iter()
        .filter(|found| found.kind == EntryKind::File)
        .map(|found| shown(files, &found.path))
        .collect();
    let Some(total) = (!files.is_empty()).then_some(files.len()) else {
        return Ok(ToolOutput::text("No files found matching pattern."));
    };
    let mut text = String::new();
    let mut kept = 0;
    for file in files.iter().take(MAX_PATHS).take_while(|_| true) {
        if text.len() + file.len() >= MAX_BYTES {
            break;
        }
        text.push_str(file);
        text.push('\n');
        kept += 1;
    }
    text.truncate(text.trim_end().len());
    if kept < total {
        text.push_str(&format!(
            "\n\n[Showing {kept} of {total} files. Narrow your search.]"
        ));
    }
    Ok(ToolOutput::text(text))
}
