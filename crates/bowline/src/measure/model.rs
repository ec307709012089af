//! What reading a model's answer costs: the figures of `bowline bench model`.
//!
//! Throughput is taken over the whole way from bytes to events, without sockets: an answer of many
//! small pieces is replayed through the provider. Latency is the time from the write of a piece at one
//! end of a connection on loopback to its event at the other.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowline_model::{
    Api, Event, Message, ModelError, ModelSettings, Models, NamedModel, Request, ResolvedModel,
    UserMessage,
    cassette::{Answered, Asked, Cassette, Exchange, Tape, frame},
    sse::SseParser,
};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use crate::error::Error;

/// Pieces of an answer whose latency is measured, and the time between them.
const PIECES: usize = 2_000;
/// What an answer begins with.
const BEGIN: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const GAP: Duration = Duration::from_millis(1);

/// The throughput of one format.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    /// The format.
    pub what: String,
    /// Megabytes of the stream that are read in a second, on one core: the best of the rounds.
    #[serde(rename = "mbPerSecond")]
    pub mb_per_s: f64,
    /// Events of the stream that are read in a second.
    #[serde(rename = "eventsPerSecond")]
    pub events_per_s: f64,
}

/// How long something took, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    /// Half were faster.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One for each format.
    #[serde(rename = "rows")]
    pub throughput: Vec<Throughput>,
    /// From the write of a piece to its event.
    pub latency_us: Times,
    /// The same connection without a provider: what the sockets and the scheduler take.
    pub socket_us: Times,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>9} {:>12}", "", "MB/s", "events/s")?;
        for row in &self.throughput {
            writeln!(
                f,
                "{:<20} {:>9.0} {:>12.0}",
                row.what, row.mb_per_s, row.events_per_s
            )?;
        }
        writeln!(
            f,
            "from socket to event: p50 {:.0} µs, p99 {:.0} µs; the socket alone: {:.0} µs, {:.0} µs",
            self.latency_us.p50, self.latency_us.p99, self.socket_us.p50, self.socket_us.p99
        )
    }
}

/// Measures. Takes some seconds.
///
/// # Errors
///
/// When loopback cannot be used.
pub async fn run(rounds: usize, megabytes: usize) -> Result<Report, Error> {
    let mut report = Report::default();
    report.throughput.push(parser(rounds, megabytes));
    for api in [
        Api::Anthropic,
        Api::OpenaiResponses,
        Api::OpenaiChat,
        Api::Gemini,
        Api::Bedrock,
    ] {
        let mut best = Throughput {
            what: api.as_str().to_owned(),
            mb_per_s: 0.0,
            events_per_s: 0.0,
        };
        for _ in 0..rounds {
            let (bytes, count, seconds) = replay(api, megabytes).await?;
            let rate = bytes as f64 / seconds / 1e6;
            if rate > best.mb_per_s {
                best.mb_per_s = rate;
                best.events_per_s = count as f64 / seconds;
            }
        }
        report.throughput.push(best);
    }
    let failed = |error: std::io::Error| Error::failure("output_failed", error.to_string(), "");
    let floor = latencies(false).await.map_err(failed)?;
    report.socket_us = percentiles(floor);
    let whole = latencies(true).await.map_err(failed)?;
    report.latency_us = percentiles(whole);
    Ok(report)
}

