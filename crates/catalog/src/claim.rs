//! Leases: a task is claimed by one worker at a time, kept by heartbeats, given back or lost.

use crate::sql::sql;
use crate::{
    AssetRow, Catalog, CatalogError, TaskRow, assets,
    rows::{json, to_json},
    store::Write,
    tasks,
};
use reelyard_model::{
    Failure, FailureCode, Plan, TaskId, TaskState, WorkerId,
    retry_policy::{self, WhatNext},
    task_state::{self, TaskEvent},
    work::{Progress, TaskKind},
};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatAnswer {
    Continue,
    Cancelled,
    /// The lease is over: another may have it.
    Lost,
}

impl Catalog {
    /// The most urgent ready task of these kinds, then the oldest, then the one with the smallest id (ids rise in the
    /// order in which the plan made its tasks), under a fresh lease and attempt.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claimed>, CatalogError> {
        // Looking costs no write lock: idle workers ask often.
        if request.kinds.is_empty() || !self.anything_to_claim(request).await? {
            return Ok(None);
        }
        let mut write = self.write().await?;
        end_back_offs(&mut write, request.now_ms).await?;
        let mut query = sql("SELECT * FROM task WHERE state = 'ready'");
        tasks::push_any_of(&mut query, "kind", request.kinds.iter().map(|kind| kind.as_str()));
        query.push(" ORDER BY priority DESC, created_ms, id LIMIT 1");
        let Some(row) = query.for_update_skip_locked().fetch_optional(write.connection()).await? else {
            self.commit(write).await?;
            return Ok(None);
        };
        let mut task = TaskRow::read(&row)?;
        task.attempt += 1;
        task.worker = Some(request.worker);
        task.lease_until_ms = Some(request.now_ms.saturating_add_unsigned(request.lease_ms));
        task.started_ms = Some(request.now_ms);
        task.done_us = 0;
        tasks::move_task(&mut write, &mut task, TaskEvent::Claim, request.now_ms).await?;
        sql("UPDATE task SET attempt = ?, started_ms = ?, done_us = 0 WHERE id = ?")
            .bind(task.attempt)
            .bind(request.now_ms)
            .bind(task.id.to_string())
            .execute(write.connection())
            .await?;
        let asset = assets::require(write.connection(), task.asset).await?;
        let plan = sql("SELECT plan FROM plan WHERE asset = ?")
            .bind(task.asset.to_string())
            .fetch_optional(write.connection())
            .await?;
        let plan = plan.as_ref().map(|row| json(row, "plan")).transpose()?;
        self.commit(write).await?;
        Ok(Some(Claimed { task, asset, plan }))
    }

    async fn anything_to_claim(&self, request: &ClaimRequest) -> Result<bool, CatalogError> {
        let mut query = sql(
            "SELECT EXISTS (SELECT 1 FROM task WHERE (state = 'ready' OR (state = 'retry_wait' AND not_before_ms <= ",
        );
        query.push_bind(request.now_ms).push("))");
        tasks::push_any_of(&mut query, "kind", request.kinds.iter().map(|kind| kind.as_str()));
        query.push(")");
        let anything: i64 = query.scalar(&self.reader).await?;
        Ok(anything != 0)
    }

    /// Prolongs the lease and stores the progress.
    pub async fn heartbeat(
        &self,
        id: TaskId,
        attempt: u32,
        progress: Progress,
        lease_ms: u64,
        now_ms: i64,
    ) -> Result<HeartbeatAnswer, CatalogError> {
        let mut write = self.write().await?;
        let task = tasks::require(write.connection(), id).await?;
        if task.attempt != attempt {
            return Ok(HeartbeatAnswer::Lost);
        }
        if task.state == TaskState::Cancelled {
            return Ok(HeartbeatAnswer::Cancelled);
        }
        if task_state::next(task.state, TaskEvent::Heartbeat).is_err() {
            return Ok(HeartbeatAnswer::Lost);
        }
        sql("UPDATE task SET lease_until_ms = ?, done_us = ?, total_us = ?, updated_ms = ? WHERE id = ?")
            .bind(now_ms.saturating_add_unsigned(lease_ms))
            .bind(progress.done_us)
            .bind(progress.total_us)
            .bind(now_ms)
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        self.commit(write).await?;
        Ok(HeartbeatAnswer::Continue)
    }

    /// The worker gives the task back unharmed (it is being shut down). False: it was not its any more.
    pub async fn release(&self, id: TaskId, attempt: u32, now_ms: i64) -> Result<bool, CatalogError> {
        let mut write = self.write().await?;
        let mut task = tasks::require(write.connection(), id).await?;
        if task.attempt != attempt || task_state::next(task.state, TaskEvent::Release).is_err() {
            return Ok(false);
        }
        tasks::move_task(&mut write, &mut task, TaskEvent::Release, now_ms).await?;
        self.commit(write).await?;
        Ok(true)
    }

    /// Ends all leases of workers that lived in a server process, and forgets those workers. Called at the start of a
    /// server, when that process is known to be gone, before it adds its own. The server's end says nothing about the
    /// task, so it is given back; one that was there too often is counted as lost ([`retry_policy::restart_is_a_loss`]).
    /// `random` is uniform over u32.
    pub async fn end_in_process_leases(
        &self,
        now_ms: i64,
        random: u32,
    ) -> Result<Vec<TaskRow>, CatalogError> {
        let found: Vec<String> = sql("SELECT id FROM task WHERE state = 'leased'
             AND worker IN (SELECT id FROM worker WHERE in_process = 1) ORDER BY id")
        .scalars(&self.reader)
        .await?;
        let mut ended = Vec::with_capacity(found.len());
        for (index, id) in (0u32..).zip(&found) {
            let random = spread(random, index);
            let one = self.until_not_taken_back(|| self.end_in_process_lease(id, now_ms, random)).await?;
            ended.extend(one);
        }
        let mut write = self.write().await?;
        sql("DELETE FROM worker WHERE in_process = 1").execute(write.connection()).await?;
        self.commit(write).await?;
        Ok(ended)
    }

    async fn end_in_process_lease(
        &self,
        id: &str,
        now_ms: i64,
        random: u32,
    ) -> Result<Option<TaskRow>, CatalogError> {
        let mut write = self.write().await?;
        let Some(mut task) = still_leased(&mut write, id).await? else { return Ok(None) };
        task.restart_count += 1;
        sql("UPDATE task SET restart_count = ? WHERE id = ?")
            .bind(task.restart_count)
            .bind(task.id)
            .execute(write.connection())
            .await?;
        if retry_policy::restart_is_a_loss(task.restart_count) {
            let why = format!("the server ended while it was at work, {} times by now", task.restart_count);
            lose(&mut write, &mut task, &why, now_ms, random).await?;
        } else {
            tasks::move_task(&mut write, &mut task, TaskEvent::Release, now_ms).await?;
        }
        self.commit(write).await?;
        Ok(Some(task))
    }

    /// Leases that ran out: tried again after a while, or quarantined. One transaction for each, because losing a task
    /// may be the end of its asset, whose lock comes before the task's. Several nodes may look at once: what one of them
    /// has settled, the others find settled. `random` is uniform over u32.
    pub async fn lose_expired_leases(&self, now_ms: i64, random: u32) -> Result<Vec<TaskRow>, CatalogError> {
        let found: Vec<String> =
            sql("SELECT id FROM task WHERE state = 'leased' AND lease_until_ms < ? ORDER BY id")
                .bind(now_ms)
                .scalars(&self.reader)
                .await?;
        let mut lost = Vec::with_capacity(found.len());
        for (index, id) in (0u32..).zip(&found) {
            let random = spread(random, index);
            let one = self.until_not_taken_back(|| self.lose_expired_lease(id, now_ms, random)).await?;
            lost.extend(one);
        }
        Ok(lost)
    }

    async fn lose_expired_lease(
        &self,
        id: &str,
        now_ms: i64,
        random: u32,
    ) -> Result<Option<TaskRow>, CatalogError> {
        let mut write = self.write().await?;
        let Some(mut task) = still_leased(&mut write, id).await? else { return Ok(None) };
        if task.lease_until_ms.is_none_or(|until_ms| until_ms >= now_ms) {
            return Ok(None);
        }
        let worker = task.worker.map_or_else(|| "unknown".to_owned(), |worker| worker.to_string());
        let why = format!("worker {worker} sent no heartbeat in time");
        lose(&mut write, &mut task, &why, now_ms, random).await?;
        self.commit(write).await?;
        Ok(Some(task))
    }

    /// Tasks whose back-off is over become ready, so that they show as such. Returns how many.
    pub async fn end_back_offs(&self, now_ms: i64) -> Result<usize, CatalogError> {
        let due: i64 = sql("SELECT COUNT(*) FROM task WHERE state = 'retry_wait' AND not_before_ms <= ?")
            .bind(now_ms)
            .scalar(&self.reader)
            .await?;
        if due == 0 {
            return Ok(0);
        }
        let mut write = self.write().await?;
        let ended = end_back_offs(&mut write, now_ms).await?;
        self.commit(write).await?;
        Ok(ended)
    }
}

