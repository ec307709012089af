//! Answers that were cut off and are gone on with, at the providers that do.

use std::sync::Arc;
use std::time::Duration;

use bowline::{Agent, Bowline, Outgoing, Render, Service};
use bowline_agent::feed::{Offset, Reader};
use bowline_model::{Api, ModelSettings, NamedModel, Secret, Thinking};
use bowline_runtime::Outcome;
use bowline_store::{ActorId, SqliteOptions, SqliteStore, Store};
use bowline_testkit::canary::{Folder, KEY};
use bowline_testkit::provider::{Answer, ErrorClass, FakeProvider, Gate, Reply, Wire};
use serde_json::{Value, json};

const BEGUN: &str = "The first half of the answer, which is long enough to be worth going on from";
const REST: &str = " and the second half.";

/// A provider as the table of providers has it, at the fake server.
fn service(store: Arc<dyn Store>, server: &FakeProvider, like: &str, model: &str) -> Service {
    let (api, wire) = match like {
        "anthropic" => (Api::Anthropic, Wire::Anthropic),
        _ => (Api::OpenaiChat, Wire::Chat),
    };
    let mut models = ModelSettings::new(|_| Some(Secret::new(KEY)), ".");
    let named = NamedModel {
        base_url: Some(server.base_url(wire)),
        key_env: Some("FAKE_KEY".to_owned()),
        model: Some(model.to_owned()),
        like: Some(like.to_owned()),
        ..NamedModel::new(api)
    };
    models.named.insert("fake".to_owned(), named);
    let agent = Agent::new("worker", |cx: &mut Render| {
        cx.model("fake");
        cx.definition().thinking = Some(Thinking::Off);
        "Work."
    });
    Bowline::on(store)
        .agent(agent.unwrap())
        .models(models)
        .start()
}

fn sqlite(folder: &Folder) -> Arc<dyn Store> {
    SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap()
}

/// How many events come with [`BEGUN`]: a few in front, then four characters each.
fn events(like: &str) -> usize {
    let in_front = if like == "anthropic" { 3 } else { 1 };
    in_front + BEGUN.len().div_ceil(4)
}

/// An answer that breaks off behind [`BEGUN`].
fn cut(like: &str) -> Answer {
    Answer::new().text(BEGUN).end_after_events(events(like))
}

async fn say(service: &Service, text: &str) -> (Outcome, String) {
    let reply = service.ask("worker", "1", Outgoing::user(text)).await;
    let reply = reply.unwrap();
    (reply.outcome, reply.text)
}

