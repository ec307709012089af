//! Listing, deleting and exporting conversations.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bowline_store::{Dump, DumpError};
use serde_json::{Value, json};

use super::{
    Access, App, Parameters, Refusal, Scope, Target,
    described::{Ids, Whose},
    known,
};
use crate::error::Error;

/// Most conversations of one page.
const MOST: usize = 1_000;
/// Conversations of a page when nobody says how many.
const USUAL: usize = 100;

/// List the conversations of an agent
///
/// In order of their ids.
#[utoipa::path(get, path = "/agents/{agent}", tag = "conversations", operation_id = "list", params(
    ("agent" = String, Path, description = "The agent", pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length = 64),
    ("limit" = Option<u32>, Query, description = "How many, usually 100", minimum = 1, maximum = 1000),
    ("after" = Option<String>, Query, description = "Only what comes after this one"),
), responses(
    (status = 200, description = "A page of ids", body = Ids),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    Path(agent): Path<String>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    access.require(Scope::Admin, &agent)?;
    known(&app, &access, &agent)?;
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

/// Delete a conversation
///
/// It is deleted whole; what runs in it ends without an outcome.
#[utoipa::path(delete, path = "/agents/{agent}/{id}", tag = "conversations", operation_id = "delete", params(Whose), responses(
    (status = 204, description = "It is gone"),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    target: Target,
) -> Result<StatusCode, Refusal> {
    target.require(Scope::Admin)?;
    if app.store().head(&target.actor).await?.is_none() {
        return Err(Refusal::StreamNotFound);
    }
    app.service().runtime().purge(&target.actor).await?;
    app.service().observers().gone(&target.actor);
    Ok(StatusCode::NO_CONTENT)
}

/// Export a conversation
///
/// Everything of it as one file, for `bowline import`.
#[utoipa::path(get, path = "/agents/{agent}/{id}/export", tag = "conversations", operation_id = "export", params(Whose), responses(
    (status = 200, description = "The file", content_type = "application/octet-stream", body = crate::server::admin::Content),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(in crate::server) async fn export(
    State(app): State<App>,
    target: Target,
) -> Result<Response, Refusal> {
    target.require(Scope::Admin)?;
    let dump = dump(&app, &target).await?;
    let written = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        dump.write(&mut bytes).map(|()| bytes)
    });
    let bytes = written
        .await
        .map_err(|error| Refusal::Internal(error.to_string()))?
        .map_err(archive)?;
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let saved = HeaderValue::from_static("attachment; filename=\"conversation.bowline\"");
    headers.insert(header::CONTENT_DISPOSITION, saved);
    super::no_store(&mut response);
    Ok(response)
}

pub(super) async fn dump(app: &App, target: &Target) -> Result<Dump, Refusal> {
    let dump = app.store().dump(&target.actor).await.map_err(archive)?;
    dump.ok_or(Refusal::StreamNotFound)
}

pub(super) fn archive(error: DumpError) -> Refusal {
    Error::failure(error.code(), error.to_string(), "").into()
}
