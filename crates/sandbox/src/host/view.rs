//! A view of the machine's files in which only two directories can be changed.
//!
//! Landlock says nothing of modes, owners and times, so that a process could change those of every file
//! of its user. A mount that is read-only forbids it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Makes everything but the two directories read-only for this process. False when the kernel does not let
/// this user: then changes of modes, owners and times have to be forbidden everywhere.
pub(super) fn read_only(dir: &Path, temporary: &Path) -> bool {
    separate().is_ok() && remount(dir, temporary).is_ok()
}

/// A mount namespace of its own; whoever may not have one gets it with a user namespace of its own.
fn separate() -> Result<(), Errno> {
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        return Ok(());
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    let write = |file: &str, text: String| fs::write(file, text).map_err(|_| Errno::EPERM);
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", format!("{group} {group} 1"))
}

fn remount(dir: &Path, temporary: &Path) -> Result<(), Errno> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for path in [dir, temporary] {
        mount(
            Some(path),
            path,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )?;
    }
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|_| Errno::EIO)?;
    for (path, flags) in table.lines().filter_map(mounted) {
        if path.starts_with(dir) || path.starts_with(temporary) {
            continue;
        }
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        match mount(none, &path, none, flags, none) {
            // Something else is mounted above it, so nobody can reach it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where something is mounted and the flags that a remount must repeat.
fn mounted(line: &str) -> Option<(PathBuf, MsFlags)> {
    let mut fields = line.split(' ').skip(4);
    let path = PathBuf::from(unescaped(fields.next()?));
    let mut flags = MsFlags::empty();
    for option in fields.next()?.split(',') {
        flags |= match option {
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        };
    }
    Some((path, flags))
}

/// The kernel writes spaces and the like as `\040`.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).map(|code| u8::from_str_radix(code, 8)) {
            Some(Ok(byte)) => {
                out.push(char::from(byte));
                rest = after.get(3..).unwrap_or_default();
            }
            Some(Err(_)) | None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}
