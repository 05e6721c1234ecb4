//! Assets: what becomes of them when their tasks end well, badly, or by order; and the publication.

use crate::support::{Bench, EVERY_KIND, Planned, somebody};
use reelyard_catalog::{
    AssetFilter, AuditFilter, CatalogError, CompletedPublish, EventKind, HeartbeatAnswer, PublishedRendition,
    Settled, TaskFilter,
};
use reelyard_model::{
    AssetState, FailureCode, PublicationState, TaskState, TenantId,
    work::{Progress, TaskKind},
};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

fn published(planned: &Planned, attempt: u32, now_ms: i64) -> CompletedPublish {
    CompletedPublish {
        task: planned.publish,
        attempt,
        prefix: format!("publications/{}/a{attempt}", planned.asset),
        summary: json!({ "version": 1 }),
        renditions: vec![PublishedRendition {
            name: "240p".into(),
            codecs: "avc1.64000d".into(),
            byte_len: 5,
        }],
        now_ms,
    }
}

async fn everything_but_publish(bench: &Bench) {
    for kind in [TaskKind::Encode, TaskKind::Encode, TaskKind::Audio, TaskKind::Stills] {
        bench.do_one(kind, 10).await;
    }
}

#[tokio::test]
async fn publish_waits_for_all_and_publishes_once() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Processing);
    let preparing = bench.catalog.publication(planned.asset).await.unwrap().unwrap();
    assert_eq!(preparing.state, PublicationState::Preparing);
    let task = bench.catalog.task(planned.publish).await.unwrap().unwrap();
    assert_eq!(task.state, TaskState::Blocked);
    assert_eq!(
        bench.waits_for(planned.publish, 1).await,
        "Waits for its sound, 2 of 2 chunks and its stills"
    );

    everything_but_publish(&bench).await;
    assert_eq!(bench.state_of(planned.publish).await, TaskState::Ready);
    // The first attempt at publishing is lost, the second wins, the first comes back too late.
    bench.claim(&[TaskKind::Publish], 20).await.unwrap();
    bench.catalog.lose_expired_leases(50_000, 0).await.unwrap();
    bench.claim(&[TaskKind::Publish], 90_000).await.unwrap();
    assert_eq!(bench.catalog.complete_publish(published(&planned, 1, 90_001)).await.unwrap(), Settled::Lost);
    assert_eq!(bench.catalog.complete_publish(published(&planned, 2, 90_002)).await.unwrap(), Settled::Now);
    assert_eq!(
        bench.catalog.complete_publish(published(&planned, 2, 90_003)).await.unwrap(),
        Settled::Before
    );
    assert_eq!(bench.catalog.complete_publish(published(&planned, 1, 90_004)).await.unwrap(), Settled::Lost);

    let live = bench.catalog.publication_by_playback_id(preparing.playback_id).await.unwrap().unwrap();
    assert_eq!((live.state, live.attempt, live.live_ms), (PublicationState::Live, Some(2), Some(90_002)));
    assert_eq!(live.prefix, Some(format!("publications/{}/a2", planned.asset)));
    let asset = bench.catalog.asset(planned.asset).await.unwrap().unwrap();
    assert_eq!((asset.state, asset.ready_ms), (AssetState::Ready, Some(90_002)));
    assert_eq!(asset.playback_id, Some(preparing.playback_id));
    let renditions = bench.catalog.renditions(planned.asset).await.unwrap();
    assert_eq!((renditions[0].codecs.as_deref(), renditions[0].byte_len), (Some("avc1.64000d"), Some(5)));
    let ready = bench.catalog.events_of_asset(planned.asset, 500).await.unwrap();
    assert_eq!(ready.iter().filter(|event| event.kind == EventKind::ASSET_READY.0).count(), 1);
    assert!(bench.catalog.cancel_asset(planned.asset, &somebody(), 90_005).await.is_err());
    assert!(bench.catalog.retry_task(planned.stills, &somebody(), 90_005).await.is_err());
}

#[tokio::test]
async fn a_video_without_its_stills_still_plays_and_says_so() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    for kind in [TaskKind::Encode, TaskKind::Encode, TaskKind::Audio] {
        bench.do_one(kind, 10).await;
    }
    let stills = bench.claim(&[TaskKind::Stills], 11).await.unwrap();
    bench.fail(&stills, FailureCode::NothingDecodes, 12).await;
    assert_eq!(bench.state_of(planned.stills).await, TaskState::Dead);
    assert_eq!(bench.state_of(planned.publish).await, TaskState::Ready);
    let asset = bench.catalog.asset(planned.asset).await.unwrap().unwrap();
    assert_eq!(asset.state, AssetState::Processing);
    assert!(asset.warnings.iter().any(|warning| warning.contains("preview")), "{:?}", asset.warnings);
}

