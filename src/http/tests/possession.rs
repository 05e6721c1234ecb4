//! Uploads without a body: shown, not sent.

use super::{Answer, Bench, KEY, request, somebody};
use axum::body::Body;
use reelyard_catalog::{NewApiKey, Scope, Scopes};
use reelyard_model::{AssetId, TenantId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

async fn post(bench: &Bench, path: &str, key: &str, body: Value) -> Answer {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    bench.send(request("POST", path, &headers, Body::from(body.to_string()))).await
}

/// Sends it as a client of tus does; its asset.
async fn send(bench: &Bench, bytes: &[u8]) -> AssetId {
    let (authorization, length) = (format!("Bearer {KEY}"), bytes.len().to_string());
    let headers = [
        ("authorization", authorization.as_str()),
        ("tus-resumable", "1.0.0"),
        ("upload-length", length.as_str()),
        ("content-length", length.as_str()),
        ("content-type", "application/offset+octet-stream"),
    ];
    let answer = bench.send(request("POST", "/uploads", &headers, Body::from(bytes.to_vec()))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.header("reelyard-asset").parse().unwrap()
}

async fn ask(bench: &Bench, key: &str, bytes: &[u8]) -> Answer {
    let claim = json!({
        "length": bytes.len(), "sha256": hex::encode(Sha256::digest(bytes)), "filename": "again.mp4",
    });
    post(bench, "/uploads/possession", key, claim).await
}

/// As a client computes it from its own file.
fn proof(question: &Value, bytes: &[u8]) -> Value {
    let mut hash = Sha256::new_with_prefix(hex::decode(question["nonce"].as_str().unwrap()).unwrap());
    for range in question["ranges"].as_array().unwrap() {
        let number = |name: &str| usize::try_from(range[name].as_u64().unwrap()).unwrap();
        hash.update(&bytes[number("offset")..][..number("length")]);
    }
    json!({ "proof": hex::encode(hash.finalize()) })
}

fn address(question: &Value) -> String {
    format!("/uploads/possession/{}", question["challenge"].as_str().unwrap())
}

/// 3 MiB in which no two pieces are the same.
fn film() -> Vec<u8> {
    (0_u32..3 << 18).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
}

async fn other_tenant(bench: &Bench, key: &str) {
    let tenant = TenantId::from_uuid(Uuid::now_v7());
    bench.app.catalog.add_tenant(tenant, "another", 0).await.unwrap();
    let new = NewApiKey {
        id: Uuid::now_v7(),
        tenant,
        label: "theirs",
        key_sha256: &hex::encode(Sha256::digest(key)),
        scopes: Scopes::of(&[Scope::Admin]),
        now_ms: 0,
    };
    bench.app.catalog.add_api_key(new, &somebody()).await.unwrap();
}

#[tokio::test]
async fn whoever_shows_that_he_has_the_bytes_need_not_send_them() {
    let bench = Bench::with_keys().await;
    let bytes = film();
    let first = send(&bench, &bytes).await;

    let question = ask(&bench, KEY, &bytes).await;
    assert_eq!(question.status, 200, "{}", question.text());
    let question = question.json();
    assert_eq!(question["ranges"].as_array().unwrap().len(), 64);
    let answer = post(&bench, &address(&question), KEY, proof(&question, &bytes)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let asset: AssetId = answer.header("reelyard-asset").parse().unwrap();
    assert_ne!(asset, first);
    let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
    assert_eq!((row.content_of, row.title.as_str()), (Some(first), "again"));

    // The upload is one like any other, and its bytes can be had back.
    let location = answer.header("location").to_owned();
    let authorization = format!("Bearer {KEY}");
    let headers = [("authorization", authorization.as_str()), ("tus-resumable", "1.0.0")];
    let head = bench.call("HEAD", &location, &headers).await;
    assert_eq!((head.status.as_u16(), head.header("upload-offset")), (200, bytes.len().to_string().as_str()));
    assert_eq!(head.header("reelyard-asset"), asset.to_string());
    assert_eq!(bench.call("GET", &location, &headers).await.body, bytes);

    // An answer that was lost can be asked for again, and makes nothing new.
    let again = post(&bench, &address(&question), KEY, proof(&question, &bytes)).await;
    assert_eq!((again.status.as_u16(), again.header("reelyard-asset")), (201, asset.to_string().as_str()));
    let other = post(&bench, &address(&question), KEY, json!({ "proof": "00".repeat(32) })).await;
    assert_eq!(other.problem(), "not-found", "no second answer");
}

#[tokio::test]
async fn a_small_file_is_asked_for_whole() {
    let bench = Bench::with_keys().await;
    let first = send(&bench, b"a short film").await;
    let question = ask(&bench, KEY, b"a short film").await.json();
    assert_eq!(question["ranges"], json!([{ "offset": 0, "length": 12 }]));
    let answer = post(&bench, &address(&question), KEY, proof(&question, b"a short film")).await;
    assert_eq!(answer.status, 201);
    let asset: AssetId = answer.header("reelyard-asset").parse().unwrap();
    assert_eq!(bench.app.catalog.asset(asset).await.unwrap().unwrap().content_of, Some(first));
}

#[tokio::test]
async fn a_wrong_answer_is_the_last_one() {
    let bench = Bench::with_keys().await;
    let bytes = film();
    send(&bench, &bytes).await;
    let question = ask(&bench, KEY, &bytes).await.json();
    // The first half and zeros.
    let mut half = bytes.clone();
    half[bytes.len() / 2..].fill(0);
    let wrong = post(&bench, &address(&question), KEY, proof(&question, &half)).await;
    assert_eq!((wrong.status.as_u16(), wrong.problem().as_str()), (403, "possession-not-shown"));
    let late = post(&bench, &address(&question), KEY, proof(&question, &bytes)).await;
    assert_eq!((late.status.as_u16(), late.problem().as_str()), (404, "not-found"));
    let next = ask(&bench, KEY, &bytes).await.json();
    assert_ne!(next["nonce"], question["nonce"]);
    assert_ne!(next["ranges"], question["ranges"]);
}

#[tokio::test]
async fn asking_until_the_places_fit_ends_soon() {
    let bench = Bench::with_keys().await;
    let bytes = film();
    send(&bench, &bytes).await;
    for _ in 0..4 {
        assert_eq!(ask(&bench, KEY, &bytes).await.status, 200);
    }
    assert_eq!(ask(&bench, KEY, &bytes).await.problem(), "content-not-here");
    send(&bench, b"another film").await;
    assert_eq!(ask(&bench, KEY, b"another film").await.status, 200, "of this one nobody asked");
    // Right answers do not count.
    for _ in 0..6 {
        let question = ask(&bench, KEY, b"another film").await;
        assert_eq!(question.status, 200);
        let question = question.json();
        let answer = post(&bench, &address(&question), KEY, proof(&question, b"another film")).await;
        assert_eq!(answer.status, 201);
    }
}

#[tokio::test]
async fn what_another_tenant_has_is_not_there() {
    let bench = Bench::with_keys().await;
    let bytes = film();
    send(&bench, &bytes).await;
    other_tenant(&bench, "their-key").await;
    let (theirs, nobodys) =
        (ask(&bench, "their-key", &bytes).await, ask(&bench, "their-key", b"never seen").await);
    assert_eq!(theirs.status, 404);
    let words = |answer: &Answer| (answer.json()["type"].clone(), answer.json()["detail"].clone());
    assert_eq!(words(&theirs), words(&nobodys), "word for word the same");

    let question = ask(&bench, KEY, &bytes).await.json();
    let stolen = post(&bench, &address(&question), "their-key", proof(&question, &bytes)).await;
    assert_eq!((stolen.status.as_u16(), stolen.problem().as_str()), (404, "not-found"));
    let answer = post(&bench, &address(&question), KEY, proof(&question, &bytes)).await;
    assert_eq!(answer.status, 201, "and it is not burnt by that");
}

#[tokio::test]
async fn what_was_deleted_has_to_be_sent() {
    let bench = Bench::with_keys().await;
    let bytes = film();
    let asset = send(&bench, &bytes).await;
    let question = ask(&bench, KEY, &bytes).await.json();
    bench.app.catalog.delete_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    assert_eq!(ask(&bench, KEY, &bytes).await.problem(), "content-not-here");
    let answer = post(&bench, &address(&question), KEY, proof(&question, &bytes)).await;
    assert_eq!(answer.problem(), "content-not-here");
}

#[tokio::test]
async fn an_answer_has_its_time() {
    let bench = Bench::with_keys().await;
    send(&bench, b"a short film").await;
    let question = ask(&bench, KEY, b"a short film").await.json();
    let id = question["challenge"].as_str().unwrap().parse().unwrap();
    let digest = hex::encode(Sha256::digest(KEY));
    let key = bench.app.catalog.live_api_key(&digest).await.unwrap().unwrap().key.id.parse().unwrap();
    let row = bench.app.catalog.possession(id, TenantId::DEFAULT, Some(key)).await.unwrap().unwrap();
    assert!((50_000..=70_000).contains(&(row.expires_ms - row.created_ms)));
    assert!(!bench.app.catalog.take_possession_answer(id, row.expires_ms + 1).await.unwrap());
    assert!(bench.app.catalog.take_possession_answer(id, row.expires_ms).await.unwrap());
    assert!(!bench.app.catalog.take_possession_answer(id, row.expires_ms).await.unwrap(), "once");
}

#[tokio::test]
async fn bad_questions_and_answers_are_told_what_is_wrong() {
    let bench = Bench::with_keys().await;
    let cases = [
        (json!({ "length": 12 }), "sha256"),
        (json!({ "length": 12, "sha256": "abc" }), "sha256"),
        (json!({ "sha256": "00".repeat(32) }), "length"),
    ];
    for (body, named) in cases {
        let answer = post(&bench, "/uploads/possession", KEY, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().to_lowercase().contains(named), "{}", answer.text());
    }
    let nothing = format!("/uploads/possession/{}", Uuid::now_v7());
    let answer = post(&bench, &nothing, KEY, json!({ "proof": "00".repeat(32) })).await;
    assert_eq!(answer.problem(), "not-found");
    assert_eq!(post(&bench, &nothing, KEY, json!({ "proof": "zz" })).await.problem(), "bad-request");
    assert_eq!(ask(&bench, "no such key", b"x").await.status, 401);
    assert_eq!(bench.call("GET", "/uploads/possession", &[]).await.status, 405);
}
