//! A process that serves everything at once, killed at random moments: turns with outside effects and
//! approvals, a schedule, a fiber. It is this test binary, run again with a task in its environment.
//!
//! What is outside counts by itself: the provider's server keeps the log of its requests, and a
//! counter hears of each effect, by its effect id. What they and the store say must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use async_trait::async_trait;
use bowline_agent::{
    Agent, Agents, KIND, Outgoing, Render, actor, approval,
    definition::Approval,
    load,
    record::Fact,
    tool::{Effect, OnCrash, Tool, ToolContext, ToolError, ToolOutput},
};
use bowline_model::{Api, ModelSettings, Models, NamedModel, Secret, ToolSpec};
use bowline_runtime::{
    Outcome, Program, Random as _, Runtime, RuntimeOptions, Sources,
    alarm::{NewSchedule, When},
    fiber::{Fiber, Handler, Handlers, NewFiber, Recovered, Stop},
    submission,
};
use bowline_store::{SqliteOptions, SqliteStore, Store};
use bowline_testkit::{
    provider::{Answer, FakeProvider, RecordedRequest, Reply, Wire},
    seeded::SeededRandom,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// Where a child finds its task: the data directory, the provider, the counter.
const TASK: &str = "BOWLINE_KILL_CHILD";
/// Conversations that run at once.
const CONVERSATIONS: [&str; 3] = ["a", "b", "c"];
/// The conversation that a schedule speaks to.
const TIMED: &str = "timed";
/// Steps of the fiber.
const STEPS: u64 = 5;
/// Longest life of a child that is not killed; a hang is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tells the counter of an effect, and waits until it has heard.
async fn tell(counter: &str, line: &Value) -> Result<(), ToolError> {
    let failed = |error: std::io::Error| ToolError::new(error.to_string());
    let mut stream = tokio::net::TcpStream::connect(counter)
        .await
        .map_err(failed)?;
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .map_err(failed)?;
    let mut heard = String::new();
    tokio::io::BufReader::new(stream)
        .read_line(&mut heard)
        .await
        .map_err(failed)?;
    Ok(())
}

struct Counted {
    spec: ToolSpec,
    effect: Effect,
    counter: String,
}

#[async_trait]
impl Tool for Counted {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    async fn call(&self, context: &ToolContext, input: Value) -> Result<ToolOutput, ToolError> {
        let line = json!({
            "tool": self.spec.name, "effect": context.effect_id, "call": context.call_id, "for": input["for"],
        });
        tell(&self.counter, &line).await?;
        Ok(ToolOutput::text("counted"))
    }
}

/// Counts its steps outside, and stashes how far it came after each.
#[derive(Debug)]
struct Steps(String);

#[async_trait]
impl Handler for Steps {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        for step in fiber.stash_as().unwrap_or(0)..STEPS {
            let line = json!({"tool": "fiber", "effect": format!("step {step}")});
            let told = tell(&self.0, &line).await;
            told.map_err(|error| bowline_runtime::Failure::new("counter", error.to_string(), ""))?;
            fiber.set_stash(&(step + 1)).await?;
        }
        Ok(json!(STEPS))
    }

    async fn on_recovered(&self, fiber: &mut Fiber<'_>, _: Recovered) -> Result<Value, Stop> {
        self.run(fiber).await
    }
}

fn agents(provider: &str, counter: &str) -> Agents {
    let counter = counter.to_owned();
    let agent = Agent::new("worker", move |cx: &mut Render| {
        cx.model("fake");
        cx.definition()
            .approvals
            .insert("pay".to_owned(), Approval::Required);
        for (name, on_crash) in [("count", OnCrash::Retry), ("pay", OnCrash::Unknown)] {
            let parameters = json!({"type": "object", "properties": {"for": {"type": "string"}}});
            cx.tool(Counted {
                spec: ToolSpec {
                    name: name.to_owned(),
                    description: "Counts.".to_owned(),
                    parameters,
                },
                effect: Effect::Outside(on_crash),
                counter: counter.clone(),
            });
        }
        "Work."
    });
    let mut settings = ModelSettings::new(|_| Some(Secret::new(bowline_testkit::canary::KEY)), ".");
    let named = NamedModel {
        base_url: Some(provider.to_owned()),
        key_env: Some("FAKE_KEY".to_owned()),
        model: Some("fake-1".to_owned()),
        ..NamedModel::new(Api::Anthropic)
    };
    settings.named.insert("fake".to_owned(), named);
    Agents::new([agent.unwrap()], Models::new(settings), Sources::system())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {line}").unwrap();
    out.flush().unwrap();
}

