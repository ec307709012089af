//! `GET /agents/{agent}/{id}/attachments/{attachment}`: a file.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use bowline_agent::attachment;

use super::{App, Refusal, Scope, Target, described::Whose};

/// Send a file of a message
///
/// It is sent so that it can never run in the page's origin: it is sandboxed, never sniffed, and what
/// a browser would run or render as a document is sent as something to save.
#[utoipa::path(get, path = "/agents/{agent}/{id}/attachments/{attachment}", tag = "conversations", operation_id = "attachment", params(
    Whose,
    ("attachment" = String, Path, description = "Which one, `file_…`"),
), responses(
    (status = 200, description = "The file", content_type = "*/*", body = crate::server::admin::Content),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(super) async fn read(State(app): State<App>, target: Target) -> Result<Response, Refusal> {
    target.require(Scope::Read)?;
    let found = attachment::get(&**app.store(), &target.actor, target.last()).await?;
    let Some((file, bytes)) = found else {
        return Err(Refusal::AttachmentNotFound);
    };
    let (kind, inline) = shown(&file.mime_type);
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_str(&kind)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, kind);
    let disposition = if inline {
        HeaderValue::from_static("inline")
    } else {
        saved(file.filename.as_deref())
    };
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox"),
    );
    Ok(response)
}

/// As what a file is sent, and whether a browser may show it.
fn shown(mime_type: &str) -> (String, bool) {
    let (kind, subtype) = mime_type.split_once('/').unwrap_or(("", ""));
    match (kind, subtype) {
        // An image in a page is inert; as a document of its own it would not be.
        ("image", "svg+xml") => (mime_type.to_owned(), false),
        ("image" | "audio" | "video", _) | ("application", "pdf") => (mime_type.to_owned(), true),
        ("text", "plain") => ("text/plain; charset=utf-8".to_owned(), true),
        _ => ("application/octet-stream".to_owned(), false),
    }
}

/// A file to save, under its name where that has a safe form.
fn saved(filename: Option<&str>) -> HeaderValue {
    use std::fmt::Write as _;
    let mut text = "attachment".to_owned();
    if let Some(name) = filename {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}
