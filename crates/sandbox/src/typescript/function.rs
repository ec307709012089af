//! The default export of a module, and its settings.

use oxc::ast::ast::{
    ArrowFunctionExpression, BindingPattern, Declaration, ExportDefaultDeclarationKind, Expression,
    FormalParameters, Function as AstFunction, Statement, TSType, TSTypeAnnotation,
    VariableDeclarationKind,
};
use oxc::span::{GetSpan, Span};
use serde_json::{Value as Json, json};

use super::combine::{self, Typed};
use super::doc::Doc;
use super::graph::{Graph, Value};
use super::schema::{At, Reader};
use super::{Function, Parameter, Setting, SourceError, SourceErrorKind, literal};

/// The parts of a function that are read, however it is written.
struct Parts<'a> {
    name: Option<&'a str>,
    parameters: &'a FormalParameters<'a>,
    returns: Option<&'a TSTypeAnnotation<'a>>,
    generator: bool,
    span: Span,
    /// Where its statement starts: the comment stands before that.
    start: u32,
}

const FIX: &str = "write `export default async function name(input: { … }) { … }`";

/// The default export of the module.
pub(super) fn default(graph: &Graph<'_>) -> Result<Function, SourceError> {
    let parts = find(graph)?;
    let fail = |span: Span, message: &str, fix: &str| {
        Err(graph.error(SourceErrorKind::Function, 0, span, message, fix))
    };
    if parts.generator {
        return fail(parts.span, "the function is a generator", "remove the `*`");
    }
    let doc = Doc::before(&graph.files[0], parts.start);
    let mut parameters = Vec::new();
    for one in &parts.parameters.items {
        let name = match &one.pattern {
            BindingPattern::BindingIdentifier(id) => id.name.as_str().to_owned(),
            BindingPattern::ObjectPattern(_) | BindingPattern::ArrayPattern(_) => {
                "input".to_owned()
            }
            BindingPattern::AssignmentPattern(_) => "input".to_owned(),
        };
        let Some(annotation) = &one.type_annotation else {
            let message = format!("the parameter `{name}` has no type");
            let fix = "write one, such as `{ title: string }`";
            return Err(graph.error(SourceErrorKind::Type, 0, one.span, message, fix));
        };
        let reader = Reader::new(graph, false);
        let at = At::top(0);
        let typed = reader.read(&annotation.type_annotation, &at)?;
        let optional = one.optional || one.initializer.is_some() || typed.undefined;
        let typed = Typed {
            undefined: false,
            ..typed
        };
        let mut schema = reader.defined(typed, annotation.type_annotation.span(), &at)?;
        schema = reader.finish(schema);
        defaults(&one.pattern, &mut schema);
        describe(&doc, &name, &mut schema);
        let (line, column) = graph.place(0, one.span);
        parameters.push(Parameter {
            name,
            schema,
            optional,
            line,
            column,
        });
    }
    if let Some(rest) = &parts.parameters.rest {
        let message = "a rest parameter cannot be read";
        return fail(rest.span, message, "take a list in one object");
    }
    let returns = match parts.returns {
        Some(annotation) => Some(returns(graph, &doc, &annotation.type_annotation)?),
        None => None,
    };
    let (line, column) = graph.place(0, parts.span);
    Ok(Function {
        name: parts.name.map(str::to_owned),
        description: doc.text,
        parameters,
        returns,
        line,
        column,
    })
}

fn returns<'a>(
    graph: &Graph<'a>,
    doc: &Doc<'a>,
    annotation: &'a TSType<'a>,
) -> Result<Json, SourceError> {
    let reader = Reader::new(graph, true);
    let at = At::top(0);
    let mut typed = reader.read(annotation, &at)?;
    if typed.undefined {
        // Nothing crosses as null.
        let null = Typed::new(json!({ "type": "null" }));
        typed = combine::union([Typed::new(typed.schema), null]);
    }
    let schema = reader.defined(typed, annotation.span(), &at)?;
    let mut schema = reader.finish(schema);
    if let (Some(said), Json::Object(object)) = (doc.returns(), &mut schema) {
        object.insert("description".to_owned(), said.into());
    }
    Ok(schema)
}

/// What `@param` says of a parameter and of its properties, where they say nothing themselves.
fn describe(doc: &Doc<'_>, name: &str, schema: &mut Json) {
    if let (Some(said), Json::Object(object)) = (doc.parameter(name), &mut *schema)
        && !said.is_empty()
    {
        object.entry("description").or_insert_with(|| said.into());
    }
    for (path, said) in doc.parameters() {
        let Some((first, rest)) = path.split_once('.') else {
            continue;
        };
        if first != name || said.is_empty() {
            continue;
        }
        let mut found = Some(&mut *schema);
        for part in rest.split('.') {
            found = found.and_then(|found| found.get_mut("properties")?.get_mut(part));
        }
        if let Some(Json::Object(object)) = found {
            object.entry("description").or_insert_with(|| said.into());
        }
    }
}

