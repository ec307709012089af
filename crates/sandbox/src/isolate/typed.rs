//! What a person types at a prompt, as a script whose declarations outlive it.

use std::fmt::Write as _;

use oxc::allocator::Allocator;
use oxc::ast::ast::{
    Declaration, ImportDeclaration, ImportDeclarationSpecifier, Program, Statement,
    VariableDeclaration, VariableDeclarationKind,
};
use oxc::parser::Parser;
use oxc::span::{GetSpan as _, SourceType, Span};

use super::IsolateError;
use super::shape::{self, Edits, position};
use super::strip::{self, Problem};
use crate::deep;

/// What was typed at a prompt, in JavaScript or TypeScript.
#[derive(Clone, Debug)]
pub enum Typed {
    /// It can be run.
    Script(Script),
    /// It goes on in the next line.
    Unfinished,
}

/// A script for a global `eval`.
///
/// It gives an async function, which gives the value of the last expression. What is declared at its top
/// level becomes a property of `globalThis`, so that what is typed later sees it, and may declare it again.
/// The function is called with an object of two functions, both of which take names: `open` is called first,
/// with all that is declared; `hold` with those that must not be assigned any more.
#[derive(Clone, Debug)]
pub struct Script {
    text: String,
    source: String,
    /// What stands before what was typed in the source's first line: a bracket makes an object of a block.
    before: u32,
    /// What the text was made of, when types were taken out of the source.
    stripped: Option<String>,
    /// Functions, which are there before anything runs: where they stand in the text and in the JavaScript,
    /// and their length.
    functions: Vec<(usize, usize, usize)>,
    /// Where the rest begins in the text, and how it was changed.
    body: usize,
    edits: Edits,
}

impl Script {
    /// What is evaluated.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The author's line and column for those of the text, all from 1; none for what the author did not
    /// write.
    pub fn author_position(&self, row: u32, column: u32) -> Option<(u32, u32)> {
        let at = shape::offset(&self.text, row, column);
        let moved = |(start, from, len): &(usize, usize, usize)| {
            let inside = at.checked_sub(*start).filter(|inside| inside < len)?;
            Some(from + inside)
        };
        let at = match self.functions.iter().find_map(moved) {
            Some(at) => at,
            None => self.edits.original(at.checked_sub(self.body)?),
        };
        let (row, column) = match &self.stripped {
            None => position(&self.source, at),
            Some(stripped) => {
                let (row, column) = position(stripped, at);
                strip::original_position("typed.ts", &self.source, row, column)?
            }
        };
        let before = if row == 1 { self.before } else { 0 };
        Some((row, column.saturating_sub(before).max(1)))
    }
}

impl Typed {
    /// Reads what was typed so far; `name` stands in the position of an error.
    ///
    /// # Errors
    /// [`IsolateError::Syntax`] with line and column, [`IsolateError::SourceTooLarge`].
    pub fn read(name: &str, source: &str) -> Result<Self, IsolateError> {
        super::program::check_size(source.len())?;
        // As at other prompts, what reads as an object is one.
        let object = format!("({source}\n)");
        if source.trim_start().starts_with('{')
            && let Ok(mut script) = script(&object)
        {
            script.before = 1;
            return Ok(Self::Script(script));
        }
        match script(source) {
            Ok(script) => Ok(Self::Script(script)),
            Err(problem) if is_unfinished(source, &problem) => Ok(Self::Unfinished),
            Err(problem) => {
                let (line, column) = position(source, problem.offset);
                Err(IsolateError::Syntax {
                    file: name.to_owned(),
                    line,
                    column,
                    message: problem.message,
                })
            }
        }
    }
}

fn script(source: &str) -> Result<Script, Problem> {
    if strip::is_javascript(source) {
        return Lifted::script(source, source);
    }
    let stripped = strip::strip("typed.ts", source)?;
    let mut script = Lifted::script(source, &stripped).map_err(|problem| {
        let (row, column) = position(&stripped, problem.offset);
        let found = strip::original_position("typed.ts", source, row, column);
        Problem {
            offset: found.map_or(0, |(row, column)| shape::offset(source, row, column)),
            ..problem
        }
    })?;
    script.stripped = Some(stripped);
    Ok(script)
}

/// Whether more text could mend it: it ends too early, or within a comment or a template.
fn is_unfinished(source: &str, problem: &Problem) -> bool {
    let open = source.as_bytes().get(problem.offset);
    problem.offset >= source.trim_end().len()
        || problem.message.starts_with("Unterminated multi")
        || (problem.message.starts_with("Unterminated") && matches!(open, Some(b'`' | b'}')))
}

/// The function's parameter. Nothing that an author would write is called so.
const KEEP: &str = "__keep";

/// The declarations of a text, taken out of it.
#[derive(Default)]
struct Lifted {
    edits: Edits,
    /// What is declared.
    names: Vec<String>,
    /// Where functions stand, and their names.
    functions: Vec<(usize, usize, String)>,
}

impl Lifted {
    fn script(source: &str, text: &str) -> Result<Script, Problem> {
        let read = deep::parse(text, || Self::parsed(source, text));
        read.unwrap_or_else(|| Err(Problem::nested()))
    }

    fn parsed(source: &str, text: &str) -> Result<Script, Problem> {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
        if let Some(first) = parsed.diagnostics.iter().next() {
            return Err(Problem::new(first));
        }
        let mut lifted = Self::default();
        lifted.lift(&parsed.program)?;
        let mut out = format!("(async ({KEEP}) => {{ \"use strict\";");
        if !lifted.names.is_empty() {
            let _ = write!(out, " {KEEP}.open({});", listed(&lifted.names));
        }
        let mut functions = Vec::new();
        for (start, end, name) in &lifted.functions {
            let _ = write!(out, "\n{name} = ");
            functions.push((out.len(), *start, end - start));
            out.push_str(text.get(*start..*end).unwrap_or_default());
            out.push(';');
        }
        out.push('\n');
        let body = out.len();
        out.push_str(&lifted.edits.apply(text));
        out.push_str("\n})");
        Ok(Script {
            text: out,
            source: source.to_owned(),
            before: 0,
            stripped: None,
            functions,
            body,
            edits: lifted.edits,
        })
    }

