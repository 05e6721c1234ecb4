//! The main job as its three people see it: a file goes in through `reelyard upload`, and plays in a browser from a signed
//! URL, in other people's players; native tools read every rendition without a word of warning.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use reelyard_testkit::{ACCESS_KEY_ID, Kind, S3Server, SECRET_ACCESS_KEY};
use serde_json::Value;
use std::{path::Path, process::Command};
use support::{Server, decoded_pictures, fixture, playlist_uris, request, root, run};

/// Uploads the sample through the command line, waits for it, and gives what the API says of the asset.
fn publish_sample(server: &Server, file: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["upload", "--wait", "--json", "--server", &server.url])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "upload failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_str(text.trim()).expect("--json prints one JSON object");
    let id = said["asset"]["id"].as_str().or(said["asset"].as_str()).expect("the asset's id").to_owned();
    let asset = server.asset(&id);
    assert_eq!(asset["state"], "ready", "{asset:#}");
    asset
}

fn play(player: &str, url: &str) -> Value {
    let script = root().join("tests/browser/play.mjs");
    let (ok, stdout, stderr) =
        run("node", &[script.to_str().unwrap(), "--player", player, "--url", url, "--seconds", "10"]);
    let report: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{player}: no report\n{stdout}\n{stderr}"));
    assert!(ok, "{player}: {report:#}\n{stderr}");
    report
}

#[test]
fn a_video_plays_in_a_browser_and_in_native_tools() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let asset = publish_sample(&server, &fixture("bbb-720p-20s.mp4"));
    let hls = asset["playback"]["hls"].as_str().expect("a signed HLS address").to_owned();
    let dash = asset["playback"]["dash"].as_str().expect("a signed DASH address").to_owned();

    native_tools_read_every_rendition(&hls);
    for (player, url) in [("hls", &hls), ("dash", &dash), ("shaka", &dash)] {
        let report = play(player, url);
        assert_eq!(report["errors"].as_array().map(Vec::len), Some(0), "{report:#}");
        assert!(report["sizes"].as_array().unwrap().len() >= 2, "{player} switched the rung: {report:#}");
    }
    assert!(server.stop().success(), "the server stops cleanly");
}

#[test]
fn a_video_whose_bytes_lie_in_s3_becomes_the_same_stream() {
    let Some(storage) = S3Server::start(Kind::SeaweedFs) else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = S3Server::url(&storage.endpoint(), "videos");
    let credentials = [("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)];
    let data = folder.path().join("data");
    let server = Server::start_in(&data, &["--storage-url", &url], &credentials);
    let asset = publish_sample(&server, &fixture("bbb-720p-20s.mp4"));
    native_tools_read_every_rendition(asset["playback"]["hls"].as_str().expect("a signed HLS address"));
    assert_eq!(std::fs::read_dir(data.join("sources")).unwrap().count(), 0, "no source on this disk");
    assert!(server.stop().success(), "the server stops cleanly");
}

/// Every rung: 480 pictures, no warning from a whole decode, and sound that starts within 10 ms of the pictures.
fn native_tools_read_every_rendition(hls: &str) {
    let (_, master) = request("GET", hls, &[], &[]);
    let master = String::from_utf8(master).unwrap();
    let base = hls.rsplit_once('/').unwrap().0;
    let rungs: Vec<String> = playlist_uris(&master).map(|uri| format!("{base}/{uri}")).collect();
    assert_eq!(rungs.len(), 4, "720p, 480p, 360p and 240p of a 720p source:\n{master}");
    let audio = attribute(&master, "#EXT-X-MEDIA:TYPE=AUDIO", "URI")
        .map(|uri| format!("{base}/{uri}"))
        .expect("an audio group");

    let audio_start = start_time(&audio);
    for rung in &rungs {
        for playlist in [rung.clone(), rung.replace(".m3u8", "-iframes.m3u8")] {
            let (ok, _, warnings) =
                run("ffmpeg", &["-nostdin", "-v", "warning", "-xerror", "-i", &playlist, "-f", "null", "-"]);
            assert!(ok && warnings.trim().is_empty(), "{playlist}: {warnings}");
        }
        assert_eq!(decoded_pictures(rung), "480", "{rung} has every picture of the source");
        let apart = (start_time(rung) - audio_start).abs();
        assert!(apart <= 0.010, "{rung}: sound and pictures start {apart} s apart");
    }
}

fn start_time(url: &str) -> f64 {
    let (_, text, _) =
        run("ffprobe", &["-v", "error", "-show_entries", "stream=start_time", "-of", "csv=p=0", url]);
    text.trim()
        .lines()
        .next()
        .and_then(|line| line.trim_end_matches(',').parse().ok())
        .unwrap_or_else(|| panic!("{url}: {text}"))
}

fn attribute(playlist: &str, tag: &str, name: &str) -> Option<String> {
    let line = playlist.lines().find(|line| line.starts_with(tag))?;
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    rest.split('"').next().map(str::to_owned)
}

#[test]
fn what_is_not_a_video_ends_with_a_reason_a_creator_understands() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let text_file = folder.path().join("holiday.mp4");
    std::fs::write(&text_file, "Dear diary, this is not a film.\n".repeat(100)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["upload", "--wait", "--server", &server.url])
        .arg(&text_file)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "an upload that cannot play must not exit 0: {said}");
    assert!(said.contains("not a video"), "{said}");
}
