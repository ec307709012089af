//! Values that cross between a program and the host, after the structured clone algorithm.

use bowline_store::Timestamp;
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

/// A value of a program. Shared parts come out as copies; cycles are refused where the value is passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `undefined`; also a hole of an array.
    #[default]
    Undefined,
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A BigInt, in decimal digits with an optional `-`.
    BigInt(String),
    /// A string. Lone surrogates are replaced by U+FFFD.
    String(String),
    /// A `Date`: milliseconds since 1970, NaN when invalid.
    Date(f64),
    /// An `ArrayBuffer`.
    Buffer(Bytes),
    /// A typed array or `DataView`, little-endian.
    View(ViewKind, Bytes),
    /// An array.
    Array(Vec<Value>),
    /// An object: its own enumerable properties in their order.
    Object(Vec<(String, Value)>),
    /// A `Map`.
    Map(Vec<(Value, Value)>),
    /// A `Set`.
    Set(Vec<Value>),
    /// An error.
    Error(Box<Thrown>),
    /// A regular expression: source and flags.
    RegExp(String, String),
}

/// The kinds of typed arrays; the order is the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the classes of JavaScript")]
#[repr(u8)]
pub enum ViewKind {
    Uint8Clamped,
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    BigInt64,
    BigUint64,
    Float16,
    Float32,
    Float64,
    DataView,
}

impl ViewKind {
    /// All, in the order of the wire.
    pub(super) const ALL: [Self; 13] = [
        Self::Uint8Clamped,
        Self::Int8,
        Self::Uint8,
        Self::Int16,
        Self::Uint16,
        Self::Int32,
        Self::Uint32,
        Self::BigInt64,
        Self::BigUint64,
        Self::Float16,
        Self::Float32,
        Self::Float64,
        Self::DataView,
    ];
}

/// An error value. Everything in it may be the program's own choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thrown {
    /// `name`, for example `TypeError`.
    pub name: String,
    /// `message`.
    pub message: String,
    /// `stack`: one frame a line, or empty. Not passed into a program.
    pub stack: String,
    /// Other own properties, `cause` and `errors` among them.
    pub properties: Vec<(String, Value)>,
}

impl Thrown {
    /// A plain error with this name and message.
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// With another own property, for example `code`.
    pub fn with(mut self, key: impl Into<String>, value: Value) -> Self {
        self.properties.push((key.into(), value));
        self
    }
}

impl std::fmt::Display for Thrown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.name.as_str(), self.message.as_str()) {
            ("", message) => f.write_str(message),
            (name, "") => f.write_str(name),
            (name, message) => write!(f, "{name}: {message}"),
        }
    }
}

impl Value {
    /// A number from an integer; beyond 2^53 it is rounded, as in JavaScript.
    pub fn integer(value: i64) -> Self {
        Self::Number(value as f64)
    }

    /// The value as bytes, from which [`Value::decode`] makes the same value again. Stacks of errors
    /// are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = super::wire::Writer::default();
        out.value(self);
        out.bytes
    }

    /// The value that [`Value::encode`] wrote.
    ///
    /// # Errors
    /// [`IsolateError::SavedInvalid`](super::IsolateError::SavedInvalid) for other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, super::IsolateError> {
        let mut reader = super::wire::Reader::of_the_host(bytes);
        let value = reader.value();
        match value {
            Ok(value) if reader.is_empty() => Ok(value),
            Ok(_) | Err(_) => Err(super::IsolateError::SavedInvalid("a value is damaged")),
        }
    }

    /// The text, where this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The property of an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(properties) => properties.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The nearest JSON. `undefined` becomes null, or nothing in an object; a BigInt that fits becomes
    /// a number, else its digits; a date its RFC 3339 text; binary data `{"$bytes": "…base64…"}`; a Map
    /// with string keys an object, another a list of pairs; a Set a list; an error an object of its
    /// name, message and properties.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Undefined | Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(number) => number_to_json(*number),
            Self::BigInt(digits) => digits
                .parse::<i64>()
                .map_or_else(|_| Json::String(digits.clone()), Json::from),
            Self::String(text) => Json::String(text.clone()),
            Self::Date(millis) => date_to_json(*millis),
            Self::Buffer(bytes) | Self::View(_, bytes) => {
                use base64::Engine as _;
                json!({ "$bytes": base64::engine::general_purpose::STANDARD.encode(bytes) })
            }
            Self::Array(items) | Self::Set(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(properties) => Json::Object(properties_to_json(properties)),
            Self::Map(pairs) => {
                let named: Option<Map<String, Json>> = pairs
                    .iter()
                    .map(|(k, v)| Some((k.as_str()?.to_owned(), v.to_json())))
                    .collect();
                named.map_or_else(
                    || {
                        pairs
                            .iter()
                            .map(|(k, v)| json!([k.to_json(), v.to_json()]))
                            .collect()
                    },
                    Json::Object,
                )
            }
            Self::Error(error) => {
                let mut object = Map::new();
                object.insert("name".to_owned(), Json::String(error.name.clone()));
                object.insert("message".to_owned(), Json::String(error.message.clone()));
                for (key, value) in properties_to_json(&error.properties) {
                    object.entry(key).or_insert(value);
                }
                Json::Object(object)
            }
            Self::RegExp(source, flags) => Json::String(format!("/{source}/{flags}")),
        }
    }
}

fn properties_to_json(properties: &[(String, Value)]) -> Map<String, Json> {
    properties
        .iter()
        .filter(|(_, value)| *value != Value::Undefined)
        .map(|(key, value)| (key.clone(), value.to_json()))
        .collect()
}

fn number_to_json(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Json::from(number as i64);
    }
    serde_json::Number::from_f64(number).map_or(Json::Null, Json::Number)
}

fn date_to_json(millis: f64) -> Json {
    if millis.abs() <= 8.64e15 {
        return Json::String(Timestamp::from_millis(millis as i64).to_string());
    }
    Json::Null
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::String(text),
            Json::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Json::Object(object) => Self::Object(
                object
                    .into_iter()
                    .map(|(key, value)| (key, Self::from(value)))
                    .collect(),
            ),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}
