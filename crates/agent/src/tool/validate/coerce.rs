//! Converting arguments to the types that a schema asks for.

use jsonschema::ValidatorMap;
use serde_json::{Map, Number, Value};

use super::{escape, subschemas};

/// How deep schemas and references are followed.
const MAX_DEPTH: usize = 64;

/// Whether `anyOf` or `oneOf` is somewhere in a schema.
pub(super) fn has_alternatives(schema: &Value) -> bool {
    let Some(object) = schema.as_object() else {
        return false;
    };
    object.contains_key("anyOf")
        || object.contains_key("oneOf")
        || subschemas(object)
            .iter()
            .any(|(_, part)| has_alternatives(part))
}

/// Converts what can be converted without doubt; the rest stays as it is.
pub(super) fn coerce(schema: &Value, parts: Option<&ValidatorMap>, value: &mut Value) {
    Coercion {
        root: schema,
        parts,
    }
    .apply(schema, "#", value, 0);
}

struct Coercion<'a> {
    root: &'a Value,
    parts: Option<&'a ValidatorMap>,
}

impl Coercion<'_> {
    fn apply(&self, schema: &Value, pointer: &str, value: &mut Value, depth: usize) {
        let Some(object) = schema.as_object() else {
            return;
        };
        if depth > MAX_DEPTH {
            return;
        }
        if let Some(reference) = object.get("$ref").and_then(Value::as_str)
            && let Some(path) = reference.strip_prefix('#')
            && let Some(target) = self.root.pointer(path)
        {
            self.apply(target, reference, value, depth + 1);
        }
        to_type(object, value);
        match value {
            Value::Object(map) => self.properties(object, pointer, map, depth),
            Value::Array(items) => self.items(object, pointer, items, depth),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        if let Some(all) = object.get("allOf").and_then(Value::as_array) {
            for (index, part) in all.iter().enumerate() {
                self.apply(part, &format!("{pointer}/allOf/{index}"), value, depth + 1);
            }
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(options) = object.get(keyword).and_then(Value::as_array) {
                self.alternatives(options, &format!("{pointer}/{keyword}"), value, depth);
            }
        }
    }

    /// Takes the first alternative that the value matches as it is, else the first that it matches
    /// when converted.
    fn alternatives(&self, options: &[Value], pointer: &str, value: &mut Value, depth: usize) {
        let matches = |index: usize, value: &Value| {
            self.parts
                .and_then(|parts| parts.get(&format!("{pointer}/{index}")))
                .is_some_and(|part| part.is_valid(value))
        };
        if (0..options.len()).any(|index| matches(index, value)) {
            return;
        }
        for (index, option) in options.iter().enumerate() {
            let mut copy = value.clone();
            self.apply(option, &format!("{pointer}/{index}"), &mut copy, depth + 1);
            if matches(index, &copy) {
                *value = copy;
                return;
            }
        }
    }

    fn properties(
        &self,
        schema: &Map<String, Value>,
        pointer: &str,
        map: &mut Map<String, Value>,
        depth: usize,
    ) {
        let named = schema.get("properties").and_then(Value::as_object);
        let required = |name: &str| {
            schema
                .get("required")
                .and_then(Value::as_array)
                .is_some_and(|names| names.iter().any(|known| known == name))
        };
        if let Some(named) = named {
            for (name, part) in named {
                if map.get(name).is_some_and(Value::is_null)
                    && !required(name)
                    && !self.takes_null(part, 0)
                {
                    map.remove(name);
                }
                if let Some(value) = map.get_mut(name) {
                    let pointer = format!("{pointer}/properties/{}", escape(name));
                    self.apply(part, &pointer, value, depth + 1);
                }
            }
        }
        if let Some(rest) = schema
            .get("additionalProperties")
            .filter(|rest| rest.is_object())
        {
            let pointer = format!("{pointer}/additionalProperties");
            for (name, value) in map {
                if !named.is_some_and(|named| named.contains_key(name)) {
                    self.apply(rest, &pointer, value, depth + 1);
                }
            }
        }
    }

    fn items(&self, schema: &Map<String, Value>, pointer: &str, items: &mut [Value], depth: usize) {
        let (keyword, leading) = match (schema.get("prefixItems"), schema.get("items")) {
            (Some(Value::Array(leading)), _) => ("prefixItems", leading.as_slice()),
            (_, Some(Value::Array(leading))) => ("items", leading.as_slice()),
            _ => ("items", &[][..]),
        };
        for (index, item) in items.iter_mut().enumerate() {
            match (leading.get(index), schema.get("items")) {
                (Some(part), _) => {
                    self.apply(
                        part,
                        &format!("{pointer}/{keyword}/{index}"),
                        item,
                        depth + 1,
                    );
                }
                (None, Some(part)) => {
                    self.apply(part, &format!("{pointer}/items"), item, depth + 1);
                }
                (None, None) => {}
            }
        }
    }

    /// Whether a schema says that `null` is one of its values.
    fn takes_null(&self, schema: &Value, depth: usize) -> bool {
        let Some(object) = schema.as_object() else {
            return true;
        };
        if depth > MAX_DEPTH {
            return false;
        }
        let any = |keyword: &str| {
            object
                .get(keyword)
                .and_then(Value::as_array)
                .is_some_and(|options| {
                    options
                        .iter()
                        .any(|option| self.takes_null(option, depth + 1))
                })
        };
        if let Some(target) = object
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|path| self.root.pointer(path))
        {
            return self.takes_null(target, depth + 1);
        }
        match (object.get("type"), object.get("enum"), object.get("const")) {
            (Some(Value::String(kind)), ..) => kind == "null",
            (Some(Value::Array(kinds)), ..) => kinds.iter().any(|kind| kind == "null"),
            (_, Some(Value::Array(options)), _) => options.contains(&Value::Null),
            (.., Some(value)) => value.is_null(),
            _ if object.contains_key("anyOf") => any("anyOf"),
            _ if object.contains_key("oneOf") => any("oneOf"),
            _ => !object.contains_key("not"),
        }
    }
}

