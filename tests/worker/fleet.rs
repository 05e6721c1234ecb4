//! A server with keys on a port of its own, and workers beside it.

use crate::support::{exchange, header, media_program, request, wait_for};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

/// For what takes a moment on a quiet machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Fleet {
    server: Child,
    pub(crate) url: String,
    pub(crate) data: PathBuf,
    address: SocketAddr,
    admin_key: String,
    pub(crate) worker_key: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Fleet {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[])
    }

    /// With these variables in the environment of the server and of its workers.
    pub(crate) fn start_in(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // A port of our own, so that a restart has the same address.
        let address = SocketAddr::from(([127, 0, 0, 1], reelyard_testkit::free_port()));
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let server = serve(&data, address, &arguments, &variables);
        let admin_key = fs::read_to_string(data.join("admin.key")).unwrap().trim().to_owned();
        let worker_key = add_key(&data, "worker");
        let url = format!("http://{address}");
        Self { server, url, data, address, admin_key, worker_key, arguments, variables, folder }
    }

    pub(crate) fn kill_server(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Asked to, and gone.
    pub(crate) fn stop_server(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.server.id().to_string()]).status().unwrap();
        assert!(status.success());
        self.server.wait().unwrap();
    }

    pub(crate) fn restart_server(&mut self) {
        self.server = serve(&self.data, self.address, &self.arguments, &self.variables);
    }

    pub(crate) fn worker(&self, name: &str, arguments: &[&str]) -> Worker {
        self.worker_with_token(name, &self.worker_key, arguments)
    }

    /// Returns when it is ready or has ended.
    pub(crate) fn worker_with_token(&self, name: &str, token: &str, arguments: &[&str]) -> Worker {
        let place = self.folder.path();
        let (log_path, ready) = (place.join(format!("{name}.log")), place.join(format!("{name}.ready")));
        let log = File::create(&log_path).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_reelyard"))
            .args(["worker", "--server", &self.url, "--name", name, "--scratch"])
            .arg(place.join("scratch"))
            .arg("--ready-file")
            .arg(&ready)
            .args(arguments)
            .env("REELYARD_WORKER_TOKEN", token)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("REELYARD_MEDIA_PROGRAM", media_program())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for("the worker to be ready", SOON, || {
            let ended = child.try_wait().unwrap().is_some();
            (ended || ready.exists()).then_some(())
        });
        Worker { child, log_path }
    }

    pub(crate) fn upload(&self, file: &Path) -> String {
        let bytes = fs::read(file).unwrap();
        let (status, headers, body) = exchange(
            "POST",
            &format!("{}/uploads", self.url),
            &[
                ("Authorization", format!("Bearer {}", self.admin_key)),
                ("Tus-Resumable", "1.0.0".into()),
                ("Upload-Length", bytes.len().to_string()),
                ("Content-Type", "application/offset+octet-stream".into()),
            ],
            &bytes,
        );
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        header(&headers, "reelyard-asset").unwrap()
    }

    pub(crate) fn admin(&self, method: &str, path: &str) -> (u16, Value) {
        self.call_as(&self.admin_key, method, path, &Value::Null)
    }

    /// A call of a worker.
    pub(crate) fn call(&self, name: &str, mut call: Value) -> (u16, Value) {
        call["protocol"] = json!(1);
        self.call_as(&self.worker_key, "POST", &format!("/v1/worker/{name}"), &call)
    }

    pub(crate) fn call_as(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers =
            [("Authorization", format!("Bearer {key}")), ("Content-Type", "application/json".to_owned())];
        let (status, body) = request(method, &format!("{}{path}", self.url), &headers, &bytes);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The stream of orders of a worker.
    pub(crate) fn orders(&self, worker: &str, held: &Value) -> Orders {
        let call = json!({"protocol": 1, "worker": worker, "held": held}).to_string();
        let request = ureq::http::Request::post(format!("{}/v1/worker/orders", self.url))
            .header("Authorization", format!("Bearer {}", self.worker_key))
            .header("Content-Type", "application/json")
            .body(call)
            .unwrap();
        let answer = ureq::Agent::new_with_defaults().run(request).unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(answer.into_body().into_reader()).lines();
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap();
                if line != json!({}) && sender.send(line).is_err() {
                    return;
                }
            }
        });
        Orders(lines)
    }

    /// With bytes, as a worker.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> (u16, Value) {
        let headers = [
            ("Authorization", format!("Bearer {}", self.worker_key)),
            ("Content-Type", "application/octet-stream".to_owned()),
        ];
        let (status, body) = request("PUT", &format!("{}{path}", self.url), &headers, bytes);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) fn admin_key(&self) -> &str {
        &self.admin_key
    }

    pub(crate) fn asset(&self, asset: &str) -> Value {
        self.admin("GET", &format!("/v1/assets/{asset}")).1
    }

    /// A number of the server's own, as it shows it to a monitor.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let headers = [("Authorization", format!("Bearer {}", self.admin_key))];
        let (_, text) = request("GET", &format!("{}/metrics", self.url), &headers, &[]);
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    pub(crate) fn settled(&self, asset: &str) -> Value {
        wait_for("the asset to settle", crate::support::PATIENCE, || {
            let asset = self.asset(asset);
            matches!(asset["state"].as_str(), Some("ready" | "failed" | "cancelled")).then_some(asset)
        })
    }

    pub(crate) fn job(&self, asset: &str, kind: &str) -> Value {
        let (_, page) = self.admin("GET", &format!("/v1/jobs?asset={asset}&kind={kind}"));
        page["items"][0].clone()
    }

    /// Waits until the encode of this asset is at work in a child of that worker.
    pub(crate) fn encoding(&self, asset: &str, worker: &Worker) -> Value {
        wait_for("the encode to be at work", crate::support::PATIENCE, || {
            let job = self.job(asset, "encode");
            let asset = self.asset(asset);
            assert_ne!(asset["state"], "failed", "{asset}\n{}", worker.log());
            // Its progress came with a heartbeat or its child is there; the child is what the tests need.
            (job["state"] == "leased" && !worker.children().is_empty()).then_some(job)
        })
    }

    /// All files below a folder of the data directory, with their contents' lengths and times.
    pub(crate) fn files(&self, top: &str) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        let mut found: Vec<_> = walkdir::WalkDir::new(self.data.join(top))
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                let facts = entry.metadata().unwrap();
                (entry.into_path(), facts.len(), facts.modified().unwrap())
            })
            .collect();
        found.sort();
        found
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What comes on a stream, without the lines that only keep it alive.
pub(crate) struct Orders(mpsc::Receiver<Value>);

