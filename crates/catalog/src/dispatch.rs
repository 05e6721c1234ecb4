//! Claims, many at a time: what waits and what runs is summed up, `reelyard_schedule` decides whose turn it is, and one
//! transaction leases the tasks.
//!
//! Idle workers ask often and all at once, so a node gathers their wishes (`src/flow/desk`) and asks here for all of
//! them together: the price of a transaction is paid once. Nodes do not wait for each other: rows that another one is
//! about to lease are passed over. The look is taken before the transaction and may be a moment old; caps alone are
//! counted again inside it, under a lock on the tenant's row, because they are a promise.

use crate::{
    AssetRow, Catalog, CatalogError, EventKind, TaskRow,
    events::NewEvent,
    outbox,
    rows::{json, number, optional_number, text},
    sql::{Connection, Engine, Row, Sql, either, sql},
    store::Write,
};
use reelyard_model::{
    AssetId, Plan, TaskId, TenantId, Tier, WorkerId,
    task_state::{self, TaskEvent},
    work::TaskKind,
};
use reelyard_schedule::{Pick, Queue, Situation, Slots, TenantLoad};
use serde_json::json as json_value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use uuid::Uuid;

/// Slots of one worker that take the same kinds of task.
#[derive(Clone, Debug)]
pub struct ClaimWish {
    pub worker: WorkerId,
    pub kinds: Vec<TaskKind>,
    pub slots: u32,
    /// The call that asks, if what it brings is to be found again by its name ([`Catalog::release_unheard`]).
    pub claim: Option<Uuid>,
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
    pub plan: Option<Arc<Plan>>,
}

/// What is waiting and running, as of a moment ago.
#[derive(Default)]
struct Look {
    tenants: Vec<TenantLoad>,
    queues: Vec<Queue>,
    /// Workers that are to take nothing new.
    draining: HashSet<String>,
    /// Back-offs are over that have not ended yet.
    back_offs_over: bool,
}

impl Catalog {
    /// One of [`Catalog::claim_many`].
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claimed>, CatalogError> {
        let wish = ClaimWish { worker: request.worker, kinds: request.kinds.clone(), slots: 1, claim: None };
        let batch = ClaimBatch { wishes: vec![wish], lease_ms: request.lease_ms, now_ms: request.now_ms };
        Ok(self.claim_many(&batch).await?.into_iter().flatten().next())
    }

    /// For each wish its tasks, as many as there are and at most its slots.
    pub async fn claim_many(&self, batch: &ClaimBatch) -> Result<Vec<Vec<Claimed>>, CatalogError> {
        self.until_not_taken_back(|| self.claim_many_once(batch)).await
    }

    async fn claim_many_once(&self, batch: &ClaimBatch) -> Result<Vec<Vec<Claimed>>, CatalogError> {
        let mut claimed: Vec<Vec<Claimed>> = batch.wishes.iter().map(|_| Vec::new()).collect();
        if batch.wishes.iter().all(|wish| wish.slots == 0 || wish.kinds.is_empty()) {
            return Ok(claimed);
        }
        let mut look = self.look(batch).await?;
        // So that a claim sees what its back-off kept away, without waiting for the sweep.
        if look.back_offs_over && self.end_back_offs(batch.now_ms).await? > 0 {
            look = self.look(batch).await?;
        }
        let slots = open_slots(&batch.wishes, &look.draining);
        let situation =
            Situation { tenants: &look.tenants, queues: &look.queues, slots: &slots, now_ms: batch.now_ms };
        let picks = reelyard_schedule::picks(&situation);
        if picks.is_empty() {
            return Ok(claimed);
        }
        let mut write = self.write().await?;
        let picks = within_caps(&mut write, picks, &look.tenants).await?;
        let tasks = self.take_oldest(write.connection(), &picks).await?;
        let kinds: Vec<TaskKind> = tasks.iter().map(|task| task.kind).collect();
        let dealt = reelyard_schedule::deal(&kinds, &slots);
        // A wish that finds fewer tasks than were picked (another node was quicker) leaves the rest as they are.
        let mut leased: Vec<(usize, TaskRow)> =
            tasks.into_iter().zip(dealt).filter_map(|(task, wish)| Some((wish?, task))).collect();
        let work = self.work_of(write.connection(), leased.iter().map(|(_, task)| task)).await?;
        leased.retain(|(_, task)| work.contains_key(&task.asset));
        if leased.is_empty() {
            return Ok(claimed);
        }
        lease(&mut write, batch, &mut leased).await?;
        self.commit(write).await?;
        for (wish, task) in leased {
            let (asset, plan) =
                work.get(&task.asset).cloned().ok_or_else(|| CatalogError::not_found("asset", task.asset))?;
            claimed[wish].push(Claimed { task, asset, plan });
        }
        Ok(claimed)
    }

