//! From YAML, through a deserializer that keeps places.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{Fault, FaultKind, Key, Node, Text, Value};

/// The deepest nesting, and the most values.
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 20_000;

pub(super) fn parse(text: &str, first_line: u32) -> Result<Node, Fault> {
    // Blank lines in front make the parser count as the file does.
    let lead = "\n".repeat(usize::try_from(first_line.saturating_sub(1)).unwrap_or(0));
    let source = format!("{lead}{text}");
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        reject_unsupported_tags: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
    };
    let read = serde_saphyr::from_str_with_options::<Option<Spanned<Raw>>>(&source, options);
    match read {
        Ok(Some(root)) => Ok(root.value.into_node(&root.referenced, &source, first_line)),
        Ok(None) => Ok(Node {
            line: first_line,
            value: Value::Null,
        }),
        Err(error) => Err(fault(&error)),
    }
}

fn fault(error: &serde_saphyr::Error) -> Fault {
    use serde_saphyr::Error as Yaml;
    let error = error.without_snippet();
    let line = error
        .location()
        .and_then(|location| u32::try_from(location.line()).ok());
    match error {
        Yaml::DuplicateMappingKey { key, .. } => {
            let key = key
                .as_deref()
                .map_or_else(|| "a key".to_owned(), |key| format!("`{key}`"));
            Fault::new(
                FaultKind::Syntax,
                line,
                format!("{key} is there twice"),
                "keep one of them",
            )
        }
        Yaml::Budget { .. } => Fault::new(
            FaultKind::Syntax,
            line,
            format!("too much: at most {MAX_DEPTH} levels and {MAX_NODES} values"),
            "make it smaller",
        ),
        other => {
            let text = other.to_string();
            // The place is said once, in front.
            let text = text.split(" at line ").next().unwrap_or(&text);
            let text = text.split("error: ").last().unwrap_or(text);
            Fault::new(
                FaultKind::Syntax,
                line,
                format!("not valid YAML: {text}"),
                "correct the line; texts with `: `, `#`, `{` or `[` need quotes",
            )
        }
    }
}

/// A value before its place is known: the place comes from the wrapper around it.
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Table(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl Raw {
    fn into_node(self, place: &Location, source: &str, fallback: u32) -> Node {
        let line = line(place, fallback);
        let value = match self {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Number(parsed) => Value::Number(written(place, source, parsed)),
            Raw::Text(value) => Value::Text(Text {
                value,
                written: None,
            }),
            Raw::List(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| item.value.into_node(&item.referenced, source, line))
                    .collect(),
            ),
            Raw::Table(entries) => Value::Table(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key_line = self::line(&key.referenced, line);
                        let node = value.value.into_node(&value.referenced, source, key_line);
                        (
                            Key {
                                name: key.value,
                                line: key_line,
                            },
                            node,
                        )
                    })
                    .collect(),
            ),
        };
        Node { line, value }
    }
}

fn line(place: &Location, fallback: u32) -> u32 {
    match u32::try_from(place.line()) {
        Ok(line) if line > 0 => line,
        _ => fallback,
    }
}

/// A number as the author wrote it, so that `2.00` stays exact and `1.0` keeps its zero.
fn written(place: &Location, source: &str, parsed: String) -> String {
    let span = place.span();
    let (Some(start), Some(len)) = (span.byte_offset(), span.byte_len()) else {
        return parsed;
    };
    let (Ok(start), Ok(len)) = (usize::try_from(start), usize::try_from(len)) else {
        return parsed;
    };
    match start
        .checked_add(len)
        .and_then(|end| source.get(start..end))
    {
        Some(text) if text.parse::<f64>().is_ok() => text.to_owned(),
        _ => parsed,
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Raw::Table(table))
    }
}
