//! The TypeScript client in `clients/upload-js`: its own tests, in Node and in Chromium, against this build's server.
//!
//! `scripts/setup test` installs and builds it; without that the test says that it was skipped.

use std::{path::Path, process::Command};

#[test]
fn the_client_for_browsers_passes_its_own_tests() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/upload-js");
    if !package.join("dist/index.js").is_file() {
        eprintln!("SKIPPED: clients/upload-js is not built; run scripts/setup test");
        return;
    }
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec", "--test-timeout=120000", "--test-concurrency=3", "test/"])
        .env("REELYARD_PROGRAM", env!("CARGO_BIN_EXE_reelyard"))
        .current_dir(&package)
        .output()
        .unwrap();
    let shown =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
    // Node ends well also when it found no test at all.
    let passed = shown.lines().find_map(|line| line.trim().strip_prefix("ℹ pass ")?.parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed >= 30), "{shown}");
}
