//! From JSON Schema to the types that TypeScript has.

use std::cell::Cell;

use serde_json::{Map, Value as Json};

/// How many types may lie within each other; what is deeper is `unknown`.
pub const MAX_DEPTH: usize = 16;

/// How many types one schema may become; the rest is `unknown`.
pub const MAX_PARTS: usize = 2_000;

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// A keyword, a literal or the name of a global type.
    Word(String),
    Union(Vec<Shape>),
    Intersection(Vec<Shape>),
    Array(Box<Shape>),
    Tuple(Tuple),
    Object(Vec<Property>),
    Record(Box<Shape>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tuple {
    pub(super) items: Vec<Shape>,
    /// How many of the items must be there.
    pub(super) required: usize,
    pub(super) rest: Option<Box<Shape>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) optional: bool,
    pub(super) shape: Shape,
    /// What its schema says besides the type.
    pub(super) schema: Json,
}

impl Shape {
    pub(super) fn of(schema: &Json) -> Self {
        let reader = Reader {
            root: schema,
            left: Cell::new(MAX_PARTS),
        };
        let open = Open {
            depth: 0,
            references: vec!["#"],
        };
        reader.read(schema, &open)
    }

    fn word(word: impl Into<String>) -> Self {
        Self::Word(word.into())
    }

    fn unknown() -> Self {
        Self::word("unknown")
    }

    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(this) if this == word)
    }

    /// Each once; `unknown` takes all, `never` adds nothing.
    fn union(shapes: impl IntoIterator<Item = Self>) -> Self {
        let mut parts: Vec<Self> = Vec::new();
        for shape in shapes {
            let inner = match shape {
                Self::Union(inner) => inner,
                one => vec![one],
            };
            for part in inner {
                if part.is("unknown") {
                    return part;
                }
                if !part.is("never") && !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        if parts.iter().any(|part| part.is("true")) && parts.iter().any(|part| part.is("false")) {
            parts.retain(|part| !part.is("true"));
            for part in &mut parts {
                if part.is("false") {
                    *part = Self::word("boolean");
                }
            }
        }
        match parts.len() {
            0 => Self::word("never"),
            1 => parts.swap_remove(0),
            _ => Self::Union(parts),
        }
    }

    /// Each once; `never` takes all, `unknown` adds nothing.
    fn intersection(shapes: impl IntoIterator<Item = Self>) -> Self {
        let mut parts: Vec<Self> = Vec::new();
        for shape in shapes {
            let inner = match shape {
                Self::Intersection(inner) => inner,
                one => vec![one],
            };
            for part in inner {
                if part.is("never") {
                    return part;
                }
                if !part.is("unknown") && !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        match parts.len() {
            0 => Self::unknown(),
            1 => parts.swap_remove(0),
            _ => Self::Intersection(parts),
        }
    }
}

/// What is being read: how deep, and through which references.
#[derive(Clone)]
struct Open<'a> {
    depth: usize,
    references: Vec<&'a str>,
}

impl Open<'_> {
    fn deeper(&self) -> Self {
        Self {
            depth: self.depth + 1,
            references: self.references.clone(),
        }
    }
}

struct Reader<'a> {
    root: &'a Json,
    left: Cell<usize>,
}

