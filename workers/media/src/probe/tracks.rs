//! One track: from claims, packets and decoded pictures or sounds to its facts.

use super::{decode_check, orientation, scan::TrackScan, timing};
use crate::context::Context;
use reelyard_ffmpeg::{CodecParameters, FrameColour, Stream};
use reelyard_model::{
    Failure, FailureCode, Rational,
    media_info::{AudioTrack, Colour, Hdr, Keyframe, Orientation, OtherTrack, VideoTrack},
    rational::rescale_ticks,
};

/// More places to cut are of no use: twelve hours have one every half second. Each is some 45 bytes of the answer, which
/// is one line of at most 16 MiB, and films in which every picture is a keyframe have millions.
const MAX_KEYFRAMES: usize = 100_000;
/// Sample aspect ratios beyond this (either way) are damage, not anamorphic film.
const MAX_SAMPLE_ASPECT: f64 = 20.0;
/// H.273: SMPTE ST 2084 and ARIB STD-B67.
const TRANSFER_PQ: u8 = 16;
const TRANSFER_HLG: u8 = 18;
const UNSPECIFIED: u8 = 2;
/// Codings in which every picture stands alone: many keyframes prove nothing wrong.
const INTRA_CODECS: [&str; 12] = [
    "mjpeg", "prores", "dnxhd", "rawvideo", "png", "apng", "gif", "dvvideo", "ffv1", "huffyuv", "utvideo",
    "cfhd",
];

pub(crate) fn video(
    context: &Context,
    stream: &Stream<'_>,
    parameters: &CodecParameters,
    packets: &TrackScan,
    warnings: &mut Vec<String>,
) -> Result<VideoTrack, Failure> {
    check_packets(stream, parameters, packets)?;
    let time_base = time_base(stream)?;
    let pictures = decode_check::pictures(context, stream.index())?.ok_or_else(|| {
        let detail = format!("track {}: {} packets, no picture", stream.index(), packets.packet_count);
        Failure::new(FailureCode::NothingDecodes, detail)
    })?;
    if pictures.damaged > 0 {
        warnings.push("Parts of the picture are damaged in the file.".to_owned());
    }
    let times = shown_times(packets, &pictures);
    let start_pts = times.first().copied().unwrap_or(0);
    let declared = Rational::new(stream.average_frame_rate().0.into(), stream.average_frame_rate().1.into())
        .filter(|rate| rate.numerator > 0);
    let end_pts = end_of_pictures(&times, packets.end, time_base, declared);
    let seconds = (end_pts - start_pts) as f64 * time_base.as_f64();
    let codec = parameters.codec_name();
    Ok(VideoTrack {
        index: stream.index(),
        profile: parameters.profile_name(),
        width: pictures.width,
        height: pictures.height,
        sample_aspect_ratio: sample_aspect_ratio(stream, parameters, pictures.sample_aspect_ratio, warnings),
        orientation: orientation_of(stream, warnings),
        pixel_format: pictures.pixel_format.name().unwrap_or("unknown").to_owned(),
        bit_depth: pictures.pixel_format.bit_depth().unwrap_or(8),
        colour: colour(stream, parameters, &pictures),
        interlaced: pictures.interlaced * 2 > pictures.count,
        time_base,
        start_pts,
        end_pts,
        frame_count: pictures.exact_count.map_or(packets.shown_count(), u64::from),
        frame_rate: timing::frame_rate(&times, end_pts, time_base, declared),
        keyframes: keyframes(packets, &codec, &pictures, &times),
        bit_rate: bit_rate(packets.byte_count, seconds),
        codec,
    })
}

