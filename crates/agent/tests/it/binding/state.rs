//! `state`: the workspace.

use bowline_agent::binding::{Binding as _, State};
use bowline_agent::tool::{Effect, ToolContext};
use bowline_sandbox::isolate::{Thrown, Value, ViewKind};
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::{call, call_with, context, files};

struct World {
    state: State,
    context: ToolContext,
}

impl World {
    async fn new() -> Self {
        Self {
            state: State::new(),
            context: context(Some(files().await)),
        }
    }

    async fn try_call(&self, method: &str, arguments: Json) -> Result<Json, Thrown> {
        let value = call(&self.state, &self.context, method, arguments).await?;
        Ok(value.to_json())
    }

    async fn call(&self, method: &str, arguments: Json) -> Json {
        self.try_call(method, arguments).await.unwrap()
    }

    async fn fails(&self, method: &str, arguments: Json) -> (String, String) {
        let thrown = self.try_call(method, arguments).await.unwrap_err();
        let code = thrown.properties.iter().find(|(key, _)| key == "code");
        let code = code.and_then(|(_, code)| code.as_str()).unwrap_or_default();
        (code.to_owned(), thrown.to_string())
    }
}

#[tokio::test]
async fn arguments_are_positional_or_named_and_errors_say_what_is_wrong() {
    let w = World::new().await;
    w.call("writeFile", json!(["src/a.ts", "one\ntwo\n"])).await;
    w.call("writeFile", json!({"path": "src/b.ts", "content": "three"}))
        .await;
    assert_eq!(
        w.call("readFile", json!({"path": "src/a.ts"})).await,
        "one\ntwo\n"
    );
    assert_eq!(
        w.call("glob", json!(["src/**/*.ts"])).await,
        json!(["/workspace/src/a.ts", "/workspace/src/b.ts"])
    );
    assert_eq!(
        w.fails("readFile", json!([])).await.1,
        "TypeError: state.readFile(path): path is missing"
    );
    assert_eq!(
        w.fails("readFile", json!([7])).await.1,
        "TypeError: state.readFile(path): path must be a string, not a number"
    );
    assert_eq!(
        w.fails(
            "searchFiles",
            json!({"pattern": "*", "query": "x", "regexp": true})
        )
        .await
        .1,
        "TypeError: state.searchFiles(pattern, query, options?): there is no \"regexp\"; \
         it takes pattern, query, options"
    );
    let (code, message) = w.fails("readFile", json!(["nowhere"])).await;
    assert_eq!(code, "ENOENT");
    assert!(
        message.starts_with("Error: ENOENT: no such file"),
        "{message}"
    );
    // A plan is an object itself, and is still recognised when it comes alone.
    let plan = w
        .call(
            "planEdits",
            json!([[{"kind": "write", "path": "c", "content": "new"}]]),
        )
        .await;
    assert_eq!(
        w.call("applyEditPlan", json!([plan])).await["totalChanged"],
        1
    );
}

#[tokio::test]
async fn every_method_is_listed_once_has_no_outside_effect_and_answers() {
    let w = World::new().await;
    let mut names: Vec<&str> = w.state.methods().iter().map(|m| m.name.as_str()).collect();
    assert!(
        w.state
            .methods()
            .iter()
            .all(|m| m.effect == Effect::None && !m.approval)
    );
    for method in w.state.methods() {
        let failed = w.try_call(&method.name, json!([{"no": "such"}])).await;
        let message = failed
            .err()
            .map(|thrown| thrown.message)
            .unwrap_or_default();
        assert!(
            message.starts_with(&format!("state.{}", method.name)),
            "{message}"
        );
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), count), (49, 49));
    let nowhere = context(None);
    let thrown = call(&w.state, &nowhere, "exists", json!(["a"]))
        .await
        .unwrap_err();
    assert_eq!(thrown.message, "there is no workspace");
}

#[tokio::test]
async fn bytes_stay_bytes() {
    let w = World::new().await;
    let bytes = Value::View(
        ViewKind::Uint8,
        Bytes::from_static(b"\x89PNG\r\n\x1a\n\xff\0"),
    );
    let path = Value::from("a.png");
    let call = |method, arguments| call_with(&w.state, &w.context, method, arguments);
    call("writeFileBytes", vec![path.clone(), bytes.clone()])
        .await
        .unwrap();
    let more = Value::Buffer(Bytes::from_static(b"\xfe"));
    call("appendFile", vec![path.clone(), more]).await.unwrap();
    let all = call("readFileBytes", vec![path.clone()]).await.unwrap();
    let expected = Bytes::from_static(b"\x89PNG\r\n\x1a\n\xff\0\xfe");
    assert_eq!(all, Value::View(ViewKind::Uint8, expected));
    let part = w
        .call(
            "readFileBytes",
            json!(["a.png", {"offset": 8, "length": 2}]),
        )
        .await;
    assert_eq!(part, json!({"$bytes": "/wA="}));
    let kind = w.call("detectFile", json!(["a.png"])).await;
    assert_eq!(
        (&kind["mimeType"], &kind["binary"]),
        (&json!("image/png"), &json!(true))
    );
    assert_eq!(
        w.call("hashFile", json!(["a.png", {"algorithm": "md5"}]))
            .await
            .as_str()
            .unwrap()
            .len(),
        32
    );
}

