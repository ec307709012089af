//! One request over HTTP and its stream of server-sent events, the same for every wire format.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures_core::Stream;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use rustls_platform_verifier::Verifier;
use serde_json::Value;

use crate::catalog;
use crate::error::{ErrorKind, ModelError};
use crate::event::EventStream;
use crate::provider::assembly::Assembly;
use crate::provider::classify::{self, Failure};
use crate::secret::Secret;
use crate::sse::{SseEvent, SseParser};

/// The most that is read of the body of an error.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The most that is read of one answer.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Reads the events of one wire format.
pub(crate) trait Decoder: Send {
    /// Takes one server-sent event. The answer is whole once `out.finish` was called.
    fn event(&mut self, event: &SseEvent, out: &mut Assembly) -> Result<(), DecodeError>;

    /// The stream has ended. Returns whether the answer was whole anyhow, and then finishes it.
    fn end(&mut self, out: &mut Assembly) -> bool;
}

/// Why an event could not be taken.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// It is not what the format says.
    Malformed(String),
    /// It is the provider's report of a failure, in JSON.
    Reported(String),
}

impl DecodeError {
    pub(crate) fn json(event: &SseEvent) -> Result<Value, Self> {
        serde_json::from_str(&event.data)
            .map_err(|error| Self::Malformed(format!("an event is not JSON: {error}")))
    }
}

/// A server of a provider.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) provider: String,
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) key: Option<Secret>,
    pub(crate) headers: HeaderMap,
    pub(crate) idle: Duration,
}

impl Server {
    /// Sends `body` and decodes the answer.
    pub(crate) async fn stream(
        &self,
        extra: HeaderMap,
        body: Vec<u8>,
        decoder: Box<dyn Decoder>,
        assembly: Assembly,
    ) -> Result<EventStream, ModelError> {
        let request = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .headers(extra)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(
                reqwest::header::ACCEPT,
                HeaderValue::from_static("text/event-stream"),
            )
            .body(body);
        let response = match tokio::time::timeout(self.idle, request.send()).await {
            Ok(response) => response.map_err(|error| self.unreachable(&error))?,
            Err(_elapsed) => return Err(self.stalled("the server did not answer")),
        };
        let status = response.status();
        let media = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media = media
            .unwrap_or("text/event-stream")
            .trim()
            .to_ascii_lowercase();
        if status.is_success() && media.starts_with("text/event-stream") {
            let state = Answer {
                server: self.clone(),
                body: Box::pin(response.bytes_stream()),
                taken: 0,
                parser: SseParser::default(),
                pending: VecDeque::new(),
                decoder,
                assembly,
                failed: None,
                ended: false,
            };
            return Ok(Box::pin(futures::stream::unfold(state, Answer::next)));
        }
        let retry_after = classify::retry_after(response.headers());
        let body = self.error_body(response).await;
        if status.is_success() && !media.starts_with("application/json") {
            let message = format!("the server answered with `{media}` instead of an event stream");
            return Err(self.protocol(message).with_status(status.as_u16()));
        }
        let failure = Failure {
            provider: &self.provider,
            status: (!status.is_success()).then_some(status.as_u16()),
            retry_after,
            body: &body,
        };
        let mut error = self.redacted(classify::classify(&failure));
        if let ErrorKind::UnknownModel { closest } = &mut error.kind {
            *closest = catalog::closest(&assembly.model().model, std::iter::empty());
        }
        Err(error)
    }

