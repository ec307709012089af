//! `POST /agents/{agent}/{id}`: a message.

use axum::{
    Extension, Json,
    body::{Body, Bytes, HttpBody as _},
    extract::{OriginalUri, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowline_agent::{
    Outgoing,
    feed::{self, Identity, Offset},
};
use bowline_runtime::{Receipt, RuntimeError, Trace, submission};
use serde_json::{Map, Value, json};

use super::{
    App, Refusal, Scope, Target,
    described::{Message, Receipt as Told, Whose},
    view,
};

/// Longest attachment, in characters of base64.
const MOST_BASE64: usize = 14_680_064;
/// Most attachments of one message.
const MOST_ATTACHMENTS: usize = 32;
/// Longest idempotency key, in characters.
const MOST_KEY: usize = 256;
/// How often admission is tried again when the conversation went on meanwhile.
const TRIES: usize = 16;
/// Signals that only Bowline sends.
const RESERVED: [&str; 10] = [
    "resources",
    "instructions",
    "environment",
    "stream_interrupted",
    "stream_continued",
    "submission_aborted",
    "submission_interrupted",
    "compaction",
    "memory",
    "initial_data",
];

/// A message as it was sent.
pub(in crate::server) struct Sent {
    outgoing: Outgoing,
    key: Option<String>,
    /// The incarnation that it is for: any, none, or this one.
    uid: Meant,
}

/// Which incarnation a message is for.
enum Meant {
    Any,
    New,
    This(String),
}

/// What was accepted.
pub(in crate::server) struct Accepted {
    pub(in crate::server) receipt: Receipt,
    pub(in crate::server) offset: String,
    pub(in crate::server) uid: String,
}

/// Send a message
///
/// The answer comes once the message is durable. The first message begins a conversation.
#[utoipa::path(post, path = "/agents/{agent}/{id}", tag = "conversations", operation_id = "send", params(Whose),
request_body = Message, responses(
    (status = 202, description = "It is durable", body = Told, headers(
        ("location" = String, description = "The conversation"),
        ("stream-next-offset" = String, description = "Where following it begins"),
    )),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(super) async fn send(
    State(app): State<App>,
    target: Target,
    Extension(trace): Extension<Trace>,
    uri: OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    target.require(Scope::Send)?;
    let query = uri.query().unwrap_or_default();
    if query
        .split('&')
        .any(|pair| pair.split('=').next() == Some("wait"))
    {
        return Err(Refusal::InvalidRequest(
            "a message is answered at once, without `wait`: follow the conversation, or wait at submissions/{id}"
                .to_owned(),
        ));
    }
    let content = headers.get(header::CONTENT_TYPE);
    let content = content.map(|kind| kind.to_str().unwrap_or_default().to_ascii_lowercase());
    let json = content
        .as_deref()
        .map(|kind| kind.contains("application/json"));
    if json == Some(false) {
        return Err(Refusal::UnsupportedMediaType("application/json"));
    }
    let body = whole(&app, body).await?;
    if body.is_empty() {
        return Err(Refusal::InvalidJson("the body is empty".to_owned()));
    }
    if json.is_none() {
        return Err(Refusal::UnsupportedMediaType("application/json"));
    }
    let message = serde_json::from_slice(&body)
        .map_err(|error| Refusal::InvalidJson(format!("the body is not JSON: {error}")))?;
    let mut sent = parse(message)?;
    sent.outgoing = sent.outgoing.trace(trace);
    let accepted = deliver(&app, &target, sent).await?;
    let address = view::address(&app, &uri, headers.get(header::HOST));
    let mut answer = json!({
        "streamUrl": address,
        "offset": accepted.offset,
        "submissionId": accepted.receipt.submission_id,
        "uid": accepted.uid,
    });
    if accepted.receipt.deduplicated {
        answer["deduplicated"] = Value::Bool(true);
    }
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    view::at(&mut response, &accepted.offset, false);
    if let Ok(address) = HeaderValue::from_str(&address) {
        response.headers_mut().insert(header::LOCATION, address);
    }
    Ok(response)
}

/// The body, once it is there, within the server's bounds.
pub(in crate::server) async fn whole(app: &App, body: Body) -> Result<Bytes, Refusal> {
    let settings = app.settings();
    // One that says beforehand how much will come is not waited for.
    if body.size_hint().lower() > settings.max_body as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let read = axum::body::to_bytes(body, settings.max_body);
    match tokio::time::timeout(settings.body_timeout, read).await {
        Err(_) => Err(Refusal::BodyTimeout),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error);
            if source.is_some_and(|source| source.to_string().contains("length limit")) {
                Err(Refusal::BodyTooLarge)
            } else {
                Err(Refusal::InvalidRequest("the body broke off".to_owned()))
            }
        }
    }
}

/// Takes a message apart. Fields that nobody knows are left out.
pub(in crate::server) fn parse(message: Value) -> Result<Sent, Refusal> {
    let Value::Object(mut fields) = message else {
        return wrong("a message is an object");
    };
    let mut outgoing = match fields.remove("kind").as_ref().and_then(Value::as_str) {
        Some("user") => user(&mut fields)?,
        Some("signal") => signal(&mut fields)?,
        _ => return wrong("`kind` is `user` or `signal`"),
    };
    let key = match fields.remove("idempotencyKey") {
        None => None,
        Some(Value::String(key)) if !key.is_empty() && key.chars().count() <= MOST_KEY => Some(key),
        Some(_) => return wrong("`idempotencyKey` is a text of 1 to 256 characters"),
    };
    let uid = match fields.remove("uid") {
        None => Meant::Any,
        Some(Value::Null) => Meant::New,
        Some(Value::String(uid)) => Meant::This(uid),
        Some(_) => return wrong("`uid` is a text or null"),
    };
    if let Some(data) = fields.remove("initialData") {
        if let Meant::This(_) = uid {
            return wrong("`initialData` is for a new instance, `uid` names one that exists");
        }
        outgoing = outgoing.initial_data(data);
    }
    if let Some(key) = &key {
        outgoing = outgoing.key(key);
    }
    Ok(Sent { outgoing, key, uid })
}

fn wrong<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::InvalidRequest(what.to_owned()))
}

