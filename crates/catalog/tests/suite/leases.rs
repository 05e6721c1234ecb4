//! Leases: claimed by one at a time, fenced by the attempt, lost, given back, tried again, given up.

use crate::support::{Bench, EVERY_KIND, LEASE_MS, claim, encoded, somebody, worker};
use reelyard_catalog::{CompletedTask, HeartbeatAnswer, Settled};
use reelyard_model::{
    AssetState, FailureCode, TaskId, TaskState,
    work::{Progress, TaskKind, TaskResult},
};
use std::collections::BTreeSet;

const PROGRESS: Progress = Progress { done_us: 3, total_us: 9 };

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_task_is_claimed_twice_by_many_workers_on_two_handles() {
    const TASKS: usize = 40;
    let bench = Bench::new().await;
    for _ in 0..TASKS {
        bench.asset(1).await;
    }
    let second = bench.second_handle().await;
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..8u128 {
        let catalog = if number % 2 == 0 { bench.catalog.clone() } else { second.clone() };
        workers.spawn(async move {
            let mut mine = Vec::new();
            while let Some(claimed) = catalog.claim(&claim(number, &EVERY_KIND, 2)).await.unwrap() {
                assert_eq!(claimed.task.worker, Some(worker(number)));
                assert_eq!(claimed.task.attempt, 1);
                mine.push(claimed.task.id);
            }
            mine
        });
    }
    let claimed: Vec<TaskId> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), TASKS);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), TASKS);
}

#[tokio::test]
async fn the_urgent_come_before_the_old_and_the_old_before_the_young() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let young = bench.asset(3).await;
    let mut order = Vec::new();
    while let Some(claimed) = bench.claim(&EVERY_KIND, 5).await {
        order.push((claimed.task.kind, claimed.task.asset));
    }
    assert_eq!(order[0], (TaskKind::Probe, young), "a probe has the higher priority");
    assert!(order[1..].iter().all(|(_, asset)| *asset == planned.asset));
    assert_eq!(order.len(), 5, "publish is blocked: {order:?}");
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_writes_nothing_more() {
    let bench = Bench::new().await;
    let asset = bench.asset(1).await;
    let first = bench.claim(&EVERY_KIND, 10).await.unwrap();
    let (task, after_lease) = (first.task.id, 11 + LEASE_MS as i64);
    assert!(bench.catalog.lose_expired_leases(after_lease - 1, 0).await.unwrap().is_empty(), "not yet over");
    let lost = bench.catalog.lose_expired_leases(after_lease, 0).await.unwrap();
    assert_eq!((lost.len(), lost[0].lost_count, lost[0].failed_count), (1, 1, 0));
    let second = bench.claim(&EVERY_KIND, after_lease + 10_000).await.unwrap();
    assert_eq!((second.task.id, second.task.attempt), (task, 2));

    let before = bench.catalog.task(task).await.unwrap().unwrap();
    let newest = *bench.catalog.last_event().borrow();
    let done = CompletedTask { task, attempt: 1, result: encoded(), warnings: vec!["x".into()], now_ms: 99 };
    assert_eq!(
        bench.catalog.heartbeat(task, 1, PROGRESS, LEASE_MS, 99).await.unwrap(),
        HeartbeatAnswer::Lost
    );
    assert_eq!(bench.catalog.complete_task(done).await.unwrap(), Settled::Lost);
    assert_eq!(bench.fail(&first, FailureCode::NotMedia, 99).await, Settled::Lost);
    let (stale_probe, _) = crate::support::completed_probe(&first, 99);
    assert_eq!(bench.catalog.complete_probe(stale_probe).await.unwrap(), Settled::Lost);
    assert!(!bench.catalog.release(task, 1, 99).await.unwrap());

    let after = bench.catalog.task(task).await.unwrap().unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    assert_eq!(*bench.catalog.last_event().borrow(), newest, "and said nothing");
    assert_eq!(bench.asset_state(asset).await, AssetState::Waiting);
}

