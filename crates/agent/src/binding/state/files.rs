//! Files, directories and links one at a time, and archives.

use bowline_sandbox::{
    archive::{self, ArchiveSummary},
    digest::{Digest, digest_file},
    isolate::{Value, ViewKind},
    workspace::{Overlay, Stat, WORKING_DIRECTORY, WorkspaceError, WriteOptions, absolute},
};
use bowline_store::Timestamp;
use serde_json::{Value as Json, json};

use super::{Outcome, kind_name};
use crate::binding::{CallError, arguments::Arguments};

/// Bytes that say what a file is.
const HEAD: usize = 512;

pub(super) async fn read(files: &Overlay, mut with: Arguments) -> Outcome {
    let bytes = files.read(&with.text("path")?).await?;
    Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()))
}

pub(super) async fn read_bytes(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let mut options = with.table("options", &["offset", "length"])?;
    let (offset, length) = (options.count("offset")?, options.count("length")?);
    let bytes = if offset.is_none() && length.is_none() {
        files.read(&path).await?
    } else {
        let length = length.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        files.read_range(&path, offset.unwrap_or(0), length).await?
    };
    Ok(Value::View(ViewKind::Uint8, bytes))
}

pub(super) async fn exists(files: &Overlay, mut with: Arguments) -> Outcome {
    Ok(Value::Bool(files.exists(&with.text("path")?).await?))
}

pub(super) async fn stat(files: &Overlay, mut with: Arguments, follow: bool) -> Outcome {
    let path = with.text("path")?;
    let found = if follow {
        files.stat(&path).await
    } else {
        files.lstat(&path).await
    };
    let stat = match found {
        Err(WorkspaceError::NotFound(_)) => return Ok(Value::Null),
        found => found?,
    };
    let mut shown = shown(&absolute(&path, WORKING_DIRECTORY), &stat);
    if stat.kind == bowline_sandbox::workspace::EntryKind::Symlink {
        shown["target"] = Json::from(files.read_link(&path).await?);
    }
    Ok(Value::from(shown))
}

fn shown(path: &str, stat: &Stat) -> Json {
    let mut shown = json!({
        "path": path,
        "name": path.rsplit('/').next().unwrap_or_default(),
        "type": kind_name(stat.kind),
        "size": stat.size,
        "mode": stat.mode,
        "createdAt": stat.created.as_millis(),
        "updatedAt": stat.modified.as_millis(),
    });
    if let Some(mime) = &stat.mime {
        shown["mimeType"] = Json::from(mime.as_str());
    }
    shown
}

pub(super) async fn list(files: &Overlay, mut with: Arguments, kinds: bool) -> Outcome {
    let path = with.text_or_none("path")?;
    let entries = files
        .list(path.as_deref().unwrap_or(WORKING_DIRECTORY))
        .await?;
    let shown = entries.into_iter().map(|entry| {
        if kinds {
            Value::from(json!({"name": entry.name, "type": kind_name(entry.stat.kind)}))
        } else {
            Value::String(entry.name)
        }
    });
    Ok(Value::Array(shown.collect()))
}

pub(super) async fn read_link(files: &Overlay, mut with: Arguments) -> Outcome {
    Ok(Value::String(files.read_link(&with.text("path")?).await?))
}

pub(super) async fn real_path(files: &Overlay, mut with: Arguments) -> Outcome {
    Ok(Value::String(files.real_path(&with.text("path")?).await?))
}

pub(super) fn resolve(mut with: Arguments) -> Outcome {
    let base = absolute(&with.text("base")?, WORKING_DIRECTORY);
    Ok(Value::String(absolute(&with.text("path")?, &base)))
}

pub(super) async fn hash(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let mut options = with.table("options", &["algorithm"])?;
    let digest = match options.text_or_none("algorithm")?.as_deref() {
        None | Some("sha256") => Digest::Sha256,
        Some("md5") => Digest::Md5,
        Some("sha1") => Digest::Sha1,
        Some("blake3") => Digest::Blake3,
        Some(_) => return Err(options.wrong("algorithm must be md5, sha1, sha256 or blake3")),
    };
    Ok(Value::String(digest_file(files, &path, digest).await?))
}

