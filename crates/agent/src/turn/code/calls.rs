//! What becomes of a call that a program made.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bowline_runtime::effect::{Intended, Status};
use bowline_sandbox::{
    isolate::{Answer, Target, Thrown, Value},
    workspace::Overlay,
};
use bowline_store::{StoreError, Timestamp};
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::{Drive, Question, Ready, Stop};
use crate::{
    approval::{self, Approval, Decision},
    binding::{Binding, CallError, Method},
    code::{
        CODEMODE, Discovery,
        journal::{CallId, Coded, Waiting},
        own, registry,
    },
    tool::{Effect, OnCrash, ToolContext, elided::History},
    turn::{
        consent::{Consent, consent},
        tools::CALL_TIMEOUT,
    },
};

/// A call that a program made and that has no answer.
pub(super) struct Made {
    /// When a timer is due; nothing for a call.
    due: Option<(Instant, Timestamp)>,
    namespace: String,
    method: String,
    pub(super) arguments: Vec<Value>,
    pub(super) made: Timestamp,
    pub(super) took: Duration,
    /// What a person said.
    pub(super) approval: Option<&'static str>,
    pub(super) effect_id: Option<String>,
    /// It waits for a person.
    pub(super) asked: Option<Asked>,
}

/// What a person is asked about a call.
#[derive(Clone)]
pub(super) enum Asked {
    /// It was put to a person; it ends then.
    Waits(Timestamp),
    /// It has to be put to a person when the run is parked.
    Asks {
        arguments: Json,
        question: Option<Question>,
        effect_id: Option<String>,
    },
}

impl Made {
    pub(super) fn new(target: Target, now: Timestamp) -> Self {
        let (due, namespace, method, arguments) = match target {
            Target::Binding {
                namespace,
                method,
                arguments,
            } => (None, namespace, method, arguments),
            Target::Timer { after } => {
                let due = (Instant::now() + after, now.after(after));
                (Some(due), String::new(), String::new(), Vec::new())
            }
        };
        Self {
            due,
            namespace,
            method,
            arguments,
            made: now,
            took: Duration::ZERO,
            approval: None,
            effect_id: None,
            asked: None,
        }
    }

    /// One that a saved program waits for.
    pub(super) fn of(saved: Waiting, now: Timestamp) -> Self {
        let due = saved.due.map(|at| (Instant::now() + at.since(now), at));
        Self {
            due,
            namespace: saved.namespace,
            method: saved.method,
            arguments: saved
                .arguments
                .into_iter()
                .map(|Coded(value)| value)
                .collect(),
            made: saved.made,
            took: Duration::ZERO,
            approval: None,
            effect_id: None,
            asked: None,
        }
    }

    pub(super) fn saved(&self, id: CallId) -> Waiting {
        Waiting {
            id,
            due: self.due.map(|(_, at)| at),
            namespace: self.namespace.clone(),
            method: self.method.clone(),
            arguments: self.arguments.iter().cloned().map(Coded).collect(),
            made: self.made,
        }
    }

    /// Has a timer fire when it was due at first.
    pub(super) fn arm(&mut self, now: Timestamp) {
        self.due = self.due.map(|(_, at)| (Instant::now() + at.since(now), at));
    }

    pub(super) fn is_timer(&self) -> bool {
        self.due.is_some()
    }

    /// The namespace and the method; empty for a timer.
    pub(super) fn target(&self) -> (&str, &str) {
        (&self.namespace, &self.method)
    }

    /// `binding.method`; empty for a timer.
    pub(super) fn path(&self) -> String {
        if self.is_timer() {
            return String::new();
        }
        registry::path(&self.namespace, &self.method)
    }
}

/// A call that returned.
pub(super) struct Finished {
    pub(super) id: CallId,
    pub(super) result: Result<Value, CallError>,
    pub(super) took: Duration,
    /// The files of a local call that returned; its writes are kept.
    pub(super) files: Option<Overlay>,
    pub(super) effect_id: Option<String>,
}

