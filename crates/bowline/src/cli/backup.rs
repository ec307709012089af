//! `bowline backup`.

use std::{path::PathBuf, process::ExitCode};

use bowline_store::{SqliteOptions, SqliteStore, Store as _};
use clap::Args;
use serde_json::json;

use super::{Global, fault::Fault, place::Place, terminal::Terminal};
use crate::error::Error;

/// Copy all data, also while a process serves it.
///
/// The copy is consistent: everything that was durable at one moment, and nothing that came later. It is
/// read and verified before this ends. Secrets and the lines of the prompt are not part of it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline backup /mnt/backups/2026-11-22\n  \
    bowline backup ../copy && bowline show triage t1 --data ../copy\n      \
        look into a backup\n  \
    bowline restore /mnt/backups/2026-11-22")]
pub(super) struct Backup {
    /// A folder that is not there yet, or is empty
    dir: PathBuf,
}

pub(super) async fn backup(
    args: &Backup,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let store = place
        .read()?
        .ok_or_else(|| Fault::NoData(place.data.clone()))?;
    let taken = std::fs::read_dir(&args.dir).is_ok_and(|mut entries| entries.next().is_some());
    if taken || args.dir.is_file() {
        return Err(Fault::BackupExists(args.dir.clone()).into());
    }
    store.backup(&args.dir).await.map_err(|error| Error {
        hint: "check that you may write there, or choose another folder".to_owned(),
        ..error.into()
    })?;
    store.close().await;
    let options = SqliteOptions {
        read_only: true,
        ..SqliteOptions::default()
    };
    let copy = SqliteStore::open(&args.dir, options)?;
    copy.verify().await?;
    copy.close().await;
    let bytes =
        std::fs::metadata(args.dir.join(super::place::DATABASE)).map_or(0, |meta| meta.len());
    if terminal.json {
        terminal.json(&json!({"type": "backup", "dir": args.dir, "bytes": bytes}))?;
    } else {
        terminal.answer(format_args!("{}\n", args.dir.display()))?;
        terminal.say(format_args!(
            "copied and verified, {} KiB; to put it back: bowline restore {}",
            bytes / 1024,
            args.dir.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
