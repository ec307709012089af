//! When a call needs consent: an expression over its arguments.

use serde_json::Value;
use serde_json_path::JsonPath;

/// Longest expression, in bytes.
const MAX_EXPRESSION: usize = 1_000;
/// The functions whose second argument is a pattern.
const PATTERNS: [&str; 2] = ["match", "search"];

/// A condition on the arguments of a call: a filter expression of JSONPath (RFC 9535), in which `@`
/// is the object of the arguments. At most 1,000 bytes.
///
/// ```
/// use bowline_agent::approval::Condition;
///
/// let condition = Condition::parse("@.amount > 100 || search(@.to, 'example')")?;
/// assert!(condition.holds(&serde_json::json!({"amount": 250})));
/// assert!(!condition.holds(&serde_json::json!({"amount": 20, "to": "me"})));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    text: String,
    path: JsonPath,
}

impl Condition {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line. A pattern that is no regular expression is an error here:
    /// left alone it would never match, and nobody would be asked.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_EXPRESSION {
            return Err(format!(
                "has {} bytes, at most {MAX_EXPRESSION} can be read",
                text.len()
            ));
        }
        // The arguments are looked at as the only member of a list, which the expression filters.
        let path = JsonPath::parse(&format!("$[?({text})]")).map_err(|error| {
            let at = error.position().saturating_sub("$[?(".len()) + 1;
            format!("it cannot be read from character {at} on")
        })?;
        for pattern in patterns(text) {
            regex::Regex::new(&pattern)
                .map_err(|_| format!("`{pattern}` is no regular expression that can be matched"))?;
        }
        Ok(Self {
            text: text.to_owned(),
            path,
        })
    }

    /// The expression, as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is true of these arguments. A comparison with an argument that is not there, or of
    /// values of two types, is false.
    pub fn holds(&self, arguments: &Value) -> bool {
        let list = Value::Array(vec![arguments.clone()]);
        !self.path.query(&list).is_empty()
    }
}

/// The patterns that are written out in an expression.
fn patterns(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((at, name)) = PATTERNS
        .iter()
        .filter_map(|name| rest.find(&format!("{name}(")).map(|at| (at, name)))
        .min()
    {
        rest = &rest[at + name.len() + 1..];
        if let Some(pattern) = second_literal(rest) {
            found.push(pattern);
        }
    }
    found
}

/// The second argument of a call, when it is a text in quotes; `text` begins after the bracket.
fn second_literal(text: &str) -> Option<String> {
    let (mut depth, mut quote) = (0_i32, None);
    let mut chars = text.char_indices();
    let comma = loop {
        let (at, c) = chars.next()?;
        match (quote, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth -= 1,
            (None, ',') if depth == 0 => break at,
            (None, _) => {}
        }
    };
    let argument = text[comma + 1..].trim_start();
    let open = argument
        .chars()
        .next()
        .filter(|c| matches!(c, '\'' | '"'))?;
    let mut pattern = String::new();
    let mut chars = argument.chars().skip(1);
    loop {
        match chars.next()? {
            '\\' => match chars.next()? {
                // In quotes a backslash stands before itself; every other escape is a character.
                '\\' => pattern.push('\\'),
                'n' => pattern.push('\n'),
                't' => pattern.push('\t'),
                'r' => pattern.push('\r'),
                other => pattern.push(other),
            },
            c if c == open => return Some(pattern),
            c => pattern.push(c),
        }
    }
}
