//! The sound track.

use crate::{planning::Reasons, preset::AudioPreset, timing::Timing};
use reelyard_model::{media_info::AudioTrack, plan::AudioPlan};

/// Sound up to this much longer than the pictures is an encoder's padding or a late cut, and is cut off. Beyond it
/// somebody would miss it.
const CUT_AT_MOST_US: i64 = 1_000_000;
/// At most this much of it is kept: hls.js, Shaka and dash.js load at least this far ahead before they take a track
/// for finished, and with more sound to come they wait for pictures that never come.
const KEPT_TAIL_US: i64 = 8_000_000;
/// Sample rates that are kept: both play everywhere, and changing one into the other gains nothing.
const KEPT_SAMPLE_RATES: [u32; 2] = [44_100, 48_000];

/// `pictures` is `None` for an asset of sound alone; `segment_us` is what a segment should last.
pub(crate) fn sound(
    track: &AudioTrack,
    pictures: Option<&Timing>,
    segment_us: i64,
    preset: &AudioPreset,
    reasons: &mut Reasons,
) -> AudioPlan {
    let channels = track.channels.clamp(1, preset.max_channels);
    let bit_rate = u64::from(preset.bit_rate_kbps) * 1000 * u64::from(channels) / 2;
    let sample_rate =
        if KEPT_SAMPLE_RATES.contains(&track.sample_rate) { track.sample_rate } else { preset.sample_rate };
    let mixed = if channels < track.channels {
        format!("{} channels ({}) mixed down to {channels}", track.channels, track.channel_layout)
    } else {
        format!("{channels} {}", if channels == 1 { "channel" } else { "channels" })
    };
    let rate = if sample_rate == track.sample_rate {
        format!("{sample_rate} Hz as in the source")
    } else {
        format!("{} Hz resampled to {sample_rate}", track.sample_rate)
    };
    let text = format!(
        "track {} ({}): {mixed}, {rate}, AAC at {} kbit/s",
        track.index,
        track.codec,
        bit_rate / 1000
    );
    reasons.add("sound", text);
    let (origin_us, duration_us) = match pictures {
        Some(pictures) => (pictures.origin_us, length(track, pictures, reasons)),
        None => (track.start_us, None),
    };
    AudioPlan {
        source_track: track.index,
        origin_us,
        duration_us,
        sample_rate,
        channels,
        bit_rate,
        segment_us,
        language: track.language.clone(),
    }
}

/// How far the sound reaches beyond the pictures' end; below zero when it ends earlier.
pub(crate) fn tail_us(track: &AudioTrack, pictures: &Timing) -> i64 {
    let end_us = track.start_us.saturating_add(track.duration_us).saturating_sub(pictures.origin_us);
    end_us.saturating_sub(pictures.duration_us)
}

/// Tracks of equal length are what players handle best, so small differences are evened out.
fn length(track: &AudioTrack, pictures: &Timing, reasons: &mut Reasons) -> Option<i64> {
    let offset_ms = (track.start_us.saturating_sub(pictures.origin_us)) / 1000;
    if offset_ms > 0 {
        reasons.add(
            "sound",
            format!("it begins {offset_ms} ms after the first picture: silence is put before it"),
        );
    } else if offset_ms < 0 {
        reasons
            .add("sound", format!("it begins {} ms before the first picture: that much is cut", -offset_ms));
    }
    let tail_us = tail_us(track, pictures);
    let tail_ms = tail_us / 1000;
    if tail_us > KEPT_TAIL_US {
        let text = format!(
            "it ends {tail_ms} ms after the last picture: {} ms of that are kept, because players stop at the end of \
             the pictures when much more sound is to come",
            KEPT_TAIL_US / 1000
        );
        reasons.add("sound", text);
        return Some(pictures.duration_us.saturating_add(KEPT_TAIL_US));
    }
    if tail_us > CUT_AT_MOST_US {
        let text =
            format!("it ends {tail_ms} ms after the last picture and is kept whole: the last picture stays");
        reasons.add("sound", text);
        return Some(pictures.duration_us.saturating_add(tail_us));
    }
    match tail_ms {
        0 => {}
        1.. => reasons.add("sound", format!("it ends {tail_ms} ms after the last picture: that much is cut")),
        _ => {
            let text = format!("it ends {} ms before the last picture: silence is put after it", -tail_ms);
            reasons.add("sound", text);
        }
    }
    Some(pictures.duration_us)
}
