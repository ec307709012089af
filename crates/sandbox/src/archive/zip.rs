//! Zip files.

use std::io::{Cursor, Write};

use bytes::Bytes;
use memchr::memmem;
use zip::{CompressionMethod, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::{ArchiveError, Budget, MAX_MEMBERS, Member, MemberNode};

/// What each entry of the list of members begins with.
const LISTED: &[u8] = b"PK\x01\x02";

fn malformed(error: &ZipError) -> ArchiveError {
    ArchiveError::Malformed(error.to_string())
}

/// The members of a zip file.
pub(super) fn unpack(packed: &[u8], budget: &mut Budget) -> Result<Vec<Member>, ArchiveError> {
    // The reader holds the whole list in memory, so that it must not be too long.
    if memmem::find_iter(packed, LISTED).nth(MAX_MEMBERS).is_some() {
        return Err(ArchiveError::Members);
    }
    let mut archive = ZipArchive::new(Cursor::new(packed)).map_err(|error| malformed(&error))?;
    let mut members = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(|error| malformed(&error))?;
        let path = file.name().map_err(|error| malformed(&error))?.into_owned();
        let mode = file.unix_mode();
        let node = if file.is_dir() {
            MemberNode::Directory
        } else if file.is_symlink() {
            let target = String::from_utf8(budget.read(file)?.to_vec());
            MemberNode::Symlink(target.map_err(|_| {
                ArchiveError::Malformed(format!("{path} points to a name that is not UTF-8"))
            })?)
        } else {
            MemberNode::File(budget.read(file)?)
        };
        let usual = if matches!(node, MemberNode::Directory) {
            0o755
        } else {
            0o644
        };
        members.push(Member {
            path,
            mode: mode.unwrap_or(usual) & 0o7777,
            node,
        });
    }
    Ok(members)
}

/// A zip file.
pub(super) fn pack(members: &[Member]) -> Result<Bytes, ArchiveError> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for member in members {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(member.mode);
        match &member.node {
            MemberNode::File(content) => {
                writer
                    .start_file(member.path.as_str(), options)
                    .map_err(|error| malformed(&error))?;
                writer
                    .write_all(content)
                    .map_err(|error| ArchiveError::Malformed(error.to_string()))?;
            }
            MemberNode::Directory => {
                writer
                    .add_directory(member.path.as_str(), options)
                    .map_err(|error| malformed(&error))?;
            }
            MemberNode::Symlink(target) => {
                writer
                    .add_symlink(member.path.as_str(), target.as_str(), options)
                    .map_err(|error| malformed(&error))?;
            }
        }
    }
    Ok(Bytes::from(
        writer
            .finish()
            .map_err(|error| malformed(&error))?
            .into_inner(),
    ))
}
