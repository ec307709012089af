//! Who a fact belongs to.

use std::{fmt, sync::Arc};

/// The address of an actor: a kind (`agent`, `fiber-host`, `stream`, `workflow`, `channel`, or a
/// kind of an embedding program), a name and a key. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorId(Arc<Parts>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    kind: Box<str>,
    name: Box<str>,
    key: Box<str>,
}

impl ActorId {
    /// Longest kind, name or key, in bytes.
    pub const MAX_PART: usize = 1024;

    /// An address from its three parts. Any text is an address; what names are allowed is decided
    /// where they are given.
    pub fn new(kind: &str, name: &str, key: &str) -> Self {
        Self(Arc::new(Parts {
            kind: kind.into(),
            name: name.into(),
            key: key.into(),
        }))
    }

    /// The kind, for example `agent`.
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The name within the kind, for example the agent's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The key within the name, for example the instance id.
    pub fn key(&self) -> &str {
        &self.0.key
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.0.kind, self.0.name, self.0.key)
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorId({self})")
    }
}
