//! Decoded pictures of the chunk on their way to the first rung: which ones, when, and what fills the holes.

use super::{
    rung::{Item, Picture, Progress, cut_off},
    timeline::{Place, Timeline},
};
use crate::{
    context::{Context, internal},
    normalise::Normaliser,
    pictures::PictureReader,
};
use reelyard_ffmpeg::{Frame, PixelFormat};
use reelyard_model::{
    Failure, FailureCode,
    plan::{Chunk, VideoPlan},
};
use std::sync::mpsc::{Receiver, SyncSender};

/// From decoding to normalising; times in source ticks.
pub(crate) enum Raw {
    Picture(Frame),
    /// Nothing decodes in this chunk: show black from its start.
    Black {
        width: u32,
        height: u32,
    },
    /// Where the last picture stops being shown.
    End {
        pts: i64,
    },
}

/// Sends the pictures with `start_pts <= pts < end_pts`.
pub(crate) fn decode(
    context: &Context,
    reader: &mut PictureReader,
    plan: &VideoPlan,
    chunk: Chunk,
    pictures: &SyncSender<Raw>,
    progress: &Progress,
) -> Result<(), Failure> {
    let send = |raw: Raw| pictures.send(raw).map_err(|_| cut_off());
    let mut before = None;
    let mut last: Option<(i64, i64)> = None;
    while let Some(frame) = reader.next()? {
        progress.tick();
        let pts = frame.pts().unwrap_or(0);
        if chunk.end_pts.is_some_and(|end| pts >= end) {
            break;
        }
        if pts < chunk.start_pts {
            before = Some(frame);
            continue;
        }
        let gap = last.map_or(0, |(last_pts, _)| pts - last_pts);
        last = Some((pts, if frame.duration() > 0 { frame.duration() } else { gap }));
        send(Raw::Picture(frame))?;
    }
    if last.is_none() {
        hold(context, plan, chunk, before, &send)?;
    }
    let (last_pts, duration) = last.unwrap_or((chunk.start_pts, 0));
    let duration = if duration > 0 { duration } else { nominal_duration(plan) };
    send(Raw::End { pts: last_pts.saturating_add(duration) })
}

/// A chunk without a picture of its own shows the last one before it, so that sound and the other chunks stay in time.
fn hold(
    context: &Context,
    plan: &VideoPlan,
    chunk: Chunk,
    before: Option<Frame>,
    send: &impl Fn(Raw) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if before.is_none() && plan.chunks.len() <= 1 && chunk.index == 0 {
        return Err(Failure::new(FailureCode::NothingDecodes, "not one picture of the chosen track decodes"));
    }
    context.warn("A part of the picture is damaged in the file; a still picture stands in for it.");
    match before {
        Some(mut frame) => {
            frame.set_pts(chunk.start_pts);
            send(Raw::Picture(frame))
        }
        None => send(Raw::Black { width: plan.rungs[0].width, height: plan.rungs[0].height }),
    }
}

/// One picture at the nominal rate, in source ticks.
fn nominal_duration(plan: &VideoPlan) -> i64 {
    let seconds = 1.0 / plan.frame_rate.nominal().as_f64();
    let ticks = seconds / plan.source_time_base.as_f64();
    if ticks.is_finite() && ticks >= 1.0 { ticks.round() as i64 } else { 1 }
}

/// Normalises, gives each picture its place, and repeats pictures that are held for long.
pub(crate) fn normalise(
    pictures: Receiver<Raw>,
    top: &SyncSender<Item>,
    mut normaliser: Normaliser,
    mut timeline: Timeline,
) -> Result<(), Failure> {
    let mut shown = None;
    while let Ok(raw) = pictures.recv() {
        match raw {
            Raw::Picture(frame) => {
                for frame in normaliser.push(frame)? {
                    show(frame, &mut shown, &mut timeline, top)?;
                }
            }
            Raw::Black { width, height } => show(black(width, height)?, &mut shown, &mut timeline, top)?,
            Raw::End { pts } => {
                for frame in normaliser.drain()? {
                    show(frame, &mut shown, &mut timeline, top)?;
                }
                let end = timeline.end(pts);
                repeat(&shown, end, &mut timeline, top)?;
                return top.send(Item::End { ticks: end }).map_err(|_| cut_off());
            }
        }
    }
    Err(cut_off())
}

fn show(
    frame: Frame,
    shown: &mut Option<Frame>,
    timeline: &mut Timeline,
    top: &SyncSender<Item>,
) -> Result<(), Failure> {
    let pts = frame.pts().unwrap_or(0);
    repeat(shown, timeline.ticks_of(pts), timeline, top)?;
    let Some(place) = timeline.place(pts) else { return Ok(()) };
    *shown = Some(frame.reference().map_err(internal)?);
    send(frame, place, top)
}

fn repeat(
    shown: &Option<Frame>,
    until: i64,
    timeline: &mut Timeline,
    top: &SyncSender<Item>,
) -> Result<(), Failure> {
    let Some(shown) = shown else { return Ok(()) };
    for place in timeline.repeats_before(until) {
        send(shown.reference().map_err(internal)?, place, top)?;
    }
    Ok(())
}

fn send(frame: Frame, place: Place, top: &SyncSender<Item>) -> Result<(), Failure> {
    let picture = Picture { frame, ticks: place.ticks, keyframe: place.keyframe };
    top.send(Item::Picture(picture)).map_err(|_| cut_off())
}

fn black(width: u32, height: u32) -> Result<Frame, Failure> {
    let mut frame = Frame::video(width, height, PixelFormat::YUV420P).map_err(internal)?;
    // Limited range: 16 is black, 128 is no colour.
    for (plane, value) in [(0, 16), (1, 128), (2, 128)] {
        frame.plane_mut(plane).map_err(internal)?.fill(value);
    }
    frame.set_pts(0);
    Ok(frame)
}
