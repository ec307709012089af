//! JSON Schema from the types of a function.

use std::collections::BTreeMap;

use bowline_sandbox::typescript::{self, Module, SourceError, SourceErrorKind};
use serde_json::{Value, json};

/// Reads `tools/t.ts` among these files.
fn read_all(files: &[(&str, &str)]) -> Result<Module, SourceError> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    typescript::read_with("tools/t.ts", "tool", &|name| match files.get(name) {
        Some(text) if *text == "secret" => Err("is outside of `lib`".to_owned()),
        found => Ok(found.map(|text| (*text).to_owned())),
    })
}

fn read(source: &str) -> Result<Module, SourceError> {
    read_all(&[("tools/t.ts", source)])
}

/// The schema of a type, with declarations before it.
fn schema(declared: &str, ty: &str) -> Result<Value, String> {
    let source = format!("{declared}\nexport default (input: {ty}) => 0");
    read(&source)
        .map(|module| module.function.parameters[0].schema.clone())
        .map_err(|error| error.to_string())
}

/// Each line: a type, and its schema.
fn table(declared: &str, rows: &[(&str, Value)]) {
    for (ty, expected) in rows {
        let found = schema(declared, ty).unwrap_or_else(|error| panic!("{ty}: {error}"));
        assert_eq!(&found, expected, "{ty}");
    }
}

fn text() -> Value {
    json!({"type": "string"})
}

