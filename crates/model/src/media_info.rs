//! Facts about a source, as measured by the media child: never what the container merely claims, where the
//! two differ.

use crate::Rational;
use serde::{Deserialize, Serialize};

/// The stored form's version; raise it when a field changes meaning.
pub const MEDIA_INFO_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MediaInfo {
    pub version: u32,
    /// FFmpeg's demuxer name, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    pub byte_len: u64,
    /// From the first shown picture (or sample of sound) to the end of the last, in microseconds, measured on packets.
    pub duration_us: i64,
    /// What the container says, where it says something.
    pub declared_duration_us: Option<i64>,
    /// The picture tracks that are films: attached covers are in `other`. The first is the one to use.
    pub video: Vec<VideoTrack>,
    /// The sound tracks that decode. The first is the one to use.
    pub audio: Vec<AudioTrack>,
    pub other: Vec<OtherTrack>,
    /// What is odd about the file but did not stop us: sentences for the creator.
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoTrack {
    /// Index in the container.
    pub index: u32,
    /// FFmpeg's codec name: `h264`, `hevc`, `vp9`, ...
    pub codec: String,
    pub profile: Option<String>,
    /// As coded, before sample aspect ratio and rotation, in pixels.
    pub width: u32,
    pub height: u32,
    pub sample_aspect_ratio: Rational,
    pub orientation: Orientation,
    /// FFmpeg's pixel format name, e.g. `yuv420p10le`.
    pub pixel_format: String,
    pub bit_depth: u8,
    pub colour: Colour,
    pub interlaced: bool,
    /// Seconds per tick of every `pts` in this track.
    pub time_base: Rational,
    /// Smallest presentation timestamp, and the end of the last picture, in ticks.
    pub start_pts: i64,
    pub end_pts: i64,
    /// Pictures seen as packets (exact when the whole file was scanned).
    pub frame_count: u64,
    pub frame_rate: FrameRate,
    /// Where decoding can start, by rising pts.
    pub keyframes: Vec<Keyframe>,
    pub bit_rate: Option<u64>,
}

/// How to turn the decoded picture upright: first mirror left-right, then turn clockwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orientation {
    pub mirrored: bool,
    /// 0 to 3.
    pub quarter_turns_clockwise: u8,
}

/// Code points of ITU-T H.273; 2 means unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Colour {
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    pub full_range: bool,
    pub hdr: Hdr,
    pub dolby_vision: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hdr {
    None,
    /// SMPTE ST 2084 (transfer 16).
    Pq,
    /// ARIB STD-B67 (transfer 18).
    Hlg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum FrameRate {
    /// All gaps between pictures equal, to the rounding of the container's clock.
    Constant { rate: Rational },
    /// `average` is pictures over duration; `highest` is one over the shortest gap that is not a rounding artefact.
    Variable { average: Rational, highest: Rational },
}

impl FrameRate {
    /// The rate to plan with: pictures per second.
    pub fn nominal(self) -> Rational {
        match self {
            Self::Constant { rate } => rate,
            Self::Variable { average, .. } => average,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyframe {
    pub pts: i64,
    /// Offset in the file, where the demuxer knows it.
    pub byte_offset: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioTrack {
    pub index: u32,
    pub codec: String,
    pub sample_rate: u32,
    pub channels: u32,
    /// FFmpeg's layout name, e.g. `stereo`, `5.1`.
    pub channel_layout: String,
    pub language: Option<String>,
    pub start_us: i64,
    pub duration_us: i64,
    pub bit_rate: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherTrack {
    pub index: u32,
    /// `subtitle`, `data`, `attachment`, `cover`, or `unreadable_video` / `unreadable_audio`.
    pub kind: String,
    pub codec: String,
    pub language: Option<String>,
}
