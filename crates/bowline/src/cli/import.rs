//! `bowline import`.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use bowline_store::{DumpError, Store as _};
use clap::Args;
use serde_json::json;

use super::{
    Global,
    hand::Data,
    place::Place,
    run,
    terminal::{Terminal, count},
};
use crate::{
    archive::{self, Imported},
    error::Error,
    server::local::wire::MAX_REQUEST,
};

/// Bring in a conversation from a file.
///
/// All of the file is verified first, and then taken in with one commit: a file that was cut or changed
/// changes nothing. What the conversation has open goes on at once when a server has the data, else at the
/// next `bowline run` or `bowline serve`; where the original goes on as well, abort it in one of the two
/// places.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline import t1.bowline\n  \
    bowline import t1.bowline --id t1-copy && bowline show triage t1-copy")]
pub(super) struct Import {
    /// The file that `bowline export` wrote
    file: PathBuf,
    /// Another id for the conversation [default: the one that it had]
    #[arg(long)]
    id: Option<String>,
}

pub(super) async fn import(
    args: &Import,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let failed = |error: io::Error| DumpError::File(format!("{}: {error}", args.file.display()));
    let file = File::open(&args.file).map_err(failed)?;
    let (imported, goes_on) = match Data::open(&place).await? {
        Data::Own(store) => {
            let imported = archive::import(&*store, BufReader::new(file), args.id.clone()).await;
            store.close().await;
            (imported?, false)
        }
        Data::Remote(remote) => {
            let mut bytes = Vec::new();
            let most = MAX_REQUEST as u64 + 1;
            file.take(most).read_to_end(&mut bytes).map_err(failed)?;
            (remote.import(args.id.clone(), bytes.into()).await?, true)
        }
    };
    let Imported { agent, id, open } = imported;
    if terminal.json {
        terminal.json(&json!({"type": "imported", "agent": agent, "id": id, "open": open}))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.answer(format_args!("{agent} {}\n", id.escape_debug()))?;
    if let Err(error) = place.project.definition(&agent) {
        terminal.error(&error);
    }
    let open = (open > 0).then(|| count(open as u64, "submission"));
    match open {
        Some(open) if goes_on => terminal.say(format_args!("{open} open, and going on now")),
        Some(open) => {
            let again = run::again(&agent, &id, global);
            terminal.say(format_args!("{open} open; to go on: {again}"));
        }
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}
