//! What model calls cost: limits that hold, counts that survive, answers that are not paid twice.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{Agent, Bowline, Outgoing, Render, Service};
use bowline_agent::spend;
use bowline_model::gateway::{Policy, Scope, SpendLimit, Window};
use bowline_model::{Api, ModelSettings, NamedModel, Price, Secret};
use bowline_runtime::{Outcome, Random as _};
use bowline_store::{SqliteOptions, SqliteStore, Store};
use bowline_testkit::canary::{self, Folder};
use bowline_testkit::provider::{Answer, ErrorClass, FakeProvider, FakeUsage, Gate, Reply, Wire};
use bowline_testkit::seeded::SeededRandom;

use crate::world::World;

/// Three dollars for a million tokens of input, fifteen for output.
const PRICE: Price = Price {
    input: 3_000_000,
    output: 15_000_000,
    cache_read: None,
    cache_write: None,
};
/// The output limit of a call, and so the most that one costs, but for its input.
const MAX_OUTPUT: u64 = 1_000;

fn settings(server: &FakeProvider, spend: Vec<SpendLimit>) -> ModelSettings {
    let mut settings = ModelSettings::new(|_| Some(Secret::new(canary::KEY)), ".");
    let entry = NamedModel {
        base_url: Some(server.base_url(Wire::Anthropic)),
        key_env: Some("FAKE_KEY".to_owned()),
        model: Some("fake-1".to_owned()),
        max_output: Some(MAX_OUTPUT),
        price: Some(PRICE),
        ..NamedModel::new(Api::Anthropic)
    };
    settings.named.insert("fake".to_owned(), entry.clone());
    let unpriced = NamedModel {
        price: None,
        ..entry
    };
    settings.named.insert("unpriced".to_owned(), unpriced);
    settings.gateway = Policy {
        spend,
        ..Policy::default()
    };
    settings
}

fn project(micro_usd: u64) -> Vec<SpendLimit> {
    vec![SpendLimit {
        per: Scope::Project,
        agent: None,
        micro_usd,
        window: Window::Month,
    }]
}

fn service(
    store: Arc<dyn Store>,
    models: ModelSettings,
    chain: &'static [&'static str],
) -> Service {
    let agent = Agent::new("worker", move |cx: &mut Render| {
        cx.model(chain[0]);
        cx.definition().fallback = chain[1..].iter().map(|name| (*name).to_owned()).collect();
        "Work."
    });
    Bowline::on(store)
        .agent(agent.unwrap())
        .models(models)
        .start()
}

fn sqlite(dir: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(dir, SqliteOptions::default()).unwrap()
}

