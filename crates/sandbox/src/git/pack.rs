//! Packs: many objects in one file, some of them as changes of others.
//!
//! Nothing in a pack is believed: sizes, offsets and chains are bounded before memory is taken.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
};

use bytes::Bytes;
use flate2::{Compression, Decompress, FlushDecompress, Status, write::ZlibEncoder};
use sha1::{Digest as _, Sha1};

use super::{
    GitError, ObjectId, ObjectKind, corrupt,
    limits::{DELTA_CHAIN, OBJECT_BYTES, PACK_OBJECTS, UNPACKED_BYTES},
    within,
};

/// Unpacked objects that are kept while a pack is worked on, in bytes. The largest one fits, so that the
/// next delta on it does not begin at its base.
const KEPT: usize = OBJECT_BYTES as usize;
/// What unpacking costs however little comes of it, counted as bytes.
const LEAST: u64 = 256;
/// Signature and version of an index.
const INDEX_HEAD: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];

/// An object, unpacked.
pub(crate) type Object = (ObjectKind, Bytes);

/// The entry at an offset.
struct Entry {
    base: Base,
    size: usize,
    /// Where its compressed bytes begin.
    data: usize,
}

enum Base {
    Whole(ObjectKind),
    At(usize),
    Object(ObjectId),
}

/// What reading one object found.
pub(crate) enum Read1 {
    Object(Object),
    /// Its base is in another place.
    Outside(ObjectId),
}

/// The index of a pack, version 2.
#[derive(Debug, Clone)]
pub(crate) struct PackIndex {
    bytes: Bytes,
    count: usize,
}

impl PackIndex {
    pub(crate) fn read(bytes: Bytes) -> Result<Self, GitError> {
        let wrong = || corrupt("the index of a pack cannot be read");
        if bytes.get(..8) != Some(&INDEX_HEAD) {
            return Err(GitError::Unsupported(
                "a pack index that is not version 2".into(),
            ));
        }
        let count = number(&bytes, 8 + 255 * 4).ok_or_else(wrong)?;
        if count > PACK_OBJECTS as usize {
            return Err(GitError::Limit {
                what: format!("a pack has {count} objects"),
                limit: u64::from(PACK_OBJECTS),
            });
        }
        // An object has 28 bytes, and 8 more when it lies beyond 2 GiB.
        let least = 8 + 1024 + count * 28 + 40;
        if !(least..=least + count * 8).contains(&bytes.len()) {
            return Err(wrong());
        }
        Ok(Self { bytes, count })
    }

    pub(crate) fn id(&self, at: usize) -> Option<ObjectId> {
        let start = 8 + 1024 + at * 20;
        ObjectId::from_bytes(self.bytes.get(start..start + 20)?)
    }

    fn fan(&self, first: u8) -> (usize, usize) {
        let bound = |at: usize| number(&self.bytes, 8 + at * 4).unwrap_or(0).min(self.count);
        let end = bound(usize::from(first));
        let start = if first == 0 {
            0
        } else {
            bound(usize::from(first) - 1)
        };
        (start.min(end), end)
    }

    /// Where an object begins.
    pub(crate) fn offset(&self, id: ObjectId) -> Option<usize> {
        let (mut low, mut high) = self.fan(id.0[0]);
        while low < high {
            let middle = low.midpoint(high);
            match self.id(middle)?.cmp(&id) {
                std::cmp::Ordering::Equal => return self.offset_at(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn offset_at(&self, at: usize) -> Option<usize> {
        let offset = number(&self.bytes, 8 + 1024 + self.count * 24 + at * 4)?;
        // Larger offsets are in a table that no pack within the limits needs.
        (offset < 1 << 31).then_some(offset)
    }

    /// The ids that begin with these digits.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Vec<ObjectId> {
        let Some(first) = prefix
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        else {
            return Vec::new();
        };
        let (start, end) = self.fan(first);
        let ids = (start..end).filter_map(|at| self.id(at));
        ids.filter(|id| id.to_string().starts_with(prefix))
            .collect()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?) as usize)
}

/// A pack whose objects are read; remembers some of them, bounded.
#[derive(Debug)]
pub(crate) struct Pack {
    bytes: Bytes,
    kept: HashMap<usize, Object>,
    order: VecDeque<usize>,
    held: usize,
    unpacked: u64,
}

impl Pack {
    pub(crate) fn new(bytes: Bytes) -> Result<Self, GitError> {
        let head = (bytes.get(..4), number(&bytes, 4));
        if !matches!(head, (Some(b"PACK"), Some(2 | 3))) || bytes.len() < 32 {
            return Err(corrupt("a pack cannot be read"));
        }
        Ok(Self {
            bytes,
            kept: HashMap::new(),
            order: VecDeque::new(),
            held: 0,
            unpacked: 0,
        })
    }

    fn count(&self) -> usize {
        number(&self.bytes, 8).unwrap_or(0)
    }

    /// Bytes of unpacked objects that are kept.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Keeps no object any more.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
        self.order.clear();
        self.held = 0;
    }

    fn charge(&mut self, bytes: usize) -> Result<(), GitError> {
        self.unpacked += (bytes as u64).max(LEAST);
        within(self.unpacked, UNPACKED_BYTES, || {
            "unpacking the objects takes too many bytes".into()
        })
    }

    /// Everything but the checksum.
    fn body(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 20]
    }

