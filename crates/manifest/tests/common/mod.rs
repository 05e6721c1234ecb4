//! Track outputs as the media child reports them, made from a few numbers.

use reelyard_model::output::{FileOutput, SegmentOutput, SyncPoint, TrackFormat, TrackOutput};

/// What a made-up track is like.
pub(crate) struct Shape<'a> {
    pub(crate) rendition: &'a str,
    pub(crate) format: TrackFormat,
    pub(crate) codecs: &'a str,
    pub(crate) timescale: u32,
    /// Bytes of a segment for each tick: makes the sizes follow the durations.
    pub(crate) bytes_per_tick: u64,
    /// 0 for sound.
    pub(crate) gop_ticks: u64,
}

pub(crate) fn file(name: String, byte_len: u64) -> FileOutput {
    let sha256 = format!("{:064x}", name.len() as u64 * 31 + byte_len);
    FileOutput { file: name, byte_len, sha256 }
}

/// The output of one task: segments of these durations, one after the other, from `start_ticks`.
pub(crate) fn track(shape: &Shape<'_>, start_ticks: u64, durations: &[u64]) -> TrackOutput {
    let mut at = start_ticks;
    let segments = durations
        .iter()
        .enumerate()
        .map(|(index, &duration_ticks)| {
            let byte_len = duration_ticks * shape.bytes_per_tick;
            let segment = SegmentOutput {
                file: file(format!("{}/{index:05}.m4s", shape.rendition), byte_len),
                start_ticks: at,
                duration_ticks,
                sync_points: sync_points(shape, at, duration_ticks),
            };
            at += duration_ticks;
            segment
        })
        .collect();
    TrackOutput {
        rendition: shape.rendition.to_owned(),
        format: shape.format.clone(),
        codecs: shape.codecs.to_owned(),
        timescale: shape.timescale,
        init: file(format!("{}/init.mp4", shape.rendition), 700),
        segments,
    }
}

fn sync_points(shape: &Shape<'_>, start_ticks: u64, duration_ticks: u64) -> Vec<SyncPoint> {
    if shape.gop_ticks == 0 {
        return Vec::new();
    }
    (0..duration_ticks.div_ceil(shape.gop_ticks))
        .map(|index| {
            let from = index * shape.gop_ticks;
            let lasts = shape.gop_ticks.min(duration_ticks - from);
            SyncPoint {
                offset: from * shape.bytes_per_tick,
                byte_len: (lasts * shape.bytes_per_tick / 4).max(1),
                start_ticks: start_ticks + from,
                duration_ticks: lasts,
            }
        })
        .collect()
}

pub(crate) fn video<'a>(
    rendition: &'a str,
    width: u32,
    height: u32,
    codecs: &'a str,
    bytes_per_tick: u64,
) -> Shape<'a> {
    Shape {
        rendition,
        format: TrackFormat::Video { width, height },
        codecs,
        timescale: 24_000,
        bytes_per_tick,
        gop_ticks: 48_000,
    }
}

pub(crate) fn sound() -> Shape<'static> {
    Shape {
        rendition: "audio",
        format: TrackFormat::Audio { sample_rate: 48_000, channels: 2 },
        codecs: "mp4a.40.2",
        timescale: 48_000,
        bytes_per_tick: 1,
        gop_ticks: 0,
    }
}
