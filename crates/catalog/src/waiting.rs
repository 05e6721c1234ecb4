//! What is known of tasks that are not at work: the facts from which `reelyard_schedule::why_waiting` says in one
//! sentence what each waits for. Counted for a whole page of a list at once, so that a page costs a few statements and
//! not a few for each row.

use crate::{
    Catalog, CatalogError, QueuePause, ReadyQueue, TaskRow, WorkerRow,
    rows::{number, text},
    sql::sql,
};
use reelyard_model::{FailureCode, TaskId, TaskState, TenantId, work::TaskKind};
use reelyard_schedule::{Ahead, Facts, LastTry, Need, Pause};
use std::collections::{BTreeSet, HashMap};

/// A worker that was not heard of for so long is not counted on: it calls every few seconds.
pub const WORKER_SILENT_AFTER_MS: i64 = 60_000;

/// Workers that take a kind of task, and how many of them take nothing new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takers {
    pub workers: u32,
    pub draining: u32,
}

impl Takers {
    /// Of these workers, those that are alive and take this kind.
    pub fn of(workers: &[WorkerRow], kind: TaskKind, now_ms: i64) -> Self {
        let alive = |worker: &&WorkerRow| {
            worker.ended_ms.is_none() && now_ms - worker.last_seen_ms <= WORKER_SILENT_AFTER_MS
        };
        let mut takers = Self::default();
        for worker in workers.iter().filter(alive).filter(|worker| takes(worker, kind)) {
            takers.workers += 1;
            takers.draining += u32::from(worker.drain);
        }
        takers
    }
}

/// Publishing is done by servers themselves, all else by machines; encoding needs a slot for heavy work.
fn takes(worker: &WorkerRow, kind: TaskKind) -> bool {
    let is_machine = worker.machine.get("cores").is_some();
    let slots = |name: &str| worker.machine.get(name).and_then(serde_json::Value::as_u64);
    match kind {
        TaskKind::Publish => worker.in_process && !is_machine,
        _ if !is_machine => false,
        TaskKind::Encode => slots("heavy_slots") != Some(0),
        TaskKind::Probe | TaskKind::Audio | TaskKind::Stills => {
            slots("heavy_slots") != Some(0) || slots("light_slots") != Some(0)
        }
    }
}

/// What is the same for all tasks of a look.
struct Surroundings {
    pauses: Vec<QueuePause>,
    workers: Vec<WorkerRow>,
    queues: Vec<ReadyQueue>,
    tenants: HashMap<TenantId, (u32, Option<u32>)>,
}

impl Catalog {
    /// For each task what it waits for, in their order. Tasks that do not wait cost nothing.
    pub async fn waiting_facts(&self, tasks: &[TaskRow], now_ms: i64) -> Result<Vec<Facts>, CatalogError> {
        let in_state = |state| tasks.iter().filter(move |task| task.state == state);
        let around = self.surroundings(in_state(TaskState::Ready), now_ms).await?;
        let places = self.places(in_state(TaskState::Ready).map(|task| task.id)).await?;
        let needs = self.needs(in_state(TaskState::Blocked).map(|task| task.id)).await?;
        Ok(tasks
            .iter()
            .map(|task| {
                let takers = Takers::of(&around.workers, task.kind, now_ms);
                let (in_its_tier, of_its_tenant) = places.get(&task.id).copied().unwrap_or_default();
                let higher = around
                    .queues
                    .iter()
                    .filter(|queue| queue.kind == task.kind && queue.tier.rank() < task.tier.rank());
                let (tenant_running, tenant_cap) =
                    around.tenants.get(&task.tenant).copied().unwrap_or_default();
                let pause = around.pauses.iter().find(|pause| pause.kind == task.kind);
                Facts {
                    state: task.state,
                    kind: task.kind,
                    tier: task.tier,
                    needs: needs.get(&task.id).cloned().unwrap_or_default(),
                    last_try: (task.state == TaskState::RetryWait).then(|| last_try(task)),
                    paused: pause.map(|pause| Pause { by: pause.paused_by.clone(), at_ms: pause.paused_ms }),
                    tenant_running,
                    tenant_cap,
                    workers: takers.workers,
                    workers_draining: takers.draining,
                    ahead: Ahead {
                        in_higher_tiers: higher.map(|queue| queue.waiting).sum(),
                        in_its_tier,
                        of_its_tenant,
                    },
                }
            })
            .collect())
    }

