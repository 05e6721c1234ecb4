//! Workers that reach the store themselves, and workers that a broker wakes.

use crate::{
    fleet::{Fleet, SOON, short_clip},
    support::{PATIENCE, skipped, wait_for},
};
use reelyard_model::{Tier, work::TaskKind};
use reelyard_testkit::{ACCESS_KEY_ID, Kind, RabbitServer, S3Server, SECRET_ACCESS_KEY};
use reelyard_tickets::{RabbitSettings, RabbitTickets, Ticket, Tickets};

#[test]
fn a_worker_reads_and_writes_the_store_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clip) = short_clip(folder.path(), 4) else { return };
    let Some(store) = S3Server::start(Kind::SeaweedFs) else { return };
    let url = S3Server::url(&store.endpoint(), "fleet");
    let variables = [("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)];
    let fleet = Fleet::start_in(&["--storage-url", &url], &variables);
    let worker = fleet.worker("one", &["--storage-url", &url]);
    // The file that says that it is ready is there before the line that says how it gets at the bytes.
    wait_for("its word", SOON, || worker.log().contains("in the store").then_some(()));
    let asset = fleet.upload(&clip);
    assert_eq!(fleet.settled(&asset)["state"], "ready", "{}", worker.log());
    let asked = std::fs::read_to_string(fleet.data.with_extension("log")).unwrap();
    assert!(
        !asked.contains("/source") && !asked.contains("/output"),
        "no byte went through the server: {asked}"
    );
    for top in ["renditions", "publications", "sources"] {
        assert_eq!(fleet.files(top), [], "{top}");
    }
}

/// The tickets are issued by the test, over and over, as a server's sweeper would.
#[test]
fn a_worker_that_a_broker_wakes_uses_its_tickets_up() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clip) = short_clip(folder.path(), 2) else { return };
    let Some(broker) = RabbitServer::start() else { return skipped("no RabbitMQ") };
    let fleet = Fleet::start(&[]);
    let worker = fleet.worker("one", &["--tickets-url", &broker.url()]);
    let asset = fleet.upload(&clip);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tickets = runtime.block_on(async { RabbitTickets::new(RabbitSettings::new(broker.url())).unwrap() });
    let issue = || {
        let all = [TaskKind::Probe, TaskKind::Encode, TaskKind::Audio, TaskKind::Stills]
            .map(|class| Ticket { task: None, class, tier: Tier::Normal, traceparent: String::new() });
        runtime.block_on(tickets.issue(&all))
    };
    wait_for("the asset to be ready", PATIENCE, || {
        assert!(issue().iter().all(Result::is_ok));
        (fleet.asset(&asset)["state"] == "ready").then_some(())
    });
    wait_for("all tickets to be used up", SOON, || {
        let depth = runtime.block_on(tickets.depth()).unwrap();
        depth.iter().all(|queue| queue.waiting == 0).then_some(())
    });
    assert!(!worker.log().contains("ERROR"), "{}", worker.log());
}
