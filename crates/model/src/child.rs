//! The conversation between a worker and its media child, `reelyard-media`.
//!
//! One child runs one job. The parent writes one [`Request`] as JSON to the child's standard input and closes it.
//! The source is descriptor 3: a file, opened read-only by the parent, or a socket at which the parent reads for it (see
//! `reelyard_sandbox::source`). The child's working directory is its scratch
//! directory and the only place where it may write. The child answers on standard output, one JSON [`Message`] a
//! line, the last of which is `Done` or `Failed`; standard error is for people. A child that ends without a last
//! word has crashed, whatever its exit status says.

use crate::{
    Failure, MediaInfo,
    output::{StillsOutput, TrackOutput},
    plan::{AudioPlan, Chunk, StillsPlan, VideoPlan},
};
use serde::{Deserialize, Serialize};

/// Version of this conversation. A child that reads another answers `Failed` with `Internal`.
pub const PROTOCOL: u32 = 1;
/// The descriptor that carries the source.
pub const SOURCE_DESCRIPTOR: i32 = 3;
/// Longest line either side accepts: a two-hour index of keyframes fits many times over.
pub const MAX_LINE_BYTES: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub protocol: u32,
    pub job: Job,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[allow(clippy::large_enum_variant, reason = "there is one of them for each child")]
pub enum Job {
    /// What FFmpeg, which encoders open. Reads no source.
    Capabilities,
    Probe,
    /// One chunk, all rungs. Files: `{rung}/init.mp4`, `{rung}/NNNNN.m4s` with NNNNN from 00000 in this chunk.
    Encode {
        video: VideoPlan,
        chunk: Chunk,
        encoder: EncoderChoice,
    },
    /// The whole sound track. Files: `audio/init.mp4`, `audio/NNNNN.m4s`.
    Audio {
        audio: AudioPlan,
    },
    /// Files: `poster.jpg`, `sprite-NNN.jpg`, `sprites.vtt`.
    Stills {
        stills: StillsPlan,
    },
}

/// Which encoder to use. A rendition keeps one family over all its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderChoice {
    /// `h264_nvenc` if it really opens, else `libx264`.
    Probe,
    X264,
    Nvenc,
}

/// What the child allows itself before it opens the source. Zero never means "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space_bytes: u64,
    /// RLIMIT_FSIZE, of any one file.
    pub file_bytes: u64,
    /// RLIMIT_CPU.
    pub cpu_seconds: u64,
    /// Threads for decoding and encoding together, as a hint.
    pub threads: u32,
    /// Largest picture accepted, in pixels, and longest side.
    pub max_picture_pixels: u64,
    pub max_picture_side: u32,
    /// Longest source accepted.
    pub max_duration_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An 8K HEVC decode plus a five-rung ladder peaks near 3 GiB; twice that stops bombs all the same.
            address_space_bytes: 8 << 30,
            // One segment, sheet or init file: a 4 s segment at 100 Mbit/s is 50 MiB.
            file_bytes: 1 << 30,
            cpu_seconds: 6 * 3600,
            threads: 2,
            // 8192 x 4608 holds 8K UHD and its taller crops.
            max_picture_pixels: 8192 * 4608,
            max_picture_side: 8192,
            max_duration_seconds: 12 * 3600,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Message {
    /// First line: the child is up, confined, and about to open the source.
    Hello {
        protocol: u32,
        ffmpeg: String,
        sandbox: Vec<String>,
    },
    /// Something moved: feeds the no-progress watchdog and the progress display. Sent at least once a second of work,
    /// at most ten times. Both in microseconds of media (or any one unit).
    Progress {
        done_us: i64,
        total_us: i64,
    },
    /// For the creator: the result is good but something was left out.
    Warning {
        text: String,
    },
    /// A file is complete and closed in the scratch directory; the parent may move it away now.
    File {
        file: String,
        byte_len: u64,
    },
    Capabilities {
        capabilities: Capabilities,
    },
    Probed {
        info: Box<MediaInfo>,
    },
    /// All tracks of an encode or audio job.
    Encoded {
        encoder: String,
        tracks: Vec<TrackOutput>,
    },
    Stills {
        stills: StillsOutput,
    },
    /// Last line of a job that worked.
    Done,
    /// Last line of a job that did not.
    Failed {
        failure: Failure,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub ffmpeg_version: String,
    pub configuration: String,
    pub encoders: Vec<EncoderReport>,
    /// Names of the confinement layers in force, e.g. `rlimits`, `no_new_privs`, `seccomp`, `landlock v5`.
    pub sandbox: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderReport {
    pub name: String,
    pub opens: bool,
    /// Why it does not, in FFmpeg's words.
    pub reason: Option<String>,
}
