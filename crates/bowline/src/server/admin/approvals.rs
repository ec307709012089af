//! Calls that need consent, and questions: those that wait, and their answers.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::get,
};
use bowline_agent::{
    KIND,
    approval::{self, Answer, Answered, Approval, Decision},
};
use bowline_store::{ActorId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Access, App, Page, Paging, Parameters, Refusal, Scope, Target, Whose, there};
use crate::Error;

/// Most instances that are looked at for what waits.
const MOST_LOOKED: usize = 100_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/approvals", get(list))
        .route("/v1/approvals/{approval}", get(one).post(answer))
        .route("/v1/agents/{agent}/{id}/approvals", get(of_instance))
}

/// A call that needs consent, or a question.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalInfo {
    /// `appr_…`.
    approval_id: String,
    /// The agent that asks.
    agent: String,
    /// The conversation.
    id: String,
    /// The submission that waits.
    submission_id: String,
    /// The call.
    tool_call_id: String,
    /// The tool.
    tool_name: String,
    /// Its arguments, in full.
    #[schema(value_type = Object)]
    arguments: Value,
    /// When it was asked for.
    #[schema(format = DateTime)]
    requested_at: String,
    /// When the run goes on without an answer.
    #[schema(format = DateTime)]
    expires_at: String,
    /// What is asked, when it is a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    question: Option<Question>,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    answer: Option<Decided>,
}

/// A question.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    /// The question.
    text: String,
    /// The answers to choose from.
    choices: Vec<Choice>,
    /// Whether another text is an answer as well.
    free_text: bool,
}

/// One answer to choose.
#[derive(Serialize, ToSchema)]
pub(super) struct Choice {
    /// What is answered when it is chosen.
    label: String,
    /// What it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<String>,
}

/// What was decided.
#[derive(Serialize, ToSchema)]
pub(super) struct Decided {
    /// `approve`, `reject`, `answer`, `expire` or `withdraw`.
    #[schema(value_type = String)]
    decision: Decision,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// The arguments that were used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    arguments: Option<Value>,
    /// The answer to a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
}

/// Some calls and questions.
#[derive(Serialize, ToSchema)]
pub(super) struct ApprovalList {
    /// Oldest first.
    approvals: Vec<ApprovalInfo>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next: Option<String>,
}

fn describe(actor: &ActorId, approval: Approval) -> ApprovalInfo {
    let question = approval.question.map(|question| Question {
        text: question.text,
        free_text: question.free_text,
        choices: question
            .choices
            .into_iter()
            .map(|one| Choice {
                label: one.label,
                description: one.description,
            })
            .collect(),
    });
    let answer = approval.answer.map(|answer| Decided {
        decision: answer.decision,
        reason: answer.reason,
        arguments: answer.arguments,
        text: answer.text,
    });
    ApprovalInfo {
        approval_id: approval.approval_id,
        agent: actor.name().to_owned(),
        id: actor.key().to_owned(),
        submission_id: approval.submission_id,
        tool_call_id: approval.tool_call_id,
        tool_name: approval.tool_name,
        arguments: approval.arguments,
        requested_at: approval.requested_at.to_string(),
        expires_at: approval.expires_at.to_string(),
        question,
        answer,
    }
}

/// A page of approvals, by their ids.
fn page(mut found: Vec<ApprovalInfo>, paging: &Paging) -> ApprovalList {
    found.sort_by(|one, other| one.approval_id.cmp(&other.approval_id));
    if let Some(after) = &paging.after {
        found.retain(|one| one.approval_id > *after);
    }
    let more = found.len() > paging.limit;
    found.truncate(paging.limit);
    let last = found.last().filter(|_| more);
    ApprovalList {
        next: last.map(|last| last.approval_id.clone()),
        approvals: found,
    }
}

