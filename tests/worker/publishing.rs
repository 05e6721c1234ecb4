//! What a fleet of two machines without a store makes.

use crate::{
    fleet::{Fleet, Worker, short_clip},
    support::{PATIENCE, fixture, wait_for},
};
use std::time::{Duration, Instant};

/// A heartbeat every 100 s: what a worker hears in between, its stream told it.
const LONG_LEASES: [&str; 2] = ["--lease-seconds", "300"];
/// Far below the next heartbeat; far above what an order takes where the children hold every core.
const BY_STREAM: Duration = Duration::from_secs(30);

#[test]
fn a_video_is_published_by_two_workers_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clip) = short_clip(folder.path(), 6) else { return };
    let fleet = Fleet::start(&[]);
    let workers = [fleet.worker("first", &[]), fleet.worker("second", &[])];
    let (status, known) = fleet.admin("GET", "/v1/workers");
    assert_eq!(status, 200);
    let names: Vec<_> = known["items"].as_array().unwrap().iter().map(|one| one["name"].as_str()).collect();
    assert_eq!(names, [Some("second"), Some("first")]);

    let asset = fleet.upload(&clip);
    let settled = fleet.settled(&asset);
    let logs = workers.each_ref().map(crate::fleet::Worker::log);
    assert_eq!(settled["state"], "ready", "{settled}\n{logs:#?}");
    let job = fleet.job(&asset, "encode");
    assert_eq!((job["attempt"].as_u64(), job["lost_count"].as_u64()), (Some(1), Some(0)), "{job}");
    assert!(fleet.files("publications").iter().any(|(path, _, _)| path.ends_with("master.m3u8")));
    assert!(logs.iter().any(|log| log.contains("task completed")), "{logs:#?}");
}

#[test]
fn a_cancelled_job_ends_its_child_long_before_the_next_heartbeat() {
    let fleet = Fleet::start(&LONG_LEASES);
    let worker = fleet.worker("one", &[]);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    fleet.encoding(&asset, &worker);
    let (status, answer) = fleet.admin("POST", &format!("/v1/assets/{asset}/cancel"));
    assert_eq!(status, 200, "{answer}");
    ends_by_the_stream(&worker);
}

/// The log tells an end by an order from one that a child came to by itself: the work was broken off.
fn ends_by_the_stream(worker: &Worker) {
    let cancelled_at = Instant::now();
    wait_for("the child's end", PATIENCE, || worker.children().is_empty().then_some(()));
    let took = cancelled_at.elapsed();
    assert!(took < BY_STREAM, "it took {took:?}\n{}", worker.log());
    let broken_off = "task broken off verdict=Cancelled";
    wait_for("its word", PATIENCE, || worker.log().contains(broken_off).then_some(()));
}

#[test]
fn a_cancel_is_told_by_the_stream_again_when_the_server_was_restarted() {
    let mut fleet = Fleet::start(&LONG_LEASES);
    let worker = fleet.worker("one", &[]);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    fleet.encoding(&asset, &worker);
    fleet.kill_server();
    fleet.restart_server();
    wait_for("the worker to open its stream anew", PATIENCE, || {
        fleet.metric("reelyard_worker_streams_opened_total").filter(|opened| *opened >= 1.0)
    });
    assert!(!worker.children().is_empty(), "it is still at work: {}", worker.log());
    assert_eq!(fleet.admin("POST", &format!("/v1/assets/{asset}/cancel")).0, 200);
    ends_by_the_stream(&worker);
}

#[test]
fn a_drained_worker_takes_nothing_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clip) = short_clip(folder.path(), 2) else { return };
    let fleet = Fleet::start(&[]);
    let worker = fleet.worker("one", &[]);
    let (_, known) = fleet.admin("GET", "/v1/workers");
    let id = known["items"][0]["id"].as_str().unwrap();
    let (status, drained) = fleet.admin("POST", &format!("/v1/workers/{id}/drain"));
    assert_eq!((status, drained["state"].as_str()), (200, Some("draining")));
    let asset = fleet.upload(&clip);
    // It hears of the order by the claim that the upload wakes it for, or by its next look.
    wait_for("the worker to hear of it", PATIENCE, || worker.log().contains("drain=true").then_some(()));
    assert_eq!(fleet.job(&asset, "probe")["attempt"], 0);
    assert_eq!(fleet.admin("POST", &format!("/v1/workers/{id}/resume")).1["state"], "working");
    assert_eq!(fleet.settled(&asset)["state"], "ready", "{}", worker.log());
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_no_attempt() {
    let mut fleet = Fleet::start(&[]);
    let worker = fleet.worker("one", &[]);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    fleet.encoding(&asset, &worker);
    let child = worker.children();
    fleet.kill_server();
    wait_for("the worker to notice", PATIENCE, || worker.log().contains("WARN").then_some(()));
    assert!(worker.children().iter().any(|one| child.contains(one)), "its work goes on\n{}", worker.log());
    fleet.restart_server();
    assert_eq!(fleet.settled(&asset)["state"], "ready", "{}", worker.log());
    let job = fleet.job(&asset, "encode");
    assert_eq!((job["attempt"].as_u64(), job["lost_count"].as_u64()), (Some(1), Some(0)), "{job}");
}
