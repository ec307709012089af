//! Checkpointed tasks. They belong to no agent: only who may do something with all of them may do it here.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
    routing::{get, post},
};
use bowline_runtime::{
    Failure, RuntimeError,
    fiber::{Inspection, KIND, Resolution, Status},
};
use bowline_store::ActorId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{Access, App, Page, Paging, Parameters, Refusal, Scope};
use crate::{Error, server::wire::Problem};

/// Most fibers that one page looks at for those of one status.
const MOST_LOOKED: usize = 1_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/fibers", get(list))
        .route("/v1/fibers/{name}/{fiber}", get(one).delete(delete))
        .route("/v1/fibers/{name}/{fiber}/cancel", post(cancel))
        .route("/v1/fibers/{name}/{fiber}/resolve", post(resolve))
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
    let fibers = app.service().fibers();
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
#[utoipa::path(get, path = "/v1/fibers/{name}/{fiber}", tag = "fibers", params(Which), responses(
    (status = 200, description = "The fiber", body = FiberInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    access: Access,
    Path(path): Path<(String, String)>,
    parameters: Parameters,
) -> Result<Json<FiberInfo>, Refusal> {
    access.require_all(Scope::Read)?;
    parameters.only(&[])?;
    Ok(Json(describe(there(&app, &path).await?)))
}

/// The fiber that a path names.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes the path")]
struct Which {
    /// Its handler.
    name: String,
    /// `fib_…`.
    fiber: String,
}

async fn there(app: &App, (name, id): &(String, String)) -> Result<Inspection, Refusal> {
    let found = app.service().fibers().inspect(name, id).await?;
    found.ok_or_else(|| {
        let what = "there is no such fiber";
        Error::failure("fiber_not_found", what, "list the fibers of this name").into()
    })
}

/// A fiber can be changed where its handler is.
fn refused(error: RuntimeError) -> Refusal {
    if let RuntimeError::UnknownKind(_) = error {
        let what = "this process has no handlers of fibers";
        let hint = "ask the process that runs them";
        return Error::failure("fiber_unknown", what, hint).into();
    }
    error.into()
}

/// Whether there was something to cancel.
#[derive(Serialize, ToSchema)]
pub(super) struct Cancelled {
    /// False when it had ended before.
    cancelled: bool,
}

/// Cancel a fiber
///
/// Its settlement follows. One that has ended stays as it is.
#[utoipa::path(post, path = "/v1/fibers/{name}/{fiber}/cancel", tag = "fibers", params(Which), responses(
    (status = 200, description = "Whether there was something to cancel", body = Cancelled),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn cancel(
    State(app): State<App>,
    access: Access,
    Path(path): Path<(String, String)>,
    parameters: Parameters,
) -> Result<Json<Cancelled>, Refusal> {
    access.require_all(Scope::Send)?;
    parameters.only(&[])?;
    there(&app, &path).await?;
    let cancelled = app.service().fibers().cancel(&path.0, &path.1).await;
    let cancelled = cancelled.map_err(refused)?;
    Ok(Json(Cancelled { cancelled }))
}

/// What becomes of an interrupted fiber.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    tag = "type",
    rename_all = "lowercase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(super) enum Decided {
    /// It is completed.
    Completed {
        /// Its result.
        #[serde(default)]
        #[schema(value_type = Value)]
        result: Value,
    },
    /// It has failed.
    Failed {
        /// A stable name for what went wrong, for programs.
        code: String,
        /// Why, in one line.
        message: String,
    },
    /// It goes on, as after a crash.
    Resume {
        /// Replaces the stash, where it is given.
        #[serde(default)]
        #[schema(value_type = Value)]
        stash: Option<Value>,
    },
}

/// Decide what becomes of an interrupted fiber
///
/// Once: whoever comes later is told that it waits for nobody.
#[utoipa::path(post, path = "/v1/fibers/{name}/{fiber}/resolve", tag = "fibers", params(Which),
request_body = Decided, responses(
    (status = 204, description = "It is decided"),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn resolve(
    State(app): State<App>,
    access: Access,
    Path(path): Path<(String, String)>,
    parameters: Parameters,
    body: Result<Json<Decided>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    access.require_all(Scope::Send)?;
    parameters.only(&[])?;
    let Json(decided) = body?;
    there(&app, &path).await?;
    let resolution = match decided {
        Decided::Completed { result } => Resolution::Completed { result },
        Decided::Failed { code, message } => Resolution::Failed {
            error: Failure::new(&code, message, ""),
        },
        Decided::Resume { stash } => Resolution::Resume { stash },
    };
    let fibers = app.service().fibers();
    let resolved = fibers.resolve(&path.0, &path.1, &resolution).await;
    resolved.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete a fiber that has ended
///
/// Its key may be used again then.
#[utoipa::path(delete, path = "/v1/fibers/{name}/{fiber}", tag = "fibers", params(Which), responses(
    (status = 204, description = "It is gone"),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn delete(
    State(app): State<App>,
    access: Access,
    Path(path): Path<(String, String)>,
    parameters: Parameters,
) -> Result<StatusCode, Refusal> {
    access.require_all(Scope::Admin)?;
    parameters.only(&[])?;
    there(&app, &path).await?;
    let deleted = app.service().fibers().delete(&path.0, &path.1).await;
    deleted.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
