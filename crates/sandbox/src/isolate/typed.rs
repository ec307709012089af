//! What a person types at a prompt, as a script whose declarations outlive it.

use std::fmt::Write as _;

use oxc::allocator::Allocator;
use oxc::ast::ast::{Program, Statement, VariableDeclaration, VariableDeclarationKind};
use oxc::parser::Parser;
use oxc::span::{GetSpan as _, SourceType};

use super::IsolateError;
use super::shape::{Edits, position};
use super::strip::{self, Problem};

/// What was typed at a prompt, in JavaScript or TypeScript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A script for a global `eval`. It gives an async function, which gives the value of the last
    /// expression. What is declared at its top level becomes a property of `globalThis`, so that what is
    /// typed later sees it, and may declare it again; `const` does not hold between the two.
    Script(String),
    /// It goes on in the next line.
    Unfinished,
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
            && let Ok(text) = javascript(name, &object)
            && let Ok(script) = script(&text)
        {
            return Ok(Self::Script(script));
        }
        match javascript(name, source).and_then(|text| script(&text)) {
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

fn javascript(name: &str, source: &str) -> Result<String, Problem> {
    if strip::is_javascript(source) {
        return Ok(source.to_owned());
    }
    strip::strip(name, source)
}

/// Whether more text could mend it: it ends too early, or within a comment or a template.
fn is_unfinished(source: &str, problem: &Problem) -> bool {
    let open = source.as_bytes().get(problem.offset);
    problem.offset >= source.trim_end().len()
        || problem.message.starts_with("Unterminated multi")
        || (problem.message.starts_with("Unterminated") && matches!(open, Some(b'`' | b'}')))
}

/// The declarations of a text, taken out of it.
#[derive(Default)]
struct Lifted {
    edits: Edits,
    /// What is declared.
    names: Vec<String>,
    /// Functions are there before anything runs.
    functions: String,
}

fn script(text: &str) -> Result<String, Problem> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
    if let Some(first) = parsed.diagnostics.iter().next() {
        return Err(Problem::new(first));
    }
    let mut lifted = Lifted::default();
    lifted.lift(text, &parsed.program)?;
    let mut out = String::from("(async () => { \"use strict\";");
    if !lifted.names.is_empty() {
        let names: Vec<String> = lifted
            .names
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let _ = write!(
            out,
            " for (const name of [{}]) if (!(name in globalThis)) globalThis[name] = undefined;",
            names.join(", ")
        );
    }
    out.push_str(&lifted.functions);
    out.push('\n');
    out.push_str(&lifted.edits.apply(text));
    out.push_str("\n})");
    Ok(out)
}

impl Lifted {
    fn lift(&mut self, text: &str, program: &Program<'_>) -> Result<(), Problem> {
        let is_real = |one: &&Statement<'_>| !matches!(one, Statement::EmptyStatement(_));
        let last = program.body.iter().rfind(is_real);
        if let (None, Some(directive)) = (last, program.directives.last()) {
            self.edits.put(directive.span.start as usize, ";return ");
        }
        for statement in &program.body {
            let (start, end) = ends(statement.span());
            match statement {
                Statement::VariableDeclaration(declaration) => self.variables(declaration),
                Statement::FunctionDeclaration(function) => {
                    let Some(id) = &function.id else { continue };
                    let body = text.get(start..end).unwrap_or_default();
                    let _ = write!(self.functions, "\n{} = {body};", id.name);
                    self.names.push(id.name.to_string());
                    self.edits.cut(start, end - start);
                    self.edits.put(end, ";");
                }
                Statement::ClassDeclaration(class) => {
                    let Some(id) = &class.id else { continue };
                    self.names.push(id.name.to_string());
                    self.edits.put(start, &format!(";{} = ", id.name));
                    self.edits.put(end, ";");
                }
                Statement::ExpressionStatement(expression) => {
                    let is_last = last.is_some_and(|last| last.span() == statement.span());
                    if is_last {
                        let (from, to) = ends(expression.expression.span());
                        self.edits.put(from, ";return (");
                        self.edits.put(to, "\n);");
                    }
                }
                other if other.is_module_declaration() => {
                    return Err(Problem {
                        offset: start,
                        message: "there are no modules at the prompt".to_owned(),
                    });
                }
                // Blocks, loops and the like declare nothing for later.
                _ => {}
            }
        }
        Ok(())
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
            self.names
                .extend(names.into_iter().map(|id| id.name.to_string()));
        }
        self.edits.put(end, ";");
    }
}

fn ends(span: oxc::span::Span) -> (usize, usize) {
    (span.start as usize, span.end as usize)
}
