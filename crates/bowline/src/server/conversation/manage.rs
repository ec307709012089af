//! Listing and deleting conversations.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde_json::{Value, json};

use super::{Access, App, Refusal, Scope, Target, known, view::Parameters};

/// Most conversations of one page.
const MOST: usize = 1_000;
/// Conversations of a page when nobody says how many.
const USUAL: usize = 100;

/// `GET /agents/{agent}?after=ID&limit=100`: the conversations of an agent, in order of their ids.
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    Path(agent): Path<String>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    access.require(Scope::Admin, &agent)?;
    known(&app, &agent)?;
    let Query(query) = query?;
    let parameters = Parameters::of(query)?;
    let limit = parameters.number("limit", MOST)?.unwrap_or(USUAL);
    let after = parameters.get("after");
    let found = app.service().instances(&agent, after, limit + 1).await?;
    let more = found.len() > limit;
    let ids: Vec<_> = found.iter().take(limit).map(|one| one.key()).collect();
    let next = if more { ids.last().copied() } else { None };
    Ok(Json(json!({"instances": ids, "next": next})))
}

/// `DELETE /agents/{agent}/{id}`: deletes a conversation whole. What runs in it ends without an outcome.
pub(super) async fn delete(State(app): State<App>, target: Target) -> Result<StatusCode, Refusal> {
    target.require(Scope::Admin)?;
    if app.store().head(&target.actor).await?.is_none() {
        return Err(Refusal::StreamNotFound);
    }
    app.service().runtime().purge(&target.actor).await?;
    app.service().observers().gone(&target.actor);
    Ok(StatusCode::NO_CONTENT)
}
