//! `read` and `write`.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Files, MAX_BYTES, MAX_LINES, ToolFailure, ToolOutput, expand, refused, truncate};
use crate::workspace::WorkspaceError;

/// Largest image or PDF that is handed to a model.
const MAX_MEDIA: u64 = 5 << 20;
/// Largest file that can be edited.
const MAX_EDITED: u64 = 32 << 20;
/// Bytes read at once from a long file.
const PIECE: usize = 1 << 20;

/// Reads a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadInput {
    /// Path of the file, absolute or relative to the working directory
    pub path: String,
    /// Line to start at, counted from 1
    #[serde(default)]
    pub offset: Option<u64>,
    /// Number of lines to read
    #[serde(default)]
    pub limit: Option<u64>,
}

/// Writes a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteInput {
    /// Path of the file, absolute or relative to the working directory
    pub path: String,
    /// The whole content of the file
    pub content: String,
}

/// The text of a file, at most 2,000 lines or 50 KiB of it, or an image or PDF as media.
///
/// # Errors
///
/// A message for the model when the file is missing, binary, or shorter than `offset`.
pub async fn read(
    files: &(impl Files + ?Sized),
    input: ReadInput,
) -> Result<ToolOutput, ToolFailure> {
    let path = expand(files, &input.path);
    let size = files.size(&path).await?;
    let start = files.read_range(&path, 0, 4096).await?;
    if let Some(media) = media_type(&start) {
        if size > MAX_MEDIA {
            let (size, limit) = (truncate::size(size), truncate::size(MAX_MEDIA));
            return refused(format!(
                "{} is {media} of {size}; at most {limit} can be shown.",
                input.path
            ));
        }
        let kind = if media == "application/pdf" {
            "PDF"
        } else {
            "image"
        };
        let text = format!("Read {kind} file [{media}]");
        return Ok(ToolOutput {
            text,
            media: Some((media.into(), files.read(&path).await?)),
        });
    }
    if start.contains(&0) {
        let size = truncate::size(size);
        return refused(format!(
            "{} is a binary file ({size}). Look at it with bash, for example: xxd",
            input.path
        ));
    }
    let first = input.offset.unwrap_or(1).max(1);
    let mut window = Window::new(first, input.limit.unwrap_or(u64::MAX));
    let mut at = 0;
    while at < size {
        let piece = files.read_range(&path, at, PIECE).await?;
        if piece.is_empty() {
            break;
        }
        window.feed(&piece);
        at += piece.len() as u64;
    }
    window.finish(&input.path)
}

/// Makes or replaces a file; missing directories are made.
///
/// # Errors
///
/// A message for the model when the path is a directory or a limit is reached.
pub async fn write(
    files: &(impl Files + ?Sized),
    input: WriteInput,
) -> Result<ToolOutput, ToolFailure> {
    let path = expand(files, &input.path);
    let bytes = input.content.len();
    files.write(&path, Bytes::from(input.content), true).await?;
    Ok(ToolOutput::text(format!(
        "Successfully wrote {bytes} bytes to {}",
        input.path
    )))
}

/// The media type of bytes that a model can look at, by how they begin.
fn media_type(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("application/pdf"),
        _ => None,
    }
}

/// Collects the lines that were asked for while a file passes by.
struct Window {
    first: u64,
    limit: u64,
    /// Lines that have ended.
    ended: u64,
    /// Bytes of the line that has not ended.
    open: u64,
    kept: Vec<u8>,
    /// Lines in `kept` that are whole.
    lines: u64,
    /// Length of `kept` up to the last whole line.
    whole: usize,
    full: bool,
}

impl Window {
    fn new(first: u64, limit: u64) -> Self {
        let limit = limit.min(MAX_LINES as u64);
        Self {
            first,
            limit,
            ended: 0,
            open: 0,
            kept: Vec::new(),
            lines: 0,
            whole: 0,
            full: false,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            self.take(line);
            self.open += line.len() as u64;
            if end.is_some() {
                self.close();
            }
            bytes = rest;
        }
    }

    fn take(&mut self, part: &[u8]) {
        let wanted = self.ended + 1 >= self.first && !self.full && self.lines < self.limit;
        if !wanted {
            return;
        }
        let space = (MAX_BYTES + 1).saturating_sub(self.kept.len());
        self.kept
            .extend_from_slice(part.get(..space.min(part.len())).unwrap_or_default());
        // The newline at the very end does not count.
        let length = self.kept.len() - usize::from(self.kept.ends_with(b"\n"));
        self.full = length > MAX_BYTES || part.len() > space;
    }

    fn close(&mut self) {
        if self.ended + 1 >= self.first && !self.full && self.lines < self.limit {
            self.lines += 1;
            self.whole = self.kept.len();
        }
        self.ended += 1;
        self.open = 0;
    }

    fn finish(mut self, path: &str) -> Result<ToolOutput, ToolFailure> {
        if self.open > 0 {
            self.close();
        }
        let (first, total) = (self.first, self.ended);
        if first > total.max(1) {
            return refused(format!(
                "Offset {first} is beyond end of file ({total} lines total)"
            ));
        }
        if self.lines == 0 && self.full {
            let text = String::from_utf8_lossy(&self.kept).into_owned();
            let text = truncate::head(&text, MAX_BYTES).to_owned();
            let note = format!(
                "[Line {first} is longer than 50.0KB; the rest of it cannot be shown by this tool. Use bash, for example: sed -n '{first}p' {path} | tail -c +{MAX_BYTES}]"
            );
            return Ok(ToolOutput::text(format!("{text}\n\n{note}")));
        }
        self.kept.truncate(self.whole);
        let last = first + self.lines.max(1) - 1;
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if last < total {
            let next = last + 1;
            text.truncate(
                text.trim_end_matches('\n')
                    .len()
                    .max(text.len().saturating_sub(1)),
            );
            text.push_str(&format!(
                "\n\n[Showing lines {first}-{last} of {total}. Use offset={next} to continue.]"
            ));
        }
        Ok(ToolOutput::text(text))
    }
}

/// The text of a file that is to be edited.
pub(super) async fn text_of(
    files: &(impl Files + ?Sized),
    path: &str,
    asked: &str,
) -> Result<String, ToolFailure> {
    if let Ok(size) = files.size(path).await
        && size > MAX_EDITED
    {
        let (size, limit) = (truncate::size(size), truncate::size(MAX_EDITED));
        return refused(format!(
            "Could not edit {asked}: it is too large ({size}; at most {limit})."
        ));
    }
    let bytes = match files.read(path).await {
        Err(WorkspaceError::NotFound(_)) => {
            return refused(format!(
                "Could not edit {asked}: ENOENT, there is no such file. Use write to make it."
            ));
        }
        read => read?,
    };
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Ok(text),
        Err(_) => refused(format!("Could not edit {asked}: it is not UTF-8 text.")),
    }
}
