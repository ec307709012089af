//! Types are taken out of TypeScript with oxc; enums, namespaces and parameter properties become code.

use std::path::{Path, PathBuf};

use oxc::allocator::Allocator;
use oxc::codegen::{Codegen, CodegenOptions, CodegenReturn};
use oxc::diagnostics::OxcDiagnostic;
use oxc::parser::Parser;
use oxc::semantic::SemanticBuilder;
use oxc::span::SourceType;
use oxc::transformer::{TransformOptions, Transformer};

use crate::deep;

/// Why a text is not a program, and where.
#[derive(Debug)]
pub(crate) struct Problem {
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(diagnostic: &OxcDiagnostic) -> Self {
        let offset = diagnostic
            .labels
            .iter()
            .next()
            .map_or(0, |label| label.offset() as usize);
        let mut message = diagnostic.message.to_string();
        if let Some(help) = &diagnostic.help {
            message.push_str(" (");
            message.push_str(help);
            message.push(')');
        }
        Self { offset, message }
    }

    /// The text is more than a parser goes down.
    pub(super) fn nested() -> Self {
        Self {
            offset: 0,
            message: "the code is nested too deeply; give variables or functions to its parts"
                .to_owned(),
        }
    }
}

/// Whether `text` parses as a module of JavaScript, so that it can run as it is.
pub(super) fn is_javascript(text: &str) -> bool {
    let parses = deep::parse(text, || {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
        !parsed.panicked && parsed.diagnostics.is_empty()
    });
    parses.unwrap_or(false)
}

/// The JavaScript of a TypeScript module.
pub(super) fn strip(name: &str, text: &str) -> Result<String, Problem> {
    transform(name, text, None, |printed| printed.code)
}

/// Where in `text` the token at this line and column (from 1) of its JavaScript stands.
pub(super) fn original_position(
    name: &str,
    text: &str,
    row: u32,
    column: u32,
) -> Option<(u32, u32)> {
    let row = row.checked_sub(1)?;
    let column = column.checked_sub(1)?;
    let map = Some(PathBuf::from(name));
    transform(name, text, map, |printed| {
        let map = printed.map?;
        let table = map.generate_lookup_table();
        let token = map.lookup_token_approx(&table, row, column)?;
        Some((token.get_src_line() + 1, token.get_src_col() + 1))
    })
    .ok()?
}

fn transform<T: Send>(
    name: &str,
    text: &str,
    map: Option<PathBuf>,
    then: impl FnOnce(CodegenReturn<'_>) -> T + Send,
) -> Result<T, Problem> {
    let done = deep::parse(text, || transformed(name, text, map, then));
    done.unwrap_or_else(|| Err(Problem::nested()))
}

fn transformed<T>(
    name: &str,
    text: &str,
    map: Option<PathBuf>,
    then: impl FnOnce(CodegenReturn<'_>) -> T,
) -> Result<T, Problem> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::ts()).parse();
    if let Some(first) = parsed.diagnostics.iter().next() {
        return Err(Problem::new(first));
    }
    let mut program = parsed.program;
    let semantic = SemanticBuilder::new()
        .with_excess_capacity(1.0)
        .with_check_syntax_error(true)
        .with_enum_eval(true)
        .build(&program);
    if let Some(first) = semantic.diagnostics.iter().next() {
        return Err(Problem::new(first));
    }
    let scoping = semantic.semantic.into_scoping();
    let options = TransformOptions::default();
    let transformed = Transformer::new(&allocator, Path::new(name), &options)
        .build_with_scoping(scoping, &mut program);
    if let Some(first) = transformed.diagnostics.iter().next() {
        return Err(Problem::new(first));
    }
    let options = CodegenOptions {
        source_map_path: map,
        ..CodegenOptions::default()
    };
    Ok(then(Codegen::new().with_options(options).build(&program)))
}
