//! `edit`.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{
    Files, Replacement, ToolFailure, ToolOutput, expand, files::text_of, refused, replace,
};

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edit {
    /// Text to replace; must match exactly and, without replaceAll, only once in the file
    pub old_text: String,
    /// Text to put there
    pub new_text: String,
    /// Replace every occurrence
    #[serde(default)]
    pub replace_all: Option<bool>,
}

/// Changes parts of a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditInput {
    /// Path of the file, absolute or relative to the working directory
    pub path: String,
    /// Replacements; each is matched against the file as it is now, and they must not overlap
    #[serde(default, deserialize_with = "lenient")]
    pub edits: Vec<Edit>,
    /// Short form for a single replacement: the text to replace
    #[serde(default)]
    pub old_text: Option<String>,
    /// Short form for a single replacement: the text to put there
    #[serde(default)]
    pub new_text: Option<String>,
    /// Short form for a single replacement: replace every occurrence
    #[serde(default)]
    pub replace_all: Option<bool>,
}

/// Models send the list as a list, as one object, or as JSON in a string.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Edit>, D::Error> {
    let mut value = Value::deserialize(deserializer)?;
    if let Value::String(text) = &value {
        value = serde_json::from_str(text).map_err(D::Error::custom)?;
    }
    match value {
        Value::Null => Ok(Vec::new()),
        value @ Value::Object(_) => serde_json::from_value(value)
            .map(|edit| vec![edit])
            .map_err(D::Error::custom),
        value => serde_json::from_value(value).map_err(D::Error::custom),
    }
}

/// Replaces parts of a text file; everything else keeps its bytes, line endings included. All edits
/// or none.
///
/// # Errors
///
/// A message for the model when a text is not found, not unique, overlaps another one or changes
/// nothing.
pub async fn edit(
    files: &(impl Files + ?Sized),
    input: EditInput,
) -> Result<ToolOutput, ToolFailure> {
    let mut edits = input.edits;
    match (input.old_text, input.new_text) {
        (Some(old_text), Some(new_text)) => edits.push(Edit {
            old_text,
            new_text,
            replace_all: input.replace_all,
        }),
        (None, None) => {}
        _ => return refused("oldText and newText go together."),
    }
    let path = expand(files, &input.path);
    let text = text_of(files, &path, &input.path).await?;
    let replacements: Vec<Replacement<'_>> = edits
        .iter()
        .map(|edit| Replacement {
            old: &edit.old_text,
            new: &edit.new_text,
            all: edit.replace_all.unwrap_or(false),
        })
        .collect();
    let (changed, blocks) =
        replace(&text, &replacements, &input.path).map_err(ToolFailure::Refused)?;
    files.write(&path, Bytes::from(changed), false).await?;
    Ok(ToolOutput::text(format!(
        "Successfully replaced {blocks} block(s) in {}.",
        input.path
    )))
}
