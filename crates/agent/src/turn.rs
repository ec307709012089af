//! The loop: call the model, run its tools, until it has answered.
//!
//! The state is the conversation, and nothing else: each pass looks at what the records say comes
//! next, so an attempt that takes over goes on exactly where the last one was cut.

use std::sync::Arc;

use bowline_model::ModelError;
use bowline_runtime::{Attempt, Failure, Halt, Step, Submission, budget::Used};
use bowline_store::{StoreError, Timestamp};

use crate::{
    conversation::{MessageFacts, Next},
    definition::Limits,
    input::Input,
    instance::AgentInstance,
    program::store_failure,
};

mod call;
mod code;
mod compact;
mod consent;
mod money;
mod plan;
pub(crate) mod result;
mod tools;

/// Why an attempt ends without an answer.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A commit failed.
    Halted(Halt),
    /// It was cancelled.
    Cancelled,
    /// It waits for a person; the step holds what is not committed yet.
    Parked {
        /// What is committed together with the parking.
        step: Step,
        /// When it goes on without an answer.
        until: Timestamp,
    },
    /// It cannot be answered.
    Failed(Failure),
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Self {
        Self::Halted(halt)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(store_failure(&error))
    }
}

/// What the model is told of a call whose outcome nobody knows.
pub(crate) fn interrupted() -> String {
    r#"{"type":"interrupted","message":"The call was interrupted before it ended. Its outcome is not known."}"#.to_owned()
}

pub(crate) fn model_failure(error: &ModelError) -> Failure {
    Failure::new(error.code(), error.to_string(), error.hint())
}

/// Works on the submission until it is answered. The step that is returned holds the last message;
/// it is committed together with the settlement.
pub(crate) async fn run(instance: &mut AgentInstance, attempt: &Attempt) -> Result<Step, Stop> {
    let submission = attempt.submission().clone();
    if Input::is_roll_back(&submission.payload) {
        return code::rollback::asked(instance, attempt).await;
    }
    loop {
        if attempt.cancel().is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match instance.conversation.next(&submission.id) {
            Next::Input | Next::Repair => {
                let why = "the conversation is not in a state that an attempt can start from";
                return Err(Stop::Failed(Failure::new(
                    "internal_error",
                    why,
                    "please report it",
                )));
            }
            Next::Nothing if instance.conversation.is_requested(&submission.id) => {
                return Ok(Step::new());
            }
            Next::Nothing => {
                let waiting = joining(attempt).await?;
                if waiting.is_empty() {
                    return Ok(Step::new());
                }
                join(instance, attempt, Step::new(), &waiting).await?;
            }
            Next::RunTools {
                message_id,
                calls,
                truncated,
            } => {
                let batch = tools::Batch {
                    message_id,
                    calls,
                    truncated,
                    pending: Vec::new(),
                };
                tools::run(instance, attempt, batch).await?;
            }
            Next::Compact => {
                compact::asked(instance, attempt).await?;
                return Ok(Step::new());
            }
            Next::CallModel => {
                let waiting = joining(attempt).await?;
                if !waiting.is_empty() {
                    join(instance, attempt, Step::new(), &waiting).await?;
                }
                if let Some(step) = think(instance, attempt, &submission).await? {
                    return Ok(step);
                }
            }
        }
    }
}

