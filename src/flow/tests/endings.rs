//! Endings other than a publication with everything: refused, incomplete, cancelled, deleted, stopped.

use super::bench::{Bench, somebody};
use crate::flow::{publish, sweep};
use reelyard_agent::control::ControlPlane;
use reelyard_catalog::Condition;
use reelyard_model::{
    AssetId, AssetState, Failure, FailureCode, TaskId, TaskState,
    child::{EncoderChoice, Job},
    work::{Progress, Report, TaskKind, TaskResult, Verdict},
};

/// Does everything but what `refuses` names, which fails for good.
async fn work(bench: &Bench, asset: AssetId, refuses: Option<TaskKind>) {
    while let Some(grant) = bench.grant(asset).await {
        let report = if refuses == Some(grant.kind) {
            Report::Failed { failure: Failure::new(FailureCode::NothingDecodes, "for the test") }
        } else {
            Report::Completed { result: bench.child.answer(bench, &grant).await }
        };
        bench.control.report(grant.task, grant.attempt, report).await.unwrap();
    }
    while publish::publish_next(&bench.app).await.unwrap() {}
}

async fn master(bench: &Bench, asset: AssetId) -> String {
    let prefix = bench.app.catalog.publication(asset).await.unwrap().unwrap().prefix.unwrap();
    String::from_utf8(bench.app.store.read(&format!("{prefix}/master.m3u8")).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_video_whose_sound_or_stills_cannot_be_made_plays_without() {
    for (kind, word, gone) in [(TaskKind::Audio, "sound", "mp4a"), (TaskKind::Stills, "preview", "sprite")] {
        let bench = Bench::new().await;
        let asset = bench.asset().await;
        work(&bench, asset, Some(kind)).await;
        let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
        assert_eq!(row.state, AssetState::Ready, "{:?}", row.failure);
        assert!(row.warnings.iter().any(|warning| warning.contains(word)), "{:?}", row.warnings);
        assert!(!master(&bench, asset).await.contains(gone));
    }
}

#[tokio::test]
async fn sound_alone_is_published_and_cannot_do_without_its_sound() {
    let mut bench = Bench::new().await;
    bench.child.has_video = false;
    let asset = bench.asset().await;
    work(&bench, asset, None).await;
    assert!(master(&bench, asset).await.contains("mp4a"));

    let silent = bench.asset_of(b"another video").await;
    work(&bench, silent, Some(TaskKind::Audio)).await;
    let row = bench.app.catalog.asset(silent).await.unwrap().unwrap();
    assert_eq!((row.state, row.failure.unwrap().code), (AssetState::Failed, FailureCode::NothingDecodes));
}

#[tokio::test]
async fn what_the_planner_refuses_fails_at_once_with_its_reason() {
    let mut bench = Bench::new().await;
    bench.child.has_video = false;
    bench.child.has_sound = false;
    let asset = bench.asset().await;
    work(&bench, asset, None).await;
    let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
    assert_eq!((row.state, row.failure.unwrap().code), (AssetState::Failed, FailureCode::NoPlayableTracks));
    let tasks = bench.app.catalog.tasks_of_asset(asset).await.unwrap();
    assert_eq!((tasks.len(), tasks[0].failed_count), (1, 1));
}

#[tokio::test]
async fn a_result_of_the_wrong_kind_is_our_fault_and_changes_nothing_else() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let grant = bench.grant(asset).await.unwrap();
    let report = Report::Completed { result: TaskResult::Published };
    bench.control.report(grant.task, grant.attempt, report).await.unwrap();
    let task = bench.app.catalog.task(grant.task).await.unwrap().unwrap();
    assert_eq!((task.state, task.failure.unwrap().code), (TaskState::RetryWait, FailureCode::Internal));
}

#[tokio::test]
async fn a_cancelled_worker_is_told_and_its_files_go() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let probe = bench.grant(asset).await.unwrap();
    let result = bench.child.answer(&bench, &probe).await;
    bench.control.report(probe.task, probe.attempt, Report::Completed { result }).await.unwrap();
    let grant = bench.grant(asset).await.unwrap();
    let result = bench.child.answer(&bench, &grant).await;
    bench.app.catalog.cancel_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    let verdict = bench.control.heartbeat(grant.task, grant.attempt, Progress::default()).await.unwrap();
    assert_eq!(verdict, Verdict::Cancelled);
    let verdict =
        bench.control.report(grant.task, grant.attempt, Report::Completed { result }).await.unwrap();
    assert_eq!(verdict, Verdict::Cancelled);
    sweep::files(&bench.app).await;
    assert!(bench.files("renditions").is_empty());
    assert_eq!(bench.files("sources").len(), 1, "a retry needs the source");

    bench.app.catalog.retry_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    work(&bench, asset, None).await;
    assert_eq!(bench.app.catalog.asset(asset).await.unwrap().unwrap().state, AssetState::Ready);
}

