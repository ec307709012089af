//! Loops that read: `… | while read -r file; do grep x "$file"; done`.
//!
//! The interpreter gives `cat`, `grep` and `tr` the pipe that a loop reads from, by their names, and
//! drops what they leave in it. By way of `command` they get a copy. So in a call that may have such a
//! loop the three are aliases for that, unless the call has to do with aliases itself.

use std::collections::HashMap;

/// The commands, and what they stand for.
const LENT: [(&str, &str); 3] = [
    ("cat", "command cat"),
    ("grep", "command grep"),
    ("tr", "command tr"),
];
/// What mostly feeds a loop in a loop. The interpreter gives a loop the pipe of its own pipeline only when
/// that has a stage which it takes for more than one command; else the inner loop goes on with what the outer
/// one has left to read. A name that is an alias is such a stage, and these never read, so that a fork of the
/// shell for them takes nothing from the outer loop.
const FEEDS: [(&str, &str); 2] = [("echo", "\\echo"), ("printf", "\\printf")];
/// The interpreter's own variable for this option.
const EXPAND: &str = "SHOPT_expand_aliases";

/// What a call had before the aliases were lent to it.
pub(super) struct Lent {
    aliases: HashMap<String, String>,
    expand: Option<String>,
}

/// Whether a command may have a loop whose condition reads; see [`super::streaming`].
pub(super) fn reads(command: &str) -> bool {
    let mut words = command.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (mut reads, mut loops) = (false, false);
    words.any(|word| {
        reads |= word == "read";
        loops |= matches!(word, "while" | "until" | "for");
        reads && loops
    })
}

/// Whether a command looks at aliases, or defines a function with one of the names.
fn takes_part(command: &str) -> bool {
    command.contains("alias")
        || command.contains("function")
        || LENT.iter().chain(&FEEDS).any(|(name, _)| {
            let mut after = command.match_indices(name).map(|(at, _)| at + name.len());
            after.any(|end| {
                let rest = command.get(end..).unwrap_or_default();
                rest.trim_start().starts_with('(')
            })
        })
}

/// Lends the aliases to a call that reads in a loop.
pub(super) fn lend(state: &mut bashkit::ShellState, command: &str) -> Option<Lent> {
    let on = state.variables.get(EXPAND).is_some_and(|on| on == "1");
    if takes_part(command) || (on && !state.aliases.is_empty()) {
        return None;
    }
    let nested = command.match_indices("read").count() > 1;
    let mut lent: Vec<(&str, &str)> = Vec::new();
    // A loop in a loop that reads what one of the three makes of a file needs the pipe that they have by
    // their names.
    if !(nested && command.contains('<')) {
        lent.extend(LENT);
    }
    if nested {
        lent.extend(FEEDS);
    }
    let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    Some(Lent {
        aliases: std::mem::replace(&mut state.aliases, lent.into_iter().map(owned).collect()),
        expand: state.variables.insert(EXPAND.to_owned(), "1".to_owned()),
    })
}

impl Lent {
    /// Takes them back.
    pub(super) fn back(self, state: &mut bashkit::ShellState) {
        state.aliases = self.aliases;
        match self.expand {
            Some(before) => state.variables.insert(EXPAND.to_owned(), before),
            None => state.variables.remove(EXPAND),
        };
    }
}
