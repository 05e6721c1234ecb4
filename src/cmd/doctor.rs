//! `reelyard doctor`: what this machine can do, and what to do about what it cannot.
//!
//! Looks, changes nothing. Exit status 1 when something is missing without which no video can be made; a weaker sandbox
//! or no graphics card is said but is no reason.

use super::{
    output::print,
    probe::{MediaProgram, bytes, runtime},
};
use crate::config::default_data_dir;
use reelyard_agent::{Gpu, Gpus, Machine, OneJob, Slots, Watch, is_in_force, run_once};
use reelyard_model::{
    Failure,
    child::{Capabilities, Job, Limits},
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Encoders of which one is enough.
const H264_ENCODERS: &[&str] = &[NVENC, "libx264"];
const NVENC: &str = "h264_nvenc";
/// An hour of 1080p with its ladder is about as much.
const LITTLE_DISK_BYTES: u64 = 10 << 30;
/// Below it not even a short film can be taken in.
const LEAST_DISK_BYTES: u64 = 1 << 30;
/// Opening all encoders takes under a second; a driver that has to wake a card takes some.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    program: MediaProgram,
    /// Where the server keeps, or will keep, everything [default: as for `serve`]
    #[arg(long, value_name = "DIR", env = "REELYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    /// Works, but less well or less safely.
    Weak,
    /// Nothing can be made like this.
    Missing,
    /// Neither good nor bad.
    Fact,
}

