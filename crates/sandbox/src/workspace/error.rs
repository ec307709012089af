//! What can go wrong with files.

use bowline_store::StoreError;

/// Why an operation on the workspace failed. Nothing was changed by it.
///
/// The message starts with the POSIX name, for example
/// `ENOENT: no such file or directory: /workspace/a.txt`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkspaceError {
    /// The path, or a directory on the way to it, does not exist.
    #[error("ENOENT: no such file or directory: {0}")]
    NotFound(String),
    /// The path exists and must not.
    #[error("EEXIST: already exists: {0}")]
    Exists(String),
    /// A file was needed, this is a directory.
    #[error("EISDIR: is a directory: {0}")]
    IsDirectory(String),
    /// A directory was needed, this is something else.
    #[error("ENOTDIR: not a directory: {0}")]
    NotDirectory(String),
    /// The directory has entries; remove it recursively.
    #[error("ENOTEMPTY: directory not empty: {0}")]
    NotEmpty(String),
    /// Too many symbolic links on the way.
    #[error("ELOOP: too many symbolic links: {0}")]
    Loop(String),
    /// The file would be larger than the limit.
    #[error("EFBIG: file too large (limit {limit} bytes): {path}")]
    TooLarge {
        /// The file.
        path: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The workspace, or the step, would be larger than its quota; remove something or raise the limit.
    #[error("EDQUOT: quota exceeded: {what} (limit {limit})")]
    Quota {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The request makes no sense.
    #[error("EINVAL: {0}")]
    Invalid(String),
    /// The path, one of its names, or its depth is over the limit.
    #[error("ENAMETOOLONG: path too long or too deep: {0}")]
    NameTooLong(String),
    /// Someone else changed the path in the meantime; read it again, then repeat the change.
    #[error("ESTALE: changed by someone else in the meantime: {0}")]
    Conflict(String),
    /// The path leads out of the host directory, or the machine does not let this user; use a path below
    /// the working directory.
    #[error("EACCES: permission denied, or outside of the working directory: {0}")]
    Denied(String),
    /// The machine's filesystem failed.
    #[error("EIO: {path}: {why}")]
    Host {
        /// The file.
        path: String,
        /// What the machine says.
        why: String,
    },
    /// The store could not be read.
    #[error("EIO: {0}")]
    Store(#[from] StoreError),
}

impl WorkspaceError {
    /// The POSIX name.
    pub fn posix(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "ENOENT",
            Self::Exists(_) => "EEXIST",
            Self::IsDirectory(_) => "EISDIR",
            Self::NotDirectory(_) => "ENOTDIR",
            Self::NotEmpty(_) => "ENOTEMPTY",
            Self::Loop(_) => "ELOOP",
            Self::TooLarge { .. } => "EFBIG",
            Self::Quota { .. } => "EDQUOT",
            Self::Invalid(_) => "EINVAL",
            Self::NameTooLong(_) => "ENAMETOOLONG",
            Self::Conflict(_) => "ESTALE",
            Self::Denied(_) => "EACCES",
            Self::Host { .. } | Self::Store(_) => "EIO",
        }
    }

    /// The stable name of this error, one page each in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "workspace_not_found",
            Self::Exists(_) => "workspace_exists",
            Self::IsDirectory(_) => "workspace_is_directory",
            Self::NotDirectory(_) => "workspace_not_directory",
            Self::NotEmpty(_) => "workspace_not_empty",
            Self::Loop(_) => "workspace_loop",
            Self::TooLarge { .. } => "workspace_too_large",
            Self::Quota { .. } => "workspace_quota",
            Self::Invalid(_) => "workspace_invalid",
            Self::NameTooLong(_) => "workspace_name_too_long",
            Self::Conflict(_) => "workspace_conflict",
            Self::Denied(_) => "workspace_denied",
            Self::Host { .. } => "workspace_host",
            Self::Store(error) => error.code(),
        }
    }

    /// What to do next, for a person; empty where the error says it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "list what is there, and check the name",
            Self::Exists(_) => "choose another name, or remove what is there first",
            Self::IsDirectory(_) => "name a file in it",
            Self::NotDirectory(_) => "name a directory",
            Self::NotEmpty(_) => "remove it with all that is in it: recursive",
            Self::Loop(_) => "remove one of the symbolic links",
            Self::TooLarge { .. } | Self::Quota { .. } => "remove something, or write less at once",
            Self::NameTooLong(_) => "choose a shorter path",
            Self::Conflict(_) => "read it again, then repeat the change",
            Self::Denied(_) => "use a path below the working directory",
            Self::Host { .. } => "check the directory on the machine",
            Self::Invalid(_) | Self::Store(_) => "",
        }
    }

    /// What POSIX calls it, without the path, as a shell prints it.
    pub(crate) fn strerror(&self) -> String {
        match self {
            Self::NotFound(_) => "No such file or directory".into(),
            Self::Exists(_) => "File exists".into(),
            Self::IsDirectory(_) => "Is a directory".into(),
            Self::NotDirectory(_) => "Not a directory".into(),
            Self::NotEmpty(_) => "Directory not empty".into(),
            Self::Loop(_) => "Too many levels of symbolic links".into(),
            Self::TooLarge { .. } => "File too large".into(),
            Self::Quota { what, limit } => format!("Disk quota exceeded ({what}, limit {limit})"),
            Self::Invalid(why) => format!("Invalid argument ({why})"),
            Self::NameTooLong(_) => "File name too long".into(),
            Self::Conflict(_) => "Stale file handle".into(),
            Self::Denied(_) => "Permission denied".into(),
            Self::Host { why, .. } => format!("Input/output error ({why})"),
            Self::Store(error) => format!("Input/output error ({error})"),
        }
    }
}
