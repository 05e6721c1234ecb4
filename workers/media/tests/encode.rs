//! The encode job through the real child: exact pictures, exact times, clean files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;
mod film;

use reelyard_model::{
    FailureCode,
    child::{EncoderChoice, Job},
    media_info::{FrameRate, Hdr},
    output::{TrackFormat, TrackOutput},
};
use std::{fs, path::Path};

/// Pictures whose brightness counts: picture n has luma 20 + 3 n (n below 70).
const COUNTER: &str = "geq=lum='20+3*mod(N,70)':cb=128:cr=128";

fn clean(folder: &Path, file: &str) {
    assert_eq!(child::complaints(folder, file), "", "ffmpeg on {file}");
    assert_eq!(film::ffprobe_complaints(folder, file), "", "ffprobe on {file}");
}

/// How much brighter each picture is than the one before, for a source of [`COUNTER`].
fn steps(brightness: &[u8]) -> Vec<i32> {
    brightness.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect()
}

#[test]
fn open_gops_are_cut_without_losing_or_repeating_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        &format!(
            "-f lavfi -i color=black:s=320x180:r=25:d=2.6,format=yuv420p,{COUNTER} -c:v libx264 -preset medium \
             -x264-params open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0 source.mp4"
        ),
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    assert_eq!(info.video[0].frame_count, 65);
    let mut video = film::plan(&info, "web-h264-small").video.unwrap();
    film::cut(&info, &mut video, &[2, 3]);
    let chunks = film::encode_and_join(&source, folder, &video);

    let rung = format!("{}.mp4", video.rungs[0].name);
    clean(folder, &rung);
    let expected: Vec<i64> = (0..65).map(|n| n * i64::from(video.timescale) / 25).collect();
    assert_eq!(film::times(folder, &rung), expected);
    let seen = film::brightness(folder, &rung);
    assert_eq!(seen.len(), 65);
    assert!(steps(&seen).iter().all(|step| (2..=5).contains(step)), "{seen:?}");
    for pair in chunks.windows(2) {
        let last = pair[0].tracks[0].segments.last().unwrap();
        assert_eq!(last.start_ticks + last.duration_ticks, pair[1].tracks[0].segments[0].start_ticks);
    }
}

/// Containers differ in how well they seek: transport streams have no index at all, AVI knows decode times only.
#[test]
fn chunks_meet_exactly_in_every_container() {
    for (file, coding) in [
        ("source.ts", "-c:v libx264 -preset veryfast -bf 2"),
        ("source.mkv", "-c:v libx264 -preset veryfast -bf 2"),
        ("source.flv", "-c:v libx264 -preset veryfast -bf 2"),
        ("source.avi", "-c:v mpeg4 -bf 2 -q:v 3"),
        ("source.mpg", "-c:v mpeg2video -bf 2 -q:v 3"),
        ("source.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 1M"),
        (
            "source.mov",
            "-c:v libx265 -preset ultrafast -x265-params log-level=error:open-gop=1:keyint=10:bframes=3",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        child::ffmpeg(
            folder,
            &format!(
                "-f lavfi -i color=black:s=320x240:r=25:d=2.4,format=yuv420p,{COUNTER} -g 10 -pix_fmt yuv420p {coding} {file}"
            ),
        );
        let source = folder.join(file);
        let info = film::info(&source, folder);
        assert_eq!(info.video[0].frame_count, 60, "{file}");
        let mut video = film::plan(&info, "web-h264-small").video.unwrap();
        if matches!(file, "source.avi" | "source.mpg") {
            // Says nowhere what is shown when: it must not be cut.
            assert_eq!(info.video[0].keyframes.len(), 1);
        } else {
            film::cut(&info, &mut video, &[1, 3, 4]);
        }
        film::encode_and_join(&source, folder, &video);
        let rung = format!("{}.mp4", video.rungs[0].name);
        clean(folder, &rung);
        let seen = film::brightness(folder, &rung);
        assert_eq!(seen.len(), 60, "{file}: {seen:?}");
        assert!(steps(&seen).iter().all(|step| (1..=5).contains(step)), "{file}: {seen:?}");
        let times = film::times(folder, &rung);
        let even = i64::from(video.timescale) / 25;
        // Containers that count in milliseconds or in 1/90000 s may be off by their own rounding.
        let near =
            |(n, time): (usize, &i64)| (time - n as i64 * even).abs() <= i64::from(video.timescale) / 1000;
        assert!(times.iter().enumerate().all(near), "{file}: {times:?}");
    }
}

#[test]
fn rungs_share_their_keyframes_and_i_frames_lie_where_they_are_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=1280x720:r=30000/1001:d=11 -c:v libx264 -preset ultrafast -pix_fmt yuv420p source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    assert!(video.rungs.len() > 1);
    let chunks = film::encode_and_join(&source, folder, &video);
    let tracks = &chunks[0].tracks;
    let starts = |track: &TrackOutput| -> Vec<u64> {
        track.segments.iter().flat_map(|s| s.sync_points.iter().map(|p| p.start_ticks)).collect()
    };
    for (track, rung) in tracks.iter().zip(&video.rungs) {
        assert_eq!(starts(track), starts(&tracks[0]), "{}", rung.name);
        assert_eq!(track.format, TrackFormat::Video { width: rung.width, height: rung.height });
        assert!(track.codecs.starts_with("avc1.64"), "{}", track.codecs);
        clean(folder, &format!("{}.mp4", rung.name));
        for segment in &track.segments {
            let bytes = fs::read(folder.join("chunk0").join(&segment.file.file)).unwrap();
            assert_eq!(bytes.len() as u64, segment.file.byte_len);
            for point in &segment.sync_points {
                let range = &bytes[point.offset as usize..][..point.byte_len as usize];
                assert_eq!(boxes(range), ["moof", "mdat"], "whole, and nothing more");
            }
        }
    }
    let nominal = u64::from(video.segment_ticks);
    let first = &tracks[0].segments[0];
    assert!(first.duration_ticks.abs_diff(nominal) <= nominal / 20, "{} of {nominal}", first.duration_ticks);
    let keyframes = child::probe(folder, &format!("{}.mp4", video.rungs[0].name), "packet=flags");
    assert_eq!(
        keyframes.matches('K').count(),
        starts(&tracks[0]).len(),
        "no keyframe but where a fragment starts"
    );
    write_i_frame_playlist(folder, &tracks[0]);
    assert_eq!(child::complaints(folder, "i-frames.m3u8"), "");
    assert_eq!(film::brightness(folder, "i-frames.m3u8").len(), starts(&tracks[0]).len());
}