pub(crate) fn audio(
    context: &Context,
    stream: &Stream<'_>,
    parameters: &CodecParameters,
    packets: &TrackScan,
) -> Result<AudioTrack, Failure> {
    check_packets(stream, parameters, packets)?;
    let time_base = time_base(stream)?;
    let sound = decode_check::sound(context, stream.index())?.ok_or_else(|| {
        let detail = format!("track {}: {} packets, no sound", stream.index(), packets.packet_count);
        Failure::new(FailureCode::NothingDecodes, detail)
    })?;
    let start = packets.start().unwrap_or(0);
    let end = packets.end.unwrap_or(start);
    let us = |ticks: i64| rescale_ticks(ticks, time_base, 1_000_000);
    let layout =
        if parameters.channels() == sound.channels { parameters.channel_layout() } else { String::new() };
    Ok(AudioTrack {
        index: stream.index(),
        codec: parameters.codec_name(),
        sample_rate: sound.sample_rate,
        channels: sound.channels,
        channel_layout: if layout.is_empty() { format!("{} channels", sound.channels) } else { layout },
        language: language(stream),
        start_us: us(start),
        duration_us: us(end - start),
        bit_rate: bit_rate(packets.byte_count, (end - start) as f64 * time_base.as_f64()),
    })
}

pub(crate) fn other(stream: &Stream<'_>, parameters: &CodecParameters, kind: &str) -> OtherTrack {
    OtherTrack {
        index: stream.index(),
        kind: kind.to_owned(),
        codec: parameters.codec_name(),
        language: language(stream),
    }
}

fn check_packets(
    stream: &Stream<'_>,
    parameters: &CodecParameters,
    packets: &TrackScan,
) -> Result<(), Failure> {
    // ISO/IEC 23001-7 section 4; Matroska's ContentEncKeyID as FFmpeg shows it.
    let protected_entry = matches!(parameters.tag().as_str(), "encv" | "enca" | "drmi" | "drms");
    if stream.is_encrypted()
        || packets.encrypted
        || protected_entry
        || stream.metadata("enc_key_id").is_some()
    {
        return Err(Failure::new(FailureCode::Encrypted, format!("track {}", stream.index())));
    }
    if packets.packet_count == 0 {
        let detail = format!("track {}, {}: no packets", stream.index(), parameters.codec_name());
        return Err(Failure::new(FailureCode::MediaDataMissing, detail));
    }
    Ok(())
}

fn time_base(stream: &Stream<'_>) -> Result<Rational, Failure> {
    let (numerator, denominator) = stream.time_base();
    Rational::new(numerator.into(), denominator.into())
        .filter(|time_base| time_base.numerator > 0)
        .ok_or_else(|| {
            Failure::new(FailureCode::NothingDecodes, format!("track {}: no clock", stream.index()))
        })
}

/// Times in rising order. Where they are decode times for want of better, they are moved to where the decoder shows the
/// first picture.
fn shown_times(packets: &TrackScan, pictures: &decode_check::Pictures) -> Vec<i64> {
    let mut times = packets.sorted_times();
    if packets.keyframes_without_time {
        let shift = pictures.first_pts - times.first().copied().unwrap_or(0);
        times.iter_mut().for_each(|time| *time = time.saturating_add(shift));
    }
    times
}

/// The packets' own end, or, where the last packet has no duration, one usual gap after the last picture.
fn end_of_pictures(
    times: &[i64],
    packets_end: Option<i64>,
    time_base: Rational,
    declared_rate: Option<Rational>,
) -> i64 {
    let Some(last) = times.last().copied() else { return 0 };
    if let Some(end) = packets_end.filter(|end| *end > last) {
        return end;
    }
    let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let usual = gaps.get(gaps.len() / 2).copied();
    last.saturating_add(usual.unwrap_or_else(|| timing::single_picture_ticks(time_base, declared_rate)))
}

/// Where decoding can start. A container that calls every picture a keyframe is believed only where the decoder
/// agrees: chunks cut at pictures that need others would begin with rubbish.
fn keyframes(
    packets: &TrackScan,
    codec: &str,
    pictures: &decode_check::Pictures,
    times: &[i64],
) -> Vec<Keyframe> {
    let (start_pts, count) = (times.first().copied().unwrap_or(0), times.len());
    if packets.keyframes_without_time {
        return vec![Keyframe { pts: start_pts, byte_offset: None }];
    }
    let mut keyframes = packets.keyframes.clone();
    keyframes.sort_unstable_by_key(|keyframe| keyframe.pts);
    keyframes.dedup_by_key(|keyframe| keyframe.pts);
    let suspicious = keyframes.len() == count && count > 1 && !INTRA_CODECS.contains(&codec);
    if suspicious && pictures.intra < pictures.count {
        keyframes.truncate(1);
    }
    thinned(keyframes, MAX_KEYFRAMES)
}

