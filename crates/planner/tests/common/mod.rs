//! Media infos written by hand, as short as they can be told.

use reelyard_model::{
    MediaInfo, Rational,
    media_info::{AudioTrack, Colour, FrameRate, Hdr, Keyframe, MEDIA_INFO_VERSION, Orientation, VideoTrack},
};

pub(crate) fn rational(numerator: i64, denominator: i64) -> Rational {
    Rational::new(numerator, denominator).unwrap()
}

/// A film of square pixels at a constant rate, in ticks of 1/90000 s, with a keyframe every `keyframe_seconds`.
pub(crate) fn video(
    width: u32,
    height: u32,
    rate: Rational,
    seconds: f64,
    keyframe_seconds: f64,
) -> VideoTrack {
    let ticks = |seconds: f64| (seconds * 90_000.0).round() as i64;
    let keyframes = (0..)
        .map(|index| f64::from(index) * keyframe_seconds)
        .take_while(|at| *at < seconds)
        .map(|at| Keyframe { pts: ticks(at), byte_offset: None })
        .collect();
    VideoTrack {
        index: 0,
        codec: "h264".to_owned(),
        profile: Some("High".to_owned()),
        width,
        height,
        sample_aspect_ratio: Rational::ONE,
        orientation: Orientation::default(),
        pixel_format: "yuv420p".to_owned(),
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
        time_base: rational(1, 90_000),
        start_pts: 0,
        end_pts: ticks(seconds),
        frame_count: (seconds * rate.as_f64()).round() as u64,
        frame_rate: FrameRate::Constant { rate },
        keyframes,
        bit_rate: None,
    }
}

pub(crate) fn stereo(seconds: f64) -> AudioTrack {
    AudioTrack {
        index: 1,
        codec: "aac".to_owned(),
        sample_rate: 48_000,
        channels: 2,
        channel_layout: "stereo".to_owned(),
        language: Some("eng".to_owned()),
        start_us: 0,
        duration_us: (seconds * 1e6).round() as i64,
        bit_rate: None,
    }
}

pub(crate) fn info(video: Option<VideoTrack>, audio: Option<AudioTrack>) -> MediaInfo {
    let of_video = video
        .as_ref()
        .map_or(0, |track| track.time_base.scale((track.end_pts - track.start_pts) * 1_000_000));
    let duration_us = of_video.max(audio.as_ref().map_or(0, |track| track.duration_us));
    MediaInfo {
        version: MEDIA_INFO_VERSION,
        container: "mov,mp4,m4a,3gp,3g2,mj2".to_owned(),
        byte_len: 1_000_000,
        duration_us,
        declared_duration_us: None,
        video: video.into_iter().collect(),
        audio: audio.into_iter().collect(),
        other: Vec::new(),
        warnings: Vec::new(),
    }
}