/// The types of the boxes that fill `bytes` exactly.
fn boxes(mut bytes: &[u8]) -> Vec<&str> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let byte_len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        found.push(std::str::from_utf8(&bytes[4..8]).unwrap());
        bytes = bytes.get(byte_len..).expect("a box ends where the range ends");
    }
    found
}

/// As `reelyard-manifest` writes it.
fn write_i_frame_playlist(folder: &Path, track: &TrackOutput) {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:3\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-I-FRAMES-ONLY\n\
         #EXT-X-MAP:URI=\"chunk0/{}\"\n",
        track.init.file
    );
    for segment in &track.segments {
        for point in &segment.sync_points {
            let seconds = point.duration_ticks as f64 / f64::from(track.timescale);
            text += &format!("#EXTINF:{seconds:.6},\n#EXT-X-BYTERANGE:{}@{}\n", point.byte_len, point.offset);
            text += &format!("chunk0/{}\n", segment.file.file);
        }
    }
    fs::write(folder.join("i-frames.m3u8"), text + "#EXT-X-ENDLIST\n").unwrap();
}

/// The playlists say that there are none; pictures that pass unscaled would carry them along.
#[test]
fn captions_inside_the_pictures_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v libx264 -preset ultrafast -x264-params aud=1 -pix_fmt yuv420p \
         bare.h264",
    );
    // ATSC A/53 part 4 section 6.2.3.1: one pair of bytes ("resume caption loading") as user data.
    let captions = [
        0, 0, 0, 1, 6, 4, 14, 0xB5, 0, 0x31, b'G', b'A', b'9', b'4', 3, 0x41, 0xFF, 0xFC, 0x94, 0x20, 0xFF,
        0x80,
    ];
    let bare = fs::read(folder.join("bare.h264")).unwrap();
    let delimiters = bare.windows(5).enumerate().filter(|(_, five)| *five == [0, 0, 0, 1, 9]);
    let mut with_captions = Vec::new();
    let mut copied = 0;
    for (at, _) in delimiters {
        with_captions.extend_from_slice(&bare[copied..at + 6]);
        with_captions.extend_from_slice(&captions);
        copied = at + 6;
    }
    with_captions.extend_from_slice(&bare[copied..]);
    fs::write(folder.join("source.h264"), with_captions).unwrap();
    child::ffmpeg(folder, "-v error -f h264 -framerate 25 -i source.h264 -c copy source.mp4");

    let side_data = |file: &str| child::probe(folder, file, "frame=pict_type:frame_side_data=side_data_type");
    assert!(side_data("source.mp4").contains("Captions"), "{}", side_data("source.mp4"));
    let source = folder.join("source.mp4");
    let video = film::plan(&film::info(&source, folder), "web-h264-small").video.unwrap();
    assert_eq!((video.rungs[0].width, video.rungs[0].height), (320, 240), "not scaled");
    film::encode_and_join(&source, folder, &video);
    let ours = side_data(&format!("{}.mp4", video.rungs[0].name));
    assert!(!ours.contains("Captions"), "{ours}");
}

