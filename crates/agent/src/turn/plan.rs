//! What happens to each call of a batch.

use std::{collections::VecDeque, sync::Arc};

use bowline_model::ToolCall;
use bowline_runtime::{
    Attempt,
    effect::{Intended, OnCrash, Status},
};
use bowline_store::Timestamp;
use serde_json::Value;

use super::{
    code::Job,
    consent::{Consent, consent},
    tools::Batch,
};
use crate::{
    approval::{self, Approval, EXPIRES_AFTER, Question},
    definition::Definition,
    instance::AgentInstance,
    tool::{Effect, Mounted},
};

/// A call that can be run.
pub(super) struct Planned {
    pub(super) call: ToolCall,
    pub(super) tool: Mounted,
    pub(super) arguments: Value,
    /// That of its outside effect, whose intent is written down.
    pub(super) effect_id: Option<String>,
}

/// Sorted by what happens to them.
#[derive(Default)]
pub(super) struct Plan {
    /// Calls that cannot be run, with what the model is told.
    pub(super) refused: Vec<(ToolCall, String)>,
    /// Questions with their answers.
    pub(super) answered: Vec<(ToolCall, String)>,
    /// Calls that work on the files, one after the other. Of those that act outside too, each is a
    /// commit of its own.
    pub(super) local: VecDeque<Planned>,
    pub(super) outside: VecDeque<Planned>,
    /// Code that is run, one after the other.
    pub(super) code: Vec<(ToolCall, Job)>,
    /// Effects that were intended before and must not be done again: what is known of them, and what
    /// the model is told.
    pub(super) closed: Vec<(ToolCall, Intended, Status)>,
    /// Intents that are not written down yet.
    pub(super) new: Vec<Intended>,
    /// Requests for consent that are not written down yet.
    pub(super) ask: Vec<Approval>,
    /// When the first of the open requests for consent ends.
    pub(super) until: Option<Timestamp>,
}

/// What happens to one call.
enum Fate {
    /// It is not run; the model is told why.
    Refused(String),
    /// It is a question, and this is the answer.
    Answered(String),
    /// It was put to a person, and nobody has answered; it ends then.
    Waits(Timestamp),
    /// It has to be put to a person.
    Asks(Box<Approval>),
    /// It was intended before and must not be done again.
    Closed(Intended, Status),
    /// It is code.
    Code(Job),
    /// It is run with these arguments; again, when it was intended before.
    Runs(Mounted, Value, Option<Intended>),
}

/// Decides what happens to each call of a batch that has no result.
pub(super) fn plan(
    instance: &AgentInstance,
    definition: &Definition,
    tools: &[Mounted],
    batch: &Batch,
    attempt: &Attempt,
) -> Plan {
    let mut plan = Plan::default();
    for call in &batch.calls {
        if instance.conversation.outcomes.contains_key(&call.id) {
            continue;
        }
        match fate(instance, definition, tools, batch, call, attempt) {
            Fate::Refused(text) => plan.refused.push((call.clone(), text)),
            Fate::Answered(text) => plan.answered.push((call.clone(), text)),
            Fate::Waits(until) => plan.waits(until),
            Fate::Asks(approval) => {
                plan.waits(approval.expires_at);
                plan.ask.push(*approval);
            }
            Fate::Closed(intended, status) => plan.closed.push((call.clone(), intended, status)),
            Fate::Code(job) => plan.code.push((call.clone(), job)),
            Fate::Runs(tool, arguments, before) => {
                let intended = match (tool.tool.effect(), before) {
                    (_, Some(intended)) => Some(intended),
                    (Effect::None, None) => None,
                    (Effect::Outside(on_crash), None) => {
                        let intended = Intended {
                            effect_id: instance.shared.sources.id("eff_"),
                            cause: call.id.clone(),
                            name: call.name.clone(),
                            on_crash,
                            time: instance.shared.sources.now(),
                        };
                        plan.new.push(intended.clone());
                        Some(intended)
                    }
                };
                let queue = match &intended {
                    Some(_) if !tool.tool.in_workspace() => &mut plan.outside,
                    Some(_) | None => &mut plan.local,
                };
                queue.push_back(Planned {
                    call: call.clone(),
                    tool,
                    arguments,
                    effect_id: intended.map(|intended| intended.effect_id),
                });
            }
        }
    }
    plan
}

