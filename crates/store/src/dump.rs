//! Everything of one actor, and its form as a file.
//!
//! A file is the line `bowline-instance 1`, then frames, then one last frame with the BLAKE3 hash of
//! all bytes before it. A frame is a tag, the length of its header (4 bytes, little endian), the
//! length of its body (8 bytes), the header as JSON, and the body. A file that was cut, changed or
//! added to is refused whole.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    ActorId, Batch, Blob, BlobId, CommitError, Epoch, Record, RowChange, Store, StoreError,
    Timestamp, Wake, limits,
};

/// How a file begins; the number is that of its format.
const MAGIC: &[u8] = b"bowline-instance 1\n";
/// What every format begins with.
const FAMILY: &[u8] = b"bowline-instance ";
/// Longest header of a frame, in bytes.
const MAX_HEADER: usize = 8 * 1024 * 1024;
/// Most spaces of rows that this process will ever have read from files.
const MAX_SPACES: usize = 256;

/// Everything of one actor at one moment.
#[derive(Debug, Clone)]
pub struct Dump {
    /// Whose it is.
    pub actor: ActorId,
    /// Its next wake.
    pub wake: Option<Timestamp>,
    /// Its history; the first record is the one with sequence 1.
    pub records: Vec<Record>,
    /// Its rows, ordered by space and key.
    pub rows: Vec<DumpRow>,
    /// What the records and rows refer to.
    pub blobs: Vec<Blob>,
}

/// One row with what it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRow {
    /// The namespace of the key.
    pub space: String,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Bytes,
    /// The blobs that it keeps alive.
    pub blobs: Vec<BlobId>,
}

