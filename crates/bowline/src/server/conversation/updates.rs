//! What comes after an offset: at once, as soon as there is something, or as a stream of events.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bowline_agent::feed::{Offset, Reader};
use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    App, Parameters, Refusal, Target,
    feed::{Batch, Follower, Lost, Waited},
    no_store, view, wire,
};

/// Records of one answer.
const PAGE: usize = 100;

/// `view=updates`.
pub(super) async fn updates(
    app: App,
    target: Target,
    parameters: &Parameters,
) -> Result<Response, Refusal> {
    parameters.refuse(&["tail", "before", "limit"], "view=updates")?;
    let offset = parameters.get("offset");
    let offset = match offset {
        // The end, wherever it is.
        Some("now") => app
            .store()
            .head(&target.actor)
            .await?
            .map(|head| Offset::after(head.seq)),
        Some(text) => Offset::parse(text),
        None => None,
    };
    let Some(offset) = offset else {
        return Err(Refusal::InvalidRequest(
            "`offset` is `-1`, or one that the server gave out".to_owned(),
        ));
    };
    match parameters.get("live") {
        None => at_once(&app, &target, offset).await,
        Some("long-poll") => {
            app.may_wait()?;
            long_poll(&app, &target, offset).await
        }
        Some("sse") => {
            app.may_wait()?;
            events(app, &target, offset).await
        }
        Some(_) => Err(Refusal::InvalidRequest(
            "`live` is `long-poll` or `sse`".to_owned(),
        )),
    }
}

async fn at_once(app: &App, target: &Target, offset: Offset) -> Result<Response, Refusal> {
    let reader = Reader::start(app.store().clone(), &target.actor, offset).await?;
    let mut reader = reader.map_err(view::not_there)?;
    let page = reader.next(PAGE).await?;
    let all: Vec<_> = page
        .entries
        .into_iter()
        .flat_map(|entry| entry.chunks)
        .collect();
    let chunks = Bytes::from(wire::chunks(&all));
    let uid = &reader.identity().uid;
    Ok(answer(uid, &[chunks], reader.offset(), page.up_to_date))
}

async fn long_poll(app: &App, target: &Target, offset: Offset) -> Result<Response, Refusal> {
    let mut follower = follow(app, target, offset).await?;
    let until = Instant::now() + app.settings().long_poll;
    loop {
        let batch = match follower.read().await {
            Ok(batch) => batch,
            Err(Lost::Gone) => Batch::default(),
            Err(Lost::Store(error)) => return Err(error.into()),
        };
        let over = tokio::select! {
            biased;
            // What is there is sent at once.
            () = std::future::ready(()), if !batch.is_empty() || !batch.up_to_date => true,
            () = app.draining().cancelled() => true,
            () = tokio::time::sleep_until(until) => true,
            waited = follower.wait() => waited == Waited::Ended,
        };
        if over {
            let uid = follower.incarnation();
            let up_to_date = batch.up_to_date;
            return Ok(answer(uid, &batch.chunks, follower.offset(), up_to_date));
        }
    }
}

async fn follow(app: &App, target: &Target, offset: Offset) -> Result<Follower, Refusal> {
    let follower = app.feeds().follow(&target.actor, offset).await?;
    follower.map_err(view::not_there)
}

fn answer(uid: &str, chunks: &[Bytes], offset: Offset, up_to_date: bool) -> Response {
    let mut body = BytesMut::new();
    body.put_u8(b'[');
    body.put(wire::checkpoint(uid).as_bytes());
    for chunks in chunks.iter().filter(|chunks| !chunks.is_empty()) {
        body.put_u8(b',');
        body.put(chunks.as_ref());
    }
    body.put_u8(b']');
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (StatusCode::OK, json, body.freeze()).into_response();
    view::at(&mut response, &offset.to_string(), up_to_date);
    no_store(&mut response);
    response
}

