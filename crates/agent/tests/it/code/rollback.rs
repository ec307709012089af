//! Rolling a run back: what it did outside is undone, the last first, whatever happens meanwhile.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bowline_agent::{
    binding::{Binding, CallError, Method},
    code::runs::{self, CallState, CodeRun, RunState},
    tool::{Effect, OnCrash, ToolContext},
};
use bowline_runtime::Outcome;
use bowline_sandbox::isolate::Value;
use bowline_testkit::faults::Death;
use serde_json::json;

use super::{outcome, parked, stage};
use crate::stage::{Process, Stage, instance};

/// A shop that takes orders and can cancel them, and sends letters, which it cannot take back.
struct Shop {
    methods: Vec<Method>,
    /// What reached the shop, with its id.
    seen: Arc<Mutex<Vec<(String, String)>>>,
    /// It refuses to cancel the first order.
    stubborn: AtomicBool,
}

impl Shop {
    fn new() -> Arc<Self> {
        let method = |name: &str| {
            Method::new(name, "Does business.")
                .takes("what", json!({"type": "string"}))
                .effect(Effect::Outside(OnCrash::Retry))
        };
        let mut order = method("order");
        order.reverts = true;
        let mut pay = method("pay");
        pay.approval = true;
        Arc::new(Self {
            methods: vec![order, method("letter"), pay],
            seen: Arc::default(),
            stubborn: AtomicBool::new(false),
        })
    }

    /// What reached it, once for each id.
    fn seen(&self) -> Vec<String> {
        let mut known: Vec<(String, String)> = Vec::new();
        for one in self.seen.lock().unwrap().iter() {
            if !known.contains(one) {
                known.push(one.clone());
            }
        }
        known.into_iter().map(|(_, what)| what).collect()
    }

    fn note(&self, context: &ToolContext, what: String) {
        let id = context.effect_id.clone().unwrap();
        self.seen.lock().unwrap().push((id, what));
    }
}

#[async_trait]
impl Binding for Shop {
    fn name(&self) -> &str {
        "shop"
    }

    fn description(&self) -> &str {
        "A shop."
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        let what = arguments[0].as_str().unwrap().to_owned();
        if what == "nothing" {
            return Err(CallError::new("ShopError", "there is none"));
        }
        self.note(context, format!("{method} {what}"));
        Ok(Value::from(json!({"number": format!("no. {what}")})))
    }

    async fn revert(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: &[Value],
        result: &Value,
    ) -> Result<(), CallError> {
        let (what, number) = (arguments[0].as_str().unwrap(), result.to_json());
        let number = number["number"].as_str().unwrap().to_owned();
        assert_eq!(number, format!("no. {what}"));
        if what == "tea" && self.stubborn.load(Ordering::SeqCst) {
            return Err(CallError::new("ShopError", "it was drunk"));
        }
        self.note(context, format!("cancel {method} {number}"));
        Ok(())
    }
}

const SCRIPT: &str = "async () => {
  await shop.order('tea');
  await tools.write({ path: 'a.txt', content: 'kept' });
  await shop.order('nothing').catch(() => {});
  await shop.letter('to ann');
  await shop.order('cake');
  await shop.pay('all of it');
  return 'paid';
}";

fn shopping() -> (Stage, Arc<Shop>) {
    let shop = Shop::new();
    let mut stage = stage(SCRIPT);
    stage.bindings.push(shop.clone());
    (stage, shop)
}

