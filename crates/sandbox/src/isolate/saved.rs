//! A waiting program as bytes.
//!
//! `BWI1`, the SHA-256 of the image, the hash of the bindings, what was used, what waits; then the memory
//! against the image: XOR, written as runs of differing bytes, deflated; last a keyed BLAKE3 hash of
//! everything. Integers are little-endian base 128.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::guest::Waits;
use super::wire::{Malformed, Reader, Writer};
use super::{IsolateError, Limits, Usage};

const MAGIC: &[u8; 4] = b"BWI1";
const MAC: usize = 32;
const PAGE: usize = 4_096;
/// Differing bytes this near to each other are one run.
const NEAR: usize = 6;

pub(super) struct Head<'a> {
    /// The image: SHA-256 in hexadecimal digits.
    pub(super) image: &'a str,
    pub(super) bindings: [u8; 32],
    pub(super) usage: Usage,
    /// Wall clock so far, in milliseconds.
    pub(super) elapsed: u64,
    pub(super) waiting: &'a BTreeMap<u32, Waits>,
}

/// A saved program whose code was right.
pub(super) struct Found {
    pub(super) usage: Usage,
    /// Wall clock so far, in milliseconds.
    pub(super) elapsed: u64,
    pub(super) waiting: Vec<(u32, Waits)>,
    /// Bytes of linear memory.
    pub(super) memory: u64,
    /// The runs, inflated.
    pub(super) delta: Vec<u8>,
}

pub(super) fn write(
    head: &Head<'_>,
    memory: &[u8],
    base: &[u8],
    stack: usize,
    key: &[u8; 32],
) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes.extend_from_slice(MAGIC);
    out.text(head.image.as_bytes());
    out.bytes.extend_from_slice(&head.bindings);
    out.number(u64::try_from(head.usage.cpu.as_micros()).unwrap_or(u64::MAX));
    out.number(u64::from(head.usage.calls));
    out.number(u64::from(head.usage.log));
    out.number(u64::from(head.usage.slices));
    out.number(head.elapsed);
    out.number(head.waiting.len() as u64);
    for (id, waits) in head.waiting {
        out.number(u64::from(*id));
        out.bytes.push(match waits {
            Waits::Call => 0,
            Waits::Timer => 1,
        });
    }
    out.number(memory.len() as u64);
    let delta = difference(memory, base, stack);
    out.number(delta.len() as u64);
    let mut deflate = DeflateEncoder::new(out.bytes, Compression::fast());
    let written = deflate.write_all(&delta);
    // Writing to memory does not fail.
    let mut bytes = written.and_then(|()| deflate.finish()).unwrap_or_default();
    let mac = blake3::keyed_hash(key, &bytes);
    bytes.extend_from_slice(mac.as_bytes());
    bytes
}

/// What differs from the image above the stack, which is dead while a program waits.
fn difference(memory: &[u8], base: &[u8], stack: usize) -> Vec<u8> {
    static ZERO: [u8; PAGE] = [0; PAGE];
    let mut out = Writer::default();
    let mut last = 0;
    for at in (stack..memory.len()).step_by(PAGE) {
        let page = &memory[at..(at + PAGE).min(memory.len())];
        let before = base.get(at..at + page.len()).unwrap_or(&ZERO[..page.len()]);
        if page == before {
            continue;
        }
        let mut from = 0;
        while let Some(first) = next_difference(page, before, from) {
            let mut end = first + 1;
            while let Some(next) = next_difference(page, before, end) {
                if next - end > NEAR {
                    break;
                }
                end = next + 1;
            }
            out.number((at + first - last) as u64);
            out.number((end - first) as u64);
            out.bytes.extend(
                page[first..end]
                    .iter()
                    .zip(&before[first..end])
                    .map(|(a, b)| a ^ b),
            );
            last = at + end;
            from = end;
        }
    }
    out.bytes
}

