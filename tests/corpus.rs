//! 115 real files that nobody here made, hostile ones among them: every one ends in the state that its manifest expects,
//! with a reason a creator understands, and the server never restarts.
//!
//! The files lie beside the checkout in `../shared/corpus`; a clone without them says that the test was skipped.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, time::Duration};
use support::{Server, shared, skipped, upload_whole, wait_for};

/// All files through two cores; the slowest is an 8K clip, the longest six minutes of 1080p.
const ALL_FILES: Duration = Duration::from_secs(20 * 60);

struct Case {
    file: String,
    expected: String,
}

fn manifest(text: &str) -> Vec<Case> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split('\t');
            Some(Case { file: columns.next()?.to_owned(), expected: columns.next()?.to_owned() })
        })
        .collect()
}

#[test]
fn every_file_of_the_corpus_ends_as_its_manifest_expects() {
    let Some(shared) = shared() else { return skipped("../shared/corpus is not beside this checkout") };
    let cases = manifest(&fs::read_to_string(shared.join("corpus/MANIFEST.tsv")).unwrap());
    assert!(cases.len() > 100, "the manifest has {} files", cases.len());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    // The full ladder is measured elsewhere; here it is about what files do to us.
    let preset = std::env::var("REELYARD_CORPUS_PRESET").unwrap_or_else(|_| "web-h264-small".into());

    let uploaded: Vec<(Case, String)> = cases
        .into_iter()
        .map(|case| {
            let id = upload_whole(&server, &shared.join("corpus").join(&case.file), Some(&preset));
            (case, id)
        })
        .collect();

    let mut table = String::new();
    let mut wrong = Vec::new();
    for (case, id) in &uploaded {
        let asset = wait_for(&format!("{} to settle", case.file), ALL_FILES, || {
            let asset = server.asset(id);
            matches!(asset["state"].as_str(), Some("ready" | "failed" | "cancelled")).then_some(asset)
        });
        let state = asset["state"].as_str().unwrap_or_default();
        let code = asset["failure"]["code"].as_str().unwrap_or_default();
        let reason = asset["failure"]["message"].as_str().unwrap_or_default();
        table.push_str(&format!("{:<12} {:<7} {:<22} {}\n", case.expected, state, code, case.file));
        let as_expected = match case.expected.as_str() {
            "ok" => state == "ready",
            "must-reject" => state == "failed",
            // Best effort: what can be saved is published, the rest is refused; never anything else.
            "salvageable" => state == "ready" || state == "failed",
            other => panic!("unknown expectation {other}"),
        };
        if !as_expected {
            wrong.push(format!(
                "{}: expected {}, is {state} {code}: {}",
                case.file, case.expected, asset["failure"]
            ));
        }
        if state == "failed"
            && (reason.is_empty() || matches!(code, "internal" | "time_limit" | "child_hung"))
        {
            wrong.push(format!("{}: no reason a creator understands: {code} {reason:?}", case.file));
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{} of {} files:\n{}", wrong.len(), uploaded.len(), wrong.join("\n"));
    let (status, _) = server.get("/livez");
    assert_eq!(status, 200, "the same server still answers");
    assert!(server.stop().success());
}
