//! Create, append, close, delete.

use axum::{
    body::Body as Incoming,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bowline_runtime::stream::{Append, MAX_APPEND, NewFork, NewStream, StreamError};
use bytes::Bytes;
use futures::StreamExt as _;

use super::{
    Call, Problem, answer,
    request::{self, FORK_SUB_OFFSET, FORKED_FROM, PRODUCER_EPOCH, PRODUCER_SEQ, SEQ},
};
use crate::server::{App, Refusal};

type Outcome = Result<Response, Problem>;

pub(super) async fn create(call: Call<'_>, incoming: Incoming) -> Outcome {
    let headers = &call.head.headers;
    let fork = fork(&call, headers)?;
    let content_type = match call.header(header::CONTENT_TYPE.as_str()) {
        // Whoever says what it is wrongly has not said it.
        Some(given) if is_content_type(given) => Some(given.to_owned()),
        Some(_) | None => None,
    };
    let new = NewStream {
        content_type: content_type.clone().or_else(|| {
            let plain = "application/octet-stream".to_owned();
            fork.is_none().then_some(plain)
        }),
        lifetime: request::lifetime(headers)?,
        data: Bytes::new(),
        closed: request::closes(headers),
        fork,
    };
    let base = super::base_url(call.app, headers);
    let location = format!("{base}{}", call.head.uri.path());
    let (app, path) = (call.app, call.path);
    let data = body(app, incoming).await?;
    let created = app
        .streams()
        .create(&path, NewStream { data, ..new })
        .await?;
    let status = if created.new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = answer::empty(status);
    let headers = response.headers_mut();
    answer::describe(headers, &created.info);
    answer::place(headers, created.info.tail, created.info.closed);
    if created.new {
        headers.insert(header::LOCATION, answer::text(&location));
    }
    Ok(response)
}

fn fork(call: &Call<'_>, headers: &HeaderMap) -> Result<Option<NewFork>, Problem> {
    let Some(source) = headers.get(FORKED_FROM) else {
        if headers.contains_key(FORK_SUB_OFFSET) {
            return Err(Problem::invalid(
                "Stream-Fork-Sub-Offset needs Stream-Forked-From",
            ));
        }
        return Ok(None);
    };
    let source = source.to_str().unwrap_or_default();
    let path = source.split(['?', '#']).next().unwrap_or_default();
    let path = match request::stream_path(path) {
        Some(path) => Some(path),
        None => request::decode(path.trim_start_matches('/')),
    };
    let Some(source) = path.filter(|path| !path.is_empty()) else {
        return Err(Problem::invalid(
            "Stream-Forked-From is the path of a stream",
        ));
    };
    // A fork shows what its source holds.
    call.access.require_stream(&source, false)?;
    let (offset, sub_offset) = request::fork_point(headers)?;
    Ok(Some(NewFork {
        source,
        offset,
        sub_offset,
    }))
}

pub(super) async fn append(call: Call<'_>, incoming: Incoming) -> Outcome {
    let headers = &call.head.headers;
    let producer = request::producer(headers)?;
    let closes = request::closes(headers);
    let content_type = call
        .header(header::CONTENT_TYPE.as_str())
        .map(str::to_owned);
    let sequence = headers
        .get(SEQ)
        .map(|value| value.to_str().map(str::to_owned));
    let Ok(sequence) = sequence.transpose() else {
        return Err(Problem::invalid("Stream-Seq is plain text"));
    };
    let (app, path) = (call.app, call.path);
    let data = body(app, incoming).await?;
    if data.is_empty() && !closes {
        return Err(StreamError::Empty.into());
    }
    if !data.is_empty() && content_type.is_none() {
        return Err(Problem::invalid(
            "an append has a Content-Type: that of its stream",
        ));
    }
    // Who retries learns from 200 that it was new; a closure alone has nothing to be new.
    let tells = producer.is_some() && !data.is_empty();
    let append = Append {
        data,
        content_type,
        producer,
        sequence,
        closes,
    };
    let appended = app.streams().append(&path, append).await?;
    let mut response = answer::empty(if tells && !appended.duplicate {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    });
    let headers = response.headers_mut();
    answer::place(headers, appended.next, appended.closed);
    if let Some((epoch, seq)) = appended.producer {
        headers.insert(PRODUCER_EPOCH, epoch.into());
        headers.insert(PRODUCER_SEQ, seq.into());
    }
    Ok(response)
}

pub(super) async fn delete(call: Call<'_>) -> Outcome {
    call.streams().delete(&call.path).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Like `text/plain; charset=utf-8`.
fn is_content_type(text: &str) -> bool {
    let token = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// The whole body, of at most [`MAX_APPEND`] bytes.
pub(super) async fn body(app: &App, incoming: Incoming) -> Result<Bytes, Problem> {
    let mut chunks = incoming.into_data_stream();
    let read = async {
        let mut whole = Vec::new();
        let mut first = Bytes::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::invalid("the body broke off"))?;
            if whole.len() + first.len() + chunk.len() > MAX_APPEND {
                return Err(StreamError::TooLarge { limit: MAX_APPEND }.into());
            }
            // Nearly every body is one chunk, which needs no copy.
            if first.is_empty() && whole.is_empty() {
                first = chunk;
            } else {
                if whole.is_empty() {
                    whole.extend_from_slice(&std::mem::take(&mut first));
                }
                whole.extend_from_slice(&chunk);
            }
        }
        Ok(if whole.is_empty() {
            first
        } else {
            whole.into()
        })
    };
    match tokio::time::timeout(app.settings().body_timeout, read).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Refusal::BodyTimeout.into()),
    }
}
