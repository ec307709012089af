//! Code mode: the model writes code, which calls what the agent may do, and survives what happens.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bowline_agent::{
    binding::{Binding, CallError, Method},
    code::journal::{Boundary, Called},
    record::Fact,
    tool::{Effect, OnCrash, ToolContext},
};
use bowline_runtime::{Clock as _, Outcome};
use bowline_sandbox::isolate::{Isolates, IsolatesOptions, Value};
use bowline_testkit::faults::Death;
use serde_json::{Value as Json, json};

use crate::stage::{Process, Stage, assert_valid, instance, lines};

mod kill;
mod policies;
mod rollback;
mod snippets;

/// One engine for all tests: making one takes a second.
pub(crate) fn engine() -> Isolates {
    static ENGINE: LazyLock<Isolates> =
        LazyLock::new(|| Isolates::open(&IsolatesOptions::default()).unwrap());
    ENGINE.clone()
}

/// An agent whose model runs this code and says «Done.» then.
fn stage(code: &str) -> Stage {
    let turns = json!({"turns": [
        {"tools": [{"name": "code", "input": {"code": code}}]},
        {"text": "Done."},
    ], "at_end": "repeat_last"});
    let mut stage = Stage::new(&turns.to_string());
    stage.engine = Some(engine());
    stage.define = |definition| definition.code = Some(bowline_agent::code::default_limits());
    stage
}

/// The outcome that the model read.
async fn outcome(stage: &Stage) -> Json {
    let conversation = stage.conversation().await;
    assert_valid(&conversation);
    let told = lines(&conversation);
    let line = told.iter().find(|line| line.contains("code: ")).unwrap();
    serde_json::from_str(line.split_once("code: ").unwrap().1).unwrap_or_else(|_| json!(line))
}

/// What the code did, as it is recorded.
async fn boundaries(stage: &Stage) -> Vec<Boundary> {
    let records = stage.store.read(&instance(), 0, 10_000).await.unwrap();
    let boundary = |record| match Fact::of(record).unwrap() {
        Fact::CodeBoundary(boundary) => Some(*boundary),
        _ => None,
    };
    records.iter().filter_map(boundary).collect()
}

async fn calls(stage: &Stage) -> Vec<Called> {
    let boundaries = boundaries(stage).await;
    boundaries.into_iter().flat_map(|one| one.calls).collect()
}

async fn done(process: &Process) {
    let settled = process.ask("Go").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
}

#[tokio::test]
async fn code_calls_the_tools_of_its_agent_and_what_it_wrote_is_one_commit_with_its_result() {
    let stage = stage(
        "async () => { await tools.write({ path: 'a.txt', content: 'one' }); console.log('half'); return { text: await tools.read({ path: 'a.txt' }), n: 1n }; }",
    );
    let before = stage.store.metrics().flushes;
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    assert_eq!(outcome["status"], "completed", "{outcome}");
    assert_eq!(outcome["result"], json!({"text": "one", "n": 1}));
    assert_eq!(outcome["logs"], json!(["half"]));
    assert_eq!(stage.file("/workspace/a.txt").await, "one");
    let flushes = stage.store.metrics().flushes - before;
    assert_eq!(
        flushes, 3,
        "admission, the run, and the answer with its settlement"
    );
    let calls = calls(&stage).await;
    let paths: Vec<_> = calls.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(paths, ["tools.write", "tools.read"]);
    assert_eq!(calls[0].arguments["path"], "a.txt");
}

/// An effect id, and what came with it.
type Seen = (String, Vec<Json>);