/// List what waits for a person
///
/// In all conversations of the agents that the caller may read.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals", params(
    Page,
    ("agent" = Option<String>, Query, description = "Only those of this agent"),
), responses(
    (status = 200, description = "What waits", body = ApprovalList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    parameters: Parameters,
) -> Result<Json<ApprovalList>, Refusal> {
    parameters.only(&["limit", "after", "agent"])?;
    let paging = Paging::of(&parameters)?;
    let only = parameters.get("agent");
    if let Some(agent) = only {
        access.require(Scope::Read, agent)?;
    }
    let store = &**app.store();
    // What waits for a person has a wake, at which it goes on without.
    let end = Timestamp::from_millis(i64::MAX);
    let mut waiting = Vec::new();
    for (actor, _) in store.due(end, MOST_LOOKED).await? {
        let asked = actor.kind() == KIND
            && only.is_none_or(|only| only == actor.name())
            && access.require(Scope::Read, actor.name()).is_ok();
        if asked {
            let open = approval::of(store, &actor).await?.into_iter();
            let open = open.filter(|one| one.answer.is_none());
            waiting.extend(open.map(|one| describe(&actor, one)));
        }
    }
    Ok(Json(page(waiting, &paging)))
}

/// List the approvals and questions of a conversation
///
/// Those that wait; with `answered=true` those that were answered as well.
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/approvals", tag = "approvals", params(
    Whose,
    Page,
    ("answered" = Option<bool>, Query, description = "Also those that were answered"),
), responses(
    (status = 200, description = "The approvals", body = ApprovalList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn of_instance(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<ApprovalList>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&["limit", "after", "answered"])?;
    let paging = Paging::of(&parameters)?;
    let all = parameters.flag("answered")?;
    there(&app, &target).await?;
    let found = approval::of(&**app.store(), &target.actor)
        .await?
        .into_iter();
    let found = found.filter(|one| all || one.answer.is_none());
    let found = found.map(|one| describe(&target.actor, one)).collect();
    Ok(Json(page(found, &paging)))
}

async fn find(
    app: &App,
    access: &Access,
    scope: Scope,
    id: &str,
) -> Result<(ActorId, Approval), Refusal> {
    let found = approval::find(&**app.store(), id).await?;
    let Some((actor, approval)) = found else {
        let what = "there is no approval or question with this id";
        return Err(Error::failure("approval_not_found", what, "").into());
    };
    access.require(scope, actor.name())?;
    Ok((actor, approval))
}

/// Show an approval or a question
#[utoipa::path(get, path = "/v1/approvals/{approval}", tag = "approvals", params(
    ("approval" = String, Path, description = "`appr_…`"),
), responses(
    (status = 200, description = "The approval", body = ApprovalInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    access: Access,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Json<ApprovalInfo>, Refusal> {
    parameters.only(&[])?;
    let (actor, approval) = find(&app, &access, Scope::Read, &id).await?;
    Ok(Json(describe(&actor, approval)))
}

/// What a person decides.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// The call may be made.
    Approve,
    /// The call must not be made, or the question is not answered.
    Reject,
    /// The question is answered.
    Answer,
}

/// An answer to an approval or a question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// What is decided.
    decision: Verdict,
    /// Why; the model reads it.
    #[serde(default)]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// With `approve`: the arguments to use instead.
    #[serde(default)]
    #[schema(value_type = Option<Object>, nullable = false)]
    arguments: Option<serde_json::Map<String, Value>>,
    /// With `answer`: a choice or its number, or any text where the question allows it.
    #[serde(default)]
    #[schema(nullable = false)]
    text: Option<String>,
    /// With `reject`: the run of code that made the call ends, and what it did outside is undone.
    #[serde(default)]
    rollback: bool,
}

/// What goes on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GoesOn {
    /// The submission that waited.
    submission_id: String,
}

/// Answer an approval or a question
///
/// Once, however often it is sent. The run goes on.
#[utoipa::path(post, path = "/v1/approvals/{approval}", tag = "approvals", params(
    ("approval" = String, Path, description = "`appr_…`"),
), request_body = Given, responses(
    (status = 200, description = "The run goes on", body = GoesOn),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn answer(
    State(app): State<App>,
    access: Access,
    Path(id): Path<String>,
    parameters: Parameters,
    body: Result<Json<Given>, JsonRejection>,
) -> Result<Json<GoesOn>, Refusal> {
    parameters.only(&[])?;
    find(&app, &access, Scope::Send, &id).await?;
    let Json(given) = body?;
    let (decision, edits, says) = match given.decision {
        Verdict::Approve => (Decision::Approve, true, false),
        Verdict::Reject => (Decision::Reject, false, false),
        Verdict::Answer => (Decision::Answer, false, true),
    };
    if (given.arguments.is_some() && !edits) || (given.text.is_some() && !says) {
        let what = "`arguments` go with `approve`, and `text` with `answer`";
        return Err(Refusal::InvalidRequest(what.to_owned()));
    }
    let answered = Answered {
        approval_id: id,
        answer: Answer {
            decision,
            reason: given.reason,
            arguments: given.arguments.map(Value::Object),
            text: given.text,
            rollback: given.rollback,
        },
    };
    let (_, submission_id) = app.service().answer(answered).await?;
    Ok(Json(GoesOn { submission_id }))
}
