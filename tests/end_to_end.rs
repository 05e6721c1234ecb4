//! The main job as its three people see it: a file goes in through `reelyard upload`, and plays in a browser from a signed
//! URL, in other people's players; native tools read every rendition without a word of warning.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use reelyard_storage::{
    Objects as _,
    s3::{Patience, S3Config, S3Credentials, S3Objects},
};
use reelyard_testkit::{ACCESS_KEY_ID, Kind, S3Server, SECRET_ACCESS_KEY};
use serde_json::Value;
use std::{path::Path, process::Command};
use support::{
    PATIENCE, Server, decoded_pictures, exchange, fixture, header, playlist_uris, request, root, run,
    wait_for,
};

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
    let hls = asset["playback"]["hls"].as_str().expect("a signed HLS address");
    native_tools_read_every_rendition(hls);
    parts_and_conditions_are_answered_as_from_a_disk(hls);
    let report = play("hls", hls);
    assert_eq!(report["errors"].as_array().map(Vec::len), Some(0), "{report:#}");
    for folder in ["sources", "renditions", "publications"] {
        assert_eq!(std::fs::read_dir(data.join(folder)).unwrap().count(), 0, "no {folder} on this disk");
    }
    let id = asset["id"].as_str().expect("the asset's id");
    let kept = objects_of(&url, id);
    assert!(kept.iter().any(|key| key.ends_with("/720p/00005.m4s")), "the segments lie in S3: {kept:?}");
    let (code, _) = request("DELETE", &format!("{}/v1/assets/{id}", server.url), &[], &[]);
    assert!((200..300).contains(&code), "deleting it is answered with {code}");
    wait_for("everything of it to go", PATIENCE, || objects_of(&url, id).is_empty().then_some(()));
    assert!(server.stop().success(), "the server stops cleanly");
}

/// Keys of what is kept of an asset beside its source.
fn objects_of(url: &str, asset: &str) -> Vec<String> {
    let credentials = S3Credentials {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        session_token: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = S3Config::parse(url).unwrap();
        let objects = S3Objects::open(&config, credentials, Patience::default()).await.unwrap();
        let mut found = Vec::new();
        for folder in ["renditions", "publications"] {
            let below = objects.list_prefix(&format!("{folder}/{asset}")).await.unwrap();
            found.extend(below.into_iter().map(|entry| entry.key));
        }
        found
    })
}

fn parts_and_conditions_are_answered_as_from_a_disk(hls: &str) {
    let (code, headers, whole) = exchange("GET", hls, &[], &[]);
    assert_eq!((code, header(&headers, "content-length")), (200, Some(whole.len().to_string())));
    assert_eq!(header(&headers, "content-type").as_deref(), Some("application/vnd.apple.mpegurl"));
    let etag = header(&headers, "etag").expect("a strong tag");
    let modified = header(&headers, "last-modified").expect("a time");
    let part = |more: &[(&str, String)]| {
        let headers: Vec<_> = [&[("range", "bytes=3-9".to_owned())], more].concat();
        exchange("GET", hls, &headers, &[])
    };
    let (code, headers, bytes) = part(&[("if-range", etag.clone())]);
    assert_eq!((code, bytes.as_slice()), (206, &whole[3..10]));
    assert_eq!(header(&headers, "content-range"), Some(format!("bytes 3-9/{}", whole.len())));
    assert_eq!(part(&[("if-range", "\"another\"".to_owned())]).0, 200);
    assert_eq!(exchange("GET", hls, &[("if-none-match", etag.clone())], &[]).0, 304);
    assert_eq!(exchange("GET", hls, &[("if-modified-since", modified)], &[]).0, 304);
    assert_eq!(exchange("GET", hls, &[("range", "bytes=99999999-".to_owned())], &[]).0, 416);
    let (code, headers, bytes) = exchange("HEAD", hls, &[], &[]);
    assert_eq!((code, bytes.len(), header(&headers, "etag")), (200, 0, Some(etag)));
    assert_eq!(header(&headers, "content-length"), Some(whole.len().to_string()));
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
