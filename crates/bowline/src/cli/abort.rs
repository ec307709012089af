//! `bowline abort`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Global,
    fault::Fault,
    hand::{Hand, Running},
    place::Place,
    signals::Signals,
    terminal::Terminal,
};
use crate::error::Error;

/// Longest wait for the data to close.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// End what a conversation has not finished.
///
/// Each open submission settles as `aborted`, or only the one that is named. What is committed stays,
/// and the conversation can go on. It works while a server or another command runs the conversation
/// too.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline abort triage t1\n  \
    bowline abort triage t1 sub_01KAN4QJ5T6B8V9W0X1Y2Z3A4B")]
pub(super) struct Abort {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// Only this submission
    submission: Option<String>,
}

pub(super) async fn abort(
    args: &Abort,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let reading = place.conversation(&args.agent, &args.id).await?;
    let open = bowline_runtime::submission::open(&*reading.store, &reading.actor).await?;
    let open: Vec<_> = open.into_iter().map(|submission| submission.id).collect();
    drop(reading);
    let chosen: Vec<_> = match &args.submission {
        None => open,
        Some(one) if open.contains(one) => vec![one.clone()],
        Some(one) => return Err(Fault::NotOpen(one.clone()).into()),
    };
    let mut aborted = Vec::new();
    if !chosen.is_empty() {
        let agent = place.project.agent(&args.agent, None)?;
        let mut signals = Signals::new()?;
        let hand = Hand::open(&place, Some(agent), Running::Alone).await?;
        for submission in chosen {
            hand.abort(&args.agent, &args.id, &submission).await?;
            tokio::select! {
                biased;
                stop = signals.next() => {
                    hand.stop(DRAIN).await;
                    return Ok(stop.exit_code());
                }
                reply = hand.reply(&args.agent, &args.id, &submission) => aborted.push((submission, reply?.outcome)),
            }
        }
        hand.stop(DRAIN).await;
    }
    if terminal.json {
        let settled: Vec<_> = aborted
            .iter()
            .map(|(id, outcome)| json!({"submissionId": id, "outcome": outcome}))
            .collect();
        terminal.json(&json!({"type": "aborted", "submissions": settled}))?;
        return Ok(ExitCode::SUCCESS);
    }
    if aborted.is_empty() {
        terminal.say("nothing is open in this conversation");
    }
    for (submission, outcome) in &aborted {
        let outcome = json!(outcome);
        terminal.answer(format_args!(
            "{submission} {}\n",
            outcome.as_str().unwrap_or_default()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
