//! The order of decisions: may it be published at all, which tracks, then pictures, sound and stills.

use crate::{
    chunks::{ChunkPolicy, chunks},
    colour::settled_colour,
    geometry::{Size, believable_pixel_aspect, upright_size},
    ladder::ladder,
    preset::Preset,
    sound::{sound, tail_us},
    stills::stills,
    timing::{Timing, timing},
};
use reelyard_model::{
    Failure, FailureCode, MediaInfo, Plan,
    child::Limits,
    media_info::{AudioTrack, Colour, Hdr, VideoTrack},
    plan::{Decision, PLAN_VERSION, VideoEncoderSettings, VideoPlan},
    rational::rescale_ticks,
};

/// What the operator of this server allows, whatever the preset says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub max_duration_seconds: u64,
    pub max_picture_side: u32,
    pub max_picture_pixels: u64,
    /// Encode tasks of one asset; longer films get longer chunks.
    pub max_chunks: u32,
}

/// A thousand rows of one asset are as many as a job page can show; at 16 s each it is reached after 4.4 hours.
const DEFAULT_MAX_CHUNKS: u32 = 1_000;

impl Default for Policy {
    fn default() -> Self {
        Self::from_limits(&Limits::default())
    }
}

impl Policy {
    /// The limits that the media child keeps, so that nothing is planned which it would refuse.
    pub fn from_limits(limits: &Limits) -> Self {
        Self {
            max_duration_seconds: limits.max_duration_seconds,
            max_picture_side: limits.max_picture_side,
            max_picture_pixels: limits.max_picture_pixels,
            max_chunks: DEFAULT_MAX_CHUNKS,
        }
    }
}

/// The reasons, in the order of the decisions.
#[derive(Default)]
pub(crate) struct Reasons(Vec<Decision>);

impl Reasons {
    pub(crate) fn add(&mut self, topic: &str, text: impl Into<String>) {
        self.0.push(Decision { topic: topic.to_owned(), text: text.into() });
    }
}

/// When the sound goes on this long after the last picture and the pictures are less than half of it, the picture
/// is a cover and the asset is sound: players hold at the end of a picture track while sound is still to come.
const COVER_TAIL_US: i64 = 30_000_000;

/// Largest time stamp believed, in ticks or microseconds: 36 000 years of microseconds.
const LARGEST_TIME: u64 = 1 << 60;
/// Largest term of a time base; FFmpeg keeps them in 32 bits.
const LARGEST_CLOCK_TERM: i64 = i32::MAX as i64;
const US_PER_SECOND: u32 = 1_000_000;

/// What will be made of this source.
pub fn plan(info: &MediaInfo, preset: &Preset, policy: &Policy) -> Result<Plan, Failure> {
    check_clocks(info)?;
    check_length(info, policy)?;
    let mut reasons = Reasons::default();
    add_source_reasons(info, &mut reasons);
    let audio_track = info.audio.first();
    let Some(track) = info.video.first() else {
        let track = audio_track.ok_or_else(|| {
            Failure::new(
                FailureCode::NoPlayableTracks,
                "the source has neither a picture nor a sound track that decodes",
            )
        })?;
        reasons.add("pictures", "none: the asset is sound alone");
        return Ok(sound_alone(track, preset, reasons));
    };
    check_picture(track, policy)?;
    let size = picture_size(track, &mut reasons);
    let colour = settled_colour(track, &mut reasons);
    let pictures = Pictures { track, size, colour, timing: timing(track, &preset.video, &mut reasons) };
    match audio_track {
        Some(sound_track) if is_cover(sound_track, &pictures.timing) => {
            Ok(sound_with_cover(sound_track, &pictures, preset, reasons))
        }
        _ => {
            let video = video_plan(info, &pictures, preset, policy, &mut reasons);
            Ok(film(video, &pictures, audio_track, preset, reasons))
        }
    }
}

/// The picture track, with what was decided about it before anything else.
pub(crate) struct Pictures<'info> {
    pub(crate) track: &'info VideoTrack,
    pub(crate) size: Size,
    pub(crate) colour: Colour,
    pub(crate) timing: Timing,
}

