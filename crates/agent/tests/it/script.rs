//! Tools in TypeScript: how they are found and read, and what a call does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bowline_agent::{
    Agent, Effect, OnCrash, Render,
    binding::{Binding, CallError, Method},
    definition::{self, Approval, Definition, DefinitionError, LimitSettings},
    tool::ToolContext,
};
use bowline_sandbox::isolate::Value as Guest;
use bowline_testkit::faults::Death;
use serde_json::{Value, json};

use crate::stage::Stage;

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap()).agent("")
    }

    /// With these settings of the agent `worker`.
    fn agent(self, settings: &str) -> Self {
        self.file(
            "agents/worker/agent.md",
            &format!("---\nmodel: scripted/script.yaml\n{settings}---\nDo the work.\n"),
        )
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self) -> Result<Definition, DefinitionError> {
        let shared = LimitSettings::default();
        definition::load(self.path(), "worker", &|_| None, &shared)
    }

    /// Code, text without the project's path, and hint.
    fn error(&self) -> (&'static str, String, String) {
        let error = self.load().unwrap_err();
        let root = format!("{}/", self.path().display());
        let text = error.to_string().replace(&root, "");
        (error.code(), text, error.hint().replace(&root, ""))
    }
}

const HELLO: &str = "/** Says hello. */\nexport default (input: { name: string }): string => `hello ${input.name}`;";

#[test]
fn own_tools_are_there_and_shared_ones_are_listed() {
    let project = Project::new()
        .agent("tools: [say-hello, other_one]\napprovals: { other-one: required }\n")
        .file("agents/worker/tools/open-issue.ts", HELLO)
        .file("agents/worker/tools/README.md", "Tools.")
        .file("agents/worker/tools/bowline.d.ts", "declare const x: 1;")
        .file("tools/say-hello.ts", HELLO)
        .file("tools/other-one.ts", HELLO)
        .file("tools/not_listed.ts", "this is not TypeScript");
    let definition = project.load().unwrap();
    let names: Vec<&str> = definition
        .scripts
        .iter()
        .map(|one| one.spec().name.as_str())
        .collect();
    assert_eq!(names, ["open_issue", "other_one", "say_hello"]);
    assert_eq!(definition.tools, ["say_hello", "other_one"]);
    assert_eq!(definition.approvals["other_one"], Approval::Required);
    let spec = definition.scripts[0].spec();
    assert_eq!(spec.description, "Says hello.");
    assert_eq!(
        spec.parameters,
        json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
    );
    assert_eq!(definition.scripts[0].returns(), Some(&json!({"type": "string"})));
}

#[test]
fn settings_say_how_a_tool_may_be_called() {
    let read = |settings: &str| {
        let project =
            Project::new().file("agents/worker/tools/t.ts", &format!("{settings}\n{HELLO}"));
        let definition = project.load().unwrap();
        (definition.scripts[0].policy().clone(), definition.approvals)
    };
    let (policy, approvals) = read("");
    assert!(!policy.durable && approvals.is_empty());
    assert_eq!(policy.timeout, Duration::from_secs(60));
    assert_eq!(policy.effect, Effect::Outside(OnCrash::Unknown));
    let (policy, approvals) = read(
        "export const tool = { durable: true, timeout: '30s', approval: 'required', effect: 'retry' };",
    );
    assert!(policy.durable);
    assert_eq!(policy.timeout, Duration::from_secs(30));
    assert_eq!(policy.effect, Effect::Outside(OnCrash::Retry));
    assert_eq!(approvals["t"], Approval::Required);
    let (policy, approvals) =
        read("export const tool = { effect: 'none', approval: { when: \"@.name == 'x'\" } };");
    assert_eq!(policy.effect, Effect::None);
    assert!(matches!(approvals["t"], Approval::When(_)));
    assert_eq!(read("export const tool = { durable: true }").0.timeout, Duration::from_secs(300));
}

#[test]
fn what_the_agent_says_of_consent_wins() {
    let project = Project::new().agent("approvals: { t: never }\n").file(
        "agents/worker/tools/t.ts",
        &format!("export const tool = {{ approval: 'required' }};\n{HELLO}"),
    );
    assert_eq!(project.load().unwrap().approvals["t"], Approval::Never);
}

