//! The servers of a run: PostgreSQL, RabbitMQ, SeaweedFS and one node of reelyard, all on loopback.

use crate::Options;
use anyhow::{Context as _, Result, ensure};
use reelyard_catalog::{Actor, Catalog, NewApiKey, PostgresSettings, Scope, Scopes};
use reelyard_model::TenantId;
use reelyard_testkit::{ACCESS_KEY_ID, Kind, PostgresServer, RabbitServer, S3Server, SECRET_ACCESS_KEY};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Servers {
    serve: Child,
    pub(crate) url: String,
    pub(crate) database_url: String,
    pub(crate) rabbit: RabbitServer,
    _postgres: PostgresServer,
    _store: S3Server,
    pub(crate) folder: tempfile::TempDir,
}

impl Servers {
    pub(crate) fn start(program: &Path, options: &Options) -> Result<Self> {
        let mut postgres = PostgresServer::start().context("no PostgreSQL (scripts/setup servers)")?;
        if options.statements {
            postgres.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
            postgres.stop_fast();
            postgres.restart();
        }
        let rabbit = RabbitServer::start().context("no RabbitMQ (scripts/setup servers)")?;
        let store = S3Server::start(Kind::SeaweedFs).context("no SeaweedFS (scripts/setup s3)")?;
        let database_url = postgres.new_database();
        let folder = tempfile::tempdir()?;
        let (log, ready) = (folder.path().join("serve.log"), folder.path().join("url"));
        ensure!(program.exists(), "{} is not there: build it first", program.display());
        let serve = Command::new(program)
            .args([
                "serve",
                "--workers",
                "0",
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--data-dir",
            ])
            .arg(folder.path().join("data"))
            .arg("--ready-file")
            .arg(&ready)
            // It looks for one at start and never runs it: there are no workers in it.
            .args(["--media-program", "/bin/true"])
            .env("REELYARD_DATABASE_URL", &database_url)
            .env("REELYARD_TICKETS_URL", rabbit.url())
            .env("REELYARD_STORAGE_URL", S3Server::url(&store.endpoint(), "bench"))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            // The uploads that a round begins with come at once and are not what is measured.
            .env("REELYARD_CREATIONS_PER_SECOND", "100000")
            .env("REELYARD_REQUESTS_PER_SECOND", "100000")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut servers = Self {
            serve,
            url: String::new(),
            database_url,
            rabbit,
            _postgres: postgres,
            _store: store,
            folder,
        };
        let begin = Instant::now();
        while !ready.exists() {
            let ended = servers.serve.try_wait()?.is_some();
            ensure!(!ended && begin.elapsed() < PATIENCE, "the server: {}", fs::read_to_string(&log)?);
            std::thread::sleep(Duration::from_millis(50));
        }
        servers.url = fs::read_to_string(&ready)?.trim().to_owned();
        Ok(servers)
    }

    pub(crate) fn serve_pid(&self) -> u32 {
        self.serve.id()
    }

    /// The one that asks is the parent of all that serve.
    pub(crate) fn postgres_pid(&self) -> Result<u32> {
        let text = fs::read_dir("/proc")?.flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let port = self.database_url.rsplit(':').next()?.split('/').next()?;
            command.split('\0').any(|word| word == format!("port={port}")).then_some(pid)
        });
        text.context("PostgreSQL is not among the processes")
    }

    pub(crate) fn rabbit_pid(&self) -> Result<u32> {
        let answer = self.rabbit.eval("os:getpid().");
        answer.trim().trim_matches('"').parse().with_context(|| format!("RabbitMQ's process: {answer:?}"))
    }

    /// What the server has logged, above all its warnings.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("serve.log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keys of one tenant: to send sources with, and the fleet's own for workers.
pub(crate) struct Keys {
    pub(crate) senders: Vec<String>,
    pub(crate) worker: String,
}

/// Straight into the catalogue, as `reelyard keys add` and `reelyard tenants add` do.
pub(crate) async fn make_keys(database_url: &str, tenants: usize) -> Result<Keys> {
    let settings = PostgresSettings { max_connections: 2, ..PostgresSettings::default() };
    let catalog = Catalog::connect(database_url, &settings).await?;
    let mut senders = Vec::new();
    for number in 0..tenants {
        let tenant = TenantId::from_uuid(Uuid::now_v7());
        catalog.add_tenant(tenant, &format!("tenant {number}"), 0).await?;
        senders.push(make_key(&catalog, tenant, Scope::UploadsWrite).await?);
    }
    let worker = make_key(&catalog, TenantId::DEFAULT, Scope::Worker).await?;
    catalog.close().await;
    Ok(Keys { senders, worker })
}

async fn make_key(catalog: &Catalog, tenant: TenantId, scope: Scope) -> Result<String> {
    // Of this run alone, on loopback: it need not be hard to guess.
    let key = format!("reelyard_{}", hex::encode(Sha256::digest(Uuid::now_v7().as_bytes())));
    let key_sha256 = hex::encode(Sha256::digest(key.as_bytes()));
    let id = Uuid::now_v7();
    let scopes = Scopes::of(&[scope]);
    let new = NewApiKey { id, tenant, label: "bench", key_sha256: &key_sha256, scopes, now_ms: 0 };
    let actor = Actor { name: "the benchmark".to_owned(), reason: None };
    catalog.add_api_key(new, &actor).await?;
    Ok(key)
}