    fn lift(&mut self, program: &Program<'_>) -> Result<(), Problem> {
        let is_real = |one: &&Statement<'_>| !matches!(one, Statement::EmptyStatement(_));
        let last = program.body.iter().rfind(is_real);
        if let (None, Some(directive)) = (last, program.directives.last()) {
            self.edits.put(directive.span.start as usize, ";return ");
        }
        for statement in &program.body {
            let (start, _) = ends(statement.span());
            match statement {
                Statement::ImportDeclaration(import) => self.import(import),
                Statement::ExportDeclaration(export) => {
                    // What is pasted from a module is declared here.
                    let (from, _) = ends(export.declaration.span());
                    self.edits.cut(start, from - start);
                    self.declare(&export.declaration);
                }
                Statement::ExpressionStatement(expression) => {
                    let is_last = last.is_some_and(|last| last.span() == statement.span());
                    if is_last {
                        let (from, to) = ends(expression.expression.span());
                        self.edits.put(from, ";return (");
                        self.edits.put(to, "\n);");
                    }
                }
                other if other.is_module_declaration() => return Err(no_exports(start)),
                other => {
                    // Blocks, loops and the like declare nothing for later.
                    if let Some(declaration) = other.as_declaration() {
                        self.declare(declaration);
                    }
                }
            }
        }
        Ok(())
    }

    fn declare(&mut self, declaration: &Declaration<'_>) {
        let (start, end) = ends(declaration.span());
        match declaration {
            Declaration::VariableDeclaration(variables) => self.variables(variables),
            Declaration::FunctionDeclaration(function) => {
                let Some(id) = &function.id else { return };
                self.functions.push((start, end, id.name.to_string()));
                self.names.push(id.name.to_string());
                self.edits.cut(start, end - start);
                self.edits.put(end, ";");
            }
            Declaration::ClassDeclaration(class) => {
                let Some(id) = &class.id else { return };
                self.names.push(id.name.to_string());
                self.edits.put(start, &format!(";{} = ", id.name));
                self.edits.put(end, ";");
            }
            // Types were taken out.
            _ => {}
        }
    }

    /// Makes assignments of them.
    fn variables(&mut self, declaration: &VariableDeclaration<'_>) {
        let again = match declaration.kind {
            VariableDeclarationKind::Var => false,
            VariableDeclarationKind::Let | VariableDeclarationKind::Const => true,
            // They end with the line.
            VariableDeclarationKind::Using | VariableDeclarationKind::AwaitUsing => return,
        };
        let (start, end) = ends(declaration.span);
        let mut first = true;
        let mut declared = Vec::new();
        for one in &declaration.declarations {
            let (from, to) = ends(one.span);
            if first {
                self.edits.cut(start, from - start);
            }
            self.edits.put(from, if first { ";(" } else { "(" });
            first = false;
            let unset = one.init.is_none() && again;
            self.edits
                .put(to, if unset { " = undefined)" } else { ")" });
            let names = one.id.get_binding_identifiers();
            declared.extend(names.into_iter().map(|id| id.name.to_string()));
        }
        self.end(end, &declared, declaration.kind.is_const());
        self.names.append(&mut declared);
    }

    /// `import { a as b } from "m"` waits for the module, and declares what cannot be assigned.
    fn import(&mut self, import: &ImportDeclaration<'_>) {
        let (start, end) = ends(import.span);
        let (from, to) = ends(import.source.span);
        let (mut declared, mut parts, mut whole) = (Vec::new(), Vec::new(), None);
        for one in import.specifiers.iter().flatten() {
            let local = one.local().name.as_str();
            declared.push(local.to_owned());
            match one {
                ImportDeclarationSpecifier::ImportSpecifier(one) => {
                    parts.push(format!("{:?}: {local}", one.imported.name().as_str()));
                }
                ImportDeclarationSpecifier::ImportDefaultSpecifier(_) => {
                    parts.push(format!("default: {local}"));
                }
                ImportDeclarationSpecifier::ImportNamespaceSpecifier(_) => {
                    whole = Some(local.to_owned());
                }
            }
        }
        let parts = format!("{{ {} }}", parts.join(", "));
        let target = match whole {
            // Both: `import first, * as all from "m"`.
            Some(whole) if declared.len() > 1 => format!("{parts} = {whole} = "),
            Some(whole) => format!("{whole} = "),
            None if declared.is_empty() => String::new(),
            None => format!("{parts} = "),
        };
        self.edits.cut(start, from - start);
        self.edits.put(from, &format!(";({target}await import("));
        self.edits.put(to, "))");
        self.edits.cut(to, end - to);
        self.end(end, &declared, true);
        self.names.append(&mut declared);
    }

    /// Ends a statement, after which these names are held or not.
    fn end(&mut self, at: usize, declared: &[String], held: bool) {
        let hold = match held && !declared.is_empty() {
            true => format!(";{KEEP}.hold({});", listed(declared)),
            false => ";".to_owned(),
        };
        self.edits.put(at, &hold);
    }
}

fn no_exports(offset: usize) -> Problem {
    Problem {
        offset,
        message: "a prompt exports nothing".to_owned(),
    }
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    quoted.join(", ")
}

fn ends(span: Span) -> (usize, usize) {
    (span.start as usize, span.end as usize)
}
