//! Listing, deleting, exporting and forking conversations.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bowline_agent::{
    actor,
    record::{Created, Fact, Scope as Place},
};
use bowline_runtime::{state::STATE, submission};
use bowline_store::{Dump, DumpError, StoredRecord};
use serde_json::{Value, json};

use super::{Access, App, Refusal, Scope, Target, known, view::Parameters};
use crate::{error::Error, service::check_instance};

/// Most conversations of one page.
const MOST: usize = 1_000;
/// The spaces that a fork takes with it: how submissions ended, files, the shell, the shared state. What
/// is under way, timed or owned stays with the original.
const FORKED: [&str; 7] = [
    submission::SETTLED,
    STATE,
    "approval",
    "attachment",
    "file",
    "file_feed",
    "shell",
];
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

/// `GET /agents/{agent}/{id}/export`: everything of a conversation as one file.
pub(super) async fn export(State(app): State<App>, target: Target) -> Result<Response, Refusal> {
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

/// `POST /agents/{agent}/{id}/fork` with `{"id": NEW}`: the same conversation, with its files, under
/// another id. Nothing may be open in it.
pub(super) async fn fork(
    State(app): State<App>,
    target: Target,
    body: Result<Json<Value>, axum::extract::rejection::JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    target.require(Scope::Admin)?;
    let Json(body) = body?;
    let Some(id) = body["id"].as_str() else {
        let what = "`id` is the id of the new conversation";
        return Err(Refusal::InvalidRequest(what.to_owned()));
    };
    check_instance(id)?;
    let mut dump = dump(&app, &target).await?;
    let open = submission::open(&**app.store(), &target.actor).await?;
    if !open.is_empty() {
        let what = "the conversation has a message that is not settled";
        let hint = "wait until it is, or abort it";
        return Err(Error::failure("conversation_busy", what, hint).into());
    }
    let uid = app.sources().id("inst_");
    let place = Place {
        conversation: app.sources().id("conv_"),
        ..Place::default()
    };
    for (seq, record) in (1..).zip(&mut dump.records) {
        let stored = StoredRecord {
            seq,
            epoch: 1,
            record: record.clone(),
        };
        if let Fact::Created(created) = Fact::of(&stored)? {
            let uid = uid.clone();
            *record = Fact::Created(Created { uid, ..created }).record(record.time, &place);
        } else if !record.conversation.is_empty() {
            record.conversation.clone_from(&place.conversation);
        }
    }
    dump.rows.retain(|row| FORKED.contains(&row.space.as_str()));
    dump.wake = None;
    let new = actor(&target.agent, id);
    dump.put(&**app.store(), &new).await.map_err(archive)?;
    let answer = json!({"id": id, "uid": uid, "conversationId": place.conversation});
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn dump(app: &App, target: &Target) -> Result<Dump, Refusal> {
    let dump = app.store().dump(&target.actor).await.map_err(archive)?;
    dump.ok_or(Refusal::StreamNotFound)
}

fn archive(error: DumpError) -> Refusal {
    Error::failure(error.code(), error.to_string(), "").into()
}
