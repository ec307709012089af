//! One request over HTTP and its stream of events, the same for every wire format.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures_core::Stream;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rustls_platform_verifier::Verifier;
use serde_json::Value;

use crate::cassette::{Answered, Asked, Tape};
use crate::catalog;
use crate::error::{ErrorKind, ModelError};
use crate::event::EventStream;
use crate::provider::assembly::Assembly;
use crate::provider::auth::Auth;
use crate::provider::classify::{self, Failure};
use crate::provider::frames::FrameParser;
use crate::secret::Secret;
use crate::sse::{SseParser, SseView};

/// The most that is read of the body of an error.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// How much of a replayed body comes at once.
const PIECE: usize = 16 * 1024;
/// The most that is read of one answer.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// The most parts of one answer: texts, thoughts and tool calls.
pub(super) const MAX_PARTS: usize = 4_096;

/// How events follow each other in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events.
    Sse,
    /// Amazon's event stream.
    Frames,
}

impl Framing {
    fn media(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Frames => "application/vnd.amazon.eventstream",
        }
    }
}

/// Reads the events of one wire format.
pub(crate) trait Decoder: Send {
    /// How the events are framed.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// The answer has begun.
    fn opened(&mut self, _headers: &HeaderMap, _out: &mut Assembly) {}

    /// Takes one event. The answer is whole once `out.finish` was called.
    fn event(&mut self, event: SseView<'_>, out: &mut Assembly) -> Result<(), DecodeError>;

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
    pub(crate) fn json(event: SseView<'_>) -> Result<Value, Self> {
        serde_json::from_str(event.data).map_err(|error| Self::not_json(&error))
    }

    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        Self::Malformed(format!("an event is not JSON: {error}"))
    }
}

/// A server of a provider.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) provider: String,
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) auth: Auth,
    /// What must not stand in a message.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) headers: HeaderMap,
    pub(crate) idle: Duration,
    pub(crate) tape: Option<Tape>,
}

/// A response whose body has not been read.
struct Response {
    status: u16,
    headers: HeaderMap,
    body: Body,
}

type Body = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

impl Server {
    /// Sends `body` and decodes the answer.
    pub(crate) async fn stream(
        &self,
        extra: HeaderMap,
        body: Vec<u8>,
        decoder: Box<dyn Decoder>,
        assembly: Assembly,
    ) -> Result<EventStream, ModelError> {
        let response = self.send(extra, Some(body), decoder.framing()).await?;
        self.read(response, decoder, assembly).await
    }

    /// Asks for an answer that is there already, and decodes it.
    pub(crate) async fn fetch(
        &self,
        decoder: Box<dyn Decoder>,
        assembly: Assembly,
    ) -> Result<EventStream, ModelError> {
        let response = self.send(HeaderMap::new(), None, decoder.framing()).await?;
        self.read(response, decoder, assembly).await
    }

    /// Sends `body`, whatever comes back.
    pub(crate) async fn tell(&self, body: Vec<u8>) {
        let told = self.send(HeaderMap::new(), Some(body), Framing::Sse).await;
        if let Err(error) = told {
            tracing::debug!(provider = %self.provider, %error, "the provider was not told");
        }
    }

    async fn read(
        &self,
        response: Response,
        mut decoder: Box<dyn Decoder>,
        mut assembly: Assembly,
    ) -> Result<EventStream, ModelError> {
        let framing = decoder.framing();
        let is_success = (200..300).contains(&response.status);
        let media = response
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media = media.unwrap_or(framing.media()).trim().to_ascii_lowercase();
        if is_success && let Some(coding) = coding(&response.headers) {
            let message = format!("the server answered in `{coding}`, which was not asked for");
            return Err(self.protocol(message).with_status(response.status));
        }
        if is_success && media.starts_with(framing.media()) {
            decoder.opened(&response.headers, &mut assembly);
            let state = Answer {
                server: self.clone(),
                body: response.body,
                taken: 0,
                parser: match framing {
                    Framing::Sse => Parser::Sse(SseParser::default()),
                    Framing::Frames => Parser::Frames(FrameParser::default()),
                },
                decoder,
                assembly,
                failed: None,
                ended: false,
            };
            // By the piece, since moving the state for each event costs more than reading it.
            let batches = futures::stream::unfold(state, Answer::next);
            return Ok(Box::pin(batches.map(futures::stream::iter).flatten()));
        }
        Err(self.failure(response, &media, assembly).await)
    }

