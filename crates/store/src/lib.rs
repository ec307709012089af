//! Durable facts. One verb, [`Store::commit`], writes a [`Batch`] of one actor: its records, its
//! rows, its blobs, its next wake, the messages it takes and the messages it sends, all or none.
//!
//! A tour:
//!
//! - [`actor`]: [`ActorId`], who a fact belongs to.
//! - [`batch`]: [`Batch`] and its parts, what one commit holds.
//! - [`record`]: [`Record`] and [`StoredRecord`], the append-only history.
//! - [`log`]: the [`Store`] trait, with what an engine MUST and MAY do.
//! - [`dump`]: [`Dump`], everything of one actor, and its form as a file.
//! - [`limits`]: how large the parts of a batch may be.
//! - [`error`]: [`CommitError`] and [`StoreError`].
//! - [`memory`] and [`sqlite`]: the engines.
//! - [`conformance`]: the suite that each engine must pass.
//!
//! Nothing here reads a clock or draws a random number: times come in as [`Timestamp`] values.

pub mod actor;
pub mod batch;
pub mod conformance;
pub mod dump;
pub mod error;
pub mod limits;
pub mod log;
#[cfg(feature = "bench")]
pub mod measure;
pub mod memory;
pub mod record;
pub mod sqlite;
mod tails;
pub mod time;

pub use actor::ActorId;
pub use batch::{Batch, Blob, BlobId, InboxMessage, OutboxMessage, RowChange, Wake};
pub use dump::{Dump, DumpError, DumpRow};
pub use error::{CommitError, StoreError};
pub use log::{ActorHead, Metrics, Row, Store, Tail};
pub use memory::MemoryStore;
pub use record::{Record, StoredRecord};
pub use sqlite::{SqliteOptions, SqliteStore};
pub use time::Timestamp;

/// Position of a record in its actor's history. The first record is 1; 0 means "none yet".
pub type Seq = u64;

/// Ownership of an actor. It only grows; a writer with an older epoch is fenced.
pub type Epoch = u64;
