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
}

impl Access {
    /// The name of the caller, for logs; it is no secret.
    pub fn name(&self) -> &str {
        &self.name
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

    async fn from_request_parts(_parts: &mut Parts, _app: &App) -> Result<Self, Refusal> {
        Ok(Self {
            name: "loopback".to_owned(),
        })
    }
}
