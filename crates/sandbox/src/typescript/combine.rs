//! What TypeScript does with types, done with schemas: unions, intersections, picking and omitting.

use serde_json::{Map, Value as Json, json};

/// A type as JSON Schema; `false` has no values. JSON has no `undefined`, so that stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Typed {
    pub(super) schema: Json,
    pub(super) undefined: bool,
}

impl Typed {
    pub(super) fn new(schema: Json) -> Self {
        Self {
            schema,
            undefined: false,
        }
    }

    pub(super) fn undefined() -> Self {
        Self {
            schema: Json::Bool(false),
            undefined: true,
        }
    }

    pub(super) fn never() -> Self {
        Self::new(Json::Bool(false))
    }

    pub(super) fn of(kind: &str) -> Self {
        Self::new(json!({ "type": kind }))
    }
}

/// How many parts a schema has.
pub(super) fn size(schema: &Json) -> usize {
    match schema {
        Json::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Json::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 1,
    }
}

/// A schema that allows exactly one value.
pub(super) fn literal(value: Json) -> Json {
    match kind(&value) {
        Some("null") => json!({ "type": "null" }),
        Some(kind) => json!({ "type": kind, "const": value }),
        None => json!({ "const": value }),
    }
}

fn kind(value: &Json) -> Option<&'static str> {
    match value {
        Json::Null => Some("null"),
        Json::Bool(_) => Some("boolean"),
        Json::Number(_) => Some("number"),
        Json::String(_) => Some("string"),
        Json::Array(_) | Json::Object(_) => None,
    }
}

/// The values of a schema that lists them all.
pub(super) fn values(schema: &Json) -> Option<Vec<Json>> {
    let object = schema.as_object()?;
    let described =
        |key: &String| !matches!(key.as_str(), "type" | "const" | "enum" | "description");
    if object.keys().any(described) {
        return None;
    }
    if let Some(value) = object.get("const") {
        return Some(vec![value.clone()]);
    }
    if let Some(Json::Array(all)) = object.get("enum") {
        return Some(all.clone());
    }
    (object.get("type") == Some(&json!("null"))).then(|| vec![Json::Null])
}

/// The schema of some values.
pub(super) fn one_of(all: Vec<Json>) -> Json {
    if let [one] = all.as_slice() {
        return literal(one.clone());
    }
    let mut kinds: Vec<&str> = Vec::new();
    for value in &all {
        match kind(value) {
            Some(kind) if kinds.contains(&kind) => {}
            Some(kind) => kinds.push(kind),
            None => return json!({ "enum": all }),
        }
    }
    match kinds.as_slice() {
        [] => Json::Bool(false),
        ["boolean"] if all.len() == 2 => json!({ "type": "boolean" }),
        [kind] => json!({ "type": kind, "enum": all }),
        kinds => json!({ "type": kinds, "enum": all }),
    }
}

/// What says only of which types a value may be.
fn bare(schema: &Json) -> Option<Vec<Json>> {
    let object = schema.as_object()?;
    if object.len() != 1 {
        return None;
    }
    let plain = |kind: &Json| {
        kind.as_str()
            .is_some_and(|kind| !matches!(kind, "array" | "object"))
    };
    match object.get("type")? {
        Json::Array(kinds) if kinds.iter().all(plain) => Some(kinds.clone()),
        kind if plain(kind) => Some(vec![kind.clone()]),
        _ => None,
    }
}