/// One model call and what it asks for. `Some` when the answer is complete.
async fn think(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    submission: &Submission,
) -> Result<Option<Step>, Stop> {
    let rendered = Arc::new(instance.shared.rendered(instance.actor.name())?);
    within(
        &rendered.definition.limits,
        instance.conversation.used(&submission.id),
    )?;
    let mut parent = instance.conversation.leaf();
    let notices = instance.narrate(&rendered, &mut parent);
    if !notices.is_empty() {
        let mut step = Step::new();
        let scope = instance.scope(submission, Some(attempt.id()));
        instance.add(&mut step, notices, &scope);
        let records = attempt.commit(step).await?;
        bowline_runtime::Instance::apply(instance, &records)?;
    }
    let chain = instance.shared.chain(&rendered)?;
    let (at, tried) = money::failures(instance, &submission.id);
    let at = instance.shared.rested(&chain, at);
    let resolved = chain[at].clone();
    let toolbox = instance.shared.toolbox(&rendered)?;
    let fill = compact::measure(instance, &rendered, &resolved, &toolbox).await?;
    if compact::ahead(instance, attempt, &rendered, &resolved, &fill).await? {
        return Ok(None);
    }
    let asked = call::Asked {
        rendered: &rendered,
        resolved: &resolved,
        tools: toolbox.specs.clone(),
        tried,
        last: at + 1 == chain.len(),
        room: fill.room(),
    };
    let Some(answer) = call::call(instance, attempt, &asked).await? else {
        return Ok(None);
    };
    let calls: Vec<_> = answer.message.tool_calls().cloned().collect();
    // What the model asks for is done as the agent was when it was asked.
    instance.turn = (!calls.is_empty()).then(|| rendered.clone());
    let truncated = answer.message.stop == bowline_model::StopReason::Length;
    let facts = MessageFacts {
        message_id: &answer.message_id,
        parent_id: instance.conversation.leaf(),
        started: answer.started,
        message: &answer.message,
        cost_micro_usd: answer.cost_micro_usd,
        timing: Some(answer.timing),
        error: None,
        interrupted: false,
        continues: answer.continues,
    };
    let facts = facts.facts();
    if calls.is_empty() {
        let mut step = Step::new();
        let scope = instance.scope(submission, Some(attempt.id()));
        instance.add(&mut step, facts, &scope);
        step.rows.extend(answer.rows);
        let schema = rendered.definition.result.as_ref();
        let model = &answer.message.model;
        let begun = instance.conversation.begun(&submission.id, model);
        let begun = begun.filter(|_| answer.continues).unwrap_or_default();
        let text = begun + &answer.message.text();
        let wrong = schema.and_then(|schema| result::problem(schema, &text));
        if let Some(wrong) = wrong {
            let id = instance.shared.sources.id("msg_");
            let parent = Some(answer.message_id);
            let told = result::tell(&instance.conversation, &submission.id, wrong, id, parent);
            instance.add(&mut step, told.as_ref().ok().cloned(), &scope);
            let records = attempt.commit(step).await?;
            bowline_runtime::Instance::apply(instance, &records)?;
            told?;
            return Ok(None);
        }
        let waiting = joining(attempt).await?;
        if waiting.is_empty() {
            return Ok(Some(step));
        }
        join(instance, attempt, step, &waiting).await?;
        return Ok(None);
    }
    let batch = tools::Batch {
        message_id: answer.message_id,
        calls,
        truncated,
        pending: facts
            .into_iter()
            .map(|fact| tools::Pending::Fact(Box::new(fact)))
            .chain(answer.rows.into_iter().map(tools::Pending::Row))
            .collect(),
    };
    tools::run(instance, attempt, batch).await?;
    Ok(None)
}

/// The submissions that wait and may join this response: those before the first one that asks for
/// something else than an answer.
async fn joining(attempt: &Attempt) -> Result<Vec<Submission>, Stop> {
    let waiting = attempt.waiting().await?;
    let answered =
        |one: &Submission| !Input::is_compact(&one.payload) && !Input::is_roll_back(&one.payload);
    Ok(waiting.into_iter().take_while(answered).collect())
}

/// Commits a step together with the inputs of submissions that waited: they join this response.
async fn join(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    mut step: Step,
    waiting: &[Submission],
) -> Result<(), Stop> {
    let mut parent = instance.conversation.leaf();
    for submission in waiting {
        let facts = instance.input(submission, &mut parent);
        instance.add(&mut step, facts, &instance.scope(submission, None));
    }
    let records = attempt.commit_joining(step, waiting).await?;
    bowline_runtime::Instance::apply(instance, &records)?;
    Ok(())
}

fn within(limits: &Limits, used: crate::conversation::Used) -> Result<(), Failure> {
    // Attempts, time and depth are enforced where they are counted.
    let used = Used {
        turns: used.calls,
        tool_calls: used.tool_calls,
        tokens: used.usage.total(),
        spend_usd: used.cost_micro_usd,
        ..Used::default()
    };
    Ok(limits.check(&used)?)
}
