//! Encoded pictures become CMAF segments, files written as they are complete. Each closed GOP is two fragments: the
//! keyframe, whose bytes an I-frame playlist points at, and the rest.
//!
//! Decode times are made here, not taken from the encoder: within a GOP they are its presentation times in rising
//! order, so that every sample's duration is exact and chunks join without a seam (see `reelyard_cmaf::sample_times`).

use crate::context::{Context, internal};
use reelyard_cmaf::{
    AvcTrack, CmafError, Colour, Fragment, ParameterSets, Sample, init_segment_avc, media_segment,
    sample_times,
};
use reelyard_ffmpeg::{Encoder, FrameColour, Packet};
use reelyard_model::{
    Failure, FailureCode,
    output::{FileOutput, SegmentOutput, SyncPoint, TrackFormat, TrackOutput},
    plan::{Chunk, Rung, VideoPlan},
};

/// A segment shall last at least its nominal length divided by this: what is shorter than half the target duration is
/// left out of the bit rates that HLS declares (RFC 8216 section 4.1).
const SHORTEST_SEGMENT_DIVISOR: i64 = 2;
/// Sequence numbers must only rise; so many fragments are reserved for each chunk: nine hours of GOPs of a second.
const FRAGMENTS_PER_CHUNK: u32 = 1 << 16;

/// One encoded picture; ticks count from the start of the chunk.
struct Coded {
    ticks: i64,
    data: Vec<u8>,
}

/// One closed GOP, in decode order.
struct Gop {
    pictures: Vec<Coded>,
    start_ticks: i64,
    end_ticks: i64,
}

pub(crate) struct Packager<'a> {
    context: &'a Context,
    rung: &'a Rung,
    timescale: u32,
    segment_ticks: i64,
    chunk_start_ticks: i64,
    parameter_sets: ParameterSets,
    presentation_delay: u32,
    init: FileOutput,
    open_gop: Vec<Coded>,
    /// The segment before `current`, not yet written because a short remainder takes GOPs of it.
    previous: Vec<Gop>,
    current: Vec<Gop>,
    segments: Vec<SegmentOutput>,
    next_sequence_number: u32,
}

impl<'a> Packager<'a> {
    /// Writes the initialization segment.
    pub(crate) fn start(
        context: &'a Context,
        plan: &VideoPlan,
        chunk: Chunk,
        chunk_start_ticks: i64,
        rung: &'a Rung,
        encoder: &Encoder,
        colour: FrameColour,
    ) -> Result<Self, Failure> {
        let parameter_sets = ParameterSets::from_extradata(encoder.extradata()).map_err(packaging)?;
        let presentation_delay = presentation_delay(plan, encoder);
        let bytes = init_segment_avc(&AvcTrack {
            timescale: plan.timescale,
            parameter_sets: &parameter_sets,
            width: rung.width,
            height: rung.height,
            colour: Colour {
                primaries: colour.primaries,
                transfer: colour.transfer,
                matrix: colour.matrix,
                full_range: colour.full_range == Some(true),
            },
            presentation_delay,
            bit_rate: None,
        })
        .map_err(packaging)?;
        let init = context.write_file(&format!("{}/init.mp4", rung.name), &bytes)?;
        Ok(Self {
            context,
            rung,
            timescale: plan.timescale,
            segment_ticks: i64::from(plan.segment_ticks.max(plan.gop_ticks).max(1)),
            chunk_start_ticks,
            parameter_sets,
            presentation_delay,
            init,
            open_gop: Vec::new(),
            previous: Vec::new(),
            current: Vec::new(),
            segments: Vec::new(),
            next_sequence_number: chunk.index.wrapping_mul(FRAGMENTS_PER_CHUNK).wrapping_add(1),
        })
    }

    /// In decode order, as the encoder gives them.
    pub(crate) fn push(&mut self, packet: &Packet) -> Result<(), Failure> {
        let ticks = packet.pts().ok_or_else(|| {
            Failure::new(FailureCode::Internal, "the encoder gave a picture without a time")
        })?;
        if packet.is_key() {
            self.close_gop(ticks)?;
        }
        let mut data = Vec::with_capacity(packet.data().len() + 64);
        self.parameter_sets.append_sample(packet.data(), &mut data).map_err(packaging)?;
        self.open_gop.push(Coded { ticks, data });
        Ok(())
    }

    /// `end_ticks`: where the last picture stops being shown.
    pub(crate) fn finish(mut self, end_ticks: i64) -> Result<TrackOutput, Failure> {
        self.close_gop(end_ticks)?;
        let (mut previous, mut last) =
            (std::mem::take(&mut self.previous), std::mem::take(&mut self.current));
        even_out(&mut previous, &mut last, self.segment_ticks / SHORTEST_SEGMENT_DIVISOR);
        self.write_segment(&previous)?;
        self.write_segment(&last)?;
        Ok(TrackOutput {
            rendition: self.rung.name.clone(),
            format: TrackFormat::Video { width: self.rung.width, height: self.rung.height },
            codecs: self.parameter_sets.codec_string(),
            timescale: self.timescale,
            init: self.init,
            segments: self.segments,
        })
    }

    fn close_gop(&mut self, end_ticks: i64) -> Result<(), Failure> {
        let pictures = std::mem::take(&mut self.open_gop);
        let Some(start_ticks) = pictures.iter().map(|picture| picture.ticks).min() else { return Ok(()) };
        let gop = Gop { pictures, start_ticks, end_ticks };
        let belongs_to = |gop: &Gop| self.segment_number(gop.start_ticks);
        if self.current.first().is_some_and(|first| belongs_to(first) != belongs_to(&gop)) {
            let ready = std::mem::take(&mut self.previous);
            self.previous = std::mem::take(&mut self.current);
            self.write_segment(&ready)?;
        }
        self.current.push(gop);
        if span(&self.current) >= self.segment_ticks / SHORTEST_SEGMENT_DIVISOR {
            let ready = std::mem::take(&mut self.previous);
            self.write_segment(&ready)?;
        }
        Ok(())
    }