/// Its sound was cancelled, so it was published without; the worker hands in one more file before it hears of that.
#[tokio::test]
async fn a_file_that_comes_after_the_publication_goes_too() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    work(&bench, asset, Some(TaskKind::Audio)).await;
    sweep::files(&bench.app).await;
    assert!(bench.files("renditions").is_empty());
    bench
        .app
        .store
        .put_bytes(&format!("renditions/{asset}/late/a1/audio/00000.m4s"), "late".into())
        .await
        .unwrap();
    sweep::files(&bench.app).await;
    assert!(bench.files("renditions").is_empty(), "{:?}", bench.files("renditions"));
}

/// A sweep that read "cancelled" before somebody asked for another try must not touch what the new try makes.
#[tokio::test]
async fn a_sweep_leaves_attempts_at_work_alone() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let probe = bench.grant(asset).await.unwrap();
    let result = bench.child.answer(&bench, &probe).await;
    bench.control.report(probe.task, probe.attempt, Report::Completed { result }).await.unwrap();
    let first = bench.grant(asset).await.unwrap();
    bench.child.answer(&bench, &first).await;
    bench.app.catalog.cancel_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    let as_it_was = bench.app.catalog.asset(asset).await.unwrap().unwrap();
    bench.app.catalog.retry_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    let second = bench.grant(asset).await.unwrap();
    assert_eq!((second.task, second.attempt), (first.task, 2));
    let result = bench.child.answer(&bench, &second).await;

    sweep::sweep_as(&bench.app, &as_it_was, Condition::Stopped).await.unwrap();
    let left = bench.files("renditions");
    assert!(!left.is_empty());
    assert!(left.iter().all(|(name, _)| name.starts_with(&second.output_prefix)), "{left:?}");
    bench.control.report(second.task, second.attempt, Report::Completed { result }).await.unwrap();
    work(&bench, asset, None).await;
    assert_eq!(bench.app.catalog.asset(asset).await.unwrap().unwrap().state, AssetState::Ready);
}

#[tokio::test]
async fn a_deleted_asset_leaves_no_files() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    work(&bench, asset, None).await;
    bench.app.catalog.delete_asset(asset, &somebody(), bench.app.now_ms()).await.unwrap();
    sweep::files(&bench.app).await;
    for top in ["sources", "renditions", "publications"] {
        assert!(bench.files(top).is_empty(), "{top}");
    }
}

#[tokio::test]
async fn a_task_that_was_stopped_with_the_server_is_given_back_uncounted() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let grant = bench.grant(asset).await.unwrap();
    bench.app.shutdown.cancel();
    let failure = Failure::new(FailureCode::ChildKilled, "stopped");
    bench.control.report(grant.task, grant.attempt, Report::Failed { failure }).await.unwrap();
    let task = bench.app.catalog.task(grant.task).await.unwrap().unwrap();
    assert_eq!((task.state, task.failed_count, task.lost_count), (TaskState::Ready, 0, 0));
    assert!(
        bench.control.claim(&[bench.offer()]).await.unwrap().is_empty(),
        "a server that stops grants nothing"
    );
}

#[tokio::test]
async fn a_task_that_is_not_there_is_let_go_and_not_asked_for_again() {
    let bench = Bench::new().await;
    let nobody = TaskId::from_uuid(uuid::Uuid::now_v7());
    let verdict = bench.control.heartbeat(nobody, 1, Progress::default()).await.unwrap();
    assert_eq!(verdict, Verdict::Lost);
    let failure = Failure::new(FailureCode::Internal, "for the test");
    let verdict = bench.control.report(nobody, 1, Report::Failed { failure }).await.unwrap();
    assert_eq!(verdict, Verdict::Lost);
}

/// Both were begun before either was done, and the graphics card was busy for one of them.
#[tokio::test]
async fn a_chunk_from_another_encoder_is_made_again_with_the_first_ones() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let mut chunks = Vec::new();
    while let Some(grant) = bench.control.claim(&[bench.offer()]).await.unwrap().pop() {
        if grant.kind == TaskKind::Encode {
            chunks.push(grant);
            continue;
        }
        let result = bench.child.answer(&bench, &grant).await;
        bench.control.report(grant.task, grant.attempt, Report::Completed { result }).await.unwrap();
    }
    assert!(chunks.len() > 1);
    for (number, grant) in chunks.iter().enumerate() {
        let mut result = bench.child.answer(&bench, grant).await;
        if let TaskResult::Encoded { encoder, .. } = &mut result
            && number == 1
        {
            *encoder = "h264_nvenc".to_owned();
        }
        bench.control.report(grant.task, grant.attempt, Report::Completed { result }).await.unwrap();
    }
    let task = bench.app.catalog.task(chunks[1].task).await.unwrap().unwrap();
    assert_eq!(
        (task.state, task.failure.unwrap().code),
        (TaskState::RetryWait, FailureCode::EncoderUnavailable)
    );
    let again = bench.grant(asset).await.unwrap();
    assert!(matches!(again.job, Job::Encode { encoder: EncoderChoice::X264, .. }), "{:?}", again.job);
    let result = bench.child.answer(&bench, &again).await;
    bench.control.report(again.task, again.attempt, Report::Completed { result }).await.unwrap();
    work(&bench, asset, None).await;
    assert_eq!(bench.app.catalog.asset(asset).await.unwrap().unwrap().state, AssetState::Ready);
}
