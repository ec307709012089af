//! Places in a stream.

use std::fmt;

/// A place in a stream: so many bytes lie before it. In JSON streams each message counts with one
/// byte of separator, so that a range of offsets is a range of stored bytes.
///
/// As text it is `0000000000000000_` and sixteen digits, so that texts sort as the numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The greatest place that can be written; no stream is that long.
    pub const MAX: Self = Self(9_999_999_999_999_999);

    /// From its text. A place that cannot exist in any stream reads as [`Offset::MAX`]; `None` when
    /// the text is not an offset.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, second) = text.split_once('_')?;
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(first) || !digits(second) || text.len() > 255 {
            return None;
        }
        if first.bytes().any(|byte| byte != b'0') {
            return Some(Self::MAX);
        }
        Some(
            second
                .parse()
                .map_or(Self::MAX, |at| Self(at).min(Self::MAX)),
        )
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000000000000000_{:016}", self.0)
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// At the first byte.
    #[default]
    Start,
    /// At the end, as it is when the reader asks.
    Now,
    /// After this place.
    At(Offset),
}
