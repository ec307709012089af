//! What a request asks for. What is not exactly as it should be is refused, not guessed.

use axum::http::HeaderMap;
use bowline_runtime::stream::{From, Lifetime, Offset, Producer, StreamError};
use bowline_store::Timestamp;

/// Largest number in a header: what a double holds exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

pub(super) const NEXT_OFFSET: &str = "stream-next-offset";
pub(super) const CLOSED: &str = "stream-closed";
pub(super) const UP_TO_DATE: &str = "stream-up-to-date";
pub(super) const CURSOR: &str = "stream-cursor";
pub(super) const TTL: &str = "stream-ttl";
pub(super) const EXPIRES_AT: &str = "stream-expires-at";
pub(super) const SEQ: &str = "stream-seq";
pub(super) const FORKED_FROM: &str = "stream-forked-from";
pub(super) const FORK_OFFSET: &str = "stream-fork-offset";
pub(super) const FORK_SUB_OFFSET: &str = "stream-fork-sub-offset";
pub(super) const PRODUCER_ID: &str = "producer-id";
pub(super) const PRODUCER_EPOCH: &str = "producer-epoch";
pub(super) const PRODUCER_SEQ: &str = "producer-seq";
pub(super) const PRODUCER_EXPECTED: &str = "producer-expected-seq";
pub(super) const PRODUCER_RECEIVED: &str = "producer-received-seq";
pub(super) const ENCODING: &str = "stream-sse-data-encoding";

type Result<T> = std::result::Result<T, StreamError>;

fn invalid<T>(what: &str) -> Result<T> {
    Err(StreamError::Invalid(what.to_owned()))
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The path of a stream, from the path of a URL.
pub(super) fn stream_path(path: &str) -> Option<String> {
    decode(path.strip_prefix(super::ROOT)?)
}

/// Takes percent-encoding away.
pub(super) fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Only `true` closes, however it is spelled; any other value is as none.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    header(headers, CLOSED).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// A number without sign, leading zeros, fraction or exponent.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok())?
}

/// How long a new stream lives.
pub(super) fn lifetime(headers: &HeaderMap) -> Result<Option<Lifetime>> {
    let ttl = headers.get(TTL).map(|_| header(headers, TTL).unwrap_or(""));
    let expires = headers
        .get(EXPIRES_AT)
        .map(|_| header(headers, EXPIRES_AT).unwrap_or(""));
    match (ttl, expires) {
        (Some(_), Some(_)) => invalid("give Stream-TTL or Stream-Expires-At, not both"),
        (Some(ttl), None) => match number(ttl).filter(|ttl| *ttl <= MAX_NUMBER) {
            Some(seconds) => Ok(Some(Lifetime::Idle(seconds))),
            None => invalid("Stream-TTL is a whole number of seconds, such as 3600"),
        },
        (None, Some(text)) => match Timestamp::parse(text) {
            Some(time) => Ok(Some(Lifetime::Until(time, text.to_owned()))),
            None => invalid("Stream-Expires-At is a time such as 2030-01-31T12:00:00Z"),
        },
        (None, None) => Ok(None),
    }
}

/// Who appends.
pub(super) fn producer(headers: &HeaderMap) -> Result<Option<Producer>> {
    let fields = [PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ];
    let given = fields.map(|name| {
        headers
            .get(name)
            .map(|_| header(headers, name).unwrap_or(""))
    });
    let [id, epoch, seq] = given;
    let (Some(id), Some(epoch), Some(seq)) = (id, epoch, seq) else {
        return if given.iter().all(Option::is_none) {
            Ok(None)
        } else {
            invalid("send Producer-Id, Producer-Epoch and Producer-Seq together")
        };
    };
    let count = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = digits.then(|| text.parse::<u64>().ok()).flatten();
        parsed.filter(|number| *number <= MAX_NUMBER)
    };
    match (count(epoch), count(seq)) {
        _ if id.is_empty() => invalid("Producer-Id is empty"),
        (Some(epoch), Some(seq)) => Ok(Some(Producer {
            id: id.to_owned(),
            epoch,
            seq,
        })),
        _ => invalid("Producer-Epoch and Producer-Seq are whole numbers below 2^53"),
    }
}

/// The offset and the sub-offset of a fork.
pub(super) fn fork_point(headers: &HeaderMap) -> Result<(Option<Offset>, u64)> {
    let offset = match headers.get(FORK_OFFSET) {
        None => None,
        Some(value) => match value.to_str().ok().and_then(Offset::parse) {
            Some(offset) => Some(offset),
            None => return invalid("Stream-Fork-Offset is not an offset of this server"),
        },
    };
    let sub = match headers.get(FORK_SUB_OFFSET) {
        None => 0,
        Some(value) => match value.to_str().ok().and_then(number) {
            Some(sub) if sub <= MAX_NUMBER => sub,
            _ => return invalid("Stream-Fork-Sub-Offset is a whole number"),
        },
    };
    Ok((offset, sub))
}

/// How a reader wants to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Live {
    /// With what there is.
    No,
    /// With what comes, once.
    Poll,
    /// With what comes, until somebody ends it.
    Events,
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) from: From,
    pub(super) live: Live,
    pub(super) cursor: Option<u64>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self> {
        let (mut offset, mut live, mut cursor) = (None, None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(value) = decode(&value.replace('+', " ")) else {
                return invalid("the query is not valid percent-encoding");
            };
            match name {
                "offset" if offset.is_some() => return invalid("give one offset"),
                "offset" => offset = Some(value),
                "live" => live = Some(value),
                "cursor" => cursor = value.parse().ok(),
                _ => {}
            }
        }
        let live = match live.as_deref() {
            None => Live::No,
            Some("long-poll") => Live::Poll,
            Some("sse") => Live::Events,
            Some(_) => return invalid("live is long-poll or sse"),
        };
        let from = match offset.as_deref() {
            None if live != Live::No => {
                return invalid("a live reader gives an offset: -1 to start");
            }
            None | Some("-1") => From::Start,
            Some("now") => From::Now,
            Some(text) => match Offset::parse(text) {
                Some(offset) => From::At(offset),
                None => return invalid("the offset is not one of this server: use -1 to start"),
            },
        };
        Ok(Self { from, live, cursor })
    }
}

/// Intervals of cursors begin here: 2024-10-09T00:00:00Z.
const CURSOR_EPOCH_MS: i64 = 1_728_432_000_000;
const CURSOR_INTERVAL_MS: i64 = 20_000;
/// The most intervals that a cursor is moved ahead: an hour.
const CURSOR_JITTER: u64 = 180;

/// The cursor for the next request: it differs from the last one, and many readers have the same.
pub(super) fn cursor(now: Timestamp, random: u64, last: Option<u64>) -> u64 {
    let current = (now.as_millis() - CURSOR_EPOCH_MS).max(0) / CURSOR_INTERVAL_MS;
    let current = current.unsigned_abs();
    match last {
        Some(last) if last >= current => last.saturating_add(1 + random % CURSOR_JITTER),
        Some(_) | None => current,
    }
}
