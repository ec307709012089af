//! Commands that leave the shell as they found it, as can be told from their text: then nobody has to
//! compare what the shell holds before and after.

use super::ShellState;

/// Programs that cannot change the shell that runs them, whatever their arguments; in order.
const PROGRAMS: &[&str] = &[
    ":",
    "[",
    "awk",
    "b2sum",
    "base32",
    "base64",
    "basename",
    "bunzip2",
    "bzip2",
    "cat",
    "chmod",
    "cksum",
    "cmp",
    "column",
    "comm",
    "cp",
    "curl",
    "cut",
    "date",
    "df",
    "diff",
    "dirname",
    "du",
    "echo",
    "egrep",
    "expand",
    "false",
    "fgrep",
    "file",
    "find",
    "fmt",
    "fold",
    "git",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "join",
    "jq",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mv",
    "nl",
    "od",
    "paste",
    "pwd",
    "readlink",
    "realpath",
    "rev",
    "rg",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "sleep",
    "sort",
    "stat",
    "strings",
    "tac",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "tr",
    "tree",
    "true",
    "uniq",
    "unzip",
    "wc",
    "whoami",
    "xxd",
    "yes",
    "zcat",
];

/// What an assignment, a definition or another command within a word is written with.
const EXPANDED: [char; 6] = ['=', '(', ')', '{', '}', '`'];

/// Whether a command certainly leaves variables, functions, aliases and the working directory alone. It is
/// read without its quotes, so that what they hide is taken for commands: `false` says nothing.
pub(super) fn leaves_state(state: &ShellState, command: &str) -> bool {
    let Some(state) = &state.0 else {
        return false;
    };
    if !(state.functions.is_empty() && state.aliases.is_empty()) {
        return false;
    }
    // `$[x++]` is arithmetic; `find` and `rg` run what is not theirs only by such options.
    if command.contains(EXPANDED)
        || command.contains("$[")
        || command.contains("-exec")
        || command.contains("-ok")
    {
        return false;
    }
    let mut before = ' ';
    let ends = |c: char| {
        let last = std::mem::replace(&mut before, c);
        matches!(c, '|' | ';' | '\n') || (c == '&' && !matches!(last, '>' | '<'))
    };
    command.split(ends).all(|part| {
        let word = part.split_ascii_whitespace().next();
        word.is_none_or(|word| PROGRAMS.binary_search(&word).is_ok())
    })
}
