//! Answers a grant as the agent would after running the media child: results with the right shape, files in the depot.

use super::bench::Bench;
use reelyard_agent::control::Depot;
use reelyard_model::{
    MediaInfo, Rational,
    child::Job,
    media_info::{AudioTrack, Colour, FrameRate, Hdr, Keyframe, MEDIA_INFO_VERSION, Orientation, VideoTrack},
    output::{FileOutput, SegmentOutput, StillsOutput, SyncPoint, TrackFormat, TrackOutput},
    plan::{AudioPlan, Chunk, VideoPlan},
    rational::rescale_ticks,
    work::{Grant, TaskResult},
};
use sha2::{Digest, Sha256};

/// Of pictures and sound.
const DURATION_US: i64 = 40_000_000;
const TIMESCALE: i64 = 12_800;

/// What the fake sources are like.
#[derive(Clone, Debug)]
pub(super) struct FakeChild {
    pub(super) has_video: bool,
    pub(super) has_sound: bool,
}

impl Default for FakeChild {
    fn default() -> Self {
        Self { has_video: true, has_sound: true }
    }
}

impl FakeChild {
    pub(super) fn media_info(&self) -> MediaInfo {
        MediaInfo {
            version: MEDIA_INFO_VERSION,
            container: "mov,mp4,m4a,3gp,3g2,mj2".into(),
            byte_len: 43,
            duration_us: DURATION_US,
            declared_duration_us: Some(DURATION_US),
            video: if self.has_video { vec![video_track()] } else { Vec::new() },
            audio: if self.has_sound { vec![audio_track()] } else { Vec::new() },
            other: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Does the job: keeps the files, then says what they are.
    pub(super) async fn answer(&self, bench: &Bench, grant: &Grant) -> TaskResult {
        match &grant.job {
            Job::Probe => TaskResult::Probed { info: Box::new(self.media_info()) },
            Job::Encode { video, chunk, .. } => {
                let mut tracks = Vec::new();
                for rung in &video.rungs {
                    let format = TrackFormat::Video { width: rung.width, height: rung.height };
                    let (start, end) = chunk_ticks(video, *chunk);
                    tracks.push(
                        track(bench, grant, &rung.name, format, "avc1.64001f", video.timescale, (start, end))
                            .await,
                    );
                }
                TaskResult::Encoded { encoder: "libx264".into(), tracks, warnings: Vec::new() }
            }
            Job::Audio { audio } => {
                let AudioPlan { sample_rate, channels, .. } = *audio;
                let format = TrackFormat::Audio { sample_rate, channels };
                let end = u64::try_from(DURATION_US).unwrap() * u64::from(sample_rate) / 1_000_000;
                let track = track(bench, grant, "audio", format, "mp4a.40.2", sample_rate, (0, end)).await;
                TaskResult::Encoded { encoder: "aac".into(), tracks: vec![track], warnings: Vec::new() }
            }
            Job::Stills { .. } => TaskResult::Stills {
                stills: StillsOutput {
                    poster: keep(bench, grant, "poster.jpg").await,
                    sprites: vec![keep(bench, grant, "sprite-000.jpg").await],
                    sprite_index: keep(bench, grant, "sprites.vtt").await,
                },
            },
            Job::Capabilities => panic!("no task asks for that"),
        }
    }
}

fn chunk_ticks(video: &VideoPlan, chunk: Chunk) -> (u64, u64) {
    let ticks = |pts: i64| rescale_ticks(pts - video.origin_pts, video.source_time_base, video.timescale);
    let end = chunk.end_pts.unwrap_or(TIMESCALE * DURATION_US / 1_000_000);
    (u64::try_from(ticks(chunk.start_pts)).unwrap(), u64::try_from(ticks(end)).unwrap())
}

async fn track(
    bench: &Bench,
    grant: &Grant,
    rendition: &str,
    format: TrackFormat,
    codecs: &str,
    timescale: u32,
    (start_ticks, end_ticks): (u64, u64),
) -> TrackOutput {
    let duration_ticks = end_ticks - start_ticks;
    let is_video = matches!(format, TrackFormat::Video { .. });
    let sync = SyncPoint { offset: 0, byte_len: 1, start_ticks, duration_ticks };
    TrackOutput {
        rendition: rendition.to_owned(),
        format,
        codecs: codecs.to_owned(),
        timescale,
        init: keep(bench, grant, &format!("{rendition}/init.mp4")).await,
        segments: vec![SegmentOutput {
            file: keep(bench, grant, &format!("{rendition}/00000.m4s")).await,
            start_ticks,
            duration_ticks,
            sync_points: if is_video { vec![sync] } else { Vec::new() },
        }],
    }
}

/// A file whose bytes are its name: initialization segments of all chunks are the same, as they must be.
async fn keep(bench: &Bench, grant: &Grant, file: &str) -> FileOutput {
    let scratch =
        bench.app.data_dir.join("scratch").join(format!("{}-{}", grant.task, file.replace('/', "-")));
    std::fs::write(&scratch, file).unwrap();
    bench.depot.keep(&scratch, &format!("{}/{file}", grant.output_prefix)).await.unwrap();
    FileOutput {
        file: file.to_owned(),
        byte_len: file.len() as u64,
        sha256: hex::encode(Sha256::digest(file.as_bytes())),
    }
}

fn video_track() -> VideoTrack {
    let second = |second: i64| Keyframe { pts: second * TIMESCALE, byte_offset: None };
    VideoTrack {
        index: 0,
        codec: "h264".into(),
        profile: Some("High".into()),
        width: 640,
        height: 360,
        sample_aspect_ratio: Rational::ONE,
        orientation: Orientation::default(),
        pixel_format: "yuv420p".into(),
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
        time_base: Rational { numerator: 1, denominator: TIMESCALE },
        start_pts: 0,
        end_pts: 40 * TIMESCALE,
        frame_count: 1_000,
        frame_rate: FrameRate::Constant { rate: Rational { numerator: 25, denominator: 1 } },
        keyframes: (0..40).step_by(2).map(second).collect(),
        bit_rate: Some(800_000),
    }
}

fn audio_track() -> AudioTrack {
    AudioTrack {
        index: 1,
        codec: "aac".into(),
        sample_rate: 48_000,
        channels: 2,
        channel_layout: "stereo".into(),
        language: Some("eng".into()),
        start_us: 0,
        duration_us: DURATION_US,
        bit_rate: Some(128_000),
    }
}
