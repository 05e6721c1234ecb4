//! What operators do over the API: queues, dead letters, renditions, tiers, and the log of all of it.

use super::{Answer, Bench, KEY, request, somebody};
use axum::body::Body;
use reelyard_catalog::{FailedTask, NewApiKey, NewWorker, Scope, Scopes};
use reelyard_model::{Failure, FailureCode, TaskId, TenantId, WorkerId, work::TaskKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// With this key, and a JSON body where there is one.
async fn call(bench: &Bench, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let key = format!("Bearer {key}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    bench.send(request(method, path, &headers, body)).await
}

async fn get(bench: &Bench, path: &str) -> Value {
    let answer = call(bench, KEY, "GET", path, None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// A key that may do this and no more.
async fn key_for(bench: &Bench, key: &str, tenant: TenantId, scopes: &[Scope]) {
    let stored = NewApiKey {
        id: Uuid::now_v7(),
        tenant,
        label: "of the tests",
        key_sha256: &hex::encode(Sha256::digest(key)),
        scopes: Scopes::of(scopes),
        now_ms: 0,
    };
    bench.app.catalog.add_api_key(stored, &somebody()).await.unwrap();
}

async fn machine(bench: &Bench) {
    let new = NewWorker {
        id: WorkerId::from_uuid(Uuid::now_v7()),
        name: "machine".into(),
        node: None,
        version: "1".into(),
        machine: json!({ "cores": 4, "heavy_slots": 1, "light_slots": 1 }),
        now_ms: bench.app.now_ms(),
    };
    bench.app.catalog.register_worker(&new).await.unwrap();
}

async fn fail(bench: &Bench, claimed: (TaskId, u32), code: FailureCode) {
    let failure =
        Failure { code, detail: "decoder said no".into(), stderr_tail: "line one\nline two".into() };
    let (task, attempt) = claimed;
    let failed = FailedTask { task, attempt, failure, random: 0, now_ms: bench.app.now_ms() };
    bench.app.catalog.fail_task(failed).await.unwrap();
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed_and_the_log_says_by_whom_and_why() {
    let bench = Bench::with_keys().await;
    machine(&bench).await;
    let asset = bench.upload("film.mp4").await;
    let jobs = get(&bench, &format!("/v1/jobs?asset={asset}")).await;
    let sentence = &jobs["items"][0]["waiting_for"];
    assert_eq!(sentence, "Waits for a free worker: it is the next of the normal probe tasks");

    let why = json!({ "reason": "disk\nfull" });
    let paused = call(&bench, KEY, "POST", "/v1/queues/probe/pause", Some(why)).await.json();
    assert_eq!(paused["paused"]["reason"], "disk full", "{paused:#}");
    let by = paused["paused"]["by"].as_str().unwrap();
    assert!(by.starts_with("key \"test\" ("), "{by}");
    let again = call(&bench, KEY, "POST", "/v1/queues/probe/pause", None).await.json();
    assert_eq!(again["paused"], paused["paused"], "the first pause counts");

    let list = get(&bench, "/v1/queues").await;
    let probe = &list["items"].as_array().unwrap().iter().find(|queue| queue["kind"] == "probe").unwrap();
    assert_eq!((&probe["waiting"]["normal"], &probe["workers"]), (&json!(1), &json!(1)), "{list:#}");
    assert!(probe["oldest_wait_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0));
    assert_eq!((&list["broker"], &probe["tickets"]), (&json!("none"), &Value::Null));
    let job = get(&bench, &format!("/v1/jobs?asset={asset}")).await["items"][0].clone();
    let sentence = job["waiting_for"].as_str().unwrap();
    assert!(sentence.starts_with("Its queue was paused by key \"test\""), "{sentence}");
    assert!(sentence.ends_with("resume it with `reelyard queues resume probe`"), "{sentence}");

    let resumed = call(&bench, KEY, "POST", "/v1/queues/probe/resume", None).await.json();
    assert_eq!(resumed["paused"], Value::Null);
    let unknown = call(&bench, KEY, "POST", "/v1/queues/dance/pause", None).await;
    assert_eq!((unknown.status.as_u16(), unknown.problem()), (404, "not-found".into()));
    let log = get(&bench, "/v1/audit?subject=probe").await;
    let told: Vec<_> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["action"].as_str().unwrap(), line["reason"].as_str()))
        .collect();
    assert_eq!(told, [("queue.resumed", None), ("queue.paused", Some("disk full"))], "{log:#}");
    let first = get(&bench, "/v1/audit?limit=1").await;
    let before = first["next_before"].as_i64().unwrap();
    let second = get(&bench, &format!("/v1/audit?limit=1&before={before}")).await;
    assert_eq!(second["items"][0]["action"], "queue.paused");
    let before = second["next_before"].as_i64().unwrap();
    let last = get(&bench, &format!("/v1/audit?limit=1&before={before}")).await;
    assert_eq!((&last["items"][0]["action"], &last["next_before"]), (&json!("key.added"), &Value::Null));
}

#[tokio::test]
async fn the_log_shows_a_tenant_its_lines_and_the_fleets() {
    let bench = Bench::with_keys().await;
    let other = TenantId::from_uuid(Uuid::now_v7());
    bench.app.catalog.add_tenant(other, "other", 0).await.unwrap();
    key_for(&bench, "theirs", other, &[Scope::Admin]).await;
    let asset = bench.upload("film.mp4").await;
    call(&bench, KEY, "POST", &format!("/v1/assets/{asset}/cancel"), Some(json!({ "reason": "wrong film" })))
        .await;
    let refused = call(&bench, "theirs", "POST", "/v1/queues/audio/pause", None).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (403, "missing-scope".into()));
    call(&bench, KEY, "POST", "/v1/queues/audio/pause", None).await;
    let actions = async |key: &str| {
        let log = call(&bench, key, "GET", "/v1/audit", None).await.json();
        let lines = log["items"].as_array().unwrap().iter();
        lines.map(|line| line["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(actions(KEY).await, ["queue.paused", "asset.cancelled", "key.added", "key.added"]);
    assert_eq!(actions("theirs").await, ["queue.paused", "key.added"], "with that of its own key");
}

#[tokio::test]
async fn a_reason_is_optional_and_nonsense_is_refused() {
    let bench = Bench::with_keys().await;
    for body in [json!({ "why": "x" }), json!({ "reason": "x".repeat(501) }), json!([1])] {
        let answer = call(&bench, KEY, "POST", "/v1/queues/audio/pause", Some(body.clone())).await;
        assert_eq!((answer.status.as_u16(), answer.problem()), (400, "bad-request".into()), "{body}");
    }
    assert_eq!(call(&bench, KEY, "POST", "/v1/queues/audio/pause", Some(json!({}))).await.status, 200);
    let log = get(&bench, "/v1/audit?subject=audio").await;
    assert_eq!(log["items"].as_array().map(Vec::len), Some(1), "{log:#}");
}

#[tokio::test]
async fn a_dead_letter_shows_its_evidence_and_is_replayed_once() {
    let bench = Bench::with_keys().await;
    let asset = bench.upload("film.mp4").await;
    let probe = bench.claim(TaskKind::Probe).await;
    fail(&bench, probe, FailureCode::NotMedia).await;
    let dead = get(&bench, "/v1/jobs?state=dead").await;
    let failure = &dead["items"][0]["failure"];
    assert_eq!(
        (&failure["code"], &failure["stderr_tail"]),
        (&json!("not_media"), &json!("line one\nline two"))
    );
    let job = get(&bench, &format!("/v1/jobs/{}", probe.0)).await;
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
    assert_eq!(
        (&job["attempts"][0]["outcome"], &job["attempts"][0]["attempt"]),
        (&json!("failed"), &json!(1))
    );
    assert_eq!(job["waiting_for"], Value::Null, "it was given up");

    let replay = async |body: Value| call(&bench, KEY, "POST", "/v1/jobs/replay", Some(body)).await;
    for wrong in [
        json!({ "codes": ["bad_luck"] }),
        json!({ "kinds": ["dance"] }),
        json!({ "since": "yesterday" }),
        json!({ "code": "not_media" }),
    ] {
        let answer = replay(wrong.clone()).await;
        assert_eq!(answer.status.as_u16() / 100, 4, "{wrong}: {}", answer.text());
    }
    let filter = json!({ "codes": ["not_media"], "kinds": ["probe"], "asset": asset, "since": "2020-01-01T00:00:00Z" });
    let mut dry = filter.clone();
    dry["dry_run"] = json!(true);
    let would = replay(dry).await.json();
    assert_eq!((&would["count"], &would["jobs"][0]), (&json!(1), &json!(probe.0)), "{would:#}");
    assert_eq!(
        get(&bench, "/v1/jobs?state=dead").await["items"].as_array().map(Vec::len),
        Some(1),
        "only asked"
    );
    assert_eq!(replay(filter.clone()).await.json()["count"], 1);
    assert_eq!(replay(filter).await.json()["count"], 0, "safe to repeat");
    assert_eq!(get(&bench, &format!("/v1/jobs/{}", probe.0)).await["state"], "ready");
    let log = get(&bench, &format!("/v1/audit?subject={}", probe.0)).await;
    assert_eq!(log["items"][0]["data"]["failure"], "not_media", "{log:#}");
}

#[tokio::test]
async fn one_rendition_is_tried_again() {
    let bench = Bench::with_keys().await;
    let asset = bench.upload("film.mp4").await;
    bench.plan().await;
    let path = format!("/v1/assets/{asset}/renditions/audio/retry");
    let early = call(&bench, KEY, "POST", &path, None).await;
    assert_eq!((early.status.as_u16(), early.problem()), (409, "state-conflict".into()));
    let sound = bench.claim(TaskKind::Audio).await;
    fail(&bench, sound, FailureCode::UnsupportedCodec).await;
    assert_eq!(get(&bench, &format!("/v1/assets/{asset}")).await["state"], "failed");
    let back = call(&bench, KEY, "POST", &path, Some(json!({ "reason": "new decoder" }))).await;
    assert_eq!((back.status.as_u16(), &back.json()["state"]), (200, &json!("processing")), "{}", back.text());
    let unknown = format!("/v1/assets/{asset}/renditions/9000p/retry");
    assert_eq!(call(&bench, KEY, "POST", &unknown, None).await.status, 404);
    assert_eq!(
        get(&bench, &format!("/v1/audit?subject={asset}")).await["items"][0]["action"],
        "rendition.remade"
    );
}

#[tokio::test]
async fn an_upload_names_its_tier_and_urgent_takes_an_admin() {
    let bench = Bench::with_keys().await;
    key_for(&bench, "sender", TenantId::DEFAULT, &[Scope::UploadsWrite]).await;
    let begin = async |key: &str, tier: &str| {
        let body = json!({ "length": 4, "filename": "film.mp4", "tier": tier });
        call(&bench, key, "POST", "/uploads/parts", Some(body)).await
    };
    let refused = begin("sender", "urgent").await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (403, "missing-scope".into()));
    let unknown = begin("sender", "soon").await;
    assert_eq!(unknown.problem(), "bad-request");
    assert_eq!(unknown.json()["detail"], "There is no tier \"soon\"; there are urgent, normal, bulk.");
    for (key, tier, priority) in [("sender", "bulk", -100), ("sender", "normal", 0), (KEY, "urgent", 100)] {
        let begun = begin(key, tier).await;
        assert_eq!(begun.status, 201, "{tier}: {}", begun.text());
        let id = begun.header("x-upload-id").parse().unwrap();
        assert_eq!(bench.app.catalog.upload(id).await.unwrap().unwrap().priority, priority, "{tier}");
    }
    // By tus: `tier` is a key of its metadata.
    let key = format!("Bearer {KEY}");
    let headers = [
        ("authorization", key.as_str()),
        ("tus-resumable", "1.0.0"),
        ("upload-length", "4"),
        ("content-length", "4"),
        ("upload-metadata", "tier dXJnZW50"),
        ("content-type", "application/offset+octet-stream"),
    ];
    let sent = bench.send(request("POST", "/uploads", &headers, Body::from("abcd"))).await;
    let asset = sent.header("reelyard-asset").to_owned();
    let jobs = get(&bench, &format!("/v1/jobs?asset={asset}")).await;
    assert_eq!(jobs["items"][0]["tier"], "urgent", "{jobs:#}");
    let metrics = call(&bench, KEY, "GET", "/metrics", None).await.text();
    for name in [
        "reelyard_ready_tasks{kind=\"probe\",tier=\"urgent\"}",
        "reelyard_oldest_ready_task_seconds{kind=\"probe\"}",
        "reelyard_outbox_tickets",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}
