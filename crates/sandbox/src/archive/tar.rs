//! Tar streams.

use std::{collections::HashMap, io::Read};

use bytes::Bytes;
use tar::{Archive, Builder, EntryType, Header};

use super::{ArchiveError, Budget, MAX_MEMBERS, Member, MemberNode};

fn malformed(error: &std::io::Error) -> ArchiveError {
    let why = error.to_string();
    // Of what is no archive at all it quotes the bytes.
    let plain = |c: char| c != char::REPLACEMENT_CHARACTER && !c.is_control();
    ArchiveError::Malformed(if why.chars().all(plain) {
        why
    } else {
        "it is no tar, tar.gz or zip, or a damaged one".to_owned()
    })
}

/// The members of a tar stream. A hard link becomes a copy.
pub(super) fn unpack(from: impl Read, budget: &mut Budget) -> Result<Vec<Member>, ArchiveError> {
    let mut archive = Archive::new(from);
    let mut members: Vec<Member> = Vec::new();
    let mut files: HashMap<String, Bytes> = HashMap::new();
    for entry in archive.entries().map_err(|error| malformed(&error))? {
        let mut entry = entry.map_err(|error| malformed(&error))?;
        let path = text(&entry.path_bytes())?;
        let link = entry
            .link_name_bytes()
            .map(|link| text(&link))
            .transpose()?;
        let refuse = |reason| ArchiveError::Unsafe {
            member: path.clone(),
            reason,
        };
        let node = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let content = budget.read(&mut entry)?;
                files.insert(path.clone(), content.clone());
                MemberNode::File(content)
            }
            EntryType::Directory => MemberNode::Directory,
            EntryType::Symlink => MemberNode::Symlink(link.unwrap_or_default()),
            EntryType::Link => {
                let content = files.get(&link.unwrap_or_default()).cloned();
                MemberNode::File(
                    content.ok_or_else(|| refuse("it is a hard link to nothing in the archive"))?,
                )
            }
            EntryType::XGlobalHeader => continue,
            _ => return Err(refuse("it is not a file, directory or link")),
        };
        let mode = entry.header().mode().map_err(|error| malformed(&error))? & 0o7777;
        members.push(Member { path, mode, node });
        if members.len() > MAX_MEMBERS {
            return Err(ArchiveError::Members);
        }
    }
    Ok(members)
}

fn text(bytes: &[u8]) -> Result<String, ArchiveError> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|_| ArchiveError::Malformed("the name of a member is not UTF-8".into()))
}

/// A tar stream. All members get the time `seconds`, since 1970.
pub(super) fn pack(members: &[Member], seconds: u64) -> Result<Bytes, ArchiveError> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |member: &Member| {
        let mut header = Header::new_gnu();
        header.set_mode(member.mode);
        header.set_mtime(seconds);
        header.set_size(0);
        match &member.node {
            MemberNode::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, &member.path, &content[..])
            }
            MemberNode::Directory => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, format!("{}/", member.path), std::io::empty())
            }
            MemberNode::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, &member.path, target)
            }
        }
    };
    let added = members.iter().try_for_each(&mut add);
    let packed = added.and_then(|()| builder.into_inner());
    packed.map(Bytes::from).map_err(|error| malformed(&error))
}
