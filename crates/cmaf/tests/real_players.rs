//! What FFmpeg's own demuxer, decoder and prober make of our files. Skipped, aloud, where `ffmpeg` is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use pretty_assertions::assert_eq;
use reelyard_cmaf::{
    AacConfig, AacTrack, AvcTrack, BitRate, Colour, Fragment, ParameterSets, Sample, avc::nal_units,
    init_segment_aac, init_segment_avc, media_segment, sample_times,
};
use std::{
    path::Path,
    process::{Command, Output},
};

fn ffmpeg_is_installed() -> bool {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: needs `ffmpeg` and `ffprobe` on the PATH");
    }
    found
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What a probe of one file's one stream says, in the order asked.
fn probe(folder: &Path, file: &str, entries: &str) -> Vec<String> {
    let arguments = ["-v", "error", "-show_entries", entries, "-of", "csv=p=0", file];
    let output = run("ffprobe", &arguments, folder);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect()
}

fn decodes_without_a_word(folder: &Path, file: &str) {
    let output = run("ffmpeg", &["-v", "warning", "-i", file, "-f", "null", "-"], folder);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

const TICKS_PER_FRAME: i64 = 3600;
/// One picture: enough for B pictures that are no references.
const DELAY: u32 = 3600;

/// Three closed GOPs of 24 pictures at 25/s with B pictures, as access units, and their presentation times.
fn encode_pictures(folder: &Path) -> (Vec<Vec<u8>>, Vec<i64>) {
    let source = "testsrc=size=320x240:rate=25:duration=2.88";
    let x264 = "aud=1:bframes=2:b-adapt=0:b-pyramid=none:keyint=24:min-keyint=24:scenecut=0:repeat-headers=1";
    let arguments = [
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        source,
        "-c:v",
        "libx264",
        "-profile:v",
        "high",
        "-x264-params",
        x264,
    ];
    run("ffmpeg", &[&arguments[..], &["-pix_fmt", "yuv420p", "-f", "h264", "all.h264"]].concat(), folder);
    let mp4 = ["-video_track_timescale", "90000", "all.mp4"];
    run("ffmpeg", &[&arguments[..], &["-pix_fmt", "yuv420p"], &mp4].concat(), folder);
    let times = probe(folder, "all.mp4", "packet=pts").iter().map(|pts| pts.parse().unwrap()).collect();
    let mut access_units: Vec<Vec<u8>> = Vec::new();
    for unit in nal_units(&std::fs::read(folder.join("all.h264")).unwrap()) {
        if unit[0] & 0x1F == 9 {
            access_units.push(Vec::new());
        }
        let current = access_units.last_mut().unwrap();
        current.extend([0, 0, 0, 1]);
        current.extend_from_slice(unit);
    }
    (access_units, times)
}

#[test]
#[allow(clippy::too_many_lines, reason = "one film from start to end")]
fn pictures_with_reordering_play_from_zero_without_a_warning() {
    if !ffmpeg_is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (access_units, times) = encode_pictures(folder.path());
    assert_eq!((access_units.len(), times.len()), (72, 72));
    let sets = ParameterSets::from_extradata(&access_units[0]).unwrap();
    let init = init_segment_avc(&AvcTrack {
        timescale: 90_000,
        parameter_sets: &sets,
        width: 320,
        height: 240,
        colour: Colour::BT709,
        presentation_delay: DELAY,
        bit_rate: None,
    })
    .unwrap();
    let samples: Vec<Vec<u8>> = access_units
        .iter()
        .map(|unit| {
            let mut sample = Vec::new();
            sets.append_sample(unit, &mut sample).unwrap();
            sample
        })
        .collect();
    let fragments: Vec<Fragment<'_>> = (0..3)
        .flat_map(|gop| {
            let range = gop * 24..gop * 24 + 24;
            let start = times[range.start];
            let times = sample_times(&times[range.clone()], start + 24 * TICKS_PER_FRAME, DELAY).unwrap();
            let samples = samples[range].iter().zip(times).enumerate();
            let samples = samples
                .map(|(index, (data, time))| Sample {
                    data,
                    duration: time.duration,
                    composition_offset: time.composition_offset,
                    sync: index == 0,
                })
                .collect();
            let (keyframe, rest) = Fragment { decode_time: start as u64, samples }.first_sample_apart();
            [keyframe, rest.unwrap()]
        })
        .collect();
    let first = media_segment(1, &fragments[..4]).unwrap();
    let second = media_segment(5, &fragments[4..]).unwrap();
    std::fs::write(folder.path().join("all.cmfv"), [&init[..], &first.bytes, &second.bytes].concat())
        .unwrap();
    std::fs::write(folder.path().join("second.cmfv"), [&init[..], &second.bytes].concat()).unwrap();

    decodes_without_a_word(folder.path(), "all.cmfv");
    decodes_without_a_word(folder.path(), "second.cmfv");
    let entries = "stream=codec_tag_string,width,height,color_space,color_transfer,start_time";
    assert_eq!(probe(folder.path(), "all.cmfv", entries), ["avc1,320,240,bt709,bt709,0.000000"]);
    let pts = |file: &str| -> Vec<i64> {
        probe(folder.path(), file, "packet=pts").iter().map(|pts| pts.parse().unwrap()).collect()
    };
    assert_eq!(pts("all.cmfv"), times);
    let keyframes: Vec<String> = probe(folder.path(), "all.cmfv", "packet=flags");
    let keyframes: Vec<usize> = (0..72).filter(|&index| keyframes[index].starts_with('K')).collect();
    assert_eq!(keyframes, [0, 24, 48]);

    // An I-frame playlist's byte range is a picture that decodes alone.
    let place = first.fragments[2];
    let bytes = &first.bytes[place.offset as usize..][..place.byte_len as usize];
    std::fs::write(folder.path().join("one.cmfv"), [&init[..], bytes].concat()).unwrap();
    decodes_without_a_word(folder.path(), "one.cmfv");
    let picture = ["-v", "error", "-i", "one.cmfv", "-frames:v", "1", "-f", "framemd5", "-"];
    let alone = run("ffmpeg", &picture, folder.path()).stdout;
    let from_whole =
        ["-v", "error", "-i", "all.mp4", "-vf", "select=eq(n\\,24)", "-frames:v", "1", "-f", "framemd5", "-"];
    let from_whole = run("ffmpeg", &from_whole, folder.path()).stdout;
    let md5 =
        |output: Vec<u8>| String::from_utf8(output).unwrap().trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(md5(alone), md5(from_whole));
}

#[test]
fn sound_without_its_priming_starts_at_zero() {
    if !ffmpeg_is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = "sine=frequency=440:sample_rate=44100:duration=2";
    let arguments = ["-v", "error", "-f", "lavfi", "-i", source, "-c:a", "aac", "-f", "adts", "all.aac"];
    run("ffmpeg", &arguments, folder.path());
    let adts = std::fs::read(folder.path().join("all.aac")).unwrap();
    let mut frames = Vec::new();
    let mut rest = &adts[..];
    while rest.len() > 7 {
        // ISO/IEC 13818-7 section 6.2: 13 bits of frame length, header included.
        let len = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5]) >> 5;
        frames.push(&rest[7..len]);
        rest = &rest[len..];
    }
    // The first frame is the encoder's priming (docs/decisions/0006).
    frames.remove(0);
    let config = AacConfig::low_complexity(44_100, 1).unwrap();
    let init = init_segment_aac(&AacTrack {
        config: &config,
        language: Some("eng"),
        bit_rate: BitRate { average: 69_000, max: 69_000, buffer_bytes: 0 },
    })
    .unwrap();
    let mut file = init;
    for (index, frames) in frames.chunks(40).enumerate() {
        let samples = frames
            .iter()
            .map(|data| Sample { data, duration: 1024, composition_offset: 0, sync: true })
            .collect();
        let fragment = Fragment { decode_time: index as u64 * 40 * 1024, samples };
        file.extend(media_segment(index as u32 + 1, &[fragment]).unwrap().bytes);
    }
    std::fs::write(folder.path().join("all.cmfa"), file).unwrap();

    decodes_without_a_word(folder.path(), "all.cmfa");
    let entries = "stream=codec_name,profile,sample_rate,channels,start_time:stream_tags=language";
    assert_eq!(probe(folder.path(), "all.cmfa", entries), ["aac,LC,44100,1,0.000000,eng"]);
    assert_eq!(probe(folder.path(), "all.cmfa", "packet=pts").first().map(String::as_str), Some("0"));
    let pcm = run("ffmpeg", &["-v", "error", "-i", "all.cmfa", "-f", "s16le", "-"], folder.path()).stdout;
    assert_eq!(pcm.len() / 2, frames.len() * 1024);
}
