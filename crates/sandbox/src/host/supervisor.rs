//! The process above bash: it starts it, watches what it takes, and sees to it that nothing of it is left.
//!
//! It is a process of its own so that it also does this when Bowline is killed: then the line to Bowline
//! ends. Processes that lose their parent become its children, so none can get away.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{WaitOptions, getpid, set_child_subreaper, setsid, wait};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    HELPER,
    cage::{self, Cage},
    confine, descendants,
    message::{Order, Report},
};

/// How this stage is called.
pub(super) const STAGE: &str = "supervise";
/// How often is looked at what the processes take. The kernel tells nobody when that is too much.
const TICK: Duration = Duration::from_millis(100);
/// How often processes that were killed are looked for again.
const AGAIN: Duration = Duration::from_millis(5);
/// Times that is done before they are given up: a process can hang in the kernel.
const AGAIN_MOST: u32 = 2_000;
/// Longest line: a command of 128 KiB, escaped.
const MAX_LINE: u64 = 4 << 20;

/// What happens meanwhile.
enum Event {
    /// Bash ended, with this code.
    Exited(i32),
    /// Nobody waits for it any more.
    Unwanted,
    /// No process is left.
    Empty,
}

/// The line to whoever started this process: its standard input, in both directions.
pub(super) struct Line(BufReader<UnixStream>);

/// Takes the line.
pub(super) fn line() -> std::io::Result<Line> {
    let fd: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Line(BufReader::new(UnixStream::from(fd))))
}

impl Line {
    pub(super) fn fd(&self) -> RawFd {
        self.0.get_ref().as_raw_fd()
    }

    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut text = String::new();
        let mut bounded = (&mut self.0).take(MAX_LINE);
        bounded
            .read_line(&mut text)
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    pub(super) fn send<T: Serialize>(&mut self, message: &T) -> Result<(), String> {
        let mut text = serde_json::to_string(message).map_err(|error| error.to_string())?;
        text.push('\n');
        let mut stream = self.0.get_ref();
        stream
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())
    }

    /// Says why this process does not become bash.
    pub(super) fn refuse(mut self, why: &str) -> ExitCode {
        let _ = self.send(&why);
        ExitCode::FAILURE
    }
}

/// Reads the order, has it carried out and reports.
pub(super) fn run() -> ExitCode {
    let Ok(mut bowline) = line() else {
        return ExitCode::FAILURE;
    };
    let report = match bowline.receive::<Order>() {
        Ok(order) => supervise(&order, &bowline).unwrap_or_else(Report::Failed),
        Err(why) => Report::Failed(why),
    };
    match bowline.send(&report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn supervise(order: &Order, bowline: &Line) -> Result<Report, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // Not of the terminal's group, whose keys would end it before what it has to end.
    setsid().map_err(|error| text(&error))?;
    let me = getpid();
    set_child_subreaper(Some(me)).map_err(|error| text(&error))?;
    let (events, happened) = mpsc::channel();
    let wanted = bowline.0.get_ref().try_clone().map_err(|e| text(&e))?;
    let gone = events.clone();
    thread::spawn(move || {
        // Bowline says nothing more; when the line ends, nobody waits.
        let _ = (&wanted).read(&mut [0]);
        let _ = gone.send(Event::Unwanted);
    });
    let cage = enclosed(order)?;
    let bash = start(order, cage.as_ref())?;
    thread::spawn(move || {
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == bash => {
                    let code = status.exit_status();
                    let signal = || status.terminating_signal().unwrap_or_default() + 128;
                    let _ = events.send(Event::Exited(code.unwrap_or_else(signal)));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    let _ = events.send(Event::Empty);
                    return;
                }
            }
        }
    });
    let me = me.as_raw_nonzero().get();
    Ok(watch(order, me, cage.as_ref(), &happened))
}

/// A group that bounds the processes. Without confinement it is no condition: they could leave it.
fn enclosed(order: &Order) -> Result<Option<Cage>, String> {
    let made = Cage::new(order.limits.processes);
    if cage::needed() && !order.unconfined {
        return made.map(Some);
    }
    Ok(made.ok())
}

fn watch(order: &Order, me: i32, cage: Option<&Cage>, happened: &mpsc::Receiver<Event>) -> Report {
    let mut report = None;
    let mut again = 0;
    loop {
        let tick = if report.is_some() { AGAIN } else { TICK };
        let now = match happened.recv_timeout(tick) {
            // It may have gone on without what was refused: then its result is none.
            Ok(Event::Exited(code)) => Some(too_many(order, cage).unwrap_or(Report::Exited(code))),
            Ok(Event::Unwanted) => Some(Report::Stopped),
            Ok(Event::Empty) | Err(RecvTimeoutError::Disconnected) => {
                return report.unwrap_or(Report::Stopped);
            }
            Err(RecvTimeoutError::Timeout) if report.is_none() => exceeded(order, me, cage),
            Err(RecvTimeoutError::Timeout) => None,
        };
        report = report.or(now);
        if let Some(ended) = &report {
            if let Some(cage) = cage {
                cage.kill();
            }
            descendants::kill(me);
            again += 1;
            if again > AGAIN_MOST {
                return ended.clone();
            }
        }
    }
}

/// What a command took that was refused a process.
fn too_many(order: &Order, cage: Option<&Cage>) -> Option<Report> {
    let refused = cage.is_some_and(Cage::refused);
    refused.then(|| Report::Exceeded(processes(order)))
}

fn processes(order: &Order) -> String {
    format!("more than {} processes and threads", order.limits.processes)
}

fn exceeded(order: &Order, me: i32, cage: Option<&Cage>) -> Option<Report> {
    if let Some(report) = too_many(order, cage) {
        return Some(report);
    }
    let (taken, limits) = (descendants::taken(me), &order.limits);
    let what = if taken.threads > limits.processes {
        processes(order)
    } else if taken.memory_bytes > limits.memory_bytes {
        format!("more than {} MiB of memory", limits.memory_bytes >> 20)
    } else {
        return None;
    };
    Some(Report::Exceeded(what))
}

/// Starts the process that becomes bash, and waits until it has; returns its id.
fn start(order: &Order, cage: Option<&Cage>) -> Result<i32, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    let child = Command::new("/proc/self/exe")
        .args([HELPER, confine::STAGE])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = Line(BufReader::new(ours));
    // It waits for its order, and has started nothing yet.
    if let Some(cage) = cage {
        cage.admit(child.id())?;
    }
    line.send(order)?;
    let mut refusal = String::new();
    let mut bounded = (&mut line.0).take(MAX_LINE);
    bounded
        .read_to_string(&mut refusal)
        .map_err(|error| error.to_string())?;
    if !refusal.is_empty() {
        return Err(serde_json::from_str(&refusal).unwrap_or(refusal));
    }
    i32::try_from(child.id()).map_err(|error| error.to_string())
}
