//! The change feed: who changed which paths, commit by commit, for those who come later.

use bowline_store::{RowChange, StoreError, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ChangeSet, PathChange, Workspace, WorkspaceError};

/// The space of the feed's rows.
pub const FEED_SPACE: &str = "file_feed";
/// Commits that the feed keeps; older ones leave it.
pub const FEED_KEPT: u64 = 10_000;
/// Paths that one entry names.
const FEED_PATHS: usize = 500;
/// Entries of one answer, at most.
const FEED_PAGE: usize = 1000;

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Its place in the feed; it grows from one commit to the next, not always by one.
    #[serde(skip)]
    pub offset: u64,
    /// When, in milliseconds since 1970.
    #[serde(rename = "t")]
    time: i64,
    /// Who did it, and in which step, as [`ChangeSet::sign`] was told.
    #[serde(rename = "o")]
    pub origin: String,
    /// What happened when it was not a change of single paths, such as `restore NAME`.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The changed paths, in order; at most 500 of them.
    #[serde(rename = "p")]
    pub paths: Vec<PathChange>,
    /// Changed paths beyond those in `paths`.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl FeedEntry {
    /// When.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.time)
    }
}

/// A part of the feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// The commits, in order.
    pub entries: Vec<FeedEntry>,
    /// Read on from here.
    pub next: u64,
    /// Commits after the offset that was asked for are not kept any more: look at the files instead.
    pub gap: bool,
}

impl ChangeSet {
    /// Says who made the changes, and adds their entry to the feed. Do it before the rows are taken; a
    /// set that was not signed is not in the feed.
    ///
    /// # Errors
    ///
    /// `EIO`, in theory: when the entry has no JSON form.
    pub fn sign(&mut self, origin: impl Into<String>) -> Result<(), WorkspaceError> {
        self.origin = origin.into();
        let Some(volume) = &self.applied.volume else {
            return Ok(());
        };
        let named = self.paths.len().min(FEED_PATHS);
        let entry = FeedEntry {
            offset: 0,
            time: self.applied.time.as_millis(),
            origin: self.origin.clone(),
            event: self.applied.event.clone(),
            paths: self.paths.get(..named).unwrap_or_default().to_vec(),
            omitted: self.omitted + self.paths.len() - named,
        };
        let value =
            serde_json::to_vec(&entry).map_err(|error| StoreError::Io(error.to_string()))?;
        let fork = volume.fork.as_deref();
        self.rows.push(RowChange::Put {
            space: FEED_SPACE,
            key: key(fork, volume.generation),
            value: Bytes::from(value),
            blobs: Vec::new(),
        });
        if let Some(old) = volume.generation.checked_sub(FEED_KEPT) {
            self.rows.push(RowChange::Delete {
                space: FEED_SPACE,
                key: key(fork, old),
            });
        }
        Ok(())
    }
}

impl Workspace {
    /// The signed commits after an offset, at most `limit` or 1,000 of them. Begin with 0. The last
    /// 10,000 commits are kept.
    ///
    /// # Errors
    ///
    /// `EIO`.
    pub async fn feed(&self, after: u64, limit: usize) -> Result<Feed, WorkspaceError> {
        self.0.open().await?;
        let (fork, generation) = {
            let state = self.0.state();
            (state.live.fork.clone(), state.live.generation)
        };
        let prefix = prefix(fork.as_deref());
        let start = key(fork.as_deref(), after);
        let limit = limit.clamp(1, FEED_PAGE);
        let rows = self
            .0
            .store
            .scan(&self.0.actor, FEED_SPACE, &prefix, Some(&start), limit)
            .await?;
        let mut feed = Feed {
            next: after,
            gap: after < generation.saturating_sub(FEED_KEPT),
            entries: Vec::with_capacity(rows.len()),
        };
        for row in rows {
            let offset = row
                .key
                .get(prefix.len()..)
                .and_then(|offset| offset.try_into().ok())
                .map(u64::from_be_bytes);
            let entry = serde_json::from_slice::<FeedEntry>(&row.value).ok();
            let (Some(offset), Some(entry)) = (offset, entry) else {
                let what = "an entry of the change feed cannot be read";
                return Err(StoreError::Corrupt(what.into()).into());
            };
            feed.next = offset;
            feed.entries.push(FeedEntry { offset, ..entry });
        }
        Ok(feed)
    }
}

/// Each fork has a feed of its own.
fn prefix(fork: Option<&str>) -> Vec<u8> {
    let name = fork.unwrap_or_default();
    let mut prefix = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
    prefix.extend_from_slice(name.as_bytes());
    prefix
}

fn key(fork: Option<&str>, offset: u64) -> Vec<u8> {
    let mut key = prefix(fork);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}
