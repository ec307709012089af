//! A line that a person types, with history.

use std::{path::PathBuf, process::Command};

use rustyline::{
    Behavior, CompletionType, Config, Editor, Helper,
    error::ReadlineError,
    history::{FileHistory, MemHistory},
};
use tokio::task::spawn_blocking;

use super::{
    fault::Fault,
    signals::{Signals, Stop},
};
use crate::error::Error;

/// Lines that a prompt remembers.
const HISTORY: usize = 1_000;

/// What a person did at the prompt.
pub(super) enum Typed {
    Line(String),
    /// A blank line, or ctrl-C.
    Nothing,
    /// Ctrl-D.
    Leave,
    /// Somebody else asks the process to end.
    Stop(Stop),
}

/// Where lines are typed.
pub(super) struct Prompt<H: Helper> {
    /// It is elsewhere while a line is typed.
    editor: Option<Editor<H, FileHistory>>,
    history: PathBuf,
    text: &'static str,
}

impl<H: Helper + Send + 'static> Prompt<H> {
    /// A prompt that shows `text`, remembers lines in the file `history`, and is helped by `helper`.
    ///
    /// # Errors
    ///
    /// When the terminal cannot be used.
    pub(super) fn open(text: &'static str, history: PathBuf, helper: H) -> Result<Self, Error> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(failed)?
            .auto_add_history(false)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(helper));
        // There is none the first time.
        let _ = editor.load_history(&history);
        Ok(Self {
            editor: Some(editor),
            history,
            text,
        })
    }

    /// Waits for a line, on a thread of its own. At the prompt ctrl-C is a key, and only somebody else can
    /// ask to stop.
    ///
    /// # Errors
    ///
    /// When the terminal cannot be used.
    pub(super) async fn read(&mut self, signals: &mut Signals) -> Result<Typed, Error> {
        let gone = || Error::from(Fault::Terminal("it was left while a line was typed".into()));
        let mut editor = self.editor.take().ok_or_else(gone)?;
        let text = self.text;
        let read = spawn_blocking(move || {
            let line = editor.readline(text);
            if let Ok(line) = &line {
                // Nothing but a blank or repeated line is refused.
                let _ = editor.add_history_entry(line.as_str());
            }
            (editor, line)
        });
        let (mut editor, line) = tokio::select! {
            read = read => read.map_err(|_| gone())?,
            stop = terminated(signals) => {
                restore_terminal();
                return Ok(Typed::Stop(stop));
            }
        };
        let typed = match line {
            Ok(line) if line.trim().is_empty() => Typed::Nothing,
            Ok(line) => {
                // That a line is not remembered is no reason to stop.
                let _ = editor.append_history(&self.history);
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Nothing,
            Err(ReadlineError::Eof) => Typed::Leave,
            Err(error) => return Err(failed(error)),
        };
        self.editor = Some(editor);
        Ok(typed)
    }
}

/// Asks one question on the terminal, wherever standard output leads, and waits for the line that answers it;
/// blank lines are answers. Ctrl-C is [`Typed::Stop`] here.
///
/// # Errors
///
/// When the terminal cannot be used.
pub(super) async fn ask(text: &'static str, signals: &mut Signals) -> Result<Typed, Error> {
    let read = spawn_blocking(move || {
        let config = Config::builder().behavior(Behavior::PreferTerm).build();
        let history = MemHistory::with_config(&config);
        let mut editor: Editor<(), MemHistory> = Editor::with_history(config, history)?;
        editor.readline(text)
    });
    let line = tokio::select! {
        read = read => match read {
            Ok(line) => line,
            Err(_) => return Err(Fault::Terminal("it was left while a line was typed".into()).into()),
        },
        stop = terminated(signals) => {
            restore_terminal();
            return Ok(Typed::Stop(stop));
        }
    };
    match line {
        Ok(line) => Ok(Typed::Line(line.trim().to_owned())),
        Err(ReadlineError::Interrupted) => Ok(Typed::Stop(Stop::Interrupt)),
        Err(ReadlineError::Eof) => Ok(Typed::Leave),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: ReadlineError) -> Error {
    Fault::Terminal(error.to_string()).into()
}

async fn terminated(signals: &mut Signals) -> Stop {
    loop {
        if signals.next().await == Stop::Terminate {
            return Stop::Terminate;
        }
    }
}

/// The thread that waits for a line keeps the terminal in raw mode, and cannot be woken.
fn restore_terminal() {
    let _ = Command::new("stty").arg("sane").status();
}