fn film(
    video: VideoPlan,
    pictures: &Pictures<'_>,
    audio_track: Option<&AudioTrack>,
    preset: &Preset,
    mut reasons: Reasons,
) -> Plan {
    let timing = &pictures.timing;
    let audio =
        audio_track.map(|track| sound(track, Some(timing), timing.segment_us(), &preset.audio, &mut reasons));
    if audio.is_none() {
        reasons.add("sound", "none: the source has no sound track that decodes");
    }
    let stills = stills(pictures, &preset.stills, &mut reasons);
    let sound_us = audio.as_ref().and_then(|audio| audio.duration_us).unwrap_or(0);
    Plan {
        version: PLAN_VERSION,
        preset: preset.name.clone(),
        duration_us: timing.duration_us.max(sound_us),
        video: Some(video),
        audio,
        stills: Some(stills),
        decisions: reasons.0,
    }
}

/// The facts come from a child that parses strangers' files, so even absurd ones must not make arithmetic overflow.
fn check_clocks(info: &MediaInfo) -> Result<(), Failure> {
    let is_sane = |value: i64| value.unsigned_abs() <= LARGEST_TIME;
    let is_term = |value: i64| (1..=LARGEST_CLOCK_TERM).contains(&value);
    let bad_video = info.video.iter().find(|track| {
        let times_are_sane = is_sane(track.start_pts) && is_sane(track.end_pts);
        !(times_are_sane && is_term(track.time_base.numerator) && is_term(track.time_base.denominator))
    });
    if let Some(track) = bad_video {
        let detail = format!(
            "picture track {} has no usable clock: {} to {} in {} s",
            track.index, track.start_pts, track.end_pts, track.time_base
        );
        return Err(Failure::new(FailureCode::NothingDecodes, detail));
    }
    let bad_audio = info.audio.iter().find(|track| !(is_sane(track.start_us) && is_sane(track.duration_us)));
    if let Some(track) = bad_audio {
        let detail = format!(
            "sound track {} has no usable clock: {} us from {} us",
            track.index, track.duration_us, track.start_us
        );
        return Err(Failure::new(FailureCode::NothingDecodes, detail));
    }
    Ok(())
}

fn check_length(info: &MediaInfo, policy: &Policy) -> Result<(), Failure> {
    let of_video = info.video.iter().map(|track| {
        rescale_ticks(track.end_pts.saturating_sub(track.start_pts), track.time_base, US_PER_SECOND)
    });
    let of_audio = info.audio.iter().map(|track| track.duration_us);
    let longest_us = of_video.chain(of_audio).fold(info.duration_us, i64::max);
    if i128::from(longest_us) > i128::from(policy.max_duration_seconds) * i128::from(US_PER_SECOND) {
        let detail = format!(
            "the source lasts {} s, the limit is {} s",
            longest_us / i64::from(US_PER_SECOND),
            policy.max_duration_seconds
        );
        return Err(Failure::new(FailureCode::TooLong, detail));
    }
    Ok(())
}

fn check_picture(track: &VideoTrack, policy: &Policy) -> Result<(), Failure> {
    let (width, height) = (track.width, track.height);
    if width == 0 || height == 0 {
        let detail = format!("picture track {} has no usable size: {width}x{height}", track.index);
        return Err(Failure::new(FailureCode::NothingDecodes, detail));
    }
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > policy.max_picture_side || pixels > policy.max_picture_pixels {
        let detail = format!(
            "track {} is {width}x{height}; the limits are {} pixels a side and {} in all",
            track.index, policy.max_picture_side, policy.max_picture_pixels
        );
        return Err(Failure::new(FailureCode::DimensionsTooLarge, detail));
    }
    Ok(())
}

fn is_cover(sound_track: &AudioTrack, pictures: &Timing) -> bool {
    tail_us(sound_track, pictures) > COVER_TAIL_US && pictures.duration_us < sound_track.duration_us / 2
}

fn add_source_reasons(info: &MediaInfo, reasons: &mut Reasons) {
    let kind = info.container.split(',').next().unwrap_or_default();
    let text = format!(
        "{kind}, {:.3} s; tracks: {} picture, {} sound, {} other",
        info.duration_us as f64 / 1e6,
        info.video.len(),
        info.audio.len(),
        info.other.len()
    );
    reasons.add("source", text);
    for warning in &info.warnings {
        reasons.add("source", warning.clone());
    }
    if info.video.len() > 1 {
        reasons.add("pictures", format!("the first of {} picture tracks is used", info.video.len()));
    }
    if info.audio.len() > 1 {
        reasons.add("sound", format!("the first of {} sound tracks is used", info.audio.len()));
    }
    for other in &info.other {
        let text =
            format!("track {} ({}, {}) is not used", other.index, other.kind.replace('_', " "), other.codec);
        reasons.add("source", text);
    }
}

