//! Messages of JSON: taken apart and stored byte for byte, never written anew.

use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;

use super::error::StreamError;

/// The stored form of a body: each message followed by a comma. An array is taken apart, one level
/// deep.
///
/// # Errors
///
/// `Json` when it is not valid, and `Empty` for an empty array.
pub(super) fn messages(body: &[u8]) -> Result<Bytes, StreamError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| StreamError::Json("it is not UTF-8; send it as UTF-8".into()))?;
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| StreamError::Json(format!("{error}; correct it, then send it again")))?;
    let text = text.trim_matches(WHITESPACE);
    let mut out = BytesMut::with_capacity(text.len() + 1);
    match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inside) if inside.trim_matches(WHITESPACE).is_empty() => {
            return Err(StreamError::Empty);
        }
        Some(inside) => {
            let mut start = 0;
            for end in commas(inside.as_bytes()).chain([inside.len()]) {
                let message = inside.get(start..end).unwrap_or_default();
                out.extend_from_slice(message.trim_matches(WHITESPACE).as_bytes());
                out.extend_from_slice(b",");
                start = end + 1;
            }
        }
        None => {
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b",");
        }
    }
    Ok(out.freeze())
}

const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Where each stored message ends, its comma included.
pub(super) fn ends(stored: &[u8]) -> impl Iterator<Item = usize> + '_ {
    commas(stored).map(|at| at + 1)
}

/// Where the commas are that lie outside every array, object and string of valid JSON.
fn commas(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    text.iter().enumerate().filter_map(move |(at, byte)| {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            return None;
        }
        match byte {
            b'"' => quoted = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return Some(at),
            _ => {}
        }
        None
    })
}