fn messages(server: &FakeProvider, call: usize) -> Vec<Value> {
    let sent = server.requests()[call].body["messages"].clone();
    sent.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_cut_goes_on_from_what_was_said() {
    let providers = [
        ("anthropic", "claude-haiku-4-5", json!({}), false),
        ("mistral", "mistral-large", json!({"prefix": true}), true),
        ("moonshot", "kimi", json!({"partial": true}), false),
        ("vllm", "llama", json!({}), false),
    ];
    // Together, since each waits before it asks again.
    let each = providers.map(|(like, model, mark, repeats)| async move {
        let folder = Folder::new().unwrap();
        let server = FakeProvider::start().await.unwrap();
        let service = service(sqlite(&folder), &server, like, model);
        server.push(cut(like));
        let repeated = format!("{BEGUN}{REST}");
        let rest = if repeats { repeated.as_str() } else { REST };
        server.push(Answer::new().text(rest).in_pieces_of(7));
        let whole = (Outcome::Completed, format!("{BEGUN}{REST}"));
        assert_eq!(say(&service, "Go.").await, whole, "{like}");
        let asked = messages(&server, 1);
        let mut last = json!({"role": "assistant", "content": BEGUN});
        last.as_object_mut()
            .unwrap()
            .extend(mark.as_object().unwrap().clone());
        assert_eq!(asked.last(), Some(&last), "{like}");
        // What stood before it is sent as it was, so that the cache holds.
        assert_eq!(asked[..asked.len() - 1], messages(&server, 0), "{like}");
        assert_eq!(
            server.requests()[1].body["continue_final_message"] == json!(true),
            like == "vllm"
        );
        // Later calls see one whole answer.
        server.push(Answer::new().text("Yes."));
        assert_eq!(say(&service, "Really?").await.1, "Yes.", "{like}");
        let later = serde_json::to_string(&messages(&server, 2)).unwrap();
        assert_eq!(later.matches(BEGUN).count(), 1, "{like}: {later}");
        assert!(later.contains(&whole.1), "{like}: {later}");
        service.stop(Duration::from_secs(10)).await;
    });
    futures::future::join_all(each).await;
}

/// What a reader is told of a conversation, as far as it is durable.
async fn durable(store: &Arc<dyn Store>, actor: &ActorId) -> String {
    let reader = Reader::start(Arc::clone(store), actor, Offset::START).await;
    match reader.unwrap() {
        Ok(mut reader) => format!("{:?}", reader.next(1_000).await.unwrap().entries),
        Err(_) => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_durable_of_an_answer_is_gone_on_with_after_a_takeover() {
    let folder = Folder::new().unwrap();
    let store = sqlite(&folder);
    let server = FakeProvider::start().await.unwrap();
    let gate = Gate::new();
    let answer = Answer::new().text(BEGUN);
    server.push(answer.stall_after_events(events("anthropic"), &gate));
    let first = service(Arc::clone(&store), &server, "anthropic", "claude-haiku-4-5");
    let actor = bowline_agent::actor("worker", "1");
    let mut followed = first.observers().follow(&actor);
    let receipt = first.send("worker", "1", Outgoing::user("Go."));
    let receipt = receipt.await.unwrap();
    // To where the text is durable: that is what a process finds that comes after a kill.
    while !durable(&store, &actor).await.contains("worth going on") {
        followed.news().await;
    }
    drop(followed);
    let second = service(Arc::clone(&store), &server, "anthropic", "claude-haiku-4-5");
    server.push(Answer::new().text(REST));
    second.wake("worker", "1").await.unwrap();
    let reply = second
        .reply("worker", "1", &receipt.submission_id)
        .await
        .unwrap();
    assert_eq!(reply.text, format!("{BEGUN}{REST}"));
    assert_eq!(messages(&server, 1).last().unwrap()["content"], BEGUN);
    gate.open();
    first.stop(Duration::from_secs(10)).await;
    second.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_refuses_to_go_on_is_asked_anew() {
    let folder = Folder::new().unwrap();
    let server = FakeProvider::start().await.unwrap();
    let service = service(sqlite(&folder), &server, "vllm", "llama");
    server.push(cut("vllm"));
    server.push(Reply::error(ErrorClass::InvalidRequest));
    server.push(Answer::new().text("All of it anew."));
    let whole = (Outcome::Completed, "All of it anew.".to_owned());
    assert_eq!(say(&service, "Go.").await, whole);
    assert_eq!(messages(&server, 2), messages(&server, 0));
    service.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_asked_for_anew_where_it_cannot_be_gone_on_with() {
    let short = Answer::new().text("Too short.");
    let cases = [
        ("claude-haiku-4-5", short.end_after_events(6)),
        ("claude-sonnet-5", cut("anthropic")),
    ];
    let each = cases.map(|(model, reply)| async move {
        let folder = Folder::new().unwrap();
        let server = FakeProvider::start().await.unwrap();
        let service = service(sqlite(&folder), &server, "anthropic", model);
        server.push(reply);
        server.push(Answer::new().text("All of it anew."));
        assert_eq!(say(&service, "Go.").await.1, "All of it anew.");
        assert_eq!(messages(&server, 1), messages(&server, 0), "{model}");
        service.stop(Duration::from_secs(10)).await;
    });
    futures::future::join_all(each).await;
}
