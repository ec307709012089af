//! Who calls, and what they may do.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{App, KeyHash, Refusal, keys::Key};

/// What a caller may do with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See conversations.
    Read,
    /// Send, abort, answer.
    Send,
    /// Everything: also list, delete, export, fork, settings.
    Admin,
}

impl Scope {
    /// The word for it in `bowline.toml`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Send => "send",
            Self::Admin => "admin",
        }
    }

    /// The scope that a word means.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Read, Self::Send, Self::Admin]
            .into_iter()
            .find(|scope| scope.word() == word)
    }
}

/// Who calls. Every route takes it, and asks [`Access::require`] before it does anything.
#[derive(Debug, Clone)]
pub struct Access {
    /// A name for logs.
    name: Arc<str>,
    grant: Grant,
}

#[derive(Debug, Clone)]
enum Grant {
    /// Whoever reaches the loopback address, or the socket in the data directory: the owner of the data.
    Local,
    /// What a key allows.
    Key(Arc<Key>),
    /// These streams, and nothing else.
    Streams(Arc<[StreamGrant]>),
}

/// Streams that a key may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamGrant {
    /// The path itself and everything below it; empty for all.
    pub prefix: String,
    /// Create, append, close and delete; otherwise only read.
    pub write: bool,
}

impl StreamGrant {
    fn covers(&self, path: &str, write: bool) -> bool {
        let rest = path.strip_prefix(self.prefix.trim_end_matches('/'));
        let below = |rest: &str| self.prefix.is_empty() || rest.is_empty() || rest.starts_with('/');
        (self.write || !write) && rest.is_some_and(below)
    }
}

impl Access {
    /// The owner of the data, who needs no key: through the loopback address, through the socket in
    /// the data directory, or let in by the application that a router was merged into, which puts
    /// this among the extensions of a request.
    pub fn local(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            grant: Grant::Local,
        }
    }

    /// A caller that may use these streams and nothing else.
    pub fn with_streams(name: impl Into<Arc<str>>, streams: Vec<StreamGrant>) -> Self {
        Self {
            name: name.into(),
            grant: Grant::Streams(streams.into()),
        }
    }

    /// A caller that may do this with these agents, each a name or a beginning followed by `*`: for an
    /// application that a router was merged into, and that knows its users by itself.
    pub fn to_agents(
        name: impl Into<String>,
        agents: impl IntoIterator<Item = String>,
        scopes: impl IntoIterator<Item = Scope>,
    ) -> Self {
        Self::with_key(Arc::new(Key {
            name: name.into(),
            // There is nothing to show, so this is compared with nothing.
            hash: KeyHash::of(""),
            agents: agents.into_iter().collect(),
            scopes: scopes.into_iter().collect(),
            streams: Vec::new(),
        }))
    }

    pub(super) fn with_key(key: Arc<Key>) -> Self {
        Self {
            name: key.name.as_str().into(),
            grant: Grant::Key(key),
        }
    }

    /// The name of the caller, for logs; it is no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True for whoever is let in without a key.
    pub fn is_local(&self) -> bool {
        matches!(self.grant, Grant::Local)
    }

    /// Checks that the caller may read, or write, the stream at a path. Who may read an agent's
    /// conversations may read their streams as well.
    ///
    /// # Errors
    ///
    /// `forbidden`.
    pub fn require_stream(&self, path: &str, write: bool) -> Result<(), Refusal> {
        let covered = |grants: &[StreamGrant]| grants.iter().any(|grant| grant.covers(path, write));
        let allowed = match &self.grant {
            Grant::Local => true,
            Grant::Streams(grants) => covered(grants),
            Grant::Key(key) => {
                let conversation = path.strip_prefix("agents/").and_then(|rest| {
                    let (agent, id) = rest.split_once('/')?;
                    (!id.is_empty()).then_some(agent)
                });
                covered(&key.streams)
                    || conversation.is_some_and(|agent| !write && key.allows(Scope::Read, agent))
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::Forbidden)
        }
    }

    /// Checks that the caller may do this with an agent.
    ///
    /// # Errors
    ///
    /// `forbidden`.
    pub fn require(&self, scope: Scope, agent: &str) -> Result<(), Refusal> {
        let allowed = match &self.grant {
            Grant::Local => true,
            Grant::Streams(_) => false,
            Grant::Key(key) => key.allows(scope, agent),
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::Forbidden)
        }
    }

    /// Checks that the caller may do this with every agent, and see what belongs to none.
    ///
    /// # Errors
    ///
    /// `forbidden`.
    pub fn require_all(&self, scope: Scope) -> Result<(), Refusal> {
        let allowed = match &self.grant {
            Grant::Local => true,
            Grant::Streams(_) => false,
            Grant::Key(key) => key.allows_all(scope),
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::Forbidden)
        }
    }
}

impl FromRequestParts<App> for Access {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Refusal> {
        // The guard around all routes has put it there; without a guard nobody is let in.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(Refusal::Unauthorized)
    }
}
