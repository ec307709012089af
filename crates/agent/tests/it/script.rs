//! Tools in TypeScript: how they are found and read, and what a call does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bowline_agent::{
    Effect, OnCrash,
    binding::{Binding, CallError, Method},
    definition::{self, Approval, Definition, DefinitionError, LimitSettings},
    tool::ToolContext,
};
use bowline_runtime::Outcome;
use bowline_sandbox::isolate::Value as Guest;
use bowline_testkit::faults::Death;
use serde_json::{Value, json};

use crate::stage::{Stage, assert_valid, instance, lines};

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
    assert_eq!(
        definition.scripts[0].returns(),
        Some(&json!({"type": "string"}))
    );
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
    assert_eq!(
        read("export const tool = { durable: true }").0.timeout,
        Duration::from_secs(300)
    );
}

#[test]
fn what_the_agent_says_of_consent_wins() {
    let project = Project::new().agent("approvals: { t: never }\n").file(
        "agents/worker/tools/t.ts",
        &format!("export const tool = {{ approval: 'required' }};\n{HELLO}"),
    );
    assert_eq!(project.load().unwrap().approvals["t"], Approval::Never);
}

const TOOL: &str = "agents/worker/tools/t.ts";

/// The files of a project, and the error that it gives: its code, and how its text and hint begin.
type Mistake = (
    &'static [(&'static str, &'static str)],
    (&'static str, &'static str, &'static str),
);

const MISTAKES: &[Mistake] = &[
    (
        &[(TOOL, "/** D. */\nexport default (input: { at: Date }) => 0")],
        (
            "tool_type",
            "agents/worker/tools/t.ts:2:30: `Date` cannot become JSON here",
            "use `string` with `@format date-time`",
        ),
    ),
    (
        &[
            (
                TOOL,
                "/** D. */\nexport default (input: { at: X }) => 0;\nimport { X } from '../lib/x'",
            ),
            ("agents/worker/lib/x.ts", "\nexport type X = bigint;"),
        ],
        (
            "tool_type",
            "agents/worker/lib/x.ts:2:17: JSON has no `bigint`",
            "use `number`, or `string` for more than 2^53",
        ),
    ),
    (
        &[(TOOL, "/** D. */\nexport default (a: {}, b: {}) => 0")],
        (
            "tool_function",
            "agents/worker/tools/t.ts:2:24: a tool takes one parameter",
            "put all of them into one object, such as `input: { title: string }`",
        ),
    ),
    (
        &[(TOOL, "/** D. */\nexport default (name: string) => 0")],
        (
            "tool_function",
            "agents/worker/tools/t.ts:2:17: the parameter `name` is no object with properties",
            "take one object, such as `input: { title: string }`",
        ),
    ),
    (
        &[(TOOL, "export default (input: {}) => 0")],
        (
            "tool_function",
            "agents/worker/tools/t.ts:1:16: nothing says what the tool does",
            "write a comment `/** … */` before the function",
        ),
    ),
    (
        &[(
            TOOL,
            "export const tool = { durabel: true };\n/** D. */\nexport default () => 0",
        )],
        (
            "tool_setting",
            "agents/worker/tools/t.ts:1:23: unknown key `durabel`",
            "did you mean `durable`?",
        ),
    ),
    (
        &[(
            TOOL,
            "export const tool = {\n  effect: 'nothing' };\n/** D. */\nexport default () => 0",
        )],
        (
            "tool_setting",
            "agents/worker/tools/t.ts:2:3: `effect` wants one of `none`, `retry`, `unknown`, `ask`",
            "",
        ),
    ),
    (
        &[(
            TOOL,
            "export const tool = { timeout: '2h' };\n/** D. */\nexport default () => 0",
        )],
        (
            "tool_setting",
            "agents/worker/tools/t.ts:1:23: `timeout` wants a duration such as `30s` or `2h`, from `10ms` to `1h`",
            "",
        ),
    ),
    (
        &[
            (
                TOOL,
                "import x from '../../other/lib/x';\n/** D. */\nexport default () => 0",
            ),
            ("agents/other/lib/x.ts", "export default 1"),
        ],
        (
            "tool_import",
            "agents/worker/tools/t.ts:1:15: `../../other/lib/x`: is neither in the agent's `lib` nor in the project's",
            "import a file of the agent's or the project's `lib`",
        ),
    ),
    (
        &[(TOOL, "export default (")],
        (
            "tool_syntax",
            "agents/worker/tools/t.ts:1:17: ",
            "correct it",
        ),
    ),
    (
        &[("agents/worker/tools/Open.ts", HELLO)],
        (
            "definition_invalid_name",
            "agents/worker/tools/Open.ts: `Open` cannot name a tool",
            "use lower-case letters and digits in words joined by `-`",
        ),
    ),
    (
        &[("agents/worker/tools/a.js", HELLO)],
        (
            "definition_invalid_name",
            "agents/worker/tools/a.js: is no TypeScript",
            "rename it to end with `.ts`, or move it to the folder `lib`",
        ),
    ),
    (
        &[("agents/worker/tools/deep/a.ts", HELLO)],
        (
            "definition_invalid_name",
            "agents/worker/tools/deep: is no file, and only files are tools",
            "put what tools share into the folder `lib`, as files",
        ),
    ),
    (
        &[
            ("agents/worker/tools/a-b.ts", HELLO),
            ("agents/worker/tools/a_b.ts", HELLO),
        ],
        (
            "definition_invalid_name",
            "agents/worker/tools/a_b.ts: two files are the tool `a_b`",
            "rename one of them",
        ),
    ),
];

#[test]
fn mistakes_are_errors_with_file_line_column_and_a_hint() {
    for (files, expected) in MISTAKES {
        let mut project = Project::new();
        for (path, text) in *files {
            project = project.file(path, text);
        }
        let (code, text, hint) = project.error();
        assert_eq!(code, expected.0, "{text}");
        assert!(text.starts_with(expected.1), "{text}\nnot\n{}", expected.1);
        assert!(hint.starts_with(expected.2), "{hint}");
    }
}

/// What was called, and under which key.
type Calls = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// What the tools of a test may call: it tells what it was called with.
struct Bank {
    methods: Vec<Method>,
    calls: Calls,
}

impl Bank {
    fn new(calls: Calls) -> Self {
        let mut close = Method::new("close", "Closes an account.");
        close.approval = true;
        let methods = vec![
            Method::new("pay", "Pays.")
                .takes("order", json!({"type": "string"}))
                .takes("amount", json!({"type": "number"}))
                .effect(Effect::Outside(OnCrash::Retry)),
            Method::new("orders", "Lists orders.")
                .takes("input", json!({}))
                .effect(Effect::None),
            Method::new("wait", "Never answers."),
            Method::new("post", "Posts a letter."),
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
        let shown: Vec<String> = arguments
            .iter()
            .map(|one| one.to_json().to_string())
            .collect();
        let mut calls = self.calls.lock().unwrap();
        // As a system does that knows idempotency keys.
        let known = |(_, id): &(String, Option<String>)| id.is_some() && *id == context.effect_id;
        if calls.iter().any(known) {
            return Ok(Guest::String(format!("{method} done")));
        }
        calls.push((
            format!("{method}({})", shown.join(", ")),
            context.effect_id.clone(),
        ));
        match (method, arguments.first()) {
            ("pay", Some(Guest::String(order))) if order == "bad" => {
                Err(CallError::new("BankError", "no such order"))
            }
            ("orders", _) => Ok(Guest::from(json!({"orders": [], "next": null}))),
            _ => Ok(Guest::String(format!("{method} done"))),
        }
    }
}

/// Runs the tool `t` with this source and input: what the model was told, and what the bank was.
async fn call(source: &str, input: Value) -> (String, Vec<(String, Option<String>)>) {
    let project = Project::new().file("agents/worker/tools/t.ts", source);
    let (stage, calls) = stage(&project, &[("t", input)]);
    let settled = stage.process(Death::Never).ask("Go.").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    let told = told(&stage).await.pop().unwrap();
    let calls = calls.lock().unwrap().clone();
    (told, calls)
}

/// The agent of a project, whose model calls these tools one after the other.
fn stage(project: &Project, uses: &[(&str, Value)]) -> (Stage, Calls) {
    let turns: Vec<Value> = uses
        .iter()
        .map(|(name, input)| json!({"tools": [{"name": name, "input": input}]}))
        .chain([json!({"text": "Done."})])
        .collect();
    let mut stage = Stage::new(&json!({"turns": turns, "at_end": "repeat_last"}).to_string());
    let calls: Calls = Arc::default();
    stage.engine = Some(crate::code::engine());
    stage.base = Some(project.load().unwrap());
    stage.bindings = vec![Arc::new(Bank::new(Arc::clone(&calls)))];
    (stage, calls)
}

/// What the model was told of each call.
async fn told(stage: &Stage) -> Vec<String> {
    lines(&stage.conversation().await)
        .into_iter()
        .filter(|line| line.starts_with("result: ") || line.starts_with("failed: "))
        .collect()
}

#[tokio::test]
async fn a_call_runs_the_function_and_tells_what_it_gives() {
    for (body, expected) in [
        ("`hello ${input.name}`", "result: t: hello Ada"),
        (
            "({ n: 1, at: new Date(0) })",
            r#"result: t: {"at":"1970-01-01T00:00:00.000Z","n":1}"#,
        ),
        ("undefined", "result: t: Done."),
        ("[1, null]", "result: t: [1,null]"),
        (
            "({ text: 'a dot', mediaType: 'image/png', data: new Uint8Array([1]) })",
            "result: t: a dot",
        ),
        (
            "(typeof fetch) + (typeof require) + (typeof process) + (typeof step)",
            "result: t: undefinedundefinedundefinedundefined",
        ),
    ] {
        let source =
            format!("/** D. */\nexport default async (input: {{ name: string }}) => {body};");
        let (told, _) = call(&source, json!({"name": "Ada"})).await;
        assert_eq!(told, expected, "{body}");
    }
    let (told, _) = call(HELLO, json!({"nam": "Ada"})).await;
    assert!(
        told.starts_with("failed: t: ") && told.contains("name"),
        "{told}"
    );
}

#[tokio::test]
async fn an_error_is_told_with_the_authors_position() {
    let source = "/** D. */\nexport default (input: { n: number }): void => {\n  const wrong: number = input.n;\n  throw new RangeError('no ' + wrong);\n};";
    let (told, _) = call(source, json!({"n": 5})).await;
    assert!(told.starts_with("failed: t: RangeError: no 5"), "{told}");
    // The engine names the last operand before the call, not the call: `wrong`, here as in JavaScript.
    assert!(told.contains("tools/t.ts:4:32"), "{told}");
}

#[tokio::test]
async fn limits_stop_a_tool_and_the_model_goes_on() {
    let source = "export const tool = { timeout: '50ms' };\n/** D. */\nexport default async () => { await bank.wait(); };";
    let (told, _) = call(source, json!({})).await;
    assert!(told.contains("isolate_wall"), "{told}");
    let source = "/** D. */\nexport default async () => { await new Promise(() => {}); };";
    let (told, _) = call(source, json!({})).await;
    assert!(told.contains("isolate_deadlock"), "{told}");
}

#[tokio::test]
async fn a_tool_imports_what_lies_in_lib() {
    let project = Project::new()
        .file(
            "agents/worker/tools/t.ts",
            "import { greet, type Who } from '../lib/greet';\n/** D. */\nexport default (input: Who) => greet(input);",
        )
        .file(
            "agents/worker/lib/greet.ts",
            "import { mark } from '../../../lib/mark.js';\nexport interface Who { name: string }\nexport const greet = (who: Who) => 'hello ' + who.name + mark;",
        )
        .file("lib/mark.ts", "export const mark: string = '!';");
    let (stage, _) = stage(&project, &[("t", json!({"name": "Ada"}))]);
    stage.process(Death::Never).ask("Go.").await.unwrap();
    assert_eq!(told(&stage).await, ["result: t: hello Ada!"]);
}

#[tokio::test]
async fn files_are_written_by_tools_without_an_outside_effect() {
    let write = "/** D. */\nexport default async () => { await state.writeFile('/workspace/a.txt', 'one'); return await state.readFile('/workspace/a.txt'); };";
    let project = Project::new().file(
        "agents/worker/tools/t.ts",
        &format!("export const tool = {{ effect: 'none' }};\n{write}"),
    );
    let (stage, _) = stage(&project, &[("t", json!({}))]);
    let before = stage.store.metrics().flushes;
    stage.process(Death::Never).ask("Go.").await.unwrap();
    assert_eq!(told(&stage).await, ["result: t: one"]);
    assert_eq!(stage.file("/workspace/a.txt").await, "one");
    assert_eq!(
        stage.store.metrics().flushes - before,
        3,
        "one step more than a plain turn"
    );

    let (told, _) = call(write, json!({})).await;
    assert!(
        told.contains("the files are out of reach") && told.contains("durable"),
        "{told}"
    );
    let outside = "export const tool = { effect: 'none' };\n/** D. */\nexport default async () => await bank.post();";
    let (told, calls) = call(outside, json!({})).await;
    assert!(
        told.contains("bank.post acts outside") && calls.is_empty(),
        "{told}"
    );
}

#[tokio::test]
async fn a_binding_gets_an_effect_id_of_its_own_for_each_call() {
    let source = "/** D. */\nexport default async () => { const all = await Promise.all([bank.pay('a', 1), bank.pay('b', 2), bank.orders({})]); try { await bank.pay('bad', 3); } catch (error) { return [all.length, error.message]; } };";
    let (told, calls) = call(source, json!({})).await;
    assert_eq!(told, r#"result: t: [3,"no such order"]"#);
    let ids: Vec<&String> = calls.iter().filter_map(|(_, id)| id.as_ref()).collect();
    assert_eq!((calls.len(), ids.len()), (4, 3), "{calls:?}");
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.starts_with("eff_")), "{ids:?}");
}

#[tokio::test]
async fn a_method_that_needs_consent_is_refused_outside_of_a_durable_tool() {
    let source = "/** D. */\nexport default async () => await bank.close();";
    let (told, calls) = call(source, json!({})).await;
    assert!(
        told.contains("bank.close needs a person's consent") && calls.is_empty(),
        "{told}"
    );
}

const REFUND: &str = "export const tool = { durable: true };\n/** D. */\nexport default async (input: { order: string }) => {\n  await state.writeFile('/workspace/log.txt', 'began');\n  const paid = await step.do('pay', () => bank.pay(input.order, 1));\n  await state.appendFile('/workspace/log.txt', ' paid');\n  return paid;\n};";

#[tokio::test]
async fn a_durable_tool_pays_once_and_writes_its_files_wherever_the_process_dies() {
    let project = Project::new().file("agents/worker/tools/t.ts", REFUND);
    for death in (1..=8).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let (stage, calls) = stage(&project, &[("t", json!({"order": "o1"}))]);
        let dying = stage.process(death);
        if let Ok(receipt) = dying.send_keyed("Go.", "k").await {
            let _ = dying.settled(&receipt).await;
        }
        drop(dying);
        let last = stage.process(Death::Never);
        let receipt = last.send_keyed("Go.", "k").await.unwrap();
        last.runtime.resume().await.unwrap();
        let settled = last.settled(&receipt).await.unwrap();
        assert_eq!(
            settled.outcome,
            Outcome::Completed,
            "{death:?} {:?}",
            settled.error
        );
        assert_valid(&stage.conversation().await);
        assert_eq!(told(&stage).await, ["result: t: pay done"], "{death:?}");
        assert_eq!(
            stage.file("/workspace/log.txt").await,
            "began paid",
            "{death:?}"
        );
        let calls = calls.lock().unwrap().clone();
        let ids: BTreeSet<_> = calls.iter().map(|(_, id)| id.clone()).collect();
        assert_eq!(ids.len(), 1, "{death:?} {calls:?}");
    }
}

