//! The workspace of a conversation: files by their paths.
//!
//! What changes a file goes through the conversation's one writer, while nothing is being answered: then
//! nobody works on the files that a caller replaces.

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bowline_agent::edit::{FileEdit, When, tag};
use bowline_sandbox::workspace::{EntryKind, Overlay, Stat, Workspace};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App, Paging, Parameters, Refusal, Scope, Target, Whose,
    conversation::whole,
    ranges::{Part, part, quoted, tags},
    there,
};
use crate::Error;

/// Bytes of a file that are read at once.
const PIECE: u64 = 256 * 1024;
/// Where relative paths begin.
const ROOT: &str = ".";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/agents/{agent}/{id}/files", get(list))
        .route(
            "/v1/agents/{agent}/{id}/files/{*path}",
            get(read).put(write).delete(remove),
        )
}

/// What is at a path.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// A link.
    Symlink,
}

/// An entry of a folder.
#[derive(Serialize, ToSchema)]
pub(super) struct FileInfo {
    /// Its path below the folder that was asked for.
    path: String,
    /// What it is.
    kind: Kind,
    /// In bytes.
    size: u64,
    /// Its permissions, in octal.
    mode: String,
    /// When it was changed last.
    #[schema(format = DateTime)]
    modified: String,
}

/// The entries of a folder.
#[derive(Serialize, ToSchema)]
pub(super) struct Listing {
    /// The folder, without links.
    path: String,
    /// In the order of their paths.
    entries: Vec<FileInfo>,
    /// Where the next page begins; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// A file that was written.
#[derive(Serialize, ToSchema)]
pub(super) struct Written {
    /// True when there was no file before.
    created: bool,
    /// In bytes.
    size: u64,
    /// What `ETag` says, without its quotes.
    tag: String,
}

fn describe(path: String, stat: &Stat) -> FileInfo {
    FileInfo {
        path,
        kind: match stat.kind {
            EntryKind::File => Kind::File,
            EntryKind::Directory => Kind::Directory,
            EntryKind::Symlink => Kind::Symlink,
        },
        size: stat.size,
        mode: format!("{:o}", stat.mode),
        modified: stat.modified.to_string(),
    }
}

fn failed(error: bowline_sandbox::workspace::WorkspaceError) -> Refusal {
    Error::from(error).into()
}

async fn begin(app: &App, target: &Target) -> Result<Overlay, Refusal> {
    there(app, target).await?;
    let files = Workspace::open(app.store().clone(), target.actor.clone());
    files.begin(app.sources().now()).await.map_err(failed)
}

/// List the working directory
///
/// With `recursive=true` with all that is below it.
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/files", tag = "files", params(
    Whose,
    super::Page,
    ("recursive" = Option<bool>, Query, description = "Also what lies below"),
), responses(
    (status = 200, description = "What is in it", body = Listing),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<Listing>, Refusal> {
    target.require(Scope::Read)?;
    let overlay = begin(&app, &target).await?;
    Ok(Json(listing(&overlay, ROOT, &parameters).await?))
}

/// Which part of a folder's list is asked for.
fn folder_only(parameters: &Parameters) -> Result<(Paging, bool), Refusal> {
    parameters.only(&["limit", "after", "recursive"])?;
    Ok((Paging::of(parameters)?, parameters.flag("recursive")?))
}

async fn listing(
    overlay: &Overlay,
    path: &str,
    parameters: &Parameters,
) -> Result<Listing, Refusal> {
    let (Paging { limit, after }, recursive) = folder_only(parameters)?;
    let after = after.as_deref().unwrap_or_default();
    let root = overlay.real_path(path).await.map_err(failed)?;
    let mut page = Listing {
        path: root.clone(),
        entries: Vec::new(),
        next: None,
    };
    // What is still to be looked at, the next one last.
    let mut pending: Vec<(String, Stat)> = Vec::new();
    let below = |prefix: &str, mut found: Vec<bowline_sandbox::workspace::DirEntry>| {
        found.reverse();
        let named = found.into_iter();
        let named = named.map(|one| (format!("{prefix}{}", one.name), one.stat));
        named.collect::<Vec<_>>()
    };
    pending.extend(below("", overlay.list(&root).await.map_err(failed)?));
    while let Some((path, stat)) = pending.pop() {
        let folder = stat.kind == EntryKind::Directory;
        // A folder before the place where the page begins may hold what comes after it.
        let passed = order(&path, after) != std::cmp::Ordering::Greater;
        if recursive
            && folder
            && (!passed || after == path || after.starts_with(&format!("{path}/")))
        {
            let full = format!("{}/{path}", root.trim_end_matches('/'));
            let found = overlay.list(&full).await.map_err(failed)?;
            pending.extend(below(&format!("{path}/"), found));
        }
        if !after.is_empty() && passed {
            continue;
        }
        if page.entries.len() == limit {
            page.next = page.entries.last().map(|last| last.path.clone());
            break;
        }
        page.entries.push(describe(path, &stat));
    }
    Ok(page)
}

/// The order in which folders are walked: by the names on the way.
fn order(one: &str, other: &str) -> std::cmp::Ordering {
    one.split('/').cmp(other.split('/'))
}

/// The path that a request is for: what stands behind `files/`.
fn path_of(target: &Target) -> &str {
    target.last()
}

/// Read a file, or list a folder
///
/// A file comes as it is, whole or the range of bytes that is asked for, with an `ETag`. A folder comes as
/// a list. Paths are relative to `/workspace`; one that begins with `%2F` is absolute.
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/files/{path}", tag = "files", params(
    Whose,
    ("path" = String, Path, description = "The path, with its slashes"),
    super::Page,
    ("recursive" = Option<bool>, Query, description = "Of a folder: also what lies below"),
    ("if-none-match" = Option<String>, Header, description = "Tags that need not be sent again"),
    ("range" = Option<String>, Header, description = "One range of bytes"),
), responses(
    (status = 200, description = "The file, or what is in the folder", content(
        (super::openapi::Content = "application/octet-stream"),
        (Listing = "application/json"),
    ), headers(("etag" = Option<String>, description = "Names the content of a file"))),
    (status = 206, description = "The part that was asked for", content_type = "application/octet-stream", body = super::openapi::Content),
    (status = 304, description = "The file is one of those that need not be sent again"),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn read(
    State(app): State<App>,
    method: Method,
    target: Target,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    target.require(Scope::Read)?;
    let overlay = begin(&app, &target).await?;
    let path = path_of(&target).to_owned();
    let stat = overlay.stat(&path).await.map_err(failed)?;
    if stat.kind == EntryKind::Directory {
        return Ok(Json(listing(&overlay, &path, &parameters).await?).into_response());
    }
    // They say which part of a folder's list is meant; a file has none.
    folder_only(&parameters)?;
    let tag = tag(&overlay, &path).await.map_err(failed)?;
    let tag = tag.unwrap_or_default();
    let known = tags(&headers, &header::IF_NONE_MATCH)?;
    let same = known.is_some_and(|known| known.iter().any(|one| *one == tag || one == "*"));
    let (status, from, length) = match part(&headers, stat.size, &tag) {
        _ if same => (StatusCode::NOT_MODIFIED, 0, 0),
        Part::Whole => (StatusCode::OK, 0, stat.size),
        Part::Bytes { from, length } => (StatusCode::PARTIAL_CONTENT, from, length),
        Part::Nothing => return Err(Refusal::RangeNotThere(stat.size)),
    };
    let body = if method == Method::HEAD || same {
        Body::empty()
    } else {
        content(overlay, path, from, length)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let answer = response.headers_mut();
    let put = |answer: &mut HeaderMap, name, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            answer.insert(name, value);
        }
    };
    put(answer, header::ETAG, quoted(&tag));
    if same {
        return Ok(response);
    }
    put(answer, header::CONTENT_LENGTH, length.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{}", from + length - 1, stat.size);
        put(answer, header::CONTENT_RANGE, range);
    }
    // A file of an agent never runs in the page's origin.
    for (name, value) in [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::CONTENT_SECURITY_POLICY, "sandbox"),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::ACCEPT_RANGES, "bytes"),
    ] {
        answer.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// A part of a file, read piece by piece as the client takes it.
fn content(overlay: Overlay, path: String, from: u64, length: u64) -> Body {
    let end = from + length;
    let begin = (overlay, path, from);
    Body::from_stream(futures::stream::try_unfold(
        begin,
        move |(overlay, path, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let most = usize::try_from(PIECE.min(end - at)).unwrap_or(usize::MAX);
            let piece = overlay.read_range(&path, at, most).await;
            let piece: Bytes = piece.map_err(|error| std::io::Error::other(error.to_string()))?;
            if piece.is_empty() {
                // It was replaced by a shorter one meanwhile: the client sees that it is not whole.
                return Err(std::io::Error::other("the file changed meanwhile"));
            }
            let at = at + piece.len() as u64;
            Ok::<_, std::io::Error>(Some((piece, (overlay, path, at))))
        },
    ))
}

fn when(headers: &HeaderMap) -> Result<When, Refusal> {
    Ok(When {
        matches: tags(headers, &header::IF_MATCH)?,
        matches_none: tags(headers, &header::IF_NONE_MATCH)?,
    })
}

/// Write a file
///
/// Its folders are made. With `If-Match` only over that content, with `If-None-Match: *` only where there
/// is no file. While a message is being answered, files cannot be changed from outside.
#[utoipa::path(put, path = "/v1/agents/{agent}/{id}/files/{path}", tag = "files", params(
    Whose,
    ("path" = String, Path, description = "The path, with its slashes"),
    ("if-match" = Option<String>, Header, description = "Tags, one of which the file must have", pattern = r#"^("[!#-~]*")?$"#),
    ("if-none-match" = Option<String>, Header, description = "Tags that the file must not have, or `*`", pattern = r#"^(\*|"[!#-~]*")?$"#),
), request_body(content = super::openapi::Content, content_type = "application/octet-stream"), responses(
    (status = 200, description = "It was replaced", body = Written),
    (status = 201, description = "It was made", body = Written),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn write(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    target.require(Scope::Admin)?;
    parameters.only(&[])?;
    let when = when(&headers)?;
    there(&app, &target).await?;
    let content = whole(&app, body).await?;
    let size = content.len() as u64;
    let path = path_of(&target).to_owned();
    let mode = None;
    let edit = FileEdit::Write { path, mode, when }.with(content);
    let told = app.service().runtime().edit(&target.actor, edit).await?;
    let written = Written {
        created: told["created"] == true,
        size,
        tag: told["tag"].as_str().unwrap_or_default().to_owned(),
    };
    let status = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let tag = HeaderValue::from_str(&quoted(&written.tag)).ok();
    let mut response = (status, Json(written)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Remove a file or a folder
#[utoipa::path(delete, path = "/v1/agents/{agent}/{id}/files/{path}", tag = "files", params(
    Whose,
    ("path" = String, Path, description = "The path, with its slashes"),
    ("recursive" = Option<bool>, Query, description = "A folder with all that is in it"),
    ("if-match" = Option<String>, Header, description = "Tags, one of which the file must have", pattern = r#"^("[!#-~]*")?$"#),
), responses(
    (status = 204, description = "It is gone"),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn remove(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    target.require(Scope::Admin)?;
    parameters.only(&["recursive"])?;
    let recursive = parameters.flag("recursive")?;
    let when = when(&headers)?;
    there(&app, &target).await?;
    let path = path_of(&target).to_owned();
    let edit = FileEdit::Remove {
        path,
        recursive,
        when,
    };
    let runtime = app.service().runtime();
    runtime.edit(&target.actor, edit.with(Bytes::new())).await?;
    Ok(StatusCode::NO_CONTENT)
}
