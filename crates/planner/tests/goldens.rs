//! Plans of typical and of odd sources, as text in `goldens/`. After a wanted change run the tests once with
//! `UPDATE_GOLDENS=1` and read the difference: it is what every creator's next upload will get.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{info, rational, stereo, video};
use pretty_assertions::assert_eq;
use reelyard_model::{
    MediaInfo, Plan, Rational,
    media_info::{FrameRate, Hdr, Keyframe, Orientation},
};
use reelyard_planner::{DEFAULT_PRESET, Policy, Presets, explain, plan};
use std::{fmt::Write, path::PathBuf};

/// From the start; the last one is shown too.
const CHUNKS_SHOWN: usize = 8;

fn check(name: &str, info: &MediaInfo) {
    let presets = Presets::built_in().unwrap();
    let preset = presets.get(DEFAULT_PRESET).unwrap();
    let text = match plan(info, preset, &Policy::default()) {
        Ok(plan) => format!("{}\nNumbers:\n{}", explain(&plan), numbers(&plan)),
        Err(failure) => format!("{failure}\n{}\n", failure.code.for_creator()),
    };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{}", path.display());
}

fn numbers(plan: &Plan) -> String {
    let mut text = String::new();
    if let Some(video) = &plan.video {
        writeln!(
            text,
            "  origin {} in {} s, timescale {}, gop {}, segment {}",
            video.origin_pts, video.source_time_base, video.timescale, video.gop_ticks, video.segment_ticks
        )
        .unwrap();
        let shown = |index: usize| index < CHUNKS_SHOWN || index + 1 == video.chunks.len();
        for (_, chunk) in video.chunks.iter().enumerate().filter(|(index, _)| shown(*index)) {
            writeln!(text, "  chunk {}: {} to {:?}", chunk.index, chunk.start_pts, chunk.end_pts).unwrap();
        }
    }
    if let Some(audio) = &plan.audio {
        writeln!(
            text,
            "  audio origin {} us, duration {:?} us, segment {} us",
            audio.origin_us, audio.duration_us, audio.segment_us
        )
        .unwrap();
    }
    if let Some(stills) = &plan.stills {
        writeln!(
            text,
            "  stills duration {} us, sheet {}x{}",
            stills.duration_us, stills.columns, stills.rows
        )
        .unwrap();
    }
    text
}

#[test]
fn bbb_1080p24() {
    // As the sample in shared/media: 30 s at 24 a second, keyframes every 250 pictures.
    check(
        "bbb_1080p24",
        &info(Some(video(1920, 1080, rational(24, 1), 30.0, 250.0 / 24.0)), Some(stereo(30.016))),
    );
}

#[test]
fn portrait_phone() {
    let mut track = video(1920, 1080, rational(30_000, 1001), 12.5, 1.001);
    track.orientation = Orientation { mirrored: false, quarter_turns_clockwise: 1 };
    track.codec = "hevc".to_owned();
    let mut sound = stereo(12.52);
    sound.sample_rate = 44_100;
    sound.channels = 1;
    sound.channel_layout = "mono".to_owned();
    sound.start_us = -44_000;
    sound.language = Some("und".to_owned());
    check("portrait_phone", &info(Some(track), Some(sound)));
}

#[test]
fn odd_321x241() {
    check("odd_321x241", &info(Some(video(321, 241, rational(25, 1), 8.0, 2.0)), None));
}

#[test]
fn wide_pixels() {
    let mut track = video(720, 576, rational(25, 1), 40.0, 0.48);
    track.sample_aspect_ratio = rational(2, 1);
    track.interlaced = true;
    let mut sound = stereo(40.0);
    sound.channels = 6;
    sound.channel_layout = "5.1".to_owned();
    check("wide_pixels", &info(Some(track), Some(sound)));
}

#[test]
fn variable_frame_rate() {
    let mut track = video(1280, 720, rational(30, 1), 65.3, 3.7);
    track.time_base = rational(1, 1000);
    track.start_pts = 33;
    track.end_pts = 65_333;
    track.keyframes = (0..17).map(|index| Keyframe { pts: 33 + index * 3_700, byte_offset: None }).collect();
    track.frame_rate = FrameRate::Variable { average: rational(23_700, 1001), highest: rational(1000, 16) };
    let mut sound = stereo(64.0);
    sound.start_us = 250_000;
    let mut info = info(Some(track), Some(sound));
    info.container = "matroska,webm".to_owned();
    check("variable_frame_rate", &info);
}

