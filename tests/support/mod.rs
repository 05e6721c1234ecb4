//! What the end-to-end tests share: a real server in its own data directory, a plain tus client that keeps a ledger of
//! what was acknowledged, and the tools of other people (ffprobe, Node) that judge the result.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest that any one thing may take on a busy two-core machine before a test calls it stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    root().join("fixtures").join(name)
}

/// The folder of larger real files beside the checkout, where there is one.
pub(crate) fn shared() -> Option<PathBuf> {
    let folder = root().join("../shared");
    folder.join("corpus/MANIFEST.tsv").exists().then_some(folder)
}

pub(crate) fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Calls `look` until it gives something; panics with `what` when patience ends.
pub(crate) fn wait_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running `reelyard serve`, open on loopback. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) data: PathBuf,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub(crate) fn start_with(data: &Path, more: &[&str]) -> Self {
        Self::start_in(data, more, &[])
    }

    /// Starts, with these variables in its environment, and waits until it answers. Its log goes to
    /// `{data}/../server.log`.
    pub(crate) fn start_in(data: &Path, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let ready = data.with_extension("ready");
        let _ = fs::remove_file(&ready);
        let log_path = data.with_extension("log");
        let log = File::options().create(true).append(true).open(&log_path).expect("the log file opens");
        let mut child = Command::new(env!("CARGO_BIN_EXE_reelyard"))
            .args(["serve", "--insecure-open", "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data)
            .arg("--ready-file")
            .arg(&ready)
            .args(more)
            .env("REELYARD_MEDIA_PROGRAM", media_program())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("reelyard starts");
        let url = wait_for("the server to be ready", Duration::from_secs(60), || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!(
                    "the server ended with {status}:\n{}",
                    fs::read_to_string(&log_path).unwrap_or_default()
                );
            }
            fs::read_to_string(&ready).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        });
        Self { child, url, data: data.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let child = &mut self.child;
        wait_for("the server to stop", Duration::from_secs(60), || {
            child.try_wait().expect("a child can be asked")
        })
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = request("GET", &format!("{}{path}", self.url), &[], &[]);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) fn asset(&self, id: &str) -> Value {
        let (status, asset) = self.get(&format!("/v1/assets/{id}"));
        assert_eq!(status, 200, "asset {id}: {asset}");
        asset
    }

    /// Waits until the asset is in a terminal state and gives it.
    pub(crate) fn settled(&self, id: &str) -> Value {
        wait_for(&format!("asset {id} to settle"), PATIENCE, || {
            let asset = self.asset(id);
            matches!(asset["state"].as_str(), Some("ready" | "failed" | "cancelled")).then_some(asset)
        })
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// The processes that are children of the server now and run the media program.
    pub(crate) fn media_children(&self) -> Vec<u32> {
        let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
        folder
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
                // `pid (comm) state ppid ...`; comm is cut at 15 characters.
                let Some((head, tail)) = stat.rsplit_once(')') else { return false };
                let parent = tail.split_whitespace().nth(1).and_then(|text| text.parse::<u32>().ok());
                head.contains("(reelyard-media") && parent == Some(self.child.id())
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `reelyard-media` as built beside `reelyard`.
pub(crate) fn media_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_reelyard")).with_file_name("reelyard-media");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --workspace --bins` first",
        program.display()
    );
    program
}

/// One HTTP exchange through curl: (status, body). Status 0 when there was no answer.
pub(crate) fn request(method: &str, url: &str, headers: &[(&str, String)], body: &[u8]) -> (u16, Vec<u8>) {
    let (status, _, body) = exchange(method, url, headers, body);
    (status, body)
}

/// One HTTP exchange: (status, headers as text, body). Status 0 when the connection failed.
pub(crate) fn exchange(
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    let mut builder = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    let request = builder.body(body.to_vec()).expect("a request");
    match agent.run(request) {
        Ok(mut answer) => {
            let status = answer.status().as_u16();
            let headers = answer
                .headers()
                .iter()
                .map(|(name, value)| {
                    (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned())
                })
                .collect();
            match answer.body_mut().with_config().limit(1 << 30).read_to_vec() {
                Ok(body) => (status, headers, body),
                Err(_) => (0, Vec::new(), Vec::new()),
            }
        }
        Err(_) => (0, Vec::new(), Vec::new()),
    }
}

/// Uploads a file in one piece (creation-with-upload) and gives the asset's id.
pub(crate) fn upload_whole(server: &Server, file: &Path, preset: Option<&str>) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let bytes = fs::read(file).expect("the file to upload is readable");
    let name = file.file_name().expect("a name").to_string_lossy();
    let mut metadata = format!("filename {}", STANDARD.encode(name.as_bytes()));
    if let Some(preset) = preset {
        metadata.push_str(&format!(",preset {}", STANDARD.encode(preset)));
    }
    let (status, headers, body) = exchange(
        "POST",
        &format!("{}/uploads", server.url),
        &[
            ("Tus-Resumable", "1.0.0".into()),
            ("Upload-Length", bytes.len().to_string()),
            ("Upload-Metadata", metadata),
            ("Content-Type", "application/offset+octet-stream".into()),
        ],
        &bytes,
    );
    assert_eq!(status, 201, "uploading {name}: {}", String::from_utf8_lossy(&body));
    header(&headers, "reelyard-asset")
        .unwrap_or_else(|| panic!("no Reelyard-Asset in the answer for {name}: {headers:?}"))
}

pub(crate) fn header(headers: &[(String, String)], name: &str) -> Option<String> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
}

/// Runs a program to its end and gives (ok, stdout, stderr).
pub(crate) fn run(program: &str, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect(program);
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The addresses in a playlist: its lines that are neither empty nor tags (RFC 8216 section 4.1).
pub(crate) fn playlist_uris(playlist: &str) -> impl Iterator<Item = &str> {
    playlist.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// How many pictures ffprobe really decodes of a rendition.
pub(crate) fn decoded_pictures(url: &str) -> String {
    let wanted = ["-select_streams", "v", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"];
    let (_, counted, _) = run("ffprobe", &[&["-v", "error", "-count_frames"], &wanted[..], &[url]].concat());
    counted.trim().lines().next().unwrap_or_default().to_owned()
}

/// A small generator of reproducible choices (SplitMix64, Steele et al. 2014).
pub(crate) struct Chance(pub u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