/// Has the run undone that waits for this.
async fn roll_back(stage: &Stage, process: &Process) -> Result<(), String> {
    let open = stage.conversation().await.approvals.into_values();
    for approval in open.filter(|one| one.answer.is_none()) {
        let no = json!({"approvalId": approval.approval_id, "decision": "reject", "rollback": true, "reason": "too dear"});
        let answered = process.runtime.answer(&instance(), no).await;
        answered.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn run(stage: &Stage) -> CodeRun {
    let mut all = runs::of(&*stage.store, &instance()).await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

const UNDONE: [&str; 5] = [
    "order tea",
    "letter to ann",
    "order cake",
    "cancel order no. cake",
    "cancel order no. tea",
];

#[tokio::test]
async fn a_run_that_is_rolled_back_ends_and_what_it_did_outside_is_undone_last_first() {
    let (stage, shop) = shopping();
    let process = stage.process(Death::Never);
    parked(&process).await;
    let paused = run(&stage).await;
    assert_eq!(paused.state, RunState::Paused);
    let waits = paused.calls.last().unwrap();
    assert_eq!(
        (waits.state, &*waits.called.path),
        (CallState::Waits, "shop.pay")
    );
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    roll_back(&stage, &process).await.unwrap();
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert_eq!(shop.seen(), UNDONE);
    let outcome = outcome(&stage).await;
    assert_eq!(outcome["status"], "rolled_back", "{outcome}");
    assert_eq!(outcome["undone"], json!(["shop.order", "shop.order"]));
    assert!(
        outcome["error"]
            .as_str()
            .unwrap()
            .ends_with("Reason: too dear"),
        "{outcome}"
    );
    assert_eq!(stage.file("/workspace/a.txt").await, "kept");
    let over = run(&stage).await;
    assert_eq!(over.state, RunState::RolledBack);
    let states: Vec<_> = over.calls.iter().map(|call| call.state).collect();
    let expected = [
        CallState::Undone,
        CallState::Done,
        CallState::Failed,
        CallState::Done,
        CallState::Undone,
    ];
    assert_eq!(states, expected);
}

#[tokio::test]
async fn what_cannot_be_undone_is_told_and_the_others_still_are() {
    let (stage, shop) = shopping();
    shop.stubborn.store(true, Ordering::SeqCst);
    let process = stage.process(Death::Never);
    parked(&process).await;
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    roll_back(&stage, &process).await.unwrap();
    process.settled(&receipt).await.unwrap();
    assert_eq!(shop.seen(), UNDONE[..4]);
    let outcome = outcome(&stage).await;
    assert_eq!(outcome["undone"], json!(["shop.order"]), "{outcome}");
    let not = outcome["notUndone"][0].as_str().unwrap();
    assert!(
        not.contains("shop.order cannot be undone") && not.contains("it was drunk"),
        "{not}"
    );
    assert_eq!(run(&stage).await.calls[0].state, CallState::NotUndone);
}

#[tokio::test]
async fn a_process_that_dies_while_it_rolls_back_undoes_each_call_once() {
    let commits = {
        let (stage, _) = shopping();
        let process = stage.process(Death::Never);
        parked(&process).await;
        let receipt = process.send_keyed("Go", "k").await.unwrap();
        let before = process.store.commits();
        roll_back(&stage, &process).await.unwrap();
        process.settled(&receipt).await.unwrap();
        before..process.store.commits()
    };
    for death in commits.flat_map(|n| [Death::Before(n + 1), Death::After(n + 1)]) {
        let (stage, shop) = shopping();
        let dying = stage.process(death);
        parked(&dying).await;
        let _ = roll_back(&stage, &dying).await;
        if let Ok(receipt) = dying.send_keyed("Go", "k").await {
            let _ = dying.settled(&receipt).await;
        }
        drop(dying);
        let last = stage.process(Death::Never);
        let receipt = last.send_keyed("Go", "k").await.unwrap();
        last.runtime.resume().await.unwrap();
        roll_back(&stage, &last).await.unwrap();
        let settled = last.settled(&receipt).await.unwrap();
        assert_eq!(
            settled.outcome,
            Outcome::Completed,
            "{death:?} {:?}",
            settled.error
        );
        assert_eq!(shop.seen(), UNDONE, "{death:?}");
        let outcome = outcome(&stage).await;
        assert_eq!(
            outcome["undone"],
            json!(["shop.order", "shop.order"]),
            "{death:?} {outcome}"
        );
    }
}

#[tokio::test]
async fn only_the_rejection_of_a_call_that_code_made_can_roll_back() {
    let (stage, shop) = shopping();
    let process = stage.process(Death::Never);
    let approval = parked(&process).await;
    let id = approval.approval_id;
    let bad = json!({"approvalId": id, "decision": "approve", "rollback": true});
    let refused = process.runtime.answer(&instance(), bad).await.unwrap_err();
    assert_eq!(refused.code(), "approval_invalid");
    // Without it the code goes on with an error, and nothing is undone.
    let no = json!({"approvalId": id, "decision": "reject"});
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    process.runtime.answer(&instance(), no).await.unwrap();
    process.settled(&receipt).await.unwrap();
    assert_eq!(shop.seen(), UNDONE[..3]);
    let outcome = outcome(&stage).await;
    assert!(
        outcome["error"].as_str().unwrap().contains("ApprovalError"),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_run_that_was_aborted_while_it_waited_is_rolled_back_when_that_is_asked_for() {
    let (stage, shop) = shopping();
    let process = stage.process(Death::Never);
    parked(&process).await;
    let receipt = process.send_keyed("Go", "k").await.unwrap();
    let aborted = process.runtime.abort(&instance(), None).await.unwrap();
    assert!(aborted);
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Aborted);
    assert_eq!(shop.seen(), UNDONE[..3], "aborting undoes nothing");
    assert_eq!(run(&stage).await.state, RunState::Error);
    let asked = bowline_agent::Outgoing::roll_back(None).into_submission();
    let receipt = process.runtime.submit(&instance(), asked).await.unwrap();
    let settled = process.settled(&receipt).await.unwrap();
    assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    assert_eq!(shop.seen(), UNDONE);
    assert_eq!(run(&stage).await.state, RunState::RolledBack);
    let told = stage.conversation().await.entries.pop().unwrap();
    let bowline_agent::conversation::EntryBody::Signal(signal) = told.body else {
        panic!("{told:?}");
    };
    assert!(
        signal
            .content
            .ends_with("in this order: shop.order, shop.order."),
        "{}",
        signal.content
    );
    // A second time there is nothing left to undo.
    let asked = bowline_agent::Outgoing::roll_back(None).into_submission();
    let receipt = process.runtime.submit(&instance(), asked).await.unwrap();
    process.settled(&receipt).await.unwrap();
    assert_eq!(shop.seen(), UNDONE);
}

#[tokio::test]
async fn any_run_can_be_rolled_back_whatever_later_ones_did() {
    let shop = Shop::new();
    let mut stage =
        stage("async () => { const made = await shop.order('tea'); return made.number; }");
    stage.bindings.push(shop.clone());
    let process = stage.process(Death::Never);
    for _ in 0..3 {
        process.ask("Go").await.unwrap();
    }
    let states = async || {
        let all = runs::of(&*stage.store, &instance()).await.unwrap();
        all.into_iter()
            .map(|one| (one.run_id, one.state))
            .collect::<Vec<_>>()
    };
    let first = states().await.remove(0).0;
    let (undone, done) = (RunState::RolledBack, RunState::Completed);
    for (named, expected) in [
        (Some(first), [undone, done, done]),
        (None, [undone, done, undone]),
        (None, [undone, undone, undone]),
        (None, [undone, undone, undone]),
    ] {
        let asked = bowline_agent::Outgoing::roll_back(named).into_submission();
        let receipt = process.runtime.submit(&instance(), asked).await.unwrap();
        process.settled(&receipt).await.unwrap();
        let now: Vec<_> = states().await.into_iter().map(|(_, state)| state).collect();
        assert_eq!(now, expected);
    }
    assert_eq!(shop.seen().len(), 6, "{:?}", shop.seen());
}
