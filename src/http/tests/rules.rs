//! What holds for every address: keys, problems, trace ids, the guard of an open server.

use super::{Bench, KEY, request, somebody};
use crate::http::problem::Kind;
use axum::body::Body;
use reelyard_catalog::{NewApiKey, Scopes};
use reelyard_model::TenantId;
use reelyard_sign::upload_token::{Use, Uses};
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

#[tokio::test]
async fn without_a_key_nothing_of_the_api_answers() {
    let bench = Bench::with_keys().await;
    for (method, path) in [
        ("GET", "/v1/assets"),
        ("GET", "/v1/assets/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01"),
        ("DELETE", "/v1/assets/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01"),
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01/cancel"),
        ("GET", "/v1/events"),
        ("GET", "/metrics"),
    ] {
        let answer = bench.call(method, path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem()),
            (401, "missing-key".into()),
            "{method} {path}"
        );
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"reelyard\"");
        let answer = bench.call(method, path, &[("authorization", "Bearer wrong")]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem()),
            (401, "unknown-key".into()),
            "{method} {path}"
        );
    }
    let key = format!("Bearer {KEY}");
    assert_eq!(bench.call("GET", "/v1/assets", &[("authorization", &key)]).await.status, 200);
    // Another host name is fine where there are keys.
    let headers = [("authorization", key.as_str()), ("host", "video.example")];
    assert_eq!(bench.call("GET", "/v1/assets", &headers).await.status, 200);
}

/// Whoever adds a route has to choose its scope.
#[tokio::test]
async fn every_described_route_of_the_api_asks_for_a_scope() {
    let bench = Bench::with_keys().await;
    let stored = NewApiKey {
        id: Uuid::now_v7(),
        tenant: TenantId::DEFAULT,
        label: "nothing",
        key_sha256: &hex::encode(Sha256::digest("a-key-for-nothing")),
        scopes: Scopes::default(),
        now_ms: 0,
    };
    bench.app.catalog.add_api_key(stored, &somebody()).await.unwrap();
    let headers = [("authorization", "Bearer a-key-for-nothing"), ("content-type", "application/json")];
    let document = bench.get("/openapi.json").await.json();
    let mut looked_at = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        // The recipes are for everybody with a key; uploads are tested with the real server.
        if path.starts_with("/v1/presets") || path.starts_with("/uploads") {
            continue;
        }
        let address = path
            .replace("{id}", "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01")
            .replace("{playback_id}", "019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01")
            .replace("{kind}", "encode")
            .replace("{name}", "480p");
        for (method, operation) in operations.as_object().unwrap() {
            if operation.get("responses").is_none() || operation.get("security").is_some() {
                continue;
            }
            let body = if address.ends_with("/links") { "{\"ttl_seconds\":60}" } else { "{}" };
            let answer =
                bench.send(request(&method.to_uppercase(), &address, &headers, Body::from(body))).await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem()),
                (403, "missing-scope".into()),
                "{method} {path}"
            );
            looked_at += 1;
        }
    }
    assert!(looked_at > 12, "{looked_at}");
    assert_eq!(bench.call("GET", "/v1/presets", &headers).await.status, 200);
}

