//! The published clients' own flows, unmodified: tus-js-client 4 and 5 and Uppy (Node), tuspy (Python).
//!
//! Each script in `tests/clients` is one flow. `scripts/setup test` installs the packages; without them the tests say
//! that they were skipped.

use super::server::Server;
use sha2::{Digest, Sha256};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

const FILE_BYTES: usize = 5_000_000;

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A clip that shows where bytes got lost or changed places.
fn clip() -> Vec<u8> {
    (0..FILE_BYTES).map(|n| (n * 7 + n / 253) as u8).collect()
}

/// One flow of a client against a server of its own. The script prints the upload's address; before it, it may ask for
/// a kill of the server and for a new start.
fn run(program: &Path, script: &str, arguments: &[&str]) {
    let mut server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clip.mp4");
    std::fs::write(&file, clip()).unwrap();
    let mut client = Command::new(program)
        .arg(clients().join(script))
        .args([&format!("{}/uploads/", server.url()), &server.key])
        .arg(&file)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = converse(&mut client, &mut server);
    let mut errors = String::new();
    client.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(client.wait().unwrap().success(), "{script} {arguments:?}: {errors}");
    let path = address.strip_prefix(&server.url()).unwrap_or_else(|| panic!("{script}: {address:?}"));
    check(&server, path, &format!("{script} {arguments:?}"));
}

/// Does what the script asks for; the last line that it prints.
fn converse(client: &mut Child, server: &mut Server) -> String {
    let mut input = client.stdin.take().unwrap();
    let mut last = String::new();
    for line in BufReader::new(client.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        match last.as_str() {
            "kill" => server.kill(),
            "start" => server.restart(),
            _ => continue,
        }
        // The script may have failed meanwhile; its exit status tells.
        let _ = writeln!(input, "done");
    }
    last
}

/// What arrived is what was sent, and nothing else became an asset.
fn check(server: &Server, path: &str, what: &str) {
    let digest = Sha256::digest(clip());
    let arrived = server.bare("GET", path).with("Authorization", &format!("Bearer {}", server.key)).send(b"");
    assert_eq!(arrived.status, 200, "{what}: {arrived:?}");
    assert_eq!(Sha256::digest(&arrived.body), digest, "{what}");
    assert_eq!(std::fs::read_dir(server.data.join("sources")).unwrap().count(), 1, "{what}");
}

/// Two at a time: each waits for its server as often as for itself.
fn run_all(program: &Path, flows: &[(&str, &[&str])]) {
    thread::scope(|scope| {
        for half in [0, 1] {
            scope.spawn(move || {
                for (script, arguments) in flows.iter().skip(half).step_by(2) {
                    run(program, script, arguments);
                }
            });
        }
    });
}

fn node_has(package: &str) -> bool {
    let there = clients().join("node_modules").join(package).is_dir();
    if !there {
        eprintln!("SKIPPED: {package} is not installed; run scripts/setup test");
    }
    there
}

const TUS_JS: &[&str] =
    &["whole", "chunks", "resume", "killed", "parallel", "previous", "lost", "deferred", "terminate"];
/// Pieces that are joined are of tus only.
const TUS_JS_IETF: &[&str] = &["whole", "chunks", "resume", "killed", "deferred", "terminate"];

fn tus_js(version: &str, flows: &[&str], protocol: Option<&str>) {
    if !node_has(&format!("tus-js-client-{version}")) {
        return;
    }
    let scripts: Vec<String> = flows.iter().map(|flow| format!("tus-js-{flow}.mjs")).collect();
    let arguments: Vec<&str> = std::iter::once(version).chain(protocol).collect();
    let flows: Vec<_> = scripts.iter().map(|script| (script.as_str(), arguments.as_slice())).collect();
    run_all(Path::new("node"), &flows);
}

#[test]
fn tus_js_client_4_does_all_it_can() {
    tus_js("4", TUS_JS, None);
}

#[test]
fn tus_js_client_5_does_all_it_can() {
    tus_js("5", TUS_JS, None);
}

#[test]
fn tus_js_client_4_speaks_the_ietf_drafts() {
    tus_js("4", TUS_JS_IETF, Some("ietf-draft-03"));
    tus_js("4", TUS_JS_IETF, Some("ietf-draft-05"));
}

#[test]
fn tus_js_client_5_speaks_the_ietf_drafts() {
    tus_js("5", TUS_JS_IETF, Some("ietf-draft-03"));
    tus_js("5", TUS_JS_IETF, Some("ietf-draft-05"));
}

#[test]
fn uppy_uploads_pauses_and_resumes() {
    if node_has("@uppy/tus") {
        run_all(
            Path::new("node"),
            &[("uppy-whole.mjs", &[]), ("uppy-resume.mjs", &[]), ("uppy-parallel.mjs", &[])],
        );
    }
}

#[test]
fn tuspy_uploads_with_checksums_and_resumes() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    let installed = Command::new(&python).args(["-c", "import tusclient"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: tuspy is not installed; run scripts/setup test");
        return;
    }
    run_all(&python, &[("tuspy_whole.py", &[]), ("tuspy_chunks.py", &[]), ("tuspy_resume.py", &[])]);
}