fn body(fields: &mut Map<String, Value>) -> Result<String, Refusal> {
    match fields.remove("body") {
        Some(Value::String(body)) => Ok(body),
        Some(_) | None => wrong("`body` is a text"),
    }
}

fn user(fields: &mut Map<String, Value>) -> Result<Outgoing, Refusal> {
    let mut outgoing = Outgoing::user(body(fields)?);
    let attachments = match fields.remove("attachments") {
        None => Vec::new(),
        Some(Value::Array(attachments)) if attachments.len() <= MOST_ATTACHMENTS => attachments,
        Some(_) => return wrong("`attachments` is a list of at most 32 files"),
    };
    for attachment in attachments {
        let (filename, mime_type, bytes) = file(&attachment)?;
        outgoing = outgoing.attach(filename, mime_type, bytes);
    }
    Ok(outgoing)
}

fn file(attachment: &Value) -> Result<(Option<String>, String, Bytes), Refusal> {
    let text = |name: &str| attachment.get(name).and_then(Value::as_str);
    let image = match text("type") {
        Some("image") => true,
        Some("file") => false,
        _ => return wrong("the `type` of an attachment is `image` or `file`"),
    };
    let Some(mime_type) = text("mimeType").filter(|kind| is_mime(kind)) else {
        return wrong("the `mimeType` of an attachment is one such as `image/png`");
    };
    if image && !mime_type.starts_with("image/") {
        return wrong("the `mimeType` of an image begins with `image/`");
    }
    let filename = match attachment.get("filename") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name.len() <= 1_024 => Some(name.clone()),
        Some(_) => return wrong("the `filename` of an attachment is a text"),
    };
    let Some(data) = text("data").filter(|data| data.len() <= MOST_BASE64) else {
        return wrong("the `data` of an attachment is base64 of at most 14680064 characters");
    };
    match STANDARD.decode(data) {
        Ok(bytes) => Ok((filename, mime_type.to_ascii_lowercase(), bytes.into())),
        Err(_) => wrong("the `data` of an attachment is not base64"),
    }
}

/// True for `type/subtype` of the characters that such names have.
fn is_mime(text: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    text.len() <= 127
        && text
            .split_once('/')
            .is_some_and(|(kind, subtype)| name(kind) && name(subtype))
}

