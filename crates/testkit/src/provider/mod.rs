//! A provider's server that says what a test wants: Anthropic Messages, OpenAI Responses, OpenAI
//! Chat Completions, Google Gemini and Amazon Bedrock in their real wire formats, over a real socket on loopback.
//!
//! Replies are queued and taken one by one, in whatever format the caller asks; requests are
//! recorded. A reply can be cut, can end early, can stall until it is released, or can be any bytes
//! at all. Nothing sleeps.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use bowline_testkit::provider::{Answer, ErrorClass, FakeProvider, Reply, Wire};
//!
//! let server = FakeProvider::start().await?;
//! server.push(Reply::error(ErrorClass::Overloaded));
//! server.push(Answer::new().text("Hello").tool("call_1", "bash", r#"{"command":"ls"}"#));
//! let base_url = server.base_url(Wire::Anthropic);
//! // … point a client at base_url …
//! assert!(server.requests().len() <= 2);
//! # Ok(()) }
//! ```

mod bedrock;
mod reply;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

pub use reply::{Answer, ErrorClass, FakeUsage, Gate, Reply, Stop};

/// A wire format that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic Messages: `POST /v1/messages`.
    Anthropic,
    /// OpenAI Responses: `POST /v1/responses`.
    Responses,
    /// OpenAI Chat Completions: `POST /v1/chat/completions`.
    Chat,
    /// Google Gemini: `POST /v1beta/models/MODEL:streamGenerateContent`.
    Gemini,
    /// Amazon Bedrock Converse: `POST /model/MODEL/converse-stream`, in binary frames.
    Bedrock,
}

impl Wire {
    /// All of them.
    pub const ALL: [Wire; 5] = [
        Wire::Anthropic,
        Wire::Responses,
        Wire::Chat,
        Wire::Gemini,
        Wire::Bedrock,
    ];
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The format that it was sent in.
    pub wire: Wire,
    /// `POST`, or `GET` for a response that is read again.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body, byte by byte.
    pub raw: Bytes,
    /// Its body; null when it is not JSON.
    pub body: Value,
}

#[derive(Debug)]
struct Shared {
    replies: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Otherwise>,
    requests: Mutex<Vec<RecordedRequest>>,
    exchanges: Mutex<Vec<String>>,
    received: watch::Sender<usize>,
    abandoned: watch::Sender<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Respond = Arc<dyn Fn(&RecordedRequest) -> Reply + Send + Sync>;

/// What answers when no reply is queued.
#[derive(Clone, Default)]
struct Otherwise(Option<Respond>);

impl std::fmt::Debug for Otherwise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Otherwise").field(&self.0.is_some()).finish()
    }
}

/// The server. It stops when it is dropped.
#[derive(Debug)]
pub struct FakeProvider {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The test itself says a key to the model.
    told: AtomicBool,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() && !self.told.load(Ordering::Relaxed) {
            for request in self.requests() {
                let told = [request.path.as_bytes(), &request.raw];
                let leaks = told.into_iter().any(crate::canary::holds_key);
                assert!(!leaks, "a key was sent in a prompt or an address");
            }
        }
    }
}

