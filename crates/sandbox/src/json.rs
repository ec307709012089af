//! JSON files: reading and changing places by JSONPath (RFC 9535).

use bytes::Bytes;
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::{
    search::unified_diff,
    workspace::{Overlay, WorkspaceError, WriteOptions},
};

/// Largest JSON file, in bytes.
pub const MAX_JSON: u64 = 16 << 20;

/// Filters, parentheses and negations of a JSONPath.
const MAX_FILTERS: usize = 64;

/// One change of a JSON document.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonChange {
    /// Sets each place that the path names. A path that names one place by names and indexes alone
    /// (`$.a.b[0]`) makes what is missing on the way; an index may be one past the end.
    Set {
        /// A JSONPath; a plain `a.b[0]` or `.a.b[0]` is taken as `$.a.b[0]`.
        path: String,
        /// What to put there.
        value: Value,
    },
    /// Removes each place that the path names; what follows in a list moves up.
    Delete {
        /// A JSONPath.
        path: String,
    },
}

/// What an update did.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonUpdate {
    /// The document as it is now.
    pub value: Value,
    /// Places that were set or removed.
    pub places: usize,
    /// Unified diff of the file.
    pub diff: String,
}

/// Why a JSON file could not be read or changed; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JsonError {
    /// The file is not JSON.
    #[error("{path} is not JSON: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The path cannot be understood.
    #[error("invalid JSONPath {path}: {reason}")]
    Path {
        /// The JSONPath.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The path names nothing that could be set or removed.
    #[error("there is nothing at {0}")]
    Nothing(String),
    /// The file could not be read or written; `EFBIG` above [`MAX_JSON`].
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

/// One step of the way to a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Name(String),
}

/// The document in a file.
///
/// # Errors
///
/// [`JsonError`].
pub async fn read_json(overlay: &Overlay, path: &str) -> Result<Value, JsonError> {
    Ok(load(overlay, path).await?.1)
}

/// Writes a document with an indent of two spaces and a newline at the end; missing directories are
/// made. Names come out in alphabetical order.
///
/// # Errors
///
/// [`JsonError`].
pub async fn write_json(overlay: &Overlay, path: &str, value: &Value) -> Result<(), JsonError> {
    let text = pretty(path, value)?;
    overlay
        .write(path, Bytes::from(text), &WriteOptions::with_parents())
        .await?;
    Ok(())
}

/// The values that a JSONPath names, in the order of the document.
///
/// # Errors
///
/// [`JsonError`].
pub async fn query_json(
    overlay: &Overlay,
    path: &str,
    query: &str,
) -> Result<Vec<Value>, JsonError> {
    let query = parse(query)?;
    let (_, value) = load(overlay, path).await?;
    Ok(query
        .query(&value)
        .iter()
        .map(|found| (*found).clone())
        .collect())
}

/// Whether a path names one place by names and indexes alone, so that there is at most one value.
pub fn is_one_place(query: &str) -> bool {
    plain_steps(query).is_some()
}

/// Makes several changes, each on the result of the one before; all or none.
///
/// # Errors
///
/// [`JsonError`].
pub async fn update_json(
    overlay: &Overlay,
    path: &str,
    changes: &[JsonChange],
) -> Result<JsonUpdate, JsonError> {
    let (before, mut value) = load(overlay, path).await?;
    let mut places = 0;
    for change in changes {
        places += match change {
            JsonChange::Set { path, value: new } => set(&mut value, path, new)?,
            JsonChange::Delete { path } => delete(&mut value, path)?,
        };
    }
    let after = pretty(path, &value)?;
    let diff = unified_diff(&before, &after, path, path);
    overlay
        .write(path, Bytes::from(after), &WriteOptions::default())
        .await?;
    Ok(JsonUpdate {
        value,
        places,
        diff,
    })
}

async fn load(overlay: &Overlay, path: &str) -> Result<(String, Value), JsonError> {
    if overlay.stat(path).await?.size > MAX_JSON {
        return Err(WorkspaceError::TooLarge {
            path: path.into(),
            limit: MAX_JSON,
        }
        .into());
    }
    let bytes = overlay.read_held(path).await?;
    let malformed = |reason: String| JsonError::Malformed {
        path: path.into(),
        reason,
    };
    let text = String::from_utf8(bytes.to_vec()).map_err(|error| malformed(error.to_string()))?;
    let value = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    Ok((text, value))
}

fn pretty(path: &str, value: &Value) -> Result<String, JsonError> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| JsonError::Malformed {
        path: path.into(),
        reason: error.to_string(),
    })?;
    Ok(text + "\n")
}

