//! The stream of orders of a worker: what comes on it, through whichever node, and what ends it.

use super::{Bench, Place, app, request, somebody};
use crate::{app::App, holders::Holders};
use axum::{
    Router,
    body::{Body, BodyDataStream},
};
use futures::StreamExt;
use http::StatusCode;
use reelyard_catalog::{
    Catalog, ClaimRequest, EventKind, EventRow, NewApiKey, PostgresSettings, Scope, Scopes,
};
use reelyard_model::{
    AssetId, Failure, FailureCode, TaskId, TenantId, WorkerId,
    work::{Report, TaskKind, Verdict},
};
use reelyard_storage::LocalStore;
use reelyard_testkit::PostgresServer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tower::ServiceExt;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
/// An order is there by then: before the next line that keeps its stream alive (15 s), so by itself.
const AT_ONCE: Duration = Duration::from_secs(12);
/// More events than the catalogue keeps for a listener.
const FLOOD: usize = 5_000;

struct Stream(BodyDataStream);

impl Stream {
    async fn open(router: &Router, worker: WorkerId, held: Value, key: &str) -> Self {
        let call = json!({"protocol": 1, "worker": worker, "held": held}).to_string();
        let bearer = format!("Bearer {key}");
        let headers = [("content-type", "application/json"), ("authorization", &bearer)];
        let answer = router
            .clone()
            .oneshot(request("POST", "/v1/worker/orders", &headers, Body::from(call)))
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        Self(answer.into_body().into_data_stream())
    }

    /// The next line that says something; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let piece = timeout(PATIENCE, self.0.next()).await.expect("a line in time")?.unwrap();
            let line: Value = serde_json::from_slice(piece.strip_suffix(b"\n").unwrap()).unwrap();
            if line != json!({}) {
                return Some(line);
            }
        }
    }
}

async fn hello(app: &App) -> WorkerId {
    let worker = WorkerId::from_uuid(Uuid::now_v7());
    let call = json!({"protocol": 1, "worker": worker, "name": "test", "version": "1",
        "machine": {"cores": 1, "memory_bytes": 1}});
    crate::flow::dispatch::fleet::hello(app, serde_json::from_value(call).unwrap()).await.unwrap();
    worker
}

async fn claim(app: &App, worker: WorkerId, kind: TaskKind) -> TaskId {
    let request = ClaimRequest { worker, kinds: vec![kind], lease_ms: 60_000, now_ms: app.now_ms() };
    let claimed = app.catalog.claim(&request).await.unwrap().expect("something to claim");
    assert_eq!(claimed.task.attempt, 1);
    claimed.task.id
}

async fn cancel(catalog: &Catalog, asset: AssetId) {
    catalog.cancel_asset(asset, &somebody(), jiff::Timestamp::now().as_millisecond()).await.unwrap();
}

