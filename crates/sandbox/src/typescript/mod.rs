//! What a file of TypeScript says about its default function: JSON Schemas of the parameters and of
//! what it gives, and a description, so that an author writes nothing twice.
//!
//! Types are read from the syntax tree, also through imports; nothing is run and nothing is inferred.
//! A type that JSON cannot have is an error with its place and what to write instead.
//!
//! ```
//! use bowline_sandbox::typescript;
//!
//! let source = "/** Adds. */ export default (input: { /** The numbers. */ all: number[] }): number => 0";
//! let module = typescript::read("add.ts", &|name| Ok((name == "add.ts").then(|| source.to_owned())))?;
//! assert_eq!(module.function.description, "Adds.");
//! assert_eq!(
//!     module.function.parameters[0].schema,
//!     serde_json::json!({"type": "object", "required": ["all"], "properties":
//!         {"all": {"type": "array", "items": {"type": "number"}, "description": "The numbers."}}})
//! );
//! # Ok::<(), typescript::SourceError>(())
//! ```
//!
//! - `graph`: the files and what they declare; `function`: the default export and its settings.
//! - `schema`, `reference`, `combine`: types as JSON Schema; `literal`: constants; `doc`: comments.

mod combine;
mod doc;
mod function;
mod graph;
mod literal;
mod reference;
mod schema;

use oxc::allocator::Allocator;
use serde_json::Value as Json;

/// How many files one module may consist of.
pub const MAX_FILES: usize = 64;

/// How large all files of a module may be together, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// How many parts the schema of one type may have.
pub const MAX_PARTS: usize = 10_000;

/// How many types may lie within each other.
pub const MAX_DEPTH: usize = 48;

/// A module as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Its default export.
    pub function: Function,
    /// What `export const NAME = {…}` says, when there is one of the name that was asked for.
    pub settings: Vec<Setting>,
    /// The name and the text of each file: first its own, then what it imports. They are what
    /// [`Program::module`](crate::isolate::Program::module) takes.
    pub files: Vec<(String, String)>,
}

/// A function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its own name, when it has one.
    pub name: Option<String>,
    /// What its comment says, without tags; empty when there is none.
    pub description: String,
    /// Its parameters in their order.
    pub parameters: Vec<Parameter>,
    /// The schema of what it gives, promises unwrapped; nothing when the author wrote no type.
    pub returns: Option<Json>,
    /// Where it stands, from 1.
    pub line: u32,
    /// Where in the line, from 1.
    pub column: u32,
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name; `input` when it is taken apart at once.
    pub name: String,
    /// The schema of its type. Recursive types are in its `$defs`; all else stands in place.
    pub schema: Json,
    /// Whether it may be left out.
    pub optional: bool,
    /// Where it stands, from 1.
    pub line: u32,
    /// Where in the line, from 1.
    pub column: u32,
}

/// A constant of a module, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value, which is a literal.
    pub value: Json,
    /// Where the key stands, from 1.
    pub line: u32,
    /// Where in the line, from 1.
    pub column: u32,
}

/// Why a module cannot be used, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}; {fix}")]
pub struct SourceError {
    /// What kind of mistake it is.
    pub kind: SourceErrorKind,
    /// The name of the file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in UTF-16 units as editors count.
    pub column: u32,
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead, in one line.
    pub fix: String,
}

/// The kinds of [`SourceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// It is no TypeScript.
    Syntax,
    /// A file that is imported cannot be used.
    Import,
    /// A type, or a tag of a comment, that cannot become JSON Schema.
    Type,
    /// There is no default function, or one of a form that cannot be called.
    Function,
    /// The settings are not literals.
    Setting,
}

impl SourceErrorKind {
    /// The stable name. Each has a page `docs/errors/<code>.md`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "tool_syntax",
            Self::Import => "tool_import",
            Self::Type => "tool_type",
            Self::Function => "tool_function",
            Self::Setting => "tool_setting",
        }
    }
}

impl SourceError {
    /// The stable name of this kind of error.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

/// How a file is found: its text by its name, nothing when there is none, or why it cannot be read.
pub type Find<'f> = &'f dyn Fn(&str) -> Result<Option<String>, String>;

/// Reads the module `name`. An import such as `../lib/text` is looked for beside the file that has it,
/// as it stands and with `.ts`, `.js` and `/index.ts`; `find` is asked for those names.
///
/// # Errors
///
/// [`SourceError`], the first in the order of the files.
pub fn read(name: &str, find: Find<'_>) -> Result<Module, SourceError> {
    read_with(name, "", find)
}

/// As [`read`], with the settings that the constant `settings` exports.
///
/// # Errors
///
/// As [`read`]; [`SourceErrorKind::Setting`] when they are not literals.
pub fn read_with(name: &str, settings: &str, find: Find<'_>) -> Result<Module, SourceError> {
    let allocator = Allocator::default();
    let graph = graph::Graph::read(&allocator, name, find)?;
    Ok(Module {
        settings: function::settings(&graph, settings)?,
        function: function::default(&graph)?,
        files: graph
            .files
            .iter()
            .map(|file| (file.name.to_owned(), file.text.to_owned()))
            .collect(),
    })
}
