//! TypeScript as text.

use serde_json::Value as Json;

use super::shape::{Property, Shape, Tuple};

/// An object without comments that is not longer stands on one line.
const LINE: usize = 72;

/// The keywords of a schema that stay as tags of the comment, so that they are not lost.
const TAGS: [&str; 13] = [
    "default",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
];

/// A doc comment: its lines.
#[derive(Default)]
pub(super) struct Docs(Vec<String>);

impl Docs {
    pub(super) fn of(text: &str) -> Self {
        let mut docs = Self::default();
        docs.push(text.trim());
        docs
    }

    /// What a property's schema says besides its type. Bounds are for whoever makes a value: of a result, what
    /// it cannot be is no news.
    fn of_schema(schema: &Json, result: bool) -> Self {
        let said = schema.get("description").and_then(Json::as_str);
        let mut docs = Self::of(said.unwrap_or_default());
        let tags = if result { &["format"] } else { &TAGS[..] };
        for &tag in tags {
            match schema.get(tag) {
                None => {}
                // It is in the type.
                Some(Json::String(format)) if tag == "format" && format == "binary" => {}
                Some(Json::String(text)) if tag != "default" => docs.tag(tag, text),
                Some(value) => docs.tag(tag, &value.to_string()),
            }
        }
        if !result && schema.get("type").is_some_and(|kind| kind == "integer") {
            docs.tag("type", "integer");
        }
        if schema.get("deprecated") == Some(&Json::Bool(true)) {
            docs.push("@deprecated");
        }
        // A few bounds need no more than a line.
        if docs.0.iter().all(|line| line.starts_with('@')) {
            let line = docs.0.join(" ");
            if line.len() <= LINE && docs.0.len() > 1 {
                docs.0 = vec![line];
            }
        }
        docs
    }

    pub(super) fn tag(&mut self, tag: &str, text: &str) {
        self.push(&format!("@{tag} {}", text.trim()));
    }

    fn push(&mut self, text: &str) {
        if !text.is_empty() {
            let text = text.replace("*/", "*\\/");
            self.0
                .extend(text.lines().map(|line| line.trim_end().to_owned()));
        }
    }
}

#[derive(Default)]
pub(super) struct Printer {
    text: String,
    indent: usize,
    /// Everything on one line; what would be longer than [`LINE`] is not written out.
    flat: bool,
    /// What is printed is given, and not taken.
    result: bool,
}

impl Printer {
    pub(super) fn finish(self) -> String {
        self.text
    }

    pub(super) fn text(&mut self, text: &str) {
        if !self.flat || self.text.len() <= LINE {
            self.text.push_str(text);
        }
    }

    /// Prints what is given from here on, or again what is taken.
    pub(super) fn results(&mut self, result: bool) {
        self.result = result;
    }

    /// The object on one line, if it has no comments and is short.
    fn on_one_line(&self, properties: &[Property]) -> Option<String> {
        let mut line = Self {
            flat: true,
            result: self.result,
            ..Self::default()
        };
        line.flat_object(properties);
        (line.text.len() <= LINE).then_some(line.text)
    }

    fn flat_object(&mut self, properties: &[Property]) {
        self.text("{ ");
        for (index, property) in properties.iter().enumerate() {
            if self.text.len() > LINE {
                return;
            }
            if !Docs::of_schema(&property.schema, self.result).0.is_empty() {
                self.text.push_str(&" ".repeat(LINE));
                return;
            }
            self.text(if index > 0 { "; " } else { "" });
            self.property(property);
        }
        self.text(" }");
    }

    pub(super) fn line(&mut self) {
        self.text.push('\n');
        for _ in 0..self.indent {
            self.text.push_str("  ");
        }
    }

    pub(super) fn indented(&mut self, then: impl FnOnce(&mut Self)) {
        self.indent += 1;
        then(self);
        self.indent -= 1;
    }

    /// The comment, and the line after it.
    pub(super) fn docs(&mut self, docs: &Docs) {
        match docs.0.as_slice() {
            [] => return,
            [one] => {
                self.text("/** ");
                self.text(one);
                self.text(" */");
            }
            lines => {
                self.text("/**");
                for text in lines {
                    self.line();
                    self.text(if text.is_empty() { " *" } else { " * " });
                    self.text(text);
                }
                self.line();
                self.text(" */");
            }
        }
        self.line();
    }

    /// The name of a property or a method.
    pub(super) fn key(&mut self, name: &str) {
        if is_identifier(name) {
            self.text(name);
        } else {
            self.text(&Json::from(name).to_string());
        }
    }

    pub(super) fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Word(word) => self.text(word),
            Shape::Union(parts) => {
                self.joined(parts, " | ", |part| matches!(part, Shape::Intersection(_)))
            }
            Shape::Intersection(parts) => {
                self.joined(parts, " & ", |part| matches!(part, Shape::Union(_)));
            }
            Shape::Array(item) => {
                let several = matches!(**item, Shape::Union(_) | Shape::Intersection(_));
                self.within(item, several);
                self.text("[]");
            }
            Shape::Tuple(tuple) => self.tuple(tuple),
            Shape::Object(properties) => self.object(properties),
            Shape::Record(value) => {
                self.text("Record<string, ");
                self.shape(value);
                self.text(">");
            }
        }
    }

    fn joined(&mut self, parts: &[Shape], sign: &str, parentheses: impl Fn(&Shape) -> bool) {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.text(sign);
            }
            self.within(part, parentheses(part));
        }
    }

    fn within(&mut self, shape: &Shape, parentheses: bool) {
        self.text(if parentheses { "(" } else { "" });
        self.shape(shape);
        self.text(if parentheses { ")" } else { "" });
    }

    fn tuple(&mut self, tuple: &Tuple) {
        self.text("[");
        for (index, item) in tuple.items.iter().enumerate() {
            if index > 0 {
                self.text(", ");
            }
            let optional = index >= tuple.required;
            let several = matches!(item, Shape::Union(_) | Shape::Intersection(_));
            self.within(item, optional && several);
            self.text(if optional { "?" } else { "" });
        }
        if let Some(rest) = &tuple.rest {
            self.text(if tuple.items.is_empty() {
                "..."
            } else {
                ", ..."
            });
            self.shape(&Shape::Array(rest.clone()));
        }
        self.text("]");
    }

    fn object(&mut self, properties: &[Property]) {
        if properties.is_empty() {
            self.text("{}");
            return;
        }
        if self.flat {
            self.flat_object(properties);
            return;
        }
        if let Some(line) = self.on_one_line(properties) {
            self.text(&line);
            return;
        }
        self.text("{");
        self.indented(|printer| {
            for property in properties {
                printer.line();
                let docs = Docs::of_schema(&property.schema, printer.result);
                printer.docs(&docs);
                printer.property(property);
                printer.text(";");
            }
        });
        self.line();
        self.text("}");
    }

    fn property(&mut self, property: &Property) {
        self.key(&property.name);
        self.text(if property.optional { "?: " } else { ": " });
        self.shape(&property.shape);
    }
}

/// Whether a name may stand without quotes. Letters beyond ASCII are quoted, which is right as well.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() && name.chars().all(goes_on)
}

/// Whether an identifier may have this after its first character.
pub(super) fn goes_on(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}
