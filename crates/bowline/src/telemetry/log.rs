//! Lines about what happens, on standard error: for a person, or one JSON object each.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For a person.
    #[default]
    Human,
    /// A JSON object: `timestamp`, `level`, `target`, `message`, the fields of the event, and `spans`
    /// from the outermost to the innermost.
    Json,
}

impl Format {
    /// The word for it in `bowline.toml` and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }

    /// The format that a word means.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Human, Self::Json]
            .into_iter()
            .find(|format| format.word() == word)
    }
}

/// Begins to write lines that pass a filter such as `bowline=info`. Without effect where a subscriber
/// is set already, as in an application that this is part of.
pub(crate) fn start(filter: &str, format: Format, color: bool) {
    let lines = fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr);
    // It fails only when logging was set up before.
    let _ = match format {
        Format::Human => lines.with_ansi(color).try_init(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_ansi(false)
            .try_init(),
    };
}
