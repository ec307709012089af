//! Why a project's settings cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

use bowline_agent::definition::{Fault, FaultKind};

/// Why a project's settings cannot be used: one line, with the file and the line where they are
/// known, never with the value of a secret. What to do next is in [`ConfigError::hint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    kind: ConfigErrorKind,
    file: PathBuf,
    fault: Fault,
}

/// The kinds of [`ConfigError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// The folder has no `bowline.toml`.
    NoProject,
    /// The file cannot be read.
    Unreadable,
    /// The file is not valid TOML.
    Syntax,
    /// A key that there is not.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value of the wrong type, or one that is not allowed.
    InvalidValue,
    /// A feature that is planned and not built.
    NotSupported,
    /// The secrets file cannot be used.
    Secrets,
}

impl ConfigErrorKind {
    /// The stable name. Each has a page `docs/errors/<code>.md`.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoProject => "config_no_project",
            Self::Unreadable => "config_unreadable",
            Self::Syntax => "config_syntax",
            Self::UnknownKey => "config_unknown_key",
            Self::MissingKey => "config_missing_key",
            Self::InvalidValue => "config_invalid_value",
            Self::NotSupported => "config_not_supported",
            Self::Secrets => "config_secrets",
        }
    }
}

impl ConfigError {
    /// A fault of `bowline.toml`.
    pub(super) fn of_file(fault: Fault, file: &Path) -> Self {
        let kind = match fault.kind {
            FaultKind::Syntax => ConfigErrorKind::Syntax,
            FaultKind::UnknownKey => ConfigErrorKind::UnknownKey,
            FaultKind::MissingKey => ConfigErrorKind::MissingKey,
            FaultKind::InvalidValue | FaultKind::MissingVariable => ConfigErrorKind::InvalidValue,
            FaultKind::NotSupported => ConfigErrorKind::NotSupported,
        };
        Self {
            kind,
            file: file.to_path_buf(),
            fault,
        }
    }

    /// A fault of the secrets file.
    pub(super) fn secrets(file: &Path, line: Option<u32>, message: &str, hint: &str) -> Self {
        Self::new(ConfigErrorKind::Secrets, file, line, message, hint)
    }

    pub(super) fn no_project(folder: &Path) -> Self {
        let message = format!("there is no {}", super::FILE);
        let hint = "create a project with `bowline init`, or name its folder with --project";
        Self::new(ConfigErrorKind::NoProject, folder, None, &message, hint)
    }

    pub(super) fn unreadable(file: &Path, why: &str) -> Self {
        let hint = "check that it is a text file which you may read";
        Self::new(ConfigErrorKind::Unreadable, file, None, why, hint)
    }

    fn new(
        kind: ConfigErrorKind,
        file: &Path,
        line: Option<u32>,
        message: &str,
        hint: &str,
    ) -> Self {
        let fault = Fault::new(FaultKind::InvalidValue, line, message, hint);
        Self {
            kind,
            file: file.to_path_buf(),
            fault,
        }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ConfigErrorKind {
        self.kind
    }

    /// The stable name of this kind of error. Each has a page `docs/errors/<code>.md`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// What to do next, in one line.
    pub fn hint(&self) -> &str {
        &self.fault.hint
    }

    /// The file or folder that is at fault.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line in the file, from 1.
    pub fn line(&self) -> Option<u32> {
        self.fault.line
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.fault.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.fault.message)
    }
}

impl std::error::Error for ConfigError {}
