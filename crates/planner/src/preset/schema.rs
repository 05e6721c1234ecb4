//! Which keys a preset file has, and what they may hold.

use super::{
    AudioPreset, PRESET_VERSION, Preset, PresetError, RungPreset, StillsPreset, VideoPreset,
    reader::{Section, SourceText},
};

const TOP: &[&str] = &["version", "description", "video", "audio", "stills"];
const VIDEO: &[&str] = &[
    "codec",
    "profile",
    "x264_preset",
    "nvenc_preset",
    "scaler",
    "gop_ms",
    "segment_ms",
    "chunk_ms",
    "rungs",
];
const RUNG: &[&str] = &["lines", "crf", "max_bit_rate_kbps", "buffer_kbits"];
const AUDIO: &[&str] = &["codec", "bit_rate_kbps", "max_channels", "sample_rate"];
const STILLS: &[&str] = &[
    "poster_lines",
    "tile_lines",
    "interval_ms",
    "min_tiles",
    "columns",
    "rows",
    "max_sheets",
    "jpeg_quality",
];

/// x264's own names; `placebo` is left out: its authors advise against using it.
const X264_PRESETS: &[&str] =
    &["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
const NVENC_PRESETS: &[&str] = &["p1", "p2", "p3", "p4", "p5", "p6", "p7"];
/// What FFmpeg's AAC encoder takes and every browser plays.
const SAMPLE_RATES: &[u32] = &[44_100, 48_000];
/// Names are folder names, URL parts and rows.
const MAX_NAME_BYTES: usize = 40;
/// A decode feeds every rung at once, and each one is an encoder in memory.
const MAX_RUNGS: usize = 12;
/// JPEG (and every browser) ends at 65535; sheets above this side are slow to decode on phones.
const MAX_SHEET_SIDE: u32 = 8192;

pub(super) fn read(file_name: &str, text: &str) -> Result<Preset, PresetError> {
    let source = SourceText { file: file_name, text };
    let name = name_of(source)?;
    let mut top = source.open(TOP)?;
    let version = top.integer("version", 1..=u32::MAX)?;
    if version != PRESET_VERSION {
        let problem = format!(
            "this program reads version {PRESET_VERSION}, the file has {version}: it is of another release"
        );
        return Err(top.error("version", problem));
    }
    let description = top.text("description", 200)?;
    let video = read_video(top.section("video", VIDEO)?)?;
    let audio = read_audio(&top.section("audio", AUDIO)?)?;
    let stills = read_stills(&top.section("stills", STILLS)?)?;
    Ok(Preset { name, description, video, audio, stills })
}

fn name_of(source: SourceText<'_>) -> Result<String, PresetError> {
    let file = source.file.rsplit('/').next().unwrap_or_default();
    let name = file.strip_suffix(".toml").unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
        let problem = format!(
            "a preset file is named `name.toml`, with a name of 1 to {MAX_NAME_BYTES} of a-z, 0-9 and `-`"
        );
        return Err(PresetError { line: 0, ..source.error(0, "", problem) });
    }
    Ok(name.to_owned())
}

fn read_video(section: Section<'_>) -> Result<VideoPreset, PresetError> {
    let gop_ms = section.integer("gop_ms", 250..=10_000)?;
    let segment_ms = section.integer("segment_ms", 1_000..=20_000)?;
    if segment_ms % gop_ms != 0 {
        let problem = format!("must be a multiple of gop_ms ({gop_ms}): a segment is made of whole GOPs");
        return Err(section.error("segment_ms", problem));
    }
    let chunk_ms = section.integer("chunk_ms", 2_000..=600_000)?;
    if chunk_ms < segment_ms {
        let problem = format!("must be at least segment_ms ({segment_ms}): a chunk is made of segments");
        return Err(section.error("chunk_ms", problem));
    }
    Ok(VideoPreset {
        codec: section.choice("codec", &["h264"])?,
        profile: section.choice("profile", &["baseline", "main", "high"])?,
        x264_preset: section.choice("x264_preset", X264_PRESETS)?,
        nvenc_preset: section.choice("nvenc_preset", NVENC_PRESETS)?,
        scaler: section.choice("scaler", &["bilinear", "bicubic", "lanczos"])?,
        gop_ms,
        segment_ms,
        chunk_ms,
        rungs: read_rungs(section)?,
    })
}

