//! An incremental parser of server-sent events.
//!
//! Bytes go in as they arrive, cut anywhere, even inside a character or between a carriage return
//! and its line feed; whole events come out. What it accepts is the format of the WHATWG HTML
//! standard: lines end in LF, CR or CRLF, a byte-order mark at the start is skipped, lines that
//! begin with a colon are comments, fields other than `event`, `data` and `id` are ignored, and an
//! event that is not ended by a blank line is dropped. Invalid UTF-8 becomes U+FFFD.

use std::collections::VecDeque;

/// The largest event, counted over its lines, that [`SseParser::default`] takes: 16 MiB.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The event's name; empty when it has none, which means `message`.
    pub name: String,
    /// The data lines, joined by line feeds.
    pub data: String,
    /// The event's id, when this event set one.
    pub id: Option<String>,
}

/// The same, lent out while it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseView<'a> {
    /// As [`SseEvent::name`].
    pub name: &'a str,
    /// As [`SseEvent::data`].
    pub data: &'a str,
    /// As [`SseEvent::id`].
    pub id: Option<&'a str>,
}

/// A line or an event is larger than the limit. The parser must not be fed further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event is larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// The state between two pieces of a stream. Memory is bounded by the limit on one event, and kept
/// from event to event.
#[derive(Debug)]
pub struct SseParser {
    limit: usize,
    line: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
    has_data: bool,
    skip_line_feed: bool,
    first_line: bool,
}

impl Default for SseParser {
    fn default() -> Self {
        Self::new(MAX_EVENT_BYTES)
    }
}

impl SseParser {
    /// A parser at the start of a stream, for events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            id: None,
            has_data: false,
            skip_line_feed: false,
            first_line: true,
        }
    }

    /// Takes the next bytes and appends the events that they complete.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] when one event, or one line, exceeds the limit.
    pub fn feed(&mut self, bytes: &[u8], out: &mut VecDeque<SseEvent>) -> Result<(), TooLarge> {
        self.each(bytes, |event| {
            out.push_back(SseEvent {
                name: event.name.to_owned(),
                data: event.data.to_owned(),
                id: event.id.map(str::to_owned),
            });
            true
        })
    }

    /// Takes the next bytes and shows each event that they complete, without copying it. Once `take`
    /// returns `false` the rest is dropped, and the parser must not be fed further.
    ///
    /// # Errors
    ///
    /// As [`SseParser::feed`].
    pub fn each(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(SseView<'_>) -> bool,
    ) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if self.skip_line_feed && !rest.is_empty() {
            self.skip_line_feed = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let ended = if self.line.is_empty() {
                self.take_line(&rest[..end])?
            } else {
                self.check(self.line.len() + end)?;
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&rest[..end]);
                let ended = self.take_line(&line)?;
                line.clear();
                self.line = line;
                ended
            };
            if ended && !self.show(&mut take) {
                return Ok(());
            }
            let carriage_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if carriage_return {
                match rest.first() {
                    Some(b'\n') => rest = &rest[1..],
                    Some(_) => {}
                    None => self.skip_line_feed = true,
                }
            }
        }
        self.check(self.line.len() + rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    fn check(&self, more: usize) -> Result<(), TooLarge> {
        if self.data.len() + more > self.limit {
            return Err(TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Shows the event that has ended, if it has data, and begins the next one.
    fn show(&mut self, take: &mut impl FnMut(SseView<'_>) -> bool) -> bool {
        let more = if self.has_data {
            take(SseView {
                name: &self.name,
                // Without the line feed behind the last line.
                data: &self.data[..self.data.len() - 1],
                id: self.id.as_deref(),
            })
        } else {
            true
        };
        self.name.clear();
        self.data.clear();
        self.id = None;
        self.has_data = false;
        more
    }

    /// Takes one line in. Whether it ends the event.
    fn take_line(&mut self, line: &[u8]) -> Result<bool, TooLarge> {
        let mut line = line;
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(true);
        }
        let (field, value) = match line.iter().take(8).position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None if line.len() <= 8 => (line, &[][..]),
            // No field that counts has a longer name.
            None => return Ok(false),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.check(value.len())?;
                push(&mut self.data, value);
                self.data.push('\n');
                self.has_data = true;
            }
            b"event" => {
                self.check(value.len())?;
                self.name.clear();
                push(&mut self.name, value);
            }
            b"id" if !value.contains(&0) => {
                self.check(value.len())?;
                self.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
        Ok(false)
    }
}

fn push(text: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(valid) => text.push_str(valid),
        Err(_) => text.push_str(&String::from_utf8_lossy(bytes)),
    }
}
