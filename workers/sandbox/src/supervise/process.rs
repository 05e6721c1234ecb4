//! The process itself: started with nothing that it does not need, waited for by pidfd, killed as a group.
//!
//! Children are started from one thread that lives as long as the program: the kernel sends the parent-death signal
//! (PR_SET_PDEATHSIG) when the *thread* that forked ends, and threads of an asynchronous runtime come and go.

use super::verdict::{Exit, Usage};
use reelyard_model::child::SOURCE_DESCRIPTOR;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::unix::pipe,
    sync::oneshot,
};

/// All the environment that a child gets of ours: where FFmpeg's and the driver's libraries are, and which cards.
pub const PASSED_ENVIRONMENT: &[&str] =
    &["LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"];
/// Uploads and playback on the same machine go first.
const NICENESS: libc::c_int = 10;
/// When memory runs out the kernel shall take the child (0 to 1000, the server has 0).
const OOM_SCORE: &[u8] = b"500";

#[derive(Debug)]
pub struct ChildStart {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub source: Option<OwnedFd>,
    pub scratch: PathBuf,
}

/// A started child and our ends of its three pipes.
pub(super) struct Started {
    pub(super) process: ChildProcess,
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

pub(super) async fn start(child: ChildStart) -> io::Result<Started> {
    let (reply, answer) = oneshot::channel();
    let spawner_gone = || io::Error::other("the thread that starts children is gone");
    spawner()?.send((child, reply)).map_err(|_| spawner_gone())?;
    let mut child = answer.await.map_err(|_| spawner_gone())??;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(spawner_gone)?;
    // From here on dropping `process` kills the child, whatever fails below.
    let mut process = ChildProcess { pid, exited: None, reaped: false };
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    // SAFETY: the AsyncFd owns the descriptor and never gives it out, so it stays open as long as it is registered.
    process.exited = Some(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? });
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("the child has no pipes"));
    };
    Ok(Started {
        process,
        stdin: pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?,
        stdout: pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?,
        stderr: pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?,
    })
}

type SpawnRequest = (ChildStart, oneshot::Sender<io::Result<std::process::Child>>);

fn spawner() -> io::Result<&'static mpsc::Sender<SpawnRequest>> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnRequest>> = OnceLock::new();
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, requests) = mpsc::channel::<SpawnRequest>();
    std::thread::Builder::new().name("child-spawner".to_owned()).spawn(move || {
        for (child, reply) in requests {
            // Would this thread end, all children would end with it, and none could be started any more.
            let spawned = catch_unwind(AssertUnwindSafe(|| spawn(child)))
                .unwrap_or_else(|_| Err(io::Error::other("starting the child panicked")));
            if let Err(Ok(mut unwanted)) = reply.send(spawned) {
                // Whoever asked has gone away in the meantime.
                let _ = unwanted.kill();
                let _ = unwanted.wait();
            }
        }
    })?;
    // When two callers race here, the loser's thread ends with its sender.
    Ok(SPAWNER.get_or_init(|| sender))
}

fn spawn(child: ChildStart) -> io::Result<std::process::Child> {
    // Holds number 3 in this process while the child is made, so that none of the pipes made for it gets that number
    // and is overwritten in the child. Close-on-exec.
    let _number_three = File::open("/dev/null").and_then(|null| duplicate_from(&null, SOURCE_DESCRIPTOR))?;
    let source = child.source.as_ref().map(AsRawFd::as_raw_fd);
    let our_pid = std::process::id() as libc::pid_t;
    let mut command = Command::new(&child.program);
    command
        .args(&child.arguments)
        .current_dir(&child.scratch)
        .env_clear()
        .env("LANG", "C.UTF-8")
        // Drivers keep caches below HOME; the scratch directory is all there is.
        .env("HOME", &child.scratch)
        .envs(PASSED_ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec only async-signal-safe system calls are made: no allocation, no locks. All that
    // the closure uses are integers.
    unsafe { command.pre_exec(move || prepare(source, our_pid)) };
    command.spawn()
}

/// A copy of a descriptor, at the lowest free number from `lowest` on.
fn duplicate_from(file: &File, lowest: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl makes a new descriptor that nobody else owns.
    unsafe {
        let copy = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest);
        if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(copy)) }
    }
}

