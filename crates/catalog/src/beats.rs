//! Heartbeats, many at a time: one statement prolongs what may be prolonged, and only the others are looked at.

use crate::{
    Catalog, CatalogError, HeartbeatAnswer,
    rows::{number, text},
    sql::sql,
};
use reelyard_model::{TaskId, TaskState, work::Progress};
use std::collections::{HashMap, HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub task: TaskId,
    pub attempt: u32,
    pub progress: Progress,
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
        let mut write = self.write().await?;
        // In the order of all who take several rows of this table.
        let mut rows = sql("SELECT id FROM task WHERE id IN (");
        rows.push_list(beats.iter().map(|beat| beat.task)).push(") ORDER BY id");
        write.connection().lock(rows).await?;
        let mut query = sql("UPDATE task SET lease_until_ms = ");
        query.push_bind(now_ms.saturating_add_unsigned(lease_ms)).push(", updated_ms = ").push_bind(now_ms);
        query.push(", done_us = given.column3, total_us = given.column4 FROM (VALUES ");
        for (index, beat) in beats.iter().enumerate() {
            query.push(if index == 0 { "(" } else { ", (" }).push_bind(beat.task).push(", ");
            query.push_bind(beat.attempt).push(", ").push_bind(beat.progress.done_us).push(", ");
            query.push_bind(beat.progress.total_us).push(")");
        }
        query.push(
            ") AS given WHERE task.id = given.column1 AND task.attempt = given.column2 AND task.state = 'leased'
             RETURNING task.id",
        );
        let kept: Vec<String> = query.scalars(write.connection()).await?;
        self.commit(write).await?;
        let kept: HashSet<String> = kept.into_iter().collect();
        let others: Vec<&Heartbeat> =
            beats.iter().filter(|beat| !kept.contains(&beat.task.to_string())).collect();
        let states = self.states_of(&others).await?;
        beats
            .iter()
            .map(|beat| {
                Ok(match states.get(&beat.task) {
                    None if kept.contains(&beat.task.to_string()) => HeartbeatAnswer::Continue,
                    None => return Err(CatalogError::not_found("task", beat.task)),
                    Some((attempt, TaskState::Cancelled)) if *attempt == beat.attempt => {
                        HeartbeatAnswer::Cancelled
                    }
                    Some(_) => HeartbeatAnswer::Lost,
                })
            })
            .collect()
    }

    async fn states_of(
        &self,
        beats: &[&Heartbeat],
    ) -> Result<HashMap<TaskId, (u32, TaskState)>, CatalogError> {
        if beats.is_empty() {
            return Ok(HashMap::new());
        }
        let mut query = sql("SELECT id, attempt, state FROM task WHERE id IN (");
        query.push_list(beats.iter().map(|beat| beat.task)).push(")");
        let found = query.fetch_all(&self.reader).await?;
        found
            .iter()
            .map(|row| Ok((text(row, "id")?, (number(row, "attempt")?, text(row, "state")?))))
            .collect()
    }
}
