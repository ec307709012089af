//! The JSON Schema of a tool's arguments, made from a Rust type.
//!
//! Providers understand different parts of JSON Schema; what comes out here is the part that all
//! of them do: an object at the top, no meta keywords, definitions in place.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// A schema that cannot be that of a tool's arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SchemaError {
    message: String,
}

impl SchemaError {
    /// An error with a message of one line.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// The stable name of this error. Its page is `docs/errors/tool_schema.md`.
    pub fn code(&self) -> &'static str {
        "tool_schema"
    }

    /// What to do next, in one line.
    pub fn hint(&self) -> &'static str {
        "take the arguments as one struct with named fields"
    }
}

/// The schema of `T` as tool arguments: without `$schema`, titles, numeric formats and the `null`
/// of optional fields, references replaced by what they refer to unless the type is recursive.
/// `()` is an object without properties.
///
/// # Errors
///
/// When `T` is not an object, or an enum of several shapes at the top level, which providers
/// refuse.
pub fn of<T: JsonSchema>() -> Result<Value, SchemaError> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(clean).transform(&mut schema);
    let mut schema = schema.to_value();
    if schema.get("type") == Some(&json!("null")) {
        schema = json!({ "type": "object" });
    }
    check(&schema, &T::schema_name())?;
    if let Some(object) = schema.as_object_mut() {
        object.entry("properties").or_insert_with(|| json!({}));
    }
    Ok(schema)
}

/// Checks a schema written by hand: an object at the top level.
///
/// # Errors
///
/// When it is not. `name` is what the message calls it.
pub fn check(schema: &Value, name: &str) -> Result<(), SchemaError> {
    let refuse = |what: &str| {
        Err(SchemaError::new(format!(
            "the arguments of a tool must be an object; `{name}` {what}"
        )))
    };
    let Some(object) = schema.as_object() else {
        return refuse("has no object schema");
    };
    for union in ["oneOf", "anyOf", "allOf", "enum", "not"] {
        if object.contains_key(union) {
            return refuse(&format!("has `{union}` at the top level"));
        }
    }
    match object.get("type").and_then(Value::as_str) {
        Some("object") => Ok(()),
        Some(other) => refuse(&format!("is of type `{other}`")),
        None => refuse("has no `type: object`"),
    }
}

fn clean(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("title");
    // `uint32`, `double` and the like are no formats of JSON Schema, and some providers refuse
    // a format that they do not know.
    if matches!(numeric_type(object.get("type")), Some(true)) {
        object.remove("format");
    }
    let required: Vec<String> = object
        .get("required")
        .and_then(Value::as_array)
        .map(|names| {
            names
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            if !required.contains(name)
                && let Some(property) = property.as_object_mut()
            {
                drop_null(property);
            }
        }
    }
}

fn numeric_type(kind: Option<&Value>) -> Option<bool> {
    let numeric = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number"));
    match kind? {
        Value::Array(kinds) => Some(kinds.iter().any(numeric)),
        kind => Some(numeric(kind)),
    }
}

/// An optional property need not also be `null`: it is left out, and validation takes a `null`
/// for that.
fn drop_null(property: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = property.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            property.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::Array(options)) = property.get_mut("enum") {
        options.retain(|option| !option.is_null());
    }
    let null = json!("null");
    if let Some(Value::Array(options)) = property.get_mut("anyOf") {
        options.retain(|option| option.get("type") != Some(&null));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            property.remove("anyOf");
            for (key, value) in only {
                // What the field says of itself, its description, wins over that of its type.
                property.entry(key).or_insert(value);
            }
        }
    }
    if property.get("default") == Some(&Value::Null) {
        property.remove("default");
    }
}