/// Runs in the child between fork and exec.
fn prepare(source: Option<i32>, parent: libc::pid_t) -> io::Result<()> {
    let checked =
        |outcome: libc::c_int| if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) };
    // SAFETY: plain system calls with integers and static strings, all async-signal-safe.
    unsafe {
        // A session, and with it a process group, of its own: killed as one, and away from the terminal's signals.
        checked(libc::setsid())?;
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid() != parent {
            // The parent died before the line above: nobody would ever end this process.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        checked(libc::setrlimit(libc::RLIMIT_CORE, &raw const core))?;
        // Comforts, not walls: failing is no reason not to start.
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, OOM_SCORE.as_ptr().cast(), OOM_SCORE.len());
            libc::close(score);
        }
        match source {
            // dup2 onto itself would leave it close-on-exec.
            Some(SOURCE_DESCRIPTOR) => checked(libc::fcntl(SOURCE_DESCRIPTOR, libc::F_SETFD, 0))?,
            Some(source) => checked(libc::dup2(source, SOURCE_DESCRIPTOR))?,
            None => 0,
        };
        // All of ours are close-on-exec already; what a library opened carelessly is now too. Not closed here: the
        // standard library reports a failed exec through one of them.
        let first = SOURCE_DESCRIPTOR as libc::c_uint + 1;
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    Ok(())
}

/// Owns a child until it is reaped. Until then its number cannot be given to another process, so the group can be
/// killed by number without hitting a stranger.
pub(super) struct ChildProcess {
    pid: Pid,
    /// A pidfd: readable once the process has ended. `None` only while starting.
    exited: Option<AsyncFd<OwnedFd>>,
    reaped: bool,
}

impl ChildProcess {
    pub(super) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// SIGKILL to the child and everything in its group.
    pub(super) fn kill_group(&self) {
        if !self.reaped {
            // It has its own group from before exec on. Gone already is as good as killed.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Waits for the end, kills what is left of the group, and reaps. Safe to drop and call again.
    pub(super) async fn ended(&mut self) -> io::Result<(Exit, Usage)> {
        if let Some(exited) = &self.exited {
            let _ready = exited.readable().await?;
        }
        self.kill_group();
        let mut status = 0;
        // SAFETY: an all-zero rusage is a valid value, and both pointers outlive the call.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: as above; the process has ended and was not reaped, so this returns at once.
        let reaped = unsafe { libc::wait4(self.id(), &raw mut status, 0, &raw mut usage) };
        if reaped < 0 {
            return Err(io::Error::last_os_error());
        }
        self.reaped = true;
        let exit = if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        };
        Ok((exit, usage_of(&usage)))
    }

    /// Memory in use now, where `/proc` tells.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.id())).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        // SAFETY: sysconf only looks a number up.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Some(pages.saturating_mul(u64::try_from(page_bytes).ok()?))
    }
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.max(0) as u64) + Duration::from_micros(time.tv_usec.max(0) as u64)
    };
    Usage {
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        // In KiB on Linux.
        peak_resident_bytes: (usage.ru_maxrss.max(0) as u64).saturating_mul(1024),
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill_group();
        let pid = self.id();
        // Reaping can take a moment (the kernel frees gigabytes), so not on a thread of the runtime. Should there be
        // no thread to be had, a zombie stays until this program ends.
        let _ = std::thread::Builder::new().name("child-reaper".to_owned()).spawn(move || {
            // SAFETY: the pointer may be null; the pid is our unreaped child.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }
        });
    }
}
