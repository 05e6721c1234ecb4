//! Outputs that do not make one stream are refused by name, and what is accepted plays without a gap.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Shape, sound, track, video};
use pretty_assertions::assert_eq;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use reelyard_manifest::{AssignError, Facts, assign, media_playlist, mpd, multivariant_playlist, text_files};
use reelyard_model::output::{TrackFormat, TrackOutput};
use std::collections::HashSet;

fn hd() -> Shape<'static> {
    video("1080p", 1920, 1080, "avc1.640028", 25)
}

fn refusal(outputs_by_task: &[Vec<TrackOutput>]) -> AssignError {
    assign(outputs_by_task, Facts::default()).unwrap_err()
}

#[test]
fn nothing_to_publish() {
    assert_eq!(refusal(&[]), AssignError::NoTracks);
    assert_eq!(refusal(&[vec![], vec![]]), AssignError::NoTracks);
    assert_eq!(
        refusal(&[vec![track(&hd(), 0, &[])]]),
        AssignError::NoSegments { rendition: "1080p".to_owned() }
    );
}

#[test]
fn a_missing_chunk_and_an_overlap_are_named() {
    let gap = [vec![track(&hd(), 0, &[96_000])], vec![track(&hd(), 192_000, &[96_000])]];
    assert_eq!(
        refusal(&gap).to_string(),
        "rendition 1080p: segment 1080p/00000.m4s of task 1 starts at tick 192000 but the one before it ends at \
         96000 (of 24000 a second): a chunk is missing or out of order"
    );
    let overlap = [vec![track(&hd(), 0, &[96_000])], vec![track(&hd(), 95_000, &[96_000])]];
    assert!(matches!(refusal(&overlap), AssignError::Seam { found_ticks: 95_000, .. }));
    let swapped = [vec![track(&hd(), 96_000, &[96_000])], vec![track(&hd(), 0, &[96_000])]];
    assert!(matches!(refusal(&swapped), AssignError::Seam { found_ticks: 0, .. }));
}

#[test]
fn a_seam_of_a_rounding_is_closed() {
    // 48 ticks of 1/24000 s are 2 ms.
    let outputs = [vec![track(&hd(), 0, &[96_000])], vec![track(&hd(), 96_048, &[96_000])]];
    let presentation = assign(&outputs, Facts::default()).unwrap().presentation;
    assert_eq!(presentation.video[0].segments[0].duration_ticks, 96_048);
    assert_eq!(presentation.duration_us(), 8_002_000);
    let too_far = [vec![track(&hd(), 0, &[96_000])], vec![track(&hd(), 96_049, &[96_000])]];
    assert!(matches!(refusal(&too_far), AssignError::Seam { .. }));
}

#[test]
fn chunks_of_different_encoders_are_refused() {
    let first = track(&hd(), 0, &[96_000]);
    let second = || track(&hd(), 96_000, &[96_000]);
    let mut other_init = second();
    other_init.init.sha256 = "f".repeat(64);
    let mut other_codecs = second();
    other_codecs.codecs = "avc1.4d0028".to_owned();
    let mut other_timescale = second();
    other_timescale.timescale = 90_000;
    let mut other_size = second();
    other_size.format = TrackFormat::Video { width: 1280, height: 720 };
    let cases = [
        (other_init, "initialization segment (SHA-256)"),
        (other_codecs, "codec"),
        (other_timescale, "timescale"),
        (other_size, "format"),
    ];
    for (other, expected) in cases {
        let error = refusal(&[vec![first.clone()], vec![other]]);
        assert!(
            matches!(error, AssignError::Disagree { what, first_task: 0, task: 1, .. } if what == expected),
            "{error}"
        );
    }
    let zero = Shape { timescale: 0, ..hd() };
    assert!(matches!(
        refusal(&[vec![track(&zero, 0, &[1])]]),
        AssignError::Disagree { what: "timescale", .. }
    ));
}

#[test]
fn a_rung_without_its_last_chunk_is_refused() {
    let small = video("240p", 426, 240, "avc1.640015", 2);
    let outputs = [
        vec![track(&hd(), 0, &[96_000]), track(&small, 0, &[96_000])],
        vec![track(&hd(), 96_000, &[96_000])],
    ];
    assert_eq!(
        refusal(&outputs).to_string(),
        "renditions 1080p and 240p are not equally long (8000000 and 4000000 us): the last chunk of one of them is missing"
    );
}

#[test]
fn names_and_codecs_that_would_break_a_playlist_are_refused() {
    for name in ["", "..", "a/b", "a b", "a\n#EXT", "master", "manifest", "480p-iframes", &"a".repeat(65)] {
        let shape = Shape { rendition: name, ..hd() };
        assert!(
            matches!(refusal(&[vec![track(&shape, 0, &[9])]]), AssignError::UnsafeName { .. }),
            "{name:?}"
        );
    }
    for codecs in ["", "avc1\"", "avc1,mp4a", "avc1\n"] {
        let shape = Shape { codecs, ..hd() };
        assert!(
            matches!(refusal(&[vec![track(&shape, 0, &[9])]]), AssignError::UnsafeCodecs { .. }),
            "{codecs:?}"
        );
    }
}