#[test]
fn the_same_chunk_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=640x360:r=25:d=5 -c:v libx264 -preset ultrafast -pix_fmt yuv420p source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    let again = |name: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        film::encode(&source, &folder.join(name), &video, video.chunks[0])
    };
    let (first, second) = (again("first"), again("second"));
    assert_eq!(first.tracks, second.tracks);
    assert!(!first.tracks[0].segments[0].file.sha256.is_empty());
    assert_eq!(first.said.files(&folder.join("first")).len(), first.said.files(&folder.join("second")).len());
}

#[test]
fn a_phone_held_upright_gives_an_upright_film() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // White in the top left corner; the phone says: turn a quarter clockwise; the corner is then top right.
    child::ffmpeg(
        folder,
        "-f lavfi -i color=black:s=640x360:r=25:d=1,drawbox=x=0:y=0:w=160:h=90:c=white:t=fill \
         -c:v libx264 -preset ultrafast -pix_fmt yuv420p lying.mp4",
    );
    child::ffmpeg(folder, "-i lying.mp4 -c copy -metadata:s:v:0 rotate=90 source.mp4");
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    let turns = info.video[0].orientation.quarter_turns_clockwise;
    assert!(turns == 1 || turns == 3, "{turns}");
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    film::encode_and_join(&source, folder, &video);
    let rung = &video.rungs[0];
    assert!(rung.height > rung.width);
    let ours = film::first_picture(folder, &format!("{}.mp4", rung.name), 18, 32);
    // FFmpeg's own tools turn by the same matrix.
    let theirs = film::first_picture(folder, "source.mp4", 18, 32);
    assert!(ours.iter().zip(&theirs).all(|(a, b)| a.abs_diff(*b) < 24), "{ours:?}\n{theirs:?}");
}

#[test]
fn odd_sizes_and_444_become_even_420() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc=s=321x241:r=25:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv444p source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    assert_eq!((info.video[0].width, info.video[0].height), (321, 241));
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    film::encode_and_join(&source, folder, &video);
    let rung = &video.rungs[0];
    assert!(
        rung.width.is_multiple_of(2)
            && rung.height.is_multiple_of(2)
            && rung.width <= 322
            && rung.height <= 242
    );
    let file = format!("{}.mp4", rung.name);
    clean(folder, &file);
    assert_eq!(
        child::probe(folder, &file, "stream=width,height,pix_fmt,color_range,color_space"),
        format!("{},{},yuv420p,tv,smpte170m", rung.width, rung.height)
    );
}

#[test]
fn variable_frame_rate_survives() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A screen recording: bursts and pauses, one of them longer than a GOP.
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=320x240:r=60:d=10 -vf select='not(mod(n\\,7))*lt(mod(n\\,100)\\,40)+eq(n\\,599)' \
         -fps_mode vfr -enc_time_base 1/600 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -video_track_timescale 600 source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    assert!(matches!(info.video[0].frame_rate, FrameRate::Variable { .. }), "{:?}", info.video[0].frame_rate);
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    film::encode_and_join(&source, folder, &video);
    let file = format!("{}.mp4", video.rungs[0].name);
    clean(folder, &file);
    let ours = film::times(folder, &file);
    let source_ticks = 600 / info.video[0].time_base.numerator.max(1);
    let expected: Vec<i64> = film::times(folder, "source.mp4")
        .into_iter()
        .map(|pts| (pts - info.video[0].start_pts) * i64::from(video.timescale) / source_ticks)
        .collect();
    assert_eq!(ours, expected);
}

