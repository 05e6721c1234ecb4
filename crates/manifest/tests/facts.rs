//! What the writers learn from a plan and its stills.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use pretty_assertions::assert_eq;
use reelyard_manifest::{Facts, Thumbnails};
use reelyard_model::{
    Plan, Rational,
    media_info::{Colour, Hdr, Orientation},
    output::{FileOutput, StillsOutput},
    plan::{PLAN_VERSION, StillsPlan},
};

fn plan_of_stills() -> Plan {
    Plan {
        version: PLAN_VERSION,
        preset: "web-h264".to_owned(),
        duration_us: 300_000_000,
        video: None,
        audio: None,
        stills: Some(StillsPlan {
            source_track: 0,
            source_time_base: Rational::new(1, 90_000).unwrap(),
            origin_pts: 0,
            orientation: Orientation::default(),
            deinterlace: false,
            colour: Colour {
                primaries: 1,
                transfer: 1,
                matrix: 1,
                full_range: false,
                hdr: Hdr::None,
                dolby_vision: false,
            },
            duration_us: 300_000_000,
            poster_width: 1280,
            poster_height: 720,
            interval_us: 2_000_000,
            tile_width: 160,
            tile_height: 90,
            columns: 10,
            rows: 10,
            jpeg_quality: 80,
        }),
        decisions: Vec::new(),
    }
}

fn stills(sheets: &[&str]) -> StillsOutput {
    let file = |name: &str| FileOutput { file: name.to_owned(), byte_len: 1000, sha256: String::new() };
    StillsOutput {
        poster: file("poster.jpg"),
        sprites: sheets.iter().map(|name| file(name)).collect(),
        sprite_index: file("sprites.vtt"),
    }
}

#[test]
fn sheets_in_order_become_thumbnails() {
    let facts = Facts::from_plan(&plan_of_stills(), Some(&stills(&["sprite-000.jpg", "sprite-001.jpg"])));
    let expected = Thumbnails {
        first_number: 0,
        sheet_byte_lens: vec![1000, 1000],
        interval_us: 2_000_000,
        tile_width: 160,
        tile_height: 90,
        columns: 10,
        rows: 10,
    };
    assert_eq!(facts, Facts { frame_rate: None, language: None, thumbnails: Some(expected) });
}

#[test]
fn names_that_dash_cannot_count_leave_them_out() {
    let lists: [&[&str]; 5] = [
        &[],
        &["sprite-000.jpg", "sprite-002.jpg"],
        &["sprite-0.jpg"],
        &["sprite-000.png"],
        &["../sprite-000.jpg"],
    ];
    for sheets in lists {
        assert_eq!(
            Facts::from_plan(&plan_of_stills(), Some(&stills(sheets))),
            Facts::default(),
            "{sheets:?}"
        );
    }
    assert_eq!(Facts::from_plan(&plan_of_stills(), None), Facts::default());
}
