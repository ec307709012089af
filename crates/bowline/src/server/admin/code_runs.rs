//! What runs of code did: each with its calls.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use bowline_agent::code::runs::CodeRun;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{App, Page, Paging, Parameters, Refusal, Scope, Target, Whose, there};
use crate::Error;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/agents/{agent}/{id}/code-runs", get(list))
        .route("/v1/agents/{agent}/{id}/code-runs/{run}", get(one))
}

/// A run of code.
#[derive(ToSchema)]
#[schema(as = CodeRun, rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes `runs::CodeRun`")]
pub(super) struct RunInfo {
    /// `run_…`.
    run_id: String,
    /// The call of the model that asked for it.
    tool_call_id: String,
    /// The submission that it belongs to.
    submission_id: String,
    /// `running`, `paused`, `completed`, `error` or `rolled_back`.
    state: String,
    /// When its first boundary was drawn.
    #[schema(format = DateTime)]
    since: String,
    /// When it ended.
    #[schema(format = DateTime, nullable = false)]
    ended: Option<String>,
    /// The CPU time that the code took, in microseconds, once it has ended.
    #[schema(nullable = false)]
    cpu_us: Option<u64>,
    /// Its calls in the order in which they were answered, and then those that wait for a person.
    calls: Vec<CallInfo>,
}

/// A call that a run made.
#[derive(ToSchema)]
#[schema(as = CodeCall, rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes `runs::CodeCall`")]
pub(super) struct CallInfo {
    /// Its number in the run, or in the durable tool that made it.
    id: u32,
    /// The number of the call of the durable tool that made it; absent where the code itself did.
    #[schema(nullable = false)]
    within: Option<u32>,
    /// `binding.method`.
    path: String,
    /// Its arguments, shortened to 4 KiB.
    #[schema(value_type = Value)]
    arguments: Value,
    /// What it gave, shortened to 4 KiB.
    #[schema(value_type = Value, required = false)]
    result: Value,
    /// What it threw.
    #[schema(nullable = false)]
    error: Option<String>,
    /// When it was made, or asked for.
    #[schema(format = DateTime)]
    time: String,
    /// How long it took, in milliseconds.
    duration_ms: u64,
    /// What a person said, where one was asked.
    #[schema(nullable = false)]
    approval: Option<String>,
    /// The effect outside.
    #[schema(nullable = false)]
    effect_id: Option<String>,
    /// `waits`, `done`, `failed`, `undone` or `not_undone`.
    state: String,
    /// The approval that it waits for.
    #[schema(nullable = false)]
    approval_id: Option<String>,
    /// Why it could not be undone.
    #[schema(nullable = false)]
    not_undone: Option<String>,
}

/// Some runs of code.
#[derive(Serialize, ToSchema)]
pub(super) struct RunList {
    /// Oldest first; of more than 1,000 the newest are known.
    #[schema(value_type = Vec<RunInfo>)]
    runs: Vec<CodeRun>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// List the runs of code of a conversation
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/code-runs", tag = "code_runs", params(Whose, Page), responses(
    (status = 200, description = "Some runs, with the calls that they made", body = RunList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<RunList>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&["limit", "after"])?;
    let Paging { limit, after } = Paging::of(&parameters)?;
    there(&app, &target).await?;
    let mut runs = app.service().code_runs(&target.agent, &target.id).await?;
    if let Some(after) = after {
        // One that is not known any more was older than all.
        let seen = runs.iter().position(|run| run.run_id == after);
        runs.drain(..seen.map_or(0, |seen| seen + 1));
    }
    let more = runs.len() > limit;
    runs.truncate(limit);
    let next = runs.last().filter(|_| more).map(|run| run.run_id.clone());
    Ok(Json(RunList { runs, next }))
}

/// Show a run of code
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/code-runs/{run}", tag = "code_runs", params(
    Whose,
    ("run" = String, Path, description = "`run_…`"),
), responses(
    (status = 200, description = "The run, with the calls that it made", body = RunInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    target: Target,
    Path(path): Path<(String, String, String)>,
    parameters: Parameters,
) -> Result<Json<CodeRun>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&[])?;
    there(&app, &target).await?;
    let runs = app.service().code_runs(&target.agent, &target.id).await?;
    let found = runs.into_iter().find(|one| one.run_id == path.2);
    let found = found.ok_or_else(|| {
        let what = "the conversation has no such run of code";
        Error::failure("code_run_not_found", what, "list its runs")
    })?;
    Ok(Json(found))
}
