//! A worker that sleeps through its lease harms nobody when it wakes.

use crate::{
    fleet::{Fleet, short_clip},
    support::{PATIENCE, wait_for},
};

/// The winner's heartbeats come every third of it, beside children that hold every core; the sleeper waits for all of it.
const LEASE_SECONDS: &str = "10";

#[test]
fn a_worker_that_slept_through_its_lease_cannot_touch_the_winners_files() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clip) = short_clip(folder.path(), 6) else { return };
    let fleet = Fleet::start(&["--lease-seconds", LEASE_SECONDS]);
    let sleeper = fleet.worker("sleeper", &[]);
    let asset = fleet.upload(&clip);
    let job = fleet.encoding(&asset, &sleeper);
    assert_eq!(job["attempt"], 1);
    sleeper.signal("-STOP");
    let winner = fleet.worker("winner", &[]);
    let settled = fleet.settled(&asset);
    assert_eq!(settled["state"], "ready", "{settled}\n{}", winner.log());
    let job = fleet.job(&asset, "encode");
    assert_eq!(job["state"], "done");
    assert!(job["attempt"].as_u64().unwrap() > 1 && job["lost_count"].as_u64().unwrap() > 0, "{job}");
    let published = fleet.files("publications");
    assert!(published.iter().any(|(path, _, _)| path.ends_with("master.m3u8")));

    sleeper.signal("-CONT");
    wait_for("the sleeper to hear that it lost", PATIENCE, || sleeper.log().contains("Lost").then_some(()));
    wait_for("its child's end", PATIENCE, || sleeper.children().is_empty().then_some(()));
    assert_eq!(fleet.files("publications"), published, "not a byte of the winner's was touched");
    assert_eq!(fleet.asset(&asset)["state"], "ready");
    assert_eq!(fleet.job(&asset, "encode")["attempt"], job["attempt"]);
}
