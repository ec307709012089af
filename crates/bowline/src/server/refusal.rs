//! The one error that goes out.

use axum::{
    Json,
    extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bowline_runtime::{Failure, RuntimeError};
use bowline_store::StoreError;
use serde_json::{Value, json};

use crate::error::{Error, Kind};

/// Where the reference of a logged error stands.
const REFERENCE: HeaderName = HeaderName::from_static("flue-error-ref");

/// Why a request was not answered as asked. It becomes `{"error":{"type","message","details","ref"}}`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The request does not fit the route.
    #[error("{0}")]
    InvalidRequest(String),
    /// The body is not JSON.
    #[error("{0}")]
    InvalidJson(String),
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    RouteNotFound,
    /// There is no such agent.
    #[error("there is no agent `{name}` here")]
    NoAgent {
        /// What was asked for.
        name: String,
        /// What to do next.
        hint: String,
    },
    /// The conversation or stream does not exist.
    #[error("there is no such conversation")]
    StreamNotFound,
    /// The conversation has no such file.
    #[error("the conversation has no such attachment")]
    AttachmentNotFound,
    /// The message was meant for an incarnation of the instance that is not there.
    #[error("the instance with this uid does not exist")]
    InstanceNotFound,
    /// The path does not know the method; the ones it knows are given, or found by the router.
    #[error("the path does not know this method")]
    MethodNotAllowed(&'static str),
    /// The message was meant to begin an instance that exists.
    #[error("the instance exists")]
    InstanceExists {
        /// Its incarnation.
        uid: String,
    },
    /// The body is not of a kind that the route takes.
    #[error("send the body as {0}")]
    UnsupportedMediaType(&'static str),
    /// The offset is behind the end of the stream.
    #[error("the offset is not part of the stream: read the history again")]
    OffsetGone,
    /// The file has no such bytes; how many it has.
    #[error("the file has {0} bytes, none of which are in this range")]
    RangeNotThere(u64),
    /// The body is larger than the server takes.
    #[error("the body is larger than this server takes")]
    BodyTooLarge,
    /// The body did not arrive in time.
    #[error("the body took too long to arrive")]
    BodyTimeout,
    /// Nobody knows who calls.
    #[error("this server wants a key: send `Authorization: Bearer KEY`")]
    Unauthorized,
    /// The caller may not do this.
    #[error("the key does not allow this")]
    Forbidden,
    /// The host that is asked for is not this machine.
    #[error(
        "this server answers for localhost only: use that name, or set `--public-url` to the one in use"
    )]
    HostNotAllowed,
    /// A page of another site asks.
    #[error("pages of this origin may not use the server: add it to `cors` in `[server]`")]
    OriginNotAllowed,
    /// Too many requests; how many seconds to wait.
    #[error("too many requests: try again later")]
    RateLimited(u64),
    /// Something that is the server's own fault; the text is logged and not sent.
    #[error("something went wrong in the server")]
    Internal(String),
    /// An error of the layers below.
    #[error(transparent)]
    Other(#[from] Error),
}

impl Refusal {
    /// The stable name.
    pub fn code(&self) -> &str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidJson(_) => "invalid_json",
            Self::RouteNotFound | Self::NoAgent { .. } => "route_not_found",
            Self::StreamNotFound => "stream_not_found",
            Self::AttachmentNotFound => "attachment_not_found",
            Self::InstanceNotFound => "agent_instance_not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::InstanceExists { .. } => "agent_instance_exists",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::OffsetGone => "stream_offset_gone",
            Self::RangeNotThere(_) => "range_not_there",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::RateLimited(_) => "rate_limited",
            Self::Internal(_) => "internal_error",
            Self::Other(error) => &error.code,
        }
    }

    /// The status that goes with it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidRequest(_) | Self::InvalidJson(_) => StatusCode::BAD_REQUEST,
            Self::RouteNotFound
            | Self::NoAgent { .. }
            | Self::StreamNotFound
            | Self::AttachmentNotFound
            | Self::InstanceNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::InstanceExists { .. } => StatusCode::CONFLICT,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OffsetGone | Self::RangeNotThere(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::HostNotAllowed | Self::OriginNotAllowed => {
                StatusCode::FORBIDDEN
            }
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Other(error) => status_of(error),
        }
    }

    /// The error as the owner of the server may see it.
    pub(super) fn reason(&self) -> Error {
        match self {
            Self::Internal(text) => Error::failure(self.code(), text, ""),
            Self::Other(error) => error.clone(),
            Self::InvalidRequest(_)
            | Self::InvalidJson(_)
            | Self::RouteNotFound
            | Self::NoAgent { .. }
            | Self::StreamNotFound
            | Self::AttachmentNotFound
            | Self::InstanceNotFound
            | Self::MethodNotAllowed(_)
            | Self::InstanceExists { .. }
            | Self::UnsupportedMediaType(_)
            | Self::OffsetGone
            | Self::RangeNotThere(_)
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::Unauthorized
            | Self::Forbidden
            | Self::HostNotAllowed
            | Self::OriginNotAllowed
            | Self::RateLimited(_) => Error::failure(self.code(), self.to_string(), self.hint()),
        }
    }

    /// What to do next, where the message has not said it.
    fn hint(&self) -> &str {
        match self {
            Self::RouteNotFound => {
                "`/openapi.json` describes what is below `/v1`; conversations are at `/agents/{agent}/{id}`"
            }
            Self::NoAgent { hint, .. } => hint,
            Self::StreamNotFound => "check its id; the first message begins a conversation",
            Self::AttachmentNotFound => "its history names the files of a conversation",
            Self::InstanceNotFound => {
                "leave `uid` out, or send the one that the history has as `incarnation`"
            }
            Self::MethodNotAllowed(_) => "the header `allow` has those that it knows",
            Self::InstanceExists { .. } => "leave `uid` out to send to it as it is",
            Self::BodyTooLarge => "send less at once",
            Self::BodyTimeout => "send it again",
            Self::Forbidden => "`bowline auth new` makes a key with other agents and scopes",
            Self::Other(error) => &error.hint,
            // Their messages say it.
            Self::InvalidRequest(_)
            | Self::InvalidJson(_)
            | Self::UnsupportedMediaType(_)
            | Self::OffsetGone
            | Self::RangeNotThere(_)
            | Self::Unauthorized
            | Self::HostNotAllowed
            | Self::OriginNotAllowed
            | Self::RateLimited(_)
            | Self::Internal(_) => "",
        }
    }

    fn details(&self) -> Value {
        if let Self::InstanceExists { uid } = self {
            json!({"uid": uid})
        } else {
            json!(self.hint())
        }
    }
}

