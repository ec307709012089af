//! The conversations of the agents, one by one.

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use bowline_agent::{KIND, actor, feed, load_after};
use bowline_runtime::submission::{self, State as Stands, Submission};
use bowline_store::{ActorId, StoreError};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Access, App, Page, Paging, Parameters, Refusal, Scope, Target, Whose, conversation, there,
};
use crate::{
    server::conversation::{Fork, Forked, Standing, stands},
    standing,
};

/// Most instances that one page looks at, while it searches.
const MOST_LOOKED: usize = 10_000;
/// Instances read at once.
const PAGE: usize = 500;
/// Records at the end of a quiet conversation among which its last settlement is looked for.
const LAST: u64 = 64;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/instances", get(list))
        .route("/v1/agents/{agent}/{id}", get(one).delete(delete))
        .route("/v1/agents/{agent}/{id}/export", get(export))
        .route("/v1/agents/{agent}/{id}/fork", post(fork))
        .route("/v1/agents/{agent}/{id}/why", get(why))
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Doing {
    /// Nothing is open.
    Idle,
    /// It answers, or is about to.
    Running,
    /// It waits for a person, a time or an event.
    Parked,
}

/// A conversation, in short.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceInfo {
    /// The agent.
    agent: String,
    /// The conversation.
    id: String,
    /// Its incarnation, `inst_…`.
    uid: String,
    /// `conv_…`.
    conversation_id: String,
    /// When it began.
    #[schema(format = DateTime)]
    created_at: String,
    /// What it is doing.
    state: Doing,
    /// How many submissions are open.
    open: usize,
    /// Its last record.
    seq: u64,
    /// When it does something by itself next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    wakes_at: Option<String>,
}

/// Some conversations.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceList {
    /// In order of agents and ids.
    instances: Vec<InstanceInfo>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// A conversation with what it has open.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceDetails {
    #[serde(flatten)]
    info: InstanceInfo,
    /// The submissions that are not settled, in order.
    submissions: Vec<Standing>,
    /// How many calls and questions wait for a person.
    approvals: usize,
    /// How many schedules it has.
    schedules: usize,
}

fn doing(open: &[Submission]) -> Doing {
    match open.first().map(|one| &one.state) {
        None => Doing::Idle,
        Some(Stands::Parked { .. }) => Doing::Parked,
        Some(Stands::Queued | Stands::Running | Stands::Joined { .. }) => Doing::Running,
    }
}

/// `None` when it was deleted, or has not begun.
async fn info(
    app: &App,
    actor: &ActorId,
    open: &[Submission],
) -> Result<Option<InstanceInfo>, StoreError> {
    let store = &**app.store();
    let (Some(head), Some(born)) = (
        store.head(actor).await?,
        feed::identity(store, actor).await?,
    ) else {
        return Ok(None);
    };
    Ok(Some(InstanceInfo {
        agent: actor.name().to_owned(),
        id: actor.key().to_owned(),
        uid: born.uid,
        conversation_id: born.conversation_id,
        created_at: born.created_at.to_string(),
        state: doing(open),
        open: open.len(),
        seq: head.seq,
        wakes_at: head.wake.map(|wake| wake.to_string()),
    }))
}

/// List and search conversations
///
/// In order of agents and ids. A search may give a page that is not full, and still not be the last: at
/// most 10,000 conversations are looked at for one page.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", params(
    Page,
    ("agent" = Option<String>, Query, description = "Only those of this agent"),
    ("search" = Option<String>, Query, description = "Only those whose id contains this, in whatever case"),
), responses(
    (status = 200, description = "Some conversations", body = InstanceList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    parameters: Parameters,
) -> Result<Json<InstanceList>, Refusal> {
    parameters.only(&["limit", "after", "agent", "search"])?;
    let Paging { limit, after } = Paging::of(&parameters)?;
    let only = parameters.get("agent");
    if let Some(agent) = only {
        access.require(Scope::Admin, agent)?;
    }
    let search = parameters.get("search").map(str::to_lowercase);
    let mut at = after.as_deref().map(place_of);
    let mut page = InstanceList {
        instances: Vec::new(),
        next: None,
    };
    let mut looked = 0;
    loop {
        let found = app.store().actors(KIND, only, at.as_ref(), PAGE).await?;
        let last = found.len() < PAGE;
        for actor in found {
            looked += 1;
            let fits = search
                .as_ref()
                .is_none_or(|search| actor.key().to_lowercase().contains(search));
            if fits && access.require(Scope::Admin, actor.name()).is_ok() {
                let open = submission::open(&**app.store(), &actor).await?;
                page.instances.extend(info(&app, &actor, &open).await?);
            }
            let full = page.instances.len() == limit || looked == MOST_LOOKED;
            at = Some(actor);
            if full {
                page.next = at.as_ref().map(|at| format!("{}/{}", at.name(), at.key()));
                return Ok(Json(page));
            }
        }
        if last {
            return Ok(Json(page));
        }
    }
}

/// Where a page begins: `AGENT/ID`. Any text is somewhere in the order of conversations.
fn place_of(text: &str) -> ActorId {
    let (agent, id) = text.split_once('/').unwrap_or((text, ""));
    actor(agent, id)
}

/// Show a conversation
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}", tag = "instances", params(Whose), responses(
    (status = 200, description = "The conversation", body = InstanceDetails),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<InstanceDetails>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&[])?;
    let open = submission::open(&**app.store(), &target.actor).await?;
    let info = info(&app, &target.actor, &open).await?;
    let info = info.ok_or(Refusal::StreamNotFound)?;
    let approvals = app.service().approvals(&target.agent, &target.id).await?;
    let schedules = bowline_runtime::alarm::list(&**app.store(), &target.actor).await?;
    Ok(Json(InstanceDetails {
        info,
        submissions: open.iter().map(stands).collect(),
        approvals: approvals.iter().filter(|one| one.answer.is_none()).count(),
        schedules: schedules.len(),
    }))
}

