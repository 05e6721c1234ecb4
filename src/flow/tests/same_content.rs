//! The same bytes twice: nothing is processed again, and nothing goes that somebody still needs.

use super::bench::{Bench, SOURCE, somebody};
use crate::flow::{
    publish,
    receive::{self, Whole},
    sweep,
};
use reelyard_agent::control::ControlPlane;
use reelyard_model::{
    AssetId, AssetState, Failure, FailureCode, PublicationState,
    work::{Report, TaskKind},
};
use reelyard_storage::source_key;

/// Does all work that there is, whoever it is for; what `refuses` names fails for good.
async fn work(bench: &Bench, asset: AssetId, refuses: Option<TaskKind>) -> usize {
    let mut grants = 0;
    while let Some(grant) = bench.grant(asset).await {
        grants += 1;
        let report = if refuses == Some(grant.kind) {
            Report::Failed { failure: Failure::new(FailureCode::NothingDecodes, "for the test") }
        } else {
            Report::Completed { result: bench.child.answer(bench, &grant).await }
        };
        bench.control.report(grant.task, grant.attempt, report).await.unwrap();
    }
    while publish::publish_next(&bench.app).await.unwrap() {}
    grants
}

async fn state(bench: &Bench, asset: AssetId) -> AssetState {
    bench.app.catalog.asset(asset).await.unwrap().unwrap().state
}

/// Its playlist can be read.
async fn plays(bench: &Bench, asset: AssetId) -> bool {
    let publication = bench.app.catalog.publication(asset).await.unwrap().unwrap();
    let (PublicationState::Live, Some(prefix)) = (publication.state, publication.prefix) else {
        return false;
    };
    bench.app.store.read(&format!("{prefix}/master.m3u8")).await.is_ok()
}

async fn delete(bench: &Bench, asset: AssetId) {
    bench.app.catalog.delete_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    sweep::files(&bench.app).await;
}

fn nothing_is_left(bench: &Bench) {
    for top in ["sources", "renditions", "publications", "uploads"] {
        assert!(bench.files(top).is_empty(), "{top}: {:?}", bench.files(top));
    }
}

