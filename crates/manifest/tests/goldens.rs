//! Whole publications as text, in `goldens/{name}/`. After a wanted change run the tests once with `UPDATE_GOLDENS=1` and read the
//! difference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Shape, sound, track, video};
use pretty_assertions::assert_eq;
use reelyard_manifest::{Facts, TextFile, Thumbnails, assign, text_files};
use reelyard_model::{Rational, media_info::FrameRate, output::TrackOutput};
use std::path::PathBuf;

fn check(name: &str, outputs_by_task: &[Vec<TrackOutput>], facts: Facts) {
    let assignment = assign(outputs_by_task, facts).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let placements: String = assignment
        .placements
        .iter()
        .map(|placement| {
            format!("{} {} -> {}\n", placement.from_task, placement.from_file, placement.to_path)
        })
        .collect();
    let mut files = text_files(&assignment.presentation);
    files.push(TextFile { path: "placements.txt".to_owned(), media_type: "text/plain", text: placements });
    for TextFile { path, text, .. } in files {
        let path = folder.join(path);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, golden, "{}", path.display());
    }
}

fn constant(numerator: i64, denominator: i64) -> Option<FrameRate> {
    Some(FrameRate::Constant { rate: Rational::new(numerator, denominator).unwrap() })
}

/// Sound segments end at AAC frames of 1024 samples: 188 of them are the first at or after 4 s.
const FOUR_SECONDS_OF_SOUND: u64 = 188 * 1024;

#[test]
fn two_chunks_three_rungs_and_sound() {
    let shapes = [
        video("1080p", 1920, 1080, "avc1.640028", 25),
        video("480p", 854, 480, "avc1.64001e", 6),
        video("240p", 426, 240, "avc1.640015", 2),
    ];
    // The first chunk ends with a short segment: the source had no keyframe at 12 s.
    let chunk = |start: u64, durations: &[u64]| -> Vec<TrackOutput> {
        shapes.iter().map(|shape| track(shape, start, durations)).collect()
    };
    let sound = track(&sound(), 0, &[FOUR_SECONDS_OF_SOUND, FOUR_SECONDS_OF_SOUND, 384_000 - 188 * 1024]);
    let facts = Facts {
        frame_rate: constant(24, 1),
        language: Some("eng".to_owned()),
        thumbnails: Some(Thumbnails {
            first_number: 0,
            sheet_byte_lens: vec![40_000, 12_000],
            interval_us: 2_000_000,
            tile_width: 160,
            tile_height: 90,
            columns: 10,
            rows: 10,
        }),
    };
    let outputs = [chunk(0, &[96_000, 11_000]), vec![sound], chunk(107_000, &[96_000, 85_000])];
    check("two_chunks_three_rungs_and_sound", &outputs, facts);
}

#[test]
fn ntsc_without_sound() {
    let shape = Shape { timescale: 30_000, gop_ticks: 60_060, ..video("720p", 1280, 720, "avc1.64001f", 10) };
    let facts = Facts { frame_rate: constant(30_000, 1001), ..Facts::default() };
    check("ntsc_without_sound", &[vec![track(&shape, 0, &[120_120, 120_120, 120_120, 30_030])]], facts);
}

#[test]
fn sound_alone() {
    let sound = track(&sound(), 0, &[FOUR_SECONDS_OF_SOUND, FOUR_SECONDS_OF_SOUND, 10 * 1024]);
    check("sound_alone", &[vec![sound]], Facts { language: Some("und".to_owned()), ..Facts::default() });
}

#[test]
fn variable_frame_rate_of_a_moment() {
    let shape = Shape { timescale: 90_000, ..video("120p", 160, 120, "avc1.64000b", 1) };
    let facts = Facts {
        frame_rate: Some(FrameRate::Variable {
            average: Rational::new(2_370_000_007, 100_100_003).unwrap(),
            highest: Rational::new(1000, 1).unwrap(),
        }),
        ..Facts::default()
    };
    check("variable_frame_rate_of_a_moment", &[vec![track(&shape, 0, &[30_030])]], facts);
}
