//! What many nodes and workers need of one catalogue: tickets, chores and keys that nodes share, batches of claims,
//! heartbeats and reports, and what operators do.

use crate::support::{Bench, EVERY_KIND, LEASE_MS, encoded, failure, somebody, worker};
use reelyard_catalog::{
    Actor, Catalog, CatalogError, ClaimBatch, ClaimWish, CompletedTask, FailedTask, Heartbeat,
    HeartbeatAnswer, Settled, TenantShare,
};
use reelyard_model::{
    FailureCode, TaskId, TaskState, TenantId, Tier,
    work::{Progress, TaskKind, TaskResult},
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::Barrier, task::JoinSet};
use uuid::Uuid;

const NOTHING_YET: Progress = Progress { done_us: 0, total_us: 0 };

async fn with_outbox() -> Bench {
    let bench = Bench::new().await;
    Bench { catalog: bench.catalog.clone().with_outbox(), place: bench.place }
}

fn token(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn wish(number: u128, kinds: &[TaskKind], slots: u32) -> ClaimWish {
    ClaimWish { worker: worker(number), kinds: kinds.to_vec(), slots, claim: None }
}

/// What each wish got.
async fn claim_for(catalog: &Catalog, wishes: Vec<ClaimWish>, now_ms: i64) -> Vec<Vec<TaskId>> {
    let batch = ClaimBatch { wishes, lease_ms: LEASE_MS, now_ms };
    let claimed = catalog.claim_many(&batch).await.unwrap();
    claimed.into_iter().map(|got| got.into_iter().map(|claimed| claimed.task.id).collect()).collect()
}

async fn taken(catalog: &Catalog, number: u128, now_ms: i64, until_ms: i64) -> Vec<TaskId> {
    let tickets = catalog.take_tickets(token(number), 100, now_ms, until_ms).await.unwrap();
    tickets.into_iter().map(|ticket| ticket.task).collect()
}

fn report(task: TaskId, attempt: u32, encoder: &str, now_ms: i64) -> CompletedTask {
    let result = TaskResult::Encoded { encoder: encoder.into(), tracks: Vec::new(), warnings: Vec::new() };
    CompletedTask { task, attempt, result, warnings: Vec::new(), now_ms }
}

async fn settled(bench: &Bench, reports: Vec<CompletedTask>) -> Vec<Settled> {
    let stored = bench.catalog.complete_tasks(reports).await.unwrap();
    stored.into_iter().map(|one| one.settled).collect()
}

// --- claims

#[tokio::test]
async fn what_a_claim_brought_can_be_given_back_by_its_name_and_by_its_worker_alone() {
    let bench = Bench::new().await;
    for number in 0..3 {
        bench.asset_of(TenantId::DEFAULT, Tier::Normal, number).await;
    }
    let named =
        |number: u128, name: u128| ClaimWish { claim: Some(token(name)), ..wish(number, &EVERY_KIND, 1) };
    let lost = claim_for(&bench.catalog, vec![named(1, 11)], 100).await.remove(0);
    let heard = claim_for(&bench.catalog, vec![named(1, 12)], 101).await.remove(0);
    let of_another = claim_for(&bench.catalog, vec![named(2, 11)], 102).await.remove(0);
    assert_eq!(bench.catalog.release_unheard(worker(1), &[], 103).await.unwrap(), 0);
    for (again, expected) in [(104, 1), (105, 0)] {
        let released =
            bench.catalog.release_unheard(worker(1), &[token(11), token(10)], again).await.unwrap();
        assert_eq!(released, expected);
    }
    let row = bench.catalog.task(lost[0]).await.unwrap().unwrap();
    assert_eq!((row.state, row.lost_count, row.failed_count), (TaskState::Ready, 0, 0));
    for kept in [heard[0], of_another[0]] {
        assert_eq!(bench.catalog.task(kept).await.unwrap().unwrap().state, TaskState::Leased);
    }
    // Without a name it is not found by the one that it had before.
    let anew = claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 1)], 106).await.remove(0);
    assert_eq!(anew, lost);
    assert_eq!(bench.catalog.release_unheard(worker(1), &[token(11)], 107).await.unwrap(), 0);
}

// --- tickets

