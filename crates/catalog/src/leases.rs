//! Leases after the claim: kept by heartbeats, given back, or lost; and what became of attempts that did not work out.

use crate::sql::{Sql, sql};
use crate::{
    Catalog, CatalogError, Heartbeat, TaskRow, assets,
    rows::{json, number, optional_text, text, to_json},
    store::Write,
    tasks,
};
use reelyard_model::{
    Failure, FailureCode, TaskId, TaskState, WorkerId,
    retry_policy::{self, WhatNext},
    task_state::{self, TaskEvent},
    work::Progress,
};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatAnswer {
    Continue,
    Cancelled,
    /// The lease is over: another may have it.
    Lost,
}

/// Whose it was that a lease ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    OfTheWorker,
    /// Of the catalogue or of all nodes.
    OfOurs,
}

impl Catalog {
    /// One of [`Catalog::heartbeats`].
    pub async fn heartbeat(
        &self,
        task: TaskId,
        attempt: u32,
        progress: Progress,
        lease_ms: u64,
        now_ms: i64,
    ) -> Result<HeartbeatAnswer, CatalogError> {
        let answers = self.heartbeats(&[Heartbeat { task, attempt, progress }], lease_ms, now_ms).await?;
        answers.first().copied().ok_or_else(|| CatalogError::not_found("task", task))
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

    /// Gives back what these claims of this worker brought and are not known to have told: their answers were lost on the
    /// way. Nothing is counted against the tasks. Returns how many there were.
    pub async fn release_unheard(
        &self,
        worker: WorkerId,
        claims: &[Uuid],
        now_ms: i64,
    ) -> Result<u32, CatalogError> {
        if claims.is_empty() {
            return Ok(0);
        }
        let mut query = sql("SELECT id, attempt FROM task WHERE state = 'leased' AND worker = ");
        query.push_bind(worker).push(" AND claim").push_in(claims.iter().map(Uuid::to_string));
        self.release_all(query, now_ms).await
    }

    /// Gives back whatever this worker has, as it ends. Returns how many tasks there were.
    pub async fn release_all_of(&self, worker: WorkerId, now_ms: i64) -> Result<u32, CatalogError> {
        let query = sql("SELECT id, attempt FROM task WHERE state = 'leased' AND worker = ?").bind(worker);
        self.release_all(query, now_ms).await
    }

    async fn release_all(&self, found: Sql, now_ms: i64) -> Result<u32, CatalogError> {
        let mut released = 0;
        for row in &found.fetch_all(&self.reader).await? {
            released += u32::from(self.release(text(row, "id")?, number(row, "attempt")?, now_ms).await?);
        }
        Ok(released)
    }

    /// Ends all leases of workers that lived in this node's process, and forgets those workers. Called at the start of a
    /// server, when that process is known to be gone, before it adds its own. The server's end says nothing about the
    /// task, so it is given back; one that was there too often is counted as lost ([`retry_policy::restart_is_a_loss`]).
    /// `random` is uniform over u32.
    pub async fn end_in_process_leases(
        &self,
        node: &str,
        now_ms: i64,
        random: u32,
    ) -> Result<Vec<TaskRow>, CatalogError> {
        // Without a node: from before there were several.
        let found: Vec<String> = sql("SELECT id FROM task WHERE state = 'leased'
             AND worker IN (SELECT id FROM worker WHERE in_process = 1 AND (node IS NULL OR node = ?)) ORDER BY id")
        .bind(node)
        .scalars(&self.reader)
        .await?;
        let mut ended = Vec::with_capacity(found.len());
        for (index, id) in (0u32..).zip(&found) {
            let random = spread(random, index);
            let one = self.until_not_taken_back(|| self.end_in_process_lease(id, now_ms, random)).await?;
            ended.extend(one);
        }
        let mut write = self.write().await?;
        sql("DELETE FROM worker WHERE in_process = 1 AND (node IS NULL OR node = ?)")
            .bind(node)
            .execute(write.connection())
            .await?;
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
        let why = |times| format!("the server ended while it was at work, {times} times by now");
        restart(&mut write, &mut task, why, now_ms, random).await?;
        self.commit(write).await?;
        Ok(Some(task))
    }

    /// Leases that ran out: tried again after a while, or quarantined. One transaction for each, because losing a task
    /// may be the end of its asset, whose lock comes before the task's. Several nodes may look at once: what one of them
    /// has settled, the others find settled. `random` is uniform over u32.
    pub async fn lose_expired_leases(&self, now_ms: i64, random: u32) -> Result<Vec<TaskRow>, CatalogError> {
        self.end_expired_leases(Silence::OfTheWorker, now_ms, now_ms, random).await
    }

    /// Leases that ran out before `over_before_ms` and were not renewed since, because until then no heartbeat could be
    /// stored: the catalogue was away. That says nothing about the tasks, so they are given back as after a restart.
    pub async fn forgive_expired_leases(
        &self,
        over_before_ms: i64,
        now_ms: i64,
        random: u32,
    ) -> Result<Vec<TaskRow>, CatalogError> {
        self.end_expired_leases(Silence::OfOurs, over_before_ms.min(now_ms), now_ms, random).await
    }

    async fn end_expired_leases(
        &self,
        silence: Silence,
        over_before_ms: i64,
        now_ms: i64,
        random: u32,
    ) -> Result<Vec<TaskRow>, CatalogError> {
        let found: Vec<String> =
            sql("SELECT id FROM task WHERE state = 'leased' AND lease_until_ms < ? ORDER BY id")
                .bind(over_before_ms)
                .scalars(&self.reader)
                .await?;
        let mut lost = Vec::with_capacity(found.len());
        for (index, id) in (0u32..).zip(&found) {
            let random = spread(random, index);
            let one = self
                .until_not_taken_back(|| self.end_expired_lease(id, silence, over_before_ms, now_ms, random))
                .await;
            match one {
                Ok(one) => lost.extend(one),
                // The others are not to wait until somebody mends this one.
                Err(error) if error.is_of_one_row() => {
                    tracing::error!(task = id, %error, "leases: one that ran out could not be ended");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    async fn end_expired_lease(
        &self,
        id: &str,
        silence: Silence,
        over_before_ms: i64,
        now_ms: i64,
        random: u32,
    ) -> Result<Option<TaskRow>, CatalogError> {
        let mut write = self.write().await?;
        let Some(mut task) = still_leased(&mut write, id).await? else { return Ok(None) };
        if task.lease_until_ms.is_none_or(|until_ms| until_ms >= over_before_ms) {
            return Ok(None);
        }
        match silence {
            Silence::OfTheWorker => {
                let worker = task.worker.map_or_else(|| "unknown".to_owned(), |worker| worker.to_string());
                let why = format!("worker {worker} sent no heartbeat in time");
                lose(&mut write, &mut task, &why, now_ms, random).await?;
            }
            Silence::OfOurs => {
                let why =
                    |times| format!("the catalogue was away while it was at work, {times} times by now");
                restart(&mut write, &mut task, why, now_ms, random).await?;
            }
        }
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
    let mut ended = 0;
    for row in &found {
        match TaskRow::read(row) {
            Ok(mut task) => {
                tasks::move_task(write, &mut task, TaskEvent::BackOffOver, now_ms).await?;
                ended += 1;
            }
            Err(error) => tracing::error!(%error, "leases: a task stays in its back-off"),
        }
    }
    Ok(ended)
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

/// Its attempt ended through no fault of its own: back in line, unless that has happened too often to be chance.
async fn restart(
    write: &mut Write,
    task: &mut TaskRow,
    why: impl Fn(u32) -> String,
    now_ms: i64,
    random: u32,
) -> Result<(), CatalogError> {
    task.restart_count += 1;
    sql("UPDATE task SET restart_count = ? WHERE id = ?")
        .bind(task.restart_count)
        .bind(task.id)
        .execute(write.connection())
        .await?;
    if retry_policy::restart_is_a_loss(task.restart_count) {
        lose(write, task, &why(task.restart_count), now_ms, random).await
    } else {
        tasks::move_task(write, task, TaskEvent::Release, now_ms).await
    }
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

/// An attempt that did not work out.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFailure {
    pub attempt: u32,
    /// It went silent; else it told of its failure.
    pub lost: bool,
    pub worker: Option<WorkerId>,
    pub started_ms: Option<i64>,
    pub ended_ms: i64,
    /// With the last lines of the child's standard error.
    pub failure: Failure,
}

impl Catalog {
    /// What is known of the attempts of a task that did not work out, the last first.
    pub async fn task_failures(&self, task: TaskId) -> Result<Vec<TaskFailure>, CatalogError> {
        let found = sql("SELECT * FROM task_failure WHERE task = ? ORDER BY attempt DESC")
            .bind(task)
            .fetch_all(&self.reader)
            .await?;
        found
            .iter()
            .map(|row| {
                Ok(TaskFailure {
                    attempt: number(row, "attempt")?,
                    lost: row.get::<String>("outcome")? == LOST,
                    worker: optional_text(row, "worker")?,
                    started_ms: row.get("started_ms")?,
                    ended_ms: row.get("ended_ms")?,
                    failure: json(row, "failure")?,
                })
            })
            .collect()
    }
}

const FAILED: &str = "failed";
const LOST: &str = "lost";

async fn keep_evidence(
    write: &mut Write,
    task: &TaskRow,
    failure: &str,
    event: TaskEvent,
    now_ms: i64,
) -> Result<(), CatalogError> {
    let lost = matches!(event, TaskEvent::LoseForNow | TaskEvent::LoseForGood);
    sql("INSERT INTO task_failure (task, attempt, outcome, worker, started_ms, ended_ms, failure)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (task, attempt) DO NOTHING")
    .bind(task.id)
    .bind(task.attempt)
    .bind(if lost { LOST } else { FAILED })
    .bind(task.worker)
    .bind(task.started_ms)
    .bind(now_ms)
    .bind(failure)
    .execute(write.connection())
    .await?;
    Ok(())
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
    let told = to_json("failure", &failure)?;
    keep_evidence(write, task, &told, event, now_ms).await?;
    sql("UPDATE task SET failure = ?, not_before_ms = ? WHERE id = ?")
        .bind(told)
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