/// The status of an error of the layers below, by its stable name.
fn status_of(error: &Error) -> StatusCode {
    match error.code.as_str() {
        "submission_not_found"
        | "approval_not_found"
        | "agent_not_found"
        | "definition_agent_not_found"
        | "conversation_not_found"
        | "schedule_not_found"
        | "fiber_not_found"
        | "code_run_not_found"
        | "message_not_found"
        | "workspace_not_found" => StatusCode::NOT_FOUND,
        "submission_conflict"
        | "approval_answered"
        | "nothing_to_answer"
        | "conversation_busy"
        | "archive_exists"
        | "archive_busy"
        | "fiber_not_interrupted"
        | "fiber_not_settled"
        | "fiber_unknown"
        | "actor_deleting"
        | "workspace_exists"
        | "workspace_is_directory"
        | "workspace_not_directory"
        | "workspace_not_empty"
        | "workspace_conflict"
        | "store_conflict" => StatusCode::CONFLICT,
        "file_changed" => StatusCode::PRECONDITION_FAILED,
        "archive_too_large"
        | "message_too_large"
        | "fiber_too_large"
        | "workspace_too_large"
        | "workspace_quota" => StatusCode::PAYLOAD_TOO_LARGE,
        "invalid_key"
        | "instance_invalid"
        | "approval_invalid"
        | "schedule_invalid"
        | "schedule_past"
        | "schedule_limit"
        | "workspace_loop"
        | "workspace_invalid"
        | "workspace_name_too_long"
        | "message_unhandled" => StatusCode::BAD_REQUEST,
        "queue_full" => StatusCode::TOO_MANY_REQUESTS,
        "runtime_unavailable" | "store_closed" | "store_full" => StatusCode::SERVICE_UNAVAILABLE,
        _ if error.kind == Kind::Usage => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Other(error.into())
    }
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        Self::Other(error.into())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.into())
    }
}

