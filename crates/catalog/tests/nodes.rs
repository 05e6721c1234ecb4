//! Several nodes on one PostgreSQL: what they do at the same time comes out as if one had done it after the other, and
//! a database that goes away and comes back costs answers, no rows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use reelyard_catalog::{
    Catalog, CatalogError, CompletedTask, EventKind, EventRow, NewUpload, OverQuota, PostgresSettings,
    Settled, TenantLimits,
};
use reelyard_model::{TaskId, TaskState, TenantId, UploadId, work::TaskKind};
use reelyard_testkit::PostgresServer;
use serde_json::json;
use sqlx::Connection as _;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{Bench, EVERY_KIND, LEASE_MS, Place, claim, encoded, finish, new_upload, open};
use tokio::{
    sync::{
        Barrier,
        broadcast::{Receiver, error::RecvError},
    },
    task::JoinSet,
    time::timeout,
};
use uuid::Uuid;

/// Asked by `support`.
const ON_POSTGRES: bool = true;
/// Of anything here; a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The catalogue, and as many other handles on it as another node each would have. `None`: no PostgreSQL here.
async fn nodes<const COUNT: usize>() -> Option<(Bench, [Catalog; COUNT])> {
    let bench = Bench::new().await;
    let Place::Database(name) = &bench.place else { return None };
    let mut others = Vec::new();
    for _ in 0..COUNT {
        others.push(open(name).await);
    }
    Some((bench, others.try_into().ok()?))
}

