//! `${VAR}` and `${VAR:-default}` in text values.

use super::fault::{Fault, FaultKind};

/// `text` with its variables replaced, or `None` when it has none. `$${` stands for `${`.
pub(super) fn expand(
    text: &str,
    line: u32,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, Fault> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else {
            return Err(malformed(line, "`${` has no closing `}`"));
        };
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        if !is_variable(name) {
            return Err(malformed(
                line,
                &format!("`{name}` is not the name of a variable"),
            ));
        }
        match (env(name), default) {
            (Some(value), None) => expanded.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => expanded.push_str(&value),
            (_, Some(default)) => expanded.push_str(default),
            (None, None) => {
                return Err(Fault::new(
                    FaultKind::MissingVariable,
                    Some(line),
                    format!("the environment variable {name} is not set"),
                    format!("set {name}, or write ${{{name}:-default}}"),
                ));
            }
        }
        rest = &inside[end + 1..];
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn malformed(line: u32, message: &str) -> Fault {
    Fault::new(
        FaultKind::Syntax,
        Some(line),
        message,
        "write ${NAME} or ${NAME:-default}; $${ stands for a plain ${",
    )
}

/// Whether this can be the name of an environment variable.
pub(crate) fn is_variable(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
