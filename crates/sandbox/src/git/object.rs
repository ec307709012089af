//! Objects: their ids and what is in commits, tags and trees.

use std::fmt;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::{
    GitError, corrupt,
    limits::{COMMIT_BYTES, TREE_FILES},
    within,
};

/// The SHA-1 of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub(crate) [u8; 20]);

impl ObjectId {
    /// Of 40 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return None;
        }
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(id))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The first seven digits, as people write them.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(7);
        text
    }

    /// The id of an object.
    pub(crate) fn of(kind: ObjectKind, body: &[u8]) -> Self {
        let mut hash = Sha1::new();
        hash.update(header(kind, body.len()));
        hash.update(body);
        Self(hash.finalize().into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What begins a loose object.
pub(crate) fn header(kind: ObjectKind, length: usize) -> Vec<u8> {
    format!("{} {length}\0", kind.name()).into_bytes()
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A commit.
    Commit,
    /// A directory.
    Tree,
    /// The content of a file.
    Blob,
    /// An annotated tag.
    Tag,
}

impl ObjectKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }

    pub(crate) fn of_name(name: &[u8]) -> Option<Self> {
        match name {
            b"commit" => Some(Self::Commit),
            b"tree" => Some(Self::Tree),
            b"blob" => Some(Self::Blob),
            b"tag" => Some(Self::Tag),
            _ => None,
        }
    }
}

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name; without `<`, `>` and line ends.
    pub name: String,
    /// Address; the same.
    pub email: String,
    /// Seconds since 1970.
    pub seconds: i64,
    /// Minutes that the clock of that place is ahead of UTC.
    pub offset: i32,
}

impl Signature {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('<')?;
        let (email, rest) = rest.split_once('>')?;
        let mut parts = rest.split_ascii_whitespace();
        let seconds = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let zone: i32 = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self {
            name: name.trim().to_owned(),
            email: email.to_owned(),
            seconds,
            offset: zone / 100 * 60 + zone % 100,
        })
    }

    /// `+0200`.
    pub(crate) fn zone(&self) -> String {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.abs();
        format!("{sign}{:02}{:02}", minutes / 60, minutes % 60)
    }

    fn render(&self) -> String {
        let clean = |text: &str| text.replace(['<', '>', '\n', '\0'], "");
        let (name, email) = (clean(&self.name), clean(&self.email));
        format!(
            "{} <{}> {} {}",
            name.trim(),
            email.trim(),
            self.seconds,
            self.zone()
        )
    }
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The tree of all its files.
    pub tree: ObjectId,
    /// The commits before; none for a first one, more than one for a merge.
    pub parents: Vec<ObjectId>,
    /// Who wrote it.
    pub author: Signature,
    /// Who committed it.
    pub committer: Signature,
    /// The message; invalid UTF-8 is replaced.
    pub message: String,
}

impl Commit {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, GitError> {
        within(body.len() as u64, COMMIT_BYTES, || {
            format!("a commit has {} bytes", body.len())
        })?;
        let text = String::from_utf8_lossy(body);
        let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
        let (mut tree, mut parents) = (None, Vec::new());
        let (mut author, mut committer) = (None, None);
        for line in head.lines() {
            match line.split_once(' ') {
                Some(("tree", id)) if tree.is_none() => tree = ObjectId::from_hex(id),
                Some(("parent", id)) => {
                    parents.push(
                        ObjectId::from_hex(id)
                            .ok_or_else(|| corrupt("a commit has an unreadable parent"))?,
                    );
                }
                Some(("author", who)) if author.is_none() => author = Signature::parse(who),
                Some(("committer", who)) if committer.is_none() => {
                    committer = Signature::parse(who)
                }
                _ => {}
            }
        }
        let missing = || corrupt("a commit cannot be read");
        Ok(Self {
            tree: tree.ok_or_else(missing)?,
            parents,
            author: author.ok_or_else(missing)?,
            committer: committer.ok_or_else(missing)?,
            message: message.to_owned(),
        })
    }

    pub(crate) fn render(&self) -> Vec<u8> {
        let mut out = format!("tree {}\n", self.tree);
        for parent in &self.parents {
            out.push_str(&format!("parent {parent}\n"));
        }
        out.push_str(&format!(
            "author {}\ncommitter {}\n\n{}",
            self.author.render(),
            self.committer.render(),
            self.message
        ));
        out.into_bytes()
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let people = [&self.author, &self.committer];
        let names = people.map(|who| who.name.len() + who.email.len());
        256 + self.message.len() + names[0] + names[1] + self.parents.len() * 20
    }

    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.message.trim_start().lines().next().unwrap_or_default()
    }
}

