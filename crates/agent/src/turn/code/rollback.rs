//! Undoing what a run did outside, the last first.
//!
//! A call of a method that can be undone leaves what it was given and gave, in the batch that settles it.
//! When a person has the run rolled back, each is undone in turn; that it was begun and that it was done
//! are durable, so that after a crash it goes on where it was, with the same id.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use bowline_runtime::{
    Attempt, Failure, Step,
    effect::{
        Status,
        undo::{MAX_UNDOS, Undo, Undoer, Undos},
    },
    kind,
};
use bowline_store::{ActorId, Store, Timestamp};
use futures::FutureExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Broken, Drive, Stop, calls::Finished};
use crate::{
    approval::Decision,
    code::{
        CodeError, Registry,
        journal::{self, Coded, Reversible},
        outcome::{self, Ending},
        registry,
        runs::{self, CallState},
    },
    input::Input,
    instance::AgentInstance,
    program::store_failure,
    record::{Fact, Signal},
    tool::ToolContext,
    turn::tools::CALL_TIMEOUT,
};

impl Drive<'_> {
    /// A call ended: how it is undone becomes durable with that.
    pub(super) async fn reversible(
        &mut self,
        step: &mut Step,
        done: &Finished,
    ) -> Result<(), Stop> {
        let (Some(effect_id), Some(made), Ok(result)) =
            (&done.effect_id, self.waiting.get(&done.id), &done.result)
        else {
            return Ok(());
        };
        let (namespace, method) = made.target();
        let found = self.mode.registry.find(namespace, method);
        if done.status() != Status::Done || !found.is_some_and(|(_, method)| method.reverts) {
            return Ok(());
        }
        let call = Reversible {
            namespace: namespace.to_owned(),
            method: method.to_owned(),
            arguments: made.arguments.iter().cloned().map(Coded).collect(),
            result: Coded(result.clone()),
        };
        let undo = Undo {
            effect_id: effect_id.clone(),
            name: made.path(),
            input: json!({"runId": self.head.run_id}),
            begun: false,
        };
        let mut undos = match self.undos.take() {
            Some(undos) => undos,
            None => Undos::load(&**self.attempt.store(), self.attempt.actor()).await?,
        };
        let oldest = undos.iter().next().map(|one| one.input.clone());
        if undos.len() >= MAX_UNDOS
            && let Some(oldest) = oldest.filter(|oldest| *oldest != undo.input)
        {
            // What the oldest run did stays done.
            for one in undos.forget_where(step, |one| one.input == oldest) {
                journal::forget_reversible(step, &one.effect_id);
            }
        }
        journal::put_reversible(step, effect_id, &call);
        undos.add(step, undo)?;
        self.undos = Some(undos);
        Ok(())
    }

    /// Why the run is to be rolled back, when a person said so.
    pub(super) fn to_roll_back(&self) -> Option<String> {
        let prefix = format!("{}#", self.call.id);
        let approvals = self.instance.conversation.approvals.values();
        let mut ours = approvals.filter(|one| one.tool_call_id.starts_with(&prefix));
        ours.find_map(|one| {
            let answer = one.answer.as_ref().filter(|answer| answer.rollback)?;
            debug_assert_eq!(answer.decision, Decision::Reject);
            let what = format!(
                "A person rejected {} and had what the code did outside undone.",
                one.tool_name
            );
            Some(match &answer.reason {
                Some(reason) => format!("{what} Reason: {reason}"),
                None => what,
            })
        })
    }

    /// Undoes what the run did outside. It does not need the program: that has ended.
    pub(super) async fn roll_back(&mut self, why: String) -> Result<Ending, Broken> {
        let (undone, kept) = undo(self.attempt, self.mode.registry, &self.head.run_id).await?;
        Ok(Ending::RolledBack { why, undone, kept })
    }
}

/// Somebody asked to undo what the last run did: the step tells the model.
pub(in crate::turn) async fn asked(
    instance: &mut AgentInstance,
    attempt: &Attempt,
) -> Result<Step, Stop> {
    let payload = attempt.submission().payload.clone();
    let wanted = match serde_json::from_value(payload) {
        Ok(Input::RollBack { run_id }) => run_id,
        Ok(Input::User { .. } | Input::Signal { .. } | Input::Compact { .. }) | Err(_) => None,
    };
    let named = wanted.is_some();
    let run_id = match wanted {
        Some(wanted) => Some(wanted),
        None => last(attempt).await?,
    };
    let rendered = instance.shared.rendered(instance.actor.name())?;
    let toolbox = instance.shared.toolbox(&rendered)?;
    let registry = match &toolbox.code {
        Some(registry) => Arc::clone(registry),
        None => Arc::new(Registry::without_tools(&rendered).map_err(Failure::from)?),
    };
    let (undone, kept) = match &run_id {
        Some(run_id) => undo(attempt, &registry, run_id).await?,
        None => (Vec::new(), Vec::new()),
    };
    let what = match run_id.filter(|_| named) {
        Some(run_id) => format!(
            "what the run of code {} did outside",
            outcome::cut(run_id, 64)
        ),
        None => "what the last run of code did outside".to_owned(),
    };
    let mut text = if undone.is_empty() {
        format!("A person asked to undo {what}. Nothing was undone.")
    } else {
        let list = undone.join(", ");
        format!("A person had undone {what}, in this order: {list}.")
    };
    if !kept.is_empty() {
        text = format!("{text} Not undone: {}.", kept.join("; "));
    }
    let told = Fact::Signal(Signal {
        message_id: instance.shared.sources.id("msg_"),
        parent_id: instance.conversation.leaf(),
        signal_type: "code_rolled_back".to_owned(),
        content: outcome::cut(text, outcome::RECORDED),
        attributes: BTreeMap::new(),
    });
    let mut step = Step::new();
    journal::forget_rolling(&mut step);
    let scope = instance.scope(attempt.submission(), Some(attempt.id()));
    instance.add(&mut step, [told], &scope);
    Ok(step)
}

