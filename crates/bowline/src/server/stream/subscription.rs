//! `__ds/…`: subscriptions and the keys of webhooks.

use axum::{
    body::Body as Incoming,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bowline_runtime::stream::{
    Offset, StreamError,
    subscription::{Ack, Config, Described, LEASE_MS, Link, Refusal as Refused, Wake, Way},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Problem, answer, request, webhook, write};
use crate::server::Refusal;

type Outcome = Result<Response, Problem>;

pub(super) async fn handle(call: Call<'_>, incoming: Incoming, rest: &str) -> Response {
    let method = call.head.method.clone();
    let rest = rest.to_owned();
    let outcome = if rest == "jwks.json" && method == Method::GET {
        keys(&call).await
    } else if let Some(rest) = rest.strip_prefix("subscriptions/") {
        let (id, action) = rest.split_once('/').unwrap_or((rest, ""));
        subscription(call, incoming, &method, id, action).await
    } else {
        Err(Refusal::RouteNotFound.into())
    };
    outcome.unwrap_or_else(|problem| match problem {
        Problem::Stream(StreamError::Subscription(refused)) => refuse(&refused),
        other => other.into_response(),
    })
}

async fn subscription(
    call: Call<'_>,
    incoming: Incoming,
    method: &Method,
    id: &str,
    action: &str,
) -> Outcome {
    let streams = call.streams().clone();
    // A worker has a token; everybody else manages subscriptions as the paths allow.
    match (method.as_str(), action) {
        ("POST", "callback" | "ack") => return acknowledge(call, incoming, id, None).await,
        ("POST", "release") => return acknowledge(call, incoming, id, Some(true)).await,
        ("GET", "") => {
            let described = streams.subscription(id).await?;
            manage(&call, &described.config)?;
            return Ok(axum::Json(describe(&call, id, &described).await?).into_response());
        }
        ("PUT", "") => return create(call, incoming, id).await,
        _ => {}
    }
    let known = match streams.subscription(id).await {
        Err(StreamError::Subscription(Refused::NotFound)) if method == Method::DELETE => {
            return Ok(answer::empty(StatusCode::NO_CONTENT));
        }
        known => known?,
    };
    manage(&call, &known.config)?;
    match (
        method.as_str(),
        action.split_once('/').unwrap_or((action, "")),
    ) {
        ("DELETE", ("", "")) => streams.unsubscribe(id).await?,
        ("POST", ("streams", "")) => {
            let access = call.access.clone();
            let added: Streams = body(&call, incoming).await?;
            let added = added
                .streams
                .iter()
                .map(|path| stream_name(path))
                .collect::<Vec<_>>();
            for path in &added {
                access.require_stream(path, false)?;
            }
            streams.add_to_subscription(id, &added).await?;
        }
        ("DELETE", ("streams", path)) if !path.is_empty() => {
            streams
                .remove_from_subscription(id, &stream_name(path))
                .await?;
        }
        ("POST", ("claim", "")) => {
            let worker: Worker = body(&call, incoming).await?;
            let wake = streams.claim(id, &worker.worker).await?;
            return Ok(axum::Json(claimed(&wake)).into_response());
        }
        _ => return Err(Refusal::RouteNotFound.into()),
    }
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Whoever manages a subscription must be allowed to read all it can name.
fn manage(call: &Call<'_>, config: &Config) -> Result<(), Problem> {
    if let Some(pattern) = &config.pattern {
        let fixed = pattern.split('*').next().unwrap_or_default();
        call.access
            .require_stream(fixed.trim_end_matches('/'), false)?;
    }
    for path in &config.streams {
        call.access.require_stream(path, false)?;
    }
    if let Way::PullWake(path) = &config.way {
        call.access.require_stream(path, true)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct New {
    #[serde(rename = "type")]
    way: String,
    pattern: Option<String>,
    #[serde(default)]
    streams: Vec<String>,
    webhook: Option<Hook>,
    wake_stream: Option<String>,
    lease_ttl_ms: Option<u64>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Hook {
    url: String,
}

#[derive(Deserialize)]
struct Streams {
    streams: Vec<String>,
}

#[derive(Deserialize)]
struct Worker {
    worker: String,
}

#[derive(Deserialize)]
struct Acked {
    wake_id: String,
    generation: u64,
    #[serde(default)]
    acks: Vec<AckedStream>,
    #[serde(default)]
    done: bool,
}

#[derive(Deserialize)]
struct AckedStream {
    stream: String,
    offset: String,
}

async fn body<T: for<'de> Deserialize<'de>>(
    call: &Call<'_>,
    incoming: Incoming,
) -> Result<T, Problem> {
    let bytes = write::body(call.app, incoming).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| StreamError::Subscription(Refused::Invalid(error.to_string())).into())
}

/// Paths may be given with or without the root.
fn stream_name(path: &str) -> String {
    let path = path.strip_prefix(super::ROOT).unwrap_or(path);
    path.trim_start_matches('/').to_owned()
}

async fn create(call: Call<'_>, incoming: Incoming, id: &str) -> Outcome {
    let base = super::base_url(call.app, &call.head.headers);
    let bytes = write::body(call.app, incoming).await?;
    let new: New = serde_json::from_slice(&bytes)
        .map_err(|error| StreamError::Subscription(Refused::Invalid(error.to_string())))?;
    let way = match (new.way.as_str(), new.webhook, new.wake_stream) {
        ("webhook", Some(hook), None) => {
            if let Err(what) = webhook::check(&hook.url) {
                let what = format!("the webhook is refused: {what}");
                return Ok(coded(
                    StatusCode::BAD_REQUEST,
                    "WEBHOOK_URL_REJECTED",
                    webhook::code(),
                    &what,
                ));
            }
            Way::Webhook(hook.url)
        }
        ("pull-wake", None, Some(path)) => Way::PullWake(stream_name(&path)),
        _ => {
            let what = "give type webhook with `webhook.url`, or pull-wake with `wake_stream`";
            return Err(StreamError::Subscription(Refused::Invalid(what.into())).into());
        }
    };
    let config = Config {
        way,
        pattern: new.pattern.as_deref().map(stream_name),
        streams: new.streams.iter().map(|path| stream_name(path)).collect(),
        lease_ms: new.lease_ttl_ms.unwrap_or(LEASE_MS.2),
        description: new.description,
        // Callbacks go to where the subscription was made.
        base_url: base,
    };
    manage(&call, &config)?;
    let new = call.streams().subscribe(id, config).await?;
    let described = call.streams().subscription(id).await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = describe(&call, id, &described).await?;
    Ok((status, axum::Json(body)).into_response())
}

async fn describe(call: &Call<'_>, id: &str, described: &Described) -> Result<Value, Problem> {
    let config = &described.config;
    let links = described.links.iter().map(|link| {
        json!({
            "path": link.path,
            "link_type": link.kind,
            "acked_offset": link.acked.to_string(),
        })
    });
    let mut body = json!({
        "id": id,
        "pattern": config.pattern,
        "streams": links.collect::<Vec<_>>(),
        "lease_ttl_ms": config.lease_ms,
        "description": config.description,
        "status": if described.failing { "failed" } else { "active" },
        "generation": described.generation,
    });
    let Some(fields) = body.as_object_mut() else {
        return Ok(body);
    };
    match &config.way {
        Way::Webhook(url) => {
            let base = &config.base_url;
            let key = call.app.webhooks().key_id().await.map_err(Refusal::from)?;
            let jwks = format!("{base}{}__ds/jwks.json", super::ROOT);
            let signing = json!({"alg": "ed25519", "kid": key, "jwks_url": jwks});
            fields.insert("type".into(), "webhook".into());
            fields.insert("webhook".into(), json!({"url": url, "signing": signing}));
        }
        Way::PullWake(path) => {
            fields.insert("type".into(), "pull-wake".into());
            fields.insert("wake_stream".into(), json!(path));
        }
    }
    Ok(body)
}

/// A stream of a wake.
pub(super) fn link(link: &Link) -> Value {
    json!({
        "path": link.path,
        "link_type": link.kind,
        "acked_offset": link.acked.to_string(),
        "tail_offset": link.tail.to_string(),
        "has_pending": link.tail > link.acked,
    })
}

fn claimed(wake: &Wake) -> Value {
    json!({
        "wake_id": wake.id,
        "generation": wake.generation,
        "token": wake.token,
        "streams": wake.streams.iter().map(link).collect::<Vec<_>>(),
        "lease_ttl_ms": wake.lease_ms,
    })
}

/// `release`: the lease is given back, and nothing is acknowledged.
async fn acknowledge(
    call: Call<'_>,
    incoming: Incoming,
    id: &str,
    release: Option<bool>,
) -> Outcome {
    let given = request::header(&call.head.headers, header::AUTHORIZATION.as_str());
    let bearer = given.and_then(|given| given.split_once(' '));
    let token = match bearer {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.to_owned(),
        _ => return Err(StreamError::Subscription(Refused::Token).into()),
    };
    let streams = call.streams().clone();
    let acked: Acked = body(&call, incoming).await?;
    let mut acks = Vec::new();
    for ack in acked.acks {
        match Offset::parse(&ack.offset) {
            Some(offset) => acks.push((stream_name(&ack.stream), offset)),
            None => return Err(StreamError::Subscription(Refused::Offset(ack.stream)).into()),
        }
    }
    let ack = Ack {
        token,
        wake: acked.wake_id,
        generation: acked.generation,
        acks,
        done: release.unwrap_or(acked.done),
    };
    let next = streams.acknowledge(id, ack).await?;
    if release.is_some() {
        return Ok(answer::empty(StatusCode::NO_CONTENT));
    }
    Ok(axum::Json(json!({"ok": true, "next_wake": next})).into_response())
}

async fn keys(call: &Call<'_>) -> Outcome {
    let keys = call.app.webhooks().keys().await.map_err(Refusal::from)?;
    let mut response = axum::Json(keys).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/jwk-set+json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    Ok(response)
}

/// An error in the protocol's words and in ours.
fn refuse(refused: &Refused) -> Response {
    let (status, code) = match refused {
        Refused::NotFound => (StatusCode::NOT_FOUND, "SUBSCRIPTION_NOT_FOUND"),
        Refused::Exists => (StatusCode::CONFLICT, "SUBSCRIPTION_ALREADY_EXISTS"),
        Refused::Invalid(_) => (StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
        Refused::Fenced => (StatusCode::CONFLICT, "FENCED"),
        Refused::Token => (StatusCode::UNAUTHORIZED, "TOKEN_INVALID"),
        Refused::Claimed { .. } => (StatusCode::CONFLICT, "ALREADY_CLAIMED"),
        Refused::NoWork => (StatusCode::CONFLICT, "NO_PENDING_WORK"),
        Refused::Offset(_) => (StatusCode::CONFLICT, "INVALID_OFFSET"),
    };
    let message = refused.to_string();
    let Refused::Claimed { holder, generation } = refused else {
        return coded(status, code, refused.code(), &message);
    };
    let body = json!({"error": {
        "type": refused.code(), "code": code, "message": message, "details": "",
        "current_holder": holder, "generation": generation,
    }});
    (status, axum::Json(body)).into_response()
}

fn coded(status: StatusCode, code: &str, name: &str, message: &str) -> Response {
    let body = json!({"error": {"type": name, "code": code, "message": message, "details": ""}});
    (status, axum::Json(body)).into_response()
}

/// An id as a segment of a path.
pub(super) fn encode(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
