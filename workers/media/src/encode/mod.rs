//! The encode job: one chunk of the source, decoded once, in every rung.
//!
//! ```text
//!  decode ──▶ normalise ──▶ 1080p ─┬──▶ 720p ────▶ 360p      one thread each, short queues of references;
//!                                  └──▶ 480p ────▶ 240p      every rung also encodes and writes its segments
//! ```
//! A rung scales the picture of a larger rung, not of the source, which is cheaper: see `cascade` for which. Damage in
//! the source is passed over; what it leaves out is held.

mod cascade;
mod encoder;
mod feed;
mod package;
mod rung;
mod timeline;

use crate::{
    context::Context,
    normalise::{Normaliser, NormaliserOptions},
    pictures::PictureReader,
};
use reelyard_ffmpeg::Length;
use reelyard_model::{
    Failure, FailureCode,
    child::EncoderChoice,
    output::TrackOutput,
    plan::{Chunk, VideoPlan},
    rational::rescale_ticks,
};
use rung::{Item, Progress, RungJob};
use std::{
    sync::{
        Arc,
        atomic::AtomicI64,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};
use timeline::Timeline;

/// Pictures waiting between two threads: enough to even out B-frames and GOPs.
const QUEUE_PICTURES: usize = 8;
/// The same for pictures as decoded, which may be 8K: 100 MiB each in ten bits.
const QUEUE_RAW_PICTURES: usize = 3;

pub(crate) fn run(
    context: &Context,
    plan: &VideoPlan,
    chunk: Chunk,
    choice: EncoderChoice,
) -> Result<(String, Vec<TrackOutput>), Failure> {
    check_plan(plan)?;
    let encoder_name = encoder::choose(choice, plan)?;
    // Only to show how far the last chunk is.
    let length = if chunk.end_pts.is_some() { Length::NotWanted } else { Length::Wanted };
    let mut reader = PictureReader::open(context, plan.source_track, length)?;
    reader.end_at(chunk.end_pts);
    if chunk.index > 0 {
        reader.seek_to_keyframe(chunk.start_pts)?;
    }
    let timeline = Timeline::new(plan, chunk);
    let normaliser = normaliser(context, plan, &reader)?;
    let colour = normaliser.output_colour();
    let chunk_start_ticks = timeline.start_ticks;
    let progress = Arc::new(Progress {
        context: context.clone(),
        done: plan.rungs.iter().map(|_| AtomicI64::new(0)).collect(),
        timescale: plan.timescale,
        total_us: total_us(plan, &timeline, &reader),
    });
    let rung_threads = encoder::threads_per_rung(&plan.rungs, context.threads());
    let outcomes: Vec<Result<Vec<TrackOutput>, Failure>> = thread::scope(|scope| {
        let (top, mut from, mut to) = channels(&cascade::sources(&plan.rungs));
        let mut rungs = Vec::new();
        for (position, rung) in plan.rungs.iter().enumerate() {
            let job = RungJob {
                context,
                plan,
                chunk,
                chunk_start_ticks,
                rung,
                position,
                encoder_name,
                threads: rung_threads[position],
                colour,
                progress: progress.clone(),
            };
            let (above, below) = (from.remove(0), to.remove(0));
            rungs.push(scope.spawn(move || job.run(above, below).map(|track| vec![track])));
        }
        let (raw_pictures, raw_receiver) = mpsc::sync_channel(QUEUE_RAW_PICTURES);
        let normalising = scope
            .spawn(move || feed::normalise(raw_receiver, &top, normaliser, timeline).map(|()| Vec::new()));
        let decoded = feed::decode(context, &mut reader, plan, chunk, &raw_pictures, &progress);
        drop(raw_pictures);
        let mut outcomes = vec![decoded.map(|()| Vec::new())];
        outcomes.extend([normalising].into_iter().chain(rungs).map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Failure::new(FailureCode::Internal, "an encoding thread panicked")))
        }));
        outcomes
    });
    let tracks = tracks_or_reason(outcomes)?;
    if reader.damaged > 0 {
        context.warn("Parts of the picture are damaged in the file; they were passed over.");
    }
    Ok((encoder_name.to_owned(), tracks))
}

/// Where the normaliser sends, where each rung receives, and to whom each rung hands down.
type Channels = (SyncSender<Item>, Vec<Receiver<Item>>, Vec<Vec<SyncSender<Item>>>);

/// One queue into each rung; `sources` says who fills it (`cascade::sources`).
fn channels(sources: &[Option<usize>]) -> Channels {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        sources.iter().map(|_| mpsc::sync_channel(QUEUE_PICTURES)).unzip();
    let top = senders[0].clone();
    let mut below: Vec<Vec<SyncSender<Item>>> = sources.iter().map(|_| Vec::new()).collect();
    for (source, sender) in sources.iter().zip(senders) {
        if let Some(source) = source {
            below[*source].push(sender);
        }
    }
    (top, receivers, below)
}

/// All tracks, or the failure that came first in the flow and is not just the echo of another's.
fn tracks_or_reason(outcomes: Vec<Result<Vec<TrackOutput>, Failure>>) -> Result<Vec<TrackOutput>, Failure> {
    let mut tracks = Vec::new();
    let mut echo = None;
    for outcome in outcomes {
        match outcome {
            Ok(made) => tracks.extend(made),
            Err(failure) if rung::is_cut_off(&failure) => echo = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    echo.map_or(Ok(tracks), Err)
}

fn normaliser(context: &Context, plan: &VideoPlan, reader: &PictureReader) -> Result<Normaliser, Failure> {
    let top = &plan.rungs[0];
    Normaliser::new(NormaliserOptions {
        width: top.width,
        height: top.height,
        orientation: plan.orientation,
        deinterlace: plan.deinterlace,
        colour: plan.colour,
        scaler: plan.encoder.scaler.clone(),
        time_base: reader.time_base,
        threads: context.threads(),
    })
}

fn total_us(plan: &VideoPlan, timeline: &Timeline, reader: &PictureReader) -> i64 {
    let ticks_to_us =
        reelyard_model::Rational { numerator: 1, denominator: i64::from(plan.timescale.max(1)) };
    let us = |ticks: i64| rescale_ticks(ticks, ticks_to_us, 1_000_000);
    match timeline.end_ticks {
        Some(end) => us(end),
        None => (reader.declared_duration_us().unwrap_or(0) - us(timeline.start_ticks)).max(0),
    }
}

/// The plan is ours, but it crossed a process boundary: folder names and sizes are checked before they are used.
fn check_plan(plan: &VideoPlan) -> Result<(), Failure> {
    let refuse = |reason: String| {
        Err(Failure::new(FailureCode::Internal, format!("the plan is not usable: {reason}")))
    };
    if plan.rungs.is_empty() || plan.timescale == 0 || plan.gop_ticks == 0 {
        return refuse("no rungs, no timescale or no GOP length".to_owned());
    }
    for rung in &plan.rungs {
        let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if rung.name.is_empty() || !rung.name.chars().all(safe) {
            return refuse(format!("rung name {:?}", rung.name));
        }
        if rung.width % 2 != 0 || rung.height % 2 != 0 || rung.width == 0 || rung.height == 0 {
            return refuse(format!(
                "rung {} is {}x{}; sizes must be even",
                rung.name, rung.width, rung.height
            ));
        }
    }
    Ok(())
}
