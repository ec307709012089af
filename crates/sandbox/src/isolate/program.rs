//! The code that an isolate runs: one entry and the modules that it may import.

use std::fmt::Write as _;

use super::IsolateError;
use super::shape::{self, Edits};
use super::strip;
use super::wire::Writer;

/// Code, ready to run. It is made once and can be started many times.
///
/// The entry is TypeScript or JavaScript as models and people write it. What runs is a module whose
/// `default` export is called, or awaited when it is no function. So all of these give 3:
///
/// ```text
/// 1 + 2
/// async () => 1 + 2
/// export default function () { return 1 + 2 }
/// const three = 1 + 2; return three
/// ```
///
/// and the same between the lines of a Markdown fence.
#[derive(Clone, Debug)]
pub struct Program {
    modules: Vec<Module>,
}

#[derive(Clone, Debug)]
struct Module {
    name: String,
    source: String,
    /// What was put into the source before it was parsed.
    edits: Edits,
    script: Script,
}

/// What the engine gets.
#[derive(Clone, Debug)]
enum Script {
    /// The source with its edits: there was no TypeScript in it.
    AsWritten(String),
    /// Printed again without its types; positions are looked up when they are asked for.
    Stripped(String),
}

impl Script {
    fn text(&self) -> &str {
        match self {
            Self::AsWritten(text) | Self::Stripped(text) => text,
        }
    }
}

impl Program {
    /// The largest source, all modules together, in bytes.
    pub const MAX_BYTES: usize = 1 << 20;
    /// How many modules a program may have.
    pub const MAX_MODULES: usize = 256;

    /// Prepares `source`. `name` stands in positions, `main.ts` for example.
    ///
    /// # Errors
    /// [`IsolateError::Syntax`] with the author's line and column, [`IsolateError::SourceTooLarge`].
    pub fn new(name: &str, source: &str) -> Result<Self, IsolateError> {
        Self::with_before(name, source, "")
    }

    /// The same with declarations of the caller's before the source, in the same module: the source sees
    /// them, and must not declare the same names. Positions stay those of the source.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn with_before(name: &str, source: &str, before: &str) -> Result<Self, IsolateError> {
        check_size(source.len())?;
        Ok(Self {
            modules: vec![shaped(name, source, before)?],
        })
    }

    /// Adds a module that is shaped as the entry is, so that `import` finds what its source gives as its
    /// `default` export; `before` as in [`Program::with_before`].
    ///
    /// # Errors
    /// As [`Program::module`].
    pub fn snippet(mut self, name: &str, source: &str, before: &str) -> Result<Self, IsolateError> {
        self.check_room(source)?;
        self.modules.push(shaped(name, source, before)?);
        Ok(self)
    }

    /// Adds a module that `import` finds under `name`; `./name`, without its ending, and `.js` for `.ts`
    /// find it too. It is taken as it is: only types are stripped.
    ///
    /// # Errors
    /// [`IsolateError::Syntax`], [`IsolateError::SourceTooLarge`].
    pub fn module(mut self, name: &str, source: &str) -> Result<Self, IsolateError> {
        self.check_room(source)?;
        let edits = Edits::default();
        let script = prepare(name, source, source, &edits)?;
        self.modules.push(Module {
            name: name.to_owned(),
            source: source.to_owned(),
            edits,
            script,
        });
        Ok(self)
    }

    fn check_room(&self, source: &str) -> Result<(), IsolateError> {
        check_size(self.modules.iter().map(|m| m.source.len()).sum::<usize>() + source.len())?;
        if self.modules.len() >= Self::MAX_MODULES {
            return Err(IsolateError::SourceTooLarge {
                bytes: self.modules.len() as u64 + 1,
                limit: Self::MAX_MODULES as u64,
            });
        }
        Ok(())
    }

    /// The JavaScript of the entry, as the engine gets it.
    pub fn script(&self) -> &str {
        self.modules
            .first()
            .map_or("", |module| module.script.text())
    }

    /// `stack` with the author's lines and columns instead of the engine's, and without the engine's
    /// own frames.
    pub fn locate(&self, stack: &str) -> String {
        let mut out = String::with_capacity(stack.len());
        for line in stack.lines() {
            if line.contains("bowline:prelude") {
                continue;
            }
            if !out.is_empty() {
                out.push('\n');
            }
            self.locate_line(line, &mut out);
        }
        out
    }

    fn locate_line(&self, line: &str, out: &mut String) {
        for module in &self.modules {
            let Some(at) = line.rfind(&format!("{}:", module.name)) else {
                continue;
            };
            let rest = &line[at + module.name.len() + 1..];
            let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
            let first = digits(rest);
            let Some(second) = rest[first..].strip_prefix(':') else {
                continue;
            };
            let len = digits(second);
            let (Ok(row), Ok(column)) = (rest[..first].parse(), second[..len].parse()) else {
                continue;
            };
            let (row, column) = module.author_position(row, column);
            out.push_str(&line[..at]);
            let _ = write!(out, "{}:{row}:{column}{}", module.name, &second[len..]);
            return;
        }
        out.push_str(line);
    }

    pub(super) fn len(&self) -> usize {
        self.modules
            .iter()
            .map(|module| module.name.len() + module.script.text().len() + 16)
            .sum()
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.number(self.modules.len() as u64);
        for module in &self.modules {
            out.text(module.name.as_bytes());
            out.text(module.script.text().as_bytes());
        }
    }
}

impl Module {
    /// From the engine's line and column (from 1) to the author's.
    fn author_position(&self, row: u32, column: u32) -> (u32, u32) {
        let edited = self.edits.apply(&self.source);
        let (row, column) = match &self.script {
            Script::AsWritten(_) => (row, column),
            // The map costs more than stripping, and most runs never need it.
            Script::Stripped(_) => {
                strip::original_position(&self.name, &edited, row, column).unwrap_or((row, column))
            }
        };
        let offset = self.edits.original(shape::offset(&edited, row, column));
        shape::position(&self.source, offset)
    }
}

fn shaped(name: &str, source: &str, before: &str) -> Result<Module, IsolateError> {
    let shaped = shape::entry(name, source, before)?;
    let script = prepare(name, source, &shaped.text, &shaped.edits)?;
    Ok(Module {
        name: name.to_owned(),
        source: source.to_owned(),
        edits: shaped.edits,
        script,
    })
}

pub(super) fn check_size(bytes: usize) -> Result<(), IsolateError> {
    if bytes > Program::MAX_BYTES {
        return Err(IsolateError::SourceTooLarge {
            bytes: bytes as u64,
            limit: Program::MAX_BYTES as u64,
        });
    }
    Ok(())
}

/// JavaScript stays as it is; anything else is parsed as TypeScript and printed again.
fn prepare(name: &str, source: &str, text: &str, edits: &Edits) -> Result<Script, IsolateError> {
    if strip::is_javascript(text) {
        return Ok(Script::AsWritten(text.to_owned()));
    }
    strip::strip(name, text)
        .map(Script::Stripped)
        .map_err(|problem| {
            let offset = edits.original(problem.offset);
            let (line, column) = shape::position(source, offset);
            IsolateError::Syntax {
                file: name.to_owned(),
                line,
                column,
                message: problem.message,
            }
        })
}
