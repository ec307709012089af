//! A settings file as a tree that knows its lines, and a strict way to read it.
//!
//! YAML (the front matter of `agent.md` and `SKILL.md`) and TOML (`bowline.toml`) become the same
//! [`Node`]s, so that a wrong key or value is reported in the same words with its line, wherever
//! it stands. Nothing of the parsers shows.

use std::time::Duration;

use super::fault::{Fault, FaultKind, closest, quoted};

mod toml;
mod yaml;

/// A value with the line on which it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    line: u32,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(Text),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
struct Text {
    value: String,
    /// As it was written, when something of the environment was put into `value`: messages show
    /// this and never the value, which may be secret.
    written: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
    name: String,
    line: u32,
}

impl Node {
    /// Reads YAML of which the first line is line `first_line` of its file.
    ///
    /// # Errors
    ///
    /// [`FaultKind::Syntax`] for what is not YAML, for a duplicate key and for a tree deeper than
    /// 64 or larger than 20,000 values.
    pub fn from_yaml(text: &str, first_line: u32) -> Result<Self, Fault> {
        yaml::parse(text, first_line)
    }

    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// [`FaultKind::Syntax`] for what is not TOML and for a duplicate key.
    pub fn from_toml(text: &str) -> Result<Self, Fault> {
        toml::parse(text)
    }

    /// The line on which the value starts, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Puts the values of `${VAR}` and `${VAR:-default}` into all text values; `$${` stands for
    /// `${`. Keys stay as they are.
    ///
    /// # Errors
    ///
    /// [`FaultKind::MissingVariable`] when a variable without default is not set,
    /// [`FaultKind::Syntax`] when a `${` has no `}` or no valid name.
    pub fn interpolate(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Fault> {
        let line = self.line;
        match &mut self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
            Value::Text(text) => {
                if let Some(value) = super::interpolate::expand(&text.value, line, env)? {
                    text.written = Some(std::mem::replace(&mut text.value, value));
                }
                Ok(())
            }
            Value::List(items) => items.iter_mut().try_for_each(|item| item.interpolate(env)),
            Value::Table(entries) => entries
                .iter_mut()
                .try_for_each(|(_, node)| node.interpolate(env)),
        }
    }

