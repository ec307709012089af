//! Files between this machine and a workspace.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use base64::Engine as _;
use bowline_agent::edit::archive_failure;
use bowline_sandbox::archive;
use bytes::Bytes;

use super::*;
use crate::cli::fault::Fault;

/// Most that is read from standard input or one file.
const MOST: u64 = 128 << 20;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A file of this machine, or standard input.
pub(super) fn input(file: Option<&Path>) -> Result<Bytes, Error> {
    if let Some(path) = file.filter(|path| *path != Path::new("-")) {
        return crate::cli::place::read_file(path, MOST).map(Bytes::from);
    }
    let mut content = Vec::new();
    let read = io::stdin().lock().take(MOST + 1).read_to_end(&mut content);
    let refuse = |why: String| Fault::UnreadableFile {
        path: "standard input".into(),
        why,
    };
    read.map_err(|error| refuse(error.to_string()))?;
    if content.len() as u64 > MOST {
        return Err(refuse(format!("is larger than {} MiB", MOST >> 20)).into());
    }
    Ok(Bytes::from(content))
}

/// Permission bits of a file of this machine, where it has such.
pub(super) fn mode(file: &Path) -> Option<u32> {
    #[cfg(unix)]
    let mode = fs::metadata(file)
        .ok()
        .filter(fs::Metadata::is_file)
        .map(|found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777);
    #[cfg(not(unix))]
    let mode = None;
    mode
}

/// Writes bytes to standard output; `false` when nobody reads them any more.
fn put_out(bytes: &[u8]) -> Result<bool, Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Fault::Output(error).into()),
    }
}

pub(super) async fn cat(files: &Workspace, path: &str, terminal: Terminal) -> Result<(), Error> {
    let overlay = begin(files).await?;
    let size = overlay.stat(path).await?.size;
    if terminal.json {
        let content = overlay.read(path).await?;
        let (key, text) = match std::str::from_utf8(&content) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => (
                "base64",
                base64::engine::general_purpose::STANDARD.encode(&content),
            ),
        };
        return terminal.json(&json!({"type": "file", "path": path, "size": size, key: text}));
    }
    // A first read says what is wrong with the path, also for an empty file.
    let mut at = 0;
    loop {
        let piece = overlay.read_range(path, at, PIECE).await?;
        if piece.is_empty() || !put_out(&piece)? {
            return Ok(());
        }
        at += piece.len() as u64;
    }
}

/// Copies to this machine. Nothing that is there is touched, and links are made last, so that no file
/// is written through one.
pub(super) async fn get(
    files: &Workspace,
    path: &str,
    destination: Option<&Path>,
    terminal: Terminal,
) -> Result<(), Error> {
    let overlay = begin(files).await?;
    let root = overlay.real_path(path).await?;
    let name = root.rsplit('/').next().filter(|name| !name.is_empty());
    let destination = destination
        .unwrap_or(Path::new(name.unwrap_or("workspace")))
        .to_path_buf();
    let destination = destination.as_path();
    let failed = |path: &Path, error: &io::Error| Fault::ProjectUnwritable {
        path: path.to_path_buf(),
        why: error.to_string(),
    };
    if fs::symlink_metadata(destination).is_ok() {
        let exists = io::Error::other("is there already");
        return Err(failed(destination, &exists).into());
    }
    let (mut count, mut links) = (0, Vec::new());
    let mut pending = vec![(root.clone(), destination.to_path_buf())];
    while let Some((from, to)) = pending.pop() {
        let stat = overlay.lstat(&from).await?;
        match stat.kind {
            EntryKind::Directory => {
                fs::create_dir(&to).map_err(|error| failed(&to, &error))?;
                for entry in overlay.list(&from).await? {
                    let below = format!("{}/{}", from.trim_end_matches('/'), entry.name);
                    pending.push((below, to.join(&entry.name)));
                }
            }
            EntryKind::Symlink => links.push((overlay.read_link(&from).await?, to)),
            EntryKind::File => {
                let mut options = fs::OpenOptions::new();
                options.write(true).create_new(true);
                // What can be run can be run here too; the umask holds.
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, (stat.mode & 0o777) | 0o600);
                let mut file = options.open(&to).map_err(|error| failed(&to, &error))?;
                let mut at = 0;
                while at < stat.size {
                    let piece = overlay.read_range(&from, at, PIECE).await?;
                    file.write_all(&piece)
                        .map_err(|error| failed(&to, &error))?;
                    at += piece.len().max(1) as u64;
                }
                count += 1;
            }
        }
    }
    for (target, link) in links {
        #[cfg(unix)]
        std::os::unix::fs::symlink(target, &link).map_err(|error| failed(&link, &error))?;
        #[cfg(not(unix))]
        fs::write(&link, target).map_err(|error| failed(&link, &error))?;
    }
    if terminal.json {
        return terminal.json(&json!({
            "type": "copied", "path": path, "to": destination.display().to_string(), "files": count,
        }));
    }
    terminal.say(format_args!(
        "copied {} to {}",
        crate::cli::terminal::count(count, "file"),
        destination.display()
    ));
    Ok(())
}

pub(super) async fn export(files: &Workspace, path: &str, terminal: Terminal) -> Result<(), Error> {
    let overlay = begin(files).await?;
    let mut failed = None;
    let exported = archive::export_tar(&overlay, path, |piece| match put_out(&piece) {
        Ok(open) => open,
        Err(error) => {
            failed = Some(error);
            false
        }
    })
    .await;
    if let Some(error) = failed {
        return Err(error);
    }
    let summary = exported.map_err(archive_failure)?;
    terminal.say(format_args!(
        "{} and {} bytes",
        crate::cli::terminal::count(summary.files, "file"),
        summary.bytes
    ));
    Ok(())
}