#[test]
fn plain_types_unions_and_literals() {
    table(
        "",
        &[
            ("string", text()),
            ("number", json!({"type": "number"})),
            ("boolean", json!({"type": "boolean"})),
            ("null", json!({"type": "null"})),
            ("unknown", json!({})),
            ("any", json!({})),
            ("object", json!({"type": "object"})),
            ("(string)", text()),
            ("string | number", json!({"type": ["string", "number"]})),
            ("string | null", json!({"type": ["string", "null"]})),
            ("string | unknown", json!({})),
            ("string | string", text()),
            (r#""a""#, json!({"type": "string", "const": "a"})),
            ("'a' | `b`", json!({"type": "string", "enum": ["a", "b"]})),
            ("1 | -2.5", json!({"type": "number", "enum": [1, -2.5]})),
            (
                "'a' | 1",
                json!({"type": ["string", "number"], "enum": ["a", 1]}),
            ),
            (
                "'a' | null",
                json!({"type": ["string", "null"], "enum": ["a", null]}),
            ),
            ("'a' | string", text()),
            ("true", json!({"type": "boolean", "const": true})),
            ("true | false", json!({"type": "boolean"})),
            ("true | false | null", json!({"type": ["null", "boolean"]})),
            (
                "'a' | number",
                json!({"anyOf": [{"type": "string", "const": "a"}, {"type": "number"}]}),
            ),
            (
                "string | string[] | null",
                json!({"anyOf": [{"type": "array", "items": text()}, {"type": ["string", "null"]}]}),
            ),
            (
                "{ kind: 'a'; n: number } | { kind: 'b' }",
                json!({"anyOf": [
                    {"type": "object", "required": ["kind", "n"], "properties":
                        {"kind": {"type": "string", "const": "a"}, "n": {"type": "number"}}},
                    {"type": "object", "required": ["kind"], "properties":
                        {"kind": {"type": "string", "const": "b"}}},
                ]}),
            ),
            ("string & { __brand: 'id' }", text()),
            (
                "('a' | 'b') & ('b' | 'c')",
                json!({"type": "string", "const": "b"}),
            ),
        ],
    );
}

#[test]
fn lists_tuples_and_records() {
    let list = json!({"type": "array", "items": text()});
    table(
        "enum Level { Low = 'low', High = 'high' }",
        &[
            ("string[]", list.clone()),
            ("readonly string[]", list.clone()),
            ("Array<string>", list.clone()),
            ("ReadonlyArray<string>", list.clone()),
            ("string[][]", json!({"type": "array", "items": list})),
            (
                "(string | number)[]",
                json!({"type": "array", "items": {"type": ["string", "number"]}}),
            ),
            (
                "[string, number]",
                json!({"type": "array", "prefixItems": [text(), {"type": "number"}], "items": false, "minItems": 2, "maxItems": 2}),
            ),
            (
                "[name: string, size?: number]",
                json!({"type": "array", "prefixItems": [text(), {"type": "number"}], "items": false, "minItems": 1, "maxItems": 2}),
            ),
            (
                "[string, number?, ...boolean[]]",
                json!({"type": "array", "prefixItems": [text(), {"type": "number"}], "items": {"type": "boolean"}, "minItems": 1}),
            ),
            (
                "[...string[]]",
                json!({"type": "array", "items": text(), "minItems": 0}),
            ),
            (
                "[]",
                json!({"type": "array", "items": false, "minItems": 0, "maxItems": 0}),
            ),
            (
                "Record<string, number>",
                json!({"type": "object", "additionalProperties": {"type": "number"}}),
            ),
            (
                "{ [key: string]: number | undefined }",
                json!({"type": "object", "additionalProperties": {"type": "number"}}),
            ),
            (
                "{ a: string; [key: string]: string }",
                json!({"type": "object", "properties": {"a": text()}, "required": ["a"], "additionalProperties": text()}),
            ),
            (
                "Record<'a' | 'b', string>",
                json!({"type": "object", "properties": {"a": text(), "b": text()}, "required": ["a", "b"]}),
            ),
            (
                "Partial<Record<Level, string>>",
                json!({"type": "object", "properties": {"low": text(), "high": text()}}),
            ),
            (
                "Record<`x-${string}`, string>",
                json!({"type": "object", "additionalProperties": text(), "propertyNames": {"pattern": "^x-[\\s\\S]*$"}}),
            ),
        ],
    );
}

#[test]
fn objects_aliases_interfaces_and_generics() {
    let declared = r"
        interface Base { id: string; note?: string }
        interface Issue extends Base { note: string; labels?: string[] }
        interface Issue { open: boolean }
        type Both = Base & { size: number };
        type Page<T, K = string> = { items: T[]; next?: K };
        type Maybe<T> = T | null;
        namespace Inner {}
    ";
    let issue = json!({"type": "object",
        "properties": {"id": text(), "note": text(), "labels": {"type": "array", "items": text()}, "open": {"type": "boolean"}},
        "required": ["note", "id", "open"]});
    table(
        declared,
        &[
            (
                "{ a: string, 'b-c'?: number; 3: boolean }",
                json!({"type": "object", "properties": {"a": text(), "b-c": {"type": "number"}, "3": {"type": "boolean"}}, "required": ["a", "3"]}),
            ),
            ("{}", json!({"type": "object", "properties": {}})),
            (
                "{ a: string | undefined; b?: undefined | null; readonly c?: never }",
                json!({"type": "object", "properties": {"a": text(), "b": {"type": "null"}, "c": {"not": {}}}}),
            ),
            ("Issue", issue.clone()),
            (
                "Both",
                json!({"type": "object", "properties": {"id": text(), "note": text(), "size": {"type": "number"}}, "required": ["id", "size"]}),
            ),
            (
                "Page<string>",
                json!({"type": "object", "properties": {"items": {"type": "array", "items": text()}, "next": text()}, "required": ["items"]}),
            ),
            (
                "Page<Maybe<number>, 1>['items']",
                json!({"type": "array", "items": {"type": ["number", "null"]}}),
            ),
            (
                "Pick<Issue, 'id' | 'labels'>",
                json!({"type": "object", "properties": {"id": text(), "labels": {"type": "array", "items": text()}}, "required": ["id"]}),
            ),
            (
                "Omit<Issue, 'open' | 'labels' | 'note'>",
                json!({"type": "object", "properties": {"id": text()}, "required": ["id"]}),
            ),
            (
                "Partial<Base>",
                json!({"type": "object", "properties": {"id": text(), "note": text()}}),
            ),
            (
                "Required<Readonly<Base>>",
                json!({"type": "object", "properties": {"id": text(), "note": text()}, "required": ["id", "note"]}),
            ),
            (
                "keyof Base",
                json!({"type": "string", "enum": ["id", "note"]}),
            ),
            ("Issue['labels']", json!({"type": "array", "items": text()})),
            ("NonNullable<Base['note'] | null>", text()),
            (
                "Exclude<keyof Base, 'id'>",
                json!({"type": "string", "const": "note"}),
            ),
            (
                "Extract<string | number, number>",
                json!({"type": "number"}),
            ),
            (
                "{ [K in keyof Base]: number }",
                json!({"type": "object", "properties": {"id": {"type": "number"}, "note": {"type": "number"}}, "required": ["id"]}),
            ),
            (
                "{ [K in 'a' | 'b']?: K }",
                json!({"type": "object", "properties": {"a": {"type": "string", "const": "a"}, "b": {"type": "string", "const": "b"}}}),
            ),
            (
                "`v${number}.${'a' | 'b'}`",
                json!({"type": "string", "pattern": "^v-?\\d+(\\.\\d+)?\\.(a|b)$"}),
            ),
        ],
    );
}

#[test]
fn enums_and_constants() {
    let declared = r"
        enum Level { Low, High = 5, Higher }
        enum Name { A = 'a', B = 'b' }
        const LABELS = ['bug', 'docs'] as const;
        const SETTINGS = { level: 1, all: [true] };
        const LIMIT = 5;
    ";
    table(
        declared,
        &[
            ("Level", json!({"type": "number", "enum": [0, 5, 6]})),
            ("Name", json!({"type": "string", "enum": ["a", "b"]})),
            ("Name.B", json!({"type": "string", "const": "b"})),
            (
                "(typeof LABELS)[number]",
                json!({"type": "string", "enum": ["bug", "docs"]}),
            ),
            (
                "(typeof LABELS)[1]",
                json!({"type": "string", "const": "docs"}),
            ),
            ("typeof LIMIT", json!({"type": "number", "const": 5})),
            (
                "typeof SETTINGS",
                json!({"type": "object", "properties": {"level": {"type": "number"}, "all": {"type": "array", "items": {"type": "boolean"}}}, "required": ["all", "level"]}),
            ),
        ],
    );
}

#[test]
fn a_type_that_has_itself_becomes_a_definition() {
    let tree = json!({"$ref": "#/$defs/Tree"});
    let object = json!({"type": "object", "properties": {"name": text(), "children": {"type": "array", "items": tree}}, "required": ["name", "children"]});
    let mut top = object.clone();
    top["$defs"] = json!({ "Tree": object });
    let declared = "interface Tree { name: string; children: Tree[] }\ntype Json = string | Json[] | { [key: string]: Json };";
    table(
        declared,
        &[
            ("Tree", top),
            (
                "{ any: Json }",
                json!({"type": "object", "required": ["any"], "properties": {"any": {"$ref": "#/$defs/Json"}}, "$defs": {"Json": {"anyOf": [
                    {"type": "array", "items": {"$ref": "#/$defs/Json"}},
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/Json"}},
                    {"type": "string"},
                ]}}}),
            ),
        ],
    );
}

#[test]
fn comments_describe_and_limit() {
    let source = r#"
/** A label. */
type Label = string;

/**
 * Finds issues, see {@link https://example.com the tracker}.
 *
 * Newest first.
 * @param input.query what to look for
 * @param input.limit - not used: it says so itself
 * @returns the titles
 * @since 1.0
 */
export default async function findIssues({ limit = 10, query }: {
  query: string;
  /**
   * How many.
   * @minimum 1
   * @maximum 100
   * @integer
   */
  limit?: number;
  /** @format date-time */
  since?: string; // not this
  // nor this
  /** @minItems 1 @uniqueItems */
  labels?: Label[];
  /** Its own.
   * @pattern ^[a-z]+$
   * @minLength 2
   * @default "bug" */
  label?: Label;
  /** @deprecated
   *  @example {"a": 1}
   *  @example {"a": 2} */
  extra?: { a: number };
}): Promise<string[]> { return [] }
"#;
    let module = read(source).unwrap().function;
    assert_eq!(module.name.as_deref(), Some("findIssues"));
    assert_eq!(
        module.description,
        "Finds issues, see the tracker.\n\nNewest first."
    );
    assert_eq!((module.line, module.column), (14, 16));
    assert_eq!(
        module.returns,
        Some(json!({"type": "array", "items": text(), "description": "the titles"}))
    );
    let expected = json!({"type": "object", "required": ["query"], "properties": {
        "query": {"type": "string", "description": "what to look for"},
        "limit": {"type": "integer", "description": "How many.", "minimum": 1, "maximum": 100, "default": 10},
        "since": {"type": "string", "format": "date-time"},
        "labels": {"type": "array", "items": {"type": "string", "description": "A label."}, "minItems": 1, "uniqueItems": true},
        "label": {"type": "string", "description": "Its own.", "pattern": "^[a-z]+$", "minLength": 2, "default": "bug"},
        "extra": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"], "deprecated": true, "examples": [{"a": 1}, {"a": 2}]},
    }});
    assert_eq!(module.parameters.len(), 1);
    assert_eq!(module.parameters[0].name, "input");
    assert_eq!(module.parameters[0].schema, expected);
}

#[test]
fn each_form_of_default_export_is_found() {
    for (source, name) in [
        ("export default async function go(input: {}) {}", Some("go")),
        ("export default function (input: {}) {}", None),
        ("export default async (input: {}) => 1", None),
        ("export default (function (input: {}) {})", None),
        (
            "export default (async (input: {}) => 1) satisfies unknown",
            None,
        ),
        ("function go(input: {}) {}\nexport default go;", Some("go")),
        (
            "const go = async (input: {}) => 1;\nexport default go;",
            Some("go"),
        ),
        (
            "const go = (input: {}) => 1;\nexport { go as default };",
            Some("go"),
        ),
        (
            "function go(input: string): void;\nfunction go(input: {}) {}\nexport default go;",
            Some("go"),
        ),
    ] {
        let function = read(&format!("/** Says so. */\n{source}"))
            .or_else(|_| read(source))
            .unwrap_or_else(|error| panic!("{source}: {error}"))
            .function;
        assert_eq!(function.name.as_deref(), name, "{source}");
        assert_eq!(
            function.parameters[0].schema,
            json!({"type": "object", "properties": {}}),
            "{source}"
        );
    }
    let module = read("export default () => 1").unwrap();
    assert!(module.function.parameters.is_empty() && module.function.returns.is_none());
    let module = read("export default (a: {}, b?: string, c: number = 1) => 1").unwrap();
    let optional: Vec<bool> = module
        .function
        .parameters
        .iter()
        .map(|one| one.optional)
        .collect();
    assert_eq!(optional, [false, true, true]);
}

#[test]
fn results_may_be_nothing_a_date_or_bytes() {
    for (ty, expected) in [
        ("void", json!({"type": "null"})),
        ("Promise<void>", json!({"type": "null"})),
        (
            "Promise<string | undefined>",
            json!({"type": ["string", "null"]}),
        ),
        ("Date", json!({"type": "string", "format": "date-time"})),
        (
            "Promise<Uint8Array>",
            json!({"type": "string", "format": "binary"}),
        ),
        (
            "{ at: Date }[]",
            json!({"type": "array", "items": {"type": "object", "required": ["at"], "properties": {"at": {"type": "string", "format": "date-time"}}}}),
        ),
    ] {
        let module = read(&format!("export default (): {ty} => 0")).unwrap();
        assert_eq!(module.function.returns, Some(expected), "{ty}");
    }
}

#[test]
fn types_are_imported_from_other_files() {
    let files = [
        (
            "tools/t.ts",
            r#"import type { Issue as Bug, Level } from "../lib/issue.js";
               import Options, { LABELS } from "../lib/options";
               import * as all from "../lib";
               import { nothing } from "../lib/issue";
               export default (input: { bug: Bug; options: Options; level: all.Level; label: (typeof LABELS)[number]; name: all.Name }) => nothing"#,
        ),
        (
            "lib/issue.ts",
            r#"import type { Name } from "./index";
               export interface Issue { title: Name }
               export enum Level { Low = "low" }
               export const nothing = 0;"#,
        ),
        (
            "lib/options.ts",
            "export default interface Options { dry?: boolean }\nexport const LABELS = ['bug'] as const;",
        ),
        (
            "lib/index.ts",
            "/** A name. */\ntype Text = string;\nexport { type Text as Name };\nexport * from './issue';\nexport * from './index';",
        ),
    ];
    let module = read_all(&files).unwrap();
    let expected = json!({"type": "object", "required": ["bug", "options", "level", "label", "name"], "properties": {
        "bug": {"type": "object", "required": ["title"], "properties": {"title": {"type": "string", "description": "A name."}}},
        "options": {"type": "object", "properties": {"dry": {"type": "boolean"}}},
        "level": {"type": "string", "const": "low"},
        "label": {"type": "string", "const": "bug"},
        "name": {"type": "string", "description": "A name."},
    }});
    assert_eq!(module.function.parameters[0].schema, expected);
    let names: Vec<&str> = module.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "tools/t.ts",
            "lib/issue.ts",
            "lib/options.ts",
            "lib/index.ts"
        ]
    );
}

