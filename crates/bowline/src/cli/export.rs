//! `bowline export`.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bowline_store::{Dump, DumpError, Store as _};
use clap::Args;
use serde_json::json;

use super::{Global, place::Place, terminal::Terminal};
use crate::error::Error;

/// Write a conversation to one file.
///
/// The file has all of it: history, files, what is open, with a checksum over every byte. It is written
/// beside a process that may be using the data, and shows one moment. At most 256 MiB.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline export triage t1 t1.bowline\n  \
    bowline export triage t1 t1.bowline && scp t1.bowline other: && ssh other bowline import t1.bowline")]
pub(super) struct Export {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// The file; it must not be there yet
    file: PathBuf,
}

pub(super) async fn export(
    args: &Export,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let reading = place.conversation(&args.agent, &args.id).await?;
    let dump = reading.store.dump(&reading.actor).await?;
    let Some(dump) = dump else {
        return Err(place.missing(&args.agent, &args.id, &[]));
    };
    let bytes = write(&dump, &args.file)?;
    if terminal.json {
        terminal.json(&json!({
            "type": "exported", "agent": args.agent, "id": args.id, "file": args.file, "bytes": bytes,
            "records": dump.records.len(), "rows": dump.rows.len(), "blobs": dump.blobs.len(),
        }))?;
    } else {
        terminal.answer(format_args!("{}\n", args.file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes under another name first, so that a file of that name is whole.
fn write(dump: &Dump, file: &Path) -> Result<u64, DumpError> {
    let failed = |path: &Path, error: &std::io::Error| {
        DumpError::File(format!("{}: {error}", path.display()))
    };
    if file.exists() {
        let why = format!("{}: it is there already", file.display());
        return Err(DumpError::File(why));
    }
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let options = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options
    };
    let written = (|| {
        let out = options()
            .open(&part)
            .map_err(|error| failed(&part, &error))?;
        let mut out = BufWriter::new(out);
        dump.write(&mut out)?;
        out.flush().map_err(|error| failed(&part, &error))?;
        let out: File = out
            .into_inner()
            .map_err(|error| failed(&part, error.error()))?;
        out.sync_all().map_err(|error| failed(&part, &error))?;
        let meta = out.metadata().map_err(|error| failed(&part, &error))?;
        fs::rename(&part, file).map_err(|error| failed(file, &error))?;
        Ok(meta.len())
    })();
    if written.is_err() {
        // What cannot be removed is named by its ending.
        let _ = fs::remove_file(&part);
    }
    written
}
