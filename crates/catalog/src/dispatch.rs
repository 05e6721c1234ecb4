//! Claims, many at a time: what waits and what runs is summed up, `reelyard_schedule` decides whose turn it is, and one
//! transaction leases the tasks.
//!
//! Idle workers ask often and all at once, so a node gathers their wishes (`src/flow/desk`) and asks here for all of
//! them together: the price of a transaction is paid once. Nodes do not wait for each other: rows that another one is
//! about to lease are passed over. The sum is read before the transaction and may be a moment old; caps alone are
//! counted again inside it, under a lock on the tenant's row, because they are a promise.

use crate::{
    AssetRow, Catalog, CatalogError, EventKind, TaskRow,
    events::NewEvent,
    outbox,
    rows::{ASSET_SELECT, json, number, text},
    sql::{Connection, either, sql},
    store::Write,
};
use reelyard_model::{
    AssetId, Plan, TaskId, TenantId, Tier, WorkerId,
    task_state::{self, TaskEvent},
    work::TaskKind,
};
use reelyard_schedule::{Pick, Queue, Situation, Slots, TenantLoad};
use serde_json::json as json_value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Slots of one worker that take the same kinds of task.
#[derive(Clone, Debug)]
pub struct ClaimWish {
    pub worker: WorkerId,
    pub kinds: Vec<TaskKind>,
    pub slots: u32,
}

#[derive(Clone, Debug)]
pub struct ClaimBatch {
    pub wishes: Vec<ClaimWish>,
    pub lease_ms: u64,
    pub now_ms: i64,
}

/// One slot of one worker.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub worker: WorkerId,
    pub kinds: Vec<TaskKind>,
    pub lease_ms: u64,
    pub now_ms: i64,
}

/// A task under a fresh lease, with what a grant is made of.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub task: TaskRow,
    pub asset: AssetRow,
    pub plan: Option<Plan>,
}

/// What is waiting and running, as of a moment ago.
struct Sum {
    tenants: Vec<TenantLoad>,
    queues: Vec<Queue>,
}

impl Catalog {
    /// One of [`Catalog::claim_many`].
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claimed>, CatalogError> {
        let wish = ClaimWish { worker: request.worker, kinds: request.kinds.clone(), slots: 1 };
        let batch = ClaimBatch { wishes: vec![wish], lease_ms: request.lease_ms, now_ms: request.now_ms };
        Ok(self.claim_many(&batch).await?.into_iter().flatten().next())
    }

    /// For each wish its tasks, as many as there are and at most its slots.
    pub async fn claim_many(&self, batch: &ClaimBatch) -> Result<Vec<Vec<Claimed>>, CatalogError> {
        self.until_not_taken_back(|| self.claim_many_once(batch)).await
    }

    async fn claim_many_once(&self, batch: &ClaimBatch) -> Result<Vec<Vec<Claimed>>, CatalogError> {
        let mut claimed: Vec<Vec<Claimed>> = batch.wishes.iter().map(|_| Vec::new()).collect();
        let slots = self.open_slots(&batch.wishes).await?;
        if slots.iter().all(|group| group.free == 0 || group.kinds.is_empty()) {
            return Ok(claimed);
        }
        // So that a claim sees what its back-off kept away, without waiting for the sweep.
        self.end_back_offs(batch.now_ms).await?;
        let sum = self.sum_up(&slots).await?;
        let situation =
            Situation { tenants: &sum.tenants, queues: &sum.queues, slots: &slots, now_ms: batch.now_ms };
        let picks = reelyard_schedule::picks(&situation);
        if picks.is_empty() {
            return Ok(claimed);
        }
        let mut write = self.write().await?;
        let picks = within_caps(&mut write, picks, &sum.tenants).await?;
        let mut tasks = Vec::new();
        for pick in picks {
            tasks.extend(take_oldest(write.connection(), &pick).await?);
        }
        let kinds: Vec<TaskKind> = tasks.iter().map(|task| task.kind).collect();
        let dealt = reelyard_schedule::deal(&kinds, &slots);
        // A wish that finds fewer tasks than were picked (another node was quicker) leaves the rest as they are.
        let mut leased: Vec<(usize, TaskRow)> =
            tasks.into_iter().zip(dealt).filter_map(|(task, wish)| Some((wish?, task))).collect();
        if leased.is_empty() {
            return Ok(claimed);
        }
        lease(&mut write, batch, &mut leased).await?;
        let mut work =
            work_of(write.connection(), leased.iter().map(|(_, task)| task.asset).collect()).await?;
        self.commit(write).await?;
        for (wish, task) in leased {
            let (asset, plan) = work
                .get_mut(&task.asset)
                .cloned()
                .ok_or_else(|| CatalogError::not_found("asset", task.asset))?;
            claimed[wish].push(Claimed { task, asset, plan });
        }
        Ok(claimed)
    }