fn percentiles(mut micros: Vec<f64>) -> Times {
    micros.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (micros.len() as f64 * part) as usize;
        micros.get(index).copied().unwrap_or(0.0)
    };
    Times {
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// The parser of server-sent events alone.
fn parser(rounds: usize, megabytes: usize) -> Throughput {
    let (_, delta, _) = pieces(Api::Anthropic);
    let count = megabytes * 1_000_000 / delta.len();
    let bytes = delta.repeat(count);
    let mut best: f64 = 0.0;
    for _ in 0..rounds {
        let (began, mut parser, mut seen) = (Instant::now(), SseParser::default(), 0_usize);
        for piece in bytes.as_bytes().chunks(16 * 1024) {
            // The events are small.
            let _ = parser.each(piece, |event| {
                seen += usize::from(!event.data.is_empty());
                true
            });
        }
        best = best.max(seen as f64 / began.elapsed().as_secs_f64());
    }
    Throughput {
        what: "server-sent events".to_owned(),
        mb_per_s: best * delta.len() as f64 / 1e6,
        events_per_s: best,
    }
}

/// The begin of an answer, one more piece of its text, and its end.
fn pieces(api: Api) -> (String, String, String) {
    let named = |name: &str, data: &str| format!("event: {name}\ndata: {data}\n\n");
    let plain = |data: &str| format!("data: {data}\n\n");
    match api {
        Api::Anthropic | Api::Bedrock | Api::Scripted => (
            named(
                "message_start",
                r#"{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":9,"output_tokens":1}}}"#,
            ) + &named(
                "content_block_start",
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            ),
            named(
                "content_block_delta",
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello, wor"}}"#,
            ),
            named(
                "content_block_stop",
                r#"{"type":"content_block_stop","index":0}"#,
            ) + &named(
                "message_delta",
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#,
            ) + &named("message_stop", r#"{"type":"message_stop"}"#),
        ),
        Api::OpenaiResponses => (
            named(
                "response.created",
                r#"{"type":"response.created","response":{"id":"resp_1"}}"#,
            ) + &named(
                "response.output_item.added",
                r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"msg_1","content":[]}}"#,
            ),
            named(
                "response.output_text.delta",
                r#"{"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_67c9fdcf37fc8190ba82116e33fb28c507b8b0ad4e5eb654","output_index":0,"content_index":0,"delta":"Hello, wor","logprobs":[]}"#,
            ),
            named(
                "response.output_item.done",
                r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"msg_1"}}"#,
            ) + &named(
                "response.completed",
                r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","usage":{"input_tokens":9,"output_tokens":9}}}"#,
            ),
        ),
        Api::OpenaiChat => (
            plain(
                r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            ),
            plain(
                r#"{"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_fc9f1d7035","choices":[{"index":0,"delta":{"content":"Hello, wor"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
            ),
            plain(
                r#"{"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            ) + &plain("[DONE]"),
        ),
        Api::Gemini => {
            let chunk = |text: &str, end: &str| {
                plain(&format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},{end}"index":0}}],"usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":9,"totalTokenCount":18}},"modelVersion":"gemini-2.5-flash","responseId":"mAitaLmkHPPlz7IPvtfUqQ4"}}"#
                ))
            };
            (
                chunk("", ""),
                chunk("Hello, wor", ""),
                chunk("", r#""finishReason":"STOP","#),
            )
        }
    }
}