    fn entry(&self, offset: usize) -> Result<Entry, GitError> {
        let wrong = || corrupt("an entry of a pack cannot be read");
        let mut at = offset;
        let mut next = || {
            let byte = self.body().get(at).copied().ok_or_else(wrong);
            at += 1;
            byte
        };
        let first = next()?;
        let mut size = u64::from(first & 15);
        let (mut shift, mut byte) = (4, first);
        while byte & 128 != 0 {
            byte = next()?;
            if shift > 57 {
                return Err(wrong());
            }
            size |= u64::from(byte & 127) << shift;
            shift += 7;
        }
        if size > OBJECT_BYTES {
            return Err(GitError::Limit {
                what: format!("an object has {size} bytes"),
                limit: OBJECT_BYTES,
            });
        }
        let base = match first >> 4 & 7 {
            1 => Base::Whole(ObjectKind::Commit),
            2 => Base::Whole(ObjectKind::Tree),
            3 => Base::Whole(ObjectKind::Blob),
            4 => Base::Whole(ObjectKind::Tag),
            6 => {
                let mut byte = next()?;
                let mut back = usize::from(byte & 127);
                while byte & 128 != 0 {
                    byte = next()?;
                    back = back
                        .checked_add(1)
                        .and_then(|back| back.checked_mul(128))
                        .ok_or_else(wrong)?
                        | usize::from(byte & 127);
                }
                let before = offset
                    .checked_sub(back)
                    .filter(|before| back > 0 && *before >= 12);
                Base::At(before.ok_or_else(wrong)?)
            }
            7 => {
                let id = self.body().get(at..at + 20).and_then(ObjectId::from_bytes);
                at += 20;
                Base::Object(id.ok_or_else(wrong)?)
            }
            _ => return Err(wrong()),
        };
        Ok(Entry {
            base,
            size: usize::try_from(size).map_err(|_| wrong())?,
            data: at,
        })
    }

    /// The bytes of an entry, and how many they were when compressed.
    fn inflate(&mut self, entry: &Entry) -> Result<(Vec<u8>, usize), GitError> {
        self.charge(entry.size)?;
        let input = self.body().get(entry.data..).unwrap_or_default();
        inflate(input, entry.size)
    }

    /// Reads the object at an offset.
    pub(crate) fn object_at(
        &mut self,
        offset: usize,
        find: &dyn Fn(ObjectId) -> Option<usize>,
        outside: &HashMap<ObjectId, Object>,
    ) -> Result<Read1, GitError> {
        let mut deltas: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut at = offset;
        let (kind, mut body) = loop {
            if let Some(object) = self.kept.get(&at) {
                break object.clone();
            }
            let entry = self.entry(at)?;
            chain(deltas.len())?;
            let (bytes, _) = self.inflate(&entry)?;
            match entry.base {
                Base::Whole(kind) => {
                    let object = (kind, Bytes::from(bytes));
                    self.keep(at, &object);
                    break object;
                }
                Base::At(before) => {
                    deltas.push((at, bytes));
                    at = before;
                }
                Base::Object(id) => {
                    deltas.push((at, bytes));
                    match find(id) {
                        // Only a base that comes later can lead back.
                        Some(before)
                            if before >= at && deltas.iter().any(|(at, _)| *at == before) =>
                        {
                            return Err(corrupt("a delta builds on itself"));
                        }
                        Some(before) => at = before,
                        None => match outside.get(&id) {
                            Some(object) => break object.clone(),
                            None => return Ok(Read1::Outside(id)),
                        },
                    }
                }
            }
            let held: usize = deltas.iter().map(|(_, delta)| delta.len()).sum();
            if held as u64 > OBJECT_BYTES {
                return Err(GitError::Limit {
                    what: "the deltas of an object take too many bytes".into(),
                    limit: OBJECT_BYTES,
                });
            }
        };
        while let Some((place, delta)) = deltas.pop() {
            // A few bytes of delta may make a large object.
            self.charge(result_size(&delta)?)?;
            body = Bytes::from(apply(&body, &delta)?);
            self.keep(place, &(kind, body.clone()));
        }
        Ok(Read1::Object((kind, body)))
    }

