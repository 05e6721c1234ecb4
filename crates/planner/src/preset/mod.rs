//! Presets: named recipes in `presets/*.toml`, read strictly.
//!
//! The two files of this repository are built in; a caller may add or replace some by handing in the texts of a
//! directory (this crate opens no file). A preset that does not parse is refused as a whole, with the file, the line
//! and the key: a ladder that silently lost a number would cost somebody a night of encoding.

mod reader;
mod schema;

use serde::Serialize;
use std::fmt;

/// The preset of an upload that names none.
pub const DEFAULT_PRESET: &str = "web-h264";
/// Version of the file form.
pub const PRESET_VERSION: u32 = 1;
/// Presets that one server may have: they are all shown in one list.
pub const MAX_PRESETS: usize = 200;

const BUILT_IN: [(&str, &str); 2] = [
    ("web-h264.toml", include_str!("../../../../presets/web-h264.toml")),
    ("web-h264-small.toml", include_str!("../../../../presets/web-h264-small.toml")),
];

/// One recipe. Serialised as it is for `GET /v1/presets`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preset {
    /// The file's name without `.toml`.
    pub name: String,
    pub description: String,
    pub video: VideoPreset,
    pub audio: AudioPreset,
    pub stills: StillsPreset,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VideoPreset {
    /// `h264`.
    pub codec: String,
    pub profile: String,
    pub x264_preset: String,
    pub nvenc_preset: String,
    pub scaler: String,
    pub gop_ms: u32,
    /// A multiple of `gop_ms`.
    pub segment_ms: u32,
    pub chunk_ms: u32,
    /// Largest first, at least one.
    pub rungs: Vec<RungPreset>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RungPreset {
    /// Height of the 16:9 box that the picture is fitted into (its width, for portrait video). Even.
    pub lines: u32,
    pub crf: f32,
    /// At up to 30 pictures a second.
    pub max_bit_rate_kbps: u32,
    pub buffer_kbits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AudioPreset {
    /// `aac`.
    pub codec: String,
    /// Of two channels; one channel gets half.
    pub bit_rate_kbps: u32,
    pub max_channels: u32,
    pub sample_rate: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StillsPreset {
    pub poster_lines: u32,
    pub tile_lines: u32,
    pub interval_ms: u32,
    pub min_tiles: u32,
    pub columns: u32,
    pub rows: u32,
    pub max_sheets: u32,
    pub jpeg_quality: u8,
}

impl Preset {
    /// Reads one file. `file_name` may be a path; its last part names the preset.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, PresetError> {
        schema::read(file_name, text)
    }
}

/// Where and why a preset file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PresetError {
    pub file: String,
    /// From 1; 0 when the whole file is meant.
    pub line: usize,
    /// Dotted: `video.rungs[2].crf`. Empty when no key is meant.
    pub key: String,
    pub problem: String,
}

impl fmt::Display for PresetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "preset file {}", self.file)?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ", key `{}`", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// All presets of a server, by name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Presets(Vec<Preset>);

impl Presets {
    /// The presets of this release.
    pub fn built_in() -> Result<Self, PresetError> {
        Self::with_files([])
    }

    /// The built-in presets with those of `files` (name, text) added; one of the same name replaces the built-in.
    pub fn with_files<'text>(
        files: impl IntoIterator<Item = (&'text str, &'text str)>,
    ) -> Result<Self, PresetError> {
        let mut presets = Vec::new();
        for (file_name, text) in BUILT_IN {
            presets.push(Preset::parse(file_name, text)?);
        }
        let mut added: Vec<String> = Vec::new();
        for (file_name, text) in files {
            let preset = Preset::parse(file_name, text)?;
            let refuse = |problem: String| PresetError {
                file: file_name.to_owned(),
                line: 0,
                key: String::new(),
                problem,
            };
            if added.contains(&preset.name) {
                return Err(refuse(format!("there are two files for preset `{}`; keep one", preset.name)));
            }
            added.push(preset.name.clone());
            match presets.iter().position(|known| known.name == preset.name) {
                Some(index) => presets[index] = preset,
                None if presets.len() >= MAX_PRESETS => {
                    return Err(refuse(format!("there are more than {MAX_PRESETS} presets; remove some")));
                }
                None => presets.push(preset),
            }
        }
        Ok(Self(presets))
    }

    pub fn get(&self, name: &str) -> Option<&Preset> {
        self.0.iter().find(|preset| preset.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Preset> {
        self.0.iter()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|preset| preset.name.as_str())
    }
}
