//! Following a conversation: what a reader assembles does not depend on where it was cut.

use std::sync::{Arc, Mutex};

use bowline_agent::{
    Outgoing,
    feed::{Assembly, Entry, Offset, Reader, history},
};
use bowline_runtime::Outcome;
use bowline_store::Store;
use bowline_testkit::faults::Death;
use serde_json::{Value, json};

use crate::stage::{Process, Stage, instance};

const TALK: &str = r#"
turns:
  - thinking: "What would they want? Ääh, ein Öltanker."
    text: "First a file, with words enough that they come in several pieces: ü, 漢字, 🦀."
    tools:
      - {name: write, input: {path: a.txt, content: "one\n"}}
      - {name: bash, input: {command: "cat a.txt"}}
    stream: {chars: 7, delay_ms: 40}
  - text: "Then the world."
    tools: [{name: notify, input: {text: hello}}]
  - text: "Done, and told at some length, so that it takes its time to come."
    stream: {chars: 5, delay_ms: 60}
by_message:
  - match: "^short"
    turns: [{text: "Short."}]
"#;

/// Follows the conversation as a remote reader does, and keeps all it is told.
struct Watch {
    told: Arc<Mutex<Vec<Entry>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Begins where `told` ends.
    fn start(store: Arc<dyn Store>, process: &Process, told: Arc<Mutex<Vec<Entry>>>) -> Self {
        let mut news = process.agents.observers().follow(&instance());
        let kept = told.clone();
        let task = tokio::spawn(async move {
            let mut tail = store.tail(&instance());
            let from = kept
                .lock()
                .unwrap()
                .last()
                .map_or(Offset::START, |entry| entry.offset);
            if from == Offset::START {
                tail.beyond(0).await.unwrap();
            }
            let mut reader = Reader::start(store, &instance(), from)
                .await
                .unwrap()
                .unwrap();
            loop {
                // Two at a time, so that pages end everywhere.
                let page = reader.next(2).await.unwrap();
                kept.lock().unwrap().extend(page.entries);
                if page.up_to_date {
                    tokio::select! {
                        _ = tail.beyond(reader.offset().record()) => {}
                        _ = news.news() => {}
                    }
                }
            }
        });
        Self { told, task }
    }
}

async fn assembled(store: &Arc<dyn Store>) -> Value {
    let history = history(store.clone(), &instance()).await.unwrap().unwrap();
    json!({"messages": history.messages, "settlements": history.settlements})
}

fn seen(assembly: &Assembly) -> Value {
    json!({"messages": assembly.messages(), "settlements": assembly.settlements()})
}

