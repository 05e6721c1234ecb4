//! Rows that this version cannot read: they stand still, and nothing else does.

use crate::support::{Bench, EVERY_KIND, LEASE_MS};
use reelyard_model::{TaskState, TenantId, Tier, work::TaskKind};

#[tokio::test]
async fn a_task_that_cannot_be_read_keeps_no_other_from_being_claimed() {
    let bench = Bench::new().await;
    let [odd, sound] = [bench.asset_of(TenantId::DEFAULT, Tier::Normal, 1).await, {
        bench.asset_of(TenantId::DEFAULT, Tier::Normal, 2).await
    }];
    bench.execute("UPDATE task SET failure = 'of tomorrow' WHERE created_ms = 1").await;
    // Only one slot: the odd one is the oldest, and would be met each time.
    assert!(bench.claim(&EVERY_KIND, 10).await.is_none(), "it is met once");
    assert_eq!(bench.claim(&EVERY_KIND, 11).await.unwrap().task.id, sound);
    assert!(bench.claim(&EVERY_KIND, 12).await.is_none());
    bench.execute("UPDATE task SET failure = NULL").await;
    assert_eq!(bench.state_of(odd).await, TaskState::Ready, "nothing was written");
    // A node that can read it takes it up.
    let other = bench.second_handle().await;
    assert_eq!(other.claim(&crate::support::claim(2, &EVERY_KIND, 13)).await.unwrap().unwrap().task.id, odd);
}

#[tokio::test]
async fn a_plan_that_cannot_be_read_stops_only_its_own_video() {
    let bench = Bench::new().await;
    let odd = bench.planned(1).await;
    bench.execute("UPDATE plan SET plan = '{}'").await;
    let sound = bench.asset_of(TenantId::DEFAULT, Tier::Normal, 2).await;
    // Another handle: this one remembers the plan.
    let other = bench.second_handle().await;
    let mut claimed = Vec::new();
    for now_ms in 10..16 {
        let claim = crate::support::claim(2, &EVERY_KIND, now_ms);
        claimed.extend(other.claim(&claim).await.unwrap().map(|claimed| claimed.task.id));
    }
    assert_eq!(claimed, [sound]);
    assert_eq!(bench.state_of(odd.audio).await, TaskState::Ready);
}

#[tokio::test]
async fn a_lease_that_cannot_be_ended_keeps_no_other_from_being_ended() {
    let bench = Bench::new().await;
    let mut leased = Vec::new();
    for number in 1..=3 {
        bench.asset_of(TenantId::DEFAULT, Tier::Normal, number).await;
        leased.push(bench.claim(&[TaskKind::Probe], 10).await.unwrap().task.id);
    }
    bench.execute("UPDATE task SET failure = 'of tomorrow' WHERE created_ms = 1").await;
    let over_ms = 11 + LEASE_MS as i64;
    let lost = bench.catalog.lose_expired_leases(over_ms, 0).await.unwrap();
    assert_eq!(lost.len(), 2);
    bench.execute("UPDATE task SET failure = NULL WHERE created_ms = 1").await;
    assert_eq!(
        bench.catalog.lose_expired_leases(over_ms, 0).await.unwrap().len(),
        1,
        "as soon as it can be read"
    );
    for task in leased {
        assert_eq!(bench.state_of(task).await, TaskState::RetryWait);
    }
}
