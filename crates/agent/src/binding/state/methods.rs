//! What `state` offers.

use bowline_sandbox::isolate::Value;
use serde_json::{Value as Json, json};

use super::super::Method;
use crate::tool::Effect;

/// Options of a search in text.
pub(super) const SEARCH: &[&str] = &[
    "caseSensitive",
    "regex",
    "wholeWord",
    "contextBefore",
    "contextAfter",
    "maxMatches",
];
/// Options of a replacement.
pub(super) const REPLACE: &[&str] = &["caseSensitive", "regex", "wholeWord"];
/// Options of a replacement in several files.
pub(super) const REPLACE_ALL: &[&str] = &[
    "caseSensitive",
    "regex",
    "wholeWord",
    "dryRun",
    "rollbackOnError",
];
/// Options of a batch of edits.
pub(super) const BATCH: &[&str] = &["dryRun", "rollbackOnError"];
/// Options of `find`.
pub(super) const FIND: &[&str] = &[
    "name",
    "pathPattern",
    "type",
    "types",
    "minDepth",
    "maxDepth",
    "empty",
    "sizeMin",
    "sizeMax",
    "mtimeAfter",
    "mtimeBefore",
];

fn text() -> Json {
    json!({"type": "string"})
}

fn texts() -> Json {
    json!({"type": "array", "items": {"type": "string"}})
}

fn flag() -> Json {
    json!({"type": "boolean"})
}

fn number() -> Json {
    json!({"type": "integer", "minimum": 0})
}

fn nothing() -> Json {
    json!({"type": "null"})
}

fn binary() -> Json {
    json!({"type": "string", "format": "binary"})
}

fn content() -> Json {
    json!({"anyOf": [text(), binary()]})
}

fn kind() -> Json {
    json!({"enum": ["file", "directory", "symlink"]})
}

fn list(items: Json) -> Json {
    json!({"type": "array", "items": items})
}

/// An object whose fields are all there, except those whose name ends in `?`.
fn object(fields: &[(&str, Json)]) -> Json {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        if let Some(name) = name.strip_suffix('?') {
            properties.insert(name.to_owned(), schema.clone());
        } else {
            properties.insert((*name).to_owned(), schema.clone());
            required.push(*name);
        }
    }
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn stat() -> Json {
    object(&[
        ("path", text()),
        ("name", text()),
        ("type", kind()),
        ("size", number()),
        ("mode", number()),
        ("createdAt", number()),
        ("updatedAt", number()),
        ("mimeType?", text()),
        ("target?", text()),
    ])
}

fn stat_or_null() -> Json {
    json!({"anyOf": [stat(), {"type": "null"}]})
}

fn search_options() -> Json {
    object(&[
        ("caseSensitive?", flag()),
        ("regex?", flag()),
        ("wholeWord?", flag()),
        ("contextBefore?", number()),
        ("contextAfter?", number()),
        ("maxMatches?", number()),
    ])
}

fn replace_options() -> Json {
    object(&[
        ("caseSensitive?", flag()),
        ("regex?", flag()),
        ("wholeWord?", flag()),
    ])
}

fn replace_all_options() -> Json {
    object(&[
        ("caseSensitive?", flag()),
        ("regex?", flag()),
        ("wholeWord?", flag()),
        ("dryRun?", flag()),
        ("rollbackOnError?", flag()),
    ])
}

fn batch_options() -> Json {
    object(&[("dryRun?", flag()), ("rollbackOnError?", flag())])
}

fn matches() -> Json {
    list(object(&[
        ("line", number()),
        ("column", number()),
        ("match", text()),
        ("lineText", text()),
        ("beforeLines?", texts()),
        ("afterLines?", texts()),
    ]))
}

fn instruction() -> Json {
    let of = |name: &str, more: &[(&str, Json)]| {
        let mut fields = vec![("kind", json!({"const": name})), ("path", text())];
        fields.extend_from_slice(more);
        object(&fields)
    };
    json!({"anyOf": [
        of("write", &[("content", text())]),
        of("replace", &[
            ("search", text()), ("replacement", text()), ("options?", replace_options()),
        ]),
        of("writeJson", &[
            ("value", json!({})), ("options?", object(&[("spaces?", number())])),
        ]),
        of("remove", &[]),
    ]})
}