/// Approves whatever waits in a conversation, whenever something changes.
async fn approve(runtime: Runtime, id: &'static str) {
    let actor = actor("worker", id);
    let mut tail = runtime.store().tail(&actor);
    let mut seen = 0;
    while let Some(seq) = tail.beyond(seen).await {
        seen = seq;
        for one in approval::of(&**runtime.store(), &actor).await.unwrap() {
            if one.answer.is_none() {
                let yes = json!({"approvalId": one.approval_id, "decision": "approve"});
                // It may have been taken in by the process before, or not be parked yet.
                let _ = runtime.answer(&actor, yes).await;
            }
        }
    }
}

async fn serve(dir: &Path, provider: &str, counter: &str) {
    let store = SqliteStore::open(dir, SqliteOptions::default()).unwrap();
    let handlers = Handlers::new([(
        "steps".to_owned(),
        Arc::new(Steps(counter.to_owned())) as Arc<dyn Handler>,
    )]);
    let agents: Arc<dyn Program> = Arc::new(agents(provider, counter));
    let programs = [(KIND.to_owned(), agents), handlers.program()];
    let options = RuntimeOptions::default();
    let runtime = Runtime::new(store.clone(), Sources::system(), options, programs);
    let stop = CancellationToken::new();
    let supervisor = {
        let (runtime, stop) = (runtime.clone(), stop.clone());
        tokio::spawn(async move { runtime.supervise(stop).await })
    };
    let fibers = handlers.on(&runtime);
    let timed = actor("worker", TIMED);
    // A schedule that has fired is gone: it is registered by the first process only.
    if runtime.store().head(&timed).await.unwrap().is_none() {
        let payload = Outgoing::user("Go: timed").into_submission().payload;
        let schedule = NewSchedule::new(When::After { millis: 80 }, payload).named("tick");
        runtime.schedule(&timed, schedule).await.unwrap();
        say("scheduled");
    }
    let mut sent = Vec::new();
    for id in CONVERSATIONS {
        let message = Outgoing::user(format!("Go: {id}"))
            .key("k")
            .into_submission();
        let receipt = runtime.submit(&actor("worker", id), message).await.unwrap();
        say(&format!("accepted {id} {}", receipt.submission_id));
        sent.push((id, receipt.submission_id));
    }
    for id in CONVERSATIONS.into_iter().chain([TIMED]) {
        tokio::spawn(approve(runtime.clone(), id));
    }
    let fiber = fibers.run(
        "steps",
        NewFiber {
            key: Some("k".to_owned()),
            ..NewFiber::default()
        },
    );
    assert_eq!(fiber.await.unwrap(), json!(STEPS));
    for (id, submission) in sent {
        runtime
            .settled(&actor("worker", id), &submission)
            .await
            .unwrap();
    }
    let mut tail = runtime.store().tail(&timed);
    let mut seen = 0;
    while load(&**runtime.store(), &timed)
        .await
        .unwrap()
        .settlements
        .is_empty()
    {
        seen = tail.beyond(seen).await.unwrap();
    }
    say("done");
    stop.cancel();
    supervisor.await.unwrap();
    assert!(runtime.drain(Duration::from_secs(10)).await);
    store.close().await;
}

/// Does nothing unless this process is a child.
#[test]
fn task() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let parts: Vec<&str> = task.split('|').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(Path::new(parts[0]), parts[1], parts[2]));
}

