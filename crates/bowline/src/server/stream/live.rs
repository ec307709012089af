//! Event streams: data and control events, until the stream or the connection ends.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use base64::Engine as _;
use bowline_runtime::stream::{Follower, From, Offset, StreamError, Streams, meta};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Call, Problem, answer, read,
    request::{self, ENCODING, Query},
};

/// After this long a connection is ended, so that readers of one stream come together again at
/// whatever caches stand between. The reader goes on from its last offset.
pub(super) const RECYCLE: Duration = Duration::from_secs(60);
/// About how much one event holds.
const EVENT: u64 = 128 * 1024;

/// How the bytes of a stream are put into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Base64,
}

struct Events {
    streams: Streams,
    follower: Follower,
    form: Form,
    place: Offset,
    cursor: Option<u64>,
    heartbeat: Duration,
    until: Instant,
    draining: CancellationToken,
    /// The reader has been told where it is.
    begun: bool,
    ended: bool,
}

pub(super) async fn events(call: &Call<'_>, query: Query) -> Result<Response, Problem> {
    let streams = call.streams();
    let info = streams.info(&call.path).await?;
    let follower = streams.tail(&call.path).await?;
    let tail = follower.mark().tail;
    let essence = meta::media_type(&info.meta.content_type).to_ascii_lowercase();
    let form = if info.meta.is_json() {
        Form::Json
    } else if essence.starts_with("text/") {
        Form::Text
    } else {
        Form::Base64
    };
    let events = Events {
        streams: streams.clone(),
        follower,
        form,
        place: match query.from {
            From::Start => Offset(0),
            From::Now => tail,
            From::At(offset) => offset.min(tail),
        },
        cursor: query.cursor,
        heartbeat: call.app.settings().heartbeat,
        until: Instant::now() + RECYCLE,
        draining: call.app.draining().clone(),
        begun: false,
        ended: false,
    };
    let pieces = stream::try_unfold(events, |mut events| async move {
        let next = events.next().await?;
        Ok::<_, StreamError>(next.map(|bytes| (bytes, events)))
    });
    let mut response = answer::empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if form == Form::Base64 {
        headers.insert(ENCODING, HeaderValue::from_static("base64"));
    }
    *response.body_mut() = Body::from_stream(pieces);
    Ok(response)
}

impl Events {
    /// The next events; `None` when the connection ends.
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let mark = self.follower.mark();
            if mark.gone {
                return Ok(None);
            }
            if mark.tail > self.place {
                return self.data().await.map(Some);
            }
            if !self.begun || mark.closed {
                return Ok(Some(self.control(true, mark.closed, BytesMut::new())));
            }
            tokio::select! {
                biased;
                () = self.draining.cancelled() => return Ok(None),
                _ = self.follower.beyond(self.place) => {}
                () = tokio::time::sleep_until(self.until) => return Ok(None),
                () = tokio::time::sleep(self.heartbeat) => {
                    return Ok(Some(self.control(true, false, BytesMut::new())));
                }
            }
        }
    }

    /// One data event and its control event.
    async fn data(&mut self) -> Result<Bytes, StreamError> {
        let reading = self.follower.read(self.place, EVENT).await?;
        let (end, current, last) = (reading.end, reading.is_up_to_date(), reading.is_final());
        let data = read::whole(reading.scan).await?;
        let mut out = BytesMut::with_capacity(data.len() + 192);
        out.put_slice(b"event: data\n");
        match self.form {
            Form::Text => lines(&mut out, &data),
            Form::Json => {
                let messages = data.get(..data.len().saturating_sub(1)).unwrap_or_default();
                let mut array = BytesMut::with_capacity(data.len() + 1);
                array.put_u8(b'[');
                array.put_slice(messages);
                array.put_u8(b']');
                lines(&mut out, &array);
            }
            Form::Base64 => {
                out.put_slice(b"data:");
                let text = base64::engine::general_purpose::STANDARD.encode(&data);
                out.put_slice(text.as_bytes());
                out.put_u8(b'\n');
            }
        }
        out.put_u8(b'\n');
        self.place = end;
        Ok(self.control(current, last, out))
    }

    /// Adds a control event: where the reader is.
    fn control(&mut self, current: bool, last: bool, mut out: BytesMut) -> Bytes {
        self.begun = true;
        self.ended = last;
        let mut control = serde_json::json!({"streamNextOffset": self.place.to_string()});
        if let Some(fields) = control.as_object_mut() {
            if last {
                fields.insert("streamClosed".to_owned(), true.into());
            } else {
                let sources = self.streams.sources();
                let cursor = request::cursor(sources.now(), sources.random(), self.cursor);
                self.cursor = Some(cursor);
                fields.insert("streamCursor".to_owned(), cursor.to_string().into());
            }
            if current {
                fields.insert("upToDate".to_owned(), true.into());
            }
        }
        out.put_slice(b"event: control\ndata:");
        out.put_slice(control.to_string().as_bytes());
        out.put_slice(b"\n\n");
        out.freeze()
    }
}

/// Text as `data:` lines. Every way to end a line is one, so that no text can make an event.
fn lines(out: &mut BytesMut, text: &[u8]) {
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        out.put_slice(b"data:");
        if line.first() == Some(&b' ') {
            // A reader takes one space away.
            out.put_u8(b' ');
        }
        out.put_slice(line);
        out.put_u8(b'\n');
        let Some(end) = end else { return };
        let both = rest.get(end..end + 2) == Some(b"\r\n");
        rest = rest.get(end + 1 + usize::from(both)..).unwrap_or_default();
    }
}