fn over(task: TaskId, verdict: &str) -> Option<Value> {
    Some(json!({"over": {"task": task, "attempt": 1, "verdict": verdict}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_comes_for_a_task_that_was_claimed_after_the_stream_was_opened() {
    let bench = Bench::open().await;
    let (one, other) = (hello(&bench.app).await, hello(&bench.app).await);
    let mut stream = Stream::open(&bench.router, one, json!([]), "").await;
    let mut others = Stream::open(&bench.router, other, json!([]), "").await;
    for stream in [&mut stream, &mut others] {
        assert_eq!(stream.next().await, Some(json!({"drain": false})), "it is open");
    }
    let asset = bench.upload("a film.mp4").await;
    let task = claim(&bench.app, one, TaskKind::Probe).await;
    cancel(&bench.app.catalog, asset).await;
    assert_eq!(stream.next().await, over(task, "cancelled"));
    // One that is done is no order, and what ends another worker's attempt is none for this one.
    bench.upload("another film.mp4").await;
    bench.plan().await;
    let audio = claim(&bench.app, one, TaskKind::Audio).await;
    let result = json!({"kind": "encoded", "encoder": "aac", "tracks": [], "warnings": []});
    let done = serde_json::from_value::<Report>(json!({"outcome": "completed", "result": result})).unwrap();
    let verdict = crate::flow::dispatch::report(&bench.app, audio, 1, done).await.unwrap();
    assert_eq!(verdict, Verdict::Continue);
    for drain in [true, false] {
        let what = if drain { "drain" } else { "resume" };
        let answer = bench.call("POST", &format!("/v1/workers/{other}/{what}"), &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(others.next().await, Some(json!({"drain": drain})));
    }
    // Nothing in between: the next that this one hears is that its attempt failed, which is over as well.
    bench.upload("a third film.mp4").await;
    let task = claim(&bench.app, one, TaskKind::Probe).await;
    let failure = Failure::new(FailureCode::Internal, "by hand");
    crate::flow::dispatch::report(&bench.app, task, 1, Report::Failed { failure }).await.unwrap();
    assert_eq!(stream.next().await, over(task, "lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_before_the_stream_is_told_at_once_and_a_new_stream_ends_the_one_before() {
    let bench = Bench::open().await;
    let worker = hello(&bench.app).await;
    let asset = bench.upload("a film.mp4").await;
    let task = claim(&bench.app, worker, TaskKind::Probe).await;
    let held = json!([{"task": task, "attempt": 1}, {"task": Uuid::now_v7(), "attempt": 1}]);
    let mut first = Stream::open(&bench.router, worker, held.clone(), "").await;
    assert_eq!(first.next().await, Some(json!({"drain": false})));
    let of_nobody = first.next().await.unwrap();
    assert_eq!(of_nobody["over"]["verdict"], "lost", "{of_nobody}");
    cancel(&bench.app.catalog, asset).await;
    assert_eq!(first.next().await, over(task, "cancelled"));
    let mut second = Stream::open(&bench.router, worker, held, "").await;
    assert_eq!(first.next().await, None, "a worker has one stream");
    assert_eq!(second.next().await, Some(json!({"drain": false})));
    assert_eq!(second.next().await, over(task, "cancelled"), "in the order of what is in hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_key_is_revoked_and_when_the_server_stops() {
    let bench = Bench::with_keys().await;
    let mut ids = Vec::new();
    for key in ["the first", "the second"] {
        let id = Uuid::now_v7();
        let new = NewApiKey {
            id,
            tenant: TenantId::DEFAULT,
            label: key,
            key_sha256: &hex::encode(Sha256::digest(key)),
            scopes: Scopes::of(&[Scope::Worker]),
            now_ms: 0,
        };
        bench.app.catalog.add_api_key(new, &somebody()).await.unwrap();
        ids.push(id);
    }
    let workers = [hello(&bench.app).await, hello(&bench.app).await];
    let mut first = Stream::open(&bench.router, workers[0], json!([]), "the first").await;
    let mut second = Stream::open(&bench.router, workers[1], json!([]), "the second").await;
    for stream in [&mut first, &mut second] {
        assert_eq!(stream.next().await, Some(json!({"drain": false})));
    }
    assert!(bench.app.catalog.revoke_api_key(ids[0], &somebody(), bench.app.now_ms()).await.unwrap());
    assert_eq!(first.next().await, None, "whoever holds a revoked key hears nothing");
    // The other one goes on, until there is no server any more.
    let asset = bench.upload("a film.mp4").await;
    let task = claim(&bench.app, workers[1], TaskKind::Probe).await;
    cancel(&bench.app.catalog, asset).await;
    assert_eq!(second.next().await, over(task, "cancelled"));
    bench.app.shutdown.cancel();
    assert_eq!(second.next().await, None);
}

/// On one thread, so that the listener has no turn before it is too late.
#[tokio::test]
async fn a_listener_that_missed_events_ends_the_streams_and_the_next_one_tells_what_went_by() {
    let bench = Bench::open().await;
    let worker = hello(&bench.app).await;
    let asset = bench.upload("a film.mp4").await;
    let task = claim(&bench.app, worker, TaskKind::Probe).await;
    let mut stream = Stream::open(&bench.router, worker, json!([]), "").await;
    assert_eq!(stream.next().await, Some(json!({"drain": false})));
    // One of those that are missed: what is stored by another handle on these rows is not heard here.
    let elsewhere = Catalog::open(&bench.app.data_dir.join("catalog.sqlite")).await.unwrap();
    cancel(&elsewhere, asset).await;
    for _ in 0..FLOOD {
        bench.app.catalog.announce(EventRow {
            seq: 0,
            at_ms: 0,
            tenant: TenantId::DEFAULT,
            kind: EventKind::TASK_PROGRESS.0.to_owned(),
            upload: None,
            asset: None,
            task: None,
            data: json!({}),
        });
    }
    assert_eq!(stream.next().await, None, "it cannot say that it told everything");
    let held = json!([{"task": task, "attempt": 1}]);
    let mut stream = Stream::open(&bench.router, worker, held, "").await;
    assert_eq!(stream.next().await, Some(json!({"drain": false})));
    assert_eq!(stream.next().await, over(task, "cancelled"));
}

async fn node(name: &str, folder: &Path, url: &str) -> (Router, Arc<App>) {
    let own = folder.join(name);
    std::fs::create_dir(&own).unwrap();
    let catalog = Catalog::connect(url, &PostgresSettings::default()).await.unwrap();
    let store = LocalStore::open(&own).await.unwrap();
    let (uploads, objects) = (Arc::new(store.clone()), Arc::new(store));
    let place = Place { uploads, objects, holders: Holders::alone(), in_pieces: false };
    let app = app(&own, catalog, place, true).await;
    (crate::http::router(app.clone()), app)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_through_another_node_than_the_claim_comes_by_the_stream_at_a_third() {
    let Some(server) = PostgresServer::start_without_fsync() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.new_database());
    let (streaming, its_app) = node("streaming", folder.path(), &url).await;
    let (claiming, claiming_app) = node("claiming", folder.path(), &url).await;
    let (cancelling, cancelling_app) = node("cancelling", folder.path(), &url).await;
    let worker = hello(&claiming_app).await;
    let mut stream = Stream::open(&streaming, worker, json!([]), "").await;
    assert_eq!(stream.next().await, Some(json!({"drain": false})));
    let headers = [
        ("tus-resumable", "1.0.0"),
        ("upload-length", "4"),
        ("content-length", "4"),
        ("content-type", "application/offset+octet-stream"),
    ];
    let answer = super::send(&claiming, request("POST", "/uploads", &headers, Body::from("film"))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let task = claim(&claiming_app, worker, TaskKind::Probe).await;
    let cancelled_at = Instant::now();
    let path = format!("/v1/assets/{}/cancel", answer.header("reelyard-asset"));
    assert_eq!(super::send(&cancelling, request("POST", &path, &[], Body::empty())).await.status, 200);
    assert_eq!(stream.next().await, over(task, "cancelled"));
    let took = cancelled_at.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    // And an operator's word.
    let path = format!("/v1/workers/{worker}/drain");
    assert_eq!(super::send(&cancelling, request("POST", &path, &[], Body::empty())).await.status, 200);
    assert_eq!(stream.next().await, Some(json!({"drain": true})));
    for app in [its_app, claiming_app, cancelling_app] {
        app.shutdown.cancel();
    }
}