#[test]
fn settings_are_literals() {
    let source = r#"export const tool = { durable: true, timeout: "30s", "a-b": -1, list: [null] } as const satisfies {};
export default () => 1"#;
    let module = read(source).unwrap();
    let found: Vec<(String, Value, u32, u32)> = module
        .settings
        .into_iter()
        .map(|one| (one.key, one.value, one.line, one.column))
        .collect();
    assert_eq!(
        found,
        [
            ("durable".into(), json!(true), 1, 23),
            ("timeout".into(), json!("30s"), 1, 38),
            ("a-b".into(), json!(-1), 1, 54),
            ("list".into(), json!([null]), 1, 65),
        ]
    );
    for (source, message) in [
        (
            "export const tool = { durable: yes() }",
            "tools/t.ts:1:32: `tool` has something that is not a literal",
        ),
        (
            "const a = 1; export const tool = { ...a }",
            "tools/t.ts:1:36: `tool` has something that is not a literal",
        ),
        (
            "export const tool = make()",
            "tools/t.ts:1:21: `tool` is no object",
        ),
        (
            "export let tool = {}",
            "tools/t.ts:1:12: `tool` is no constant",
        ),
        (
            "const tool = {};\nexport { tool }",
            "tools/t.ts:1:1: `tool` is exported in another form",
        ),
        (
            "export function tool() {}",
            "tools/t.ts:1:1: `tool` is exported in another form",
        ),
    ] {
        let error = read(&format!("{source}\nexport default () => 1")).unwrap_err();
        assert_eq!(error.code(), "tool_setting");
        assert!(error.to_string().starts_with(message), "{error}");
    }
    assert!(
        read("const tool = f();\nexport default () => 1")
            .unwrap()
            .settings
            .is_empty()
    );
}

