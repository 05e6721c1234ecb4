//! From upload to publication: straight, with every step done twice, and with every step failing once.

use super::bench::Bench;
use crate::flow::{publish, receive, sweep};
use reelyard_agent::control::ControlPlane;
use reelyard_catalog::ClaimRequest;
use reelyard_model::{
    AssetId, AssetState, Failure, FailureCode, PublicationState, TaskState,
    work::{Progress, Report, TaskKind, Verdict},
};

/// Grants of one asset, more than the story has: beyond them it is stuck.
const MOST_GRANTS: usize = 30;

/// What goes wrong with one of the grants, counted from the first one of the story.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    None,
    /// Reports are delivered twice, steps are called twice.
    Twice,
    /// The attempt fails for a reason that passes.
    Fails(usize),
    /// The worker hands its files in and then goes with its process, which starts anew.
    Crashes(usize),
    /// The worker goes silent, its lease runs out, and it reports after all when another has the task.
    ComesBackLate(usize),
}

/// Works until there is nothing to do; gives the number of grants.
async fn run(mut bench: Bench, asset: AssetId, mishap: Mishap) -> (Bench, usize) {
    let mut late = None;
    let mut number = 0;
    while let Some(grant) = bench.grant(asset).await {
        assert!(number < MOST_GRANTS, "{mishap:?}: stuck at {grant:?}");
        let beat = bench.control.heartbeat(grant.task, grant.attempt, Progress::default()).await.unwrap();
        assert_eq!(beat, Verdict::Continue);
        let result = bench.child.clone().answer(&bench, &grant).await;
        let report = match mishap {
            Mishap::Fails(at) if at == number => {
                Report::Failed { failure: Failure::new(FailureCode::StorageFailed, "a disk hiccup") }
            }
            _ => Report::Completed { result },
        };
        number += 1;
        match mishap {
            Mishap::Crashes(at) if at + 1 == number => {
                bench = bench.restarted().await;
                continue;
            }
            Mishap::ComesBackLate(at) if at + 1 == number => {
                let over_ms = bench.app.now_ms() + 1_000_000;
                bench.app.catalog.lose_expired_leases(over_ms, 0).await.unwrap();
                late = Some((grant, report));
                continue;
            }
            _ => {}
        }
        let verdict = bench.control.report(grant.task, grant.attempt, report.clone()).await.unwrap();
        assert_eq!(verdict, Verdict::Continue, "{mishap:?}: {grant:?}");
        if mishap == Mishap::Twice {
            assert_eq!(
                bench.control.report(grant.task, grant.attempt, report).await.unwrap(),
                Verdict::Continue
            );
        }
        if let Some((grant, report)) = late.take() {
            assert_eq!(bench.control.report(grant.task, grant.attempt, report).await.unwrap(), Verdict::Lost);
        }
    }
    (bench, number)
}

async fn publish_and_sweep(bench: &Bench, mishap: Mishap) {
    assert!(publish::publish_next(&bench.app).await.unwrap());
    assert!(!publish::publish_next(&bench.app).await.unwrap(), "one publication");
    for _ in 0..if mishap == Mishap::Twice { 2 } else { 1 } {
        sweep::leases(&bench.app, &sweep::Pauses::of_leases(1)).await.unwrap();
        sweep::files(&bench.app).await;
    }
}

async fn told(mishap: Mishap) -> (String, usize) {
    let bench = Bench::new().await;
    let (upload, transfer) = bench.upload_bytes(super::bench::SOURCE).await;
    let whole = receive::Whole::of(&transfer).unwrap();
    let asset = receive::finish(&bench.app, upload, &whole).await.unwrap();
    if mishap == Mishap::Twice {
        assert_eq!(receive::finish(&bench.app, upload, &whole).await.unwrap(), asset);
    }
    let (bench, grants) = run(bench, asset, mishap).await;
    publish_and_sweep(&bench, mishap).await;
    (bench.end_state(asset).await, grants)
}

