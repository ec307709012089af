//! `bowline reject`.

use std::process::ExitCode;

use bowline_agent::approval::Answer;
use clap::Args;

use super::{Global, approve, terminal::Terminal};
use crate::error::Error;

/// Refuse a tool call that waits for consent, or to answer a question.
///
/// The model is told, with the reason, and the run goes on here.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline reject appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B\n  \
    bowline reject appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B --reason 'not before the release'\n  \
    bowline reject appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B --rollback")]
pub(super) struct Reject {
    /// The approval, as `bowline run` and `bowline show` name it
    approval: String,
    /// Why; the model reads it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// End the run of code that made the call, and undo what it did outside, the last first
    #[arg(long)]
    rollback: bool,
}

pub(super) async fn reject(
    args: &Reject,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let reason = args.reason.clone();
    let answer = if args.rollback {
        Answer::roll_back(reason)
    } else {
        Answer::reject(reason)
    };
    approve::answer_and_follow(&args.approval, answer, global, terminal).await
}