#[tokio::test]
async fn a_ready_task_leaves_a_ticket_only_where_there_is_a_broker() {
    let without = Bench::new().await;
    without.planned(1).await;
    assert_eq!(without.catalog.outbox_len().await.unwrap(), 0);

    let bench = with_outbox().await;
    let planned = bench.planned(1).await;
    let tickets = bench.catalog.take_tickets(token(1), 100, 2, 50).await.unwrap();
    let of: BTreeSet<TaskId> = tickets.iter().map(|ticket| ticket.task).collect();
    let [first, second] = planned.encodes;
    assert_eq!(of, BTreeSet::from([first, second, planned.audio, planned.stills]), "publish is blocked");
    assert!(tickets.iter().all(|ticket| ticket.tier == Tier::Normal && !ticket.traceparent.is_empty()));
}

#[tokio::test]
async fn a_ticket_is_one_relays_until_it_gives_it_back_or_is_silent_for_too_long() {
    let bench = with_outbox().await;
    bench.planned(1).await;
    let other = bench.second_handle().await;
    let (mine, theirs) = tokio::join!(taken(&bench.catalog, 1, 2, 50), taken(&other, 2, 2, 50));
    let each_once: BTreeSet<&TaskId> = mine.iter().chain(&theirs).collect();
    assert_eq!((mine.len() + theirs.len(), each_once.len()), (4, 4), "{mine:?} {theirs:?}");

    // Whoever got some gives them back, at once or for later; the other's stay away.
    bench.catalog.tickets_given_back(token(1), 0).await.unwrap();
    bench.catalog.tickets_given_back(token(2), 3).await.unwrap();
    assert_eq!(taken(&bench.catalog, 3, 2, 60).await.len(), mine.len());
    bench.catalog.tickets_given_back(token(3), 3).await.unwrap();
    assert_eq!(taken(&bench.catalog, 3, 3, 60).await.len(), 4);
    assert_eq!(taken(&bench.catalog, 4, 59, 70).await, []);
    assert_eq!(taken(&bench.catalog, 4, 60, 70).await.len(), 4, "the third was silent for too long");
    // The late confirmation of the third removes nothing that is the fourth's now.
    let all = taken(&bench.catalog, 5, 70, 80).await;
    bench.catalog.tickets_issued(token(3), &all).await.unwrap();
    assert_eq!(bench.catalog.outbox_len().await.unwrap(), 4);
    bench.catalog.tickets_issued(token(5), &all).await.unwrap();
    assert_eq!(bench.catalog.outbox_len().await.unwrap(), 0);
}

#[tokio::test]
async fn a_claim_drops_the_ticket_and_a_task_that_is_ready_again_gets_a_new_one() {
    let bench = with_outbox().await;
    bench.planned(1).await;
    let claimed = bench.claim(&[TaskKind::Audio], 2).await.unwrap();
    assert!(!taken(&bench.catalog, 1, 3, 50).await.contains(&claimed.task.id));
    // Given back while the relay is at work: its confirmation is of the ticket before.
    bench.catalog.release(claimed.task.id, claimed.task.attempt, 4).await.unwrap();
    bench.catalog.tickets_issued(token(1), &[claimed.task.id]).await.unwrap();
    assert_eq!(taken(&bench.catalog, 2, 5, 50).await, [claimed.task.id]);
}

// --- what nodes share

#[tokio::test]
async fn one_node_does_a_chore_until_it_is_silent() {
    let bench = Bench::new().await;
    let take =
        async |node: &str, now_ms| bench.catalog.take_duty("sweep", node, now_ms, now_ms + 30).await.unwrap();
    assert!(take("first", 0).await);
    assert!(!take("second", 1).await);
    assert!(take("first", 20).await, "it goes on");
    assert!(!take("second", 49).await);
    assert!(take("second", 50).await, "the first is silent");
    assert!(!take("first", 51).await);
    assert!(bench.catalog.take_duty("other", "first", 51, 60).await.unwrap(), "each chore for itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_nodes_that_start_at_once_share_one_secret() {
    let bench = Bench::new().await;
    let together = Arc::new(Barrier::new(8));
    let mut nodes = JoinSet::new();
    for number in 0..8 {
        let (catalog, together) = (bench.second_handle().await, Arc::clone(&together));
        nodes.spawn(async move {
            together.wait().await;
            catalog.shared_secret("signing", &format!("of node {number}"), 1).await.unwrap()
        });
    }
    let all: BTreeSet<String> = nodes.join_all().await.into_iter().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    let later = bench.catalog.shared_secret("signing", "too late", 2).await.unwrap();
    assert_eq!(all.first(), Some(&later));
}

#[tokio::test]
async fn workers_are_rows_until_nobody_has_heard_of_them_for_long() {
    let bench = Bench::new().await;
    let first = bench.machine(1, 10).await;
    let second = bench.machine(2, 20).await;
    let shown = bench.catalog.workers(0).await.unwrap();
    assert_eq!(shown.iter().map(|row| row.id).collect::<Vec<_>>(), [second, first], "newest first");
    assert_eq!((shown[1].machine["cores"].as_u64(), shown[1].in_process), (Some(8), false));

    bench.catalog.workers_seen(&[first], 500).await.unwrap();
    bench.catalog.workers_seen(&[first], 400).await.unwrap();
    let row = bench.catalog.worker(first).await.unwrap().unwrap();
    assert_eq!(row.last_seen_ms, 500, "never back");
    bench.catalog.worker_ended(second, 600).await.unwrap();
    assert_eq!(bench.catalog.workers(700).await.unwrap().len(), 1, "one that ended is shown for a while");
    bench.machine(2, 650).await;
    assert_eq!(bench.catalog.worker(second).await.unwrap().unwrap().ended_ms, None, "it is back");

    bench.asset(700).await;
    let held = claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 1)], 701).await;
    assert_eq!(held[0].len(), 1);
    assert_eq!(bench.catalog.forget_workers(10_000).await.unwrap(), 1, "the first holds a task");
    assert_eq!(bench.catalog.workers(0).await.unwrap()[0].running, 1);
}

