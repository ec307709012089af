//! Cutting text to what a model may get.

/// The end of a text, cut at line boundaries where that is possible.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail<'a> {
    pub(super) text: &'a str,
    /// First line that is shown, from 1.
    pub(super) first: usize,
    pub(super) lines: usize,
    /// The first line that is shown has lost its beginning.
    pub(super) partial: bool,
}

/// The last lines of a text, up to both limits. When its last line alone is too long, the end of that.
pub(super) fn tail(text: &str, max_lines: usize, max_bytes: usize) -> Tail<'_> {
    let lines = text.split('\n').count();
    let mut start = text.len();
    let mut kept = 0;
    for line in text.rsplit('\n') {
        // The newline between this line and the next kept one counts too.
        let from = start.saturating_sub(line.len() + usize::from(kept > 0));
        if kept == max_lines || text.len() - from > max_bytes {
            break;
        }
        start = from;
        kept += 1;
    }
    if kept == 0 {
        let mut start = text.len() - max_bytes.min(text.len());
        while !text.is_char_boundary(start) {
            start += 1;
        }
        return Tail {
            text: &text[start..],
            first: lines,
            lines,
            partial: true,
        };
    }
    Tail {
        text: &text[start..],
        first: lines - kept + 1,
        lines,
        partial: false,
    }
}

/// The beginning of a text, at most so many bytes, cut between characters.
pub(super) fn head(text: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A size for people: `512B`, `50.0KB`, `1.5MB`.
pub(super) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| (bytes * 10 + unit / 2) / unit;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{}.{}KB", tenths(1024) / 10, tenths(1024) % 10),
        _ => format!("{}.{}MB", tenths(1 << 20) / 10, tenths(1 << 20) % 10),
    }
}
