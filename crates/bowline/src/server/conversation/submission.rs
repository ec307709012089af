//! How one message stands, and ending it.

use std::time::Duration;

use axum::{Json, extract::State};
use bowline_runtime::{
    Settled, Submission,
    submission::{self, State as Stands},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Parameters, Refusal, Scope, Target, described::Whose};
use crate::{
    server::wire::{Ending, Problem, Tokens},
    service::Reply,
};

/// Longest wait for an answer, in seconds.
const MOST_WAIT: usize = 60;

/// Show how a message stands
///
/// With `wait`, once it is settled or the seconds are over.
#[utoipa::path(get, path = "/agents/{agent}/{id}/submissions/{submission}", tag = "conversations", operation_id = "submission", params(
    Whose,
    ("submission" = String, Path, description = "Which one, `sub_…`"),
    ("wait" = Option<u32>, Query, description = "Seconds to wait at most", minimum = 1, maximum = 60),
), responses(
    (status = 200, description = "How it stands", body = Standing),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(in crate::server) async fn read(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<Standing>, Refusal> {
    target.require(Scope::Read)?;
    let wait = parameters.number("wait", MOST_WAIT)?.unwrap_or(0);
    let id = target.last().to_owned();
    let open = match find(&app, &target, &id).await? {
        Found::Settled(settled) => return settled_as(&app, &target, &settled).await,
        Found::Open(open) => open,
    };
    if wait > 0 {
        app.may_wait()?;
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

/// Where a submission stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum Place {
    /// It waits for its turn.
    Queued,
    /// It is being answered.
    Running,
    /// It waits for a person, a time or an event.
    Parked,
    /// The answer to another one answers it too.
    Joined,
    /// It came to its end.
    Settled,
}

/// How a submission stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server) struct Standing {
    /// Which one, `sub_…`.
    submission_id: String,
    /// Where it stands.
    state: Place,
    /// When it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    accepted_at: Option<String>,
    /// When it settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    settled_at: Option<String>,
    /// Attempts that were begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<u32>,
    /// When a parked one goes on without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    until: Option<String>,
    /// The submission whose answer answers this one too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    joined: Option<String>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcome: Option<Ending>,
    /// The text of the answer; only of one that is asked for by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
    /// What it used; only of one that is asked for by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    usage: Option<Tokens>,
    /// What it cost in US dollars, as far as prices are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cost_usd: Option<String>,
    /// Why it was not completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<Problem>,
}

impl Standing {
    fn new(id: &str) -> Self {
        Self {
            submission_id: id.to_owned(),
            state: Place::Settled,
            accepted_at: None,
            settled_at: None,
            attempts: None,
            until: None,
            joined: None,
            outcome: None,
            text: None,
            usage: None,
            cost_usd: None,
            error: None,
        }
    }
}

/// What became of a request to abort.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::server) struct Aborted {
    /// True when there was something to abort; its settlement follows.
    aborted: bool,
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

async fn settled_as(
    app: &App,
    target: &Target,
    settled: &Settled,
) -> Result<Json<Standing>, Refusal> {
    let id = &settled.submission_id;
    let reply = app.service().reply(&target.agent, &target.id, id).await?;
    Ok(Json(answered(&reply)))
}

fn answered(reply: &Reply) -> Standing {
    Standing {
        state: Place::Settled,
        outcome: Some(reply.outcome.into()),
        text: Some(reply.text.clone()),
        usage: Some(reply.used.usage.into()),
        cost_usd: Some(bowline_model::format_usd(reply.used.cost_micro_usd)),
        error: reply.error.clone().map(Into::into),
        ..Standing::new(&reply.submission_id)
    }
}

/// How an open one stands.
pub(in crate::server) fn stands(open: &Submission) -> Standing {
    let (mut until, mut joined) = (None, None);
    let state = match &open.state {
        Stands::Queued => Place::Queued,
        Stands::Running => Place::Running,
        Stands::Parked { until: end, .. } => {
            until = Some(end.to_string());
            Place::Parked
        }
        Stands::Joined { host } => {
            joined = Some(host.clone());
            Place::Joined
        }
    };
    Standing {
        state,
        accepted_at: Some(open.accepted_at.to_string()),
        attempts: Some(open.attempts),
        until,
        joined,
        ..Standing::new(&open.id)
    }
}

/// How one ended, without its answer.
pub(in crate::server) fn ended(settled: &Settled) -> Standing {
    Standing {
        accepted_at: Some(settled.accepted_at.to_string()),
        settled_at: Some(settled.settled_at.to_string()),
        outcome: Some(settled.outcome.into()),
        error: settled.error.clone().map(Into::into),
        joined: settled.answered_by_submission_id.clone(),
        ..Standing::new(&settled.submission_id)
    }
}

/// End all that is open
#[utoipa::path(post, path = "/agents/{agent}/{id}/abort", tag = "conversations", operation_id = "abort", params(Whose), responses(
    (status = 200, description = "Whether there was something to abort", body = Aborted),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(super) async fn abort_all(
    State(app): State<App>,
    target: Target,
) -> Result<Json<Aborted>, Refusal> {
    target.require(Scope::Send)?;
    end(&app, &target, None).await
}

/// End one message
#[utoipa::path(post, path = "/agents/{agent}/{id}/submissions/{submission}/abort", tag = "conversations", operation_id = "abort_one", params(
    Whose,
    ("submission" = String, Path, description = "Which one, `sub_…`"),
), responses(
    (status = 200, description = "Whether there was something to abort", body = Aborted),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(in crate::server) async fn abort_one(
    State(app): State<App>,
    target: Target,
) -> Result<Json<Aborted>, Refusal> {
    target.require(Scope::Send)?;
    let id = target.last().to_owned();
    find(&app, &target, &id).await?;
    end(&app, &target, Some(&id)).await
}

async fn end(app: &App, target: &Target, one: Option<&str>) -> Result<Json<Aborted>, Refusal> {
    // Nobody is woken for nothing.
    let there = app.store().head(&target.actor).await?.is_some();
    let aborted = there && app.service().abort(&target.agent, &target.id, one).await?;
    Ok(Json(Aborted { aborted }))
}
