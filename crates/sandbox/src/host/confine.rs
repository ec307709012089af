//! The process that becomes bash: it gives up what bash must not have, and nothing can give it back.

use std::{
    convert::Infallible,
    os::{fd::RawFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::{
    process::{
        Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid, umask,
    },
    thread::{CapabilitySet, CapabilitySets},
};

use super::{descendants, message::Order, supervisor, syscalls, view};

/// How this stage is called.
pub(super) const STAGE: &str = "confine";
/// Signals are scoped since this one; with an older kernel a process could end Bowline.
const NEEDED: ABI = ABI::V6;
/// What programs are made of; read and run, never written.
const PROGRAMS: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
];
/// What programs look up; no keys, no accounts' passwords, nothing of other processes.
const LOOKED_UP: [&str; 31] = [
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/bash_completion.d",
    "/etc/ca-certificates",
    "/etc/debian_version",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/java",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki",
    "/etc/profile",
    "/etc/shells",
    "/etc/ssl/certs",
    "/etc/terminfo",
    "/etc/timezone",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];
/// Where bash is; programs are not looked for along a path that somebody else may have set.
const SHELLS: [&str; 4] = [
    "/bin/bash",
    "/usr/bin/bash",
    "/usr/local/bin/bash",
    "/run/current-system/sw/bin/bash",
];
/// Devices without a memory of their own.
const DEVICES: [&str; 5] = [
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// Processes over the limit that the user's own bound lets pass, so that the supervisor sees them and says
/// why it ends the command.
const SLACK: u64 = 16;

/// Whether the kernel can do all that [`run`] asks of it.
pub(super) fn available() -> Result<(), String> {
    if !Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        return Err("the kernel has no seccomp filters".to_owned());
    }
    syscalls::filter()?;
    ruleset()
        .map(drop)
        .map_err(|error| format!("Landlock with scoped signals (ABI 6) is not available: {error}"))
}

/// Reads the order, confines this process and becomes bash. Returns only when that failed, having said why.
pub(super) fn run() -> ExitCode {
    let Ok(mut line) = supervisor::line() else {
        return ExitCode::FAILURE;
    };
    let order = match line.receive::<Order>() {
        Ok(order) => order,
        Err(why) => return line.refuse(&why),
    };
    let Err(why) = enter(&order, line.fd());
    line.refuse(&why)
}

fn enter(order: &Order, keep: RawFd) -> Result<Infallible, String> {
    let said = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    setsid().map_err(said("setsid"))?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(said("death signal"))?;
    bound(order)?;
    close_inherited(keep);
    if !order.unconfined {
        let view = view::read_only(&order.dir, &order.temporary);
        restrict(order).map_err(|error| format!("Landlock: {error}"))?;
        drop_capabilities()?;
        syscalls::apply(view)?;
    }
    Err(become_bash(order))
}

/// Bounds of the process and of each of its descendants.
fn bound(order: &Order) -> Result<(), String> {
    let limits = &order.limits;
    let others = descendants::threads_of(rustix::process::getuid());
    for (resource, most) in [
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Data, limits.memory_bytes),
        (Resource::Nofile, limits.open_files),
        // This one counts all that the user runs, not only what runs in here, so it may be late; the
        // supervisor and the control group are exact. It does not bind root.
        (Resource::Nproc, others + limits.processes + SLACK),
        (Resource::Core, 0),
    ] {
        let hard = rustix::process::getrlimit(resource).maximum;
        let most = hard.map_or(most, |hard| most.min(hard));
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|error| format!("{resource:?}: {error}"))?;
    }
    Ok(())
}

/// Whoever started Bowline may have left files open in it; they must not be open in here.
fn close_inherited(keep: RawFd) {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open {
        if fd > 2 && fd != keep {
            let _ = nix::unistd::close(fd);
        }
    }
}

fn restrict(order: &Order) -> Result<(), String> {
    let text = |error: RulesetError| error.to_string();
    let read = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let all = AccessFs::from_all(NEEDED)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let mut ruleset = ruleset().map_err(text)?;
    for path in PROGRAMS
        .iter()
        .chain(&LOOKED_UP)
        .map(Path::new)
        .chain(order.read.iter().map(PathBuf::as_path))
    {
        ruleset = allow(ruleset, path, read).map_err(text)?;
    }
    for path in DEVICES {
        ruleset = allow(ruleset, Path::new(path), device).map_err(text)?;
    }
    for path in [&order.dir, &order.temporary] {
        let fd = PathFd::new(path).map_err(|error| error.to_string())?;
        let added = ruleset.add_rule(PathBeneath::new(fd, all));
        ruleset = added.map_err(text)?;
    }
    ruleset.restrict_self().map(drop).map_err(text)
}

/// Allows something that need not exist.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(fd) = PathFd::new(path) else {
        return Ok(ruleset);
    };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEEDED)
    };
    ruleset.add_rule(PathBeneath::new(fd, access))
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .handle_access(AccessNet::from_all(NEEDED))?
        .scope(Scope::from_all(NEEDED))?
        .create()
}

/// A root that can do no more than own files.
fn drop_capabilities() -> Result<(), String> {
    let before = rustix::thread::capabilities(None).map_err(|error| error.to_string())?;
    let kept = before.permitted
        & (CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(|error| format!("capabilities: {error}"))
}

/// Returns only when there is no bash.
fn become_bash(order: &Order) -> String {
    let shell = SHELLS.iter().find(|shell| Path::new(shell).exists());
    let Some(shell) = shell else {
        return "there is no bash on this machine".to_owned();
    };
    let error = Command::new(shell)
        .args(["--noprofile", "--norc", "-c", &order.command])
        .env_clear()
        .envs(&order.env)
        .current_dir(&order.dir)
        .stdin(Stdio::null())
        .exec();
    format!("{shell}: {error}")
}
