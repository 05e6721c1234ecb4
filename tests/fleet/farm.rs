//! A fleet for one test: PostgreSQL, RabbitMQ and SeaweedFS, N API nodes and M workers, and between any two of them a
//! proxy of their own, so that one node alone can be cut off. Logs and data stay when the test fails.

use crate::{
    process::{Process, Recipe},
    support::{self, exchange, media_program, wait_for},
};
use reelyard_testkit::{
    ACCESS_KEY_ID, FaultProxy, Kind, Line, Plan, PostgresServer, RabbitServer, S3Server, SECRET_ACCESS_KEY,
    TcpProxy, free_port,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A lease here: as short as a busy machine of two cores lets heartbeats be late.
pub(crate) const LEASE_SECONDS: u64 = 6;
/// What the bytes of a fleet lie under, in the bucket.
pub(crate) const PREFIX: &str = "fleet";

/// Small and quick: an asset of six seconds costs about two seconds of a processor.
const PRESET: &str = r#"
version = 1
description = "two small rungs in short chunks, for tests of the fleet"
[video]
codec = "h264"
profile = "main"
x264_preset = "ultrafast"
nvenc_preset = "p1"
scaler = "bilinear"
gop_ms = 1000
segment_ms = 2000
chunk_ms = CHUNK_MS
[[video.rungs]]
lines = 180
crf = 28.0
max_bit_rate_kbps = 400
buffer_kbits = 600
[[video.rungs]]
lines = 90
crf = 30.0
max_bit_rate_kbps = 150
buffer_kbits = 225
[audio]
codec = "aac"
bit_rate_kbps = 64
max_channels = 1
sample_rate = 44100
[stills]
poster_lines = 90
tile_lines = 32
interval_ms = 2000
min_tiles = 2
columns = 10
rows = 10
max_sheets = 1
jpeg_quality = 60
"#;

/// The ways of one process to the three servers.
pub(crate) struct Lines {
    pub(crate) database: TcpProxy,
    pub(crate) tickets: TcpProxy,
    pub(crate) storage: TcpProxy,
    pub(crate) storage_requests: FaultProxy,
}

impl Lines {
    fn to(servers: &Servers) -> Self {
        let storage_requests = FaultProxy::start(&servers.storage.endpoint(), Plan::calm());
        Self {
            database: TcpProxy::start(address_of(&servers.postgres.url())),
            tickets: TcpProxy::start(&servers.rabbit.address()),
            storage: TcpProxy::start(storage_requests.url().trim_start_matches("http://")),
            storage_requests,
        }
    }

    pub(crate) fn calm(&self) {
        for line in [&self.database, &self.tickets, &self.storage] {
            line.set_line(Line::Clear);
        }
        self.storage_requests.set_plan(Plan::calm());
    }

    pub(crate) fn faults(&self) -> u64 {
        let cuts: u64 = [&self.database, &self.tickets, &self.storage].iter().map(|line| line.cuts()).sum();
        cuts + self.storage_requests.faults()
    }
}

pub(crate) struct Servers {
    pub(crate) postgres: PostgresServer,
    pub(crate) rabbit: RabbitServer,
    pub(crate) storage: S3Server,
}

pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) lines: Lines,
    pub(crate) url: String,
    /// Before the node, for its clients.
    pub(crate) front: TcpProxy,
}

pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) lines: Lines,
    /// To each node.
    pub(crate) to_nodes: Vec<TcpProxy>,
}

/// What a test wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) nodes: usize,
    pub(crate) workers: usize,
    pub(crate) slots: u32,
    pub(crate) chunk_ms: u32,
    pub(crate) lease_seconds: u64,
    /// The program with crash points.
    pub(crate) with_crash_points: bool,
    /// For all processes, in all their lives.
    pub(crate) variables: Vec<(String, String)>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            nodes: 2,
            workers: 3,
            slots: 1,
            chunk_ms: 2000,
            lease_seconds: LEASE_SECONDS,
            with_crash_points: false,
            variables: Vec::new(),
        }
    }
}

pub(crate) struct Farm {
    pub(crate) nodes: Vec<Node>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) servers: Servers,
    /// Straight, for the checker.
    pub(crate) database_url: String,
    pub(crate) admin_key: String,
    pub(crate) folder: PathBuf,
}

impl Farm {
    /// `None`: a server is not installed; that was said on standard error.
    pub(crate) fn start(wish: &Wish) -> Option<Self> {
        let program = if wish.with_crash_points { crash_program()? } else { program() };
        let servers = Servers {
            postgres: PostgresServer::start()?,
            rabbit: RabbitServer::start()?,
            storage: S3Server::start(Kind::SeaweedFs)?,
        };
        let folder = tempfile::Builder::new().prefix("reelyard-fleet-").tempdir().unwrap().keep();
        fs::create_dir(folder.join("presets")).unwrap();
        fs::write(
            folder.join("presets/fleet.toml"),
            PRESET.trim_start().replace("CHUNK_MS", &wish.chunk_ms.to_string()),
        )
        .unwrap();
        let database_url = servers.postgres.new_database();
        let mut farm = Self {
            nodes: Vec::new(),
            workers: Vec::new(),
            servers,
            database_url,
            admin_key: String::new(),
            folder,
        };
        for number in 0..wish.nodes {
            farm.add_node(number, wish, &program);
        }
        let worker_key = farm.worker_key(&program);
        for number in 0..wish.workers {
            farm.add_worker(number, wish, &program, &worker_key);
        }
        for worker in &mut farm.workers {
            assert!(worker.process.wait_until_ready(), "a worker ended:\n{}", worker.process.log_tail(40));
        }
        Some(farm)
    }

