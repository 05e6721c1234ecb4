//! A server process for a test: started, killed, started again on the same data.

use super::wire::{Answer, Request, wait_until};
use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) key: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[])
    }

    /// And with these variables in its environment.
    pub(crate) fn start_in(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let address = own_address();
        let child = spawn(program(&variables), &data, address, &arguments);
        let key = std::fs::read_to_string(data.join("admin.key")).unwrap().trim().to_owned();
        Self { child, address, data, key, arguments, variables, _directory: directory }
    }

    /// On a disk of so many bytes, which nobody but the server sees; without keys, as nobody could read them. `None`
    /// where this user may not mount anything.
    pub(crate) fn start_on_small_disk(disk_bytes: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mount = format!("mount -t tmpfs -o size={disk_bytes} tmpfs '{}'", data.display());
        let may = Command::new("unshare").args(["-rm", "sh", "-c", &mount]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) {
            return None;
        }
        let address = own_address();
        let arguments = vec!["--insecure-open".to_owned()];
        let mut command = Command::new("unshare");
        command.args([
            "-rm",
            "sh",
            "-c",
            &format!("{mount} && exec \"$@\""),
            "sh",
            env!("CARGO_BIN_EXE_reelyard"),
        ]);
        let child = spawn(command, &data, address, &arguments);
        let (key, variables) = (String::new(), Vec::new());
        Some(Self { child, address, data, key, arguments, variables, _directory: directory })
    }

    /// `kill -9`: nothing is flushed, nobody is told.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, as an operator stops it; returns when the process has ended.
    pub(crate) fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(program(&self.variables), &self.data, self.address, &self.arguments);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request with the key and the protocol's version.
    pub(crate) fn tus(&self, method: &str, path: &str) -> Request {
        self.bare(method, path)
            .with("Tus-Resumable", "1.0.0")
            .with("Authorization", &format!("Bearer {}", self.key))
    }

    /// A request with nothing added.
    pub(crate) fn bare(&self, method: &str, path: &str) -> Request {
        Request::new(self.address, method, path)
    }

    /// A new upload; its path.
    pub(crate) fn create(&self, length: usize) -> String {
        let answer = self.tus("POST", "/uploads").with("Upload-Length", &length.to_string()).send(b"");
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }

    pub(crate) fn patch(&self, upload: &str, offset: usize, body: &[u8]) -> Answer {
        self.patch_request(upload, offset).send(body)
    }

    pub(crate) fn patch_request(&self, upload: &str, offset: usize) -> Request {
        self.tus("PATCH", upload)
            .with("Upload-Offset", &offset.to_string())
            .with("Content-Type", "application/offset+octet-stream")
    }

    pub(crate) fn offset(&self, upload: &str) -> usize {
        let answer = self.tus("HEAD", upload).send(b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.number("upload-offset")
    }

    /// Where the bytes of an unfinished upload lie. What shows there has arrived; a request would stop whoever sends.
    pub(crate) fn file_of(&self, upload: &str) -> PathBuf {
        self.data.join(upload.trim_start_matches('/'))
    }

    pub(crate) fn wait_until_file_has(&self, upload: &str, byte_len: usize) {
        let file = self.file_of(upload);
        wait_until(&format!("{byte_len} bytes are in the file"), || {
            std::fs::metadata(&file).unwrap().len() >= byte_len as u64
        });
    }

    /// Until so many bodies are being received. A request that was sent is not one that the server has begun with, and
    /// one that it begins with late takes over from those that came after it.
    pub(crate) fn wait_until_receiving(&self, bodies: usize) {
        let wanted = format!("reelyard_upload_transfers {bodies}");
        wait_until(&format!("{bodies} bodies are being received"), || {
            let metrics = self.tus("GET", "/metrics").send(b"").body;
            String::from_utf8(metrics).unwrap().lines().any(|line| line == wanted)
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ours until this process ends, so that a restart has the same.
fn own_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, reelyard_testkit::free_port()))
}

fn program(variables: &[(String, String)]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_reelyard"));
    program.envs(variables.iter().map(|(name, value)| (name, value)));
    program
}

/// Returns when the server answers.
fn spawn(mut program: Command, data: &Path, address: SocketAddr, arguments: &[String]) -> Child {
    let mut child = program
        .arg("serve")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen", &address.to_string()])
        // Uploads only: the media program may not be built when this test runs.
        .args(["--workers", "0", "--media-program", "/bin/true"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(if std::env::var_os("SERVER_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let greeting = lines.find_map(|line| line.ok().filter(|line| line.starts_with("Reelyard serves at")));
    assert!(greeting.is_some(), "the server ended before it said where it listens");
    // The rest of its output goes nowhere, but the pipe stays open.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