/// An outside system: it notes each effect id that it gets, and what with.
struct Bank {
    methods: Vec<Method>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Bank {
    fn new(on_crash: OnCrash) -> Arc<Self> {
        let outside = |name: &str| {
            Method::new(name, "Moves money.")
                .takes("to", json!({"type": "string"}))
                .takes("amount", json!({"type": "number"}))
                .effect(Effect::Outside(on_crash))
        };
        let mut asked = outside("send");
        asked.approval = true;
        let look = Method::new("look", "The balance.").effect(Effect::None);
        Arc::new(Self {
            methods: vec![outside("pay"), asked, look],
            seen: Arc::default(),
        })
    }

    fn seen(&self) -> Vec<(String, Vec<Json>)> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl Binding for Bank {
    fn name(&self) -> &str {
        "bank"
    }

    fn description(&self) -> &str {
        "Money."
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn beside(&self, _: &str) -> bool {
        true
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        if method == "look" {
            return Ok(Value::integer(100));
        }
        let arguments: Vec<_> = arguments.iter().map(Value::to_json).collect();
        if arguments[0] == "nobody" {
            return Err(CallError::new("BankError", "there is no such person"));
        }
        let effect = context.effect_id.clone().unwrap();
        let mut seen = self.seen.lock().unwrap();
        // As a system does that knows idempotency keys.
        if !seen.iter().any(|(known, _)| *known == effect) {
            seen.push((effect, arguments.clone()));
        }
        Ok(Value::from(json!({"sent": arguments[1]})))
    }
}

fn banking(code: &str, on_crash: OnCrash) -> (Stage, Arc<Bank>) {
    let bank = Bank::new(on_crash);
    let mut stage = stage(code);
    stage.bindings.push(bank.clone());
    (stage, bank)
}

#[tokio::test]
async fn calls_with_an_effect_outside_run_together_and_each_is_settled_before_it_is_delivered() {
    let (stage, bank) = banking(
        "async () => { const [a, b, c] = await Promise.all([bank.pay('ann', 1), bank.pay('bob', 2), bank.look()]); let caught; try { await bank.pay('nobody', 3) } catch (e) { caught = `${e.name}: ${e.message}` } return [a.sent, b.sent, c, caught]; }",
        OnCrash::Unknown,
    );
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    assert_eq!(
        outcome["result"],
        json!([1, 2, 100, "BankError: there is no such person"]),
        "{outcome}"
    );
    assert_eq!(bank.seen().len(), 2);
    let calls = calls(&stage).await;
    let pay: Vec<_> = calls
        .iter()
        .filter(|call| call.path == "bank.pay")
        .collect();
    assert_eq!(pay.len(), 3);
    assert!(pay.iter().all(|call| call.effect_id.is_some()));
    assert_eq!(
        pay[2].error.as_deref(),
        Some("BankError: there is no such person")
    );
}

pub(crate) async fn parked(process: &Process) -> bowline_agent::approval::Approval {
    let mut follow = process.agents.observers().observe(&instance());
    process.send_keyed("Go", "k").await.unwrap();
    loop {
        if let bowline_agent::ChunkBody::ApprovalRequested { approval } =
            &follow.recv().await.unwrap().body
        {
            return approval.clone();
        }
    }
}

#[tokio::test]
async fn a_run_with_several_calls_that_need_consent_goes_on_at_its_await_weeks_later() {
    let (stage, bank) = banking(
        "async () => { const secret = Math.random(); await tools.write({path: 'a.txt', content: 'before'}); const [a, b] = await Promise.all([bank.send('ann', 1), bank.send('bob', 2).catch((e) => e.message)]); return [typeof secret, a.sent, b, await tools.read({path: 'a.txt'})]; }",
        OnCrash::Unknown,
    );
    let process = stage.process(Death::Never);
    parked(&process).await;
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    let approvals = stage.conversation().await.approvals;
    assert_eq!(approvals.len(), 2);
    let find = |who: &str| {
        let found = approvals.values().find(|one| one.arguments["to"] == who);
        found.unwrap().approval_id.clone()
    };
    assert!(bank.seen().is_empty());
    stage.clock.advance(Duration::from_secs(21 * 24 * 3_600));
    drop(process);
    let later = stage.process(Death::Never);
    let edited = json!({"to": "ann", "amount": 7});
    let yes = json!({"approvalId": find("ann"), "decision": "approve", "arguments": edited});
    let mut follow = later.agents.observers().observe(&instance());
    later.runtime.answer(&instance(), yes).await.unwrap();
    // It parks again, for the other one.
    loop {
        let chunk = follow.recv().await.unwrap();
        if matches!(
            chunk.body,
            bowline_agent::ChunkBody::ApprovalAnswered { .. }
        ) {
            break;
        }
    }
    let no = json!({"approvalId": find("bob"), "decision": "reject", "reason": "no"});
    while let Err(error) = later.runtime.answer(&instance(), no.clone()).await {
        assert_eq!(error.code(), "nothing_to_answer");
        tokio::task::yield_now().await;
    }
    let settled = later.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    let outcome = outcome(&stage).await;
    let refused = "A person rejected this call. It was not made. Reason: no";
    assert_eq!(
        outcome["result"],
        json!(["number", 7, refused, "before"]),
        "{outcome}"
    );
    let seen = bank.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].1, [json!("ann"), json!(7)]);
    let states: Vec<_> = calls(&stage)
        .await
        .into_iter()
        .filter_map(|call| call.approval)
        .collect();
    assert_eq!(states, ["edited", "rejected"]);
}

#[tokio::test]
async fn a_timer_of_a_run_that_was_cut_fires_when_it_was_due() {
    let (stage, bank) = banking(
        "async () => { await bank.pay('ann', 1); await new Promise((done) => setTimeout(done, 200_000)); return 'woke'; }",
        OnCrash::Unknown,
    );
    let cut = stage.process(Death::Never);
    let mut follow = cut.agents.observers().observe(&instance());
    cut.send_keyed("Go", "k").await.unwrap();
    loop {
        if let bowline_agent::ChunkBody::CodeCalls { calls, .. } =
            &follow.recv().await.unwrap().body
            && !calls.is_empty()
        {
            break;
        }
    }
    drop(cut);
    stage.clock.advance(Duration::from_secs(201));
    let later = stage.process(Death::Never);
    let receipt = later.send_keyed("Go", "k").await.unwrap();
    later.runtime.resume().await.unwrap();
    let settled = tokio::time::timeout(Duration::from_secs(100), later.settled(&receipt));
    settled.await.expect("it waits anew").unwrap();
    assert_eq!(outcome(&stage).await["result"], "woke");
    assert_eq!(bank.seen().len(), 1);
}

#[tokio::test]
async fn a_parked_run_goes_on_in_a_version_with_another_engine() {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    // The same engine under another name: a section that says nothing follows the others.
    let mut image = engine().image_bytes().to_vec();
    image.extend([0, 5, 4, b'o', b'l', b'd', b'r']);
    let mut hash = String::new();
    for byte in sha2::Sha256::digest(&image) {
        let _ = write!(hash, "{byte:02x}");
    }
    let (mut stage, bank) = banking(
        "async () => { const lucky = Math.random(); const sent = await bank.send('ann', 1); return [sent.sent, typeof lucky]; }",
        OnCrash::Unknown,
    );
    stage.engine = Some(engine().with_image(&image.into(), &hash).unwrap());
    let older = stage.process(Death::Never);
    parked(&older).await;
    let receipt = older.send_keyed("Go", "k").await.unwrap();
    older.runtime.drain(Duration::from_secs(60)).await;
    drop(older);

    stage.engine = Some(engine());
    let newer = stage.process(Death::Never);
    approve(&stage, &newer).await;
    let settled = newer.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    let outcome = outcome(&stage).await;
    assert_eq!(outcome["result"], json!([1, "number"]), "{outcome}");
    assert_eq!(bank.seen().len(), 1);
}

#[tokio::test]
async fn what_goes_wrong_is_an_outcome_that_the_model_reads() {
    for (code, expected) in [
        (
            "async () => { return foo.bar(); }",
            "ReferenceError: 'foo' is not defined|The globals here are: tools, state, codemode",
        ),
        ("async () => { const x = ; }", "isolate_syntax|code.ts:1:25"),
        (
            "async () => { throw new Error('on purpose'); }",
            "Error: on purpose|code.ts:1:25",
        ),
        ("async () => { for (;;); }", "isolate_cpu"),
        (
            "async () => { await new Promise(() => {}); }",
            "isolate_deadlock",
        ),
        (
            "async () => { await tools.read({}); }",
            "ToolError|TypeError",
        ),
        (
            "async () => {\n  return await tools.raed({ path: 'a' });\n}",
            "tools has no function raed; did you mean tools.read?",
        ),
        (
            "async () => { state.nothingLikeIt(); }",
            "state has no function nothingLikeIt; codemode.search finds",
        ),
    ] {
        let mut stage = stage(code);
        stage.define = |definition| {
            let mut limits = bowline_agent::code::default_limits();
            limits.cpu = Duration::from_millis(50);
            definition.code = Some(limits);
        };
        done(&stage.process(Death::Never)).await;
        let outcome = outcome(&stage).await;
        let told = outcome.to_string();
        assert_eq!(outcome["status"], "error", "{told}");
        assert!(
            expected.split('|').any(|part| told.contains(part)),
            "{told}"
        );
    }
}

#[tokio::test]
async fn calls_that_nobody_awaits_are_told_and_their_effects_are_seen_to_their_end() {
    let (stage, bank) = banking(
        "async () => { bank.pay('ann', 1); tools.write({path: 'a.txt', content: 'x'}); return 1; }",
        OnCrash::Unknown,
    );
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    assert!(
        outcome["warning"]
            .as_str()
            .unwrap()
            .contains("bank.pay, tools.write"),
        "{outcome}"
    );
    assert!(bank.seen().is_empty(), "it was never dispatched");
    assert!(
        stage.file("/workspace/a.txt").await.contains("ENOENT"),
        "nor was this"
    );
    let calls = calls(&stage).await;
    assert!(calls.iter().all(|call| {
        call.error
            .as_deref()
            .is_some_and(|text| text.contains("await every call"))
    }));
}

#[tokio::test]
async fn code_finds_out_what_there_is() {
    let (stage, _) = banking(
        "const found = await codemode.search('pay money'); const method = await codemode.describe('bank.pay'); const all = await codemode.describe('bank'); const none = await codemode.describe('nope'); const step = await codemode.step('x', async () => 5); const missing = await codemode.run('nope', {}); return [found.results[0].path, found.total, method.kind, all.types.includes('send'), none.types, step, typeof missing.error];",
        OnCrash::Unknown,
    );
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    assert_eq!(
        outcome["result"],
        json!([
            "bank.pay",
            1,
            "method",
            true,
            "\"nope\" not found.",
            5,
            "string"
        ]),
        "{outcome}"
    );
}

/// Ten awaited calls, three outside effects, one of them with consent.
const SCRIPT: &str = "async () => {
  const out = [Math.random() < 2, new Date() > 0];
  await tools.write({ path: 'log.txt', content: 'a' });
  out.push((await bank.pay('ann', 1)).sent);
  await tools.write({ path: 'log.txt', content: await tools.read({ path: 'log.txt' }) + 'b' });
  out.push(await bank.look());
  out.push((await bank.send('bob', 2)).sent);
  await tools.write({ path: 'log.txt', content: await tools.read({ path: 'log.txt' }) + 'c' });
  out.push((await bank.pay('eve', 3)).sent);
  out.push(await tools.read({ path: 'log.txt' }));
  return out;
}";

