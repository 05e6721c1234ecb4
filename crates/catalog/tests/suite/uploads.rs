//! Uploads: from the announcement to the asset, or to nothing; each step twice.

use crate::support::{Bench, finish};
use reelyard_catalog::CatalogError;
use reelyard_model::{AssetState, TaskState, UploadState, work::TaskKind};

#[tokio::test]
async fn a_finished_upload_is_one_asset_with_one_probe_however_often_it_is_finished() {
    let bench = Bench::new().await;
    let upload = bench.upload(1).await;
    bench.catalog.upload_received(upload, 500, 2, 5_000).await.unwrap();
    bench.catalog.upload_received(upload, 400, 3, 5_000).await.unwrap();
    let row = bench.catalog.upload(upload).await.unwrap().unwrap();
    assert_eq!((row.state, row.byte_offset, row.expires_ms), (UploadState::Receiving, 500, 5_000));

    bench.catalog.upload_finishing_or_finished(upload, 1_000, 3).await.unwrap();
    bench.catalog.upload_finishing_or_finished(upload, 1_000, 3).await.unwrap();
    let first = bench.catalog.finish_upload(finish(upload, 4)).await.unwrap();
    let second = bench.catalog.finish_upload(finish(upload, 5)).await.unwrap();
    assert!(first.first_time && !second.first_time);
    assert_eq!(first.asset, second.asset);
    assert_eq!(
        bench.catalog.upload_finishing_or_finished(upload, 1_000, 6).await.unwrap().asset,
        Some(first.asset)
    );

    let asset = bench.catalog.asset(first.asset).await.unwrap().unwrap();
    assert_eq!((asset.state, asset.title.as_str(), asset.created_ms), (AssetState::Waiting, "cat", 4));
    let tasks = bench.catalog.tasks_of_asset(asset.id).await.unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!((tasks[0].kind, tasks[0].state), (TaskKind::Probe, TaskState::Ready));
    assert_eq!(tasks[0].traceparent, crate::support::TRACE);
}

#[tokio::test]
async fn an_upload_that_is_finishing_is_neither_terminated_nor_expired() {
    let bench = Bench::new().await;
    let upload = bench.upload(1).await;
    bench.catalog.upload_finishing_or_finished(upload, 1_000, 2).await.unwrap();
    for refused in
        [bench.catalog.terminate_upload(upload, 3).await, bench.catalog.expire_upload(upload, 3).await]
    {
        assert!(matches!(refused, Err(CatalogError::Refused(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn uploads_end_once_and_take_no_more_bytes() {
    let bench = Bench::new().await;
    let upload = bench.upload(1).await;
    let newest = *bench.catalog.last_event().borrow();
    bench.catalog.terminate_upload(upload, 2).await.unwrap();
    bench.catalog.terminate_upload(upload, 3).await.unwrap();
    assert_eq!(bench.catalog.events_after(newest, 10).await.unwrap().len(), 1, "the second said nothing new");
    assert!(bench.catalog.upload_received(upload, 1, 4, 5).await.is_err());
    assert!(bench.catalog.finish_upload(finish(upload, 4)).await.is_err());
}

#[tokio::test]
async fn expired_uploads_are_found_by_their_time() {
    let bench = Bench::new().await;
    let old = bench.upload(1).await;
    let young = bench.upload(5_000).await;
    let found = bench.catalog.uploads_in_state(UploadState::Created, Some(1_001)).await.unwrap();
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [old]);
    let all = bench.catalog.uploads_in_state(UploadState::Created, None).await.unwrap();
    assert_eq!(all.iter().map(|row| row.id).collect::<Vec<_>>(), [old, young]);
}

#[tokio::test]
async fn a_deferred_length_is_told_once() {
    let bench = Bench::new().await;
    let upload = bench.upload(1).await;
    assert!(bench.catalog.set_upload_length(upload, 1_000, 2).await.unwrap());
    assert!(!bench.catalog.set_upload_length(upload, 999, 2).await.unwrap());
}