#[test]
fn uhd_8k_hdr_60() {
    let mut track = video(7680, 4320, rational(60_000, 1001), 60.06, 1.001);
    track.colour.hdr = Hdr::Pq;
    track.colour.transfer = 16;
    check("uhd_8k_hdr_60", &info(Some(track), Some(stereo(60.06))));
}

#[test]
fn one_pixel() {
    check("one_pixel", &info(Some(video(1, 1, rational(10, 1), 0.1, 1.0)), None));
}

#[test]
fn sound_alone() {
    let mut sound = stereo(185.3);
    sound.start_us = 25_000;
    sound.sample_rate = 22_050;
    check("sound_alone", &info(None, Some(sound)));
}

#[test]
fn cover_with_long_sound() {
    check(
        "cover_with_long_sound",
        &info(Some(video(600, 600, rational(25, 1), 0.04, 1.0)), Some(stereo(240.0))),
    );
}

#[test]
fn sound_a_little_longer() {
    check(
        "sound_a_little_longer",
        &info(Some(video(1280, 720, rational(25, 1), 20.0, 4.0)), Some(stereo(23.5))),
    );
}

#[test]
fn sound_much_longer() {
    check("sound_much_longer", &info(Some(video(1280, 720, rational(25, 1), 60.0, 4.0)), Some(stereo(90.0))));
}

#[test]
fn tiny_160x120() {
    check("tiny_160x120", &info(Some(video(160, 120, rational(15, 1), 3.0, 3.0)), Some(stereo(3.0))));
}

#[test]
fn between_rungs_900p() {
    check("between_rungs_900p", &info(Some(video(1600, 900, rational(50, 1), 70.0, 1.0)), None));
}

#[test]
fn a_little_above_a_rung() {
    check("a_little_above_a_rung", &info(Some(video(1920, 1088, rational(30, 1), 10.0, 2.0)), None));
}

#[test]
fn cinema_scope() {
    check(
        "cinema_scope",
        &info(Some(video(1920, 800, rational(24_000, 1001), 7200.0, 5.0)), Some(stereo(7200.0))),
    );
}

#[test]
fn long_gop() {
    check("long_gop", &info(Some(video(1280, 720, rational(30, 1), 100.0, 41.0)), None));
}

#[test]
fn no_keyframes() {
    let mut track = video(640, 360, rational(25, 1), 60.0, 2.0);
    track.keyframes.clear();
    check("no_keyframes", &info(Some(track), None));
}

#[test]
fn reset_clock() {
    let mut track = video(640, 360, rational(25, 1), 60.0, 2.0);
    for (keyframe, offset) in track.keyframes.iter_mut().zip((0..100_u64).rev()) {
        keyframe.byte_offset = Some(offset * 1000);
    }
    check("reset_clock", &info(Some(track), None));
}

#[test]
fn panorama_8192x100() {
    check("panorama_8192x100", &info(Some(video(8192, 100, rational(10, 1), 1.0, 1.0)), None));
}

#[test]
fn refused_32768x100() {
    check("refused_32768x100", &info(Some(video(32_768, 100, rational(10, 1), 1.0, 1.0)), None));
}

#[test]
fn refused_without_tracks() {
    check("refused_without_tracks", &info(None, None));
}

#[test]
fn refused_too_long() {
    check("refused_too_long", &info(Some(video(640, 360, rational(25, 1), 50_000.0, 10.0)), None));
}

#[test]
fn slide_show() {
    check("slide_show", &info(Some(video(1024, 768, Rational::new(1, 10).unwrap(), 95.0, 10.0)), None));
}

#[test]
fn slow_motion_240() {
    check("slow_motion_240", &info(Some(video(1920, 1080, rational(240, 1), 6.0, 1.0)), None));
}

#[test]
fn broken_frame_rate() {
    let mut track = video(640, 480, rational(25, 1), 6.0, 1.0);
    track.frame_rate = FrameRate::Constant { rate: Rational { numerator: 1_000_000, denominator: 1 } };
    check("broken_frame_rate", &info(Some(track), None));
}
