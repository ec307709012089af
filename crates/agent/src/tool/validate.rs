//! Whether the arguments of a call are what the tool takes.
//!
//! Models are often right in substance and wrong in type: `"5"` for `5`, one value for a list of
//! one. Such arguments are converted, in a copy, as the schema asks; the rest is reported to the
//! model in full, so that it can correct the call.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError, ValidatorMap};
use serde_json::{Map, Value};

use super::schema::SchemaError;

mod coerce;
mod refs;

/// The most errors reported at once.
const MAX_ERRORS: usize = 20;
/// The most characters of the arguments that are shown with the errors.
const MAX_SHOWN: usize = 4_000;

/// A compiled schema. Compiling is the slow part: keep it with the tool.
pub struct Validator {
    schema: Value,
    whole: jsonschema::Validator,
    /// The alternatives of `anyOf` and `oneOf`, by pointer; empty when there are none.
    parts: Option<ValidatorMap>,
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Validator")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Validator {
    /// Compiles a JSON Schema. A reference that leads nowhere refuses values only at its own
    /// place; nothing is fetched.
    ///
    /// # Errors
    ///
    /// When it is not a valid schema.
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        let mut schema = schema.clone();
        refs::seal(&mut schema);
        let invalid = |error: ValidationError<'_>| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() {
                String::new()
            } else {
                format!(" at {place}")
            };
            SchemaError::new(format!("not a valid JSON Schema{place}: {error}"))
        };
        let options = jsonschema::options().offline();
        let whole = options.build(&schema).map_err(invalid)?;
        let parts = if coerce::has_alternatives(&schema) {
            Some(options.build_map(&schema).map_err(invalid)?)
        } else {
            None
        };
        Ok(Self {
            schema,
            whole,
            parts,
        })
    }

    /// The arguments as the tool takes them, converted where the schema asks for another type. The
    /// given value is not changed; properties that the schema does not name stay.
    ///
    /// # Errors
    ///
    /// A text for the model with every error, at most 20, and the arguments as they came, at most
    /// 4,000 characters of them.
    pub fn validate(&self, tool_name: &str, arguments: &Value) -> Result<Value, String> {
        let mut value = arguments.clone();
        coerce::coerce(&self.schema, self.parts.as_ref(), &mut value);
        let mut lines: Vec<String> = Vec::new();
        let mut more = 0_usize;
        for error in self.whole.iter_errors(&value) {
            for line in report(&error) {
                if lines.contains(&line) {
                    continue;
                }
                if lines.len() < MAX_ERRORS {
                    lines.push(line)
                } else {
                    more += 1
                }
            }
        }
        if lines.is_empty() {
            return Ok(value);
        }
        if more > 0 {
            lines.push(format!("  - … and {more} more"));
        }
        Err(format!(
            "Validation failed for tool \"{tool_name}\":\n{}\n\nReceived arguments:\n{}",
            lines.join("\n"),
            shown(arguments),
        ))
    }
}

fn shown(arguments: &Value) -> String {
    let text = serde_json::to_string_pretty(arguments).unwrap_or_default();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => {
            format!(
                "{}\n… ({} characters in all)",
                &text[..end],
                text.chars().count()
            )
        }
        None => text,
    }
}

fn report(error: &ValidationError<'_>) -> Vec<String> {
    let path = error.instance_path().as_str();
    let path = path.strip_prefix('/').unwrap_or(path).replace('/', ".");
    let named = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            path.clone()
        }
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            let place = named(property);
            vec![format!(
                "  - {place}: must have required property '{property}'"
            )]
        }
        kind => vec![format!("  - {}: {}", named("root"), message(kind, error))],
    }
}

