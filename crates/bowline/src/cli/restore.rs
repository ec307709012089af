//! `bowline restore`.

use std::{path::PathBuf, process::ExitCode};

use bowline_store::{SqliteStore, StoreError};
use clap::Args;
use serde_json::json;

use super::{Global, fault::Fault, place::Place, terminal::Terminal};
use crate::error::Error;

/// Put a backup in the place of the data.
///
/// The backup is verified first, and copied; nothing has changed until the copy is whole. Data that is
/// there is replaced only with --replace, and then kept beside it as store.db.replaced. No process may
/// have the data meanwhile.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline restore /mnt/backups/2026-11-22\n  \
    bowline restore /mnt/backups/2026-11-22 --replace --yes\n  \
    bowline restore /mnt/backups/2026-11-22 --data ./other")]
pub(super) struct Restore {
    /// The folder that `bowline backup` made
    dir: PathBuf,
    /// Replace the data that is there
    #[arg(long)]
    replace: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn restore(
    args: &Restore,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    if !args.dir.join(super::place::DATABASE).is_file() {
        return Err(Fault::NoData(args.dir.clone()).into());
    }
    if place.has_data() {
        if !args.replace {
            return Err(Fault::DataExists(place.data).into());
        }
        let question = format!("Replace the data in {}?", place.data.display());
        terminal.confirm(args.yes, &question).await?;
    }
    let restored = SqliteStore::restore(&args.dir, &place.data, args.replace).await;
    restored.map_err(|error| {
        let hint = match error {
            StoreError::Corrupt(_) => {
                format!(
                    "it is the backup {} that is damaged; nothing was changed",
                    args.dir.display()
                )
            }
            StoreError::NewerFormat { .. }
            | StoreError::Locked(_)
            | StoreError::Full
            | StoreError::Io(_)
            | StoreError::Closed(_) => String::new(),
        };
        Error {
            hint,
            ..error.into()
        }
    })?;
    if terminal.json {
        terminal.json(&json!({"type": "restored", "dir": place.data}))?;
    } else {
        terminal.answer(format_args!("{}\n", place.data.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