/// `A | B`.
pub(super) fn union(types: impl IntoIterator<Item = Typed>) -> Typed {
    let mut undefined = false;
    let mut parts: Vec<Json> = Vec::new();
    for typed in types {
        undefined |= typed.undefined;
        let inner = match typed.schema {
            Json::Bool(false) => continue,
            Json::Object(object) if object.is_empty() => {
                return Typed {
                    schema: json!({}),
                    undefined,
                };
            }
            Json::Object(mut object) if object.len() == 1 && object.contains_key("anyOf") => {
                match object.remove("anyOf") {
                    Some(Json::Array(inner)) => inner,
                    _ => Vec::new(),
                }
            }
            other => vec![other],
        };
        for part in inner {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
    }
    let (mut listed, mut kinds, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        if part != json!({ "type": "null" })
            && let Some(values) = values(&part)
        {
            listed.extend(values);
        } else if let Some(bare) = bare(&part) {
            kinds.extend(bare);
        } else {
            others.push(part);
        }
    }
    if listed.contains(&Json::Bool(true)) && listed.contains(&Json::Bool(false)) {
        listed.retain(|value| !value.is_boolean());
        kinds.push("boolean".into());
    }
    // A value whose whole type is there says nothing more.
    listed.retain(|value| !kind(value).is_some_and(|kind| kinds.iter().any(|known| known == kind)));
    dedup(&mut listed);
    dedup(&mut kinds);
    if !listed.is_empty() && kinds.iter().all(|kind| kind == "null") {
        // Texts or null: one list.
        listed.extend(kinds.drain(..).map(|_| Json::Null));
    }
    let mut parts = Vec::new();
    if !listed.is_empty() {
        parts.push(one_of(listed));
    }
    parts.extend(others);
    if let [kind] = kinds.as_slice() {
        parts.push(json!({ "type": kind }));
    } else if !kinds.is_empty() {
        parts.push(json!({ "type": kinds }));
    }
    let schema = match parts.len() {
        0 => Json::Bool(false),
        1 => parts.swap_remove(0),
        _ => json!({ "anyOf": parts }),
    };
    Typed { schema, undefined }
}

fn dedup(values: &mut Vec<Json>) {
    let mut seen: Vec<Json> = Vec::new();
    values.retain(|value| {
        let new = !seen.contains(value);
        if new {
            seen.push(value.clone());
        }
        new
    });
}

/// Whether this is an object of properties, so that it can be taken apart.
pub(super) fn is_object(schema: &Json) -> bool {
    schema.as_object().is_some_and(|object| {
        object.get("type") == Some(&json!("object")) && !object.contains_key("allOf")
    })
}

/// `A & B`.
pub(super) fn intersection(types: Vec<Json>) -> Json {
    let mut merged: Option<Json> = None;
    let mut others: Vec<Json> = Vec::new();
    for schema in types {
        match schema {
            Json::Bool(false) => return Json::Bool(false),
            Json::Object(object) if object.is_empty() => {}
            schema if is_object(&schema) => {
                merged = Some(match merged {
                    None => schema,
                    Some(before) => merge(before, schema),
                });
            }
            schema => {
                if !others.contains(&schema) {
                    others.push(schema);
                }
            }
        }
    }
    let plain = |schema: &Json| bare(schema).is_some() || values(schema).is_some();
    if let [one] = others.as_slice()
        && plain(one)
    {
        // A text with a brand, as in `string & { __brand: "id" }`, is a text.
        return others.swap_remove(0);
    }
    // `("a" | "b") & string`: what is in both lists.
    if merged.is_none() && others.len() == 2 {
        let lists = (values(&others[0]), values(&others[1]));
        if let (Some(first), Some(second)) = lists {
            let both = first.into_iter().filter(|value| second.contains(value));
            return one_of(both.collect());
        }
    }
    match (merged, others.len()) {
        (None, 0) => json!({}),
        (Some(merged), 0) => merged,
        (None, 1) => others.swap_remove(0),
        (merged, _) => {
            let all: Vec<Json> = merged.into_iter().chain(others).collect();
            json!({ "allOf": all })
        }
    }
}

/// One object with the properties of both; a property of both has both types.
fn merge(first: Json, second: Json) -> Json {
    let (Json::Object(mut first), Json::Object(second)) = (first, second) else {
        return Json::Bool(false);
    };
    for (key, value) in second {
        match key.as_str() {
            "properties" => {
                let mine = first.entry(key).or_insert_with(|| json!({}));
                let (Json::Object(mine), Json::Object(theirs)) = (mine, value) else {
                    continue;
                };
                for (name, schema) in theirs {
                    let both = match mine.remove(&name) {
                        Some(before) if before != schema => intersection(vec![before, schema]),
                        _ => schema,
                    };
                    mine.insert(name, both);
                }
            }
            "required" => {
                let mine = first.entry(key).or_insert_with(|| json!([]));
                let (Json::Array(mine), Json::Array(theirs)) = (mine, value) else {
                    continue;
                };
                for name in theirs {
                    if !mine.contains(&name) {
                        mine.push(name);
                    }
                }
            }
            "additionalProperties" => {
                let both = match first.remove(&key) {
                    Some(before) if before != value => intersection(vec![before, value]),
                    _ => value,
                };
                first.insert(key, both);
            }
            _ => {
                first.entry(key).or_insert(value);
            }
        }
    }
    Json::Object(first)
}

/// An interface over those that it extends: its own properties win.
pub(super) fn extend(base: Json, own: Json) -> Json {
    let (Json::Object(mut base), Json::Object(own)) = (base, own) else {
        return Json::Bool(false);
    };
    let names: Vec<String> = names(&Json::Object(own.clone())).unwrap_or_default();
    if let Some(Json::Object(properties)) = base.get_mut("properties") {
        properties.retain(|name, _| !names.contains(name));
    }
    if let Some(Json::Array(required)) = base.get_mut("required") {
        required.retain(|name| {
            !name
                .as_str()
                .is_some_and(|name| names.iter().any(|n| n == name))
        });
    }
    merge(Json::Object(own), Json::Object(base))
}

/// An object of these properties: name, schema, whether it may be left out.
pub(super) fn object(properties: Vec<(String, Json, bool)>) -> Json {
    let mut required = Vec::new();
    let mut fields = Map::new();
    for (name, schema, optional) in properties {
        if !optional {
            required.push(Json::from(name.as_str()));
        }
        fields.insert(name, schema);
    }
    let mut object = Map::new();
    object.insert("type".to_owned(), "object".into());
    object.insert("properties".to_owned(), Json::Object(fields));
    if !required.is_empty() {
        object.insert("required".to_owned(), Json::Array(required));
    }
    Json::Object(object)
}

/// The names of the properties of an object.
pub(super) fn names(schema: &Json) -> Option<Vec<String>> {
    let properties = schema.get("properties")?.as_object()?;
    Some(properties.keys().cloned().collect())
}

/// Whether a property must be there.
pub(super) fn is_required(schema: &Json, name: &str) -> bool {
    schema
        .get("required")
        .and_then(Json::as_array)
        .is_some_and(|all| all.iter().any(|one| one == name))
}

/// The object with only those of its properties for which `keep` holds.
pub(super) fn filter(mut schema: Json, keep: impl Fn(&str) -> bool) -> Json {
    if let Some(Json::Object(properties)) = schema.get_mut("properties") {
        properties.retain(|name, _| keep(name));
    }
    let mut empty = false;
    if let Some(Json::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name.as_str().is_some_and(&keep));
        empty = required.is_empty();
    }
    if empty && let Some(object) = schema.as_object_mut() {
        object.remove("required");
    }
    schema
}