#[test]
fn a_picture_held_for_long_is_repeated_where_segments_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=320x240:r=1/9:d=18 -c:v libx264 -preset ultrafast -pix_fmt yuv420p source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    let encoded = film::encode_and_join(&source, folder, &video);
    clean(folder, &format!("{}.mp4", video.rungs[0].name));
    let segments = &encoded[0].tracks[0].segments;
    let longest = segments.iter().map(|segment| segment.duration_ticks).max().unwrap();
    assert!(longest <= u64::from(video.segment_ticks) * 5 / 4, "{segments:?}");
    let total: u64 = segments.iter().map(|segment| segment.duration_ticks).sum();
    assert_eq!(total, 18 * u64::from(video.timescale));
}

#[test]
fn hlg_in_ten_bits_becomes_bt709_in_eight() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=640x360:r=25:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le \
         -color_primaries bt2020 -color_trc arib-std-b67 -colorspace bt2020nc -color_range tv source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    assert_eq!((info.video[0].colour.hdr, info.video[0].bit_depth), (Hdr::Hlg, 10));
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    film::encode_and_join(&source, folder, &video);
    let file = format!("{}.mp4", video.rungs[0].name);
    clean(folder, &file);
    assert_eq!(
        child::probe(folder, &file, "stream=pix_fmt,color_range,color_space,color_transfer,color_primaries"),
        "yuv420p,tv,bt709,bt709,bt709"
    );
    let seen = film::brightness(folder, &file);
    assert_eq!(seen.len(), 25);
    assert!((40..220).contains(&seen[0]), "neither black nor white: {}", seen[0]);
}

#[test]
fn full_range_is_converted_and_the_matrix_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i color=white:s=320x240:r=25:d=1 -vf scale=out_range=full:out_color_matrix=smpte170m,format=yuvj420p \
         -c:v libx264 -preset ultrafast -colorspace smpte170m source.mp4",
    );
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    assert!(info.video[0].colour.full_range);
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    film::encode_and_join(&source, folder, &video);
    let file = format!("{}.mp4", video.rungs[0].name);
    assert_eq!(child::probe(folder, &file, "stream=color_range,color_space"), "tv,smpte170m");
    let raw = child::ffmpeg(folder, &format!("-i {file} -frames:v 1 -f rawvideo -pix_fmt yuv420p -"));
    assert!(raw[0].abs_diff(235) <= 1, "white is 235 in limited range: {}", raw[0]);
}

#[test]
fn interlaced_pictures_are_deinterlaced_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=720x576:r=50:d=2 -vf interlace -c:v mpeg2video -b:v 8M -flags +ilme+ildct source.ts",
    );
    let source = folder.join("source.ts");
    let info = film::info(&source, folder);
    assert!(info.video[0].interlaced);
    let video = film::plan(&info, "web-h264-small").video.unwrap();
    assert!(video.deinterlace);
    film::encode_and_join(&source, folder, &video);
    let file = format!("{}.mp4", video.rungs[0].name);
    clean(folder, &file);
    let times = film::times(folder, &file);
    assert_eq!(times.len() as u64, info.video[0].frame_count);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == i64::from(video.timescale) / 25), "{times:?}");
}

#[test]
fn a_hole_in_the_middle_is_held_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=320x240:r=25:d=6 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p source.mkv",
    );
    let source = folder.join("source.mkv");
    let info = film::info(&source, folder);
    let mut bytes = fs::read(&source).unwrap();
    let from = info.video[0].keyframes[2].byte_offset.unwrap() as usize + 64;
    let to = info.video[0].keyframes[4].byte_offset.unwrap() as usize - 64;
    bytes[from..to].fill(0xA5);
    fs::write(&source, bytes).unwrap();
    let mut video = film::plan(&info, "web-h264-small").video.unwrap();
    film::cut(&info, &mut video, &[2, 4]);
    let chunks = film::encode_and_join(&source, folder, &video);
    clean(folder, &format!("{}.mp4", video.rungs[0].name));
    let total: u64 = chunks.iter().flat_map(|c| &c.tracks[0].segments).map(|s| s.duration_ticks).sum();
    assert_eq!(total, 6 * u64::from(video.timescale));
}

#[test]
fn a_plan_that_is_not_ours_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(folder, "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -c:v libx264 -pix_fmt yuv420p source.mp4");
    let source = folder.join("source.mp4");
    let info = film::info(&source, folder);
    let mut video = film::plan(&info, "web-h264-small").video.unwrap();
    video.rungs[0].name = "../outside".to_owned();
    let chunk = video.chunks[0];
    let said = child::run(Job::Encode { video, chunk, encoder: EncoderChoice::X264 }, &source, folder);
    assert_eq!(said.failure().unwrap().code, FailureCode::Internal);
    assert!(said.files(folder).is_empty());
}
