//! What may be printed where.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use serde::Serialize;

use super::{Global, fault::Fault};
use crate::error::Error;

/// The version of the lines of `--json`.
const LINE_VERSION: u8 = 1;

/// One standard stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    /// A person sees it as it is written.
    pub(super) terminal: bool,
    /// It may be coloured.
    pub(super) color: bool,
}

/// The three standard streams, and how much to say on them. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    /// A person types.
    pub(super) input: bool,
    /// Standard output: the answer.
    pub(super) out: Stream,
    /// Standard error: everything else.
    pub(super) err: Stream,
    /// Answers are JSON.
    pub(super) json: bool,
    /// Only answers and errors.
    pub(super) quiet: bool,
    /// Lines are not redrawn, since a log is written between them.
    pub(super) logging: bool,
}

/// A colour by its meaning.
#[derive(Debug, Clone, Copy)]
pub(super) enum Paint {
    Good,
    Bad,
    Odd,
    Dim,
    Strong,
}

#[derive(Serialize)]
struct Line<'a, T> {
    v: u8,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    r#type: &'static str,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    r#type: &'a str,
    message: &'a str,
    details: &'a str,
}

impl Terminal {
    pub(super) fn detect(global: &Global) -> Self {
        let dumb = env::var("TERM").is_ok_and(|term| term == "dumb");
        let color = !dumb && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let stream = |terminal: bool| Stream {
            terminal: terminal && !dumb,
            color: terminal && color,
        };
        Self {
            input: io::stdin().is_terminal(),
            out: stream(io::stdout().is_terminal()),
            err: stream(io::stderr().is_terminal()),
            json: global.json,
            quiet: global.quiet,
            logging: global.verbose > 0 || env::var_os("BOWLINE_LOG").is_some(),
        }
    }

    /// Writes a part of the answer.
    ///
    /// # Errors
    ///
    /// When it cannot be written. That nobody reads it any more is no error.
    pub(super) fn answer(self, text: impl Display) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Fault::Output(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Writes one line of JSON as a part of the answer.
    pub(super) fn json(self, body: &impl Serialize) -> Result<(), Error> {
        let line = serde_json::to_string(&Line {
            v: LINE_VERSION,
            body,
        });
        match line {
            Ok(line) => self.answer(format_args!("{line}\n")),
            Err(error) => Err(Fault::Output(error.into()).into()),
        }
    }

    /// Writes a line about what happens, unless it shall be quiet.
    pub(super) fn say(self, text: impl Display) {
        if !self.quiet {
            self.always(text);
        }
    }

    /// Writes a line about what happens.
    pub(super) fn always(self, text: impl Display) {
        // With nowhere to say it there is nothing left to do.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Asks whether to do something that cannot be undone; `yes` says so beforehand.
    ///
    /// # Errors
    ///
    /// When the answer is no, or there is nobody to ask.
    pub(super) async fn confirm(self, yes: bool, question: &str) -> Result<(), Error> {
        if yes {
            return Ok(());
        }
        if !self.input || !self.err.terminal || self.json {
            return Err(Fault::NotConfirmed.into());
        }
        let prompt = format!("{} [y]es, [n]o: ", one_line(question));
        let typed = tokio::task::spawn_blocking(move || {
            let _ = write!(io::stderr(), "{prompt}");
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let typed = typed.await.ok().and_then(Result::ok).unwrap_or_default();
        match typed.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Fault::NotConfirmed.into()),
        }
    }

    /// Says what went wrong and what to do next.
    pub(super) fn error(self, error: &Error) {
        if self.json {
            Self::print_json_error(error);
        }
        self.always(format_args!(
            "{} {}",
            self.err.paint(Paint::Bad, "error:"),
            one_line(&error.message)
        ));
        if !error.hint.is_empty() {
            self.always(format_args!(
                "{} {}",
                self.err.paint(Paint::Strong, "hint:"),
                one_line(&error.hint)
            ));
        }
    }

    /// The last line of an answer in JSON that is none.
    pub(super) fn print_json_error(error: &Error) {
        let error = ErrorBody {
            r#type: &error.code,
            message: &error.message,
            details: &error.hint,
        };
        let body = ErrorLine {
            r#type: "error",
            error,
        };
        let line = Line {
            v: LINE_VERSION,
            body: &body,
        };
        // It holds texts only, which always have a JSON form.
        let line = serde_json::to_string(&line).unwrap_or_default();
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}

impl Stream {
    /// The text in a colour, where there are colours.
    pub(super) fn paint(self, paint: Paint, text: impl Display) -> String {
        if !self.color {
            return text.to_string();
        }
        let code = match paint {
            Paint::Good => 32,
            Paint::Bad => 31,
            Paint::Odd => 33,
            Paint::Dim => 2,
            Paint::Strong => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The text without anything that a terminal would obey; newlines and tabs stay.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// The text in one line, without anything that a terminal would obey.
pub(super) fn one_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text in at most so many characters.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration as a person says it.
pub(super) fn duration(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.as_millis() == 0 => "<1 ms".to_owned(),
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// One thing, or several.
pub(super) fn count(number: u64, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}
