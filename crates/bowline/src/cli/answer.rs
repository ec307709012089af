//! `bowline answer`.

use std::process::ExitCode;

use bowline_agent::approval::Answer;
use clap::Args;

use super::{Global, approve, terminal::Terminal};
use crate::error::Error;

/// Answer a question that an agent has asked.
///
/// The run goes on here, and its answer is printed. Sent again, nothing happens twice. To give no
/// answer, use `bowline reject`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline answer appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B 'on Friday, after the release'\n  \
    bowline answer appr_01KAN4QJ5T6B8V9W0X1Y2Z3A4B 2\n      \
        the second of the choices\n  \
    bowline show triage t1 --json | jq '.approvals[].question'")]
pub(super) struct AnswerArgs {
    /// The question, as `bowline run` and `bowline show` name it
    approval: String,
    /// The answer: a choice or its number, or any text where the question allows it
    #[arg(allow_hyphen_values = true)]
    answer: String,
}

pub(super) async fn answer(
    args: &AnswerArgs,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let answer = Answer::text(args.answer.clone());
    approve::answer_and_follow(&args.approval, answer, global, terminal).await
}
