//! The probe and capabilities jobs through the real child.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;
mod film;

use reelyard_model::{
    FailureCode, Rational,
    child::{Job, Message},
    media_info::FrameRate,
};
use std::{fs, path::Path};

fn code(bytes: &[u8], folder: &Path) -> FailureCode {
    let source = folder.join("source");
    fs::write(&source, bytes).unwrap();
    child::run(Job::Probe, &source, folder).failure().expect("not a film").code
}

#[test]
fn what_is_no_film_is_refused_with_its_own_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(code(b"", folder), FailureCode::EmptyFile);
    assert_eq!(code(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", folder), FailureCode::PlaylistNotMedia);
    assert_eq!(code(b"<?xml version=\"1.0\"?>\n<MPD></MPD>", folder), FailureCode::PlaylistNotMedia);
    assert_eq!(code(b"ffconcat version 1.0\nfile '/etc/passwd'\n", folder), FailureCode::PlaylistNotMedia);
    assert_eq!(code(b"A letter to my aunt.\n", folder), FailureCode::NotMedia);
    // Noise, from a small generator so that every run sees the same.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(100_000)
    .collect();
    let refusal = code(&noise, folder);
    assert!(matches!(refusal, FailureCode::NotMedia | FailureCode::NothingDecodes), "{refusal:?}");
}

#[test]
fn pictures_are_no_films() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in ["picture.png", "picture.jpg", "picture.gif"] {
        child::ffmpeg(folder, &format!("-f lavfi -i testsrc2=s=64x64:d=1 -frames:v 1 {file}"));
        let said = child::run(Job::Probe, &folder.join(file), folder);
        assert_eq!(said.failure().map(|failure| failure.code), Some(FailureCode::StillImage), "{file}");
    }
}

#[test]
fn a_film_cut_short_tells_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=320x240:r=25:d=10 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p -movflags +faststart whole.mp4",
    );
    let whole = fs::read(folder.join("whole.mp4")).unwrap();
    fs::write(folder.join("half.mp4"), &whole[..whole.len() / 2]).unwrap();
    let info = film::info(&folder.join("half.mp4"), folder);
    assert!(info.duration_us < 8_000_000, "{}", info.duration_us);
    assert_eq!(info.declared_duration_us, Some(10_000_000));
    assert!(!info.warnings.is_empty());

    let description = whole.windows(4).position(|w| w == b"mdat").unwrap() + 4;
    fs::write(folder.join("empty.mp4"), &whole[..description]).unwrap();
    let said = child::run(Job::Probe, &folder.join("empty.mp4"), folder);
    assert_eq!(said.failure().unwrap().code, FailureCode::MediaDataMissing);
}

#[test]
fn ntsc_in_milliseconds_is_ntsc() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    child::ffmpeg(
        folder,
        "-f lavfi -i testsrc2=s=320x240:r=30000/1001:d=8 -f lavfi -i sine=d=8 -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
         -c:a aac -metadata:s:a:0 language=deu source.mkv",
    );
    let info = film::info(&folder.join("source.mkv"), folder);
    let rate = Rational::new(30_000, 1001).unwrap();
    assert_eq!(info.video[0].frame_rate, FrameRate::Constant { rate });
    assert_eq!(info.audio[0].language.as_deref(), Some("deu"));
    assert_eq!(info.warnings, Vec::<String>::new());
}

#[test]
fn the_child_tells_what_it_can_do_and_how_it_is_confined() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("empty");
    fs::write(&source, "").unwrap();
    let said = child::run(Job::Capabilities, &source, folder.path());
    let capabilities = said.0.iter().find_map(|message| match message {
        Message::Capabilities { capabilities } => Some(capabilities.clone()),
        _ => None,
    });
    let capabilities = capabilities.unwrap();
    assert!(capabilities.encoders.iter().any(|encoder| encoder.name == "libx264" && encoder.opens));
    for layer in ["rlimits", "no_new_privs"] {
        assert!(
            capabilities.sandbox.iter().any(|name| name.starts_with(layer)),
            "{:?}",
            capabilities.sandbox
        );
    }
}
