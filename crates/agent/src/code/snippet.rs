//! Code that people promoted, for `codemode.run`, and what stands before every program.

use bowline_sandbox::isolate::{IsolateError, Program};

use super::CODEMODE;
use crate::binding::Web;

/// The file name in the positions of the model's code.
pub(crate) const FILE: &str = "code.ts";
/// Where `import` finds the snippets.
const FOLDER: &str = "snippets";

/// Code that a person promoted under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snippet {
    /// Its name, with which `codemode.run` finds it.
    pub(crate) name: String,
    /// What it is for: its first comment.
    pub(crate) description: String,
    /// The code.
    pub(crate) source: String,
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
    if source.contains(CODEMODE) && source.contains("run") {
        for snippet in snippets {
            let name = format!("{FOLDER}/{}.ts", snippet.name);
            program = program.snippet(&name, &snippet.source, &before(&snippet.source))?;
        }
    }
    Ok(program)
}
