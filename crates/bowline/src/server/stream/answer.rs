//! Headers and bodies of answers.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bowline_runtime::stream::{
    Info, Lifetime, Offset, StreamError, subscription::Refusal as Refused,
};

use super::request::{
    CLOSED, EXPIRES_AT, NEXT_OFFSET, PRODUCER_EPOCH, PRODUCER_EXPECTED, PRODUCER_RECEIVED, TTL,
};
use crate::server::{Access, Refusal};

/// What a stream knows.
pub(super) const METHODS: &str = "GET, POST, PUT, DELETE, HEAD, OPTIONS";
const REQUEST_HEADERS: &str = "content-type, authorization, if-none-match, stream-seq, stream-ttl, \
    stream-expires-at, stream-closed, producer-id, producer-epoch, producer-seq, \
    stream-forked-from, stream-fork-offset, stream-fork-sub-offset";
const RESPONSE_HEADERS: &str = "stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, \
    stream-sse-data-encoding, stream-ttl, stream-expires-at, producer-epoch, producer-seq, \
    producer-expected-seq, producer-received-seq, etag, content-type, content-encoding, vary, \
    location";
/// How long a browser remembers an answer to a preflight, in seconds.
const PREFLIGHT_AGE: &str = "600";

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Whether a page in a browser may read an answer.
pub(super) enum Origin {
    /// No browser asks, or a page of this machine.
    Own(Option<HeaderValue>),
    /// A page from somewhere, with a key of its own.
    Keyed,
    /// A page from somewhere that could only use the place where its browser runs.
    Foreign,
}

impl Origin {
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign)
    }
}

/// Where a request comes from. Without keys whoever reaches the address is let in, so a page of
/// another site that runs in a browser of this machine must not be.
pub(super) fn origin(request: &Request, access: &Access) -> Origin {
    if !access.is_local() {
        return Origin::Keyed;
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return Origin::Own(None);
    };
    let host = origin.to_str().ok().and_then(|text| text.split_once("://"));
    let host = host.map(|(_, rest)| match rest.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => rest.split(':').next().unwrap_or_default(),
    });
    match host {
        Some("localhost" | "127.0.0.1" | "::1") => Origin::Own(Some(origin.clone())),
        _ => Origin::Foreign,
    }
}

pub(super) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(REQUEST_HEADERS),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static(PREFLIGHT_AGE),
    );
    response
}

/// What every answer carries.
pub(super) fn everywhere(mut response: Response, origin: &Origin) -> Response {
    const POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(POLICY, HeaderValue::from_static("cross-origin"));
    let allowed = match origin {
        Origin::Own(None) | Origin::Foreign => return response,
        Origin::Own(Some(origin)) => {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
            origin.clone()
        }
        Origin::Keyed => HeaderValue::from_static("*"),
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(RESPONSE_HEADERS),
    );
    response
}

pub(super) fn refused(refusal: Refusal) -> Response {
    refusal.into_response()
}

/// The answer to what a stream refused.
pub(super) fn error(error: &StreamError) -> Response {
    let status = match error {
        StreamError::NotFound => StatusCode::NOT_FOUND,
        StreamError::Gone => StatusCode::GONE,
        StreamError::Exists
        | StreamError::Closed(_)
        | StreamError::ContentType { .. }
        | StreamError::ProducerGap { .. }
        | StreamError::Sequence
        | StreamError::ForkConflict(_) => StatusCode::CONFLICT,
        StreamError::ProducerFenced { .. } => StatusCode::FORBIDDEN,
        StreamError::ProducerEpoch
        | StreamError::Empty
        | StreamError::Json(_)
        | StreamError::Invalid(_) => StatusCode::BAD_REQUEST,
        StreamError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        StreamError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        StreamError::Subscription(refused) => match refused {
            Refused::NotFound => StatusCode::NOT_FOUND,
            Refused::Invalid(_) => StatusCode::BAD_REQUEST,
            Refused::Token => StatusCode::UNAUTHORIZED,
            Refused::Exists
            | Refused::Fenced
            | Refused::Claimed { .. }
            | Refused::NoWork
            | Refused::Offset(_) => StatusCode::CONFLICT,
        },
        StreamError::Commit(error) => return refused(crate::Error::from(error.clone()).into()),
        StreamError::Store(error) => return refused(crate::Error::from(error.clone()).into()),
    };
    let mut response = envelope(status, error.code(), &error.to_string());
    let headers = response.headers_mut();
    match error {
        StreamError::Closed(offset) => {
            headers.insert(CLOSED, TRUE);
            headers.insert(NEXT_OFFSET, text(offset));
        }
        StreamError::ProducerFenced { current } => {
            headers.insert(PRODUCER_EPOCH, HeaderValue::from(*current));
        }
        StreamError::ProducerGap { expected, received } => {
            headers.insert(PRODUCER_EXPECTED, HeaderValue::from(*expected));
            headers.insert(PRODUCER_RECEIVED, HeaderValue::from(*received));
        }
        StreamError::Unavailable => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// The one shape of an error.
pub(super) fn envelope(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"type": code, "message": message, "details": ""}});
    let mut response = (status, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Text that has only characters that a header can have.
pub(super) fn text(value: &impl ToString) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).unwrap_or(HeaderValue::from_static(""))
}

pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Where a stream ends, and whether that is for good.
pub(super) fn place(headers: &mut HeaderMap, next: Offset, closed: bool) {
    headers.insert(NEXT_OFFSET, text(&next));
    if closed {
        headers.insert(CLOSED, TRUE);
    }
}

/// What a stream is.
pub(super) fn describe(headers: &mut HeaderMap, info: &Info) {
    headers.insert(header::CONTENT_TYPE, text(&info.meta.content_type));
    match &info.meta.lifetime {
        Lifetime::Forever => {}
        Lifetime::Idle(seconds) => {
            headers.insert(TTL, HeaderValue::from(*seconds));
        }
        Lifetime::Until(_, given) => {
            headers.insert(EXPIRES_AT, text(given));
        }
    }
}

pub(super) fn truth() -> HeaderValue {
    TRUE
}