    async fn surroundings(
        &self,
        ready: impl Iterator<Item = &TaskRow>,
        now_ms: i64,
    ) -> Result<Surroundings, CatalogError> {
        let tenants: BTreeSet<TenantId> = ready.map(|task| task.tenant).collect();
        let mut around = Surroundings {
            pauses: Vec::new(),
            workers: Vec::new(),
            queues: Vec::new(),
            tenants: HashMap::new(),
        };
        if tenants.is_empty() {
            return Ok(around);
        }
        around.pauses = self.queue_pauses().await?;
        around.workers = self.workers(now_ms - WORKER_SILENT_AFTER_MS).await?;
        around.queues = self.ready_queues().await?;
        for tenant in tenants {
            let cap = self.tenant_share(tenant).await?.running_tasks;
            around.tenants.insert(tenant, (self.tenant_running(tenant).await?, cap));
        }
        Ok(around)
    }

    /// Of ready tasks: how many go before each in its kind and tier, and how many of these are of its tenant.
    async fn places(
        &self,
        ids: impl Iterator<Item = TaskId>,
    ) -> Result<HashMap<TaskId, (u64, u64)>, CatalogError> {
        let ids: Vec<TaskId> = ids.collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sql("SELECT id, in_tier, of_tenant FROM (SELECT id,
                 ROW_NUMBER() OVER (PARTITION BY kind, tier ORDER BY priority DESC, created_ms, id) - 1 AS in_tier,
                 ROW_NUMBER() OVER (PARTITION BY kind, tier, tenant ORDER BY priority DESC, created_ms, id) - 1
                     AS of_tenant
             FROM task WHERE state = 'ready') AS line WHERE id");
        query.push_in(ids.into_iter());
        let found = query.fetch_all(&self.reader).await?;
        found
            .iter()
            .map(|row| Ok((text(row, "id")?, (number(row, "in_tier")?, number(row, "of_tenant")?))))
            .collect()
    }

    /// Of blocked tasks: what each needs, kind by kind.
    async fn needs(
        &self,
        ids: impl Iterator<Item = TaskId>,
    ) -> Result<HashMap<TaskId, Vec<Need>>, CatalogError> {
        let ids: Vec<TaskId> = ids.collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sql("SELECT task_need.task AS waiting, needed.kind AS kind, COUNT(*) AS total,
                 CAST(SUM(CASE WHEN needed.state = 'done'
                     OR (needed.required = 0 AND needed.state IN ('dead', 'cancelled')) THEN 1 ELSE 0 END) AS BIGINT)
                     AS done
             FROM task_need JOIN task AS needed ON needed.id = task_need.needs WHERE task_need.task");
        query.push_in(ids.into_iter()).push(" GROUP BY task_need.task, needed.kind ORDER BY needed.kind");
        let found = query.fetch_all(&self.reader).await?;
        let mut needs: HashMap<TaskId, Vec<Need>> = HashMap::new();
        for row in &found {
            let need =
                Need { kind: text(row, "kind")?, done: number(row, "done")?, total: number(row, "total")? };
            needs.entry(text(row, "waiting")?).or_default().push(need);
        }
        Ok(needs)
    }
}

fn last_try(task: &TaskRow) -> LastTry {
    // A worker that fell silent has no words.
    let told = task.failure.as_ref().filter(|failure| failure.code != FailureCode::LeaseLost);
    let failure = told.map(|failure| failure.detail.clone());
    LastTry { until_ms: task.not_before_ms, tries: task.attempt, failure }
}
