//! The same bytes again, against the real server: kept once, had back by everybody who sent them, gone with the last.

use super::{server::Server, wire::Answer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    time::{Duration, Instant},
};

/// The sweep comes when it is called; this is for a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than what is asked for whole.
fn film() -> Vec<u8> {
    (0_u32..1 << 19).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
}

/// In one request: its address and its asset.
fn send(server: &Server, bytes: &[u8]) -> (String, String) {
    let answer = server
        .tus("POST", "/uploads")
        .with("Upload-Length", &bytes.len().to_string())
        .with("Content-Type", "application/offset+octet-stream")
        .send(bytes);
    assert_eq!(answer.status, 201, "{answer:?}");
    (answer.header("location").unwrap().to_owned(), answer.header("reelyard-asset").unwrap().to_owned())
}

fn post(server: &Server, path: &str, body: &Value) -> Answer {
    server.tus("POST", path).send(body.to_string().as_bytes())
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn sources(server: &Server) -> usize {
    fs::read_dir(server.data.join("sources")).unwrap().count()
}

fn delete(server: &Server, asset: &str) {
    assert_eq!(server.tus("DELETE", &format!("/v1/assets/{asset}")).send(b"").status, 204);
}

fn jobs(server: &Server) -> usize {
    json_of(&server.tus("GET", "/v1/jobs").send(b""))["items"].as_array().unwrap().len()
}

fn proof(question: &Value, bytes: &[u8]) -> Value {
    let mut hash = Sha256::new_with_prefix(hex::decode(question["nonce"].as_str().unwrap()).unwrap());
    for range in question["ranges"].as_array().unwrap() {
        let number = |name: &str| usize::try_from(range[name].as_u64().unwrap()).unwrap();
        hash.update(&bytes[number("offset")..][..number("length")]);
    }
    json!({ "proof": hex::encode(hash.finalize()) })
}

#[test]
fn the_same_bytes_are_kept_once_and_go_with_the_last_asset() {
    let mut server = Server::start();
    let bytes = film();
    let (one, first) = send(&server, &bytes);
    let (two, second) = send(&server, &bytes);
    assert_ne!(first, second);
    assert_eq!((sources(&server), jobs(&server)), (1, 1), "one copy, one thing to do");

    server.kill();
    server.restart();
    let (three, third) = send(&server, &bytes);
    // The address of the upload goes, then its asset; the bytes came with it and stay for the others.
    assert_eq!(server.tus("DELETE", &one).send(b"").status, 204);
    delete(&server, &first);
    assert_eq!(jobs(&server), 1, "the work is for the others now");
    assert_eq!(server.tus("GET", &one).send(b"").status, 410);
    for upload in [&two, &three] {
        assert_eq!(server.tus("GET", upload).send(b"").body, bytes);
    }
    let shown = json_of(&server.tus("GET", &format!("/v1/assets/{third}")).send(b""));
    assert_eq!(
        (shown["state"].as_str(), shown["progress"]["stages"][0]["kind"].as_str()),
        (Some("waiting"), Some("probe"))
    );

    delete(&server, &third);
    delete(&server, &second);
    let began = Instant::now();
    while sources(&server) > 0 {
        assert!(began.elapsed() < PATIENCE, "nobody needs the source, and it is still there");
        std::thread::yield_now();
    }
}

#[test]
fn whoever_has_the_bytes_shows_it_and_sends_nothing() {
    let mut server = Server::start();
    let bytes = film();
    let claim =
        json!({ "length": bytes.len(), "sha256": hex::encode(Sha256::digest(&bytes)), "title": "Again" });
    let unknown = post(&server, "/uploads/possession", &claim);
    assert_eq!(
        (unknown.status, unknown.problem()["type"].as_str()),
        (404, Some("/problems/content-not-here"))
    );

    send(&server, &bytes);
    let question = json_of(&post(&server, "/uploads/possession", &claim));
    // Another process takes the answer: the question is in the catalogue.
    server.kill();
    server.restart();
    let path = format!("/uploads/possession/{}", question["challenge"].as_str().unwrap());
    let answer = post(&server, &path, &proof(&question, &bytes));
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(answer.header("repr-digest").unwrap().starts_with("sha-256=:"));
    let (upload, asset) = (answer.header("location").unwrap(), answer.header("reelyard-asset").unwrap());
    assert_eq!(server.offset(upload), bytes.len());
    assert_eq!(server.tus("GET", upload).send(b"").body, bytes);
    let shown = json_of(&server.tus("GET", &format!("/v1/assets/{asset}")).send(b""));
    assert_eq!(
        (shown["title"].as_str(), shown["byte_len"].as_u64()),
        (Some("Again"), Some(bytes.len() as u64))
    );
    assert_eq!((sources(&server), jobs(&server)), (1, 1));

    let wrong = json_of(&post(&server, "/uploads/possession", &claim));
    let path = format!("/uploads/possession/{}", wrong["challenge"].as_str().unwrap());
    // The answer to another question.
    let refused = post(&server, &path, &proof(&question, &bytes));
    assert_eq!(
        (refused.status, refused.problem()["type"].as_str()),
        (403, Some("/problems/possession-not-shown"))
    );
    assert_eq!(post(&server, &path, &proof(&wrong, &bytes)).status, 404, "there was one answer to give");
}
