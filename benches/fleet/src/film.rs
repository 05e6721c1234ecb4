//! The film that all tasks belong to: what a probe would say of it, and what an encoder would make of a chunk.

use reelyard_model::{
    MediaInfo, Rational,
    media_info::{Colour, FrameRate, Hdr, Keyframe, MEDIA_INFO_VERSION, Orientation, VideoTrack},
    output::{FileOutput, SegmentOutput, SyncPoint, TrackFormat, TrackOutput},
    work::{Report, TaskResult},
};

/// Of the default preset (`presets/web-h264.toml`): so long is a chunk, and a segment.
const CHUNK_SECONDS: i64 = 16;
const SEGMENTS_IN_CHUNK: u64 = 4;
const TICKS_PER_SECOND: i64 = 90_000;
const BYTES_PER_SECOND: u64 = 500_000;
/// The ladder of a 1080p source has five rungs; six is what a larger one has.
const RUNGS: [(&str, u32, u32); 6] = [
    ("1440p", 2560, 1440),
    ("1080p", 1920, 1080),
    ("720p", 1280, 720),
    ("480p", 854, 480),
    ("360p", 640, 360),
    ("240p", 426, 240),
];

/// Pictures without sound, a keyframe every two seconds.
pub(crate) fn info(chunks: u32) -> MediaInfo {
    let seconds = CHUNK_SECONDS * i64::from(chunks);
    let rate = Rational { numerator: 24, denominator: 1 };
    let keyframe = |second: i64| Keyframe {
        pts: second * TICKS_PER_SECOND,
        byte_offset: Some(second.unsigned_abs() * BYTES_PER_SECOND),
    };
    let track = VideoTrack {
        index: 0,
        codec: "h264".to_owned(),
        profile: Some("High".to_owned()),
        width: 1920,
        height: 1080,
        sample_aspect_ratio: Rational { numerator: 1, denominator: 1 },
        orientation: Orientation::default(),
        pixel_format: "yuv420p".to_owned(),
        bit_depth: 8,
        colour: Colour {
            primaries: 1,
            transfer: 1,
            matrix: 1,
            full_range: false,
            hdr: Hdr::None,
            dolby_vision: false,
        },
        interlaced: false,
        time_base: Rational { numerator: 1, denominator: TICKS_PER_SECOND },
        start_pts: 0,
        end_pts: seconds * TICKS_PER_SECOND,
        frame_count: seconds.unsigned_abs() * 24,
        frame_rate: FrameRate::Constant { rate },
        keyframes: (0..seconds).step_by(2).map(keyframe).collect(),
        bit_rate: Some(BYTES_PER_SECOND * 8),
    };
    MediaInfo {
        version: MEDIA_INFO_VERSION,
        container: "mov,mp4,m4a,3gp,3g2,mj2".to_owned(),
        byte_len: seconds.unsigned_abs() * BYTES_PER_SECOND,
        duration_us: seconds * 1_000_000,
        declared_duration_us: Some(seconds * 1_000_000),
        video: vec![track],
        audio: Vec::new(),
        other: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Six renditions of a chunk, four segments each, two keyframes in a segment.
pub(crate) fn encoded() -> Report {
    let file = |name: String, byte_len: u64| FileOutput { file: name, byte_len, sha256: "5a".repeat(32) };
    let ticks = TICKS_PER_SECOND.unsigned_abs() * CHUNK_SECONDS.unsigned_abs() / SEGMENTS_IN_CHUNK;
    let tracks = RUNGS.into_iter().map(|(name, width, height)| {
        let segments = (0..SEGMENTS_IN_CHUNK).map(|number| SegmentOutput {
            file: file(format!("{name}/{number:05}.m4s"), 412_345),
            start_ticks: number * ticks,
            duration_ticks: ticks,
            sync_points: [0, 1]
                .map(|half| SyncPoint {
                    offset: half * 206_172,
                    byte_len: 34_567,
                    start_ticks: number * ticks + half * ticks / 2,
                    duration_ticks: ticks / 2,
                })
                .to_vec(),
        });
        TrackOutput {
            rendition: name.to_owned(),
            format: TrackFormat::Video { width, height },
            codecs: "avc1.640028".to_owned(),
            timescale: 90_000,
            init: file(format!("{name}/init.mp4"), 802),
            segments: segments.collect(),
        }
    });
    let result =
        TaskResult::Encoded { encoder: "libx264".to_owned(), tracks: tracks.collect(), warnings: Vec::new() };
    Report::Completed { result }
}