/// What the model says in each call: by what was said since the last message of a person.
fn reply(request: &RecordedRequest) -> Reply {
    let messages = request.body["messages"].as_array().unwrap();
    let text = |message: &Value| {
        let content = &message["content"];
        let of_blocks = content.as_array().and_then(|blocks| {
            blocks
                .iter()
                .find_map(|block| block["text"].as_str().map(str::to_owned))
        });
        content
            .as_str()
            .map(str::to_owned)
            .or(of_blocks)
            .unwrap_or_default()
    };
    let is_go = |message: &Value| message["role"] == "user" && text(message).starts_with("Go: ");
    let asked = messages.iter().rposition(is_go).unwrap();
    let said = messages[asked..]
        .iter()
        .filter(|message| message["role"] == "assistant")
        .count();
    let input = json!({"for": text(&messages[asked])}).to_string();
    match said {
        0 => Answer::new()
            .text("On it.")
            .tool("call_count", "count", &input)
            .tool(
                "call_bash",
                "bash",
                r#"{"command":"echo one >> log.txt; wc -l < log.txt"}"#,
            )
            .into(),
        1 => Answer::new()
            .text("May I?")
            .tool("call_pay", "pay", &input)
            .into(),
        _ => Answer::new().text("Done.").into(),
    }
}

/// What the counter heard, in order.
type Heard = Arc<Mutex<Vec<Value>>>;

async fn counter() -> (String, Heard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Heard::default();
    let seen = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut stream = tokio::io::BufReader::new(stream);
                let mut line = String::new();
                if stream
                    .read_line(&mut line)
                    .await
                    .is_ok_and(|bytes| bytes > 0)
                {
                    seen.lock()
                        .unwrap()
                        .push(serde_json::from_str(&line).unwrap());
                    // Who was killed does not hear that it was counted.
                    let _ = stream.write_all(b"counted\n").await;
                }
            });
        }
    });
    (address, heard)
}

/// A child, and what it says.
struct Life {
    process: Child,
    lines: mpsc::Receiver<String>,
}

fn start(task: &str) -> Life {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::service::task",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(TASK, task)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // What the test harness prints around it does not count.
            if let Some(at) = line.find("> ") {
                let _ = sender.send(line[at + 2..].to_owned());
            }
        }
    });
    Life { process, lines }
}

impl Life {
    /// Waits until it is done; what it said.
    fn finish(mut self) -> (bool, Vec<String>) {
        let mut said = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            said.push(line);
        }
        let _ = self.process.kill();
        let status = self.process.wait().unwrap();
        (status.success(), said)
    }

    fn kill(mut self) -> (bool, Vec<String>) {
        self.process.kill().unwrap();
        let killed = self.process.wait().unwrap().code().is_none();
        (killed, self.lines.iter().collect())
    }
}

/// The whole life of one data directory.
struct Run {
    dir: bowline_testkit::canary::Folder,
    provider: FakeProvider,
    heard: Heard,
    task: String,
    accepted: BTreeSet<(String, String)>,
    kills: usize,
}

impl Run {
    async fn new() -> Self {
        let dir = bowline_testkit::canary::Folder::new().unwrap();
        let provider = FakeProvider::start().await.unwrap();
        provider.answer_with(reply);
        let (counter, heard) = counter().await;
        let data: PathBuf = dir.path().join("data");
        let task = format!(
            "{}|{}|{counter}",
            data.display(),
            provider.base_url(Wire::Anthropic)
        );
        Self {
            dir,
            provider,
            heard,
            task,
            accepted: BTreeSet::new(),
            kills: 0,
        }
    }

    fn note(&mut self, said: &[String]) {
        for line in said {
            let words: Vec<_> = line.split(' ').collect();
            if let ["accepted", id, submission] = words[..] {
                self.accepted.insert((id.to_owned(), submission.to_owned()));
            }
        }
    }

    async fn live(&mut self, kill_after: Option<Duration>) {
        let life = start(&self.task);
        let said = match kill_after {
            Some(after) => {
                // The moment of a kill is the one thing here that only a clock can decide.
                tokio::time::sleep(after).await;
                let (killed, said) = tokio::task::spawn_blocking(|| life.kill()).await.unwrap();
                self.kills += usize::from(killed);
                said
            }
            None => {
                let (fine, said) = tokio::task::spawn_blocking(|| life.finish()).await.unwrap();
                assert!(fine && said.iter().any(|line| line == "done"), "{said:?}");
                said
            }
        };
        self.note(&said);
    }

