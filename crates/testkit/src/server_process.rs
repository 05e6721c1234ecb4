//! A server of other people under our care: a directory of its own, one process and its children, and a guard.
//!
//! Used by [`crate::PostgresServer`] and [`crate::RabbitServer`]. Both refuse to run as root, so under root they run as
//! the user that their package made. The guard is a shell that reads a pipe whose other end is ours: when the test
//! process ends, however it ends, the guard kills what still runs and removes the directory.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::Write as _,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A killed process is gone within milliseconds, and one that is told to stop stands; a busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a process or a port.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Lines on its input are the process to kill (nothing: none) and, after a space, a System V shared memory segment that
/// the kernel would keep for ever; it outlives a killed server, so it stays known until there is another one. A parent
/// is stopped, and seen to stand, before its children are looked for, so that none slips away.
const GUARD: &str = r#"
stands() {
    read -r line <"/proc/$1/stat" || return 0
    case ${line##*) } in [TtZX]*) return 0 ;; *) return 1 ;; esac
}
end() {
    kill -STOP "$1"
    tries=0
    until stands "$1" || [ "$tries" = 100 ]; do tries=$((tries + 1)); sleep 0.01; done
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" || continue
        rest=${line##*) } rest=${rest#* } child=${stat#/proc/}
        if [ "${rest%% *}" = "$1" ]; then end "${child%/stat}"; fi
    done
    kill -KILL "$1"
}
pid= segment=
while read -r new_pid new_segment; do pid=$new_pid segment=${new_segment:-$segment}; done
if [ -n "$pid" ]; then end "$pid"; fi
if [ -n "$segment" ]; then ipcrm -m "$segment"; fi
tries=0
until rm -rf "$0" || [ "$tries" = 100 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

#[derive(Debug)]
pub(crate) struct ServerProcess {
    /// Removed by the guard.
    pub(crate) directory: PathBuf,
    /// Of the package; `None`: we are nobody special and run it as ourselves.
    user: Option<&'static str>,
    running: Option<Child>,
    guard: Child,
}

impl ServerProcess {
    /// A directory and its guard; nothing runs yet.
    pub(crate) fn new(name: &str, user_of_package: &'static str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("reelyard-{name}-"))
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Not with us when a terminal or a test runner signals our group.
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        let user = rustix::process::geteuid().is_root().then_some(user_of_package);
        let server = Self { directory, user, running: None, guard };
        server.give(&server.directory);
        server
    }

    /// `path` belongs to the user that the server runs as.
    pub(crate) fn give(&self, path: &Path) {
        let Some(user) = self.user else { return };
        let [uid, gid] = ["-u", "-g"].map(|what| {
            let answer = Command::new("id").args([what, user]).output().expect("id runs");
            let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
            text.parse().unwrap_or_else(|_| panic!("there is no user {user}: {answer:?}"))
        });
        chown(path, Some(uid), Some(gid)).expect("root may give a directory away");
    }

    /// A directory inside ours, for the server.
    pub(crate) fn subdirectory(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        self.give(&path);
        path
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, content).expect("a file can be written");
        self.give(&path);
        path
    }

    /// `program` as the server's user, with nothing of our environment but the path.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]).arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8");
        command.env("HOME", &self.directory).current_dir(&self.directory);
        command
    }

    /// Starts the server; its output goes to the log.
    pub(crate) fn spawn(&mut self, mut command: Command) {
        assert!(self.running.is_none(), "the server runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"));
        let log = log.expect("the log can be made");
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        self.tell_guard(&child.id().to_string());
        self.running = Some(child);
    }

    /// See [`GUARD`].
    pub(crate) fn tell_guard(&self, line: &str) {
        let mut pipe = self.guard.stdin.as_ref().expect("the guard has a pipe");
        writeln!(pipe, "{line}").expect("the guard listens");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.running.as_ref().expect("the server runs"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Until `ready`; panics with the log when the server ends or takes longer than `patience`.
    pub(crate) fn wait_until(&mut self, patience: Duration, ready: impl Fn() -> bool) {
        let begin = Instant::now();
        while !ready() {
            let ended =
                self.running.as_mut().expect("the server runs").try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.log());
            assert!(begin.elapsed() < patience, "the server does not answer\n{}", self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// As when the machine loses its power: all processes at once, none hears of it.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let family = stopped_family(Pid::from_child(&child));
        for pid in &family {
            let _ = kill_process(*pid, Signal::KILL);
        }
        let _ = child.wait();
        let begin = Instant::now();
        while family.iter().any(|pid| is_alive(*pid)) {
            assert!(begin.elapsed() < PATIENCE, "processes outlive SIGKILL: {family:?}");
            thread::sleep(LOOK_AGAIN);
        }
        self.tell_guard("");
    }

    /// Asks the server to end by `signal` and waits for it.
    pub(crate) fn stop(&mut self, signal: Signal) {
        let Some(mut child) = self.running.take() else { return };
        kill_process(Pid::from_child(&child), signal).expect("a child can be signalled");
        child.wait().expect("a child can be waited for");
        self.tell_guard("");
    }

    /// It keeps its sockets and answers nothing, like a machine that hangs.
    pub(crate) fn pause(&self) {
        let family = stopped_family(self.pid());
        assert!(family.iter().all(|pid| stands(*pid)), "not all of these stand: {family:?}");
    }

    pub(crate) fn resume(&self) {
        for pid in family(self.pid()).into_iter().rev() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A process and all its descendants, parents first.
fn family(eldest: Pid) -> Vec<Pid> {
    let all: Vec<(Pid, Pid)> = fs::read_dir("/proc")
        .expect("Linux has /proc")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            Some((pid, stat(&entry.path())?.1))
        })
        .collect();
    let mut family = vec![eldest];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// Stopped from the eldest on, until nobody new has appeared.
///
/// Who is told to stop does so when it next runs: one that lost its processor inside fork() still makes its child. So
/// all were seen to stand before the look that finds nobody new: who stands has no more children.
fn stopped_family(eldest: Pid) -> Vec<Pid> {
    let begin = Instant::now();
    let mut known = Vec::new();
    loop {
        let all_stand = known.iter().all(|pid| stands(*pid));
        let found = family(eldest);
        if found == known && (all_stand || begin.elapsed() > PATIENCE) {
            return found;
        }
        for pid in &found {
            let _ = kill_process(*pid, Signal::STOP);
        }
        if found == known {
            thread::sleep(LOOK_AGAIN);
        }
        known = found;
    }
}

/// Stopped in all its threads, or gone.
fn stands(pid: Pid) -> bool {
    let threads = fs::read_dir(about(pid).join("task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| stat(&thread.path())).all(|(state, _)| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// Its directory, which goes with it.
fn about(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

/// State and parent of the process or thread that a directory of /proc is about.
fn stat(about: &Path) -> Option<(char, Pid)> {
    let text = fs::read_to_string(about.join("stat")).ok()?;
    // The name stands in brackets before and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, Pid::from_raw(fields.next()?.parse().ok()?)?))
}

/// A zombie holds neither memory nor sockets.
fn is_alive(pid: Pid) -> bool {
    stat(&about(pid)).is_some_and(|(state, _)| state != 'Z')
}