    /// The entries, when all keys are among `known`. Nothing at all counts as a table without
    /// entries. `name` is what messages call this value.
    ///
    /// # Errors
    ///
    /// [`FaultKind::UnknownKey`] with the closest key, [`FaultKind::InvalidValue`] when it is no
    /// table.
    pub fn table<'a>(&'a self, name: &str, known: &[&str]) -> Result<Table<'a>, Fault> {
        let table = self.entries(name)?;
        for (key, _) in table.entries {
            if !known.contains(&key.name.as_str()) {
                let hint = match closest(&key.name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known keys: {}", quoted(known.iter().copied())),
                };
                let place = if name.is_empty() {
                    String::new()
                } else {
                    format!(" in `{name}`")
                };
                return Err(Fault::new(
                    FaultKind::UnknownKey,
                    Some(key.line),
                    format!("unknown key `{}`{place}", key.name),
                    hint,
                ));
            }
        }
        Ok(table)
    }

    /// The entries, whatever their keys are.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is no table.
    pub fn entries<'a>(&'a self, name: &str) -> Result<Table<'a>, Fault> {
        let entries: &[(Key, Node)] = match &self.value {
            Value::Table(entries) => entries,
            Value::Null => &[],
            _ if name.is_empty() => {
                return Err(Fault::new(
                    FaultKind::InvalidValue,
                    Some(self.line),
                    format!(
                        "the settings want keys with values, not {}",
                        self.described()
                    ),
                    "write `key: value`",
                ));
            }
            _ => return Err(self.wants(name, "keys with values")),
        };
        Ok(Table {
            line: self.line,
            name: name.to_owned(),
            entries,
        })
    }

    /// A list's items; nothing else.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is no list.
    pub fn list(&self, name: &str) -> Result<&[Node], Fault> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.wants(name, "a list")),
        }
    }

    /// A list of texts that are not empty, none twice, each with its line.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else.
    pub fn names(&self, name: &str) -> Result<Vec<(&str, u32)>, Fault> {
        let mut names: Vec<(&str, u32)> = Vec::new();
        for item in self.list(name)? {
            let text = item.line_of_text(name)?;
            if names.iter().any(|(seen, _)| *seen == text) {
                return Err(Fault::new(
                    FaultKind::InvalidValue,
                    Some(item.line),
                    format!("`{name}` lists `{}` twice", item.shown()),
                    "remove one of them",
                ));
            }
            names.push((text, item.line));
        }
        Ok(names)
    }

    /// The text when this is a text, whatever is in it.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(&text.value),
            _ => None,
        }
    }

    /// Whether this is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, Value::Table(_))
    }

    /// `true` or `false` when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else.
    pub fn text(&self, name: &str) -> Result<&str, Fault> {
        self.as_text().ok_or_else(|| self.wants(name, "a text"))
    }

    /// A text of one line that is not empty.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else.
    pub fn line_of_text(&self, name: &str) -> Result<&str, Fault> {
        let text = self.text(name)?.trim();
        if text.is_empty() || text.contains(char::is_control) {
            return Err(self.wants(name, "one line of text"));
        }
        Ok(text)
    }

    /// A scalar as text: numbers and booleans as they are written.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] for a list, a table or nothing.
    pub fn scalar(&self, name: &str) -> Result<String, Fault> {
        match &self.value {
            Value::Bool(value) => Ok(value.to_string()),
            Value::Number(number) => Ok(number.clone()),
            Value::Text(text) => Ok(text.value.clone()),
            Value::Null | Value::List(_) | Value::Table(_) => Err(self.wants(name, "a text")),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else.
    pub fn bool(&self, name: &str) -> Result<bool, Fault> {
        self.as_bool()
            .ok_or_else(|| self.wants(name, "`true` or `false`"))
    }

    /// A whole number from `min` to `max`.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else.
    pub fn count(&self, name: &str, min: u64, max: u64) -> Result<u64, Fault> {
        self.number_text()
            .and_then(|text| text.replace('_', "").parse::<u64>().ok())
            .filter(|count| (min..=max).contains(count))
            .ok_or_else(|| self.wants(name, &format!("a whole number from {min} to {max}")))
    }

    /// An amount of US dollars, as a number or a decimal text, in micro-dollars.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else or has more than six decimals.
    pub fn usd(&self, name: &str) -> Result<u64, Fault> {
        let text = match &self.value {
            Value::Text(text) => Some(text.value.trim()),
            _ => self.number_text(),
        };
        text.and_then(bowline_model::catalog::parse_usd)
            .ok_or_else(|| self.wants(name, "an amount of dollars such as 2.00"))
    }

    /// A duration such as `"30s"`, `"2h"` or `"3d"` (units `ms`, `s`, `m`, `h`, `d`).
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else, or not from `min` to `max`.
    pub fn duration(&self, name: &str, min: Duration, max: Duration) -> Result<Duration, Fault> {
        self.as_text()
            .and_then(|text| parse_duration(text.trim()))
            .filter(|duration| (min..=max).contains(duration))
            .ok_or_else(|| {
                let (min, max) = (show_duration(min), show_duration(max));
                self.wants(
                    name,
                    &format!("a duration such as `30s` or `2h`, from `{min}` to `{max}`"),
                )
            })
    }

    /// One of some words.
    ///
    /// # Errors
    ///
    /// [`FaultKind::InvalidValue`] when it is something else, with the closest word.
    pub fn word<'w>(&self, name: &str, words: &[&'w str]) -> Result<&'w str, Fault> {
        let text = self.as_text().map(str::trim);
        if let Some(word) = words.iter().find(|word| Some(**word) == text) {
            return Ok(word);
        }
        let mut fault = self.wants(name, &format!("one of {}", quoted(words.iter().copied())));
        if let Some(near) = text.and_then(|text| closest(text, words.iter().copied())) {
            fault.hint = format!("did you mean `{near}`?");
        }
        Err(fault)
    }

    /// The same tree as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => {
                serde_json::from_str(number).unwrap_or_else(|_| Json::String(number.clone()))
            }
            Value::Text(text) => Json::String(text.value.clone()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(entries) => entries
                .iter()
                .map(|(key, node)| (key.name.clone(), node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// The fault of a value that should be something else.
    pub fn wants(&self, name: &str, wanted: &str) -> Fault {
        Fault::new(
            FaultKind::InvalidValue,
            Some(self.line),
            format!("`{name}` wants {wanted}, not {}", self.described()),
            format!("change the value of `{name}`"),
        )
    }

    /// Digits, from a number or from a text that the environment gave.
    fn number_text(&self) -> Option<&str> {
        match &self.value {
            Value::Number(number) => Some(number),
            Value::Text(Text {
                value,
                written: Some(_),
            }) => Some(value.trim()),
            _ => None,
        }
    }

    fn shown(&self) -> &str {
        match &self.value {
            Value::Text(text) => text.written.as_deref().unwrap_or(&text.value),
            Value::Number(number) => number,
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Table(_) => "",
        }
    }

    fn described(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Number(_) => format!("the number `{}`", self.shown()),
            Value::Text(_) => {
                let shown = self.shown();
                match shown.char_indices().nth(60) {
                    Some((end, _)) => format!("`{}…`", &shown[..end]),
                    None => format!("`{shown}`"),
                }
            }
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "keys with values".to_owned(),
        }
    }
}

/// The entries of a table.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    line: u32,
    name: String,
    entries: &'a [(Key, Node)],
}

impl<'a> Table<'a> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(entry, _)| entry.name == key)
            .map(|(_, node)| node)
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    ///
    /// [`FaultKind::MissingKey`], with `hint`.
    pub fn require(&self, key: &str, hint: &str) -> Result<&'a Node, Fault> {
        self.get(key).ok_or_else(|| {
            let place = if self.name.is_empty() {
                String::new()
            } else {
                format!(" in `{}`", self.name)
            };
            Fault::new(
                FaultKind::MissingKey,
                Some(self.line),
                format!("the key `{key}` is missing{place}"),
                hint,
            )
        })
    }

    /// Key, line of the key, value, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, u32, &'a Node)> + use<'a> {
        self.entries
            .iter()
            .map(|(key, node)| (key.name.as_str(), key.line, node))
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(*factor)
        .map(Duration::from_millis)
}

/// A duration in the largest unit that divides it, as it is written in settings.
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    UNITS
        .iter()
        .rev()
        .find(|(_, factor)| millis % factor == 0)
        .map_or_else(
            || format!("{millis}ms"),
            |(unit, factor)| format!("{}{unit}", millis / factor),
        )
}
