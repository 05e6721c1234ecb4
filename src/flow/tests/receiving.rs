//! Crashes between the last byte and the asset, and uploads that come to nothing.

use super::bench::{Bench, SOURCE};
use crate::flow::{
    FlowError,
    receive::{self, Whole},
    sweep,
};
use reelyard_model::{AssetState, UploadState};
use reelyard_storage::{StoreError, Terms, source_key};

const TERMS: Terms = Terms { length: Some(SOURCE.len() as u64), limit: 1 << 20, fence: 0 };

#[tokio::test]
async fn a_crash_anywhere_between_the_last_byte_and_the_asset_is_healed_at_start() {
    for crash_after in ["the last byte", "the row says finishing", "the rename", "everything"] {
        let bench = Bench::new().await;
        let (upload, transfer) = bench.upload_bytes(SOURCE).await;
        let asset = receive::asset_of(upload);
        if crash_after != "the last byte" {
            let now_ms = bench.app.now_ms();
            bench
                .app
                .catalog
                .upload_finishing_or_finished(upload, SOURCE.len() as u64, now_ms)
                .await
                .unwrap();
        }
        if crash_after == "the rename" {
            bench.app.uploads.finish_upload(upload, SOURCE.len() as u64).await.unwrap();
        }
        if crash_after == "everything" {
            receive::finish(&bench.app, upload, &Whole::of(&transfer).unwrap()).await.unwrap();
        }
        let bench = bench.restarted().await;
        let row = bench.app.catalog.asset(asset).await.unwrap().expect(crash_after);
        assert_eq!(row.state, AssetState::Waiting, "{crash_after}");
        assert_eq!(row.sha256, hex::encode(transfer.sha256().unwrap()));
        let stored = bench.app.store.read(&row.source_key).await.unwrap();
        assert_eq!(stored, SOURCE, "{crash_after}");
        assert_eq!(bench.app.catalog.tasks_of_asset(asset).await.unwrap().len(), 1, "{crash_after}");
        assert_eq!(receive::recover(&bench.app).await.unwrap(), 0, "nothing is left to heal");
    }
}

/// What stands in the way here is a directory where the source should go; for an operator it is a full disk.
#[tokio::test]
async fn an_upload_whose_last_step_failed_is_finished_once_it_can_be() {
    let bench = Bench::new().await;
    let (upload, transfer) = bench.upload_bytes(SOURCE).await;
    let asset = receive::asset_of(upload);
    let in_the_way = bench.app.data_dir.join(source_key(upload));
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(receive::finish(&bench.app, upload, &Whole::of(&transfer).unwrap()).await.is_err());
    let (other, _) = bench.upload_bytes(SOURCE).await;
    assert_eq!(receive::recover(&bench.app).await.unwrap(), 1, "the other one is not held up");
    assert!(bench.app.catalog.asset(receive::asset_of(other)).await.unwrap().is_some());

    std::fs::remove_dir(&in_the_way).unwrap();
    sweep::files(&bench.app).await;
    assert!(bench.app.catalog.asset(asset).await.unwrap().is_some());
}

#[tokio::test]
async fn an_upload_that_is_not_whole_is_no_asset() {
    let bench = Bench::new().await;
    bench.upload_bytes(SOURCE).await;
    let half = reelyard_upload::Transfer::new(Some(SOURCE.len() as u64), 1 << 20);
    let refused = Whole::of(&half);
    assert!(matches!(refused, Err(FlowError::NotWhole { offset: 0, .. })), "{refused:?}");
}

#[tokio::test]
async fn uploads_that_nobody_comes_back_for_expire_with_their_bytes() {
    let bench = Bench::new().await;
    let upload = bench.announce(SOURCE.len() as u64).await;
    sweep::files(&bench.app).await;
    assert!(bench.app.uploads.open_upload(upload, TERMS).await.is_ok(), "not yet");
    bench.app.catalog.upload_received(upload, 1, 1, 2).await.unwrap();
    sweep::files(&bench.app).await;
    let row = bench.app.catalog.upload(upload).await.unwrap().unwrap();
    assert_eq!(row.state, UploadState::Expired);
    assert!(matches!(bench.app.uploads.open_upload(upload, TERMS).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_whole_upload_becomes_an_asset_instead_of_expiring() {
    let bench = Bench::new().await;
    let (upload, _) = bench.upload_bytes(SOURCE).await;
    bench.app.catalog.upload_received(upload, 1, 1, 2).await.unwrap();
    sweep::files(&bench.app).await;
    assert_eq!(bench.app.catalog.upload(upload).await.unwrap().unwrap().state, UploadState::Finished);
}

#[tokio::test]
async fn the_bytes_of_a_terminated_upload_go_even_if_a_crash_came_between() {
    let bench = Bench::new().await;
    let (upload, _) = bench.upload_bytes(SOURCE).await;
    bench.app.catalog.terminate_upload(upload, bench.app.now_ms()).await.unwrap();
    let bench = bench.restarted().await;
    sweep::files(&bench.app).await;
    assert!(bench.app.uploads.list_uploads().await.unwrap().is_empty());
    receive::terminate(&bench.app, upload).await.unwrap();
}

#[tokio::test]
async fn the_journal_of_a_finished_upload_goes_and_nothing_else() {
    let bench = Bench::new().await;
    let (upload, transfer) = bench.upload_bytes(SOURCE).await;
    let asset = receive::finish(&bench.app, upload, &Whole::of(&transfer).unwrap()).await.unwrap();
    sweep::files(&bench.app).await;
    assert!(bench.files("uploads").is_empty());
    assert_eq!(bench.files("sources").len(), 1);
    assert_eq!(receive::finish(&bench.app, upload, &Whole::of(&transfer).unwrap()).await.unwrap(), asset);
}

#[tokio::test]
async fn an_unknown_preset_is_told_before_a_byte_is_sent() {
    let bench = Bench::new().await;
    let refused = bench.app.preset_name(Some("web-h265"));
    let Err(FlowError::UnknownPreset { name, known }) = refused else { panic!("{refused:?}") };
    assert_eq!(name, "web-h265");
    assert!(known.contains("web-h264"), "{known}");
    assert_eq!(bench.app.preset_name(None).unwrap(), "web-h264");
}