/// What the rows say: cost, waste, calls, reserved.
async fn counted(store: &dyn Store) -> (u64, u64, u64, u64) {
    let (lines, open) = spend::lines(store, None).await.unwrap();
    let sum = |of: fn(&spend::Totals) -> u64| lines.iter().map(|line| of(&line.totals)).sum();
    (
        sum(|totals| totals.cost_micro_usd),
        sum(|totals| totals.wasted_micro_usd),
        sum(|totals| totals.calls),
        open.iter().map(|open| open.micro_usd).sum(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_conversations_pass_a_limit_by_less_than_one_call_and_the_count_survives() {
    let limit = 300_000;
    let server = FakeProvider::start().await.unwrap();
    let (paid, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let random = Mutex::new(SeededRandom::new(7));
    let (paid_too, most_too) = (paid.clone(), most.clone());
    server.answer_with(move |_request| {
        let number = random.lock().unwrap().next();
        let usage = FakeUsage {
            input: number % 50,
            output: number % MAX_OUTPUT,
            ..FakeUsage::default()
        };
        let cost = usage.input * 3 + usage.output * 15;
        paid_too.fetch_add(cost, SeqCst);
        most_too.fetch_max(cost, SeqCst);
        Answer::new().text("Done.").usage(usage).into()
    });
    let dir = Folder::new().unwrap();
    let store = sqlite(dir.path());
    let running = service(store.clone(), settings(&server, project(limit)), &["fake"]);
    let ask = |id: usize| {
        let running = running.clone();
        async move {
            let id = id.to_string();
            loop {
                let reply = running.ask("worker", &id, Outgoing::user("Go."));
                let reply = reply.await.unwrap();
                match reply.outcome {
                    Outcome::Completed => {}
                    Outcome::Failed => return reply.error.unwrap(),
                    Outcome::Aborted => panic!("nobody aborted"),
                }
            }
        }
    };
    let ends = futures::future::join_all((0..64).map(ask)).await;
    for error in ends {
        assert_eq!(error.code, "model_spend_limit", "{error:?}");
        assert!(
            error.message.contains("$0.30 a month for the project"),
            "{error:?}"
        );
    }
    let paid = paid.load(SeqCst);
    assert!(paid >= limit, "all of it could be spent: {paid}");
    // A call can cost at most its output limit and what its input was estimated to.
    assert!(paid < limit + MAX_OUTPUT * 15 + 2_000, "{paid}");
    let calls = u64::try_from(server.requests().len()).unwrap();
    assert_eq!(counted(&*store).await, (paid, 0, calls, 0));
    running.stop(Duration::from_secs(10)).await;
    drop((running, store));

    // What was spent is known to the next process.
    let store = sqlite(dir.path());
    let running = service(store.clone(), settings(&server, project(limit)), &["fake"]);
    let reply = running
        .ask("worker", "new", Outgoing::user("Go."))
        .await
        .unwrap();
    assert_eq!(reply.error.unwrap().code, "model_spend_limit");
    assert_eq!(counted(&*store).await.0, paid);
    running.stop(Duration::from_secs(10)).await;
}

#[test]
fn calls_that_a_crash_cut_off_are_reserved_and_then_counted_as_waste() {
    let outer = tokio::runtime::Runtime::new().unwrap();
    let server = outer.block_on(FakeProvider::start()).unwrap();
    let gate = Gate::new();
    for _ in 0..8 {
        server.push(Answer::new().text("some text").stall_after_events(5, &gate));
    }
    let dir = Folder::new().unwrap();
    let inner = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (path, models) = (
        dir.path().to_owned(),
        settings(&server, project(10_000_000)),
    );
    inner.spawn(async move {
        let running = service(sqlite(&path), models, &["fake"]);
        let ask = |id: usize| {
            let running = running.clone();
            async move {
                let id = id.to_string();
                running
                    .ask("worker", &id, Outgoing::user("Go."))
                    .await
                    .map(drop)
            }
        };
        futures::future::join_all((0..8).map(ask)).await
    });
    outer.block_on(server.received(8));
    // All of it is gone at once, as in a crash.
    inner.shutdown_timeout(Duration::from_secs(10));

    outer.block_on(async {
        let store = sqlite(dir.path());
        let (cost, waste, calls, reserved) = counted(&*store).await;
        assert_eq!((cost, waste, calls), (0, 0, 0));
        assert!(reserved >= 8 * MAX_OUTPUT * 15, "{reserved}");
        server.answer_with(|_| {
            let usage = FakeUsage {
                input: 10,
                output: 100,
                ..FakeUsage::default()
            };
            Answer::new().text("Done.").usage(usage).into()
        });
        let models = settings(&server, project(10_000_000));
        let running = service(store.clone(), models, &["fake"]);
        assert_eq!(running.resume().await.unwrap(), 8);
        for id in 0..8 {
            let id = id.to_string();
            let conversation = running.conversation("worker", &id).await.unwrap();
            let submission = conversation.entries[0].submission.clone().unwrap();
            let reply = running.reply("worker", &id, &submission).await.unwrap();
            assert_eq!(reply.outcome, Outcome::Completed);
        }
        let (cost, waste, calls, reserved) = counted(&*store).await;
        assert_eq!((calls, reserved), (8, 0));
        assert!(waste > 0);
        assert_eq!(cost - waste, 8 * (10 * 3 + 100 * 15));
        running.stop(Duration::from_secs(10)).await;
    });
}

#[tokio::test]
async fn another_model_stands_in_and_the_first_one_rests() {
    let server = FakeProvider::start().await.unwrap();
    let spare = FakeProvider::start().await.unwrap();
    let mut models = settings(&server, Vec::new());
    let entry = NamedModel {
        base_url: Some(spare.base_url(Wire::Chat)),
        model: Some("spare-1".to_owned()),
        ..NamedModel::new(Api::OpenaiChat)
    };
    models.named.insert("spare".to_owned(), entry);
    let dir = Folder::new().unwrap();
    let running = service(sqlite(dir.path()), models, &["fake", "spare"]);
    server.push(Reply::error(ErrorClass::Quota));
    spare.push(Answer::new().text("From the spare."));
    let reply = running
        .ask("worker", "1", Outgoing::user("Go."))
        .await
        .unwrap();
    assert_eq!(
        (reply.outcome, &*reply.text),
        (Outcome::Completed, "From the spare.")
    );
    // It failed just now: it is not asked again at once.
    spare.push(Answer::new().text("Again."));
    let reply = running
        .ask("worker", "2", Outgoing::user("Go."))
        .await
        .unwrap();
    assert_eq!(reply.text, "Again.");
    assert_eq!((server.requests().len(), spare.requests().len()), (1, 2));
    // The last one of the chain says why it failed.
    spare.push(Reply::error(ErrorClass::Auth));
    let reply = running
        .ask("worker", "3", Outgoing::user("Go."))
        .await
        .unwrap();
    assert_eq!(reply.error.unwrap().code, "model_auth");
    running.stop(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_model_without_a_price_is_not_asked_where_a_limit_applies() {
    let server = FakeProvider::start().await.unwrap();
    let dir = Folder::new().unwrap();
    let models = settings(&server, project(1_000_000));
    let running = service(sqlite(dir.path()), models, &["unpriced"]);
    let reply = running
        .ask("worker", "1", Outgoing::user("Go."))
        .await
        .unwrap();
    assert_eq!(reply.error.unwrap().code, "model_unpriced");
    assert!(server.requests().is_empty());
    running.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_made_in_the_background_is_read_again_after_a_kill_and_paid_once() {
    let server = FakeProvider::start().await.unwrap();
    let world = World::empty();
    world.write("agents/worker/agent.md", "---\nmodel: fake\n---\nWork.\n");
    world.write(
        "bowline.toml",
        &format!(
            "[models.fake]\napi = \"openai-responses\"\nbase_url = \"{}\"\nmodel = \"fake-1\"\n\
             background = true\nprice = {{input = 3, output = 15}}\n",
            server.base_url(Wire::Responses)
        ),
    );
    let line = [
        "run", "worker", "--id", "1", "--key", "k", "-m", "Go.", "--json",
    ];
    let usage = FakeUsage {
        input: 1_000,
        output: 200,
        ..FakeUsage::default()
    };
    let whole = || Answer::new().text("An answer in many pieces.").usage(usage);
    server.push(whole().stall_after_events(6, &Gate::new()));
    let mut child = world
        .command(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Some of the answer has arrived.
    let seen = lines
        .map_while(Result::ok)
        .any(|line| line.contains("message-delta"));
    assert!(seen);
    child.kill().unwrap();
    child.wait().unwrap();

    server.push(whole());
    let output = world.command(&line).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["text"], "An answer in many pieces.");
    let mut methods: BTreeMap<String, usize> = BTreeMap::new();
    for request in server.requests() {
        *methods.entry(request.method).or_default() += 1;
    }
    let once = BTreeMap::from([("GET".to_owned(), 1), ("POST".to_owned(), 1)]);
    assert_eq!(
        methods, once,
        "the answer was asked for once, and read again"
    );
    let sent = &server.requests()[0].body;
    assert_eq!(
        (&sent["background"], &sent["store"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        server.requests()[1].path,
        "/v1/responses/resp_fake?stream=true"
    );

    let output = world
        .command(&["spend", "--by", "model", "--json"])
        .output()
        .unwrap();
    let spent: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(spent["total"]["costUsd"], "0.006");
    assert_eq!(spent["total"]["calls"], 1);
    assert_eq!(spent["total"]["cut"], 0);
    assert_eq!(spent["rows"][0]["name"], "fake/fake-1");
    assert_eq!(spent["reservedUsd"], "0.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_made_in_the_background_is_cancelled_at_the_provider_when_it_is_aborted() {
    let server = FakeProvider::start().await.unwrap();
    let dir = Folder::new().unwrap();
    let mut models = settings(&server, Vec::new());
    let entry = NamedModel {
        base_url: Some(server.base_url(Wire::Responses)),
        model: Some("fake-1".to_owned()),
        background: true,
        ..NamedModel::new(Api::OpenaiResponses)
    };
    models.named.insert("fake".to_owned(), entry);
    let running = service(sqlite(dir.path()), models, &["fake"]);
    let mut chunks = running.observe("worker", "1");
    let gate = Gate::new();
    let answer = Answer::new().text("An answer in many pieces.");
    server.push(answer.stall_after_events(6, &gate));
    let receipt = running.send("worker", "1", Outgoing::user("Go."));
    let receipt = receipt.await.unwrap();
    while !format!("{:?}", chunks.recv().await.unwrap()).contains("MessageDelta") {}
    server.push(Reply::raw(200, "application/json", "{}"));
    running.abort("worker", "1", None).await.unwrap();
    let reply = running.reply("worker", "1", &receipt.submission_id).await;
    assert_eq!(reply.unwrap().outcome, Outcome::Aborted);
    let told = server.requests().pop().unwrap();
    assert_eq!(
        (&*told.method, &*told.path),
        ("POST", "/v1/responses/resp_fake/cancel")
    );
    gate.open();
    running.stop(Duration::from_secs(10)).await;
}

/// What `bowline spend --json` says in all: cost, waste and reservations in micro-dollars, calls, and
/// how many of these were cut.
fn told(world: &World) -> (u64, u64, u64, u64, u64) {
    let output = world.command(&["spend", "--json"]).output().unwrap();
    let spent: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let micro = |amount: &serde_json::Value| {
        let usd: f64 = amount.as_str().unwrap().parse().unwrap();
        (usd * 1e6).round() as u64
    };
    let total = &spent["total"];
    (
        micro(&total["costUsd"]),
        micro(&total["wastedUsd"]),
        micro(&spent["reservedUsd"]),
        total["calls"].as_u64().unwrap(),
        total["cut"].as_u64().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_and_its_count_is_right_though_processes_are_killed_in_their_calls() {
    let limit = 200_000;
    let server = FakeProvider::start().await.unwrap();
    let world = World::empty();
    world.write("agents/worker/agent.md", "---\nmodel: fake\n---\nWork.\n");
    world.write(
        "bowline.toml",
        &format!(
            "[models.fake]\napi = \"anthropic\"\nbase_url = \"{}\"\nmodel = \"fake-1\"\n\
             max_output = {MAX_OUTPUT}\nprice = {{input = 3, output = 15}}\n\
             [gateway]\nspend = [{{usd = \"0.20\", window = \"month\"}}]\n",
            server.base_url(Wire::Anthropic)
        ),
    );
    let random = SeededRandom::new(11);
    let (mut paid, mut answered, mut kills) = (0, 0, 0);
    let limited = loop {
        let id = format!("{answered}");
        let line = [
            "run", "worker", "--id", &id, "--key", "k", "-m", "Go.", "--json",
        ];
        let usage = FakeUsage {
            input: random.next() % 50,
            output: 500 + random.next() % (MAX_OUTPUT - 500),
            ..FakeUsage::default()
        };
        let cost = usage.input * 3 + usage.output * 15;
        let whole = Answer::new().text("An answer in many pieces.").usage(usage);
        if answered < 6 && answered % 2 == 1 {
            let (before, wasted, reserved, calls, cut) = told(&world);
            assert_eq!((before - wasted, reserved), (paid, 0));
            server.push(whole.clone().stall_after_events(6, &Gate::new()));
            let mut child = world.command(&line).stderr(Stdio::null()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let seen = lines
                .map_while(Result::ok)
                .any(|line| line.contains("message-delta"));
            assert!(seen);
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            // What it may have cost is held back, and not yet counted.
            let after = told(&world);
            assert_eq!(
                (after.0, after.1, after.3, after.4),
                (before, wasted, calls, cut)
            );
            assert!(after.2 >= MAX_OUTPUT * 15, "{after:?}");
        }
        server.push(whole);
        let output = world.command(&line).output().unwrap();
        if !output.status.success() {
            break String::from_utf8_lossy(&output.stdout).into_owned();
        }
        paid += cost;
        answered += 1;
        assert!(answered < 100, "the limit does not hold");
    };
    assert!(limited.contains("model_spend_limit"), "{limited}");
    assert!(
        limited.contains("$0.20 a month for the project"),
        "{limited}"
    );
    assert_eq!(
        (kills, server.left()),
        (3, 1),
        "the last one was not asked for"
    );
    let asked = u64::try_from(server.requests().len()).unwrap();
    assert_eq!(asked, answered + kills);
    let (cost, wasted, reserved, calls, _) = told(&world);
    assert_eq!((cost - wasted, reserved, calls), (paid, 0, answered));
    assert!(wasted > 0, "a call that was cut off is counted");
    assert!(cost >= limit, "all of it could be spent: {cost}");
    assert!(cost < limit + MAX_OUTPUT * 15 + 2_000, "{cost}");
}