    /// One look at all that waits and runs, in one statement. What it costs does not grow with the length of the queues,
    /// only with their number: the heads are found by stepping through an index.
    async fn look(&self, batch: &ClaimBatch) -> Result<Look, CatalogError> {
        let most: u32 = batch.wishes.iter().map(|wish| wish.slots).fold(0, u32::saturating_add);
        let mut query = heads(most);
        query.push(" UNION ALL SELECT 'running', tenant, tier, '', COUNT(*), 0 FROM ").push_either(
            "task WHERE state = 'leased'",
            // In the order of the index: PostgreSQL then walks it, and forgets on the way what is over. Else it collects
            // whatever the index has pointed to since the last vacuum.
            "(SELECT tenant, tier FROM task WHERE state = 'leased' ORDER BY tenant, tier OFFSET 0) AS leased",
        );
        query.push(
            " GROUP BY tenant, tier
              UNION ALL SELECT 'share', tenant, '', '', share_weight, running_tasks FROM tenant_limit
              WHERE share_weight IS NOT NULL OR running_tasks IS NOT NULL
              UNION ALL SELECT 'back-off', '', '', '', COUNT(*), 0 FROM task
              WHERE state = 'retry_wait' AND not_before_ms <= ",
        );
        query.push_bind(batch.now_ms).push(" HAVING COUNT(*) > 0");
        query.push(" UNION ALL SELECT 'drain', id, '', '', 0, 0 FROM worker WHERE drain = 1 AND id");
        query.push_in(batch.wishes.iter().map(|wish| wish.worker));
        let mut look = Look::default();
        let mut loads = BTreeMap::new();
        for row in &query.fetch_all(&self.reader).await? {
            match row.get::<String>("what")?.as_str() {
                "queue" => look.queues.push(Queue {
                    tenant: text(row, "tenant")?,
                    tier: text(row, "tier")?,
                    kind: text(row, "kind")?,
                    waiting: number(row, "amount")?,
                    oldest_ms: row.get("other")?,
                }),
                "running" => {
                    let tier: Tier = text(row, "tier")?;
                    let load = load_of(&mut loads, row.get("tenant")?)?;
                    *load.running.of_mut(tier) = number(row, "amount")?;
                }
                "share" => {
                    let load = load_of(&mut loads, row.get("tenant")?)?;
                    load.weight = optional_number(row, "amount")?.unwrap_or(1);
                    load.cap = optional_number(row, "other")?;
                }
                "drain" => drop(look.draining.insert(row.get("tenant")?)),
                _ => look.back_offs_over = true,
            }
        }
        look.tenants = loads.into_values().collect();
        Ok(look)
    }