#[tokio::test]
async fn a_process_that_dies_at_any_point_of_a_run_neither_loses_nor_doubles_anything() {
    for on_crash in [OnCrash::Retry] {
        for death in (1..=16).flat_map(|n| [Death::Before(n), Death::After(n)]) {
            let (stage, bank) = banking(SCRIPT, on_crash);
            let dying = stage.process(death);
            let receipt = dying.send_keyed("Go", "k").await;
            if receipt.is_ok() {
                approve(&stage, &dying).await;
            }
            drop(dying);
            let last = stage.process(Death::Never);
            let receipt = last.send_keyed("Go", "k").await.unwrap();
            last.runtime.resume().await.unwrap();
            approve(&stage, &last).await;
            let settled = last.settled(&receipt).await.unwrap();
            assert_eq!(
                settled.outcome,
                Outcome::Completed,
                "{death:?} {:?}",
                settled.error
            );
            let outcome = outcome(&stage).await;
            assert_eq!(
                outcome["result"],
                json!([true, true, 1, 100, 2, 3, "abc"]),
                "{death:?} {outcome}"
            );
            let seen = bank.seen();
            let people: Vec<_> = seen
                .iter()
                .map(|(_, arguments)| arguments[0].clone())
                .collect();
            assert_eq!(people, ["ann", "bob", "eve"], "{death:?}");
        }
    }
}

