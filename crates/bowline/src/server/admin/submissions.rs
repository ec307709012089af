//! The messages of a conversation: how they stand, and ending them.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use bowline_runtime::{Settled, submission};
use bowline_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Page, Paging, Parameters, Refusal, Scope, Target, Whose, conversation, there};
use crate::server::conversation::{Aborted, Standing, ended, stands};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/agents/{agent}/{id}/submissions", get(list))
        .route("/v1/agents/{agent}/{id}/submissions/{submission}", get(one))
        .route(
            "/v1/agents/{agent}/{id}/submissions/{submission}/cancel",
            post(cancel),
        )
}

/// The submissions of a conversation.
#[derive(Serialize, ToSchema)]
pub(super) struct SubmissionList {
    /// Those that are not settled, in order of admission; all of them.
    open: Vec<Standing>,
    /// A page of those that are settled, in order of their ids.
    settled: Vec<Standing>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// List the submissions of a conversation
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/submissions", tag = "submissions", params(Whose, Page), responses(
    (status = 200, description = "All that are open, and a page of those that are settled", body = SubmissionList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<SubmissionList>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&["limit", "after"])?;
    let Paging { limit, after } = Paging::of(&parameters)?;
    there(&app, &target).await?;
    let store = &**app.store();
    let open = submission::open(store, &target.actor).await?;
    let after = after.as_deref().map(str::as_bytes);
    let space = submission::SETTLED;
    let rows = store
        .scan(&target.actor, space, b"", after, limit + 1)
        .await?;
    let settled = rows.iter().take(limit).map(|row| {
        serde_json::from_slice::<Settled>(&row.value).map_err(|error| {
            StoreError::Corrupt(format!("a settled submission does not decode: {error}"))
        })
    });
    let settled = settled.collect::<Result<Vec<_>, _>>()?;
    let next = settled.last().filter(|_| rows.len() > limit);
    Ok(Json(SubmissionList {
        next: next.map(|last| last.submission_id.clone()),
        open: open.iter().map(stands).collect(),
        settled: settled.iter().map(ended).collect(),
    }))
}

/// Show a submission, or wait for its answer
///
/// With `wait` the answer comes once it is settled, or the seconds are over.
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/submissions/{submission}", tag = "submissions", params(
    Whose,
    ("submission" = String, Path, description = "Which one, `sub_…`"),
    ("wait" = Option<u32>, Query, description = "Seconds to wait at most", minimum = 1, maximum = 60),
), responses(
    (status = 200, description = "How it stands", body = Standing),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    state: State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<Standing>, Refusal> {
    parameters.only(&["wait"])?;
    conversation::submission(state, target, parameters).await
}

/// Cancel a submission
///
/// One that is settled stays as it is.
#[utoipa::path(post, path = "/v1/agents/{agent}/{id}/submissions/{submission}/cancel", tag = "submissions", params(
    Whose,
    ("submission" = String, Path, description = "Which one, `sub_…`"),
), responses(
    (status = 200, description = "Whether there was something to cancel", body = Aborted),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn cancel(
    state: State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<Aborted>, Refusal> {
    parameters.only(&[])?;
    conversation::abort_one(state, target).await
}