fn signal(fields: &mut Map<String, Value>) -> Result<Outgoing, Refusal> {
    let kind = match fields.remove("type") {
        Some(Value::String(kind)) if !kind.is_empty() && kind.len() <= 256 => kind,
        Some(_) | None => return wrong("the `type` of a signal is a text"),
    };
    if RESERVED.contains(&kind.as_str()) {
        return wrong("the `type` of the signal is one that only the server sends");
    }
    let mut outgoing = Outgoing::signal(kind, body(fields)?);
    match fields.remove("attributes") {
        None => {}
        Some(Value::Object(attributes)) if attributes.len() <= 64 => {
            for (key, value) in attributes {
                let Value::String(value) = value else {
                    return wrong("the `attributes` of a signal are texts");
                };
                outgoing = outgoing.attribute(key, value);
            }
        }
        Some(_) => return wrong("`attributes` is an object of at most 64 texts"),
    }
    match fields.remove("tagName") {
        None => {}
        Some(Value::String(tag)) if is_tag(&tag) => outgoing = outgoing.attribute("tagName", tag),
        Some(_) => return wrong("`tagName` has letters, digits, `_`, `.` and `-`"),
    }
    Ok(outgoing)
}

fn is_tag(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && text.len() <= 64
        && letters.all(|one| one.is_ascii_alphanumeric() || "_.-".contains(one))
}

/// Admits a message; it is durable when this returns.
pub(in crate::server) async fn deliver(
    app: &App,
    target: &Target,
    sent: Sent,
) -> Result<Accepted, Refusal> {
    let runtime = app.service().runtime();
    let store = &**app.store();
    for _ in 0..TRIES {
        let head = store.head(&target.actor).await?.map_or(0, |head| head.seq);
        let there = match head {
            0 => None,
            _ => feed::identity(store, &target.actor).await?,
        };
        let replayed = is_replay(app, target, &sent).await?;
        if !replayed {
            fits(&sent.uid, there.as_ref())?;
        }
        let new = sent.outgoing.clone().into_submission();
        let admitted = match (&sent.uid, replayed) {
            (Meant::Any, _) | (_, true) => runtime.submit(&target.actor, new).await,
            // Between the look and the admission another message may begin the instance.
            (Meant::New | Meant::This(_), false) => {
                runtime.submit_at(&target.actor, new, head).await
            }
        };
        let receipt = match admitted {
            Err(RuntimeError::Moved) => continue,
            admitted => admitted?,
        };
        let there = match there {
            Some(there) => Some(there),
            None => feed::identity(store, &target.actor).await?,
        };
        let offset = if receipt.deduplicated {
            "-1".to_owned()
        } else {
            Offset::after(head).to_string()
        };
        let id = &receipt.submission_id;
        tracing::info!(
            submission = id,
            deduplicated = receipt.deduplicated,
            "accepted"
        );
        return Ok(Accepted {
            receipt,
            offset,
            uid: there.map(|there| there.uid).unwrap_or_default(),
        });
    }
    Err(RuntimeError::Moved.into())
}

/// Whether a message with this key was accepted before: then its condition was met before, too.
async fn is_replay(app: &App, target: &Target, sent: &Sent) -> Result<bool, Refusal> {
    let (Some(key), Meant::New | Meant::This(_)) = (&sent.key, &sent.uid) else {
        return Ok(false);
    };
    let id = submission::keyed_id(&target.actor, key);
    let store = &**app.store();
    if submission::settled(store, &target.actor, &id)
        .await?
        .is_some()
    {
        return Ok(true);
    }
    let open = submission::open(store, &target.actor).await?;
    Ok(open.iter().any(|one| one.id == id))
}

fn fits(meant: &Meant, there: Option<&Identity>) -> Result<(), Refusal> {
    match (meant, there) {
        (Meant::Any, _) | (Meant::New, None) => Ok(()),
        (Meant::New, Some(there)) => Err(Refusal::InstanceExists {
            uid: there.uid.clone(),
        }),
        (Meant::This(uid), Some(there)) if *uid == there.uid => Ok(()),
        (Meant::This(_), _) => Err(Refusal::InstanceNotFound),
    }
}