    /// What a response that is no answer says.
    async fn failure(&self, response: Response, media: &str, assembly: Assembly) -> ModelError {
        let status = response.status;
        let is_success = (200..300).contains(&status);
        let retry_after = classify::retry_after(&response.headers);
        let code = response
            .headers
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        // A page in a coding that was not asked for says nothing.
        let body = match coding(&response.headers) {
            Some(_) => String::new(),
            None => self.redacted(&self.error_body(response.body).await),
        };
        if is_success && !media.starts_with("application/json") {
            let message = format!("the server answered with `{media}` instead of an event stream");
            return self.protocol(message).with_status(status);
        }
        if is_success && is_answer(&body) {
            let message = "the server answered at once, though a stream was asked for";
            return self.protocol(message).with_status(status);
        }
        let failure = Failure {
            provider: &self.provider,
            status: (!is_success).then_some(status),
            retry_after,
            code: code.as_deref(),
            body: &body,
        };
        let mut error = classify::classify(&failure);
        if classify::is_final(&response.headers) {
            error = error.not_again();
        }
        if let ErrorKind::UnknownModel { closest } = &mut error.kind {
            *closest = catalog::closest(&assembly.model().model, std::iter::empty());
        }
        error
    }

    /// One request, on the network or on the tape.
    async fn send(
        &self,
        extra: HeaderMap,
        body: Option<Vec<u8>>,
        framing: Framing,
    ) -> Result<Response, ModelError> {
        let asked = self.tape.as_ref().map(|_| self.asked(body.as_deref()));
        if let (Some(tape), Some(asked)) = (&self.tape, &asked)
            && tape.replays()
        {
            let answered = tape.play(asked).map_err(|why| self.protocol(why))?;
            return replayed(&answered).map_err(|why| self.protocol(why));
        }
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(framing.media()));
        headers.extend(extra);
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let bytes = body.as_deref().unwrap_or_default();
        let (auth, client, url) = (&self.auth, &self.client, &self.url);
        auth.apply(&self.provider, client, url, &mut headers, bytes)
            .await?;
        let request = match body {
            None => client.get(url),
            Some(body) => client.post(url).body(body),
        };
        let request = request.headers(headers);
        let response = match tokio::time::timeout(self.idle, request.send()).await {
            Ok(response) => response.map_err(|error| self.unreachable(&error))?,
            Err(_elapsed) => return Err(self.stalled("the server did not answer")),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response
            .bytes_stream()
            .map(|piece| piece.map_err(|error| root_cause(&error)));
        let body: Body = match (&self.tape, asked) {
            (Some(tape), Some(asked)) => {
                let at = tape.begin(asked, status, &headers, &self.secrets);
                let tape = tape.clone();
                Box::pin(body.inspect(move |piece| {
                    tape.body(at, piece.as_ref().ok().map(|piece| &**piece));
                }))
            }
            _ => Box::pin(body),
        };
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    fn asked(&self, body: Option<&[u8]>) -> Asked {
        let url = reqwest::Url::parse(&self.url).ok();
        let path = url.as_ref().map_or(String::new(), |url| {
            let query = url.query().map(|query| format!("?{query}"));
            format!("{}{}", url.path(), query.unwrap_or_default())
        });
        Asked {
            method: if body.is_some() { "POST" } else { "GET" }.to_owned(),
            path,
            body: body
                .and_then(|body| serde_json::from_slice(body).ok())
                .unwrap_or_default(),
        }
    }

    async fn error_body(&self, mut stream: Body) -> String {
        let mut body = Vec::new();
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
        let url = reqwest::Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(reqwest::Url::host_str);
        let mut host = host.unwrap_or("the server").to_owned();
        // The usual one needs no mention.
        if let Some(port) = url.as_ref().and_then(reqwest::Url::port) {
            host = format!("{host}:{port}");
        }
        let why = self.redacted(&root_cause(error));
        if let Some(why) = certificate_problem(error) {
            let message = format!("the certificate of {host} {why}");
            return ModelError::new(ErrorKind::Certificate, &self.provider, message);
        }
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
        ModelError::new(kind, &self.provider, message)
    }

    fn stalled(&self, what: &str) -> ModelError {
        let message = format!("{what} for {} s", self.idle.as_secs_f32());
        ModelError::new(ErrorKind::Stalled, &self.provider, message)
    }

    fn protocol(&self, message: impl AsRef<str>) -> ModelError {
        let message = self.redacted(message.as_ref());
        ModelError::new(ErrorKind::Protocol, &self.provider, message)
    }

    /// A provider may echo the key that it was sent. Taken out before anything is shortened, so that no
    /// part of it is left.
    fn redacted(&self, text: &str) -> String {
        let redact = |text: String, secret: &Secret| secret.redact(&text);
        self.secrets.iter().fold(text.to_owned(), redact)
    }
}

/// The coding of a body that is not sent as it is.
fn coding(headers: &HeaderMap) -> Option<&str> {
    let coding = headers.get(CONTENT_ENCODING)?.to_str().ok()?.trim();
    (!coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).then_some(coding)
}

/// Whether a body in JSON is an answer that was not streamed.
fn is_answer(body: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let has = |key: &str| body.get(key).is_some_and(|value| !value.is_null());
    let said = ["choices", "content", "candidates"];
    !has("error") && (said.into_iter().any(has) || (has("output") && has("status")))
}

/// A response from a tape.
fn replayed(answered: &Answered) -> Result<Response, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &answered.headers {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        headers.insert(name, value);
    }
    let mut body = answered.bytes().map_err(|error| error.to_string())?;
    let mut pieces = Vec::new();
    while !body.is_empty() {
        pieces.push(Ok(body.split_to(body.len().min(PIECE))));
    }
    if answered.cut {
        pieces.push(Err("the connection was reset".to_owned()));
    }
    Ok(Response {
        status: answered.status,
        headers,
        body: Box::pin(futures::stream::iter(pieces)),
    })
}

pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What is wrong with the server's certificate, when that is why an error came.
pub(super) fn certificate_problem(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use rustls::CertificateError as Problem;
    let mut cause = Some(error);
    while let Some(error) = cause {
        let tls = error.downcast_ref::<rustls::Error>();
        if let Some(rustls::Error::InvalidCertificate(problem)) = tls {
            return Some(match problem {
                Problem::UnknownIssuer => {
                    "is signed by no authority that this machine trusts".to_owned()
                }
                Problem::Expired | Problem::ExpiredContext { .. } => "has expired".to_owned(),
                Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
                    "is not valid yet".to_owned()
                }
                Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
                    "is for another name".to_owned()
                }
                Problem::Revoked => "is revoked".to_owned(),
                other => format!("cannot be trusted: {other}"),
            });
        }
        // An I/O error does not name what it holds as its source.
        let io = error.downcast_ref::<std::io::Error>();
        cause = match io.and_then(std::io::Error::get_ref) {
            Some(held) => Some(held as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Whichever framing the answer has.
enum Parser {
    Sse(SseParser),
    Frames(FrameParser),
}

/// An answer that is being received.
struct Answer {
    server: Server,
    body: Body,
    taken: usize,
    parser: Parser,
    decoder: Box<dyn Decoder>,
    assembly: Assembly,
    failed: Option<ModelError>,
    ended: bool,
}

impl Answer {
    /// The next events, with the error behind them if that is how the answer ends.
    async fn next(mut self) -> Option<(Vec<Result<crate::Event, ModelError>>, Self)> {
        while self.assembly.events.is_empty() && !self.ended {
            if let Err(error) = self.receive().await {
                self.failed = Some(error);
                self.ended = true;
            }
            if self.assembly.is_done() {
                self.ended = true;
            }
        }
        let events = self.assembly.events.drain(..).map(Ok);
        let batch: Vec<_> = events.chain(self.failed.take().map(Err)).collect();
        (!batch.is_empty()).then_some((batch, self))
    }

    /// Takes the next piece of the body.
    async fn receive(&mut self) -> Result<(), ModelError> {
        let server = &self.server;
        let cut = |why: String| ModelError::new(ErrorKind::Cut, &server.provider, why);
        let ended = match tokio::time::timeout(server.idle, self.body.next()).await {
            Err(_elapsed) => server.stalled("the stream was silent"),
            Ok(Some(Err(why))) => cut(format!(
                "the connection broke in the middle of the answer: {}",
                server.redacted(&why)
            )),
            Ok(None) => cut("the stream ended before the answer did".to_owned()),
            Ok(Some(Ok(piece))) => return self.take(&piece),
        };
        // However the connection ended: an answer that is whole is not paid for again.
        if self.decoder.end(&mut self.assembly) {
            return Ok(());
        }
        Err(ended)
    }

    /// Takes the events that a piece of the body completes.
    fn take(&mut self, piece: &[u8]) -> Result<(), ModelError> {
        let server = &self.server;
        self.taken = self.taken.saturating_add(piece.len());
        if self.taken > MAX_ANSWER {
            return Err(server.protocol(format!("the answer is larger than {MAX_ANSWER} bytes")));
        }
        let (decoder, assembly) = (&mut self.decoder, &mut self.assembly);
        let mut failed = None;
        let mut take = |event: SseView<'_>| {
            if assembly.is_done() {
                return false;
            }
            failed = decoder.event(event, assembly).err();
            if assembly.parts() > MAX_PARTS {
                let message = format!("the answer has more than {MAX_PARTS} parts");
                failed = Some(DecodeError::Malformed(message));
            }
            failed.is_none()
        };
        let fed = match &mut self.parser {
            Parser::Sse(parser) => parser
                .each(piece, &mut take)
                .map_err(|error| error.to_string()),
            Parser::Frames(parser) => parser
                .each(piece, &mut take)
                .map_err(|error| error.to_string()),
        };
        match failed {
            None => fed.map_err(|why| server.protocol(why)),
            Some(DecodeError::Malformed(message)) => Err(server.protocol(message)),
            Some(DecodeError::Reported(body)) => {
                let failure = Failure {
                    provider: &server.provider,
                    body: &server.redacted(&body),
                    ..Failure::default()
                };
                Err(classify::classify(&failure))
            }
        }
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
