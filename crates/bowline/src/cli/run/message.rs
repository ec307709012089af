//! The message, as the command line names it.

use std::{ffi::OsString, io::Read as _, path::Path};

use bowline_agent::Outgoing;
use bytes::Bytes;

use crate::{
    cli::{Global, fault::Fault, place::read_file},
    error::Error,
};

/// Largest message, in bytes.
const MAX_MESSAGE: u64 = 4 << 20;
/// Largest file that is added to a message, in bytes.
const MAX_ATTACHMENT: u64 = 32 << 20;

/// Reads a message and the files that go with it.
pub(super) fn read(
    message: &str,
    attach: &[impl AsRef<Path>],
    key: Option<&str>,
) -> Result<Outgoing, Error> {
    let text = match message.strip_prefix('@') {
        Some(path) => text(path, read_file(Path::new(path), MAX_MESSAGE)?)?,
        None if message == "-" => standard_input()?,
        None => message.to_owned(),
    };
    if text.trim().is_empty() {
        return Err(Fault::EmptyMessage.into());
    }
    let mut outgoing = Outgoing::user(text);
    for path in attach.iter().map(AsRef::as_ref) {
        let bytes = read_file(path, MAX_ATTACHMENT)?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        outgoing = outgoing.attach(name, media_type(path, &bytes), Bytes::from(bytes));
    }
    Ok(match key {
        Some(key) => outgoing.key(key),
        None => outgoing,
    })
}

fn standard_input() -> Result<String, Error> {
    let refuse = |why: String| {
        Error::from(Fault::UnreadableFile {
            path: "standard input".to_owned(),
            why,
        })
    };
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_MESSAGE + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > MAX_MESSAGE {
        return Err(refuse("is larger than 4 MiB".to_owned()));
    }
    text("standard input", bytes)
}

fn text(path: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| {
        let why = "is not UTF-8 text; use --attach for other files".to_owned();
        Fault::UnreadableFile {
            path: path.to_owned(),
            why,
        }
        .into()
    })
}

/// What a file is, by the end of its name.
fn media_type(path: &Path, bytes: &[u8]) -> &'static str {
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("pdf") => "application/pdf",
        Some("json") => "application/json",
        Some("csv") => "text/csv",
        Some("md") => "text/markdown",
        Some("html" | "htm") => "text/html",
        _ if std::str::from_utf8(bytes).is_ok() => "text/plain",
        _ => "application/octet-stream",
    }
}

/// The line that was typed, with the id of the conversation when it had none.
pub(super) fn command_line(args: impl Iterator<Item = OsString>, id: Option<&str>) -> String {
    let mut words: Vec<_> = args
        .skip(1)
        .map(|arg| quoted(&arg.to_string_lossy()))
        .collect();
    if let Some(id) = id {
        words.push(format!("--id {}", quoted(id)));
    }
    format!("bowline {}", words.join(" "))
}

/// The line that goes on with a conversation.
pub(crate) fn again(agent: &str, id: &str, global: &Global) -> String {
    format!(
        "bowline run {} --id {}{}",
        quoted(agent),
        quoted(id),
        places(global)
    )
}

/// The options that lead to the same project and data, each with a blank before it.
pub(crate) fn places(global: &Global) -> String {
    let mut words = String::new();
    for (option, dir) in [("--project", &global.project), ("--data", &global.data)] {
        if let Some(dir) = dir {
            words.push_str(&format!(" {option} {}", quoted(&dir.to_string_lossy())));
        }
    }
    words
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
