//! What holds for every plan, whatever the source claims: checked on random sources, sane and absurd.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{info, stereo, video};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use reelyard_model::{
    MediaInfo, Plan, Rational,
    media_info::{AudioTrack, FrameRate, Keyframe, Orientation, VideoTrack},
    plan::VideoPlan,
};
use reelyard_planner::{Policy, Presets, explain, plan};

fn rates() -> impl Strategy<Value = Rational> {
    prop_oneof![
        Just(Rational { numerator: 24_000, denominator: 1001 }),
        Just(Rational { numerator: 60, denominator: 1 }),
        (1_i64..200, 1_i64..20).prop_map(|(n, d)| Rational::new(n, d).unwrap()),
        (any::<i64>(), any::<i64>()).prop_map(|(numerator, denominator)| Rational { numerator, denominator }),
    ]
}

fn sizes() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![
        (1_u32..8200, 1_u32..4700),
        (1_u32..20, 1_u32..20),
        (1_u32..8193, 1_u32..8),
        any::<(u32, u32)>()
    ]
}

/// A track with a random keyframe index, sometimes without order.
fn videos() -> impl Strategy<Value = VideoTrack> {
    let shape = (sizes(), rates(), 0.0_f64..3000.0, 0.04_f64..60.0);
    let twist = (
        prop_oneof![4 => Just((1_i64, 1_i64)), 2 => (1_i64..80, 1_i64..80), 1 => any::<(i64, i64)>()],
        any::<bool>(),
        0_u8..4,
        prop_oneof![4 => -100_000_i64..100_000, 1 => any::<i64>()],
        any::<bool>(),
        prop_oneof![9 => Just(false), 1 => Just(true)],
    );
    (shape, twist).prop_map(
        |(((width, height), rate, seconds, gap), (sar, mirrored, turns, shift, variable, shuffled))| {
            let mut track = video(width, height, rate, seconds, gap);
            track.sample_aspect_ratio = Rational { numerator: sar.0, denominator: sar.1 };
            track.orientation = Orientation { mirrored, quarter_turns_clockwise: turns };
            track.start_pts = track.start_pts.wrapping_add(shift);
            track.end_pts = track.end_pts.wrapping_add(shift);
            for keyframe in &mut track.keyframes {
                keyframe.pts = keyframe.pts.wrapping_add(shift);
            }
            if shuffled {
                track.keyframes.reverse();
                track.keyframes.push(Keyframe { pts: shift, byte_offset: Some(7) });
            }
            if variable {
                track.frame_rate = FrameRate::Variable { average: rate, highest: rate };
            }
            track
        },
    )
}

fn sounds() -> impl Strategy<Value = AudioTrack> {
    let start = prop_oneof![4 => -2_000_000_i64..2_000_000, 1 => any::<i64>()];
    (0.0_f64..4000.0, start, any::<u32>(), 0_u32..12).prop_map(
        |(seconds, start_us, sample_rate, channels)| AudioTrack {
            start_us,
            sample_rate,
            channels,
            ..stereo(seconds)
        },
    )
}

fn sources() -> impl Strategy<Value = MediaInfo> {
    (proptest::option::weighted(0.9, videos()), proptest::option::of(sounds())).prop_map(|(track, sound)| {
        let mut info = info(None, sound);
        info.video.extend(track);
        info
    })
}

/// Width and height as seen, before any rounding, or `None` where the file's pixel shape is not believed.
fn upright(track: &VideoTrack) -> (f64, f64) {
    let Rational { numerator, denominator } = track.sample_aspect_ratio;
    let aspect = numerator as f64 / denominator as f64;
    let believed = numerator > 0 && denominator > 0 && (0.125..=8.0).contains(&aspect);
    let width = f64::from(track.width) * if believed { aspect } else { 1.0 };
    let height = f64::from(track.height);
    if track.orientation.quarter_turns_clockwise % 2 == 1 { (height, width) } else { (width, height) }
}

fn rungs_are_good(video: &VideoPlan, track: &VideoTrack) -> Result<(), proptest::test_runner::TestCaseError> {
    let (width, height) = upright(track);
    prop_assert!(!video.rungs.is_empty());
    for rung in &video.rungs {
        prop_assert!(rung.width % 2 == 0 && rung.height % 2 == 0 && rung.width >= 2 && rung.height >= 2);
        prop_assert!(f64::from(rung.width) <= (width + 0.5).max(2.0), "{} wider than {width}", rung.width);
        prop_assert!(
            f64::from(rung.height) <= (height + 0.5).max(2.0),
            "{} higher than {height}",
            rung.height
        );
        // Each side may be off by the rounding to even numbers (and the source's to whole ones), no more.
        let scale = (f64::from(rung.width) / width).max(f64::from(rung.height) / height);
        let off_x = (width * scale - f64::from(rung.width)).abs();
        let off_y = (height * scale - f64::from(rung.height)).abs();
        let tolerance = 2.6_f64.max(2.6 * width.max(height) / width.min(height));
        prop_assert!(off_x <= tolerance && off_y <= tolerance, "{rung:?} of {width}x{height}");
        prop_assert!(rung.max_bit_rate > 0 && rung.buffer_bits > 0);
    }
    for pair in video.rungs.windows(2) {
        let pixels = |index: usize| u64::from(pair[index].width) * u64::from(pair[index].height);
        prop_assert!(pixels(0) > pixels(1), "{pair:?}");
        prop_assert!(pair[0].width >= pair[1].width && pair[0].height >= pair[1].height, "{pair:?}");
        prop_assert!(pair[0].max_bit_rate > pair[1].max_bit_rate, "{pair:?}");
        prop_assert!(pair[0].name != pair[1].name);
    }
    Ok(())
}