#[tokio::test]
async fn a_dead_chunk_fails_the_asset_and_stops_its_other_work() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let audio = bench.claim(&[TaskKind::Audio], 2).await.unwrap();
    bench.do_one(TaskKind::Encode, 3).await;
    let encode = bench.claim(&[TaskKind::Encode], 4).await.unwrap();
    bench.fail(&encode, FailureCode::DecoderCrashed, 5).await;

    let asset = bench.catalog.asset(planned.asset).await.unwrap().unwrap();
    assert_eq!(asset.state, AssetState::Failed);
    assert_eq!(asset.failure.unwrap().code, FailureCode::DecoderCrashed);
    for task in [planned.audio, planned.stills, planned.publish] {
        assert_eq!(bench.state_of(task).await, TaskState::Cancelled);
    }
    let answer = bench.catalog.heartbeat(audio.task.id, 1, Progress::default(), 1_000, 6).await.unwrap();
    assert_eq!(answer, HeartbeatAnswer::Cancelled);
    assert!(bench.claim(&EVERY_KIND, 7).await.is_none());

    // Another try: what is done stays done, the rest is ready or waits for the rest.
    bench.catalog.retry_task(encode.task.id, &somebody(), 8).await.unwrap();
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Processing);
    let states: Vec<_> = bench
        .catalog
        .tasks_of_asset(planned.asset)
        .await
        .unwrap()
        .iter()
        .map(|task| (task.kind, task.ordinal, task.state))
        .collect();
    for expected in [
        (TaskKind::Probe, 0, TaskState::Done),
        (TaskKind::Encode, 0, TaskState::Done),
        (TaskKind::Encode, 1, TaskState::Ready),
        (TaskKind::Audio, 0, TaskState::Ready),
        (TaskKind::Stills, 0, TaskState::Ready),
        (TaskKind::Publish, 0, TaskState::Blocked),
    ] {
        assert!(states.contains(&expected), "{expected:?} in {states:?}");
    }
    let again = bench.claim(&[TaskKind::Audio], 9).await.unwrap();
    assert_eq!((again.task.attempt, again.task.failure), (2, None), "the attempt goes on counting");
}

#[tokio::test]
async fn cancel_stops_workers_and_is_safe_to_repeat() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let claimed = bench.claim(&[TaskKind::Encode], 2).await.unwrap();
    bench.catalog.cancel_asset(planned.asset, &somebody(), 3).await.unwrap();
    bench.catalog.cancel_asset(planned.asset, &somebody(), 4).await.unwrap();
    assert_eq!(bench.fail(&claimed, FailureCode::ChildKilled, 5).await, Settled::Cancelled);
    let retried = bench.catalog.retry_asset(planned.asset, &somebody(), 6).await.unwrap();
    assert_eq!(retried.state, AssetState::Processing);
    assert!(bench.claim(&[TaskKind::Encode], 7).await.is_some());
}

#[tokio::test]
async fn cancelling_what_is_not_required_lets_the_rest_go_on() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    for kind in [TaskKind::Encode, TaskKind::Encode, TaskKind::Audio] {
        bench.do_one(kind, 10).await;
    }
    bench.catalog.cancel_task(planned.stills, &somebody(), 11).await.unwrap();
    assert_eq!(bench.state_of(planned.publish).await, TaskState::Ready);
    bench.catalog.cancel_task(planned.publish, &somebody(), 12).await.unwrap();
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Cancelled);
}

