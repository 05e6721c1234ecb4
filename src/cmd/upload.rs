//! `reelyard upload`: sends a video, resuming where an earlier try stopped, and waits for it when asked.
//!
//! Exit status: 0 uploaded (with `--wait`: ready to play); 1 not uploaded, the reason is on standard error; 2 the
//! command line was wrong; 3 uploaded, but it cannot be made playable; 130 interrupted. After 1 and 130 the same
//! command goes on where this one stopped. Results go to standard output, everything else to standard error.

use super::output::{one_line, print};
use crate::client::{
    ClientError, NO_SERVER_ADVICE, Server, ServerArgs,
    backoff::{Backoff, Next},
    display::{BytesBar, Display},
    follow,
    resume::{FileIdentity, Memory},
    tus::{self, Standing},
};
use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const EXIT_NOT_PLAYABLE: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;
/// How often the bar looks at the count.
const DISPLAY_INTERVAL: Duration = Duration::from_millis(200);
const HASH_BUFFER_BYTES: usize = 1 << 20;

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
    let options = format!("{:?} {:?}", args.preset, args.title);
    let memory = Memory::of(server.base().as_str(), identity.clone(), &options);
    let mut display = Display::new(args.json);
    // Beside the transfer: the file is read a second time, mostly from the page cache.
    let digest = tokio::task::spawn_blocking({
        let path = path.clone();
        move || sha256_of(&path)
    });
    let sending = Sending {
        server: &server,
        memory: &memory,
        args,
        path: &path,
        length: identity.byte_len,
        identity: identity.clone(),
    };
    let sent = sending.send(&display).await?;
    let asset =
        sent.asset.context("the server took all bytes but names no asset; is it a Reelyard server?")?;
    let digest = digest.await?.with_context(|| path.display().to_string())?;
    // From here on the same command would find all of it sent; when it is also to wait, it should find just that.
    if !args.wait {
        memory.forget();
    }
    if sent.sha256.as_ref().is_some_and(|theirs| *theirs != digest) {
        memory.forget();
        anyhow::bail!(
            "what the server has is not what the file holds now: the file was changed while it was sent, or bytes \
             were damaged on the way; upload it again (asset {asset} holds the wrong bytes)"
        );
    }
    let mut result = json!({
        "asset": asset, "upload": sent.address, "status": server.address(&format!("v1/assets/{asset}"))?.as_str(), "byte_len": identity.byte_len, "sha256": digest,
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

struct Sending<'a> {
    server: &'a Server,
    memory: &'a Memory,
    args: &'a Args,
    path: &'a Path,
    identity: FileIdentity,
    length: u64,
}

struct Sent {
    address: String,
    asset: Option<String>,
    sha256: Option<String>,
}

impl Sending<'_> {
    /// Sends all that the server does not have yet, through whatever failures pass.
    async fn send(&self, display: &Display) -> anyhow::Result<Sent> {
        let mut backoff = Backoff::default();
        let mut bar: Option<BytesBar> = None;
        let mut best_offset = None;
        let mut begun_anew = false;
        loop {
            self.check_file()?;
            let error = match self.send_rest(display, &mut bar, &mut best_offset, &mut backoff).await {
                Ok(sent) => {
                    self.check_file()?;
                    if let Some(bar) = bar {
                        bar.end();
                    }
                    return Ok(sent);
                }
                Err(error) => error,
            };
            let (reason, retry_after) = match error {
                ClientError::Unreachable { reason, retry_after, answered } => {
                    if answered {
                        backoff.answered();
                    }
                    (reason, retry_after)
                }
                // The upload that was remembered is gone: begin anew. One just made is not, so this ends.
                ClientError::Refused { status: 404 | 410, .. }
                    if !begun_anew && self.memory.recall().is_some() =>
                {
                    begun_anew = true;
                    self.memory.forget();
                    display.say("the unfinished upload is not on the server any more; beginning anew");
                    continue;
                }
                // Somebody else moved it on, or an answer was lost: ask where it stands.
                ClientError::Refused { status: 409, detail } => (detail, None),
                other => return Err(other.into()),
            };
            match backoff.next(Instant::now(), retry_after, crate::app::random_u32()) {
                Next::Wait { pause, notice } => {
                    if let Some(notice) = notice {
                        display.warn(&format!("{reason}; {notice}"));
                    }
                    tokio::time::sleep(pause).await;
                }
                Next::GiveUp { after } if best_offset.is_none() => {
                    anyhow::bail!("{reason}; given up after {after}. {NO_SERVER_ADVICE}")
                }
                Next::GiveUp { after } => anyhow::bail!(
                    "{reason}; given up after {after} without progress, the same command goes on from here"
                ),
            }
        }
    }

    /// Half of one file and half of another would make neither.
    fn check_file(&self) -> anyhow::Result<()> {
        let facts = fs::metadata(self.path).with_context(|| self.path.display().to_string())?;
        anyhow::ensure!(
            FileIdentity::of(self.path, &facts) == self.identity,
            "{} was changed while it was being sent; run the command again to send it as it is now",
            self.path.display()
        );
        Ok(())
    }

    /// One go: ask where it stands, then chunk after chunk.
    async fn send_rest(
        &self,
        display: &Display,
        bar: &mut Option<BytesBar>,
        best_offset: &mut Option<u64>,
        backoff: &mut Backoff,
    ) -> Result<Sent, ClientError> {
        let (address, mut standing) = self.find_or_create(display).await?;
        // What arrived of a chunk that was cut counts too, so a bad line is not the same as no progress.
        let mut note = |offset: u64| {
            if best_offset.is_none_or(|best| offset > best) {
                *best_offset = Some(offset);
                backoff.progress();
            }
        };
        note(standing.offset);
        let bar = bar.get_or_insert_with(|| display.bytes("upload", standing.offset, self.length));
        while standing.offset < self.length {
            let sent = Arc::new(AtomicU64::new(standing.offset));
            let chunk =
                tus::send_chunk(self.server, &address, self.path, standing.offset, self.length, sent.clone());
            standing = shown(chunk, &sent, bar).await?;
            note(standing.offset);
            bar.set(standing.offset);
        }
        // The digest comes with HEAD; so does the asset, when the last answer was lost.
        let last = tus::standing(self.server, &address).await?;
        Ok(Sent { address, asset: last.asset, sha256: last.sha256 })
    }

    async fn find_or_create(&self, display: &Display) -> Result<(String, Standing), ClientError> {
        if let Some(address) = self.memory.recall() {
            let standing = tus::standing(self.server, &address).await?;
            if standing.length.is_none_or(|length| length == self.length) && standing.offset <= self.length {
                return Ok((address, standing));
            }
            display.say("the unfinished upload has another length; beginning anew");
            self.memory.forget();
        }
        let file_name =
            self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut metadata: Vec<(&str, &[u8])> = vec![("filename", file_name.as_bytes())];
        metadata.extend(self.args.preset.as_deref().map(|preset| ("preset", preset.as_bytes())));
        metadata.extend(self.args.title.as_deref().map(|title| ("title", title.as_bytes())));
        let address = tus::create(self.server, self.length, &metadata).await?;
        self.memory.remember(&address);
        let standing = tus::standing(self.server, &address).await?;
        Ok((address, standing))
    }
}

/// Keeps the bar moving while a chunk is under way.
async fn shown<T>(
    chunk: impl Future<Output = Result<T, ClientError>>,
    sent: &AtomicU64,
    bar: &mut BytesBar,
) -> Result<T, ClientError> {
    let mut chunk = std::pin::pin!(chunk);
    loop {
        tokio::select! {
            outcome = &mut chunk => return outcome,
            () = tokio::time::sleep(DISPLAY_INTERVAL) => bar.set(sent.load(Ordering::Relaxed)),
        }
    }
}

fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; HASH_BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            byte_len => hash.update(&buffer[..byte_len]),
        }
    }
}
