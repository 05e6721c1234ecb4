//! The resources of the API, and their description.

use super::{Bench, request, root};
use axum::body::Body;
use futures::StreamExt;
use http_body_util::BodyExt;
use reelyard_model::work::TaskKind;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tower::ServiceExt;

#[tokio::test]
async fn an_asset_tells_its_story() {
    let bench = Bench::open().await;
    let asset = bench.upload("a film.mp4").await;
    let waiting = bench.get(&format!("/v1/assets/{asset}")).await.json();
    assert_eq!((&waiting["state"], &waiting["title"]), (&"waiting".into(), &"a film".into()), "{waiting:#}");
    assert_eq!((&waiting["playback"], &waiting["media"]), (&Value::Null, &Value::Null));
    assert_eq!(waiting["progress"]["stages"][0]["kind"], "probe");

    let id = bench.plan().await;
    let processing = bench.get(&format!("/v1/assets/{asset}")).await.json();
    assert_eq!(processing["state"], "processing");
    assert_eq!(processing["media"]["audio"]["codec"], "mp3");
    assert_eq!(processing["playback"]["watch"], format!("http://localhost:8080/watch/{id}"));
    assert!(processing["playback"]["hls"].is_null(), "nothing plays yet: {processing:#}");
    assert_eq!(bench.get(&format!("/v1/assets/{asset}/plan")).await.json()["preset"], "web-h264");
}

#[tokio::test]
async fn a_ready_asset_has_links_that_work() {
    let bench = Bench::open().await;
    let (asset, id) = bench.publish().await;
    let ready = bench.get(&format!("/v1/assets/{asset}")).await.json();
    assert_eq!(
        (&ready["state"], &ready["progress"]["fraction"]),
        (&"ready".into(), &1.0.into()),
        "{ready:#}"
    );
    let hls = ready["playback"]["hls"].as_str().unwrap();
    let path = hls.strip_prefix("http://localhost:8080").expect("absolute, on the host that was asked");
    assert_eq!(bench.get(path).await.status, 200);
    let again = bench.get(&format!("/v1/assets/{asset}")).await.json();
    assert_eq!(again["playback"]["hls"], hls, "asking twice gives the same address");

    let json = [("content-type", "application/json")];
    let links = format!("/v1/assets/{asset}/links");
    let answer = bench.send(request("POST", &links, &json, Body::from("{\"ttl_seconds\":600}"))).await.json();
    assert_eq!(answer["watch"], format!("http://localhost:8080/watch/{id}"));
    let path = answer["dash"].as_str().unwrap().strip_prefix("http://localhost:8080").unwrap();
    assert_eq!(bench.get(path).await.status, 200);
}

