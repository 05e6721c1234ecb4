//! seccomp: the system calls that are left to the child. Decoding, scaling and encoding need memory, threads, clocks
//! and plain files; all else answers ENOSYS, "there is no such call", which the C library knows how to live with.
//!
//! A list of what is allowed, not of what is forbidden: the next io_uring is shut out before anybody has heard of it.
//! What is deliberately not on it: sockets, exec, fork (only threads), ptrace, signals to other processes, mounts,
//! namespaces, keys, bpf, perf, userfaultfd, io_uring, links, mode and owner changes. Without a graphics card no
//! memory can be made executable either.

use super::Devices;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allowed with any arguments.
#[rustfmt::skip]
const ALWAYS: &[libc::c_long] = &[
    // Files: Landlock decides which. Descriptors 0 to 3 are open already.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_lseek, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_openat, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_mkdirat,
    libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_ftruncate, libc::SYS_fallocate,
    libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_fadvise64, libc::SYS_flock,
    libc::SYS_copy_file_range, libc::SYS_sendfile, libc::SYS_fcntl, libc::SYS_dup, libc::SYS_dup3,
    libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_eventfd2, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_umask, libc::SYS_fstatfs, libc::SYS_statfs,
    // Memory.
    libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_mincore, libc::SYS_msync,
    libc::SYS_membarrier, libc::SYS_get_mempolicy,
    // Threads of this process, and its end.
    libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq,
    libc::SYS_set_tid_address, libc::SYS_gettid, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam, libc::SYS_sched_getscheduler, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_getpriority, libc::SYS_getcpu, libc::SYS_exit,
    libc::SYS_exit_group, libc::SYS_restart_syscall, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
    // Clocks, and harmless questions.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_times, libc::SYS_getrusage, libc::SYS_sysinfo, libc::SYS_uname,
    libc::SYS_getrandom, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getuid, libc::SYS_geteuid,
    libc::SYS_getgid, libc::SYS_getegid,
];

/// Older names of calls above, which only this processor family has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER_NAMES: &[libc::c_long] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_dup2, libc::SYS_pipe,
    libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait, libc::SYS_time, libc::SYS_arch_prctl,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_NAMES: &[libc::c_long] = &[];

/// What CUDA and NVENC ask for besides: driver calls, generated code, memory near the card, shared buffers.
#[rustfmt::skip]
const WITH_DEVICES: &[libc::c_long] = &[
    libc::SYS_ioctl, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_memfd_create, libc::SYS_mbind,
    libc::SYS_set_mempolicy, libc::SYS_sched_setaffinity, libc::SYS_mlock, libc::SYS_munlock,
];

pub(super) fn restrict(devices: Devices, executable_stacks: bool) -> Result<String, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| format!("no list of system calls for {}", std::env::consts::ARCH))?;
    let rules = rules(devices, executable_stacks).map_err(|error| error.to_string())?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        architecture,
    );
    let program: seccompiler::BpfProgram =
        filter.and_then(TryInto::try_into).map_err(|error: BackendError| error.to_string())?;
    // All threads: should one exist already, against the contract, it is shut in too.
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    Ok(String::new())
}

fn rules(devices: Devices, executable_stacks: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = ALWAYS.iter().chain(OLDER_NAMES).map(|call| (*call, Vec::new())).collect();
    let only = |argument, comparison, value: u64| -> Result<SeccompRule, BackendError> {
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value)?])
    };
    let equals = |argument, value: u64| only(argument, SeccompCmpOp::Eq, value);

    // Threads, not processes. clone3 hides its flags behind a pointer, so it is off the list and the C library
    // falls back to clone.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![only(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    // abort() signals its own process, by id.
    rules.insert(libc::SYS_tgkill, vec![equals(0, u64::from(std::process::id()))?]);
    // Its own limits (0 is "this process"), which it can only lower.
    rules.insert(libc::SYS_prlimit64, vec![equals(0, 0)?]);
    let process_options = [libc::PR_SET_NAME, libc::PR_GET_NAME];
    rules.insert(
        libc::SYS_prctl,
        process_options.iter().map(|option| equals(0, *option as u64)).collect::<Result<_, _>>()?,
    );
    match devices {
        Devices::Nvidia => rules.extend(WITH_DEVICES.iter().map(|call| (*call, Vec::new()))),
        Devices::None => {
            // "Is this a terminal?", "do not block", "close on exec".
            let requests = [libc::TCGETS, libc::FIONBIO, libc::FIOCLEX];
            rules.insert(
                libc::SYS_ioctl,
                requests.iter().map(|request| equals(1, *request)).collect::<Result<_, _>>()?,
            );
            let not_executable = only(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?;
            // A library built for executable stacks makes every thread's stack executable: without it, no threads.
            let memory_rules = if executable_stacks { Vec::new() } else { vec![not_executable] };
            rules.insert(libc::SYS_mmap, memory_rules.clone());
            rules.insert(libc::SYS_mprotect, memory_rules);
        }
    }
    Ok(rules)
}
