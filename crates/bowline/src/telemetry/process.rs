//! What a process takes of its machine, as Linux tells it under `/proc`. Elsewhere nothing is known.

use std::fs;

/// Ticks of processor time in a second, on every Linux that matters.
const TICKS: f64 = 100.0;

/// What a process takes now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Process {
    /// Processor time so far, in seconds, to a hundredth.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, in KiB.
    pub(crate) resident_kib: f64,
    /// Open file handles.
    pub(crate) files: u64,
    /// Most file handles that it may have open.
    pub(crate) max_files: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Process {
    /// This process.
    pub(crate) fn this() -> Option<Self> {
        Self::read("self")
    }

    /// A process by its id, for the benches; `None` when it is gone, or not ours to look at.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::read(&pid.to_string())
    }

    fn read(which: &str) -> Option<Self> {
        let file = |name: &str| fs::read_to_string(format!("/proc/{which}/{name}")).ok();
        let (stat, status, limits) = (file("stat")?, file("status")?, file("limits")?);
        // The name of the program may hold spaces; the numbers follow its closing bracket. Fields 14
        // and 15 of proc(5) are user and system time.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let max = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let max = max.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let files = fs::read_dir(format!("/proc/{which}/fd")).map_or(0, Iterator::count);
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
            resident_kib: line("VmRSS:")? as f64,
            // Looking opens one itself.
            files: (files as u64).saturating_sub(u64::from(which == "self")),
            max_files: max.unwrap_or(u64::MAX),
            threads: line("Threads:")?,
        })
    }
}

/// Lets this process open as many files as its hard limit allows; each connection is one. Returns the
/// limit that holds from then on.
pub(crate) fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        // Then what was allowed before has to do.
        Err(_) => current,
    }
}
