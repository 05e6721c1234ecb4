//! What operators do, what it leaves in the audit log, and what they are told of tasks that wait.

use crate::support::{Bench, Planned, somebody, worker};
use reelyard_catalog::{AuditFilter, CatalogError, NewWorker, ReplayFilter, TenantShare};
use reelyard_model::{AssetState, FailureCode, TaskState, TenantId, Tier, work::TaskKind};
use serde_json::json;
use std::collections::BTreeMap;

async fn log(bench: &Bench, subject: Option<String>) -> Vec<String> {
    let filter = AuditFilter { subject, limit: 100, ..AuditFilter::default() };
    let rows = bench.catalog.audit_log(&filter).await.unwrap();
    rows.into_iter().map(|row| row.action).collect()
}

#[tokio::test]
async fn every_operation_leaves_one_line_and_what_changes_nothing_leaves_none() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let (catalog, by) = (&bench.catalog, somebody());
    for now_ms in [2, 3] {
        catalog.cancel_task(planned.audio, &by, now_ms).await.unwrap();
    }
    catalog.retry_task(planned.audio, &by, 4).await.unwrap();
    for now_ms in [5, 6] {
        catalog.cancel_asset(planned.asset, &by, now_ms).await.unwrap();
    }
    catalog.retry_asset(planned.asset, &by, 7).await.unwrap();
    assert!(catalog.retry_asset(planned.asset, &by, 8).await.is_err(), "refused: no line");
    let share = TenantShare { weight: Some(3), running_tasks: Some(4) };
    catalog.set_tenant_share(TenantId::DEFAULT, share, &by, 9).await.unwrap();
    assert_eq!(catalog.tenant_share(TenantId::DEFAULT).await.unwrap(), share);
    assert_eq!(log(&bench, Some(planned.audio.to_string())).await, ["job.retried", "job.cancelled"]);
    assert_eq!(log(&bench, Some(planned.asset.to_string())).await, ["asset.retried", "asset.cancelled"]);
    let all = catalog.audit_log(&AuditFilter { limit: 2, ..AuditFilter::default() }).await.unwrap();
    assert_eq!((all.len(), all[0].action.as_str()), (2, "tenant.share_set"));
    assert_eq!((all[0].actor.as_str(), all[0].reason.as_deref()), (by.name.as_str(), by.reason.as_deref()));
    let before = AuditFilter { before_seq: Some(all[1].seq), limit: 100, ..AuditFilter::default() };
    assert_eq!(catalog.audit_log(&before).await.unwrap().len(), 3);
    // The fleet's lines and one's own.
    catalog.pause_queue(TaskKind::Stills, &by, 10).await.unwrap();
    let other = AuditFilter { tenant: Some(bench.tenant(7).await), limit: 100, ..AuditFilter::default() };
    let theirs = catalog.audit_log(&other).await.unwrap();
    assert_eq!(theirs.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["queue.paused"]);
}

/// Gives up both chunks' asset: the first chunk dies, which fails the asset and cancels the rest.
async fn given_up(bench: &Bench, now_ms: i64) -> Planned {
    let planned = bench.planned(now_ms).await;
    let claimed = bench.claim(&[TaskKind::Encode], now_ms).await.unwrap();
    bench.fail(&claimed, FailureCode::UnsupportedCodec, now_ms).await;
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Failed);
    planned
}

#[tokio::test]
async fn one_rendition_is_tried_again_and_nothing_that_is_done() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let by = somebody();
    let nothing = bench.catalog.retry_rendition(planned.asset, "240p", &by, 2).await.unwrap();
    assert!(nothing.is_empty(), "nothing was given up");
    let unknown = bench.catalog.retry_rendition(planned.asset, "9000p", &by, 2).await;
    assert!(matches!(unknown, Err(CatalogError::NotFound { what: "rendition", .. })));
    assert_eq!(log(&bench, None).await, Vec::<String>::new());

    let done = bench.do_one(TaskKind::Encode, 3).await;
    let dying = bench.claim(&[TaskKind::Encode], 4).await.unwrap();
    bench.fail(&dying, FailureCode::UnsupportedCodec, 5).await;
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Failed);
    let back = bench.catalog.retry_rendition(planned.asset, "240p", &by, 6).await.unwrap();
    assert_eq!(
        back.iter().map(|task| (task.id, task.state)).collect::<Vec<_>>(),
        [(dying.task.id, TaskState::Ready)]
    );
    assert_eq!(bench.state_of(done).await, TaskState::Done);
    assert_eq!(bench.state_of(planned.publish).await, TaskState::Blocked, "back with its asset");
    assert_eq!(bench.asset_state(planned.asset).await, AssetState::Processing);
    assert_eq!(log(&bench, None).await, ["rendition.remade"]);
}