#[tokio::test]
async fn a_deleted_asset_is_off_the_air_and_out_of_the_lists() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    everything_but_publish(&bench).await;
    bench.claim(&[TaskKind::Publish], 20).await.unwrap();
    bench.catalog.complete_publish(published(&planned, 1, 21)).await.unwrap();
    let as_swept = bench.catalog.asset(planned.asset).await.unwrap().unwrap();
    assert!(bench.catalog.task(planned.encodes[0]).await.unwrap().unwrap().result.is_some());
    bench.catalog.asset_swept(&as_swept, 22).await.unwrap();
    assert_eq!(bench.catalog.task(planned.encodes[0]).await.unwrap().unwrap().result, None, "megabytes");
    assert!(bench.catalog.media_info(planned.asset).await.unwrap().is_some(), "people ask for that");
    assert!(bench.catalog.assets_to_sweep().await.unwrap().is_empty());

    bench.catalog.delete_asset(planned.asset, &somebody(), 23).await.unwrap();
    bench.catalog.delete_asset(planned.asset, &somebody(), 24).await.unwrap();
    let about = AuditFilter { subject: Some(planned.asset.to_string()), limit: 9, ..AuditFilter::default() };
    let lines = bench.catalog.audit_log(&about).await.unwrap();
    assert_eq!(lines.len(), 1, "who deletes it again did nothing: {lines:?}");
    assert_eq!((lines[0].action.as_str(), lines[0].at_ms), ("asset.deleted", 23));
    assert_eq!(lines[0].data["from"], "ready");
    let publication = bench.catalog.publication(planned.asset).await.unwrap().unwrap();
    assert_eq!((publication.state, publication.withdrawn_ms), (PublicationState::Withdrawn, Some(23)));
    let filter = AssetFilter {
        tenant: TenantId::DEFAULT,
        states: vec![],
        title_contains: None,
        after: None,
        limit: 10,
    };
    assert!(bench.catalog.list_assets(&filter).await.unwrap().rows.is_empty());
    assert_eq!(bench.catalog.assets_to_sweep().await.unwrap().len(), 1, "its files have to go");
    // A sweep that had begun before the deletion ends after it.
    bench.catalog.asset_swept(&as_swept, 25).await.unwrap();
    let [gone] = &bench.catalog.assets_to_sweep().await.unwrap()[..] else { panic!("they still have to go") };
    bench.catalog.asset_swept(gone, 26).await.unwrap();
    assert_eq!(bench.catalog.media_info(planned.asset).await.unwrap(), None);
    assert!(bench.catalog.assets_to_sweep().await.unwrap().is_empty());
    assert!(matches!(
        bench.catalog.retry_asset(planned.asset, &somebody(), 25).await,
        Err(CatalogError::Refused(_))
    ));
}

