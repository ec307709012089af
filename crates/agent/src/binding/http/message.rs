//! Values as the parts of a request, and an answer as a value.

use bowline_sandbox::{
    egress::{Request, Response},
    isolate::{Value, ViewKind},
};
use bytes::Bytes;
use url::form_urlencoded;

use crate::binding::{
    CallError,
    ordered::{Ordered, OrderedRef},
};

/// Bytes of an answer that an error tells.
const EXCERPT: usize = 16 << 10;

/// A scalar as text; JSON for anything else.
pub fn query_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => match other.to_json() {
            serde_json::Value::String(text) => text,
            json => json.to_string(),
        },
    }
}

/// Names with their values; a list gives its name several times.
pub(super) fn pairs(value: Option<Value>, what: &str) -> Result<Vec<(String, String)>, CallError> {
    let fields = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(fields)) => fields,
        Some(Value::Map(fields)) => {
            let named = fields
                .into_iter()
                .map(|(key, value)| (query_text(&key), value));
            named.collect()
        }
        Some(_) => {
            return Err(CallError::new(
                "TypeError",
                format!("{what} must be an object"),
            ));
        }
    };
    let mut out = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Undefined | Value::Null => {}
            Value::Array(items) | Value::Set(items) => {
                out.extend(items.iter().map(|item| (name.clone(), query_text(item))));
            }
            value => out.push((name, query_text(&value))),
        }
    }
    Ok(out)
}

pub(super) fn add_query(url: &mut String, query: &[(String, String)]) {
    if query.is_empty() {
        return;
    }
    let fragment = url.find('#').unwrap_or(url.len());
    url.truncate(fragment);
    url.push(if url.contains('?') { '&' } else { '?' });
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(query);
    url.push_str(&text.finish());
}

/// Text and bytes as they are, everything else as JSON.
pub(super) fn set_body(request: &mut Request, body: Option<Value>) {
    let (bytes, media) = match body {
        None | Some(Value::Undefined) => return,
        Some(Value::String(text)) => (Bytes::from(text), "text/plain; charset=utf-8"),
        Some(Value::Buffer(bytes) | Value::View(_, bytes)) => (bytes, "application/octet-stream"),
        Some(value) => (json(&value), "application/json"),
    };
    request.body = bytes;
    let is_type = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
    if !request.headers.iter().any(is_type) {
        request
            .headers
            .push(("content-type".to_owned(), media.to_owned()));
    }
}

fn json(value: &Value) -> Bytes {
    // What crosses from a program has JSON for all of it.
    Bytes::from(serde_json::to_vec(&OrderedRef(value)).unwrap_or_default())
}

/// A body in the media type of an operation.
pub(super) fn set_body_as(
    request: &mut Request,
    body: Option<Value>,
    media: &str,
) -> Result<(), CallError> {
    let Some(body) = body.filter(|body| *body != Value::Undefined) else {
        return Ok(());
    };
    request.body = match (media, body) {
        ("application/x-www-form-urlencoded", body) => {
            let mut text = form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(pairs(Some(body), "body")?);
            Bytes::from(text.finish())
        }
        (_, Value::Buffer(bytes) | Value::View(_, bytes)) => bytes,
        (media, Value::String(text)) if !is_json(media) => Bytes::from(text),
        (_, body) => json(&body),
    };
    request
        .headers
        .push(("content-type".to_owned(), media.to_owned()));
    Ok(())
}

fn is_json(media: &str) -> bool {
    let media = media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

/// The body of an answer: JSON parsed, text as a string, everything else as bytes.
pub(super) fn body(response: &Response) -> Value {
    if response.body.is_empty() {
        return Value::Undefined;
    }
    let media = response.header("content-type").unwrap_or_default();
    if is_json(media)
        && let Ok(document) = serde_json::from_slice::<Ordered>(&response.body)
    {
        return document.0;
    }
    let lower = media.to_ascii_lowercase();
    let text = [
        "text/",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/json",
    ];
    let is_text = media.is_empty()
        || text.iter().any(|start| lower.starts_with(start))
        || lower.contains("+xml");
    if is_text && let Ok(text) = std::str::from_utf8(&response.body) {
        return Value::from(text);
    }
    Value::View(ViewKind::Uint8, response.body.clone())
}

/// The beginning of an answer that is an error.
pub(super) fn excerpt(response: &Response) -> Value {
    if response.body.len() <= EXCERPT {
        return body(response);
    }
    let start = response.body.get(..EXCERPT).unwrap_or_default();
    Value::String(format!("{}…", String::from_utf8_lossy(start)))
}
