//! From TOML, with spans turned into lines.

use ::toml::de::{DeTable, DeValue};

use super::{Fault, FaultKind, Key, Node, Text, Value};

pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let lines = Lines::new(text);
    let root = DeTable::parse(text).map_err(|error| {
        Fault::new(
            FaultKind::Syntax,
            error.span().map(|span| lines.of(span.start)),
            format!("not valid TOML: {}", error.message()),
            "correct the line",
        )
    })?;
    Ok(Node {
        line: 1,
        value: table(root.get_ref(), &lines),
    })
}

fn node(value: &DeValue<'_>, line: u32, lines: &Lines) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(Text {
            value: text.clone().into_owned(),
            written: None,
        }),
        DeValue::Integer(number) if number.radix() == 10 => Value::Number(number.to_string()),
        DeValue::Integer(number) => Value::Number(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |number| number.to_string()),
        ),
        DeValue::Float(number) => Value::Number(number.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::Text(Text {
            value: time.to_string(),
            written: None,
        }),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| node(item.get_ref(), lines.of(item.span().start), lines))
                .collect(),
        ),
        DeValue::Table(entries) => table(entries, lines),
    };
    Node { line, value }
}

fn table(entries: &DeTable<'_>, lines: &Lines) -> Value {
    let mut table: Vec<(usize, (Key, Node))> = entries
        .iter()
        .map(|(key, value)| {
            let at = key.span().start;
            let line = lines.of(at);
            let name = key.get_ref().clone().into_owned();
            // The span of a `[header]` table is its header, so its key's line serves as well.
            (at, (Key { name, line }, node(value.get_ref(), line, lines)))
        })
        .collect();
    table.sort_by_key(|(at, _)| *at);
    Value::Table(table.into_iter().map(|(_, entry)| entry).collect())
}

/// Where the lines of a text start.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(
            text.bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(at, _)| at)
                .collect(),
        )
    }

    /// The line, from 1, of the byte at `offset`.
    fn of(&self, offset: usize) -> u32 {
        let before = self.0.partition_point(|newline| *newline < offset);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }
}