/// A type of the parameter, and the error.
const NO_TYPES: &[(&str, &str)] = &[
    (
        "bigint",
        "tools/t.ts:7:24: JSON has no `bigint`; use `number`, or `string` for more than 2^53",
    ),
    (
        "symbol",
        "tools/t.ts:7:24: JSON cannot have a symbol; use text, numbers, booleans, null, lists or objects",
    ),
    (
        "undefined",
        "tools/t.ts:7:24: no value has the type `never`; remove it, or write another type",
    ),
    (
        "never",
        "tools/t.ts:7:24: no value has the type `never`; remove it, or write another type",
    ),
    (
        "(string | undefined)[]",
        "tools/t.ts:7:24: JSON has no `undefined`; use `null`, or make a property optional with `?`",
    ),
    (
        "{ f(): void }",
        "tools/t.ts:7:26: a function cannot be passed as JSON; remove it, or take what it would return",
    ),
    (
        "{ f: () => void }",
        "tools/t.ts:7:29: a function cannot be passed as JSON; remove it, or take what it would return",
    ),
    (
        "{ f: Function }",
        "tools/t.ts:7:29: `Function` cannot become JSON here; remove it, or take what it would return",
    ),
    (
        "{ at: Date }",
        "tools/t.ts:7:30: `Date` cannot become JSON here; use `string` with `@format date-time`",
    ),
    (
        "Map<string, string>",
        "tools/t.ts:7:24: `Map` cannot become JSON here; use `Record<string, …>`",
    ),
    (
        "Set<string>",
        "tools/t.ts:7:24: `Set` cannot become JSON here; use an array, with `@uniqueItems` where it matters",
    ),
    (
        "Uint8Array",
        "tools/t.ts:7:24: `Uint8Array` cannot become JSON here; use `string` and say in the comment that it is base64",
    ),
    (
        "Promise<string>",
        "tools/t.ts:7:24: `Promise` cannot become JSON here; take the value itself",
    ),
    (
        "Isue",
        "tools/t.ts:7:24: the type `Isue` is not known here; declare it in this file, or import it from `lib`",
    ),
    (
        "A.B",
        "tools/t.ts:7:24: the type `A.B` is not known here; declare it in this file, or import it from `lib`",
    ),
    (
        "Car",
        "tools/t.ts:7:24: `Car` is a class, and JSON has no classes; use an interface with its fields",
    ),
    (
        "E",
        "tools/t.ts:2:10: the value of `A` is computed; write it as a text or a number",
    ),
    (
        "Loop",
        "tools/t.ts:7:24: the type `Loop` is itself; put it into a property or a list of itself",
    ),
    (
        "Pair",
        "tools/t.ts:4:11: the type parameter `T` has no argument; write it in `<…>`, or give the parameter a default",
    ),
    (
        "string & number",
        "tools/t.ts:7:24: no value can have all of these types; use `|`, or one of them",
    ),
    (
        "string extends 'a' ? 1 : 2",
        "tools/t.ts:7:24: a conditional type is not read; write the type that it comes to",
    ),
    (
        "import('./x').Y",
        "tools/t.ts:7:24: `import(…)` in a type is not read; import the type at the top of the file: `import type { … } from …`",
    ),
    (
        "typeof now",
        "tools/t.ts:5:13: the value of `now` is not a literal; use a constant of this file, or write the type",
    ),
    (
        "{ a: string }['b']",
        "tools/t.ts:7:38: the type has no property \"b\"; name a property that the type has, or write the type itself",
    ),
    (
        "Pick<{ a: 1 }, 'b'>",
        "tools/t.ts:7:39: there is no property `b` to pick; correct the name",
    ),
    (
        "[...string[], number]",
        "tools/t.ts:7:25: what follows `...` in a tuple cannot be said in JSON Schema; move it to the end",
    ),
    (
        "{ /** @minimum low */ a: number }",
        "tools/t.ts:7:30: `@minimum` has the value `low`; write a number after it",
    ),
    (
        "{ /** @minLength 1 */ a: number }",
        "tools/t.ts:7:30: `@minLength` is for string, and this is number; remove the tag, or change the type",
    ),
    (
        "{ /** @default x */ a: number }",
        "tools/t.ts:7:30: the value of `@default` does not fit its type; write a value of JSON, with quotes around a text",
    ),
];

