//! What an unlabelled source is taken for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{info, rational, stereo, video};
use pretty_assertions::assert_eq;
use reelyard_model::media_info::Hdr;
use reelyard_planner::{DEFAULT_PRESET, Policy, Presets, plan};

#[test]
fn film_and_stills_agree_whatever_their_sizes() {
    let presets = Presets::built_in().unwrap();
    let preset = presets.get(DEFAULT_PRESET).unwrap();
    for (width, height, said, expected) in [
        (1920, 1080, 2, 1),
        // A film in 2.4:1 has few lines, its tiles even fewer.
        (1280, 534, 2, 1),
        (534, 1280, 2, 1),
        (960, 720, 2, 1),
        (720, 576, 2, 6),
        (640, 360, 2, 6),
        // RGB, and what no decoder of ours knows.
        (1920, 1080, 0, 1),
        (640, 360, 8, 6),
        (1920, 1080, 5, 5),
        (640, 360, 1, 1),
        (640, 360, 9, 9),
    ] {
        let mut track = video(width, height, rational(25, 1), 60.0, 2.0);
        track.colour.matrix = said;
        let plan = plan(&info(Some(track), Some(stereo(60.0))), preset, &Policy::default()).unwrap();
        let colours = [plan.video.unwrap().colour, plan.stills.unwrap().colour];
        assert_eq!(colours.map(|colour| colour.matrix), [expected; 2], "{width}x{height}, {said}");
        let is_said = plan.decisions.iter().any(|decision| decision.text.contains("names no matrix"));
        assert_eq!(is_said, said != expected);
    }
}

#[test]
fn hdr_is_left_to_its_own_conversion() {
    let presets = Presets::built_in().unwrap();
    let mut track = video(3840, 2160, rational(25, 1), 60.0, 2.0);
    (track.colour.matrix, track.colour.hdr) = (2, Hdr::Pq);
    let plan = plan(&info(Some(track), None), presets.get(DEFAULT_PRESET).unwrap(), &Policy::default());
    assert_eq!(plan.unwrap().video.unwrap().colour.matrix, 2);
}

#[test]
fn dolby_vision_is_said_to_be_left_out() {
    let presets = Presets::built_in().unwrap();
    let mut track = video(3840, 2160, rational(25, 1), 60.0, 2.0);
    let said = |track| {
        let info = info(Some(track), Some(stereo(60.0)));
        let plan = plan(&info, presets.get(DEFAULT_PRESET).unwrap(), &Policy::default()).unwrap();
        plan.decisions.iter().any(|decision| decision.text.contains("Dolby Vision"))
    };
    assert!(!said(track.clone()));
    track.colour.dolby_vision = true;
    assert!(said(track));
}
