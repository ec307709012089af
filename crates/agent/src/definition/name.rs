//! Names of agents, skills and tools.

use std::fmt;

/// The most characters of a name.
pub const MAX_NAME: usize = 64;

/// The name of an agent: lower-case letters and digits in words joined by single hyphens,
/// starting with a letter, at most 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(String);

impl AgentName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when it is not one.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        if is_name(&name) {
            Ok(Self(name))
        } else {
            Err(InvalidName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for AgentName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A name has a character or a form that names do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is lower-case letters and digits in words joined by `-`, starts with a letter, and has \
     at most 64 characters"
)]
pub struct InvalidName;

/// Whether this can name an agent, a skill, a channel or a workflow.
pub(crate) fn is_name(name: &str) -> bool {
    words(name, |c| c == '-')
}

/// Whether this can name a tool: as [`is_name`], and `_` joins words as well.
pub(crate) fn is_tool_name(name: &str) -> bool {
    words(name, |c| c == '-' || c == '_')
}

fn words(name: &str, joint: fn(char) -> bool) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split(joint).all(|word| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}
