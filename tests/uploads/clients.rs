//! The published clients' own flows, unmodified: tus-js-client (Node) and tuspy (Python).
//!
//! Their packages are installed by `scripts/setup test`; without them the tests say that they were skipped.

use super::server::Server;
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a client's script with the server's address, the key and a file; it prints the upload's address.
fn run(server: &Server, program: &Path, script: &str, byte_len: usize) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clip.mp4");
    let bytes: Vec<u8> = (0..byte_len).map(|n| (n * 7 + n / 253) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let output = Command::new(program)
        .arg(clients().join(script))
        .args([&format!("{}/uploads/", server.url()), &server.key])
        .arg(&file)
        .output()
        .unwrap();
    let shown =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {shown}");
    let address = String::from_utf8(output.stdout).unwrap();
    let path = address.trim().strip_prefix(&server.url()).unwrap_or_else(|| panic!("{shown}")).to_owned();
    let head = server.tus("HEAD", &path).send(b"");
    assert_eq!(head.number("upload-offset"), byte_len, "{shown}");
    let stored =
        std::fs::read(server.data.join("sources").join(head.header("reelyard-asset").unwrap())).unwrap();
    assert_eq!(Sha256::digest(&stored), Sha256::digest(&bytes));
}

#[test]
fn tus_js_client_uploads_in_chunks_pauses_and_resumes() {
    if !clients().join("node_modules/tus-js-client").is_dir() {
        eprintln!("SKIPPED: tus-js-client is not installed; run scripts/setup test");
        return;
    }
    let server = Server::start();
    for script in ["tus-js-whole.mjs", "tus-js-chunks.mjs", "tus-js-resume.mjs", "tus-js-terminate.mjs"] {
        run(&server, Path::new("node"), script, 5_000_000);
    }
}

#[test]
fn tuspy_uploads_in_chunks_with_checksums() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    let installed = Command::new(&python).args(["-c", "import tusclient"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: tuspy is not installed; run scripts/setup test");
        return;
    }
    let server = Server::start();
    for script in ["tuspy_chunks.py", "tuspy_resume.py"] {
        run(&server, &python, script, 5_000_000);
    }
}
