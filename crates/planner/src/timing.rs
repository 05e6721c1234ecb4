//! The output's clock: timescale, GOP and segment length in ticks.
//!
//! With a constant frame rate the timescale is chosen so that a picture lasts a whole number of ticks: times then
//! never drift, and chunks encoded apart agree on every boundary. Pictures are neither dropped nor doubled: a
//! variable frame rate keeps its timestamps.

use crate::{planning::Reasons, preset::VideoPreset};
use reelyard_model::{
    Rational,
    media_info::{FrameRate, VideoTrack},
    rational::rescale_ticks,
};

/// Of variable frame rates: the clock of MPEG-2, a multiple of all usual frame rates.
const VARIABLE_TIMESCALE: u32 = 90_000;
/// Below this a numerator is multiplied, so that sound and picture can be compared to the millisecond.
const SMALLEST_TIMESCALE: i64 = 1_000;
const TIMESCALE_FACTOR: i64 = 1_000;
/// Frame rates whose exact form needs a finer clock are measurement noise (e.g. 19001317/634).
const LARGEST_TIMESCALE: i64 = 1_000_000;
/// No camera's film is shown faster; what claims to be is a broken header.
const LARGEST_FRAMES_PER_SECOND: f64 = 1_000.0;
/// Slower than this no film is; what claims to be is a clock read wrong.
const SMALLEST_FRAMES_PER_SECOND: f64 = 0.001;
/// For a track whose rate and length are both unknown.
const FALLBACK_FRAME_RATE: Rational = Rational { numerator: 25, denominator: 1 };
/// Most screens show 60, and clocks are not exact; more is worth a word in the plan.
const USUAL_FRAMES_PER_SECOND: f64 = 61.0;
const US_PER_SECOND: u32 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    pub(crate) frame_rate: FrameRate,
    pub(crate) timescale: u32,
    pub(crate) gop_ticks: u32,
    pub(crate) segment_ticks: u32,
    /// Output time zero on the container's clock.
    pub(crate) origin_us: i64,
    pub(crate) duration_us: i64,
}

impl Timing {
    pub(crate) fn segment_us(&self) -> i64 {
        let tick = Rational { numerator: 1, denominator: i64::from(self.timescale) };
        rescale_ticks(i64::from(self.segment_ticks), tick, US_PER_SECOND).max(1)
    }
}

pub(crate) fn timing(track: &VideoTrack, preset: &VideoPreset, reasons: &mut Reasons) -> Timing {
    let frame_rate = believable_frame_rate(track, reasons);
    let origin_us = rescale_ticks(track.start_pts, track.time_base, US_PER_SECOND);
    let span = track.end_pts.saturating_sub(track.start_pts);
    let duration_us = rescale_ticks(span, track.time_base, US_PER_SECOND);
    // A single picture without a duration still has to be shown for as long as a picture is.
    let duration_us = if duration_us > 0 { duration_us } else { one_frame_us(frame_rate) };
    let clock = match frame_rate {
        FrameRate::Constant { rate } => constant_clock(rate, preset),
        FrameRate::Variable { .. } => None,
    };
    let rate = frame_rate.nominal().as_f64();
    if rate > USUAL_FRAMES_PER_SECOND {
        let text =
            format!("{rate:.2} pictures a second are kept: none is dropped, though most screens show 60");
        reasons.add("frame rate", text);
    }
    let (frame_rate, timescale, gop_ticks, segment_ticks) = match clock {
        Some(clock) => {
            add_constant_reasons(frame_rate.nominal(), &clock, preset, reasons);
            (frame_rate, clock.timescale, clock.gop_ticks, clock.segment_ticks)
        }
        None => {
            let ticks = |ms: u32| ms * (VARIABLE_TIMESCALE / 1000);
            let frame_rate = as_variable(frame_rate, preset, reasons);
            (frame_rate, VARIABLE_TIMESCALE, ticks(preset.gop_ms), ticks(preset.segment_ms))
        }
    };
    Timing { frame_rate, timescale, gop_ticks, segment_ticks, origin_us, duration_us }
}