pub(super) async fn detect(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let size = files.stat(&path).await?.size;
    let head = files.read_range(&path, 0, HEAD).await?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let extension = name
        .rsplit_once('.')
        .map(|(start, end)| (start, end.to_ascii_lowercase()));
    let extension = extension
        .filter(|(start, _)| !start.is_empty())
        .map_or_else(String::new, |(_, end)| end);
    let (binary, mime) = sniff(&head, &extension);
    Ok(Value::from(json!({
        "path": absolute(&path, WORKING_DIRECTORY),
        "mimeType": mime,
        "extension": extension,
        "binary": binary,
        "size": size,
    })))
}

/// Whether it is binary, and the media type. What the bytes say counts more than the name.
fn sniff(head: &[u8], extension: &str) -> (bool, &'static str) {
    const SIGNATURES: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b", "application/gzip"),
        (b"\0asm", "application/wasm"),
        (b"\x7fELF", "application/x-executable"),
        (b"SQLite format 3\0", "application/vnd.sqlite3"),
        (b"OggS", "application/ogg"),
        (b"ID3", "audio/mpeg"),
        (b"\x28\xb5\x2f\xfd", "application/zstd"),
        (b"wOF2", "font/woff2"),
    ];
    const NAMES: &[(&str, &str)] = &[
        ("txt", "text/plain"),
        ("md", "text/markdown"),
        ("html", "text/html"),
        ("htm", "text/html"),
        ("css", "text/css"),
        ("csv", "text/csv"),
        ("js", "text/javascript"),
        ("mjs", "text/javascript"),
        ("cjs", "text/javascript"),
        ("ts", "text/typescript"),
        ("tsx", "text/typescript"),
        ("jsx", "text/javascript"),
        ("json", "application/json"),
        ("jsonl", "application/jsonl"),
        ("xml", "application/xml"),
        ("svg", "image/svg+xml"),
        ("yaml", "application/yaml"),
        ("yml", "application/yaml"),
        ("toml", "application/toml"),
        ("sh", "application/x-sh"),
        ("py", "text/x-python"),
        ("rs", "text/x-rust"),
        ("go", "text/x-go"),
        ("c", "text/x-c"),
        ("h", "text/x-c"),
        ("cpp", "text/x-c++"),
        ("java", "text/x-java"),
        ("sql", "application/sql"),
        ("tar", "application/x-tar"),
        ("webp", "image/webp"),
        ("mp4", "video/mp4"),
        ("wav", "audio/wav"),
        ("woff", "font/woff"),
        ("ttf", "font/ttf"),
    ];
    let signed = SIGNATURES.iter().find(|(start, _)| head.starts_with(start));
    if let Some((_, mime)) = signed {
        return (true, mime);
    }
    if head.get(8..12) == Some(b"WEBP") {
        return (true, "image/webp");
    }
    // The last character of the piece may be cut.
    let text = match std::str::from_utf8(head) {
        Ok(text) => !text.contains('\0'),
        Err(error) => error.error_len().is_none() && head.len() == HEAD && !head.contains(&0),
    };
    let named = NAMES
        .iter()
        .find(|(name, _)| *name == extension)
        .map(|(_, mime)| *mime);
    let plain = if text {
        "text/plain"
    } else {
        "application/octet-stream"
    };
    (!text, named.unwrap_or(plain))
}

pub(super) async fn write(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, content) = (with.text("path")?, with.content("content")?);
    files
        .write(&path, content, &WriteOptions::with_parents())
        .await?;
    Ok(Value::Undefined)
}

pub(super) async fn append(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, content) = (with.text("path")?, with.content("content")?);
    files
        .append(&path, content, &WriteOptions::with_parents())
        .await?;
    Ok(Value::Undefined)
}

pub(super) async fn mkdir(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let recursive = with
        .table("options", &["recursive"])?
        .flag("recursive", false)?;
    files.mkdir(&path, recursive).await?;
    Ok(Value::Undefined)
}

pub(super) async fn remove(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let mut options = with.table("options", &["recursive", "force"])?;
    let (recursive, force) = (
        options.flag("recursive", false)?,
        options.flag("force", false)?,
    );
    files.remove(&path, recursive, force).await?;
    Ok(Value::Undefined)
}

pub(super) async fn remove_tree(files: &Overlay, mut with: Arguments) -> Outcome {
    files.remove(&with.text("path")?, true, true).await?;
    Ok(Value::Undefined)
}

