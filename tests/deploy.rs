//! What lies in `deploy/`: judged by schemas of other people, and the keys that it makes taken by a real server. No
//! container engine is needed; what that leaves out is told in deploy/README.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};
use support::{PATIENCE, root, skipped, wait_for};

fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("it starts");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn compose_balancer_and_manifests_have_no_findings() {
    let judge = root().join(".tools/deploy/bin/python");
    if !judge.exists() {
        return skipped("scripts/setup deploy has not run: deploy/ is not judged");
    }
    let said = run(Command::new(judge).arg("tests/deploy/check.py"));
    assert!(said.contains("0 findings"), "{said}");
}

#[test]
fn the_server_takes_the_keys_that_init_makes_and_makes_none_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    run(Command::new("deploy/init").arg(&made));
    let names = ["admin.key", "signing-keys.json", "upload-keys.json"];
    for name in names {
        fs::copy(made.join("secrets").join(name), data.join(name)).unwrap();
    }
    let key = fs::read_to_string(data.join("admin.key")).unwrap();

    let server = KeyedServer::start(&data);
    assert_eq!(server.status_for(key.trim()), 200);
    assert_eq!(server.status_for("reelyard_another-key-that-nobody-made-0000000000"), 401);
    drop(server);
    let bytes = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    for name in names {
        assert_eq!(bytes(&made.join("secrets"), name), bytes(&data, name), "{name} was not made anew");
    }
}

/// A server that asks for keys. Dropped, it is killed.
struct KeyedServer {
    child: Child,
    url: String,
}

impl KeyedServer {
    fn start(data: &Path) -> Self {
        let ready = data.with_extension("ready");
        let child = Command::new(env!("CARGO_BIN_EXE_reelyard"))
            .args(["serve", "--listen", "127.0.0.1:0", "--workers", "0", "--data-dir"])
            .arg(data)
            .arg("--ready-file")
            .arg(&ready)
            // The media program is looked for and not started: any program will do.
            .args(["--media-program", env!("CARGO_BIN_EXE_reelyard")])
            .stdout(Stdio::null())
            .spawn()
            .expect("reelyard starts");
        let mut server = Self { child, url: String::new() };
        server.url = wait_for("the server to be ready", PATIENCE, || {
            let ended = server.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            fs::read_to_string(&ready).ok().map(|url| url.trim().to_owned())
        });
        server
    }

    fn status_for(&self, key: &str) -> u16 {
        let asked = ureq::get(format!("{}/v1/assets", self.url))
            .header("Authorization", format!("Bearer {key}"))
            .config()
            .http_status_as_error(false)
            .build()
            .call();
        asked.expect("an answer").status().as_u16()
    }
}

impl Drop for KeyedServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
