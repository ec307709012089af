//! The files of a conversation, by id.

use bowline_runtime::Step;
use bowline_store::{ActorId, RowChange, Store, StoreError};
use bytes::Bytes;

use crate::record::Attachment;

/// Space of the files of an actor: id → [`Attachment`].
pub const ATTACHMENTS: &str = "attachment";

/// Makes a file of a step findable by its id, as long as the conversation is there.
pub(crate) fn index(step: &mut Step, file: &Attachment) {
    let Ok(value) = serde_json::to_vec(file) else {
        return;
    };
    step.rows.push(RowChange::Put {
        space: ATTACHMENTS,
        key: file.id.clone().into_bytes(),
        value: value.into(),
        blobs: file.blob().into_iter().collect(),
    });
}

/// A file of a conversation with its bytes; `None` when the conversation has no such file.
///
/// # Errors
///
/// When it cannot be read.
pub async fn get(
    store: &dyn Store,
    actor: &ActorId,
    id: &str,
) -> Result<Option<(Attachment, Bytes)>, StoreError> {
    let Some(row) = store.row(actor, ATTACHMENTS, id.as_bytes()).await? else {
        return Ok(None);
    };
    let file: Attachment = serde_json::from_slice(&row)
        .map_err(|error| StoreError::Corrupt(format!("a file's row does not decode: {error}")))?;
    let Some(blob) = file.blob() else {
        return Err(StoreError::Corrupt(format!(
            "the file {id} has no valid digest"
        )));
    };
    match store.blob(blob).await? {
        Some(bytes) => Ok(Some((file, bytes))),
        None => Err(StoreError::Corrupt(format!(
            "the bytes of the file {id} are gone"
        ))),
    }
}
