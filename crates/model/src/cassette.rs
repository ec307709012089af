//! Recorded exchanges with a provider: taken once from the real server, replayed in tests.
//!
//! A [`Tape`] stands between a provider and the network. While it records, each exchange is kept as it
//! was, except that keys are gone: headers that carry one are left out, and every key that the provider
//! was given is replaced wherever it stands. While it replays, nothing reaches the network: requests are
//! answered in the order in which they were recorded, and one that differs from what was recorded is an
//! error that says so. A cassette is JSON, made to be read and checked in.
//!
//! ```
//! use bowline_model::{ModelSettings, cassette::{Cassette, Tape}};
//!
//! let tape = Tape::replay(Cassette::parse(r#"{"exchanges": []}"#)?);
//! let mut settings = ModelSettings::new(|_variable| None, ".");
//! settings.tape = Some(tape);
//! # Ok::<(), bowline_model::cassette::BadCassette>(())
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::provider::frames;
use crate::secret::Secret;

/// Headers of an answer that are kept: those that a client decides by.
const KEPT: [&str; 9] = [
    "content-type",
    "date",
    "retry-after",
    "retry-after-ms",
    "x-amzn-errortype",
    "x-amzn-requestid",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-should-retry",
];

/// The most bytes of answers that a tape takes: 256 MiB. What is beyond is missing, as after a cut.
pub const MAX_TAPE: usize = 256 * 1024 * 1024;

/// Exchanges in the order in which they happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassette {
    /// Where the exchanges are from, for the reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
}

/// One request and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// What was asked.
    pub request: Asked,
    /// What was answered.
    pub response: Answered,
}

/// A request, without its keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `POST` or `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The JSON body. Null stands for any.
    #[serde(default)]
    pub body: Value,
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// The headers that matter.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, one line after the other; each is followed by a line feed but the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// The body in base64, where it is no text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base64: String,
    /// The connection broke behind the body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

impl Answered {
    /// The body in bytes.
    ///
    /// # Errors
    ///
    /// When `base64` is not base64.
    pub fn bytes(&self) -> Result<Bytes, BadCassette> {
        if self.base64.is_empty() {
            return Ok(self.lines.join("\n").into());
        }
        let decoded = STANDARD.decode(&self.base64);
        decoded
            .map(Bytes::from)
            .map_err(|error| BadCassette(error.to_string()))
    }

    fn set_body(&mut self, body: &[u8], secrets: &[Secret]) {
        match std::str::from_utf8(body) {
            Ok(text) => {
                self.lines = redact(text, secrets)
                    .split('\n')
                    .map(str::to_owned)
                    .collect()
            }
            Err(_) => self.base64 = STANDARD.encode(frames::masked(body, secrets)),
        }
    }
}

/// An event of Bedrock's binary stream, for a cassette that is made by hand: its kind, such as
/// `contentBlockDelta`, and its JSON.
pub fn frame(kind: &str, payload: &[u8]) -> Vec<u8> {
    frames::encoded(kind, payload)
}

/// What is not a cassette.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cassette cannot be read: {0}; record it again")]
pub struct BadCassette(String);

impl Cassette {
    /// Reads a cassette's JSON.
    ///
    /// # Errors
    ///
    /// When it is not one.
    pub fn parse(json: &str) -> Result<Self, BadCassette> {
        serde_json::from_str(json).map_err(|error| BadCassette(error.to_string()))
    }

