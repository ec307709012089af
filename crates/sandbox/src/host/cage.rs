//! A control group that bounds how many processes a command has.
//!
//! The kernel's limit for a user (`RLIMIT_NPROC`) does not bind the machine's root. A control group binds
//! everybody, also between two looks of the supervisor, and says when it refused something.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, getpid, getuid, kill_process};

/// What a group's directory is named, before the id of its supervisor.
const PREFIX: &str = "bowline-";
/// How often its removal is tried: a process that has ended leaves its group a moment later.
const TRIES: u32 = 40;
/// The wait between two tries.
const AGAIN: Duration = Duration::from_millis(5);

/// The group of one command. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Cage {
    dir: PathBuf,
}

/// Whether nothing but a control group bounds the processes of this user.
pub(super) fn needed() -> bool {
    if !getuid().is_root() {
        return false;
    }
    // The root of a user namespace is some other user to the kernel, and bound like one.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut first = map.split_whitespace();
    first.next() != Some("0") || first.next() == Some("0")
}

impl Cage {
    /// A group for that many processes and threads.
    pub(super) fn new(processes: u64) -> Result<Self, String> {
        let parent = parent()?;
        sweep(&parent);
        let dir = parent.join(format!("{PREFIX}{}", getpid().as_raw_nonzero()));
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let cage = Self { dir: dir.clone() };
        // Below a group that has processes itself there are only groups of this kind.
        let kind = fs::read_to_string(dir.join("cgroup.type")).unwrap_or_default();
        if kind.trim() == "domain invalid" {
            cage.write("cgroup.type", "threaded").map_err(failed)?;
        }
        cage.write("pids.max", &processes.to_string())
            .map_err(failed)?;
        Ok(cage)
    }

    /// Puts a process in, and with it all that it will start.
    pub(super) fn admit(&self, pid: u32) -> Result<(), String> {
        self.write("cgroup.procs", &pid.to_string())
            .map_err(|error| format!("{}: {error}", self.dir.display()))
    }

    /// Whether a process was refused because there are too many.
    pub(super) fn refused(&self) -> bool {
        let events = fs::read_to_string(self.dir.join("pids.events")).unwrap_or_default();
        let times = events.lines().find_map(|line| line.strip_prefix("max "));
        times.is_some_and(|times| times.trim() != "0")
    }

    /// Lets nothing new start, and kills what is in it.
    pub(super) fn kill(&self) {
        // What is gone already cannot be written to, and needs not.
        let _ = self.write("pids.max", "0");
        let inside = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.trim().parse().ok()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        set(&self.dir, file, text)
    }
}

/// Sets something of a group. It never creates the file: a directory without it is no control group.
fn set(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(dir.join(file))?;
    file.write_all(text.as_bytes())
}

impl Drop for Cage {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(AGAIN),
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// The group of this process, when groups that bound processes can be made below it.
fn parent() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    let groups = ControlGroups {
        root: PathBuf::from("/"),
        groups: read("/proc/self/cgroup")?,
        mounts: read("/proc/self/mountinfo")?,
    };
    groups.bounding()
}

/// Where a process is among the control groups, as the kernel tells it. A machine has one hierarchy for each
/// controller (the first version), one for all (the second), or both.
#[derive(Debug, Clone)]
pub struct ControlGroups {
    /// What the paths of `mounts` are below. `/`, but in tests.
    pub root: PathBuf,
    /// `/proc/PID/cgroup`
    pub groups: String,
    /// `/proc/PID/mountinfo`
    pub mounts: String,
}

impl ControlGroups {
    /// The directory of the process's group, when groups that bound the number of processes can be made in
    /// it. In the second version their controller is switched on there, which the kernel allows for this one
    /// although there are processes in the group.
    ///
    /// # Errors
    ///
    /// Why there is none, in one line.
    pub fn bounding(&self) -> Result<PathBuf, String> {
        let missing = || "no control group bounds processes (`pids`)".to_owned();
        if let Some(dir) = self.first_version() {
            return Ok(dir);
        }
        let dir = self.second_version().ok_or_else(missing)?;
        let has = |file: &str| {
            fs::read_to_string(dir.join(file))
                .is_ok_and(|text| text.split_whitespace().any(|name| name == "pids"))
        };
        if !has("cgroup.controllers") {
            return Err(missing());
        }
        if !has("cgroup.subtree_control") {
            set(&dir, "cgroup.subtree_control", "+pids")
                .map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        Ok(dir)
    }

    /// The directory in a hierarchy of its own.
    fn first_version(&self) -> Option<PathBuf> {
        let path = self.groups.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|name| name == "pids").then_some(path)
        })?;
        self.directory(path, |kind, options| {
            kind == "cgroup" && options.split(',').any(|name| name == "pids")
        })
    }

    /// The directory in the hierarchy that all controllers share.
    fn second_version(&self) -> Option<PathBuf> {
        let path = self
            .groups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))?;
        self.directory(path, |kind, _| kind == "cgroup2")
    }

    /// Where a group is mounted: only a part of the hierarchy may be.
    fn directory(&self, path: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
        let dir = self.mounts.lines().find_map(|line| {
            let (place, system) = line.split_once(" - ")?;
            let mut system = system.split(' ');
            let (kind, options) = (system.next()?, system.nth(1)?);
            let mut place = place.split(' ').skip(3);
            let (root, at) = (unescaped(place.next()?), unescaped(place.next()?));
            if !wanted(kind, options) {
                return None;
            }
            let below = Path::new(path).strip_prefix(root).ok()?;
            Some(Path::new(&at).join(below))
        })?;
        Some(self.root.join(dir.strip_prefix("/").ok()?))
    }
}

/// A path of `mountinfo`, in which a space is `\040`.
fn unescaped(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let mut text = text.to_owned();
    for (from, to) in escapes {
        text = text.replace(from, to);
    }
    text
}

/// Removes the groups of supervisors that were killed.
fn sweep(parent: &Path) {
    let Ok(groups) = fs::read_dir(parent) else {
        return;
    };
    for group in groups.flatten() {
        let name = group.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Whoever else sweeps may be first.
            let _ = fs::remove_dir(group.path());
        }
    }
}
