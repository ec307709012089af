//! A conversation on a terminal.

use std::process::ExitCode;

use bowline_agent::Outgoing;
use bowline_runtime::Outcome;

use super::{
    DRAIN, Ready,
    follow::{Ended, Turn},
    parked::Said,
};
use crate::{
    cli::{
        prompt::{Prompt, Typed},
        screen::{Screen, Shown},
        signals::{Signals, Stop},
        terminal::{Paint, shorten},
    },
    error::Error,
    follow::Begin,
};

/// The file of the lines, in the data directory.
const HISTORY_FILE: &str = "prompt-history";

/// Talks until the person leaves.
pub(super) async fn chat(mut ready: Ready, mut signals: Signals) -> Result<ExitCode, Error> {
    let terminal = ready.terminal;
    let (agent, id) = (ready.agent.clone(), ready.id.clone());
    terminal.say(format_args!(
        "{} conversation {id}: ctrl-C aborts an answer, ctrl-D leaves",
        terminal.err.paint(Paint::Strong, &agent),
    ));
    let mut screen = Screen::new(terminal, Shown::Answer);
    let mut prompt = Prompt::open("> ", ready.place.data.join(HISTORY_FILE), ())?;
    for open in ready.hand.open_submissions(&agent, &id).await? {
        let input = serde_json::from_value::<bowline_agent::Input>(open.payload);
        let text = input
            .map(|input| shorten(input.text(), 60))
            .unwrap_or_default();
        screen.line(&format!("resuming: {text}"));
        let turn = Turn::begin(&mut ready, Begin::GoOn(open.id), &mut screen).await?;
        if let Some(code) = answer(&mut ready, turn, &mut screen, &mut signals).await? {
            return Ok(code);
        }
    }
    loop {
        let text = match prompt.read(&mut signals).await? {
            Typed::Line(text) => text,
            Typed::Nothing => continue,
            Typed::Leave => break,
            Typed::Stop(stop) => {
                ready.hand.stop(DRAIN).await;
                return Ok(stop.exit_code());
            }
        };
        let begin = Begin::Send(Outgoing::user(text));
        let turn = match Turn::begin(&mut ready, begin, &mut screen).await {
            Ok(turn) => turn,
            Err(error) => {
                terminal.error(&error);
                continue;
            }
        };
        if let Some(code) = answer(&mut ready, turn, &mut screen, &mut signals).await? {
            return Ok(code);
        }
    }
    terminal.say(format_args!("to go on: {}", ready.again));
    ready.hand.leave(DRAIN, terminal, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// Follows one answer; ctrl-C aborts it. Returns an exit code when the process has to end.
async fn answer(
    ready: &mut Ready,
    mut turn: Turn,
    screen: &mut Screen,
    signals: &mut Signals,
) -> Result<Option<ExitCode>, Error> {
    screen.status("thinking");
    loop {
        match turn.follow(ready, screen, signals).await? {
            Ended::Settled(reply) => {
                screen.pause()?;
                ready.finish(screen, &reply, turn.took())?;
                if reply.outcome == Outcome::Failed {
                    ready.complain(&reply);
                }
                return Ok(None);
            }
            Ended::Parked(waiting) => {
                screen.pause()?;
                waiting.iter().for_each(|one| screen.expect(one));
                let Some(approval) = waiting.first() else {
                    continue;
                };
                match ready.ask(approval, signals).await? {
                    Said::Decided(decision) => turn.decide(ready, approval, decision).await?,
                    Said::Later => {
                        ready.name_commands(&waiting);
                        return Ok(None);
                    }
                    Said::Stop(stop) => match stopped(ready, &mut turn, screen, stop).await? {
                        None => {}
                        code => return Ok(code),
                    },
                }
            }
            Ended::Stopped(stop) => match stopped(ready, &mut turn, screen, stop).await? {
                None => {}
                code => return Ok(code),
            },
        }
    }
}

/// Ctrl-C aborts the answer; somebody else ends the process.
async fn stopped(
    ready: &mut Ready,
    turn: &mut Turn,
    screen: &mut Screen,
    stop: Stop,
) -> Result<Option<ExitCode>, Error> {
    match stop {
        Stop::Interrupt => {
            screen.line("aborting");
            turn.abort(ready).await?;
            Ok(None)
        }
        Stop::Terminate => {
            screen.pause()?;
            ready.hand.stop(DRAIN).await;
            Ok(Some(stop.exit_code()))
        }
    }
}