#[tokio::test]
async fn a_lease_that_ran_out_but_was_not_claimed_again_is_lost_too() {
    let bench = Bench::new().await;
    bench.asset(1).await;
    let claimed = bench.claim(&EVERY_KIND, 10).await.unwrap();
    bench.catalog.lose_expired_leases(10_000, 0).await.unwrap();
    let (done, _) = crate::support::completed_probe(&claimed, 10_001);
    assert_eq!(bench.catalog.complete_probe(done).await.unwrap(), Settled::Lost);
}

#[tokio::test]
async fn heartbeats_keep_a_lease_and_show_progress() {
    let bench = Bench::new().await;
    bench.asset(1).await;
    let claimed = bench.claim(&EVERY_KIND, 10).await.unwrap();
    for now_ms in [500, 1_000, 1_500, 2_000] {
        let answer = bench.catalog.heartbeat(claimed.task.id, 1, PROGRESS, LEASE_MS, now_ms).await.unwrap();
        assert_eq!(answer, HeartbeatAnswer::Continue);
        assert!(bench.catalog.lose_expired_leases(now_ms + 900, 0).await.unwrap().is_empty());
    }
    let row = bench.catalog.task(claimed.task.id).await.unwrap().unwrap();
    assert_eq!((row.done_us, row.total_us, row.lease_until_ms), (3, 9, Some(3_000)));
}

#[tokio::test]
async fn a_report_that_comes_twice_is_taken_once() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let claimed = bench.claim(&[TaskKind::Audio], 2).await.unwrap();
    let done = |now_ms| CompletedTask {
        task: claimed.task.id,
        attempt: 1,
        result: encoded(),
        warnings: vec!["quiet".into()],
        now_ms,
    };
    assert_eq!(bench.catalog.complete_task(done(3)).await.unwrap(), Settled::Now);
    let newest = *bench.catalog.last_event().borrow();
    assert_eq!(bench.catalog.complete_task(done(4)).await.unwrap(), Settled::Before);
    assert_eq!(*bench.catalog.last_event().borrow(), newest);
    let asset = bench.catalog.asset(planned.asset).await.unwrap().unwrap();
    assert_eq!(asset.warnings, ["The file is odd.", "quiet"]);

    let failing = bench.claim(&[TaskKind::Stills], 5).await.unwrap();
    assert_eq!(bench.fail(&failing, FailureCode::StorageFailed, 6).await, Settled::Now);
    assert_eq!(bench.fail(&failing, FailureCode::StorageFailed, 7).await, Settled::Before);
    assert_eq!(bench.catalog.task(failing.task.id).await.unwrap().unwrap().failed_count, 1);
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_after_its_back_off() {
    let bench = Bench::new().await;
    bench.asset(1).await;
    let claimed = bench.claim(&EVERY_KIND, 10).await.unwrap();
    bench.fail(&claimed, FailureCode::StorageFailed, 20).await;
    let row = bench.catalog.task(claimed.task.id).await.unwrap().unwrap();
    // The policy's first wait is a second at most, and the random number was the largest.
    assert_eq!((row.state, row.not_before_ms, row.failed_count), (TaskState::RetryWait, 1_020, 1));
    assert_eq!(row.failure, Some(crate::support::failure(FailureCode::StorageFailed)));
    assert!(bench.claim(&EVERY_KIND, 1_019).await.is_none());
    assert_eq!(bench.claim(&EVERY_KIND, 1_020).await.unwrap().task.attempt, 2);
}

#[tokio::test]
async fn what_the_file_is_to_blame_for_is_not_tried_again() {
    let bench = Bench::new().await;
    let asset = bench.asset(1).await;
    let claimed = bench.claim(&EVERY_KIND, 10).await.unwrap();
    bench.fail(&claimed, FailureCode::NotMedia, 20).await;
    assert_eq!(bench.state_of(claimed.task.id).await, TaskState::Dead);
    let row = bench.catalog.asset(asset).await.unwrap().unwrap();
    assert_eq!(row.state, AssetState::Failed);
    assert_eq!(row.failure.unwrap().stderr_tail, "the last words", "the evidence is kept");
}