impl Orders {
    /// `None`: the stream has ended.
    pub(crate) fn next(&self) -> Option<Value> {
        match self.0.recv_timeout(SOON) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("neither a line nor the end in {SOON:?}"),
        }
    }
}

pub(crate) struct Worker {
    child: Child,
    log_path: PathBuf,
}

impl Worker {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the worker to end", SOON, || child.try_wait().unwrap())
    }

    /// Its media children that are at work.
    pub(crate) fn children(&self) -> Vec<u32> {
        let own = self.child.id();
        let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
        folder
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
                let Some((head, tail)) = stat.rsplit_once(')') else { return false };
                let mut fields = tail.split_whitespace();
                let (state, parent) =
                    (fields.next(), fields.next().and_then(|text| text.parse::<u32>().ok()));
                head.contains("(reelyard-media") && parent == Some(own) && state != Some("Z")
            })
            .collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that a test has stopped still ends by this signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(data: &Path, address: SocketAddr, arguments: &[String], variables: &[(String, String)]) -> Child {
    let ready = data.with_extension("ready");
    let _ = fs::remove_file(&ready);
    let log = File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["serve", "--workers", "0", "--listen", &address.to_string(), "--data-dir"])
        .arg(data)
        .arg("--ready-file")
        .arg(&ready)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env("REELYARD_MEDIA_PROGRAM", media_program())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    wait_for("the server to be ready", SOON, || {
        assert!(
            child.try_wait().unwrap().is_none(),
            "{}",
            fs::read_to_string(data.with_extension("log")).unwrap()
        );
        ready.exists().then_some(())
    });
    child
}

fn add_key(data: &Path, scopes: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["keys", "add", "--label", "for a test", "--scopes", scopes, "--data-dir"])
        .arg(data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The first seconds of the fixture, for tests that need a whole video soon.
pub(crate) fn short_clip(folder: &Path, seconds: u32) -> Option<PathBuf> {
    let clip = folder.join("clip.mp4");
    let source = crate::support::fixture("bbb-720p-20s.mp4");
    let seconds = seconds.to_string();
    let arguments: Vec<&std::ffi::OsStr> = ["-v", "error", "-y", "-t", &seconds, "-i"]
        .iter()
        .map(|text| std::ffi::OsStr::new(*text))
        .chain([source.as_os_str()])
        .chain(["-c", "copy"].map(std::ffi::OsStr::new))
        .chain([clip.as_os_str()])
        .collect();
    match Command::new("ffmpeg").args(arguments).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Some(clip),
        _ => {
            crate::support::skipped("no ffmpeg to cut a clip with");
            None
        }
    }
}