fn chunks_are_good(
    video: &VideoPlan,
    track: &VideoTrack,
) -> Result<(), proptest::test_runner::TestCaseError> {
    let chunks = &video.chunks;
    prop_assert!(!chunks.is_empty() && chunks.len() <= 1000);
    prop_assert_eq!(chunks[0].start_pts, track.start_pts);
    prop_assert_eq!(chunks[chunks.len() - 1].end_pts, None);
    for (index, chunk) in chunks.iter().enumerate() {
        prop_assert_eq!(chunk.index as usize, index);
        if index > 0 {
            prop_assert!(track.keyframes.iter().any(|keyframe| keyframe.pts == chunk.start_pts));
        }
    }
    for pair in chunks.windows(2) {
        prop_assert_eq!(pair[0].end_pts, Some(pair[1].start_pts));
        prop_assert!(pair[0].start_pts < pair[1].start_pts);
    }
    if chunks.len() > 1 {
        let ends = chunks.iter().map(|chunk| chunk.end_pts.unwrap_or(track.end_pts));
        for (chunk, end) in chunks.iter().zip(ends) {
            let seconds = (end - chunk.start_pts) as f64 * track.time_base.as_f64();
            // Half of the shortest even length: 24 s divided by two.
            prop_assert!(seconds >= 5.9, "{seconds} s");
        }
    }
    Ok(())
}

fn clock_is_good(video: &VideoPlan) -> Result<(), proptest::test_runner::TestCaseError> {
    prop_assert!(video.timescale >= 1000 && video.gop_ticks > 0);
    prop_assert_eq!(video.segment_ticks % video.gop_ticks, 0);
    if let FrameRate::Constant { rate } = video.frame_rate {
        let ticks = i128::from(video.timescale) * i128::from(rate.denominator);
        prop_assert_eq!(ticks % i128::from(rate.numerator), 0);
        let frame_ticks = ticks / i128::from(rate.numerator);
        prop_assert_eq!(i128::from(video.gop_ticks) % frame_ticks, 0);
    }
    Ok(())
}

fn stills_are_good(plan: &Plan) -> Result<(), proptest::test_runner::TestCaseError> {
    if let Some(stills) = &plan.stills {
        prop_assert!(stills.tile_width >= 2 && stills.tile_height >= 2 && stills.interval_us > 0);
        prop_assert!(stills.columns >= 1 && stills.rows >= 1);
        let tiles = (stills.duration_us + stills.interval_us - 1) / stills.interval_us;
        prop_assert!(tiles <= 500, "{tiles}");
        if stills.duration_us >= 400_000 {
            prop_assert!(tiles >= 10, "{tiles} in {} us", stills.duration_us);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    #[test]
    fn every_plan_is_sound(source in sources()) {
        let presets = Presets::built_in().unwrap();
        for preset in presets.iter() {
            let Ok(plan) = plan(&source, preset, &Policy::default()) else { continue };
            prop_assert!(plan.video.is_some() || plan.audio.is_some());
            prop_assert!(!explain(&plan).is_empty());
            if let Some(video) = &plan.video {
                rungs_are_good(video, &source.video[0])?;
                clock_is_good(video)?;
                if preset.name == "web-h264" {
                    chunks_are_good(video, &source.video[0])?;
                }
            }
            if let Some(audio) = &plan.audio {
                prop_assert!([44_100, 48_000].contains(&audio.sample_rate));
                prop_assert!((1..=2).contains(&audio.channels) && audio.segment_us > 0 && audio.bit_rate > 0);
            }
            if preset.name == "web-h264" {
                stills_are_good(&plan)?;
            }
        }
    }

    #[test]
    fn only_stated_reasons_refuse(width in 1_u32..4000, height in 1_u32..4000, seconds in 0.0_f64..10_000.0) {
        let source = info(Some(video(width, height, Rational { numerator: 30, denominator: 1 }, seconds, 2.0)), None);
        let presets = Presets::built_in().unwrap();
        prop_assert!(plan(&source, presets.get("web-h264").unwrap(), &Policy::default()).is_ok());
    }
}