fn fate(
    instance: &AgentInstance,
    definition: &Definition,
    tools: &[Mounted],
    batch: &Batch,
    call: &ToolCall,
    attempt: &Attempt,
) -> Fate {
    let name = &call.name;
    if batch.truncated {
        return Fate::Refused(format!(
            "Tool call \"{name}\" was not executed: the response hit the output token limit."
        ));
    }
    let Some(tool) = tools.iter().find(|tool| tool.name() == name) else {
        return Fate::Refused(format!("Tool \"{name}\" not found"));
    };
    if let Some(text) = &call.invalid_arguments {
        let shown: String = text.chars().take(2_000).collect();
        return Fate::Refused(format!(
            "The arguments of \"{name}\" are not a JSON object:\n{shown}"
        ));
    }
    let arguments = match tool.validate(&call.arguments) {
        Ok(arguments) => arguments,
        Err(text) => return Fate::Refused(text),
    };
    if definition.code.is_some() && name == crate::code::TOOL {
        let source = arguments["code"].as_str().unwrap_or_default();
        return Fate::Code(Job::Code(source.to_owned()));
    }
    let asks = |arguments: Value, question: Option<Question>, effect_id: Option<String>| {
        let now = instance.shared.sources.now();
        let expires = definition.approvals_expire.get(name);
        Fate::Asks(Box::new(Approval {
            approval_id: instance.shared.sources.id("appr_"),
            submission_id: attempt.submission().id.clone(),
            tool_call_id: call.id.clone(),
            tool_name: name.clone(),
            arguments,
            requested_at: now,
            expires_at: now.after(expires.copied().unwrap_or(EXPIRES_AFTER)),
            question,
            effect_id,
            answer: None,
        }))
    };
    let approval = instance.conversation.approvals.get(&call.id);
    let open = instance.effects.iter().find(|open| open.cause == call.id);
    if let Some(open) = open {
        // It was begun, so there was consent to it, perhaps with other arguments.
        let arguments = approval.map_or(arguments, |approval| approval.granted().clone());
        return match open.on_crash {
            OnCrash::Retry => Fate::Runs(tool.clone(), arguments, Some(open.clone())),
            OnCrash::Unknown => Fate::Closed(open.clone(), Status::Unknown),
            OnCrash::Ask => match approval.filter(|one| one.effect_id.is_some()) {
                None => {
                    let question = approval::about_effect(name);
                    asks(arguments, Some(question), Some(open.effect_id.clone()))
                }
                Some(approval) => match &approval.answer {
                    None => Fate::Waits(approval.expires_at),
                    Some(answer) => match approval::verdict(answer) {
                        None => Fate::Runs(tool.clone(), arguments, Some(open.clone())),
                        Some(status) => Fate::Closed(open.clone(), status),
                    },
                },
            },
        };
    }
    let question = match tool.tool.asks(&arguments) {
        Ok(question) => question,
        Err(error) => return Fate::Refused(error.to_string()),
    };
    let policy = definition.approvals.get(name);
    match consent(policy, approval, arguments, question.is_some()) {
        Consent::Given(arguments) => match definition.durable(name) {
            Some(script) => Fate::Code(Job::Script(Arc::clone(script), arguments)),
            None => Fate::Runs(tool.clone(), arguments, None),
        },
        Consent::Answered(text) => Fate::Answered(text),
        Consent::Refused(text) => Fate::Refused(text),
        Consent::Open(until) => Fate::Waits(until),
        Consent::Ask(arguments) => asks(arguments, question, None),
    }
}

impl Plan {
    fn waits(&mut self, until: Timestamp) {
        self.until = Some(self.until.map_or(until, |first| first.min(until)));
    }
}
