//! The agent with real children under real supervision; only the control plane is in memory, and the depot is a folder.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use reelyard_agent::Watch;
use reelyard_model::{
    FailureCode,
    work::{Report, TaskResult, Verdict},
};
use std::time::Duration;
use world::{SHORT_LEASE_MS, World, failure_of, process_exists};

#[tokio::test]
async fn completed_means_that_every_file_is_in_the_depot() {
    let world = World::new();
    let task = world.grant("encode");
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(task)).await;
    match &reports[..] {
        [Report::Completed { result: TaskResult::Encoded { tracks, .. } }] => {
            assert_eq!(tracks[0].segments.len(), 20);
            for segment in &tracks[0].segments {
                let kept = world.kept(task, &segment.file.file);
                assert_eq!(std::fs::read_to_string(kept).unwrap(), segment.file.file);
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(world.scratch_is_empty());
    agent.drain().await;
}

#[tokio::test]
async fn whatever_a_child_does_the_next_task_is_done() {
    let world = World::new();
    let expected = [
        ("crash", FailureCode::DecoderCrashed),
        ("fail", FailureCode::NotMedia),
        ("be silent", FailureCode::ChildHung),
        ("lie", FailureCode::Internal),
        ("announce nothing", FailureCode::Internal),
    ];
    let tasks = expected.map(|(behaviour, code)| (world.grant(behaviour), code));
    let last = world.grant("encode");
    let agent = world.start_with(|config| {
        // For all of them: the others must not be taken for silent on a machine that stands still for a while.
        config.watch = Watch { no_progress: Duration::from_secs(5), ..Watch::default() };
    });
    let reports = world.until("the last report", |seen| seen.reports_of(last)).await;
    assert!(matches!(reports[0], Report::Completed { .. }), "{reports:?}");
    for (task, code) in tasks {
        let reports = world.until("a report", |seen| seen.reports_of(task)).await;
        let failure = failure_of(&reports[0]);
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.stderr_tail.contains("asked to"), "{failure:?}");
    }
    assert!(world.scratch_is_empty());
    agent.drain().await;
}

#[tokio::test]
async fn a_crash_has_to_happen_twice_before_the_file_is_blamed() {
    let world = World::new();
    let (once, always) = (world.grant("crash once"), world.grant("crash"));
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(once)).await;
    assert!(matches!(reports[..], [Report::Completed { .. }]), "{reports:?}");
    let reports = world.until("a report", |seen| seen.reports_of(always)).await;
    assert!(failure_of(&reports[0]).detail.starts_with("twice: "), "{reports:?}");
    assert!(world.scratch_is_empty());
    agent.drain().await;
}

#[tokio::test]
async fn a_missing_source_is_reported() {
    let world = World::new();
    let task = world.grant("encode");
    world.forget_source(task);
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(task)).await;
    assert_eq!(failure_of(&reports[0]).code, FailureCode::SourceMissing);
    agent.drain().await;
}

#[tokio::test]
async fn a_source_far_away_is_fetched_once_by_a_worker_and_counted() {
    let world = World::new();
    world.put_sources_far_away();
    let (crashes_once, fails) = (world.grant("crash once"), world.grant("fail"));
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(crashes_once)).await;
    assert!(matches!(reports[..], [Report::Completed { .. }]), "{reports:?}");
    let reports = world.until("a report", |seen| seen.reports_of(fails)).await;
    assert_eq!(failure_of(&reports[0]).code, FailureCode::NotMedia, "what the child says counts");
    let traffic = agent.sources.traffic();
    let (once, all) = ("crash once".len() + "fail".len(), 2 * "crash once".len() + "fail".len());
    assert_eq!((traffic.fetched_bytes, traffic.served_bytes), (once as u64, all as u64));
    agent.drain().await;
}

#[tokio::test]
async fn a_source_far_away_that_vanishes_is_reported_with_the_reason() {
    let world = World::new();
    world.put_sources_far_away();
    let task = world.grant("encode");
    // Gone between the look at its length and the first read.
    world.forget_next_source_once_opened();
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(task)).await;
    let failure = failure_of(&reports[0]);
    assert_eq!(failure.code, FailureCode::SourceMissing);
    assert!(failure.detail.contains("the source is gone"), "{}", failure.detail);
    agent.drain().await;
}

#[tokio::test]
async fn cancelled_and_lost_end_the_child_and_nothing_is_said() {
    for verdict in [Verdict::Cancelled, Verdict::Lost] {
        let world = World::with_lease(SHORT_LEASE_MS);
        let task = world.grant("work for ever");
        let agent = world.start();
        let child = world.child_at_work(task).await;
        assert!(process_exists(child));
        world.answer_heartbeats(verdict);
        world.until("the child's end", |_| (!process_exists(child)).then_some(())).await;
        world.until("an empty scratch directory", |_| world.scratch_is_empty().then_some(())).await;
        agent.drain().await;
        assert!(world.until("its end", |seen| Some(seen.reports_of(task))).await.is_none(), "{verdict:?}");
    }
}

