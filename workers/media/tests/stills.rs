//! The stills job, run for real: each tile shows its own time, upright and in the right colours, and the poster is
//! worth looking at.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;

use child::{Said, corpus, ffmpeg, run};
use image::RgbImage;
use reelyard_model::{
    FailureCode, MediaInfo,
    child::{Job, Message},
    media_info::Orientation,
    output::StillsOutput,
    plan::StillsPlan,
};
use std::{fs, path::Path};
use tempfile::TempDir;

const TILE: (u32, u32) = (64, 36);
const SECOND_US: i64 = 1_000_000;

fn measure(source: &Path) -> MediaInfo {
    let folder = tempfile::tempdir().unwrap();
    let said = run(Job::Probe, source, folder.path());
    let info = said.0.into_iter().find_map(|message| match message {
        Message::Probed { info } => Some(*info),
        _ => None,
    });
    info.unwrap_or_else(|| panic!("{} is not recognised", source.display()))
}

/// As the planner would, but for the sizes.
fn plan(source: &Path) -> StillsPlan {
    let info = measure(source);
    let track = &info.video[0];
    StillsPlan {
        source_track: track.index,
        source_time_base: track.time_base,
        origin_pts: track.start_pts,
        orientation: track.orientation,
        deinterlace: track.interlaced,
        colour: track.colour,
        duration_us: info.duration_us,
        poster_width: 320,
        poster_height: 180,
        interval_us: SECOND_US,
        tile_width: TILE.0,
        tile_height: TILE.1,
        columns: 3,
        rows: 2,
        jpeg_quality: 90,
    }
}

struct Result {
    folder: TempDir,
    said: Said,
    stills: StillsOutput,
    tiles: Vec<RgbImage>,
}

impl Result {
    fn poster(&self) -> RgbImage {
        open(self.folder.path(), &self.stills.poster.file)
    }
}

fn open(folder: &Path, file: &str) -> RgbImage {
    image::load_from_memory(&fs::read(folder.join(file)).unwrap()).unwrap().to_rgb8()
}

fn make(source: &Path, plan: &StillsPlan) -> Result {
    let folder = tempfile::tempdir().unwrap();
    let said = run(Job::Stills { stills: plan.clone() }, source, folder.path());
    let stills = said.0.iter().find_map(|message| match message {
        Message::Stills { stills } => Some(stills.clone()),
        _ => None,
    });
    let stills = stills.unwrap_or_else(|| panic!("{:?}", said.0.last()));
    let tiles = read_tiles(folder.path(), &stills);
    let mut reported = said.files(folder.path());
    reported.sort();
    assert_eq!(reported.len(), 2 + stills.sprites.len());
    assert_eq!(tiles.len() as i64, (plan.duration_us + plan.interval_us - 1) / plan.interval_us);
    Result { folder, said, stills, tiles }
}

/// By the index alone, as a player finds them: cues must follow each other, and tiles lie within their sheets.
fn read_tiles(folder: &Path, stills: &StillsOutput) -> Vec<RgbImage> {
    let text = fs::read_to_string(folder.join(&stills.sprite_index.file)).unwrap();
    let sheets: Vec<RgbImage> = stills.sprites.iter().map(|sprite| open(folder, &sprite.file)).collect();
    let mut blocks = text.split("\n\n");
    assert_eq!(blocks.next(), Some("WEBVTT"));
    let mut last_end = "00:00:00.000".to_owned();
    blocks
        .map(|cue| {
            let (times, place) = cue.trim().split_once('\n').unwrap();
            let (start, end) = times.split_once(" --> ").unwrap();
            assert_eq!(start, last_end);
            last_end = end.to_owned();
            let (file, area) = place.split_once("#xywh=").unwrap();
            let sheet = stills.sprites.iter().position(|sprite| sprite.file == file).unwrap();
            let area: Vec<u32> = area.split(',').map(|number| number.parse().unwrap()).collect();
            let sheet = &sheets[sheet];
            assert!(area[0] + area[2] <= sheet.width() && area[1] + area[3] <= sheet.height());
            image::imageops::crop_imm(sheet, area[0], area[1], area[2], area[3]).to_image()
        })
        .collect()
}

