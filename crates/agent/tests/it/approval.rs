//! Tool calls and questions that wait for a person: parked, answered once, weeks later, in another
//! process.

use std::time::Duration;

use bowline_agent::{
    ChunkBody,
    approval::{self, Approval, Condition, Decision},
    definition::Approval as Policy,
    tool::{Effect, OnCrash},
};
use bowline_runtime::{Outcome, Receipt, RuntimeError};
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

#[tokio::test]
async fn a_call_waits_only_when_its_condition_is_true_of_the_arguments() {
    let script = "turns:\n  - tools: [{name: notify, input: {text: hello}}]\n  - tools: [{name: notify, input: {text: 'to everybody'}}]\n  - text: Done.\n";
    let mut stage = Stage::new(script);
    stage.define = |definition| {
        let condition = Condition::parse("search(@.text, 'every(body|one)')").unwrap();
        definition
            .approvals
            .insert("notify".to_owned(), Policy::When(condition));
        let hour = Duration::from_secs(3_600);
        definition
            .approvals_expire
            .insert("notify".to_owned(), hour);
    };
    let process = stage.process(Death::Never);
    let (receipt, approval) = parked(&process).await;
    assert_eq!(approval.arguments, json!({"text": "to everybody"}));
    assert_eq!(
        approval.expires_at,
        approval.requested_at.after(Duration::from_secs(3_600))
    );
    assert_eq!(stage.effects.lock().unwrap().len(), 1, "the first was made");
    let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
    answer(&process, yes).await.unwrap();
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed);
    assert_eq!(stage.effects.lock().unwrap().len(), 2);
}

#[test]
fn a_condition_is_checked_where_it_is_written() {
    let holds = |text: &str, arguments: Value| Condition::parse(text).unwrap().holds(&arguments);
    assert!(holds(
        "@.amount > 100 && @.to != 'me'",
        json!({"amount": 101, "to": "you"})
    ));
    assert!(!holds("@.amount > 100", json!({"amount": "101"})));
    assert!(!holds("@.amount > 100", json!({})));
    assert!(holds("!@.amount || @.amount > 100", json!({})));
    assert!(holds(
        "@.labels[?@ == 'urgent']",
        json!({"labels": ["urgent"]})
    ));
    assert!(holds("length(@.text) >= 3", json!({"text": "abc"})));
    assert!(holds(
        r"search(@.command, '\\brm\\b')",
        json!({"command": "sudo rm -r x"})
    ));
    for wrong in [
        "",
        "@.a >",
        "a > 1",
        "search(@.a, '(')",
        "match(@.a, \"[\")",
        &"@.a || ".repeat(300),
    ] {
        assert!(Condition::parse(wrong).is_err(), "{wrong}");
    }
}

const QUESTION: &str = "turns:\n  - tools: [{name: ask_question, input: {question: Which one?, choices: [{label: Red}, {label: Blue, description: like the sea}], free_text: false}}]\n  - text: Done.\n";

fn asking() -> Stage {
    let mut stage = Stage::new(QUESTION);
    stage.define = |definition| definition.tools.push("ask_question".to_owned());
    stage
}

#[tokio::test]
async fn an_answer_reaches_the_model_weeks_later_in_another_process_and_once() {
    let stage = asking();
    let (receipt, approval) = parked(&stage.process(Death::Never)).await;
    let question = approval.question.as_ref().unwrap();
    assert_eq!(question.choices.len(), 2);
    stage.clock.advance(Duration::from_secs(21 * 24 * 3_600));
    let later = stage.process(Death::Never);
    let id = &approval.approval_id;
    for wrong in [
        json!({"approvalId": id, "decision": "approve"}),
        json!({"approvalId": id, "decision": "answer", "text": "green"}),
        json!({"approvalId": id, "decision": "answer"}),
    ] {
        let refused = answer(&later, wrong).await.unwrap_err();
        assert_eq!(refused.code(), "approval_invalid");
    }
    let second = json!({"approvalId": id, "decision": "answer", "text": "2"});
    assert_eq!(
        answer(&later, second.clone()).await.unwrap(),
        receipt.submission_id
    );
    let settled = later.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert!(answer(&later, second).await.is_err());
    let conversation = stage.conversation().await;
    assert_valid(&conversation);
    assert_eq!(lines(&conversation)[2], "result: ask_question: Blue");
}

