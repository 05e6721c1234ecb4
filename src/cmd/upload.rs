//! `reelyard upload`: sends a video, resuming where an earlier try stopped, and waits for it when asked.
//!
//! Exit status: 0 uploaded (with `--wait`: ready to play); 1 not uploaded, the reason is on standard error; 2 the
//! command line was wrong; 3 uploaded, but it cannot be made playable; 130 interrupted. After 1 and 130 the same
//! command goes on where this one stopped. Results go to standard output, everything else to standard error.

use super::output::{one_line, print};
use crate::client::{
    ServerArgs,
    display::Display,
    follow,
    resume::{FileIdentity, Memory},
    transfer::{OTHER_BYTES_ADVICE, Sent, Transfer},
};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

const EXIT_NOT_PLAYABLE: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;
const DEFAULT_PARALLEL: u8 = 4;
/// Each part under way is in memory, and a server takes so many connections of one client at best.
const MAX_PARALLEL: i64 = 16;

#[derive(clap::Args)]
#[command(
    after_help = "Exit status: 0 uploaded (with --wait: ready to play), 1 not uploaded, 2 wrong command line, \
3 uploaded but it cannot be made playable, 130 interrupted. After 1 and 130 the same command goes on where this one \
stopped."
)]
pub(crate) struct Args {
    /// The video to upload
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    /// The recipe to process it with
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Title of the video [default: the file's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// How urgent it is: urgent (takes an admin key), normal, or bulk for what can wait [default: normal]
    #[arg(long, value_name = "TIER", value_parser = ["urgent", "normal", "bulk"])]
    tier: Option<String>,
    /// Parts of the file that are sent at the same time
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PARALLEL, value_parser = clap::value_parser!(u8).range(1..=MAX_PARALLEL))]
    parallel: u8,
    /// Hash the whole file before anything is sent; if the server has it already, nothing is
    #[arg(long)]
    ask_first: bool,
    /// Wait until the video is ready to play, and print where
    #[arg(long)]
    wait: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(async {
        tokio::select! {
            outcome = upload(&args) => outcome,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("\ninterrupted; the same command goes on from here");
                Ok(ExitCode::from(EXIT_INTERRUPTED))
            }
        }
    });
    // The thread that hashes the file may have hours to go; nobody waits for it any more.
    runtime.shutdown_background();
    if let Err(error) = &code
        && args.json
    {
        print(&format!("{}\n", json!({ "error": format!("{error:#}") })))?;
    }
    code
}

async fn upload(args: &Args) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let path = fs::canonicalize(&args.file).with_context(|| args.file.display().to_string())?;
    let facts = fs::metadata(&path).with_context(|| path.display().to_string())?;
    anyhow::ensure!(facts.is_file(), "{} is not a file", path.display());
    let identity = FileIdentity::of(&path, &facts);
    let server = args.server.server()?;
    let mut options = format!("{:?} {:?}", args.preset, args.title);
    if let Some(tier) = &args.tier {
        options = format!("{options} {tier}");
    }
    let memory = Memory::of(server.base().as_str(), identity.clone(), &options);
    let mut display = Display::new(args.json);
    let mut transfer = Transfer::new(&server, &memory, &display, (&path, identity.clone()));
    transfer.preset = args.preset.as_deref();
    transfer.title = args.title.as_deref();
    transfer.tier = args.tier.as_deref();
    transfer.parallel = usize::from(args.parallel);
    transfer.ask_first = args.ask_first;
    let Sent { address, asset, server_sha256, sha256 } = transfer.run().await?;
    let asset = asset.context("the server took all bytes but names no asset; is it a Reelyard server?")?;
    // From here on the same command would find all of it sent; when it is also to wait, it should find just that.
    if !args.wait {
        memory.forget();
    }
    if server_sha256.is_some_and(|theirs| theirs != sha256) {
        memory.forget();
        anyhow::bail!("{OTHER_BYTES_ADVICE} (asset {asset} holds the wrong bytes)");
    }
    let mut result = json!({
        "asset": asset, "upload": address, "status": server.address(&format!("v1/assets/{asset}"))?.as_str(), "byte_len": identity.byte_len, "sha256": sha256,
        "seconds": seconds(began), "state": null, "playback": null, "failure": null,
    });
    let mut code = ExitCode::SUCCESS;
    if args.wait {
        let shown = follow::until_settled(&server, &asset, &mut display).await?;
        memory.forget();
        for member in ["state", "playback", "failure"] {
            result[member] = shown.get(member).cloned().unwrap_or(Value::Null);
        }
        result["seconds"] = json!(seconds(began));
        if follow::text(&shown, "state") != "ready" {
            code = ExitCode::from(EXIT_NOT_PLAYABLE);
        }
    }
    report(args, &result)?;
    Ok(code)
}

fn seconds(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

fn report(args: &Args, result: &Value) -> anyhow::Result<()> {
    if args.json {
        print(&format!("{result}\n"))?;
        return Ok(());
    }
    let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).map(one_line);
    let mut lines = vec![format!("uploaded  asset {}", text("/asset").unwrap_or_default())];
    match text("/state").as_deref() {
        None => lines.push(format!("status    {}", text("/status").unwrap_or_default())),
        Some("ready") => {
            lines.push(format!("ready     in {:.1} s", result["seconds"].as_f64().unwrap_or_default()));
            for (name, pointer) in
                [("watch", "/playback/watch"), ("HLS", "/playback/hls"), ("DASH", "/playback/dash")]
            {
                lines.extend(text(pointer).map(|address| format!("{name:10}{address}")));
            }
        }
        Some(state) => {
            let reason = text("/failure/message").unwrap_or_else(|| "The server gives no reason.".to_owned());
            eprintln!("{state}: {reason}");
        }
    }
    print(&(lines.join("\n") + "\n"))?;
    Ok(())
}