/// Delete a conversation
///
/// With its history, files and children. What runs in it ends without an outcome.
#[utoipa::path(delete, path = "/v1/agents/{agent}/{id}", tag = "instances", params(Whose), responses(
    (status = 204, description = "It is gone"),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn delete(
    state: State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<StatusCode, Refusal> {
    parameters.only(&[])?;
    conversation::delete(state, target).await
}

/// Export a conversation
///
/// Everything of it as one file, for `bowline import`.
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/export", tag = "instances", params(Whose), responses(
    (status = 200, description = "The file", content_type = "application/octet-stream", body = super::openapi::Content),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn export(
    state: State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    parameters.only(&[])?;
    conversation::export(state, target).await
}

/// Fork a conversation
///
/// The same conversation, or the beginning of it, under another id. Its files and its shared state are
/// those of now. Without `before` and `through` nothing may be open in it.
#[utoipa::path(post, path = "/v1/agents/{agent}/{id}/fork", tag = "instances", params(Whose),
request_body = Fork, responses(
    (status = 201, description = "The fork", body = Forked),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn fork(
    state: State<App>,
    target: Target,
    parameters: Parameters,
    body: Result<Json<Fork>, JsonRejection>,
) -> Result<(StatusCode, Json<Forked>), Refusal> {
    parameters.only(&[])?;
    conversation::fork(state, target, body).await
}

/// What a conversation waits for.
#[derive(Serialize, ToSchema)]
pub(super) struct Why {
    /// Its open submissions in order, then its schedules; one of the type `finished` when there is nothing.
    #[schema(value_type = Vec<Waits>)]
    waits: Vec<Value>,
}

/// One thing that a conversation waits for.
#[derive(ToSchema)]
#[schema(as = Waits, rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes `standing::Waiting`")]
pub(super) struct Waits {
    /// `approval`, `question`, `parked`, `queued`, `joined`, `retry`, `running`, `interrupted`, `aborting`,
    /// `timer` or `finished`; further fields say which.
    r#type: String,
    /// The submission that waits.
    #[schema(nullable = false)]
    submission_id: Option<String>,
    /// Since when.
    #[schema(format = DateTime, nullable = false)]
    since: Option<String>,
    /// When it goes on, or ends, by itself.
    #[schema(format = DateTime, nullable = false)]
    until: Option<String>,
    /// What would move it, in one line.
    moves: String,
}

/// Say what a conversation waits for
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/why", tag = "instances", params(Whose), responses(
    (status = 200, description = "What it waits for, since when, and what would move it", body = Why),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn why(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<Why>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&[])?;
    there(&app, &target).await?;
    let store = &**app.store();
    let after = begin(&app, &target.actor).await?;
    let end = load_after(store, &target.actor, after).await?;
    let waits = standing::of(store, &target.actor, &end, true, "").await?;
    let waits = waits
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>();
    let waits = waits.map_err(|error| Refusal::Internal(error.to_string()))?;
    Ok(Json(Why { waits }))
}

/// The record after which what is open, or was settled last, can be read, without all that came before.
async fn begin(app: &App, actor: &ActorId) -> Result<u64, StoreError> {
    let store = &**app.store();
    let open = submission::open(store, actor).await?;
    if let Some(first) = open.iter().find(|one| one.attempts > 0) {
        return Ok(first.after_seq);
    }
    let head = store.head(actor).await?.map_or(0, |head| head.seq);
    let from = head.saturating_sub(LAST);
    let limit = usize::try_from(head - from).unwrap_or(usize::MAX);
    let records = store.read(actor, from, limit).await?;
    let last = records.iter().rev().find_map(|stored| {
        (stored.record.kind == bowline_runtime::kind::SUBMISSION_SETTLED)
            .then(|| stored.seq.saturating_sub(1))
    });
    Ok(last.unwrap_or(head))
}
