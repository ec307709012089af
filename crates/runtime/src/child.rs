//! Actors that belong to another one: what is stored of them goes when it goes.
//!
//! A step makes an actor a child of its own with [`Step::own`](crate::Step::own);
//! [`Runtime::purge`](crate::Runtime::purge) of the parent deletes its children first, theirs before
//! them, and the parent last. A mark in the parent makes sure that this is finished, whatever happens
//! in between.

use bowline_store::{ActorId, Row, Store, StoreError};

/// Space of the children of an actor: address → nothing.
pub const CHILDREN: &str = "child";
/// Space of the mark of an actor that is being deleted.
pub(crate) const DELETING: &str = "deleting";
/// The one row of that space.
pub(crate) const MARK: &[u8] = b"mark";

/// The key of a child's row.
pub(crate) fn key(child: &ActorId) -> Vec<u8> {
    crate::step::json(&[child.kind(), child.name(), child.key()]).to_vec()
}

/// Up to `limit` children of an actor, in order of their addresses, after another one.
pub async fn list(
    store: &dyn Store,
    parent: &ActorId,
    after: Option<&ActorId>,
    limit: usize,
) -> Result<Vec<ActorId>, StoreError> {
    let after = after.map(key);
    let rows = store
        .scan(parent, CHILDREN, b"", after.as_deref(), limit)
        .await?;
    let decode = |row: &Row| {
        let [kind, name, key]: [String; 3] = serde_json::from_slice(&row.key).map_err(|error| {
            StoreError::Corrupt(format!("the address of a child does not decode: {error}"))
        })?;
        Ok(ActorId::new(&kind, &name, &key))
    };
    rows.iter().map(decode).collect()
}

/// True when somebody began to delete this actor.
pub(crate) async fn is_deleting(store: &dyn Store, actor: &ActorId) -> Result<bool, StoreError> {
    Ok(store.row(actor, DELETING, MARK).await?.is_some())
}