fn planned() -> Json {
    object(&[
        (
            "edits",
            list(object(&[
                ("instruction?", instruction()),
                ("path", text()),
                ("changed?", flag()),
                ("content", json!({"anyOf": [text(), {"type": "null"}]})),
                ("diff?", text()),
                ("base?", text()),
            ])),
        ),
        ("totalChanged?", number()),
        ("totalInstructions?", number()),
    ])
}

fn applied() -> Json {
    object(&[
        ("dryRun", flag()),
        (
            "edits",
            list(object(&[
                ("path", text()),
                ("changed", flag()),
                ("diff", text()),
            ])),
        ),
        ("totalChanged", number()),
        ("totalEdits", number()),
    ])
}

fn archive_summary() -> Json {
    object(&[
        ("path", text()),
        ("files", number()),
        ("directories", number()),
        ("symlinks", number()),
        ("bytes", number()),
    ])
}

/// Everything it offers.
pub(super) fn all() -> Vec<Method> {
    let mut methods = reading();
    methods.extend(searching());
    methods.extend(writing());
    methods.extend(trees());
    methods.extend(editing());
    methods.extend(archives());
    methods
        .into_iter()
        .map(|method| method.effect(Effect::None))
        .collect()
}

fn reading() -> Vec<Method> {
    let method = Method::new;
    vec![
        method("getCapabilities", "What the workspace can do.")
            .gives(json!({"type": "object", "additionalProperties": {"type": "boolean"}})),
        method("readFile", "The text of a file. Bytes that are not UTF-8 come out as U+FFFD.")
            .takes("path", text())
            .gives(text()),
        method("readFileBytes", "The bytes of a file, or a part of them.")
            .takes("path", text())
            .may_take("options", object(&[("offset?", number()), ("length?", number())]))
            .gives(binary()),
        method("readJson", "The document in a JSON file.").takes("path", text()),
        method(
            "queryJson",
            "What a path such as `.items[0].name` names in a JSON file, or undefined; a JSONPath that may name several values (`$..name`, `$.items[*]`) gives the list of them.",
        )
        .takes("path", text())
        .takes("query", text()),
        method("exists", "Whether something is at a path.")
            .takes("path", text())
            .gives(flag()),
        method("stat", "What is at a path, links followed; null when there is nothing. Times are milliseconds since 1970.")
            .takes("path", text())
            .gives(stat_or_null()),
        method("lstat", "What is at a path, a link itself; null when there is nothing.")
            .takes("path", text())
            .gives(stat_or_null()),
        method("readdir", "The names in a directory, sorted.")
            .may_take("path", text())
            .gives(texts()),
        method("readdirWithFileTypes", "The names in a directory and what they are.")
            .may_take("path", text())
            .gives(list(object(&[("name", text()), ("type", kind())]))),
        method("readlink", "What a symbolic link points to.")
            .takes("path", text())
            .gives(text()),
        method("realpath", "The path without links, `.` and `..`.")
            .takes("path", text())
            .gives(text()),
        method("resolvePath", "A path seen from a base, as an absolute path. Files are not looked at.")
            .takes("base", text())
            .takes("path", text())
            .gives(text()),
        method("hashFile", "The checksum of a file, in hexadecimal; SHA-256 unless another is asked for.")
            .takes("path", text())
            .may_take(
                "options",
                object(&[("algorithm?", json!({"enum": ["md5", "sha1", "sha256", "blake3"]}))]),
            )
            .gives(text()),
        method("detectFile", "What kind of file it is, by its name and its first bytes.")
            .takes("path", text())
            .gives(object(&[
                ("path", text()),
                ("mimeType", text()),
                ("extension", text()),
                ("binary", flag()),
                ("size", number()),
            ])),
    ]
}