fn read_rungs(mut section: Section<'_>) -> Result<Vec<RungPreset>, PresetError> {
    let mut rungs: Vec<RungPreset> = Vec::new();
    for entry in section.sections("rungs", 1..=MAX_RUNGS, RUNG)? {
        let rung = RungPreset {
            lines: entry.integer("lines", 64..=4320)?,
            crf: entry.number("crf", 1.0..=51.0)?,
            max_bit_rate_kbps: entry.integer("max_bit_rate_kbps", 50..=400_000)?,
            buffer_kbits: entry.integer("buffer_kbits", 50..=1_600_000)?,
        };
        if !rung.lines.is_multiple_of(2) {
            return Err(entry.error("lines", format!("{} is odd; H.264 sizes are even", rung.lines)));
        }
        // x264 cannot keep a rate with less than half a second to look ahead over.
        if rung.buffer_kbits < rung.max_bit_rate_kbps / 2 {
            let problem = format!(
                "{} is less than half a second of max_bit_rate_kbps ({}): quality would pump",
                rung.buffer_kbits, rung.max_bit_rate_kbps
            );
            return Err(entry.error("buffer_kbits", problem));
        }
        if let Some(above) = rungs.last() {
            if rung.lines >= above.lines {
                let problem = format!(
                    "{} comes after {}: rungs go from the largest to the smallest, each size once",
                    rung.lines, above.lines
                );
                return Err(entry.error("lines", problem));
            }
            if rung.max_bit_rate_kbps >= above.max_bit_rate_kbps {
                let problem = format!(
                    "{} is not below the {} of the larger rung: no player would ever choose between them",
                    rung.max_bit_rate_kbps, above.max_bit_rate_kbps
                );
                return Err(entry.error("max_bit_rate_kbps", problem));
            }
        }
        rungs.push(rung);
    }
    Ok(rungs)
}

fn read_audio(section: &Section<'_>) -> Result<AudioPreset, PresetError> {
    let sample_rate = section.integer("sample_rate", 1..=u32::MAX)?;
    if !SAMPLE_RATES.contains(&sample_rate) {
        return Err(section.error("sample_rate", format!("{sample_rate} is not 44100 or 48000")));
    }
    Ok(AudioPreset {
        codec: section.choice("codec", &["aac"])?,
        bit_rate_kbps: section.integer("bit_rate_kbps", 32..=320)?,
        max_channels: section.integer("max_channels", 1..=2)?,
        sample_rate,
    })
}

fn read_stills(section: &Section<'_>) -> Result<StillsPreset, PresetError> {
    let tile_lines = section.integer("tile_lines", 16..=480)?;
    let columns = section.integer("columns", 1..=20)?;
    let rows = section.integer("rows", 1..=20)?;
    // 16:9 tiles are the widest, so a sheet is at most this wide.
    if columns * tile_lines * 16 / 9 > MAX_SHEET_SIDE || rows * tile_lines * 16 / 9 > MAX_SHEET_SIDE {
        let problem =
            format!("{columns} x {rows} tiles make a sheet with a side above {MAX_SHEET_SIDE} pixels");
        return Err(section.error("tile_lines", problem));
    }
    Ok(StillsPreset {
        poster_lines: section.integer("poster_lines", 64..=2160)?,
        tile_lines,
        interval_ms: section.integer("interval_ms", 100..=60_000)?,
        min_tiles: section.integer("min_tiles", 1..=100)?,
        columns,
        rows,
        max_sheets: section.integer("max_sheets", 1..=50)?,
        // `jpeg_quality` fits a byte because of its range.
        jpeg_quality: u8::try_from(section.integer("jpeg_quality", 1..=100)?).unwrap_or(100),
    })
}
