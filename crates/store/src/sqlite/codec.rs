//! How values lie in the database, and their checksums.
//!
//! Each stored value carries a CRC-32 over itself *and* the key it belongs to, so that a value that
//! turns up under another key is noticed too. Numbers are little-endian, texts and bytes carry
//! their length. Changing a layout here is a new format (see `schema`).

use bytes::Bytes;

use crate::{
    ActorId, BlobId, Epoch, InboxMessage, OutboxMessage, Record, Seq, StoreError, StoredRecord,
    Timestamp,
};

/// A checksum over parts, each with its length, so that no two lists of parts look the same.
pub(super) struct Sum(crc32fast::Hasher);

impl Sum {
    pub(super) fn new() -> Self {
        Self(crc32fast::Hasher::new())
    }

    pub(super) fn bytes(mut self, part: &[u8]) -> Self {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub(super) fn number(mut self, part: i64) -> Self {
        self.0.update(&part.to_le_bytes());
        self
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }

    /// Compares with what is stored; `what` names the value in the error.
    pub(super) fn verify(
        self,
        stored: u32,
        what: impl FnOnce() -> String,
    ) -> Result<(), StoreError> {
        if self.finish() == stored {
            Ok(())
        } else {
            Err(StoreError::Corrupt(format!(
                "the checksum of {} does not match",
                what()
            )))
        }
    }
}

pub(super) fn record_sum(actor: i64, seq: i64, data: &[u8]) -> Sum {
    Sum::new().number(actor).number(seq).bytes(data)
}

pub(super) fn row_sum(actor: i64, space: &str, key: &[u8], refs: &[u8], value: &[u8]) -> Sum {
    Sum::new()
        .number(actor)
        .bytes(space.as_bytes())
        .bytes(key)
        .bytes(refs)
        .bytes(value)
}

pub(super) fn blob_sum(id: i64, hash: &[u8], size: i64, refs: i64) -> Sum {
    Sum::new().number(id).bytes(hash).number(size).number(refs)
}

pub(super) fn inbox_sum(actor: i64, id: &str, waiting: bool, data: &[u8]) -> Sum {
    Sum::new()
        .number(actor)
        .bytes(id.as_bytes())
        .number(i64::from(waiting))
        .bytes(data)
}

pub(super) fn outbox_sum(actor: i64, data: &[u8]) -> Sum {
    Sum::new().number(actor).bytes(data)
}

pub(super) fn actor_sum(
    id: i64,
    actor: &ActorId,
    epoch: Epoch,
    wake: Option<i64>,
    live: bool,
) -> Sum {
    Sum::new()
        .number(id)
        .bytes(actor.kind().as_bytes())
        .bytes(actor.name().as_bytes())
        .bytes(actor.key().as_bytes())
        .number(epoch.cast_signed())
        .number(i64::from(wake.is_some()))
        .number(wake.unwrap_or(0))
        .number(i64::from(live))
}

/// Writes a record after whatever `out` holds.
pub(super) fn encode_record(out: &mut Vec<u8>, epoch: Epoch, record: &Record) {
    out.extend_from_slice(&epoch.to_le_bytes());
    out.extend_from_slice(&record.kind.to_le_bytes());
    out.push(record.version);
    out.extend_from_slice(&record.time.as_millis().to_le_bytes());
    put_text(out, &record.conversation);
    put_option(out, record.submission.as_deref());
    put_option(out, record.attempt.as_deref());
    put_option(out, record.turn.as_deref());
    put_len(out, record.blobs.len());
    for blob in &record.blobs {
        out.extend_from_slice(blob.as_bytes());
    }
    out.extend_from_slice(&record.body);
}

pub(super) fn decode_record(seq: Seq, data: &[u8]) -> Result<StoredRecord, StoreError> {
    let mut input = Input(data);
    let epoch = u64::from_le_bytes(input.array()?);
    let record = Record {
        kind: u16::from_le_bytes(input.array()?),
        version: u8::from_le_bytes(input.array()?),
        time: Timestamp::from_millis(i64::from_le_bytes(input.array()?)),
        conversation: input.text()?,
        submission: input.option()?,
        attempt: input.option()?,
        turn: input.option()?,
        blobs: {
            let count = input.len()?;
            decode_refs(input.take(count.saturating_mul(32))?)?
        },
        body: Bytes::copy_from_slice(input.0),
    };
    Ok(StoredRecord { seq, epoch, record })
}

pub(super) fn encode_refs(refs: &[BlobId]) -> Vec<u8> {
    refs.iter().flat_map(|id| *id.as_bytes()).collect()
}

pub(super) fn decode_refs(data: &[u8]) -> Result<Vec<BlobId>, StoreError> {
    let (ids, rest) = data.as_chunks::<32>();
    if rest.is_empty() {
        Ok(ids.iter().map(|id| BlobId::from_bytes(*id)).collect())
    } else {
        Err(cut_short())
    }
}

/// Everything of an inbox message but its id.
pub(super) fn encode_inbox(message: &InboxMessage) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.body.len() + 64);
    put_actor(&mut out, message.from.as_ref());
    out.extend_from_slice(&message.time.as_millis().to_le_bytes());
    out.extend_from_slice(&message.body);
    out
}

pub(super) fn decode_inbox(id: String, data: &[u8]) -> Result<InboxMessage, StoreError> {
    let mut input = Input(data);
    Ok(InboxMessage {
        id,
        from: input.actor()?,
        time: Timestamp::from_millis(i64::from_le_bytes(input.array()?)),
        body: Bytes::copy_from_slice(input.0),
    })
}

pub(super) fn encode_outbox(message: &OutboxMessage) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.body.len() + 128);
    put_actor(&mut out, Some(&message.to));
    put_text(&mut out, &message.id);
    out.extend_from_slice(&message.time.as_millis().to_le_bytes());
    out.extend_from_slice(&message.body);
    out
}

pub(super) fn decode_outbox(data: &[u8]) -> Result<OutboxMessage, StoreError> {
    let mut input = Input(data);
    Ok(OutboxMessage {
        to: input.actor()?.ok_or_else(cut_short)?,
        id: input.text()?,
        time: Timestamp::from_millis(i64::from_le_bytes(input.array()?)),
        body: Bytes::copy_from_slice(input.0),
    })
}

/// Lengths are at most a few million by `limits`.
fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_option(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn put_actor(out: &mut Vec<u8>, actor: Option<&ActorId>) {
    out.push(u8::from(actor.is_some()));
    if let Some(actor) = actor {
        put_text(out, actor.kind());
        put_text(out, actor.name());
        put_text(out, actor.key());
    }
}

fn cut_short() -> StoreError {
    StoreError::Corrupt("a stored value is cut short".into())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.take(N)?.try_into().map_err(|_| cut_short())
    }

    fn len(&mut self) -> Result<usize, StoreError> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| cut_short())
    }

    fn text(&mut self) -> Result<String, StoreError> {
        let len = self.len()?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| cut_short())?;
        Ok(text.to_owned())
    }

    fn option(&mut self) -> Result<Option<String>, StoreError> {
        if self.array::<1>()? == [0] {
            Ok(None)
        } else {
            self.text().map(Some)
        }
    }

    fn actor(&mut self) -> Result<Option<ActorId>, StoreError> {
        if self.array::<1>()? == [0] {
            return Ok(None);
        }
        let (kind, name, key) = (self.text()?, self.text()?, self.text()?);
        Ok(Some(ActorId::new(&kind, &name, &key)))
    }
}