    fn keep(&mut self, offset: usize, object: &Object) {
        if object.1.len() > KEPT || self.kept.contains_key(&offset) {
            return;
        }
        self.held += object.1.len();
        self.kept.insert(offset, object.clone());
        self.order.push_back(offset);
        while self.held > KEPT {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some((_, body)) = self.kept.remove(&oldest) {
                self.held -= body.len();
            }
        }
    }
}

/// Bounds the deltas on the way to an object.
fn chain(deltas: usize) -> Result<(), GitError> {
    within(deltas as u64, DELTA_CHAIN as u64, || {
        "a chain of deltas is too long".into()
    })
}

/// Unpacks exactly `size` bytes.
fn inflate(input: &[u8], size: usize) -> Result<(Vec<u8>, usize), GitError> {
    let wrong = || corrupt("an object cannot be unpacked");
    let mut out = Vec::new();
    let mut state = Decompress::new(true);
    loop {
        let read = usize::try_from(state.total_in()).map_err(|_| wrong())?;
        // One byte more than said, so that a longer object is noticed.
        let space = (size + 1 - out.len()).min(64 << 10);
        if space == 0 {
            return Err(wrong());
        }
        out.reserve(space);
        let before = (state.total_in(), out.len());
        let rest = input.get(read..).unwrap_or_default();
        let status = state
            .decompress_vec(rest, &mut out, FlushDecompress::None)
            .map_err(|_| wrong())?;
        match status {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError if before == (state.total_in(), out.len()) => {
                return Err(wrong());
            }
            Status::Ok | Status::BufError => {}
        }
        if out.len() > size {
            return Err(wrong());
        }
    }
    if out.len() != size {
        return Err(wrong());
    }
    Ok((out, usize::try_from(state.total_in()).map_err(|_| wrong())?))
}

/// The sizes at the beginning of a delta: of its base, and of what it makes.
fn sizes(bytes: &mut impl Iterator<Item = u8>) -> Result<(u64, u64), GitError> {
    let wrong = || corrupt("a delta cannot be read");
    let mut size = || {
        let (mut size, mut shift) = (0u64, 0);
        loop {
            let byte = bytes.next().ok_or_else(wrong)?;
            size |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                return Ok(size);
            }
            if shift > 56 {
                return Err(wrong());
            }
        }
    };
    Ok((size()?, size()?))
}

/// The size of what a delta makes.
fn result_size(delta: &[u8]) -> Result<usize, GitError> {
    let (_, to) = sizes(&mut delta.iter().copied())?;
    within(to, OBJECT_BYTES, || format!("an object has {to} bytes"))?;
    usize::try_from(to).map_err(|_| corrupt("a delta cannot be read"))
}

/// Applies a delta to its base.
pub(crate) fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, GitError> {
    let wrong = || corrupt("a delta cannot be read");
    let to = result_size(delta)?;
    let mut bytes = delta.iter().copied();
    let (from, _) = sizes(&mut bytes)?;
    if from != base.len() as u64 {
        return Err(wrong());
    }
    let mut out = Vec::with_capacity(to.min(base.len() * 2 + delta.len()));
    while let Some(order) = bytes.next() {
        if order & 128 != 0 {
            let mut field = |bits: std::ops::Range<u8>| {
                let mut value = 0usize;
                for (place, bit) in bits.enumerate() {
                    if order & 1 << bit != 0 {
                        value |= usize::from(bytes.next().ok_or_else(wrong)?) << (8 * place);
                    }
                }
                Ok::<_, GitError>(value)
            };
            let (start, length) = (field(0..4)?, field(4..7)?);
            let length = if length == 0 { 0x10000 } else { length };
            let part = base
                .get(start..start.checked_add(length).ok_or_else(wrong)?)
                .ok_or_else(wrong)?;
            out.extend_from_slice(part);
        } else if order != 0 {
            for _ in 0..order {
                out.push(bytes.next().ok_or_else(wrong)?);
            }
        } else {
            return Err(wrong());
        }
        if out.len() > to {
            return Err(wrong());
        }
    }
    if out.len() != to {
        return Err(wrong());
    }
    Ok(out)
}

/// A pack as it is kept: completed with the bases that it refers to, and its index.
pub(crate) struct Taken {
    pub(crate) name: String,
    pub(crate) pack: Bytes,
    pub(crate) index: Bytes,
    pub(crate) objects: usize,
}