async fn end_back_offs(write: &mut Write, now_ms: i64) -> Result<usize, CatalogError> {
    // What somebody else holds becomes ready by that one, or the next time.
    let found = sql("SELECT * FROM task WHERE state = 'retry_wait' AND not_before_ms <= ?")
        .bind(now_ms)
        .for_update_skip_locked()
        .fetch_all(write.connection())
        .await?;
    for row in &found {
        let mut task = TaskRow::read(row)?;
        tasks::move_task(write, &mut task, TaskEvent::BackOffOver, now_ms).await?;
    }
    Ok(found.len())
}

/// The row as it is now, locked with its content: a heartbeat may have come, another node may have been quicker, and
/// losing one task for good cancels the others of its asset, which may be in the same list.
async fn still_leased(write: &mut Write, id: &str) -> Result<Option<TaskRow>, CatalogError> {
    let id: TaskId = id
        .parse()
        .map_err(|error| CatalogError::Unreadable { what: "task", reason: format!("{id}: {error}") })?;
    write.lock_content_of_task(id).await?;
    let task = tasks::require(write.connection(), id).await?;
    Ok((task.state == TaskState::Leased).then_some(task))
}

/// Weyl steps of the golden ratio spread one random number over a list.
fn spread(random: u32, index: u32) -> u32 {
    random.wrapping_add(index.wrapping_mul(0x9E37_79B9))
}