impl Finished {
    /// What the program gets.
    pub(super) fn answer(&self) -> Result<Answer, StoreError> {
        match &self.result {
            Ok(value) => Ok(Answer::Value(value.clone())),
            Err(CallError::Thrown(thrown)) => Ok(Answer::Error((**thrown).clone())),
            Err(CallError::Store(error)) => Err(error.clone()),
        }
    }

    pub(super) fn status(&self) -> Status {
        if self.result.is_ok() {
            Status::Done
        } else {
            Status::Failed
        }
    }
}

/// What happens to a call.
enum Next {
    Answer(Result<Value, Thrown>),
    Waits(Asked),
    Local,
    Beside,
    /// A durable tool, with what it is given.
    Part(Value),
    /// With an outside effect; true when the intent is not written down.
    Outside(Intended, bool),
    /// It was intended before and must not be done again.
    Closed(Intended, Status),
}

/// An error of ours, which the program can catch.
fn thrown(name: &str, message: impl Into<String>) -> Next {
    Next::Answer(Err(Thrown::new(name, message)))
}

impl Drive<'_> {
    /// What ties an effect or an approval to a call.
    pub(super) fn key_of(&self, id: CallId) -> String {
        format!("{}#{id}", self.call.id)
    }

    /// The timer that is due first.
    pub(super) fn next_timer(&self) -> Option<(Instant, CallId)> {
        let due = |(id, made): (&CallId, &Made)| Some((made.due?.0, *id));
        self.waiting.iter().filter_map(due).min()
    }

    /// Decides what happens to a call that the program made.
    pub(super) fn decide(&mut self, id: CallId) {
        if id.tool() == 0 && self.parts.contains_key(&id.number()) {
            return;
        }
        let Some(mut made) = self.waiting.remove(&id) else {
            return;
        };
        if !made.is_timer() {
            match self.next(id, &mut made) {
                Next::Answer(answer) => {
                    let answer = answer.map_or_else(Answer::Error, Answer::Value);
                    self.ready.push_back(Ready {
                        id,
                        answer,
                        journaled: None,
                    });
                }
                Next::Waits(asked) => made.asked = Some(asked),
                Next::Part(input) => self.starting.push_back((id.number(), input)),
                Next::Local => self.local.push_back(id),
                Next::Beside => {
                    self.waiting.insert(id, made);
                    let work = self.act(id, None, None);
                    self.beside.extend(work);
                    return;
                }
                Next::Outside(intended, new) => {
                    made.effect_id = Some(intended.effect_id.clone());
                    self.outside.push_back((id, intended, new));
                }
                Next::Closed(intended, status) => {
                    made.effect_id = Some(intended.effect_id.clone());
                    self.closed.push((id, intended, status));
                }
            }
        }
        self.waiting.insert(id, made);
    }

    fn next(&self, id: CallId, made: &mut Made) -> Next {
        if made.namespace == CODEMODE {
            let discovery = Discovery(self.mode.registry);
            return Next::Answer(discovery.answer(&made.method, &made.arguments));
        }
        let Some((binding, method)) = self.mode.registry.find(&made.namespace, &made.method) else {
            let what = format!("{} is not there any more", made.path());
            return thrown("TypeError", what);
        };
        let key = self.key_of(id);
        let approval = self.instance.conversation.approvals.get(&key);
        let cut = self.instance.effects.iter().find(|open| open.cause == key);
        if let Some(edited) = approval.and_then(|one| one.answer.as_ref()?.arguments.as_ref()) {
            made.arguments = registry::positional(method, edited);
            made.approval = Some("edited");
        } else if let Some(answer) = approval.and_then(|one| one.answer.as_ref()) {
            made.approval = Some(match answer.decision {
                Decision::Approve => "approved",
                Decision::Reject => "rejected",
                Decision::Answer => "answered",
                Decision::Expire => "expired",
                Decision::Withdraw => "withdrawn",
            });
        }
        if let Some(cut) = cut {
            return self.again(made, method, cut, approval);
        }
        let question = match binding.asks(&made.method, &made.arguments) {
            Ok(question) => question,
            Err(CallError::Thrown(error)) => return Next::Answer(Err(*error)),
            Err(CallError::Store(error)) => return thrown("Error", error.to_string()),
        };
        let named = registry::named(method, &made.arguments);
        let policy = registry::policy(self.mode.definition, &made.namespace, method);
        match consent(policy, approval, named, question.is_some()) {
            Consent::Given(_) => match self.mode.registry.durable(&made.namespace, &made.method) {
                // The arguments may be those that a person changed.
                Some((_, tool)) => match tool.validate(&own::argument(&made.arguments)) {
                    Ok(input) => Next::Part(Value::from(input)),
                    Err(text) => thrown("TypeError", text),
                },
                None => self.go(&key, &made.path(), binding, method),
            },
            Consent::Answered(text) => Next::Answer(Ok(Value::from(json!({ "answer": text })))),
            Consent::Refused(text) => thrown("ApprovalError", text),
            Consent::Open(until) => Next::Waits(Asked::Waits(until)),
            Consent::Ask(arguments) => Next::Waits(Asked::Asks {
                arguments,
                question,
                effect_id: None,
            }),
        }
    }

    /// A call that may be made.
    fn go(&self, key: &str, path: &str, binding: &Arc<dyn Binding>, method: &Method) -> Next {
        match method.effect {
            Effect::None if binding.beside(&method.name) => Next::Beside,
            Effect::None => Next::Local,
            Effect::Outside(on_crash) => {
                let intended = Intended {
                    effect_id: self.instance.shared.sources.id("eff_"),
                    cause: key.to_owned(),
                    name: path.to_owned(),
                    on_crash,
                    time: self.instance.shared.sources.now(),
                };
                Next::Outside(intended, true)
            }
        }
    }

    /// A call whose effect was intended before a crash, and never settled. There was consent to it.
    fn again(
        &self,
        made: &Made,
        method: &Method,
        cut: &Intended,
        approval: Option<&Approval>,
    ) -> Next {
        match cut.on_crash {
            OnCrash::Retry => Next::Outside(cut.clone(), false),
            OnCrash::Unknown => Next::Closed(cut.clone(), Status::Unknown),
            OnCrash::Ask => match approval.filter(|one| one.effect_id.is_some()) {
                None => {
                    let definition = self.mode.definition;
                    let name = registry::shown(definition, &made.namespace, &made.method);
                    Next::Waits(Asked::Asks {
                        arguments: registry::named(method, &made.arguments),
                        question: Some(approval::about_effect(&name)),
                        effect_id: Some(cut.effect_id.clone()),
                    })
                }
                Some(approval) => match &approval.answer {
                    None => Next::Waits(Asked::Waits(approval.expires_at)),
                    Some(answer) => match approval::verdict(answer) {
                        None => Next::Outside(cut.clone(), false),
                        Some(status) => Next::Closed(cut.clone(), status),
                    },
                },
            },
        }
    }

    /// The approval of a call that has to be put to a person; its end, when it was put before.
    pub(super) fn ask(&self, id: CallId, made: &Made) -> Option<Result<Approval, Timestamp>> {
        let (arguments, question, effect_id) = match made.asked.clone()? {
            Asked::Waits(until) => return Some(Err(until)),
            Asked::Asks {
                arguments,
                question,
                effect_id,
            } => (arguments, question, effect_id),
        };
        let definition = self.mode.definition;
        let said = registry::said(definition, &made.namespace, &made.method);
        let expires = said.and_then(|name| definition.approvals_expire.get(name));
        let now = self.instance.shared.sources.now();
        Some(Ok(Approval {
            approval_id: self.instance.shared.sources.id("appr_"),
            submission_id: self.attempt.submission().id.clone(),
            tool_call_id: self.key_of(id),
            tool_name: registry::shown(definition, &made.namespace, &made.method),
            arguments,
            requested_at: now,
            expires_at: now.after(expires.copied().unwrap_or(approval::EXPIRES_AFTER)),
            question,
            effect_id,
            answer: None,
        }))
    }

    /// A local call: it works on an overlay of its own, which counts when it returns.
    pub(super) fn work(&self, id: CallId) -> Option<BoxFuture<'static, Finished>> {
        let files = self.running.files.as_ref().map(Overlay::child);
        let effect_id = self.waiting.get(&id)?.effect_id.clone();
        self.act(id, effect_id, Some(files))
    }

    /// Whether a call that acts outside works on the files too.
    pub(super) fn in_workspace(&self, id: CallId) -> bool {
        let found = self.waiting.get(&id).and_then(|made| {
            let (binding, method) = self.mode.registry.find(&made.namespace, &made.method)?;
            Some(binding.in_workspace(&method.name))
        });
        found.unwrap_or(false)
    }

    /// A call. It never panics and never takes longer than [`CALL_TIMEOUT`]. `files` is there for a local
    /// call, with the workspace if there is one.
    pub(super) fn act(
        &self,
        id: CallId,
        effect_id: Option<String>,
        files: Option<Option<Overlay>>,
    ) -> Option<BoxFuture<'static, Finished>> {
        let made = self.waiting.get(&id)?;
        let (binding, _) = self.mode.registry.find(&made.namespace, &made.method)?;
        let binding = Arc::clone(binding);
        let (method, arguments) = (made.method.clone(), made.arguments.clone());
        let shell = files.is_some().then(|| self.instance.shell.clone());
        let files = files.flatten();
        let context = ToolContext {
            call_id: self.key_of(id),
            effect_id: effect_id.clone(),
            files: files.clone(),
            shell,
            history: Some(History::new(
                self.attempt.store().clone(),
                self.attempt.actor().clone(),
            )),
            now: self.attempt.now(),
            cancel: match self.parts.get(&id.tool()) {
                Some(part) => part.cancel.child_token(),
                None => self.attempt.cancel().child_token(),
            },
        };
        let path = made.path();
        let work = async move {
            let began = Instant::now();
            let call = AssertUnwindSafe(binding.call(&context, &method, arguments)).catch_unwind();
            let failed = |what: String| (Err(CallError::new("Error", what)), false);
            let (result, returned) = match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(result)) => (result, true),
                Ok(Err(_)) => failed(format!("{path} crashed")),
                Err(_) => {
                    context.cancel.cancel();
                    failed(format!(
                        "{path} timed out after {} seconds",
                        CALL_TIMEOUT.as_secs()
                    ))
                }
            };
            Finished {
                id,
                result,
                took: began.elapsed(),
                files: files.filter(|_| returned),
                effect_id,
            }
        };
        Some(work.boxed())
    }

    /// The answer to a call whose effect was cut and is not done again.
    pub(super) fn cut(status: Status) -> Answer {
        match status {
            Status::Done => Answer::Value(Value::from("A person says that this was done.")),
            Status::Failed => Answer::Error(Thrown::new(
                "Error",
                "A person says that this was not done.",
            )),
            Status::Unknown => {
                let text = "The call was interrupted before it ended. Its outcome is not known.";
                Answer::Error(Thrown::new("InterruptedError", text))
            }
        }
    }

    /// Nothing can be done before somebody outside answers.
    pub(super) async fn park(&mut self) -> super::Broken {
        let mut until: Option<Timestamp> = None;
        let mut ask = Vec::new();
        for (id, made) in &self.waiting {
            let ends = match self.ask(*id, made) {
                None => continue,
                Some(Err(ends)) => ends,
                Some(Ok(approval)) => {
                    let ends = approval.expires_at;
                    ask.push(approval);
                    ends
                }
            };
            until = Some(until.map_or(ends, |first| first.min(ends)));
        }
        let Some(until) = until else {
            return bowline_sandbox::isolate::IsolateError::Deadlock.into();
        };
        approval::in_order(&mut ask);
        match self.parked(ask).await {
            Ok(step) => Stop::Parked { step, until }.into(),
            Err(broken) => broken,
        }
    }
}