/// What is in a received pack.
struct Scanned {
    /// Where each entry begins and ends.
    offsets: Vec<(usize, usize)>,
    /// Entries that build on none, in reverse.
    whole: Vec<usize>,
    /// Entries by the place of what they build on.
    above: HashMap<usize, Vec<usize>>,
    /// Entries by the name of what they build on.
    named: HashMap<ObjectId, Vec<usize>>,
}

/// The objects outside of a pack that it may need.
pub(crate) fn bases(bytes: &Bytes) -> Result<Vec<ObjectId>, GitError> {
    let scanned = scan(&mut Pack::new(bytes.clone())?)?;
    Ok(scanned.named.into_keys().collect())
}

fn scan(pack: &mut Pack) -> Result<Scanned, GitError> {
    let count = pack.count();
    if count > PACK_OBJECTS as usize {
        return Err(GitError::Limit {
            what: format!("a pack has {count} objects"),
            limit: u64::from(PACK_OBJECTS),
        });
    }
    let sum: [u8; 20] = Sha1::digest(pack.body()).into();
    if pack.bytes[pack.bytes.len() - 20..] != sum {
        return Err(corrupt("the checksum of a pack is wrong"));
    }
    let mut scanned = Scanned {
        offsets: Vec::new(),
        whole: Vec::new(),
        above: HashMap::new(),
        named: HashMap::new(),
    };
    let mut at = 12;
    for _ in 0..count {
        let entry = pack.entry(at)?;
        match entry.base {
            Base::Whole(_) => scanned.whole.push(at),
            Base::At(before) => scanned.above.entry(before).or_default().push(at),
            Base::Object(id) => scanned.named.entry(id).or_default().push(at),
        }
        let (_, compressed) = pack.inflate(&entry)?;
        let end = entry.data + compressed;
        scanned.offsets.push((at, end));
        at = end;
    }
    if at != pack.body().len() {
        return Err(corrupt("a pack is longer than its objects"));
    }
    scanned.whole.reverse();
    Ok(scanned)
}