#[tokio::test]
async fn failures_and_losses_are_counted_apart_and_the_third_loss_is_quarantine() {
    let bench = Bench::new().await;
    let asset = bench.asset(1).await;
    let mut now_ms = 10;
    for round in 1..=2 {
        let claimed = bench.claim(&EVERY_KIND, now_ms).await.unwrap();
        bench.fail(&claimed, FailureCode::Internal, now_ms).await;
        now_ms += 100_000;
        let claimed = bench.claim(&EVERY_KIND, now_ms).await.unwrap();
        now_ms += 100_000;
        bench.catalog.lose_expired_leases(now_ms, 7).await.unwrap();
        let row = bench.catalog.task(claimed.task.id).await.unwrap().unwrap();
        assert_eq!((row.state, row.failed_count, row.lost_count), (TaskState::RetryWait, round, round));
        now_ms += 100_000;
    }
    let claimed = bench.claim(&EVERY_KIND, now_ms).await.unwrap();
    bench.catalog.lose_expired_leases(now_ms + 100_000, 7).await.unwrap();
    let row = bench.catalog.task(claimed.task.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.failed_count, row.lost_count), (TaskState::Dead, 2, 3));
    let failure = row.failure.unwrap();
    assert_eq!(failure.code, FailureCode::LeaseLost);
    assert!(failure.detail.contains("attempt 5"), "{}", failure.detail);
    assert_eq!(bench.asset_state(asset).await, AssetState::Failed);
}

#[tokio::test]
async fn a_restart_frees_the_leases_of_the_process_that_is_gone_and_no_others() {
    let bench = Bench::new().await;
    bench.asset(1).await;
    bench.asset(2).await;
    bench.worker_in_a_server(worker(1), 3).await;
    bench.worker(worker(2), None, 3).await;
    let gone = bench.catalog.claim(&claim(1, &EVERY_KIND, 4)).await.unwrap().unwrap();
    let alive = bench.catalog.claim(&claim(2, &EVERY_KIND, 4)).await.unwrap().unwrap();

    let bench = bench.restarted().await;
    let released = bench.catalog.end_in_process_leases("node", 5, 0).await.unwrap();
    assert_eq!(released.iter().map(|row| row.id).collect::<Vec<_>>(), [gone.task.id]);
    assert!(
        bench.catalog.end_in_process_leases("node", 5, 0).await.unwrap().is_empty(),
        "the second time there are none"
    );
    assert_eq!(bench.state_of(alive.task.id).await, TaskState::Leased);
    let again = bench.claim(&EVERY_KIND, 6).await.unwrap();
    assert_eq!((again.task.id, again.task.attempt), (gone.task.id, 2));
    assert_eq!((again.task.failed_count, again.task.lost_count), (0, 0));
}

#[tokio::test]
async fn leases_that_could_not_be_renewed_are_forgiven_and_later_ones_are_not() {
    let bench = Bench::new().await;
    bench.asset(1).await;
    bench.asset(2).await;
    let before_the_outage = bench.claim(&EVERY_KIND, 0).await.unwrap();
    let after_it = bench.claim(&EVERY_KIND, 500).await.unwrap();
    // Until 100 ms nobody could be heard; whoever was heard since has a lease beyond this.
    let over_before_ms = 100 + LEASE_MS as i64;
    let now_ms = 10_000 + LEASE_MS as i64;
    let forgiven = bench.catalog.forgive_expired_leases(over_before_ms, now_ms, 0).await.unwrap();
    assert_eq!(forgiven.iter().map(|row| row.id).collect::<Vec<_>>(), [before_the_outage.task.id]);
    assert_eq!(
        (forgiven[0].state, forgiven[0].restart_count, forgiven[0].lost_count),
        (TaskState::Ready, 1, 0)
    );
    let lost = bench.catalog.lose_expired_leases(now_ms, 0).await.unwrap();
    assert_eq!(lost.iter().map(|row| row.id).collect::<Vec<_>>(), [after_it.task.id]);
    assert_eq!((lost[0].restart_count, lost[0].lost_count), (0, 1));
}

