//! How far a subscription is in each of its streams: one row each.

use bowline_store::{ActorId, Store, StoreError};
use serde::{Deserialize, Serialize};

use super::LinkKind;

/// Rows: a stream's path → its cursor.
pub(super) const LINKS: &str = "link";
/// Cursors that are read at once.
const PAGE: usize = 1000;

/// How far a subscription is in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) kind: LinkKind,
    pub(super) acked: u64,
}

/// The cursors of a subscription, at most so many.
pub(super) async fn cursors(
    store: &dyn Store,
    actor: &ActorId,
    most: usize,
) -> Result<Vec<(String, Cursor)>, StoreError> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    while found.len() < most {
        let page = store
            .scan(actor, LINKS, b"", after.as_deref(), PAGE)
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for row in page {
            let path = String::from_utf8_lossy(&row.key).into_owned();
            found.push((path, decode(&row.value)?));
        }
    }
    Ok(found)
}

/// The paths that were named.
pub(super) async fn explicit(
    store: &dyn Store,
    actor: &ActorId,
) -> Result<Vec<String>, StoreError> {
    let all = cursors(store, actor, usize::MAX).await?;
    let named = all
        .into_iter()
        .filter(|(_, it)| it.kind == LinkKind::Explicit);
    Ok(named.map(|(path, _)| path).collect())
}

pub(super) fn decode(value: &[u8]) -> Result<Cursor, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::Corrupt(format!("a cursor cannot be read: {error}")))
}