impl<'a> Reader<'a> {
    fn read(&self, schema: &'a Json, open: &Open<'a>) -> Shape {
        let object = match schema {
            Json::Bool(false) => return Shape::word("never"),
            Json::Object(object) => object,
            Json::Bool(true) | Json::Null | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                return Shape::unknown();
            }
        };
        if open.depth >= MAX_DEPTH || self.left.get() == 0 {
            return Shape::unknown();
        }
        self.left.set(self.left.get() - 1);
        let open = open.deeper();
        let mut parts = Vec::new();
        if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
            parts.push(self.reference(reference, &open));
        }
        if let Some(all) = object.get("allOf").and_then(Json::as_array) {
            parts.extend(all.iter().map(|part| self.read(part, &open)));
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(any) = object.get(keyword).and_then(Json::as_array) {
                parts.push(Shape::union(any.iter().map(|part| self.read(part, &open))));
            }
        }
        if let Some(value) = object.get("const") {
            parts.push(self.literal(value, &open));
        } else if let Some(values) = object.get("enum").and_then(Json::as_array) {
            let values = values.iter().map(|value| self.literal(value, &open));
            parts.push(Shape::union(values));
        } else {
            // `type: object` beside a union of objects says nothing more.
            let plain = self.typed(object, &open);
            let bare = !["properties", "additionalProperties", "patternProperties"]
                .iter()
                .any(|key| object.contains_key(*key));
            if parts.is_empty() || !(bare && matches!(plain, Shape::Record(_))) {
                parts.push(plain);
            }
        }
        let shape = Shape::intersection(parts);
        if object.get("nullable") == Some(&Json::Bool(true)) {
            return Shape::union([shape, Shape::word("null")]);
        }
        shape
    }

    fn reference(&self, reference: &'a str, open: &Open<'a>) -> Shape {
        if open.references.contains(&reference) {
            return Shape::unknown();
        }
        let Some(found) = reference
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer))
        else {
            return Shape::unknown();
        };
        let mut open = open.clone();
        open.references.push(reference);
        self.read(found, &open)
    }

    fn literal(&self, value: &Json, open: &Open<'_>) -> Shape {
        if open.depth >= MAX_DEPTH || self.left.get() == 0 {
            return Shape::unknown();
        }
        self.left.set(self.left.get() - 1);
        match value {
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
                Shape::word(value.to_string())
            }
            Json::Array(items) => Shape::Tuple(Tuple {
                items: items
                    .iter()
                    .map(|item| self.literal(item, &open.deeper()))
                    .collect(),
                required: items.len(),
                rest: None,
            }),
            Json::Object(fields) => Shape::Object(
                fields
                    .iter()
                    .map(|(name, value)| Property {
                        name: name.clone(),
                        optional: false,
                        shape: self.literal(value, &open.deeper()),
                        schema: Json::Null,
                    })
                    .collect(),
            ),
        }
    }

    /// What `type` and the keywords for its values say.
    fn typed(&self, object: &'a Map<String, Json>, open: &Open<'a>) -> Shape {
        match object.get("type") {
            Some(Json::String(kind)) => self.kind(kind, object, open),
            Some(Json::Array(kinds)) => {
                let kinds = kinds.iter().filter_map(Json::as_str);
                Shape::union(kinds.map(|kind| self.kind(kind, object, open)))
            }
            _ if ["properties", "additionalProperties", "patternProperties"]
                .iter()
                .any(|key| object.contains_key(*key)) =>
            {
                self.object(object, open)
            }
            _ if object.contains_key("items") || object.contains_key("prefixItems") => {
                self.array(object, open)
            }
            _ if object.get("format").and_then(Json::as_str) == Some("binary") => {
                Shape::word("Uint8Array")
            }
            _ => Shape::unknown(),
        }
    }

    fn kind(&self, kind: &str, object: &'a Map<String, Json>, open: &Open<'a>) -> Shape {
        match kind {
            "string" if object.get("format").and_then(Json::as_str) == Some("binary") => {
                Shape::word("Uint8Array")
            }
            "string" | "boolean" | "null" => Shape::word(kind),
            "number" | "integer" => Shape::word("number"),
            "array" => self.array(object, open),
            "object" => self.object(object, open),
            _ => Shape::unknown(),
        }
    }

    fn array(&self, object: &'a Map<String, Json>, open: &Open<'a>) -> Shape {
        // The older drafts have the list in `items`, and what follows in `additionalItems`.
        let (first, rest) = match (object.get("prefixItems"), object.get("items")) {
            (Some(Json::Array(first)), rest) => (first, rest),
            (_, Some(Json::Array(first))) => (first, object.get("additionalItems")),
            (_, items) => {
                let item = items.map_or_else(Shape::unknown, |items| self.read(items, open));
                return Shape::Array(Box::new(item));
            }
        };
        let items: Vec<Shape> = first.iter().map(|item| self.read(item, open)).collect();
        let required = object
            .get("minItems")
            .and_then(Json::as_u64)
            .and_then(|count| usize::try_from(count).ok())
            .map_or(items.len(), |count| count.min(items.len()));
        // Without a word on the rest a tuple ends where its list ends: that is what authors mean.
        let rest = rest
            .filter(|rest| !matches!(rest, Json::Bool(false)))
            .map(|rest| Box::new(self.read(rest, open)));
        Shape::Tuple(Tuple {
            items,
            required,
            rest,
        })
    }

    fn object(&self, object: &'a Map<String, Json>, open: &Open<'a>) -> Shape {
        let required: Vec<&str> = object
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let mut properties: Vec<Property> = Vec::new();
        if let Some(fields) = object.get("properties").and_then(Json::as_object) {
            for (name, schema) in fields {
                properties.push(Property {
                    name: name.clone(),
                    optional: !required.contains(&name.as_str()),
                    shape: self.read(schema, open),
                    schema: schema.clone(),
                });
            }
        }
        properties.sort_by_key(|property| property.optional);
        let mut others = Vec::new();
        if let Some(patterns) = object.get("patternProperties").and_then(Json::as_object) {
            others.extend(patterns.values().map(|schema| self.read(schema, open)));
        }
        let closed = match object.get("additionalProperties") {
            Some(Json::Bool(false)) => true,
            Some(schema @ Json::Object(_)) => {
                others.push(self.read(schema, open));
                false
            }
            _ => false,
        };
        match (properties.is_empty(), others.is_empty()) {
            (true, true) if closed => Shape::Record(Box::new(Shape::word("never"))),
            (true, true) => Shape::Record(Box::new(Shape::unknown())),
            (true, false) => Shape::Record(Box::new(Shape::union(others))),
            (false, true) => Shape::Object(properties),
            (false, false) => Shape::Intersection(vec![
                Shape::Object(properties),
                Shape::Record(Box::new(Shape::union(others))),
            ]),
        }
    }
}