    /// The assets and their plans, each read once. A plan is long and does not change until the next probe stores
    /// another, so it is remembered by when it was stored. Tasks whose asset or plan cannot be read are passed over.
    async fn work_of(
        &self,
        connection: &mut Connection,
        tasks: impl Iterator<Item = &TaskRow> + Clone,
    ) -> Result<HashMap<AssetId, (AssetRow, Option<Arc<Plan>>)>, CatalogError> {
        let pass_over = |asset: AssetId, error: CatalogError| {
            let of_it = tasks.clone().filter(|task| task.asset == asset);
            self.unreadable.pass_over(&of_it.map(|task| task.id).collect::<Vec<_>>(), error)
        };
        let mut query = sql("SELECT asset.*, publication.playback_id, plan.created_ms AS planned_ms
             FROM asset LEFT JOIN publication ON publication.asset = asset.id LEFT JOIN plan ON plan.asset = asset.id
             WHERE asset.id");
        query.push_in(tasks.clone().map(|task| task.asset).collect::<HashSet<_>>().into_iter());
        let mut work = HashMap::new();
        let mut unknown = HashMap::new();
        for row in &query.fetch_all(&mut *connection).await? {
            let asset = match AssetRow::read(row) {
                Ok(asset) => asset,
                Err(error) => {
                    pass_over(text(row, "id")?, error)?;
                    continue;
                }
            };
            let mut plan = None;
            if let Some(planned_ms) = row.get::<Option<i64>>("planned_ms")? {
                plan = self.plans.get(asset.id, planned_ms);
                if plan.is_none() {
                    unknown.insert(asset.id, planned_ms);
                }
            }
            work.insert(asset.id, (asset, plan));
        }
        if unknown.is_empty() {
            return Ok(work);
        }
        let mut query = sql("SELECT asset, plan, created_ms FROM plan WHERE asset");
        query.push_in(unknown.keys().copied());
        for row in &query.fetch_all(connection).await? {
            let asset: AssetId = text(row, "asset")?;
            match json::<Plan>(row, "plan") {
                Ok(read) => {
                    let read = Arc::new(read);
                    self.plans.remember(asset, row.get("created_ms")?, &read);
                    if let Some((_, plan)) = work.get_mut(&asset) {
                        *plan = Some(read);
                    }
                }
                Err(error) => {
                    pass_over(asset, error)?;
                    work.remove(&asset);
                }
            }
        }
        Ok(work)
    }

    /// The next tasks of each picked queue that nobody else is about to lease, without those that cannot be read.
    async fn take_oldest(
        &self,
        connection: &mut Connection,
        picks: &[Pick],
    ) -> Result<Vec<TaskRow>, CatalogError> {
        if picks.is_empty() {
            return Ok(Vec::new());
        }
        let passed_over = self.unreadable.passed_over();
        let found = match connection.engine() {
            Engine::Sqlite => take_one_by_one(connection, picks, &passed_over).await?,
            Engine::Postgres => take_together(picks, &passed_over).fetch_all(connection).await?,
        };
        let mut tasks = Vec::with_capacity(found.len());
        for row in &found {
            match TaskRow::read(row) {
                Ok(task) => tasks.push(task),
                Err(error) => self.unreadable.pass_over(&[text(row, "id")?], error)?,
            }
        }
        Ok(tasks)
    }
}

/// The wishes as slots, without those of workers that are to take nothing new.
fn open_slots(wishes: &[ClaimWish], draining: &HashSet<String>) -> Vec<Slots> {
    let free = |wish: &ClaimWish| if draining.contains(&wish.worker.to_string()) { 0 } else { wish.slots };
    wishes.iter().map(|wish| Slots { kinds: wish.kinds.clone(), free: free(wish) }).collect()
}

fn load_of(loads: &mut BTreeMap<String, TenantLoad>, name: String) -> Result<&mut TenantLoad, CatalogError> {
    let tenant: TenantId = name
        .parse()
        .map_err(|error| CatalogError::Unreadable { what: "tenant", reason: format!("{name:?}: {error}") })?;
    let fresh = TenantLoad { tenant, weight: 1, cap: None, running: reelyard_schedule::Running::default() };
    Ok(loads.entry(name).or_insert(fresh))
}

/// The head of every queue that nobody has paused, and how many wait in it, up to `most`: counted in the order of the
/// index, or PostgreSQL collects all of the queue first.
fn heads(most: u32) -> Sql {
    let most = i64::from(most);
    let mut query = either(
        "SELECT 'queue' AS what, tenant AS tenant, tier AS tier, kind AS kind, COUNT(*) AS amount, MIN(created_ms) AS other
         FROM task WHERE state = 'ready' AND kind NOT IN (SELECT kind FROM queue_pause) AND ",
        "WITH RECURSIVE head AS (
             (SELECT tenant, tier, kind FROM task WHERE state = 'ready' ORDER BY tenant, tier, kind LIMIT 1)
             UNION ALL
             SELECT following.tenant, following.tier, following.kind FROM head, LATERAL (
                 SELECT task.tenant, task.tier, task.kind FROM task
                 WHERE state = 'ready'
                   AND (task.tenant, task.tier, task.kind) > (head.tenant, head.tier, head.kind)
                 ORDER BY task.tenant, task.tier, task.kind LIMIT 1) AS following)
         SELECT 'queue' AS what, head.tenant AS tenant, head.tier AS tier, head.kind AS kind,
                (SELECT COUNT(*) FROM (SELECT 1 FROM task WHERE state = 'ready' AND task.tenant = head.tenant
                    AND task.tier = head.tier AND task.kind = head.kind
                    ORDER BY priority DESC, created_ms, id LIMIT ",
    );
    query.push_bind(most).push_either(
        " > 0 GROUP BY tenant, tier, kind",
        ") AS counted) AS amount,
                (SELECT created_ms FROM task WHERE state = 'ready' AND task.tenant = head.tenant
                    AND task.tier = head.tier AND task.kind = head.kind
                 ORDER BY priority DESC, created_ms, id LIMIT 1) AS other
         FROM head WHERE head.kind NOT IN (SELECT kind FROM queue_pause)",
    );
    query
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

async fn take_one_by_one(
    connection: &mut Connection,
    picks: &[Pick],
    passed_over: &[TaskId],
) -> Result<Vec<Row>, CatalogError> {
    let mut found = Vec::new();
    for pick in picks {
        let mut query =
            sql("SELECT * FROM task WHERE state = 'ready' AND tenant = ? AND tier = ? AND kind = ?")
                .bind(pick.tenant)
                .bind(pick.tier.as_str())
                .bind(pick.kind.as_str());
        push_without(&mut query, passed_over);
        query.push(" ORDER BY priority DESC, created_ms, id LIMIT ").push_bind(pick.count);
        found.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(found)
}

/// The same in one statement, in the words of PostgreSQL.
fn take_together(picks: &[Pick], passed_over: &[TaskId]) -> Sql {
    let row = |(place, pick): (i64, &Pick)| {
        let Pick { tenant, tier, kind, count } = *pick;
        [tenant.into(), tier.as_str().into(), kind.as_str().into(), count.into(), place.into()]
    };
    let mut query = sql("SELECT task.* FROM ");
    query.push_rows((0i64..).zip(picks).map(row).collect(), "pick").push(
        ", LATERAL (SELECT * FROM task WHERE state = 'ready' AND tenant = pick.column1 AND tier = pick.column2
             AND kind = pick.column3",
    );
    push_without(&mut query, passed_over);
    query.push(
        " ORDER BY priority DESC, created_ms, id LIMIT pick.column4 FOR NO KEY UPDATE SKIP LOCKED) AS task
         ORDER BY pick.column5, task.priority DESC, task.created_ms, task.id",
    );
    query
}

fn push_without(query: &mut Sql, tasks: &[TaskId]) {
    if !tasks.is_empty() {
        query.push(" AND NOT id").push_in(tasks.iter().copied());
    }
}

/// The one change of state of this file, for all of them in one statement; the machine decides for each.
async fn lease(
    write: &mut Write,
    batch: &ClaimBatch,
    leased: &mut [(usize, TaskRow)],
) -> Result<(), CatalogError> {
    let lease_until_ms = batch.now_ms.saturating_add_unsigned(batch.lease_ms);
    let mut query = sql("UPDATE task SET state = 'leased', attempt = attempt + 1, worker = given.column2, ");
    query
        .push("claim = given.column3, lease_until_ms = ")
        .push_bind(lease_until_ms)
        .push(", started_ms = ")
        .push_bind(batch.now_ms);
    query.push(", updated_ms = ").push_bind(batch.now_ms).push(", finished_ms = NULL, done_us = 0 FROM ");
    let row = |(wish, task): &(usize, TaskRow)| {
        let wish = &batch.wishes[*wish];
        [task.id.into(), wish.worker.into(), wish.claim.map(|claim| claim.to_string()).into()]
    };
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