    /// The wishes as slots, without those of workers that are to take nothing new.
    async fn open_slots(&self, wishes: &[ClaimWish]) -> Result<Vec<Slots>, CatalogError> {
        let mut query = sql("SELECT id FROM worker WHERE drain = 1 AND id");
        query.push_in(wishes.iter().map(|wish| wish.worker));
        let draining: HashSet<String> = query.scalars(&self.reader).await?.into_iter().collect();
        let free =
            |wish: &ClaimWish| if draining.contains(&wish.worker.to_string()) { 0 } else { wish.slots };
        Ok(wishes.iter().map(|wish| Slots { kinds: wish.kinds.clone(), free: free(wish) }).collect())
    }

    /// One look at all that waits and runs. What it costs does not grow with the length of the queues, only with their
    /// number: the heads are found by stepping through an index.
    async fn sum_up(&self, slots: &[Slots]) -> Result<Sum, CatalogError> {
        let most: u32 = slots.iter().map(|group| group.free).fold(0, u32::saturating_add);
        let found = heads(most).fetch_all(&self.reader).await?;
        let queues = found
            .iter()
            .map(|row| {
                Ok(Queue {
                    tenant: text(row, "tenant")?,
                    tier: text(row, "tier")?,
                    kind: text(row, "kind")?,
                    waiting: number(row, "waiting")?,
                    oldest_ms: row.get("oldest_ms")?,
                })
            })
            .collect::<Result<Vec<_>, CatalogError>>()?;
        if queues.is_empty() {
            return Ok(Sum { tenants: Vec::new(), queues });
        }
        Ok(Sum { tenants: self.tenant_loads().await?, queues })
    }

    /// Every tenant that runs something, or whose share or cap somebody has set.
    async fn tenant_loads(&self) -> Result<Vec<TenantLoad>, CatalogError> {
        let mut loads: BTreeMap<String, TenantLoad> = BTreeMap::new();
        let shares = sql("SELECT tenant, share_weight, running_tasks FROM tenant_limit
                          WHERE share_weight IS NOT NULL OR running_tasks IS NOT NULL")
        .fetch_all(&self.reader)
        .await?;
        for row in &shares {
            let name: String = row.get("tenant")?;
            let load = load_of(&mut loads, name)?;
            load.weight = crate::rows::optional_number(row, "share_weight")?.unwrap_or(1);
            load.cap = crate::rows::optional_number(row, "running_tasks")?;
        }
        let running = sql("SELECT tenant, tier, COUNT(*) AS running FROM task WHERE state = 'leased'
                           GROUP BY tenant, tier")
        .fetch_all(&self.reader)
        .await?;
        for row in &running {
            let tier: Tier = text(row, "tier")?;
            *load_of(&mut loads, row.get("tenant")?)?.running.of_mut(tier) = number(row, "running")?;
        }
        Ok(loads.into_values().collect())
    }
}

fn load_of(loads: &mut BTreeMap<String, TenantLoad>, name: String) -> Result<&mut TenantLoad, CatalogError> {
    let tenant: TenantId = name
        .parse()
        .map_err(|error| CatalogError::Unreadable { what: "tenant", reason: format!("{name:?}: {error}") })?;
    let fresh = TenantLoad { tenant, weight: 1, cap: None, running: reelyard_schedule::Running::default() };
    Ok(loads.entry(name).or_insert(fresh))
}

/// The head of every queue that nobody has paused, and how many wait in it, up to `most`.
fn heads(most: u32) -> crate::sql::Sql {
    either(
        "SELECT tenant, tier, kind, COUNT(*) AS waiting, MIN(created_ms) AS oldest_ms FROM task
         WHERE state = 'ready' AND kind NOT IN (SELECT kind FROM queue_pause) AND ?1 > 0
         GROUP BY tenant, tier, kind",
        "WITH RECURSIVE head AS (
             (SELECT tenant, tier, kind FROM task WHERE state = 'ready' ORDER BY tenant, tier, kind LIMIT 1)
             UNION ALL
             SELECT following.tenant, following.tier, following.kind FROM head, LATERAL (
                 SELECT task.tenant, task.tier, task.kind FROM task
                 WHERE state = 'ready'
                   AND (task.tenant, task.tier, task.kind) > (head.tenant, head.tier, head.kind)
                 ORDER BY task.tenant, task.tier, task.kind LIMIT 1) AS following)
         SELECT tenant, tier, kind,
                (SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE state = 'ready' AND task.tenant = head.tenant
                    AND task.tier = head.tier AND task.kind = head.kind LIMIT ?1) AS counted) AS waiting,
                (SELECT created_ms FROM task WHERE state = 'ready' AND task.tenant = head.tenant
                    AND task.tier = head.tier AND task.kind = head.kind
                 ORDER BY priority DESC, created_ms, id LIMIT 1) AS oldest_ms
         FROM head WHERE kind NOT IN (SELECT kind FROM queue_pause)",
    )
    .bind(i64::from(most))
}

