//! Why an agent or a skill cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

use bowline_sandbox::typescript::SourceErrorKind;

use super::fault::{Fault, FaultKind, one_line};

/// Why an agent or a skill cannot be used: one line, with the file and the line where they are
/// known. What to do next is in [`DefinitionError::hint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionError {
    kind: DefinitionErrorKind,
    file: Option<PathBuf>,
    line: Option<u32>,
    column: Option<u32>,
    message: String,
    hint: String,
}

/// The kinds of [`DefinitionError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefinitionErrorKind {
    /// The project has no agent of this name.
    AgentNotFound,
    /// A name has a form that names do not have.
    InvalidName,
    /// A file or folder cannot be read, or is larger than its limit.
    Unreadable,
    /// The front matter is missing, or not valid YAML.
    Syntax,
    /// A key that there is not.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value of the wrong type, or one that is not allowed.
    InvalidValue,
    /// `${VAR}` of a variable that is not set.
    MissingVariable,
    /// A feature that is planned and not built.
    NotSupported,
    /// The agent lists a skill that there is not.
    SkillNotFound,
    /// A `SKILL.md` that is not in the Agent Skills format.
    SkillInvalid,
    /// A skill with a symbolic link, or with a file that looks like a secret.
    SkillUnsafe,
    /// A skill with too many or too large files.
    SkillTooLarge,
    /// A tool in TypeScript that cannot be used.
    Tool(SourceErrorKind),
    /// A snippet that is no code, or too large, or one too many.
    SnippetInvalid,
}

impl DefinitionErrorKind {
    /// The stable name. Each has a page `docs/errors/<code>.md`.
    pub fn code(self) -> &'static str {
        match self {
            Self::AgentNotFound => "definition_agent_not_found",
            Self::InvalidName => "definition_invalid_name",
            Self::Unreadable => "definition_unreadable",
            Self::Syntax => "definition_syntax",
            Self::UnknownKey => "definition_unknown_key",
            Self::MissingKey => "definition_missing_key",
            Self::InvalidValue => "definition_invalid_value",
            Self::MissingVariable => "definition_missing_variable",
            Self::NotSupported => "definition_not_supported",
            Self::SkillNotFound => "skill_not_found",
            Self::SkillInvalid => "skill_invalid",
            Self::SkillUnsafe => "skill_unsafe",
            Self::SkillTooLarge => "skill_too_large",
            Self::Tool(kind) => kind.code(),
            Self::SnippetInvalid => "snippet_invalid",
        }
    }
}

impl DefinitionError {
    /// An error without a place.
    pub(crate) fn new(
        kind: DefinitionErrorKind,
        message: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) -> Self {
        Self {
            kind,
            file: None,
            line: None,
            column: None,
            message: one_line(message.as_ref()),
            hint: one_line(hint.as_ref()),
        }
    }

    /// The same error in a file or folder.
    #[must_use]
    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_path_buf());
        self
    }

    /// The same error on a line.
    #[must_use]
    pub(crate) fn on_line(mut self, line: u32) -> Self {
        self.line = Some(line);
        self
    }

    /// The same error at a column of its line.
    #[must_use]
    pub(crate) fn at_column(mut self, column: u32) -> Self {
        self.column = Some(column);
        self
    }

    /// A fault of an `agent.md`.
    pub(crate) fn of_agent(fault: Fault, file: &Path) -> Self {
        let kind = match fault.kind {
            FaultKind::Syntax => DefinitionErrorKind::Syntax,
            FaultKind::UnknownKey => DefinitionErrorKind::UnknownKey,
            FaultKind::MissingKey => DefinitionErrorKind::MissingKey,
            FaultKind::InvalidValue => DefinitionErrorKind::InvalidValue,
            FaultKind::MissingVariable => DefinitionErrorKind::MissingVariable,
            FaultKind::NotSupported => DefinitionErrorKind::NotSupported,
        };
        Self {
            line: fault.line,
            ..Self::new(kind, fault.message, fault.hint)
        }
        .in_file(file)
    }

    /// A fault of a `SKILL.md`.
    pub(crate) fn of_skill(fault: Fault, file: &Path) -> Self {
        let kind = DefinitionErrorKind::SkillInvalid;
        Self {
            line: fault.line,
            ..Self::new(kind, fault.message, fault.hint)
        }
        .in_file(file)
    }

    /// A file or folder that the system does not let us read.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::new(
            DefinitionErrorKind::Unreadable,
            format!("cannot be read: {error}"),
            "check that it exists and that you may read it",
        )
        .in_file(path)
    }

    /// What kind of error it is.
    pub fn kind(&self) -> DefinitionErrorKind {
        self.kind
    }

    /// The stable name of this kind of error. Each has a page `docs/errors/<code>.md`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// What to do next, in one line.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The file or folder that is at fault.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The line in the file, from 1.
    pub fn line(&self) -> Option<u32> {
        self.line
    }

    /// The column in the line, from 1, for a file of TypeScript.
    pub fn column(&self) -> Option<u32> {
        self.column
    }
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", one_line(&file.display().to_string()))?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            if let Some(column) = self.column {
                write!(f, "{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for DefinitionError {}