    /// Nothing accepted is lost, nothing is doubled, in the store and outside.
    async fn check(&self, replay: &str) {
        let options = SqliteOptions {
            read_only: true,
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(&self.dir.path().join("data"), options).unwrap();
        store.verify().await.unwrap();
        for (id, submission) in &self.accepted {
            let settled = submission::settled(&*store, &actor("worker", id), submission).await;
            let outcome = settled.unwrap().map(|end| end.outcome);
            assert_eq!(
                outcome,
                Some(Outcome::Completed),
                "{replay}: {id} {submission}"
            );
        }
        let mut intended: BTreeMap<String, String> = BTreeMap::new();
        for id in CONVERSATIONS.into_iter().chain([TIMED]) {
            let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
            let actor = actor("worker", id);
            for stored in store.read(&actor, 0, usize::MAX).await.unwrap() {
                if stored.record.kind == bowline_runtime::kind::EFFECT_INTENDED {
                    let body: Value = serde_json::from_slice(&stored.record.body).unwrap();
                    let effect = body["effectId"].as_str().unwrap().to_owned();
                    intended.insert(effect, format!("{id} {}", body["name"].as_str().unwrap()));
                } else if let Fact::ToolOutcome(outcome) = Fact::of(&stored).unwrap() {
                    *outcomes.entry(outcome.tool_call_id).or_default() += 1;
                }
            }
            let calls: Vec<_> = outcomes
                .iter()
                .map(|(call, count)| (call.as_str(), *count))
                .collect();
            let once = [("call_bash", 1), ("call_count", 1), ("call_pay", 1)];
            assert_eq!(calls, once, "{replay}: {id}: each call has one result");
            let conversation = load(&*store, &actor).await.unwrap();
            assert_eq!(conversation.settlements.len(), 1, "{replay}: {id}");
            assert!(conversation.open.is_none(), "{replay}: {id}");
        }
        // One intent for each call with an outside effect, whatever was killed.
        let names: Vec<_> = intended
            .values()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!((intended.len(), names.len()), (8, 8), "{replay}: {names:?}");
        store.close().await;
        self.check_outside(&intended, replay);
    }

    fn check_outside(&self, intended: &BTreeMap<String, String>, replay: &str) {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in self.heard.lock().unwrap().iter() {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            *counts.entry((text("tool"), text("effect"))).or_default() += 1;
        }
        for ((tool, effect), count) in &counts {
            match tool.as_str() {
                // Its policy allows a second try, under the same id.
                "count" => assert!(*count <= 1 + self.kills, "{replay}: {effect} {count} times"),
                "pay" => assert_eq!(*count, 1, "{replay}: {effect} was done twice"),
                // The step whose stash was not durable is done again.
                _ => assert!(*count <= 1 + self.kills, "{replay}: {effect} {count} times"),
            }
            if tool != "fiber" {
                assert!(
                    intended.contains_key(effect),
                    "{replay}: {effect} was never intended"
                );
            }
        }
        let of = |tool: &str| counts.keys().filter(|(name, _)| name == tool).count();
        assert_eq!((of("count"), of("fiber")), (4, 5), "{replay}: {counts:?}");
        let again: usize = counts
            .iter()
            .filter(|((tool, _), _)| tool == "fiber")
            .map(|(_, count)| count - 1)
            .sum();
        assert!(
            again <= self.kills,
            "{replay}: {again} steps again, {} kills",
            self.kills
        );
        // Each kill wastes at most the one call that each conversation was waiting for.
        let calls = self.provider.requests().len();
        let most = 4 * 3 + 4 * self.kills;
        assert!(
            (12..=most).contains(&calls),
            "{replay}: {calls} model calls, {} kills",
            self.kills
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_and_doubles_nothing_of_what_it_serves() {
    let mut whole = Run::new().await;
    let began = std::time::Instant::now();
    whole.live(None).await;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap();
    whole.check("without a kill").await;
    assert_eq!(whole.heard.lock().unwrap().len(), 8 + 5);
    assert_eq!(whole.provider.requests().len(), 12);
    let mut kills = 0;
    for seed in super::seeds(12) {
        let random = SeededRandom::new(seed);
        let mut run = Run::new().await;
        for _ in 0..=random.next() % super::MOST_KILLS {
            run.live(Some(Duration::from_micros(random.next() % took)))
                .await;
        }
        run.live(None).await;
        kills += run.kills;
        run.check(&super::replay(seed)).await;
    }
    println!("{kills} kills");
}