fn as_variable(frame_rate: FrameRate, preset: &VideoPreset, reasons: &mut Reasons) -> FrameRate {
    let (average, highest) = match frame_rate {
        FrameRate::Constant { rate } => (rate, rate),
        FrameRate::Variable { average, highest } => (average, highest),
    };
    let text = format!(
        "variable, {:.3} a second on average, {:.3} at most: every picture keeps its own time, in ticks of 1/{VARIABLE_TIMESCALE} s",
        average.as_f64(),
        highest.as_f64()
    );
    reasons.add("frame rate", text);
    let text = format!(
        "a closed GOP starts at the first picture after each {} ms, a segment after each {} ms",
        preset.gop_ms, preset.segment_ms
    );
    reasons.add("segments", text);
    FrameRate::Variable { average, highest }
}

fn believable_frame_rate(track: &VideoTrack, reasons: &mut Reasons) -> FrameRate {
    let is_believable = |rate: Rational| {
        rate.numerator > 0
            && rate.denominator > 0
            && (SMALLEST_FRAMES_PER_SECOND..=LARGEST_FRAMES_PER_SECOND).contains(&rate.as_f64())
    };
    match track.frame_rate {
        FrameRate::Constant { rate } if is_believable(rate) => FrameRate::Constant { rate },
        FrameRate::Variable { average, highest } if is_believable(average) => {
            let highest = if is_believable(highest) { highest } else { average };
            FrameRate::Variable { average, highest }
        }
        other => {
            let text = format!(
                "the file claims {} pictures a second, which cannot be: planned as a variable rate near 25",
                other.nominal()
            );
            reasons.add("frame rate", text);
            FrameRate::Variable { average: FALLBACK_FRAME_RATE, highest: FALLBACK_FRAME_RATE }
        }
    }
}

/// `25`, `30000/1001 (29.970)`.
fn rate_in_words(rate: Rational) -> String {
    if rate.denominator == 1 { rate.numerator.to_string() } else { format!("{rate} ({:.3})", rate.as_f64()) }
}

fn one_frame_us(frame_rate: FrameRate) -> i64 {
    let rate = frame_rate.nominal();
    Rational { numerator: rate.denominator, denominator: rate.numerator }
        .scale(i64::from(US_PER_SECOND))
        .max(1)
}

struct Clock {
    timescale: u32,
    frame_ticks: u64,
    gop_frames: u64,
    gop_ticks: u32,
    segment_ticks: u32,
}

/// `None` when no sane clock gives whole pictures.
fn constant_clock(rate: Rational, preset: &VideoPreset) -> Option<Clock> {
    let rate = Rational::new(rate.numerator, rate.denominator)?;
    let (timescale, frame_ticks) = if rate.numerator >= SMALLEST_TIMESCALE {
        (rate.numerator, rate.denominator)
    } else {
        (rate.numerator * TIMESCALE_FACTOR, rate.denominator.checked_mul(TIMESCALE_FACTOR)?)
    };
    if timescale > LARGEST_TIMESCALE {
        return None;
    }
    let frame_ticks = u64::try_from(frame_ticks).ok()?;
    let gop_frames = ((rate.as_f64() * f64::from(preset.gop_ms) / 1000.0).round() as u64).max(1);
    let gop_ticks = gop_frames.checked_mul(frame_ticks)?;
    // Of slide shows a GOP may be longer than a segment was meant to be.
    let gop_ms = gop_ticks as f64 * 1000.0 / timescale as f64;
    let gops_per_segment = ((f64::from(preset.segment_ms) / gop_ms).round() as u64).max(1);
    Some(Clock {
        timescale: u32::try_from(timescale).ok()?,
        frame_ticks,
        gop_frames,
        gop_ticks: u32::try_from(gop_ticks).ok()?,
        segment_ticks: u32::try_from(gop_ticks.checked_mul(gops_per_segment)?).ok()?,
    })
}

fn add_constant_reasons(rate: Rational, clock: &Clock, preset: &VideoPreset, reasons: &mut Reasons) {
    let text = format!(
        "constant, {} a second: a clock of {} ticks a second makes each picture exactly {} ticks",
        rate_in_words(rate),
        clock.timescale,
        clock.frame_ticks
    );
    reasons.add("frame rate", text);
    let seconds = |ticks: u32| f64::from(ticks) / f64::from(clock.timescale);
    let pictures = match clock.gop_frames {
        1 => "picture".to_owned(),
        several => format!("{several} pictures"),
    };
    let text = format!(
        "a closed GOP every {pictures} ({:.3} s, preset {} ms), a segment every {:.3} s (preset {} ms)",
        seconds(clock.gop_ticks),
        preset.gop_ms,
        seconds(clock.segment_ticks),
        preset.segment_ms
    );
    reasons.add("segments", text);
}