async fn events(bench: &Bench, asset: AssetId) -> Vec<String> {
    let mut events = bench.app.catalog.events_of_asset(asset, 100).await.unwrap();
    events.sort_by_key(|event| event.seq);
    events.into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn the_second_upload_of_a_ready_video_is_ready_at_once_and_without_work() {
    let bench = Bench::new().await;
    let first = bench.asset().await;
    work(&bench, first, None).await;
    sweep::files(&bench.app).await;
    let files = (bench.files("sources"), bench.files("publications"));

    let second = bench.asset().await;
    assert_ne!(first, second);
    assert_eq!(state(&bench, second).await, AssetState::Ready);
    assert_eq!(work(&bench, second, None).await, 0, "nobody has anything to do");
    assert!(bench.app.catalog.tasks_of_asset(second).await.unwrap().is_empty());
    assert_eq!(events(&bench, second).await, ["upload.finished", "asset.created", "asset.ready"]);

    let catalog = &bench.app.catalog;
    let (one, two) =
        (catalog.asset(first).await.unwrap().unwrap(), catalog.asset(second).await.unwrap().unwrap());
    assert_ne!(one.playback_id.unwrap(), two.playback_id.unwrap(), "each has an address of its own");
    assert_eq!(two.source_key, one.source_key);
    assert_eq!(two.media_info, one.media_info);
    assert!(two.ready_ms.is_some());
    assert_eq!(catalog.plan(second).await.unwrap(), catalog.plan(first).await.unwrap());
    assert_eq!(catalog.media_info(second).await.unwrap(), catalog.media_info(first).await.unwrap());
    assert_eq!(
        catalog.renditions(second).await.unwrap().len(),
        catalog.renditions(first).await.unwrap().len()
    );
    assert!(!catalog.renditions(second).await.unwrap().is_empty());
    assert!(plays(&bench, second).await);

    sweep::files(&bench.app).await;
    assert_eq!((bench.files("sources"), bench.files("publications")), files, "not a byte is kept twice");
}

#[tokio::test]
async fn a_second_upload_of_a_video_at_work_is_ready_with_it() {
    let bench = Bench::new().await;
    let first = bench.asset().await;
    let waiting = bench.asset().await;
    let probe = bench.grant(first).await.unwrap();
    let result = bench.child.answer(&bench, &probe).await;
    bench.control.report(probe.task, probe.attempt, Report::Completed { result }).await.unwrap();
    let planned = bench.asset().await;
    for asset in [first, waiting, planned] {
        assert_eq!(state(&bench, asset).await, AssetState::Processing);
    }
    assert_eq!(bench.files("sources").len(), 1);
    work(&bench, first, None).await;
    for asset in [first, waiting, planned] {
        assert_eq!(state(&bench, asset).await, AssetState::Ready);
        assert!(plays(&bench, asset).await);
        let ready = events(&bench, asset).await.iter().filter(|kind| *kind == "asset.ready").count();
        assert_eq!(ready, 1);
    }
    assert!(bench.app.catalog.asset(planned).await.unwrap().unwrap().media_info.is_some());
}

#[tokio::test]
async fn what_fails_fails_for_all_and_is_tried_again_for_all() {
    for retried_by_the_second in [false, true] {
        let bench = Bench::new().await;
        let (first, second) = (bench.asset().await, bench.asset().await);
        work(&bench, first, Some(TaskKind::Encode)).await;
        for asset in [first, second] {
            let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
            assert_eq!(
                (row.state, row.failure.unwrap().code),
                (AssetState::Failed, FailureCode::NothingDecodes)
            );
        }
        sweep::files(&bench.app).await;
        assert_eq!(bench.files("sources").len(), 1, "another try needs the source");

        let asked = if retried_by_the_second { second } else { first };
        bench.app.catalog.retry_asset(asked, &somebody(), bench.app.now_ms()).await.unwrap();
        work(&bench, first, None).await;
        for asset in [first, second] {
            assert_eq!(state(&bench, asset).await, AssetState::Ready);
            assert!(plays(&bench, asset).await);
        }
    }
}

#[tokio::test]
async fn a_failed_video_is_processed_anew_when_it_is_uploaded_again() {
    let bench = Bench::new().await;
    let first = bench.asset().await;
    work(&bench, first, Some(TaskKind::Probe)).await;
    assert_eq!(state(&bench, first).await, AssetState::Failed);
    let second = bench.asset().await;
    assert!(work(&bench, second, None).await > 0);
    assert_eq!(state(&bench, second).await, AssetState::Ready);
    assert_eq!(state(&bench, first).await, AssetState::Failed);
    delete(&bench, first).await;
    assert!(plays(&bench, second).await);
}

#[tokio::test]
async fn files_stay_until_the_last_asset_that_uses_them_is_deleted() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let bench = Bench::new().await;
        let first = bench.asset().await;
        work(&bench, first, None).await;
        let assets = [first, bench.asset().await, bench.asset().await];
        for (gone, &which) in order.iter().enumerate() {
            for &left in &order[gone..] {
                assert!(plays(&bench, assets[left]).await, "{order:?}: {left} after {gone} deletions");
                assert!(bench.app.catalog.plan(assets[left]).await.unwrap().is_some());
            }
            delete(&bench, assets[which]).await;
            assert!(!plays(&bench, assets[which]).await, "a deleted one is off the air at once");
        }
        nothing_is_left(&bench);
    }
}

#[tokio::test]
async fn work_goes_on_for_whoever_still_waits() {
    for deleted in [true, false] {
        let bench = Bench::new().await;
        let (first, second) = (bench.asset().await, bench.asset().await);
        let probe = bench.grant(first).await.unwrap();
        let result = bench.child.answer(&bench, &probe).await;
        if deleted {
            delete(&bench, first).await;
        } else {
            bench.app.catalog.cancel_asset(first, &somebody(), bench.app.now_ms()).await.unwrap();
            sweep::files(&bench.app).await;
        }
        bench.control.report(probe.task, probe.attempt, Report::Completed { result }).await.unwrap();
        work(&bench, first, None).await;
        assert_eq!(state(&bench, second).await, AssetState::Ready);
        sweep::files(&bench.app).await;
        assert!(plays(&bench, second).await);
        if deleted {
            assert_eq!(state(&bench, first).await, AssetState::Deleted);
        } else {
            assert_eq!(state(&bench, first).await, AssetState::Cancelled);
            bench.app.catalog.retry_asset(first, &somebody(), bench.app.now_ms()).await.unwrap();
            assert_eq!(state(&bench, first).await, AssetState::Ready, "all is there already");
            assert!(plays(&bench, first).await);
            delete(&bench, first).await;
        }
        assert!(plays(&bench, second).await);
        delete(&bench, second).await;
        nothing_is_left(&bench);
    }
}

