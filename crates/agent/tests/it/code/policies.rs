//! Requests of code that nobody answers, and effects that were cut.

use std::time::Duration;

use bowline_agent::{
    code::journal::CODE,
    record::{Fact, Scope},
    tool::OnCrash,
};
use bowline_runtime::{Clock as _, Outcome};
use bowline_store::{Batch, RowChange};
use bowline_testkit::faults::Death;
use serde_json::{Value as Json, json};

use super::{approve, banking, calls, outcome, parked};
use crate::stage::{Process, Stage, instance};

#[tokio::test]
async fn a_request_that_nobody_answers_in_time_is_an_error_at_its_await() {
    let (mut stage, bank) = banking(
        "async () => { try { await bank.send('ann', 1); return 'sent' } catch (error) { return `${error.name}: ${error.message}` } }",
        OnCrash::Unknown,
    );
    stage.define = |definition| {
        definition.code = Some(bowline_agent::code::default_limits());
        let hour = Duration::from_secs(3_600);
        let required = bowline_agent::definition::Approval::Required;
        definition
            .approvals
            .insert("bank.send".to_owned(), required);
        definition
            .approvals_expire
            .insert("bank.send".to_owned(), hour);
    };
    let process = stage.process(Death::Never);
    let approval = parked(&process).await;
    let left = approval.expires_at.since(approval.requested_at);
    assert_eq!(left, Duration::from_secs(3_600));
    drop(process);
    stage.clock.advance(Duration::from_secs(3_601));
    let later = stage.process(Death::Never);
    let receipt = later.send_keyed("Go", "k").await.unwrap();
    later.runtime.resume().await.unwrap();
    let settled = later.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    let outcome = outcome(&stage).await;
    assert_eq!(
        outcome["result"], "ApprovalError: Nobody approved this call in time. It was not made.",
        "{outcome}"
    );
    assert!(bank.seen().is_empty());
    assert_eq!(calls(&stage).await[0].approval.as_deref(), Some("expired"));
}

/// Dies between the intent of an effect and its settlement.
async fn cut(on_crash: OnCrash) -> (Stage, std::sync::Arc<super::Bank>) {
    for commit in 2..10 {
        let (stage, bank) = banking(
            "async () => { try { const paid = await bank.pay('ann', 1); return paid.sent ?? paid } catch (error) { return error.name } }",
            on_crash,
        );
        let dying = stage.process(Death::Before(commit));
        if let Ok(receipt) = dying.send_keyed("Go", "k").await {
            let _ = dying.settled(&receipt).await;
        }
        drop(dying);
        if !bank.seen().is_empty() {
            return (stage, bank);
        }
    }
    panic!("no commit comes after the effect");
}

async fn go_on(process: &Process) -> String {
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    process.runtime.resume().await.unwrap();
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    receipt.submission_id
}

#[tokio::test]
async fn an_effect_of_unknown_outcome_is_not_done_again_and_the_code_is_told() {
    let (stage, bank) = cut(OnCrash::Unknown).await;
    go_on(&stage.process(Death::Never)).await;
    assert_eq!(outcome(&stage).await["result"], "InterruptedError");
    assert_eq!(bank.seen().len(), 1);
}

#[tokio::test]
async fn a_person_says_what_became_of_an_effect_that_was_cut() {
    for (label, result) in [
        ("done", json!("A person says that this was done.")),
        ("not done", json!("Error")),
        ("unknown", json!("InterruptedError")),
        ("again", json!(1)),
    ] {
        let (stage, bank) = cut(OnCrash::Ask).await;
        let process = stage.process(Death::Never);
        let mut follow = process.agents.observers().observe(&instance());
        let receipt = process.send_keyed("Go", "k").await.unwrap();
        process.runtime.resume().await.unwrap();
        let approval = loop {
            let open = stage.conversation().await.approvals.into_values().next();
            match open {
                Some(open) => break open,
                None => drop(follow.recv().await.unwrap()),
            }
        };
        assert!(approval.effect_id.is_some() && approval.is_of_code());
        let says = json!({"approvalId": approval.approval_id, "decision": "answer", "text": label});
        while let Err(error) = process.runtime.answer(&instance(), says.clone()).await {
            assert_eq!(error.code(), "nothing_to_answer");
            tokio::task::yield_now().await;
        }
        let settled = process.settled(&receipt).await.unwrap();
        assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
        let told = outcome(&stage).await;
        assert_eq!(told["result"], result, "{label}: {told}");
        // The bank knows the effect by its id, also when it is asked again.
        assert_eq!(bank.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_run_that_another_engine_began_ends_with_an_error_and_what_it_did_stays_done() {
    let (stage, bank) = banking(
        "async () => { await bank.pay('ann', 1); await bank.send('bob', 2); return 'both'; }",
        OnCrash::Unknown,
    );
    let process = stage.process(Death::Never);
    parked(&process).await;
    process.runtime.drain(Duration::from_secs(60)).await;
    drop(process);
    // As if it had been written by a version with another engine.
    let actor = instance();
    let row = stage
        .store
        .row(&actor, CODE, b"run")
        .await
        .unwrap()
        .unwrap();
    let mut row: Json = serde_json::from_slice(&row).unwrap();
    assert_eq!(row["image"].as_str().unwrap().len(), 64, "{row}");
    row["image"] = json!("0".repeat(64));
    let head = stage.store.head(&actor).await.unwrap().unwrap();
    let mut batch = Batch::new(actor, head.epoch + 1, head.seq);
    let record = Fact::Runtime.record(stage.clock.now(), &Scope::default());
    batch.records.push(record);
    batch.rows.push(RowChange::Put {
        space: CODE,
        key: b"run".to_vec(),
        value: row.to_string().into(),
        blobs: Vec::new(),
    });
    stage.store.commit(batch).await.unwrap();
    let later = stage.process(Death::Never);
    later.runtime.resume().await.unwrap();
    approve(&stage, &later).await;
    let outcome = outcome(&stage).await;
    assert_eq!(outcome["type"], "isolate_saved_image", "{outcome}");
    assert_eq!(bank.seen().len(), 1);
    let open = stage.conversation().await.approvals;
    assert!(open.values().all(|one| one.answer.is_some()));
}