/// The object with all its properties required, or none.
pub(super) fn require(mut schema: Json, all: bool) -> Json {
    let names: Vec<Json> = names(&schema)
        .unwrap_or_default()
        .into_iter()
        .map(Json::from)
        .collect();
    if let Some(object) = schema.as_object_mut() {
        if all && !names.is_empty() {
            object.insert("required".to_owned(), Json::Array(names));
        } else {
            object.remove("required");
        }
    }
    schema
}

/// The type without the values of another: `Exclude<"a" | "b", "a">`.
pub(super) fn exclude(typed: Typed, without: &Typed, keep: bool) -> Typed {
    let undefined = typed.undefined && (without.undefined == keep);
    let members = match &typed.schema {
        Json::Object(object) if object.len() == 1 && object.contains_key("anyOf") => object
            .get("anyOf")
            .and_then(Json::as_array)
            .cloned()
            .unwrap_or_default(),
        other => vec![other.clone()],
    };
    let excluded = values(&without.schema).unwrap_or_default();
    let kinds: Vec<Json> = bare(&without.schema).unwrap_or_default();
    let drops = |value: &Json| {
        excluded.contains(value)
            || kind(value).is_some_and(|kind| kinds.iter().any(|known| known == kind))
    };
    let left = members.into_iter().filter_map(|member| {
        if let Some(all) = values(&member) {
            let left: Vec<Json> = all
                .into_iter()
                .filter(|value| drops(value) == keep)
                .collect();
            return (!left.is_empty()).then(|| one_of(left));
        }
        if let Some(mine) = bare(&member) {
            let left: Vec<Json> = mine
                .into_iter()
                .filter(|kind| kinds.contains(kind) == keep)
                .collect();
            return match left.as_slice() {
                [] => None,
                [one] => Some(json!({ "type": one })),
                all => Some(json!({ "type": all })),
            };
        }
        ((member == without.schema) == keep).then_some(member)
    });
    let mut result = union(left.map(Typed::new));
    result.undefined = undefined;
    result
}
