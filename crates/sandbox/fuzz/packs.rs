//! Packs, indexes and remotes that are made by hand, so that they can be wrong in one place only.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use sha1::{Digest as _, Sha1};

/// A line of git's protocol.
pub fn packet(text: &[u8]) -> Vec<u8> {
    let length = format!("{:04x}", text.len() + 4);
    [length.as_bytes(), text].concat()
}

/// What a remote says first.
pub fn capabilities() -> Vec<u8> {
    let lines = [&b"version 2\n"[..], b"ls-refs\n", b"fetch\n"];
    [lines.map(packet).concat(), b"0000".to_vec()].concat()
}

/// A remote's answer when it is asked for its references: `main`, at this commit.
pub fn references(tip: &str) -> Vec<u8> {
    let head = packet(format!("{tip} HEAD symref-target:refs/heads/main\n").as_bytes());
    let main = packet(format!("{tip} refs/heads/main\n").as_bytes());
    [head, main, b"0000".to_vec()].concat()
}

/// A remote's answer with a pack.
pub fn answer(pack: &[u8]) -> Vec<u8> {
    let mut body = packet(b"packfile\n");
    for piece in pack.chunks(60_000) {
        body.extend(packet(&[&[1], piece].concat()));
    }
    [body, b"0000".to_vec()].concat()
}

pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An entry of a pack: 1 commit, 2 tree, 3 blob, 4 tag, 6 and 7 deltas with a base `middle`.
pub fn entry(kind: u8, size: usize, middle: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut byte, mut rest) = (kind << 4 | (size & 15) as u8, size >> 4);
    while rest > 0 {
        out.push(byte | 128);
        byte = (rest & 127) as u8;
        rest >>= 7;
    }
    out.push(byte);
    [out, middle.to_vec(), zlib(body)].concat()
}

/// How far back the base of a delta is.
pub fn back(mut distance: usize) -> Vec<u8> {
    let mut out = vec![(distance & 127) as u8];
    distance >>= 7;
    while distance > 0 {
        distance -= 1;
        out.insert(0, 128 | (distance & 127) as u8);
        distance >>= 7;
    }
    out
}

/// A delta from a base of `from` bytes to `to` bytes.
pub fn delta(from: usize, to: usize, orders: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for mut size in [from, to] {
        while size > 127 {
            out.push(128 | (size & 127) as u8);
            size >>= 7;
        }
        out.push(size as u8);
    }
    [&out, orders].concat()
}

pub fn pack(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let head = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
    summed([head, entries.concat()].concat())
}

/// The bytes with their SHA-1 behind them.
pub fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = Sha1::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The index of a pack, of ids and offsets.
pub fn index(mut objects: Vec<([u8; 20], u32)>) -> Vec<u8> {
    objects.sort_unstable();
    let mut out = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=255 {
        let below = objects.iter().filter(|(id, _)| id[0] <= first).count();
        out.extend((below as u32).to_be_bytes());
    }
    out.extend(objects.iter().flat_map(|(id, _)| *id));
    out.extend(objects.iter().flat_map(|_| [0; 4]));
    out.extend(objects.iter().flat_map(|(_, at)| at.to_be_bytes()));
    out.extend([0; 20]);
    summed(out)
}

pub fn id(kind: &str, body: &[u8]) -> [u8; 20] {
    let head = format!("{kind} {}\0", body.len()).into_bytes();
    Sha1::digest([head, body.to_vec()].concat()).into()
}

pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A commit without parents.
pub fn commit(tree: &[u8; 20], message: &str) -> Vec<u8> {
    let people = "author a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000";
    format!("tree {}\n{people}\n\n{message}\n", hex(tree)).into_bytes()
}

/// Whole objects: their pack, its index, and their ids.
pub struct Objects {
    entries: Vec<Vec<u8>>,
    at: u32,
    /// Ids and offsets, in order.
    pub ids: Vec<([u8; 20], u32)>,
}

impl Objects {
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            at: 12,
            ids: Vec::new(),
        }
    }

    /// Adds an object, and gives its id.
    pub fn add(&mut self, kind: &str, body: &[u8]) -> [u8; 20] {
        let number = match kind {
            "commit" => 1,
            "tree" => 2,
            "tag" => 4,
            _ => 3,
        };
        let id = id(kind, body);
        self.push(id, entry(number, body.len(), &[], body));
        id
    }

    /// Adds an entry as it is, under any id.
    pub fn push(&mut self, id: [u8; 20], entry: Vec<u8>) {
        self.ids.push((id, self.at));
        self.at += entry.len() as u32;
        self.entries.push(entry);
    }

    /// Where the next entry will be.
    pub fn end(&self) -> u32 {
        self.at
    }

    pub fn pack(&self) -> Vec<u8> {
        pack(self.entries.len() as u32, &self.entries)
    }

    pub fn index(&self) -> Vec<u8> {
        index(self.ids.clone())
    }
}