pub(super) async fn copy(files: &Overlay, mut with: Arguments, tree: bool) -> Outcome {
    let (from, to) = (with.text("src")?, with.text("dest")?);
    let recursive = tree
        || with
            .table("options", &["recursive"])?
            .flag("recursive", false)?;
    files.copy(&from, &to, recursive).await?;
    Ok(Value::Undefined)
}

pub(super) async fn rename(files: &Overlay, mut with: Arguments) -> Outcome {
    let (from, to) = (with.text("src")?, with.text("dest")?);
    // Moving a directory copies nothing here, so that `recursive` makes no difference.
    with.table("options", &["recursive"])?
        .flag("recursive", true)?;
    files.rename(&from, &to).await?;
    Ok(Value::Undefined)
}

pub(super) async fn symlink(files: &Overlay, mut with: Arguments) -> Outcome {
    files
        .symlink(&with.text("target")?, &with.text("linkPath")?)
        .await?;
    Ok(Value::Undefined)
}

pub(super) async fn chmod(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let mode = with
        .count("mode")?
        .and_then(|mode| u32::try_from(mode).ok());
    let mode = mode.ok_or_else(|| with.wrong("mode must be a number such as 0o755"))?;
    files.chmod(&path, mode).await?;
    Ok(Value::Undefined)
}

pub(super) async fn utimes(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let time = time(&mut with, "mtime")?.ok_or_else(|| with.wrong("mtime is missing"))?;
    files.set_modified(&path, time).await?;
    Ok(Value::Undefined)
}

/// A time: milliseconds, a `Date`, or its text.
pub(super) fn time(with: &mut Arguments, name: &str) -> Result<Option<Timestamp>, CallError> {
    let millis = match with.take(name) {
        None => return Ok(None),
        Some(Value::Number(millis) | Value::Date(millis)) => Some(millis),
        Some(Value::String(text)) => text
            .parse::<jiff::Timestamp>()
            .ok()
            .map(|time| time.as_millisecond() as f64),
        Some(_) => None,
    };
    match millis.filter(|millis| millis.abs() <= 8.64e15) {
        Some(millis) => Ok(Some(Timestamp::from_millis(millis as i64))),
        None => Err(with.wrong(&format!("{name} must be milliseconds since 1970 or a date"))),
    }
}

fn packed(path: &str, summary: ArchiveSummary) -> Value {
    Value::from(json!({
        "path": absolute(path, WORKING_DIRECTORY),
        "files": summary.files,
        "directories": summary.directories,
        "symlinks": summary.links,
        "bytes": summary.bytes,
    }))
}

pub(super) async fn pack(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let sources: Option<Vec<String>> = with
        .list("sources")?
        .into_iter()
        .map(|source| source.as_str().map(str::to_owned))
        .collect();
    let sources = sources.ok_or_else(|| with.wrong("sources must be an array of paths"))?;
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let summary = archive::create_archive(files, &path, &sources).await?;
    Ok(packed(&path, summary))
}

pub(super) async fn unpack(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, to) = (with.text("path")?, with.text("destination")?);
    let summary = archive::extract_archive(files, &path, &to).await?;
    Ok(packed(&path, summary))
}

pub(super) async fn list_archive(files: &Overlay, mut with: Arguments) -> Outcome {
    let entries = archive::list_archive(files, &with.text("path")?).await?;
    let shown = entries.into_iter().map(|entry| {
        Value::from(json!({
            "path": entry.path,
            "type": kind_name(entry.kind),
            "size": entry.size,
            "mode": entry.mode,
        }))
    });
    Ok(Value::Array(shown.collect()))
}

pub(super) async fn compress(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, to) = (with.text("path")?, with.text_or_none("destination")?);
    let to = archive::compress_file(files, &path, to.as_deref()).await?;
    written(files, &path, &to).await
}

pub(super) async fn decompress(files: &Overlay, mut with: Arguments) -> Outcome {
    let (path, to) = (with.text("path")?, with.text_or_none("destination")?);
    let to = archive::decompress_file(files, &path, to.as_deref()).await?;
    written(files, &path, &to).await
}

async fn written(files: &Overlay, path: &str, to: &str) -> Outcome {
    Ok(Value::from(json!({
        "path": absolute(path, WORKING_DIRECTORY),
        "destination": absolute(to, WORKING_DIRECTORY),
        "bytesWritten": files.stat(to).await?.size,
    })))
}
