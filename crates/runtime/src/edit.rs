//! Changes that somebody outside asks an actor for, while no attempt of it runs.

use bytes::Bytes;
use serde_json::Value;

/// A change of an actor's own rows, asked for from outside. What it means is for
/// [`Instance::edit`](crate::Instance::edit) to say.
#[derive(Debug, Clone)]
pub struct Edit {
    /// What is asked for.
    pub what: Value,
    /// Bytes that go with it; may be empty.
    pub bytes: Bytes,
}
