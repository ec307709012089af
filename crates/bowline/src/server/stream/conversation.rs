//! The conversations of agents as streams of their public chunks: `agents/{agent}/{id}`. They can be
//! read and followed; who wants to say something sends the agent a message.
//!
//! What comes out is what `view=updates` of the conversation protocol gives, in the form of this
//! protocol: an array of messages, a cursor, a tag that tells whether something changed.

use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bowline_agent::{actor, feed::Offset};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use tokio::time::Instant;

use super::{
    Call, Problem, answer,
    live::RECYCLE,
    request::{self, CURSOR, Live, NEXT_OFFSET, UP_TO_DATE},
};
use crate::{
    server::{
        App, Refusal, Scope,
        conversation::feed::{Batch, Follower, Lost, Waited},
    },
    service::check_instance,
};

/// Where conversations are.
pub(super) const ROOT: &str = "agents/";
const METHODS: &str = "GET, HEAD, OPTIONS";
/// About how much one answer holds.
const MOST: usize = 1024 * 1024;

type Outcome = Result<Response, Problem>;

pub(super) async fn handle(call: Call<'_>, writes: bool) -> Outcome {
    if writes {
        return Err(Refusal::MethodNotAllowed(METHODS).into());
    }
    let rest = call.path.strip_prefix(ROOT).unwrap_or_default();
    let Some((agent, id)) = rest.split_once('/').filter(|(_, id)| !id.contains('/')) else {
        return Err(Refusal::StreamNotFound.into());
    };
    call.access.require(Scope::Read, agent)?;
    check_instance(id).map_err(Refusal::from)?;
    let actor = actor(agent, id);
    let head = call.app.store().head(&actor).await.map_err(Refusal::from)?;
    let Some(head) = head.filter(|head| head.seq > 0) else {
        return Err(Refusal::StreamNotFound.into());
    };
    let tail = Offset::after(head.seq);
    if call.head.method == Method::HEAD {
        let mut response = answer::empty(StatusCode::OK);
        place(&mut response, tail, true);
        let no_store = HeaderValue::from_static("no-store");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_store);
        return Ok(response);
    }
    let query = call.head.uri.query().unwrap_or_default();
    let query = Asked::parse(query, tail)?;
    if query.live != Live::No {
        call.app.may_wait()?;
    }
    let follower = call.app.feeds().follow(&actor, query.from).await;
    let follower = follower.map_err(Refusal::from)?;
    let follower = follower.map_err(|_| Problem::from(Refusal::StreamNotFound))?;
    match query.live {
        Live::No => catch_up(&call, follower, query).await,
        Live::Poll => poll(&call, follower, query).await,
        Live::Events => Ok(events(call.app.clone(), follower, query)),
    }
}

/// What a reader asks for: as of any stream, but with the offsets of conversations.
#[derive(Clone, Copy)]
struct Asked {
    from: Offset,
    live: Live,
    cursor: Option<u64>,
}

impl Asked {
    fn parse(query: &str, tail: Offset) -> Result<Self, Problem> {
        let parsed = request::Query::parse(query)?;
        let given = query
            .split('&')
            .find_map(|part| part.strip_prefix("offset="));
        let from = match given {
            None => Offset::START,
            Some("now") => tail,
            Some(text) => match Offset::parse(text) {
                Some(offset) => offset,
                None => return Err(Problem::invalid("the offset is not one of this server")),
            },
        };
        Ok(Self {
            from,
            live: parsed.live,
            cursor: parsed.cursor,
        })
    }
}

async fn read(follower: &mut Follower) -> Result<Batch, Problem> {
    match follower.read().await {
        Ok(batch) => Ok(batch),
        Err(Lost::Gone) => Err(Refusal::StreamNotFound.into()),
        Err(Lost::Store(error)) => Err(Refusal::from(error).into()),
    }
}

/// Chunks until the end, or until there are enough of them.
async fn gather(follower: &mut Follower) -> Result<(BytesMut, bool), Problem> {
    let mut out = BytesMut::new();
    loop {
        let batch = read(follower).await?;
        add(&mut out, &batch);
        if batch.up_to_date || out.len() >= MOST {
            return Ok((out, batch.up_to_date));
        }
    }
}

fn add(out: &mut BytesMut, batch: &Batch) {
    for chunks in batch.chunks.iter().filter(|chunks| !chunks.is_empty()) {
        if !out.is_empty() {
            out.put_u8(b',');
        }
        out.put_slice(chunks);
    }
}