    /// The cassette as JSON, for people.
    pub fn to_json(&self) -> String {
        // Strings, numbers and JSON values only: this cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// Records or replays the exchanges of the providers that it is given to. Clones are the same tape.
#[derive(Clone, Debug)]
pub struct Tape(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    replays: bool,
    secrets: Vec<Secret>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cassette: Cassette,
    played: usize,
    /// The body of each exchange that is recorded, as it came.
    bodies: Vec<Recorded>,
    /// Bytes of all of them.
    taken: usize,
}

#[derive(Debug)]
struct Recorded {
    body: Vec<u8>,
    cut: bool,
    secrets: Vec<Secret>,
}

impl Tape {
    /// A tape that records.
    pub fn record() -> Self {
        Self::record_without(Vec::new())
    }

    /// A tape that records, and on which none of these keys gets either.
    pub fn record_without(secrets: Vec<Secret>) -> Self {
        Self(Arc::new(Inner {
            replays: false,
            secrets,
            state: Mutex::default(),
        }))
    }

    /// A tape that replays. A request must be the one that was recorded, unless its recorded body is null.
    pub fn replay(cassette: Cassette) -> Self {
        let state = State {
            cassette,
            ..State::default()
        };
        Self(Arc::new(Inner {
            replays: true,
            secrets: Vec::new(),
            state: Mutex::new(state),
        }))
    }

    /// What is on the tape now. An answer that is still streaming is there as far as it came.
    pub fn cassette(&self) -> Cassette {
        let state = self.lock();
        let mut cassette = state.cassette.clone();
        for (exchange, recorded) in cassette.exchanges.iter_mut().zip(&state.bodies) {
            let response = &mut exchange.response;
            response.set_body(&recorded.body, &recorded.secrets);
            response.cut = recorded.cut;
        }
        cassette
    }

    /// How many exchanges of a replayed cassette were not asked for yet.
    pub fn left(&self) -> usize {
        let state = self.lock();
        state.cassette.exchanges.len() - state.played
    }

    pub(crate) fn replays(&self) -> bool {
        self.0.replays
    }

    /// The next answer.
    ///
    /// # Errors
    ///
    /// How the request differs from the one that was recorded.
    pub(crate) fn play(&self, asked: &Asked) -> Result<Answered, String> {
        let mut state = self.lock();
        let at = state.played;
        let Some(exchange) = state.cassette.exchanges.get(at) else {
            return Err(format!("the cassette has no exchange {}", at + 1));
        };
        let recorded = &exchange.request;
        if (&recorded.method, &recorded.path) != (&asked.method, &asked.path) {
            return Err(format!(
                "exchange {} of the cassette is {} {}, not {} {}",
                at + 1,
                recorded.method,
                recorded.path,
                asked.method,
                asked.path
            ));
        }
        if !recorded.body.is_null() && recorded.body != asked.body {
            return Err(format!(
                "exchange {} of the cassette was asked with another body",
                at + 1
            ));
        }
        let answered = exchange.response.clone();
        state.played += 1;
        Ok(answered)
    }

    /// Begins to record an exchange; its number.
    pub(crate) fn begin(
        &self,
        mut asked: Asked,
        status: u16,
        headers: &reqwest::header::HeaderMap,
        secrets: &[Secret],
    ) -> usize {
        let secrets = [secrets, &self.0.secrets].concat();
        let text = redact(&asked.body.to_string(), &secrets);
        asked.body = serde_json::from_str(&text).unwrap_or_default();
        asked.path = redact(&asked.path, &secrets);
        let kept = KEPT.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), redact(value, &secrets)))
        });
        let response = Answered {
            status,
            headers: kept.collect(),
            ..Answered::default()
        };
        let mut state = self.lock();
        state.cassette.exchanges.push(Exchange {
            request: asked,
            response,
        });
        state.bodies.push(Recorded {
            body: Vec::new(),
            cut: false,
            secrets,
        });
        state.bodies.len() - 1
    }

    /// Records the next piece of the body of an exchange, or that the connection broke.
    pub(crate) fn body(&self, exchange: usize, piece: Option<&[u8]>) {
        let mut state = self.lock();
        let room = MAX_TAPE.saturating_sub(state.taken);
        let piece = piece.filter(|piece| piece.len() <= room);
        state.taken += piece.map_or(0, <[u8]>::len);
        if let Some(recorded) = state.bodies.get_mut(exchange) {
            match piece {
                Some(piece) => recorded.body.extend_from_slice(piece),
                None => recorded.cut = true,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn redact(text: &str, secrets: &[Secret]) -> String {
    secrets
        .iter()
        .fold(text.to_owned(), |text, secret| secret.redact(&text))
}
