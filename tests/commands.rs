//! `reelyard probe`, `plan` and `doctor` with the real media child: what people and scripts get to read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bbb-720p-20s.mp4")
}

fn reelyard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reelyard")).args(arguments).output().expect("reelyard starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {:?}; standard error: {}", text(&output.stdout), text(&output.stderr))
    })
}

#[test]
fn probe_shows_the_facts_as_text_and_as_json() {
    let file = fixture();
    let shown = reelyard(&["probe", file.to_str().unwrap()]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let table = text(&shown.stdout);
    for part in ["mov,mp4", "0:00:2", "h264", "1280x720", "24.000 pictures/s", "aac"] {
        assert!(table.contains(part), "no {part:?} in:\n{table}");
    }

    let info = json(&reelyard(&["probe", "--json", file.to_str().unwrap()]));
    assert_eq!(info["video"][0]["width"], 1280);
    assert_eq!(info["byte_len"], file.metadata().unwrap().len());
}

#[test]
fn plan_gives_its_reasons() {
    let file = fixture();
    let shown = reelyard(&["plan", file.to_str().unwrap()]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let explained = text(&shown.stdout);
    assert!(explained.contains("720p"), "{explained}");
    assert!(explained.contains("Why:") && explained.contains("1080p left out"), "{explained}");

    let plan = json(&reelyard(&["plan", "--json", file.to_str().unwrap()]));
    assert_eq!(plan["preset"], "web-h264");
    assert!(plan["decisions"].as_array().is_some_and(|decisions| decisions.len() > 3));

    let wrong = reelyard(&["plan", "--preset", "web-h265", file.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("web-h264"), "names the presets that there are");

    // A preset can be tried out before a server has it.
    let folder = tempfile::tempdir().unwrap();
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets/web-h264.toml");
    std::fs::copy(built_in, folder.path().join("mine.toml")).unwrap();
    let presets = folder.path().to_str().unwrap();
    let plan = json(&reelyard(&[
        "plan",
        "--json",
        "--presets",
        presets,
        "--preset",
        "mine",
        file.to_str().unwrap(),
    ]));
    assert_eq!(plan["preset"], "mine");
}

#[test]
fn what_is_no_video_is_refused_in_the_creators_words() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.mp4");
    std::fs::write(&notes, "Milk, bread, butter.\n").unwrap();

    let shown = reelyard(&["probe", notes.to_str().unwrap()]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(shown.stdout.is_empty());
    assert!(text(&shown.stderr).contains("not a video"), "{}", text(&shown.stderr));

    let refused = reelyard(&["plan", "--json", notes.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(json(&refused)["failure"]["code"], "not_media");

    let missing = reelyard(&["probe", "/nowhere/film.mp4"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nowhere/film.mp4"));
}

#[test]
fn doctor_finds_this_machine_usable_and_says_what_is_missing_where_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let found = reelyard(&["doctor", "--json", "--data-dir", data_dir.to_str().unwrap()]);
    let report = json(&found);
    let topic = |name: &str| -> Vec<&Value> {
        let findings = report["findings"].as_array().unwrap();
        findings.iter().filter(|finding| finding["topic"] == name).collect()
    };
    for name in ["machine", "gpu", "media", "ffmpeg", "encoder", "sandbox", "data"] {
        assert!(!topic(name).is_empty(), "nothing about {name}: {report:#}");
    }
    let layers = topic("sandbox")[0]["text"].as_str().unwrap();
    for layer in ["rlimits", "no_new_privs", "seccomp"] {
        assert!(layers.contains(layer), "{layers}");
    }
    // A disk that is nearly full is a finding of its own; the media side must be good wherever tests run.
    assert!(topic("encoder").iter().any(|finding| finding["state"] == "good"), "{report:#}");
    assert_eq!(found.status.success(), report["usable"].as_bool().unwrap());
    assert!(!data_dir.exists(), "doctor changes nothing");

    let broken = reelyard(&["doctor", "--media-program", "/nowhere/reelyard-media"]);
    assert_eq!(broken.status.code(), Some(1));
    let shown = text(&broken.stdout);
    assert!(shown.contains("MISSING") && shown.contains("/nowhere/reelyard-media"), "{shown}");
}

/// A machine with two cards of which one is lost: the library that stands in for the driver's comes from the agent's
/// tests. Nothing can be encoded on them here, and doctor says that, too.
#[test]
fn doctor_shows_the_cards() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("workers/agent/tests/stand_in/nvml.c");
    let compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-DFIRST_LOST=1", "-o"])
        .arg(folder.path().join("libnvidia-ml.so.1"))
        .arg(source)
        .output();
    match compiler {
        Err(error) => return eprintln!("SKIPPED: no C compiler (cc: {error}); scripts/setup installs one"),
        Ok(output) => assert!(output.status.success(), "{}", text(&output.stderr)),
    }
    // In front of what is there already: FFmpeg may be found through it.
    let mut library_path = folder.path().as_os_str().to_owned();
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH") {
        library_path.push(":");
        library_path.push(before);
    }
    let report = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["doctor", "--json", "--data-dir", folder.path().to_str().unwrap()])
        .env("LD_LIBRARY_PATH", library_path)
        .output()
        .unwrap();
    let report = json(&report);
    let gpus: Vec<(&str, &str)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["topic"] == "gpu")
        .map(|finding| (finding["state"].as_str().unwrap(), finding["text"].as_str().unwrap()))
        .collect();
    let expected = "NVIDIA L4, driver 570.86.15, 21.48 GiB of 22.49 GiB free, H.264 encoder 100 % free";
    assert_eq!(gpus[0], ("fact", expected));
    assert_eq!(gpus[1].0, "weak");
    assert!(gpus[1].1.contains("card 1 does not answer"), "{report:#}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output.stderr));
}