/// A file, and how its error begins.
const NO_FILES: &[(&str, SourceErrorKind, &str)] = &[
    ("const = 1", SourceErrorKind::Syntax, "tools/t.ts:1:7: "),
    (
        "export const a = 1",
        SourceErrorKind::Function,
        "tools/t.ts:1:1: the file exports no function by default",
    ),
    (
        "export default 1",
        SourceErrorKind::Function,
        "tools/t.ts:1:1: the default export is no function",
    ),
    (
        "export default class {}",
        SourceErrorKind::Function,
        "tools/t.ts:1:1: the default export is no function",
    ),
    (
        "let go = 1;\nexport default go",
        SourceErrorKind::Function,
        "tools/t.ts:2:16: the default export `go` is no function",
    ),
    (
        "export default function* () {}",
        SourceErrorKind::Function,
        "tools/t.ts:1:16: the function is a generator",
    ),
    (
        "export default (...all: string[]) => 1",
        SourceErrorKind::Function,
        "tools/t.ts:1:17: a rest parameter",
    ),
    (
        "export default (input) => 1",
        SourceErrorKind::Type,
        "tools/t.ts:1:17: the parameter `input` has no type",
    ),
    (
        "import fs from 'node:fs'",
        SourceErrorKind::Import,
        "tools/t.ts:1:16: `node:fs` is a package",
    ),
    (
        "import '../lib/none'",
        SourceErrorKind::Import,
        "tools/t.ts:1:8: there is no file `lib/none`",
    ),
    (
        "import '../../../etc'",
        SourceErrorKind::Import,
        "tools/t.ts:1:8: `../../../etc` leads out of the project",
    ),
    (
        "import '../secret'",
        SourceErrorKind::Import,
        "tools/t.ts:1:8: `../secret`: is outside of `lib`",
    ),
];

