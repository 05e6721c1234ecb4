//! The pages as people use them, in a real browser: upload by form, progress, playing by itself, quality, previews.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::{Server, fixture, root, run, skipped};

#[test]
fn a_person_uploads_and_watches_with_nothing_but_a_browser() {
    if !root().join("console/dist/hls.mjs").exists() {
        return skipped("the pages' player is not built: run scripts/setup player, then build again");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let script = root().join("tests/browser/pages.mjs");
    let sample = fixture("bbb-720p-20s.mp4");
    // The small preset: the point here is the pages, and end_to_end has made the whole ladder already.
    let (ok, stdout, stderr) = run(
        "node",
        &[
            script.to_str().unwrap(),
            "--server",
            &server.url,
            "--file",
            sample.to_str().unwrap(),
            "--preset",
            "web-h264-small",
        ],
    );
    let report: Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|_| panic!("no report\n{stdout}\n{stderr}\n{}", server.log()));
    assert!(ok, "{report:#}\n{stderr}");
    assert_eq!(report["problems"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["menu"].as_array().map(Vec::len), Some(3), "auto, 480p and 240p: {report:#}");
    assert_eq!(report["sawProgress"], true, "the page was opened while the video was being made ready");
}
