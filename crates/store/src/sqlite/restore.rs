//! Putting a backup in the place of a data directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{SqliteOptions, SqliteStore, checkpoint, fault, schema};
use crate::{Store as _, StoreError};

/// Where the copy is made, within the data directory.
const COPY: &str = "restoring";
/// What the store that was replaced is called afterwards.
const REPLACED: &str = "store.db.replaced";

impl SqliteStore {
    /// Verifies the backup in `from`, copies it, and makes it the store of the data directory `into`,
    /// which is made when it is missing. With `replace` a store that is there is kept beside it as
    /// `store.db.replaced`, in place of one of that name. Until the last rename nothing has changed.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the backup is damaged, `Locked` when a process has the data directory, `Io` when
    /// there is no backup, or there is a store already and `replace` is not set.
    pub async fn restore(from: &Path, into: &Path, replace: bool) -> Result<(), StoreError> {
        let options = SqliteOptions {
            read_only: true,
            ..SqliteOptions::default()
        };
        let backup = Self::open(from, options)?;
        backup.verify().await?;
        schema::make_directory(into)?;
        let lock = schema::lock(into)?;
        let target = into.join(schema::FILE);
        if target.exists() && !replace {
            return Err(StoreError::Io(format!(
                "there is a store in {} already",
                into.display()
            )));
        }
        let copy = into.join(COPY);
        remove(&copy)?;
        backup.backup(&copy).await?;
        backup.close().await;
        put_in_place(into, &copy, &target)?;
        drop(lock);
        Ok(())
    }
}

fn put_in_place(into: &Path, copy: &Path, target: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| fault::file(&path, &error)
    };
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    if target.exists() {
        // Brings its log into the database, so that the one file is all of it. What is too damaged
        // for that is moved with its log.
        let emptied = schema::connect(into, schema::Role::Writer, &SqliteOptions::default())
            .and_then(|conn| checkpoint::recover(&conn));
        if let Err(cause) = emptied {
            tracing::warn!(%cause, "the store that is replaced cannot be read");
        }
    }
    let replaced = into.join(REPLACED);
    for end in ["-wal", "-shm", ""] {
        let (old, kept) = (with(target, end), with(&replaced, end));
        if kept.exists() {
            fs::remove_file(&kept).map_err(failed(&kept))?;
        }
        if old.exists() {
            fs::rename(&old, &kept).map_err(failed(&old))?;
        }
    }
    schema::sync_directory(into)?;
    fs::rename(copy.join(schema::FILE), target).map_err(failed(target))?;
    schema::sync_directory(into)?;
    remove(copy)
}

/// Removes what an earlier try left behind.
fn remove(copy: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(fault::file(copy, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