#[tokio::test]
async fn a_task_that_is_there_each_time_the_server_ends_is_set_aside() {
    let bench = Bench::new().await;
    let asset = bench.asset(1).await;
    let mut seen = Vec::new();
    let mut now_ms = 10;
    for _ in 0..8 {
        bench.worker_in_a_server(worker(1), now_ms).await;
        let claimed = bench.claim(&EVERY_KIND, now_ms).await.unwrap();
        let ended = bench.catalog.end_in_process_leases("node", now_ms + 1, 7).await.unwrap();
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].id, claimed.task.id);
        seen.push((ended[0].state, ended[0].lost_count));
        now_ms += 100_000;
    }
    let forgiven = [(TaskState::Ready, 0); 5];
    assert_eq!(seen[..5], forgiven, "restarts are the operator's doing");
    assert_eq!(seen[5..], [(TaskState::RetryWait, 1), (TaskState::RetryWait, 2), (TaskState::Dead, 3)]);
    let row = bench.catalog.asset(asset).await.unwrap().unwrap();
    let failure = row.failure.unwrap();
    assert_eq!((row.state, failure.code), (AssetState::Failed, FailureCode::LeaseLost));
    assert!(failure.detail.contains("8 times"), "{}", failure.detail);

    // Somebody asks for another try: it counts from the beginning.
    bench.catalog.retry_asset(asset, &somebody(), now_ms).await.unwrap();
    bench.worker_in_a_server(worker(1), now_ms).await;
    bench.claim(&EVERY_KIND, now_ms).await.unwrap();
    let ended = bench.catalog.end_in_process_leases("node", now_ms + 1, 7).await.unwrap();
    assert_eq!((ended[0].state, ended[0].restart_count), (TaskState::Ready, 1));
}

#[tokio::test]
async fn when_one_loss_is_the_end_of_an_asset_its_other_leases_are_cancelled_and_not_lost() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let mut now_ms = 10;
    for _ in 0..2 {
        let claimed = bench.claim(&[TaskKind::Encode], now_ms).await.unwrap();
        assert_eq!(claimed.task.id, planned.encodes[0]);
        bench.catalog.lose_expired_leases(now_ms + 10_000, 0).await.unwrap();
        now_ms += 100_000;
    }
    for encode in planned.encodes {
        assert_eq!(bench.claim(&[TaskKind::Encode], now_ms).await.unwrap().task.id, encode);
    }
    let lost = bench.catalog.lose_expired_leases(now_ms + 10_000, 0).await.unwrap();
    assert_eq!(lost.iter().map(|task| task.id).collect::<Vec<_>>(), [planned.encodes[0]]);
    assert_eq!(bench.state_of(planned.encodes[0]).await, TaskState::Dead);
    assert_eq!(bench.state_of(planned.encodes[1]).await, TaskState::Cancelled);
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Failed);
}

#[tokio::test]
async fn chunks_of_one_asset_come_from_one_encoder() {
    let bench = Bench::new().await;
    bench.planned(1).await;
    let first = bench.claim(&[TaskKind::Encode], 2).await.unwrap();
    let second = bench.claim(&[TaskKind::Encode], 3).await.unwrap();
    let done = |claimed: &reelyard_catalog::Claimed, encoder: &str| CompletedTask {
        task: claimed.task.id,
        attempt: 1,
        result: TaskResult::Encoded { encoder: encoder.into(), tracks: Vec::new(), warnings: Vec::new() },
        warnings: Vec::new(),
        now_ms: 4,
    };
    assert_eq!(bench.catalog.complete_task(done(&first, "h264_nvenc")).await.unwrap(), Settled::Now);
    assert_eq!(bench.catalog.complete_task(done(&second, "libx264")).await.unwrap(), Settled::OtherEncoder);
    assert_eq!(bench.state_of(second.task.id).await, TaskState::Leased);
    // Sound has an encoder of its own.
    let sound = bench.claim(&[TaskKind::Audio], 5).await.unwrap();
    assert_eq!(bench.catalog.complete_task(done(&sound, "aac")).await.unwrap(), Settled::Now);
}