    /// With the millisecond of tolerance that GOP boundaries have, too.
    fn segment_number(&self, ticks: i64) -> i64 {
        (ticks + i64::from(self.timescale / 1000)) / self.segment_ticks
    }

    fn write_segment(&mut self, gops: &[Gop]) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (gops.first(), gops.last()) else { return Ok(()) };
        let mut fragments = Vec::with_capacity(2 * gops.len());
        let mut keyframes = Vec::with_capacity(gops.len());
        for gop in gops {
            let (keyframe, rest) = self.fragment(gop)?.first_sample_apart();
            keyframes.push(fragments.len());
            fragments.push(keyframe);
            fragments.extend(rest);
        }
        let segment = media_segment(self.next_sequence_number, &fragments).map_err(packaging)?;
        self.next_sequence_number = self.next_sequence_number.wrapping_add(fragments.len() as u32);
        let sync_points = gops
            .iter()
            .zip(keyframes.iter().filter_map(|index| segment.fragments.get(*index)))
            .map(|(gop, place)| SyncPoint {
                offset: place.offset,
                byte_len: place.byte_len,
                start_ticks: self.asset_ticks(gop.start_ticks),
                duration_ticks: (gop.end_ticks - gop.start_ticks) as u64,
            })
            .collect();
        let file = format!("{}/{:05}.m4s", self.rung.name, self.segments.len());
        let file = self.context.write_file(&file, &segment.bytes)?;
        self.segments.push(SegmentOutput {
            file,
            start_ticks: self.asset_ticks(first.start_ticks),
            duration_ticks: (last.end_ticks - first.start_ticks) as u64,
            sync_points,
        });
        Ok(())
    }

    fn fragment<'g>(&self, gop: &'g Gop) -> Result<Fragment<'g>, Failure> {
        let presentation_times: Vec<i64> = gop.pictures.iter().map(|picture| picture.ticks).collect();
        let times =
            sample_times(&presentation_times, gop.end_ticks, self.presentation_delay).map_err(packaging)?;
        let samples = gop.pictures.iter().zip(times).enumerate().map(|(position, (picture, time))| Sample {
            data: &picture.data,
            duration: time.duration,
            composition_offset: time.composition_offset,
            sync: position == 0,
        });
        Ok(Fragment { decode_time: self.asset_ticks(gop.start_ticks), samples: samples.collect() })
    }

    fn asset_ticks(&self, ticks: i64) -> u64 {
        (self.chunk_start_ticks + ticks).max(0) as u64
    }
}

/// Reordering at the nominal rate, in ticks: the same for every chunk of a rendition.
fn presentation_delay(plan: &VideoPlan, encoder: &Encoder) -> u32 {
    let picture_ticks = f64::from(plan.timescale) / plan.frame_rate.nominal().as_f64();
    let delay = picture_ticks * f64::from(encoder.reordered_pictures());
    if delay.is_finite() { delay.round().clamp(0.0, f64::from(plan.timescale)) as u32 } else { 0 }
}

/// Lengthens a last segment that is too short: by GOPs of the one before, which keeps both below the nominal length (and
/// so EXT-X-TARGETDURATION where it is), or else by all of it.
fn even_out(previous: &mut Vec<Gop>, last: &mut Vec<Gop>, shortest_ticks: i64) {
    while span(last) < shortest_ticks {
        let Some(gop) = previous.pop() else { return };
        last.insert(0, gop);
    }
    if span(previous) < shortest_ticks {
        last.splice(..0, previous.drain(..));
    }
}

fn span(gops: &[Gop]) -> i64 {
    match (gops.first(), gops.last()) {
        (Some(first), Some(last)) => last.end_ticks - first.start_ticks,
        _ => 0,
    }
}

fn packaging(error: CmafError) -> Failure {
    Failure::new(FailureCode::Internal, format!("package: {error}"))
}

/// Never dropped silently: an encoder error names the rung.
pub(crate) fn encoding(rung: &Rung, error: reelyard_ffmpeg::Error) -> Failure {
    let failure = internal(error);
    Failure { detail: format!("{}: {}", rung.name, failure.detail), ..failure }
}

#[cfg(test)]
mod tests {
    use super::{Gop, even_out, span};

    fn gops(start_ticks: i64, lengths: &[i64]) -> Vec<Gop> {
        let mut end_ticks = start_ticks;
        let mut gop = |length: &i64| {
            end_ticks += length;
            Gop { pictures: Vec::new(), start_ticks: end_ticks - length, end_ticks }
        };
        lengths.iter().map(&mut gop).collect()
    }

    #[test]
    fn no_last_segment_is_shorter_than_half() {
        // Nominal length 40, so at least 20.
        for (before, remainder, expected) in [
            (&[20, 20][..], &[20][..], (40, 20)),
            (&[20, 20], &[15], (20, 35)),
            (&[10, 10, 10, 10], &[1], (20, 21)),
            (&[40], &[19], (0, 59)),
            (&[19, 21], &[5], (0, 45)),
            (&[], &[5], (0, 5)),
        ] {
            let mut previous = gops(0, before);
            let mut last = gops(span(&previous), remainder);
            even_out(&mut previous, &mut last, 20);
            assert_eq!((span(&previous), span(&last)), expected, "{before:?} {remainder:?}");
            let all: Vec<&Gop> = previous.iter().chain(&last).collect();
            assert!(all.windows(2).all(|pair| pair[0].end_ticks == pair[1].start_ticks), "in order");
        }
    }
}
