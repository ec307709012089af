//! The history of a conversation, and what its views have in common.

use axum::{
    Json,
    extract::{OriginalUri, Query, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bowline_agent::feed::{self, History, NotThere, Offset};
use serde::Serialize;

use super::{App, Refusal, Scope, Target, no_store, updates};

/// Where reading goes on.
pub(super) const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
/// Present when nothing durable is behind the answer.
pub(super) const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
/// Most messages of one page of the history.
const MOST_MESSAGES: usize = 1_000;

/// The parameters of a request, each at most once.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes a query apart.
    ///
    /// # Errors
    ///
    /// When it does not decode, or a parameter is there twice.
    pub(super) fn of(query: Vec<(String, String)>) -> Result<Self, Refusal> {
        for (number, (name, _)) in query.iter().enumerate() {
            if query.iter().take(number).any(|(other, _)| other == name) {
                let name = name.escape_debug();
                return Err(Refusal::InvalidRequest(format!("give `{name}` only once")));
            }
        }
        Ok(Self(query))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Refuses parameters that would mean something in another view.
    pub(super) fn refuse(&self, names: &[&str], view: &str) -> Result<(), Refusal> {
        match names.iter().find(|name| self.get(name).is_some()) {
            None => Ok(()),
            Some(name) => Err(Refusal::InvalidRequest(format!(
                "`{name}` has no meaning with {view}"
            ))),
        }
    }

    /// A number.
    pub(super) fn number(&self, name: &str, most: usize) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => Err(Refusal::InvalidRequest(format!(
                "`{name}` is a number from 1 to {most}"
            ))),
        }
    }
}

/// `GET /agents/{agent}/{id}`: the history, or updates.
pub(super) async fn read(
    State(app): State<App>,
    target: Target,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    target.require(Scope::Read)?;
    let Query(query) = query?;
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
            history(&app, &target, &parameters).await
        }
        "updates" => updates::updates(app, target, &parameters).await,
        _ => Err(Refusal::InvalidRequest(
            "`view` is `history` or `updates`".to_owned(),
        )),
    }
}

/// A page of the history.
#[derive(Serialize)]
struct Paged {
    #[serde(flatten)]
    history: History,
    /// True when there are messages before these.
    more: bool,
}

async fn history(app: &App, target: &Target, parameters: &Parameters) -> Result<Response, Refusal> {
    let limit = parameters.number("limit", MOST_MESSAGES)?;
    let before = parameters.get("before");
    let history = feed::history(app.store().clone(), &target.actor).await?;
    let mut history = history.map_err(not_there)?;
    let offset = history.offset.clone();
    let mut response = if limit.is_some() || before.is_some() {
        if let Some(before) = before {
            let place = history.messages.iter().position(|one| one.id == before);
            let Some(place) = place else {
                return Err(Refusal::InvalidRequest(
                    "`before` is not the id of a message of this conversation".to_owned(),
                ));
            };
            history.messages.truncate(place);
        }
        let first = history
            .messages
            .len()
            .saturating_sub(limit.unwrap_or(MOST_MESSAGES));
        history.messages.drain(..first);
        let more = first > 0;
        Json(Paged { history, more }).into_response()
    } else {
        Json(history).into_response()
    };
    at(&mut response, &offset, true);
    no_store(&mut response);
    Ok(response)
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
