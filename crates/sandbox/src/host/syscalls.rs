//! The system calls that a confined process may make. What is not named does not exist for it.
//!
//! Landlock guards files and signals. This guards what Landlock does not: the network and the sockets of
//! other programs, other processes, memory that outlives a process, mounts, the kernel's newest doors.

use std::collections::BTreeMap;

use libc::{self as sys, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Files, memory, time, threads and signals of the process itself.
const ALLOWED: &[c_long] = &[
    // Files. Where they may be is Landlock's.
    sys::SYS_close,
    sys::SYS_close_range,
    sys::SYS_copy_file_range,
    sys::SYS_dup,
    sys::SYS_dup3,
    sys::SYS_faccessat,
    sys::SYS_faccessat2,
    sys::SYS_fadvise64,
    sys::SYS_fallocate,
    sys::SYS_fchdir,
    sys::SYS_chdir,
    sys::SYS_fcntl,
    sys::SYS_fdatasync,
    sys::SYS_fgetxattr,
    sys::SYS_flistxattr,
    sys::SYS_flock,
    sys::SYS_fstat,
    sys::SYS_fstatfs,
    sys::SYS_fsync,
    sys::SYS_ftruncate,
    sys::SYS_getcwd,
    sys::SYS_getdents64,
    sys::SYS_getxattr,
    sys::SYS_lgetxattr,
    sys::SYS_linkat,
    sys::SYS_listxattr,
    sys::SYS_llistxattr,
    sys::SYS_lseek,
    sys::SYS_mkdirat,
    sys::SYS_mknodat,
    sys::SYS_newfstatat,
    sys::SYS_openat,
    sys::SYS_openat2,
    sys::SYS_pipe2,
    sys::SYS_pread64,
    sys::SYS_preadv,
    sys::SYS_preadv2,
    sys::SYS_pwrite64,
    sys::SYS_pwritev,
    sys::SYS_pwritev2,
    sys::SYS_read,
    sys::SYS_readahead,
    sys::SYS_readlinkat,
    sys::SYS_readv,
    sys::SYS_renameat,
    sys::SYS_renameat2,
    sys::SYS_sendfile,
    sys::SYS_splice,
    sys::SYS_statfs,
    sys::SYS_statx,
    sys::SYS_symlinkat,
    sys::SYS_sync,
    sys::SYS_sync_file_range,
    sys::SYS_syncfs,
    sys::SYS_tee,
    sys::SYS_truncate,
    sys::SYS_umask,
    sys::SYS_unlinkat,
    sys::SYS_vmsplice,
    sys::SYS_write,
    sys::SYS_writev,
    // Waiting for them.
    sys::SYS_epoll_create1,
    sys::SYS_epoll_ctl,
    sys::SYS_epoll_pwait,
    sys::SYS_epoll_pwait2,
    sys::SYS_eventfd2,
    sys::SYS_ppoll,
    sys::SYS_pselect6,
    sys::SYS_signalfd4,
    sys::SYS_timerfd_create,
    sys::SYS_timerfd_gettime,
    sys::SYS_timerfd_settime,
    // Memory.
    sys::SYS_brk,
    sys::SYS_madvise,
    sys::SYS_membarrier,
    sys::SYS_memfd_create,
    sys::SYS_mincore,
    sys::SYS_mlock,
    sys::SYS_mlock2,
    sys::SYS_mlockall,
    sys::SYS_mmap,
    sys::SYS_mprotect,
    sys::SYS_mremap,
    sys::SYS_msync,
    sys::SYS_munlock,
    sys::SYS_munlockall,
    sys::SYS_munmap,
    sys::SYS_pkey_alloc,
    sys::SYS_pkey_free,
    sys::SYS_pkey_mprotect,
    // Time, seen and waited for, never set.
    sys::SYS_clock_getres,
    sys::SYS_clock_gettime,
    sys::SYS_clock_nanosleep,
    sys::SYS_getitimer,
    sys::SYS_gettimeofday,
    sys::SYS_nanosleep,
    sys::SYS_setitimer,
    sys::SYS_timer_create,
    sys::SYS_timer_delete,
    sys::SYS_timer_getoverrun,
    sys::SYS_timer_gettime,
    sys::SYS_timer_settime,
    // Processes. Whom a signal may reach is Landlock's.
    sys::SYS_execve,
    sys::SYS_execveat,
    sys::SYS_exit,
    sys::SYS_exit_group,
    sys::SYS_futex,
    sys::SYS_get_robust_list,
    sys::SYS_getcpu,
    sys::SYS_getegid,
    sys::SYS_geteuid,
    sys::SYS_getgid,
    sys::SYS_getgroups,
    sys::SYS_getpgid,
    sys::SYS_getpid,
    sys::SYS_getppid,
    sys::SYS_getpriority,
    sys::SYS_getrandom,
    sys::SYS_getresgid,
    sys::SYS_getresuid,
    sys::SYS_getrlimit,
    sys::SYS_getrusage,
    sys::SYS_getsid,
    sys::SYS_gettid,
    sys::SYS_getuid,
    sys::SYS_kill,
    sys::SYS_landlock_add_rule,
    sys::SYS_landlock_create_ruleset,
    sys::SYS_landlock_restrict_self,
    sys::SYS_pidfd_open,
    sys::SYS_pidfd_send_signal,
    sys::SYS_prctl,
    sys::SYS_restart_syscall,
    sys::SYS_rseq,
    sys::SYS_rt_sigaction,
    sys::SYS_rt_sigpending,
    sys::SYS_rt_sigprocmask,
    sys::SYS_rt_sigqueueinfo,
    sys::SYS_rt_sigreturn,
    sys::SYS_rt_sigsuspend,
    sys::SYS_rt_sigtimedwait,
    sys::SYS_rt_tgsigqueueinfo,
    sys::SYS_sched_get_priority_max,
    sys::SYS_sched_get_priority_min,
    sys::SYS_sched_getaffinity,
    sys::SYS_sched_getattr,
    sys::SYS_sched_getparam,
    sys::SYS_sched_getscheduler,
    sys::SYS_sched_rr_get_interval,
    sys::SYS_sched_yield,
    sys::SYS_seccomp,
    sys::SYS_set_robust_list,
    sys::SYS_set_tid_address,
    sys::SYS_setgid,
    sys::SYS_setgroups,
    sys::SYS_setpgid,
    sys::SYS_setregid,
    sys::SYS_setresgid,
    sys::SYS_setresuid,
    sys::SYS_setreuid,
    sys::SYS_setrlimit,
    sys::SYS_setsid,
    sys::SYS_setuid,
    sys::SYS_setfsuid,
    sys::SYS_setfsgid,
    sys::SYS_capget,
    sys::SYS_capset,
    sys::SYS_sigaltstack,
    sys::SYS_sysinfo,
    sys::SYS_tgkill,
    sys::SYS_times,
    sys::SYS_tkill,
    sys::SYS_uname,
    sys::SYS_wait4,
    sys::SYS_waitid,
    // What works on the ends of a socket pair; there are no other sockets.
    sys::SYS_getpeername,
    sys::SYS_getsockname,
    sys::SYS_getsockopt,
    sys::SYS_recvfrom,
    sys::SYS_recvmmsg,
    sys::SYS_recvmsg,
    sys::SYS_sendmmsg,
    sys::SYS_sendmsg,
    sys::SYS_sendto,
    sys::SYS_setsockopt,
    sys::SYS_shutdown,
];

/// The same by their older names.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    sys::SYS_access,
    sys::SYS_alarm,
    sys::SYS_arch_prctl,
    sys::SYS_creat,
    sys::SYS_dup2,
    sys::SYS_epoll_create,
    sys::SYS_epoll_wait,
    sys::SYS_eventfd,
    sys::SYS_fork,
    sys::SYS_getdents,
    sys::SYS_getpgrp,
    sys::SYS_link,
    sys::SYS_lstat,
    sys::SYS_mkdir,
    sys::SYS_mknod,
    sys::SYS_open,
    sys::SYS_pause,
    sys::SYS_pipe,
    sys::SYS_poll,
    sys::SYS_readlink,
    sys::SYS_rename,
    sys::SYS_rmdir,
    sys::SYS_select,
    sys::SYS_signalfd,
    sys::SYS_stat,
    sys::SYS_symlink,
    sys::SYS_time,
    sys::SYS_unlink,
    sys::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Modes, owners, times and attributes: not guarded by Landlock, so only where a view guards them.
const MARKS: &[c_long] = &[
    sys::SYS_fchmod,
    sys::SYS_fchmodat,
    sys::SYS_fchown,
    sys::SYS_fchownat,
    sys::SYS_fremovexattr,
    sys::SYS_fsetxattr,
    sys::SYS_lremovexattr,
    sys::SYS_lsetxattr,
    sys::SYS_removexattr,
    sys::SYS_setxattr,
    sys::SYS_utimensat,
];
#[cfg(target_arch = "x86_64")]
const OLDER_MARKS: &[c_long] = &[
    sys::SYS_chmod,
    sys::SYS_chown,
    sys::SYS_futimesat,
    sys::SYS_lchown,
    sys::SYS_utime,
    sys::SYS_utimes,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_MARKS: &[c_long] = &[];

/// What is answered with "permission denied", which programs understand better than that it is not there.
const DENIED: &[c_long] = &[
    sys::SYS_accept,
    sys::SYS_accept4,
    sys::SYS_bind,
    sys::SYS_connect,
    sys::SYS_listen,
    sys::SYS_socket,
    sys::SYS_ptrace,
    sys::SYS_process_vm_readv,
    sys::SYS_process_vm_writev,
    sys::SYS_mount,
    sys::SYS_umount2,
    sys::SYS_pivot_root,
    sys::SYS_chroot,
    sys::SYS_unshare,
    sys::SYS_setns,
    sys::SYS_bpf,
    sys::SYS_perf_event_open,
    sys::SYS_reboot,
];

/// Every flag of `clone` that makes a namespace.
const NAMESPACES: u64 = (sys::CLONE_NEWNS
    | sys::CLONE_NEWCGROUP
    | sys::CLONE_NEWUTS
    | sys::CLONE_NEWIPC
    | sys::CLONE_NEWUSER
    | sys::CLONE_NEWPID
    | sys::CLONE_NEWNET) as u32 as u64;

/// Confines this thread. With a view that guards them, modes, owners and times may be changed.
pub(super) fn apply(view: bool) -> Result<(), String> {
    let (mut allowed, denied) = filters()?;
    let marks = MARKS.iter().chain(OLDER_MARKS);
    for call in marks {
        if view {
            allowed.insert(*call, Vec::new());
        }
    }
    install(
        allowed,
        SeccompAction::Errno(sys::ENOSYS as u32),
        SeccompAction::Allow,
    )?;
    let mut refused: BTreeMap<_, _> = denied;
    if !view {
        refused.extend(
            MARKS
                .iter()
                .chain(OLDER_MARKS)
                .map(|call| (*call, Vec::new())),
        );
    }
    install(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(sys::EACCES as u32),
    )
}

/// Whether the filters can be made for this machine.
pub(super) fn filter() -> Result<(), String> {
    let (allowed, _) = filters()?;
    compile(
        allowed,
        SeccompAction::Errno(sys::ENOSYS as u32),
        SeccompAction::Allow,
    )
    .map(drop)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn filters() -> Result<(Rules, Rules), String> {
    let mut allowed: Rules = ALLOWED
        .iter()
        .chain(OLDER)
        .map(|call| (*call, Vec::new()))
        .collect();
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut when = |call: c_long, conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]| {
        let conditions = conditions.iter().cloned();
        let conditions = conditions
            .map(|(at, length, operator, value)| SeccompCondition::new(at, length, operator, value))
            .collect::<Result<Vec<_>, _>>();
        let rule = conditions
            .and_then(SeccompRule::new)
            .map_err(|error| error.to_string())?;
        allowed.entry(call).or_default().push(rule);
        Ok::<(), String>(())
    };
    when(sys::SYS_clone, &[(0, Qword, MaskedEq(NAMESPACES), 0)])?;
    when(sys::SYS_socketpair, &[(0, Dword, Eq, sys::AF_UNIX as u64)])?;
    // Keys typed into a terminal of somebody else.
    let terminal = [(1, Dword, Ne, sys::TIOCSTI), (1, Dword, Ne, sys::TIOCLINUX)];
    when(sys::SYS_ioctl, &terminal)?;
    // Of itself, or only looked at: another process of the same user is not its business.
    when(sys::SYS_prlimit64, &[(0, Dword, Eq, 0)])?;
    when(sys::SYS_prlimit64, &[(2, Qword, Eq, 0)])?;
    when(
        sys::SYS_setpriority,
        &[(0, Dword, Eq, 0), (1, Dword, Eq, 0)],
    )?;
    when(sys::SYS_sched_setaffinity, &[(0, Dword, Eq, 0)])?;
    when(sys::SYS_sched_setscheduler, &[(0, Dword, Eq, 0)])?;
    for personality in [0, u64::from(u32::MAX), sys::ADDR_NO_RANDOMIZE as u64] {
        when(sys::SYS_personality, &[(0, Dword, Eq, personality)])?;
    }
    let denied = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    Ok((allowed, denied))
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, String> {
    let text = |error: seccompiler::BackendError| error.to_string();
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(text)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, machine).map_err(text)?;
    BpfProgram::try_from(filter).map_err(text)
}

fn install(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<(), String> {
    let program = compile(rules, otherwise, matched)?;
    apply_filter(&program).map_err(|error| format!("seccomp: {error}"))
}
