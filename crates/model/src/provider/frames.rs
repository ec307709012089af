//! Amazon's event stream: binary frames with headers, as Bedrock sends them.
//!
//! A frame is its total length and the length of its headers (32 bits each, big endian), the CRC of
//! both, the headers, the payload, and the CRC of everything before it. Only headers of text are
//! read; the others are skipped by their type's length.

use std::borrow::Cow;

use crate::secret::Secret;
use crate::sse::{MAX_EVENT_BYTES, SseView};

/// The length of the prelude with its CRC.
const PRELUDE: usize = 12;
/// The smallest frame: prelude and the last CRC.
const LEAST: usize = PRELUDE + 4;

/// Why the stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("a frame of the event stream is larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
    #[error("a frame of the event stream has a wrong checksum")]
    Checksum,
    #[error("a frame of the event stream is malformed")]
    Malformed,
}

/// The state between two pieces of a stream. Memory is bounded by the largest frame, 16 MiB.
#[derive(Debug, Default)]
pub(crate) struct FrameParser {
    held: Vec<u8>,
}

impl FrameParser {
    /// Takes the next bytes and shows each event that they complete: its type is the name, its
    /// payload the data, and the id the kind of frame where that is not an event. Once `take` returns
    /// `false` the rest is dropped.
    pub(crate) fn each(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(SseView<'_>) -> bool,
    ) -> Result<(), BadFrame> {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(frame) = whole(&self.held[at..])? {
            if !event(frame, &mut take)? {
                return Ok(());
            }
            at += frame.len();
        }
        self.held.drain(..at);
        Ok(())
    }
}

/// An event as a frame.
pub(crate) fn encoded(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", kind), (":message-type", "event")] {
        // Both are short; a longer kind than fits is cut.
        let value = value.get(..value.len().min(255)).unwrap_or_default();
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length(LEAST + headers.len() + payload.len()).to_vec();
    frame.extend_from_slice(&length(headers.len()));
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

/// The frames with stars in place of every secret, and with checksums that are right.
pub(crate) fn masked(bytes: &[u8], secrets: &[Secret]) -> Vec<u8> {
    let mut masked = bytes.to_vec();
    for secret in secrets.iter().map(|secret| secret.expose().as_bytes()) {
        if secret.len() < 4 {
            continue;
        }
        let finder = memchr::memmem::Finder::new(secret);
        let mut at = 0;
        while let Some(found) = finder.find(&masked[at..]) {
            at += found;
            masked[at..at + secret.len()].fill(b'*');
        }
    }
    let mut at = 0;
    while let Ok(Some(frame)) = whole(&masked[at..]) {
        let end = at + frame.len();
        let checksum = crc32fast::hash(&masked[at..end - 4]);
        masked[end - 4..end].copy_from_slice(&checksum.to_be_bytes());
        at = end;
    }
    masked
}

fn number(bytes: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

/// The first frame, if all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<&[u8]>, BadFrame> {
    let Some(prelude) = bytes.get(..PRELUDE) else {
        return Ok(None);
    };
    let total = number(prelude).ok_or(BadFrame::Malformed)?;
    if crc(&prelude[..8]) != number(&prelude[8..]) {
        return Err(BadFrame::Checksum);
    }
    if total < LEAST {
        return Err(BadFrame::Malformed);
    }
    if total > MAX_EVENT_BYTES {
        return Err(BadFrame::TooLarge);
    }
    Ok(bytes.get(..total))
}

fn crc(bytes: &[u8]) -> Option<usize> {
    usize::try_from(crc32fast::hash(bytes)).ok()
}

fn event(frame: &[u8], take: &mut impl FnMut(SseView<'_>) -> bool) -> Result<bool, BadFrame> {
    let (rest, last) = frame.split_at(frame.len() - 4);
    if crc(rest) != number(last) {
        return Err(BadFrame::Checksum);
    }
    let headers = number(&frame[4..]).ok_or(BadFrame::Malformed)?;
    let end = PRELUDE.checked_add(headers).ok_or(BadFrame::Malformed)?;
    let (headers, payload) = (rest.get(PRELUDE..end), rest.get(end..));
    let (Some(mut headers), Some(payload)) = (headers, payload) else {
        return Err(BadFrame::Malformed);
    };
    let mut name = Cow::Borrowed("");
    let mut kind = None;
    let mut data = String::from_utf8_lossy(payload);
    while !headers.is_empty() {
        let (key, value, tail) = header(headers).ok_or(BadFrame::Malformed)?;
        match (key, value) {
            (b":event-type" | b":exception-type" | b":error-code", Some(value)) => {
                name = String::from_utf8_lossy(value);
            }
            (b":message-type", Some(other)) if other != b"event" => {
                kind = Some(String::from_utf8_lossy(other));
            }
            (b":error-message", Some(value)) if payload.is_empty() => {
                let message = String::from_utf8_lossy(value);
                data = serde_json::json!({"message": message}).to_string().into();
            }
            _ => {}
        }
        headers = tail;
    }
    Ok(take(SseView {
        name: &name,
        data: &data,
        id: kind.as_deref(),
    }))
}

/// A header: its name, its text where it has one, and what follows it.
type Header<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

/// The first header.
fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let length = usize::from(*bytes.first()?);
    let name = bytes.get(1..=length)?;
    let rest = bytes.get(length + 1..)?;
    let (kind, rest) = rest.split_first()?;
    let sized = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        9 => 16,
        6 | 7 => {
            let length = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
            let value = rest.get(2..length + 2)?;
            let text = (*kind == 7).then_some(value);
            return Some((name, text, rest.get(length + 2..)?));
        }
        _ => return None,
    };
    Some((name, None, rest.get(sized..)?))
}