#[tokio::test]
async fn json_keeps_its_order_and_is_changed_in_place() {
    let w = World::new().await;
    let document = Value::Object(vec![
        ("zeta".into(), Value::Number(1.0)),
        (
            "alpha".into(),
            Value::Array(vec![Value::Object(vec![("n".into(), Value::Number(2.5))])]),
        ),
        ("gone".into(), Value::Undefined),
    ]);
    let path = Value::from("p.json");
    call_with(
        &w.state,
        &w.context,
        "writeJson",
        vec![path.clone(), document.clone()],
    )
    .await
    .unwrap();
    assert_eq!(
        w.call("readFile", json!(["p.json"])).await,
        "{\n  \"zeta\": 1,\n  \"alpha\": [\n    {\n      \"n\": 2.5\n    }\n  ]\n}\n"
    );
    let Value::Object(read) = call_with(&w.state, &w.context, "readJson", vec![path])
        .await
        .unwrap()
    else {
        panic!("no object");
    };
    assert_eq!(
        read.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["zeta", "alpha"]
    );
    assert_eq!(
        w.call("queryJson", json!(["p.json", ".alpha[0].n"])).await,
        2.5
    );
    assert_eq!(
        w.call("queryJson", json!(["p.json", "$..n"])).await,
        json!([2.5])
    );
    assert_eq!(
        w.call("queryJson", json!(["p.json", "nothing.here"])).await,
        Json::Null
    );
    let operations = json!([{"op": "set", "path": ".new.a[0]", "value": true}, {"op": "delete", "path": "zeta"}]);
    let update = w.call("updateJson", json!(["p.json", operations])).await;
    assert_eq!(
        (&update["operationsApplied"], &update["value"]["new"]),
        (&json!(2), &json!({"a": [true]}))
    );
    w.call("writeFile", json!(["bad.json", "{nope"])).await;
    assert!(
        w.fails("readJson", json!(["bad.json"]))
            .await
            .1
            .starts_with("SyntaxError: bad.json is not JSON")
    );
}

#[tokio::test]
async fn searches_tell_line_column_and_context() {
    let w = World::new().await;
    w.call(
        "writeFile",
        json!([
            "src/a.ts",
            "first\nlet é = 1; // TODO: one, TODO: two\nlast\n"
        ]),
    )
    .await;
    w.call("writeFile", json!(["src/b.ts", "todo: lower\n"]))
        .await;
    w.call("writeFile", json!(["src/c.txt", "TODO: not searched\n"]))
        .await;
    let found = w
        .call(
            "searchText",
            json!(["src/a.ts", "TODO:", {"contextBefore": 1, "contextAfter": 1}]),
        )
        .await;
    assert_eq!(
        found[1],
        json!({
            "line": 2, "column": 26, "match": "TODO:", "lineText": "let é = 1; // TODO: one, TODO: two",
            "beforeLines": ["first"], "afterLines": ["last"],
        })
    );
    let all = w
        .call(
            "searchFiles",
            json!(["**/*.ts", "t[o]do: \\w+", {"regex": true, "caseSensitive": false}]),
        )
        .await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(all[1]["matches"][0]["match"], "todo: lower");
    let cut = w
        .call("searchFiles", json!(["**/*", "TODO", {"maxMatches": 1}]))
        .await;
    assert_eq!(cut[0]["matches"].as_array().unwrap().len(), 1);
    assert!(
        w.fails("searchText", json!(["src/a.ts", ""]))
            .await
            .1
            .contains("must not be empty")
    );
    assert_eq!(w.fails("searchText", json!(["src", "x"])).await.0, "EISDIR");
    assert_eq!(
        w.fails("searchText", json!(["src/a.ts", "(", {"regex": true}]))
            .await
            .0,
        "EINVAL"
    );
}