impl From<PathRejection> for Refusal {
    fn from(_: PathRejection) -> Self {
        Self::InvalidRequest("the path is not valid UTF-8".to_owned())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(error: QueryRejection) -> Self {
        let why = error.body_text();
        Self::InvalidRequest(format!("the query does not fit: {}", reason(&why)))
    }
}

impl From<JsonRejection> for Refusal {
    fn from(error: JsonRejection) -> Self {
        match error {
            JsonRejection::JsonSyntaxError(error) => {
                let why = error.body_text();
                Self::InvalidJson(format!("the body is not JSON: {}", reason(&why)))
            }
            JsonRejection::MissingJsonContentType(_) => {
                Self::UnsupportedMediaType("application/json")
            }
            JsonRejection::BytesRejection(error) => error.into(),
            error => {
                let why = error.body_text();
                Self::InvalidRequest(format!("the body does not fit: {}", reason(&why)))
            }
        }
    }
}

/// What is wrong, without the library's words for what it tried.
fn reason(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, reason)| reason)
}

impl From<BytesRejection> for Refusal {
    fn from(error: BytesRejection) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::BodyTooLarge
        } else {
            Self::InvalidRequest("the body broke off".to_owned())
        }
    }
}

/// A request that was not answered as asked, for whoever watches the server.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The method.
    pub method: String,
    /// The path, without the query, which may hold a key.
    pub path: String,
    /// The status.
    pub status: u16,
    /// Why; what is the server's own fault is told as it is.
    pub error: Error,
}

/// Marks an answer with why it is one of these.
#[derive(Debug, Clone)]
pub(super) struct Reason(pub(super) Error);

/// Marks an answer whose error has to be logged, with what only the log may say.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    code: String,
    text: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let internal = status == StatusCode::INTERNAL_SERVER_ERROR;
        // What failed inside is for the log; who asked learns its stable name and a reference.
        let message = if internal {
            "something went wrong in the server: the log has more, under `ref`".to_owned()
        } else {
            self.to_string()
        };
        let details = if internal { json!("") } else { self.details() };
        let body = json!({"error": {"type": self.code(), "message": message, "details": details}});
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(Reason(self.reason()));
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::MethodNotAllowed(known) = &self
            && !known.is_empty()
        {
            headers.insert(header::ALLOW, HeaderValue::from_static(known));
        }
        if let Self::RangeNotThere(size) = &self
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        if let Self::RateLimited(seconds) = &self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
        }
        if let Self::Unauthorized = &self {
            let bearer = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if internal {
            let text = if let Self::Internal(text) = &self {
                text.clone()
            } else {
                self.to_string()
            };
            let code = self.code().to_owned();
            response.extensions_mut().insert(Logged { code, text });
        }
        response
    }
}

/// Logs the error of an answer under a fresh reference, and gives the reference to whoever asked.
pub(super) fn log(response: Response, reference: &str, request: &str) -> Response {
    let Some(logged) = response.extensions().get::<Logged>().cloned() else {
        return response;
    };
    tracing::error!(reference, request, code = logged.code, "{}", logged.text);
    let message = "something went wrong in the server: the log has more, under `ref`";
    let body = json!({"error": {
        "type": logged.code, "message": message, "details": "", "ref": reference,
    }});
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    if let Ok(value) = HeaderValue::from_str(reference) {
        parts.headers.insert(REFERENCE, value);
    }
    Response::from_parts(parts, axum::body::Body::from(body.to_string()))
}
