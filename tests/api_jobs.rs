//! The command line as an operator uses it against a real server: `reelyard jobs`, with and without a key.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};
use support::{Server, upload_whole, wait_for};

fn jobs(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .arg("jobs")
        .args(arguments)
        .args(["--server", url])
        .env_remove("REELYARD_KEY")
        .env_remove("REELYARD_DATA_DIR")
        .env_remove("REELYARD_SERVER")
        .output()
        .unwrap()
}

/// A child that does not outlive its test, however that ends.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_job_that_was_given_up_is_found_explained_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    assert_eq!(text(&jobs(&server.url, &[]).stdout), "no jobs\n");

    let diary = folder.path().join("diary.mp4");
    std::fs::write(&diary, "Dear diary, this is not a film.\n".repeat(100)).unwrap();
    let asset = upload_whole(&server, &diary, None);
    assert_eq!(server.settled(&asset)["state"], "failed");

    let list = jobs(&server.url, &["list", "--state", "dead", "--asset", &asset, "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).expect("--json prints JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list:#}");
    let id = list["items"][0]["id"].as_str().unwrap();
    assert_eq!(list["items"][0]["failure"]["class"], "bad_input", "{list:#}");
    let table = text(&jobs(&server.url, &["list"]).stdout);
    assert!(table.contains(id) && table.contains("dead"), "{table}");
    let shown = text(&jobs(&server.url, &["show", id]).stdout);
    assert!(shown.contains("not_media") && shown.contains(&asset), "{shown}");

    let retried = jobs(&server.url, &["retry", id]);
    assert!(retried.status.success(), "{}", text(&retried.stderr));
    assert_eq!(server.settled(&asset)["state"], "failed", "the file is what it was");
    let attempts = jobs(&server.url, &["show", id, "--json"]);
    let attempts: Value = serde_json::from_slice(&attempts.stdout).unwrap();
    assert!(attempts["attempt"].as_u64().unwrap() >= 2, "{attempts:#}");

    let unknown = jobs(&server.url, &["cancel", "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("There is no job with this id"), "{}", text(&unknown.stderr));
    assert_eq!(jobs(&server.url, &["show", "../assets"]).status.code(), Some(2), "an id is an id");
}

#[test]
fn watch_prints_what_happens_as_it_happens() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let log = folder.path().join("watch.jsonl");
    let watch = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["jobs", "watch", "--json", "--server", &server.url])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _watch = Kept(watch);
    let diary = folder.path().join("diary.mp4");
    std::fs::write(&diary, "not a film\n".repeat(10)).unwrap();
    // The watcher may connect after the first upload is through: go on until it sees one.
    let seen = wait_for("an event to be printed", Duration::from_secs(60), || {
        upload_whole(&server, &diary, None);
        let printed = std::fs::read_to_string(&log).unwrap();
        printed.lines().find(|line| line.contains("asset.failed")).map(str::to_owned)
    });
    let event: Value = serde_json::from_str(&seen).expect("one JSON object a line");
    assert_eq!(event["data"]["code"], "not_media", "{event:#}");
}

#[test]
fn a_server_with_keys_makes_one_and_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ready = folder.path().join("ready");
    let child = Command::new(env!("CARGO_BIN_EXE_reelyard"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .arg("--ready-file")
        .arg(&ready)
        .env("REELYARD_MEDIA_PROGRAM", support::media_program())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _child = Kept(child);
    let url = wait_for("the server to be ready", Duration::from_secs(60), || {
        std::fs::read_to_string(&ready)
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    });
    let key_file = data.join("admin.key");
    assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&key_file).unwrap();

    let refused = jobs(&url, &["list", "--data-dir", folder.path().to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("needs an API key"), "{}", text(&refused.stderr));
    assert_eq!(text(&jobs(&url, &["list", "--key", key.trim()]).stdout), "no jobs\n");
    // On the same machine the key is found by itself.
    assert_eq!(text(&jobs(&url, &["list", "--data-dir", data.to_str().unwrap()]).stdout), "no jobs\n");
}
