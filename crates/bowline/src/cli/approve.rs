//! `bowline approve` and what it shares with `bowline reject` and `bowline answer`.

use std::process::ExitCode;

use bowline_agent::approval::{self, Answer};
use clap::Args;

use super::{Global, fault::Fault, place::Place, run, terminal::Terminal};
use crate::error::Error;

/// Let a tool call that waits for consent be made.
///
/// The run goes on here, and its answer is printed. Sent again, nothing happens twice.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline approve appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B\n  \
    bowline approve appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B --edit '{\"title\": \"Shorter\"}'\n  \
    bowline show triage t1 --json | jq -r '.approvals[].approvalId'")]
pub(super) struct Approve {
    /// The approval, as `bowline run` and `bowline show` name it
    approval: String,
    /// Make the call with these arguments instead, a JSON object
    #[arg(long, value_name = "JSON")]
    edit: Option<String>,
}

pub(super) async fn approve(
    args: &Approve,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let arguments = match args.edit.as_deref().map(serde_json::from_str) {
        None => None,
        Some(Ok(arguments)) => Some(arguments),
        Some(Err(error)) => {
            return Err(Fault::Arguments(format!("--edit is not JSON: {error}")).into());
        }
    };
    let answer = Answer::approve(arguments);
    answer_and_follow(&args.approval, answer, global, terminal).await
}

/// Answers an approval, and follows the run that goes on.
pub(super) async fn answer_and_follow(
    approval_id: &str,
    answer: Answer,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let unknown = || Error::from(Fault::NoApproval(approval_id.to_owned()));
    let reading = place.read()?.ok_or_else(unknown)?;
    let (actor, approval) = approval::find(&*reading, approval_id)
        .await?
        .ok_or_else(unknown)?;
    drop(reading);
    let whose = (actor.name(), actor.key());
    run::go_on(place, whose, &approval, answer, global, terminal).await
}