#[test]
fn what_cannot_become_a_schema_is_an_error_with_its_place_and_a_fix() {
    let declared = "class Car { wheels = 4 }\nenum E { A = 1 << 2 }\ntype Loop = Loop | string;\ntype Pair<T> = [T, T];\nconst now = Date.now();\n";
    for (ty, expected) in NO_TYPES {
        let source = format!("{declared}\nexport default (input: {ty}) => 0");
        let error = read(&source).expect_err(ty);
        assert_eq!(&error.to_string(), expected, "{ty}");
        assert_eq!(error.kind, SourceErrorKind::Type);
    }
    for (source, kind, expected) in NO_FILES {
        let error = read_all(&[("tools/t.ts", source), ("secret.ts", "secret")]).expect_err(source);
        assert!(error.to_string().starts_with(expected), "{source}: {error}");
        assert_eq!(&error.kind, kind, "{source}");
    }
}

#[test]
fn types_that_copy_themselves_are_cut_off() {
    let twice = "type D<T> = { a: T; b: T };\n";
    let mut ty = "string".to_owned();
    for _ in 0..30 {
        ty = format!("D<{ty}>");
    }
    let error = schema(twice, &ty).unwrap_err();
    assert!(error.contains("more than 10000 parts"), "{error}");

    let mut chain = "type T0 = string;\n".to_owned();
    for index in 0..40 {
        chain.push_str(&format!(
            "type T{} = {{ a: T{index}; b: T{index} }};\n",
            index + 1
        ));
    }
    assert!(schema(&chain, "T40").unwrap_err().contains("more than"));

    let deep = "[]".repeat(200);
    assert!(
        schema("", &format!("string{deep}"))
            .unwrap_err()
            .contains("lie within each other")
    );
}