#[test]
fn mistakes_are_errors_with_file_line_column_and_a_hint() {
    let tool = "agents/worker/tools/t.ts";
    for (files, expected) in [
        (
            vec![(tool, "/** D. */\nexport default (input: { at: Date }) => 0")],
            ("tool_type", "agents/worker/tools/t.ts:2:30: `Date` cannot become JSON here", "use `string` with `@format date-time`"),
        ),
        (
            vec![(tool, "/** D. */\nexport default (input: { at: X }) => 0;\nimport { X } from '../lib/x'"), ("agents/worker/lib/x.ts", "\nexport type X = bigint;")],
            ("tool_type", "agents/worker/lib/x.ts:2:17: JSON has no `bigint`", "use `number`, or `string` for more than 2^53"),
        ),
        (
            vec![(tool, "/** D. */\nexport default (a: {}, b: {}) => 0")],
            ("tool_function", "agents/worker/tools/t.ts:2:24: a tool takes one parameter", "put all of them into one object, such as `input: { title: string }`"),
        ),
        (
            vec![(tool, "/** D. */\nexport default (name: string) => 0")],
            ("tool_function", "agents/worker/tools/t.ts:2:17: the parameter `name` is no object with properties", "take one object, such as `input: { title: string }`"),
        ),
        (
            vec![(tool, "export default (input: {}) => 0")],
            ("tool_function", "agents/worker/tools/t.ts:1:16: nothing says what the tool does", "write a comment `/** … */` before the function"),
        ),
        (
            vec![(tool, "export const tool = { durabel: true };\n/** D. */\nexport default () => 0")],
            ("tool_setting", "agents/worker/tools/t.ts:1:23: unknown key `durabel`", "did you mean `durable`?"),
        ),
        (
            vec![(tool, "export const tool = {\n  effect: 'nothing' };\n/** D. */\nexport default () => 0")],
            ("tool_setting", "agents/worker/tools/t.ts:2:3: `effect` must be one of `none`, `retry`, `unknown`, `ask`", ""),
        ),
        (
            vec![(tool, "export const tool = { timeout: '2h' };\n/** D. */\nexport default () => 0")],
            ("tool_setting", "agents/worker/tools/t.ts:1:23: `timeout` must be a duration", ""),
        ),
        (
            vec![(tool, "import x from '../../other/lib/x';\n/** D. */\nexport default () => 0"), ("agents/other/lib/x.ts", "export default 1")],
            ("tool_import", "agents/worker/tools/t.ts:1:15: `../../other/lib/x`: is neither in the agent's `lib` nor in the project's", "import a file of the agent's or the project's `lib`"),
        ),
        (vec![(tool, "export default (")], ("tool_syntax", "agents/worker/tools/t.ts:1:17: ", "correct it")),
        (
            vec![("agents/worker/tools/Open.ts", HELLO)],
            ("definition_invalid_name", "agents/worker/tools/Open.ts: `Open` cannot name a tool", "use lower-case letters and digits in words joined by `-`"),
        ),
        (
            vec![("agents/worker/tools/a.js", HELLO)],
            ("definition_invalid_name", "agents/worker/tools/a.js: is no TypeScript", "rename it to end with `.ts`, or move it to the folder `lib`"),
        ),
        (
            vec![("agents/worker/tools/deep/a.ts", HELLO)],
            ("definition_invalid_name", "agents/worker/tools/deep: is no file, and only files are tools", "put what tools share into the folder `lib`, as files"),
        ),
        (
            vec![("agents/worker/tools/a-b.ts", HELLO), ("agents/worker/tools/a_b.ts", HELLO)],
            ("definition_invalid_name", "agents/worker/tools/a_b.ts: two files are the tool `a_b`", "rename one of them"),
        ),
    ] {
        let mut project = Project::new();
        for (path, text) in files {
            project = project.file(path, text);
        }
        let (code, text, hint) = project.error();
        assert_eq!(code, expected.0, "{text}");
        assert!(text.starts_with(expected.1), "{text}\nnot\n{}", expected.1);
        assert!(hint.starts_with(expected.2), "{hint}");
    }
}

/// What the tools of a test may call: it tells what it was called with.
struct Bank {
    methods: Vec<Method>,
    calls: Arc<Mutex<Vec<(String, Option<String>)>>>,
}

impl Bank {
    fn new(calls: Arc<Mutex<Vec<(String, Option<String>)>>>) -> Self {
        let mut close = Method::new("close", "Closes an account.");
        close.approval = true;
        let methods = vec![
            Method::new("pay", "Pays.").takes("order", json!({"type": "string"})).takes("amount", json!({"type": "number"})),
            Method::new("orders", "Lists orders.").takes("input", json!({})).effect(Effect::None),
            Method::new("wait", "Never answers."),
            close,
        ];
        Self { methods, calls }
    }
}

#[async_trait]
impl Binding for Bank {
    fn name(&self) -> &str {
        "bank"
    }

    fn description(&self) -> &str {
        "A bank."
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Guest>,
    ) -> Result<Guest, CallError> {
        if method == "wait" {
            context.cancel.cancelled().await;
            return Err(CallError::new("AbortError", "cancelled"));
        }
        let shown: Vec<String> = arguments.iter().map(|one| one.to_json().to_string()).collect();
        self.calls
            .lock()
            .unwrap()
            .push((format!("{method}({})", shown.join(", ")), context.effect_id.clone()));
        match (method, arguments.first()) {
            ("pay", Some(Guest::String(order))) if order == "bad" => {
                Err(CallError::new("BankError", "no such order"))
            }
            ("orders", _) => Ok(Guest::from(json!({"orders": [], "next": null}))),
            _ => Ok(Guest::String(format!("{method} done"))),
        }
    }
}

/// Runs the tool `t` with this source and input, and gives what the model was told.
async fn call(source: &str, input: Value) -> (String, Vec<(String, Option<String>)>) {
    let project = Project::new().file("agents/worker/tools/t.ts", source);
    let (results, calls) = converse(&project, &[("t", input)]).await;
    (results.into_iter().next().unwrap(), calls)
}

/// One message, in which the model calls these tools, one after the other.
async fn converse(
    project: &Project,
    uses: &[(&str, Value)],
) -> (Vec<String>, Vec<(String, Option<String>)>) {
    let turns: Vec<Value> = uses
        .iter()
        .map(|(name, input)| json!({"tools": [{"name": name, "input": input}]}))
        .chain([json!({"text": "Done."})])
        .collect();
    let stage = Stage::new(&json!({ "turns": turns }).to_string());
    let calls: Arc<Mutex<Vec<(String, Option<String>)>>> = Arc::default();
    let mut definition = project.load().unwrap();
    definition.dir = Some(stage.dir().to_path_buf());
    let bank = Arc::new(Bank::new(Arc::clone(&calls)));
    let agent = Agent::new("worker", move |cx: &mut Render| {
        *cx.definition() = definition.clone();
        cx.binding(bank.clone());
        definition.instructions.clone()
    })
    .unwrap();
    let process = stage.process_of(agent, Death::Never);
    process.ask("Go.").await;
    let results = process.results().await;
    let calls = calls.lock().unwrap().clone();
    (results, calls)
}
