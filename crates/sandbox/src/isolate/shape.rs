//! Turns what models write into a module with a default export: fences, a bare expression, a function,
//! a body with `return`. Only insertions and cuts are made, so that positions can be told exactly.

use oxc::allocator::Allocator;
use oxc::ast::ast::{Expression, Program, Statement};
use oxc::parser::Parser;
use oxc::span::{GetSpan, SourceType};

use super::IsolateError;
use super::strip::Problem;
use crate::deep;

/// Changes of a text: at an offset, so many bytes go and a text comes. In ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits(Vec<Edit>);

#[derive(Clone, Debug)]
struct Edit {
    at: usize,
    cut: usize,
    put: String,
}

impl Edits {
    pub(super) fn cut(&mut self, at: usize, len: usize) {
        self.0.push(Edit {
            at,
            cut: len,
            put: String::new(),
        });
    }

    pub(super) fn put(&mut self, at: usize, text: &str) {
        self.0.push(Edit {
            at,
            cut: 0,
            put: text.to_owned(),
        });
    }

    pub(super) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 64);
        let mut at = 0;
        for edit in &self.0 {
            out.push_str(&text[at..edit.at]);
            out.push_str(&edit.put);
            at = edit.at + edit.cut;
        }
        out.push_str(&text[at..]);
        out
    }

    /// From an offset of the changed text to the original's.
    pub(super) fn original(&self, offset: usize) -> usize {
        let (mut before, mut after) = (0, 0);
        for edit in &self.0 {
            let start = after + (edit.at - before);
            if offset < start {
                break;
            }
            if offset < start + edit.put.len() {
                return edit.at;
            }
            before = edit.at + edit.cut;
            after = start + edit.put.len();
        }
        before + (offset - after.min(offset))
    }
}

/// The entry as a module.
#[derive(Debug)]
pub(super) struct Shaped {
    pub(super) text: String,
    pub(super) edits: Edits,
}

/// Line and column, from 1; columns count UTF-16 units, as the engine does.
pub(crate) fn position(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let head = &text[..offset];
    let line = head.matches('\n').count() + 1;
    let column = head[head.rfind('\n').map_or(0, |at| at + 1)..]
        .encode_utf16()
        .count()
        + 1;
    (
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(column).unwrap_or(u32::MAX),
    )
}

/// The offset of a line and column, both from 1.
pub(super) fn offset(text: &str, row: u32, column: u32) -> usize {
    let mut start = 0;
    for _ in 1..row {
        match text[start..].find('\n') {
            Some(at) => start += at + 1,
            None => return text.len(),
        }
    }
    let mut left = column.saturating_sub(1);
    for (at, c) in text[start..].char_indices() {
        if left == 0 || c == '\n' {
            return start + at;
        }
        left = left.saturating_sub(u32::try_from(c.len_utf16()).unwrap_or(1));
    }
    text.len()
}

/// The part of `source` that is code: without one surrounding fence.
fn unfenced(source: &str) -> (usize, usize) {
    let start = source.len() - source.trim_start().len();
    let end = source.trim_end().len();
    let text = source.get(start..end).unwrap_or("");
    let Some(line) = text
        .strip_prefix("```")
        .and_then(|rest| rest.split_once('\n'))
    else {
        return (0, source.len());
    };
    let language = line.0.trim().to_ascii_lowercase();
    let known = [
        "",
        "js",
        "javascript",
        "mjs",
        "ts",
        "typescript",
        "tsx",
        "jsx",
    ];
    if !known.contains(&language.as_str()) || !text.ends_with("```") || text.len() < 6 {
        return (0, source.len());
    }
    let body = end - line.1.len();
    (body, (end - 3).max(body))
}

/// How the text reads as a module.
enum Reading {
    /// There is nothing in it.
    Empty,
    /// It says itself what it exports.
    Module,
    /// One function, or an expression that is one: exported as it is.
    Function(usize),
    /// One named function: exported by its name.
    Named(String),
    /// The last statement is this expression.
    Value(usize, usize),
    /// Statements without a value.
    Statements,
}

/// Reads the text as TypeScript, which all JavaScript that models write is too.
fn read(text: &str) -> Result<Reading, Problem> {
    deep::parse(text, || parsed(text)).unwrap_or_else(|| Err(Problem::nested()))
}

