//! What lies in `deploy/`: judged by schemas of other people, and the keys that it makes taken by a real server. No
//! container engine is needed; what that leaves out is told in deploy/README.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, path::Path, process::Command};
use support::{Server, root, skipped};

fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("it starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
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

    let server = Server::start_with(&data, &["--workers", "0"]);
    let read = |token: &str| {
        let answer = ureq::get(format!("{}/v1/assets", server.url))
            .header("Authorization", format!("Bearer {}", token.trim()))
            .config()
            .http_status_as_error(false)
            .build()
            .call();
        answer.unwrap().status().as_u16()
    };
    assert_eq!(read(&key), 200);
    drop(server);
    let bytes = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    for name in names {
        assert_eq!(bytes(&made.join("secrets"), name), bytes(&data, name), "{name} was not made anew");
    }
}
