//! Heartbeats, many at a time: one statement prolongs what may be prolonged, and only the others are looked at.

use crate::{
    Catalog, CatalogError, HeartbeatAnswer,
    rows::{number, text},
    sql::sql,
};
use reelyard_model::{
    AssetId, TaskId, TaskState, TenantId,
    work::{Progress, TaskKind},
};
use std::collections::{HashMap, HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub task: TaskId,
    pub attempt: u32,
    pub progress: Progress,
}

/// What a task is, for who tells of it.
#[derive(Clone, Copy, Debug)]
pub struct TaskLabel {
    pub tenant: TenantId,
    pub asset: AssetId,
    pub kind: TaskKind,
    pub ordinal: u32,
}

impl Catalog {
    /// Prolongs the leases and stores the progress; in the order of the beats.
    pub async fn heartbeats(
        &self,
        beats: &[Heartbeat],
        lease_ms: u64,
        now_ms: i64,
    ) -> Result<Vec<HeartbeatAnswer>, CatalogError> {
        if beats.is_empty() {
            return Ok(Vec::new());
        }
        self.until_not_taken_back(|| self.heartbeats_once(beats, lease_ms, now_ms)).await
    }

    async fn heartbeats_once(
        &self,
        beats: &[Heartbeat],
        lease_ms: u64,
        now_ms: i64,
    ) -> Result<Vec<HeartbeatAnswer>, CatalogError> {
        let mut write = self.write().await?;
        // In the order of all who take several rows of this table.
        let mut rows = sql("SELECT id FROM task WHERE id");
        rows.push_in(beats.iter().map(|beat| beat.task)).push(" ORDER BY id");
        write.connection().lock(rows).await?;
        // Never backwards: a node that was stopped on the way here comes with an old time.
        let mut query = sql("UPDATE task SET lease_until_ms = GREATEST(lease_until_ms, ");
        query.push_bind(now_ms.saturating_add_unsigned(lease_ms)).push("), updated_ms = ").push_bind(now_ms);
        query.push(", done_us = given.column3, total_us = given.column4 FROM ");
        let row = |beat: &Heartbeat| {
            let Progress { done_us, total_us } = beat.progress;
            [beat.task.into(), beat.attempt.into(), done_us.into(), total_us.into()]
        };
        query.push_rows(beats.iter().map(row).collect(), "given").push(
            " WHERE task.id = given.column1 AND task.attempt = given.column2 AND task.state = 'leased'
             RETURNING task.id AS id, task.attempt AS attempt",
        );
        let prolonged = query.fetch_all(write.connection()).await?;
        self.commit(write).await?;
        // By attempt: one that slept through its lease may beat in the same batch as the one that has the task now.
        let kept = prolonged
            .iter()
            .map(|row| Ok((text(row, "id")?, number(row, "attempt")?)))
            .collect::<Result<HashSet<(TaskId, u32)>, CatalogError>>()?;
        let is_kept = |beat: &Heartbeat| kept.contains(&(beat.task, beat.attempt));
        let others: Vec<TaskId> = beats.iter().filter(|beat| !is_kept(beat)).map(|beat| beat.task).collect();
        let states = self.task_states(&others).await?;
        beats
            .iter()
            .map(|beat| {
                if is_kept(beat) {
                    return Ok(HeartbeatAnswer::Continue);
                }
                Ok(match states.get(&beat.task) {
                    Some((attempt, TaskState::Cancelled)) if *attempt == beat.attempt => {
                        HeartbeatAnswer::Cancelled
                    }
                    // Nor is one whose task there is not, as after a backup was put back.
                    Some(_) | None => HeartbeatAnswer::Lost,
                })
            })
            .collect()
    }

    /// Those that do not exist are left out.
    pub async fn task_labels(&self, tasks: &[TaskId]) -> Result<HashMap<TaskId, TaskLabel>, CatalogError> {
        if tasks.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sql("SELECT id, tenant, asset, kind, ordinal FROM task WHERE id");
        query.push_in(tasks.iter().copied());
        let found = query.fetch_all(&self.reader).await?;
        let label = |row: &crate::sql::Row| -> Result<TaskLabel, CatalogError> {
            Ok(TaskLabel {
                tenant: text(row, "tenant")?,
                asset: text(row, "asset")?,
                kind: text(row, "kind")?,
                ordinal: number(row, "ordinal")?,
            })
        };
        found.iter().map(|row| Ok((text(row, "id")?, label(row)?))).collect()
    }

    /// The newest attempt of each, and its state. Those that do not exist are left out.
    pub async fn task_states(
        &self,
        tasks: &[TaskId],
    ) -> Result<HashMap<TaskId, (u32, TaskState)>, CatalogError> {
        if tasks.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sql("SELECT id, attempt, state FROM task WHERE id");
        query.push_in(tasks.iter().copied());
        let found = query.fetch_all(&self.reader).await?;
        found
            .iter()
            .map(|row| Ok((text(row, "id")?, (number(row, "attempt")?, text(row, "state")?))))
            .collect()
    }
}
