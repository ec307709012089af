//! How much of one text the model sees.

use std::borrow::Cow;

/// The tool that shows the whole of a text that was shortened.
pub const READ_TOOL: &str = "read_elided";

/// Most bytes of one tool result that the model sees when its window is large or not known.
pub(super) const MAX_RESULT: usize = 64 * 1024;
/// Most bytes of one message of a person, where the window is not known.
const MAX_MESSAGE: usize = 1024 * 1024;
/// The least that a text is shortened to.
pub(super) const LEAST: usize = 512;

/// How much of the texts of a conversation the model sees. It follows from the model's window alone,
/// so it is the same in every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Most bytes of one tool result: a quarter of the window, at most 64 KiB.
    pub result: usize,
    /// Most bytes of all results of one tool batch: half of the window.
    pub batch: usize,
    /// Most bytes of one text of a person's message or a signal: half of the window.
    pub message: usize,
    /// Whether there is a tool that shows the rest.
    pub readable: bool,
}

impl Shape {
    /// The shape for a window of so many tokens.
    pub fn of(window: Option<u64>, readable: bool) -> Self {
        let bytes = |tokens: u64| usize::try_from(tokens.saturating_mul(4)).unwrap_or(usize::MAX);
        match window {
            Some(window) => Self {
                result: bytes(window / 4).clamp(LEAST, MAX_RESULT),
                batch: bytes(window / 2).max(LEAST),
                message: bytes(window / 2).max(LEAST),
                readable,
            },
            None => Self {
                result: MAX_RESULT,
                batch: 8 * MAX_RESULT,
                message: MAX_MESSAGE,
                readable,
            },
        }
    }

    /// The same with every text shortened to at most `bytes`.
    #[must_use]
    pub fn capped(self, bytes: Option<u64>) -> Self {
        let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
            return self;
        };
        Self {
            result: self.result.min(bytes),
            message: self.message.min(bytes),
            ..self
        }
    }

    /// Most bytes of each result of a batch whose results have these lengths.
    pub fn each(&self, lengths: impl Iterator<Item = usize>) -> usize {
        let (mut count, mut total) = (0_usize, 0_usize);
        for length in lengths {
            count += 1;
            total = total.saturating_add(length.min(self.result));
        }
        if total <= self.batch || count == 0 {
            return self.result;
        }
        (self.batch / count).clamp(LEAST.min(self.result), self.result)
    }
}

/// The beginning and the end of a text that has more than `most` bytes, with what is missing between
/// them and where it can be read.
pub(crate) fn shorten<'a>(text: &'a str, most: usize, id: Option<&str>) -> Cow<'a, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let head = floor(text, most / 3 * 2);
    let tail = ceil(text, text.len() - most / 3);
    let missing = tail - head;
    let whole = match id {
        Some(id) => format!(" `{READ_TOOL}` with id \"{id}\" shows the whole."),
        None => String::new(),
    };
    Cow::Owned(format!(
        "{}\n\n[… {missing} of {} bytes are left out here.{whole} …]\n\n{}",
        &text[..head],
        text.len(),
        &text[tail..]
    ))
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}