#[tokio::test]
async fn a_question_that_nobody_answers_or_that_is_declined_is_a_result() {
    let stage = asking();
    let (receipt, _) = parked(&stage.process(Death::Never)).await;
    stage
        .clock
        .advance(approval::EXPIRES_AFTER + Duration::from_secs(1));
    let later = stage.process(Death::Never);
    assert_eq!(later.runtime.resume().await.unwrap(), 1);
    later.settled(&receipt).await.unwrap();
    assert!(
        lines(&stage.conversation().await)[2].ends_with("Nobody answered this question in time.")
    );

    let stage = asking();
    let process = stage.process(Death::Never);
    let (receipt, approval) = parked(&process).await;
    let no = json!({"approvalId": approval.approval_id, "decision": "reject", "reason": "guess"});
    answer(&process, no).await.unwrap();
    process.settled(&receipt).await.unwrap();
    let told = lines(&stage.conversation().await);
    assert!(
        told[2].ends_with("declined to answer this question. Reason: guess"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_told_to_the_model() {
    let mut stage = Stage::new(
        "turns:\n  - tools: [{name: ask_question, input: {question: Which?, free_text: false}}, {name: ask_question, input: {question: A?, choices: [{label: a}, {label: A}]}}]\n  - text: Done.\n",
    );
    stage.define = |definition| definition.tools.push("ask_question".to_owned());
    let process = stage.process(Death::Never);
    assert_eq!(process.ask("Go").await.unwrap().outcome, Outcome::Completed);
    let told = lines(&stage.conversation().await);
    assert!(
        told[2].contains("give choices") && told[3].contains("there twice"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_message_that_steers_withdraws_the_request_and_joins_the_parked_run() {
    let script = "turns:\n  - tools: [{name: notify, input: {text: hello}}]\n  - text: Something else then.\n    expect: {matches: Rather not}\n";
    let mut stage = Stage::new(script);
    stage.consent = true;
    let process = stage.process(Death::Never);
    let (receipt, approval) = parked(&process).await;
    let steering = bowline_agent::Outgoing::user("Rather not").into_submission();
    let later = process.runtime.steer(&instance(), steering).await.unwrap();
    let settled = process.settled(&later).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert_eq!(
        settled.answered_by_submission_id,
        Some(receipt.submission_id.clone())
    );
    assert!(stage.effects.lock().unwrap().is_empty());
    let told = lines(&stage.conversation().await);
    assert!(
        told[2].contains("withdrawn because a new message came"),
        "{told:?}"
    );
    let yes = json!({"approvalId": approval.approval_id, "decision": "approve"});
    assert!(answer(&process, yes).await.is_err());
    assert_valid(&stage.conversation().await);
}

#[tokio::test]
async fn a_person_says_what_became_of_an_effect_that_was_cut() {
    for (said, effects, told) in [
        ("again", 2, "result: notify: sent hello"),
        (
            "done",
            1,
            "result: notify: A person says that this was done.",
        ),
        (
            "not done",
            1,
            "failed: notify: A person says that this was not done.",
        ),
        ("unknown", 1, "failed: notify: {\"type\":\"interrupted\""),
    ] {
        let mut stage = Stage::new(ASKS);
        stage.effect = Effect::Outside(OnCrash::Ask);
        // The third commit is the settlement: the effect was done, and nobody knows.
        let dying = stage.process(Death::Before(3));
        let receipt = dying.send_keyed("Go", "k").await.unwrap();
        assert!(dying.settled(&receipt).await.is_err());
        assert_eq!(stage.effects.lock().unwrap().len(), 1);

        let (again, approval) = parked(&stage.process(Death::Never)).await;
        assert_eq!(again.submission_id, receipt.submission_id);
        assert!(approval.effect_id.is_some());
        let later = stage.process(Death::Never);
        let answered =
            json!({"approvalId": approval.approval_id, "decision": "answer", "text": said});
        answer(&later, answered).await.unwrap();
        let settled = later.settled(&receipt).await.unwrap();
        assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
        let made = stage.effects.lock().unwrap().clone();
        assert_eq!(made.len(), effects, "{said}");
        assert!(
            made.iter().all(|id| *id == made[0]),
            "one effect id: {made:?}"
        );
        let conversation = stage.conversation().await;
        assert_valid(&conversation);
        assert!(
            lines(&conversation)[2].starts_with(told),
            "{said}: {:?}",
            lines(&conversation)
        );
    }
}