/// Mean colour of a part of a picture, in parts of its size.
fn mean(picture: &RgbImage, x: (f32, f32), y: (f32, f32)) -> [u8; 3] {
    let range =
        |(from, to): (f32, f32), size: u32| (from * size as f32) as u32..((to * size as f32) as u32).max(1);
    let (mut sum, mut count) = ([0_u32; 3], 0);
    for py in range(y, picture.height()) {
        for px in range(x, picture.width()) {
            let pixel = picture.get_pixel(px, py);
            (0..3).for_each(|channel| sum[channel] += u32::from(pixel[channel]));
            count += 1;
        }
    }
    sum.map(|sum| (sum / count) as u8)
}

fn whole(picture: &RgbImage) -> [u8; 3] {
    mean(picture, (0.0, 1.0), (0.0, 1.0))
}

fn is_near(colour: [u8; 3], wanted: [u8; 3]) -> bool {
    colour.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 24)
}

const COLOURS: [(&str, [u8; 3]); 8] = [
    ("red", [255, 0, 0]),
    ("lime", [0, 255, 0]),
    ("blue", [0, 0, 255]),
    ("yellow", [255, 255, 0]),
    ("white", [255, 255, 255]),
    ("magenta", [255, 0, 255]),
    ("cyan", [0, 255, 255]),
    ("gray", [128, 128, 128]),
];

/// One colour a second, for eight seconds.
fn write_colours(folder: &Path, arguments: &str) {
    let inputs: String = COLOURS
        .iter()
        .map(|(name, _)| format!("-f lavfi -i color={name}:size=192x108:rate=25:duration=1 "))
        .collect();
    ffmpeg(folder, &format!("{inputs} -filter_complex concat=n=8 {arguments}"));
}

#[test]
fn every_tile_shows_its_own_second() {
    let sources = tempfile::tempdir().unwrap();
    for (arguments, file) in [
        // A keyframe in each second, one alone, and one that is out of step.
        ("-c:v libx264 -g 25 -pix_fmt yuv420p", "a.mp4"),
        ("-c:v libx264 -g 1000 -sc_threshold 0 -pix_fmt yuv420p", "b.mp4"),
        ("-c:v libx264 -g 60 -sc_threshold 0 -pix_fmt yuv420p -bf 3", "c.mkv"),
        ("-c:v libx264 -g 1000 -sc_threshold 0 -pix_fmt yuv420p", "d.ts"),
        ("-c:v libvpx -g 40", "e.webm"),
        ("-c:v mpeg4 -g 1000", "f.avi"),
    ] {
        write_colours(sources.path(), &format!("{arguments} {file}"));
        let source = sources.path().join(file);
        let result = make(&source, &plan(&source));
        assert_eq!(result.stills.sprites.len(), 2, "3 x 2 tiles a sheet");
        for (index, tile) in result.tiles.iter().take(8).enumerate() {
            let (name, colour) = COLOURS[index];
            assert!(is_near(whole(tile), colour), "{file}: {name} is {:?}", whole(tile));
        }
        assert_eq!(result.said.warnings(), Vec::<&str>::new());
    }
}

#[test]
fn the_poster_is_neither_black_nor_flat() {
    let sources = tempfile::tempdir().unwrap();
    let inputs = "-f lavfi -i color=black:size=640x360:rate=25:duration=4 \
         -f lavfi -i testsrc2=size=640x360:rate=25:duration=2 -f lavfi -i color=white:size=640x360:rate=25:duration=4";
    ffmpeg(sources.path(), &format!("{inputs} -filter_complex concat=n=3 -g 250 -pix_fmt yuv420p film.mp4"));
    let source = sources.path().join("film.mp4");
    for interval_us in [SECOND_US, 60 * SECOND_US] {
        let result = make(&source, &StillsPlan { interval_us, ..plan(&source) });
        let poster = result.poster();
        assert_eq!(poster.dimensions(), (320, 180));
        let colours: Vec<_> =
            (0..4).map(|i| mean(&poster, (i as f32 / 4.0, (i + 1) as f32 / 4.0), (0.2, 0.8))).collect();
        assert!(colours.windows(2).any(|pair| !is_near(pair[0], pair[1])), "{colours:?}");
    }
}

