//! `reelyard worker`: takes work from a server over HTTP, for fleets of more than one machine.
//!
//! Everything is checked before it says that it is ready: the media program runs, the scratch folder can be written, a
//! server answers and takes the token, the store is reached. A server that is not there yet is waited for. The first
//! SIGTERM or Ctrl-C lets running tasks end, for a bounded time; what is not done by then, and at the second signal at
//! once, is given back and is ready for others in the same moment.
//!
//! Exit status: 0 ended as asked, 1 it failed, 3 a server refuses the token, 130 ended at once by a second signal.

use super::{machine, serve::logging, signals::Signals};
use crate::{
    client,
    worker::{
        control::HttpControl,
        depot::{self, Bytes},
        link::{CallError, Link},
        page, place,
    },
};
use anyhow::Context as _;
use reelyard_agent::{
    Agent, AgentConfig, Machine, OneJob, ShutdownHandle, Watch, locate_media_program, run_once,
};
use reelyard_model::{
    WorkerId,
    child::{Job, Limits},
    worker_protocol::{HelloAnswer, HelloCall, WORKER_PROTOCOL},
};
use reelyard_tickets::{RabbitSettings, RabbitTickets};
use reqwest::Url;
use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// Children at a time of the largest machines, and some.
const MOST_SLOTS: i64 = 256;
/// Docker kills 10 s after its signal and Kubernetes 30 s unless told otherwise; a chunk takes about as long.
const DEFAULT_DRAIN_SECONDS: u64 = 30;
/// A server that is not there yet is told of so often.
const NOTICE_EVERY: Duration = Duration::from_secs(10);
/// Longest token that is read from a file.
const MAX_TOKEN_BYTES: usize = 4096;
/// The good-bye is a courtesy.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
const TOKEN_REFUSED: u8 = 3;
/// 128 and SIGINT, as shells report it.
const STOPPED_AT_ONCE: u8 = 130;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A server of the fleet, or what stands before them; several, and the next one is asked when one fails
    #[arg(long, value_name = "URL", env = "REELYARD_SERVER", value_delimiter = ',', required = true)]
    server: Vec<String>,
    /// API key with the scope `worker`; seen by everybody on this machine who lists processes, so rather give
    /// --token-file or the variable
    #[arg(long, value_name = "KEY", env = "REELYARD_WORKER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the key
    #[arg(long, value_name = "PATH", env = "REELYARD_WORKER_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// What people call this worker [default: the name of this machine]
    #[arg(long, value_name = "TEXT", env = "REELYARD_WORKER_NAME")]
    name: Option<String>,
    /// Encodes at a time on this machine [default: one for each four processors]
    #[arg(long, value_name = "N", env = "REELYARD_WORKER_SLOTS", value_parser = clap::value_parser!(u32).range(1..=MOST_SLOTS))]
    slots: Option<u32>,
    /// The media program [default: beside this program, else in PATH]
    #[arg(long, value_name = "PATH", env = "REELYARD_MEDIA_PROGRAM")]
    media_program: Option<PathBuf>,
    /// Folder for files in the making [default: in the folder for temporary files]
    #[arg(long, value_name = "DIR", env = "REELYARD_WORKER_SCRATCH")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    bytes: depot::BytesArgs,
    /// Be woken through RabbitMQ: amqp://user:password@host/vhost [default: the server tells when there is work]
    #[arg(long, value_name = "URL", env = "REELYARD_TICKETS_URL", hide_env_values = true)]
    tickets_url: Option<String>,
    /// Seconds that running tasks have to end after the first signal
    #[arg(long, value_name = "SECONDS", env = "REELYARD_DRAIN_SECONDS", default_value_t = DEFAULT_DRAIN_SECONDS)]
    drain_seconds: u64,
    /// Answer /livez, /readyz and /metrics here
    #[arg(long, value_name = "ADDR:PORT", env = "REELYARD_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// Write this worker's id to this file once it is ready (for scripts)
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// How the log is written to standard error
    #[arg(long, value_enum, default_value_t = logging::Format::Pretty, env = "REELYARD_LOG_FORMAT")]
    log_format: logging::Format,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::start(args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(work(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn work(args: Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let prepared = tokio::select! {
        prepared = prepare(&args) => prepared?,
        () = signals.next() => return Ok(ExitCode::from(STOPPED_AT_ONCE)),
    };
    let met = tokio::select! {
        met = meet(&prepared.link) => met,
        () = signals.next() => return Ok(ExitCode::from(STOPPED_AT_ONCE)),
    };
    let met = match met {
        Ok(met) => met,
        Err(CallError::Denied(why)) => return Ok(refused(&why)),
        Err(error) => return Err(anyhow::Error::new(error).context("no server takes this worker")),
    };
    if met.version != env!("CARGO_PKG_VERSION") {
        tracing::warn!(
            server = met.version,
            worker = env!("CARGO_PKG_VERSION"),
            "server and worker are of different versions; bring the older one up to date"
        );
    }
    let bytes = args.bytes.open(&prepared.link).await?;
    if let Some(address) = args.metrics_listen {
        page::serve(address, prepared.link.clone()).await?;
    }
    let worker = prepared.config.worker;
    if let Some(path) = &args.ready_file {
        write_whole(path, &format!("{worker}\n")).with_context(|| format!("writing {}", path.display()))?;
    }
    tracing::info!(%worker, lease_ms = met.lease_ms, bytes = bytes.as_str(), "worker ready");
    let control = Arc::new(HttpControl::start(prepared.link.clone(), worker, prepared.tickets));
    let (handle, shutdown) = reelyard_agent::shutdown();
    let config = prepared.config.clone();
    let agent = {
        let control = control.clone();
        async move {
            match bytes {
                Bytes::Server(depot) => Agent::new(config, control, Arc::new(depot)).run(shutdown).await,
                Bytes::Store(depot) => Agent::new(config, control, Arc::new(depot)).run(shutdown).await,
            }
        }
    };
    let code = until_the_end(agent, handle, &prepared.link, &mut signals).await?;
    let _ = tokio::time::timeout(GOODBYE_LIMIT, control.goodbye()).await;
    tracing::info!("worker ended");
    Ok(code)
}

struct Prepared {
    config: AgentConfig,
    link: Arc<Link>,
    tickets: Option<RabbitTickets>,
    /// Of the scratch folder; held as long as this lives.
    _lock: fs::File,
}

/// Everything that can be looked at without a server.
async fn prepare(args: &Args) -> anyhow::Result<Prepared> {
    let servers =
        args.server.iter().map(|told| client::parse_base(told)).collect::<anyhow::Result<Vec<Url>>>()?;
    let token = token(args)?;
    let program = media_program(args.media_program.as_deref())?;
    try_media_program(&program).await?;
    let place::Place { folder, lock } = place::take(args.scratch.as_deref())?;
    let machine = tokio::task::spawn_blocking(Machine::look).await?;
    let slots = machine::slots(&machine, args.slots);
    let worker = WorkerId::from_uuid(Uuid::now_v7());
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let hello = HelloCall {
        protocol: WORKER_PROTOCOL,
        worker,
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine::facts(&machine, slots),
    };
    let config = AgentConfig {
        worker,
        program,
        scratch: folder,
        slots,
        memory_bytes: machine.memory_bytes,
        watch: Watch::default(),
        drain: Duration::from_secs(args.drain_seconds),
    };
    let tickets = match &args.tickets_url {
        Some(url) => Some(RabbitTickets::new(RabbitSettings::new(url)).context("--tickets-url")?),
        None => None,
    };
    let link = Arc::new(Link::new(&servers, token, hello)?);
    Ok(Prepared { config, link, tickets, _lock: lock })
}

/// Until a server has taken the hello. One that is away is waited for; the link paces the tries.
async fn meet(link: &Link) -> Result<HelloAnswer, CallError> {
    let mut told_at: Option<std::time::Instant> = None;
    loop {
        match link.hello().await {
            Err(CallError::Away(reason)) => {
                if told_at.is_none_or(|at| at.elapsed() >= NOTICE_EVERY) {
                    tracing::warn!(reason, "no server yet; trying again");
                    told_at = Some(std::time::Instant::now());
                }
            }
            settled => return settled,
        }
    }
}

/// Runs the agent until it ends by itself, after a signal, or because the token is refused.
async fn until_the_end(
    agent: impl Future<Output = io::Result<()>>,
    handle: ShutdownHandle,
    link: &Link,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    tokio::pin!(agent);
    let mut code = ExitCode::SUCCESS;
    let mut signalled = 0_u32;
    let mut is_denied = false;
    loop {
        tokio::select! {
            ended = &mut agent => {
                ended.context("the scratch folder cannot be used")?;
                return Ok(code);
            }
            () = signals.next(), if signalled < 2 => {
                signalled += 1;
                if signalled == 1 {
                    tracing::info!("draining: no new tasks; a second signal gives the running ones back at once");
                    handle.drain();
                } else {
                    tracing::warn!("stopping at once: running tasks are given back");
                    code = ExitCode::from(STOPPED_AT_ONCE);
                    handle.now();
                }
            }
            why = link.denied(), if !is_denied => {
                is_denied = true;
                code = refused(&why);
                handle.now();
            }
        }
    }
}

fn refused(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::from(TOKEN_REFUSED)
}

fn token(args: &Args) -> anyhow::Result<Option<String>> {
    let text = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("reading --token-file {}", path.display()))?;
            anyhow::ensure!(text.len() <= MAX_TOKEN_BYTES, "{} is too long for a key", path.display());
            text
        }
        (None, None) => String::new(),
    };
    let text = text.trim();
    anyhow::ensure!(
        text.bytes().all(|byte| byte.is_ascii_graphic()),
        "the token holds characters that no key has; was it copied whole?"
    );
    // None: a server without keys (--insecure-open) takes it.
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn media_program(told: Option<&Path>) -> anyhow::Result<PathBuf> {
    match told {
        Some(path) => path.canonicalize().with_context(|| format!("no media program at {}", path.display())),
        None => locate_media_program().context("say where it is with --media-program"),
    }
}

/// A broken installation is told now and not by every task.
async fn try_media_program(program: &Path) -> anyhow::Result<()> {
    let look = OneJob {
        program: program.to_owned(),
        job: Job::Capabilities,
        limits: Limits::default(),
        watch: Watch::default(),
        source: None,
    };
    let found = run_once(look, |_, _| {}).await;
    let found = found.map_err(|failure| anyhow::anyhow!("{} does not work: {failure}", program.display()))?;
    let reports = found.capabilities.map(|found| found.encoders).unwrap_or_default();
    let encoders: Vec<&str> = reports.iter().filter(|one| one.opens).map(|one| one.name.as_str()).collect();
    tracing::info!(program = %program.display(), ffmpeg = found.ffmpeg, ?encoders, "media program works");
    Ok(())
}

/// Whoever waits for the file finds all of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}
