//! The history of a conversation, and what its views have in common.

use axum::{
    extract::{FromRequestParts as _, OriginalUri, Query, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bowline_agent::feed::{self, NotThere, Offset};
use serde_json::Value;

use super::{
    App, Parameters, Refusal, Scope, Target,
    described::{Told as Conversation, Views, Whose},
    histories::{Told, Untold, Wanted},
    no_store, updates,
};
use crate::server::socket;

/// Where reading goes on.
pub(super) const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
/// Present when nothing durable is behind the answer.
pub(super) const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
/// Most messages of one page of the history.
const MOST_MESSAGES: usize = 1_000;

/// Read a conversation
///
/// As it stands, or what came after an offset: at once, as soon as there is something, or as events. With
/// `Upgrade: websocket` it is a WebSocket.
#[utoipa::path(get, path = "/agents/{agent}/{id}", tag = "conversations", operation_id = "read", params(Whose, Views), responses(
    (status = 200, description = "What was asked for", headers(
        ("stream-next-offset" = String, description = "Where reading goes on"),
    ), content((Conversation = "application/json"), (String = "text/event-stream"))),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(super) async fn read(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    let target = Target::from_request_parts(&mut parts, &app).await;
    let query = Query::<Vec<(String, String)>>::from_request_parts(&mut parts, &app).await;
    let Query(query) = query?;
    if socket::is_upgrade(&parts.headers) {
        return socket::upgrade(app, parts, target, &query).await;
    }
    let target = target?;
    target.require(Scope::Read)?;
    let parameters = Parameters::of(query)?;
    // A client of the stream protocol that knows nothing of views sends an offset.
    let default = if parameters.get("offset").is_some() {
        "updates"
    } else {
        "history"
    };
    match parameters.get("view").unwrap_or(default) {
        "history" => {
            parameters.refuse(&["offset", "tail", "live"], "view=history")?;
            let limit = parameters.number("limit", MOST_MESSAGES)?;
            let told = tell(&app, &target, limit, parameters.get("before")).await?;
            let json = [(header::CONTENT_TYPE, "application/json")];
            let mut response = (json, told.body).into_response();
            at(&mut response, &told.offset.to_string(), true);
            no_store(&mut response);
            Ok(response)
        }
        "updates" => updates::updates(app, target, &parameters).await,
        _ => Err(Refusal::InvalidRequest(
            "`view` is `history` or `updates`".to_owned(),
        )),
    }
}

/// The history as a value; a page of it when `limit` or `before` is given.
pub(in crate::server) async fn history(
    app: &App,
    target: &Target,
    limit: Option<usize>,
    before: Option<&str>,
) -> Result<Value, Refusal> {
    let limit = limit.map(|limit| limit.clamp(1, MOST_MESSAGES));
    let told = tell(app, target, limit, before).await?;
    serde_json::from_slice(&told.body).map_err(|error| Refusal::Internal(error.to_string()))
}

async fn tell(
    app: &App,
    target: &Target,
    limit: Option<usize>,
    before: Option<&str>,
) -> Result<Told, Refusal> {
    let wanted = Wanted {
        limit: limit.or(before.map(|_| MOST_MESSAGES)),
        before: before.map(str::to_owned),
    };
    let told = app.histories().tell(&target.actor, &wanted).await;
    told.map_err(|untold| match untold {
        Untold::Conversation => Refusal::StreamNotFound,
        Untold::Message => Refusal::InvalidRequest(
            "`before` is not the id of a message of this conversation".to_owned(),
        ),
        Untold::Store(error) => error.into(),
        Untold::Stopped => bowline_runtime::RuntimeError::Stopped.into(),
        Untold::Form(error) => Refusal::Internal(error),
    })
}

/// `HEAD /agents/{agent}/{id}`: whether it is there, and where its end is.
pub(super) async fn head(State(app): State<App>, target: Target) -> Result<Response, Refusal> {
    target.require(Scope::Read)?;
    let there = feed::identity(&**app.store(), &target.actor).await?;
    let head = app.store().head(&target.actor).await?;
    let (Some(_), Some(head)) = (there, head) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (json, ()).into_response();
    at(&mut response, &Offset::after(head.seq).to_string(), true);
    no_store(&mut response);
    Ok(response)
}

/// Says where reading goes on.
pub(super) fn at(response: &mut Response, offset: &str, up_to_date: bool) {
    let headers = response.headers_mut();
    if let Ok(offset) = HeaderValue::from_str(offset) {
        headers.insert(NEXT_OFFSET, offset);
    }
    if up_to_date {
        headers.insert(UP_TO_DATE, HeaderValue::from_static("true"));
    }
}

/// What a reader without a conversation is told.
pub(super) fn not_there(reason: NotThere) -> Refusal {
    match reason {
        NotThere::Conversation => Refusal::StreamNotFound,
        NotThere::Offset => Refusal::OffsetGone,
    }
}

/// The address of a conversation as the client sees it.
pub(super) fn address(app: &App, uri: &OriginalUri, host: Option<&HeaderValue>) -> String {
    let path = uri.path();
    if let Some(base) = &app.settings().public_url {
        return format!("{}{path}", base.trim_end_matches('/'));
    }
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map(ToString::to_string);
    let host = authority.or_else(|| host.and_then(|host| host.to_str().ok()).map(str::to_owned));
    let host = host.unwrap_or_else(|| app.settings().addr.to_string());
    format!("{scheme}://{host}{path}")
}
