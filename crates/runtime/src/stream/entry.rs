//! How appends lie in a record.
//!
//! A record holds one or more appends: where they begin, a head for each, then their bytes. An
//! append that is larger than a record goes on in the next one of the same commit. Numbers are
//! little-endian. Changing this is a new version of the record kind.

use bowline_store::{StoreError, StoredRecord};
use bytes::{Bytes, BytesMut};

/// Most bytes of data in one record; an append of more takes several.
pub(super) const MAX_DATA: usize = 1024 * 1024;
/// Most appends in one record.
pub(super) const MAX_ENTRIES: usize = 512;

const PRODUCER: u8 = 1;
const SEQUENCE: u8 = 2;
const CLOSES: u8 = 4;
const MORE: u8 = 8;

/// Who sent an append, so that it is taken once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Chosen by the producer, at most 1,024 bytes.
    pub id: String,
    /// The producer's session; a greater one fences the ones before.
    pub epoch: u64,
    /// Counts the appends of a session from 0.
    pub seq: u64,
}

/// One append, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) len: usize,
    pub(super) producer: Option<Producer>,
    pub(super) sequence: Option<String>,
    pub(super) closes: bool,
    /// It goes on in the next record.
    pub(super) more: bool,
}

/// Appends as they lie in one record.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    /// Where in the stream the data begins.
    pub(super) start: u64,
    pub(super) heads: Vec<Entry>,
    pub(super) data: Bytes,
}

impl Entries {
    pub(super) fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

/// The body of a record.
pub(super) fn encode(start: u64, pieces: &[(Entry, Bytes)]) -> Bytes {
    let data: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = BytesMut::with_capacity(data + 16 + pieces.len() * 8 + 64);
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&small(pieces.len()));
    for (head, bytes) in pieces {
        let flags = flag(head.producer.is_some(), PRODUCER)
            | flag(head.sequence.is_some(), SEQUENCE)
            | flag(head.closes, CLOSES)
            | flag(head.more, MORE);
        out.extend_from_slice(&[flags]);
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        if let Some(producer) = &head.producer {
            out.extend_from_slice(&small(producer.id.len()));
            out.extend_from_slice(producer.id.as_bytes());
            out.extend_from_slice(&producer.epoch.to_le_bytes());
            out.extend_from_slice(&producer.seq.to_le_bytes());
        }
        if let Some(sequence) = &head.sequence {
            out.extend_from_slice(&small(sequence.len()));
            out.extend_from_slice(sequence.as_bytes());
        }
    }
    for (_, bytes) in pieces {
        out.extend_from_slice(bytes);
    }
    out.freeze()
}

/// From a record of the kind `STREAM_APPENDED`.
pub(super) fn decode(stored: &StoredRecord) -> Result<Entries, StoreError> {
    if stored.record.version != 1 {
        return Err(StoreError::Corrupt(format!(
            "record {} of a stream has version {}, which this program does not know",
            stored.seq, stored.record.version
        )));
    }
    let body = &stored.record.body;
    let mut input = Input(body);
    let start = u64::from_le_bytes(input.array()?);
    let count = u16::from_le_bytes(input.array()?);
    let mut heads = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let [flags] = input.array::<1>()?;
        let mut head = Entry {
            len: usize::try_from(u32::from_le_bytes(input.array()?)).map_err(|_| cut())?,
            closes: flags & CLOSES != 0,
            more: flags & MORE != 0,
            ..Entry::default()
        };
        if flags & PRODUCER != 0 {
            head.producer = Some(Producer {
                id: input.text()?,
                epoch: u64::from_le_bytes(input.array()?),
                seq: u64::from_le_bytes(input.array()?),
            });
        }
        if flags & SEQUENCE != 0 {
            head.sequence = Some(input.text()?);
        }
        heads.push(head);
    }
    let data = body.slice(body.len() - input.0.len()..);
    if heads.iter().map(|head| head.len).sum::<usize>() != data.len() {
        return Err(cut());
    }
    Ok(Entries { start, heads, data })
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Counts and lengths that are bounded far below.
fn small(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}

fn cut() -> StoreError {
    StoreError::Corrupt("a record of a stream is cut short".into())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.take(N)?.try_into().map_err(|_| cut())
    }

    fn text(&mut self) -> Result<String, StoreError> {
        let len = u16::from_le_bytes(self.array()?);
        let text = std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| cut())?;
        Ok(text.to_owned())
    }
}
