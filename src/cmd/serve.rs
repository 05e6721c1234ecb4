//! `reelyard serve`: API, playback origin and a worker on this machine.
//!
//! Everything is checked before the port opens: the data directory and its lock, the catalogue, the keys, the presets,
//! the media program, the address. SIGTERM or Ctrl-C ends it in bounded time; a second one at once. Whatever moment
//! the process ends at, the next start takes up from there.

mod background;
mod data_dir;
mod fleet;
mod keys;
mod limits;
mod listen;
pub(super) mod logging;
mod storage;

use super::signals::Signals;
use crate::{
    app::App,
    config,
    flow::{self, dispatch::fleet::Fleet},
    http::connections,
    presets::PresetFiles,
};
use anyhow::Context;
use reelyard_model::WorkerId;
use reelyard_storage::LocalStore;
use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Answers and children that are still at work after this are cut off: systemd kills at 90 s, Docker at 10 s.
const DRAIN: Duration = Duration::from_secs(8);
/// For folding the catalogue's log into its file; a log that stays is folded in at the next start.
const CLOSE: Duration = Duration::from_secs(1);

/// Children at a time of the largest machines, and some: more is a slip of the finger that would take the machine down.
const MOST_WORKERS: i64 = 256;
/// 128 and SIGINT, as shells report it.
const STOPPED_AT_ONCE: u8 = 130;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where everything is kept [default: $XDG_DATA_HOME/reelyard, or ~/.local/share/reelyard]
    #[arg(long, value_name = "DIR", env = "REELYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes any free one [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDR:PORT", env = "REELYARD_LISTEN")]
    listen: Option<SocketAddr>,
    /// Serve without API keys. Loopback addresses only.
    #[arg(long)]
    insecure_open: bool,
    /// How browsers reach this server, when something stands before it
    #[arg(long, value_name = "URL", env = "REELYARD_PUBLIC_URL")]
    public_url: Option<String>,
    /// Media tasks at a time on this machine; 0: none [default: one for each four processors]
    #[arg(long, value_name = "N", env = "REELYARD_WORKERS", value_parser = clap::value_parser!(u32).range(0..=MOST_WORKERS))]
    workers: Option<u32>,
    /// The media program [default: beside this program, else in PATH]
    #[arg(long, value_name = "PATH", env = "REELYARD_MEDIA_PROGRAM")]
    media_program: Option<PathBuf>,
    #[command(flatten)]
    presets: PresetFiles,
    #[command(flatten)]
    storage: storage::StorageArgs,
    #[command(flatten)]
    fleet: fleet::FleetArgs,
    #[command(flatten)]
    limits: limits::LimitArgs,
    /// Largest upload that is accepted
    #[arg(long, value_name = "BYTES", env = "REELYARD_MAX_UPLOAD_BYTES", default_value_t = reelyard_upload::DEFAULT_MAX_UPLOAD_BYTES)]
    max_upload_bytes: u64,
    /// Length of leases; for tests, which do not want to wait for one to run out
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lease_seconds: Option<u64>,
    /// How the log is written to standard error
    #[arg(long, value_enum, default_value_t = logging::Format::Pretty, env = "REELYARD_LOG_FORMAT")]
    log_format: logging::Format,
    /// Write the server's URL to this file once it answers (for scripts)
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::start(args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(serve(args));
    // Blocking threads (file work that nobody waits for any more) do not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    // Before anybody can be told that the server is ready, and so can want to stop it.
    let mut signals = Signals::listen()?;
    let Prepared { app, new_admin_key, directory } = tokio::select! {
        prepared = prepare(&args) => prepared?,
        // Nothing runs yet, and whatever was half made is made whole by the next start.
        () = signals.next() => return Ok(ExitCode::from(STOPPED_AT_ONCE)),
    };
    let listener = listen::bind(args.listen).await?;
    let url = listen::url(&listener)?;
    // Before anybody is told, so that a command that is run at once finds it.
    directory.announce(&url)?;
    say(&greeting(&app, &url, new_admin_key.as_deref()));
    if !listener.local_addr()?.ip().is_loopback() && app.public_url.is_none() {
        tracing::warn!(
            "this address is open to the network without TLS: put a proxy with TLS before it, and say its address with --public-url"
        );
    }

    let background = background::start(&app, args.workers, app.tickets.clone()).await?;
    let server = tokio::spawn(connections::serve(
        listener,
        crate::http::router(app.clone()),
        connections::Limits::of_this_process(),
        app.shutdown.clone(),
    ));
    if let Some(path) = &args.ready_file {
        data_dir::write_whole(path, format!("{url}\n").as_bytes(), 0o644)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    signals.next().await;
    let code = stop(&app, server, background, &mut signals).await?;
    directory.retract();
    // The lock goes last: the next server may start when nothing of this one writes any more.
    drop(directory);
    Ok(code)
}

/// What there is when all is in order and only the port is missing.
struct Prepared {
    app: Arc<App>,
    new_admin_key: Option<String>,
    directory: data_dir::DataDir,
}

async fn prepare(args: &Args) -> anyhow::Result<Prepared> {
    listen::check_open(args.insecure_open, args.listen)?;
    if let Some(url) = &args.public_url {
        check_public_url(url)?;
    }
    args.fleet.check(args.storage.is_shared())?;
    let presets = args.presets.load()?;
    let media_program = data_dir::media_program(args.media_program.as_deref())?;
    let directory = data_dir::open(args.data_dir.clone().unwrap_or_else(config::default_data_dir))?;
    let path = &directory.path;
    let node = fleet::node_name(path)?;
    let catalog = args.fleet.open_catalog(path).await?;
    let keys = keys::open(&args.fleet, path, &catalog).await?;
    let new_admin_key =
        if args.insecure_open { None } else { keys::admin(&args.fleet, path, &catalog, &node).await? };
    let store = LocalStore::open(path).await?;
    let storage = args.storage.open(&store, &catalog, &node, args.fleet.is_fleet()).await?;
    let app = Arc::new(App {
        desk: flow::desk::Desk::open(&catalog),
        layouts: flow::dispatch::layouts::Layouts::default(),
        orders: flow::dispatch::orders::Orders::watch(&catalog),
        catalog,
        node,
        uploads: storage.uploads,
        holders: storage.holders,
        sources_in_pieces: storage.in_pieces,
        store: storage.objects,
        keyring: keys.playback,
        upload_keys: keys.uploads,
        limits: args.limits.limits(),
        presets,
        data_dir: path.clone(),
        insecure_open: args.insecure_open,
        public_url: args.public_url.clone(),
        max_upload_bytes: args.max_upload_bytes.min(reelyard_upload::MAX_UPLOAD_BYTES),
        media_program,
        fleet: args
            .lease_seconds
            .map_or_else(Fleet::default, |seconds| Fleet::with_leases_of(seconds * 1000)),
        control_worker: WorkerId::from_uuid(Uuid::now_v7()),
        tickets: args.fleet.open_tickets()?,
        ticket: Notify::new(),
        publish_ticket: Notify::new(),
        relay_ticket: Notify::new(),
        swept_ticket: Notify::new(),
        concatenate_ticket: Notify::new(),
        assemble_ticket: Notify::new(),
        shutdown: CancellationToken::new(),
    });
    let healed = flow::receive::recover(&app).await.context("taking up unfinished uploads")?;
    if healed > 0 {
        tracing::info!(healed, "receive: finished uploads that an earlier process had left");
    }
    Ok(Prepared { app, new_admin_key, directory })
}

/// In bounded time: answers and tasks in hand get a few seconds, then they are cut off; what they were at is taken up
/// by the next start.
async fn stop(
    app: &App,
    server: JoinHandle<()>,
    background: background::Background,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    tracing::info!("stopping; a second signal stops at once");
    app.shutdown.cancel();
    let drained = async { tokio::join!(server, background.stop()).0 };
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, drained) => match drained {
            Ok(server) => server?,
            Err(_) => {
                tracing::warn!(limit_s = DRAIN.as_secs(), "some requests or tasks did not end in time and are cut off");
            }
        },
        () = signals.next() => {
            tracing::warn!("stopped at once");
            return Ok(ExitCode::from(STOPPED_AT_ONCE));
        }
    }
    let _ = tokio::time::timeout(CLOSE, app.catalog.close()).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn check_public_url(url: &str) -> anyhow::Result<()> {
    let parsed = reqwest::Url::parse(url).with_context(|| format!("--public-url {url}"))?;
    anyhow::ensure!(
        matches!(parsed.scheme(), "http" | "https") && parsed.host().is_some() && parsed.query().is_none(),
        "--public-url {url}: give it as https://video.example, without a query"
    );
    Ok(())
}

fn greeting(app: &App, url: &str, new_admin_key: Option<&str>) -> String {
    let key_file = app.data_dir.join(config::ADMIN_KEY_FILE);
    let keys = match new_admin_key {
        Some(key) => format!("admin key: {key}\n  (shown this once; it stays in {})", key_file.display()),
        None if app.insecure_open => {
            "no keys needed (--insecure-open): everybody on this machine may use it".to_owned()
        }
        None if !key_file.exists() => {
            "the admin key was shown by the node that was the first to start; `reelyard keys add` makes more"
                .to_owned()
        }
        None => format!("admin key in {}", key_file.display()),
    };
    format!("Reelyard serves at {url}\n  data in {}\n  {keys}\n", app.data_dir.display())
}

/// On standard output, which may be closed: that is no reason not to serve.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
