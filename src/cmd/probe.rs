//! `reelyard probe FILE`: the facts about a media file, measured by the media child under the same walls as any upload.
//!
//! Exit status 1 when the file cannot be used; the reason is the sentence that a creator would get, and the detail.

use super::output::print;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use reelyard_agent::{OneJob, Slots, Watch, locate_media_program, run_once};
use reelyard_model::{
    Failure, MediaInfo,
    child::{Job, Limits},
    media_info::{AudioTrack, FrameRate, Hdr, VideoTrack},
};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Print the facts as JSON
    #[arg(long)]
    json: bool,
}

/// What `probe` and `plan` both need.
#[derive(clap::Args)]
pub(super) struct Source {
    /// The media file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    program: MediaProgram,
}

#[derive(clap::Args)]
pub(super) struct MediaProgram {
    /// The media program [default: beside this program, else in PATH]
    #[arg(long, value_name = "PATH", env = "REELYARD_MEDIA_PROGRAM")]
    media_program: Option<PathBuf>,
}

impl MediaProgram {
    pub(super) fn find(&self) -> anyhow::Result<PathBuf> {
        match &self.media_program {
            // The child is started from its scratch directory: a relative path would be looked for there.
            Some(told) => {
                told.canonicalize().with_context(|| format!("no media program at {}", told.display()))
            }
            None => Ok(locate_media_program()?),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.source.measure()? {
        Ok(info) if args.json => print(&format!("{}\n", serde_json::to_string_pretty(&info)?)),
        Ok(info) => print(&table(&args.source.file, &info)),
        Err(failure) => refuse(&args.source.file, &failure, args.json),
    }
}

impl Source {
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Outer error: our side. Inner: the file, or what its reading ran into.
    pub(super) fn measure(&self) -> anyhow::Result<Result<Box<MediaInfo>, Failure>> {
        let named = || format!("{} cannot be read", self.file.display());
        let source = File::open(&self.file).with_context(named)?;
        anyhow::ensure!(
            source.metadata().with_context(named)?.is_file(),
            "{} is not a file",
            self.file.display()
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let one = OneJob {
            program: self.program.find()?,
            job: Job::Probe,
            limits: Limits { threads: Slots::for_machine(cores, u64::MAX).threads, ..Limits::default() },
            watch: Watch::default(),
            source: Some(source),
        };
        let bar = reading_bar(&self.file);
        let shown = bar.clone();
        let work = run_once(one, move |done, total| {
            shown.set_length(total.max(1).unsigned_abs());
            shown.set_position(done.max(0).unsigned_abs());
        });
        let outcome = runtime()?.block_on(async {
            tokio::select! {
                outcome = work => outcome,
                // Dropping the work kills the child and removes its scratch directory.
                _ = tokio::signal::ctrl_c() => {
                    Err(Failure::new(reelyard_model::FailureCode::Cancelled, "interrupted"))
                }
            }
        });
        bar.finish_and_clear();
        Ok(outcome.and_then(|done| {
            let nothing = || Failure::new(reelyard_model::FailureCode::Internal, "the child gave no facts");
            let mut info = done.info.ok_or_else(nothing)?;
            info.warnings.extend(done.warnings);
            info.warnings.dedup();
            Ok(info)
        }))
    }
}

/// One thread is plenty: the work is in the child.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Seen on a terminal only, and only when there is something to wait for.
fn reading_bar(file: &Path) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {percent:>3} %") {
        bar.set_style(style);
    }
    bar.set_message(format!("Reading {}", file.display()));
    bar
}

/// Says why a file cannot be used: both the public and the operator's text, for whoever runs this has both hats on.
pub(super) fn refuse(file: &Path, failure: &Failure, json: bool) -> anyhow::Result<ExitCode> {
    if failure.code == reelyard_model::FailureCode::Cancelled {
        eprintln!("interrupted");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    if json {
        let failure = serde_json::json!({
            "failure": {
                "code": failure.code,
                "class": failure.class(),
                "message": failure.code.for_creator(),
                "detail": failure.detail,
                "stderr_tail": failure.stderr_tail,
            }
        });
        print(&format!("{}\n", serde_json::to_string_pretty(&failure)?))?;
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("{}: {}", file.display(), failure.code.for_creator());
    eprintln!("  detail: {:?}: {}", failure.code, failure.detail);
    if failure.class() != reelyard_model::FailureClass::BadInput {
        for line in failure.stderr_tail.lines().rev().take(STDERR_LINES).collect::<Vec<_>>().iter().rev() {
            eprintln!("  child: {line}");
        }
    }
    Ok(ExitCode::FAILURE)
}

const EXIT_INTERRUPTED: u8 = 130;
/// Of the child's standard error, when it is not the file's fault.
const STDERR_LINES: usize = 10;

fn table(file: &Path, info: &MediaInfo) -> String {
    let mut lines = vec![format!(
        "{}: {}, {}, {}",
        file.display(),
        info.container,
        clock(info.duration_us),
        bytes(info.byte_len)
    )];
    if let Some(declared) =
        info.declared_duration_us.filter(|declared| (declared - info.duration_us).abs() > 500_000)
    {
        lines.push(format!("  the container says {}", clock(declared)));
    }
    let mut row =
        |index: u32, kind: &str, text: String| lines.push(format!("  #{index:<3} {kind:<10} {text}"));
    for track in &info.video {
        row(track.index, "video", video(track));
        row(track.index, "", pictures(track));
    }
    for track in &info.audio {
        row(track.index, "audio", audio(track));
    }
    for track in &info.other {
        let language = track.language.as_deref().map(|language| format!(", {language}")).unwrap_or_default();
        row(track.index, &track.kind, format!("{}{language}", track.codec));
    }
    lines.extend(info.warnings.iter().map(|warning| format!("  note: {warning}")));
    lines.join("\n") + "\n"
}

fn video(track: &VideoTrack) -> String {
    let mut parts = vec![match &track.profile {
        Some(profile) => format!("{} ({profile})", track.codec),
        None => track.codec.clone(),
    }];
    parts.push(format!("{}x{}", track.width, track.height));
    if track.sample_aspect_ratio != reelyard_model::Rational::ONE {
        parts.push(format!("pixels {}", track.sample_aspect_ratio));
    }
    match (track.orientation.mirrored, track.orientation.quarter_turns_clockwise) {
        (false, 0) => {}
        (false, turns) => parts.push(format!("turned {} degrees", u32::from(turns) * 90)),
        (true, turns) => parts.push(format!("mirrored, turned {} degrees", u32::from(turns) * 90)),
    }
    parts.push(match track.frame_rate {
        FrameRate::Constant { rate } => format!("{:.3} pictures/s", rate.as_f64()),
        FrameRate::Variable { average, highest } => {
            format!("{:.3} pictures/s on average, up to {:.3}", average.as_f64(), highest.as_f64())
        }
    });
    if track.interlaced {
        parts.push("interlaced".to_owned());
    }
    parts.extend(track.bit_rate.map(|rate| format!("{} kbit/s", rate / 1000)));
    parts.join(", ")
}

fn pictures(track: &VideoTrack) -> String {
    let colour = &track.colour;
    let range = if colour.full_range { "full" } else { "limited" };
    let hdr = match colour.hdr {
        Hdr::None => "SDR",
        Hdr::Pq => "HDR (PQ)",
        Hdr::Hlg => "HDR (HLG)",
    };
    format!(
        "{} pictures, {} keyframes, {} ({} bit), colour {}/{}/{} {range} range, {hdr}{}",
        track.frame_count,
        track.keyframes.len(),
        track.pixel_format,
        track.bit_depth,
        colour.primaries,
        colour.transfer,
        colour.matrix,
        if colour.dolby_vision { ", Dolby Vision" } else { "" },
    )
}

fn audio(track: &AudioTrack) -> String {
    let mut parts = vec![
        track.codec.clone(),
        format!("{} Hz", track.sample_rate),
        if track.channel_layout.is_empty() {
            format!("{} channels", track.channels)
        } else {
            track.channel_layout.clone()
        },
        clock(track.duration_us),
    ];
    if track.start_us != 0 {
        parts.push(format!("starts at {:+.3} s", track.start_us as f64 / 1e6));
    }
    parts.extend(track.language.clone());
    parts.extend(track.bit_rate.map(|rate| format!("{} kbit/s", rate / 1000)));
    parts.join(", ")
}

/// `1:02:03.456`.
fn clock(microseconds: i64) -> String {
    let milliseconds = microseconds.max(0) / 1000;
    let (seconds, milliseconds) = (milliseconds / 1000, milliseconds % 1000);
    format!("{}:{:02}:{:02}.{milliseconds:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(super) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::{bytes, clock};

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(clock(3_723_456_789), "1:02:03.456");
        assert_eq!(clock(-5), "0:00:00.000");
        assert_eq!(bytes(1536), "1.50 KiB");
    }
}
