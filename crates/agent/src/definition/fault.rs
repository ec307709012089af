//! One thing that is wrong in a settings file, before it is known whose file it is.

/// What is wrong at one place of a settings file, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of mistake it is.
    pub kind: FaultKind,
    /// The line in the file, from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong: one line, without values that came from the environment.
    pub message: String,
    /// What to do next: one line.
    pub hint: String,
}

/// The kinds of mistakes in a settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The text is not in the file's format, or a key is there twice.
    Syntax,
    /// There is no such key.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value has the wrong type, or is not one of those that are allowed.
    InvalidValue,
    /// `${VAR}` names a variable that is not set.
    MissingVariable,
    /// The feature is planned and not built.
    NotSupported,
}

impl Fault {
    /// A fault; control characters in the texts become spaces, so that each stays one line.
    pub fn new(
        kind: FaultKind,
        line: Option<u32>,
        message: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) -> Self {
        Self {
            kind,
            line,
            message: one_line(message.as_ref()),
            hint: one_line(hint.as_ref()),
        }
    }
}

/// The longest message, in characters.
const MAX_MESSAGE: usize = 400;

/// `text` with white space and control characters as single spaces, cut at 400 characters.
pub(crate) fn one_line(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The candidate that `word` most likely meant, whatever its case; `None` when none is near enough.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b`, `c` `` for a message, or `none`.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
