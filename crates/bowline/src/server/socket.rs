//! The WebSocket on a conversation's URL, with the base frames of the Agents SDK: who it is, the shared
//! state in both directions, and calls.
//!
//! - On connecting: `cf_agent_identity`, then `cf_agent_state` when there is a state.
//! - `cf_agent_state` from a client sets the state, for everybody; whoever may not, or whose value is
//!   refused, gets `cf_agent_state_error` and the state as it is.
//! - `rpc` calls a method: `send`, `ask` (which streams the answer), `abort`, `history`, `approvals`,
//!   `approve`, `reject`, `answer`; see `call`.
//!
//! A connection that may not be there is closed with a code from 4400 on, since a client cannot see the
//! status of a refused handshake. One that ends because the server does gets 1012, and comes back; while
//! the server stops, its handshake gets 503.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        FromRequestParts as _,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, header, request::Parts},
    response::Response,
};
use bowline_runtime::{
    NewState,
    state::{self, Source},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{App, Refusal, Scope, conversation::Target};

mod call;

/// Largest message of a client, in bytes: a state of the largest size, with its frame.
const MOST_MESSAGE: usize = 2 * 1024 * 1024;
/// Calls of one connection at once; a further one is refused.
const MOST_CALLS: usize = 16;
/// Frames that wait for a slow client before calls wait for it.
const WAITING: usize = 64;
/// How often a quiet connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// How long a connection may say nothing at all, not even that it is there.
const SILENCE: Duration = Duration::from_secs(95);
/// How long a client may take to take in a frame.
const SLOW: Duration = Duration::from_secs(30);
/// How a protocol begins that is a key, for browsers, which can send no header with a WebSocket.
pub(super) const KEY_PROTOCOL: &str = "bowline.key.";
/// What a client may add to the URL to ask for a transport that this is not.
const OTHER_TRANSPORT: &str = "__agents_transport";
/// The server ends, and will be back.
const RESTART: u16 = 1012;
/// The server has no room now.
const LATER: u16 = 1013;
/// The server cannot go on with this connection.
const BROKEN: u16 = 1011;

/// Whether a request wants a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let value = headers.get(header::UPGRADE);
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The protocols that a request offers, in order.
pub(super) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let texts = offered.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(str::trim))
}

/// Answers a request that wants a WebSocket.
pub(super) async fn upgrade(
    app: App,
    mut parts: Parts,
    target: Result<Target, Refusal>,
    query: &[(String, String)],
) -> Result<Response, Refusal> {
    app.may_wait()?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await;
    let upgrade = upgrade.map_err(|_| {
        Refusal::InvalidRequest("the request to upgrade to a WebSocket is not complete".to_owned())
    })?;
    let asked = |name: &str| {
        let found = query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    // A key is not sent back.
    let chosen = protocols(&parts.headers).find(|one| !one.starts_with(KEY_PROTOCOL));
    let upgrade = match chosen {
        Some(protocol) => upgrade.protocols([protocol.to_owned()]),
        None => upgrade,
    };
    let upgrade = upgrade.max_message_size(MOST_MESSAGE);
    let target = target.and_then(|target| {
        target.require(Scope::Read)?;
        if asked(OTHER_TRANSPORT).is_some() {
            let what = "this server speaks JSON frames only";
            return Err(Refusal::InvalidRequest(what.to_owned()));
        }
        Ok(target)
    });
    // An upgraded connection is none of the listener's any more: it has a place of its own.
    let places = app.telemetry().places().sockets.room.clone();
    let target = target.and_then(|target| match places.try_acquire_owned() {
        Ok(place) => Ok((target, place)),
        Err(_) => Err(Refusal::RateLimited(5)),
    });
    let read_only = match &target {
        Ok((target, _)) => {
            target.require(Scope::Send).is_err() || asked("readonly") == Some("true")
        }
        Err(_) => true,
    };
    if let Err(refusal) = &target {
        let (path, status) = (parts.uri.path(), refusal.status().as_u16());
        app.tell_refused("GET", path, status, Some(refusal.reason()));
    }
    let tracked = app.sockets().token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        match target {
            Ok((target, _place)) => {
                Connection::new(app, target, read_only).serve(socket).await;
            }
            Err(refusal) => refuse(socket, &refusal).await,
        }
        drop(tracked);
    }))
}

/// Closes a connection so that its client sees why, and does not come back by itself.
async fn refuse(mut socket: WebSocket, refusal: &Refusal) {
    let status = refusal.status();
    let (code, reason) = if let Refusal::RateLimited(_) = refusal {
        // The client comes back after a while.
        (LATER, refusal.to_string())
    } else if status.is_server_error() {
        (BROKEN, "something went wrong in the server".to_owned())
    } else {
        (4_000 + status.as_u16(), refusal.to_string())
    };
    close(&mut socket, code, &reason).await;
}

async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    // A close frame has room for 123 bytes.
    let reason = &reason[..reason.floor_char_boundary(123)];
    let frame = CloseFrame {
        code,
        reason: reason.to_owned().into(),
    };
    let _ = timeout(SLOW, socket.send(Message::Close(Some(frame)))).await;
    // The client closes its side; what it still sends is of no interest.
    let _ = timeout(Duration::from_secs(2), async {
        while let Some(Ok(_)) = socket.recv().await {}
    })
    .await;
}

/// One connection.
struct Connection {
    app: App,
    target: Arc<Target>,
    /// Its id, so that what it changed is not told back to it.
    id: String,
    read_only: bool,
    calls: Arc<Semaphore>,
}