impl FakeProvider {
    /// The test itself says a key to the model: prompts are not searched for it.
    pub fn is_told_a_key(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Starts a server on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            otherwise: Mutex::default(),
            requests: Mutex::default(),
            exchanges: Mutex::default(),
            received: watch::Sender::new(0),
            abandoned: watch::Sender::new(0),
        });
        let route = |wire: Wire| {
            post(
                move |State(shared): State<Arc<Shared>>,
                      uri: Uri,
                      headers: HeaderMap,
                      body: Bytes| async move {
                    answer(wire, &shared, "POST", &uri, &headers, body)
                },
            )
        };
        let again = get(
            |State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap| async move {
                answer(
                    Wire::Responses,
                    &shared,
                    "GET",
                    &uri,
                    &headers,
                    Bytes::new(),
                )
            },
        );
        let app = Router::new()
            .route("/v1/messages", route(Wire::Anthropic))
            .route("/v1/responses", route(Wire::Responses))
            .route("/v1/chat/completions", route(Wire::Chat))
            .route("/v1/responses/{id}", again)
            .route("/v1/responses/{id}/cancel", route(Wire::Responses))
            .route("/v1beta/models/{call}", route(Wire::Gemini))
            .route("/model/{id}/converse-stream", route(Wire::Bedrock))
            .route("/token", post(token))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Ends with the task.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            address,
            shared,
            told: AtomicBool::new(false),
            task,
        })
    }

    /// What a client of the format takes as its base URL.
    pub fn base_url(&self, wire: Wire) -> String {
        match wire {
            Wire::Anthropic | Wire::Bedrock => format!("http://{}", self.address),
            Wire::Responses | Wire::Chat => format!("http://{}/v1", self.address),
            Wire::Gemini => format!("http://{}/v1beta", self.address),
        }
    }

    /// Queues a reply. A request that finds none is answered with status 500.
    pub fn push(&self, reply: impl Into<Reply>) {
        lock(&self.shared.replies).push_back(reply.into());
    }

    /// Answers each request that finds no queued reply by this function.
    pub fn answer_with(&self, reply: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.otherwise) = Otherwise(Some(Arc::new(reply)));
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.shared.requests).clone()
    }

    /// Where a Google service account's key is exchanged.
    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The forms that were sent to [`FakeProvider::token_url`].
    pub fn exchanges(&self) -> Vec<String> {
        lock(&self.shared.exchanges).clone()
    }

    /// How many queued replies are left.
    pub fn left(&self) -> usize {
        lock(&self.shared.replies).len()
    }

    /// Waits until `count` requests have arrived.
    pub async fn received(&self, count: usize) {
        // The sender lives as long as `self`.
        let _ = self
            .shared
            .received
            .subscribe()
            .wait_for(|seen| *seen >= count)
            .await;
    }

    /// Waits until `count` answers were abandoned: the client went away before their end.
    pub async fn abandoned(&self, count: usize) {
        let _ = self
            .shared
            .abandoned
            .subscribe()
            .wait_for(|seen| *seen >= count)
            .await;
    }
}

/// Exchanges any assertion for the token `ya29.fake`, as Google does.
async fn token(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    lock(&shared.exchanges).push(String::from_utf8_lossy(&body).into_owned());
    let token = serde_json::json!({"access_token": "ya29.fake", "expires_in": 3600});
    axum::Json(token).into_response()
}

fn answer(
    wire: Wire,
    shared: &Arc<Shared>,
    method: &str,
    uri: &Uri,
    headers: &HeaderMap,
    raw: Bytes,
) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = serde_json::from_slice(&raw).unwrap_or_default();
    let request = RecordedRequest {
        wire,
        method: method.to_owned(),
        path: uri.to_string(),
        headers,
        raw,
        body,
    };
    let queued = lock(&shared.replies).pop_front();
    let reply = queued.or_else(|| {
        let otherwise = lock(&shared.otherwise).0.clone();
        otherwise.map(|reply| reply(&request))
    });
    lock(&shared.requests).push(request);
    shared.received.send_modify(|count| *count += 1);
    let Some(reply) = reply else {
        let body = "the test queued no reply for this request";
        return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
    };
    let parts = reply.render(wire);
    let watched = Abandoned {
        shared: Arc::clone(shared),
        whole: false,
    };
    let stream = parts.stream(watched);
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() =
        StatusCode::from_u16(parts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &parts.headers {
        if let (Ok(name), Ok(value)) = (
            axum::http::HeaderName::try_from(name),
            axum::http::HeaderValue::try_from(value),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Notices that a body is dropped before its end.
#[derive(Debug)]
struct Abandoned {
    shared: Arc<Shared>,
    whole: bool,
}

impl Abandoned {
    fn finish(mut self) {
        self.whole = true;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if !self.whole {
            self.shared.abandoned.send_modify(|count| *count += 1);
        }
    }
}