/// Converts a value to the first type of its schema that it can become, unless it has one already.
fn to_type(schema: &Map<String, Value>, value: &mut Value) {
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    if kinds.iter().any(|kind| is(value, kind)) {
        // JSON does not tell 5.0 from 5, but the integer types of programs do.
        if !kinds.contains(&"number")
            && value.is_f64()
            && let Some(whole) = value.as_f64().and_then(whole)
        {
            *value = whole;
        }
        return;
    }
    if let Some(converted) = kinds.iter().find_map(|kind| convert(value, kind)) {
        *value = converted;
    } else if kinds.contains(&"array") && !value.is_null() {
        *value = Value::Array(vec![value.take()]);
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn convert(value: &Value, kind: &str) -> Option<Value> {
    match (kind, value) {
        ("string", Value::Null) => Some(Value::String(String::new())),
        ("string", Value::Bool(flag)) => Some(Value::String(flag.to_string())),
        ("string", Value::Number(number)) => Some(Value::String(number.to_string())),
        ("number" | "integer", Value::Null) => Some(Value::from(0)),
        ("number" | "integer", Value::Bool(flag)) => Some(Value::from(u8::from(*flag))),
        ("number", Value::String(text)) => number(text),
        ("integer", Value::String(text)) => number(text).filter(|number| is(number, "integer")),
        ("boolean", Value::Null) => Some(Value::Bool(false)),
        ("boolean", Value::String(text)) if text == "true" => Some(Value::Bool(true)),
        ("boolean", Value::String(text)) if text == "false" => Some(Value::Bool(false)),
        ("boolean", Value::Number(number)) if number.as_f64() == Some(1.0) => {
            Some(Value::Bool(true))
        }
        ("boolean", Value::Number(number)) if number.as_f64() == Some(0.0) => {
            Some(Value::Bool(false))
        }
        ("null", Value::String(text)) if text.is_empty() => Some(Value::Null),
        ("null", Value::Bool(false)) => Some(Value::Null),
        ("null", Value::Number(number)) if number.as_f64() == Some(0.0) => Some(Value::Null),
        _ => None,
    }
}

/// A number without fraction as an integer, where it is exact.
fn whole(number: f64) -> Option<Value> {
    format!("{number:.0}")
        .parse::<i64>()
        .ok()
        .filter(|_| number.abs() < 9.0e15)
        .map(Value::from)
}

fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    if text.is_empty() || !text.chars().all(plain) {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(Value::from(number));
    }
    text.parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .map(Value::Number)
}