// --- claims in batches

#[tokio::test]
async fn a_batch_serves_several_workers_and_spreads_the_chunks_over_them() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let wishes = vec![wish(1, &[TaskKind::Encode], 4), wish(2, &[TaskKind::Encode], 4), wish(3, &[], 4)];
    let got = claim_for(&bench.catalog, wishes, 2).await;
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0], "one chunk each: {got:?}");
    let both: BTreeSet<TaskId> = got.into_iter().flatten().collect();
    assert_eq!(both, BTreeSet::from(planned.encodes));
    for (number, task) in [(1, planned.encodes[0]), (2, planned.encodes[1])] {
        let row = bench.catalog.task(task).await.unwrap().unwrap();
        assert_eq!((row.state, row.attempt), (TaskState::Leased, 1), "worker {number}");
    }
}

#[tokio::test]
async fn a_draining_worker_and_a_paused_kind_get_nothing() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    bench.machine(1, 1).await;
    assert!(bench.catalog.set_worker_drain(worker(1), true, &somebody(), 2).await.unwrap());
    assert!(
        !bench.catalog.set_worker_drain(worker(9), true, &somebody(), 2).await.unwrap(),
        "no such worker"
    );
    let got = claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 4)], 3).await;
    assert_eq!(got[0], []);
    assert_eq!(
        bench.waits_for(planned.audio, 3).await,
        "The one worker that takes audio tasks accepts nothing new, because it is paused or being drained"
    );
    bench.catalog.set_worker_drain(worker(1), false, &somebody(), 4).await.unwrap();

    assert!(bench.catalog.pause_queue(TaskKind::Encode, &somebody(), 5).await.unwrap());
    let again = Actor { name: "another".into(), reason: None };
    assert!(!bench.catalog.pause_queue(TaskKind::Encode, &again, 6).await.unwrap(), "the first counts");
    let got = claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 9)], 7).await;
    assert_eq!(
        got[0].iter().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([planned.audio, planned.stills])
    );
    assert_eq!(
        bench.waits_for(planned.encodes[0], 7).await,
        "Its queue was paused by a person of the tests at 00:00:00 UTC: resume it with `reelyard queues resume encode`"
    );
    let queues = bench.catalog.queues(8).await.unwrap();
    let encode = queues.iter().find(|queue| queue.kind == TaskKind::Encode).unwrap();
    assert_eq!(encode.pause.as_ref().map(|pause| pause.reason.as_str()), Some("to see what happens"));
    assert_eq!((encode.ready[0].waiting, encode.running, encode.takers.workers), (2, 0, 1));
    assert_eq!(encode.oldest_ready_ms(), Some(1));

    assert!(bench.catalog.resume_queue(TaskKind::Encode, &somebody(), 9).await.unwrap());
    assert!(
        !bench.catalog.resume_queue(TaskKind::Encode, &somebody(), 9).await.unwrap(),
        "it was not paused"
    );
    assert_eq!(claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 9)], 10).await[0].len(), 2);
}

