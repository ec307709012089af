//! What code sees, as TypeScript declarations: `declare const NAME: { method(…): Promise<…> }`.
//!
//! A schema may come from outside, so what is written of it is bounded: at most [`MAX_DEPTH`] types
//! within each other and [`MAX_PARTS`] in one schema. What is beyond, what refers to itself and what
//! TypeScript cannot say is `unknown`.

mod print;
mod shape;

use bowline_sandbox::isolate::is_reserved_word;
use serde_json::Value as Json;

use super::{Binding, Method};
use print::{Docs, Printer};
use shape::Shape;
pub use shape::{MAX_DEPTH, MAX_PARTS};

/// The declarations of a binding: one `declare const` with its methods, in their order, each with what
/// its description, its parameters' and their properties' say as a doc comment. Ends with a newline.
pub fn declarations(binding: &dyn Binding) -> String {
    declare(binding, binding.methods().iter())
}

/// The declaration of one method, within its namespace as in [`declarations`]; nothing when the binding
/// has no method of this name.
pub fn declaration(binding: &dyn Binding, method: &str) -> Option<String> {
    let method = binding.methods().iter().find(|one| one.name == method)?;
    Some(declare(binding, std::iter::once(method)))
}

/// The type of the values that a schema describes, such as `{ name: string; tags?: string[] }`.
pub fn type_of(schema: &Json) -> String {
    let mut printer = Printer::default();
    printer.shape(&Shape::of(schema));
    printer.finish()
}

fn declare<'a>(binding: &dyn Binding, methods: impl Iterator<Item = &'a Method>) -> String {
    let mut printer = Printer::default();
    printer.docs(&Docs::of(binding.description()));
    printer.text("declare const ");
    printer.text(binding.name());
    printer.text(": {");
    printer.indented(|printer| {
        for method in methods {
            printer.line();
            self::method(printer, method);
        }
    });
    printer.line();
    printer.text("};\n");
    printer.finish()
}

fn method(printer: &mut Printer, method: &Method) {
    let mut docs = Docs::of(&method.description);
    let names = names(method);
    for (parameter, name) in method.parameters.iter().zip(&names) {
        if let Some(said) = parameter.schema.get("description").and_then(Json::as_str) {
            docs.tag("param", &format!("{name} - {said}"));
        }
    }
    if let Some(said) = method
        .returns
        .as_ref()
        .and_then(|schema| schema.get("description"))
        && let Some(said) = said.as_str()
    {
        docs.tag("returns", said);
    }
    if method.approval {
        docs.tag("remarks", "A person is asked first.");
    }
    printer.docs(&docs);
    printer.key(&method.name);
    printer.text("(");
    let mut optional = false;
    for (index, (parameter, name)) in method.parameters.iter().zip(&names).enumerate() {
        if index > 0 {
            printer.text(", ");
        }
        optional |= parameter.optional;
        printer.text(name);
        printer.text(if optional { "?: " } else { ": " });
        printer.shape(&Shape::of(&parameter.schema));
    }
    printer.text("): Promise<");
    printer.results(true);
    match &method.returns {
        Some(schema) => printer.shape(&Shape::of(schema)),
        None => printer.text("unknown"),
    }
    printer.results(false);
    printer.text(">;");
}

/// The names of the parameters as identifiers, each once.
fn names(method: &Method) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for parameter in &method.parameters {
        let mut name: String = parameter
            .name
            .chars()
            .map(|c| if print::goes_on(c) { c } else { '_' })
            .collect();
        if !print::is_identifier(&name) {
            name.insert(0, '_');
        }
        if is_reserved_word(&name) || names.contains(&name) {
            name = format!("{name}_{}", names.len() + 1);
        }
        names.push(name);
    }
    names
}
