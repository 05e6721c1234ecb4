//! What the media child made: enough to write every playlist without opening a media file again.

use serde::{Deserialize, Serialize};

/// What one encode or audio task made of one rendition: an initialization segment and media segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackOutput {
    /// The rung's name, or `audio`.
    pub rendition: String,
    pub format: TrackFormat,
    /// RFC 6381, e.g. `avc1.640028`, `mp4a.40.2`.
    pub codecs: String,
    pub timescale: u32,
    pub init: FileOutput,
    /// By rising time, without gaps.
    pub segments: Vec<SegmentOutput>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TrackFormat {
    Video { width: u32, height: u32 },
    Audio { sample_rate: u32, channels: u32 },
}

/// A file below the task's scratch directory, by relative path with `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOutput {
    pub file: String,
    pub byte_len: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentOutput {
    #[serde(flatten)]
    pub file: FileOutput,
    /// On the output timeline of the whole asset, in ticks of the track's timescale.
    pub start_ticks: u64,
    pub duration_ticks: u64,
    /// Video: where each closed GOP starts. Audio: empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sync_points: Vec<SyncPoint>,
}

/// One keyframe, in a movie fragment of its own: bytes `offset .. offset + byte_len` of the segment are a whole `moof`
/// and `mdat`, which is what an I-frame playlist asks for (RFC 8216 section 4.3.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPoint {
    pub offset: u64,
    pub byte_len: u64,
    pub start_ticks: u64,
    /// To the next sync point, or to the end of the segment.
    pub duration_ticks: u64,
}

/// Poster, sprite sheets and their index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StillsOutput {
    pub poster: FileOutput,
    pub sprites: Vec<FileOutput>,
    /// WebVTT with `#xywh=` media fragments.
    pub sprite_index: FileOutput,
}
