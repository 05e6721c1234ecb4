//! House rules that a test can keep: who may import whom, where unsafe may stand, how long a file may be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Longest source file, in lines before its `#[cfg(test)]` module: past that it holds two things.
const MAX_FILE_LINES: usize = 500;

const PURE: [&str; 7] = ["model", "upload", "planner", "schedule", "cmaf", "manifest", "sign"];
const ADAPTERS: [&str; 3] = ["storage", "catalog", "tickets"];
/// What a pure crate must not know: runtimes, sockets, files, clocks, randomness.
const IMPURE_DEPENDENCIES: [&str; 9] =
    ["tokio", "axum", "sqlx", "reqwest", "rustix", "libc", "getrandom", "ffmpeg-next", "jiff"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn dependencies(folder: &str, section: &str) -> BTreeSet<String> {
    let path = root().join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let manifest: toml::Table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table = manifest.get(section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    table.keys().cloned().collect()
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    ["src", "crates", "workers"].into_iter().flat_map(|folder| {
        WalkDir::new(root().join(folder))
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"))
            .map(|entry| {
                (relative(entry.path()), fs::read_to_string(entry.path()).expect("a source file is UTF-8"))
            })
    })
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

fn is_test_code(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

#[test]
fn pure_crates_import_only_the_model_and_know_nothing_of_the_world() {
    for name in PURE {
        for dependency in dependencies(&format!("crates/{name}"), "dependencies") {
            let allowed = !dependency.starts_with("reelyard-") || dependency == "reelyard-model";
            assert!(allowed, "crates/{name} imports {dependency}: pure crates import the model only");
            assert!(
                !IMPURE_DEPENDENCIES.contains(&dependency.as_str()),
                "crates/{name} is pure but imports {dependency}"
            );
        }
    }
    assert!(dependencies("crates/model", "dependencies").iter().all(|name| !name.starts_with("reelyard-")));
}

#[test]
fn pure_crates_touch_no_clock_file_or_environment() {
    const TOUCHES: [&str; 7] = [
        "SystemTime::now",
        "Instant::now",
        "std::fs",
        "std::net",
        "std::env::",
        "Uuid::now_v7",
        "std::thread",
    ];
    for (path, text) in rust_files() {
        let pure = PURE.iter().any(|name| path.starts_with(&format!("crates/{name}/src/")));
        if !pure || is_test_code(&path) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for touch in TOUCHES {
            assert!(!code.contains(touch), "{path} is in a pure crate but uses {touch}");
        }
    }
}

#[test]
fn adapters_do_not_import_each_other() {
    for name in ADAPTERS {
        for other in ADAPTERS {
            assert!(
                !dependencies(&format!("crates/{name}"), "dependencies")
                    .contains(&format!("reelyard-{other}"))
            );
        }
    }
}

#[test]
fn only_the_media_child_links_ffmpeg_and_nothing_imports_it() {
    for folder in [".", "crates/storage", "crates/catalog", "workers/agent", "workers/sandbox"] {
        for dependency in dependencies(folder, "dependencies") {
            let forbidden = ["reelyard-media", "reelyard-ffmpeg", "ffmpeg-next", "ffmpeg-sys-next"];
            assert!(!forbidden.contains(&dependency.as_str()), "{folder} imports {dependency}");
        }
    }
}

#[test]
fn unsafe_stands_only_in_the_ffmpeg_wrappers_and_the_sandbox() {
    for (path, text) in rust_files() {
        if path.starts_with("workers/ffmpeg/") || path.starts_with("workers/sandbox/") {
            continue;
        }
        assert!(!text.contains("allow(unsafe_code)"), "{path} allows unsafe code");
    }
}

#[test]
fn every_source_file_opens_with_its_contract_and_stays_short() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files() {
        if is_test_code(&path) {
            continue;
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not open with its contract (`//!`)"));
        }
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count();
        if lines > MAX_FILE_LINES {
            wrong.push(format!("{path} has {lines} lines; {MAX_FILE_LINES} is the limit"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_to_do_in_code() {
    for (path, text) in rust_files() {
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{path} holds {word}");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    let documents = WalkDir::new(root()).into_iter().filter_entry(|entry| {
        !matches!(
            entry.file_name().to_str(),
            Some("target" | "node_modules" | ".git" | ".tools" | ".scratch")
        )
    });
    for entry in documents.filter_map(Result::ok) {
        if entry.path().extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("a document is UTF-8");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !entry.path().parent().expect("a file has a folder").join(file).exists() {
                broken.push(format!("{}: {target}", relative(entry.path())));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