    async fn error_body(&self, response: reqwest::Response) -> String {
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Ok(Some(Ok(piece))) = tokio::time::timeout(self.idle, stream.next()).await {
            let room = MAX_ERROR_BODY - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() == MAX_ERROR_BODY {
                break;
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    fn unreachable(&self, error: &reqwest::Error) -> ModelError {
        let host = reqwest::Url::parse(&self.url).ok();
        let host = host
            .as_ref()
            .and_then(reqwest::Url::host_str)
            .unwrap_or("the server");
        let why = root_cause(error);
        let message = if error.is_timeout() {
            format!("connecting to {host} took too long")
        } else if error.is_connect() {
            format!("cannot connect to {host}: {why}")
        } else {
            format!("the connection to {host} broke before an answer: {why}")
        };
        let kind = if error.is_builder() {
            ErrorKind::Config
        } else {
            ErrorKind::Network
        };
        self.redacted(ModelError::new(kind, &self.provider, message))
    }

    fn stalled(&self, what: &str) -> ModelError {
        let message = format!("{what} for {} s", self.idle.as_secs_f32());
        ModelError::new(ErrorKind::Stalled, &self.provider, message)
    }

    fn protocol(&self, message: impl AsRef<str>) -> ModelError {
        self.redacted(ModelError::new(
            ErrorKind::Protocol,
            &self.provider,
            message,
        ))
    }

    /// A provider may echo the key that it was sent.
    fn redacted(&self, mut error: ModelError) -> ModelError {
        if let Some(key) = &self.key {
            error.message = key.redact(&error.message);
        }
        error
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// An answer that is being received.
struct Answer {
    server: Server,
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    taken: usize,
    parser: SseParser,
    pending: VecDeque<SseEvent>,
    decoder: Box<dyn Decoder>,
    assembly: Assembly,
    failed: Option<ModelError>,
    ended: bool,
}

impl Answer {
    async fn next(mut self) -> Option<(Result<crate::Event, ModelError>, Self)> {
        loop {
            if let Some(event) = self.assembly.events.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                let error = self.failed.take()?;
                return Some((Err(error), self));
            }
            if let Err(error) = self.receive().await {
                self.failed = Some(error);
                self.ended = true;
            }
            if self.assembly.is_done() {
                self.ended = true;
            }
        }
    }

    /// Takes the next piece of the body.
    async fn receive(&mut self) -> Result<(), ModelError> {
        let server = &self.server;
        let cut = |why: String| ModelError::new(ErrorKind::Cut, &server.provider, why);
        let piece = match tokio::time::timeout(server.idle, self.body.next()).await {
            Err(_elapsed) => return Err(server.stalled("the stream was silent")),
            Ok(Some(Err(error))) => {
                return Err(server.redacted(cut(format!(
                    "the connection broke in the middle of the answer: {}",
                    root_cause(&error)
                ))));
            }
            Ok(None) => {
                if self.decoder.end(&mut self.assembly) {
                    return Ok(());
                }
                return Err(cut("the stream ended before the answer did".to_owned()));
            }
            Ok(Some(Ok(piece))) => piece,
        };
        self.taken = self.taken.saturating_add(piece.len());
        if self.taken > MAX_ANSWER {
            return Err(server.protocol(format!("the answer is larger than {MAX_ANSWER} bytes")));
        }
        let fed = self.parser.feed(&piece, &mut self.pending);
        while let Some(event) = self.pending.pop_front() {
            if self.assembly.is_done() {
                return Ok(());
            }
            match self.decoder.event(&event, &mut self.assembly) {
                Ok(()) => {}
                Err(DecodeError::Malformed(message)) => return Err(server.protocol(message)),
                Err(DecodeError::Reported(body)) => {
                    let failure = Failure {
                        provider: &server.provider,
                        status: None,
                        retry_after: None,
                        body: &body,
                    };
                    return Err(server.redacted(classify::classify(&failure)));
                }
            }
        }
        fed.map_err(|error| server.protocol(error.to_string()))
    }
}

/// The client that all providers share: its own TLS set-up (rustls with ring, the platform's
/// certificates), no redirects, since they could carry a key elsewhere. The proxies of the environment
/// are used unless `without_proxy`.
///
/// # Errors
///
/// `Network` when TLS cannot be set up.
pub(crate) fn client(
    connect_timeout: Duration,
    without_proxy: bool,
) -> Result<reqwest::Client, ModelError> {
    let fail = |why: String| {
        ModelError::new(
            ErrorKind::Network,
            "models",
            format!("cannot set up TLS: {why}"),
        )
    };
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    // Slim containers have no certificates: those of Mozilla serve then.
    let verifier = Verifier::new(Arc::clone(&ring))
        .or_else(|_none| {
            let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            Verifier::new_with_extra_roots(roots, Arc::clone(&ring))
        })
        .map_err(|error| fail(error.to_string()))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = reqwest::Client::builder();
    let builder = if without_proxy {
        builder.no_proxy()
    } else {
        builder
    };
    builder
        .tls_backend_preconfigured(tls)
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("bowline/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| fail(root_cause(&error)))
}

/// Whether an address is on this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    let host = url
        .as_ref()
        .and_then(reqwest::Url::host_str)
        .unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    let address: Option<std::net::IpAddr> = host.parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// A header value that is kept out of logs.
///
/// # Errors
///
/// `Auth` when the key has characters that no header can carry.
pub(crate) fn secret_header(provider: &str, text: &str) -> Result<HeaderValue, ModelError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let message = "the key has characters that a key cannot have";
        ModelError::new(ErrorKind::Auth, provider, message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}