#[test]
fn impossible_segments_are_refused() {
    let cases: [fn(&mut TrackOutput); 6] = [
        |track| track.segments[0].duration_ticks = 0,
        |track| track.segments[0].file.byte_len = 0,
        |track| track.segments[0].sync_points[1].offset = u64::MAX,
        |track| track.segments[0].sync_points[1].byte_len = 0,
        |track| track.segments[0].sync_points[0].start_ticks = u64::MAX,
        |track| track.segments[0].sync_points.swap(0, 1),
    ];
    for break_it in cases {
        let mut output = track(&hd(), 0, &[96_000]);
        break_it(&mut output);
        let error = refusal(&[vec![output]]);
        let named = matches!(error, AssignError::EmptySegment { .. } | AssignError::BadSyncPoint { .. });
        assert!(named, "{error}");
    }
    let mut at_the_end_of_time = track(&hd(), 0, &[96_000]);
    at_the_end_of_time.segments[0].sync_points.clear();
    at_the_end_of_time.segments[0].start_ticks = u64::MAX - 1;
    assert!(matches!(refusal(&[vec![at_the_end_of_time]]), AssignError::TooLarge { .. }));
}

#[test]
fn one_sound_track_and_no_track_twice() {
    let second = Shape { rendition: "audio2", ..sound() };
    let several = [vec![track(&sound(), 0, &[9])], vec![track(&second, 0, &[9])]];
    assert!(matches!(refusal(&several), AssignError::SeveralSoundTracks { .. }));
    let twice = [vec![track(&hd(), 0, &[96_000]), track(&hd(), 96_000, &[96_000])]];
    assert_eq!(refusal(&twice), AssignError::Twice { rendition: "1080p".to_owned(), task: 0 });
}

fn chunk_lengths() -> impl Strategy<Value = Vec<Vec<u64>>> {
    proptest::collection::vec(proptest::collection::vec(1_u64..400_000, 1..6), 1..6)
}

proptest! {
    #[test]
    fn accepted_outputs_play_without_a_gap(chunks in chunk_lengths(), has_sound: bool) {
        let shapes = [hd(), video("240p", 426, 240, "avc1.640015", 2)];
        let mut at = 0;
        let mut outputs = Vec::new();
        for durations in &chunks {
            outputs.push(shapes.iter().map(|shape| track(shape, at, durations)).collect::<Vec<_>>());
            at += durations.iter().sum::<u64>();
        }
        if has_sound {
            outputs.insert(0, vec![track(&sound(), 0, &[at * 2])]);
        }
        let assignment = assign(&outputs, Facts::default()).unwrap();
        let presentation = &assignment.presentation;
        let segment_count: usize = chunks.iter().map(Vec::len).sum();

        // Every file has one place, and every place that a playlist names has a file.
        let paths: HashSet<&str> = assignment.placements.iter().map(|placement| placement.to_path.as_str()).collect();
        prop_assert_eq!(paths.len(), assignment.placements.len());
        for file in text_files(presentation).iter().filter(|file| file.path != "master.m3u8" && file.path.ends_with(".m3u8")) {
            for line in file.text.lines().filter(|line| !line.starts_with('#')) {
                prop_assert!(paths.contains(line), "{line} of {}", file.path);
            }
        }

        let target: u64 = media_playlist(presentation, &presentation.video[0]).lines()
            .find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:")).unwrap().parse().unwrap();
        for rendition in &presentation.video {
            prop_assert_eq!(rendition.segments.len(), segment_count);
            let text = media_playlist(presentation, rendition);
            let spans: Vec<f64> = text.lines()
                .filter_map(|line| line.strip_prefix("#EXTINF:"))
                .map(|rest| rest.trim_end_matches(',').parse().unwrap())
                .collect();
            let total: f64 = spans.iter().sum();
            prop_assert!((total - at as f64 / 24_000.0).abs() < 1e-4, "{total}");
            prop_assert!(spans.iter().all(|span| span.round() <= target as f64));
            prop_assert!(text.ends_with("#EXT-X-ENDLIST\n"));
        }

        // BANDWIDTH is never below AVERAGE-BANDWIDTH.
        for line in multivariant_playlist(presentation).lines().filter(|line| line.contains("BANDWIDTH=")) {
            let value = |key: &str| -> u64 {
                let from = line.find(key).unwrap() + key.len();
                line[from..].split(',').next().unwrap().parse().unwrap()
            };
            prop_assert!(value(":BANDWIDTH=") >= value("AVERAGE-BANDWIDTH="), "{line}");
        }

        // DASH: the timeline adds up to the same length.
        let text = mpd(presentation);
        let ticks: u64 = text.split("<SegmentTimeline>").nth(1).unwrap().split("</SegmentTimeline>").next().unwrap()
            .lines().filter(|line| line.contains("<S "))
            .map(|line| {
                let value = |key: &str| line.split(key).nth(1).map_or(0, |rest| rest.split('"').next().unwrap().parse::<u64>().unwrap());
                value(" d=\"") * (value(" r=\"") + 1)
            })
            .sum();
        prop_assert_eq!(ticks, at);
    }
}