/// Two nodes that decide at once must not go past a cap together: the tenant's row is locked, and what it runs is
/// counted again.
async fn within_caps(
    write: &mut Write,
    mut picks: Vec<Pick>,
    tenants: &[TenantLoad],
) -> Result<Vec<Pick>, CatalogError> {
    let capped: BTreeMap<TenantId, u32> = tenants
        .iter()
        .filter(|load| picks.iter().any(|pick| pick.tenant == load.tenant))
        .filter_map(|load| Some((load.tenant, load.cap?)))
        .collect();
    for (tenant, cap) in capped {
        let connection = write.connection();
        connection.lock(sql("SELECT tenant FROM tenant_limit WHERE tenant = ?").bind(tenant)).await?;
        let running: i64 = sql("SELECT COUNT(*) FROM task WHERE state = 'leased' AND tenant = ?")
            .bind(tenant)
            .scalar(write.connection())
            .await?;
        let mut room = cap.saturating_sub(u32::try_from(running).unwrap_or(u32::MAX));
        for pick in picks.iter_mut().filter(|pick| pick.tenant == tenant) {
            pick.count = pick.count.min(room);
            room -= pick.count;
        }
    }
    picks.retain(|pick| pick.count > 0);
    Ok(picks)
}

/// The next tasks of a queue that nobody else is about to lease.
async fn take_oldest(connection: &mut Connection, pick: &Pick) -> Result<Vec<TaskRow>, CatalogError> {
    let found = sql("SELECT * FROM task WHERE state = 'ready' AND tenant = ? AND tier = ? AND kind = ?
                     ORDER BY priority DESC, created_ms, id LIMIT ?")
    .bind(pick.tenant)
    .bind(pick.tier.as_str())
    .bind(pick.kind.as_str())
    .bind(pick.count)
    .for_update_skip_locked()
    .fetch_all(connection)
    .await?;
    found.iter().map(TaskRow::read).collect()
}

/// The one change of state of this file, for all of them in one statement; the machine decides for each.
async fn lease(
    write: &mut Write,
    batch: &ClaimBatch,
    leased: &mut [(usize, TaskRow)],
) -> Result<(), CatalogError> {
    let lease_until_ms = batch.now_ms.saturating_add_unsigned(batch.lease_ms);
    let mut query = sql("UPDATE task SET state = 'leased', attempt = attempt + 1, worker = given.column2, ");
    query.push("lease_until_ms = ").push_bind(lease_until_ms).push(", started_ms = ").push_bind(batch.now_ms);
    query
        .push(", updated_ms = ")
        .push_bind(batch.now_ms)
        .push(", finished_ms = NULL, done_us = 0 FROM ");
    let row = |(wish, task): &(usize, TaskRow)| [task.id.into(), batch.wishes[*wish].worker.into()];
    query.push_rows(leased.iter().map(row).collect(), "given").push(" WHERE task.id = given.column1");
    query.execute(write.connection()).await?;
    for (wish, task) in leased.iter_mut() {
        let worker = batch.wishes[*wish].worker;
        let from = task.state;
        task.state = task_state::next(from, TaskEvent::Claim)?;
        task.attempt += 1;
        task.worker = Some(worker);
        task.lease_until_ms = Some(lease_until_ms);
        task.started_ms = Some(batch.now_ms);
        task.updated_ms = batch.now_ms;
        task.done_us = 0;
        write.emit(NewEvent {
            at_ms: batch.now_ms,
            tenant: task.tenant,
            kind: EventKind::TASK_CHANGED,
            upload: None,
            asset: Some(task.asset),
            task: Some(task.id),
            data: json_value!({
                "kind": task.kind, "ordinal": task.ordinal, "state": task.state, "from": from,
                "attempt": task.attempt, "failure": null,
            }),
        });
    }
    let tasks: Vec<TaskId> = leased.iter().map(|(_, task)| task.id).collect();
    outbox::drop_tickets(write, tasks.into_iter()).await
}

/// The assets and their plans, each read once.
async fn work_of(
    connection: &mut Connection,
    assets: HashSet<AssetId>,
) -> Result<HashMap<AssetId, (AssetRow, Option<Plan>)>, CatalogError> {
    let mut query = sql(ASSET_SELECT);
    query.push(" WHERE asset.id").push_in(assets.iter().copied());
    let mut work = HashMap::with_capacity(assets.len());
    for row in &query.fetch_all(&mut *connection).await? {
        let asset = AssetRow::read(row)?;
        work.insert(asset.id, (asset, None));
    }
    let mut query = sql("SELECT asset, plan FROM plan WHERE asset");
    query.push_in(assets.into_iter());
    for row in &query.fetch_all(connection).await? {
        let asset: AssetId = text(row, "asset")?;
        if let Some((_, plan)) = work.get_mut(&asset) {
            *plan = Some(json(row, "plan")?);
        }
    }
    Ok(work)
}