#[tokio::test]
async fn the_urgent_go_first_and_bulk_last_whenever_they_came() {
    let bench = Bench::new().await;
    let bulk = bench.asset_of(TenantId::DEFAULT, Tier::Bulk, 1).await;
    let normal = bench.asset_of(TenantId::DEFAULT, Tier::Normal, 2).await;
    let urgent = bench.asset_of(TenantId::DEFAULT, Tier::Urgent, 3).await;
    bench.machine(1, 3).await;
    assert_eq!(bench.waits_for(bulk, 4).await, "Waits for a free worker: 2 tasks of higher tiers go first");
    let mut order = Vec::new();
    for _ in 0..3 {
        order.extend(claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 1)], 4).await.remove(0));
    }
    assert_eq!(order, [urgent, normal, bulk]);
    let row = bench.catalog.task(urgent).await.unwrap().unwrap();
    let asset = bench.catalog.asset(row.asset).await.unwrap().unwrap();
    assert_eq!((row.tier, asset.priority), (Tier::Urgent, 100));
}

#[tokio::test]
async fn tenants_share_the_slots_by_their_weight() {
    let bench = Bench::new().await;
    let heavy = bench.tenant(7).await;
    for number in 0..12 {
        bench.asset_of(TenantId::DEFAULT, Tier::Normal, number).await;
        bench.asset_of(heavy, Tier::Normal, 100 + number).await;
    }
    let share = TenantShare { weight: Some(2), running_tasks: None };
    bench.catalog.set_tenant_share(heavy, share, &somebody(), 200).await.unwrap();
    let batch = ClaimBatch { wishes: vec![wish(1, &EVERY_KIND, 9)], lease_ms: LEASE_MS, now_ms: 201 };
    let claimed = bench.catalog.claim_many(&batch).await.unwrap().remove(0);
    let of_heavy = claimed.iter().filter(|claimed| claimed.task.tenant == heavy).count();
    assert_eq!((claimed.len(), of_heavy), (9, 6), "although all of its tasks are younger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_that_claim_at_once_never_pass_a_tenants_cap() {
    const CAP: u32 = 5;
    let bench = Bench::new().await;
    let capped = bench.tenant(7).await;
    let mut last = None;
    for number in 0..40 {
        last = Some(bench.asset_of(capped, Tier::Normal, number).await);
    }
    let share = TenantShare { weight: None, running_tasks: Some(CAP) };
    bench.catalog.set_tenant_share(capped, share, &somebody(), 50).await.unwrap();
    let other = bench.second_handle().await;
    for round in 0..4_i64 {
        let together = Arc::new(Barrier::new(16));
        let mut workers = JoinSet::new();
        for number in 0..16_u128 {
            let catalog = if number % 2 == 0 { bench.catalog.clone() } else { other.clone() };
            let together = Arc::clone(&together);
            workers.spawn(async move {
                together.wait().await;
                claim_for(&catalog, vec![wish(number, &EVERY_KIND, 2)], 60 + round).await.remove(0)
            });
        }
        let mut claimed: Vec<TaskId> = workers.join_all().await.into_iter().flatten().collect();
        assert!(claimed.len() <= CAP as usize, "{claimed:?}");
        // One that all of them passed over, because another held the tenant's row just then.
        while let Some(left) = claim_for(&bench.catalog, vec![wish(99, &EVERY_KIND, 1)], 61).await[0].first()
        {
            claimed.push(*left);
        }
        assert_eq!(claimed.len(), CAP as usize);
        assert_eq!(bench.catalog.tenant_running(capped).await.unwrap(), CAP);
        if round == 0 {
            bench.machine(1, 60).await;
            assert_eq!(
                bench.waits_for(last.unwrap(), 61).await,
                "Its tenant runs 5 of 5 tasks at a time; it starts when one of them ends"
            );
        }
        for task in claimed {
            let failed = FailedTask {
                task,
                attempt: 1,
                failure: failure(FailureCode::NotMedia),
                random: 0,
                now_ms: 70,
            };
            bench.catalog.fail_task(failed).await.unwrap();
        }
    }
}

// --- reports and heartbeats in batches

#[tokio::test]
async fn reports_of_a_batch_are_judged_each_for_itself() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    claim_for(&bench.catalog, vec![wish(1, &[TaskKind::Encode, TaskKind::Audio], 9)], 2).await;
    bench.catalog.cancel_task(planned.audio, &somebody(), 3).await.unwrap();
    let [first, second] = planned.encodes;
    let reports = vec![
        report(first, 1, "libx264", 4),
        report(first, 1, "libx264", 4),
        report(second, 1, "h264_nvenc", 4),
        report(planned.audio, 1, "aac", 4),
        report(second, 7, "libx264", 4),
    ];
    assert_eq!(
        settled(&bench, reports).await,
        [Settled::Now, Settled::Before, Settled::OtherEncoder, Settled::Cancelled, Settled::Lost]
    );
    let row = bench.catalog.task(second).await.unwrap().unwrap();
    assert_eq!(row.state, TaskState::Leased, "nothing was written");
    assert_eq!(bench.catalog.encoder_in_use(planned.asset).await.unwrap().as_deref(), Some("libx264"));
    // The same again: what counted is from before.
    assert_eq!(
        settled(&bench, vec![report(first, 1, "libx264", 5), report(second, 1, "libx264", 5)]).await,
        [Settled::Before, Settled::Now]
    );
    let unknown = bench.catalog.complete_tasks(vec![report(TaskId::from_uuid(token(5)), 1, "x", 5)]).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound { .. })), "{unknown:?}");
}