/// Why a connection ends.
enum End {
    /// The client left, or is not there any more.
    Left,
    /// It is told why.
    Close(u16, &'static str),
}

impl Connection {
    fn new(app: App, target: Target, read_only: bool) -> Self {
        Self {
            id: app.sources().id("conn_"),
            app,
            target: Arc::new(target),
            read_only,
            calls: Arc::new(Semaphore::new(MOST_CALLS)),
        }
    }

    async fn serve(self, mut socket: WebSocket) {
        match self.work(&mut socket).await {
            End::Left => {}
            End::Close(code, reason) => close(&mut socket, code, reason).await,
        }
    }

    async fn work(&self, socket: &mut WebSocket) -> End {
        let actor = &self.target.actor;
        let current = match state::current(&**self.app.store(), actor).await {
            Ok(current) => current,
            Err(error) => return broken(&error),
        };
        let identity = json!({
            "type": "cf_agent_identity",
            "name": self.target.id,
            "agent": self.target.agent,
            "stateFollows": current.is_some(),
        });
        if send(socket, &identity).await.is_err() {
            return End::Left;
        }
        // It gives the current state first.
        let mut changes = self.app.service().runtime().follow_state(actor);
        let (replies, mut answers) = mpsc::channel::<Value>(WAITING);
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                () = self.app.draining().cancelled() => {
                    return End::Close(RESTART, "the server restarts");
                }
                change = changes.next() => match change {
                    Ok(Some(change)) if change.source == Source::Client(self.id.clone()) => continue,
                    Ok(Some(change)) => state_frame(&change.value),
                    Ok(None) => return End::Close(RESTART, "the server restarts"),
                    Err(error) => return broken(&error),
                },
                Some(answer) = answers.recv() => answer,
                received = socket.recv() => {
                    let Some(Ok(message)) = received else { return End::Left };
                    heard = Instant::now();
                    match message {
                        Message::Text(text) => match self.take(text.as_str(), &replies).await {
                            Ok(frames) => {
                                for frame in frames {
                                    if send(socket, &frame).await.is_err() {
                                        return End::Left;
                                    }
                                }
                            }
                            Err(error) => return broken(&error),
                        },
                        Message::Close(_) => return End::Left,
                        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
                    }
                    continue;
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return End::Left;
                    }
                    let ping = socket.send(Message::Ping(Vec::new().into()));
                    if !matches!(timeout(SLOW, ping).await, Ok(Ok(()))) {
                        return End::Left;
                    }
                    continue;
                }
            };
            if send(socket, &frame).await.is_err() {
                return End::Left;
            }
        }
    }

    /// Takes in a frame; returns what is sent back at once. What nobody knows is left out.
    async fn take(
        &self,
        text: &str,
        replies: &mpsc::Sender<Value>,
    ) -> Result<Vec<Value>, bowline_store::StoreError> {
        let Ok(Value::Object(mut frame)) = serde_json::from_str(text) else {
            return Ok(Vec::new());
        };
        match frame.get("type").and_then(Value::as_str) {
            Some("cf_agent_state") => match frame.remove("state") {
                Some(value) => self.set_state(value).await,
                None => Ok(Vec::new()),
            },
            Some("rpc") => Ok(self
                .call(&Value::Object(frame), replies)
                .into_iter()
                .collect()),
            // Nothing of a chat is resumed here; a client that asks would wait for an answer.
            Some("cf_agent_stream_resume_request") => Ok(vec![json!({
                "type": "cf_agent_stream_resume_none",
                "reason": "idle",
                "probeId": frame.get("probeId"),
            })]),
            Some(_) | None => Ok(Vec::new()),
        }
    }

    async fn set_state(&self, value: Value) -> Result<Vec<Value>, bowline_store::StoreError> {
        let new = NewState {
            value,
            source: Source::Client(self.id.clone()),
            expected: None,
            read_only: self.read_only,
        };
        let runtime = self.app.service().runtime();
        let Err(error) = runtime.set_state(&self.target.actor, new).await else {
            return Ok(Vec::new());
        };
        let error = if self.read_only {
            "Connection is readonly"
        } else {
            tracing::debug!(%error, actor = %self.target.actor, "a state was refused");
            "State update rejected"
        };
        let mut frames = vec![json!({"type": "cf_agent_state_error", "error": error})];
        // The client shows what it asked for until it is told otherwise.
        let current = state::current(&**self.app.store(), &self.target.actor).await?;
        frames.extend(current.map(|change| state_frame(&change.value)));
        Ok(frames)
    }

    /// Begins a call; it answers when it is done, which others may be before it.
    fn call(&self, frame: &Value, replies: &mpsc::Sender<Value>) -> Option<Value> {
        let (id, method) = (frame["id"].as_str()?, frame["method"].as_str()?);
        let args = frame["args"].as_array()?.clone();
        let Ok(permit) = self.calls.clone().try_acquire_owned() else {
            return Some(failed(id, "too many calls at once: wait for some to end"));
        };
        let call = call::Call {
            app: self.app.clone(),
            target: self.target.clone(),
            id: id.to_owned(),
            replies: replies.clone(),
        };
        let method = method.to_owned();
        tokio::spawn(async move {
            call.run(&method, args).await;
            drop(permit);
        });
        None
    }
}

fn broken(error: &bowline_store::StoreError) -> End {
    tracing::error!(%error, "a connection ended");
    End::Close(BROKEN, "something went wrong in the server")
}

fn state_frame(value: &Value) -> Value {
    json!({"type": "cf_agent_state", "state": value})
}

/// The answer to a call that failed.
fn failed(id: &str, error: &str) -> Value {
    json!({"type": "rpc", "id": id, "success": false, "error": error})
}

/// Sends a frame; an error when the client is gone, or does not take it.
async fn send(socket: &mut WebSocket, frame: &Value) -> Result<(), ()> {
    let sent = socket.send(Message::text(frame.to_string()));
    match timeout(SLOW, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}