async fn lose(
    write: &mut Write,
    task: &mut TaskRow,
    why: &str,
    now_ms: i64,
    random: u32,
) -> Result<(), CatalogError> {
    task.lost_count += 1;
    let detail = format!("{why} (attempt {}, loss {})", task.attempt, task.lost_count);
    let failure = Failure::new(FailureCode::LeaseLost, detail);
    let what_next = retry_policy::after_loss(task.lost_count, random);
    sql("UPDATE task SET lost_count = ? WHERE id = ?")
        .bind(task.lost_count)
        .bind(task.id.to_string())
        .execute(write.connection())
        .await?;
    let event = match what_next {
        WhatNext::RetryAfter { .. } => TaskEvent::LoseForNow,
        WhatNext::GiveUp => TaskEvent::LoseForGood,
    };
    settle_failure(write, task, failure, event, what_next, now_ms).await
}

/// Stores the failure, moves the task, and tells the asset when the task is dead.
pub(crate) async fn settle_failure(
    write: &mut Write,
    task: &mut TaskRow,
    failure: Failure,
    event: TaskEvent,
    what_next: WhatNext,
    now_ms: i64,
) -> Result<(), CatalogError> {
    task.not_before_ms = match what_next {
        WhatNext::RetryAfter { wait_ms } => now_ms.saturating_add_unsigned(wait_ms),
        WhatNext::GiveUp => 0,
    };
    sql("UPDATE task SET failure = ?, not_before_ms = ? WHERE id = ?")
        .bind(to_json("failure", &failure)?)
        .bind(task.not_before_ms)
        .bind(task.id.to_string())
        .execute(write.connection())
        .await?;
    task.failure = Some(failure);
    tasks::move_task(write, task, event, now_ms).await?;
    if task.state != TaskState::Dead {
        return Ok(());
    }
    if task.required {
        assets::fail_with(write, task, now_ms).await
    } else {
        assets::warn_without(write, task).await?;
        tasks::unblock_dependents(write, task, now_ms).await
    }
}
