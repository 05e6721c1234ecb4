//! What will be made of an asset: a pure function of (media info, preset, policy), stored before any work starts.
//!
//! The plan is the whole truth for the media child: an encode, audio or stills task needs nothing but its part of
//! the plan and the source. Made by `reelyard-planner`, read by the media child and by publish.
//!
//! Timeline: output time zero is the first shown picture (or, without pictures, the first sample of sound). Sound
//! that starts earlier is cut, sound that starts later is preceded by silence, so that every track starts at 0.

use crate::{
    Rational,
    media_info::{Colour, FrameRate, Orientation},
};
use serde::{Deserialize, Serialize};

pub const PLAN_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub version: u32,
    pub preset: String,
    pub duration_us: i64,
    pub video: Option<VideoPlan>,
    pub audio: Option<AudioPlan>,
    pub stills: Option<StillsPlan>,
    /// One entry for each decision, in order: `reelyard plan` prints them.
    pub decisions: Vec<Decision>,
}

/// What was decided and why, as people would say it: `{topic: "ladder", text: "1080p left out: the source has 720 lines"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub topic: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoPlan {
    pub source_track: u32,
    pub source_time_base: Rational,
    /// Source pts of output time zero.
    pub origin_pts: i64,
    /// Ticks per second of the output tracks.
    pub timescale: u32,
    pub frame_rate: FrameRate,
    pub orientation: Orientation,
    pub deinterlace: bool,
    /// The source's colour; when `colour.hdr` is not `None` the child maps it to BT.709 SDR.
    pub colour: Colour,
    /// A new closed GOP starts every so many output ticks, counted from the start of the chunk.
    pub gop_ticks: u32,
    /// A new segment starts every so many output ticks (a multiple of `gop_ticks`), counted from the start of the chunk.
    pub segment_ticks: u32,
    /// Largest first: each rung is scaled from a larger one.
    pub rungs: Vec<Rung>,
    pub encoder: VideoEncoderSettings,
    pub chunks: Vec<Chunk>,
}

/// One output quality. Sizes are even, upright and with square pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Unique in the plan, safe as a folder name: `1080p`.
    pub name: String,
    pub width: u32,
    pub height: u32,
    /// Constant rate factor of x264 (also constant quality of NVENC).
    pub crf: f32,
    /// VBV: peak bits per second, and buffer in bits.
    pub max_bit_rate: u64,
    pub buffer_bits: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoEncoderSettings {
    /// x264's `preset`.
    pub x264_preset: String,
    /// NVENC's `preset` (`p1` to `p7`).
    pub nvenc_preset: String,
    /// `high`, `main`, `baseline`.
    pub profile: String,
    /// swscale's algorithm: `bicubic`, `bilinear`, `lanczos`.
    pub scaler: String,
}

/// A closed time range of the source, the unit that is encoded (and lost) at a time. Boundaries are timestamps, so
/// variable frame rate survives. A picture belongs to the chunk with `start_pts <= pts < end_pts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// From 0.
    pub index: u32,
    /// Source ticks; a source keyframe, except perhaps in the first chunk.
    pub start_pts: i64,
    /// `None` in the last chunk: to the end of the file, whatever was measured.
    pub end_pts: Option<i64>,
    /// Where its first keyframe, and the one behind its last picture, lie in the file, if the probe could tell. For
    /// reading ahead from afar and nothing else: a wrong one costs bytes, not pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_byte: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_byte: Option<u64>,
}

impl Chunk {
    /// The whole track, from here on.
    pub fn whole(start_pts: i64) -> Self {
        Self { index: 0, start_pts, end_pts: None, start_byte: None, end_byte: None }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioPlan {
    pub source_track: u32,
    /// Where output time zero lies on the source's clock, in microseconds.
    pub origin_us: i64,
    /// How long the track shall be, when pictures decide it: silence is added, excess is cut. `None`: as long as it is.
    pub duration_us: Option<i64>,
    pub sample_rate: u32,
    /// 1 or 2: more channels are mixed down.
    pub channels: u32,
    pub bit_rate: u64,
    /// Segments end at the first AAC frame (1024 samples) at or after each multiple of this.
    pub segment_us: i64,
    pub language: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StillsPlan {
    pub source_track: u32,
    pub source_time_base: Rational,
    pub origin_pts: i64,
    pub orientation: Orientation,
    pub deinterlace: bool,
    pub colour: Colour,
    pub duration_us: i64,
    /// Poster, upright with square pixels.
    pub poster_width: u32,
    pub poster_height: u32,
    /// Sprite sheets: one thumbnail every `interval_us`, tiles of this size, `columns` x `rows` a sheet.
    pub interval_us: i64,
    pub tile_width: u32,
    pub tile_height: u32,
    pub columns: u32,
    pub rows: u32,
    pub jpeg_quality: u8,
}
