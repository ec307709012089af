//! Reading the arguments of a call, which are hostile.

use bowline_sandbox::isolate::Value;
use bytes::Bytes;

use super::{CallError, Method};

/// The arguments of a call, or the fields of one of them, by name.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// How errors name it: `state.find(path, options?)`.
    of: String,
    fields: Vec<(String, Value)>,
}

impl Arguments {
    /// The arguments of a call: positional, or one object with the names of the parameters.
    pub(crate) fn of(
        binding: &str,
        method: &Method,
        mut arguments: Vec<Value>,
    ) -> Result<Self, CallError> {
        let names: Vec<String> = method
            .parameters
            .iter()
            .map(|p| format!("{}{}", p.name, if p.optional { "?" } else { "" }))
            .collect();
        let of = format!("{binding}.{}({})", method.name, names.join(", "));
        while arguments.last() == Some(&Value::Undefined) {
            arguments.pop();
        }
        if let [Value::Object(fields)] = &arguments[..]
            && is_named(method, fields)
        {
            let fields = fields.clone();
            return Self { of, fields }
                .known(&mut method.parameters.iter().map(|p| p.name.as_str()));
        }
        if arguments.len() > method.parameters.len() {
            return Err(wrong(
                &of,
                "it was called with more arguments than it takes",
            ));
        }
        let names = method.parameters.iter().map(|p| p.name.clone());
        let fields = names.zip(arguments).collect();
        Ok(Self { of, fields })
    }

    /// The fields of an object, which may have these names only.
    pub(crate) fn fields(of: &str, value: Value, keys: &[&str]) -> Result<Self, CallError> {
        match value {
            Value::Object(fields) => {
                let of = of.to_owned();
                Self { of, fields }.known(&mut keys.iter().copied())
            }
            other => Err(wrong(
                of,
                &format!("it must be an object, not {}", kind(&other)),
            )),
        }
    }

    fn known(self, names: &mut dyn Iterator<Item = &str>) -> Result<Self, CallError> {
        let names: Vec<&str> = names.collect();
        let unknown = self.fields.iter().find(|(key, _)| !names.contains(&&**key));
        match unknown {
            Some((key, _)) => {
                let key = shown(key);
                let why = format!("there is no {key}; it takes {}", names.join(", "));
                Err(wrong(&self.of, &why))
            }
            None => Ok(self),
        }
    }

    /// A value, unless it is missing, `undefined` or `null`.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        match self.take_any(name) {
            Some(Value::Undefined | Value::Null) | None => None,
            found => found,
        }
    }

    /// A value, `null` too.
    pub(crate) fn take_any(&mut self, name: &str) -> Option<Value> {
        let at = self.fields.iter().position(|(key, _)| key == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    /// A value that must be there.
    pub(crate) fn need(&mut self, name: &str) -> Result<Value, CallError> {
        self.take(name)
            .ok_or_else(|| wrong(&self.of, &format!("{name} is missing")))
    }

    /// A string that must be there.
    pub(crate) fn text(&mut self, name: &str) -> Result<String, CallError> {
        match self.need(name)? {
            Value::String(text) => Ok(text),
            other => Err(self.not(name, "a string", &other)),
        }
    }

    /// A string.
    pub(crate) fn text_or_none(&mut self, name: &str) -> Result<Option<String>, CallError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.not(name, "a string", &other)),
        }
    }

    /// Text or binary data that must be there.
    pub(crate) fn content(&mut self, name: &str) -> Result<Bytes, CallError> {
        match self.need(name)? {
            Value::String(text) => Ok(Bytes::from(text)),
            Value::Buffer(bytes) | Value::View(_, bytes) => Ok(bytes),
            other => Err(self.not(name, "a string or binary data", &other)),
        }
    }

    /// A boolean.
    pub(crate) fn flag(&mut self, name: &str, default: bool) -> Result<bool, CallError> {
        Ok(self.flag_or_none(name)?.unwrap_or(default))
    }

    /// A boolean, if it is there.
    pub(crate) fn flag_or_none(&mut self, name: &str) -> Result<Option<bool>, CallError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.not(name, "a boolean", &other)),
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u64>, CallError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(n))
                if n >= 0.0 && n.fract() == 0.0 && n < 9_007_199_254_740_992.0 =>
            {
                Ok(Some(n as u64))
            }
            Some(other) => Err(self.not(name, "a whole number from 0", &other)),
        }
    }

    /// A list that must be there.
    pub(crate) fn list(&mut self, name: &str) -> Result<Vec<Value>, CallError> {
        match self.need(name)? {
            Value::Array(items) | Value::Set(items) => Ok(items),
            other => Err(self.not(name, "an array", &other)),
        }
    }

    /// The fields of an object, of which there are none when it is missing.
    pub(crate) fn table(&mut self, name: &str, keys: &[&str]) -> Result<Self, CallError> {
        let of = format!("{}: {name}", self.of);
        let value = self.take(name).unwrap_or(Value::Object(Vec::new()));
        Self::fields(&of, value, keys)
    }

    /// An error about one of them.
    pub(crate) fn wrong(&self, why: &str) -> CallError {
        wrong(&self.of, why)
    }

    fn not(&self, name: &str, wanted: &str, found: &Value) -> CallError {
        wrong(
            &self.of,
            &format!("{name} must be {wanted}, not {}", kind(found)),
        )
    }
}

/// Whether a lone object holds the arguments by name instead of being the first of them.
fn is_named(method: &Method, fields: &[(String, Value)]) -> bool {
    let Some(first) = method.parameters.first() else {
        return true;
    };
    let takes_object = first.schema.get("type").is_none_or(|kind| kind == "object");
    !takes_object || fields.iter().any(|(key, _)| *key == first.name)
}

fn wrong(of: &str, why: &str) -> CallError {
    CallError::new("TypeError", format!("{of}: {why}"))
}

/// A name from a program, short enough for a message.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(60).collect();
    format!("{short:?}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Undefined => "undefined",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::BigInt(_) => "a BigInt",
        Value::String(_) => "a string",
        Value::Date(_) => "a Date",
        Value::Buffer(_) | Value::View(..) => "binary data",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
        Value::Map(_) => "a Map",
        Value::Set(_) => "a Set",
        Value::Error(_) => "an error",
        Value::RegExp(..) => "a regular expression",
    }
}