#[tokio::test]
async fn lists_are_pages_and_filters_are_checked() {
    let bench = Bench::open().await;
    for number in 0..5 {
        bench.upload(&format!("film {number}.mp4")).await;
    }
    let mut titles = Vec::new();
    let mut path = "/v1/assets?limit=2".to_owned();
    loop {
        let page = bench.get(&path).await.json();
        titles.extend(
            page["items"].as_array().unwrap().iter().map(|asset| asset["title"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/assets?limit=2&cursor={cursor}");
    }
    assert_eq!(titles, ["film 4", "film 3", "film 2", "film 1", "film 0"]);
    let ready = bench.get("/v1/assets?state=ready,failed").await.json();
    assert_eq!(ready["items"].as_array().map(Vec::len), Some(0));
    let by_title = bench.get("/v1/assets?title=FILM%203").await.json();
    assert_eq!(by_title["items"][0]["title"], "film 3");
    for (path, problem) in [
        ("/v1/assets?state=sleeping", "bad-request"),
        ("/v1/assets?cursor=x", "bad-cursor"),
        ("/v1/assets?limit=many", "bad-request"),
        ("/v1/jobs?kind=dance", "bad-request"),
    ] {
        let answer = bench.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.problem()), (400, problem.to_owned()), "{path}");
    }
    assert_eq!(bench.get("/v1/assets/not-an-id").await.status, 404);
    assert_eq!(bench.get("/v1/jobs/019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01").await.status, 404);
}

#[tokio::test]
async fn jobs_are_cancelled_and_tried_again() {
    let bench = Bench::open().await;
    let asset = bench.upload("film.mp4").await;
    let jobs = bench.get(&format!("/v1/jobs?asset={asset}&kind=probe&state=ready")).await.json();
    let id = jobs["items"][0]["id"].as_str().unwrap().to_owned();
    let job = bench.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!(
        job["waiting_for"], "No worker that is connected takes probe tasks: start one that does",
        "{job:#}"
    );

    let cancelled = bench.call("POST", &format!("/v1/jobs/{id}/cancel"), &[]).await;
    assert_eq!(cancelled.json()["state"], "cancelled");
    assert_eq!(bench.call("POST", &format!("/v1/jobs/{id}/cancel"), &[]).await.status, 200, "twice is fine");
    let shown = bench.get(&format!("/v1/assets/{asset}")).await.json();
    assert_eq!(shown["state"], "cancelled", "an asset cannot do without its probe");

    let retried = bench.call("POST", &format!("/v1/jobs/{id}/retry"), &[]).await;
    assert_eq!(retried.json()["state"], "ready", "{}", retried.text());
    assert_eq!(bench.get(&format!("/v1/assets/{asset}")).await.json()["state"], "waiting");

    let (_, _) = bench.claim(TaskKind::Probe).await;
    let again = bench.call("POST", &format!("/v1/jobs/{id}/retry"), &[]).await;
    assert_eq!((again.status.as_u16(), again.problem()), (409, "state-conflict".into()), "it is at work");
}

/// Reads server-sent events until so many have come: (id, event, data).
async fn read_events(
    bench: &Bench,
    path: &str,
    headers: &[(&str, &str)],
    count: usize,
) -> Vec<(String, String, Value)> {
    let response = bench.router.clone().oneshot(request("GET", path, headers, Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    let mut events = Vec::new();
    while events.len() < count {
        let more =
            tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(&more.expect("the stream goes on").unwrap()).unwrap());
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            if let Ok(data) = serde_json::from_str(&field("data:")) {
                events.push((field("id:"), field("event:"), data));
            }
        }
    }
    events
}

#[tokio::test]
async fn events_resume_where_a_client_stopped_without_gap_or_repeat() {
    let bench = Bench::open().await;
    let first = bench.upload("one.mp4").await;
    let all = read_events(&bench, "/v1/events?after=0", &[], 4).await;
    let kinds: Vec<&str> = all.iter().map(|(_, kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["upload.created", "task.changed", "upload.finished", "asset.created"], "{all:#?}");

    let (last_seen, ..) = all[1].clone();
    let second = bench.upload("two.mp4").await;
    let rest = read_events(&bench, "/v1/events", &[("last-event-id", &last_seen)], 6).await;
    let ids: Vec<i64> = rest.iter().map(|(id, ..)| id.parse().unwrap()).collect();
    let expected: Vec<i64> = (last_seen.parse::<i64>().unwrap() + 1..).take(6).collect();
    assert_eq!(ids, expected);

    let of_second = read_events(&bench, &format!("/v1/events?after=0&asset={second}"), &[], 3).await;
    assert!(of_second.iter().all(|(_, _, data)| data["asset"] == second.to_string()), "{of_second:#?}");
    assert_ne!(first, second);
    let answer = bench.call("GET", "/v1/events", &[("last-event-id", "yesterday")]).await;
    assert_eq!(answer.problem(), "bad-request");
}

#[tokio::test]
async fn events_arrive_while_the_client_listens_and_the_stream_ends_with_the_server() {
    let bench = Bench::open().await;
    let response =
        bench.router.clone().oneshot(request("GET", "/v1/events", &[], Body::empty())).await.unwrap();
    let asset = bench.upload("film.mp4").await;
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("asset.created") {
        let more =
            tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(&more.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains(&asset.to_string()));
    bench.app.shutdown.cancel();
    let rest = tokio::time::timeout(Duration::from_secs(10), StreamExt::collect::<Vec<_>>(stream)).await;
    assert!(rest.is_ok(), "the stream ends when the server stops");
}

#[tokio::test]
async fn a_job_promises_another_try_only_while_there_is_one() {
    let bench = Bench::open().await;
    bench.upload("film.mp4").await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let (task, attempt) = bench.claim(TaskKind::Probe).await;
        let failure = reelyard_model::Failure::new(reelyard_model::FailureCode::Internal, "for the test");
        let now_ms = bench.app.now_ms();
        let failed = reelyard_catalog::FailedTask { task, attempt, failure, random: 0, now_ms };
        bench.app.catalog.fail_task(failed).await.unwrap();
        let job = bench.get(&format!("/v1/jobs/{task}")).await.json();
        let message = job["failure"]["message"].as_str().unwrap().to_owned();
        told.push((job["state"].as_str().unwrap().to_owned(), message.contains("be tried again")));
        bench.app.catalog.end_back_offs(i64::MAX).await.unwrap();
    }
    let waiting = ("retry_wait".to_owned(), true);
    assert_eq!(told, [waiting.clone(), waiting, ("dead".to_owned(), false)]);
}

/// Another process, or a commit that is announced after a later one.
#[tokio::test]
async fn a_stored_event_that_was_not_announced_is_read_from_the_table() {
    let bench = Bench::open().await;
    let response =
        bench.router.clone().oneshot(request("GET", "/v1/events", &[], Body::empty())).await.unwrap();
    let other = reelyard_catalog::Catalog::open(&bench.app.data_dir.join("catalog.sqlite")).await.unwrap();
    let upload = reelyard_model::UploadId::from_uuid(uuid::Uuid::now_v7());
    let silent = reelyard_catalog::NewUpload {
        id: upload,
        tenant: reelyard_model::TenantId::DEFAULT,
        kind: reelyard_model::UploadKind::Whole,
        completion: reelyard_model::Completion::Length,
        partials: Vec::new(),
        concat_header: None,
        expected_sha256: None,
        byte_len: None,
        file_name: None,
        metadata: String::new(),
        preset: "web-h264".into(),
        priority: 0,
        traceparent: String::new(),
        now_ms: 1,
        expires_ms: i64::MAX,
    };
    other.create_upload(silent).await.unwrap();
    let asset = bench.upload("loud.mp4").await;
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.contains("asset.created") {
        let frame =
            tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(frame.unwrap().unwrap().data_ref().unwrap()).unwrap());
    }
    let first = text.find(&upload.to_string()).expect("the silent one is told too");
    assert!(first < text.find(&asset.to_string()).unwrap(), "{text}");
}

#[tokio::test]
async fn a_client_that_asks_for_removed_events_is_told() {
    let bench = Bench::open().await;
    bench.upload("one.mp4").await;
    let newest = *bench.app.catalog.last_event().borrow();
    assert!(bench.app.catalog.prune_events(i64::MAX).await.unwrap() > 0);
    let told = read_events(&bench, "/v1/events", &[("last-event-id", "1")], 2).await;
    let (id, kind, data) = &told[0];
    assert_eq!((id.as_str(), kind.as_str()), ("", "events.removed"), "{told:#?}");
    assert_eq!((&data["data"]["after"], &data["data"]["oldest"]), (&1.into(), &newest.into()));
    assert_eq!(told[1].0, newest.to_string());

    let last_seen = (newest - 1).to_string();
    let rest = read_events(&bench, "/v1/events", &[("last-event-id", &last_seen)], 1).await;
    assert_eq!(rest[0].0, newest.to_string(), "nothing after that number is missing");
}

#[tokio::test]
async fn many_may_ask_at_a_time_whether_it_is_ready() {
    let bench = Arc::new(Bench::open().await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let bench = bench.clone();
        asking.spawn(async move { bench.get("/readyz").await.status.as_u16() });
    }
    assert!(asking.join_all().await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn a_reader_that_falls_behind_the_queue_misses_nothing() {
    let bench = Bench::open().await;
    let response =
        bench.router.clone().oneshot(request("GET", "/v1/events?after=0", &[], Body::empty())).await.unwrap();
    let mut body = response.into_body();
    // More than the queue of the catalogue holds (1024), with nobody reading: four events an upload.
    for number in 0..300 {
        bench.upload(&format!("{number}.mp4")).await;
    }
    let newest = *bench.app.catalog.last_event().borrow();
    let mut text = String::new();
    while !text.contains(&format!("id: {newest}\n")) {
        let frame =
            tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(frame.unwrap().unwrap().data_ref().unwrap()).unwrap());
    }
    let ids: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, (1..=newest).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_description_is_complete_and_consistent() {
    let bench = Bench::open().await;
    let answer = bench.get("/openapi.json").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{}", document["openapi"]);

    // Every reference leads somewhere.
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("references stay inside the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            assert!(operation["tags"].is_array(), "{place} has no tag");
            let name = operation["operationId"].as_str().expect("an operation id").to_owned();
            assert!(names.insert(name), "{place} shares its operation id");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("default"), "{place} does not say how it refuses");
            assert!(responses.keys().any(|code| code.starts_with('2')), "{place} never works");
            for place_in_path in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                let known = operation["parameters"].as_array().into_iter().flatten();
                assert!(
                    known.clone().any(|one| one["in"] == "path" && one["name"] == place_in_path),
                    "{place} does not describe {place_in_path}"
                );
            }
        }
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// Routes stand in the source as `.route("..."`; each is described, or is one of those that are no API.
#[tokio::test]
async fn every_route_is_described() {
    const NO_API: [&str; 7] = [
        "/",
        "/docs",
        "/openapi.json",
        "/favicon.ico",
        "/console/{file}",
        "/problems/{slug}",
        "/watch/{playback_id}",
    ];
    let bench = Bench::open().await;
    let document = bench.get("/openapi.json").await.json();
    let described: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut routes = BTreeSet::new();
    for entry in walkdir::WalkDir::new(root().join("src/http")).into_iter().filter_map(Result::ok) {
        if entry.path().extension().is_none_or(|extension| extension != "rs")
            || entry.path().to_string_lossy().contains("/tests/")
        {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        routes.extend(
            text.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
        );
    }
    assert!(routes.contains("/uploads"), "the search finds routes: {routes:?}");
    for route in routes {
        let plain = if route.len() > 1 { route.trim_end_matches('/') } else { &route }.replace("{*", "{");
        assert!(
            described.contains(plain.as_str()) || NO_API.contains(&plain.as_str()),
            "{route} is not in /openapi.json; there are {described:?}"
        );
    }
}
