//! The servers that are measured: how each is started on loopback and how an upload is begun and continued on it.
//!
//! Each gets a folder of its own and a free port. It is ended by its process number when the [`Server`] is dropped. A
//! peer that is not installed is left out, and the table says so.

use crate::{
    http::{Connection, send_bytes},
    process::Tree,
};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const TUS: (&str, &str) = ("Tus-Resumable", "1.0.0");

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Floor,
    Reelyard,
    Rustus,
    TusNode,
    Nginx,
}

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) reelyard: PathBuf,
    pub(crate) floor: PathBuf,
    pub(crate) rustus: PathBuf,
    pub(crate) nginx: PathBuf,
    pub(crate) tus_node: PathBuf,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Floor, Self::Reelyard, Self::Rustus, Self::TusNode, Self::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Reelyard => "reelyard",
            Self::Rustus => "rustus",
            Self::TusNode => "@tus/server",
            Self::Nginx => "nginx PUT",
        }
    }

    /// Only these can be asked how far an upload is.
    pub(crate) fn resumes(self) -> bool {
        matches!(self, Self::Reelyard | Self::Rustus | Self::TusNode)
    }

    /// The file that must be there for it to be measured.
    pub(crate) fn needs(self, programs: &Programs) -> PathBuf {
        match self {
            Self::Floor => programs.floor.clone(),
            Self::Reelyard => programs.reelyard.clone(),
            Self::Rustus => programs.rustus.clone(),
            Self::TusNode => programs.tus_node.with_file_name("node_modules"),
            Self::Nginx => programs.nginx.clone(),
        }
    }

    fn command(self, programs: &Programs, folder: &Path, port: u16) -> Result<Command> {
        let address = format!("127.0.0.1:{port}");
        let mut command;
        match self {
            Self::Floor => {
                command = Command::new(&programs.floor);
                command.arg(&address).arg(folder);
            }
            Self::Reelyard => {
                command = Command::new(&programs.reelyard);
                command.args(["serve", "--insecure-open", "--workers", "0", "--media-program", "/bin/true"]);
                command.args(["--listen", &address]).arg("--data-dir").arg(folder);
            }
            Self::Rustus => {
                command = Command::new(&programs.rustus);
                command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--url", "/files"]);
                command.arg("--data-dir").arg(folder).arg("--info-dir").arg(folder.join("info"));
                // It takes a request into memory whole, and no more than 10 MiB unless told.
                command.args(["--max-body-size", &(2_u64 << 30).to_string(), "--log-level", "ERROR"]);
            }
            Self::TusNode => {
                command = Command::new("node");
                command.arg(&programs.tus_node).arg(port.to_string()).arg(folder);
            }
            Self::Nginx => {
                let configuration = folder.join("nginx.conf");
                fs::create_dir_all(folder.join("files"))?;
                fs::write(&configuration, nginx_configuration(folder, &address))?;
                command = Command::new(&programs.nginx);
                command.arg("-p").arg(folder).arg("-c").arg(configuration);
            }
        }
        Ok(command)
    }
}

/// One worker: there is one client. As root it keeps writing as root.
fn nginx_configuration(folder: &Path, address: &str) -> String {
    let folder = folder.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/temporary;
  fastcgi_temp_path {folder}/t1; uwsgi_temp_path {folder}/t2; scgi_temp_path {folder}/t3; proxy_temp_path {folder}/t4;
  server {{ listen {address}; root {folder}/files; location / {{ dav_methods PUT; }} }}
}}
"
    )
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) tree: Tree,
    folder: PathBuf,
    child: Child,
    next_name: u32,
}

/// An upload that was begun. Bytes of it go over the same connection.
pub(crate) struct Upload {
    pub(crate) connection: Connection,
    pub(crate) path: String,
}

