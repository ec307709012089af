//! A transcript that grows at its end and is cheap to hand on.

use std::{ops::Deref, sync::Arc};

use crate::message::Message;

/// The messages of a conversation, shared: a clone costs one reference, whatever the length, and
/// [`Transcript::push`] costs one message as long as no earlier clone is alive. So a caller that keeps
/// the transcript and sends a clone with each request pays for what is new, not for the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript(Arc<Vec<Arc<Message>>>);

impl Transcript {
    /// A transcript without messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message.
    pub fn push(&mut self, message: Message) {
        Arc::make_mut(&mut self.0).push(Arc::new(message));
    }
}

impl Deref for Transcript {
    type Target = [Arc<Message>];

    fn deref(&self) -> &[Arc<Message>] {
        &self.0
    }
}

impl From<Vec<Message>> for Transcript {
    fn from(messages: Vec<Message>) -> Self {
        messages.into_iter().collect()
    }
}

impl FromIterator<Message> for Transcript {
    fn from_iter<T: IntoIterator<Item = Message>>(messages: T) -> Self {
        Self(Arc::new(messages.into_iter().map(Arc::new).collect()))
    }
}

impl FromIterator<Arc<Message>> for Transcript {
    fn from_iter<T: IntoIterator<Item = Arc<Message>>>(messages: T) -> Self {
        Self(Arc::new(messages.into_iter().collect()))
    }
}

impl<'a> IntoIterator for &'a Transcript {
    type Item = &'a Arc<Message>;
    type IntoIter = std::slice::Iter<'a, Arc<Message>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
