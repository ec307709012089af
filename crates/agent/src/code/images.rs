//! The images of the engine that saved programs need, kept in the store.
//!
//! A program that waits goes on in the image with which it began, also when a later version begins programs
//! with another. So the image is put into the store before the first program that needs it, once for all of
//! them, as a blob of an actor of its own, and stays: one for each version of the engine, of about 1.5 MB.
//! It is WebAssembly, which runs with the same limits whoever wrote it; compiled code is never read from
//! the store.

use bowline_runtime::{Step, kind};
use bowline_store::{
    ActorId, Batch, Blob, BlobId, CommitError, RowChange, Store, StoreError, Timestamp,
};
use bytes::Bytes;

/// Kind of the actors that keep an image; the key is its SHA-256.
pub const KIND: &str = "engine";
const NAME: &str = "image";
const SPACE: &str = "image";
const KEY: &[u8] = b"wasm";

fn actor(hash: &str) -> ActorId {
    ActorId::new(KIND, NAME, hash)
}

/// Keeps an image, unless it is there. One that cannot be kept is tried again with the next run.
pub(crate) async fn keep(store: &dyn Store, hash: &str, image: Bytes, now: Timestamp) -> bool {
    let actor = actor(hash);
    match store.head(&actor).await {
        Ok(Some(_)) => return true,
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "the image of the engine is not kept");
            return false;
        }
    }
    let blob = Blob::new(image);
    let mut step = Step::new();
    let body = serde_json::json!({ "change": "image kept" });
    step.record(kind::ACTOR_OPENED, now, &body);
    let mut batch = Batch::new(actor, 1, 0);
    batch.records = step.records;
    batch.rows.push(RowChange::Put {
        space: SPACE,
        key: KEY.to_vec(),
        value: Bytes::copy_from_slice(blob.id.as_bytes()),
        blobs: vec![blob.id],
    });
    batch.blobs.push(blob);
    match store.commit(batch).await {
        // Another run of this process was first.
        Ok(_) | Err(CommitError::Fenced { .. } | CommitError::Conflict { .. }) => true,
        Err(
            error @ (CommitError::Full
            | CommitError::Invalid(_)
            | CommitError::Io(_)
            | CommitError::Closed(_)),
        ) => {
            tracing::warn!(%error, "the image of the engine is not kept");
            false
        }
    }
}

/// The image with this SHA-256, where one was kept.
pub(crate) async fn find(store: &dyn Store, hash: &str) -> Result<Option<Bytes>, StoreError> {
    let Some(row) = store.row(&actor(hash), SPACE, KEY).await? else {
        return Ok(None);
    };
    let id: Result<[u8; 32], _> = row.as_ref().try_into();
    let id =
        id.map_err(|_| StoreError::Corrupt("an image of the engine names no blob".to_owned()))?;
    store.blob(BlobId::from_bytes(id)).await
}