#[tokio::test]
async fn work_stops_when_nobody_waits_any_more() {
    let bench = Bench::new().await;
    let (first, second) = (bench.asset().await, bench.asset().await);
    bench.app.catalog.cancel_asset(second, &somebody(), bench.app.now_ms()).await.unwrap();
    bench.app.catalog.cancel_asset(first, &somebody(), bench.app.now_ms()).await.unwrap();
    assert_eq!(work(&bench, first, None).await, 0);
    // Either may ask for another try, and gets it for itself.
    bench.app.catalog.retry_asset(second, &somebody(), bench.app.now_ms()).await.unwrap();
    work(&bench, first, None).await;
    assert_eq!(
        (state(&bench, first).await, state(&bench, second).await),
        (AssetState::Cancelled, AssetState::Ready)
    );
    assert!(plays(&bench, second).await);
}

#[tokio::test]
async fn a_job_that_is_cancelled_is_cancelled_for_all_and_tried_again_for_all() {
    let bench = Bench::new().await;
    let (first, second) = (bench.asset().await, bench.asset().await);
    let probe = bench.app.catalog.tasks_of_asset(first).await.unwrap()[0].id;
    bench.app.catalog.cancel_task(probe, &somebody(), bench.app.now_ms()).await.unwrap();
    for asset in [first, second] {
        assert_eq!(state(&bench, asset).await, AssetState::Cancelled);
    }
    bench.app.catalog.retry_task(probe, &somebody(), bench.app.now_ms()).await.unwrap();
    work(&bench, first, None).await;
    for asset in [first, second] {
        assert_eq!(state(&bench, asset).await, AssetState::Ready);
    }
}

#[tokio::test]
async fn other_bytes_and_other_presets_are_processed_for_themselves() {
    let bench = Bench::new().await;
    let first = bench.asset().await;
    work(&bench, first, None).await;
    let other_bytes = bench.asset_of(b"a film, as far as anybody here looks at it").await;
    assert_eq!(state(&bench, other_bytes).await, AssetState::Waiting);
    let other_preset = bench.app.presets.names().find(|name| *name != "web-h264").map(str::to_owned);
    if let Some(other_preset) = other_preset {
        let (upload, transfer) = bench.upload_with(SOURCE, Some(other_preset), None).await;
        let asset = receive::finish(&bench.app, upload, &Whole::of(&transfer).unwrap()).await.unwrap();
        assert_eq!(state(&bench, asset).await, AssetState::Waiting);
        assert_eq!(bench.app.catalog.tasks_of_asset(asset).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn two_tenants_never_share() {
    let bench = Bench::new().await;
    let first = bench.asset().await;
    work(&bench, first, None).await;
    let stranger = bench.other_tenant().await;
    let (upload, transfer) = bench.upload_with(SOURCE, None, Some(stranger)).await;
    let asset = receive::finish(&bench.app, upload, &Whole::of(&transfer).unwrap()).await.unwrap();
    let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
    assert_eq!((row.state, row.content_of, row.tenant), (AssetState::Waiting, None, stranger));
    assert_eq!(row.source_key, source_key(upload));
    assert_eq!(bench.files("sources").len(), 2, "each keeps its own bytes");
}

#[tokio::test]
async fn a_crash_anywhere_while_the_second_upload_ends_is_healed() {
    for crash_after in
        ["the last byte", "the row says finishing", "the rename", "the transaction", "everything"]
    {
        let bench = Bench::new().await;
        let first = bench.asset().await;
        work(&bench, first, None).await;
        let (upload, transfer) = bench.upload_bytes(SOURCE).await;
        let whole = Whole::of(&transfer).unwrap();
        if crash_after != "the last byte" {
            let now_ms = bench.app.now_ms();
            bench.app.catalog.upload_finishing_or_finished(upload, whole.byte_len, now_ms).await.unwrap();
        }
        if matches!(crash_after, "the rename" | "the transaction") {
            bench.app.uploads.finish_upload(upload, whole.byte_len).await.unwrap();
        }
        if crash_after == "the transaction" {
            let row = bench.app.catalog.upload(upload).await.unwrap().unwrap();
            let finish = receive::finish_request(&bench.app, upload, &row.preset, "cat".into(), &whole);
            bench.app.catalog.finish_upload(finish).await.unwrap();
            assert_eq!(bench.files("sources").len(), 2, "the second copy is still there");
        }
        if crash_after == "everything" {
            receive::finish(&bench.app, upload, &whole).await.unwrap();
        }
        let bench = bench.restarted().await;
        sweep::files(&bench.app).await;
        let second = receive::asset_of(upload);
        assert_eq!(state(&bench, second).await, AssetState::Ready, "{crash_after}");
        assert!(plays(&bench, second).await);
        assert_eq!(bench.files("sources").len(), 1, "{crash_after}");
        assert!(bench.files("uploads").is_empty(), "{crash_after}");
        assert_eq!(receive::finish(&bench.app, upload, &whole).await.unwrap(), second);
    }
}