#[tokio::test]
async fn lists_are_newest_first_filtered_and_cut_into_pages() {
    let bench = Bench::new().await;
    let mut made = Vec::new();
    for now_ms in 0..7 {
        made.push(bench.asset(now_ms).await);
    }
    made.reverse();
    let mut filter = AssetFilter {
        tenant: TenantId::DEFAULT,
        states: vec![AssetState::Waiting],
        title_contains: Some("CA".into()),
        after: None,
        limit: 3,
    };
    let mut found = Vec::new();
    loop {
        let page = bench.catalog.list_assets(&filter).await.unwrap();
        found.extend(page.rows.iter().map(|row| row.id));
        let Some(next) = page.next else { break };
        filter.after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(found, made);
    filter.title_contains = Some("dog".into());
    assert!(bench.catalog.list_assets(&filter).await.unwrap().rows.is_empty());

    let tasks = TaskFilter {
        tenant: TenantId::DEFAULT,
        asset: Some(made[0]),
        states: vec![TaskState::Ready, TaskState::Leased],
        kinds: vec![TaskKind::Probe],
        after: None,
        limit: 10,
    };
    assert_eq!(bench.catalog.list_tasks(&tasks).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn why_is_it_waiting_and_how_much_of_what_is_there() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    assert_eq!(
        bench.waits_for(planned.encodes[1], 2).await,
        "No worker that is connected takes encode tasks: start one that does"
    );
    bench.machine(7, 2).await;
    assert_eq!(
        bench.waits_for(planned.encodes[1], 2).await,
        "Waits for a free worker: 1 task is ahead of it in its tier, of this tenant"
    );
    let claimed = bench.claim(&[TaskKind::Encode], 2).await.unwrap();
    bench.fail(&claimed, FailureCode::StorageFailed, 3).await;
    assert_eq!(
        bench.waits_for(claimed.task.id, 4).await,
        "Waits until 00:00:01 UTC before the second try, because the first failed: for the test"
    );

    let counts = bench.catalog.counts().await.unwrap();
    let of = |kind, state| {
        counts
            .tasks
            .iter()
            .find(|count| count.kind == kind && count.state == state)
            .map_or(0, |count| count.count)
    };
    assert_eq!(of(TaskKind::Encode, TaskState::Ready), 1);
    assert_eq!(of(TaskKind::Encode, TaskState::RetryWait), 1);
    assert_eq!(of(TaskKind::Publish, TaskState::Blocked), 1);
    assert_eq!(counts.assets[0].count, 1);
}

#[tokio::test]
async fn events_rise_and_reach_subscribers_after_the_commit() {
    let bench = Bench::new().await;
    let mut live = bench.catalog.subscribe();
    let planned = bench.planned(1).await;
    let stored = bench.catalog.events_after(0, 500).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < stored.len() {
        let next = tokio::time::timeout(Duration::from_secs(30), live.recv()).await;
        heard.push((*next.expect("an event in time").unwrap()).clone());
    }
    assert_eq!(heard, stored);
    assert!(live.try_recv().is_err(), "and nothing twice");
    assert!(stored.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!(stored.last().unwrap().seq, *bench.catalog.last_event().borrow());
    let kinds: BTreeSet<&str> = stored.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        BTreeSet::from([
            "upload.created",
            "upload.finished",
            "asset.created",
            "asset.planned",
            "task.changed"
        ])
    );
    assert!(stored.iter().any(|event| event.asset == Some(planned.asset)));
}

#[tokio::test]
async fn the_event_of_a_failure_promises_no_other_try() {
    let bench = Bench::new().await;
    let asset = bench.asset(1).await;
    for now_ms in [100_000, 200_000, 300_000] {
        let claimed = bench.claim(&EVERY_KIND, now_ms).await.unwrap();
        bench.fail(&claimed, FailureCode::Internal, now_ms).await;
    }
    let events = bench.catalog.events_of_asset(asset, 100).await.unwrap();
    let failed = events.iter().find(|event| event.kind == "asset.failed").unwrap();
    assert_eq!(failed.data["message"], FailureCode::Internal.for_creator_at_last());
}

#[tokio::test]
async fn what_is_not_required_can_be_tried_again_until_publishing_begins() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let stills = bench.claim(&[TaskKind::Stills], 2).await.unwrap();
    bench.fail(&stills, FailureCode::NothingDecodes, 3).await;
    bench.catalog.retry_task(planned.stills, &somebody(), 4).await.unwrap();
    let stills = bench.claim(&[TaskKind::Stills], 5).await.unwrap();
    bench.fail(&stills, FailureCode::NothingDecodes, 6).await;
    for kind in [TaskKind::Encode, TaskKind::Encode, TaskKind::Audio] {
        bench.do_one(kind, 10).await;
    }
    assert_eq!(bench.state_of(planned.publish).await, TaskState::Ready);
    let Err(CatalogError::Refused(refused)) = bench.catalog.retry_task(planned.stills, &somebody(), 11).await
    else {
        panic!("publishing goes on without it")
    };
    assert_eq!(refused.state, "being_published");
    assert_eq!(bench.state_of(planned.stills).await, TaskState::Dead);
}

#[tokio::test]
async fn old_events_are_removed_but_never_the_newest() {
    let bench = Bench::new().await;
    for now_ms in [1, 2, 3, 1_000, 2_000] {
        bench.upload(now_ms).await;
    }
    assert_eq!(bench.catalog.prune_events(1_000).await.unwrap(), 3);
    assert_eq!(bench.catalog.prune_events(1_000).await.unwrap(), 0);
    assert_eq!(bench.catalog.oldest_event().await.unwrap(), 4);
    let left = bench.catalog.events_after(0, 10).await.unwrap();
    assert_eq!(left.iter().map(|event| event.seq).collect::<Vec<_>>(), [4, 5]);

    assert_eq!(bench.catalog.prune_events(i64::MAX).await.unwrap(), 1);
    assert_eq!(bench.catalog.prune_events(i64::MAX).await.unwrap(), 0);
    let bench = bench.restarted().await;
    assert_eq!(*bench.catalog.last_event().borrow(), 5, "numbers go on");
    bench.upload(3_000).await;
    assert_eq!(*bench.catalog.last_event().borrow(), 6);
}

#[tokio::test]
async fn the_dead_letters_of_a_deleted_asset_bother_nobody() {
    let bench = Bench::new().await;
    let asset = bench.asset(1).await;
    let claimed = bench.claim(&EVERY_KIND, 2).await.unwrap();
    bench.fail(&claimed, FailureCode::NotMedia, 3).await;
    let mut dead = TaskFilter {
        tenant: TenantId::DEFAULT,
        asset: None,
        states: vec![TaskState::Dead],
        kinds: vec![],
        after: None,
        limit: 10,
    };
    let counted =
        async || bench.catalog.counts().await.unwrap().tasks.iter().map(|count| count.count).sum::<u64>();
    assert_eq!((bench.catalog.list_tasks(&dead).await.unwrap().rows.len(), counted().await), (1, 1));
    bench.catalog.delete_asset(asset, &somebody(), 4).await.unwrap();
    assert_eq!((bench.catalog.list_tasks(&dead).await.unwrap().rows.len(), counted().await), (0, 0));
    dead.asset = Some(asset);
    assert_eq!(bench.catalog.list_tasks(&dead).await.unwrap().rows.len(), 1, "who asks for it gets it");
}
