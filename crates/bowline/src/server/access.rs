//! Who calls, and what they may do.

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{App, Refusal};

/// What a caller may do with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See conversations.
    Read,
    /// Send, abort, answer.
    Send,
    /// Everything else: list, delete, export, fork, settings.
    Admin,
}

/// Who calls. Every route takes it, and asks [`Access::require`] before it does anything.
#[derive(Debug, Clone)]
pub struct Access {
    /// A name for logs.
    name: String,
    /// Which streams; `None` for whoever reaches the loopback address.
    streams: Option<Vec<StreamGrant>>,
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
    /// The name of the caller, for logs; it is no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A caller with a key of this name, which may use these streams. Put it among the extensions of
    /// a request, and the routes take it from there.
    pub fn with_streams(name: impl Into<String>, streams: Vec<StreamGrant>) -> Self {
        Self {
            name: name.into(),
            streams: Some(streams),
        }
    }

    /// True for whoever is let in without a key, because it reaches the loopback address.
    pub fn is_local(&self) -> bool {
        self.streams.is_none()
    }

    /// Checks that the caller may read, or write, the stream at a path.
    ///
    /// # Errors
    ///
    /// `forbidden`.
    pub fn require_stream(&self, path: &str, write: bool) -> Result<(), Refusal> {
        let covers = |grant: &StreamGrant| grant.covers(path, write);
        match &self.streams {
            Some(grants) if !grants.iter().any(covers) => Err(Refusal::Forbidden),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that the caller may do this with an agent.
    ///
    /// # Errors
    ///
    /// `forbidden`.
    pub fn require(&self, scope: Scope, agent: &str) -> Result<(), Refusal> {
        // Whoever reaches the loopback address may do what the owner of the data may.
        let _ = (scope, agent);
        Ok(())
    }
}

impl FromRequestParts<App> for Access {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Refusal> {
        if let Some(access) = parts.extensions.get::<Self>() {
            return Ok(access.clone());
        }
        Ok(Self {
            name: "loopback".to_owned(),
            streams: None,
        })
    }
}