    fn add_node(&mut self, number: usize, wish: &Wish, program: &Path) {
        let lines = Lines::to(&self.servers);
        // A port of its own, so that a restart has the same address.
        let address = format!("127.0.0.1:{}", free_port());
        let data = self.folder.join(format!("node{number}"));
        let mut variables = self.variables(&lines, wish);
        variables.insert(
            "REELYARD_DATABASE_URL".to_owned(),
            through(&self.database_url, &lines.database.address()),
        );
        let ready_file = self.folder.join(format!("node{number}.ready"));
        let presets = self.folder.join("presets");
        let lease_seconds = wish.lease_seconds.to_string();
        let arguments = [
            "serve",
            "--workers",
            "0",
            "--listen",
            &address,
            "--data-dir",
            data.to_str().unwrap(),
            "--lease-seconds",
            &lease_seconds,
            "--presets",
            presets.to_str().unwrap(),
            "--ready-file",
            ready_file.to_str().unwrap(),
        ];
        let recipe = Recipe {
            name: format!("node{number}"),
            program: program.to_owned(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            variables,
            ready_file,
            log: self.folder.join(format!("node{number}.log")),
        };
        let mut process = Process::new(recipe);
        process.start();
        if number == 0 {
            self.admin_key = fs::read_to_string(data.join("admin.key"))
                .expect("the first node makes the admin key")
                .trim()
                .to_owned();
        }
        let front = TcpProxy::start(&address);
        self.nodes.push(Node { process, lines, url: format!("http://{address}"), front });
    }

    fn add_worker(&mut self, number: usize, wish: &Wish, program: &Path, key: &str) {
        let lines = Lines::to(&self.servers);
        let to_nodes: Vec<TcpProxy> =
            self.nodes.iter().map(|node| TcpProxy::start(node.url.trim_start_matches("http://"))).collect();
        let mut addresses: Vec<String> =
            to_nodes.iter().map(|line| format!("http://{}", line.address())).collect();
        // Not all of them at the first node.
        let nodes = addresses.len();
        addresses.rotate_left(number % nodes);
        let mut variables = self.variables(&lines, wish);
        variables.insert("REELYARD_WORKER_TOKEN".to_owned(), key.to_owned());
        let scratch = self.folder.join(format!("worker{number}"));
        let ready_file = self.folder.join(format!("worker{number}.ready"));
        let arguments = [
            "worker",
            "--server",
            &addresses.join(","),
            "--name",
            &format!("worker{number}"),
            "--slots",
            &wish.slots.to_string(),
            "--scratch",
            scratch.to_str().unwrap(),
            "--drain-seconds",
            "20",
            "--ready-file",
            ready_file.to_str().unwrap(),
        ];
        let recipe = Recipe {
            name: format!("worker{number}"),
            program: program.to_owned(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            variables,
            ready_file,
            log: self.folder.join(format!("worker{number}.log")),
        };
        let mut process = Process::new(recipe);
        process.launch(&[]);
        self.workers.push(Worker { process, lines, to_nodes });
    }

    fn variables(&self, lines: &Lines, wish: &Wish) -> BTreeMap<String, String> {
        let endpoint = format!("http://{}", lines.storage.address());
        let own = [
            ("REELYARD_TICKETS_URL", self.servers.rabbit.url_through(&lines.tickets.address())),
            ("REELYARD_STORAGE_URL", S3Server::url(&endpoint, PREFIX)),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("REELYARD_MEDIA_PROGRAM", media_program().to_str().unwrap().to_owned()),
            ("NO_COLOR", "1".to_owned()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(wish.variables.iter().cloned()).collect()
    }

    fn worker_key(&self, program: &Path) -> String {
        let made = Command::new(program)
            .args([
                "keys",
                "add",
                "--label",
                "farm",
                "--scopes",
                "worker",
                "--database-url",
                &self.database_url,
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "keys add: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn authorization(&self) -> (&'static str, String) {
        ("Authorization", format!("Bearer {}", self.admin_key))
    }

    /// From node `number`, straight.
    pub(crate) fn get(&self, number: usize, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.nodes[number].url);
        let (status, _, body) = exchange("GET", &url, &[self.authorization()], &[]);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Waits until the asset has come to an end, whichever node answers.
    pub(crate) fn settled(&self, asset: &str, patience: Duration) -> Value {
        wait_for(&format!("asset {asset} to settle"), patience, || {
            (0..self.nodes.len()).find_map(|number| {
                let (status, shown) = self.get(number, &format!("/v1/assets/{asset}"));
                let over = matches!(shown["state"].as_str(), Some("ready" | "failed" | "cancelled"));
                (status == 200 && over).then_some(shown)
            })
        })
    }

    /// The name of the preset of this fleet's tests, for `Upload-Metadata`.
    pub(crate) fn upload_metadata(title: &str) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("filename {},preset {}", STANDARD.encode(title), STANDARD.encode("fleet"))
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // The children first: they would write into the folder.
        self.workers.clear();
        self.nodes.clear();
        if std::thread::panicking() {
            eprintln!("logs and data of the fleet stay in {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_reelyard"))
}

/// `reelyard` with its crash points, made by `scripts/crash-program`; without it the tests that need it are skipped.
pub(crate) fn crash_program() -> Option<PathBuf> {
    let path = program().with_file_name("crash-points").join("reelyard");
    if !path.exists() {
        support::skipped(&format!("no {} (scripts/crash-program makes it)", path.display()));
        return None;
    }
    Some(path)
}

/// `host:port` of a URL.
fn address_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The same URL by another way.
fn through(url: &str, address: &str) -> String {
    url.replacen(address_of(url), address, 1)
}