/// The last run that did what can be undone. It is written down, so that after a crash it is the same.
async fn last(attempt: &Attempt) -> Result<Option<String>, Stop> {
    let (store, actor) = (attempt.store().clone(), attempt.actor().clone());
    let submission_id = &attempt.submission().id;
    if let Some(run_id) = journal::rolling(&*store, &actor, submission_id).await? {
        return Ok(Some(run_id));
    }
    let undos = Undos::load(&*store, &actor).await?;
    let last = undos.iter().next_back();
    let Some(run_id) = last.and_then(|undo| undo.input["runId"].as_str()) else {
        return Ok(None);
    };
    let mut step = Step::new();
    // A record, so that an owner which read the rows before cannot take the actor over.
    let body = json!({ "change": "undo begun" });
    step.record(kind::ACTOR_OPENED, attempt.now(), &body);
    journal::put_rolling(&mut step, submission_id, run_id);
    attempt.commit(step).await?;
    Ok(Some(run_id.to_owned()))
}

/// Undoes what a run did outside: what was undone, and what could not be and why.
pub(in crate::turn) async fn undo(
    attempt: &Attempt,
    registry: &Arc<Registry>,
    run_id: &str,
) -> Result<(Vec<String>, Vec<String>), Stop> {
    let (store, actor) = (attempt.store().clone(), attempt.actor().clone());
    let mut undos = Undos::load(&*store, &actor).await?;
    let reverts = Reverts {
        registry,
        store: store.clone(),
        actor: actor.clone(),
        now: attempt.now(),
    };
    let ours = |one: &Undo| one.input["runId"] == run_id;
    tokio::select! {
        biased;
        // One that was begun is begun again, with the same id.
        () = attempt.cancel().cancelled() => return Err(Stop::Cancelled),
        failed = undos.run_where(attempt, &reverts, ours) => failed?,
    };
    // What a process did that is no more is in the records too.
    let all = runs::of(&*store, &actor).await?;
    let mut undone = Vec::new();
    let mut kept = Vec::new();
    for call in all
        .into_iter()
        .filter(|run| run.run_id == run_id)
        .flat_map(|run| run.calls)
    {
        match call.state {
            CallState::Undone => undone.push(call.called.path),
            CallState::NotUndone => kept.push(call.not_undone.unwrap_or(call.called.path)),
            CallState::Waits | CallState::Done | CallState::Failed => {}
        }
    }
    undone.reverse();
    kept.reverse();
    Ok((undone, kept))
}

/// Undoes calls through their bindings.
struct Reverts<'a> {
    registry: &'a Arc<Registry>,
    store: Arc<dyn Store>,
    actor: ActorId,
    now: Timestamp,
}

#[async_trait]
impl Undoer for Reverts<'_> {
    fn ended(&self, undo: &Undo, step: &mut Step) {
        journal::forget_reversible(step, &undo.effect_id);
    }

    async fn undo(&self, undo: &Undo, undo_id: &str) -> Result<(), Failure> {
        let not = |why: String| {
            let path = undo.name.clone();
            Failure::from(CodeError::NotUndone { path, why })
        };
        let call = journal::reversible(&*self.store, &self.actor, &undo.effect_id).await;
        let call = call.map_err(|error| store_failure(&error))?;
        let call = call.ok_or_else(|| not("what it was given is not there any more".to_owned()))?;
        let found = self.registry.find(&call.namespace, &call.method);
        let Some((binding, method)) = found.filter(|(_, method)| method.reverts) else {
            let path = registry::path(&call.namespace, &call.method);
            return Err(not(format!("the agent has no {path} any more that can be")));
        };
        let context = ToolContext {
            call_id: undo.effect_id.clone(),
            effect_id: Some(undo_id.to_owned()),
            files: None,
            shell: None,
            history: None,
            now: self.now,
            cancel: CancellationToken::new(),
        };
        let arguments: Vec<_> = call
            .arguments
            .into_iter()
            .map(|Coded(value)| value)
            .collect();
        let revert = binding.revert(&context, &method.name, &arguments, &call.result.0);
        let revert = AssertUnwindSafe(revert).catch_unwind();
        match tokio::time::timeout(CALL_TIMEOUT, revert).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(not(error.to_string())),
            Ok(Err(_)) => Err(not("it crashed".to_owned())),
            Err(_) => {
                context.cancel.cancel();
                let seconds = CALL_TIMEOUT.as_secs();
                Err(not(format!("it timed out after {seconds} seconds")))
            }
        }
    }
}