/// For every point that was ever given out: what was told until there, and what is read from there.
async fn assert_cuts(store: &Arc<dyn Store>, told: &[Entry], label: &str) {
    let whole = assembled(store).await;
    let mut before = Assembly::default();
    for cut in 0..=told.len() {
        let offset = match cut.checked_sub(1) {
            None => Offset::START,
            Some(last) => {
                for chunk in &told[last].chunks {
                    before.apply(chunk.body.clone());
                }
                told[last].offset
            }
        };
        let again = Offset::parse(&offset.to_string()).unwrap();
        let mut reader = Reader::start(store.clone(), &instance(), again)
            .await
            .unwrap()
            .unwrap();
        let mut assembly = before.clone();
        let mut last = cut
            .checked_sub(1)
            .and_then(|last| told[..=last].iter().rev().find_map(|one| one.chunks.last()))
            .map(|chunk| chunk.position);
        loop {
            let page = reader.next(3).await.unwrap();
            for chunk in page.entries.into_iter().flat_map(|entry| entry.chunks) {
                assert!(Some(chunk.position) > last, "{label}, cut {cut}: {chunk:?}");
                last = Some(chunk.position);
                assembly.apply(chunk.body);
            }
            if page.up_to_date {
                break;
            }
        }
        assert_eq!(seen(&assembly), whole, "{label}, cut {cut} at {offset}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_cut_anywhere_assembles_the_same() {
    let stage = Stage::new(TALK);
    let process = stage.process(Death::Never);
    let watch = Watch::start(stage.store.clone(), &process, Arc::default());
    assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    process.ask("short").await.unwrap();
    let compact = Outgoing::compact(None).into_submission();
    let receipt = process.runtime.submit(&instance(), compact).await.unwrap();
    process.settled(&receipt).await.unwrap();
    process.ask("short").await.unwrap();
    // What was told last is read before this test goes on: time stands still until then.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    watch.task.abort();
    let told = watch.told.lock().unwrap().clone();
    let pieces = told
        .iter()
        .filter(|entry| entry.offset.to_string().split_once('_').unwrap().1 != "0000000000000000");
    assert!(pieces.count() > 6, "text was durable while it streamed");
    assert_cuts(&stage.store, &told, "one process").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_cut_anywhere_assembles_the_same_when_the_process_dies_anywhere() {
    let whole = Stage::new(TALK);
    let process = whole.process(Death::Never);
    let watch = Watch::start(whole.store.clone(), &process, Arc::default());
    process.ask("Go").await.unwrap();
    watch.task.abort();
    for number in 1..=process.store.commits() {
        let stage = Stage::new(TALK);
        let first = stage.process(Death::After(number));
        let watch = Watch::start(stage.store.clone(), &first, Arc::default());
        if let Ok(receipt) = first.send_keyed("Go", "k").await {
            let _ = first.settled(&receipt).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        watch.task.abort();
        drop(first);
        let second = stage.process(Death::Never);
        let watch = Watch::start(stage.store.clone(), &second, watch.told);
        let receipt = second.send_keyed("Go", "k").await.unwrap();
        second.settled(&receipt).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        watch.task.abort();
        let told = watch.told.lock().unwrap().clone();
        assert_cuts(&stage.store, &told, &format!("died after commit {number}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_stands_by_itself_and_is_marked() {
    let text = "A text of some length.";
    let cut = format!(
        "turns:\n  - text: \"First.\"\n    tools: [{{name: bash, input: {{command: \"true\"}}}}]\n  \
         - thinking: \"Hm.\"\n    text: \"{text}\"\n    stream: {{chars: 2, delay_ms: 10}}\n    \
         fault: {{kind: cut, after_chars: 9, attempts: 1}}\n"
    );
    let stage = Stage::new(&cut);
    let process = stage.process(Death::Never);
    let watch = Watch::start(stage.store.clone(), &process, Arc::default());
    let reply = process.ask("Go").await.unwrap();
    assert_eq!(reply.outcome, Outcome::Completed);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    watch.task.abort();
    let told = watch.told.lock().unwrap().clone();
    assert_cuts(&stage.store, &told, "a cut").await;
    let seen = assembled(&stage.store).await;
    let response = &seen["messages"][1];
    let parts: Vec<_> = response["parts"].as_array().unwrap().iter().collect();
    let said = parts.iter().filter(|part| part["type"] == "text");
    let said: Vec<_> = said.map(|part| part["text"].as_str().unwrap()).collect();
    assert_eq!(said.len(), 3, "{response:#}");
    assert!(!said[1].is_empty() && text.starts_with(said[1]) && said[1] != text);
    assert_eq!((said[0], said[2]), ("First.", text));
    assert!(parts.iter().all(|part| part["state"] != "streaming"));
    // The call is the second part; thought and text behind it were cut.
    let marked = response["metadata"]["interrupted"].as_object().unwrap();
    let marked: Vec<_> = marked.keys().map(String::as_str).collect();
    assert_eq!(marked, ["2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn text_is_durable_once_a_second_and_ten_times_while_followed() {
    let slow = "turns:\n  - text: \"0123456789012345678901234567890123456789\"\n    stream: {chars: 1, delay_ms: 50}\n";
    let alone = Stage::new(slow);
    alone.process(Death::Never).ask("Go").await.unwrap();
    let followed = Stage::new(slow);
    let process = followed.process(Death::Never);
    let watch = Watch::start(followed.store.clone(), &process, Arc::default());
    process.ask("Go").await.unwrap();
    watch.task.abort();
    let (alone, followed) = (
        alone.store.metrics().batches,
        followed.store.metrics().batches,
    );
    // Two seconds of text, besides admission and answer.
    assert!((3..=4).contains(&alone), "{alone} commits alone");
    assert!((18..=23).contains(&followed), "{followed} commits followed");
}

#[tokio::test]
async fn offsets_of_another_incarnation_and_made_up_ones_are_refused_or_harmless() {
    for text in [
        "",
        "-2",
        "1",
        "_",
        "1_",
        "_1",
        "a_b",
        "1_2_3",
        "+1_0",
        "99999999999999999999_0",
    ] {
        assert_eq!(Offset::parse(text), None, "{text}");
    }
    let stage = Stage::new("turns: [{text: 'Grüße.'}]\n");
    let process = stage.process(Death::Never);
    process.ask("Hi").await.unwrap();
    let head = stage.store.head(&instance()).await.unwrap().unwrap().seq;
    for seq in 0..=head + 1 {
        for told in [0, 1, 3, 1_000, u64::MAX] {
            let offset = Offset::parse(&format!("{seq}_{}", told.min(9_999_999_999))).unwrap();
            let reader = Reader::start(stage.store.clone(), &instance(), offset)
                .await
                .unwrap();
            match reader {
                Ok(mut reader) => drop(reader.next(100).await.unwrap()),
                Err(_) => assert!(seq > head),
            }
        }
    }
}
