//! Bindings as TypeScript declarations.

use async_trait::async_trait;
use bowline_agent::binding::declare::{MAX_DEPTH, declaration, declarations, type_of};
use bowline_agent::binding::{Binding, CallError, Method};
use bowline_agent::tool::ToolContext;
use bowline_sandbox::isolate;
use serde_json::{Value, json};

struct Fixed(Vec<Method>);

#[async_trait]
impl Binding for Fixed {
    fn name(&self) -> &str {
        "github"
    }

    fn description(&self) -> &str {
        "The tracker."
    }

    fn methods(&self) -> &[Method] {
        &self.0
    }

    async fn call(
        &self,
        _: &ToolContext,
        method: &str,
        _: Vec<isolate::Value>,
    ) -> Result<isolate::Value, CallError> {
        Err(CallError::new("Error", method))
    }
}

fn tracker() -> Fixed {
    let issue = json!({
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 1, "description": "One line."},
            "labels": {"type": "array", "items": {"type": "string"}, "default": []},
            "size": {"type": "integer", "minimum": 0},
        },
        "required": ["title"],
        "additionalProperties": false,
    });
    let mut create = Method::new("createIssue", "Open an issue.\n\nWith */ in it.")
        .takes("input", issue)
        .gives(json!({"type": "object", "properties": {"count": {"type": "integer", "minimum": 0}, "url": {"type": "string"}},
            "required": ["count", "url"], "description": "What was opened."}));
    create.approval = true;
    let upload = Method::new("upload", "")
        .takes("new", json!({"type": "string", "description": "Its name."}))
        .may_take("the file", json!({"type": "string", "format": "binary"}))
        .takes("the-file", json!(true));
    let odd = Method::new("odd-name", "Needs quotes.");
    Fixed(vec![create, upload, odd])
}

#[test]
fn a_binding_is_declared_with_its_methods_and_what_they_say() {
    let expected = r#"/** The tracker. */
declare const github: {
  /**
   * Open an issue.
   *
   * With *\/ in it.
   * @returns What was opened.
   * @remarks A person is asked first.
   */
  createIssue(input: {
    /**
     * One line.
     * @minLength 1
     */
    title: string;
    /** @default [] */
    labels?: string[];
    /** @minimum 0 @type integer */
    size?: number;
  }): Promise<{ count: number; url: string }>;
  /** @param new_1 - Its name. */
  upload(new_1: string, the_file?: Uint8Array, the_file_3?: unknown): Promise<unknown>;
  /** Needs quotes. */
  "odd-name"(): Promise<unknown>;
};
"#;
    assert_eq!(declarations(&tracker()), expected);
}

#[test]
fn one_method_is_declared_alone() {
    let expected = "/** The tracker. */\ndeclare const github: {\n  /** Needs quotes. */\n  \"odd-name\"(): Promise<unknown>;\n};\n";
    assert_eq!(
        declaration(&tracker(), "odd-name").as_deref(),
        Some(expected)
    );
    assert_eq!(declaration(&tracker(), "deleteAll"), None);
}

#[test]
fn each_form_of_schema_has_its_type() {
    let text = json!({"type": "string"});
    let number = json!({"type": "number"});
    for (schema, expected) in [
        (json!({}), "unknown"),
        (json!(true), "unknown"),
        (json!(false), "never"),
        (json!({"type": "integer"}), "number"),
        (json!({"type": ["string", "null"]}), "string | null"),
        (json!({"type": "string", "nullable": true}), "string | null"),
        (json!({"type": "string", "format": "binary"}), "Uint8Array"),
        (json!({"type": "string", "format": "date-time"}), "string"),
        (json!({"const": "a\"b"}), r#""a\"b""#),
        (
            json!({"type": "string", "enum": ["a", "b", "a"]}),
            r#""a" | "b""#,
        ),
        (json!({"enum": [1, null, true]}), "1 | null | true"),
        (json!({"enum": [true, false]}), "boolean"),
        (json!({"const": {"a": [1, "x"]}}), r#"{ a: [1, "x"] }"#),
        (json!({"anyOf": [text, number, text]}), "string | number"),
        (json!({"oneOf": [text, {}]}), "unknown"),
        (json!({"anyOf": []}), "never"),
        (
            json!({"type": "object", "oneOf": [{"type": "object", "properties": {"a": text}, "required": ["a"]}, {"type": "null"}]}),
            "{ a: string } | null",
        ),
        (
            json!({"allOf": [{"type": "object", "properties": {"a": text}}, {"anyOf": [{"type": "object", "properties": {"b": text}}, {"type": "object", "properties": {"c": number}}]}]}),
            "{ a?: string } & ({ b?: string } | { c?: number })",
        ),
        (
            json!({"type": "object", "properties": {"a": text}, "required": ["a"], "allOf": [{"type": "object", "properties": {"b": text}}]}),
            "{ b?: string } & { a: string }",
        ),
        (json!({"type": "array"}), "unknown[]"),
        (
            json!({"type": "array", "items": {"anyOf": [text, number]}}),
            "(string | number)[]",
        ),
        (
            json!({"items": {"type": "array", "items": text}}),
            "string[][]",
        ),
        (
            json!({"type": "array", "prefixItems": [text, number], "items": false}),
            "[string, number]",
        ),
        (
            json!({"type": "array", "prefixItems": [text, {"anyOf": [text, number]}], "minItems": 1, "items": number}),
            "[string, (string | number)?, ...number[]]",
        ),
        (
            json!({"type": "array", "items": [text], "additionalItems": text}),
            "[string, ...string[]]",
        ),
        (json!({"type": "object"}), "Record<string, unknown>"),
        (
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
            "Record<string, never>",
        ),
        (
            json!({"type": "object", "additionalProperties": number}),
            "Record<string, number>",
        ),
        (
            json!({"patternProperties": {"^a": number, "^b": text}}),
            "Record<string, number | string>",
        ),
        (
            json!({"properties": {"a": text}, "additionalProperties": number}),
            "{ a?: string } & Record<string, number>",
        ),
        (
            json!({"properties": {"a-b": text, "2": text}}),
            r#"{ "2"?: string; "a-b"?: string }"#,
        ),
        (
            json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "array", "items": {"$ref": "#/definitions/n"}}}, "definitions": {"n": number}}),
            "number[]",
        ),
        (json!({"$ref": "#/nowhere"}), "unknown"),
        (json!({"$ref": "https://example.com/schema"}), "unknown"),
        (json!({"type": "file"}), "unknown"),
    ] {
        assert_eq!(type_of(&schema), expected, "{schema}");
    }
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let tree = json!({"type": "object", "properties": {
        "value": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}}});
    assert_eq!(type_of(&tree), "{ children?: unknown[]; value?: string }");
    assert_eq!(type_of(&json!({"$ref": "#"})), "unknown");
}

#[test]
fn a_hostile_schema_is_cut() {
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    assert_eq!(type_of(&deep), format!("unknown{}", "[]".repeat(MAX_DEPTH)));

    // Twelve definitions, each twice the one before: four thousand types if all were written out.
    let mut defs = serde_json::Map::new();
    for index in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
        defs.insert(
            format!("d{index}"),
            json!({"type": "object", "properties": {"a": next, "b": next}}),
        );
    }
    let text = type_of(&json!({"$ref": "#/$defs/d0", "$defs": Value::Object(defs)}));
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
}