/// `({ limit = 10 }: { limit?: number })`: the default of a property, when it is a literal.
fn defaults(pattern: &BindingPattern<'_>, schema: &mut Json) {
    let BindingPattern::ObjectPattern(object) = pattern else {
        return;
    };
    for property in &object.properties {
        let BindingPattern::AssignmentPattern(assigned) = &property.value else {
            continue;
        };
        let (Some(name), Ok(value)) = (property.key.static_name(), literal::value(&assigned.right))
        else {
            continue;
        };
        let found = schema
            .get_mut("properties")
            .and_then(|all| all.get_mut(name.as_ref()));
        if let Some(Json::Object(object)) = found {
            object.entry("default").or_insert(value);
        }
    }
}

fn find<'a>(graph: &Graph<'a>) -> Result<Parts<'a>, SourceError> {
    let file = &graph.files[0];
    let fail = |span: Span, message: &str| {
        Err(graph.error(SourceErrorKind::Function, 0, span, message, FIX))
    };
    for statement in &file.program.body {
        let Statement::ExportDefaultDeclaration(export) = statement else {
            continue;
        };
        let start = export.span.start;
        let found = match &export.declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(one) => Some(of_function(one, start)),
            ExportDefaultDeclarationKind::Identifier(id) => {
                return by_name(graph, id.name.as_str(), id.span);
            }
            other => other
                .as_expression()
                .and_then(|expression| of_expression(expression, start)),
        };
        return match found {
            Some(parts) => Ok(parts),
            None => fail(export.span, "the default export is no function"),
        };
    }
    match file.default_name() {
        Some(name) => by_name(graph, name, file.program.span),
        None => fail(Span::new(0, 0), "the file exports no function by default"),
    }
}

fn by_name<'a>(graph: &Graph<'a>, name: &str, span: Span) -> Result<Parts<'a>, SourceError> {
    let found = match graph.files[0].values.get(name) {
        Some(Value::Function(one, start)) => Some(of_function(one, *start)),
        Some(Value::Const(init, start)) => of_expression(init, *start).map(|parts| Parts {
            name: parts.name.or(graph.files[0].text_of(name)),
            ..parts
        }),
        Some(Value::Variable) | None => None,
    };
    found.ok_or_else(|| {
        let message = format!("the default export `{name}` is no function of this file");
        graph.error(SourceErrorKind::Function, 0, span, message, FIX)
    })
}

fn of_function<'a>(one: &'a AstFunction<'a>, start: u32) -> Parts<'a> {
    Parts {
        name: one.id.as_ref().map(|id| id.name.as_str()),
        parameters: &one.params,
        returns: one.return_type.as_deref(),
        generator: one.generator,
        span: one.span,
        start,
    }
}

fn of_arrow<'a>(one: &'a ArrowFunctionExpression<'a>, start: u32) -> Parts<'a> {
    Parts {
        name: None,
        parameters: &one.params,
        returns: one.return_type.as_deref(),
        generator: false,
        span: one.span,
        start,
    }
}

fn of_expression<'a>(expression: &'a Expression<'a>, start: u32) -> Option<Parts<'a>> {
    match expression {
        Expression::ArrowFunctionExpression(one) => Some(of_arrow(one, start)),
        Expression::FunctionExpression(one) => Some(of_function(one, start)),
        other => of_expression(literal::inner(other)?, start),
    }
}

/// What `export const NAME = {…}` says; nothing when there is no such export.
pub(super) fn settings(graph: &Graph<'_>, name: &str) -> Result<Vec<Setting>, SourceError> {
    let file = &graph.files[0];
    let fail = |span: Span, message: String| {
        let fix = format!("write `export const {name} = {{ key: \"value\" }}` with literals only");
        Err(graph.error(SourceErrorKind::Setting, 0, span, message, fix))
    };
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let declared = file
        .program
        .body
        .iter()
        .find_map(|statement| match statement {
            Statement::ExportDeclaration(export) => match &export.declaration {
                Declaration::VariableDeclaration(all) => all.declarations.iter().find_map(|one| {
                    let BindingPattern::BindingIdentifier(id) = &one.id else {
                        return None;
                    };
                    (id.name == name).then_some((id.span, all.kind, one.init.as_ref()))
                }),
                _ => None,
            },
            _ => None,
        });
    let Some((span, kind, init)) = declared else {
        if !file.exports(name) {
            return Ok(Vec::new());
        }
        return fail(
            Span::new(0, 0),
            format!("`{name}` is exported in another form"),
        );
    };
    let (VariableDeclarationKind::Const, Some(mut init)) = (kind, init) else {
        return fail(span, format!("`{name}` is no constant"));
    };
    while let Some(inner) = literal::inner(init) {
        init = inner;
    }
    let Expression::ObjectExpression(object) = init else {
        return fail(init.span(), format!("`{name}` is no object"));
    };
    let mut settings = Vec::new();
    for property in &object.properties {
        let read = literal::field(property)
            .and_then(|(key, place, value)| Ok((key, place, literal::value(value)?)));
        let (key, place, value) = match read {
            Ok(found) => found,
            Err(found) => {
                return fail(
                    found.0,
                    format!("`{name}` has something that is not a literal"),
                );
            }
        };
        let (line, column) = graph.place(0, place);
        settings.push(Setting {
            key,
            value,
            line,
            column,
        });
    }
    Ok(settings)
}
