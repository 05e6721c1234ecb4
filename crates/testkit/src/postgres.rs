//! A PostgreSQL server for one test: databases of its own, and every way in which a database goes away.
//!
//! Its programs come from the system's package (`scripts/setup servers`). Without them [`PostgresServer::start`] gives
//! nothing, and the test says that it was skipped. It starts in about half a second: the files that initdb makes are
//! kept under `.tools/` and copied.

use crate::{ports::free_port, server_process::ServerProcess};
use rustix::process::Signal;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Superuser, without a password.
const USER: &str = "reelyard";
/// Many tests may share a server, each with a pool or two.
const MAX_CONNECTIONS: &str = "200";
/// After a kill it recovers from its log first.
const PATIENCE: Duration = Duration::from_secs(60);
/// No answer that we read here is longer; more means that it is no PostgreSQL.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// A running server. Dropped, it is ended, and its directory removed.
#[derive(Debug)]
pub struct PostgresServer {
    process: ServerProcess,
    programs: PathBuf,
    port: u16,
    fsync: bool,
    databases: AtomicU32,
}

impl PostgresServer {
    /// As durable as by default. `None`: it is not installed; that was said on standard error.
    pub fn start() -> Option<Self> {
        Self::start_with(true)
    }

    /// Quicker, for tests that kill nothing.
    pub fn start_without_fsync() -> Option<Self> {
        Self::start_with(false)
    }

    fn start_with(fsync: bool) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: no PostgreSQL (scripts/setup servers installs it)");
            return None;
        };
        let process = ServerProcess::new("postgres", "postgres");
        let mut server =
            Self { process, programs, port: free_port(), fsync, databases: AtomicU32::default() };
        server.make_files();
        server.launch();
        Some(server)
    }

    /// Of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// A new and empty database; its URL.
    pub fn new_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// One statement on the database `postgres`, for its effect; panics when it fails.
    pub fn execute(&self, statement: &str) {
        execute(self.port, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// As by a power cut, for the server only: what it had given to the kernel to write stays written.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// In an orderly way, without waiting for its clients.
    pub fn stop_fast(&mut self) {
        self.process.stop(Signal::INT);
    }

    /// After [`Self::kill`] or [`Self::stop_fast`]: the same port, the same data.
    pub fn restart(&mut self) {
        self.launch();
    }

    /// It keeps its connections and answers nothing, like a machine that hangs.
    pub fn pause(&self) {
        self.process.pause();
    }

    pub fn resume(&self) {
        self.process.resume();
    }

    /// What the server wrote for its administrator.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.process.directory.join("data")
    }

    /// A copy of what initdb made the first time on this machine, or that first time itself.
    fn make_files(&self) {
        let made_before = self.made_before();
        if made_before.is_dir() {
            copy_tree(&made_before, &self.data()).expect("a directory can be copied");
            return;
        }
        let mut initdb = self.process.command(&self.programs.join("initdb"));
        initdb.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--username", USER, "--pgdata"]);
        let answer = initdb.arg(self.data()).output().expect("initdb runs");
        assert!(answer.status.success(), "initdb failed: {}", String::from_utf8_lossy(&answer.stderr));
        // Kept for the next time; by rename, for others may be doing the same. Without it only time is lost.
        let staging = made_before.with_extension(format!("staging-{}-{}", std::process::id(), self.port));
        let kept = copy_tree(&self.data(), &staging).and_then(|()| fs::rename(&staging, &made_before));
        if kept.is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
    }

    /// For this version and this user: the server takes only files of its own user.
    fn made_before(&self) -> PathBuf {
        let version = Command::new(self.programs.join("postgres")).arg("--version").output();
        let version: String = String::from_utf8_lossy(&version.expect("postgres runs").stdout)
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        let user = rustix::process::geteuid().as_raw();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/postgres-files");
        let _ = fs::create_dir_all(&tools);
        tools.join(format!("{}-{user}", version.trim_matches('-')))
    }

    fn launch(&mut self) {
        let mut command = self.process.command(&self.programs.join("postgres"));
        command.arg("-D").arg(self.data());
        let fsync = format!("fsync={}", if self.fsync { "on" } else { "off" });
        let settings = [
            "listen_addresses=127.0.0.1",
            &format!("port={}", self.port),
            "unix_socket_directories=",
            &format!("max_connections={MAX_CONNECTIONS}"),
            &fsync,
            // In files of its directory: what lies in /dev/shm would outlive a kill.
            "dynamic_shared_memory_type=mmap",
            "shared_buffers=64MB",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        self.process.spawn(command);
        let port = self.port;
        self.process.wait_until(PATIENCE, || execute(port, "SELECT 1").is_ok());
        let pid = self.process.pid().as_raw_nonzero();
        self.process.tell_guard(&format!("{pid} {}", self.segment().unwrap_or_default()));
    }

    /// The System V shared memory segment by which the server knows whether another one runs on its files.
    fn segment(&self) -> Option<String> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Some(text.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let segment = self.segment();
        self.process.kill();
        if let Some(segment) = segment {
            let _ = Command::new("ipcrm").args(["-m", &segment]).stderr(Stdio::null()).status();
        }
    }
}

/// On Debian and Ubuntu outside the path, in a directory for each version; the newest one.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("postgres").exists())
        .max();
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).find(|place| place.join("postgres").exists()));
    newest.map(|(_, programs)| programs).or(on_path)
}

/// With owners and modes.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("cp failed")) }
}

/// One statement by the simple query protocol (PostgreSQL manual, "Frontend/Backend Protocol"), enough for tests.
fn execute(port: u16, statement: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut hello = 0x0003_0000_u32.to_be_bytes().to_vec();
    hello.extend(format!("user\0{USER}\0database\0postgres\0\0").bytes());
    send(&mut socket, &[], &hello)?;
    read_until_ready(&mut socket)?;
    send(&mut socket, b"Q", format!("{statement}\0").as_bytes())?;
    read_until_ready(&mut socket)?;
    send(&mut socket, b"X", &[])
}

fn send(socket: &mut TcpStream, kind: &[u8], body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    socket.write_all(&[kind, &length.to_be_bytes(), body].concat())
}

/// To `ReadyForQuery`; an `ErrorResponse` before it is an error.
fn read_until_ready(socket: &mut TcpStream) -> io::Result<()> {
    let mut failure = None;
    loop {
        let mut head = [0; 5];
        let got = socket.read_exact(&mut head);
        if let (Err(_), Some(failure)) = (&got, &failure) {
            return Err(io::Error::other(String::clone(failure)));
        }
        got?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
            return Err(io::Error::other("this is no PostgreSQL"));
        }
        let mut body = vec![0; length - 4];
        socket.read_exact(&mut body)?;
        match head[0] {
            b'Z' => return failure.map_or(Ok(()), |failure| Err(io::Error::other(failure))),
            b'E' => failure = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
            _ => {}
        }
    }
}