#[tokio::test]
async fn trees_are_found_walked_and_summed_up() {
    let w = World::new().await;
    w.call("writeFile", json!(["d/x/deep.rs", "12345"])).await;
    w.call("writeFile", json!(["d/top.md", ""])).await;
    w.call("symlink", json!(["x/deep.rs", "d/link"])).await;
    assert_eq!(
        w.call("readdir", json!(["d"])).await,
        json!(["link", "top.md", "x"])
    );
    assert_eq!(w.call("readFile", json!(["d/link"])).await, "12345");
    assert_eq!(
        w.call("lstat", json!(["d/link"])).await["target"],
        "x/deep.rs"
    );
    assert_eq!(w.call("stat", json!(["d/none"])).await, Json::Null);
    let tree = w.call("walkTree", json!(["d"])).await;
    assert_eq!(
        tree["children"][2]["children"][0]["path"],
        "/workspace/d/x/deep.rs"
    );
    let found = w
        .call("find", json!(["d", {"type": "file", "sizeMin": 1}]))
        .await;
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(
        (&found[0]["name"], &found[0]["depth"]),
        (&json!("deep.rs"), &json!(2))
    );
    let empty = w
        .call(
            "find",
            json!(["d", {"empty": true, "mtimeAfter": "2020-01-01T00:00:00Z"}]),
        )
        .await;
    assert_eq!(empty[0]["name"], "top.md");
    let summary = w.call("summarizeTree", json!(["d"])).await;
    assert_eq!(
        (
            &summary["files"],
            &summary["symlinks"],
            &summary["extensions"]["rs"]["bytes"]
        ),
        (&json!(2), &json!(1), &json!(5))
    );
    w.call("copyTree", json!(["d", "e"])).await;
    w.call("moveTree", json!(["e", "f"])).await;
    w.call("rm", json!(["f/top.md"])).await;
    assert_eq!(w.fails("rm", json!(["f"])).await.0, "ENOTEMPTY");
    assert_eq!(w.fails("mv", json!(["d", "d/sub"])).await.0, "EINVAL");
    w.call("mv", json!(["d/top.md", "d/top.md"])).await;
    assert_eq!(w.call("exists", json!(["d/top.md"])).await, true);
    w.call("createArchive", json!(["all.tgz", ["f"]])).await;
    w.call("extractArchive", json!(["all.tgz", "out"])).await;
    assert_eq!(
        w.call("readFile", json!(["out/f/x/deep.rs"])).await,
        "12345"
    );
    assert_eq!(w.call("resolvePath", json!(["/a/b", "../c"])).await, "/a/c");
}

#[tokio::test]
async fn a_batch_of_edits_is_whole_or_nothing_and_notices_a_changed_base() {
    let w = World::new().await;
    w.call("writeFile", json!(["a", "one one\n"])).await;
    w.call("writeFile", json!(["b", "$1 literal\n"])).await;
    let replaced = w
        .call("replaceInFile", json!(["b", "literal", "$0 $1"]))
        .await;
    assert_eq!(
        (
            &replaced["replaced"],
            w.call("readFile", json!(["b"])).await
        ),
        (&json!(1), json!("$1 $0 $1\n"))
    );
    // The second sees the first, and the third fails, so that nothing is done.
    let instructions = json!([
        {"kind": "replace", "path": "a", "search": "one", "replacement": "two"},
        {"kind": "replace", "path": "a", "search": "two two", "replacement": "2"},
        {"kind": "replace", "path": "a", "search": "absent", "replacement": ""},
    ]);
    let thrown = w
        .try_call("applyEdits", json!([instructions]))
        .await
        .unwrap_err();
    assert_eq!(thrown.name, "StateBatchOperationError");
    assert!(
        thrown
            .properties
            .contains(&("rolledBack".into(), Value::Bool(true)))
    );
    assert_eq!(w.call("readFile", json!(["a"])).await, "one one\n");

    let good = json!([instructions[0], instructions[1], {"kind": "writeJson", "path": "n/c.json", "value": {"z": 1}}]);
    let dry = w.call("applyEdits", json!([good, {"dryRun": true}])).await;
    assert_eq!(
        (
            &dry["totalChanged"],
            w.call("exists", json!(["n/c.json"])).await
        ),
        (&json!(3), json!(false))
    );
    let plan = w.call("planEdits", json!([good])).await;
    assert_eq!(plan["edits"][1]["content"], "2\n");
    w.call("applyEditPlan", json!({"plan": plan})).await;
    assert_eq!(w.call("readFile", json!(["a"])).await, "2\n");
    assert_eq!(w.fails("applyEditPlan", json!([plan])).await.0, "ESTALE");

    let all = w
        .call("replaceInFiles", json!(["*", "\\d", "N", {"regex": true}]))
        .await;
    assert_eq!(
        (&all["totalFiles"], &all["totalReplacements"]),
        (&json!(2), &json!(4))
    );
    let diff = w.call("diffContent", json!(["a", "M\n"])).await;
    w.call("patch", json!([diff])).await;
    assert_eq!(w.call("readFile", json!(["a"])).await, "M\n");
}
