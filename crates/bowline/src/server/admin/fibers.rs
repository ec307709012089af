//! Checkpointed tasks. They belong to no agent: only who may read everything sees them.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use bowline_runtime::fiber::{self, Handlers, Inspection, KIND, Status};
use bowline_store::ActorId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Access, App, Page, Paging, Parameters, Refusal, Scope};
use crate::{Error, server::wire::Problem};

/// Most fibers that one page looks at for those of one status.
const MOST_LOOKED: usize = 1_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/fibers", get(list))
        .route("/v1/fibers/{name}/{fiber}", get(one))
}

/// A fiber.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FiberInfo {
    /// `fib_…`.
    fiber_id: String,
    /// Its handler.
    name: String,
    /// `pending`, `running`, `interrupted`, `completed`, `failed` or `aborted`.
    #[schema(value_type = String)]
    status: Status,
    /// What it was started with.
    #[schema(value_type = Object)]
    input: Value,
    /// What its starter wrote beside it.
    #[schema(value_type = Object)]
    metadata: Value,
    /// The last stash.
    #[schema(value_type = Object)]
    stash: Value,
    /// Why it waits for somebody to decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    interrupted: Option<String>,
    /// What its handler returned.
    #[schema(value_type = Object)]
    result: Value,
    /// Why it failed or was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<Problem>,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    settled_at: Option<String>,
}

/// Some fibers.
#[derive(Serialize, ToSchema)]
pub(super) struct FiberList {
    /// In order of names and ids.
    fibers: Vec<FiberInfo>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next: Option<String>,
}

fn describe(fiber: Inspection) -> FiberInfo {
    FiberInfo {
        fiber_id: fiber.fiber_id,
        name: fiber.name,
        status: fiber.status,
        input: fiber.input,
        metadata: fiber.metadata,
        stash: fiber.stash.unwrap_or_default(),
        interrupted: fiber.interrupted,
        result: fiber.result.unwrap_or_default(),
        error: fiber.error.map(Problem::from),
        accepted_at: fiber.accepted_at.to_string(),
        settled_at: fiber.settled_at.map(|time| time.to_string()),
    }
}

fn fibers(app: &App) -> fiber::Fibers {
    Handlers::new([]).on(app.service().runtime())
}

/// List the fibers
///
/// With a status, a page may hold fewer, or none, and still not be the last.
#[utoipa::path(get, path = "/v1/fibers", tag = "fibers", params(
    Page,
    ("name" = Option<String>, Query, description = "Only those of this handler"),
    ("status" = Option<String>, Query, description = "Only those that stand so",
        pattern = "^(pending|running|interrupted|completed|failed|aborted)$"),
), responses(
    (status = 200, description = "Some fibers", body = FiberList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    parameters: Parameters,
) -> Result<Json<FiberList>, Refusal> {
    access.require_all(Scope::Read)?;
    parameters.only(&["limit", "after", "name", "status"])?;
    let Paging { limit, after } = Paging::of(&parameters)?;
    let status = match parameters.get("status") {
        None => None,
        Some(word) => Some(serde_json::from_value(Value::from(word)).map_err(|_| {
            let known = "pending, running, interrupted, completed, failed or aborted";
            Refusal::InvalidRequest(format!("`status` is {known}"))
        })?),
    };
    let after = after.as_deref().map(|after| {
        let (name, id) = after.split_once('/').unwrap_or((after, ""));
        ActorId::new(KIND, name, id)
    });
    let (store, only) = (app.store(), parameters.get("name"));
    let found = store
        .actors(KIND, only, after.as_ref(), MOST_LOOKED)
        .await?;
    let fibers = fibers(&app);
    let mut page = FiberList {
        fibers: Vec::new(),
        next: None,
    };
    for (number, actor) in (1..).zip(&found) {
        let fiber = fibers.inspect(actor.name(), actor.key()).await?;
        let fits = |one: &Inspection| status.is_none_or(|status: Status| status == one.status);
        page.fibers.extend(fiber.filter(fits).map(describe));
        if page.fibers.len() == limit || number == MOST_LOOKED {
            page.next = Some(format!("{}/{}", actor.name(), actor.key()));
            break;
        }
    }
    Ok(Json(page))
}

/// Show a fiber
#[utoipa::path(get, path = "/v1/fibers/{name}/{fiber}", tag = "fibers", params(
    ("name" = String, Path, description = "Its handler"),
    ("fiber" = String, Path, description = "`fib_…`"),
), responses(
    (status = 200, description = "The fiber", body = FiberInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    access: Access,
    Path((name, id)): Path<(String, String)>,
    parameters: Parameters,
) -> Result<Json<FiberInfo>, Refusal> {
    access.require_all(Scope::Read)?;
    parameters.only(&[])?;
    match fibers(&app).inspect(&name, &id).await? {
        Some(fiber) => Ok(Json(describe(fiber))),
        None => {
            let what = "there is no such fiber";
            Err(Error::failure("fiber_not_found", what, "list the fibers of this name").into())
        }
    }
}