#[derive(Debug, Serialize)]
struct Finding {
    topic: &'static str,
    state: State,
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    usable: bool,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let data_dir = args.data_dir.unwrap_or_else(default_data_dir);
    let mut findings = Vec::new();
    let machine = Machine::look();
    look_at_machine(&machine, &mut findings);
    let capabilities = match ask_child(&args.program)? {
        Ok((program, sandbox, capabilities)) => {
            look_at_media(&program, &capabilities, has_encoding_card(&machine), &mut findings);
            look_at_sandbox(&sandbox, &mut findings);
            Some(capabilities)
        }
        Err(finding) => {
            findings.push(finding);
            None
        }
    };
    look_at_disk(&data_dir, &mut findings);
    let usable = !findings.iter().any(|finding| finding.state == State::Missing);
    let report = Report { version: env!("CARGO_PKG_VERSION"), usable, findings, capabilities };
    print(&if args.json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { table(&report) })?;
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Finding {
    fn new(topic: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { topic, state, text: text.into(), advice: None }
    }
    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

fn look_at_machine(machine: &Machine, findings: &mut Vec<Finding>) {
    let slots = Slots::for_machine(machine.cores, machine.memory_bytes);
    findings.push(Finding::new(
        "machine",
        State::Fact,
        format!(
            "{} cores, {} of memory: {} encode(s) at a time with {} thread(s) each, and {} smaller task(s)",
            machine.cores,
            bytes(machine.memory_bytes),
            slots.heavy,
            slots.threads,
            slots.light
        ),
    ));
    match &machine.gpus {
        Gpus::None(reason) => findings.push(Finding::new("gpu", State::Fact, format!("none: {reason}"))),
        Gpus::Found { cards, silent } => {
            findings.extend(cards.iter().map(|card| Finding::new("gpu", State::Fact, gpu_text(card))));
            findings.extend(silent.iter().map(|reason| {
                Finding::new("gpu", State::Weak, reason.clone()).advise(
                    "the kernel's log says more: dmesg | grep -i -e nvrm -e xid; often only a restart helps",
                )
            }));
        }
    }
}

fn gpu_text(card: &Gpu) -> String {
    let memory = match card.memory {
        Some(memory) => format!("{} of {} free", bytes(memory.free_bytes), bytes(memory.total_bytes)),
        None => "memory unknown".to_owned(),
    };
    let encoder = match card.h264_encoder_percent_free {
        Some(percent) => format!("H.264 encoder {percent} % free"),
        None => "no H.264 encoder".to_owned(),
    };
    format!("{}, driver {}, {memory}, {encoder}", card.name, card.driver)
}

/// The child's own word. The outer error: this program cannot even try.
#[allow(clippy::type_complexity)]
fn ask_child(
    program: &MediaProgram,
) -> anyhow::Result<Result<(PathBuf, Vec<String>, Capabilities), Finding>> {
    let program = match program.find() {
        Ok(program) => program,
        Err(error) => return Ok(Err(Finding::new("media", State::Missing, format!("{error:#}")))),
    };
    let one = OneJob {
        program: program.clone(),
        job: Job::Capabilities,
        limits: Limits::default(),
        watch: Watch { no_progress: PATIENCE, wall_clock: PATIENCE, ..Watch::default() },
        source: None,
    };
    let done = runtime()?.block_on(run_once(one, |_, _| ()));
    let found = done.and_then(|done| {
        let nothing =
            || Failure::new(reelyard_model::FailureCode::Internal, "it said nothing of its capabilities");
        Ok((done.sandbox, done.capabilities.ok_or_else(nothing)?))
    });
    Ok(found.map(|(sandbox, capabilities)| (program.clone(), sandbox, capabilities)).map_err(|failure| {
        let last = failure.stderr_tail.lines().last().unwrap_or_default();
        let finding = Finding::new(
            "media",
            State::Missing,
            format!("{}: {} {last}", program.display(), failure.detail),
        );
        finding.advise(format!(
            "run it by hand to see whether its libraries are found: ldd {}",
            program.display()
        ))
    }))
}

fn has_encoding_card(machine: &Machine) -> bool {
    match &machine.gpus {
        Gpus::Found { cards, .. } => cards.iter().any(|card| card.h264_encoder_percent_free.is_some()),
        Gpus::None(_) => false,
    }
}

fn look_at_media(
    program: &Path,
    capabilities: &Capabilities,
    encoding_card: bool,
    findings: &mut Vec<Finding>,
) {
    findings.push(Finding::new("media", State::Good, program.display().to_string()));
    findings.push(Finding::new("ffmpeg", State::Good, capabilities.ffmpeg_version.clone()));
    let encodes =
        |encoder: &str| capabilities.encoders.iter().any(|found| found.name == encoder && found.opens);
    let has_h264 = H264_ENCODERS.iter().any(|encoder| encodes(encoder));
    for encoder in &capabilities.encoders {
        let reason = encoder.reason.as_deref().unwrap_or("no reason given");
        let one_of_several = H264_ENCODERS.contains(&encoder.name.as_str()) && has_h264;
        findings.push(match (encoder.opens, one_of_several) {
            (true, _) => Finding::new("encoder", State::Good, format!("{} opens", encoder.name)),
            // A card that was bought for this, and stays idle.
            (false, true) if encoding_card && encoder.name == NVENC => {
                Finding::new("encoder", State::Weak, format!("{} does not open: {reason}", encoder.name)).advise(
                    "a card could encode: it needs libnvidia-encode.so.1 and libcuda.so.1 of the driver; a container \
                     gets them with NVIDIA_DRIVER_CAPABILITIES=compute,video,utility",
                )
            }
            (false, true) => {
                Finding::new("encoder", State::Fact, format!("{} does not open: {reason}", encoder.name))
            }
            (false, false) => {
                Finding::new("encoder", State::Missing, format!("{} does not open: {reason}", encoder.name))
            }
        });
    }
    if !has_h264 {
        findings.push(Finding::new("encoder", State::Missing, "no H.264 encoder opens").advise(
            "install an FFmpeg with libx264: on Debian and Ubuntu, apt-get install libavcodec-extra",
        ));
    }
}

fn look_at_sandbox(layers: &[String], findings: &mut Vec<Finding>) {
    let (in_force, missing): (Vec<&String>, Vec<&String>) =
        layers.iter().partition(|layer| is_in_force(layer));
    let names: Vec<&str> = in_force.iter().map(|layer| layer.as_str()).collect();
    let state = if missing.is_empty() && !names.is_empty() { State::Good } else { State::Weak };
    let text = if names.is_empty() { "no layer is in force".to_owned() } else { names.join(", ") };
    findings.push(Finding::new("sandbox", state, text));
    for layer in missing {
        let finding = Finding::new("sandbox", State::Weak, layer.clone());
        findings.push(match layer.split(' ').next() {
            Some("landlock") => {
                finding.advise("the next best is taken, see chroot; better: Linux 5.13 or newer, booted with landlock in lsm=")
            }
            Some("chroot") => finding.advise("the media child could read the files that this user can read"),
            Some("seccomp") => {
                finding.advise("the media child could open sockets; allow seccomp (a container may forbid it)")
            }
            _ => finding,
        });
    }
}

fn look_at_disk(data_dir: &Path, findings: &mut Vec<Finding>) {
    // It need not exist yet: then the folder counts in which it would be made.
    let Some(present) = data_dir.ancestors().find(|folder| folder.exists()) else {
        findings.push(Finding::new(
            "data",
            State::Missing,
            format!("no folder above {} exists", data_dir.display()),
        ));
        return;
    };
    let named = data_dir.display();
    let how = if present == data_dir { "" } else { " (not made yet)" };
    if rustix::fs::access(present, rustix::fs::Access::WRITE_OK).is_err() {
        findings.push(
            Finding::new("data", State::Missing, format!("{} cannot be written", present.display()))
                .advise("choose another with --data-dir, or give this user the right to write there"),
        );
        return;
    }
    findings.push(match rustix::fs::statvfs(present) {
        Err(error) => Finding::new("data", State::Weak, format!("{named}{how}: free space unknown: {error}")),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let text = format!("{named}{how}: {} free", bytes(free));
            match free {
                ..LEAST_DISK_BYTES => Finding::new("data", State::Missing, text)
                    .advise("make room, or choose a larger disk with --data-dir"),
                LEAST_DISK_BYTES..LITTLE_DISK_BYTES => {
                    Finding::new("data", State::Weak, text).advise("enough for short films only")
                }
                _ => Finding::new("data", State::Good, text),
            }
        }
    });
}

fn table(report: &Report) -> String {
    let mut lines = vec![format!("reelyard {}", report.version)];
    for Finding { topic, state, text, advice } in &report.findings {
        let mark = match state {
            State::Good => "ok",
            State::Weak => "weak",
            State::Missing => "MISSING",
            State::Fact => "",
        };
        lines.push(format!("  {mark:<8}{topic:<9}{text}"));
        lines.extend(advice.iter().map(|advice| format!("  {:<17}-> {advice}", "")));
    }
    lines.push(if report.usable {
        "This machine can take videos in and make streams of them.".to_owned()
    } else {
        "Something essential is missing: see MISSING above.".to_owned()
    });
    lines.join("\n") + "\n"
}