/// Approves what is asked until the submission has settled or the process has died.
async fn approve(stage: &Stage, process: &Process) {
    let receipt = process.send_keyed("Go", "k").await;
    let Ok(receipt) = receipt else { return };
    let mut follow = process.agents.observers().observe(&instance());
    let settled = process.settled(&receipt);
    tokio::pin!(settled);
    loop {
        let open = stage.conversation().await.approvals.into_values();
        for approval in open.filter(|one| one.answer.is_none()) {
            // Three weeks after it was asked for; an answer that got lost comes a day later.
            let weeks = approval
                .requested_at
                .after(Duration::from_secs(21 * 24 * 3_600));
            let left = weeks.since(stage.clock.now());
            stage
                .clock
                .advance(left.max(Duration::from_secs(24 * 3_600)));
            let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
            let _ = process.runtime.answer(&instance(), yes).await;
        }
        tokio::select! {
            _ = &mut settled => return,
            _ = follow.recv() => {}
        }
    }
}

#[tokio::test]
async fn a_snippet_as_a_model_writes_it_collects_what_it_looks_for() {
    let stage = stage(
        r#"```ts
async () => {
  await state.writeFile("src/a.ts", "// TODO: one\nconst a = 1; // TODO: two\n");
  await state.writeFile("src/deep/b.ts", "let b; // nothing\n// TODO: three");
  const files = await state.glob("src/**/*.ts");
  const todos: { file: string; text: string }[] = [];
  for (const file of files) {
    const content = await state.readFile(file);
    for (const match of content.matchAll(/\/\/ TODO: (.*)/g)) todos.push({ file, text: match[1] });
  }
  return todos;
}
```"#,
    );
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    let found = outcome["result"]
        .as_array()
        .unwrap_or_else(|| panic!("{outcome}"));
    let texts: Vec<_> = found
        .iter()
        .map(|one| one["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert!(
        found[2]["file"]
            .as_str()
            .unwrap()
            .ends_with("src/deep/b.ts")
    );
}

/// A thousand agents, each with a message and two runs of code, in a process of their own, because the
/// memory of a process is measured. It finds the engine compiled, as every process but the first does.
#[test]
fn a_thousand_agents_run_code_at_once_within_their_memory_and_fairly() {
    const ALONE: &str = "BOWLINE_TEST_THOUSAND_AGENTS";
    let Some(cache) = std::env::var_os(ALONE) else {
        let name = "code::a_thousand_agents_run_code_at_once_within_their_memory_and_fairly";
        let cache = bowline_testkit::canary::Folder::new().unwrap();
        open_cached(cache.path());
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, cache.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        println!("{said}compiling the engine: {} KiB at most", peak_kib());
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let code = "async () => { let n = 0; for (let i = 0; i < 1000; i++) n += i; await tools.write({ path: 'a.txt', content: String(n) }); return n; }";
        let run = json!({"tools": [{"name": "code", "input": {"code": code}}]});
        let mut stage = stage(code);
        stage.engine = Some(open_cached(std::path::Path::new(&cache)));
        stage.script(&json!({"turns": [run, run, {"text": "Done."}]}).to_string());
        let process = Arc::new(stage.process(Death::Never));
        let before = peak_kib();
        let began = tokio::time::Instant::now();
        let agents = (0..1_000).map(|n| {
            let process = process.clone();
            tokio::spawn(async move {
                let actor = bowline_agent::actor("worker", &format!("agent-{n}"));
                let message = bowline_agent::Outgoing::user("Go").into_submission();
                let receipt = process.runtime.submit(&actor, message).await.unwrap();
                let id = &receipt.submission_id;
                let settled = process.runtime.settled(&actor, id).await.unwrap();
                assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
                began.elapsed()
            })
        });
        let mut took = Vec::new();
        for agent in agents.collect::<Vec<_>>() {
            took.push(agent.await.unwrap());
        }
        took.sort();
        let peak = peak_kib();
        let (median, last) = (took[500], took[999]);
        eprintln!("{before} KiB before, {peak} KiB at most; median {median:?}, last {last:?}");
        assert!(peak < 512 << 10, "{peak} KiB");
        // All began together: who waits longest waits at most three times as long as most do.
        assert!(last <= median * 3, "median {median:?}, last {last:?}");
    });
}

/// An engine that is compiled into, or found in, a folder.
fn open_cached(folder: &std::path::Path) -> Isolates {
    let options = IsolatesOptions {
        cache: Some(folder.join("isolate")),
        ..IsolatesOptions::default()
    };
    Isolates::open(&options).unwrap()
}

/// The most memory that this process had at once.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB"));
    peak.map_or(0, |text| text.trim().parse().unwrap())
}
