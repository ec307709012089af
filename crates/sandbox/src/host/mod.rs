//! A directory of the machine, with the same tools as a workspace, and real processes.
//!
//! - [`HostDir`]: its files. No path leads out of it: not by `..`, not by a link, not by a race.
//! - [`HostShell`]: bash as a real process, with all its descendants in a cage: they may write below the
//!   directory only, read what programs need, reach no network and signal nobody outside.
//! - [`helper`]: what a program that runs host shells has to call first in its `main`.
//!
//! Nothing that happens here is undone by a crash: a call is an effect outside of Bowline.

mod error;
mod files;
mod limits;
mod message;
mod shell;
mod walk;

#[cfg(target_os = "linux")]
mod cage;
#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod descendants;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod view;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
pub use cage::ControlGroups;
pub use error::HostError;
pub use files::HostDir;
pub use limits::HostLimits;
pub use shell::{HostCommand, HostOutcome, HostShell};

/// The first argument of a process that is a helper. People do not type it.
pub const HELPER: &str = "sandbox-helper";

/// Does the work of a helper when the process was started as one, and returns its exit code. To be called
/// first in `main`, before there is a thread: a process confines itself before it becomes bash.
pub fn helper() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != HELPER {
        return None;
    }
    let stage = args.next().unwrap_or_default();
    Some(stage_of(stage.to_str().unwrap_or_default()))
}

#[cfg(target_os = "linux")]
fn stage_of(stage: &str) -> ExitCode {
    match stage {
        supervisor::STAGE => supervisor::run(),
        confine::STAGE => confine::run(),
        _ => ExitCode::from(2),
    }
}

#[cfg(not(target_os = "linux"))]
fn stage_of(_: &str) -> ExitCode {
    ExitCode::from(2)
}

/// Whether this machine can confine processes: Linux with Landlock of ABI 6 (6.12) or newer and seccomp;
/// for root also a control group that bounds processes, because nothing else bounds those of root.
///
/// # Errors
///
/// [`HostError::Unconfinable`].
#[cfg(target_os = "linux")]
pub fn confinable() -> Result<(), HostError> {
    confine::available().map_err(HostError::Unconfinable)?;
    if cage::needed() {
        cage::Cage::new(1).map_err(HostError::Unconfinable)?;
    }
    Ok(())
}

/// Whether this machine can confine processes: only Linux can.
///
/// # Errors
///
/// [`HostError::Unconfinable`].
#[cfg(not(target_os = "linux"))]
pub fn confinable() -> Result<(), HostError> {
    Err(HostError::Unconfinable(
        "this system is not Linux".to_owned(),
    ))
}
