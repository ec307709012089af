//! `bowline compact`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Global,
    hand::{Hand, Running},
    place::Place,
    signals::Signals,
    terminal::Terminal,
};
use crate::error::Error;

/// Longest wait for the data to close.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Summarise the beginning of a conversation now.
///
/// It happens by itself before the model's window is full. The log keeps everything; from now on the
/// model sees the summary and the newest messages. What the conversation has open goes first.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline compact triage t1\n  \
    bowline compact triage t1 \"keep the measurements\"")]
pub(super) struct Compact {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// What the summary should pay attention to
    instructions: Option<String>,
}

pub(super) async fn compact(
    args: &Compact,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    place.nobody_is_waited_for(&args.agent, &args.id).await?;
    let agent = place.project.agent(&args.agent, None)?;
    let mut signals = Signals::new()?;
    let hand = Hand::open(&place, Some(agent), Running::All).await?;
    let made = tokio::select! {
        biased;
        stop = signals.next() => {
            hand.stop(DRAIN).await;
            return Ok(stop.exit_code());
        }
        made = hand.compact(&args.agent, &args.id, args.instructions.clone()) => made,
    };
    hand.stop(DRAIN).await;
    let made = made?;
    if terminal.json {
        terminal.json(&json!({"type": "compacted", "compaction": made}))?;
        return Ok(ExitCode::SUCCESS);
    }
    match made {
        None => terminal.say("there is nothing to summarise in this conversation"),
        Some(made) => terminal.answer(format_args!(
            "compacted: {} tokens to about {}\n",
            made.tokens_before, made.tokens_after
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}