/// The body of a fuzz target: whatever the text, reading ends with a module or an error that has a place.
fn fuzz(text: &str) {
    let lines = text.lines().count().max(1) + 1;
    if let Err(error) = read_all(&[("tools/t.ts", text), ("lib/a.ts", text)]) {
        assert!(error.line >= 1 && error.line as usize <= lines, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn broken_sources_end_with_an_error() {
    let seeds = [
        "import type { A } from '../lib/a';\nimport * as n from '../lib/a';\n/** Doc. @x\n * @minimum 1 */\nexport type A<T = string> = { a?: T[]; b: [number, ...A<T>[]]; c: `x${number}` | n.A } & { [k: string]: unknown };\nexport enum E { X = 1, Y }\nexport const tool = { durable: true };\nexport default async function go({ a = 1 }: Pick<A, 'a'> & { e: E.X }): Promise<void> {}",
        "export default (input: { [K in keyof typeof C]: (typeof C)[K] } | Record<'a' | 'b', Exclude<1 | 2, 1>>) => 0;\nconst C = { a: 1, b: ['x'] } as const;",
    ];
    for seed in seeds {
        fuzz(seed);
        let chars: Vec<char> = seed.chars().collect();
        for at in 0..chars.len() {
            let without: String = chars[..at].iter().chain(&chars[at + 1..]).collect();
            fuzz(&without);
            let twice: String = chars[..=at].iter().chain(&chars[at..]).collect();
            fuzz(&twice);
            fuzz(&chars[..at].iter().collect::<String>());
        }
    }
}