fn picture_size(track: &VideoTrack, reasons: &mut Reasons) -> Size {
    let source = upright_size(track);
    let mut text =
        format!("track {} ({}): {}x{} as coded", track.index, track.codec, track.width, track.height);
    match believable_pixel_aspect(track) {
        Some(aspect) if aspect.numerator != aspect.denominator => {
            text.push_str(&format!(", pixels {}:{}", aspect.numerator, aspect.denominator));
        }
        Some(_) => {}
        None => text.push_str(&format!(
            ", pixel shape {} not believed and taken as square",
            track.sample_aspect_ratio
        )),
    }
    let turns = track.orientation.quarter_turns_clockwise % 4;
    if track.orientation.mirrored {
        text.push_str(", mirrored");
    }
    if turns > 0 {
        text.push_str(&format!(", turned {} degrees clockwise", u32::from(turns) * 90));
    }
    text.push_str(&format!(", so {source} upright"));
    reasons.add("pictures", text);
    if track.interlaced {
        reasons.add("pictures", "interlaced: each pair of fields becomes one picture");
    }
    match track.colour.hdr {
        Hdr::None => {}
        Hdr::Pq => reasons.add("colour", "HDR (PQ): mapped to BT.709, since H.264 plays as SDR on the web"),
        Hdr::Hlg => reasons.add("colour", "HDR (HLG): mapped to BT.709, since H.264 plays as SDR on the web"),
    }
    source
}

fn video_plan(
    info: &MediaInfo,
    pictures: &Pictures<'_>,
    preset: &Preset,
    policy: &Policy,
    reasons: &mut Reasons,
) -> VideoPlan {
    let Pictures { track, size, colour, timing } = pictures;
    let recipe = &preset.video;
    let chunk_policy =
        ChunkPolicy { chunk_us: i64::from(recipe.chunk_ms) * 1000, max_chunks: policy.max_chunks };
    VideoPlan {
        source_track: track.index,
        source_time_base: track.time_base,
        origin_pts: track.start_pts,
        timescale: timing.timescale,
        frame_rate: timing.frame_rate,
        orientation: track.orientation,
        deinterlace: track.interlaced,
        colour: *colour,
        gop_ticks: timing.gop_ticks,
        segment_ticks: timing.segment_ticks,
        rungs: ladder(*size, timing.frame_rate.nominal().as_f64(), recipe, reasons),
        encoder: VideoEncoderSettings {
            x264_preset: recipe.x264_preset.clone(),
            nvenc_preset: recipe.nvenc_preset.clone(),
            profile: recipe.profile.clone(),
            scaler: recipe.scaler.clone(),
        },
        chunks: chunks(track, &info.container, timing, &chunk_policy, reasons),
    }
}

fn sound_with_cover(
    sound_track: &AudioTrack,
    pictures: &Pictures<'_>,
    preset: &Preset,
    mut reasons: Reasons,
) -> Plan {
    let text = format!(
        "published as sound alone: the pictures last {:.2} s, the sound {:.2} s",
        pictures.timing.duration_us as f64 / 1e6,
        sound_track.duration_us as f64 / 1e6
    );
    reasons.add("pictures", text);
    let stills = stills(pictures, &preset.stills, &mut reasons);
    Plan { stills: Some(stills), ..sound_alone(sound_track, preset, reasons) }
}

fn sound_alone(track: &AudioTrack, preset: &Preset, mut reasons: Reasons) -> Plan {
    let segment_us = i64::from(preset.video.segment_ms) * 1000;
    let audio = sound(track, None, segment_us, &preset.audio, &mut reasons);
    Plan {
        version: PLAN_VERSION,
        preset: preset.name.clone(),
        duration_us: track.duration_us,
        video: None,
        audio: Some(audio),
        stills: None,
        decisions: reasons.0,
    }
}
