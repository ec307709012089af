//! `bowline code rollback`: undoing what a run did outside that has ended.

use std::process::ExitCode;

use bowline_agent::{
    Outgoing,
    code::runs::{self, CallState, CodeRun},
};
use bowline_runtime::Outcome;
use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Global,
        hand::{Hand, Running},
        place::Place,
        screen,
        signals::Signals,
        terminal::Terminal,
    },
    error::Error,
    follow::Begin,
};

/// Longest wait for the data to close.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// This run, as `show --json` names it [default: the last one that can be undone]
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

/// Sends the request and waits until it is done.
pub(super) async fn roll_back(
    args: &Rollback,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    place.nobody_is_waited_for(&args.agent, &args.id).await?;
    let agent = place.project.agent(&args.agent, None)?;
    let mut signals = Signals::new()?;
    let hand = Hand::open(&place, Some(agent), Running::All).await?;
    let work = async {
        let actor = bowline_agent::actor(&args.agent, &args.id);
        if let Some(run) = &args.run {
            let runs = runs::of(hand.store(), &actor).await?;
            if !runs.iter().any(|one| one.run_id == *run) {
                let what = format!("{} {} has no run of code {run}", args.agent, args.id);
                let hint = "`bowline show AGENT ID --json` lists its runs under `codeRuns`";
                return Err(Error::failure("code_run_not_found", what, hint));
            }
        }
        let asked = Begin::Send(Outgoing::roll_back(args.run.clone()));
        let (begun, _follow) = hand.begin(&args.agent, &args.id, asked).await?;
        let reply = hand
            .reply(&args.agent, &args.id, &begun.submission_id)
            .await?;
        let runs = runs::of(hand.store(), &actor).await?;
        Ok::<_, Error>((reply, runs))
    };
    let done = tokio::select! {
        biased;
        stop = signals.next() => {
            hand.stop(DRAIN).await;
            return Ok(stop.exit_code());
        }
        done = work => done,
    };
    hand.stop(DRAIN).await;
    let (reply, runs) = done?;
    if let Some(failure) = reply.error {
        return Err(failure.into());
    }
    tell(&runs, args.run.as_deref(), terminal)?;
    Ok(match reply.outcome {
        Outcome::Completed => ExitCode::SUCCESS,
        Outcome::Failed | Outcome::Aborted => ExitCode::FAILURE,
    })
}

/// The calls that were undone, and those that could not be.
fn tell(runs: &[CodeRun], wanted: Option<&str>, terminal: Terminal) -> Result<(), Error> {
    let touched = |run: &&CodeRun| {
        let asked = wanted.is_none_or(|id| run.run_id == id);
        asked && run.calls.iter().any(|call| undone(call.state))
    };
    let run = runs.iter().rev().find(touched);
    if terminal.json {
        return terminal.json(&json!({"type": "rolled-back", "run": run}));
    }
    let Some(run) = run else {
        terminal.say("nothing of it can be undone");
        return Ok(());
    };
    let mut calls: Vec<_> = run.calls.clone();
    calls.retain(|call| undone(call.state));
    calls.reverse();
    for line in screen::code_calls(terminal, &calls, 0) {
        terminal.answer(format_args!("{}\n", line.trim_start()))?;
    }
    Ok(())
}

fn undone(state: CallState) -> bool {
    matches!(state, CallState::Undone | CallState::NotUndone)
}
