//! Which trace a submission belongs to, as the W3C's Trace Context writes it.
//!
//! A trace that somebody began is kept with the submission, so that every attempt at it goes on with
//! it, also after a restart. Otherwise its ids follow from the submission's own id. The ids of spans
//! follow from what the spans are about, so that they are the same wherever they are asked for.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Longest header of a version that is newer than what is known here, in bytes.
const MAX_HEADER: usize = 256;

/// A place in a trace: the trace, and the span that is worked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

impl Trace {
    /// Reads the header `traceparent`; `None` for what is none. Such a header is no error: the caller
    /// begins a trace of its own.
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        if header.len() > MAX_HEADER {
            return None;
        }
        let mut parts = header.split('-');
        let [version] = bytes(parts.next()?)?;
        let trace = bytes(parts.next()?)?;
        let span = bytes(parts.next()?)?;
        let [flags] = bytes(parts.next()?)?;
        // 255 is no version; a later version may have more behind, this one has not.
        let whole = version > 0 || parts.next().is_none();
        let known = version != u8::MAX && whole && trace != [0; 16] && span != [0; 8];
        known.then_some(Self { trace, span, flags })
    }

    /// The trace that something begins; the same one each time.
    pub fn of(id: &str) -> Self {
        let digest = Sha256::digest(format!("bowline-trace\n{id}").as_bytes());
        let mut trace = [0; 16];
        trace.copy_from_slice(&digest[..16]);
        Self {
            trace,
            span: [0; 8],
            flags: 1,
        }
    }

    /// The span of what has this id, within the span that is worked in.
    #[must_use]
    pub fn child(&self, id: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(self.trace);
        digest.update(self.span);
        digest.update(id.as_bytes());
        let mut span = [0; 8];
        span.copy_from_slice(&digest.finalize()[..8]);
        Self { span, ..*self }
    }

    /// The trace, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }

    /// The span that is worked in, as 16 hexadecimal digits; `None` where the trace only begins.
    pub fn span_id(&self) -> Option<String> {
        (self.span != [0; 8]).then(|| hex(&self.span))
    }
}

/// As the header `traceparent` has it.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (hex(&self.trace), hex(&self.span));
        write!(f, "00-{trace}-{span}-{:02x}", self.flags)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly so many bytes, as lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
