//! S3 servers of other people, started for one test: SeaweedFS, and moto, which fails differently.
//!
//! Their programs are in `.tools/s3` (`scripts/setup s3` puts them there). Without them [`S3Server::start`] gives
//! nothing, and the test says that it was skipped.

use crate::ports::free_port;
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What the servers know us as.
pub const ACCESS_KEY_ID: &str = "reelyard-test";
pub const SECRET_ACCESS_KEY: &str = "reelyard-test-secret";
/// There from the start.
pub const BUCKET: &str = "media";
/// Both are up within two seconds; a busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SeaweedFs,
    Moto,
}

/// A running server. Dropped, it is ended, and its directory removed.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl S3Server {
    /// `None`: the programs are not installed; that was said on standard error.
    pub fn start(kind: Kind) -> Option<Self> {
        let program = program(kind);
        if !program.exists() {
            eprintln!("SKIPPED: no {} (scripts/setup s3 installs it)", program.display());
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ports = PORTS.map(|_| free_port());
        let mut command = match kind {
            Kind::SeaweedFs => seaweedfs(&program, directory.path(), &ports),
            Kind::Moto => moto(&program, ports[0]),
        };
        let log = File::create(directory.path().join("log")).expect("the log can be made");
        let child = command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let mut server = Self { child, port: ports[0], _directory: directory };
        server.wait(kind, &ports);
        Some(server)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the server is told with `--store`; `endpoint` is this server's own or that of a proxy before it.
    pub fn url(endpoint: &str, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={endpoint}&path_style=true")
    }

    /// Until the bucket is there. SeaweedFS makes it after its S3 gateway has begun to answer; its filer tells when.
    fn wait(&mut self, kind: Kind, ports: &[u16]) {
        let begin = Instant::now();
        loop {
            let answer = match kind {
                Kind::SeaweedFs => status(ports[FILER_PORT], "GET", &format!("/buckets/{BUCKET}/")),
                Kind::Moto => status(self.port, "PUT", &format!("/{BUCKET}")),
            };
            if answer == Some(200) {
                return;
            }
            let ended = self.child.try_wait().expect("a child can be asked");
            let log = || fs::read_to_string(self._directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "{kind:?} ended: {ended:?}\n{}", log());
            assert!(begin.elapsed() < PATIENCE, "{kind:?} does not answer\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(kind: Kind) -> PathBuf {
    let name = match kind {
        Kind::SeaweedFs => "weed",
        Kind::Moto => "moto_server",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/s3/bin").join(name)
}

/// SeaweedFS wants so many, and would choose others itself, by arithmetic.
const PORTS: [&str; 10] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
];
const FILER_PORT: usize = 6;

fn seaweedfs(program: &Path, directory: &Path, ports: &[u16]) -> Command {
    let mut command = Command::new(program);
    command.arg("mini").arg(format!("-dir={}", directory.display()));
    command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"]);
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]);
    command.arg(format!("-bucket={BUCKET}"));
    for part in ["s3", "filer"] {
        command.arg(format!("-{part}.localSocket={}", directory.join(format!("{part}.sock")).display()));
    }
    for (name, port) in PORTS.iter().zip(ports) {
        command.arg(format!("-{name}={port}"));
    }
    command.current_dir(directory);
    command
}

fn moto(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    command
}

/// The status of an answer; `None` when there is none.
fn status(port: u16, method: &str, path: &str) -> Option<u16> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).ok()?;
    let mut line = [0; 12];
    socket.read_exact(&mut line).ok()?;
    std::str::from_utf8(&line[9..]).ok()?.parse().ok()
}
