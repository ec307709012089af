//! Reading a conversation's chunks from a store.

use std::sync::Arc;

use bowline_runtime::submission::{self, Settled, State};
use bowline_store::{ActorId, Seq, Store, StoreError};

use super::{Identity, Offset, Teller, identity};
use crate::{instance::Draft, live::Chunk, program::DRAFT};

/// Records looked at behind an offset, at first, for the submission that was running there.
const LOOK_BACK: u64 = 32;
/// Records read at once to find out what was going on at an offset.
const PAGE: usize = 500;
/// Pieces of text read at once.
const PIECES: usize = 256;

/// Why there is nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotThere {
    /// The conversation has not begun.
    Conversation,
    /// The offset is behind the conversation's end: it belongs to another incarnation.
    Offset,
}

/// One record, or one piece of text, as chunks.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The point after it.
    pub offset: Offset,
    /// What tells it; may be empty.
    pub chunks: Vec<Chunk>,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Page {
    /// In order.
    pub entries: Vec<Entry>,
    /// True when nothing durable was left to read.
    pub up_to_date: bool,
}

/// Reads a conversation's chunks from an offset on.
#[derive(Debug)]
pub struct Reader {
    store: Arc<dyn Store>,
    actor: ActorId,
    identity: Identity,
    teller: Teller,
    /// The last piece of the open message that was read.
    piece: Option<Vec<u8>>,
    /// Bytes of pieces that come after it and were told before.
    skip: u64,
    /// The message that the two belong to.
    drafting: Option<String>,
}

impl Reader {
    /// Begins after an offset. What it costs grows with the submission that was running there, not with
    /// the conversation.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        actor: &ActorId,
        offset: Offset,
    ) -> Result<Result<Self, NotThere>, StoreError> {
        let Some(identity) = identity(&*store, actor).await? else {
            return Ok(Err(NotThere::Conversation));
        };
        let head = store.head(actor).await?.map_or(0, |head| head.seq);
        if offset.seq > head {
            return Ok(Err(NotThere::Offset));
        }
        let mut teller = Teller::new(&identity);
        let mut at = anchor(&*store, actor, offset.seq).await?;
        while at < offset.seq {
            let limit = usize::try_from(offset.seq - at).unwrap_or(PAGE).min(PAGE);
            let records = store.read(actor, at, limit).await?;
            for stored in &records {
                teller.tell(stored)?;
                at = stored.seq;
            }
            if records.is_empty() {
                break;
            }
        }
        teller.resume(offset);
        Ok(Ok(Self {
            store,
            actor: actor.clone(),
            identity,
            teller,
            piece: None,
            skip: 0,
            drafting: None,
        }))
    }

    /// Who the conversation is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it stands.
    pub fn offset(&self) -> Offset {
        self.teller.offset()
    }

    /// Reads up to `limit` records, and the text that streams behind them.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn next(&mut self, limit: usize) -> Result<Page, StoreError> {
        let records = self
            .store
            .read(&self.actor, self.teller.offset().seq, limit)
            .await?;
        let mut entries = Vec::with_capacity(records.len());
        for stored in &records {
            let chunks = self.teller.tell(stored)?;
            let offset = self.teller.offset();
            entries.push(Entry { offset, chunks });
        }
        let up_to_date = records.len() < limit;
        if up_to_date {
            self.drafts(&mut entries).await?;
        }
        Ok(Page {
            entries,
            up_to_date,
        })
    }

    /// Reads the pieces of the open message that are durable. When the message completes meanwhile they
    /// are gone, and its records tell the rest.
    async fn drafts(&mut self, entries: &mut Vec<Entry>) -> Result<(), StoreError> {
        let Some(open) = self.teller.open().map(str::to_owned) else {
            return Ok(());
        };
        if self.drafting.as_ref() != Some(&open) {
            self.piece = None;
            self.skip = self.teller.offset().told;
            self.drafting = Some(open.clone());
        }
        let prefix = format!("{open}/").into_bytes();
        loop {
            let rows = self
                .store
                .scan(&self.actor, DRAFT, &prefix, self.piece.as_deref(), PIECES)
                .await?;
            for row in &rows {
                let piece: Draft = serde_json::from_slice(&row.value).map_err(|error| {
                    StoreError::Corrupt(format!("a draft does not decode: {error}"))
                })?;
                let length = piece.text.len() as u64;
                self.piece = Some(row.key.clone());
                let known = self.skip.min(length);
                self.skip -= known;
                let from = piece
                    .text
                    .floor_char_boundary(usize::try_from(known).unwrap_or(0));
                let chunk = self.teller.tell_draft(piece.reasoning, &piece.text[from..]);
                if let Some(chunk) = chunk {
                    entries.push(Entry {
                        offset: self.teller.offset(),
                        chunks: vec![chunk],
                    });
                }
            }
            if rows.len() < PIECES {
                return Ok(());
            }
        }
    }
}

/// A record from which what was going on at `seq` can be told: the last one before the submission that
/// was running there.
async fn anchor(store: &dyn Store, actor: &ActorId, seq: Seq) -> Result<Seq, StoreError> {
    let mut window = LOOK_BACK;
    let mut upper = seq;
    while upper > 0 {
        let from = upper.saturating_sub(window);
        let limit = usize::try_from(upper - from).unwrap_or(usize::MAX);
        let records = store.read(actor, from, limit).await?;
        let named = records
            .iter()
            .rev()
            .find_map(|stored| stored.record.submission.clone());
        if let Some(id) = named {
            return Ok(began(store, actor, &id).await?.unwrap_or(0).min(seq));
        }
        upper = from;
        window = window.saturating_mul(4);
    }
    Ok(0)
}

/// The last record before a submission's first attempt, or before that of the one that it joined.
async fn began(store: &dyn Store, actor: &ActorId, id: &str) -> Result<Option<Seq>, StoreError> {
    let settled = submission::settled(store, actor, id).await?;
    if let Some(settled) = settled {
        return match &settled.answered_by_submission_id {
            None => Ok(Some(settled.after_seq)),
            Some(host) => {
                let host: Option<Settled> = submission::settled(store, actor, host).await?;
                Ok(host.map(|host| host.after_seq))
            }
        };
    }
    let open = submission::open(store, actor).await?;
    let found = open.iter().find(|one| one.id == id);
    let Some(found) = found else {
        return Ok(None);
    };
    if let State::Joined { host } = &found.state {
        let host = open.iter().find(|one| one.id == *host);
        return Ok(host.map(|host| host.after_seq));
    }
    Ok(Some(found.after_seq))
}