#[tokio::test]
async fn what_waits_for_a_batch_becomes_ready_once() {
    let bench = with_outbox().await;
    let planned = bench.planned(1).await;
    claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 9)], 2).await;
    bench.catalog.cancel_task(planned.stills, &somebody(), 3).await.unwrap();
    let reports = [planned.encodes[0], planned.encodes[1], planned.audio].map(|task| CompletedTask {
        task,
        attempt: 1,
        result: encoded(),
        warnings: Vec::new(),
        now_ms: 4,
    });
    assert_eq!(settled(&bench, reports.to_vec()).await, [Settled::Now; 3]);
    assert_eq!(bench.state_of(planned.publish).await, TaskState::Ready);
    let events = bench.catalog.events_of_asset(planned.asset, 500).await.unwrap();
    let ready =
        events.iter().filter(|event| event.task == Some(planned.publish) && event.data["state"] == "ready");
    assert_eq!(ready.count(), 1);
    assert_eq!(taken(&bench.catalog, 1, 5, 50).await, [planned.publish]);
}

#[tokio::test]
async fn heartbeats_of_a_batch_are_answered_each_for_itself() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    claim_for(&bench.catalog, vec![wish(1, &EVERY_KIND, 9)], 2).await;
    bench.catalog.cancel_task(planned.stills, &somebody(), 3).await.unwrap();
    bench.catalog.release(planned.audio, 1, 3).await.unwrap();
    let progress = Progress { done_us: 5, total_us: 9 };
    let beat = |task, attempt| Heartbeat { task, attempt, progress };
    let [first, second] = planned.encodes;
    let beats =
        [beat(first, 1), beat(planned.stills, 1), beat(planned.audio, 1), beat(second, 2), beat(second, 1)];
    assert_eq!(
        bench.catalog.heartbeats(&beats, LEASE_MS, 500).await.unwrap(),
        [
            HeartbeatAnswer::Continue,
            HeartbeatAnswer::Cancelled,
            HeartbeatAnswer::Lost,
            HeartbeatAnswer::Lost,
            HeartbeatAnswer::Continue
        ]
    );
    let row = bench.catalog.task(first).await.unwrap().unwrap();
    assert_eq!((row.lease_until_ms, row.done_us, row.total_us), (Some(500 + LEASE_MS as i64), 5, 9));
    let unknown = Heartbeat { task: TaskId::from_uuid(token(5)), attempt: 1, progress: NOTHING_YET };
    let answered = bench.catalog.heartbeats(&[unknown], LEASE_MS, 501).await.unwrap();
    assert_eq!(answered, [HeartbeatAnswer::Lost], "a task that there is not, as after a backup was put back");
}

#[tokio::test]
async fn the_evidence_of_every_attempt_is_kept() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let claimed = bench.claim(&[TaskKind::Audio], 10).await.unwrap();
    bench.fail(&claimed, FailureCode::StorageFailed, 20).await;
    let again = bench.claim(&[TaskKind::Audio], 1_000_000).await.unwrap();
    assert_eq!((again.task.id, again.task.attempt), (planned.audio, 2));
    bench.catalog.lose_expired_leases(2_000_000, 0).await.unwrap();
    let told = bench.catalog.task_failures(planned.audio).await.unwrap();
    let in_short: Vec<_> =
        told.iter().map(|one| (one.attempt, one.lost, one.failure.code, one.ended_ms)).collect();
    assert_eq!(
        in_short,
        [(2, true, FailureCode::LeaseLost, 2_000_000), (1, false, FailureCode::StorageFailed, 20)]
    );
    assert_eq!(told[1].failure.stderr_tail, "the last words");
    assert_eq!((told[1].worker, told[1].started_ms), (Some(worker(1)), Some(10)));
    assert!(
        bench
            .waits_for(planned.audio, 2_000_000)
            .await
            .ends_with("before the third try, because the worker that had the second fell silent")
    );
}
