//! `bowline delete`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Global,
    hand::{Hand, Running},
    place::Place,
    terminal::Terminal,
};
use crate::error::Error;

/// Longest wait for the data to close.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Delete a conversation for good.
///
/// Its history, its files, what it has open and its children go; what runs in it is stopped. To keep a
/// copy, export it first.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline delete triage t1\n  \
    bowline export triage t1 t1.bowline && bowline delete triage t1 --yes")]
pub(super) struct Delete {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn delete(
    args: &Delete,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let reading = place.conversation(&args.agent, &args.id).await?;
    let messages = reading.conversation.entries.len();
    drop(reading);
    let question = format!(
        "Delete the conversation {} with {}, {messages} entries, for good?",
        args.id.escape_debug(),
        args.agent
    );
    terminal.confirm(args.yes, &question).await?;
    // The agent itself is not needed, and may be gone.
    let hand = Hand::open(&place, None, Running::Alone).await?;
    let deleted = hand.delete(&args.agent, &args.id).await;
    hand.stop(DRAIN).await;
    deleted?;
    if terminal.json {
        terminal.json(&json!({"type": "deleted", "agent": args.agent, "id": args.id}))?;
    } else {
        terminal.say("deleted");
    }
    Ok(ExitCode::SUCCESS)
}
