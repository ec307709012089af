//! `bowline import`.

use std::{fs::File, io::BufReader, path::PathBuf, process::ExitCode};

use bowline_agent::{KIND, actor};
use bowline_runtime::submission;
use bowline_store::{Dump, DumpError, Store as _};
use clap::Args;
use serde_json::json;

use super::{
    Global,
    place::Place,
    run,
    terminal::{Terminal, count},
};
use crate::{error::Error, service::check_instance};

/// Bring in a conversation from a file.
///
/// All of the file is verified first, and then taken in with one commit: a file that was cut or changed
/// changes nothing. What the conversation has open goes on at the next `bowline run` or `bowline serve`;
/// where the original goes on as well, abort it in one of the two places.
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
    let file = File::open(&args.file)
        .map_err(|error| DumpError::File(format!("{}: {error}", args.file.display())))?;
    let dump = Dump::read(&mut BufReader::new(file))?;
    if dump.actor.kind() != KIND {
        let what = format!("it holds a {}, not a conversation", dump.actor.kind());
        return Err(DumpError::Damaged(what).into());
    }
    let agent = dump.actor.name().to_owned();
    let id = args
        .id
        .clone()
        .unwrap_or_else(|| dump.actor.key().to_owned());
    check_instance(&id)?;
    let actor = actor(&agent, &id);
    let store = place.take()?;
    let outcome = dump.put(&*store, &actor).await;
    let open = match &outcome {
        Ok(()) => submission::open(&*store, &actor).await?.len(),
        Err(_) => 0,
    };
    store.close().await;
    outcome?;
    if terminal.json {
        terminal.json(&json!({"type": "imported", "agent": agent, "id": id, "open": open}))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.answer(format_args!("{agent} {}\n", id.escape_debug()))?;
    if let Err(error) = place.project.definition(&agent) {
        terminal.error(&error);
    }
    if open > 0 {
        terminal.say(format_args!(
            "{} open; to go on: {}",
            count(open as u64, "submission"),
            run::again(&agent, &id, global)
        ));
    }
    Ok(ExitCode::SUCCESS)
}