#[tokio::test]
async fn a_durable_tool_waits_for_consent_at_its_await() {
    let project = Project::new().file(
        "agents/worker/tools/t.ts",
        "export const tool = { durable: true };\n/** D. */\nexport default async () => { const n = Math.random(); await bank.pay('a', 1); return [await bank.close(), typeof n]; };",
    );
    let (stage, calls) = stage(&project, &[("t", json!({}))]);
    let process = stage.process(Death::Never);
    let approval = crate::code::parked(&process).await;
    assert_eq!(approval.tool_name, "bank.close");
    assert_eq!(calls.lock().unwrap().len(), 1);
    drop(process);
    let later = stage.process(Death::Never);
    let receipt = later.send_keyed("Go", "k").await.unwrap();
    let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
    later.runtime.answer(&instance(), yes).await.unwrap();
    later.settled(&receipt).await.unwrap();
    assert_eq!(
        told(&stage).await,
        [r#"result: t: ["close done","number"]"#]
    );
    assert_eq!(calls.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_tool_that_needs_consent_itself_is_asked_for_before_it_runs() {
    let project = Project::new().file(
        "agents/worker/tools/t.ts",
        "export const tool = { durable: true, approval: 'required' };\n/** D. */\nexport default async (input: { order: string }) => await bank.pay(input.order, 1);",
    );
    let (stage, calls) = stage(&project, &[("t", json!({"order": "o1"}))]);
    let process = stage.process(Death::Never);
    let approval = crate::code::parked(&process).await;
    assert_eq!(approval.tool_name, "t");
    assert!(calls.lock().unwrap().is_empty());
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    let edited = json!({"approvalId": approval.approval_id, "decision": "approve", "arguments": {"order": "o2"}});
    process.runtime.answer(&instance(), edited).await.unwrap();
    process.settled(&receipt).await.unwrap();
    assert_eq!(calls.lock().unwrap()[0].0, r#"pay("o2", 1)"#);
}

#[tokio::test]
async fn code_calls_tools_in_typescript_as_it_calls_others() {
    let project = Project::new()
        .agent("code: true\n")
        .file("agents/worker/tools/say-hello.ts", HELLO);
    let code = "async () => (await tools.say_hello({ name: 'Ada' })).toUpperCase()";
    let (stage, _) = stage(&project, &[("code", json!({"code": code}))]);
    stage.process(Death::Never).ask("Go.").await.unwrap();
    let told = told(&stage).await;
    assert!(told[0].contains("HELLO ADA"), "{told:?}");
}

/// Code that calls the durable tool `t` twice at once.
const BOTH: &str = "async () => { const lucky = Math.random(); const both = await Promise.allSettled([tools.t({ order: 'o1' }), tools.t({ order: 'o2' })]); return [...both.map((one) => one.value ?? one.reason.message), typeof lucky]; }";

fn in_code(tool: &str) -> (Stage, Calls) {
    let project = Project::new()
        .agent("code: true\n")
        .file("agents/worker/tools/t.ts", tool);
    stage(&project, &[("code", json!({"code": BOTH}))])
}

#[tokio::test]
async fn durable_tools_that_code_calls_go_on_where_they_were_wherever_the_process_dies() {
    let tool = "export const tool = { durable: true };\n/** D. */\nexport default async (input: { order: string }) => {\n  const file = `/workspace/${input.order}.txt`;\n  const lucky = String(Math.random());\n  await state.writeFile(file, lucky);\n  const paid = await step.do('pay', () => bank.pay(input.order, 1));\n  await state.appendFile(file, ' paid');\n  return (await state.readFile(file)) === lucky + ' paid' ? paid : 'another run';\n};";
    for death in (1..=12).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let (stage, calls) = in_code(tool);
        let dying = stage.process(death);
        if let Ok(receipt) = dying.send_keyed("Go.", "k").await {
            let _ = dying.settled(&receipt).await;
        }
        drop(dying);
        let last = stage.process(Death::Never);
        let receipt = last.send_keyed("Go.", "k").await.unwrap();
        last.runtime.resume().await.unwrap();
        last.settled(&receipt).await.unwrap();
        let told = told(&stage).await;
        assert!(
            told[0].contains(r#""result":["pay done","pay done","number"]"#),
            "{death:?} {told:?}"
        );
        let calls = calls.lock().unwrap().clone();
        let ids: BTreeSet<_> = calls.iter().map(|(_, id)| id.clone()).collect();
        assert_eq!((calls.len(), ids.len()), (2, 2), "{death:?} {calls:?}");
    }
}

#[tokio::test]
async fn durable_tools_that_code_calls_wait_for_consent_at_their_await() {
    let tool = "export const tool = { durable: true };\n/** D. */\nexport default async (input: { order: string }) => { const before = input.order; await bank.pay(before, 1); return before + ': ' + await bank.close(); };";
    let (stage, calls) = in_code(tool);
    let process = stage.process(Death::Never);
    crate::code::parked(&process).await;
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    let mut asked: Vec<_> = stage.conversation().await.approvals.into_values().collect();
    asked.sort_by(|a, b| a.approval_id.cmp(&b.approval_id));
    let keys: Vec<_> = asked.iter().map(|one| one.tool_call_id.as_str()).collect();
    assert_eq!(
        keys,
        ["call_1_0#1.2", "call_1_0#2.2"],
        "listed in the order of the calls"
    );
    drop(process);
    stage.clock.advance(Duration::from_secs(21 * 24 * 3_600));
    let later = stage.process(Death::Never);
    for (approval, decision) in asked.iter().zip(["reject", "approve"]) {
        let answer = json!({"approvalId": approval.approval_id, "decision": decision});
        // After the first one it parks again, for the other.
        while let Err(error) = later.runtime.answer(&instance(), answer.clone()).await {
            assert_eq!(error.code(), "nothing_to_answer");
            tokio::task::yield_now().await;
        }
    }
    later.settled(&receipt).await.unwrap();
    let told = told(&stage).await;
    assert!(
        told[0].contains("A person rejected this call") && told[0].contains("\"o2: close done\""),
        "{told:?}"
    );
    let calls = calls.lock().unwrap().clone();
    let made: Vec<_> = calls.iter().map(|(call, _)| call.as_str()).collect();
    assert_eq!(made, [r#"pay("o1", 1)"#, r#"pay("o2", 1)"#, "close()"]);
}

#[tokio::test]
async fn the_time_of_a_durable_tool_that_code_calls_ends_that_tool_alone() {
    let tool = "export const tool = { durable: true, timeout: '50ms' };\n/** D. */\nexport default async (input: { order: string }) => input.order === 'o1' ? await bank.wait() : 'done';";
    let (stage, _) = in_code(tool);
    stage.process(Death::Never).ask("Go.").await.unwrap();
    let told = told(&stage).await;
    assert!(
        told[0].contains("(isolate_wall)") && told[0].contains(r#""done","number"]"#),
        "{told:?}"
    );
}

/// The files of the guide: each block whose first line is a comment with its path.
fn guide() -> Vec<(String, String)> {
    let text = include_str!("../../../../docs/guide/tools.md");
    let blocks = text.split("```ts\n").skip(1);
    blocks
        .map(|block| {
            let block = block.split("\n```").next().unwrap();
            let path = block.lines().next().unwrap().strip_prefix("// ").unwrap();
            (path.to_owned(), block.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn the_examples_of_the_guide_do_what_it_says() {
    let mut project = Project::new();
    for (path, text) in guide() {
        project = project.file(&path.replace("agents/shop/", "agents/worker/"), &text);
    }
    let price = json!({"amount": 10, "from": "EUR", "to": "USD"});
    let uses = [
        ("convert_price", price),
        (
            "convert_price",
            json!({"amount": 10, "from": "EUR", "to": "DEM"}),
        ),
        ("save_note", json!({"line": "one"})),
        ("find_orders", json!({"customer": "c-17"})),
        (
            "refund",
            json!({"order": "o1", "amount": 20, "reason": "late"}),
        ),
    ];
    let (stage, calls) = stage(&project, &uses);
    let definition = stage.base.clone().unwrap();
    assert!(matches!(definition.approvals["refund"], Approval::When(_)));
    let settled = stage.process(Death::Never).ask("Go.").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    let told = told(&stage).await;
    assert_eq!(told[0], "result: convert_price: 11.00 USD");
    assert!(
        told[1].starts_with("failed: convert_price: "),
        "{}",
        told[1]
    );
    assert_eq!(told[2], "result: save_note: 1");
    assert!(told[3].contains(r#""orders":[]"#), "{}", told[3]);
    assert_eq!(told[4], "result: refund: pay done");
    assert_eq!(stage.file("/workspace/refunds.txt").await, "o1 20\n");
    assert_eq!(calls.lock().unwrap().len(), 2);
    let size = &definition.scripts[1].spec().parameters["properties"]["size"];
    assert_eq!(
        *size,
        json!({"type": "integer", "minimum": 1, "maximum": 50, "default": 20})
    );
}