#[test]
fn flat_films_have_a_poster_too() {
    let Some(source) = corpus("tiny/white-3s-black-1s.webm") else { return };
    let result = make(&source, &plan(&source));
    assert!(is_near(whole(&result.poster()), [255; 3]));
    let expected = [[255; 3], [255; 3], [255; 3], [0; 3]];
    assert!(result.tiles.iter().zip(expected).all(|(tile, colour)| is_near(whole(tile), colour)));
}

#[test]
fn pictures_are_turned_upright() {
    let sources = tempfile::tempdir().unwrap();
    let halves = "-f lavfi -i color=red:size=320x360:duration=2 -f lavfi -i color=blue:size=320x360:duration=2 \
         -filter_complex hstack -pix_fmt yuv420p lying.mp4";
    ffmpeg(sources.path(), halves);
    ffmpeg(sources.path(), "-i lying.mp4 -c copy -metadata:s:v rotate=90 upright.mp4");
    let source = sources.path().join("upright.mp4");
    let (tile_width, tile_height) = (36, 64);
    let upright =
        StillsPlan { poster_width: 180, poster_height: 320, tile_width, tile_height, ..plan(&source) };
    assert_ne!(upright.orientation, Default::default());
    let result = make(&source, &upright);
    for picture in [&result.poster(), &result.tiles[0]] {
        let (top, bottom) = (mean(picture, (0.0, 1.0), (0.0, 0.4)), mean(picture, (0.0, 1.0), (0.6, 1.0)));
        // As FFmpeg's own player shows it.
        assert!(is_near(top, [0, 0, 255]) && is_near(bottom, [255, 0, 0]), "{top:?} over {bottom:?}");
    }
}

#[test]
fn a_film_held_upside_down_gets_its_best_poster_too() {
    let sources = tempfile::tempdir().unwrap();
    // Grey but for one second, which has bars above and below, as films have.
    let one_second = "t=fill:enable='between(t\\,3\\,4)'";
    let film = format!(
        "-f lavfi -i color=gray:size=320x180:rate=5:duration=6 -vf drawbox=w=160:c=red:{one_second},\
         drawbox=x=160:w=160:c=yellow:{one_second},drawbox=h=40:c=black:{one_second},\
         drawbox=y=140:h=40:c=black:{one_second} -g 5 -pix_fmt yuv420p lying.mp4"
    );
    ffmpeg(sources.path(), &film);
    let source = sources.path().join("lying.mp4");
    for (mirrored, left, right) in [(false, [255, 255, 0], [255, 0, 0]), (true, [255, 0, 0], [255, 255, 0])] {
        let orientation = Orientation { mirrored, quarter_turns_clockwise: 2 };
        let poster = make(&source, &StillsPlan { orientation, ..plan(&source) }).poster();
        let seen = [mean(&poster, (0.1, 0.4), (0.4, 0.6)), mean(&poster, (0.6, 0.9), (0.4, 0.6))];
        assert!(is_near(seen[0], left) && is_near(seen[1], right), "mirrored {mirrored}: {seen:?}");
    }
}