#[tokio::test]
async fn an_upload_token_is_made_as_it_is_asked_for() {
    let bench = Bench::with_keys().await;
    let ask = async |body: &str| {
        let key = format!("Bearer {KEY}");
        let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
        bench.send(request("POST", "/v1/upload-tokens", &headers, Body::from(body.to_owned()))).await
    };
    let answer =
        ask(r#"{"ttl_seconds":60,"max_length":5,"types":["video/*"],"scope":["create","continue"]}"#).await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (201, "no-store"));
    let made = answer.json();
    let now = u64::try_from(bench.app.now_ms() / 1000).unwrap();
    let token = bench.app.upload_keys.verify(made["token"].as_str().unwrap(), now).unwrap();
    assert_eq!((token.tenant, token.max_length), (TenantId::DEFAULT, Some(5)));
    assert_eq!(token.uses, Uses::of([Use::Create, Use::Continue]));
    assert_eq!(made["jti"], token.jti.as_str());
    for (body, says) in [
        (r#"{"ttl_seconds":5}"#, "ttl_seconds"),
        (r#"{"types":["video"]}"#, "types"),
        (r#"{"max_length":0}"#, "max_length"),
        (r#"{"max_uploads":0}"#, "max_uploads"),
        (r#"{"preset":"nothing-like-it"}"#, "preset"),
        (r#"{"scope":[]}"#, "scope"),
    ] {
        let refused = ask(body).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "bad-request".into()), "{body}");
        assert_eq!(refused.json()["parameter"], says, "{body}");
    }
    let nobody_s = r#"{"upload":"019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01"}"#;
    assert_eq!(ask(nobody_s).await.status, 404);
}

#[tokio::test]
async fn health_needs_no_key() {
    let bench = Bench::with_keys().await;
    assert_eq!(bench.get("/livez").await.text(), "ok\n");
    let ready = bench.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["ready"]), (200, &true.into()), "{}", ready.text());
    bench.app.shutdown.cancel();
    let stopping = bench.get("/readyz").await;
    assert_eq!((stopping.status.as_u16(), stopping.problem()), (503, "unavailable".into()));
    assert_eq!(stopping.json()["checks"]["stopping"], "yes");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_not_ready() {
    let bench = Bench::open().await;
    std::fs::remove_dir(bench.app.data_dir.join("scratch")).unwrap();
    let answer = bench.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["checks"]["data_directory"], "failed");
    assert_eq!(answer.json()["checks"]["database"], "ok");
}

#[tokio::test]
async fn many_may_ask_at_once_whether_it_is_ready() {
    let bench = Bench::open().await;
    let answers = futures::future::join_all((0..64).map(|_| bench.get("/readyz"))).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).map(|a| a.text()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let left = std::fs::read_dir(bench.app.data_dir.join("scratch")).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().contains("ready")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let bench = Bench::open().await;
    bench.upload("film.mp4").await;
    // Events are counted beside the requests: ask until the last of this upload was.
    let asked = async {
        loop {
            let answer = bench.get("/metrics").await;
            if answer.text().contains("reelyard_events_total{kind=\"asset.created\"}") {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("events are counted");
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    for line in [
        "reelyard_assets{state=\"waiting\"} 1",
        "reelyard_jobs{kind=\"probe\",state=\"ready\"} 1",
        "reelyard_jobs{kind=\"probe\",state=\"dead\"} 0",
        "reelyard_job_moves_total{kind=\"probe\",state=\"ready\"} ",
        "# TYPE reelyard_http_requests_total counter",
        "# TYPE reelyard_oldest_ready_job_age_seconds gauge",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems() {
    let bench = Bench::open().await;
    let answer = bench.get("/nothing/here").await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (404, "not-found".into()));
    let answer = bench.call("PUT", "/v1/assets", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (405, "method-not-allowed".into()));
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn bodies_are_bounded_and_typed() {
    let bench = Bench::open().await;
    let path = "/v1/assets/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01/links";
    let json = [("content-type", "application/json")];
    let answer = bench.send(request("POST", path, &json, Body::from(vec![b' '; 1 << 20]))).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (413, "too-large".into()));
    let answer = bench.send(request("POST", path, &[], Body::from("{}"))).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (415, "wrong-media-type".into()));
    for body in ["{", "{}", "{\"ttl_seconds\":-1}", "{\"ttl_seconds\":1}"] {
        let answer = bench.send(request("POST", path, &json, Body::from(body))).await;
        assert_eq!((answer.status.as_u16(), answer.problem()), (400, "bad-request".into()), "{body}");
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_with_a_trace() {
    use crate::http::{problem, trace};
    use axum::{Router, middleware, routing::get};
    use tower::ServiceExt;
    async fn trip() -> &'static str {
        panic!("a secret of the inside")
    }
    let router = Router::new()
        .route("/trip", get(trip))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(problem::from_panic))
        .layer(middleware::from_fn(trace::layer));
    let response = router.oneshot(request("GET", "/trip", &[], Body::empty())).await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(response.headers().contains_key("traceparent"));
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("/problems/internal") && text.contains("trace_id"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn every_problem_type_explains_itself() {
    let bench = Bench::open().await;
    for kind in Kind::ALL {
        let page = bench.get(&kind.type_uri()).await;
        assert_eq!(page.status, 200);
        assert!(page.text().contains(kind.title()), "{kind:?}");
        let json = bench.call("GET", &kind.type_uri(), &[("accept", "application/json")]).await.json();
        assert_eq!(json["status"], kind.status_code());
    }
    assert_eq!(bench.get("/problems/never").await.status, 404);
}

#[tokio::test]
async fn a_trace_is_taken_up_or_begun_and_always_answered() {
    let bench = Bench::open().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = bench.call("GET", "/livez", &[("traceparent", &parent)]).await;
    assert_eq!(answer.header("x-request-id"), trace);
    assert!(answer.header("traceparent").starts_with(&format!("00-{trace}-")));
    assert_ne!(answer.header("traceparent"), parent, "the span is ours");
    let begun = bench.get("/livez").await;
    assert_eq!(begun.header("x-request-id").len(), 32);
    assert_ne!(begun.header("x-request-id"), bench.get("/livez").await.header("x-request-id"));
}

#[tokio::test]
async fn an_upload_hands_its_trace_to_the_asset() {
    let bench = Bench::open().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [
        ("tus-resumable", "1.0.0"),
        ("upload-length", "4"),
        ("content-length", "4"),
        ("content-type", "application/offset+octet-stream"),
        ("traceparent", parent.as_str()),
    ];
    let answer = bench.send(request("POST", "/uploads", &headers, Body::from("film"))).await;
    let asset = bench.get(&format!("/v1/assets/{}", answer.header("reelyard-asset"))).await.json();
    assert_eq!(asset["trace_id"], trace);
}

#[tokio::test]
async fn an_open_server_answers_only_this_machine_and_its_own_pages() {
    let bench = Bench::open().await;
    let (_, id) = bench.publish().await;
    for host in ["evil.example", "localhost.evil.example", "192.168.0.9:8080"] {
        for path in ["/v1/assets", "/", &format!("/watch/{id}")] {
            let answer = bench.call("GET", path, &[("host", host)]).await;
            assert_eq!(
                (answer.status.as_u16(), answer.problem()),
                (403, "wrong-host".into()),
                "{host} {path}"
            );
        }
    }
    let answer = bench.call("GET", "/v1/assets", &[("origin", "https://evil.example")]).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (403, "cross-site".into()));
    let answer = bench.call("GET", "/v1/assets", &[("origin", "http://localhost:8080")]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn pages_load_from_this_server_alone() {
    let bench = Bench::open().await;
    let page = bench.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("\"needs_key\":false"), "{}", page.text());
    assert_eq!(bench.get("/docs").await.status, 200);
    for file in ["style.css", "watch.js", "player.js", "operator.js", "docs.js", "icon.svg"] {
        let answer = bench.get(&format!("/console/{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(!answer.text().contains("https://"), "{file} names another server");
        let etag = answer.header("etag").to_owned();
        let again = bench.call("GET", &format!("/console/{file}"), &[("if-none-match", &etag)]).await;
        assert_eq!(again.status, 304, "{file}");
    }
    for file in ["watch.html", "..%2fpackage.json", "%2e%2e", "nothing.js"] {
        assert_eq!(bench.get(&format!("/console/{file}")).await.status, 404, "{file}");
    }
}
