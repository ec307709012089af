//! Tool arguments: conversion, error texts, schemas made from types.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use bowline_agent::tool::schema;
use bowline_agent::tool::validate::Validator;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

fn one(property: Value) -> Validator {
    let schema = json!({"type": "object", "properties": {"x": property}, "required": ["x"]});
    Validator::new(&schema).unwrap()
}

fn optional(property: Value) -> Validator {
    Validator::new(&json!({"type": "object", "properties": {"x": property}})).unwrap()
}

fn converted(validator: &Validator, x: Value) -> Result<Value, String> {
    let result = validator.validate("t", &json!({ "x": x }));
    result.map(|value| value["x"].clone()).map_err(|text| {
        text.lines()
            .filter(|line| line.starts_with("  - "))
            .collect::<Vec<_>>()
            .join("|")
    })
}

#[test]
fn values_are_converted_to_the_type_that_the_schema_asks_for() {
    for (kind, given, expected) in [
        ("number", json!("42"), Ok(json!(42))),
        ("number", json!(" 4.5 "), Ok(json!(4.5))),
        ("number", Value::Null, Ok(json!(0))),
        ("number", json!(true), Ok(json!(1))),
        ("number", json!("abc"), Err("  - x: must be number")),
        ("number", json!(""), Err("  - x: must be number")),
        ("number", json!("Infinity"), Err("  - x: must be number")),
        ("integer", json!("7"), Ok(json!(7))),
        ("integer", json!(7.0), Ok(json!(7))),
        ("integer", json!("7.5"), Err("  - x: must be integer")),
        ("string", json!(5), Ok(json!("5"))),
        ("string", json!(false), Ok(json!("false"))),
        ("string", Value::Null, Ok(json!(""))),
        ("string", json!({}), Err("  - x: must be string")),
        ("boolean", json!("true"), Ok(json!(true))),
        ("boolean", json!(0), Ok(json!(false))),
        ("boolean", Value::Null, Ok(json!(false))),
        ("boolean", json!("yes"), Err("  - x: must be boolean")),
        ("null", json!(""), Ok(Value::Null)),
        ("array", json!("one"), Ok(json!(["one"]))),
        ("array", json!({"a": 1}), Ok(json!([{"a": 1}]))),
        ("array", Value::Null, Err("  - x: must be array")),
        ("object", json!("one"), Err("  - x: must be object")),
    ] {
        let result = converted(&one(json!({ "type": kind })), given.clone());
        assert_eq!(result, expected.map_err(str::to_owned), "{given} as {kind}");
    }
}

#[test]
fn null_of_an_optional_property_counts_as_left_out() {
    let left_out = optional(json!({"type": "string"}))
        .validate("t", &json!({"x": null}))
        .unwrap();
    assert_eq!(left_out, json!({}));
    let kept = optional(json!({"type": ["string", "null"]}));
    assert_eq!(
        kept.validate("t", &json!({"x": null})).unwrap(),
        json!({"x": null})
    );
    let kept = optional(json!({"anyOf": [{"type": "string"}, {"type": "null"}]}));
    assert_eq!(
        kept.validate("t", &json!({"x": null})).unwrap(),
        json!({"x": null})
    );
}

#[test]
fn conversion_reaches_into_lists_references_and_alternatives() {
    let items = one(json!({"type": "array", "items": {"type": "integer"}}));
    assert_eq!(converted(&items, json!(["1", 2])), Ok(json!([1, 2])));
    assert_eq!(converted(&items, json!("1")), Ok(json!([1])));

    let schema = json!({
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}, "v": {"type": "number"}}}}
    });
    let recursive = Validator::new(&schema).unwrap();
    assert_eq!(
        converted(&recursive, json!({"v": "1", "next": {"v": "2"}})),
        Ok(json!({"v": 1, "next": {"v": 2}}))
    );

    let either =
        one(json!({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}));
    assert_eq!(converted(&either, json!(["1"])), Ok(json!([1])));
    assert_eq!(converted(&either, json!("1")), Ok(json!(1)));
    let exact = one(json!({"oneOf": [{"type": "number"}, {"type": "string"}]}));
    assert_eq!(
        converted(&exact, json!("1")),
        Ok(json!("1")),
        "a match as it is wins"
    );
}

