//! References that lead nowhere.

use serde_json::{Value, json};

use super::{subschemas, subschemas_mut};

/// In front of the reference, in the place that it had.
const MARK: &str = "unresolved reference ";

/// Replaces each reference that leads nowhere by a schema that nothing matches, so that the rest
/// of the schema still works.
pub(super) fn seal(schema: &mut Value) {
    let root = schema.clone();
    let mut anchors = Vec::new();
    collect_anchors(&root, &mut anchors);
    seal_below(schema, &root, &anchors);
}

/// The reference that stood in the place of this `not`, if it is one of ours.
pub(super) fn sealed(not: &Value) -> Option<&str> {
    not.get("$comment")?.as_str()?.strip_prefix(MARK)
}

fn seal_below(schema: &mut Value, root: &Value, anchors: &[String]) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(reference) = object.get("$ref").and_then(Value::as_str)
        && !leads_somewhere(reference, root, anchors)
    {
        let comment = format!("{MARK}{reference}");
        *schema = json!({ "not": { "$comment": comment } });
        return;
    }
    for part in subschemas_mut(object) {
        seal_below(part, root, anchors);
    }
}

fn leads_somewhere(reference: &str, root: &Value, anchors: &[String]) -> bool {
    match reference.strip_prefix('#') {
        Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => root
            .pointer(pointer)
            .is_some_and(|found| found.is_object() || found.is_boolean()),
        Some(anchor) => anchors.iter().any(|known| known == anchor),
        // An identifier inside the schema itself may resolve; nothing outside is ever fetched.
        None => anchors.iter().any(|known| known == reference),
    }
}

fn collect_anchors(schema: &Value, anchors: &mut Vec<String>) {
    let Some(object) = schema.as_object() else {
        return;
    };
    for keyword in ["$anchor", "$dynamicAnchor", "$id", "id"] {
        if let Some(name) = object.get(keyword).and_then(Value::as_str) {
            anchors.push(name.trim_start_matches('#').to_owned());
        }
    }
    for (_, part) in subschemas(object) {
        collect_anchors(part, anchors);
    }
}