#[tokio::test]
async fn when_the_control_plane_is_away_for_a_whole_lease_the_work_is_dropped() {
    let world = World::with_lease(SHORT_LEASE_MS);
    let task = world.grant("work for ever");
    let agent = world.start();
    let child = world.child_at_work(task).await;
    world.go_away();
    world.until("the child's end", |_| (!process_exists(child)).then_some(())).await;
    world.come_back();
    agent.drain().await;
    assert!(world.until("its end", |seen| Some(seen.reports_of(task))).await.is_none());
}

#[tokio::test]
async fn a_report_is_repeated_until_it_is_taken() {
    let world = World::new();
    let task = world.grant("encode");
    world.refuse_reports(3);
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(task)).await;
    assert!(matches!(reports[0], Report::Completed { .. }));
    agent.drain().await;
}

#[tokio::test]
async fn heartbeats_keep_a_short_lease() {
    let world = World::with_lease(SHORT_LEASE_MS);
    let task = world.grant("work for ever");
    let agent = world.start();
    let child = world.child_at_work(task).await;
    // They carry what the child last said.
    world.until("progress", |seen| (seen.child_of(task)? == child).then_some(())).await;
    // Six beats are two leases.
    world.until("six heartbeats", |seen| (seen.heartbeats_of(task) >= 6).then_some(())).await;
    world.answer_heartbeats(Verdict::Cancelled);
    agent.drain().await;
}

#[tokio::test]
async fn a_heartbeat_that_is_not_taken_is_sent_again_before_the_lease_is_over() {
    let world = World::new();
    let task = world.grant("work for ever");
    world.refuse_heartbeats(4);
    let agent = world.start();
    let child = world.until("a heartbeat", |seen| seen.child_of(task)).await;
    world.until("four heartbeats", |seen| (seen.heartbeats_of(task) >= 4).then_some(())).await;
    assert!(process_exists(child));
    world.answer_heartbeats(Verdict::Cancelled);
    agent.drain().await;
}

#[tokio::test]
async fn a_store_that_fails_for_good_fails_the_task() {
    let world = World::new();
    let task = world.grant("encode");
    world.fail_keeps(u32::MAX);
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(task)).await;
    assert_eq!(failure_of(&reports[0]).code, FailureCode::StorageFailed);
    assert!(world.scratch_is_empty());
    agent.drain().await;
}

#[tokio::test]
async fn a_store_that_fails_once_is_asked_again() {
    let world = World::new();
    let task = world.grant("encode");
    world.fail_keeps(1);
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(task)).await;
    assert!(matches!(reports[0], Report::Completed { .. }), "{reports:?}");
    agent.drain().await;
}

#[tokio::test]
async fn a_panic_in_one_attempt_does_not_end_the_slot() {
    let world = World::new();
    world.panic_at_next_source();
    world.grant("encode");
    let second = world.grant("encode");
    let agent = world.start();
    let reports = world.until("a report", |seen| seen.reports_of(second)).await;
    assert!(matches!(reports[0], Report::Completed { .. }));
    agent.drain().await;
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_claims_nothing_more() {
    let world = World::new();
    let running = world.grant("work for ever");
    let agent = world.start_with(|config| config.drain = Duration::from_millis(500));
    let child = world.child_at_work(running).await;
    agent.ask_to_drain();
    // The slot is busy, so this one would be next.
    let never = world.grant("encode");
    agent.ended().await;
    // It had half a second, then it was stopped and given back.
    world.until("the task to be given back", |seen| seen.was_released(running)).await;
    assert!(world.until("its end", |seen| Some(seen.reports_of(running))).await.is_none());
    assert!(!process_exists(child));
    assert!(world.until("its end", |seen| Some(seen.reports_of(never))).await.is_none());
    assert!(world.scratch_is_empty());
}

#[tokio::test]
async fn now_means_now() {
    let world = World::new();
    let task = world.grant("work for ever");
    let agent = world.start_with(|config| config.drain = Duration::from_secs(3600));
    let child = world.child_at_work(task).await;
    agent.ask_to_drain();
    agent.now().await;
    assert!(!process_exists(child));
    world.until("the task to be given back", |seen| seen.was_released(task)).await;
}

#[tokio::test]
async fn a_task_that_is_called_off_ends_before_its_next_heartbeat() {
    for verdict in [Verdict::Cancelled, Verdict::Lost] {
        let world = World::new();
        let task = world.grant("work for ever");
        let agent = world.start();
        let child = world.child_at_work(task).await;
        world.call_off(task, verdict);
        world.until("the child's end", |_| (!process_exists(child)).then_some(())).await;
        agent.drain().await;
        assert!(world.until("its end", |seen| Some(seen.reports_of(task))).await.is_none(), "{verdict:?}");
    }
}