#[test]
fn the_error_text_names_every_place_and_shows_the_arguments() {
    let schema = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "mode": {"enum": ["a", "b"]},
            "edits": {"type": "array", "items": {
                "type": "object",
                "properties": {"oldText": {"type": "string"}, "line": {"type": "integer", "minimum": 1}},
                "required": ["oldText"]
            }}
        },
        "required": ["path", "edits"]
    });
    let given = json!({"edits": [{"line": 0}, {"oldText": {}}], "mode": "c", "extra": 1});
    let before = given.clone();
    let error = Validator::new(&schema)
        .unwrap()
        .validate("edit", &given)
        .unwrap_err();
    assert_eq!(given, before);
    let (errors, arguments) = error.split_once("\n\nReceived arguments:\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(arguments).unwrap(), given);
    let mut lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.remove(0), "Validation failed for tool \"edit\":");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "  - edits.0.line: must be >= 1",
            "  - edits.0: must have required property 'oldText'",
            "  - edits.1.oldText: must be string",
            "  - mode: must be equal to one of the allowed values: [\"a\",\"b\"]",
            "  - path: must have required property 'path'",
        ]
    );
}

#[test]
fn arguments_that_are_no_object_are_reported_at_the_root() {
    let error = one(json!({})).validate("t", &json!("text")).unwrap_err();
    assert_eq!(
        error,
        "Validation failed for tool \"t\":\n  - root: must be object\n\nReceived arguments:\n\"text\""
    );
}

#[test]
fn errors_and_arguments_are_shown_within_bounds() {
    let validator = one(json!({"type": "array", "items": {"type": "number"}}));
    let many: Vec<String> = (0..1_000).map(|n| format!("word {n}")).collect();
    let error = validator.validate("t", &json!({ "x": many })).unwrap_err();
    assert!(error.contains("\n  - … and 980 more\n"), "{error}");
    assert!(error.chars().count() < 6_000 && error.ends_with("characters in all)"));
}

#[test]
fn a_dangling_reference_refuses_only_its_own_place() {
    for reference in ["#/$defs/none", "https://example.com/schema.json", "#anchor"] {
        let schema = json!({
            "type": "object",
            "properties": {"x": {"$ref": reference}, "y": {"type": "number"}}
        });
        let validator = Validator::new(&schema).unwrap();
        assert_eq!(
            validator.validate("t", &json!({"y": "1"})).unwrap(),
            json!({"y": 1})
        );
        assert_eq!(
            converted(&validator, json!(1)),
            Err(format!("  - x: can't resolve reference {reference}"))
        );
    }
}

#[test]
fn an_invalid_schema_is_refused() {
    let error = Validator::new(&json!({"type": "objekt"})).unwrap_err();
    assert_eq!(error.code(), "tool_schema");
    assert!(
        error
            .to_string()
            .starts_with("not a valid JSON Schema at /type: "),
        "{error}"
    );
}

/// How to open it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Fast,
    Safe,
}

#[derive(Deserialize, JsonSchema)]
struct Inner {
    /// A property that is called title.
    title: String,
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Where it is.
    path: String,
    /// How many lines.
    limit: Option<u32>,
    /// The mode.
    mode: Option<Mode>,
    inner: Vec<Inner>,
}

#[test]
fn a_type_becomes_a_plain_object_schema() {
    assert_eq!(
        schema::of::<Arguments>().unwrap(),
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Where it is."},
                "limit": {"type": "integer", "minimum": 0, "description": "How many lines."},
                "mode": {"type": "string", "enum": ["fast", "safe"], "description": "The mode."},
                "inner": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"title": {"type": "string", "description": "A property that is called title."}},
                    "required": ["title"]
                }}
            },
            "required": ["path", "inner"]
        })
    );
    assert_eq!(
        schema::of::<()>().unwrap(),
        json!({"type": "object", "properties": {}})
    );
}

#[derive(Deserialize, JsonSchema)]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "kind")]
enum Union {
    A { a: u8 },
    B { b: u8 },
}

#[test]
fn recursive_types_work_and_others_than_objects_are_refused() {
    let validator = Validator::new(&schema::of::<Tree>().unwrap()).unwrap();
    let tree = json!({"children": [{"children": {"children": []}}]});
    assert_eq!(
        validator.validate("t", &tree).unwrap(),
        json!({"children": [{"children": [{"children": []}]}]})
    );
    assert_eq!(
        schema::of::<Vec<String>>().unwrap_err().to_string(),
        "the arguments of a tool must be an object; `Array_of_string` is of type `array`"
    );
    assert_eq!(
        schema::of::<Union>().unwrap_err().to_string(),
        "the arguments of a tool must be an object; `Union` has `oneOf` at the top level"
    );
}
