//! A conversation on a terminal.

use std::{path::Path, process::ExitCode};

use bowline_agent::Outgoing;
use bowline_runtime::Outcome;
use rustyline::{Config, DefaultEditor, error::ReadlineError};
use tokio::task::spawn_blocking;

use super::{
    DRAIN, Ready,
    follow::{Ended, Turn},
    parked::Said,
};
use crate::{
    cli::{
        fault::Fault,
        screen::{Screen, Shown},
        signals::{Signals, Stop},
        terminal::{Paint, shorten},
    },
    error::Error,
    follow::Begin,
};

/// Lines that the prompt remembers.
const HISTORY: usize = 1_000;
/// The file of the lines, in the data directory.
const HISTORY_FILE: &str = "prompt-history";

/// What a person did at the prompt.
enum Typed {
    Line(String),
    Nothing,
    Leave,
}

/// Talks until the person leaves.
pub(super) async fn chat(ready: Ready, mut signals: Signals) -> Result<ExitCode, Error> {
    let terminal = ready.terminal;
    let (agent, id) = (&ready.agent, &ready.id);
    terminal.say(format_args!(
        "{} conversation {id}: ctrl-C aborts an answer, ctrl-D leaves",
        terminal.err.paint(Paint::Strong, agent),
    ));
    let mut screen = Screen::new(terminal, Shown::Answer);
    let mut editor = editor(&ready.data)?;
    for open in ready.hand.open_submissions(agent, id).await? {
        let input = serde_json::from_value::<bowline_agent::Input>(open.payload);
        let text = input
            .map(|input| shorten(input.text(), 60))
            .unwrap_or_default();
        screen.line(&format!("resuming: {text}"));
        let turn = Turn::begin(&ready, Begin::GoOn(open.id), &mut screen).await?;
        if let Some(code) = answer(&ready, turn, &mut screen, &mut signals).await? {
            return Ok(code);
        }
    }
    loop {
        let typed = tokio::select! {
            typed = prompt(editor) => typed,
            stop = terminated(&mut signals) => {
                restore_terminal();
                ready.hand.stop(DRAIN).await;
                return Ok(stop.exit_code());
            }
        };
        let (back, typed) = typed?;
        editor = back;
        let text = match typed {
            Typed::Line(text) => text,
            Typed::Nothing => continue,
            Typed::Leave => break,
        };
        // That a line is not remembered is no reason to stop.
        let _ = editor.append_history(&ready.data.join(HISTORY_FILE));
        let begin = Begin::Send(Outgoing::user(text));
        let turn = match Turn::begin(&ready, begin, &mut screen).await {
            Ok(turn) => turn,
            Err(error) => {
                terminal.error(&error);
                continue;
            }
        };
        if let Some(code) = answer(&ready, turn, &mut screen, &mut signals).await? {
            return Ok(code);
        }
    }
    ready.hand.stop(DRAIN).await;
    terminal.say(format_args!("to go on: {}", ready.again));
    Ok(ExitCode::SUCCESS)
}

/// Follows one answer; ctrl-C aborts it. Returns an exit code when the process has to end.
async fn answer(
    ready: &Ready,
    mut turn: Turn,
    screen: &mut Screen,
    signals: &mut Signals,
) -> Result<Option<ExitCode>, Error> {
    screen.status("thinking");
    loop {
        match turn.follow(screen, signals).await? {
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
                let Some(approval) = waiting.first() else {
                    continue;
                };
                match ready.ask(approval).await? {
                    Said::Decided(decision) => ready.decide(approval, decision).await?,
                    Said::Later => {
                        ready.name_commands(&waiting);
                        return Ok(None);
                    }
                }
            }
            Ended::Stopped(Stop::Interrupt) => {
                screen.line("aborting");
                ready
                    .hand
                    .abort(&ready.agent, &ready.id, turn.submission())
                    .await?;
            }
            Ended::Stopped(Stop::Terminate) => {
                screen.pause()?;
                ready.hand.stop(DRAIN).await;
                return Ok(Some(Stop::Terminate.exit_code()));
            }
        }
    }
}

/// Reads one line, on a thread of its own. The editor comes back with it.
async fn prompt(mut editor: DefaultEditor) -> Result<(DefaultEditor, Typed), Error> {
    let read = spawn_blocking(move || {
        let line = editor.readline("> ");
        if let Ok(line) = &line {
            // Nothing but a blank or repeated line is refused.
            let _ = editor.add_history_entry(line.as_str());
        }
        (editor, line)
    });
    let failed = |why: String| Error::from(Fault::Terminal(why));
    let (editor, line) = read.await.map_err(|error| failed(error.to_string()))?;
    let typed = match line {
        Ok(line) if line.trim().is_empty() => Typed::Nothing,
        Ok(line) => Typed::Line(line),
        Err(ReadlineError::Interrupted) => Typed::Nothing,
        Err(ReadlineError::Eof) => Typed::Leave,
        Err(error) => return Err(failed(error.to_string())),
    };
    Ok((editor, typed))
}

fn editor(data: &Path) -> Result<DefaultEditor, Error> {
    let failed = |error: ReadlineError| Error::from(Fault::Terminal(error.to_string()));
    let config = Config::builder()
        .max_history_size(HISTORY)
        .map_err(failed)?
        .auto_add_history(false)
        .build();
    let mut editor = DefaultEditor::with_config(config).map_err(failed)?;
    // There is none the first time.
    let _ = editor.load_history(&data.join(HISTORY_FILE));
    Ok(editor)
}

/// At the prompt ctrl-C is a key, and only somebody else can ask to stop.
async fn terminated(signals: &mut Signals) -> Stop {
    loop {
        if signals.next().await == Stop::Terminate {
            return Stop::Terminate;
        }
    }
}

/// The thread that waits for a line keeps the terminal in raw mode, and cannot be woken.
fn restore_terminal() {
    let _ = std::process::Command::new("stty").arg("sane").status();
}
