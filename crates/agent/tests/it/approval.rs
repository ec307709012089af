//! Tool calls that wait for a person: parked, answered once, weeks later, in another process.

use std::time::Duration;

use bowline_agent::{
    ChunkBody,
    approval::{self, Approval, Decision},
};
use bowline_runtime::{Outcome, Receipt, RuntimeError};
use bowline_store::Store as _;
use bowline_testkit::faults::Death;
use serde_json::{Value, json};

use crate::stage::{Process, Stage, assert_valid, instance, lines};

const ASKS: &str = "turns:\n  - text: May I?\n    tools: [{name: notify, input: {text: hello}}]\n  - text: Done.\nat_end: repeat_last\n";

fn stage() -> Stage {
    let mut stage = Stage::new(ASKS);
    stage.consent = true;
    stage
}

/// Sends a message and waits until the answer is parked.
async fn parked(process: &Process) -> (Receipt, Approval) {
    let mut follow = process.agents.observers().observe(&instance());
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    loop {
        if let ChunkBody::ApprovalRequested { approval } = &follow.recv().await.unwrap().body {
            return (receipt, approval.clone());
        }
    }
}

async fn answer(process: &Process, answer: Value) -> Result<String, RuntimeError> {
    process.runtime.answer(&instance(), answer).await
}

#[tokio::test]
async fn an_approved_call_is_made_weeks_later_in_another_process_and_once() {
    let stage = stage();
    let (receipt, approval) = parked(&stage.process(Death::Never)).await;
    assert_eq!(approval.arguments, json!({"text": "hello"}));
    assert!(stage.effects.lock().unwrap().is_empty());
    let flushes = stage.store.metrics().flushes;
    assert_eq!(
        flushes, 2,
        "admission, and the parking with the message that asked"
    );

    stage.clock.advance(Duration::from_secs(21 * 24 * 3_600));
    let later = stage.process(Death::Never);
    let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
    assert_eq!(
        answer(&later, yes.clone()).await.unwrap(),
        receipt.submission_id
    );
    let settled = later.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert_eq!(
        answer(&later, yes).await.unwrap_err().code(),
        "nothing_to_answer"
    );
    let (_, kept) = approval::find(&*stage.store, &approval.approval_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.answer.unwrap().decision, Decision::Approve);
    assert_eq!(stage.effects.lock().unwrap().len(), 1);
    let conversation = stage.conversation().await;
    assert_valid(&conversation);
    assert_eq!(lines(&conversation)[2], "result: notify: sent hello");
}

#[tokio::test]
async fn a_rejected_call_reaches_the_model_and_an_edited_one_is_made_as_edited() {
    let rejected = stage();
    let process = rejected.process(Death::Never);
    let (receipt, approval) = parked(&process).await;
    let id = &approval.approval_id;
    let no = json!({"approvalId": id, "decision": "reject", "reason": "not today"});
    answer(&process, no).await.unwrap();
    assert_eq!(
        process.settled(&receipt).await.unwrap().outcome,
        Outcome::Completed
    );
    let told = lines(&rejected.conversation().await);
    assert!(
        told[2].starts_with("failed: notify: A person rejected this call.")
            && told[2].ends_with("not today"),
        "{}",
        told[2]
    );
    assert!(rejected.effects.lock().unwrap().is_empty());

    let edited = stage();
    let process = edited.process(Death::Never);
    let (receipt, approval) = parked(&process).await;
    let id = &approval.approval_id;
    let wrong = json!({"approvalId": id, "decision": "approve", "arguments": {"text": [1, 2]}});
    assert_eq!(
        answer(&process, wrong).await.unwrap_err().code(),
        "approval_invalid"
    );
    let unknown = json!({"approvalId": "appr_none", "decision": "approve"});
    assert_eq!(
        answer(&process, unknown).await.unwrap_err().code(),
        "approval_not_found"
    );
    let yes = json!({"approvalId": id, "decision": "approve", "arguments": {"text": "goodbye"}});
    answer(&process, yes).await.unwrap();
    process.settled(&receipt).await.unwrap();
    assert_eq!(
        lines(&edited.conversation().await)[2],
        "result: notify: sent goodbye"
    );
}

#[tokio::test]
async fn an_approval_that_nobody_answers_expires_and_the_run_goes_on() {
    let stage = stage();
    let (receipt, _) = parked(&stage.process(Death::Never)).await;
    stage
        .clock
        .advance(approval::EXPIRES_AFTER + Duration::from_secs(1));
    let later = stage.process(Death::Never);
    assert_eq!(later.runtime.resume().await.unwrap(), 1);
    let settled = later.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert!(lines(&stage.conversation().await)[2].contains("Nobody approved this call in time"));
}

#[tokio::test]
async fn a_parked_run_can_be_aborted_and_a_later_message_waits_behind_it() {
    let stage = stage();
    let process = stage.process(Death::Never);
    let (receipt, approval) = parked(&process).await;
    let later = process.send("And then?").await.unwrap();
    assert!(
        process
            .runtime
            .abort(&instance(), Some(&receipt.submission_id))
            .await
            .unwrap()
    );
    assert_eq!(
        process.settled(&receipt).await.unwrap().outcome,
        Outcome::Aborted
    );
    // The later message asks again; nothing was made meanwhile.
    let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
    assert!(answer(&process, yes).await.is_err());
    assert!(stage.effects.lock().unwrap().is_empty());
    process.runtime.abort(&instance(), None).await.unwrap();
    assert_eq!(
        process.settled(&later).await.unwrap().outcome,
        Outcome::Aborted
    );
    assert_valid(&stage.conversation().await);
}

#[tokio::test]
async fn a_process_that_dies_around_an_answer_neither_loses_nor_doubles_it() {
    for death in (1..=8).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let stage = stage();
        let (receipt, approval) = parked(&stage.process(Death::Never)).await;
        let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
        let dying = stage.process(death);
        if answer(&dying, yes.clone()).await.is_ok() {
            let _ = dying.settled(&receipt).await;
        }
        let last = stage.process(Death::Never);
        let again = answer(&last, yes).await;
        assert!(
            again.is_ok() || again.unwrap_err().code() == "nothing_to_answer",
            "{death:?}"
        );
        let settled = last.settled(&receipt).await.unwrap();
        assert_eq!(settled.outcome, Outcome::Completed, "{death:?}");
        assert!(stage.effects.lock().unwrap().len() <= 1, "{death:?}");
        assert_valid(&stage.conversation().await);
    }
}
