//! A folder as a tar stream, piece by piece: of any size, in little memory.

use bytes::Bytes;
use tar::{Builder, EntryType, Header};

use super::{ArchiveError, ArchiveSummary};
use crate::workspace::{EntryKind, Overlay, Stat, WorkspaceError, absolute};

/// Bytes handed on at once.
const PIECE: usize = 1 << 20;

/// Hands a file, or a folder with all that is in it, to `sink` as a tar stream, until that returns
/// `false`. Names are relative to the folder, modes and times are kept.
///
/// # Errors
///
/// [`ArchiveError::Workspace`]; what was handed on until then is no whole archive.
pub async fn export_tar(
    overlay: &Overlay,
    path: &str,
    mut sink: impl FnMut(Bytes) -> bool + Send,
) -> Result<ArchiveSummary, ArchiveError> {
    let root = overlay.real_path(path).await?;
    let mut summary = ArchiveSummary::default();
    let stat = overlay.stat(&root).await?;
    let mut pending = Vec::new();
    if stat.kind == EntryKind::Directory {
        push_names(overlay, &root, "", &mut pending).await?;
    } else {
        let name = root.rsplit('/').next().unwrap_or_default().to_owned();
        pending.push((root, name));
    }
    while let Some((at, name)) = pending.pop() {
        let stat = overlay.lstat(&at).await?;
        let (target, size) = match stat.kind {
            EntryKind::Symlink => (Some(overlay.read_link(&at).await?), 0),
            EntryKind::Directory => (None, 0),
            EntryKind::File => (None, stat.size),
        };
        if !sink(head(&name, &stat, size, target.as_deref())?) {
            return Ok(summary);
        }
        match stat.kind {
            EntryKind::Directory => {
                summary.directories += 1;
                push_names(overlay, &at, &format!("{name}/"), &mut pending).await?;
            }
            EntryKind::Symlink => summary.links += 1,
            EntryKind::File => {
                if !content(overlay, &at, size, &mut sink).await? {
                    return Ok(summary);
                }
                summary.files += 1;
                summary.bytes += size;
            }
        }
    }
    // Two empty blocks end a tar stream.
    sink(Bytes::from_static(&[0; 1024]));
    Ok(summary)
}

/// The bytes of a file and what fills its last block.
async fn content(
    overlay: &Overlay,
    path: &str,
    size: u64,
    sink: &mut (impl FnMut(Bytes) -> bool + Send),
) -> Result<bool, ArchiveError> {
    let mut at = 0;
    while at < size {
        let piece = overlay.read_range(path, at, PIECE).await?;
        if piece.is_empty() {
            return Err(WorkspaceError::NotFound(path.to_owned()).into());
        }
        at += piece.len() as u64;
        if !sink(piece) {
            return Ok(false);
        }
    }
    let fill = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
    Ok(sink(Bytes::from(vec![0; fill])))
}

async fn push_names(
    overlay: &Overlay,
    dir: &str,
    shown: &str,
    pending: &mut Vec<(String, String)>,
) -> Result<(), ArchiveError> {
    for entry in overlay.list(dir).await?.into_iter().rev() {
        pending.push((absolute(&entry.name, dir), format!("{shown}{}", entry.name)));
    }
    Ok(())
}

/// The blocks before the content of a member.
fn head(name: &str, stat: &Stat, size: u64, target: Option<&str>) -> Result<Bytes, ArchiveError> {
    let malformed = |error: std::io::Error| ArchiveError::Malformed(error.to_string());
    let mut header = Header::new_gnu();
    header.set_mode(stat.mode);
    header.set_size(0);
    header.set_mtime(
        stat.modified
            .as_millis()
            .div_euclid(1000)
            .try_into()
            .unwrap_or(0),
    );
    let mut builder = Builder::new(Vec::new());
    match (stat.kind, target) {
        (EntryKind::Symlink, target) => {
            header.set_entry_type(EntryType::Symlink);
            let target = target.unwrap_or_default();
            builder.append_link(&mut header, name, target)
        }
        (EntryKind::Directory, _) => {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{name}/"), std::io::empty())
        }
        (EntryKind::File, _) => builder.append_data(&mut header, name, std::io::empty()),
    }
    .map_err(malformed)?;
    let mut blocks = std::mem::take(builder.get_mut());
    if stat.kind == EntryKind::File {
        // The name may have needed blocks of its own; the last one is the header with the size.
        let start = blocks.len().saturating_sub(512);
        header.set_size(size);
        let last = blocks.get_mut(start..).unwrap_or_default();
        if let Ok(last) = <&mut [u8; 512]>::try_from(last) {
            let mut written = Header::from_byte_slice(last).clone();
            written.set_size(size);
            written.set_cksum();
            last.copy_from_slice(written.as_bytes());
        }
    }
    Ok(Bytes::from(blocks))
}
