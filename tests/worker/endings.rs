//! How a worker ends: drained, at once, or refused.

use crate::{
    fleet::Fleet,
    support::{PATIENCE, fixture, wait_for},
};

#[test]
fn a_worker_that_is_told_to_end_gives_back_what_it_cannot_finish() {
    let fleet = Fleet::start(&[]);
    let mut worker = fleet.worker("one", &["--drain-seconds", "1"]);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    fleet.encoding(&asset, &worker);
    worker.signal("-TERM");
    assert_eq!(worker.ended().code(), Some(0), "{}", worker.log());
    let job = fleet.job(&asset, "encode");
    // Long before its lease, and with nothing counted against it.
    assert_eq!(job["state"], "ready", "{job}\n{}", worker.log());
    assert_eq!((job["failed_count"].as_u64(), job["lost_count"].as_u64()), (Some(0), Some(0)), "{job}");
    assert_eq!(fleet.admin("GET", "/v1/workers").1["items"][0]["state"], "ended");
}

#[test]
fn a_second_signal_gives_everything_back_at_once() {
    let fleet = Fleet::start(&[]);
    let mut worker = fleet.worker("one", &["--drain-seconds", "3600"]);
    let asset = fleet.upload(&fixture("bbb-720p-20s.mp4"));
    fleet.encoding(&asset, &worker);
    worker.signal("-TERM");
    wait_for("the first signal to be taken", PATIENCE, || worker.log().contains("draining").then_some(()));
    worker.signal("-TERM");
    assert_eq!(worker.ended().code(), Some(130), "{}", worker.log());
    assert_eq!(fleet.job(&asset, "encode")["state"], "ready", "{}", worker.log());
}

#[test]
fn a_token_that_is_no_workers_ends_the_worker_and_says_what_to_do() {
    let fleet = Fleet::start(&[]);
    for token in ["reelyard_nobody", fleet.admin_key()] {
        let mut worker = fleet.worker_with_token("refused", token, &[]);
        assert_eq!(worker.ended().code(), Some(3), "{}", worker.log());
        let log = worker.log();
        assert!(log.contains("reelyard keys add --label NAME --scopes worker"), "{log}");
        assert!(!log.contains(token), "no secret in the log: {log}");
    }
}