fn parsed(text: &str) -> Result<Reading, Problem> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
    if parsed.diagnostics.is_empty() && !parsed.panicked {
        return Ok(reading(&parsed.program));
    }
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::ts()).parse();
    match parsed.diagnostics.iter().next() {
        Some(first) => Err(Problem::new(first)),
        None => Ok(reading(&parsed.program)),
    }
}

fn reading(program: &Program<'_>) -> Reading {
    let exports = program.body.iter().any(|statement| {
        matches!(
            statement,
            Statement::ExportDefaultDeclaration(_)
                | Statement::ExportNamedDeclaration(_)
                | Statement::ExportAllDeclaration(_)
                | Statement::TSExportAssignment(_)
        )
    });
    if exports {
        return Reading::Module;
    }
    let real: Vec<&Statement<'_>> = program
        .body
        .iter()
        .filter(|statement| !matches!(statement, Statement::EmptyStatement(_)))
        .collect();
    let Some(last) = real.last() else {
        return match program.directives.last() {
            Some(directive) => Reading::Value(
                directive.expression.span.start as usize,
                directive.expression.span.end as usize,
            ),
            None => Reading::Empty,
        };
    };
    match last {
        Statement::ExpressionStatement(statement) => {
            let span = statement.expression.span();
            if real.len() == 1 && is_function(&statement.expression) {
                return Reading::Function(statement.span.start as usize);
            }
            Reading::Value(span.start as usize, span.end as usize)
        }
        Statement::FunctionDeclaration(function) if real.len() == 1 => match &function.id {
            Some(id) => Reading::Named(id.name.to_string()),
            None => Reading::Statements,
        },
        _ => Reading::Statements,
    }
}

fn is_function(expression: &Expression<'_>) -> bool {
    match expression {
        Expression::ArrowFunctionExpression(_) | Expression::FunctionExpression(_) => true,
        Expression::ParenthesizedExpression(inner) => is_function(&inner.expression),
        _ => false,
    }
}

/// `source` as a module whose default export is its value or function.
/// `before` stands before it.
pub(super) fn entry(name: &str, source: &str, before: &str) -> Result<Shaped, IsolateError> {
    let (start, end) = unfenced(source);
    let body = &source[start..end];
    let mut edits = Edits::default();
    if start > 0 {
        edits.cut(0, start);
    }
    if !before.is_empty() {
        edits.put(start, before);
    }
    let problem = match read(body) {
        Ok(reading) => {
            shape(&reading, start, end, &mut edits);
            None
        }
        Err(problem) => fallback(body, start, end, &mut edits).map_or(Some(problem), |()| None),
    };
    if let Some(problem) = problem {
        let (line, column) = position(source, start + problem.offset);
        return Err(IsolateError::Syntax {
            file: name.to_owned(),
            line,
            column,
            message: problem.message,
        });
    }
    if end < source.len() {
        edits.cut(end, source.len() - end);
    }
    Ok(Shaped {
        text: edits.apply(source),
        edits,
    })
}

fn shape(reading: &Reading, start: usize, end: usize, edits: &mut Edits) {
    match reading {
        Reading::Empty => edits.put(end, "\nexport default undefined;"),
        Reading::Module | Reading::Statements => {}
        Reading::Function(at) => edits.put(start + at, "export default "),
        Reading::Named(name) => edits.put(end, &format!("\nexport default {name};")),
        Reading::Value(from, to) => {
            edits.put(start + from, "export default (");
            edits.put(start + to, ");");
        }
    }
}

/// What is no module may be an expression (an object, an anonymous function) or the body of a function.
fn fallback(body: &str, start: usize, end: usize, edits: &mut Edits) -> Option<()> {
    let trimmed = body.trim_end().trim_end_matches(';').len();
    let expression = format!("export default ({}\n)", &body[..trimmed]);
    let function = format!("export default async () => {{{body}\n}}");
    if read(&expression).is_ok() {
        edits.put(start, "export default (");
        edits.put(start + trimmed, "\n)");
        return Some(());
    }
    read(&function).ok()?;
    edits.put(start, "export default async () => {");
    edits.put(end, "\n}");
    Some(())
}
