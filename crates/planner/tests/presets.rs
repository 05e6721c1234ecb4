//! Preset files: the built-in ones read, and every mistake is named with its line and key.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use pretty_assertions::assert_eq;
use reelyard_planner::{DEFAULT_PRESET, Preset, Presets};

const GOOD: &str = include_str!("../../../presets/web-h264.toml");

/// The built-in text with one line changed, and the error that this gives.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Preset::parse("web-h264.toml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

/// The line of the first place where `text` stands in the built-in file.
fn line_of(text: &str) -> usize {
    GOOD[..GOOD.find(text).unwrap()].matches('\n').count() + 1
}

#[test]
fn the_built_in_presets_read() {
    let presets = Presets::built_in().unwrap();
    assert_eq!(presets.names().collect::<Vec<_>>(), ["web-h264", "web-h264-small"]);
    let ladder: Vec<u32> =
        presets.get(DEFAULT_PRESET).unwrap().video.rungs.iter().map(|rung| rung.lines).collect();
    assert_eq!(ladder, [1080, 720, 480, 360, 240]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of mistakes")]
fn mistakes_are_named_with_line_and_key() {
    let cases = [
        (
            "max_bit_rate_kbps = 3000",
            "max_bitrate_kbps = 3000",
            "key `video.rungs[1].max_bitrate_kbps`: unknown key; did you mean `max_bit_rate_kbps`?",
        ),
        (
            "gop_ms = 2000",
            "frobnicate = 1\ngop_ms = 2000",
            "key `video.frobnicate`: unknown key; known here: codec, profile, x264_preset, nvenc_preset, scaler, gop_ms, segment_ms, chunk_ms, rungs",
        ),
        ("[stills]", "[stils]", "key `stils`: unknown key; did you mean `stills`?"),
        (
            "gop_ms = 2000",
            "gop_ms = \"2000\"",
            "key `video.gop_ms`: must be a whole number, not a value of type string",
        ),
        (
            "gop_ms = 2000",
            "gop_ms = 2000.5",
            "key `video.gop_ms`: must be a whole number, not a value of type float",
        ),
        ("gop_ms = 2000", "gop_ms = -1", "key `video.gop_ms`: -1 is out of range: 250 to 10000"),
        (
            "gop_ms = 2000",
            "gop_ms = 99999999999999999999999",
            "key `video.gop_ms`: 99999999999999999999999 is out of range: 250 to 10000",
        ),
        (
            "segment_ms = 4000",
            "segment_ms = 5000",
            "key `video.segment_ms`: must be a multiple of gop_ms (2000): a segment is made of whole GOPs",
        ),
        (
            "chunk_ms = 16000",
            "chunk_ms = 3000",
            "key `video.chunk_ms`: must be at least segment_ms (4000): a chunk is made of segments",
        ),
        ("crf = 22.0", "crf = nan", "key `video.rungs[0].crf`: nan is out of range: 1 to 51"),
        (
            "crf = 22.0",
            "crf = true",
            "key `video.rungs[0].crf`: must be a number, not a value of type boolean",
        ),
        ("crf = 22.0", "crf = 51.5", "key `video.rungs[0].crf`: 51.5 is out of range: 1 to 51"),
        (
            "lines = 720",
            "lines = 1080",
            "key `video.rungs[1].lines`: 1080 comes after 1080: rungs go from the largest to the smallest, each size once",
        ),
        ("lines = 720", "lines = 721", "key `video.rungs[1].lines`: 721 is odd; H.264 sizes are even"),
        (
            "max_bit_rate_kbps = 3000",
            "max_bit_rate_kbps = 5600",
            "key `video.rungs[1].max_bit_rate_kbps`: 5600 is not below the 5600 of the larger rung: no player would ever choose between them",
        ),
        (
            "x264_preset = \"veryfast\"",
            "x264_preset = \"veryfst\"",
            "key `video.x264_preset`: \"veryfst\" is not one of ultrafast, superfast, veryfast, faster, fast, medium, slow, slower, veryslow; did you mean \"veryfast\"?",
        ),
        (
            "sample_rate = 48000",
            "sample_rate = 96000",
            "key `audio.sample_rate`: 96000 is not 44100 or 48000",
        ),
        (
            "jpeg_quality = 80",
            "jpeg_quality = 101",
            "key `stills.jpeg_quality`: 101 is out of range: 1 to 100",
        ),
        (
            "version = 1",
            "version = 2",
            "key `version`: this program reads version 1, the file has 2: it is of another release",
        ),
        ("gop_ms = 2000", "gop_ms = ", ": this is not valid TOML: "),
        ("gop_ms = 2000", "gop_ms = 2000\ngop_ms = 2000", ": this is not valid TOML: duplicate key"),
    ];
    for (from, to, expected) in cases {
        let message = broken(from, to);
        // A second line in the replacement is where the duplicate is.
        let line = line_of(from) + usize::from(expected.contains("duplicate"));
        let start = format!("preset file web-h264.toml, line {line}");
        assert!(message.starts_with(&start), "{message}\nshould start with {start}");
        assert!(message.contains(expected), "{message}\nshould hold {expected}");
    }
}

#[test]
fn missing_things_are_named() {
    assert_eq!(
        broken("crf = 22.0\n", ""),
        format!(
            "preset file web-h264.toml, line {}, key `video.rungs[0].crf`: missing; `video.rungs[0]` needs it",
            line_of("[[video.rungs]]")
        )
    );
    assert_eq!(
        Preset::parse("x.toml", "version = 1").unwrap_err().to_string(),
        "preset file x.toml, line 1, key `description`: missing; the file needs it"
    );
    let empty_ladder = GOOD[..GOOD.find("# A rung is a box").unwrap()].to_owned()
        + "rungs = []\n"
        + &GOOD[GOOD.find("[audio]").unwrap()..];
    let message = Preset::parse("x.toml", &empty_ladder).unwrap_err().to_string();
    assert!(message.ends_with("key `video.rungs`: there are 0 of them, not 1 to 12"), "{message}");
}

#[test]
fn file_names_are_preset_names() {
    assert_eq!(Preset::parse("/etc/reelyard/presets/mine-2.toml", GOOD).unwrap().name, "mine-2");
    for name in ["", ".toml", "Mine.toml", "a b.toml", "mine.tml", "a/../b/.toml"] {
        let message = Preset::parse(name, GOOD).unwrap_err().to_string();
        assert!(message.contains("a preset file is named"), "{message}");
    }
}

#[test]
fn a_directory_adds_and_replaces() {
    let changed = GOOD.replace("H.264 and AAC from", "Ours: H.264 and AAC from");
    let presets = Presets::with_files([("web-h264.toml", changed.as_str()), ("extra.toml", GOOD)]).unwrap();
    assert_eq!(presets.names().collect::<Vec<_>>(), ["web-h264", "web-h264-small", "extra"]);
    assert!(presets.get("web-h264").unwrap().description.starts_with("Ours"));
    let twice = Presets::with_files([("a/x.toml", GOOD), ("b/x.toml", GOOD)]).unwrap_err().to_string();
    assert_eq!(twice, "preset file b/x.toml: there are two files for preset `x`; keep one");
}

#[test]
fn serialises_for_the_api() {
    let presets = serde_json::to_value(Presets::built_in().unwrap()).unwrap();
    assert_eq!(presets[0]["name"], "web-h264");
    assert_eq!(presets[0]["video"]["rungs"][4]["lines"], 240);
}

mod fuzz_like {
    use super::GOOD;
    use proptest::prelude::{any, proptest};
    use reelyard_planner::Preset;

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), at in 0..GOOD.len(), with in ".{0,3}") {
            let _ = Preset::parse("x.toml", &text);
            if GOOD.is_char_boundary(at) {
                let _ = Preset::parse("x.toml", &format!("{}{with}{}", &GOOD[..at], &GOOD[at..]));
                let _ = Preset::parse("x.toml", &GOOD[..at]);
            }
        }
    }
}

/// `presets/README.md` names every key, and every range in it is the one that is kept.
#[test]
fn the_page_about_presets_is_true() {
    let page = include_str!("../../../presets/README.md");
    let keys = GOOD
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = ").map(|(key, _)| key));
    for key in keys {
        assert!(page.contains(&format!("`{key}`")), "{key} is missing in presets/README.md");
    }
    let ranges = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (low, high) = cells.get(3)?.trim_end_matches(" each").split_once(" - ")?;
        Some((cells[1].to_owned(), low.parse::<u64>().ok()?, high.parse::<u64>().ok()?))
    });
    let mut checked = 0;
    for (names, low, high) in ranges {
        for key in names.split(", ").map(|name| name.trim_matches('`')) {
            let line = GOOD.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
            for value in [low - 1, high + 1] {
                let message = broken(line, &format!("{key} = {value}"));
                assert!(message.contains(&format!("is out of range: {low} to {high}")), "{message}");
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 17, "ranges found in presets/README.md");
}