impl Server {
    pub(crate) fn start(kind: Kind, programs: &Programs, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let log = fs::File::create(folder.with_extension("log"))?;
        let mut command = kind.command(programs, folder, port)?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", kind.name()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tree = Tree(child.id());
        let mut server = Self { kind, address, tree, folder: folder.to_owned(), child, next_name: 0 };
        let due = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            let log = folder.with_extension("log");
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended at once ({status}): {}", kind.name(), fs::read_to_string(log)?);
            }
            ensure!(Instant::now() < due, "{} does not answer; its log is {}", kind.name(), log.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Announces an upload of `byte_len` bytes, on a new connection.
    pub(crate) fn begin_upload(&mut self, byte_len: u64) -> Result<Upload> {
        let mut connection = Connection::open(self.address)?;
        let path = match self.kind {
            Kind::Floor => String::new(),
            Kind::Nginx => {
                self.next_name += 1;
                format!("/{}", self.next_name)
            }
            Kind::Reelyard => create(&mut connection, "/uploads", byte_len)?,
            Kind::Rustus | Kind::TusNode => create(&mut connection, "/files", byte_len)?,
        };
        Ok(Upload { connection, path })
    }

    /// Sends the head that announces `byte_len` bytes at `offset`; the bytes are for the caller to send.
    pub(crate) fn begin_bytes(&self, upload: &mut Upload, offset: u64, byte_len: u64) -> Result<()> {
        let length = byte_len.to_string();
        match self.kind {
            Kind::Floor => {
                use std::io::Write as _;
                upload.connection.socket.write_all(&byte_len.to_le_bytes())?;
                Ok(())
            }
            // It knows whole files only: a chunk is a file.
            Kind::Nginx => {
                let path = format!("{}-{offset}", upload.path);
                upload.connection.send("PUT", &path, &[("Content-Length", &length)])
            }
            Kind::Reelyard | Kind::Rustus | Kind::TusNode => {
                let fields = [
                    TUS,
                    ("Upload-Offset", &offset.to_string()),
                    ("Content-Type", "application/offset+octet-stream"),
                    ("Content-Length", &length),
                ];
                upload.connection.send("PATCH", &upload.path, &fields)
            }
        }
    }

    /// Sends `byte_len` bytes at `offset` and waits until the server says that it has them.
    pub(crate) fn send_bytes(&self, upload: &mut Upload, offset: u64, byte_len: u64) -> Result<()> {
        self.begin_bytes(upload, offset, byte_len)?;
        let sent = send_bytes(&mut upload.connection.socket, offset, byte_len);
        self.confirmed(upload, offset + byte_len).with_context(|| format!("sending ended with {sent:?}"))?;
        sent.context("sending the bytes")
    }

    fn confirmed(&self, upload: &mut Upload, offset: u64) -> Result<()> {
        if self.kind == Kind::Floor {
            use std::io::Read as _;
            return upload.connection.socket.read_exact(&mut [0]).context("the floor's answer");
        }
        let answer = upload.connection.answer(false)?;
        ensure!((200..300).contains(&answer.status), "{} answers {}", self.kind.name(), answer.status);
        if self.kind.resumes() {
            let told = answer.number("Upload-Offset")?;
            ensure!(told == offset, "{} has {told} bytes, not {offset}", self.kind.name());
        }
        Ok(())
    }

    /// Where the server says an upload is.
    pub(crate) fn offset(&self, path: &str) -> Result<u64> {
        let answer = Connection::open(self.address)?.ask("HEAD", path, &[TUS])?;
        ensure!((200..300).contains(&answer.status), "HEAD is answered with {}", answer.status);
        answer.number("Upload-Offset")
    }

    /// The largest file that it keeps.
    pub(crate) fn largest_file(&self) -> Option<PathBuf> {
        self.files().into_iter().max_by_key(|file| fs::metadata(file).map_or(0, |data| data.len()))
    }

    /// Removes the bytes of finished uploads behind the server's back: they are done, and the disk is small. What was
    /// not yet written to the disk never is then, and does not disturb the next one.
    pub(crate) fn remove_finished(&self) {
        for file in self.files() {
            if fs::metadata(&file).is_ok_and(|data| data.len() >= 1 << 20) {
                let _ = fs::remove_file(file);
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = ["", "files", "sources", "uploads"].map(|name| self.folder.join(name));
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
        files.filter(|path| !path.to_string_lossy().contains("catalog.")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(process) = i32::try_from(self.child.id()).map(Pid::from_raw)
            && let Some(process) = process
        {
            let _ = kill_process(process, Signal::TERM);
        }
        let due = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > due {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn create(connection: &mut Connection, address: &str, byte_len: u64) -> Result<String> {
    let length = byte_len.to_string();
    let fields = [
        TUS,
        ("Upload-Length", &length),
        ("Upload-Metadata", "filename YmVuY2gubXA0"),
        ("Content-Length", "0"),
    ];
    let mut answer = connection.ask("POST", address, &fields)?;
    // A thousand at once are more than some servers let one client begin; none of this is in what is measured.
    while answer.status == 429 {
        std::thread::sleep(Duration::from_secs(answer.number("Retry-After").unwrap_or(1)));
        answer = connection.ask("POST", address, &fields)?;
    }
    ensure!(answer.status == 201, "POST {address} is answered with {}", answer.status);
    let location = answer.field("Location").context("no Location")?;
    // Some answer with a whole URL, some with a path.
    let path = location
        .split_once("://")
        .map_or(location, |(_, rest)| rest.find('/').map_or("/", |start| &rest[start..]));
    Ok(path.to_owned())
}
