//! Code that people promoted, for `codemode.run`, and what stands before every program.
//!
//! A snippet is a file `snippets/NAME.ts` of the agent's folder: what a model wrote once and a person
//! found good. The model can run it and cannot make one. A run keeps the snippets that it began with,
//! so one that is changed meanwhile changes nothing for it.

use bowline_sandbox::isolate::{IsolateError, Program};
use serde::{Deserialize, Serialize};

use super::CODEMODE;
use crate::binding::Web;
use crate::definition::is_tool_name;

/// The file name in the positions of the model's code.
pub(crate) const FILE: &str = "code.ts";
/// Where `import` finds the snippets.
const FOLDER: &str = "snippets";

/// Most snippets of an agent.
pub const MOST: usize = 100;
/// Bytes of one snippet, at most.
pub const MAX_BYTES: usize = 64 << 10;
/// Bytes of all snippets of an agent, at most: half of what a program may have.
pub const MAX_TOTAL: usize = 512 << 10;

/// Code that a person promoted under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snippet {
    /// Its name, with which `codemode.run` finds it.
    pub name: String,
    /// What it is for: its first comment.
    pub description: String,
    /// The code: JavaScript or TypeScript as a model writes it. Where it is a function, it is called with
    /// the input that `codemode.run` gives.
    pub source: String,
}

/// Why code cannot be a snippet.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SnippetError {
    /// Its name is none.
    #[error(
        "`{0}` cannot name a snippet; use small letters and digits, with `-` or `_` between words, at most 64"
    )]
    Name(String),
    /// It is too large.
    #[error("has {0} bytes; a snippet may have 65,536")]
    TooLarge(usize),
    /// It does not parse.
    #[error(transparent)]
    Code(#[from] IsolateError),
}

impl SnippetError {
    /// The stable type that users see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::TooLarge(_) => "snippet_invalid",
            Self::Code(error) => error.code(),
        }
    }
}

impl Snippet {
    /// Code under a name; its description is its first comment.
    ///
    /// # Errors
    ///
    /// When the name is none, or the code is too large or does not parse.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Result<Self, SnippetError> {
        let (name, source) = (name.into(), source.into());
        if !is_tool_name(&name) {
            return Err(SnippetError::Name(name));
        }
        if source.len() > MAX_BYTES {
            return Err(SnippetError::TooLarge(source.len()));
        }
        Program::new(&format!("{name}.ts"), &source)?;
        Ok(Self {
            description: first_comment(&source),
            name,
            source,
        })
    }
}

/// The text of the comment with which some code begins, on one line.
fn first_comment(source: &str) -> String {
    let source = source.trim_start();
    let lines: Vec<&str> = if let Some(rest) = source.strip_prefix("/*") {
        let inside = rest.split_once("*/").map_or("", |(inside, _)| inside);
        inside
            .lines()
            .map(|line| line.trim().trim_start_matches('*').trim())
            .collect()
    } else {
        let comment = |line: &str| line.trim_start().starts_with("//");
        let lines = source.lines().take_while(|line| comment(line));
        lines
            .map(|line| line.trim_start().trim_start_matches('/').trim())
            .collect()
    };
    let mut text = String::new();
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(line);
    }
    text
}

/// The snippets that a program may run: all, or none where it asks for none.
pub(crate) fn wanted<'a>(source: &str, snippets: &'a [Snippet]) -> &'a [Snippet] {
    if source.contains(CODEMODE) && source.contains("run") {
        snippets
    } else {
        &[]
    }
}

/// `codemode` as code sees it: what the host cannot do, because a function does not cross, is code.
const BEFORE: &str = "const codemode = (() => { const host = globalThis.codemode; return Object.freeze({ \
search: (query) => host.search(query), describe: (target) => host.describe(target), \
step: async (name, body) => await (typeof name === 'function' ? name : body)(), \
run: async (name, input) => { let found; \
try { found = await import('snippets/' + name + '.ts'); } \
catch (error) { return { error: 'the snippet \"' + name + '\" cannot be run: ' + (error?.message ?? error) }; } \
return typeof found.default === 'function' ? await found.default(input) : found.default; } }); })(); ";

/// What stands before a source: `codemode` and `fetch`, where it names them.
fn before(source: &str) -> String {
    let codemode = if source.contains(CODEMODE) {
        BEFORE
    } else {
        ""
    };
    format!("{codemode}{}", Web::before([source]))
}

/// The program of the model's code, with the snippets if it mentions `codemode`.
pub(crate) fn program(source: &str, snippets: &[Snippet]) -> Result<Program, IsolateError> {
    let mut program = Program::with_before(FILE, source, &before(source))?;
    for snippet in wanted(source, snippets) {
        let name = format!("{FOLDER}/{}.ts", snippet.name);
        program = program.snippet(&name, &snippet.source, &before(&snippet.source))?;
    }
    Ok(program)
}
