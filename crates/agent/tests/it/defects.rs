//! What went wrong in another system of this kind, and must not happen here. The numbers are those of
//! its public list of defects.
//!
//! | number | must not happen | shown by |
//! |---|---|---|
//! | 425 | an ending leaves a message or a batch open, and every later message fails | `an_ending_…` here; `turn::a_submission_ends_when_…` |
//! | 477, 479 | a new attempt begins beside an open message | `turn::a_run_that_dies_at_any_commit_…` |
//! | 511, 512 | a second interruption of a recovery burns the attempts | `a_recovery_that_is_cut_…` here |
//! | 419 | a call stays open when the attempts are used up | `an_ending_…` here |
//! | 457 | memory of a running attempt blocks another process | `a_process_that_hangs_…` here |
//! | 497, 538 | a hung call stops the clock | `turn::a_submission_ends_when_its_time_is_over_even_if_nothing_moves` |
//! | 548 | a cut message with calls breaks the history | `a_message_that_was_cut_…` here |
//! | 240, 289 | a large value is refused by the storage | `a_large_message_…` here |
//! | 658 | streamed pieces are kept for ever | `a_streamed_answer_…` here |
//! | 368 | a message is missing until it is answered | `a_message_is_in_the_history_…` here |
//! | 495 | a conversation is set up twice | `a_conversation_is_set_up_once` here |
//! | 499 | the log is held in memory several times | `bowline bench idle`, and the shared transcript |
//! | 428, 600, 612, 613 | wrong compaction | `compaction` and `window` |

use bowline_agent::{Outgoing, record::Fact, view};
use bowline_runtime::Outcome;
use bowline_testkit::faults::Death;
use bytes::Bytes;

use crate::stage::{Stage, assert_valid, instance, lines};

const WORK: &str = "turns:\n  - text: I write.\n    tools: [{name: bash, input: {command: echo one >> a.txt}}]\n  - text: Done.\nat_end: repeat_last\n";

#[tokio::test]
async fn an_ending_leaves_nothing_open_and_the_next_message_is_answered() {
    let script = "turns:\n  - tools: [{name: crash, input: {text: x}}, {name: bash, input: {command: echo hi}}]\n    fault: {kind: cut, after_chars: 0, attempts: 100}\nby_message:\n  - match: again\n    turns: [{text: Here.}]\n";
    let stage = Stage::new(script);
    let process = stage.process(Death::Never);
    let receipt = process.send("Go").await.unwrap();
    process.runtime.abort(&instance(), None).await.unwrap();
    let settled = process.settled(&receipt).await.unwrap();
    assert_ne!(settled.outcome, Outcome::Completed);
    assert_valid(&stage.conversation().await);
    assert_eq!(
        process.ask("again").await.unwrap().outcome,
        Outcome::Completed
    );
    assert_valid(&stage.conversation().await);
}

#[tokio::test]
async fn a_recovery_that_is_cut_again_at_the_same_place_goes_on() {
    for death in (1..=3).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let stage = Stage::new(WORK);
        let first = stage.process(Death::Before(2));
        if let Ok(receipt) = first.send_keyed("Go", "k").await {
            let _ = first.settled(&receipt).await;
        }
        for _ in 0..3 {
            let again = stage.process(death);
            if let Ok(receipt) = again.send_keyed("Go", "k").await {
                let _ = again.settled(&receipt).await;
            }
        }
        let last = stage.process(Death::Never);
        let receipt = last.send_keyed("Go", "k").await.unwrap();
        let settled = last.settled(&receipt).await.unwrap();
        assert_eq!(
            settled.outcome,
            Outcome::Completed,
            "{death:?}: {:?}",
            settled.error
        );
        assert_valid(&stage.conversation().await);
        assert_eq!(stage.file("/workspace/a.txt").await, "one\n", "{death:?}");
    }
}

#[tokio::test]
async fn a_process_that_hangs_with_an_attempt_does_not_block_the_next_one() {
    let stage = Stage::new("turns: [{text: never, stream: {chars: 1, delay_ms: 3600000}}]\n");
    let hangs = stage.process(Death::Never);
    let receipt = hangs.send_keyed("Go", "k").await.unwrap();
    // It still believes that it works on this, and nobody has stopped it.
    stage.script(WORK);
    let next = stage.process(Death::Never);
    assert_eq!(next.runtime.resume().await.unwrap(), 1);
    let settled = next.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert_valid(&stage.conversation().await);
    drop(hangs);
}

#[tokio::test]
async fn a_message_that_was_cut_in_the_middle_of_its_calls_has_results_for_them() {
    let stage = Stage::new(
        "turns:\n  - text: I wr\n    stop: length\n    tools: [{name: bash, input: {command: echo one >> a.txt}}]\n  - text: Shorter then.\n",
    );
    let process = stage.process(Death::Never);
    assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    let conversation = stage.conversation().await;
    assert_valid(&conversation);
    assert!(lines(&conversation)[2].contains("was not executed"));
}

#[tokio::test]
async fn a_large_message_with_a_large_file_is_kept_whole() {
    let stage = Stage::new("turns: [{text: Done.}]\n");
    let process = stage.process(Death::Never);
    let (text, file) = ("x".repeat(4 << 20), Bytes::from(vec![7; 9 << 20]));
    let message = Outgoing::user(text.clone()).attach(None, "image/png", file.clone());
    let receipt = process
        .runtime
        .submit(&instance(), message.into_submission())
        .await
        .unwrap();
    assert_eq!(
        process.settled(&receipt).await.unwrap().outcome,
        Outcome::Completed
    );
    let told = lines(&stage.conversation().await);
    assert!(told[0].len() > text.len());
    let blob = bowline_store::BlobId::of(&file);
    assert_eq!(stage.store.blob(blob).await.unwrap(), Some(file));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_is_in_the_log_once_and_its_pieces_are_gone() {
    let stage = Stage::new(
        "turns: [{text: 'once upon a time there was a needle', stream: {chars: 4, delay_ms: 700}}]\n",
    );
    let process = stage.process(Death::Never);
    assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    let drafts = stage
        .store
        .scan(&instance(), "draft", b"", None, 10)
        .await
        .unwrap();
    assert!(drafts.is_empty());
    let records = stage.store.read(&instance(), 0, 1_000).await.unwrap();
    let holds = |body: &Bytes| body.windows(6).any(|part| part == b"needle");
    assert_eq!(
        records.iter().filter(|one| holds(&one.record.body)).count(),
        1
    );
}

#[tokio::test]
async fn a_message_is_in_the_history_as_soon_as_it_is_accepted() {
    let stage = Stage::new("turns: [{text: never, stream: {chars: 1, delay_ms: 3600000}}]\n");
    let process = stage.process(Death::Never);
    process.send("Where am I?").await.unwrap();
    let messages = view::messages(&stage.conversation().await);
    assert!(
        serde_json::to_string(&messages)
            .unwrap()
            .contains("Where am I?")
    );
}

#[tokio::test]
async fn a_conversation_is_set_up_once() {
    let stage = Stage::new(WORK);
    for _ in 0..3 {
        let process = stage.process(Death::Never);
        assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    }
    let records = stage.store.read(&instance(), 0, 10_000).await.unwrap();
    let facts: Vec<_> = records.iter().map(|one| Fact::of(one).unwrap()).collect();
    let created = facts.iter().filter(|fact| matches!(fact, Fact::Created(_)));
    assert_eq!(created.count(), 1);
    let prompts = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::ResourceSnapshot(one) if one.system.is_some()));
    assert_eq!(prompts.count(), 1);
}
