//! JSON that keeps the order of names, for documents that people read too.

use std::fmt;

use bowline_sandbox::isolate::Value;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};

/// A document in the order of its names.
pub(super) struct Ordered(pub(super) Value);

/// The same, to be written. What JSON does not have comes out as [`Value::to_json`] says.
pub(super) struct OrderedRef<'a>(pub(super) &'a Value);

impl Serialize for OrderedRef<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) | Value::Set(items) => {
                let mut list = to.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&OrderedRef(item))?;
                }
                list.end()
            }
            Value::Object(fields) => {
                let mut map = to.serialize_map(None)?;
                for (key, value) in fields.iter().filter(|(_, v)| *v != Value::Undefined) {
                    map.serialize_entry(key, &OrderedRef(value))?;
                }
                map.end()
            }
            other => other.to_json().serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Document).map(Self)
    }
}

struct Document;

impl<'de> Visitor<'de> for Document {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Ordered(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        while let Some((key, Ordered(value))) = map.next_entry::<String, Ordered>()? {
            // The last of two wins, in the place of the first, as in JavaScript.
            match seen.get(&key).and_then(|at: &usize| fields.get_mut(*at)) {
                Some(field) => field.1 = value,
                None => {
                    seen.insert(key.clone(), fields.len());
                    fields.push((key, value));
                }
            }
        }
        Ok(Value::Object(fields))
    }
}
