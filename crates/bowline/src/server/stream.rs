//! The Durable Streams protocol, `/v1/stream/**`.
//!
//! - `request`: what a request asks for, read strictly. `answer`: headers and bodies.
//! - `write`: create, append, close, delete. `read`: catch-up and long poll. `live`: event streams.
//! - `conversation`: the conversations of agents, as streams that can be read.
//! - `subscription`: `__ds/…`. `webhook`: signs and sends wakes.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, header, request::Parts},
    response::Response,
    routing::any,
};
use bowline_runtime::stream::{StreamError, Streams};

use super::{Access, App};

mod answer;
mod conversation;
mod live;
mod read;
mod request;
mod subscription;
mod webhook;
mod write;

pub(super) use webhook::Webhooks;

/// Where streams are.
const ROOT: &str = "/v1/stream/";

/// The routes of this module.
pub(super) fn routes() -> Router<App> {
    Router::new().route("/v1/stream/{*path}", any(handle))
}

/// One request, taken apart.
struct Call<'a> {
    app: &'a App,
    access: &'a Access,
    /// The path of the stream.
    path: String,
    head: Parts,
}

impl Call<'_> {
    fn streams(&self) -> &Streams {
        self.app.streams()
    }

    fn header(&self, name: &str) -> Option<&str> {
        request::header(&self.head.headers, name)
    }
}

async fn handle(State(app): State<App>, access: Access, request: Request) -> Response {
    let origin = answer::origin(&request, &access);
    if request.method() == Method::OPTIONS {
        return answer::everywhere(answer::preflight(), &origin);
    }
    let response = match request::stream_path(request.uri().path()) {
        Some(path) => {
            let (head, body) = request.into_parts();
            let call = Call {
                app: &app,
                access: &access,
                path,
                head,
            };
            if origin.is_foreign() && call.head.method != Method::GET {
                answer::refused(super::Refusal::Forbidden)
            } else {
                dispatch(call, body).await
            }
        }
        None => {
            let what = "the path is not valid UTF-8 in percent-encoding".to_owned();
            answer::error(&StreamError::Invalid(what))
        }
    };
    answer::everywhere(response, &origin)
}

async fn dispatch(call: Call<'_>, body: Body) -> Response {
    if let Some(rest) = call.path.strip_prefix("__ds/") {
        let rest = rest.to_owned();
        return subscription::handle(call, body, &rest).await;
    }
    let method = call.head.method.clone();
    let writes = match method {
        Method::GET | Method::HEAD => false,
        Method::PUT | Method::POST | Method::DELETE => true,
        _ => return answer::refused(super::Refusal::MethodNotAllowed(answer::METHODS)),
    };
    if let Err(refusal) = call.access.require_stream(&call.path, writes) {
        return answer::refused(refusal);
    }
    if call.path.starts_with(conversation::ROOT) {
        let outcome = conversation::handle(call, writes).await;
        return outcome.unwrap_or_else(Problem::into_response);
    }
    let outcome = match method {
        Method::PUT => write::create(call, body).await,
        Method::POST => write::append(call, body).await,
        Method::DELETE => write::delete(call).await,
        Method::HEAD => read::head(call).await,
        _ => read::get(call).await,
    };
    outcome.unwrap_or_else(|error| error.into_response())
}

/// Why a request was not answered as asked.
enum Problem {
    /// By a stream.
    Stream(StreamError),
    /// By the server.
    Refusal(super::Refusal),
}

impl Problem {
    fn into_response(self) -> Response {
        match self {
            Self::Stream(error) => answer::error(&error),
            Self::Refusal(refusal) => answer::refused(refusal),
        }
    }

    fn invalid(what: impl Into<String>) -> Self {
        Self::Stream(StreamError::Invalid(what.into()))
    }
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<super::Refusal> for Problem {
    fn from(refusal: super::Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

/// The URL of this server, as the caller sees it, without a path.
fn base_url(app: &App, headers: &axum::http::HeaderMap) -> String {
    if let Some(url) = &app.settings().public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = request::header(headers, header::HOST.as_str());
    match host {
        Some(host) => format!("http://{host}"),
        None => format!("http://{}", app.settings().addr),
    }
}
