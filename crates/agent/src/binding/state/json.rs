//! JSON files.

use bowline_sandbox::{
    isolate::Value,
    json::{self, JsonChange, JsonError, MAX_JSON},
    workspace::{Overlay, WorkspaceError, WriteOptions},
};
use bytes::Bytes;
use serde::Serialize as _;
use serde_json::json as object;

use super::{
    super::ordered::{Ordered, OrderedRef},
    Outcome,
};
use crate::binding::{CallError, arguments::Arguments};

/// Most spaces of an indent.
const MAX_INDENT: u64 = 16;

pub(super) async fn read(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    if files.stat(&path).await?.size > MAX_JSON {
        let limit = MAX_JSON;
        return Err(WorkspaceError::TooLarge { path, limit }.into());
    }
    let bytes = files.read(&path).await?;
    match serde_json::from_slice::<Ordered>(&bytes) {
        Ok(document) => Ok(document.0),
        Err(error) => {
            let reason = error.to_string();
            Err(JsonError::Malformed { path, reason }.into())
        }
    }
}

pub(super) async fn query(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, query) = (with.text("path")?, with.text("query")?);
    let mut found = json::query_json(files, &path, &query).await?;
    if json::is_one_place(&query) {
        return Ok(found.pop().map_or(Value::Undefined, Value::from));
    }
    Ok(Value::Array(found.into_iter().map(Value::from).collect()))
}

pub(super) async fn write(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let value = with.take_any("value").unwrap_or_default();
    if value == Value::Undefined {
        return Err(with.wrong("value is missing"));
    }
    let spaces = with.table("options", &["spaces"])?.count("spaces")?;
    let text = pretty(&value, spaces).ok_or_else(|| with.wrong("value has no JSON form"))?;
    files
        .write(&path, Bytes::from(text), &WriteOptions::with_parents())
        .await?;
    Ok(Value::Undefined)
}

/// A document with its indent and a newline at the end.
pub(super) fn pretty(value: &Value, spaces: Option<u64>) -> Option<Vec<u8>> {
    let value = OrderedRef(value);
    let spaces = spaces.unwrap_or(2).min(MAX_INDENT);
    let mut out = if spaces == 0 {
        serde_json::to_vec(&value).ok()?
    } else {
        let indent = vec![b' '; usize::try_from(spaces).ok()?];
        let style = serde_json::ser::PrettyFormatter::with_indent(&indent);
        let mut writer = serde_json::Serializer::with_formatter(Vec::new(), style);
        value.serialize(&mut writer).ok()?;
        writer.into_inner()
    };
    out.push(b'\n');
    Some(out)
}

pub(super) async fn update(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let changes = with.list("operations")?.into_iter().map(change);
    let changes = changes.collect::<Result<Vec<_>, CallError>>()?;
    let update = json::update_json(files, &path, &changes).await?;
    Ok(Value::from(object!({
        "value": update.value,
        "operationsApplied": changes.len(),
        "diff": update.diff,
    })))
}

fn change(operation: Value) -> Result<JsonChange, CallError> {
    let keys = &["op", "path", "value"];
    let mut with = Arguments::fields("state.updateJson: an operation", operation, keys)?;
    let path = with.text("path")?;
    match with.text("op")?.as_str() {
        "set" => {
            let value = with.take_any("value").unwrap_or_default().to_json();
            Ok(JsonChange::Set { path, value })
        }
        "delete" => Ok(JsonChange::Delete { path }),
        _ => Err(with.wrong("op must be set or delete")),
    }
}