fn array(chunks: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(chunks.len() + 2);
    out.put_u8(b'[');
    out.put_slice(chunks);
    out.put_u8(b']');
    out.freeze()
}

fn place(response: &mut Response, offset: Offset, up_to_date: bool) {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(NEXT_OFFSET, answer::text(&offset));
    if up_to_date {
        headers.insert(UP_TO_DATE, answer::truth());
    }
}

/// The answer with what was read, or that the reader has it already.
fn content(
    call: &Call<'_>,
    follower: &Follower,
    query: Asked,
    chunks: &[u8],
    end: bool,
) -> Response {
    let (from, to) = (query.from, follower.offset());
    let tag = format!("\"{}:{from}:{to}\"", follower.incarnation());
    let known = call.header(header::IF_NONE_MATCH.as_str());
    let same = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
    let mut response = if same {
        answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        Response::new(Body::from(array(chunks)))
    };
    place(&mut response, to, end);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, answer::text(&tag));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    response
}

async fn catch_up(call: &Call<'_>, mut follower: Follower, query: Asked) -> Outcome {
    let (chunks, end) = gather(&mut follower).await?;
    Ok(content(call, &follower, query, &chunks, end))
}

async fn poll(call: &Call<'_>, mut follower: Follower, query: Asked) -> Outcome {
    let until = Instant::now() + call.app.settings().long_poll;
    let sources = call.app.sources();
    loop {
        let (chunks, end) = gather(&mut follower).await?;
        let over = tokio::select! {
            biased;
            () = std::future::ready(()), if !chunks.is_empty() => true,
            () = call.app.draining().cancelled() => true,
            () = tokio::time::sleep_until(until) => true,
            waited = follower.wait() => waited == Waited::Ended,
        };
        if !over {
            continue;
        }
        let cursor = request::cursor(sources.now(), sources.random(), query.cursor);
        let mut response = if chunks.is_empty() {
            let mut response = answer::empty(StatusCode::NO_CONTENT);
            place(&mut response, follower.offset(), true);
            response
        } else {
            content(call, &follower, query, &chunks, end)
        };
        response.headers_mut().insert(CURSOR, cursor.into());
        return Ok(response);
    }
}

struct Events {
    app: App,
    follower: Follower,
    cursor: Option<u64>,
    until: Instant,
    /// The reader has been told where it is.
    begun: bool,
}

fn events(app: App, follower: Follower, query: Asked) -> Response {
    let events = Events {
        app,
        follower,
        cursor: query.cursor,
        until: Instant::now() + RECYCLE,
        begun: false,
    };
    let pieces = stream::unfold(events, |mut events| async move {
        let next = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), events))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut chunks = BytesMut::new();
            let batch = self.follower.read().await.ok()?;
            add(&mut chunks, &batch);
            if !chunks.is_empty() || !self.begun && batch.up_to_date {
                return Some(self.event(&chunks, batch.up_to_date));
            }
            if !batch.up_to_date {
                continue;
            }
            let heartbeat = self.app.settings().heartbeat;
            tokio::select! {
                biased;
                () = self.app.draining().cancelled() => return None,
                waited = self.follower.wait() => {
                    if waited == Waited::Ended {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep(heartbeat) => return Some(self.event(b"", true)),
            }
        }
    }

    fn event(&mut self, chunks: &[u8], end: bool) -> Bytes {
        self.begun = true;
        let sources = self.app.sources();
        let cursor = request::cursor(sources.now(), sources.random(), self.cursor);
        self.cursor = Some(cursor);
        let mut control = serde_json::json!({
            "streamNextOffset": self.follower.offset().to_string(),
            "streamCursor": cursor.to_string(),
        });
        if let Some(fields) = control.as_object_mut()
            && end
        {
            fields.insert("upToDate".to_owned(), true.into());
        }
        let mut out = BytesMut::new();
        if !chunks.is_empty() {
            // The JSON of a chunk has no line breaks.
            out.put_slice(b"event: data\ndata:");
            out.put_slice(&array(chunks));
            out.put_slice(b"\n\n");
        }
        out.put_slice(b"event: control\ndata:");
        out.put_slice(control.to_string().as_bytes());
        out.put_slice(b"\n\n");
        out.freeze()
    }
}
