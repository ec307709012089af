//! What SQLite's errors mean for callers.

use rusqlite::{Error, ErrorCode};

use crate::{CommitError, StoreError};

/// Why a piece of work in the writer did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The work itself is refused; nothing is wrong with the store.
    Refused(CommitError),
    /// The disk or the configured size is full.
    Full,
    /// Stored bytes are damaged.
    Corrupt(String),
    /// Anything else: the store must not go on as if nothing had happened.
    Broken(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match &error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => Self::Full,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                    Self::Corrupt(error.to_string())
                }
                ErrorCode::TooBig => Self::Refused(CommitError::Invalid(
                    "a value is too large for the store".into(),
                )),
                _ => Self::Broken(error.to_string()),
            },
            other if is_decoding(other) => Self::Corrupt(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(what) => Self::Corrupt(what),
            StoreError::Full => Self::Full,
            other @ (StoreError::NewerFormat { .. }
            | StoreError::Locked(_)
            | StoreError::Io(_)
            | StoreError::Closed(_)) => Self::Broken(other.to_string()),
        }
    }
}

/// For reads.
pub(super) fn reading(error: Error) -> StoreError {
    match Fault::from(error) {
        Fault::Full => StoreError::Full,
        Fault::Corrupt(what) => StoreError::Corrupt(what),
        Fault::Broken(what) => StoreError::Io(what),
        Fault::Refused(error) => StoreError::Io(error.to_string()),
    }
}

/// For files around the database.
pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(format!("{}: {error}", path.display())),
    }
}

/// The bytes of a column are not of the type that was written there.
fn is_decoding(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidColumnType(..)
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::Utf8Error(..)
    )
}