fn searching() -> Vec<Method> {
    let method = Method::new;
    let found = object(&[
        ("path", text()),
        ("name", text()),
        ("type", kind()),
        ("depth", number()),
        ("size", number()),
        ("updatedAt", number()),
    ]);
    vec![
        method("glob", "The paths that match a pattern such as `src/**/*.ts`, sorted. Relative patterns start in /workspace.")
            .takes("pattern", text())
            .may_take("options", object(&[("cwd?", text()), ("type?", kind())]))
            .gives(texts()),
        method("find", "Entries below a directory by name, kind, size and time. `name` and `pathPattern` are globs; times are milliseconds or dates.")
            .may_take("path", text())
            .may_take(
                "options",
                object(&[
                    ("name?", text()),
                    ("pathPattern?", text()),
                    ("type?", kind()),
                    ("types?", list(kind())),
                    ("minDepth?", number()),
                    ("maxDepth?", number()),
                    ("empty?", flag()),
                    ("sizeMin?", number()),
                    ("sizeMax?", number()),
                    ("mtimeAfter?", number()),
                    ("mtimeBefore?", number()),
                ]),
            )
            .gives(list(found)),
        method("walkTree", "A directory as a tree; each directory has its `children`.")
            .may_take("path", text())
            .may_take("options", object(&[("maxDepth?", number())])),
        method("summarizeTree", "Numbers and sizes of all that is below a directory.")
            .may_take("path", text())
            .may_take("options", object(&[]))
            .gives(object(&[
                ("files", number()),
                ("directories", number()),
                ("symlinks", number()),
                ("totalBytes", number()),
                ("maxDepth", number()),
                (
                    "extensions",
                    json!({"type": "object", "additionalProperties":
                        object(&[("files", number()), ("bytes", number())])}),
                ),
                ("largest", list(object(&[("path", text()), ("size", number())]))),
                ("updatedAt?", number()),
            ])),
        method("searchText", "Where a text, or with `regex` a pattern, occurs in a file. Lines and columns count from 1.")
            .takes("path", text())
            .takes("query", text())
            .may_take("options", search_options())
            .gives(matches()),
        method("searchFiles", "The same in all files that match a glob.")
            .takes("pattern", text())
            .takes("query", text())
            .may_take("options", search_options())
            .gives(list(object(&[("path", text()), ("matches", matches())]))),
        method("diff", "The unified diff of two files; empty when they are equal.")
            .takes("pathA", text())
            .takes("pathB", text())
            .gives(text()),
        method("diffContent", "The unified diff from a file to a new content.")
            .takes("path", text())
            .takes("newContent", text())
            .gives(text()),
    ]
}

fn writing() -> Vec<Method> {
    let method = Method::new;
    let replaced = object(&[("path", text()), ("replaced", number()), ("diff", text())]);
    vec![
        method("writeFile", "Writes a file; missing directories are made.")
            .takes("path", text())
            .takes("content", content())
            .gives(nothing()),
        method("writeFileBytes", "Writes a file from binary data; missing directories are made.")
            .takes("path", text())
            .takes("content", content())
            .gives(nothing()),
        method("appendFile", "Adds to the end of a file, which is made when it is missing.")
            .takes("path", text())
            .takes("content", content())
            .gives(nothing()),
        method("writeJson", "Writes a JSON document, indented by two spaces unless `spaces` says otherwise.")
            .takes("path", text())
            .takes("value", json!({}))
            .may_take("options", object(&[("spaces?", number())]))
            .gives(nothing()),
        method("updateJson", "Changes places of a JSON file, all or none: `{op: \"set\", path: \".a.b[0]\", value}` and `{op: \"delete\", path}`.")
            .takes("path", text())
            .takes(
                "operations",
                list(object(&[
                    ("op", json!({"enum": ["set", "delete"]})),
                    ("path", text()),
                    ("value?", json!({})),
                ])),
            )
            .gives(object(&[
                ("value", json!({})),
                ("operationsApplied", number()),
                ("diff", text()),
            ])),
        method("replaceInFile", "Replaces every occurrence of a text in a file. The replacement is taken literally, also with `regex`.")
            .takes("path", text())
            .takes("search", text())
            .takes("replacement", text())
            .may_take("options", replace_options())
            .gives(replaced.clone()),
        method("replaceInFiles", "The same in all files that match a glob; all or none. Files that are not text are left alone.")
            .takes("pattern", text())
            .takes("search", text())
            .takes("replacement", text())
            .may_take("options", replace_all_options())
            .gives(object(&[
                ("dryRun", flag()),
                ("files", list(replaced)),
                ("totalFiles", number()),
                ("totalReplacements", number()),
            ])),
    ]
}