/// The first place from `from` on at which two pages differ. Eight bytes at a time where they agree.
fn next_difference(page: &[u8], before: &[u8], mut from: usize) -> Option<usize> {
    while from + 8 <= page.len() && page[from..from + 8] == before[from..from + 8] {
        from += 8;
    }
    (from..page.len()).find(|at| page[*at] != before[*at])
}

/// XORs the runs into fresh memory. Runs outside it, or in the stack, are refused.
pub(super) fn apply(delta: &[u8], stack: usize, memory: &mut [u8]) -> Result<(), IsolateError> {
    let bad = |_: Malformed| IsolateError::SavedInvalid("its memory is damaged");
    let mut reader = Reader::new(delta);
    let mut at = 0_usize;
    while !reader.is_empty() {
        let skip = usize::try_from(reader.number().map_err(bad)?).unwrap_or(usize::MAX);
        let bytes = reader.slice().map_err(bad)?;
        at = at.saturating_add(skip);
        let target = memory
            .get_mut(at..at.saturating_add(bytes.len()))
            .filter(|_| at >= stack)
            .ok_or(IsolateError::SavedInvalid("its memory is damaged"))?;
        target
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to ^= from);
        at += bytes.len();
    }
    Ok(())
}

pub(super) fn open(
    bytes: &[u8],
    key: &[u8; 32],
    image: &str,
    bindings: &[u8; 32],
) -> Result<Found, IsolateError> {
    let split = bytes
        .len()
        .checked_sub(MAC)
        .ok_or(IsolateError::SavedInvalid("it is too short"))?;
    let (body, mac) = bytes.split_at(split);
    let mac: [u8; MAC] = mac
        .try_into()
        .map_err(|_| IsolateError::SavedInvalid("it is too short"))?;
    // BLAKE3 compares its hashes in constant time.
    if blake3::keyed_hash(key, body) != blake3::Hash::from_bytes(mac) {
        return Err(IsolateError::SavedInvalid(
            "it was changed, or saved with another key",
        ));
    }
    parse(body, image, bindings)
        .map_err(|error| error.unwrap_or(IsolateError::SavedInvalid("it has no known format")))
}

/// The error is none where the format is broken.
fn parse(body: &[u8], image: &str, bindings: &[u8; 32]) -> Result<Found, Option<IsolateError>> {
    let format = |_: Malformed| None;
    let mut reader = Reader::new(body);
    if reader.take(MAGIC.len()).map_err(format)? != MAGIC {
        return Err(None);
    }
    if reader.slice().map_err(format)? != image.as_bytes() {
        return Err(Some(IsolateError::SavedImage));
    }
    if reader.take(bindings.len()).map_err(format)? != bindings {
        return Err(Some(IsolateError::SavedBindings));
    }
    let small = |reader: &mut Reader<'_>| -> Result<u32, Option<IsolateError>> {
        u32::try_from(reader.number().map_err(format)?).map_err(|_| None)
    };
    let usage = Usage {
        cpu: Duration::from_micros(reader.number().map_err(format)?),
        calls: small(&mut reader)?,
        log: small(&mut reader)?,
        slices: small(&mut reader)?,
        memory: 0,
    };
    let elapsed = reader.number().map_err(format)?;
    let mut waiting = Vec::new();
    for _ in 0..reader.number().map_err(format)? {
        let id = small(&mut reader)?;
        waiting.push((
            id,
            if reader.byte().map_err(format)? == 0 {
                Waits::Call
            } else {
                Waits::Timer
            },
        ));
    }
    let memory = reader.number().map_err(format)?;
    let len = reader.number().map_err(format)?;
    // Each byte of memory gives at most one byte, and three for each run.
    if memory > Limits::MEMORY_MAX || len > memory.saturating_mul(2) {
        return Err(None);
    }
    let mut delta = Vec::new();
    DeflateDecoder::new(reader.rest())
        .take(len + 1)
        .read_to_end(&mut delta)
        .map_err(|_| None)?;
    if delta.len() as u64 != len {
        return Err(None);
    }
    Ok(Found {
        usage,
        elapsed,
        waiting,
        memory,
        delta,
    })
}