fn upload_of(byte_len: u64) -> NewUpload {
    NewUpload { byte_len: Some(byte_len), ..new_upload(UploadId::from_uuid(Uuid::now_v7()), 1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_that_claim_at_once_never_get_the_same_task() {
    const TASKS: usize = 80;
    let Some((bench, others)) = nodes::<3>().await else { return };
    for _ in 0..TASKS {
        bench.asset(1).await;
    }
    let mut workers = JoinSet::new();
    for number in 0..16 {
        let catalog = others[number % 3].clone();
        workers.spawn(async move {
            let mut mine = Vec::new();
            while let Some(claimed) = catalog.claim(&claim(number as u128, &EVERY_KIND, 2)).await.unwrap() {
                assert_eq!(claimed.task.attempt, 1);
                mine.push(claimed.task.id);
            }
            mine
        });
    }
    let mut claimed: Vec<TaskId> = workers.join_all().await.into_iter().flatten().collect();
    // One whose row another was just looking at may have been passed over by all of them.
    while let Some(left) = bench.claim(&EVERY_KIND, 3).await {
        claimed.push(left.task.id);
    }
    assert_eq!(claimed.len(), TASKS);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), TASKS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishing_becomes_ready_once_when_all_it_waits_for_ends_at_once() {
    let Some((bench, others)) = nodes::<3>().await else { return };
    for round in 0..10 {
        let planned = bench.planned(round).await;
        let mut reports = JoinSet::new();
        let together = Arc::new(Barrier::new(4));
        for number in 0..4 {
            let claimed = bench
                .claim(&[TaskKind::Encode, TaskKind::Audio, TaskKind::Stills], 10)
                .await
                .expect("one more");
            let (catalog, together) = (others[number % 3].clone(), Arc::clone(&together));
            let done = CompletedTask {
                task: claimed.task.id,
                attempt: claimed.task.attempt,
                result: if claimed.task.kind == TaskKind::Stills { stills() } else { encoded() },
                warnings: vec![format!("warning {number}")],
                now_ms: 20,
            };
            reports.spawn(async move {
                together.wait().await;
                catalog.complete_task(done).await
            });
        }
        while let Some(settled) = reports.join_next().await {
            assert_eq!(settled.unwrap().unwrap(), Settled::Now);
        }
        assert_eq!(bench.state_of(planned.publish).await, TaskState::Ready);
        let events = bench.catalog.events_of_asset(planned.asset, 500).await.unwrap();
        let ready = events
            .iter()
            .filter(|event| event.task == Some(planned.publish) && event.data["state"] == "ready");
        assert_eq!(ready.count(), 1);
        let asset = bench.catalog.asset(planned.asset).await.unwrap().unwrap();
        assert_eq!(asset.warnings.len(), 5, "none was overwritten: {:?}", asset.warnings);
        bench.catalog.cancel_asset(planned.asset, &support::somebody(), 30).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_that_begin_at_once_never_share_the_last_bytes() {
    let Some((bench, others)) = nodes::<3>().await else { return };
    let limits = TenantLimits { storage_bytes: Some(1_000), ..TenantLimits::default() };
    bench.catalog.set_tenant_limits(TenantId::DEFAULT, limits, &support::somebody(), 1).await.unwrap();
    let mut creations = JoinSet::new();
    for number in 0..16 {
        let catalog = others[number % 3].clone();
        creations.spawn(async move { catalog.create_upload(upload_of(300)).await });
    }
    let mut begun = 0;
    while let Some(answer) = creations.join_next().await {
        match answer.unwrap() {
            Ok(_) => begun += 1,
            Err(CatalogError::OverQuota(OverQuota::Storage { allowed: 1_000, used, .. })) => {
                assert!(used <= 900, "{used}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(begun, 3);
    assert_eq!(bench.catalog.usage(TenantId::DEFAULT).await.unwrap().bytes(), 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_follows_the_events_sees_each_of_them_once_and_in_order() {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let Some((bench, others)) = nodes::<2>().await else { return };
    let [first, second] = others;
    let mut heard = second.subscribe();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let catalog = if number % 2 == 0 { first.clone() } else { bench.catalog.clone() };
        writers.spawn(async move {
            for _ in 0..EACH {
                catalog.create_upload(upload_of(1)).await.unwrap();
            }
        });
    }
    // Who reads the table sees no number before all smaller ones.
    let mut last = 0;
    while (last as usize) < WRITERS * EACH {
        for event in second.events_after(last, 100).await.unwrap() {
            assert_eq!(event.seq, last + 1);
            last = event.seq;
        }
    }
    writers.join_all().await;
    for expected in 1..=(WRITERS * EACH) as i64 {
        let event = timeout(PATIENCE, heard.recv()).await.expect("in time").unwrap();
        assert_eq!(event.seq, expected);
    }
    assert_eq!(*second.last_event().borrow(), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_events_reach_the_other_nodes() {
    let Some((_bench, [here, there])) = nodes::<2>().await else { return };
    let mut heard = there.subscribe();
    let progress = |done_us: i64, padding: usize| EventRow {
        seq: 0,
        at_ms: 1,
        tenant: TenantId::DEFAULT,
        kind: EventKind::TASK_PROGRESS.0.to_owned(),
        upload: None,
        asset: None,
        task: None,
        data: json!({ "done_us": done_us, "padding": "x".repeat(padding) }),
    };
    // Listening begins in a moment: what is said before is not heard.
    let event = timeout(PATIENCE, async {
        loop {
            here.announce(progress(3, 0));
            if let Ok(event) = timeout(Duration::from_millis(100), heard.recv()).await {
                break event.unwrap();
            }
        }
    });
    assert_eq!(*event.await.expect("in time"), progress(3, 0));
    here.announce(progress(4, 8_000));
    here.announce(progress(5, 0));
    let after_it = timeout(PATIENCE, async {
        loop {
            let event = heard.recv().await.unwrap();
            assert_ne!(event.data["done_us"], 4, "too long to travel");
            if event.data["done_us"] == 5 {
                break;
            }
        }
    });
    after_it.await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_bytes_that_end_at_once_are_processed_once() {
    let Some((bench, others)) = nodes::<3>().await else { return };
    let mut uploads = Vec::new();
    for _ in 0..8 {
        let upload = bench.upload(1).await;
        bench.catalog.upload_finishing_or_finished(upload, 1_000, 2).await.unwrap();
        uploads.push(upload);
    }
    let mut endings = JoinSet::new();
    for (number, upload) in uploads.into_iter().enumerate() {
        // And each of them by two nodes.
        for again in 0..2 {
            let catalog = others[(number + again) % 3].clone();
            let mut finish = finish(upload, 3);
            finish.sha256 = "ab".repeat(32);
            endings.spawn(async move { catalog.finish_upload(finish).await.unwrap() });
        }
    }
    let ended = endings.join_all().await;
    assert_eq!(ended.iter().filter(|ended| ended.first_time).count(), 8);
    assert_eq!(ended.iter().filter(|ended| ended.first_time && ended.content_of.is_none()).count(), 1);
    let probes = bench.catalog.counts().await.unwrap().tasks;
    assert_eq!(probes.iter().map(|count| count.count).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_that_ran_out_is_lost_once_whoever_finds_it() {
    const TASKS: usize = 12;
    let Some((bench, others)) = nodes::<3>().await else { return };
    for _ in 0..TASKS {
        bench.asset(1).await;
        bench.claim(&EVERY_KIND, 2).await.unwrap();
    }
    let mut finders = JoinSet::new();
    for catalog in others {
        finders.spawn(async move { catalog.lose_expired_leases(10 + LEASE_MS as i64, 7).await.unwrap() });
    }
    let lost: Vec<_> = finders.join_all().await.into_iter().flatten().collect();
    assert_eq!(lost.len(), TASKS);
    assert!(lost.iter().all(|task| task.lost_count == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn orders_reports_and_lost_leases_of_one_asset_at_once_leave_it_in_order() {
    let Some((bench, others)) = nodes::<3>().await else { return };
    for round in 0..10 {
        let planned = bench.planned(round).await;
        let mut at_once = JoinSet::new();
        for catalog in others.clone() {
            let claimed = bench.claim(&[TaskKind::Encode, TaskKind::Audio], 10).await.unwrap();
            let done = CompletedTask {
                task: claimed.task.id,
                attempt: claimed.task.attempt,
                result: encoded(),
                warnings: Vec::new(),
                now_ms: 20,
            };
            at_once.spawn(async move { catalog.complete_task(done).await.map(drop) });
        }
        for (number, catalog) in others.iter().cloned().enumerate() {
            at_once.spawn(async move {
                match number {
                    0 => catalog.cancel_asset(planned.asset, &support::somebody(), 21).await.map(drop),
                    1 => catalog.lose_expired_leases(60_000, 1).await.map(drop),
                    _ => catalog.claim(&claim(9, &EVERY_KIND, 22)).await.map(drop),
                }
            });
        }
        while let Some(answer) = at_once.join_next().await {
            answer.unwrap().unwrap();
        }
        let tasks = bench.catalog.tasks_of_asset(planned.asset).await.unwrap();
        assert!(tasks.iter().all(|task| task.state.is_terminal()), "{tasks:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_nodes_may_start_on_an_empty_database_at_once() {
    let Place::Database(name) = Place::new() else { return };
    let mut starting = JoinSet::new();
    for _ in 0..4 {
        let name = name.clone();
        starting.spawn(async move { open(&name).await.counts().await.unwrap().last_event });
    }
    assert_eq!(starting.join_all().await, [0; 4]);
}

/// One writer: begins uploads until it is told to stop, and keeps the ids of those that were acknowledged.
async fn write_on(catalog: Catalog, stop: Arc<AtomicBool>, refused: Arc<AtomicUsize>) -> Vec<UploadId> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match catalog.create_upload(upload_of(1)).await {
            Ok(row) => acknowledged.push(row.id),
            Err(CatalogError::Unavailable { .. }) => {
                refused.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    acknowledged
}

/// The next event; `None`: there were so many that some were passed over.
async fn heard_next(heard: &mut Receiver<Arc<EventRow>>) -> Option<Arc<EventRow>> {
    match heard.recv().await {
        Ok(event) => Some(event),
        Err(RecvError::Lagged(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_killed_under_load_and_comes_back_is_used_again() {
    let Some(mut server) = PostgresServer::start() else { return };
    // Each refusal takes so long; and so long may a connection take to be made.
    let settings =
        PostgresSettings { acquire_timeout: Duration::from_secs(3), ..PostgresSettings::default() };
    let url = server.new_database();
    let catalog = Catalog::connect(&url, &settings).await.unwrap();
    let other = Catalog::connect(&url, &settings).await.unwrap();
    let mut heard = other.subscribe();
    let (stop, refused) = (Arc::new(AtomicBool::default()), Arc::new(AtomicUsize::default()));
    let mut writers = JoinSet::new();
    for _ in 0..6 {
        writers.spawn(write_on(catalog.clone(), Arc::clone(&stop), Arc::clone(&refused)));
    }
    for kill in [true, false] {
        let before = refused.load(Ordering::Relaxed);
        timeout(PATIENCE, heard_next(&mut heard)).await.expect("they are at work");
        if kill {
            server.kill()
        } else {
            server.stop_fast()
        }
        while refused.load(Ordering::Relaxed) < before + 6 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(catalog.ping().await, Err(CatalogError::Unavailable { .. })));
        server.restart();
        timeout(PATIENCE, async { while catalog.ping().await.is_err() {} }).await.expect("it works again");
    }
    let mine = timeout(PATIENCE, async {
        loop {
            match catalog.create_upload(upload_of(1)).await {
                Ok(row) => break row,
                // On a connection of before, which is seen to be broken now.
                Err(CatalogError::Unavailable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    let mine = mine.await.expect("it works again");
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<UploadId> = writers.join_all().await.into_iter().flatten().collect();
    for id in acknowledged {
        assert!(other.upload(id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    // The other node hears of it, on the connections that it made anew.
    let news = timeout(PATIENCE, async {
        while heard_next(&mut heard).await.is_none_or(|event| event.upload != Some(mine.id)) {}
    });
    news.await.expect("in time");
}

#[tokio::test]
async fn a_confirmed_ticket_waits_for_no_claim_that_removes_the_same_one() {
    let bench = Bench::new().await;
    let bench = Bench { catalog: bench.catalog.clone().with_outbox(), place: bench.place };
    let (catalog, Place::Database(url)) = (&bench.catalog, &bench.place) else { return };
    bench.planned(1).await;
    let token = Uuid::from_u128(1);
    let taken = catalog.take_tickets(token, 100, 2, 50).await.unwrap();
    let tasks: Vec<TaskId> = taken.iter().map(|ticket| ticket.task).collect();
    // As a claim has it: removed, and not yet committed.
    let mut claim = sqlx::PgConnection::connect(url).await.unwrap();
    let mut claiming = claim.begin().await.unwrap();
    let removed = sqlx::query("DELETE FROM ticket_outbox WHERE task = $1").bind(tasks[0].to_string());
    removed.execute(&mut *claiming).await.unwrap();
    timeout(PATIENCE, catalog.tickets_issued(token, &tasks)).await.expect("it does not wait").unwrap();
    // The claim comes to nothing: its ticket is given to the broker again, later.
    claiming.rollback().await.unwrap();
    assert_eq!(catalog.outbox_len().await.unwrap(), 1);
    let again = catalog.take_tickets(Uuid::from_u128(2), 100, 50, 90).await.unwrap();
    assert_eq!(again.iter().map(|ticket| ticket.task).collect::<Vec<_>>(), tasks[..1]);
}

#[tokio::test]
async fn tickets_are_found_one_by_one_though_the_database_believes_that_there_are_none() {
    const TICKETS: u32 = 1_000;
    let bench = Bench::new().await;
    let (catalog, Place::Database(url)) = (bench.catalog.clone().with_outbox(), &bench.place) else { return };
    let mut database = sqlx::PgConnection::connect(url).await.unwrap();
    let fill = "INSERT INTO ticket_outbox (task, kind, tier, traceparent, created_ms)
                SELECT gen_random_uuid()::text, 'encode', 'normal', '', 1 FROM generate_series(1, 2000)";
    // The pages stay and are empty: so a vacuum finds the outbox of a fleet that keeps up.
    for statement in
        [fill, "DELETE FROM ticket_outbox", "VACUUM (ANALYZE, TRUNCATE false) ticket_outbox", fill]
    {
        sqlx::query(statement).execute(&mut database).await.unwrap();
    }
    let token = Uuid::from_u128(1);
    let taken = catalog.take_tickets(token, TICKETS, 2, 50).await.unwrap();
    let tasks: Vec<TaskId> = taken.iter().map(|ticket| ticket.task).collect();
    assert_eq!(tasks.len(), TICKETS as usize);
    catalog.tickets_issued(token, &tasks).await.unwrap();
    assert_eq!(catalog.outbox_len().await.unwrap(), 1_000);
    // What it has looked at, it tells a moment later.
    let counted = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables
                   WHERE relname = 'ticket_outbox' AND n_tup_del >= 3000";
    let looked_at: i64 = timeout(PATIENCE, async {
        loop {
            if let Some(found) = sqlx::query_scalar(counted).fetch_optional(&mut database).await.unwrap() {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it tells");
    assert!(looked_at < 20_000, "{looked_at} rows were looked at for 1000 of 2000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_holds_nobody_up_for_ever() {
    let Some(server) = PostgresServer::start_without_fsync() else { return };
    // Long enough for the connection that must be made first.
    let acquire_timeout = Duration::from_secs(10);
    let settings = PostgresSettings { max_connections: 4, acquire_timeout, ..PostgresSettings::default() };
    let catalog = Catalog::connect(&server.new_database(), &settings).await.unwrap();
    catalog.create_upload(upload_of(1)).await.unwrap();
    server.pause();
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let catalog = catalog.clone();
        calls.spawn(async move { catalog.create_upload(upload_of(1)).await.map(|row| row.id) });
    }
    while let Some(answer) = timeout(PATIENCE, calls.join_next()).await.expect("an answer in time") {
        assert!(matches!(answer.unwrap(), Err(CatalogError::Unavailable { .. })));
    }
    server.resume();
    timeout(PATIENCE, async { while catalog.create_upload(upload_of(1)).await.is_err() {} })
        .await
        .expect("it goes on");
}

fn stills() -> reelyard_model::work::TaskResult {
    use reelyard_model::output::{FileOutput, StillsOutput};
    let file = |name: &str| FileOutput { file: name.to_owned(), byte_len: 1, sha256: "00".repeat(32) };
    let stills =
        StillsOutput { poster: file("poster.jpg"), sprites: Vec::new(), sprite_index: file("sprites.vtt") };
    reelyard_model::work::TaskResult::Stills { stills }
}