fn trees() -> Vec<Method> {
    let method = Method::new;
    let recursive = || object(&[("recursive?", flag())]);
    vec![
        method("mkdir", "Makes a directory; with `recursive` missing parents too.")
            .takes("path", text())
            .may_take("options", recursive())
            .gives(nothing()),
        method("rm", "Removes a file, a link or an empty directory; with `recursive` all that is in it; with `force` something missing is fine.")
            .takes("path", text())
            .may_take("options", object(&[("recursive?", flag()), ("force?", flag())]))
            .gives(nothing()),
        method("cp", "Copies a file, or with `recursive` a directory.")
            .takes("src", text())
            .takes("dest", text())
            .may_take("options", recursive())
            .gives(nothing()),
        method("mv", "Moves a file, link or directory.")
            .takes("src", text())
            .takes("dest", text())
            .may_take("options", recursive())
            .gives(nothing()),
        method("symlink", "Makes a symbolic link.")
            .takes("target", text())
            .takes("linkPath", text())
            .gives(nothing()),
        method("chmod", "Changes the permission bits, which are kept and not enforced.")
            .takes("path", text())
            .takes("mode", number())
            .gives(nothing()),
        method("utimes", "Sets the time of the last change: milliseconds or a date.")
            .takes("path", text())
            .takes("mtime", number())
            .gives(nothing()),
        method("removeTree", "Removes a file or directory with all that is in it; something missing is fine.")
            .takes("path", text())
            .gives(nothing()),
        method("copyTree", "Copies a directory with all that is in it.")
            .takes("src", text())
            .takes("dest", text())
            .gives(nothing()),
        method("moveTree", "Moves a directory with all that is in it.")
            .takes("src", text())
            .takes("dest", text())
            .gives(nothing()),
    ]
}

fn editing() -> Vec<Method> {
    let method = Method::new;
    vec![
        method("planEdits", "What instructions would change, without changing it: contents and diffs. Each instruction sees those before it.")
            .takes("instructions", list(instruction()))
            .gives(planned()),
        method("applyEditPlan", "Makes the changes of a plan, all or none; fails with ESTALE when a file is not what the plan was made for.")
            .takes("plan", planned())
            .may_take("options", batch_options())
            .gives(applied()),
        method("applyEdits", "Plans instructions and makes the changes, all or none.")
            .takes("edits", list(instruction()))
            .may_take("options", batch_options())
            .gives(applied()),
        method("patch", "Applies a unified diff to the files below `cwd`, all of it or nothing.")
            .takes("diff", text())
            .may_take("options", object(&[("cwd?", text())]))
            .gives(list(object(&[
                ("path", text()),
                ("hunks", number()),
                ("offset", number()),
                ("fuzz", number()),
            ]))),
    ]
}

fn archives() -> Vec<Method> {
    let method = Method::new;
    let packed = object(&[
        ("path", text()),
        ("destination", text()),
        ("bytesWritten", number()),
    ]);
    vec![
        method(
            "createArchive",
            "Packs files and directories; the name says how: .tar, .tar.gz, .tgz or .zip.",
        )
        .takes("path", text())
        .takes("sources", texts())
        .gives(archive_summary()),
        method(
            "extractArchive",
            "Unpacks an archive below a directory, all or nothing. Nothing can land outside of it.",
        )
        .takes("path", text())
        .takes("destination", text())
        .gives(archive_summary()),
        method("listArchive", "What an archive holds.")
            .takes("path", text())
            .gives(list(object(&[
                ("path", text()),
                ("type", kind()),
                ("size", number()),
                ("mode", number()),
            ]))),
        method(
            "compressFile",
            "Packs a file with gzip, by default beside it with the ending .gz.",
        )
        .takes("path", text())
        .may_take("destination", text())
        .gives(packed.clone()),
        method(
            "decompressFile",
            "Unpacks a gzip file, by default to its name without .gz.",
        )
        .takes("path", text())
        .may_take("destination", text())
        .gives(packed),
    ]
}

/// What `getCapabilities` says.
pub(super) fn capabilities() -> Value {
    Value::from(json!({
        "chmod": true, "utimes": true, "symlinks": true, "hardLinks": false, "watch": false,
    }))
}