fn message(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Type { kind } => format!("must be {}", types(kind)),
        Kind::Enum { options } => {
            format!("must be equal to one of the allowed values: {options}")
        }
        Kind::Constant { expected_value } => format!("must be equal to {expected_value}"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            format!(
                "must NOT have additional properties: {}",
                unexpected.join(", ")
            )
        }
        Kind::AnyOf { .. } => "must match a schema in anyOf".to_owned(),
        Kind::OneOfNotValid { .. } | Kind::OneOfMultipleValid { .. } => {
            "must match exactly one schema in oneOf".to_owned()
        }
        Kind::MinLength { limit } => format!("must NOT have fewer than {limit} characters"),
        Kind::MaxLength { limit } => format!("must NOT have more than {limit} characters"),
        Kind::MinItems { limit } => format!("must NOT have fewer than {limit} items"),
        Kind::MaxItems { limit } => format!("must NOT have more than {limit} items"),
        Kind::AdditionalItems { limit } => format!("must NOT have more than {limit} items"),
        Kind::MinProperties { limit } => format!("must NOT have fewer than {limit} properties"),
        Kind::MaxProperties { limit } => format!("must NOT have more than {limit} properties"),
        Kind::Minimum { limit } => format!("must be >= {limit}"),
        Kind::Maximum { limit } => format!("must be <= {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be > {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be < {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be multiple of {multiple_of}"),
        Kind::Pattern { pattern } => format!("must match pattern \"{pattern}\""),
        Kind::Format { format } => format!("must match format \"{format}\""),
        Kind::UniqueItems => "must NOT have duplicate items".to_owned(),
        Kind::FalseSchema => "must NOT be there".to_owned(),
        Kind::Not { schema } => match refs::sealed(schema) {
            Some(reference) => format!("can't resolve reference {reference}"),
            None => "must NOT be valid".to_owned(),
        },
        Kind::PropertyNames { error } => format!("has an invalid property name: {error}"),
        Kind::UnevaluatedItems { .. } => "must NOT have unevaluated items".to_owned(),
        Kind::Required { property } => format!("must have required property {property}"),
        Kind::Contains
        | Kind::ContentEncoding { .. }
        | Kind::ContentMediaType { .. }
        | Kind::FromUtf8 { .. }
        | Kind::BacktrackLimitExceeded { .. }
        | Kind::RegexEngineFailure { .. }
        | Kind::Custom { .. }
        | Kind::Referencing(_) => error.masked().to_string(),
    }
}

fn types(kind: &TypeKind) -> String {
    let name = |kind: JsonType| kind.to_string();
    match kind {
        TypeKind::Single(kind) => name(*kind),
        TypeKind::Multiple(kinds) => kinds.iter().map(name).collect::<Vec<_>>().join(","),
    }
}

/// The subschemas of a schema: the keyword, the key below it where there is one, and the schema.
fn subschemas(schema: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (keyword, value) in schema {
        match (shape(keyword), value) {
            (Shape::Map, Value::Object(map)) => {
                found.extend(
                    map.iter()
                        .map(|(k, v)| (format!("{keyword}/{}", escape(k)), v)),
                );
            }
            (Shape::List | Shape::Either, Value::Array(list)) => {
                found.extend(
                    list.iter()
                        .enumerate()
                        .map(|(i, v)| (format!("{keyword}/{i}"), v)),
                );
            }
            (Shape::One | Shape::Either, Value::Object(_)) => found.push((keyword.clone(), value)),
            _ => {}
        }
    }
    found
}

/// The same, to change them.
fn subschemas_mut(schema: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut found: Vec<&mut Value> = Vec::new();
    for (keyword, value) in schema {
        match (shape(keyword), value) {
            (Shape::Map, Value::Object(map)) => found.extend(map.values_mut()),
            (Shape::List | Shape::Either, Value::Array(list)) => found.extend(list.iter_mut()),
            (Shape::One | Shape::Either, value @ Value::Object(_)) => found.push(value),
            _ => {}
        }
    }
    found
}

/// How a keyword holds schemas.
enum Shape {
    One,
    List,
    Either,
    Map,
    Nothing,
}

fn shape(keyword: &str) -> Shape {
    match keyword {
        "not"
        | "if"
        | "then"
        | "else"
        | "contains"
        | "propertyNames"
        | "additionalProperties"
        | "unevaluatedProperties"
        | "additionalItems"
        | "unevaluatedItems" => Shape::One,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Shape::List,
        "items" => Shape::Either,
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            Shape::Map
        }
        _ => Shape::Nothing,
    }
}

/// A key as a part of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