#[test]
fn one_picture_is_enough_and_lies_about_length_are_survived() {
    let sources = tempfile::tempdir().unwrap();
    ffmpeg(sources.path(), "-f lavfi -i color=lime:size=64x36:rate=25 -frames:v 1 -pix_fmt yuv420p one.mp4");
    let source = sources.path().join("one.mp4");
    let result = make(&source, &plan(&source));
    assert!(is_near(whole(&result.poster()), [0, 255, 0]));

    // The plan says 100 seconds; there are 8, or one picture.
    let long = StillsPlan { duration_us: 100 * SECOND_US, ..plan(&source) };
    assert!(make(&source, &long).tiles.iter().all(|tile| is_near(whole(tile), [0, 255, 0])));
    write_colours(sources.path(), "-c:v libx264 -g 50 -pix_fmt yuv420p short.mp4");
    let source = sources.path().join("short.mp4");
    let result = make(&source, &StillsPlan { duration_us: 100 * SECOND_US, ..plan(&source) });
    assert!(is_near(whole(&result.tiles[2]), [0, 0, 255]));
    assert!(result.tiles[8..].iter().all(|tile| is_near(whole(tile), [128; 3])));

    // A length of nothing.
    let result = make(&source, &StillsPlan { duration_us: 1, ..plan(&source) });
    assert!(is_near(whole(&result.tiles[0]), [255, 0, 0]));

    // An origin far behind the last picture.
    let late = StillsPlan { origin_pts: 1 << 40, ..plan(&source) };
    assert_eq!(make(&source, &late).tiles.len(), 8);
}

#[test]
fn damage_is_passed_over_and_nothing_at_all_is_a_failure() {
    let sources = tempfile::tempdir().unwrap();
    write_colours(sources.path(), "-c:v libx264 -g 25 -pix_fmt yuv420p film.mp4");
    let source = sources.path().join("film.mp4");
    let plan = plan(&source);
    let good = fs::read(&source).unwrap();
    let media = good.windows(4).position(|window| window == b"mdat").unwrap() + 4;
    let end = good.windows(4).position(|window| window == b"moov").unwrap() - 4;

    let mut bytes = good.clone();
    let middle = (media + end) / 2;
    bytes[middle..middle + 200].fill(0xFF);
    fs::write(&source, &bytes).unwrap();
    let result = make(&source, &plan);
    assert!(is_near(whole(&result.tiles[0]), [255, 0, 0]) && is_near(whole(&result.tiles[7]), [128; 3]));

    let mut bytes = good;
    bytes[media..end].fill(0xFF);
    fs::write(&source, &bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let said = run(Job::Stills { stills: plan }, &source, folder.path());
    assert_eq!(said.failure().unwrap().code, FailureCode::NothingDecodes);
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused() {
    let sources = tempfile::tempdir().unwrap();
    ffmpeg(sources.path(), "-f lavfi -i color=lime:size=64x36:rate=25 -frames:v 1 -pix_fmt yuv420p one.mp4");
    let source = sources.path().join("one.mp4");
    let good = plan(&source);
    for bad in [
        StillsPlan { interval_us: 0, ..good.clone() },
        StillsPlan { tile_width: 0, ..good.clone() },
        StillsPlan { columns: 4000, ..good.clone() },
        StillsPlan { duration_us: i64::MAX, interval_us: 1, ..good.clone() },
        StillsPlan { poster_width: 70_000, ..good },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let said = run(Job::Stills { stills: bad }, &source, folder.path());
        assert_eq!(said.failure().unwrap().code, FailureCode::Internal);
    }
}

#[test]
fn odd_corpus_files() {
    for file in [
        "tiny/rot90_1frame_100x60.mp4",
        "tiny/h263_1frame.3gp",
        "dims/odd_321x241_hevc444_10.mp4",
        "dims/av1_1x1_gray12.webm",
        "dims/resize_400x300_to_200x150.mp4",
        "legacy/no-initial-keyframe.ts",
        "vfr/cursed-vfr_3026x1386.mp4",
        "corrupt/decode_error_vp9.webm",
        "hdr/av1_hdr10_mdcv_clli_1080p60.mp4",
        "bombs/long_1080p_363s_0.8MB.mp4",
    ] {
        let Some(source) = corpus(file) else { return };
        make(&source, &plan(&source));
    }
}
