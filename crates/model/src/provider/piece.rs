//! Pieces of text as they stand in an event, read without building a tree of it: nearly all events of
//! an answer are such pieces.

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;

/// A text of an event, borrowed from it where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
