//! The secrets file: keys by the name of their environment variable.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bowline_agent::definition::document::Node;
use bowline_model::Secret;

use super::error::ConfigError;
use super::{Unreadable, read_open};

/// The keys of a secrets file. They cannot be printed, and are given only to what sends them:
/// `${VAR}` in `agent.md` does not see them, so that no key gets into a prompt.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Arc<BTreeMap<String, Secret>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Reads a secrets file. One that is not there is empty unless it is `required`.
    pub(super) fn load(file: &Path, required: bool) -> Result<Self, ConfigError> {
        let fail = |message: &str, hint: &str| Err(ConfigError::secrets(file, None, message, hint));
        let text = match Self::read(file) {
            Ok(text) => text,
            Err(Refused::Unreadable(Unreadable::Missing)) if !required => {
                return Ok(Self::default());
            }
            Err(Refused::Unreadable(Unreadable::Missing)) => {
                return fail(
                    "does not exist",
                    "create it with mode 0600, or remove `file` in `[secrets]`",
                );
            }
            Err(Refused::Unreadable(Unreadable::Other(why))) => {
                return fail(&why, "check that it is a text file which you may read");
            }
            Err(Refused::Mode(mode)) => {
                return fail(
                    &format!("others than its owner may read it (mode {mode:04o})"),
                    &format!("run `chmod 600 {}`", file.display()),
                );
            }
        };
        Self::parse(&text).map_err(|(line, message)| {
            ConfigError::secrets(
                file,
                line,
                &message,
                "write each line as `NAME = \"value\"`",
            )
        })
    }

    fn read(file: &Path) -> Result<String, Refused> {
        let unreadable = |error: std::io::Error| Refused::Unreadable(error.into());
        if !fs::metadata(file).map_err(unreadable)?.is_file() {
            return Err(Refused::Unreadable(Unreadable::Other(
                "is not a file".to_owned(),
            )));
        }
        let open = fs::File::open(file).map_err(unreadable)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = open.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(Refused::Mode(mode));
            }
        }
        read_open(open).map_err(Refused::Unreadable)
    }

    /// Only lines and names are in the messages: what stands in the file is secret.
    fn parse(text: &str) -> Result<Self, (Option<u32>, String)> {
        let root =
            Node::from_toml(text).map_err(|fault| (fault.line, "is not valid TOML".to_owned()))?;
        let entries = root
            .entries("")
            .map_err(|fault| (fault.line, "is no table".to_owned()))?;
        let mut secrets = BTreeMap::new();
        for (name, line, value) in entries.iter() {
            let Some(value) = value.as_text() else {
                return Err((Some(line), format!("the value of `{name}` is not a text")));
            };
            secrets.insert(name.to_owned(), Secret::new(value));
        }
        Ok(Self(Arc::new(secrets)))
    }

    /// The key of a name: that of the environment, or else that of the file. An empty variable
    /// counts as not set.
    pub fn get(&self, name: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
        match env(name).map(Secret::new) {
            Some(secret) if !secret.is_empty() => Some(secret),
            _ => self
                .0
                .get(name)
                .filter(|secret| !secret.is_empty())
                .cloned(),
        }
    }

    /// Every key, for what must not hold one.
    pub fn all(&self) -> Vec<Secret> {
        self.0.values().cloned().collect()
    }

    /// [`Secrets::get`] as a closure, for [`bowline_model::ModelSettings`].
    pub fn lookup(
        &self,
        env: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> impl Fn(&str) -> Option<Secret> + Send + Sync + 'static {
        let secrets = self.clone();
        move |name| secrets.get(name, &env)
    }
}

/// Why a secrets file is not read.
enum Refused {
    Unreadable(Unreadable),
    Mode(u32),
}
