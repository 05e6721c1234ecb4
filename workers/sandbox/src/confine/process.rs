//! The layers that are attributes of the process: descriptors, resource limits, privileges, capabilities, and the
//! signal that comes when the parent goes.

use super::Devices;
use reelyard_model::child::{Limits, SOURCE_DESCRIPTOR};
use std::{ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

/// Descriptors a job has open at a time: the source, the pipes, a few files of each of some ten rungs.
const OPEN_FILES: u64 = 128;
/// With a graphics card: the driver opens its nodes once per context and per library.
const OPEN_FILES_WITH_DEVICES: u64 = 1024;
/// Between the soft limit (SIGXCPU, which the supervisor reads as "time limit") and the hard one (SIGKILL).
const CPU_SECONDS_TO_KILL: u64 = 5;

pub(super) fn close_inherited_descriptors() -> Result<String, String> {
    let first = SOURCE_DESCRIPTOR as libc::c_uint + 1;
    // SAFETY: close_range reads two integers and a flag. Nothing in this process owns a descriptor above 3 yet:
    // `confine` is the first thing that the child does.
    if unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } == 0 {
        return Ok(String::new());
    }
    // Linux before 5.9, or a container whose filter is from that time.
    let listed =
        std::fs::read_dir("/proc/self/fd").map_err(|error| format!("they cannot be listed: {error}"))?;
    let open: Vec<i32> =
        listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > SOURCE_DESCRIPTOR) {
        // SAFETY: as above. The listing's own descriptor is closed already; closing it again is an error that nobody
        // minds.
        unsafe { libc::close(descriptor) };
    }
    Ok(String::new())
}

pub(super) fn set_resource_limits(limits: &Limits, devices: Devices) -> Result<String, String> {
    let open_files = if devices == Devices::None { OPEN_FILES } else { OPEN_FILES_WITH_DEVICES };
    set_limit(libc::RLIMIT_CORE, 0, 0)?;
    set_limit(libc::RLIMIT_NOFILE, open_files, open_files)?;
    set_limit(libc::RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes)?;
    set_limit(libc::RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds.saturating_add(CPU_SECONDS_TO_KILL))?;
    if devices == Devices::Nvidia {
        return Ok("(address space unlimited: graphics card)".to_owned());
    }
    set_limit(libc::RLIMIT_AS, limits.address_space_bytes, limits.address_space_bytes)?;
    Ok(String::new())
}

/// Lowers a limit. What is already lower stays: only root could raise it, and nobody asked for more.
fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Result<(), String> {
    let mut present = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `present` is a valid rlimit that outlives the call.
    if unsafe { libc::getrlimit(resource, &mut present) } != 0 {
        return Err(io::Error::last_os_error().to_string());
    }
    let hard = hard.min(present.rlim_max);
    let wanted = libc::rlimit { rlim_cur: soft.min(present.rlim_cur).min(hard), rlim_max: hard };
    // SAFETY: `wanted` is a valid rlimit that outlives the call.
    if unsafe { libc::setrlimit(resource, &wanted) } != 0 {
        return Err(format!("resource {resource}: {}", io::Error::last_os_error()));
    }
    Ok(())
}

/// No set-user-id program can lift the walls again (and, without privileges, seccomp asks for it); no debugger of
/// the same user can attach, and no core dump holds what a stranger uploaded.
pub(super) fn forbid_new_privileges() -> Result<String, String> {
    control(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    control(libc::PR_SET_DUMPABLE, 0)
}

/// The supervisor sets it too; a child started by hand gets it here.
pub(super) fn die_with_parent() -> Result<String, String> {
    control(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

/// Makes the scratch directory all that there is of the file system. Root may do that, and in a user namespace of its
/// own everybody, where the system lets them have one.
pub(super) fn change_root(scratch: &Path) -> Result<String, String> {
    let path = CString::new(scratch.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: both paths are strings that end in zero and outlive the calls; unshare takes an integer, and there is no
    // other thread yet.
    let outcome = unsafe {
        if libc::chroot(path.as_ptr()) != 0 {
            let own_namespace = libc::unshare(libc::CLONE_NEWUSER);
            if own_namespace != 0 || libc::chroot(path.as_ptr()) != 0 {
                return Err(io::Error::last_os_error().to_string());
            }
        }
        libc::chdir(c"/".as_ptr())
    };
    succeeded(outcome.into())
}

/// Root without capabilities is an ordinary user who happens to own root's files; Landlock (or the changed root) keeps
/// it from those.
pub(super) fn drop_capabilities() -> Result<String, String> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits for each set.
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both pointers are to live values of the layout that version 3 asks for; the kernel only reads them.
    succeeded(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })
}

/// Whether the loader gave this process executable stacks, because some library asks for them. Unknown is no.
pub(super) fn has_executable_stack() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines()
        .filter(|line| line.ends_with("[stack]"))
        .any(|line| line.split(' ').nth(1).is_some_and(|permissions| permissions.contains('x')))
}

fn control(option: libc::c_int, value: libc::c_ulong) -> Result<String, String> {
    let unused: libc::c_ulong = 0;
    // SAFETY: these options take integers only.
    succeeded(i64::from(unsafe { libc::prctl(option, value, unused, unused, unused) }))
}

fn succeeded(outcome: libc::c_long) -> Result<String, String> {
    if outcome == 0 { Ok(String::new()) } else { Err(io::Error::last_os_error().to_string()) }
}
