//! What there is, and what comes next, in one answer.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bowline_runtime::stream::{From, Offset, Reading, Scan, StreamError};
use bytes::{Bytes, BytesMut};
use futures::stream;

use super::{
    Call, Problem, answer, live,
    request::{self, CURSOR, Live, Query, UP_TO_DATE},
};

/// About how much one answer holds; a reader asks again for what follows.
pub(super) const MOST: u64 = 8 * 1024 * 1024;

type Outcome = Result<Response, Problem>;

pub(super) async fn head(call: Call<'_>) -> Outcome {
    let info = call.streams().info(&call.path).await?;
    let mut response = answer::empty(StatusCode::OK);
    let headers = response.headers_mut();
    answer::describe(headers, &info);
    answer::place(headers, info.tail, info.closed);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    Ok(response)
}

pub(super) async fn get(call: Call<'_>) -> Outcome {
    let query = Query::parse(call.head.uri.query().unwrap_or_default())?;
    match query.live {
        Live::No => catch_up(&call, query).await,
        Live::Poll => {
            call.app.may_wait()?;
            poll(&call, query).await
        }
        Live::Events => {
            call.app.may_wait()?;
            live::events(&call, query).await
        }
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// A part that is not the end never changes.
const CACHED: HeaderValue =
    HeaderValue::from_static("private, max-age=60, stale-while-revalidate=300");
/// The end may move at any time; whoever kept it asks whether it did.
const FRESH: HeaderValue = HeaderValue::from_static("private, no-cache");

async fn catch_up(call: &Call<'_>, query: Query) -> Outcome {
    let reading = call.streams().read(&call.path, query.from, MOST).await?;
    if query.from == From::Now {
        let mut response = content(reading);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.remove(header::ETAG);
        return Ok(response);
    }
    Ok(conditional(call, reading))
}

/// The answer, or that the reader has it already.
fn conditional(call: &Call<'_>, reading: Reading) -> Response {
    let tag = etag(&reading);
    let known = call.header(header::IF_NONE_MATCH.as_str());
    let matches = |given: &str| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag
    };
    if known.is_some_and(|known| known.split(',').any(matches)) {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, answer::text(&tag));
        ends(headers, &reading);
        return response;
    }
    content(reading)
}

/// What it is part of, where it begins and ends, and whether that is the end for good.
fn etag(reading: &Reading) -> String {
    let Reading {
        info, start, end, ..
    } = reading;
    let closed = if reading.is_final() { ":c" } else { "" };
    format!(
        "\"{}:{}:{}{closed}\"",
        info.meta.incarnation, start.0, end.0
    )
}

fn ends(headers: &mut HeaderMap, reading: &Reading) {
    answer::place(headers, reading.end, reading.is_final());
    if reading.is_up_to_date() {
        headers.insert(UP_TO_DATE, answer::truth());
    }
}

/// 200 with a range.
fn content(reading: Reading) -> Response {
    let tag = etag(&reading);
    let mut response = answer::empty(StatusCode::OK);
    let headers = response.headers_mut();
    answer::describe(headers, &reading.info);
    headers.remove(request::TTL);
    headers.remove(request::EXPIRES_AT);
    ends(headers, &reading);
    headers.insert(header::ETAG, answer::text(&tag));
    let cached = if reading.is_up_to_date() && !reading.is_final() {
        FRESH
    } else {
        CACHED
    };
    headers.insert(header::CACHE_CONTROL, cached);
    let length = reading.end.0 - reading.start.0;
    let json = reading.info.meta.is_json();
    // Each message has a comma behind it; the brackets stand for the last of them and one more byte.
    let size = match (json, length) {
        (true, 0) => 2,
        (true, length) => length + 1,
        (false, length) => length,
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    *response.body_mut() = body(reading.scan, length, json);
    response
}

/// The bytes of a range; messages of JSON as one array.
fn body(scan: Scan, length: u64, json: bool) -> Body {
    if length == 0 {
        return if json {
            Body::from("[]")
        } else {
            Body::empty()
        };
    }
    let opening = json.then(|| Bytes::from_static(b"["));
    let pieces = stream::try_unfold(
        (scan, length, opening),
        move |(mut scan, left, opening)| async move {
            if let Some(opening) = opening {
                return Ok(Some((opening, (scan, left, None))));
            }
            if left == 0 {
                return Ok::<_, StreamError>(None);
            }
            let Some(mut bytes) = scan.next().await? else {
                return Err(StreamError::NotFound);
            };
            let left = left.saturating_sub(bytes.len() as u64);
            if left == 0 && json {
                let mut last = BytesMut::from(&bytes[..bytes.len().saturating_sub(1)]);
                last.extend_from_slice(b"]");
                bytes = last.freeze();
            }
            Ok(Some((bytes, (scan, left, None))))
        },
    );
    Body::from_stream(pieces)
}

async fn poll(call: &Call<'_>, query: Query) -> Outcome {
    let mut follower = call.streams().tail(&call.path).await?;
    let mark = follower.mark();
    let place = match query.from {
        From::Start => Offset(0),
        From::Now => mark.tail,
        From::At(offset) => offset.min(mark.tail),
    };
    let streams = call.streams();
    let now = || streams.sources().now();
    let mark = tokio::select! {
        biased;
        mark = follower.beyond(place) => mark,
        () = call.app.draining().cancelled() => mark,
        () = tokio::time::sleep(call.app.settings().long_poll) => follower.mark(),
    };
    if mark.gone {
        return Err(StreamError::NotFound.into());
    }
    let cursor = request::cursor(now(), streams.sources().random(), query.cursor);
    if mark.tail > place {
        let reading = follower.read(place, MOST).await?;
        let mut response = conditional(call, reading);
        response.headers_mut().insert(CURSOR, cursor.into());
        return Ok(response);
    }
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    answer::place(headers, place, mark.closed);
    headers.insert(UP_TO_DATE, answer::truth());
    headers.insert(CURSOR, cursor.into());
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// A range as one piece.
pub(super) async fn whole(mut scan: Scan) -> Result<Bytes, StreamError> {
    let mut whole = BytesMut::new();
    let Some(first) = scan.next().await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = scan.next().await? else {
        return Ok(first);
    };
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(bytes) = scan.next().await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}