/// The first, and every n-th after it.
fn thinned(keyframes: Vec<Keyframe>, most: usize) -> Vec<Keyframe> {
    let step = keyframes.len().div_ceil(most).max(1);
    keyframes.into_iter().step_by(step).collect()
}

fn sample_aspect_ratio(
    stream: &Stream<'_>,
    parameters: &CodecParameters,
    decoded: (i32, i32),
    warnings: &mut Vec<String>,
) -> Rational {
    let said = [stream.sample_aspect_ratio(), parameters.sample_aspect_ratio(), decoded];
    let Some((numerator, denominator)) = said.into_iter().find(|(n, d)| *n > 0 && *d > 0) else {
        return Rational::ONE;
    };
    let ratio = f64::from(numerator) / f64::from(denominator);
    if !(1.0 / MAX_SAMPLE_ASPECT..=MAX_SAMPLE_ASPECT).contains(&ratio) {
        warnings.push("The file gives its pixels an impossible shape; they are taken for square.".to_owned());
        return Rational::ONE;
    }
    Rational::new(numerator.into(), denominator.into()).unwrap_or(Rational::ONE)
}

fn orientation_of(stream: &Stream<'_>, warnings: &mut Vec<String>) -> Orientation {
    let Some(matrix) = stream.display_matrix() else { return Orientation::default() };
    let (orientation, exact) = orientation::from_matrix(&matrix);
    if !exact {
        warnings
            .push("The file asks to be shown at an odd angle; the nearest quarter turn is used.".to_owned());
    }
    orientation
}

/// What the decoder saw in the pictures counts; the container fills what they leave open.
fn colour(stream: &Stream<'_>, parameters: &CodecParameters, pictures: &decode_check::Pictures) -> Colour {
    let claimed: FrameColour = parameters.colour();
    let known = |decoded: u8, claimed: u8| match (decoded, claimed) {
        (0 | UNSPECIFIED, claimed) if claimed != 0 => claimed,
        (decoded, _) => decoded,
    };
    let transfer = known(pictures.colour.transfer, claimed.transfer);
    let matrix = match pictures.colour.matrix {
        UNSPECIFIED => claimed.matrix,
        decoded => decoded,
    };
    Colour {
        primaries: known(pictures.colour.primaries, claimed.primaries),
        transfer,
        matrix,
        full_range: pictures.colour.full_range.or(claimed.full_range).unwrap_or(false)
            || pictures.pixel_format.is_full_range_by_name(),
        hdr: match transfer {
            TRANSFER_PQ => Hdr::Pq,
            TRANSFER_HLG => Hdr::Hlg,
            _ => Hdr::None,
        },
        dolby_vision: stream.has_dolby_vision(),
    }
}

fn bit_rate(bytes: u64, seconds: f64) -> Option<u64> {
    let rate = bytes as f64 * 8.0 / seconds;
    (rate.is_finite() && rate >= 1.0).then_some(rate as u64)
}

fn language(stream: &Stream<'_>) -> Option<String> {
    stream.metadata("language").filter(|language| !language.is_empty() && language != "und")
}

#[cfg(test)]
mod tests {
    use super::thinned;
    use reelyard_model::media_info::Keyframe;

    #[test]
    fn keyframes_are_thinned_evenly_from_the_first_on() {
        let every: Vec<Keyframe> = (7..1007).map(|pts| Keyframe { pts, byte_offset: None }).collect();
        let thinned_to = |most| thinned(every.clone(), most).iter().map(|k| k.pts).collect::<Vec<_>>();
        assert_eq!(thinned_to(1000).len(), 1000);
        assert_eq!(thinned_to(300), (7..1007).step_by(4).collect::<Vec<_>>());
        assert!(thinned(Vec::new(), 10).is_empty());
    }
}