#[tokio::test]
async fn an_upload_becomes_a_publication() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let (bench, grants) = run(bench, asset, Mishap::None).await;
    // Probe, two or three chunks, sound, stills.
    assert!(grants >= 5, "{grants}");
    publish_and_sweep(&bench, Mishap::None).await;

    let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
    assert_eq!((row.state, row.title.as_str()), (AssetState::Ready, "cat"));
    let publication = bench.app.catalog.publication(asset).await.unwrap().unwrap();
    assert_eq!(publication.state, PublicationState::Live);
    let prefix = publication.prefix.unwrap();
    let master = bench.app.store.read(&format!("{prefix}/master.m3u8")).await.unwrap();
    let master = String::from_utf8(master.to_vec()).unwrap();
    assert!(master.contains("360p.m3u8") && master.contains("mp4a.40.2"), "{master}");
    let playlist = bench.app.store.read(&format!("{prefix}/360p.m3u8")).await.unwrap();
    for file in String::from_utf8(playlist.to_vec()).unwrap().lines().filter(|line| !line.starts_with('#')) {
        assert!(bench.app.store.byte_len(&format!("{prefix}/{file}")).await.unwrap().is_some(), "{file}");
    }
    for file in ["manifest.mpd", "poster.jpg", "sprite-000.jpg", "sprites.vtt", "audio/init.mp4"] {
        assert!(bench.app.store.byte_len(&format!("{prefix}/{file}")).await.unwrap().is_some(), "{file}");
    }
    assert!(bench.files("renditions").is_empty(), "swept");
    let summary = publication.summary.unwrap();
    assert_eq!(
        (summary["has_video"].as_bool(), summary["duration_us"].as_i64()),
        (Some(true), Some(40_000_000))
    );

    // One trace from the upload to the publish task.
    let upload = bench.app.catalog.upload(row.upload.unwrap()).await.unwrap().unwrap();
    for task in bench.app.catalog.tasks_of_asset(asset).await.unwrap() {
        assert_eq!(task.traceparent, upload.traceparent);
    }
    let source = bench.app.uploads.open_source(&row.source_key).await.unwrap();
    assert_eq!(source.metadata().unwrap().len(), super::bench::SOURCE.len() as u64);
}

#[tokio::test]
async fn every_step_done_twice_ends_the_same() {
    let (straight, _) = told(Mishap::None).await;
    let (twice, _) = told(Mishap::Twice).await;
    assert_eq!(twice, straight);
}

#[tokio::test]
async fn every_step_failing_once_ends_the_same() {
    let (straight, grants) = told(Mishap::None).await;
    for at in 0..grants {
        let (end, with_retry) = told(Mishap::Fails(at)).await;
        assert_eq!(end, straight, "step {at} failed");
        assert_eq!(with_retry, grants + 1);
    }
}

#[tokio::test]
async fn every_step_crashing_once_ends_the_same() {
    let (straight, grants) = told(Mishap::None).await;
    for at in 0..grants {
        let (end, with_retry) = told(Mishap::Crashes(at)).await;
        assert_eq!(end, straight, "step {at} crashed");
        assert_eq!(with_retry, grants + 1);
    }
}

#[tokio::test]
async fn every_worker_coming_back_late_ends_the_same() {
    let (straight, grants) = told(Mishap::None).await;
    for at in 0..grants {
        let (end, _) = told(Mishap::ComesBackLate(at)).await;
        assert_eq!(end, straight, "the worker of step {at} came back late");
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_publishing_leaves_no_trace() {
    let (straight, _) = told(Mishap::None).await;
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let (bench, _) = run(bench, asset, Mishap::None).await;
    // The first attempt: claimed, some files written, then the process is gone.
    let request = ClaimRequest {
        worker: bench.app.control_worker,
        kinds: vec![TaskKind::Publish],
        lease_ms: 60_000,
        now_ms: bench.app.now_ms(),
    };
    let claimed = bench.app.catalog.claim(&request).await.unwrap().unwrap();
    let half = format!("{}/a{}", publish::publication_folder(asset), claimed.task.attempt);
    bench.app.store.put_bytes(&format!("{half}/master.m3u8"), "half of a playlist".into()).await.unwrap();
    let bench = bench.restarted().await;
    publish_and_sweep(&bench, Mishap::None).await;
    assert_eq!(bench.end_state(asset).await, straight);
    let prefix = bench.app.catalog.publication(asset).await.unwrap().unwrap().prefix.unwrap();
    assert!(prefix.ends_with("/a2"), "{prefix}");
    assert!(bench.app.store.list_prefix(&half).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_output_that_is_gone_is_a_failure_with_a_reason_and_not_a_broken_video() {
    let bench = Bench::new().await;
    let asset = bench.asset().await;
    let (bench, _) = run(bench, asset, Mishap::None).await;
    bench.app.store.delete_prefix(&format!("renditions/{asset}")).await.unwrap();
    while publish::publish_next(&bench.app).await.unwrap() {
        bench.end_back_offs(asset).await;
    }
    let row = bench.app.catalog.asset(asset).await.unwrap().unwrap();
    assert_eq!(row.state, AssetState::Failed);
    assert!(row.failure.unwrap().detail.contains("missing"), "the operator learns what");
    let tasks = bench.app.catalog.tasks_of_asset(asset).await.unwrap();
    assert!(tasks.iter().any(|task| task.kind == TaskKind::Publish && task.state == TaskState::Dead));
}