/// Why an actor cannot be taken out of a store, or put into one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DumpError {
    /// It holds more than one batch can.
    #[error("the instance holds more than {} MiB: use a backup of the whole data instead", limits::MAX_BATCH >> 20)]
    TooLarge,
    /// Messages are under way to it or from it.
    #[error("messages are under way to or from the instance: try again when they are delivered")]
    Busy,
    /// The file is not what was written.
    #[error("the file is damaged ({0}): export the instance again")]
    Damaged(String),
    /// The file was written by a newer version.
    #[error("the file has a newer format: use a newer bowline")]
    Newer,
    /// There is such an actor already.
    #[error("there is {0} already: delete it first, or import under another id")]
    Exists(ActorId),
    /// The file cannot be read or written.
    #[error("the file cannot be read or written: {0}")]
    File(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store refused it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl DumpError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "archive_too_large",
            Self::Busy => "archive_busy",
            Self::Damaged(_) => "archive_damaged",
            Self::Newer => "archive_newer_format",
            Self::Exists(_) => "archive_exists",
            Self::File(_) => "archive_file",
            Self::Store(error) => error.code(),
            Self::Commit(error) => error.code(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ActorHeader {
    kind: String,
    name: String,
    key: String,
    wake: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct RecordHeader {
    kind: u16,
    version: u8,
    time: Timestamp,
    conversation: String,
    submission: Option<String>,
    attempt: Option<String>,
    turn: Option<String>,
    blobs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct RowHeader {
    space: String,
    /// Bytes of the key; it stands before the value.
    key: usize,
    blobs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct EndHeader {
    frames: u64,
}

impl Dump {
    /// The blobs that the records and rows refer to, each once.
    pub fn references(&self) -> BTreeSet<BlobId> {
        let of_records = self.records.iter().flat_map(|record| &record.blobs);
        let of_rows = self.rows.iter().flat_map(|row| &row.blobs);
        of_records.chain(of_rows).copied().collect()
    }

    /// That it fits into one batch.
    pub(crate) fn check_size(&self) -> Result<(), DumpError> {
        let records: usize = self
            .records
            .iter()
            .map(|record| record.body.len() + 128 + 32 * record.blobs.len())
            .sum();
        let rows: usize = self
            .rows
            .iter()
            .map(|row| row.key.len() + row.value.len() + 64 + 32 * row.blobs.len())
            .sum();
        let blobs: usize = self.blobs.iter().map(|blob| blob.bytes.len() + 64).sum();
        if records + rows + blobs > limits::MAX_BATCH {
            Err(DumpError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Writes it as a file.
    ///
    /// # Errors
    ///
    /// Whatever the writer reports.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), DumpError> {
        let mut out = Hashing {
            out,
            hash: blake3::Hasher::new(),
        };
        let mut frames = 0;
        out.put(MAGIC)?;
        let actor = ActorHeader {
            kind: self.actor.kind().to_owned(),
            name: self.actor.name().to_owned(),
            key: self.actor.key().to_owned(),
            wake: self.wake,
        };
        out.frame(b'A', &actor, &[])?;
        for blob in &self.blobs {
            frames += 1;
            out.frame(b'B', &serde_json::json!({}), &[&blob.bytes])?;
        }
        for record in &self.records {
            frames += 1;
            let header = RecordHeader {
                kind: record.kind,
                version: record.version,
                time: record.time,
                conversation: record.conversation.clone(),
                submission: record.submission.clone(),
                attempt: record.attempt.clone(),
                turn: record.turn.clone(),
                blobs: hex(&record.blobs),
            };
            out.frame(b'R', &header, &[&record.body])?;
        }
        for row in &self.rows {
            frames += 1;
            let header = RowHeader {
                space: row.space.clone(),
                key: row.key.len(),
                blobs: hex(&row.blobs),
            };
            out.frame(b'W', &header, &[&row.key, &row.value])?;
        }
        out.frame(b'E', &EndHeader { frames }, &[])?;
        let hash = out.hash.finalize();
        out.put(hash.as_bytes())?;
        out.out.flush().map_err(file)
    }

    /// Reads a file, and verifies all of it.
    ///
    /// # Errors
    ///
    /// [`DumpError::Damaged`] for a file that is not exactly what was written.
    pub fn read(input: &mut dyn Read) -> Result<Self, DumpError> {
        let mut input = Checking {
            input,
            hash: blake3::Hasher::new(),
            left: limits::MAX_BATCH + limits::MAX_BATCH / 2,
        };
        let magic = input.take(MAGIC.len())?;
        if magic != MAGIC {
            return Err(if magic.starts_with(FAMILY) {
                DumpError::Newer
            } else {
                damaged("it is no exported instance")
            });
        }
        let (tag, header, _) = input.frame()?;
        if tag != b'A' {
            return Err(damaged("it does not begin with an address"));
        }
        let actor: ActorHeader = parse(&header)?;
        let mut dump = Self {
            actor: ActorId::new(&actor.kind, &actor.name, &actor.key),
            wake: actor.wake,
            records: Vec::new(),
            rows: Vec::new(),
            blobs: Vec::new(),
        };
        let mut frames = 0;
        loop {
            let (tag, header, body) = input.frame()?;
            match tag {
                b'B' => dump.blobs.push(Blob::new(body)),
                b'R' => dump.records.push(record(&header, body)?),
                b'W' => dump.rows.push(row(&header, &body)?),
                b'E' => {
                    let end: EndHeader = parse(&header)?;
                    if end.frames != frames {
                        return Err(damaged("a part is missing"));
                    }
                    break;
                }
                other => {
                    return Err(damaged(&format!(
                        "it has a part of the unknown kind {other}"
                    )));
                }
            }
            frames += 1;
        }
        let expected = input.hash.finalize();
        let mut hash = [0; 32];
        input.input.read_exact(&mut hash).map_err(torn)?;
        if blake3::Hash::from_bytes(hash) != expected {
            return Err(damaged("its checksum does not match"));
        }
        if input.input.read(&mut [0]).map_err(file)? != 0 {
            return Err(damaged("something was added to its end"));
        }
        dump.check_size()?;
        Ok(dump)
    }

    /// Puts it into a store, as this actor, in one commit.
    ///
    /// # Errors
    ///
    /// [`DumpError::Exists`] when there is such an actor; whatever goes wrong, nothing is kept then.
    pub async fn put(self, store: &dyn Store, actor: &ActorId) -> Result<(), DumpError> {
        let epoch = match store.head(actor).await? {
            None => 1,
            Some(head) if head.seq == 0 => head.epoch + 1,
            Some(_) => return Err(DumpError::Exists(actor.clone())),
        };
        let batch = self.batch(actor, epoch)?;
        match store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. } | CommitError::Fenced { .. }) => {
                Err(DumpError::Exists(actor.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn batch(self, actor: &ActorId, epoch: Epoch) -> Result<Batch, DumpError> {
        let used = self.references();
        let mut batch = Batch::new(actor.clone(), epoch, 0);
        batch.records = self.records;
        batch.blobs = self.blobs;
        batch.blobs.retain(|blob| used.contains(&blob.id));
        batch.wake = self.wake.map_or(Wake::Keep, Wake::At);
        for row in self.rows {
            batch.rows.push(RowChange::Put {
                space: space(&row.space)?,
                key: row.key,
                value: row.value,
                blobs: row.blobs,
            });
        }
        Ok(batch)
    }
}

/// The name of a space as a batch takes it. Each name that was ever read is kept, so their number is
/// bounded.
fn space(name: &str) -> Result<&'static str, DumpError> {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if name.is_empty() || name.len() > limits::MAX_SPACE || !name.chars().all(plain) {
        return Err(damaged("a row has no proper name"));
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known.get(name) {
        return Ok(name);
    }
    if known.len() >= MAX_SPACES {
        return Err(damaged("it has rows of too many kinds"));
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    known.insert(name);
    Ok(name)
}

fn record(header: &[u8], body: Bytes) -> Result<Record, DumpError> {
    let header: RecordHeader = parse(header)?;
    Ok(Record {
        kind: header.kind,
        version: header.version,
        time: header.time,
        conversation: header.conversation,
        submission: header.submission,
        attempt: header.attempt,
        turn: header.turn,
        body,
        blobs: ids(&header.blobs)?,
    })
}

fn row(header: &[u8], body: &Bytes) -> Result<DumpRow, DumpError> {
    let header: RowHeader = parse(header)?;
    if header.key > body.len() {
        return Err(damaged("a row is shorter than its key"));
    }
    Ok(DumpRow {
        space: header.space,
        key: body[..header.key].to_vec(),
        value: body.slice(header.key..),
        blobs: ids(&header.blobs)?,
    })
}

fn hex(blobs: &[BlobId]) -> Vec<String> {
    blobs.iter().map(ToString::to_string).collect()
}

fn ids(blobs: &[String]) -> Result<Vec<BlobId>, DumpError> {
    let id = |text: &String| BlobId::parse(text).ok_or_else(|| damaged("a name of a blob is none"));
    blobs.iter().map(id).collect()
}

fn parse<T: DeserializeOwned>(header: &[u8]) -> Result<T, DumpError> {
    serde_json::from_slice(header).map_err(|error| damaged(&error.to_string()))
}

fn damaged(what: &str) -> DumpError {
    DumpError::Damaged(what.to_owned())
}

fn file(error: io::Error) -> DumpError {
    DumpError::File(error.to_string())
}

fn torn(error: io::Error) -> DumpError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        damaged("it ends too early")
    } else {
        file(error)
    }
}

struct Hashing<'w> {
    out: &'w mut dyn Write,
    hash: blake3::Hasher,
}

impl Hashing<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), DumpError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(file)
    }

    fn frame(&mut self, tag: u8, header: &impl Serialize, body: &[&[u8]]) -> Result<(), DumpError> {
        let header = serde_json::to_vec(header).map_err(|error| file(error.into()))?;
        let length: usize = body.iter().map(|part| part.len()).sum();
        self.put(&[tag])?;
        self.put(
            &u32::try_from(header.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        )?;
        self.put(&(length as u64).to_le_bytes())?;
        self.put(&header)?;
        body.iter().try_for_each(|part| self.put(part))
    }
}

struct Checking<'r> {
    input: &'r mut dyn Read,
    hash: blake3::Hasher,
    /// Bytes that may still come, so that a hostile length takes no memory.
    left: usize,
}

impl Checking<'_> {
    fn take(&mut self, many: usize) -> Result<Vec<u8>, DumpError> {
        self.left = self.left.checked_sub(many).ok_or(DumpError::TooLarge)?;
        let mut bytes = Vec::new();
        // Grows as bytes come, whatever length was promised.
        let read = self.input.take(many as u64).read_to_end(&mut bytes);
        if read.map_err(file)? < many {
            return Err(damaged("it ends too early"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>, Bytes), DumpError> {
        let start = self.take(13)?;
        let (tag, lengths) = start.split_first().ok_or_else(|| damaged("it is empty"))?;
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
        };
        let (header, body) = lengths.split_at(4);
        let header = usize::try_from(number(header)).unwrap_or(usize::MAX);
        let body = usize::try_from(number(body)).unwrap_or(usize::MAX);
        if header > MAX_HEADER {
            return Err(damaged("a part is too long"));
        }
        let header = self.take(header)?;
        Ok((*tag, header, Bytes::from(self.take(body)?)))
    }
}