/// Gives the chunks after an offset one after the other, until `take` says no.
pub(in crate::server) async fn stream<F: Future<Output = bool>>(
    app: &App,
    target: &Target,
    offset: Offset,
    mut take: impl FnMut(Value) -> F,
) -> Result<(), Refusal> {
    let mut follower = follow(app, target, offset).await?;
    loop {
        let batch = match follower.read().await {
            Ok(batch) => batch,
            Err(Lost::Gone) => return Err(Refusal::StreamNotFound),
            Err(Lost::Store(error)) => return Err(error.into()),
        };
        for chunks in batch.chunks.iter().filter(|chunks| !chunks.is_empty()) {
            let mut list = vec![b'['];
            list.extend_from_slice(chunks);
            list.push(b']');
            let chunks: Vec<Value> = serde_json::from_slice(&list)
                .map_err(|error| Refusal::Internal(format!("a chunk is no JSON: {error}")))?;
            for chunk in chunks {
                if !take(chunk).await {
                    return Ok(());
                }
            }
        }
        if batch.up_to_date && follower.wait().await == Waited::Ended {
            return Err(Refusal::StreamNotFound);
        }
    }
}

/// A stream of events that is being sent. The next one is made when the client took the last.
struct Events {
    app: App,
    follower: Follower,
    /// What is ready.
    ready: Vec<Bytes>,
    /// True once nothing may follow.
    over: bool,
}

async fn events(app: App, target: &Target, offset: Offset) -> Result<Response, Refusal> {
    let follower = follow(&app, target, offset).await?;
    let mut first = String::new();
    wire::data(&mut first, &wire::checkpoint(follower.incarnation()));
    let events = Events {
        app,
        follower,
        ready: vec![Bytes::from(first)],
        over: false,
    };
    let stream = futures::stream::unfold(events, |mut events| async move {
        let next = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), events))
    });
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that hold back what comes in small pieces must not.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        // The first event is there before anything was read.
        let first = !self.ready.is_empty();
        loop {
            if self.over {
                return (!self.ready.is_empty()).then(|| self.take());
            }
            let batch = match self.follower.read().await {
                Ok(batch) => batch,
                Err(Lost::Gone) => {
                    self.over = true;
                    continue;
                }
                Err(Lost::Store(error)) => {
                    tracing::error!(%error, "a stream of events ended");
                    self.over = true;
                    continue;
                }
            };
            let empty = batch.is_empty();
            self.ready
                .extend(batch.frames.into_iter().filter(|frame| !frame.is_empty()));
            if empty && first {
                // The client learns that it is at the end, also when that is all there is to learn.
                self.control(batch.up_to_date);
            }
            if !self.ready.is_empty() {
                return Some(self.take());
            }
            if batch.up_to_date {
                self.pause().await;
                if !self.ready.is_empty() {
                    return Some(self.take());
                }
            }
        }
    }

    /// Waits for news; says that the stream is alive when there are none for long.
    async fn pause(&mut self) {
        let heartbeat: Duration = self.app.settings().heartbeat;
        tokio::select! {
            biased;
            () = self.app.draining().cancelled() => self.over = true,
            waited = self.follower.wait() => self.over = waited == Waited::Ended,
            () = tokio::time::sleep(heartbeat) => {
                self.ready.push(Bytes::from_static(b": heartbeat\n\n"));
                self.control(true);
            }
        }
    }

    fn control(&mut self, up_to_date: bool) {
        let mut frame = String::new();
        wire::control(&mut frame, self.follower.offset(), up_to_date);
        self.ready.push(Bytes::from(frame));
    }

    /// What is ready as one piece.
    fn take(&mut self) -> Bytes {
        if self.ready.len() == 1
            && let Some(only) = self.ready.pop()
        {
            return only;
        }
        let mut all = BytesMut::new();
        for piece in self.ready.drain(..) {
            all.put(piece);
        }
        all.freeze()
    }
}
