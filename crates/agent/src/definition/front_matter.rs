//! Markdown files that start with settings between `---` lines, and reading files within bounds.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::document::Node;
use super::error::{DefinitionError, DefinitionErrorKind};
use super::fault::{Fault, FaultKind};

/// The largest `agent.md` or `SKILL.md`, in bytes.
pub(crate) const MAX_FILE: u64 = 256 * 1024;

/// A Markdown file in its two parts.
#[derive(Debug)]
pub(crate) struct FrontMatter {
    /// The settings.
    pub(crate) settings: Node,
    /// The text below them, without blank lines around it.
    pub(crate) body: String,
}

impl FrontMatter {
    /// Splits a file. A byte order mark and CRLF line ends are accepted.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let text = text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .replace("\r\n", "\n");
        let fence = |line: &str| line.trim_end_matches([' ', '\t', '\n']) == "---";
        let mut lines = text.split_inclusive('\n');
        if !lines.next().is_some_and(fence) {
            return Err(Fault::new(
                FaultKind::Syntax,
                Some(1),
                "the first line is not `---`",
                "start the file with settings between two lines `---`",
            ));
        }
        let start = text.find('\n').map_or(text.len(), |at| at + 1);
        let mut end = start;
        for line in lines {
            if fence(line) {
                let body = &text[end + line.len()..];
                let body = body.trim_start_matches('\n').trim_end().to_owned();
                return Ok(Self {
                    settings: Node::from_yaml(&text[start..end], 2)?,
                    body,
                });
            }
            end += line.len();
        }
        Err(Fault::new(
            FaultKind::Syntax,
            Some(1),
            "the settings have no end",
            "close them with a line `---`",
        ))
    }
}

/// The text of a regular file of at most [`MAX_FILE`] bytes.
pub(crate) fn read_text(path: &Path) -> Result<String, DefinitionError> {
    let unreadable = |error: &std::io::Error| DefinitionError::unreadable(path, error);
    let meta = fs::metadata(path).map_err(|error| unreadable(&error))?;
    let refuse = |message: &str, hint: &str| {
        Err(DefinitionError::new(DefinitionErrorKind::Unreadable, message, hint).in_file(path))
    };
    if !meta.is_file() {
        return refuse("is not a file", "replace it with a Markdown file");
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return refuse(
            "is larger than 256 KiB",
            "move parts into skills or workspace files",
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => refuse("is not UTF-8 text", "save it as UTF-8"),
    }
}

/// The entries of a folder by name: hidden ones apart. `None` when there is no such folder.
pub(crate) fn entries(path: &Path) -> Result<Option<Vec<(String, fs::FileType)>>, DefinitionError> {
    let unreadable = |error: std::io::Error| DefinitionError::unreadable(path, &error);
    let folder = match fs::read_dir(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut found = Vec::new();
    for entry in folder {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.file_type().map_err(unreadable)?));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Some(found))
}
