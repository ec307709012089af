//! A conversation as chunks that can be followed from any point, made of what is durable.
//!
//! - [`Offset`] names a point: it is given out with what was read, and reading goes on from it.
//! - [`Teller`] turns records, and text that streams, into chunks.
//! - [`Reader`] reads them from a store, from any offset on.
//! - [`Assembly`] puts chunks together into messages, as the published clients do; [`history`] is the
//!   assembly of the whole conversation.
//!
//! Text becomes durable in pieces while it streams, and whole when its message is complete. An offset
//! counts the bytes of the open message that were told, so that a reader who comes back after the
//! message was completed gets exactly the rest of it.

use std::fmt;

use bowline_store::{ActorId, Seq, Store, StoreError, Timestamp};

use crate::record::Fact;

mod assembly;
mod reader;
mod teller;

pub use assembly::{Assembly, History, UiOutcome, history};
pub use reader::{Entry, NotThere, Page, Reader};
pub use teller::Teller;

/// A point of a conversation. For whoever it is given to it has no inside: `-1` is the beginning, and
/// every other one was given out before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// The last record that was told.
    pub(crate) seq: Seq,
    /// Bytes that were told of the texts that come after that record, in a message that was open then.
    pub(crate) told: u64,
}

impl Offset {
    /// The beginning.
    pub const START: Self = Self { seq: 0, told: 0 };

    /// The point after a record.
    pub const fn after(seq: Seq) -> Self {
        Self { seq, told: 0 }
    }

    /// The last record before this point.
    pub const fn record(self) -> Seq {
        self.seq
    }

    /// Reads an offset: `-1`, or two numbers of 1 to 19 digits with `_` between them.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "-1" {
            return Some(Self::START);
        }
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (seq, told) = text.split_once('_')?;
        Some(Self {
            seq: number(seq)?,
            told: number(told)?,
        })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}_{:016}", self.seq, self.told)
    }
}

/// Who a conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `conv_…`.
    pub conversation_id: String,
    /// The incarnation of the instance, `inst_…`.
    pub uid: String,
    /// When it began.
    pub created_at: Timestamp,
}

/// Records looked at for the one that began a conversation; schedules may come before it.
const BIRTH_PAGE: usize = 16;

/// Who the conversation of an actor is; `None` when it has not begun.
///
/// # Errors
///
/// When it cannot be read.
pub async fn identity(store: &dyn Store, actor: &ActorId) -> Result<Option<Identity>, StoreError> {
    let mut after = 0;
    loop {
        let records = store.read(actor, after, BIRTH_PAGE).await?;
        for stored in &records {
            if let Fact::Created(created) = Fact::of(stored)? {
                return Ok(Some(Identity {
                    conversation_id: stored.record.conversation.clone(),
                    uid: created.uid,
                    created_at: created.created_at,
                }));
            }
        }
        match records.last() {
            Some(last) if records.len() == BIRTH_PAGE => after = last.seq,
            _ => return Ok(None),
        }
    }
}
