//! Every file of the shared corpus ends as its manifest says, within time and memory: real files of every kind, and
//! hostile ones. A clone without the corpus says that it skipped this.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod child;
mod film;

use reelyard_model::{
    FailureClass, FailureCode, MediaInfo,
    child::{Job, Message},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The probe of any file of the corpus, on a busy machine of two cores; the slowest takes 2 s on an idle one.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// Sources longer than this are only probed here: they cost minutes to encode.
const LONGEST_TO_ENCODE_US: i64 = 11_000_000;

struct Entry {
    file: String,
    expected: String,
    path: PathBuf,
}

fn entries() -> Vec<Entry> {
    let Some(manifest) = child::corpus("MANIFEST.tsv") else { return Vec::new() };
    let text = fs::read_to_string(&manifest).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let mut columns = line.split('\t');
            let file = columns.next().unwrap().to_owned();
            let path = manifest.with_file_name(&file);
            Entry { expected: columns.next().unwrap().to_owned(), path, file }
        })
        .collect()
}

fn probe(entry: &Entry, folder: &Path) -> Result<MediaInfo, FailureCode> {
    let started = Instant::now();
    let said = child::run(Job::Probe, &entry.path, folder);
    assert!(started.elapsed() < LONGEST_PROBE, "{}: {:?}", entry.file, started.elapsed());
    if let Some(failure) = said.failure() {
        assert_eq!(failure.class(), FailureClass::BadInput, "{}: {failure:?}", entry.file);
        return Err(failure.code);
    }
    let info = said.0.iter().find_map(|message| match message {
        Message::Probed { info } => Some((**info).clone()),
        _ => None,
    });
    Ok(info.unwrap())
}

#[test]
fn every_file_is_judged_as_the_manifest_expects() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for entry in entries() {
        let outcome = probe(&entry, folder.path());
        let right = match entry.expected.as_str() {
            "ok" => outcome.is_ok(),
            "must-reject" => outcome.is_err(),
            // Either is an honest end.
            "salvageable" => true,
            other => panic!("{}: what is {other}?", entry.file),
        };
        if !right {
            wrong.push(format!(
                "{} ({}): {:?}",
                entry.file,
                entry.expected,
                outcome.map(|info| info.warnings)
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_film_is_encoded_without_a_complaint_from_ffmpeg() {
    let mut wrong = Vec::new();
    for entry in entries() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let Ok(info) = probe(&entry, folder) else { continue };
        if info.duration_us > LONGEST_TO_ENCODE_US || info.video.is_empty() {
            continue;
        }
        let Some(mut video) = film::plan(&info, "web-h264-small").video else { continue };
        // The smallest picture is enough here: sizes have tests of their own.
        video.rungs.drain(..video.rungs.len() - 1);
        let encoded = film::encode_and_join(&entry.path, folder, &video);
        let total: u64 = encoded
            .iter()
            .flat_map(|chunk| &chunk.tracks[0].segments)
            .map(|segment| segment.duration_ticks)
            .sum();
        let off_us = (total as f64 / f64::from(video.timescale) * 1e6 - info.duration_us as f64).abs();
        if off_us > 100_000.0 {
            wrong.push(format!("{}: {off_us} us longer or shorter than the source", entry.file));
        }
        for rung in &video.rungs {
            let file = format!("{}.mp4", rung.name);
            for complaint in
                [film::complaints_at_uneven_times(folder, &file), film::ffprobe_complaints(folder, &file)]
            {
                if !complaint.is_empty() {
                    wrong.push(format!("{} {}: {complaint}", entry.file, rung.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