/// Checks a received pack whole and makes its index. `outside` are objects that are here already and
/// that deltas in it may build on; those that do are added to the pack.
pub(crate) fn take(bytes: Bytes, outside: &HashMap<ObjectId, Object>) -> Result<Taken, GitError> {
    let mut pack = Pack::new(bytes)?;
    let scanned = scan(&mut pack)?;
    pack.unpacked = 0;
    let mut found: HashMap<ObjectId, usize> = HashMap::new();
    let Scanned {
        offsets,
        whole,
        mut above,
        mut named,
    } = scanned;
    // Entries whose base is known, with the deltas on the way to it.
    let mut ready: Vec<(usize, usize)> = whole.into_iter().map(|at| (at, 0)).collect();
    let mut used: Vec<ObjectId> = Vec::new();
    for id in outside.keys() {
        if let Some(entries) = named.remove(id) {
            ready.extend(entries.into_iter().map(|at| (at, 1)));
            used.push(*id);
        }
    }
    // What an entry builds on comes right before it, so it is still kept: each is unpacked once.
    while let Some((at, deltas)) = ready.pop() {
        chain(deltas)?;
        let find = |id: ObjectId| found.get(&id).copied();
        let Read1::Object((kind, body)) = pack.object_at(at, &find, outside)? else {
            return Err(corrupt("a pack refers to an object that is nowhere"));
        };
        let id = ObjectId::of(kind, &body);
        if found.insert(id, at).is_some() {
            return Err(corrupt("a pack has an object twice"));
        }
        let next = above.remove(&at).into_iter().chain(named.remove(&id));
        ready.extend(next.flatten().map(|at| (at, deltas + 1)));
    }
    if found.len() < offsets.len() {
        return Err(corrupt("a pack refers to an object that is nowhere"));
    }
    let mut out = pack.body().to_vec();
    let mut entries: Vec<(ObjectId, usize, u32)> = Vec::with_capacity(found.len());
    let ends: HashMap<usize, usize> = offsets.into_iter().collect();
    for (id, at) in &found {
        let end = ends.get(at).copied().unwrap_or(*at);
        entries.push((*id, *at, crc(&out[*at..end])));
    }
    used.sort_unstable();
    for id in used {
        if let Some((kind, body)) = outside.get(&id).filter(|_| !found.contains_key(&id)) {
            let at = out.len();
            push_entry(&mut out, *kind, body)?;
            entries.push((id, at, crc(&out[at..])));
        }
    }
    let count = u32::try_from(entries.len()).map_err(|_| corrupt("too many objects"))?;
    out[8..12].copy_from_slice(&count.to_be_bytes());
    let sum: [u8; 20] = Sha1::digest(&out).into();
    out.extend_from_slice(&sum);
    let objects = entries.len();
    Ok(Taken {
        name: format!("pack-{}", ObjectId(sum)),
        index: Bytes::from(index(entries, sum)),
        pack: Bytes::from(out),
        objects,
    })
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The index, version 2, of a pack.
fn index(mut entries: Vec<(ObjectId, usize, u32)>, pack: [u8; 20]) -> Vec<u8> {
    entries.sort_unstable();
    let mut out = Vec::with_capacity(1072 + entries.len() * 28);
    out.extend_from_slice(&INDEX_HEAD);
    let mut at = 0u32;
    for first in 0..=255u8 {
        while entries
            .get(at as usize)
            .is_some_and(|(id, _, _)| id.0[0] <= first)
        {
            at += 1;
        }
        out.extend_from_slice(&at.to_be_bytes());
    }
    for (id, _, _) in &entries {
        out.extend_from_slice(&id.0);
    }
    for (_, _, crc) in &entries {
        out.extend_from_slice(&crc.to_be_bytes());
    }
    for (_, offset, _) in &entries {
        out.extend_from_slice(
            &u32::try_from(*offset)
                .unwrap_or(u32::MAX >> 1)
                .to_be_bytes(),
        );
    }
    out.extend_from_slice(&pack);
    let sum: [u8; 20] = Sha1::digest(&out).into();
    out.extend_from_slice(&sum);
    out
}

fn push_entry(out: &mut Vec<u8>, kind: ObjectKind, body: &[u8]) -> Result<(), GitError> {
    let kind: u8 = match kind {
        ObjectKind::Commit => 1,
        ObjectKind::Tree => 2,
        ObjectKind::Blob => 3,
        ObjectKind::Tag => 4,
    };
    let mut size = body.len();
    let mut byte = kind << 4 | (size & 15) as u8;
    size >>= 4;
    while size > 0 {
        out.push(byte | 128);
        byte = (size & 127) as u8;
        size >>= 7;
    }
    out.push(byte);
    out.extend_from_slice(&deflate(&[body])?);
    Ok(())
}

/// A pack of whole objects, for a push.
pub(crate) struct PackWriter {
    out: Vec<u8>,
    count: u32,
}

impl PackWriter {
    pub(crate) fn new() -> Self {
        let mut out = b"PACK\0\0\0\x02".to_vec();
        out.extend_from_slice(&[0; 4]);
        Self { out, count: 0 }
    }

    pub(crate) fn add(&mut self, kind: ObjectKind, body: &[u8]) -> Result<(), GitError> {
        push_entry(&mut self.out, kind, body)?;
        self.count += 1;
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out[8..12].copy_from_slice(&self.count.to_be_bytes());
        let sum: [u8; 20] = Sha1::digest(&self.out).into();
        self.out.extend_from_slice(&sum);
        self.out
    }
}

/// Compresses pieces as one.
pub(crate) fn deflate(pieces: &[&[u8]]) -> Result<Vec<u8>, GitError> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let mut write = || {
        for piece in pieces {
            encoder.write_all(piece)?;
        }
        encoder.try_finish()
    };
    write().map_err(|error: std::io::Error| corrupt(error.to_string()))?;
    Ok(std::mem::take(encoder.get_mut()))
}

/// Unpacks a loose object.
pub(crate) fn loose(bytes: &[u8]) -> Result<Object, GitError> {
    let wrong = || corrupt("a loose object cannot be read");
    let mut out = Vec::new();
    let limit = OBJECT_BYTES + 64;
    let mut reader = flate2::read::ZlibDecoder::new(bytes).take(limit);
    reader.read_to_end(&mut out).map_err(|_| wrong())?;
    if out.len() as u64 == limit {
        return Err(GitError::Limit {
            what: "an object is too large".into(),
            limit: OBJECT_BYTES,
        });
    }
    let end = memchr::memchr(0, &out).ok_or_else(wrong)?;
    let head = &out[..end];
    let space = memchr::memchr(b' ', head).ok_or_else(wrong)?;
    let kind = ObjectKind::of_name(&head[..space]).ok_or_else(wrong)?;
    let size = std::str::from_utf8(&head[space + 1..])
        .ok()
        .and_then(|size| size.parse::<usize>().ok());
    let body = Bytes::from(out).slice(end + 1..);
    if size != Some(body.len()) {
        return Err(wrong());
    }
    Ok((kind, body))
}
