//! Lines of git's protocol, and what a remote has.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    GitError, ObjectId,
    limits::{PACK_BYTES, REFERENCES},
    refs,
};

/// Bytes of a remote's message that are shown.
const SHOWN: usize = 2_000;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Data(Bytes),
    Flush,
    Delimiter,
    End,
}

/// Packets of a body.
pub(crate) struct Packets(Bytes);

impl Packets {
    pub(crate) fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Packet>, GitError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let wrong = || GitError::Remote("fatal: protocol error: bad line length".into());
        let digits = self
            .0
            .get(..4)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let length = digits
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or_else(wrong)?;
        let control = match length {
            0 => Some(Packet::Flush),
            1 => Some(Packet::Delimiter),
            2 => Some(Packet::End),
            3 => return Err(wrong()),
            _ => None,
        };
        if let Some(control) = control {
            self.0 = self.0.slice(4..);
            return Ok(Some(control));
        }
        if length > self.0.len() {
            return Err(wrong());
        }
        let data = self.0.slice(4..length);
        self.0 = self.0.slice(length..);
        Ok(Some(Packet::Data(data)))
    }

    /// The lines up to a flush, without their ends.
    pub(crate) fn lines(&mut self) -> Result<Vec<String>, GitError> {
        let mut lines = Vec::new();
        while let Some(Packet::Data(line)) = self.next()? {
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches('\n')
                .to_owned();
            if let Some(error) = line.strip_prefix("ERR ") {
                return Err(GitError::Remote(format!(
                    "fatal: remote error: {}",
                    shown(error)
                )));
            }
            lines.push(line);
            if lines.len() > REFERENCES {
                return Err(GitError::Limit {
                    what: "the remote sends too many lines".into(),
                    limit: REFERENCES as u64,
                });
            }
        }
        Ok(lines)
    }
}

/// Text of a remote that is shown: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect();
    let mut end = plain.len().min(SHOWN);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    plain[..end].trim_end().to_owned()
}

/// Adds a line.
pub(crate) fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

pub(crate) const FLUSH: &[u8] = b"0000";
pub(crate) const DELIMITER: &[u8] = b"0001";

/// What a remote has.
#[derive(Debug, Default)]
pub(crate) struct Advertised {
    pub(crate) refs: BTreeMap<String, ObjectId>,
    /// The branch that its `HEAD` is on, in full.
    pub(crate) head: Option<String>,
}

impl Advertised {
    /// Reads the answer to `ls-refs`.
    pub(crate) fn parse(body: Bytes) -> Result<Self, GitError> {
        let mut found = Self::default();
        for line in Packets::new(body).lines()? {
            let mut parts = line.split(' ');
            let (Some(id), Some(name)) = (parts.next(), parts.next()) else {
                continue;
            };
            let target = parts.find_map(|part| part.strip_prefix("symref-target:"));
            if name == "HEAD" {
                found.head = target.filter(|name| refs::valid(name)).map(str::to_owned);
            }
            found.add(id, name);
        }
        Ok(found)
    }

    /// Reads what `receive-pack` says first; gives its capabilities too.
    pub(crate) fn parse_push(body: Bytes) -> Result<(Self, String), GitError> {
        let mut packets = Packets::new(body);
        let mut lines = packets.lines()?;
        if lines
            .first()
            .is_some_and(|line| line.starts_with("# service="))
        {
            lines = packets.lines()?;
        }
        let mut found = Self::default();
        let mut able = String::new();
        for line in lines {
            let (line, more) = line.split_once('\0').unwrap_or((&line, ""));
            if !more.is_empty() {
                able = more.to_owned();
            }
            if let Some((id, name)) = line.split_once(' ') {
                found.add(id, name);
            }
        }
        Ok((found, able))
    }

    fn add(&mut self, id: &str, name: &str) {
        if let Some(id) =
            ObjectId::from_hex(id).filter(|_| refs::valid(name) && name.starts_with("refs/"))
        {
            self.refs.insert(name.to_owned(), id);
        }
    }
}

/// The answer to `fetch`.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) pack: Bytes,
    pub(crate) shallow: Vec<ObjectId>,
    pub(crate) unshallow: Vec<ObjectId>,
}

impl Answer {
    pub(crate) fn parse(body: Bytes) -> Result<Self, GitError> {
        let mut packets = Packets::new(body);
        let mut answer = Self::default();
        let mut pack = Vec::new();
        let mut section = String::new();
        while let Some(packet) = packets.next()? {
            let data = match packet {
                Packet::Data(data) => data,
                Packet::Delimiter => {
                    section.clear();
                    continue;
                }
                Packet::Flush | Packet::End => break,
            };
            if section.is_empty() {
                section = String::from_utf8_lossy(&data).trim_end().to_owned();
                if let Some(error) = section.strip_prefix("ERR ") {
                    return Err(GitError::Remote(format!(
                        "fatal: remote error: {}",
                        shown(error)
                    )));
                }
                continue;
            }
            match (section.as_str(), data.first()) {
                ("packfile", Some(1)) => {
                    pack.extend_from_slice(&data[1..]);
                    if pack.len() as u64 > PACK_BYTES {
                        return Err(GitError::Limit {
                            what: "the remote sends too large a pack".into(),
                            limit: PACK_BYTES,
                        });
                    }
                }
                ("packfile", Some(3)) => {
                    let text = String::from_utf8_lossy(&data[1..]).into_owned();
                    return Err(GitError::Remote(format!(
                        "fatal: remote error: {}",
                        shown(&text)
                    )));
                }
                ("shallow-info", _) => {
                    let text = String::from_utf8_lossy(&data);
                    let id = |sign: &str| {
                        text.trim_end()
                            .strip_prefix(sign)
                            .and_then(ObjectId::from_hex)
                    };
                    answer.shallow.extend(id("shallow "));
                    answer.unshallow.extend(id("unshallow "));
                }
                _ => {}
            }
        }
        answer.pack = Bytes::from(pack);
        Ok(answer)
    }
}