/// What an annotated tag points to.
pub(crate) fn tagged(body: &[u8]) -> Result<ObjectId, GitError> {
    within(body.len() as u64, COMMIT_BYTES, || {
        format!("a tag has {} bytes", body.len())
    })?;
    let text = String::from_utf8_lossy(body);
    let id = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("object "));
    id.and_then(ObjectId::from_hex)
        .ok_or_else(|| corrupt("a tag cannot be read"))
}

/// How git keeps a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    File,
    Executable,
    Link,
    Tree,
    /// A submodule.
    Module,
}

impl Mode {
    pub(crate) fn read(bits: u32) -> Option<Self> {
        match bits & 0o170_000 {
            0o100_000 if bits & 0o100 != 0 => Some(Self::Executable),
            0o100_000 => Some(Self::File),
            0o120_000 => Some(Self::Link),
            0o040_000 => Some(Self::Tree),
            0o160_000 => Some(Self::Module),
            _ => None,
        }
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_000,
            Self::Tree => 0o040_000,
            Self::Module => 0o160_000,
        }
    }
}

/// A name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeEntry {
    pub(crate) mode: Mode,
    pub(crate) name: String,
    pub(crate) id: ObjectId,
}

/// The entries of a tree. Names that could lead anywhere else are refused here, for every reader.
pub(crate) fn parse_tree(body: &Bytes) -> Result<Vec<TreeEntry>, GitError> {
    let mut entries = Vec::new();
    let mut rest = &body[..];
    while !rest.is_empty() {
        let unreadable = || corrupt("a tree cannot be read");
        let end = memchr::memchr(0, rest).ok_or_else(unreadable)?;
        let (head, tail) = rest.split_at(end);
        let (id, tail) = tail.split_at_checked(21).ok_or_else(unreadable)?;
        let space = memchr::memchr(b' ', head).ok_or_else(unreadable)?;
        let bits = std::str::from_utf8(&head[..space]).ok();
        let bits = bits.and_then(|bits| u32::from_str_radix(bits, 8).ok());
        let mode = bits.and_then(Mode::read).ok_or_else(unreadable)?;
        let name = std::str::from_utf8(&head[space + 1..])
            .map_err(|_| GitError::Unsupported("a file name that is not UTF-8".into()))?;
        if !safe_name(name) {
            return Err(corrupt(format!(
                "a tree has the name '{}', which is refused",
                name.escape_debug()
            )));
        }
        entries.push(TreeEntry {
            mode,
            name: name.to_owned(),
            id: ObjectId::from_bytes(&id[1..]).ok_or_else(unreadable)?,
        });
        within(entries.len() as u64, TREE_FILES as u64, || {
            "a directory of a commit has too many names".into()
        })?;
        rest = tail;
    }
    Ok(entries)
}

/// Whether a name stays where it is put: neither `.`, `..` nor anything that some filesystem takes for
/// `.git` (a workspace may be exported to it).
pub(crate) fn safe_name(name: &str) -> bool {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return false;
    }
    // HFS+ ignores these characters, NTFS trailing dots, spaces and streams.
    let seen: String = name
        .chars()
        .filter(|c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'))
        .collect::<String>()
        .to_ascii_lowercase();
    let seen = seen
        .split([':', '\\'])
        .next()
        .unwrap_or_default()
        .trim_end_matches(['.', ' ']);
    !matches!(seen, ".git" | "git~1") || name.is_empty()
}

/// Whether each name of a relative path is safe.
pub(crate) fn safe_path(path: &str) -> bool {
    path.split('/').all(safe_name)
}

/// A tree's bytes; the entries are put into git's order.
pub(crate) fn render_tree(entries: &mut [TreeEntry]) -> Vec<u8> {
    // A directory sorts as if its name ended with a slash.
    let key = |entry: &TreeEntry| {
        let mut key = entry.name.clone().into_bytes();
        if entry.mode == Mode::Tree {
            key.push(b'/');
        }
        key
    };
    entries.sort_by_key(key);
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(format!("{:o} {}\0", entry.mode.bits(), entry.name).as_bytes());
        out.extend_from_slice(&entry.id.0);
    }
    out
}