/// A JSONPath as models write it, with or without `$`.
fn parse(path: &str) -> Result<JsonPath, JsonError> {
    // The parser goes down into each of them.
    if path.matches(['?', '(', '!']).count() > MAX_FILTERS {
        return Err(JsonError::Path {
            path: path.chars().take(60).chain(['…']).collect(),
            reason: format!("more than {MAX_FILTERS} filters, parentheses and negations"),
        });
    }
    let full = match path.chars().next() {
        Some('$') => path.to_owned(),
        Some('.' | '[') => format!("${path}"),
        None => "$".into(),
        Some(_) => format!("$.{path}"),
    };
    JsonPath::parse(&full).map_err(|error| JsonError::Path {
        path: path.into(),
        reason: error.to_string(),
    })
}

/// The places that a path names, each once, the last one first.
fn places(value: &Value, path: &str) -> Result<Vec<Vec<Step>>, JsonError> {
    let step = |element: &serde_json_path::PathElement<'_>| match (
        element.as_index(),
        element.as_name(),
    ) {
        (Some(index), _) => Step::Index(index),
        (None, name) => Step::Name(name.unwrap_or_default().to_owned()),
    };
    let found = parse(path)?.query_located(value);
    let mut places: Vec<Vec<Step>> = found
        .locations()
        .map(|place| place.iter().map(step).collect())
        .collect();
    places.sort_unstable_by(|one, other| other.cmp(one));
    places.dedup();
    Ok(places)
}

fn set(value: &mut Value, path: &str, new: &Value) -> Result<usize, JsonError> {
    let mut places = places(value, path)?;
    if places.is_empty() {
        places.push(plain_steps(path).ok_or_else(|| JsonError::Nothing(path.into()))?);
    }
    for place in &places {
        let mut at = &mut *value;
        for step in place {
            at = enter(at, step).ok_or_else(|| JsonError::Nothing(path.into()))?;
        }
        at.clone_from(new);
    }
    Ok(places.len())
}

/// What is one step further; made when it is missing.
fn enter<'a>(at: &'a mut Value, step: &Step) -> Option<&'a mut Value> {
    match step {
        Step::Name(name) => {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            Some(
                at.as_object_mut()?
                    .entry(name.as_str())
                    .or_insert(Value::Null),
            )
        }
        Step::Index(index) => {
            if at.is_null() {
                *at = Value::Array(Vec::new());
            }
            let list = at.as_array_mut()?;
            if *index == list.len() {
                list.push(Value::Null);
            }
            list.get_mut(*index)
        }
    }
}

fn delete(value: &mut Value, path: &str) -> Result<usize, JsonError> {
    let places = places(value, path)?;
    if places.is_empty() {
        return Err(JsonError::Nothing(path.into()));
    }
    for place in &places {
        let Some((last, way)) = place.split_last() else {
            return Err(JsonError::Path {
                path: path.into(),
                reason: "the whole document cannot be removed".into(),
            });
        };
        let mut at = &mut *value;
        for step in way {
            at = enter(at, step).ok_or_else(|| JsonError::Nothing(path.into()))?;
        }
        match (at, last) {
            (Value::Object(names), Step::Name(name)) => {
                names.remove(name);
            }
            (Value::Array(list), Step::Index(index)) if *index < list.len() => {
                list.remove(*index);
            }
            _ => {}
        }
    }
    Ok(places.len())
}

/// The steps of a path that has names and indexes alone.
fn plain_steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    if !rest.starts_with(['.', '[']) && !rest.is_empty() {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        steps.push(Step::Name(rest.get(..end)?.to_owned()));
        rest = rest.get(end..)?;
    }
    while let Some(first) = rest.chars().next() {
        let (step, length) = match first {
            '.' => {
                let name = rest.get(1..)?;
                let name = name.get(..name.find(['.', '[']).unwrap_or(name.len()))?;
                (Step::Name(name.to_owned()), 1 + name.len())
            }
            '[' => {
                let inside = rest.get(1..rest.find(']')?)?;
                let quoted = ['\'', '"']
                    .into_iter()
                    .find_map(|quote| inside.strip_prefix(quote)?.strip_suffix(quote));
                let step = match quoted {
                    Some(name) => Step::Name(name.to_owned()),
                    None => Step::Index(inside.parse().ok()?),
                };
                (step, inside.len() + 2)
            }
            _ => return None,
        };
        if matches!(&step, Step::Name(name) if name.is_empty() || name.contains(['*', '?', '\\'])) {
            return None;
        }
        steps.push(step);
        rest = rest.get(length..)?;
    }
    Some(steps)
}