/// An answer of Bedrock.
fn frames(megabytes: usize) -> Vec<u8> {
    let delta = frame(
        "contentBlockDelta",
        br#"{"contentBlockIndex":0,"delta":{"text":"Hello, wor"},"p":"abcdefghijklmnopqrs"}"#,
    );
    let mut body = frame("messageStart", br#"{"role":"assistant"}"#);
    body.extend(delta.repeat(megabytes * 1_000_000 / delta.len()));
    for (kind, payload) in [
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        ("messageStop", r#"{"stopReason":"end_turn"}"#),
        (
            "metadata",
            r#"{"usage":{"inputTokens":9,"outputTokens":9},"metrics":{"latencyMs":1}}"#,
        ),
    ] {
        body.extend(frame(kind, payload.as_bytes()));
    }
    body
}

fn model(api: Api, base_url: &str, tape: Option<Tape>) -> Result<ResolvedModel, ModelError> {
    let mut settings = ModelSettings::new(|_| None, ".");
    settings.tape = tape;
    let entry = NamedModel {
        base_url: Some(base_url.to_owned()),
        model: Some("m".to_owned()),
        // Without one Bedrock looks for the keys of the cloud.
        key_env: (api == Api::Bedrock).then(|| "NO_KEY".to_owned()),
        ..NamedModel::new(api)
    };
    settings.named.insert("bench".to_owned(), entry);
    Models::new(settings).resolve("bench", Path::new("."))
}

fn request() -> Request {
    Request {
        model: "m".to_owned(),
        messages: vec![Message::User(UserMessage::text("Go."))].into(),
        ..Request::default()
    }
}

/// Bytes, events and seconds of one replayed answer.
async fn replay(api: Api, megabytes: usize) -> Result<(usize, usize, f64), Error> {
    let (path, media) = match api {
        Api::Anthropic | Api::Scripted => ("/v1/messages", "text/event-stream"),
        Api::OpenaiResponses => ("/responses", "text/event-stream"),
        Api::OpenaiChat => ("/chat/completions", "text/event-stream"),
        Api::Gemini => (
            "/models/m:streamGenerateContent?alt=sse",
            "text/event-stream",
        ),
        Api::Bedrock => (
            "/model/m/converse-stream",
            "application/vnd.amazon.eventstream",
        ),
    };
    let (lines, base64, bytes) = if api == Api::Bedrock {
        let body = frames(megabytes);
        (Vec::new(), STANDARD.encode(&body), body.len())
    } else {
        let (head, delta, tail) = pieces(api);
        let count = megabytes * 1_000_000 / delta.len();
        let body = format!("{head}{}{tail}", delta.repeat(count));
        let bytes = body.len();
        (vec![body], String::new(), bytes)
    };
    let media = ("content-type".to_owned(), media.to_owned());
    let exchange = Exchange {
        request: Asked {
            method: "POST".to_owned(),
            path: path.to_owned(),
            ..Asked::default()
        },
        response: Answered {
            status: 200,
            headers: BTreeMap::from([media]),
            lines,
            base64,
            ..Answered::default()
        },
    };
    let tape = Tape::replay(Cassette {
        exchanges: vec![exchange],
        ..Cassette::default()
    });
    let model = model(api, "http://127.0.0.1:9", Some(tape)).map_err(failure)?;
    let mut events = model.provider.stream(request()).await.map_err(failure)?;
    let (began, mut seen) = (Instant::now(), 0);
    while let Some(event) = events.next().await {
        if let Event::Text { .. } = event.map_err(failure)? {
            seen += 1;
        }
    }
    Ok((bytes, seen, began.elapsed().as_secs_f64()))
}

fn failure(error: ModelError) -> Error {
    Error::failure(error.code(), error.to_string(), error.hint())
}

/// Microseconds from the write of each piece to its arrival: as an event of a provider, or as bytes.
async fn latencies(as_events: bool) -> std::io::Result<Vec<f64>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let written = Arc::new(Mutex::new(Vec::with_capacity(PIECES)));
    let writer = written.clone();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let mut asked = vec![0; 4096];
        let _ = socket.read(&mut asked).await?;
        let (head, delta, tail) = pieces(Api::Anthropic);
        socket
            .write_all(format!("{BEGIN}{head}").as_bytes())
            .await?;
        for _ in 0..PIECES {
            tokio::time::sleep(GAP).await;
            writer.lock().await.push(Instant::now());
            socket.write_all(delta.as_bytes()).await?;
        }
        socket.write_all(tail.as_bytes()).await
    });
    let mut arrived = Vec::with_capacity(PIECES);
    if as_events {
        let model = model(Api::Anthropic, &format!("http://{address}"), None);
        let model = model.map_err(std::io::Error::other)?;
        let events = model.provider.stream(request()).await;
        let mut events = events.map_err(std::io::Error::other)?;
        while let Some(event) = events.next().await {
            if let Event::Text { .. } = event.map_err(std::io::Error::other)? {
                arrived.push(Instant::now());
            }
        }
    } else {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        let (head, delta, _) = pieces(Api::Anthropic);
        let (mut bytes, mut taken) = (vec![0; 4096], 0);
        // One read may bring several pieces, or a part of one: a piece is there with its last byte.
        while arrived.len() < PIECES {
            match socket.read(&mut bytes).await? {
                0 => break,
                more => taken += more,
            }
            let now = Instant::now();
            let body = taken.saturating_sub(BEGIN.len() + head.len());
            arrived.resize(PIECES.min(body / delta.len()), now);
        }
    }
    server.abort();
    let written = written.lock().await;
    let pairs = arrived.iter().zip(written.iter());
    Ok(pairs
        .map(|(at, from)| at.saturating_duration_since(*from).as_secs_f64() * 1e6)
        .collect())
}
