//! The processes below one, as the kernel lists them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
};

use rustix::process::{Pid, Signal, Uid, kill_process};

/// Rounds of stopping before what is stopped is killed. A process that is stopped makes no other.
const ROUNDS: usize = 100;

/// One process.
struct Entry {
    pid: i32,
    parent: i32,
    zombie: bool,
    threads: u64,
    /// In pages.
    resident: u64,
}

/// What processes take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Taken {
    pub(super) threads: u64,
    pub(super) memory_bytes: u64,
}

/// What the descendants of a process take.
pub(super) fn taken(root: i32) -> Taken {
    let page = rustix::param::page_size() as u64;
    let mut taken = Taken::default();
    for entry in below(root) {
        taken.threads += entry.threads;
        taken.memory_bytes += entry.resident * page;
    }
    taken
}

/// Kills all descendants of a process. They are stopped first, so that none makes another one meanwhile.
pub(super) fn kill(root: i32) {
    let mut stopped = HashSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<i32> = below(root)
            .into_iter()
            .filter(|entry| !entry.zombie && !stopped.contains(&entry.pid))
            .map(|entry| entry.pid)
            .collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            signal(pid, Signal::STOP);
            stopped.insert(pid);
        }
    }
    for entry in below(root) {
        signal(entry.pid, Signal::KILL);
    }
}

/// Threads of all processes of a user.
pub(super) fn threads_of(user: Uid) -> u64 {
    let of_user = |pid: i32| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == user.as_raw())
    };
    let all = all().into_iter().filter(|entry| of_user(entry.pid));
    all.map(|entry| entry.threads).sum()
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

fn below(root: i32) -> Vec<Entry> {
    let mut children: HashMap<i32, Vec<Entry>> = HashMap::new();
    for entry in all() {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found = Vec::new();
    let mut pending = vec![root];
    while let Some(parent) = pending.pop() {
        for entry in children.remove(&parent).unwrap_or_default() {
            pending.push(entry.pid);
            found.push(entry);
        }
    }
    found
}

fn all() -> Vec<Entry> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|process| entry(process.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn entry(pid: i32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name comes in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Entry {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        threads: fields.get(17)?.parse().ok()?,
        resident: fields.get(21)?.parse().ok()?,
    })
}