#[tokio::test]
async fn many_dead_letters_are_replayed_and_repeating_it_does_nothing_more() {
    let bench = Bench::new().await;
    let mut given = Vec::new();
    for now_ms in [10, 20, 30] {
        given.push(given_up(&bench, now_ms).await);
    }
    let all = ReplayFilter {
        tenant: TenantId::DEFAULT,
        kinds: Vec::new(),
        codes: Vec::new(),
        since_ms: None,
        asset: None,
        limit: 2,
    };
    let count = async |filter: ReplayFilter| {
        let (found, more) = bench.catalog.to_replay(&filter).await.unwrap();
        (found.len(), more)
    };
    assert_eq!(count(all.clone()).await, (2, true));
    assert_eq!(count(ReplayFilter { limit: 9, ..all.clone() }).await, (3, false));
    assert_eq!(count(ReplayFilter { since_ms: Some(20), limit: 9, ..all.clone() }).await, (2, false));
    assert_eq!(count(ReplayFilter { asset: Some(given[0].asset), ..all.clone() }).await, (1, false));
    let codes = vec![FailureCode::UnsupportedCodec, FailureCode::NotMedia];
    assert_eq!(count(ReplayFilter { codes, ..all.clone() }).await, (2, true));
    assert_eq!(count(ReplayFilter { codes: vec![FailureCode::NotMedia], ..all.clone() }).await, (0, false));
    assert_eq!(count(ReplayFilter { kinds: vec![TaskKind::Audio], ..all.clone() }).await, (0, false));
    assert_eq!(count(ReplayFilter { tenant: bench.tenant(7).await, ..all.clone() }).await, (0, false));
    // Nobody can do anything about what was deleted.
    bench.catalog.delete_asset(given[2].asset, &somebody(), 35).await.unwrap();

    let first =
        bench.catalog.replay(&ReplayFilter { limit: 1, ..all.clone() }, &somebody(), 40).await.unwrap();
    assert_eq!((first.jobs.len(), first.more), (1, true));
    let second = bench.catalog.replay(&all, &somebody(), 41).await.unwrap();
    assert_eq!((second.jobs.len(), second.more), (1, false));
    let third = bench.catalog.replay(&all, &somebody(), 42).await.unwrap();
    assert_eq!((third.jobs.len(), third.more), (0, false));
    for planned in &given[..2] {
        assert_eq!(bench.asset_state(planned.asset).await, AssetState::Processing);
        for task in [planned.encodes[0], planned.encodes[1], planned.audio, planned.stills] {
            assert_eq!(bench.state_of(task).await, TaskState::Ready);
        }
    }
    assert_eq!(
        log(&bench, None).await,
        ["jobs.replayed", "job.retried", "jobs.replayed", "job.retried", "asset.deleted"],
        "a line for each job, and one for each call that did something"
    );
}

#[tokio::test]
async fn places_in_line_are_counted_by_kind_tier_and_tenant() {
    let bench = Bench::new().await;
    let other = bench.tenant(7).await;
    bench.machine(1, 1).await;
    let mut mine = Vec::new();
    for now_ms in [1, 2, 3] {
        bench.asset_of(other, Tier::Normal, now_ms).await;
        mine.push(bench.asset_of(TenantId::DEFAULT, Tier::Normal, now_ms + 10).await);
    }
    bench.asset_of(other, Tier::Urgent, 20).await;
    let mut told = BTreeMap::new();
    for task in &mine {
        told.insert(*task, bench.waits_for(*task, 30).await);
    }
    let start = "Waits for a free worker: ";
    let end = " and 1 task of a higher tier goes first";
    assert_eq!(
        told.into_values().collect::<Vec<_>>(),
        [
            format!("{start}3 tasks are ahead of it in its tier, none of them of this tenant,{end}"),
            format!("{start}4 tasks are ahead of it in its tier, 1 of them of this tenant,{end}"),
            format!("{start}5 tasks are ahead of it in its tier, 2 of them of this tenant,{end}"),
        ]
    );
}

#[tokio::test]
async fn who_takes_a_kind_depends_on_slots_silence_and_good_byes() {
    let bench = Bench::new().await;
    let planned = bench.planned(1).await;
    let nobody = "No worker that is connected takes encode tasks: start one that does";
    let machine = |machine: serde_json::Value| NewWorker {
        id: worker(5),
        name: "small".into(),
        node: None,
        version: String::new(),
        machine,
        now_ms: 10,
    };
    let light = json!({ "cores": 1, "heavy_slots": 0, "light_slots": 2 });
    bench.catalog.register_worker(&machine(light)).await.unwrap();
    assert_eq!(bench.waits_for(planned.encodes[0], 11).await, nobody);
    assert!(bench.waits_for(planned.audio, 11).await.starts_with("Waits for a free worker"));
    let heavy = json!({ "cores": 1, "heavy_slots": 1, "light_slots": 0 });
    bench.catalog.register_worker(&machine(heavy)).await.unwrap();
    assert!(bench.waits_for(planned.encodes[0], 11).await.starts_with("Waits for a free worker"));
    assert_eq!(bench.waits_for(planned.encodes[0], 60_011).await, nobody, "silent for a minute");
    bench.catalog.worker_ended(worker(5), 20).await.unwrap();
    assert_eq!(bench.waits_for(planned.encodes[0], 21).await, nobody, "it said good-bye");
}
