//! How one message stands, and ending it.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use bowline_runtime::{
    Settled, Submission,
    submission::{self, State as Stands},
};
use serde_json::{Value, json};

use super::{App, Refusal, Scope, Target, view::Parameters};
use crate::service::Reply;

/// Longest wait for an answer, in seconds.
const MOST_WAIT: usize = 60;

/// `GET …/submissions/{submission}?wait=30`: how it stands; with `wait`, once it is settled or the
/// seconds are over.
pub(super) async fn read(
    State(app): State<App>,
    target: Target,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    target.require(Scope::Read)?;
    let Query(query) = query?;
    let parameters = Parameters::of(query)?;
    let wait = parameters.number("wait", MOST_WAIT)?.unwrap_or(0);
    let id = target.last().to_owned();
    let open = match find(&app, &target, &id).await? {
        Found::Settled(settled) => return settled_as(&app, &target, &settled).await,
        Found::Open(open) => open,
    };
    if wait > 0 {
        let wait = Duration::from_secs(wait as u64);
        let reply = app.service().reply(&target.agent, &target.id, &id);
        tokio::select! {
            biased;
            reply = tokio::time::timeout(wait, reply) => {
                if let Ok(reply) = reply {
                    return Ok(Json(answered(&reply?)));
                }
            }
            () = app.draining().cancelled() => {}
        }
        return match find(&app, &target, &id).await? {
            Found::Settled(settled) => settled_as(&app, &target, &settled).await,
            Found::Open(open) => Ok(Json(stands(&open))),
        };
    }
    Ok(Json(stands(&open)))
}

enum Found {
    Settled(Box<Settled>),
    Open(Box<Submission>),
}

async fn find(app: &App, target: &Target, id: &str) -> Result<Found, Refusal> {
    let store = &**app.store();
    let open = submission::open(store, &target.actor).await?;
    if let Some(open) = open.into_iter().find(|open| open.id == id) {
        return Ok(Found::Open(Box::new(open)));
    }
    match submission::settled(store, &target.actor, id).await? {
        Some(settled) => Ok(Found::Settled(Box::new(settled))),
        None => Err(bowline_runtime::RuntimeError::UnknownSubmission(
            id.escape_debug().to_string(),
        )
        .into()),
    }
}

async fn settled_as(app: &App, target: &Target, settled: &Settled) -> Result<Json<Value>, Refusal> {
    let id = &settled.submission_id;
    let reply = app.service().reply(&target.agent, &target.id, id).await?;
    Ok(Json(answered(&reply)))
}

fn answered(reply: &Reply) -> Value {
    let mut answer = json!({
        "submissionId": reply.submission_id,
        "state": "settled",
        "outcome": reply.outcome,
        "text": reply.text,
        "usage": reply.used.usage,
        "costUsd": bowline_model::format_usd(reply.used.cost_micro_usd),
    });
    if let Some(error) = &reply.error {
        answer["error"] = json!(error);
    }
    answer
}

fn stands(open: &Submission) -> Value {
    let mut answer = json!({
        "submissionId": open.id,
        "acceptedAt": open.accepted_at,
        "attempts": open.attempts,
    });
    answer["state"] = match &open.state {
        Stands::Queued => json!("queued"),
        Stands::Running => json!("running"),
        Stands::Parked { until, .. } => {
            answer["until"] = json!(until);
            json!("parked")
        }
        Stands::Joined { host } => {
            answer["joined"] = json!(host);
            json!("joined")
        }
    };
    answer
}

/// `POST …/abort`: ends all that is open.
pub(super) async fn abort_all(
    State(app): State<App>,
    target: Target,
) -> Result<Json<Value>, Refusal> {
    target.require(Scope::Send)?;
    end(&app, &target, None).await
}

/// `POST …/submissions/{submission}/abort`: ends one.
pub(super) async fn abort_one(
    State(app): State<App>,
    target: Target,
) -> Result<Json<Value>, Refusal> {
    target.require(Scope::Send)?;
    let id = target.last().to_owned();
    find(&app, &target, &id).await?;
    end(&app, &target, Some(&id)).await
}

async fn end(app: &App, target: &Target, one: Option<&str>) -> Result<Json<Value>, Refusal> {
    // Nobody is woken for nothing.
    let there = app.store().head(&target.actor).await?.is_some();
    let aborted = there && app.service().abort(&target.agent, &target.id, one).await?;
    Ok(Json(json!({"aborted": aborted})))
}
